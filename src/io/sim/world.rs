//! The handle that a test holds: starts processes, kills them, cuts the power, looks at what is durable.

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::client::SimConn;
use super::core::{Core, Event, FileRef, IoId, Placed, ProcessId};
use super::disk::{Disk, NodeId};
use super::driver::{IoState, SimIo};
use super::faults::{DiskConfig, Faults, Injected, OpKind};
use super::file::File;
use super::sharing::Bell;
use crate::io::recv::RecvPool;
use crate::io::{Errno, Op};

/// Receive buffers of one driver: few, so that they run out.
const RECV_BUFFERS: u16 = 8;

/// Longest that a killed process's write takes to land.
const LATE_NS_MAX: u64 = 20_000_000_000;

/// One world on one seed. Clones are handles of the same world.
#[derive(Clone)]
pub struct World(Rc<RefCell<Core>>);

impl World {
    pub fn new(seed: u64, faults: Faults) -> World {
        World(Rc::new(RefCell::new(Core::new(seed, faults))))
    }

    /// Mounts a new, empty disk. Its root directory is there and durable.
    pub fn add_disk(&self, mount: impl Into<PathBuf>, config: DiskConfig) {
        self.core().disks.push((mount.into(), Disk::new(config)));
    }

    pub fn start_process(&self) -> ProcessId {
        self.core().start_process()
    }

    /// A driver for one shard of a process.
    pub fn io(&self, process: ProcessId, pool_bytes: usize) -> SimIo {
        let mut core = self.core();
        let id = IoId(core.id() as u32);
        let state = IoState {
            process,
            ops: Default::default(),
            queued_files: Vec::new(),
            queued_net: Vec::new(),
            ready: Vec::new(),
            files: Default::default(),
            next_file: 0,
            recv_pool: RecvPool::new(RECV_BUFFERS).expect("memory for receive buffers"),
            bell: Bell::new(id),
            announced: false,
            woken: false,
            calls: Vec::new(),
            wish: None,
            stalled_until: 0,
        };
        core.ios.insert(id, state);
        drop(core);
        SimIo::new(self.clone(), id, pool_bytes)
    }

    /// SIGKILL. The disk keeps what landed; what was in flight lands now, later, or never. The drivers of the process must not
    /// be used again; dropping them is fine.
    pub fn kill(&self, process: ProcessId) {
        let mut core = self.core();
        core.note("kill", u64::from(process.0), 0);
        core.mark("kill");
        core.end_process(process, Core::leave_in_flight);
        core.collect_files();
    }

    /// Power loss: every process dies, each disk keeps its flushed image and a random part of the rest.
    pub fn crash(&self) {
        let mut core = self.core();
        core.note("crash", 0, 0);
        core.mark("crash");
        let processes: Vec<ProcessId> = core.processes.keys().copied().collect();
        for process in processes {
            core.end_process(process, |core, op| core.release_blocks(&op));
        }
        core.drop_events_of_machine();
        core.locks.clear();
        core.crash_disks();
    }

    /// Opens a connection from outside; refused where nobody listens.
    pub fn connect(&self, addr: SocketAddr) -> Result<SimConn, Errno> {
        let conn = self.core().connect(addr)?;
        Ok(SimConn::new(self.clone(), conn))
    }

    /// True time in nanoseconds.
    pub fn now(&self) -> u64 {
        self.core().now
    }

    /// Lets time pass without any turn: the processes are stopped, disks and network go on.
    pub fn pass(&self, ns: u64) {
        let mut core = self.core();
        let deadline = core.now + ns;
        while core.advance(deadline) {}
    }

    /// Makes waiting turns return at this true time, so that the test gets a word in.
    pub fn wake_at(&self, at: u64) {
        self.core().schedule(at, Event::Alarm);
    }

    pub fn set_faults(&self, faults: Faults) {
        self.core().faults = faults;
    }

    pub fn faults(&self) -> Faults {
        self.core().faults.clone()
    }

    /// Places a fault on one operation: the next of that kind, after `after` others.
    pub fn place_fault(&self, kind: OpKind, after: u64, what: Injected) {
        self.core().placed.push(Placed { kind, after, what });
    }

    /// Forgets placed faults that did not strike. Returns how many.
    pub fn clear_placed_faults(&self) -> usize {
        std::mem::take(&mut self.core().placed).len()
    }

    /// Flips one bit at rest.
    pub fn rot(&self, path: &Path, offset: u64, bit: u8) {
        self.at_rest(path, "rot", |file| {
            let byte = file.live.bytes(offset, 1)[0] ^ (1 << bit);
            file.overwrite(offset, &[byte]);
        });
    }

    /// Bytes at rest change: a write that was meant for another place, or was lost.
    pub fn overwrite(&self, path: &Path, offset: u64, data: &[u8]) {
        self.at_rest(path, "overwritten", |file| file.overwrite(offset, data));
    }

    /// The 4096 bytes around a position cannot be read any more, until they are written.
    pub fn spoil(&self, path: &Path, position: u64) {
        self.at_rest(path, "spoiled", |file| file.spoil(position));
    }

    /// The file is a copy of what it was, which shares its extents.
    pub fn copy_in_place(&self, path: &Path) {
        self.at_rest(path, "copied", File::become_copy);
    }

    fn at_rest(&self, path: &Path, name: &'static str, change: impl FnOnce(&mut File)) {
        let mut core = self.core();
        let file = core.file_at(path, Disk::find).expect("a file");
        change(core.disks[file.disk].1.file_mut(file.node).expect("a file"));
        core.mark(name);
    }

    /// This range of a file would be there after a power cut now, as it is read now: its bytes, its length, every directory
    /// entry on the way to it.
    pub fn is_flushed(&self, path: &Path, range: Range<u64>) -> bool {
        let core = self.core();
        let (Ok(live), Ok(durable)) =
            (core.file_at(path, Disk::find), core.file_at(path, Disk::find_durable))
        else {
            return false;
        };
        let Ok(file) = core.disks[live.disk].1.file(live.node) else { return false };
        live == durable && file.live.same(&file.flushed, range.start, range.end - range.start)
    }

    /// What a power cut now would surely leave of a file, if it would leave it at all.
    pub fn flushed_bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let core = self.core();
        let file = core.file_at(path, Disk::find_durable).ok()?;
        let image = &core.disks[file.disk].1.file(file.node).ok()?.flushed;
        Some(image.bytes(0, image.len() as usize))
    }

    /// Where `needle` stands, at or behind `from`, in what a power cut now would surely leave of a file.
    pub fn find_flushed(&self, path: &Path, from: u64, needle: &[u8]) -> Option<u64> {
        let core = self.core();
        let file = core.file_at(path, Disk::find_durable).ok()?;
        core.disks[file.disk].1.file(file.node).ok()?.flushed.find(from, needle)
    }

    /// Where `needle` stands, at or behind `from`, in what a process would read of a file now.
    pub fn find_live(&self, path: &Path, from: u64, needle: &[u8]) -> Option<u64> {
        let core = self.core();
        let file = core.file_at(path, Disk::find).ok()?;
        core.disks[file.disk].1.file(file.node).ok()?.live.find(from, needle)
    }

    /// Changes how much a disk holds.
    pub fn set_capacity(&self, mount: &Path, capacity_bytes: u64) {
        let mut core = self.core();
        let (disk, _) = core.resolve(mount).expect("a disk");
        core.disks[disk].1.config.capacity_bytes = capacity_bytes;
    }

    /// What a process would read of a file now.
    pub fn live_bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let core = self.core();
        let file = core.file_at(path, Disk::find).ok()?;
        let image = &core.disks[file.disk].1.file(file.node).ok()?.live;
        Some(image.bytes(0, image.len() as usize))
    }

    pub fn seed(&self) -> u64 {
        self.core().seed
    }

    /// A number below `end` for the test's own decisions, from the same seed.
    pub fn below(&self, end: u64) -> u64 {
        self.core().rng.below(end)
    }

    /// A hash over every event so far. Two runs of one seed agree on it, or something is not deterministic.
    pub fn trace(&self) -> u64 {
        self.core().trace()
    }

    /// Enters an event of the test into the trace.
    pub fn note(&self, what: &'static str, a: u64, b: u64) {
        self.core().note(what, a, b);
    }

    /// How often something was reached.
    pub fn cover(&self, name: &str) -> u64 {
        self.core().covered().get(name).copied().unwrap_or(0)
    }

    pub fn covered(&self) -> Vec<(&'static str, u64)> {
        self.core().covered().iter().map(|(name, count)| (*name, *count)).collect()
    }

    pub fn mark(&self, name: &'static str) {
        self.core().mark(name);
    }

    /// Stops the run with the seed in the message.
    pub fn fail(&self, what: impl fmt::Display) -> ! {
        self.core().fail(what)
    }

    pub(super) fn core(&self) -> RefMut<'_, Core> {
        self.0.borrow_mut()
    }

    pub(super) fn try_core(&self) -> Option<RefMut<'_, Core>> {
        self.0.try_borrow_mut().ok()
    }
}

impl Core {
    fn file_at(
        &self,
        path: &Path,
        find: fn(&Disk, &Path) -> Result<NodeId, Errno>,
    ) -> Result<FileRef, Errno> {
        let (disk, below) = self.resolve(path).ok_or(Errno::NOENT)?;
        Ok(FileRef { disk, node: find(&self.disks[disk].1, below)? })
    }

    /// Takes a process out of the world. `in_flight` decides about each of its submitted file operations.
    fn end_process(&mut self, process: ProcessId, in_flight: fn(&mut Core, super::files::FileOp)) {
        let ios: Vec<IoId> =
            self.ios.iter().filter(|(_, io)| io.process == process).map(|(id, _)| *id).collect();
        self.reset_shared(process);
        for id in ios {
            self.reset_net(id);
            let mut io = self.ios.remove(&id).expect("listed");
            io.ready.drain(..).for_each(|ready| self.close(ready.closes));
            for (_, op) in std::mem::take(&mut io.ops) {
                if op.submitted { in_flight(self, op) } else { self.release_blocks(&op) }
            }
        }
        self.processes.remove(&process);
        self.scheduled.remove(&process);
        self.attention = true;
        let stamp = self.stamp;
        for (_, disk) in &mut self.disks {
            disk.files_mut().for_each(|(_, file)| file.settle_lost(stamp, &mut self.rng));
        }
    }

    /// What becomes of an operation whose process was killed.
    fn leave_in_flight(&mut self, op: super::files::FileOp) {
        self.release_blocks(&op);
        let Some(file) = op.target.filter(|_| matches!(op.op, Op::Write { .. })) else {
            // Changes of metadata that the kernel had begun are completed, the others never start.
            if self.rng.below(2) == 0 {
                let ready = self.carry_out(IoId(0), op);
                self.close(ready.closes);
            }
            return;
        };
        match self.rng.below(3) {
            0 => self.land_late(file, op.change),
            1 => {
                let shift = self.rng.below(24);
                let delay = self.rng.between(1_000, LATE_NS_MAX >> shift);
                self.schedule(self.now + delay, Event::LateWrite { file, change: op.change });
            }
            _ => self.disks[file.disk].1.file_mut(file.node).expect("open files exist").lose(op.change),
        }
    }

    fn crash_disks(&mut self) {
        for i in 0..self.disks.len() {
            let damage = self.disks[i].1.crash(&mut self.rng);
            self.note("damage", u64::from(damage.lost), u64::from(damage.torn));
            for (name, count) in [
                ("lost_write", damage.lost),
                ("torn_write", damage.torn),
                ("kept_unflushed_write", damage.kept),
            ] {
                (0..count).for_each(|_| self.mark(name));
            }
        }
    }
}
