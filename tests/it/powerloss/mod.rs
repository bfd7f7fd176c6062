//! T2: power cuts replayed. A broker runs on a file system whose every block write and flush is logged; each ack notes how far the log
//! was flushed. Then disks are made that a cut could have left: everything up to a flush, and none, all, or any torn part of
//! what came after. On each a broker recovers, and every record whose ack was noted before the cut must be there.
//!
//! Needs root, FUSE, loop devices and `qemu-storage-daemon`, so it runs only when asked: `scripts/powerloss [STATES]` sets
//! `CORELOG_POWERLOSS`; `CORELOG_POWERLOSS_FS=xfs` takes XFS for ext4. `CORELOG_TEST_PLANTED=ack-before-flush` runs a broker with that bug, and the test then requires a loss.

pub mod rig;
mod writelog;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use corelog::client::admin::NewTopic;
use corelog::client::cluster::Cluster;
use corelog::client::consumer::Consumer;
use corelog::client::producer::Producer;
use corelog::client::settings::{Acks, Settings};
use corelog::wire::batch::build::NewRecord;

use crate::support::{Broker, fresh_dir, skip};
use rig::Rig;
use writelog::WriteLog;

const TOPIC: &str = "power";
const PARTITIONS: i32 = 8;
const WORKLOAD: Duration = Duration::from_secs(20);

/// How long it goes on for a first file to be recycled, on a slow disk or an emulated processor.
const RECYCLED_WITHIN: Duration = Duration::from_secs(300);

/// For fewer than `STATES_FEW` states.
const WORKLOAD_SHORT: Duration = Duration::from_secs(5);
const STATES_FEW: u64 = 10;

/// A record that was acknowledged, and the log's position when that was known.
struct Acked {
    partition: i32,
    offset: i64,
    tag: u64,
    position: u64,
}

/// A small generator: the states must be the same for the same seed.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

#[test]
fn nothing_acked_is_missing_after_a_power_cut() {
    let Ok(states) = std::env::var("CORELOG_POWERLOSS") else {
        let test = "powerloss::nothing_acked_is_missing_after_a_power_cut";
        return skip(test, "power cuts are replayed by scripts/powerloss (root, FUSE, loop devices)");
    };
    if let Some(what) = rig::missing() {
        panic!("power-loss replay was asked for and cannot run: missing {what}");
    }
    let states: u64 = states.parse().expect("CORELOG_POWERLOSS is a number of states");
    let planted = std::env::var("CORELOG_TEST_PLANTED").ok();
    let mut lost = 0;
    let mut flushes = Vec::new();
    for (round, mode) in ["shared", "each"].iter().enumerate() {
        let dir = fresh_dir("powerloss");
        let replayed = replay(&dir, mode, states.div_ceil(2), round as u64);
        lost += replayed.lost;
        flushes.push(replayed.flushes_per_commit);
        let _ = fs::remove_dir_all(&dir);
        if planted.is_some() && lost > 0 {
            break;
        }
    }
    if let [shared, each] = flushes[..] {
        let halfway = f64::midpoint(1.0, each);
        assert!(
            each > 1.0 && shared < halfway,
            "flushes for a commit: {shared:.2} shared, {each:.2} per file"
        );
    }
    match planted {
        None => assert_eq!(lost, 0, "states with a missing acked record"),
        Some(bug) => assert!(lost > 0, "planted bug {bug} was not found"),
    }
}

struct Replayed {
    /// States that lost something.
    lost: u64,
    flushes_per_commit: f64,
}

/// One workload and its states.
fn replay(dir: &Path, flush_mode: &str, states: u64, seed: u64) -> Replayed {
    let mut rig = Rig::build(&dir.join("rig"), 768);
    let data_dir = rig.mount.join("data");
    fs::create_dir_all(&data_dir).expect("data directory");
    let settings = [
        format!("log.flush.mode={flush_mode}"),
        // Small segments: many rolls, retention, recycled files.
        "log.segment.bytes=1048576".to_string(),
        "log.retention.bytes=2097152".to_string(),
        "log.retention.check.interval.ms=500".to_string(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    // A planted bug, if any, reaches the broker by its environment: see `broker/start.rs`.
    let broker = Broker::start(&data_dir, &settings);
    let (over, recycled) = (AtomicBool::new(false), Arc::new(AtomicUsize::new(0)));
    let acked = std::thread::scope(|scope| {
        scope.spawn(|| count_recycled(&data_dir, &recycled, &over));
        let time = if states < STATES_FEW { WORKLOAD_SHORT } else { WORKLOAD };
        let _over = Ends(&over);
        workload(&broker, &rig.log_path(), seed, time, &recycled)
    });
    let recycled = recycled.load(Ordering::Relaxed);
    let flushes_per_commit = flushes_per_commit(&broker);
    broker.kill();
    rig.finish();
    let log = WriteLog::open(&rig.log_path()).expect("the write log");
    println!(
        "{flush_mode}: {} acked records, {} block writes and flushes, {recycled} files recycled, {flushes_per_commit:.2} flushes for a commit",
        acked.len(),
        log.entries.len()
    );
    assert!(acked.len() > 100, "the workload did nothing");
    assert!(recycled > 0, "no segment was made of a retired one's file");
    let cuts = states_of(&log, &acked, states, seed);
    let mut states = States { rig: &rig, log: &log, flushed: 0, rng: Rng(seed) };
    // Without retention: what the check listed must still be there when it is fetched.
    let lost = states.run(dir, &acked, cuts, &settings[..2]);
    Replayed { lost, flushes_per_commit }
}

/// Also where a producer panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Segment files that got the name of a later segment while this looked: the same inode, born at the same time, as a file that is
/// made anew would not be. Counts some, not all.
fn count_recycled(data_dir: &Path, recycled: &AtomicUsize, over: &AtomicBool) {
    let mut names: BTreeMap<(u64, SystemTime), PathBuf> = BTreeMap::new();
    while !over.load(Ordering::Relaxed) {
        for partition in 0..PARTITIONS {
            let topics = fs::read_dir(data_dir).into_iter().flatten().flatten();
            let dirs = topics.filter_map(|topic| fs::read_dir(topic.path().join(partition.to_string())).ok());
            for file in
                dirs.flatten().flatten().filter(|file| file.path().extension().is_some_and(|e| e == "seg"))
            {
                // It may go at any moment.
                let Ok(born) = file.metadata().and_then(|m| Ok((m.ino(), m.created()?))) else { continue };
                let before = names.insert(born, file.path());
                let renamed = before.is_some_and(|before| before != file.path());
                recycled.fetch_add(usize::from(renamed), Ordering::Relaxed);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// By the broker's own count.
fn flushes_per_commit(broker: &Broker) -> f64 {
    let told: Value = serde_json::from_slice(&broker.cluster().shards().expect("figures")).expect("JSON");
    let shards = told["shards"].as_array().expect("a list");
    let sum = |field: &str| shards.iter().filter_map(|shard| shard[field].as_f64()).sum::<f64>();
    sum("flushes_total") / sum("commits_total").max(1.0)
}

/// Cuts in ascending order, each behind the first ack.
fn states_of(log: &WriteLog, acked: &[Acked], states: u64, seed: u64) -> Vec<usize> {
    let first = acked.iter().map(|a| a.position).min().unwrap_or(0);
    let mut rng = Rng(seed ^ 0xc0ffee);
    let span = log.entries.len() as u64 - first;
    let mut cuts: Vec<usize> = (0..states).map(|_| (first + rng.below(span) + 1) as usize).collect();
    cuts.sort_unstable();
    cuts
}

/// Produces for a while, with one request in flight and with several, and notes each ack.
fn workload(
    broker: &Broker,
    log: &Path,
    seed: u64,
    time: Duration,
    recycled: &Arc<AtomicUsize>,
) -> Vec<Acked> {
    let log = File::open(log).expect("the write log");
    let mut setup = Cluster::new(broker.settings());
    let topic = NewTopic {
        name: TOPIC.into(),
        partitions: PARTITIONS,
        replication: -1,
        configs: Vec::new(),
        validate_only: false,
    };
    setup.create_topic(&topic).expect("the topic");
    let producers: Vec<_> = (0..4u64)
        .map(|worker| {
            let in_flight = if worker % 2 == 0 { 1 } else { 5 };
            let settings = Settings {
                acks: Acks::All,
                idempotent: true,
                in_flight,
                linger: Duration::ZERO,
                batch_bytes: 2048,
                ..broker.settings()
            };
            let log = log.try_clone().expect("a handle");
            let (since, recycled) = (Instant::now(), Arc::clone(recycled));
            let goes_on = move || {
                let none = recycled.load(Ordering::Relaxed) == 0;
                since.elapsed() < if none { RECYCLED_WITHIN } else { time }
            };
            std::thread::spawn(move || produce(settings, worker, seed, &log, goes_on))
        })
        .collect();
    producers.into_iter().flat_map(|p| p.join().expect("a producer")).collect()
}

fn produce(settings: Settings, worker: u64, seed: u64, log: &File, goes_on: impl Fn() -> bool) -> Vec<Acked> {
    let mut rng = Rng(seed * 1000 + worker);
    let mut producer = Producer::new(Cluster::new(settings), TOPIC, worker).expect("a producer");
    let mut acked = Vec::new();
    let mut count = 0u64;
    while goes_on() {
        let tag = worker << 40 | count;
        let value = value_of(tag, rng.below(3000) as usize);
        let partition = rng.below(PARTITIONS as u64) as i32;
        let record = NewRecord { timestamp: -1, value: Some(&value), ..NewRecord::default() };
        producer.push(Some(partition), &record, tag).expect("push");
        count += 1;
        if rng.below(8) == 0 {
            producer.close_all().expect("send");
        }
        if rng.below(50) == 0 {
            std::thread::sleep(Duration::from_millis(rng.below(20)));
        }
        note(&mut producer, log, &mut acked);
    }
    producer.flush().expect("flush");
    note(&mut producer, log, &mut acked);
    acked
}

fn note(producer: &mut Producer, log: &File, acked: &mut Vec<Acked>) {
    let acks: Vec<_> = producer.take_acks().collect();
    // Read after the acks were received: later only weakens the check.
    let position = writelog::position(log).expect("the log's position");
    for ack in acks {
        for (i, tag) in ack.tags.iter().enumerate() {
            acked.push(Acked {
                partition: ack.partition,
                offset: ack.base_offset + i as i64,
                tag: *tag,
                position,
            });
        }
    }
}

/// A value that names its record and can be checked to the last byte.
fn value_of(tag: u64, len: usize) -> Vec<u8> {
    let mut value = tag.to_be_bytes().to_vec();
    let mut rng = Rng(tag);
    value.extend(std::iter::repeat_with(|| rng.next() as u8).take(len));
    value
}

struct States<'a> {
    rig: &'a Rig,
    log: &'a WriteLog,
    /// Entries that the running image holds.
    flushed: usize,
    rng: Rng,
}

impl States<'_> {
    fn run(&mut self, dir: &Path, acked: &[Acked], cuts: Vec<usize>, settings: &[&str]) -> u64 {
        let base = dir.join("running.img");
        fs::copy(self.rig.dir.join("base.img"), &base).expect("the base image");
        let mut lost = 0;
        for (number, cut) in cuts.into_iter().enumerate() {
            let image = self.make(&base, dir, cut, number);
            let missing = check(&image, dir, acked, cut as u64, settings);
            if let Some(what) = missing {
                println!("state {number}: cut behind entry {cut}: {what}");
                lost += 1;
            }
            fs::remove_file(&image).expect("the state's image");
        }
        lost
    }

    /// The disk of one cut: all entries up to the last flush before it, and a part of the rest.
    fn make(&mut self, base: &Path, dir: &Path, cut: usize, number: usize) -> PathBuf {
        let running = OpenOptions::new().write(true).open(base).expect("the running image");
        let flush = self.log.last_flush(cut);
        while self.flushed < flush {
            self.log.apply(self.flushed, &running, || true).expect("replay");
            self.flushed += 1;
        }
        drop(running);
        let image = dir.join("state.img");
        rig::run(Command::new("cp").arg("--sparse=always").arg(base).arg(&image));
        let file = OpenOptions::new().write(true).open(&image).expect("the state's image");
        for at in flush..cut {
            let keep = match number % 4 {
                0 => continue,
                1 => true,
                2 => self.rng.below(2) == 0,
                _ => {
                    let rng = &mut self.rng;
                    self.log.apply(at, &file, || rng.below(10) < 7).expect("replay");
                    continue;
                }
            };
            if keep {
                self.log.apply(at, &file, || true).expect("replay");
            }
        }
        image
    }
}

/// Mounts a state, recovers it twice, and looks for every record acked before the cut. Says what is missing.
fn check(image: &Path, dir: &Path, acked: &[Acked], cut: u64, settings: &[&str]) -> Option<String> {
    let device = rig::attach(image);
    let at = dir.join("state");
    fs::create_dir_all(&at).expect("a mount point");
    rig::FileSystem::asked().mount(&device, &at);
    let mut result = None;
    for _ in 0..2 {
        result = result.or(look(&at.join("data"), acked, cut, settings).err());
    }
    rig::umount(&at);
    rig::detach(&device);
    result
}

fn look(data_dir: &Path, acked: &[Acked], cut: u64, settings: &[&str]) -> Result<(), String> {
    let broker = Broker::try_start(data_dir, settings).map_err(|log| format!("no start: {log}"))?;
    let mut cluster = Cluster::new(broker.settings());
    let ranges = cluster.offset_ranges(TOPIC).map_err(|e| format!("offsets: {e}"))?;
    let starts: BTreeMap<i32, i64> = ranges.iter().map(|(p, (start, _))| (*p, *start)).collect();
    let mut found: BTreeMap<(i32, i64), u64> = BTreeMap::new();
    let mut consumer = Consumer::new(cluster, TOPIC, &starts);
    for (partition, (start, end)) in &ranges {
        if start == end {
            consumer.finish(*partition);
        }
    }
    while !consumer.is_done() {
        let mut full = Vec::new();
        let mut wrong = None;
        consumer
            .poll(&mut |record| {
                let value = record.value.unwrap_or_default();
                let tag = u64::from_be_bytes(value[..8].try_into().expect("a tag"));
                if value != value_of(tag, value.len() - 8) {
                    wrong =
                        Some(format!("partition {} offset {}: wrong bytes", record.partition, record.offset));
                }
                found.insert((record.partition, record.offset), tag);
                if record.offset + 1 >= ranges[&record.partition].1 {
                    full.push(record.partition);
                }
                ControlFlow::Continue(())
            })
            .map_err(|e| format!("fetch: {e}"))?;
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        full.into_iter().for_each(|partition| consumer.finish(partition));
    }
    for ack in acked.iter().filter(|a| a.position <= cut) {
        let start = starts.get(&ack.partition).copied().unwrap_or(0);
        // What retention removed is gone on purpose.
        if ack.offset >= start && found.get(&(ack.partition, ack.offset)) != Some(&ack.tag) {
            return Err(format!(
                "partition {} offset {} was acked and is not there",
                ack.partition, ack.offset
            ));
        }
    }
    broker.kill();
    Ok(())
}
