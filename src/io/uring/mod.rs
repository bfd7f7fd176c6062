//! The production driver: one io_uring per shard, used by the thread that made it. It knows operations and descriptors, not what
//! they are for.
//!
//! `push` turns an operation into a slot (which owns its buffers) and a submission entry; `turn` submits everything, sleeps as
//! allowed, and turns completion entries into `Done`s. Operations that io_uring would hand to a worker thread (open, close of a
//! file, fallocate, rename, unlink, mkdir, fsync, ftruncate) go that way on purpose: they may block in the file system.
//!
//! # Non-obvious
//! - The ring belongs to the creating thread (SINGLE_ISSUER): make the driver on the shard's own thread.
//! - One `shutdown(2)` per closed connection is a plain call at the next turn: the ring's SHUTDOWN costs a worker thread.
//! - A file is closed when its last operation has ended, and a connection when its `Recv` and `Send` have: descriptor numbers that
//!   the kernel still uses are never free for others.
//! - `drop` waits for writes that the device has: they cannot be cancelled, and they read our memory.

mod bell;
mod complete;
mod conns;
pub(super) mod probe;
mod recv_ring;
mod ring;
mod sharing;
mod slots;
mod submit;
#[cfg(test)]
mod tests;

pub use super::linux::fault::{Counted, Fault, FaultPlan};
pub use bell::Bell;
pub use probe::{Probe, Registered};

use std::collections::VecDeque;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Once;

use io_uring::{opcode, types};

use self::conns::{Conn, Listener};
use self::recv_ring::RecvRing;
use self::ring::{Cqe, FLAG_SETS, FlagSet, Ring, Sleep};
use self::slots::{NOBODY, Slots};
use super::buffer::{MappedSlice, Pool, SLICE_BLOCKS};
use super::linux::lock::HeldLock;
use super::linux::message::Message;
use super::linux::spin::SpinGate;
use super::linux::table::{Owner, Table};
use super::linux::{self, sockets, storage};
pub use super::open::DriverConfig as Config;
use super::{ConnId, DirEntry, DiskSpace, Done, Errno, Mono, Op, Payload, StorageCaps, Token, Wait};
use crate::base::error::Fatal;
use crate::base::limits::COMPLETIONS_PER_TURN_MAX;

/// Data directories that one driver may lock.
const LOCKS_MAX: u32 = 16;

/// Message headers kept for reuse; more are needed only while more sends are in flight.
const MESSAGES_KEPT: usize = 256;

/// A file and who uses it.
struct OpenFile {
    file: File,
    in_flight: u32,
    /// Name of the `CloseFile` that waits for the last operation.
    closing: Option<u64>,
}

pub struct Uring {
    // The ring goes first on drop: what it may touch comes after it.
    ring: Ring,
    slots: Slots,
    recv: RecvRing,
    pool: Pool,
    /// By number of the pool slice: the kernel knows its memory.
    registered: Vec<bool>,
    files: Table<OpenFile>,
    conns: Table<Conn>,
    listeners: Table<Listener>,
    /// Completions not yet handed out.
    ready: VecDeque<Done>,
    /// The completion that `wait` waits for.
    waited: Option<Done>,
    /// Connections to shut down, and truncations to make by plain call, at the next turn.
    shutting: Vec<ConnId>,
    truncating: Vec<u64>,
    cqes: Vec<Cqe>,
    /// Headers to use again.
    #[expect(
        clippy::vec_box,
        reason = "a header moves to a slot and back, and the kernel holds its address"
    )]
    messages: Vec<Box<Message>>,
    locks: Vec<HeldLock>,
    spin: SpinGate,
    bell: Bell,
    /// Where the kernel puts the eventfd's count, and whether it reads it now.
    bell_count: Box<[u8; 8]>,
    bell_armed: bool,
    /// The sleep was announced for the turn to come.
    announced: bool,
    /// Bells of other drivers that were ever woken from here.
    called: Vec<Bell>,
    /// `drop` has begun.
    ending: bool,
    faults: FaultPlan,
    probe: Probe,
}

impl Uring {
    /// A driver for the calling thread.
    pub fn new(config: Config) -> Result<Uring, Fatal> {
        Uring::with_flags(config, &FLAG_SETS)
    }

    fn with_flags(config: Config, flag_sets: &[FlagSet]) -> Result<Uring, Fatal> {
        let kernel = linux::kernel::release();
        probe::check_kernel(&kernel)?;
        if let Some(cpu) = config.cpu {
            linux::pin(cpu);
        }
        let (ring, flags) =
            ring::build(config.entries, flag_sets).map_err(|e| probe::blocked(&e, &kernel))?;
        let ftruncate = probe::check_opcodes(ring.uring(), &kernel)?;
        let mut recv =
            RecvRing::new(config.recv_buffers).ok_or_else(|| linux::no_memory(config.recv_buffers))?;
        recv.register(ring.uring()).map_err(|e| probe::blocked(&e, &kernel))?;
        let pool = Pool::new(config.pool_bytes);
        let submitter = ring.uring().submitter();
        submitter.register_files_sparse(LOCKS_MAX).map_err(|e| probe::blocked(&e, &kernel))?;
        let slices = pool.blocks_max().div_ceil(SLICE_BLOCKS) as u32;
        let sparse = submitter.register_buffers_sparse(slices);
        let mut probe = Probe {
            kernel,
            flags,
            registered: Registered::NotYet,
            ftruncate,
            memlock_bytes: probe::memlock_bytes(),
            entries: ring.uring().params().sq_entries(),
        };
        if let Err(error) = sparse {
            fall_back(&mut probe, &error);
        }
        let bell = Bell::new(ring.uring().as_raw_fd()).map_err(|e| probe::blocked(&e, &probe.kernel))?;
        let mut made = Uring {
            ring,
            slots: Slots::default(),
            recv,
            pool,
            registered: Vec::new(),
            files: Table::new(),
            conns: Table::new(),
            listeners: Table::new(),
            ready: VecDeque::new(),
            waited: None,
            shutting: Vec::new(),
            truncating: Vec::new(),
            cqes: Vec::with_capacity(COMPLETIONS_PER_TURN_MAX),
            messages: Vec::new(),
            locks: Vec::new(),
            spin: SpinGate::new(config.spin),
            bell,
            bell_count: Box::new([0; 8]),
            bell_armed: false,
            announced: false,
            called: Vec::new(),
            ending: false,
            faults: FaultPlan::new(),
            probe,
        };
        made.arm_bell();
        Ok(made)
    }

    /// What is in effect.
    pub fn probed(&self) -> &Probe {
        &self.probe
    }

    /// For tests: replaces the failures to come.
    pub fn inject(&mut self, plan: FaultPlan) {
        self.faults = plan;
    }

    pub fn push(&mut self, op: Op, token: Token) {
        self.begin(op, Owner::Caller(token));
    }

    pub fn turn(&mut self, wait: Wait, out: &mut Vec<Done>) {
        self.step(wait, self.ready.len());
        self.wake_up();
        let count = self.ready.len().min(COMPLETIONS_PER_TURN_MAX);
        out.extend(self.ready.drain(..count));
    }

    pub fn now(&self) -> Mono {
        linux::now()
    }

    pub fn wall_ms(&self) -> i64 {
        linux::wall_ms()
    }

    pub fn random(&mut self, bytes: &mut [u8]) {
        linux::random(bytes);
    }

    pub fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    pub fn grow_pool(&mut self) -> bool {
        let Some(slice) = self.pool.grow() else {
            return false;
        };
        let registered = self.register(&slice);
        self.registered.resize(usize::from(slice.index), false);
        self.registered.push(registered);
        true
    }

    /// Connects to a listener, for load drivers: the seam has no such operation. Blocks.
    pub fn connect(&mut self, to: SocketAddr) -> Result<ConnId, Errno> {
        Ok(ConnId(self.conns.insert(Conn::new(sockets::connect(to)?))))
    }

    pub fn list_dir(&mut self, path: &Path) -> Result<Vec<DirEntry>, Errno> {
        storage::list(path)
    }

    pub fn storage_caps(&mut self, path: &Path) -> Result<StorageCaps, Errno> {
        storage::caps(path)
    }

    pub fn disk_space(&mut self, path: &Path) -> Result<DiskSpace, Errno> {
        storage::space(path)
    }

    pub fn wait(&mut self, op: Op) -> Done {
        assert!(!op.is_multishot(), "an operation without one end cannot be waited for");
        self.begin(op, Owner::Waiter);
        loop {
            if let Some(done) = self.waited.take() {
                return done;
            }
            self.step(Wait::Forever, 0);
        }
    }

    /// Submits, sleeps if nothing is at hand, and moves completions to `ready`: as many as fill a turn that has `at_hand` of them. Who waits
    /// for one of its own has none at hand, whatever has piled up in `ready`; what plain calls end comes on top, and puts off that sleep, or
    /// what the ring has, by one step.
    fn step(&mut self, wait: Wait, at_hand: usize) {
        self.recv.give_back();
        let before = self.ready.len();
        self.make_plain_calls();
        let at_hand = at_hand + (self.ready.len() - before);
        let idle = at_hand == 0 && self.waited.is_none() && !self.ring.has_completions();
        match wait {
            Wait::Forever if idle => self.sleep(None),
            Wait::Until(time) if idle => self.sleep(Some(time)),
            _ => self.submit(),
        }
        let mut cqes = std::mem::take(&mut self.cqes);
        self.ring.take(COMPLETIONS_PER_TURN_MAX.saturating_sub(at_hand), &mut cqes);
        cqes.drain(..).for_each(|cqe| self.complete(cqe));
        self.cqes = cqes;
    }

    fn sleep(&mut self, until: Option<Mono>) {
        let start = self.now();
        let left = until.map(|time| time.0.saturating_sub(start.0));
        let spin_ns = self.spin.spin_ns(start.0).min(left.unwrap_or(u64::MAX));
        if spin_ns > 0 && self.spin(start, spin_ns) {
            return;
        }
        if self.announced && !self.bell.flag().fall_asleep() {
            return self.submit();
        }
        let sleep = match until.map(|time| time.0.saturating_sub(self.now().0)) {
            None => Sleep::Forever,
            Some(0) => Sleep::No,
            Some(ns) => Sleep::Ns(ns),
        };
        self.ring.enter(sleep);
        if self.spin.enabled() {
            self.spin.waited(self.now().0 - start.0, spin_ns, false);
        }
    }

    fn submit(&mut self) {
        if self.ring.has_queued() || self.ring.has_deferred() {
            self.ring.enter(Sleep::No);
        }
    }

    /// Looks for completions, and for a call from another shard, until `spin_ns` have passed; true if there is one.
    fn spin(&mut self, start: Mono, spin_ns: u64) -> bool {
        self.submit();
        loop {
            if self.ring.has_deferred() {
                self.ring.enter(Sleep::No);
            }
            let spun = self.now().0 - start.0;
            if self.ring.has_completions() || (self.announced && self.bell.flag().was_called()) {
                self.spin.waited(spun, spun, true);
                return true;
            }
            if spun >= spin_ns {
                return false;
            }
            std::hint::spin_loop();
        }
    }

    /// Shuts connections down and truncates, as pushed since the last turn.
    fn make_plain_calls(&mut self) {
        while let Some(conn) = self.shutting.pop() {
            let state = self.conns.get_mut(conn.0);
            state.shut();
            if let Some(recv) = state.recv {
                self.cancel(recv);
            }
            self.close_if_quiet(conn);
        }
        while let Some(user_data) = self.truncating.pop() {
            self.truncate_by_call(user_data);
        }
    }

    /// Asks for the end of an operation; nobody waits for the answer.
    fn cancel(&mut self, target: u64) {
        let entry = opcode::AsyncCancel::new(target).build().user_data(NOBODY);
        // SAFETY: the entry points at no memory.
        unsafe { self.ring.push(entry) };
    }

    fn register(&mut self, slice: &MappedSlice) -> bool {
        if matches!(self.probe.registered, Registered::Fallback(_)) {
            return false;
        }
        let part = libc::iovec { iov_base: slice.start.cast(), iov_len: slice.len };
        let submitter = self.ring.uring().submitter();
        // SAFETY: the slice stays mapped while a block of it is in use, and every operation in flight holds its block.
        match unsafe { submitter.register_buffers_update(u32::from(slice.index), &[part], None) } {
            Ok(()) => self.probe.registered = Registered::Yes,
            Err(error) => fall_back(&mut self.probe, &error),
        }
        self.probe.registered == Registered::Yes
    }

    fn finish(&mut self, owner: Owner, result: Result<u32, Errno>, more: bool, payload: Payload) {
        match owner {
            Owner::Caller(token) => self.ready.push_back(Done { token, result, more, payload }),
            Owner::Waiter => self.waited = Some(Done { token: Token(0), result, more, payload }),
        }
    }
}

impl Drop for Uring {
    /// Ends every operation before any memory goes: cancels what can be, waits for the rest.
    fn drop(&mut self) {
        self.ending = true;
        self.conns.iter_mut().for_each(Conn::shut);
        let everything = types::CancelBuilder::any().all();
        let entry = opcode::AsyncCancel2::new(everything).build().user_data(NOBODY);
        // SAFETY: the entry points at no memory.
        unsafe { self.ring.push(entry) };
        while self.slots.in_flight() > 0 || self.bell_armed {
            self.step(Wait::Until(self.now().plus_ms(100)), 0);
            self.ready.clear();
            self.waited = None;
        }
        // The locks go with their last share, behind the ring.
    }
}

/// Says once in a process that blocks cannot be registered, and remembers it in each ring.
fn fall_back(probe: &mut Probe, error: &std::io::Error) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        let (memlock, remedy) = (probe.memlock(), probe::memlock_remedies().join(", or "));
        tracing::warn!(%error, memlock, remedy, "blocks are not registered with the kernel: plain READ and WRITE (FALLBACK)");
    });
    probe.registered = Registered::Fallback(error.to_string());
}
