//! A disk fills up and gets space again: produce is refused with KAFKA_STORAGE_ERROR, everything else goes on, and the broker
//! resumes by itself. What was acknowledged is there throughout.
//!
//! `CORELOG_FULL=1` fills twenty times instead of five.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use corelog::client::settings::Acks;
use corelog::wire::error::codes;
use corelog::wire::msg::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use corelog::wire::msg::{IncrementalAlterConfigsRequest, StrBytes};

use crate::loopfs::{self, LoopFs};
use crate::support::{Broker, Home, can_serve, full, skip};
use crate::talk::{Ask, PATIENCE, Talk, batch, create, one, sequenced, unpack};

/// How long after space is back produce may still be refused, on a loaded machine.
const RESUME_MAX: Duration = Duration::from_secs(10);

/// How long a stop may take.
const STOP_MAX: Duration = Duration::from_secs(2);

const VALUE_BYTES: usize = 250_000;

fn disk(test: &str, megabytes: u64) -> Option<(Home, LoopFs)> {
    let test = format!("disk_full::{test}");
    if !can_serve(&test) {
        return None;
    }
    if let Some(what) = loopfs::missing() {
        skip(&test, what);
        return None;
    }
    let home = Home::new(&test.replace("::", "-"));
    let disk = LoopFs::build(&home.dir, megabytes);
    Some((home, disk))
}

fn value(topic: &str, i: i64) -> Vec<u8> {
    let mut value = format!("{topic}/{i}/").into_bytes();
    value.resize(VALUE_BYTES, i as u8);
    value
}

/// An idempotent producer of one topic: a record that was refused is sent again under its number, wherever it is by then.
struct Pen {
    topic: String,
    producer: (i64, i16),
    /// Acknowledged so far: offsets and sequences are the same.
    acked: i64,
}

impl Pen {
    fn new(broker: &Broker, topic: &str, partitions: i32) -> Pen {
        let mut cluster = broker.cluster();
        // The records are stamped in 1970.
        create(&mut cluster, topic, partitions, &[("retention.ms", "-1")]);
        let (id, epoch) = cluster.init_producer_id().expect("an id");
        Pen { topic: topic.into(), producer: (id.0, epoch.0), acked: 0 }
    }

    /// Produces the next record; whether it was acknowledged.
    fn write(&mut self, talk: &mut Talk) -> bool {
        let bytes = sequenced(self.producer, self.acked as i32, &[&value(&self.topic, self.acked)]);
        let answer = talk.produce(&self.topic, bytes);
        match answer.error_code {
            0 => assert_eq!(answer.base_offset, self.acked),
            code => assert_eq!(code, codes::KAFKA_STORAGE_ERROR, "on a full disk"),
        }
        self.acked += i64::from(answer.error_code == 0);
        answer.error_code == 0
    }

    /// Produces until the broker refuses.
    fn fill(&mut self, talk: &mut Talk) {
        let began = Instant::now();
        while self.write(talk) {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "the disk never fills: {} records",
                self.acked
            );
        }
    }

    /// Produces until it is accepted again; how long that took.
    fn resume(&mut self, talk: &mut Talk) -> Duration {
        let began = Instant::now();
        while !self.write(talk) {
            assert!(began.elapsed() < RESUME_MAX, "space is back, and produce is still refused");
            std::thread::sleep(Duration::from_millis(20));
        }
        began.elapsed()
    }

    /// Every acknowledged record is there; the one that was refused last may be.
    fn assert_holds(&self, talk: &mut Talk) {
        let mut next = 0;
        while next < self.acked {
            let what = format!("{} at {next} of {}", self.topic, self.acked);
            let data = talk.fetch_as(&Ask { offset: next, max_bytes: 4 << 20, ..Ask::of(&self.topic) });
            assert_eq!(data.error_code, 0, "{what}");
            let found = unpack(&data.records.expect("records"));
            assert!(data.high_watermark - self.acked <= 1 && !found.is_empty(), "{what}");
            let from = next;
            for (offset, bytes) in found.into_iter().filter(|(offset, _)| *offset >= from) {
                assert!(offset == next && bytes == value(&self.topic, offset), "{what}: {offset}");
                next += 1;
            }
        }
    }
}

/// Fills with one topic, makes room by deleting it, and goes on with another, again and again.
fn fills_and_resumes(test: &str, megabytes: u64, settings: &[&str]) {
    let Some((_home, disk)) = disk(test, megabytes) else { return };
    let mut broker = Broker::start(&disk.data(), settings);
    let mut talk = Talk::to(&broker.address);
    let mut kept = Pen::new(&broker, "kept", 1);
    (0..20).for_each(|_| assert!(kept.write(&mut talk)));
    let (mut slowest, mut log) = (Duration::ZERO, String::new());
    for round in 0..if full() { 20 } else { 5 } {
        let mut filler = Pen::new(&broker, &format!("filler-{round}"), 1);
        filler.resume(&mut talk);
        filler.fill(&mut talk);
        assert!(filler.acked > 10, "round {round}: only {} records fit", filler.acked);
        kept.write(&mut talk);
        kept.assert_holds(&mut talk);
        filler.assert_holds(&mut talk);
        if round % 2 == 1 {
            // The next start must do with what is left, and may have no time to tell of it before there is more.
            log += &broker.log();
            match round % 4 {
                1 => assert!(broker.stop(PATIENCE) < STOP_MAX, "a full disk does not hold up a stop"),
                _ => broker.kill(),
            }
            broker = Broker::start(&disk.data(), settings);
            talk = Talk::to(&broker.address);
            kept.assert_holds(&mut talk);
            filler.assert_holds(&mut talk);
        }
        broker.cluster().delete_topic(&filler.topic).expect("deleting works on a full disk");
        slowest = slowest.max(kept.resume(&mut talk));
    }
    println!("{test}: resumed after at most {slowest:?}");
    kept.assert_holds(&mut talk);
    assert!(broker.is_running());
    log += &broker.log();
    assert!(!log.contains("panicked"), "{log}");
    if !settings.contains(&"log.free.bytes=0") {
        let told = ["the disk is nearly full", "there is space on the disk again"];
        assert!(told.iter().all(|words| log.contains(words)), "the operator is told:\n{log}");
    }
    broker.stop(PATIENCE);
}

#[test]
fn a_full_disk_refuses_and_resumes_above_the_floor() {
    fills_and_resumes("above_the_floor", 96, &["log.segment.bytes=4194304"]);
}

/// Without a floor of free space the file system itself says no.
#[test]
fn a_full_disk_refuses_and_resumes_without_a_floor() {
    fills_and_resumes("without_a_floor", 64, &["log.segment.bytes=4194304", "log.free.bytes=0"]);
}

// The log lay on the full disk: the line that told of that could not be written, and the attempt to tell of it ended the shard.
#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    if !can_serve("disk_full::a_log_that_cannot_be_written_ends_nothing") {
        return;
    }
    let home = Home::new("disk_full-log");
    let launcher = ["sh", "-c", "exec \"$@\" 2>/dev/full", "sh"].map(str::to_string);
    let mut broker = Broker::start_under(&launcher, &home.data(), &[]).expect("it starts");
    create(&mut broker.cluster(), "t", 1, &[]);
    assert_eq!(Talk::to(&broker.address).produce("t", batch(b"x")).error_code, 0);
    broker.signal("TERM");
    assert_eq!(broker.wait(PATIENCE), Some(0));
}

/// Somebody else's file takes the space, and gives it back.
#[test]
fn space_taken_by_others_is_noticed_both_ways() {
    let Some((_home, disk)) = disk("taken_by_others", 96) else { return };
    let settings = ["log.segment.bytes=2097152"];
    let mut broker = Broker::start(&disk.data(), &settings);
    let mut pen = Pen::new(&broker, "t", 2);
    let mut talk = Talk::to(&broker.address);
    for _ in 0..if full() { 10 } else { 2 } {
        let hog = disk.mount.join("hog");
        take_space(&hog);
        pen.fill(&mut talk);
        pen.assert_holds(&mut talk);
        std::thread::sleep(Duration::from_millis(1200));
        let other = talk.produce_to("t", 1, batch(b"x"), Acks::All);
        assert_eq!(other.error_code, codes::KAFKA_STORAGE_ERROR, "every partition of the disk");
        std::fs::remove_file(&hog).expect("ours");
        println!("resumed after {:?}", pen.resume(&mut talk));
        pen.assert_holds(&mut talk);
    }
    broker.kill();
    broker = Broker::start(&disk.data(), &settings);
    pen.assert_holds(&mut Talk::to(&broker.address));
    assert!(broker.is_running());
}

/// Changes of topics fill the journal of the metadata; the broker refuses more of them, and goes on.
#[test]
fn a_full_disk_refuses_changes_of_topics_and_takes_them_again() {
    let Some((_home, disk)) = disk("metadata", 64) else { return };
    let mut broker = Broker::start(&disk.data(), &[]);
    let mut pen = Pen::new(&broker, "kept", 1);
    let mut talk = Talk::to(&broker.address);
    (0..5).for_each(|_| assert!(pen.write(&mut talk)));
    let mut cluster = broker.cluster();
    create(&mut cluster, "doomed", 1, &[]);
    let hog = disk.mount.join("hog");
    take_space(&hog);
    // One block of 4096 bytes each: the 1 MiB that the journal begins with holds less than 256.
    let mut changes = 0;
    let code = loop {
        let code = alter(&mut talk, "kept", changes);
        if code != 0 {
            break code;
        }
        changes += 1;
        assert!(changes < 300, "the journal never fills");
    };
    assert_eq!(code, codes::KAFKA_STORAGE_ERROR);
    assert!(changes > 50, "{changes}");
    pen.assert_holds(&mut talk);
    for _ in 0..20 {
        assert_eq!(alter(&mut talk, "kept", changes), codes::KAFKA_STORAGE_ERROR);
    }
    cluster.delete_topic("doomed").expect("deleting works on a full disk");
    assert!(broker.is_running());
    std::fs::remove_file(&hog).expect("ours");
    let began = Instant::now();
    while alter(&mut talk, "kept", changes) != 0 {
        assert!(began.elapsed() < RESUME_MAX, "space is back, and changes are still refused");
        std::thread::sleep(Duration::from_millis(20));
    }
    for more in 1..300 {
        assert_eq!(alter(&mut talk, "kept", changes + more), 0);
    }
    broker.kill();
    let mut broker = Broker::start(&disk.data(), &[]);
    let configs = broker.cluster().topic_configs("kept").expect("the topic");
    let found = configs.iter().find(|c| c.name == "segment.ms").and_then(|c| c.value.clone());
    assert_eq!(found, Some(segment_ms(changes + 299)));
    pen.assert_holds(&mut Talk::to(&broker.address));
    assert!(broker.is_running());
}

fn text(value: &str) -> StrBytes {
    StrBytes::from(value)
}

fn segment_ms(change: u32) -> String {
    (3_600_000 + change).to_string()
}

/// Changes a topic's configuration; Kafka's verdict.
fn alter(talk: &mut Talk, topic: &str, change: u32) -> i16 {
    let mut config = AlterableConfig::default();
    (config.name, config.value) = (text("segment.ms"), Some(text(&segment_ms(change))));
    let mut resource = AlterConfigsResource::default();
    (resource.resource_type, resource.resource_name) = (2, text(topic));
    resource.configs = vec![config];
    let mut request = IncrementalAlterConfigsRequest::default();
    request.resources = vec![resource];
    one(talk.call(1, &request).responses).error_code
}

/// A file that takes all that is left.
fn take_space(path: &Path) {
    let mut file = File::create(path).expect("a file");
    let piece = vec![1; 1 << 20];
    while file.write_all(&piece).and_then(|()| file.sync_data()).is_ok() {}
    while file.write_all(&piece[..4096]).and_then(|()| file.sync_data()).is_ok() {}
}
