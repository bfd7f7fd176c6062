//! Connections that move between shards at the least occasion: what peers do meanwhile must not be lost, nor be paid for by others.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use corelog::client::producer::produce_request;
use corelog::client::settings::Acks;
use corelog::wire::msg::{MetadataRequest, ProduceRequest};

use crate::support::{Broker, Home, can_serve};
use crate::talk::{Ask, FETCH, PATIENCE, PRODUCE, Talk, batch, create, encode};

/// As many as there may be shards in these tests, so that most of them live elsewhere than a connection does.
const PARTITIONS: i32 = 4;

fn start(test: &str) -> Option<(Home, Broker)> {
    if !can_serve(&format!("moving::{test}")) {
        return None;
    }
    let home = Home::new(test);
    let broker = Broker::start(&home.data(), &["shard.handover.requests=4", "shard.handover.interval.ms=0"]);
    create(&mut broker.cluster(), "t", PARTITIONS, &[]);
    Some((home, broker))
}

/// It sends all it has and then no more, before the broker came to read it: each request is answered all the same.
#[test]
fn a_peer_that_sends_no_more_is_answered_to_the_end() {
    let Some((_home, mut broker)) = start("half_closed") else { return };
    for partition in 0..PARTITIONS {
        let produce = produce_request("t", partition, batch(&[7; 900]).into(), Acks::All, PATIENCE);
        let requests = encode(1, PRODUCE, &produce).repeat(400);
        let mut talk = Talk::to(&broker.address);
        let mut sending = talk.stream().try_clone().expect("an open socket");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                sending.write_all(&requests).expect("the broker reads");
                sending.shutdown(Shutdown::Write).expect("an open socket");
            });
            for offset in 0..400 {
                let (_, answer) = talk.receive::<ProduceRequest>(PRODUCE);
                let answer = &answer.responses[0].partition_responses[0];
                assert_eq!((answer.error_code, answer.base_offset), (0, offset), "partition {partition}");
            }
        });
        assert!(talk.frame().is_none(), "nobody is there any more");
    }
    broker.assert_healthy();
}

/// Whoever waits to move is not read meanwhile: receive buffers are few, and everybody's.
#[test]
fn requests_of_peers_that_wait_to_move_do_not_keep_receive_buffers() {
    let Some((_home, mut broker)) = start("waiting_to_move") else { return };
    let mut talk = Talk::to(&broker.address);
    for partition in 0..PARTITIONS {
        assert_eq!(talk.produce_to("t", partition, batch(b"one"), Acks::All).error_code, 0);
    }
    // A receive buffer each, and together less than what inboxes may hold.
    let behind = encode(9, 9, &MetadataRequest::default()).repeat(800);
    let ask = |partition, offset, max_wait_ms| {
        encode(1, FETCH, &Ask { partition, offset, max_wait_ms, ..Ask::of("t") }.request())
    };
    let peers: Vec<TcpStream> = (0..200)
        .map(|peer| {
            let mut peers = Talk::to(&broker.address);
            // The window is full with the poll, so that the move waits for it.
            let window = [ask(peer % PARTITIONS, 0, 0).repeat(3), ask(peer % PARTITIONS, 1, 60_000)].concat();
            assert!(peers.send_bytes(&window));
            for _ in 0..3 {
                peers.frame().expect("a fetch that need not wait");
            }
            let mut stream = peers.stream().try_clone().expect("an open socket");
            write_as_far_as_it_goes(&mut stream, &behind);
            stream
        })
        .collect();
    let began = Instant::now();
    let mut talk = Talk::to(&broker.address);
    for partition in 0..PARTITIONS {
        assert_eq!(talk.produce_to("t", partition, batch(b"two"), Acks::All).error_code, 0);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "served after {:?}", began.elapsed());
    broker.assert_healthy();
    drop(peers);
}

fn write_as_far_as_it_goes(stream: &mut TcpStream, mut bytes: &[u8]) {
    stream.set_write_timeout(Some(Duration::from_millis(20))).expect("an open socket");
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(e) => panic!("the broker closed the connection: {e}"),
        }
    }
}
