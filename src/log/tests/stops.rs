//! The clean stop: what the next start need not do.

use super::rig::{Model, Rig, batch, config, key};
use crate::io::sim::Faults;
use crate::log::decide::Row;
use crate::log::store::{Event, LogConfig};

/// A log with records in it whose process was killed.
fn killed(seed: u64, model: &mut Model) -> Rig {
    let mut rig = Rig::new(seed, Faults::none());
    let slot = rig.store.create(key(0), config());
    for name in 0..40 {
        let sent = batch(name, 3, 2000);
        let appended = rig.produce(slot, &sent);
        model.add(&appended, &sent);
    }
    rig.world.kill(rig.process);
    rig.successor(|_| {})
}

#[test]
fn a_recovery_is_paid_once_also_where_nothing_is_appended_behind_it() {
    let mut model = Model::default();
    let mut rig = killed(1, &mut model);
    let slot = rig.open(0, config());
    assert!(rig.store.opened().bytes_scanned > 200_000, "{:?}", rig.store.opened());
    rig.check_all(slot, &model, 1 << 20);
    rig.stop();
    for _ in 0..2 {
        rig = rig.successor(|_| {});
        let slot = rig.open(0, config());
        // The one block in which the record's last group stands.
        assert!(rig.store.opened().bytes_scanned <= 8192, "{:?}", rig.store.opened());
        assert_eq!(rig.store.opened().rows[Row::CleanStop as usize], 1);
        assert_eq!(rig.store.opened().rows[Row::DerivedLost as usize], 0);
        rig.check_all(slot, &model, 1 << 20);
        rig.stop();
    }
    // The segment that the dead process may still write to is not continued.
    rig = rig.successor(|_| {});
    let slot = rig.open(0, config());
    let sent = batch(100, 1, 100);
    let appended = rig.produce(slot, &sent);
    model.add(&appended, &sent);
    assert_eq!(rig.store.describe(slot).segments.len(), 2);
    rig.stop();
    rig = rig.successor(|_| {});
    let slot = rig.open(0, config());
    assert!(rig.store.opened().bytes_scanned <= 8192, "{:?}", rig.store.opened());
    rig.check_all(slot, &model, 1 << 20);
}

#[test]
fn derived_files_that_were_rebuilt_are_there_at_the_next_start() {
    let mut model = Model::default();
    let mut rig = killed(2, &mut model);
    rig.open(0, config());
    rig.stop();
    let dir = format!("{}/{}/0", super::rig::DATA, key(0).topic);
    rig = rig.successor(|_| {});
    rig.io.wait(crate::io::Op::RemoveFile { path: format!("{dir}/producers").into() }).result.expect("there");
    rig.open(0, config());
    assert_eq!(rig.store.opened().rows[Row::DerivedLost as usize], 1);
    rig.stop();
    rig = rig.successor(|_| {});
    let slot = rig.open(0, config());
    assert_eq!(rig.store.opened().rows[Row::DerivedLost as usize], 0);
    assert!(rig.store.opened().bytes_scanned <= 8192, "{:?}", rig.store.opened());
    rig.check_all(slot, &model, 1 << 20);
}

#[test]
fn a_deletion_between_two_starts_keeps_the_record() {
    let mut model = Model::default();
    let mut rig = killed(3, &mut model);
    let slot = rig.open(0, config());
    let half = crate::base::offset::Offset(60);
    rig.store.set_log_start(slot, half).expect("below the high watermark");
    assert!(rig.run(10_000, |rig| rig.store.bounds(slot).log_start.get() == half));
    rig.world.kill(rig.process);
    rig = rig.successor(|_| {});
    let slot = rig.open(0, config());
    assert_eq!(rig.store.opened().rows[Row::CleanStop as usize], 1);
    assert_eq!(rig.store.bounds(slot).log_start.get(), half);
    rig.check_all(slot, &model, 1 << 20);
}

#[test]
fn a_stop_does_not_wait_for_logs_that_come_or_go_meanwhile() {
    for turns in 0..12 {
        let mut rig = Rig::new(turns, Faults::none());
        let slots = [0, 1].map(|partition| rig.store.create(key(partition), config()));
        for slot in slots {
            rig.append_patiently(slot, &batch(1, 1, 100));
        }
        rig.store.begin_stop();
        (0..turns).for_each(|_| rig.turn());
        rig.store.create(key(2), config());
        rig.store.delete(slots[0]);
        rig.stop();
        rig.settle(1_000);
        let stopped = rig.events.iter().filter(|event| **event == Event::Stopped).count();
        assert_eq!(stopped, 1, "after {turns} turns: {:?}", rig.events);
    }
}

/// A segment's age began anew with each process, or with the machine's clock: a broker that was restarted often never rolled a segment for
/// its age, and on a machine that ran for long every start rolled them all.
#[test]
fn a_segment_is_as_old_as_its_header_says() {
    for seed in 0..10 {
        for (before, after, segments) in [(400, 300, 2), (400, 100, 1), (1, 1, 1), (700, 1, 2)] {
            let wanted = LogConfig { segment_ms: 600_000, ..config() };
            let mut rig = Rig::new(seed, Faults::none());
            let slot = rig.store.create(key(0), wanted.clone());
            rig.produce(slot, &batch(0, 1, 100));
            rig.settle(before * 1000);
            rig.stop();
            rig = rig.successor(|_| {});
            let slot = rig.open(0, wanted);
            rig.settle(after * 1000);
            rig.produce(slot, &batch(1, 1, 100));
            let found = rig.store.describe(slot).segments.len();
            assert_eq!(found, segments, "seed {seed}: after {before} s and {after} s");
        }
    }
}
