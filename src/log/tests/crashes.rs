//! Seeded runs of the store with crashes: what was acknowledged is there, each offset shows one value, nothing appears that was not sent.

use super::Seeded;
use super::rig::{Model, Rig, batch, config};
use crate::base::offset::Offset;
use crate::io::sim::{Faults, World};
use crate::log::store::{Durability, Event, LogConfig, LogSlot, NotAppended, Planted, StoreConfig};

struct Run {
    seed: Seeded,
    rig: Rig,
    slots: Vec<LogSlot>,
    models: Vec<Model>,
    /// Acked offset and log start of each log.
    acked: Vec<Offset>,
    started: Vec<Offset>,
    names: u64,
    wanted: LogConfig,
    shared_flush: bool,
    flush_apart: bool,
    planted: Option<Planted>,
}

impl Run {
    fn new(seed: u64, planted: Option<Planted>) -> Run {
        let mut numbers = Seeded::new(seed);
        let faults = Faults { stall: 0, wall_jump: 0, ..Faults::calm() };
        let shared_flush = numbers.below(2) == 0;
        let flush_apart = numbers.below(3) == 0;
        let wanted = LogConfig {
            segment_bytes: [60_000, 300_000, 2 << 20][numbers.below(3) as usize],
            retention_bytes: [-1, 500_000][numbers.below(2) as usize],
            ..config()
        };
        let adjust = |c: &mut StoreConfig| {
            c.planted = planted;
            c.shared_flush = shared_flush;
            c.caps.flush_apart = flush_apart;
        };
        let mut rig = Rig::with(World::new(seed, faults), true, adjust);
        rig.check_barrier = planted.is_none();
        let logs = 1 + numbers.below(4) as i32;
        let slots: Vec<_> = (0..logs).map(|i| rig.open(i, wanted.clone())).collect();
        let models = vec![Model::default(); slots.len()];
        let zero = vec![Offset::ZERO; slots.len()];
        Run {
            seed: numbers,
            rig,
            slots,
            models,
            acked: zero.clone(),
            started: zero,
            names: 0,
            wanted,
            shared_flush,
            flush_apart,
            planted,
        }
    }

    fn step(&mut self) {
        let index = self.seed.below(self.slots.len() as u64) as usize;
        match self.seed.below(100) {
            0..55 => self.append(index),
            55..90 => self.rig.turn(),
            90..94 => {
                let from = self.rig.store.bounds(self.slots[index]).log_start.get();
                let end = self.rig.high_watermark(self.slots[index]);
                if from < end {
                    let from = Offset(from.0 + self.seed.below((end.0 - from.0) as u64) as i64);
                    let (bytes, _) = self.rig.fetch(self.slots[index], from, self.seed.below(100_000) as u32);
                    self.models[index].check(&bytes, from);
                }
            }
            94 => self.rig.cold_only(self.slots[index]),
            95 => {
                let end = self.rig.high_watermark(self.slots[index]);
                let offset = Offset(self.seed.below(end.0 as u64 + 1) as i64);
                let _ = self.rig.store.set_log_start(self.slots[index], offset);
            }
            _ => self.rig.settle(self.seed.below(20)),
        }
        for (i, slot) in self.slots.iter().enumerate() {
            let bounds = self.rig.store.bounds(*slot);
            assert!(bounds.high_watermark.get() >= self.acked[i], "the high watermark goes back");
            self.acked[i] = bounds.high_watermark.get();
            self.started[i] = self.started[i].max(bounds.log_start.get());
        }
    }

    fn append(&mut self, index: usize) {
        let bytes = match self.seed.below(20) {
            0 => self.seed.below(200_000),
            1..5 => self.seed.below(20_000),
            _ => self.seed.below(1000),
        };
        self.append_bytes(index, bytes as usize);
    }

    fn append_bytes(&mut self, index: usize, bytes: usize) {
        let count = 1 + self.seed.below(4) as usize;
        let sent = batch(self.names, count, bytes / count);
        self.names += 1;
        match self.rig.append(self.slots[index], &sent) {
            Ok(appended) => self.models[index].add(&appended, &sent),
            Err(NotAppended::NoMemory) => self.rig.turn(),
            Err(NotAppended::Refused(crate::base::error::Refused::RecordListTooLarge)) => {}
            Err(other) => panic!("{other:?} {:?}", self.rig.events),
        }
    }

    /// A small write, and a large one beside it: the second may land without the first, and then only the chain shows the hole.
    fn step_beside(&mut self) {
        let index = self.seed.below(self.slots.len() as u64) as usize;
        self.append_bytes(index, 300);
        self.rig.turn();
        self.append_bytes(index, 70_000);
        self.rig.turn();
        self.acked[index] = self.rig.store.bounds(self.slots[index]).high_watermark.get();
    }

    /// Ends the process in one of three ways, and lets another one take over.
    fn restart(mut self) -> Run {
        let way = self.seed.below(5);
        match way {
            0 => self.rig.stop(),
            1 => self.rig.world.kill(self.rig.process),
            _ => self.rig.world.crash(),
        }
        let ends: Vec<_> = self.slots.iter().map(|slot| self.rig.store.bounds(*slot).log_end.get()).collect();
        let (shared_flush, flush_apart, planted) = (self.shared_flush, self.flush_apart, self.planted);
        self.rig = self.rig.successor(|c| {
            c.planted = planted;
            c.shared_flush = shared_flush;
            c.caps.flush_apart = flush_apart;
        });
        self.rig.check_barrier = planted.is_none();
        for (index, end) in ends.into_iter().enumerate() {
            let slot = self.rig.open(index as i32, self.wanted.clone());
            self.slots[index] = slot;
            let bounds = self.rig.store.bounds(slot);
            self.rig.pump();
            assert!(
                !self.rig.events.iter().any(|e| matches!(e, Event::Corrupt(..))),
                "{:?}",
                self.rig.events
            );
            let found = bounds.log_end.get();
            assert!(found >= self.acked[index], "acked up to {} and found up to {found}", self.acked[index]);
            assert!(found <= end && (way != 0 || found == end), "found up to {found} of {end}");
            assert!(bounds.log_start.get() >= self.started[index], "the log start goes back");
            assert!(bounds.leader_epoch.0 >= 0);
            self.models[index].batches.retain(|(offset, _)| *offset < found);
            self.rig.check_all(slot, &self.models[index], 200_000);
            self.acked[index] = found;
        }
        self
    }
}

fn run(seed: u64, planted: Option<Planted>, restarts: u32) {
    let mut run = Run::new(seed, planted);
    for _ in 0..restarts {
        let steps = run.seed.below(200);
        for _ in 0..steps {
            run.step();
        }
        run = run.restart();
    }
}

/// The seeds to run: `SEED=n` for one, `SEEDS=n` for as many.
fn seeds(usual: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match (number("SEED"), number("SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(count)) => usual.start..usual.start + count,
        (None, None) => usual,
    }
}

#[test]
fn crashes_lose_nothing_that_was_acknowledged() {
    for seed in seeds(100..120) {
        println!("SEED={seed}");
        run(seed, None, 6);
    }
}

/// A run whose writes stand beside each other, cut short by a crash.
fn run_beside(seed: u64) {
    let mut run = Run::new(seed, None);
    for _ in 0..4 {
        for _ in 0..=run.seed.below(6) {
            run.step_beside();
        }
        run = run.restart();
    }
}

/// The missing chain shows in `recoveries` and in `tests/sim`, where more than one segment's history is at hand.
#[test]
fn planted_bugs_lose_records_in_crashes() {
    let red = |run: &dyn Fn(u64)| {
        (200..260).any(|seed| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed))).is_err())
    };
    for bug in [Planted::AckBeforeFlush, Planted::DurableIsLastCompleted, Planted::NoDirectorySync] {
        assert!(red(&|seed| run(seed, Some(bug), 6)), "{bug:?} is noticed");
    }
}

#[test]
fn a_hole_between_writes_side_by_side_ends_the_log() {
    (200..260).for_each(run_beside);
}

#[test]
fn written_records_survive_a_kill() {
    for seed in 300..310 {
        let mut rig = Rig::new(seed, Faults::calm());
        let wanted =
            LogConfig { durability: Durability::Written, segment_bytes: 200_000, flush_ms: 20, ..config() };
        let slot = rig.open(0, wanted.clone());
        let mut model = Model::default();
        for name in 0..150 {
            let sent = batch(name, 2, 3000);
            let appended = rig.append_patiently(slot, &sent);
            model.add(&appended, &sent);
            if name % 3 == 0 {
                rig.turn();
            }
        }
        let acked = rig.high_watermark(slot);
        rig.world.kill(rig.process);
        let mut rig = rig.successor(|_| {});
        let slot = rig.open(0, wanted);
        assert!(rig.high_watermark(slot) >= acked, "{:?} {acked}", rig.store.bounds(slot));
        rig.check_all(slot, &model, 100_000);
        assert_eq!(rig.store.epoch_end(slot, crate::base::ids::LeaderEpoch(0)).1, rig.high_watermark(slot));
    }
}
