//! The store when things go wrong: errors, no space, damage, little memory. And bugs that must be noticed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::rig::{DATA, Model, Rig, batch, config, key, segment_path};
use crate::base::error::Refused;
use crate::base::offset::Offset;
use crate::io::sim::{DiskConfig, Faults, Injected, OpKind, World};
use crate::io::{Errno, Op};
use crate::log::format::SegmentHeader;
use crate::log::store::{Event, LogConfig, LogSlot, NotAppended, Planted, ReadPlan, ReadRequest};

fn dead(rig: &Rig) -> bool {
    rig.events.iter().any(|event| matches!(event, Event::Dead(_)))
}

#[test]
fn a_failed_write_or_flush_ends_the_directory_and_no_ack_follows() {
    for kind in [OpKind::Write, OpKind::Flush] {
        let mut rig = Rig::new(11, Faults::none());
        let slots = [rig.store.create(key(0), config()), rig.store.create(key(1), config())];
        for name in 0..6 {
            rig.produce(slots[name as usize % 2], &batch(name, 2, 500));
        }
        rig.settle(3000);
        let before = [rig.high_watermark(slots[0]), rig.high_watermark(slots[1])];
        rig.world.place_fault(kind, 0, Injected::Fails(Errno::IO));
        rig.append_patiently(slots[0], &batch(10, 2, 500));
        rig.append_patiently(slots[1], &batch(11, 2, 500));
        assert!(rig.run(1000, |rig| dead(rig)), "{kind:?} fails");
        rig.settle(2000);
        assert_eq!([rig.high_watermark(slots[0]), rig.high_watermark(slots[1])], before);
        let refused = Err(NotAppended::Refused(Refused::KafkaStorageError));
        assert_eq!(rig.append(slots[0], &batch(12, 1, 10)), refused);
        let (bytes, _) = rig.fetch(slots[0], Offset(0), 1 << 20);
        assert!(!bytes.is_empty(), "reads go on");
    }
}

/// A segment's file was being opened for writing when the directory died, of this open or of something else. Nobody went on with it, and
/// reads of the segment waited for it for ever.
#[test]
fn a_file_that_was_being_opened_for_writing_when_the_directory_died_is_read() {
    for errno in [Errno::AGAIN, Errno::IO] {
        let mut rig = Rig::new(22, Faults::none());
        let [slot, other] = [0, 1].map(|index| rig.store.create(key(index), config()));
        let mut model = Model::default();
        let sent = batch(0, 2, 500);
        model.add(&rig.produce(slot, &sent), &sent);
        rig.settle(200_000);
        rig.produce(other, &batch(1, 2, 500));
        rig.settle(2000);
        rig.cold_only(slot);
        rig.world.place_fault(OpKind::Meta, 0, Injected::Fails(errno));
        rig.append_patiently(slot, &batch(2, 1, 10));
        rig.settle(100);
        rig.world.place_fault(OpKind::Write, 0, Injected::Fails(Errno::IO));
        if !dead(&rig) {
            rig.append_patiently(other, &batch(3, 1, 10));
        }
        assert!(rig.run(100, |rig| dead(rig)), "{errno:?}");
        let opening = rig.store.waits().iter().any(|log| log.contains("Opening"));
        assert_eq!(opening, errno == Errno::AGAIN);
        rig.check_all(slot, &model, 100_000);
    }
}

/// Jobs that had a place when the directory died kept it, though nobody went on with them. Once they were as many as may run, the files of
/// idle logs were never closed.
#[test]
fn a_dead_directory_closes_idle_files() {
    let mut rig = Rig::new(23, Faults::none());
    let slots: Vec<LogSlot> = (0..8).map(|index| rig.store.create(key(index), config())).collect();
    for slot in &slots {
        rig.produce(*slot, &batch(0, 2, 500));
    }
    rig.settle(5000);
    rig.world.set_capacity(DATA.as_ref(), 0);
    for index in 8..88 {
        let slot = rig.store.create(key(index), config());
        rig.append_patiently(slot, &batch(0, 2, 500));
    }
    rig.world.place_fault(OpKind::Write, 0, Injected::Fails(Errno::IO));
    rig.append_patiently(slots[0], &batch(1, 1, 10));
    assert!(rig.run(5000, |rig| dead(rig)));
    let before = rig.count("close");
    rig.settle(200_000);
    assert!(rig.count("close") >= before + slots.len() - 1, "{} closed", rig.count("close") - before);
}

#[test]
fn transient_and_short_results_are_carried_on() {
    let mut rig = Rig::new(12, Faults { write_short: 400_000, ..Faults::none() });
    let slot = rig.store.create(key(0), LogConfig { segment_bytes: 200_000, ..config() });
    let mut model = Model::default();
    for name in 0..120 {
        if name % 10 == 0 {
            rig.world.place_fault(OpKind::Write, 1, Injected::Fails(Errno::AGAIN));
        }
        let sent = batch(name, 2, 900 * (name as usize % 7));
        let appended = rig.produce(slot, &sent);
        let flushed =
            rig.world.find_flushed(segment_path(key(0), last_ordinal(&rig, slot)).as_ref(), 0, &sent[21..]);
        assert!(flushed.is_some(), "batch {name} is flushed");
        model.add(&appended, &sent);
    }
    rig.cold_only(slot);
    rig.check_all(slot, &model, 100_000);
}

fn last_ordinal(rig: &Rig, slot: LogSlot) -> u64 {
    rig.store.describe(slot).segments.last().expect("a segment").ordinal
}

#[test]
fn a_full_disk_refuses_and_space_brings_it_back() {
    let world = World::new(13, Faults::none());
    world.add_disk(DATA, DiskConfig { capacity_bytes: 700_000, ..DiskConfig::default() });
    let mut rig = Rig::with(world, false, |_| {});
    let slot = rig.store.create(key(0), LogConfig { segment_bytes: 200_000, ..config() });
    let mut model = Model::default();
    let mut refused = 0;
    for name in 0..400 {
        let sent = batch(name, 2, 2000);
        match rig.append(slot, &sent) {
            Ok(appended) => model.add(&appended, &sent),
            Err(NotAppended::Refused(Refused::KafkaStorageError)) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
        rig.settle(5);
    }
    assert!(refused > 10, "the disk is full");
    let acked = rig.high_watermark(slot);
    rig.cold_only(slot);
    rig.check_all(slot, &model, 100_000);
    rig.world.set_capacity(DATA.as_ref(), 100 << 20);
    let back = rig.run(5000, |rig| rig.high_watermark(slot) == rig.store.bounds(slot).log_end.get());
    assert!(back && !dead(&rig), "it goes on by itself");
    assert!(rig.high_watermark(slot) >= acked);
    rig.run(2000, |rig| rig.append(slot, &batch(1000, 1, 10)).is_ok());
    let sent = batch(1001, 2, 2000);
    model.batches.push((rig.store.bounds(slot).log_end.get(), sent.clone()));
    rig.produce(slot, &sent);
}

/// More logs wait for space than jobs may run at once. Each kept its place while it waited, so the deletion that would have given space back
/// never began.
#[test]
fn logs_that_wait_for_space_do_not_keep_others_from_giving_it_back() {
    let mut rig = Rig::new(18, Faults::none());
    let full = rig.store.create(key(0), config());
    for name in 0..100 {
        rig.produce(full, &batch(name, 2, 4000));
    }
    rig.settle(2000);
    let space = rig.io.disk_space(DATA.as_ref()).expect("a disk");
    rig.world.set_capacity(DATA.as_ref(), space.total - space.free);
    let slots: Vec<LogSlot> = (1..=40).map(|index| rig.store.create(key(index), config())).collect();
    for slot in &slots {
        rig.append_patiently(*slot, &batch(0, 2, 500));
    }
    rig.settle(2000);
    let waiting = rig.events.iter().filter(|e| matches!(e, Event::NoSpace(_))).count();
    assert!(waiting >= 16, "two jobs of each of {waiting}");
    rig.store.delete(full);
    assert!(rig.run(5000, |rig| rig.events.contains(&Event::Deleted(key(0)))), "the deletion begins");
    // The simulated disk has more room than before only once a file of it was closed.
    rig.world.set_capacity(DATA.as_ref(), 1 << 30);
    let all = rig.run(5000, |rig| slots.iter().all(|slot| rig.high_watermark(*slot) == Offset(2)));
    assert!(all && !dead(&rig), "{:#?}", rig.store.waits());
}

#[test]
fn a_low_disk_refuses_until_it_is_told_otherwise() {
    let world = World::new(14, Faults::none());
    let mut rig = Rig::with(world, true, |c| c.free_bytes_min = 1000);
    let slot = rig.store.create(key(0), config());
    rig.store.set_disk_free(999);
    let refused = Err(NotAppended::Refused(Refused::KafkaStorageError));
    assert_eq!(rig.append(slot, &batch(0, 1, 10)), refused);
    rig.store.set_disk_free(1000);
    rig.produce(slot, &batch(0, 1, 10));
}

#[test]
fn damage_at_rest_is_never_served() {
    for at in [5000, 5090, 20_000, 60_000] {
        let mut rig = Rig::new(15, Faults::none());
        let slot = rig.store.create(key(0), config());
        let mut model = Model::default();
        for name in 0..100 {
            let sent = batch(name, 2, 900);
            model.add(&rig.produce(slot, &sent), &sent);
        }
        rig.world.rot(segment_path(key(0), 0).as_ref(), at, 3);
        rig.cold_only(slot);
        let (mut from, end) = (Offset(0), rig.high_watermark(slot));
        let mut refused = false;
        while from < end && !refused {
            let request = ReadRequest { from, until: end, bytes_max: 30_000, at_least_one: true };
            match rig.read(slot, request) {
                ReadPlan::Ready(records) => {
                    let bytes: Vec<u8> = records.parts.iter().flat_map(|p| p.iter().copied()).collect();
                    from = model.check(&bytes, from);
                }
                ReadPlan::Refused(Refused::KafkaStorageError) => refused = true,
                _ => panic!("neither records nor an error at {from}"),
            }
        }
        assert!(refused || rig.events.iter().any(|e| matches!(e, Event::Corrupt(..))), "noticed at {at}");
    }
}

#[test]
fn an_unreadable_sector_is_read_again_and_then_refused() {
    let mut rig = Rig::new(16, Faults::none());
    let slot = rig.store.create(key(0), config());
    let mut model = Model::default();
    for name in 0..50 {
        let sent = batch(name, 2, 900);
        model.add(&rig.produce(slot, &sent), &sent);
    }
    rig.cold_only(slot);
    rig.world.place_fault(OpKind::Read, 0, Injected::Fails(Errno::IO));
    rig.check_all(slot, &model, 30_000);
    rig.world.set_faults(Faults { read_eio: 1_000_000, ..Faults::none() });
    let until = rig.high_watermark(slot);
    let request = ReadRequest { from: Offset(0), until, bytes_max: 30_000, at_least_one: true };
    assert!(matches!(rig.read(slot, request), ReadPlan::Refused(Refused::KafkaStorageError)));
}

/// A file that was left where the next segment's is made was removed as one into which nothing was ever written, whatever it held.
#[test]
fn a_file_that_stands_in_the_way_of_a_new_segment_is_removed_only_if_it_holds_nothing() {
    let mut rig = Rig::new(19, Faults::none());
    let slot = rig.store.create(key(0), config());
    let sent = batch(7, 3, 700);
    rig.produce(slot, &sent);
    rig.settle(2000);
    rig.world.kill(rig.process);
    let path = segment_path(key(0), 0);
    // As if its directory had not been looked at.
    let mut rig = rig.successor(|_| {});
    let slot = rig.store.create(key(0), config());
    rig.append_patiently(slot, &batch(8, 1, 100));
    assert!(rig.run(5000, |rig| dead(rig)), "not without a human");
    assert!(
        rig.events.iter().any(|e| matches!(e, Event::Corrupt(_, c) if c.file.ends_with("0000000000.seg")))
    );
    assert!(rig.world.find_flushed(path.as_ref(), 0, &sent[21..]).is_some(), "what was acked is still there");
    rig.world.kill(rig.process);
    // Zeros, of which a dead process had not made more.
    rig.world.overwrite(path.as_ref(), 0, &vec![0; 65536]);
    let mut rig = rig.successor(|_| {});
    let slot = rig.store.create(key(0), config());
    rig.produce(slot, &batch(9, 1, 100));
    assert!(!dead(&rig));
}

/// The file of a retired segment was renamed to be the next one's, over whatever had that name.
#[test]
fn a_retired_file_is_put_over_another_only_if_that_holds_nothing() {
    for holds in [true, false] {
        let mut rig = Rig::new(24, Faults::none());
        let slot = rig.store.create(key(0), LogConfig { segment_bytes: 200_000, ..config() });
        let other = rig.store.create(key(1), config());
        rig.produce(other, &batch(0, 2, 500));
        for name in 0..30 {
            rig.produce(slot, &batch(name, 2, 4000));
        }
        rig.settle(2000);
        let path = segment_path(key(0), last_ordinal(&rig, slot) + 1);
        let first = rig.world.live_bytes(segment_path(key(0), 0).as_ref()).expect("a file");
        let (header, _) = SegmentHeader::decode(&first).expect("a header");
        let stray = match holds {
            true => SegmentHeader { ordinal: header.ordinal + 2, ..header }.encode().0.to_vec(),
            false => vec![0; 4096],
        };
        let from = segment_path(key(1), 0).into();
        assert!(rig.io.wait(Op::Rename { from, to: path.clone().into() }).result.is_ok());
        rig.world.overwrite(path.as_ref(), 0, &stray);
        rig.store.set_log_start(slot, rig.high_watermark(slot)).expect("not above the high watermark");
        rig.settle(5000);
        assert_eq!(rig.store.counters().segments_recycled_total, 1);
        assert_eq!(dead(&rig), holds, "not without a human");
        let there = rig.world.live_bytes(path.as_ref()).expect("a file");
        assert_eq!(there[..4096] == stray[..], holds || stray[0] == 0);
        let reported = rig.events.iter().any(|e| matches!(e, Event::Corrupt(..)));
        assert_eq!(reported, holds);
    }
}

#[test]
fn many_logs_share_a_small_pool() {
    for durability in [crate::log::store::Durability::Durable, crate::log::store::Durability::Memory] {
        let world = World::new(17, Faults::none());
        let mut rig = Rig::with_pool(world, true, 4 << 20, |c| c.tail_cache_bytes = 2 << 20);
        let wanted = LogConfig { durability, flush_ms: 60_000, flush_bytes: u64::MAX, ..config() };
        let slots: Vec<_> = (0..60).map(|i| rig.store.create(key(i), wanted.clone())).collect();
        let mut models = vec![Model::default(); slots.len()];
        for name in 0..600u64 {
            let index = (name * 7 % 60) as usize;
            let sent = batch(name, 2, 400);
            let appended = rig.append_patiently(slots[index], &sent);
            models[index].add(&appended, &sent);
        }
        for (slot, model) in slots.iter().zip(&models) {
            assert!(
                rig.run(10_000, |rig| rig.high_watermark(*slot) == rig.store.bounds(*slot).log_end.get())
            );
            rig.check_all(*slot, model, 10_000);
        }
    }
}

/// A workload whose acks are checked against what is flushed.
fn acks_are_flushed(rig: &mut Rig) {
    rig.check_barrier = false;
    let slots: Vec<_> =
        (0..3).map(|i| rig.store.create(key(i), LogConfig { segment_bytes: 150_000, ..config() })).collect();
    let mut open: Vec<(LogSlot, i32, Offset, Vec<u8>)> = Vec::new();
    for name in 0..150u64 {
        let index = name as usize % 3;
        if let Ok(appended) = rig.append(slots[index], &batch(name, 2, 20_000)) {
            let sent = batch(name, 2, 20_000);
            open.push((slots[index], index as i32, appended.next_offset, sent));
        }
        rig.turn();
        open.retain(|(slot, partition, next, sent)| {
            let acked = rig.high_watermark(*slot) >= *next;
            if acked {
                let found = rig.store.describe(*slot).segments.iter().any(|segment| {
                    let path = segment_path(key(*partition), segment.ordinal);
                    rig.world.find_flushed(path.as_ref(), 0, &sent[21..]).is_some()
                });
                assert!(found, "acked and not flushed");
            }
            !acked
        });
    }
}

#[test]
fn planted_bugs_turn_the_flush_check_red() {
    for seed in 20..24 {
        acks_are_flushed(&mut Rig::new(seed, Faults::none()));
    }
    for bug in [Planted::AckBeforeFlush, Planted::DurableIsLastCompleted, Planted::NoDirectorySync] {
        let red = (20..40).any(|seed| {
            catch_unwind(AssertUnwindSafe(|| acks_are_flushed(&mut Rig::planted(seed, bug)))).is_err()
        });
        assert!(red, "{bug:?} is noticed");
    }
    let red = (20..40).any(|seed| {
        catch_unwind(AssertUnwindSafe(|| {
            let mut rig = Rig::planted(seed, Planted::RetryAfterError);
            for after in [3, 9, 20, 40] {
                rig.world.place_fault(OpKind::Flush, after, Injected::Fails(Errno::IO));
            }
            acks_are_flushed(&mut rig);
        }))
        .is_err()
    });
    assert!(red, "a retry after an error is noticed");
}

#[test]
fn a_read_of_a_group_whose_header_is_damaged_ends() {
    for at in [8, 32, 64, 72, 76] {
        let mut rig = Rig::new(21, Faults::none());
        let slot = rig.store.create(key(0), config());
        for name in 0..3 {
            rig.append(slot, &batch(name, 2, 3000)).expect("room");
        }
        assert!(rig.run(10_000, |rig| rig.high_watermark(slot) == Offset(6)));
        rig.cold_only(slot);
        rig.world.rot(super::rig::segment_path(key(0), 0).as_ref(), 4096 + at, 1);
        for from in [0, 3, 5] {
            let request =
                ReadRequest { from: Offset(from), until: Offset(6), bytes_max: 1 << 20, at_least_one: true };
            let plan = rig.read(slot, request);
            assert!(!matches!(plan, ReadPlan::Ready(_)) || from > 0, "byte {at} from {from}");
        }
    }
}
