//! A long log whose indexes and producer snapshots are lost recovers whole and in bounded time: 2 s for a GiB is promised and measured by
//! `scripts/perf --only recovery`; this guards ten times of that, so that work which grows with the square of the log is seen.
//!
//! `CORELOG_FULL=1` writes a GiB, else an eighth of it is written and recovered within an eighth of the time, or `PATIENCE_MIN`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use corelog::wire::codec::Codec;

use crate::support::{Broker, Home, can_serve, full};
use crate::talk::{Talk, batch_of, create};

const TOPIC: &str = "long";

/// Records of a batch, and bytes of a record's value.
const RECORDS: usize = 64;
const VALUE_BYTES: usize = 8 << 10;

const PATIENCE_PER_GIB: Duration = Duration::from_secs(20);

/// What else the machine does counts for more in a short recovery.
const PATIENCE_MIN: Duration = Duration::from_secs(10);

/// Files of the partitions that are derived from segments.
fn derived(data: &Path) -> Vec<PathBuf> {
    let below = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = below(data.to_path_buf()).flat_map(below).flat_map(below);
    files.filter(|file| file.ends_with("producers") || file.extension().is_some_and(|e| e == "idx")).collect()
}

#[test]
fn a_long_log_without_its_indexes_recovers_in_bounded_time() {
    if !can_serve("recovery") {
        return;
    }
    let bytes = if full() { 1 << 30 } else { 1 << 27 };
    let batches = bytes / (RECORDS * VALUE_BYTES);
    let home = Home::new("recovery");
    let broker = Broker::start(&home.data(), &[]);
    // The records are of 1970.
    create(&mut broker.cluster(), TOPIC, 1, &[("retention.ms", "-1"), ("segment.bytes", "16777216")]);
    let mut talk = Talk::to(&broker.address);
    let value = |i: usize| -> Vec<u8> { (0..VALUE_BYTES).map(|at| (i * 31 + at) as u8).collect() };
    let values: Vec<Vec<u8>> = (0..RECORDS).map(value).collect();
    let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
    let batch = batch_of(Codec::None, &values);
    for number in 0..batches {
        let answer = talk.produce(TOPIC, batch.clone());
        assert_eq!((answer.error_code, answer.base_offset), (0, (number * RECORDS) as i64));
    }
    broker.kill();
    let lost = derived(&home.data());
    assert!(lost.len() >= bytes >> 25, "{} indexes of {} MiB", lost.len(), bytes >> 20);
    lost.iter().for_each(|file| fs::remove_file(file).expect("a file of ours"));

    let since = Instant::now();
    let broker = Broker::start(&home.data(), &[]);
    let mut talk = Talk::to(&broker.address);
    let end = (batches * RECORDS) as i64;
    assert_eq!(talk.list_offset(TOPIC, -1).offset, end);
    let took = since.elapsed();
    let patience = PATIENCE_PER_GIB.mul_f64(bytes as f64 / f64::from(1 << 30)).max(PATIENCE_MIN);
    println!("{} MiB recovered in {:.2} s", bytes >> 20, took.as_secs_f64());
    assert!(took < patience, "{} MiB took {took:?} to recover:\n{}", bytes >> 20, broker.log());
    let last = talk.values(TOPIC, end - 1);
    assert_eq!(last, [(end - 1, values[RECORDS - 1].to_vec())]);
    assert_eq!(talk.produce(TOPIC, batch).base_offset, end);
}
