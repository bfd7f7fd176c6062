//! Truncation: for replication, which does not exist yet. And appends that keep their offsets.

use super::rig::{Model, Rig, batch, config, key};
use crate::base::error::Refused;
use crate::base::ids::LeaderEpoch;
use crate::base::offset::Offset;
use crate::io::Errno;
use crate::io::sim::{Faults, Injected, OpKind};
use crate::log::store::{Event, LogConfig, NotAppended};
use crate::wire::batch::build::BatchBuilder;
use crate::wire::codec::Codec;

fn wanted() -> LogConfig {
    LogConfig { segment_bytes: 150_000, ..config() }
}

#[test]
fn a_log_ends_where_it_is_truncated_and_goes_on_from_there() {
    for (seed, target) in [(51, 199), (52, 198), (53, 100), (54, 1), (55, 0), (56, 72), (57, 73)] {
        for cached in [true, false] {
            let mut rig = Rig::new(seed, Faults::calm());
            let slot = rig.open(0, wanted());
            let mut model = Model::default();
            for name in 0..100 {
                let sent = batch(name, 2, 4000);
                model.add(&rig.append_patiently(slot, &sent), &sent);
                if name % 5 == 0 {
                    rig.turn();
                }
            }
            assert!(rig.run(5000, |rig| rig.high_watermark(slot) == Offset(200)));
            if !cached {
                rig.cold_only(slot);
            }
            rig.store.truncate_to(slot, Offset(target)).expect("inside the log");
            let refused = Err(NotAppended::Refused(Refused::NotLeaderOrFollower));
            assert_eq!(rig.append(slot, &batch(900, 1, 10)), refused);
            let end = Offset(target / 2 * 2);
            assert!(rig.run(5000, |rig| rig.store.bounds(slot).log_end.get() == end), "cut at {end}");
            model.batches.retain(|(offset, _)| *offset < end);
            assert!(rig.run(5000, |rig| rig.high_watermark(slot) == end));
            rig.check_all(slot, &model, 50_000);
            for name in 200..260 {
                let sent = batch(name, 2, 3000);
                model.add(&rig.produce(slot, &sent), &sent);
            }
            rig.check_all(slot, &model, 50_000);
            rig.settle(seed % 3 * 1000);
            rig.world.crash();
            let mut rig = rig.successor(|_| {});
            let slot = rig.open(0, wanted());
            rig.pump();
            assert!(!rig.events.iter().any(|e| matches!(e, Event::Corrupt(..))), "{:?}", rig.events);
            assert_eq!(rig.high_watermark(slot), end.plus(120), "{target} {:?}", rig.store.bounds(slot));
            rig.check_all(slot, &model, 50_000);
        }
    }
}

/// The search for the cut reads again where an error says nothing about the bytes.
#[test]
fn a_truncation_survives_a_passing_error() {
    for errno in [Errno::AGAIN, Errno::NOMEM, Errno::CANCELED] {
        let mut rig = Rig::new(58, Faults::none());
        let slot = rig.open(0, wanted());
        for name in 0..20 {
            rig.produce(slot, &batch(name, 2, 4000));
        }
        rig.world.place_fault(OpKind::Read, 0, Injected::Fails(errno));
        rig.store.truncate_to(slot, Offset(11)).expect("inside the log");
        assert!(rig.run(5000, |rig| rig.store.bounds(slot).log_end.get() == Offset(10)), "{errno}");
        assert!(!rig.events.iter().any(|e| matches!(e, Event::Corrupt(..))), "{:?}", rig.events);
        rig.produce(slot, &batch(100, 2, 4000));
    }
}

#[test]
fn a_crash_during_a_truncation_leaves_a_log_that_opens() {
    for seed in 60..100 {
        let mut rig = Rig::new(seed, Faults::none());
        let slot = rig.open(0, wanted());
        let mut model = Model::default();
        for name in 0..100 {
            let sent = batch(name, 2, 4000);
            model.add(&rig.append_patiently(slot, &sent), &sent);
            if name % 5 == 0 {
                rig.turn();
            }
        }
        assert!(rig.run(5000, |rig| rig.high_watermark(slot) == Offset(200)));
        rig.store.truncate_to(slot, Offset(51)).expect("inside the log");
        for _ in 0..seed - 60 {
            rig.turn();
        }
        rig.world.crash();
        let mut rig = rig.successor(|_| {});
        let slot = rig.open(0, wanted());
        rig.pump();
        assert!(!rig.events.iter().any(|e| matches!(e, Event::Corrupt(..))), "seed {seed}: {:?}", rig.events);
        let end = rig.high_watermark(slot);
        assert!((Offset(50)..=Offset(200)).contains(&end));
        rig.check_all(slot, &model, 50_000);
        model.batches.retain(|(offset, _)| *offset < end);
        let sent = batch(500, 2, 3000);
        model.add(&rig.produce(slot, &sent), &sent);
        rig.check_all(slot, &model, 50_000);
    }
}

/// The header behind a cut is the only one that says where the cut is; the epoch that began there says it as well.
#[test]
fn what_was_cut_off_does_not_come_back_when_the_header_behind_it_is_damaged() {
    for (seed, appended) in [(70, true), (71, false)] {
        let mut rig = Rig::new(seed, Faults::none());
        let slot = rig.open(0, wanted());
        let mut model = Model::default();
        for name in 0..10 {
            let sent = batch(name, 2, 400);
            model.add(&rig.append_patiently(slot, &sent), &sent);
        }
        assert!(rig.run(5000, |rig| rig.high_watermark(slot) == Offset(20)));
        let (mut rig, slot) = match appended {
            true => (rig, slot),
            false => {
                // Cut by a process that appended nothing.
                rig.world.crash();
                let mut rig = rig.successor(|_| {});
                let slot = rig.open(0, wanted());
                (rig, slot)
            }
        };
        rig.store.truncate_to(slot, Offset(6)).expect("inside the log");
        assert!(
            rig.run(500, |rig| rig.store.bounds(slot).log_end.get() == Offset(6)),
            "{:?}",
            rig.store.waits()
        );
        model.batches.retain(|(offset, _)| *offset < Offset(6));
        rig.produce(slot, &batch(200, 3, 300));
        rig.settle(2000);
        let newest = rig.store.describe(slot).segments.last().expect("begun behind the cut").ordinal;
        rig.world.crash();
        rig.world.rot(super::rig::segment_path(key(0), newest).as_ref(), 100, 1);
        let mut rig = rig.successor(|_| {});
        let slot = rig.open(0, wanted());
        assert_eq!(rig.store.bounds(slot).log_end.get(), Offset(6), "appended before: {appended}");
        rig.check_all(slot, &model, 50_000);
    }
}

#[test]
fn an_append_can_keep_its_offsets_and_epochs() {
    let mut rig = Rig::new(58, Faults::none());
    let slot = rig.store.create(key(0), wanted());
    rig.pump();
    let make = |base: i64, epoch: i32, name: u64| {
        super::rig::fill(&mut BatchBuilder::new(Codec::None).at(base, epoch), name, 2, 100)
    };
    let batches = [make(0, 3, 1), make(2, 3, 2), make(4, 5, 3)].concat();
    let (now, wall) = (rig.io.now(), rig.io.wall_ms());
    let end = rig.store.append_at(slot, &batches, rig.io.pool(), now, wall);
    assert_eq!(end, Ok(Offset(6)));
    let gap = rig.store.append_at(slot, &make(8, 5, 4), rig.io.pool(), now, wall);
    assert_eq!(gap, Err(NotAppended::Refused(Refused::InvalidRequest)));
    assert!(rig.run(1000, |rig| rig.high_watermark(slot) == Offset(6)));
    let (bytes, _) = rig.fetch(slot, Offset(0), 10_000);
    assert_eq!(bytes, batches);
    assert_eq!(rig.store.epoch_end(slot, LeaderEpoch(4)), (LeaderEpoch(3), Offset(4)));
    assert_eq!(rig.store.epoch_at(slot, Offset(4)), LeaderEpoch(5));
}

/// The second truncation removes the segment whose header says where the first one cut.
#[test]
fn what_was_cut_off_stays_away_when_a_later_truncation_is_interrupted() {
    for turns in 0..24 {
        let mut rig = Rig::new(80 + turns, Faults::none());
        let slot = rig.open(0, wanted());
        let mut model = Model::default();
        for name in 0..20 {
            let sent = batch(name, 2, 400);
            model.add(&rig.append_patiently(slot, &sent), &sent);
        }
        assert!(rig.run(5000, |rig| rig.high_watermark(slot) == Offset(40)));
        rig.store.truncate_to(slot, Offset(10)).expect("inside the log");
        assert!(rig.run(5000, |rig| rig.store.bounds(slot).log_end.get() == Offset(10)));
        model.batches.retain(|(offset, _)| *offset < Offset(10));
        for name in 100..110 {
            let sent = batch(name, 2, 300);
            model.add(&rig.produce(slot, &sent), &sent);
        }
        rig.store.truncate_to(slot, Offset(6)).expect("inside the log");
        (0..turns).for_each(|_| rig.turn());
        rig.world.crash();
        let mut rig = rig.successor(|_| {});
        let slot = rig.open(0, wanted());
        rig.check_all(slot, &model, 50_000);
        assert!((Offset(6)..=Offset(30)).contains(&rig.high_watermark(slot)));
    }
}

/// A truncation that did not happen leaves nothing behind by which a later one would cut too much.
#[test]
fn an_interrupted_truncation_does_not_shorten_a_later_one() {
    for turns in 0..16 {
        let mut rig = Rig::new(110 + turns, Faults::none());
        let slot = rig.open(0, wanted());
        let mut model = Model::default();
        for name in 0..60 {
            let sent = batch(name, 2, 4000);
            model.add(&rig.append_patiently(slot, &sent), &sent);
            rig.turn();
        }
        assert!(rig.run(5000, |rig| rig.high_watermark(slot) == Offset(120)));
        rig.store.truncate_to(slot, Offset(6)).expect("inside the log");
        (0..turns).for_each(|_| rig.turn());
        rig.world.crash();
        let mut rig = rig.successor(|_| {});
        let slot = rig.open(0, wanted());
        rig.pump();
        let end = rig.high_watermark(slot);
        if end < Offset(20) {
            continue;
        }
        rig.check_all(slot, &model, 50_000);
        rig.store.truncate_to(slot, Offset(14)).expect("inside the log");
        assert!(rig.run(5000, |rig| rig.store.bounds(slot).log_end.get() == Offset(14)));
        rig.world.crash();
        let mut rig = rig.successor(|_| {});
        let slot = rig.open(0, wanted());
        assert!(rig.high_watermark(slot) >= Offset(14), "{turns}: {:?}", rig.store.bounds(slot));
        rig.check_all(slot, &model, 50_000);
    }
}
