//! An operator stops a broker and wants it gone within two seconds, whatever its clients do, and nothing to repair afterwards.

use std::time::{Duration, Instant};

use corelog::client::settings::Acks;
use corelog::wire::msg::FetchRequest;

use crate::support::{Broker, Home, can_serve};
use crate::talk::{Ask, FETCH, PATIENCE, Talk, batch, create};

const STOP_MAX: Duration = Duration::from_secs(2);

/// Idle connections, long polls, one in the middle of a frame, one that never reads.
fn crowd(address: &str) -> Vec<Talk> {
    (0..50)
        .map(|i| {
            let mut talk = Talk::to(address);
            match i % 5 {
                0 => {}
                1 => assert!(talk.send_bytes(&[0, 0, 1, 0, 0])),
                2 => talk.send_times(20, &Ask::of("stopped")),
                _ => talk.send_times(1, &Ask { max_wait_ms: 60_000, offset: 20, ..Ask::of("stopped") }),
            }
            talk
        })
        .collect()
}

fn stops_on(signal: &str) {
    let test = format!("stop::{signal}");
    if !can_serve(&test) {
        return;
    }
    let home = Home::new(&format!("stop-{signal}"));
    let mut broker = Broker::start(&home.data(), &[]);
    create(&mut broker.cluster(), "stopped", 1, &[]);
    let mut talk = Talk::to(&broker.address);
    for i in 0..20u8 {
        assert_eq!(talk.produce("stopped", batch(&[i; 30_000])).error_code, 0);
    }
    let mut crowd = crowd(&broker.address);
    std::thread::sleep(Duration::from_millis(200));
    let since = Instant::now();
    broker.signal(signal);
    assert_eq!(broker.wait(PATIENCE), Some(0), "an orderly end:\n{}", broker.log());
    let took = since.elapsed();
    assert!(took < STOP_MAX, "stopped after {took:?}:\n{}", broker.log());
    let (_, poll) = crowd[3].receive::<FetchRequest>(FETCH);
    assert_eq!(poll.responses[0].partitions[0].error_code, 0, "a long poll is answered, not dropped");
    let mut again = Broker::start(&home.data(), &[]);
    let log = again.log();
    assert!(
        !log.contains("recover") && !log.contains("torn"),
        "a clean stop leaves nothing to repair:\n{log}"
    );
    let mut talk = Talk::to(&again.address);
    assert_eq!(talk.values("stopped", 0).len(), 20);
    assert_eq!(talk.produce("stopped", batch(b"on")).base_offset, 20);
    again.assert_healthy();
}

#[test]
fn sigterm_ends_a_busy_broker_within_two_seconds() {
    stops_on("TERM");
}

#[test]
fn sigint_ends_a_busy_broker_within_two_seconds() {
    stops_on("INT");
}

/// While producers go on: what was acknowledged before the end is there afterwards.
#[test]
fn a_stop_under_load_loses_no_ack() {
    if !can_serve("stop::a_stop_under_load_loses_no_ack") {
        return;
    }
    let home = Home::new("stop-load");
    let mut broker = Broker::start(&home.data(), &[]);
    create(&mut broker.cluster(), "load", 4, &[]);
    let acked: Vec<i64> = std::thread::scope(|scope| {
        let producers: Vec<_> = (0..4)
            .map(|partition| {
                let address = broker.address.clone();
                scope.spawn(move || produce_until_closed(&address, partition))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(500));
        broker.signal("TERM");
        assert_eq!(broker.wait(PATIENCE), Some(0), "{}", broker.log());
        producers.into_iter().map(|p| p.join().expect("a producer")).collect()
    });
    let again = Broker::start(&home.data(), &[]);
    let mut talk = Talk::to(&again.address);
    for (partition, acked) in (0..).zip(acked) {
        assert!(acked > 0, "partition {partition} had acks");
        let data = talk.fetch_as(&Ask { partition, ..Ask::of("load") });
        assert!(data.high_watermark >= acked, "{} of {acked} acknowledged", data.high_watermark);
    }
}

/// Acks until the connection ends.
fn produce_until_closed(address: &str, partition: i32) -> i64 {
    let mut talk = Talk::to(address);
    let mut acked: i64 = 0;
    loop {
        match talk.try_produce("load", partition, batch(&acked.to_be_bytes()), Acks::All) {
            Some(answer) if answer.error_code == 0 => acked = answer.base_offset + 1,
            Some(_) => {}
            None => return acked,
        }
    }
}

/// The second request to stop does not wait for anything.
#[test]
fn a_second_sigterm_ends_at_once() {
    if !can_serve("stop::a_second_sigterm_ends_at_once") {
        return;
    }
    let home = Home::new("stop-twice");
    let mut broker = Broker::start(&home.data(), &[]);
    create(&mut broker.cluster(), "stopped", 1, &[]);
    let mut talk = Talk::to(&broker.address);
    assert_eq!(talk.produce("stopped", batch(&vec![7; 1_000_000])).error_code, 0);
    // Answers that nobody reads keep the first stop busy for its whole patience.
    let _crowd: Vec<Talk> = (0..4)
        .map(|_| {
            let mut talk = Talk::to(&broker.address);
            talk.send_times(40, &Ask::of("stopped"));
            talk
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    broker.signal("TERM");
    std::thread::sleep(Duration::from_millis(150));
    broker.signal("TERM");
    assert_eq!(broker.wait(Duration::from_secs(1)), Some(130), "{}", broker.log());
    let again = Broker::start(&home.data(), &[]);
    assert_eq!(Talk::to(&again.address).values("stopped", 0).len(), 1, "nothing acknowledged is lost");
}

// `timeout 5 corelog serve` signals its child and then its whole group: the stop was cut short by its own echo.
#[test]
fn a_request_to_stop_may_come_twice() {
    if !can_serve("stop::a_request_to_stop_may_come_twice") {
        return;
    }
    let home = Home::new("stop-echo");
    let mut broker = Broker::start(&home.data(), &[]);
    create(&mut broker.cluster(), "stopped", 1, &[("durability", "memory")]);
    assert_eq!(Talk::to(&broker.address).produce("stopped", batch(b"in memory alone")).error_code, 0);
    broker.signal("TERM");
    broker.signal("INT");
    assert_eq!(broker.wait(Duration::from_secs(10)), Some(0), "{}", broker.log());
    let again = Broker::start(&home.data(), &[]);
    assert_eq!(Talk::to(&again.address).values("stopped", 0).len(), 1, "an orderly stop keeps it");
}
