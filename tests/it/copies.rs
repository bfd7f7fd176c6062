//! Records leave in the memory that they were received in or read into: what is copied for their consumers is counted, and is next to nothing.

use std::process::Command;
use std::time::{Duration, Instant};

use corelog::client::settings::Acks;
use serde_json::Value;

use crate::support::{Broker, Home, can_serve};
use crate::talk::{Ask, PATIENCE, Talk, batch, create, unpack};

const PARTITIONS: i32 = 4;
const BATCHES: usize = 40;

/// Two shards, each with partitions of the topic, and a connection that stays where it is: half of its fetches are routed.
fn start(home: &Home) -> Broker {
    Broker::start(&home.data(), &["shards=2", "shard.handover.requests=0"])
}

/// Record bytes that all shards sent to consumers, and copied for them.
fn fetched(broker: &Broker) -> (u64, u64) {
    let output = Command::new(env!("CARGO_BIN_EXE_corelog"))
        .args(["cluster", "shards", "-b", &broker.address, "--format", "json"])
        .output()
        .expect("it runs");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows = document["shards"].as_array().expect("a list");
    let sum = |field: &str| rows.iter().map(|row| row[field].as_u64().expect("a figure")).sum();
    (sum("fetch_sent_bytes_total"), sum("fetch_copied_bytes_total"))
}

/// Reads all partitions to their ends, so many bytes at a time; returns how many record bytes came.
fn read_all(broker: &Broker, bytes_max: i32) -> u64 {
    let mut talk = Talk::to(&broker.address);
    let mut bytes = 0;
    for partition in 0..PARTITIONS {
        let mut offset = 0;
        while offset < BATCHES as i64 {
            let ask =
                Ask { partition, offset, partition_max_bytes: bytes_max, max_wait_ms: 1_000, ..Ask::of("t") };
            let data = talk.fetch_as(&ask);
            let records = data.records.as_deref().unwrap_or_default();
            bytes += records.len() as u64;
            offset = unpack(records).last().map_or(offset, |(last, _)| last + 1);
        }
    }
    bytes
}

/// The figures, once they tell of as many bytes as came; no more than one of a hundred was copied.
fn assert_uncopied(broker: &Broker, came: u64, how: &str) {
    let since = Instant::now();
    let (sent, copied) = loop {
        let (sent, copied) = fetched(broker);
        if sent >= came || since.elapsed() > PATIENCE {
            break (sent, copied);
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(sent, came, "{how}");
    assert!(copied * 100 <= sent, "{how}: {copied} of {sent} bytes were copied");
}

#[test]
fn records_are_fetched_without_copies_from_the_tail_and_from_disk_on_any_shard() {
    if !can_serve("copies::records_are_fetched_without_copies_from_the_tail_and_from_disk_on_any_shard") {
        return;
    }
    let home = Home::new("copies");
    let broker = start(&home);
    create(&mut broker.cluster(), "t", PARTITIONS, &[("durability", "written")]);
    let mut talk = Talk::to(&broker.address);
    for i in 0..BATCHES {
        for partition in 0..PARTITIONS {
            // From a batch that is just worth a part of its own on.
            let answer = talk.produce_to("t", partition, batch(&vec![7; 4_096 + 700 * i]), Acks::All);
            assert_eq!(answer.error_code, 0);
        }
    }
    let mut came = read_all(&broker, 16 << 20);
    assert_uncopied(&broker, came, "from the tail");
    // One batch at a time.
    came += read_all(&broker, 1);
    assert_uncopied(&broker, came, "from the tail, by batches");
    broker.stop(PATIENCE);

    let mut broker = start(&home);
    let mut came = read_all(&broker, 16 << 20);
    assert_uncopied(&broker, came, "from disk");
    came += read_all(&broker, 1);
    assert_uncopied(&broker, came, "from disk, by batches");
    broker.assert_healthy();
}
