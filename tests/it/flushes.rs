//! A flush that never reaches the device is the oldest lie about durability. These tests ask the kernel's own count of the
//! device's flushes: with `durable` each ack alone in flight costs at least one, with `memory` acks cost none.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use corelog::client::settings::Acks;

use crate::loopfs::{self, LoopFs};
use crate::support::{Broker, Home, can_serve, skip};
use crate::talk::{PATIENCE, Talk, batch, create};

const ACKS: u64 = 50;

/// Flush requests that a device has completed: field 16 of its `stat` (Documentation/block/stat.rst), from Linux 5.5 on.
fn flushes(stat: &Path) -> Option<u64> {
    fs::read_to_string(stat).ok()?.split_whitespace().nth(15)?.parse().ok()
}

/// The `stat` of the device under a directory.
fn device_stat(dir: &Path) -> Option<PathBuf> {
    let device = fs::metadata(dir).ok()?.dev();
    // makedev(3) as glibc packs it.
    let major = (device >> 8 & 0xfff) | (device >> 32 & !0xfff);
    let minor = (device & 0xff) | (device >> 12 & !0xff);
    let stat = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
    stat.exists().then_some(stat)
}

/// Flushes during so many acks, one after another.
fn flushes_of_acks(talk: &mut Talk, stat: &Path, topic: &str, acks: Acks) -> u64 {
    let before = flushes(stat).expect("counted before");
    for i in 0..ACKS {
        assert_eq!(talk.produce_to(topic, 0, batch(&i.to_be_bytes()), acks).error_code, 0);
    }
    flushes(stat).expect("counted before") - before
}

#[test]
fn every_durable_ack_flushes_the_device() {
    let test = "flushes::every_durable_ack_flushes_the_device";
    if !can_serve(test) {
        return;
    }
    let home = Home::new("flushes-durable");
    let Some(stat) = device_stat(&home.dir).filter(|stat| flushes(stat).is_some()) else {
        return skip(test, "the device of the test directory does not count flushes");
    };
    let broker = Broker::start(&home.data(), &[]);
    create(&mut broker.cluster(), "durable", 1, &[]);
    let mut talk = Talk::to(&broker.address);
    talk.produce("durable", batch(b"makes the files"));
    for acks in [Acks::All, Acks::Leader] {
        let count = flushes_of_acks(&mut talk, &stat, "durable", acks);
        assert!(count >= ACKS, "{count} flushes for {ACKS} acks={}", acks.text());
    }
}

/// On a device of its own, where every flush is the broker's.
#[test]
fn only_durable_acks_flush_the_device() {
    let test = "flushes::only_durable_acks_flush_the_device";
    if !can_serve(test) {
        return;
    }
    if let Some(what) = loopfs::missing() {
        return skip(test, what);
    }
    let home = Home::new("flushes-levels");
    let disk = LoopFs::build(&home.dir, 128);
    let stat = PathBuf::from(format!("/sys/block/{}/stat", disk.device_name()));
    if flushes(&stat).is_none() {
        return skip(test, "loop devices do not count flushes");
    }
    let broker = Broker::start(&disk.data(), &["log.segment.bytes=16777216"]);
    let mut cluster = broker.cluster();
    let slow = [("durability.flush.ms", "60000"), ("durability.flush.bytes", "1000000000")];
    create(&mut cluster, "durable", 1, &[]);
    create(&mut cluster, "written", 1, &[&[("durability", "written")], &slow[..]].concat());
    create(&mut cluster, "memory", 1, &[&[("durability", "memory")], &slow[..]].concat());
    let mut talk = Talk::to(&broker.address);
    for topic in ["durable", "written", "memory"] {
        talk.produce(topic, batch(b"makes the files"));
    }
    settle(&stat);
    let durable = flushes_of_acks(&mut talk, &stat, "durable", Acks::All);
    settle(&stat);
    let written = flushes_of_acks(&mut talk, &stat, "written", Acks::All);
    settle(&stat);
    let memory = flushes_of_acks(&mut talk, &stat, "memory", Acks::All);
    println!("flushes for {ACKS} acks: durable {durable}, written {written}, memory {memory}");
    assert!(durable >= ACKS, "{durable}");
    // Zeroing ahead and checkpoints of the other topic flush now and then.
    assert!(written <= ACKS / 5, "{written}");
    assert!(memory <= ACKS / 5, "{memory}");
    broker.stop(PATIENCE);
}

/// Waits until the device has been quiet for a while.
fn settle(stat: &Path) {
    let began = Instant::now();
    let mut last = flushes(stat);
    let mut quiet = Instant::now();
    while quiet.elapsed() < Duration::from_millis(300) && began.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
        let now = flushes(stat);
        if now != last {
            (last, quiet) = (now, Instant::now());
        }
    }
}
