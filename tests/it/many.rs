//! A broker with many partitions, most of them quiet: it starts, recovers and serves with few open files and the memory it was given.
//!
//! `PARTITIONS=10000 cargo test --release --test it many -- --nocapture` prints what they cost: see `perf/README.md`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use corelog::client::producer::{Producer, produce_request};
use corelog::client::settings::{Acks, Settings};
use corelog::wire::batch::build::NewRecord;

use crate::support::{Broker, Home, can_serve};
use crate::talk::{PATIENCE, PRODUCE, Talk, batch, create};

const PARTITIONS: i32 = 2_000;

/// Descriptors that the broker may have: far fewer than partitions.
const FILES_MAX: u32 = 512;

/// Descriptors of a broker that serves nobody: rings, listener, lock, epoll, the controller's files; no log among them.
const FILES_IDLE_MAX: usize = 64;

/// Partitions that are written to after a restart.
const AGAIN: i32 = 200;

/// Partitions that are written to at the same time.
const WAVE: usize = 100;

fn partitions() -> i32 {
    std::env::var("PARTITIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(PARTITIONS)
}

fn start(data: &Path, what: &str) -> Broker {
    let limit = ["sh", "-c", &format!("ulimit -n {FILES_MAX}; exec \"$@\""), "sh"].map(String::from);
    let since = Instant::now();
    let broker = Broker::start_under(&limit, data, &[]).unwrap_or_else(|log| panic!("{what}:\n{log}"));
    eprintln!("{what}: serves after {:.2} s", since.elapsed().as_secs_f64());
    look(&broker, what);
    broker
}

fn open_files(broker: &Broker) -> usize {
    fs::read_dir(format!("/proc/{}/fd", broker.pid())).expect("a running broker").count()
}

/// What a start writes down behind the scenes takes a few files for a moment.
fn await_idle_files(broker: &Broker) {
    let since = Instant::now();
    while open_files(broker) > FILES_IDLE_MAX {
        assert!(since.elapsed() < Duration::from_secs(20), "{} files are open", open_files(broker));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn cpu_ticks(broker: &Broker) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", broker.pid())).expect("a running broker");
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

fn look(broker: &Broker, what: &str) {
    let mib = broker.resident_bytes() >> 20;
    eprintln!(
        "{what}: {mib} MiB resident, {} descriptors, {} ticks of CPU",
        open_files(broker),
        cpu_ticks(broker)
    );
}

fn look_at_idle(broker: &Broker, what: &str) {
    let before = cpu_ticks(broker);
    std::thread::sleep(Duration::from_secs(5));
    eprintln!("{what}: {} ticks of CPU in 5 s", cpu_ticks(broker) - before);
}

/// One record to each of the first `count` partitions.
fn produce(broker: &Broker, count: i32, value: &[u8]) {
    let settings = Settings { acks: Acks::All, ..broker.settings() };
    let mut producer =
        Producer::new(corelog::client::cluster::Cluster::new(settings), "many", 1).expect("a producer");
    let since = Instant::now();
    let record = NewRecord { key: None, value: Some(value), ..NewRecord::default() };
    let all: Vec<i32> = (0..count).collect();
    for wave in all.chunks(WAVE) {
        wave.iter().for_each(|partition| producer.push(Some(*partition), &record, 0).expect("a record"));
        producer.flush().expect("all are acknowledged");
    }
    eprintln!("a record to each: {:.2} s", since.elapsed().as_secs_f64());
}

/// All have one record, the first `twice` have two.
fn check(broker: &Broker, twice: i32) {
    let ranges = broker.cluster().offset_ranges("many").expect("all partitions");
    assert_eq!(ranges.len(), partitions() as usize);
    let wrong = ranges.iter().find(|(p, range)| **range != (0, 1 + i64::from(**p < twice)));
    assert_eq!(wrong, None, "a partition without its records");
}

#[test]
fn many_partitions_start_recover_and_serve() {
    if !can_serve("many") {
        return;
    }
    let home = Home::new("many");
    let mut broker = start(&home.data(), "empty");
    // The records are of 1970: retention would take them once their segments are sealed.
    create(&mut broker.cluster(), "many", partitions(), &[("retention.ms", "-1")]);
    look(&broker, "created");
    broker.assert_healthy();
    produce(&broker, partitions(), b"first");
    check(&broker, 0);
    look(&broker, "one record each");
    broker.kill();

    let mut broker = start(&home.data(), "after SIGKILL");
    check(&broker, 0);
    await_idle_files(&broker);
    produce(&broker, AGAIN, b"second");
    check(&broker, AGAIN);
    look(&broker, "some have two");
    look_at_idle(&broker, "idle behind the last records");
    broker.assert_healthy();
    eprintln!("stop: {:.2} s", broker.stop(Duration::from_secs(60)).as_secs_f64());

    let broker = start(&home.data(), "after a stop");
    check(&broker, AGAIN);
    await_idle_files(&broker);
    look_at_idle(&broker, "idle after a stop");
}

/// A producer that starts sends its first records to all partitions in one request. A new broker has memory for about 60 of them at hand, and
/// refused the rest with plenty to be had.
#[test]
fn a_request_for_hundreds_of_new_partitions_is_taken_whole() {
    const COUNT: i32 = 200;
    if !can_serve("many") {
        return;
    }
    let home = Home::new("many-in-one");
    let mut broker = Broker::start(&home.data(), &[]);
    create(&mut broker.cluster(), "many", COUNT, &[]);
    let mut request = produce_request("many", 0, batch(b"first").into(), Acks::All, PATIENCE);
    let of_topic = &mut request.topic_data[0];
    for partition in 1..COUNT {
        let mut data = of_topic.partition_data[0].clone();
        data.index = partition;
        of_topic.partition_data.push(data);
    }
    let response = Talk::to(&broker.address).call(PRODUCE, &request);
    let parts: Vec<(i16, i64)> = response.responses[0]
        .partition_responses
        .iter()
        .map(|part| (part.error_code, part.base_offset))
        .collect();
    assert_eq!(parts, vec![(0, 0); COUNT as usize]);
    broker.assert_healthy();
}
