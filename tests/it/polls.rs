//! Idle consumers: they wait on one shard for news of another, as many as there are, and take nothing that others need.

use corelog::base::limits::LANE_CREDITS_MAX;
use corelog::client::settings::Acks;
use corelog::wire::msg::FetchRequest;

use crate::support::{Broker, Home, can_serve};
use crate::talk::{Ask, FETCH, Talk, batch, create, one};

// Each held one of the 256 requests that a shard may have in work at another, until its wait was over.
#[test]
fn more_idle_consumers_than_credits_keep_nobody_waiting() {
    if !can_serve("polls::more_idle_consumers_than_credits_keep_nobody_waiting") {
        return;
    }
    let home = Home::new("polls-idle");
    let settings = ["shards=2", "memory=128MiB", "advertise=shards", "advertise.port=0"];
    let mut broker = Broker::start(&home.data(), &[&settings[..], &["shard.handover.requests=0"]].concat());
    let mut cluster = broker.cluster();
    create(&mut cluster, "t", 4, &[("durability", "written")]);
    cluster.list_topics().expect("brokers");
    // All by way of the first shard, where every other partition lives.
    let address = cluster.brokers().next().expect("a shard").address.clone();
    let mut writer = Talk::to(&address);
    let mut idle: Vec<(i32, Talk)> =
        (0..2 * (LANE_CREDITS_MAX as i32 + 44)).map(|i| (i % 2, Talk::to(&address))).collect();
    for (partition, talk) in &mut idle {
        let poll = Ask { partition: *partition, max_wait_ms: i32::MAX, min_bytes: 1, ..Ask::of("t") };
        talk.send(FETCH, &poll.request());
    }
    for round in 0..20 {
        let answer = writer.produce_to("t", 2 + round % 2, batch(b"for nobody"), Acks::All);
        assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(round / 2)));
    }
    for partition in 0..2 {
        assert_eq!(writer.produce_to("t", partition, batch(b"news"), Acks::All).error_code, 0);
    }
    for (partition, talk) in &mut idle {
        let answer = talk.receive::<FetchRequest>(FETCH).1;
        let data = one(one(answer.responses).partitions);
        let news = data.records.is_some_and(|records| !records.is_empty());
        assert!(data.error_code == 0 && news, "partition {partition}: {}", data.error_code);
    }
    let log = broker.log();
    assert!(broker.is_running() && !log.contains("panicked"), "{log}");
}
