//! The state behind every handle of a world: chance, time, events in order, and the trace that proves determinism.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use super::disk::{Disk, NodeId};
use super::driver::{IoState, Ready};
use super::faults::{Faults, Injected, OpKind};
use super::file::Stamp;
use super::net::{Net, Packet, Side};
use super::rng::{Rng, mix};

/// A process of the world: it owns drivers and locks, and dies as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId(pub u32);

/// One driver of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IoId(pub u32);

/// A file wherever it is: disk and node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileRef {
    pub disk: usize,
    pub node: NodeId,
}

pub struct Core {
    pub seed: u64,
    pub rng: Rng,
    /// True time in nanoseconds.
    pub now: u64,
    pub stamp: Stamp,
    pub faults: Faults,
    /// Where each disk is mounted. The longest prefix wins.
    pub disks: Vec<(PathBuf, Disk)>,
    pub processes: BTreeMap<ProcessId, Process>,
    pub ios: BTreeMap<IoId, IoState>,
    /// Processes whose turns return at once.
    pub scheduled: BTreeSet<ProcessId>,
    pub net: Net,
    pub locks: BTreeMap<FileRef, ProcessId>,
    /// 4 KiB blocks under a write whose `Done` was not returned yet.
    pub busy: BTreeSet<(FileRef, u64)>,
    pub placed: Vec<Placed>,
    /// Something happened that the code outside the drivers may want to react to: turns return.
    pub attention: bool,
    pub wall_offset_ms: i64,
    pub verbose: bool,
    events: BTreeMap<(u64, u64), Event>,
    next_id: u64,
    trace: u64,
    cover: BTreeMap<&'static str, u64>,
}

/// The clock of a process: monotonic time starts anywhere and may run fast or slow.
pub struct Process {
    started_at: u64,
    mono_at_start: u64,
    rate_ppm: u64,
}

impl Process {
    pub fn mono(&self, now: u64) -> u64 {
        let elapsed = u128::from(now - self.started_at) * u128::from(self.rate_ppm) / 1_000_000;
        self.mono_at_start + elapsed as u64
    }

    /// The first true time at which this clock shows `mono` or more.
    pub fn true_time(&self, mono: u64) -> u64 {
        let elapsed = u128::from(mono.saturating_sub(self.mono_at_start)) * 1_000_000;
        let true_ns = elapsed.div_ceil(u128::from(self.rate_ppm));
        self.started_at.saturating_add(u64::try_from(true_ns).unwrap_or(u64::MAX))
    }
}

/// A fault that waits for one certain operation.
pub struct Placed {
    pub kind: OpKind,
    /// Operations of that kind to let pass first.
    pub after: u64,
    pub what: Injected,
}

pub enum Event {
    FileOp {
        io: IoId,
        op: u64,
    },
    /// A write of a killed process reaches the disk after all.
    LateWrite {
        file: FileRef,
        change: u64,
    },
    Post {
        io: IoId,
        ready: Box<Ready>,
    },
    Connect {
        conn: u32,
    },
    Arrive {
        conn: u32,
        at: Side,
        packet: Packet,
    },
    /// A wake-up arrives.
    Call {
        io: IoId,
    },
    Alarm,
}

impl Core {
    pub fn new(seed: u64, faults: Faults) -> Core {
        Core {
            seed,
            rng: Rng::new(seed),
            now: 1,
            stamp: 0,
            faults,
            disks: Vec::new(),
            processes: BTreeMap::new(),
            ios: BTreeMap::new(),
            scheduled: BTreeSet::new(),
            net: Net::default(),
            locks: BTreeMap::new(),
            busy: BTreeSet::new(),
            placed: Vec::new(),
            attention: false,
            wall_offset_ms: 0,
            verbose: std::env::var_os("SIM_LOG").is_some(),
            events: BTreeMap::new(),
            next_id: 1,
            trace: seed,
            cover: BTreeMap::new(),
        }
    }

    /// Stops the run: an invariant is broken. The seed replays it.
    pub fn fail(&self, what: impl fmt::Display) -> ! {
        panic!("sim: {what} [seed {}, at {} us]", self.seed, self.now / 1000);
    }

    pub fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Enters one event into the trace.
    pub fn note(&mut self, what: &'static str, a: u64, b: u64) {
        if self.verbose {
            eprintln!("[{:>12} us] {what} {a} {b}", self.now / 1000);
        }
        let name = what.bytes().fold(0u64, |h, byte| h.rotate_left(7) ^ u64::from(byte));
        self.trace = mix(self.trace ^ mix(self.now ^ name) ^ mix(a) ^ mix(b.rotate_left(32)));
    }

    pub fn trace(&self) -> u64 {
        self.trace
    }

    pub fn mark(&mut self, name: &'static str) {
        *self.cover.entry(name).or_insert(0) += 1;
    }

    pub fn covered(&self) -> &BTreeMap<&'static str, u64> {
        &self.cover
    }

    pub fn schedule(&mut self, at: u64, event: Event) {
        let order = self.id();
        self.events.insert((at.max(self.now), order), event);
    }

    pub fn start_process(&mut self) -> ProcessId {
        let id = ProcessId(self.id() as u32);
        let rate_ppm = if self.faults.clock_skew { self.rng.between(900_000, 1_100_000) } else { 1_000_000 };
        let mono_at_start = self.rng.between(1_000_000_000, 1_000_000_000_000);
        self.processes.insert(id, Process { started_at: self.now, mono_at_start, rate_ppm });
        self.note("start", u64::from(id.0), rate_ppm);
        id
    }

    /// Runs everything that is due by now.
    pub fn run_due(&mut self) {
        while let Some(entry) = self.events.first_entry().filter(|e| e.key().0 <= self.now) {
            let event = entry.remove();
            self.run(event);
        }
    }

    /// Moves time to the next event, but not beyond `deadline`, and runs what is due. False once the deadline is reached, or
    /// nothing will ever happen.
    pub fn advance(&mut self, deadline: u64) -> bool {
        let next = self.events.keys().next().map_or(u64::MAX, |key| key.0);
        if next >= deadline {
            if deadline != u64::MAX {
                self.now = self.now.max(deadline);
                self.run_due();
            }
            return false;
        }
        self.now = self.now.max(next);
        self.run_due();
        true
    }

    fn run(&mut self, event: Event) {
        match event {
            Event::FileOp { io, op } => self.finish_file_op(io, op),
            Event::LateWrite { file, change } => self.land_late(file, change),
            Event::Post { io, ready } => self.post(io, *ready),
            Event::Connect { conn } => self.connect_arrives(conn),
            Event::Arrive { conn, at, packet } => self.packet_arrives(conn, at, packet),
            Event::Call { io } => self.called(io),
            Event::Alarm => self.attention = true,
        }
    }

    /// Hands a completion to its driver, if that still lives.
    pub fn post(&mut self, io: IoId, ready: Ready) {
        if let Some(io) = self.ios.get_mut(&io) {
            io.ready.push(ready);
        }
    }

    /// Forgets what was on its way: the machine lost its power. Alarms belong to the test and stay, and so does what travels
    /// towards clients on other machines.
    pub fn drop_events_of_machine(&mut self) {
        self.events.retain(|_, event| matches!(event, Event::Alarm | Event::Arrive { at: Side::Client, .. }));
    }

    /// Files that writes of killed processes are still on their way to.
    pub fn late_files(&self) -> impl Iterator<Item = FileRef> {
        self.events.values().filter_map(|event| match event {
            Event::LateWrite { file, .. } => Some(*file),
            _ => None,
        })
    }

    /// Which disk holds a path, and the path below its root.
    pub fn resolve<'a>(&self, path: &'a Path) -> Option<(usize, &'a Path)> {
        let mounts = self.disks.iter().enumerate();
        let fits = mounts.filter_map(|(i, (mount, _))| Some((i, mount, path.strip_prefix(mount).ok()?)));
        fits.max_by_key(|(_, mount, _)| mount.components().count()).map(|(i, _, below)| (i, below))
    }

    /// The fault for the next operation of this kind: a placed one first, else by its rate.
    pub fn draw_fault(&mut self, kind: OpKind) -> Option<Injected> {
        let mut hit = None;
        self.placed.retain_mut(|placed| {
            if placed.kind != kind && placed.kind != OpKind::Any {
                return true;
            }
            let now = placed.after == 0 && hit.is_none();
            if now {
                hit = Some(placed.what);
            }
            placed.after = placed.after.saturating_sub(1);
            !now
        });
        let (eio, short) = match kind {
            OpKind::Read => (self.faults.read_eio, 0),
            OpKind::Write => (self.faults.write_eio, self.faults.write_short),
            OpKind::Flush => (self.faults.flush_eio, 0),
            OpKind::Meta | OpKind::Any => (self.faults.meta_eio, 0),
        };
        let (fails, short) = (self.rng.chance(eio), self.rng.chance(short));
        let drawn = fails.then_some(Injected::Fails(crate::io::Errno::IO));
        hit.or(drawn).or(short.then_some(Injected::Short))
    }

    /// Nanoseconds that a disk operation takes.
    pub fn disk_delay(&mut self) -> u64 {
        if self.rng.chance(self.faults.stall) {
            self.mark("disk_stall");
            return self.rng.between(*self.faults.stall_ns.start(), *self.faults.stall_ns.end());
        }
        let us = self.rng.between(*self.faults.disk_us.start(), *self.faults.disk_us.end());
        let tail = if self.rng.below(20) == 0 { 10 } else { 1 };
        us * tail * 1000 + self.rng.below(1000)
    }
}
