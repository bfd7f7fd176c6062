//! What the store keeps and lets go: retention, DeleteRecords, idle files, duplicates, append time.

use super::rig::{DATA, Model, Rig, batch, config, fill, key};
use crate::base::error::Refused;
use crate::base::offset::Offset;
use crate::io::sim::Faults;
use crate::io::{Errno, Mono};
use crate::log::format::parse_segment_name;
use crate::log::store::{Event, LogConfig, LogSlot, NotAppended, ReadPlan, ReadRequest};
use crate::wire::batch::{Batch, build::BatchBuilder};
use crate::wire::codec::Codec;

fn files(rig: &mut Rig, ending: &str) -> usize {
    let dir = format!("{DATA}/{}/0", key(0).topic);
    let entries = rig.io.list_dir(dir.as_ref()).expect("the directory");
    entries.iter().filter(|e| e.name.ends_with(ending)).count()
}

/// Numbers of the segment files that are there.
fn ordinals(rig: &mut Rig) -> Vec<u64> {
    let dir = format!("{DATA}/{}/0", key(0).topic);
    let entries = rig.io.list_dir(dir.as_ref()).expect("the directory");
    let mut found: Vec<u64> = entries.iter().filter_map(|e| parse_segment_name(&e.name)).collect();
    found.sort_unstable();
    found
}

fn produce_many(rig: &mut Rig, slot: LogSlot, model: &mut Model, names: std::ops::Range<u64>) {
    for name in names {
        let sent = batch(name, 2, 4000);
        let appended = rig.append_patiently(slot, &sent);
        model.add(&appended, &sent);
        if name % 4 == 0 {
            rig.turn();
        }
    }
    assert!(rig.run(10_000, |rig| rig.high_watermark(slot) == rig.store.bounds(slot).log_end.get()));
}

#[test]
fn retention_by_size_keeps_whole_segments_and_recycles_files() {
    let mut rig = Rig::new(31, Faults::calm());
    let wanted = LogConfig { segment_bytes: 150_000, retention_bytes: 400_000, ..config() };
    let slot = rig.store.create(key(0), wanted);
    let mut model = Model::default();
    for name in 0..400 {
        produce_many(&mut rig, slot, &mut model, name..name + 1);
    }
    rig.settle(2000);
    let bounds = rig.store.bounds(slot);
    assert!(bounds.log_start.get() > Offset(500), "{bounds:?}");
    assert!(rig.store.describe(slot).bytes < 800_000);
    assert!(files(&mut rig, ".seg") <= 6);
    assert!(
        rig.store.counters().segments_recycled_total > 3,
        "{}",
        rig.store.counters().segments_recycled_total
    );
    rig.cold_only(slot);
    rig.check_all(slot, &model, 100_000);
    let before = bounds.log_start.get().plus(-1);
    let request =
        ReadRequest { from: before, until: bounds.high_watermark.get(), bytes_max: 1, at_least_one: true };
    assert!(matches!(rig.read(slot, request), ReadPlan::Refused(Refused::OffsetOutOfRange)));
}

#[test]
fn retention_by_time_also_rolls_a_segment_that_nobody_appends_to() {
    let mut rig = Rig::new(32, Faults::none());
    let wanted = LogConfig { segment_bytes: 150_000, segment_ms: 600_000, retention_ms: 60_000, ..config() };
    let slot = rig.store.create(key(0), wanted);
    let mut model = Model::default();
    produce_many(&mut rig, slot, &mut model, 0..100);
    let end = rig.store.bounds(slot).log_end.get();
    assert!(rig.run(3_000_000, |rig| rig.store.bounds(slot).log_start.get() == end), "all records are old");
    assert!(rig.run(10_000, |rig| files(rig, ".seg") <= 2));
    produce_many(&mut rig, slot, &mut model, 100..120);
    rig.check_all(slot, &model, 100_000);
}

#[test]
fn delete_records_answers_when_the_new_start_is_on_disk() {
    let mut rig = Rig::new(33, Faults::none());
    let slot = rig.store.create(key(0), LogConfig { segment_bytes: 150_000, ..config() });
    let mut model = Model::default();
    produce_many(&mut rig, slot, &mut model, 0..100);
    assert_eq!(rig.store.set_log_start(slot, Offset(201)), Err(Refused::OffsetOutOfRange));
    rig.store.set_log_start(slot, Offset(150)).expect("below the high watermark");
    assert_eq!(rig.store.bounds(slot).log_start.get(), Offset(0));
    assert!(rig.run(5000, |rig| rig.events.contains(&Event::LogStart(slot))));
    assert_eq!(rig.store.bounds(slot).log_start.get(), Offset(150));
    rig.settle(1000);
    assert_eq!(rig.store.describe(slot).segments.len(), 2);
    rig.cold_only(slot);
    rig.check_all(slot, &model, 100_000);
}

/// Many segments go in one job. While it ran, a file for the next segment got ready, which let a second such job begin: it removed newer
/// segments while older ones were still there. A kill in between left a gap, and the partition went offline.
#[test]
fn segments_go_oldest_first_while_the_next_file_is_made() {
    let mut rig = Rig::new(41, Faults::none());
    let slot = rig.store.create(key(0), LogConfig { segment_bytes: 60_000, ..config() });
    let mut model = Model::default();
    produce_many(&mut rig, slot, &mut model, 0..400);
    rig.settle(1000);
    assert!(rig.store.describe(slot).segments.len() > 50);
    for name in 400..500 {
        rig.store.set_log_start(slot, rig.high_watermark(slot)).expect("not above the high watermark");
        let sent = batch(name, 2, 4000);
        let appended = rig.append_patiently(slot, &sent);
        model.add(&appended, &sent);
        let acked = rig.run(10_000, |rig| {
            let found = ordinals(rig);
            let gap = found.windows(2).find(|pair| pair[1] != pair[0] + 1);
            assert_eq!(gap, None, "a gap at batch {name}: {found:?}");
            rig.high_watermark(slot) == appended.next_offset
        });
        assert!(acked);
    }
    rig.settle(1000);
    assert!(ordinals(&mut rig).len() <= 3);
}

#[test]
fn a_read_outlives_the_retention_of_its_file() {
    let mut rig = Rig::new(34, Faults::none());
    let slot = rig.store.create(key(0), LogConfig { segment_bytes: 150_000, ..config() });
    let mut model = Model::default();
    produce_many(&mut rig, slot, &mut model, 0..100);
    rig.cold_only(slot);
    let until = rig.high_watermark(slot);
    let request = ReadRequest { from: Offset(3), until, bytes_max: 5000, at_least_one: true };
    let ReadPlan::Cold(read) = rig.store.plan_read(slot, request) else { panic!("not cached") };
    rig.store.set_log_start(slot, Offset(150)).expect("below the high watermark");
    rig.settle(3000);
    assert_eq!(files(&mut rig, ".seg"), 3, "gone by name");
    let closed = rig.count("close");
    rig.store.drop_read(read);
    rig.settle(100);
    assert_eq!(rig.count("close"), closed + 1, "closed behind its last read");
}

/// An error that says nothing about the bytes is not remembered, however often it comes; one of the medium is.
#[test]
fn only_an_error_of_the_medium_is_damage() {
    let mut rig = Rig::new(36, Faults::none());
    let slot = rig.store.create(key(0), LogConfig { segment_bytes: 150_000, ..config() });
    let mut model = Model::default();
    produce_many(&mut rig, slot, &mut model, 0..100);
    rig.cold_only(slot);
    let until = rig.high_watermark(slot);
    let request = ReadRequest { from: Offset(3), until, bytes_max: 5000, at_least_one: true };
    let fails_twice = |rig: &mut Rig, errno| {
        let ReadPlan::Cold(read) = rig.store.plan_read(slot, request) else {
            panic!("not cached, and sound")
        };
        let ReadPlan::Cold(read) = rig.store.finish_read(read, Err(errno)) else { panic!("tried again") };
        assert!(matches!(
            rig.store.finish_read(read, Err(errno)),
            ReadPlan::Refused(Refused::KafkaStorageError)
        ));
    };
    for errno in [Errno::AGAIN, Errno::CANCELED, Errno::NOMEM, Errno::NOBUFS] {
        fails_twice(&mut rig, errno);
        let ReadPlan::Cold(read) = rig.store.plan_read(slot, request) else {
            panic!("{errno} is remembered")
        };
        rig.store.drop_read(read);
    }
    fails_twice(&mut rig, Errno::IO);
    assert!(matches!(rig.store.plan_read(slot, request), ReadPlan::Refused(Refused::KafkaStorageError)));
}

#[test]
fn idle_logs_cost_nothing_and_hold_no_file() {
    let mut rig = Rig::new(35, Faults::none());
    let slots: Vec<_> = (0..2000).map(|i| rig.store.create(key(i), config())).collect();
    let mut model = Model::default();
    produce_many(&mut rig, slots[0], &mut model, 0..20);
    rig.settle(200_000);
    assert_eq!(rig.count("open"), rig.count("close"), "all files are closed");
    let pushed = rig.pushed.len();
    let next = rig.store.next_deadline().expect("the next look at retention");
    assert!(next > rig.now().plus_ms(10_000), "nothing to do: {next:?} at {:?}", rig.now());
    rig.settle(1000);
    assert_eq!(rig.pushed.len(), pushed);
    // And it is there again for reads and appends.
    rig.cold_only(slots[0]);
    rig.check_all(slots[0], &model, 10_000);
    produce_many(&mut rig, slots[0], &mut model, 20..40);
    rig.cold_only(slots[0]);
    rig.check_all(slots[0], &model, 10_000);
}

#[test]
fn one_flush_serves_all_files_that_may_share_it() {
    for shared in [true, false] {
        let world = crate::io::sim::World::new(36, Faults::none());
        let mut rig = Rig::with(world, true, |c| c.shared_flush = shared);
        let slots: Vec<_> = (0..8).map(|i| rig.store.create(key(i), config())).collect();
        for slot in &slots {
            rig.produce(*slot, &batch(1, 1, 100));
        }
        rig.settle(3000);
        let before = rig.count("flush");
        for slot in &slots {
            rig.append_patiently(*slot, &batch(2, 1, 100));
        }
        assert!(rig.run(100, |rig| slots.iter().all(|s| rig.high_watermark(*s) == Offset(2))));
        assert_eq!(rig.count("flush") - before, if shared { 1 } else { 8 });
        let (flushes, dsyncs) = (rig.count("flush"), rig.count("dsync"));
        rig.produce(slots[0], &batch(3, 1, 100));
        assert_eq!((rig.count("flush"), rig.count("dsync")), (flushes, dsyncs + 1), "one log, one write");
    }
}

#[test]
fn duplicates_are_answered_and_gaps_refused() {
    let mut rig = Rig::new(37, Faults::none());
    let slot = rig.store.create(key(0), config());
    let mut builder = BatchBuilder::new(Codec::None).producer(5, 0, 0);
    let (first, second) = (fill(&mut builder, 1, 2, 50), fill(&mut builder, 2, 2, 50));
    let third = fill(&mut builder, 3, 2, 50);
    let appended = rig.produce(slot, &first);
    let again = rig.append(slot, &first).expect("a duplicate is answered");
    assert!(again.duplicate && again.base_offset == appended.base_offset);
    assert_eq!(again.next_offset, appended.next_offset);
    assert_eq!(rig.append(slot, &third), Err(NotAppended::Refused(Refused::OutOfOrderSequence)));
    assert_eq!(rig.produce(slot, &second).base_offset, Offset(2));
    assert_eq!(rig.produce(slot, &third).base_offset, Offset(4));
}

/// A batch with producer id -2 was remembered as that producer's. Every later one with as many records seemed to be the same one again: it
/// was acked, and not appended.
#[test]
fn a_negative_producer_id_is_none() {
    let mut rig = Rig::new(41, Faults::none());
    let mut slot = rig.store.create(key(0), config());
    let mut model = Model::default();
    let sent = |name| fill(&mut BatchBuilder::new(Codec::None).producer(-2, -1, -1), name, 2, 50);
    for name in 0..4 {
        if name == 2 {
            // Replayed by recovery.
            rig.settle(100);
            rig.world.kill(rig.process);
            rig = rig.successor(|_| {});
            slot = rig.open(0, config());
        }
        let appended = rig.produce(slot, &sent(name));
        assert!(!appended.duplicate && appended.base_offset == Offset(name as i64 * 2), "batch {name}");
        model.add(&appended, &sent(name));
    }
    rig.check_all(slot, &model, 100_000);
}

#[test]
fn append_time_is_stamped_with_a_new_checksum() {
    let mut rig = Rig::new(38, Faults::none());
    let slot = rig.store.create(key(0), LogConfig { log_append_time: true, ..config() });
    let appended = rig.produce(slot, &batch(1, 3, 300));
    assert!(appended.append_time_ms > 0);
    let (bytes, _) = rig.fetch(slot, Offset(0), 10_000);
    let stored = Batch::only(&bytes).expect("a batch");
    assert!(stored.crc_matches() && stored.is_log_append_time());
    assert_eq!(stored.max_timestamp(), appended.append_time_ms);
    assert_eq!(stored.leader_epoch(), 0);
}

#[test]
fn times_lead_to_offsets() {
    let mut rig = Rig::new(39, Faults::none());
    let slot = rig.store.create(key(0), LogConfig { segment_bytes: 150_000, ..config() });
    let mut model = Model::default();
    assert_eq!(rig.store.timestamp_start(slot, 0), None);
    assert_eq!(rig.store.max_timestamp_start(slot), None);
    produce_many(&mut rig, slot, &mut model, 0..100);
    for name in [0, 17, 99] {
        let start = rig.store.timestamp_start(slot, 1_700_000_000_000 + name).expect("a batch");
        assert!(start <= Offset(name * 2) && start.0 >= name * 2 - 4, "{name} at {start}");
    }
    assert_eq!(rig.store.timestamp_start(slot, 1_700_000_000_100), None);
    assert_eq!(rig.store.max_timestamp_start(slot), Some(Offset(198)));
}

#[test]
fn flushes_of_lazy_levels_come_in_time() {
    let mut rig = Rig::new(40, Faults::none());
    let durability = crate::log::store::Durability::Written;
    let slot = rig.store.create(key(0), LogConfig { durability, flush_ms: 500, ..config() });
    rig.produce(slot, &batch(1, 1, 100));
    rig.settle(2000);
    let start = rig.now();
    rig.produce(slot, &batch(2, 1, 100));
    assert_eq!(rig.durable(slot), Offset(1), "written, not flushed");
    assert!(rig.run(2000, |rig| rig.durable(slot) == Offset(2)));
    let took = rig.now().since_ms(start);
    assert!((490..600).contains(&took), "{took} ms");
    assert!(rig.store.next_deadline().is_none_or(|at| at > Mono(0)));
}

/// Partitions of one topic share its directory: the last to go removes it, while others still look at it or begin to be.
#[test]
fn partitions_of_one_topic_go_at_the_same_time() {
    for seed in 0..40 {
        let mut rig = Rig::new(seed, Faults::none());
        let slots = [0, 1, 2].map(|partition| rig.store.create(key(partition), config()));
        for slot in &slots[..2] {
            rig.append_patiently(*slot, &batch(1, 1, 100));
        }
        rig.settle(seed * 7 % 50);
        rig.append_patiently(slots[2], &batch(2, 1, 100));
        (0..seed % 9).for_each(|_| rig.turn());
        slots.into_iter().for_each(|slot| rig.store.delete(slot));
        let all = |rig: &mut Rig| rig.events.iter().filter(|e| matches!(e, Event::Deleted(_))).count() == 3;
        assert!(rig.run(10_000, all), "seed {seed}: {:?}", rig.events);
        let topic = format!("{DATA}/{}", key(0).topic);
        assert!(rig.io.list_dir(topic.as_ref()).is_err(), "seed {seed}: the directory of the topic is left");
        assert!(!rig.events.iter().any(|event| matches!(event, Event::Dead(_))), "seed {seed}");
    }
}
