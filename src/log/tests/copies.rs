//! A data directory that somebody moved to another place, by copies that share extents with what they were made of, or have holes: a write in
//! place changes metadata there, which the flush of another file does not save. And one with a directory on another device, which that flush
//! does not reach.

use super::rig::{DATA, Model, Rig, batch, config, key};
use crate::base::offset::Offset;
use crate::io::sim::{DiskConfig, Faults};
use crate::log::store::{LogConfig, LogSlot};

const LOGS: i32 = 3;

fn wanted() -> LogConfig {
    LogConfig { segment_bytes: 150_000, ..config() }
}

fn dir(log: i32) -> String {
    format!("{DATA}/{}/{log}", key(log).topic)
}

fn copy_all(rig: &mut Rig) {
    for log in 0..LOGS {
        let dir = dir(log);
        for file in rig.io.list_dir(dir.as_ref()).expect("the directory") {
            rig.world.copy_in_place(format!("{dir}/{}", file.name).as_ref());
        }
    }
}

/// Rounds of all logs together.
fn produce(rig: &mut Rig, slots: &[LogSlot], models: &mut [Model], names: std::ops::Range<u64>) {
    for name in names {
        for (slot, model) in slots.iter().zip(&mut *models) {
            let sent = batch(name, 2, 4000);
            model.add(&rig.append_patiently(*slot, &sent), &sent);
        }
        let behind = |rig: &Rig, slot| rig.high_watermark(slot) < rig.store.bounds(slot).log_end.get();
        let all = rig.run(10_000, |rig| !slots.iter().any(|slot| behind(rig, *slot)));
        assert!(all, "{:?}", rig.events);
    }
}

#[test]
fn in_a_copied_directory_acks_survive_as_well() {
    let mut recycled = 0;
    for seed in 0..30 {
        let mut rig = Rig::new(seed, Faults::none());
        let mut slots: Vec<_> = (0..LOGS).map(|log| rig.open(log, wanted())).collect();
        let mut models = vec![Model::default(); slots.len()];
        produce(&mut rig, &slots, &mut models, 0..56);
        rig.stop();
        copy_all(&mut rig);

        let mut rig = rig.successor(|_| {});
        slots = (0..LOGS).map(|log| rig.open(log, wanted())).collect();
        produce(&mut rig, &slots, &mut models, 100..101);
        // The files of the first segments become those of later ones.
        for slot in &slots {
            rig.store.set_log_start(*slot, Offset(60)).expect("below the high watermark");
        }
        rig.settle(200);
        produce(&mut rig, &slots, &mut models, 101..102 + seed * 2);
        recycled += rig.store.counters().segments_recycled_total;
        let acked: Vec<Offset> = slots.iter().map(|slot| rig.high_watermark(*slot)).collect();
        rig.world.crash();

        let mut rig = rig.successor(|_| {});
        for (log, acked) in (0..LOGS).zip(acked) {
            let slot = rig.open(log, wanted());
            rig.pump();
            assert!(rig.high_watermark(slot) >= acked, "seed {seed}, log {log}: {:?}", rig.events);
            rig.check_all(slot, &models[log as usize], 50_000);
        }
    }
    assert!(recycled > 30, "{recycled} files");
}

#[test]
fn a_partition_on_another_device_is_flushed_by_itself() {
    for seed in 0..30 {
        let mut rig = Rig::new(seed, Faults::none());
        let elsewhere = seed as i32 % LOGS;
        rig.world.add_disk(dir(elsewhere), DiskConfig::default());
        let mut models = vec![Model::default(); LOGS as usize];
        // The second time the last segments are opened again.
        for names in [0..1 + seed * 2, 100..101 + seed] {
            let slots: Vec<_> = (0..LOGS).map(|log| rig.open(log, wanted())).collect();
            produce(&mut rig, &slots, &mut models, names);
            let acked: Vec<Offset> = slots.iter().map(|slot| rig.high_watermark(*slot)).collect();
            rig.world.crash();

            rig = rig.successor(|_| {});
            for (log, acked) in (0..LOGS).zip(&acked) {
                let slot = rig.open(log, wanted());
                rig.pump();
                assert!(rig.high_watermark(slot) >= *acked, "seed {seed}, log {log}: {:?}", rig.events);
                rig.check_all(slot, &models[log as usize], 50_000);
            }
            rig.stop();
            rig = rig.successor(|_| {});
        }
    }
}
