//! The `Io` of one shard in a world: exactly the methods that [`Io`](crate::io::Io) delegates to.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use super::core::{Core, FileRef, IoId, ProcessId};
use super::disk::NodeId;
use super::files::{FileOp, OpenFile};
use super::sharing::Bell;
use super::world::World;
use crate::base::limits::COMPLETIONS_PER_TURN_MAX;
use crate::io::buffer::Pool;
use crate::io::recv::RecvPool;
use crate::io::{DirEntry, DiskSpace, Done, Errno, Mono, Op, Payload, StorageCaps, Token, Wait};

/// Wall time at the start of every world: some day in November 2023.
const WALL_MS_AT_START: i64 = 1_700_000_000_000;

pub struct SimIo {
    pub(super) world: World,
    pub(super) id: IoId,
    pool: Pool,
}

/// What the world keeps for one driver.
pub struct IoState {
    pub process: ProcessId,
    pub ops: BTreeMap<u64, FileOp>,
    pub queued_files: Vec<u64>,
    pub queued_net: Vec<(Op, Token)>,
    pub ready: Vec<Ready>,
    pub files: BTreeMap<u32, OpenFile>,
    pub next_file: u32,
    pub recv_pool: RecvPool,
    pub bell: Bell,
    /// The sleep of the next turn was announced.
    pub announced: bool,
    /// A wake-up has arrived since the last turn.
    pub woken: bool,
    /// Drivers to wake with the next turn.
    pub calls: Vec<IoId>,
    /// Where turns return at once: until when, in true time, this driver would sleep.
    pub wish: Option<u64>,
    /// It gets no turn before this true time.
    pub stalled_until: u64,
}

/// A completion that waits for a turn.
pub struct Ready {
    pub done: Done,
    /// Completions of one connection keep their order.
    pub lane: Option<u32>,
    pub closes: Closes,
}

/// What the layers above learn by a completion.
pub enum Closes {
    Nothing,
    Write { file: FileRef, change: u64, blocks: Range<u64>, pushed: Rc<[u8]> },
    Change { file: FileRef, change: u64 },
    Entries { disk: usize, node: NodeId, change: u64 },
    Send { conn: u32 },
}

impl SimIo {
    pub(super) fn new(world: World, id: IoId, pool_bytes: usize) -> SimIo {
        SimIo { world, id, pool: Pool::new(pool_bytes) }
    }

    pub fn push(&mut self, op: Op, token: Token) {
        let mut core = self.world.core();
        core.own_io(self.id);
        match op {
            Op::Accept { .. }
            | Op::CancelAccept { .. }
            | Op::Recv { .. }
            | Op::RecvOnce { .. }
            | Op::CancelRecv { .. }
            | Op::Send { .. }
            | Op::DetachConn { .. }
            | Op::CloseConn { .. } => core.push_net_op(self.id, op, token),
            _ => core.push_file_op(self.id, op, token),
        }
    }

    pub fn turn(&mut self, wait: Wait, out: &mut Vec<Done>) {
        self.world.core().turn(self.id, wait, out);
    }

    pub fn now(&self) -> Mono {
        let core = self.world.core();
        core.check_alive(self.id);
        Mono(core.processes[&core.ios[&self.id].process].mono(core.now))
    }

    pub fn wall_ms(&self) -> i64 {
        let core = self.world.core();
        WALL_MS_AT_START + core.wall_offset_ms + (core.now / 1_000_000) as i64
    }

    pub fn random(&mut self, bytes: &mut [u8]) {
        self.world.core().rng.fill(bytes);
    }

    pub fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    pub fn grow_pool(&mut self) -> bool {
        let mut core = self.world.core();
        let ppm = core.faults.no_memory;
        if core.rng.chance(ppm) {
            core.mark("pool_refused");
            return false;
        }
        drop(core);
        self.pool.grow().is_some()
    }

    pub fn list_dir(&mut self, path: &Path) -> Result<Vec<DirEntry>, Errno> {
        let core = self.world.core();
        let (disk, below) = core.resolve(path).ok_or(Errno::NOENT)?;
        core.disks[disk].1.list(below)
    }

    pub fn storage_caps(&mut self, path: &Path) -> Result<StorageCaps, Errno> {
        let core = self.world.core();
        let (disk, below) = core.resolve(path).ok_or(Errno::NOENT)?;
        let tree = &core.disks[disk].1;
        tree.find(below)?;
        Ok(StorageCaps {
            device: disk as u64,
            file_system: tree.config.file_system.to_string(),
            direct: true,
            shared_flush: tree.config.shared_flush,
            shared_flush_tested: true,
            flush_apart: tree.config.flush_apart,
            not_durable: tree.config.not_durable,
        })
    }

    pub fn disk_space(&mut self, path: &Path) -> Result<DiskSpace, Errno> {
        let core = self.world.core();
        let (disk, below) = core.resolve(path).ok_or(Errno::NOENT)?;
        let tree = &core.disks[disk].1;
        tree.find(below)?;
        let total = tree.config.capacity_bytes;
        Ok(DiskSpace { free: total.saturating_sub(tree.used_bytes()), total })
    }

    pub fn wait(&mut self, op: Op) -> Done {
        const TOKEN: Token = Token(u64::MAX);
        self.push(op, TOKEN);
        let mut core = self.world.core();
        core.submit_files(self.id);
        loop {
            let ready = &mut core.ios.get_mut(&self.id).expect("alive").ready;
            if let Some(at) = ready.iter().position(|r| r.done.token == TOKEN) {
                let ready = ready.remove(at);
                return core.hand_over(ready);
            }
            if !core.advance(u64::MAX) {
                core.fail("a wait that nothing will end");
            }
        }
    }
}

impl Drop for SimIo {
    /// As the contract has it: everything in flight ends, nothing is left to land later.
    fn drop(&mut self) {
        if let Some(mut core) = self.world.try_core() {
            core.close_io(self.id);
        }
    }
}

impl Core {
    pub fn check_alive(&self, io: IoId) {
        if !self.ios.contains_key(&io) {
            self.fail(format_args!("{io:?} is used after its process died"));
        }
    }

    fn turn(&mut self, io: IoId, wait: Wait, out: &mut Vec<Done>) {
        self.check_alive(io);
        self.attention = false;
        self.now += self.rng.between(500, 3_000);
        self.jump_wall_clock();
        self.submit_files(io);
        self.submit_net(io);
        self.submit_calls(io);
        self.close_dropped();
        self.run_due();
        let deadline = match wait {
            Wait::No => self.now,
            Wait::Until(at) => self.processes[&self.ios[&io].process].true_time(at.0),
            Wait::Forever => u64::MAX,
        };
        let early = self.faults.early_return;
        let early = self.rng.chance(early);
        let state = &self.ios[&io];
        let sleeps = wait != Wait::No && (!state.announced || state.bell.flag().fall_asleep());
        if self.is_scheduled(io) {
            if sleeps && !early && state.ready.is_empty() && deadline > self.now {
                self.ios.get_mut(&io).expect("alive").wish = Some(deadline);
            } else {
                self.returned(io);
            }
        } else {
            while sleeps && !early && !self.is_anyone_awake() && self.advance(deadline) {}
            self.returned(io);
        }
        self.take_told(io);
        let ready = std::mem::take(&mut self.ios.get_mut(&io).expect("alive").ready);
        let (now, later) = self.permute(ready);
        self.ios.get_mut(&io).expect("alive").ready = later;
        self.note("turn", u64::from(io.0), now.len() as u64);
        out.extend(now.into_iter().map(|ready| self.hand_over(ready)));
    }

    /// Somebody has something to do, inside of the drivers or outside.
    fn is_anyone_awake(&self) -> bool {
        let awake = |io: &IoState| !io.ready.is_empty() || io.woken || io.bell.is_rung();
        self.attention || self.ios.values().any(awake)
    }

    /// The state of a driver that is used now, and so does not sleep.
    pub fn own_io(&mut self, io: IoId) -> &mut IoState {
        self.check_alive(io);
        let state = self.ios.get_mut(&io).expect("alive");
        state.wish = None;
        state
    }

    fn jump_wall_clock(&mut self) {
        let ppm = self.faults.wall_jump;
        if self.rng.chance(ppm) {
            self.wall_offset_ms = self.rng.below(7_200_001) as i64 - 3_600_000;
            self.mark("wall_clock_jump");
        }
    }

    /// Any order, but for the order within a lane; at most as many as a turn may return.
    fn permute(&mut self, ready: Vec<Ready>) -> (Vec<Ready>, Vec<Ready>) {
        let mut lanes: BTreeMap<Option<u32>, VecDeque<Ready>> = BTreeMap::new();
        let mut order: Vec<Option<u32>> = ready.iter().map(|r| r.lane).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, self.rng.below(i as u64 + 1) as usize);
        }
        for one in ready {
            lanes.entry(one.lane).or_default().push_back(one);
        }
        let free = lanes.entry(None).or_default();
        for i in (1..free.len()).rev() {
            free.swap(i, self.rng.below(i as u64 + 1) as usize);
        }
        let mut sorted = order.iter().map(|lane| lanes.get_mut(lane).and_then(VecDeque::pop_front));
        let now = sorted.by_ref().take(COMPLETIONS_PER_TURN_MAX).flatten().collect();
        (now, sorted.flatten().collect())
    }

    /// The layers above learn of a completion, now.
    pub fn hand_over(&mut self, ready: Ready) -> Done {
        let Ready { done, closes, .. } = ready;
        if let (Closes::Write { pushed, .. }, Payload::Written(data)) = (&closes, &done.payload)
            && pushed[..] != data[..]
        {
            self.fail(format_args!("the buffer of write {:?} changed while it was in flight", done.token));
        }
        self.close(closes);
        done
    }

    pub fn close(&mut self, closes: Closes) {
        self.stamp += 1;
        let stamp = self.stamp;
        match closes {
            Closes::Nothing => {}
            Closes::Write { file, change, blocks, .. } => {
                blocks.for_each(|block| {
                    self.busy.remove(&(file, block));
                });
                self.change_returned(file, change);
            }
            Closes::Change { file, change } => self.change_returned(file, change),
            Closes::Entries { disk, node, change } => {
                self.disks[disk].1.entries_returned(change, stamp);
                self.change_returned(FileRef { disk, node }, change);
            }
            Closes::Send { conn } => self.send_returned(conn),
        }
    }

    fn change_returned(&mut self, file: FileRef, change: u64) {
        let stamp = self.stamp;
        if let Ok(file) = self.disks[file.disk].1.file_mut(file.node) {
            file.returned(change, stamp);
        }
    }

    /// Ends a driver in good order.
    fn close_io(&mut self, io: IoId) {
        if !self.ios.contains_key(&io) {
            return;
        }
        self.submit_calls(io);
        self.close_net(io);
        let state = self.ios.get_mut(&io).expect("checked");
        let (ready, ops) = (std::mem::take(&mut state.ready), std::mem::take(&mut state.ops));
        ready.into_iter().for_each(|ready| self.close(ready.closes));
        for (_, op) in ops {
            // What was never submitted is cancelled; the rest ends.
            if op.submitted {
                let ready = self.carry_out(io, op);
                self.close(ready.closes);
            } else {
                self.release_blocks(&op);
            }
        }
        let state = self.ios.remove(&io).expect("checked");
        if self.ios.values().all(|other| other.process != state.process) {
            self.processes.remove(&state.process);
        }
        self.collect_files();
    }

    pub fn release_blocks(&mut self, op: &FileOp) {
        if let (Op::Write { offset, data, .. }, Some(file)) = (&op.op, op.target) {
            for block in super::files::blocks(*offset, data) {
                self.busy.remove(&(file, block));
            }
        }
    }
}
