//! The store over the simulated seam: durability, placement, reads, rolls, space, stop.

use super::rig::{Model, Rig, batch, config, key};
use crate::base::limits::BLOCK_BYTES;
use crate::base::offset::Offset;
use crate::io::buffer::Block;
use crate::io::sim::{Faults, World};
use crate::log::store::{Durability, LogConfig, NotAppended};

#[test]
fn an_ack_means_that_the_bytes_are_flushed() {
    let mut rig = Rig::new(1, Faults::none());
    let slot = rig.store.create(key(0), config());
    let path = format!("{}/{}/0/0000000000.seg", super::rig::DATA, key(0).topic);
    for name in 0..20 {
        let sent = batch(name, 3, 700);
        let appended = rig.produce(slot, &sent);
        assert_eq!(appended.base_offset, Offset(name as i64 * 3));
        let found = rig.world.find_flushed(path.as_ref(), 0, &sent[21..]);
        assert!(found.is_some(), "batch {name} is flushed when it is acked");
    }
}

#[test]
fn what_was_appended_is_read_from_the_tail_and_from_disk() {
    let mut rig = Rig::new(2, Faults::calm());
    let slot = rig.store.create(key(0), LogConfig { segment_bytes: 8 << 20, ..config() });
    let mut model = Model::default();
    for name in 0..300 {
        let sent = batch(name, 1 + name as usize % 7, 10 + (name as usize * 977) % 6000);
        let appended = rig.append_patiently(slot, &sent);
        model.add(&appended, &sent);
        if name % 9 == 0 {
            rig.turn();
        }
    }
    assert!(rig.run(10_000, |rig| rig.high_watermark(slot) == rig.store.bounds(slot).log_end.get()));
    for bytes_max in [1, 5000, 100_000, 1 << 20] {
        rig.check_all(slot, &model, bytes_max);
    }
    let hits = rig.store.counters().tail_hit_bytes_total;
    rig.cold_only(slot);
    for bytes_max in [1, 5000, 100_000, 1 << 20] {
        rig.check_all(slot, &model, bytes_max);
    }
    assert_eq!(rig.store.counters().tail_hit_bytes_total, hits);
    // The log goes on behind an evicted block.
    for name in 300..400 {
        let sent = batch(name, 2, 500);
        let appended = rig.produce(slot, &sent);
        model.add(&appended, &sent);
    }
    rig.check_all(slot, &model, 70_000);
    rig.cold_only(slot);
    rig.check_all(slot, &model, 70_000);
}

#[test]
fn segments_roll_and_reads_cross_them() {
    let mut rig = Rig::new(3, Faults::calm());
    let slot = rig.store.create(key(0), LogConfig { segment_bytes: 300_000, ..config() });
    let mut model = Model::default();
    for name in 0..400 {
        let sent = batch(name, 4, 1200);
        let appended = rig.append_patiently(slot, &sent);
        model.add(&appended, &sent);
        if name % 5 == 0 {
            rig.turn();
        }
    }
    assert!(rig.run(20_000, |rig| rig.high_watermark(slot) == rig.store.bounds(slot).log_end.get()));
    assert!(rig.store.describe(slot).segments.len() > 6);
    rig.check_all(slot, &model, 200_000);
    rig.cold_only(slot);
    rig.check_all(slot, &model, 200_000);
}

#[test]
fn every_level_reaches_its_watermark_and_is_flushed_in_time() {
    for durability in [Durability::Durable, Durability::Written, Durability::Memory] {
        let mut rig = Rig::new(4, Faults::none());
        let slot = rig.store.create(key(0), LogConfig { durability, ..config() });
        let mut model = Model::default();
        for name in 0..50 {
            let sent = batch(name, 2, 3000);
            let appended = rig.produce(slot, &sent);
            model.add(&appended, &sent);
            rig.check_all(slot, &model, 50_000);
        }
        assert!(rig.run(1000, |rig| rig.durable(slot) == Offset(100)), "{durability:?} is flushed");
        rig.cold_only(slot);
        rig.check_all(slot, &model, 50_000);
    }
}

/// Of one round, one log's write was done and another's was slow. A later round flushed the first one's segment to its end, it was sealed and
/// retired (or its file was closed for another to be read), and when the slow write was done, the first round flushed a closed file.
#[test]
fn a_file_stays_open_while_a_round_is_still_to_flush_it() {
    for retires in [true, false] {
        let mut rig = Rig::new(7, Faults::none());
        let wanted = LogConfig { segment_bytes: 60_000, ..config() };
        let [log, slow, beside] = [0, 1, 2].map(|index| rig.store.create(key(index), wanted.clone()));
        for name in 0..98 {
            rig.produce(log, &batch(name, 2, 4000));
        }
        for slot in [slow, beside] {
            rig.produce(slot, &batch(0, 1, 100));
        }
        // All files are closed, and opened again for what comes.
        rig.settle(200_000);
        for slot in [log, slow, beside] {
            rig.append_patiently(slot, &batch(1, 2, 4000));
            rig.settle(50);
        }
        assert!(rig.count("close") > 10);
        rig.stuck = Some(0x1234_5678_9abc_u64.to_le_bytes().to_vec());
        rig.append_patiently(log, &batch(2, 2, 4000));
        let stuck = rig.append_patiently(slow, &batch(0x1234_5678_9abc, 1, 100));
        rig.settle(50);
        let first = rig.store.describe(log).segments.last().expect("a segment").ordinal;
        for name in 3..120 {
            let next = rig.append_patiently(log, &batch(name, 2, 4000)).next_offset;
            rig.append_patiently(beside, &batch(name, 1, 100));
            assert!(
                rig.run(1000, |rig| rig.high_watermark(log) == next),
                "others go on: {:#?}",
                rig.store.waits()
            );
        }
        // No file is closed while one is still trimmed.
        rig.settle(500);
        if retires {
            rig.store.set_log_start(log, rig.high_watermark(log)).expect("not above the high watermark");
        } else {
            rig.cold_only(log);
            rig.fetch(log, Offset(0), 1000);
        }
        rig.settle(1000);
        assert!(rig.high_watermark(slow) < stuck.next_offset);
        rig.release();
        assert!(rig.run(1000, |rig| rig.high_watermark(slow) == stuck.next_offset));
        rig.settle(1000);
        let gone = rig.store.describe(log).segments.iter().all(|segment| segment.ordinal > first);
        assert_eq!(gone, retires, "it goes once the round is over");
    }
}

/// A log's level was raised to `durable` while a write beside all rounds was under way. The round that made up for it was over first, and then
/// nothing flushed that write any more: rounds of one write flush just themselves, and the durable offset stood still.
#[test]
fn a_write_under_way_when_the_level_is_raised_is_flushed() {
    let mut rig = Rig::new(8, Faults::none());
    let wanted = LogConfig { durability: Durability::Written, flush_ms: 1_000_000, ..config() };
    let slot = rig.store.create(key(0), wanted);
    rig.produce(slot, &batch(0, 1, 100));
    rig.settle(3000);
    rig.stuck = Some(0x1234_5678_9abc_u64.to_le_bytes().to_vec());
    rig.append_patiently(slot, &batch(0x1234_5678_9abc, 1, 100));
    rig.settle(50);
    rig.store.set_config(slot, config());
    rig.append_patiently(slot, &batch(1, 1, 100_000));
    rig.settle(50);
    rig.release();
    for name in 2..5 {
        rig.append_patiently(slot, &batch(name, 1, 100));
        rig.settle(50);
    }
    assert_eq!(rig.durable(slot), Offset(6), "{:#?}", rig.store.waits());
}

#[test]
fn a_clean_stop_ends() {
    for durability in [Durability::Durable, Durability::Written, Durability::Memory] {
        let mut rig = Rig::new(5, Faults::none());
        let slots: Vec<_> =
            (0..5).map(|i| rig.store.create(key(i), LogConfig { durability, ..config() })).collect();
        for name in 0..40 {
            rig.append_patiently(slots[name as usize % 4], &batch(name, 2, 3000));
        }
        rig.stop();
        assert_eq!(rig.durable(slots[0]), Offset(20));
    }
}

#[test]
fn a_deleted_log_leaves_nothing() {
    let mut rig = Rig::new(6, Faults::none());
    let slot = rig.store.create(key(0), LogConfig { segment_bytes: 100_000, ..config() });
    for name in 0..100 {
        rig.produce(slot, &batch(name, 2, 3000));
    }
    let other = rig.store.create(key(1), config());
    rig.store.delete(slot);
    rig.store.delete(other);
    let gone = [crate::log::store::Event::Deleted(key(0)), crate::log::store::Event::Deleted(key(1))];
    assert!(rig.run(5000, |rig| gone.iter().all(|event| rig.events.contains(event))));
    let left = rig.io.list_dir(super::rig::DATA.as_ref()).expect("the data directory");
    assert_eq!(left, []);
}

/// Removes the topic's directory if it is empty, as a shard does that has removed the last partition that it knew.
fn another_shard_removes_the_topic(rig: &mut Rig) -> bool {
    let path = format!("{}/{}", super::rig::DATA, key(0).topic).into();
    rig.io.wait(crate::io::Op::RemoveDir { path }).result.is_ok()
}

#[test]
fn another_shard_may_remove_the_topics_directory_first() {
    let mut first = 0;
    for seed in 0..40 {
        let mut rig = Rig::new(seed, Faults::calm());
        let slot = rig.store.create(key(0), config());
        rig.produce(slot, &batch(0, 2, 3000));
        rig.store.delete(slot);
        let gone = crate::log::store::Event::Deleted(key(0));
        let mut removed = false;
        let ended = rig.run(5000, |rig| {
            removed |= another_shard_removes_the_topic(rig);
            rig.events.contains(&gone)
        });
        assert!(ended, "seed {seed}: {:?}", rig.events);
        first += u32::from(removed);
    }
    assert!(first > 10, "the other shard was first {first} times");
}

#[test]
fn another_shard_may_remove_the_topics_directory_before_a_partition_is_in_it() {
    let mut between = 0;
    for seed in 0..40 {
        let mut rig = Rig::new(seed, Faults::calm());
        let slot = rig.store.create(key(0), config());
        rig.append_patiently(slot, &batch(0, 2, 3000));
        let mut removed = false;
        let durable = rig.run(5000, |rig| {
            removed = removed || another_shard_removes_the_topic(rig);
            rig.durable(slot) == Offset(2)
        });
        assert!(durable, "seed {seed}: {:?}", rig.events);
        between += u32::from(removed);
    }
    assert!(between > 10, "the other shard removed it {between} times");
}

// The log counted on the room in its last block, which was evicted to make that room: the broker ended.
#[test]
fn a_log_whose_last_block_is_evicted_for_its_own_batch_wants_one_more() {
    for free in 1..5 {
        let mut rig = Rig::with_pool(World::new(1, Faults::none()), true, 16 * BLOCK_BYTES, |_| {});
        let slot = rig.store.create(key(0), LogConfig { segment_bytes: 64 << 20, ..config() });
        rig.produce(slot, &batch(0, 1, 100));
        rig.settle(100);
        let mut taken: Vec<Block> = Vec::new();
        loop {
            match rig.io.pool().take() {
                Some(block) => taken.push(block),
                None if rig.io.grow_pool() => {}
                None => break,
            }
        }
        taken.truncate(taken.len() - free);
        // One block more than are free, beside what is left of the last one.
        let sent = batch(1, 1, free * BLOCK_BYTES + 100);
        assert_eq!(rig.append(slot, &sent), Err(NotAppended::NoMemory), "{free} blocks are free");
        taken.clear();
        assert_eq!(rig.produce(slot, &sent).base_offset, Offset(1));
    }
}
