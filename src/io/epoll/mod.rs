//! The baseline driver, which works wherever Linux does: readiness from epoll, blocking file calls on threads of its own. The way to
//! run where io_uring is forbidden, as in a container under Docker's default seccomp profile.
//!
//! A turn makes the calls that were pushed (sends and closes at once, file operations handed to the threads), asks epoll once, and
//! then receives and accepts what is ready. Sockets are registered once, edge-triggered for both directions: a connection costs no
//! `epoll_ctl` after that, and one whose bytes nobody wants wakes nobody.
//!
//! # What it cannot do
//! - **Batch calls.** Each receive, send and accept is a system call; each file operation is one on a thread, with two hand-overs.
//! - **More than [`THREADS_MAX`](workers::THREADS_MAX) file operations at once.** Further ones wait in line, in order.
//! - **Cancel.** `drop` forgets file operations that wait in line and waits for those that have begun.
//! - **Wake before the next millisecond**: the timeout of epoll is in milliseconds, rounded up here.
//! - Register memory with the kernel: pages are pinned for each operation.
//!
//! # Non-obvious
//! - The threads run where the thread that made the driver is bound: a shard and its file calls share a core.
//! - A flag says whether the shard is about to sleep: a thread that ends an operation writes to the eventfd only then.
//! - A lock of a killed process outlives it while a thread is inside a call: that thread keeps the descriptors.

mod bell;
mod file_ops;
mod net;
mod poller;
mod sharing;
#[cfg(test)]
mod tests;
mod workers;

use std::collections::VecDeque;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use self::file_ops::{Finished, Job, Outcome};
use self::net::{Conn, Listener};
use self::poller::{Poller, Source};
use self::workers::Workers;
use super::buffer::Pool;
use super::linux::bell::Bell;
use super::linux::fault::{Fault, FaultPlan};
use super::linux::lock::HeldLock;
use super::linux::message::Message;
use super::linux::spin::SpinGate;
use super::linux::table::{Owner, Table};
use super::linux::{self, files, sockets, storage};
use super::open::DriverConfig;
use super::recv::RecvPool;
use super::{ConnId, DirEntry, DiskSpace, Done, Errno, FileId, Mono, Op, Payload, StorageCaps, Token, Wait};
use crate::base::error::Fatal;
use crate::base::limits::COMPLETIONS_PER_TURN_MAX;

struct OpenFile {
    file: Arc<File>,
    in_flight: u32,
    /// Who asked to close it, while operations of it are in flight.
    closing: Option<Owner>,
}

pub struct Epoll {
    poller: Poller,
    workers: Workers,
    /// Pushed since the last turn.
    queued: Vec<(Op, Owner)>,
    /// Sockets that may have something to take and somebody who wants it.
    runnable: VecDeque<Source>,
    recv: RecvPool,
    pool: Pool,
    files: Table<OpenFile>,
    conns: Table<Conn>,
    listeners: Table<Listener>,
    /// Completions not yet handed out.
    ready: VecDeque<Done>,
    /// The completion that `wait` waits for.
    waited: Option<Done>,
    finished: Vec<Finished>,
    message: Box<Message>,
    locks: Vec<HeldLock>,
    spin: SpinGate,
    bell: Bell,
    /// The sleep was announced for the turn to come.
    announced: bool,
    faults: FaultPlan,
}

impl Epoll {
    /// A driver for the calling thread.
    pub fn new(config: &DriverConfig) -> Result<Epoll, Fatal> {
        if let Some(cpu) = config.cpu {
            linux::pin(cpu);
        }
        let bell = Bell::new().map_err(|e| refused("an eventfd", &e))?;
        let poller = Poller::new(&bell).map_err(|e| refused("epoll", &e))?;
        let workers = Workers::new(bell.clone()).map_err(|e| refused("a thread", &e))?;
        let recv = RecvPool::new(config.recv_buffers.max(1));
        Ok(Epoll {
            poller,
            workers,
            queued: Vec::new(),
            runnable: VecDeque::new(),
            recv: recv.ok_or_else(|| linux::no_memory(config.recv_buffers))?,
            pool: Pool::new(config.pool_bytes),
            files: Table::new(),
            conns: Table::new(),
            listeners: Table::new(),
            ready: VecDeque::new(),
            waited: None,
            finished: Vec::new(),
            message: Message::new(),
            locks: Vec::new(),
            spin: SpinGate::new(config.spin),
            bell,
            announced: false,
            faults: FaultPlan::new(),
        })
    }

    /// For tests: replaces the failures to come.
    pub fn inject(&mut self, plan: FaultPlan) {
        self.faults = plan;
    }

    pub fn push(&mut self, op: Op, token: Token) {
        self.queued.push((op, Owner::Caller(token)));
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
        self.pool.grow().is_some()
    }

    /// Connects to a listener, for load drivers: the seam has no such operation. Blocks.
    pub fn connect(&mut self, to: SocketAddr) -> Result<ConnId, Errno> {
        let socket = sockets::connect(to)?;
        socket.set_nonblocking(true).map_err(storage::errno)?;
        Ok(self.register_conn(socket))
    }

    pub fn list_dir(&mut self, path: &Path) -> Result<Vec<DirEntry>, Errno> {
        storage::list(path)
    }

    pub fn storage_caps(&mut self, path: &Path) -> Result<StorageCaps, Errno> {
        // The flush of a durable write is a part of the helper thread's call.
        storage::caps(path).map(|caps| StorageCaps { flush_apart: false, ..caps })
    }

    pub fn disk_space(&mut self, path: &Path) -> Result<DiskSpace, Errno> {
        storage::space(path)
    }

    pub fn wait(&mut self, op: Op) -> Done {
        assert!(!op.is_multishot(), "an operation without one end cannot be waited for");
        self.queued.push((op, Owner::Waiter));
        loop {
            if let Some(done) = self.waited.take() {
                return done;
            }
            self.step(Wait::Forever, 0);
        }
    }

    /// Begins what was pushed, sleeps if nothing is at hand, and moves completions to `ready`. Who waits for one of its own has none
    /// `at_hand`, whatever has piled up in `ready`; what ends as it begins comes on top, and puts off that sleep by one step. Sockets that
    /// may run do not while `ready` is a turn's worth.
    fn step(&mut self, wait: Wait, at_hand: usize) {
        let before = self.ready.len();
        let mut queued = std::mem::take(&mut self.queued);
        queued.drain(..).for_each(|(op, owner)| self.begin(op, owner));
        self.queued = queued;
        self.workers.submit();
        let at_hand = at_hand + (self.ready.len() - before);
        let runs = !self.runnable.is_empty() && self.ready.len() < COMPLETIONS_PER_TURN_MAX;
        let idle = at_hand == 0 && self.waited.is_none() && !runs;
        match wait {
            Wait::Forever if idle => self.sleep(None),
            Wait::Until(time) if idle => self.sleep(Some(time)),
            _ => self.poll(Some(0)),
        }
        self.run_sockets();
        self.take_finished();
    }

    fn begin(&mut self, op: Op, owner: Owner) {
        let fault = self.faults.next(&op);
        if let Some(Fault::Fails(errno)) = fault {
            let payload = files::handed_back(op);
            return self.finish(owner, Err(errno), false, payload);
        }
        match op {
            Op::Accept { listener } => self.begin_accept(listener, owner),
            Op::CancelAccept { listener } => self.cancel_accept(listener, owner),
            Op::Recv { conn } => self.begin_recv(conn, None, owner),
            Op::RecvOnce { conn, bytes_max } => self.begin_recv(conn, Some(bytes_max), owner),
            Op::CancelRecv { conn } => self.cancel_recv(conn, owner),
            Op::Send { conn, chain } => self.begin_send(conn, chain, owner),
            Op::CloseConn { conn } => self.close_conn(conn, owner),
            Op::DetachConn { conn } => self.detach(conn, owner),
            Op::CloseFile { file } => self.begin_close_file(file, owner),
            op => self.begin_file(op, owner, fault.is_some()),
        }
    }

    fn begin_file(&mut self, op: Op, owner: Owner, short: bool) {
        files::assert_aligned(&op);
        let file = files::file_of(&op).map(|id| {
            let state = self.files.get_mut(id.0);
            assert!(state.closing.is_none(), "operation on a file that is being closed");
            state.in_flight += 1;
            (id, state.file.clone())
        });
        self.workers.push(Job { owner, op, file, short });
    }

    fn begin_close_file(&mut self, file: FileId, owner: Owner) {
        let state = self.files.get_mut(file.0);
        assert!(state.closing.is_none(), "a file is closed once");
        state.closing = Some(owner);
        self.close_if_idle(file);
    }

    /// Closes a file that was asked to close once nothing of it is in flight: on a thread, because the last close of a removed file
    /// frees its space, which may take long.
    fn close_if_idle(&mut self, id: FileId) {
        let state = self.files.get(id.0);
        let Some(owner) = state.closing.filter(|_| state.in_flight == 0) else {
            return;
        };
        let file = Some((id, self.files.take(id.0).file));
        self.workers.push(Job { owner, op: Op::CloseFile { file: id }, file, short: false });
        self.workers.submit();
    }

    /// Turns what the threads have ended into completions.
    fn take_finished(&mut self) {
        let mut finished = std::mem::take(&mut self.finished);
        self.workers.take_finished(&mut finished);
        for Finished { owner, file, result, outcome } in finished.drain(..) {
            if let Some(id) = file {
                self.files.get_mut(id.0).in_flight -= 1;
            }
            let payload = match outcome {
                Outcome::Nothing => Payload::None,
                Outcome::Read(block) => Payload::Read(block),
                Outcome::Written(data) => Payload::Written(data),
                Outcome::Opened(file, place) => {
                    let file = OpenFile { file: Arc::new(file), in_flight: 0, closing: None };
                    Payload::Opened(FileId(self.files.insert(file)), place)
                }
                Outcome::Closed(id) => {
                    self.files.release(id.0);
                    Payload::None
                }
            };
            self.finish(owner, result, false, payload);
            if let Some(id) = file {
                self.close_if_idle(id);
            }
        }
        self.finished = finished;
    }

    fn sleep(&mut self, until: Option<Mono>) {
        let start = self.now();
        let left = until.map(|time| time.0.saturating_sub(start.0));
        if left == Some(0) || !self.workers.may_sleep() {
            return self.poll(Some(0));
        }
        let spin_ns = self.spin.spin_ns(start.0).min(left.unwrap_or(u64::MAX));
        if spin_ns == 0 || !self.spin(start, spin_ns) {
            let called = self.announced && !self.bell.flag().fall_asleep();
            let left = until.map(|time| time.0.saturating_sub(self.now().0));
            self.poll(if called { Some(0) } else { left });
            if self.spin.enabled() {
                self.spin.waited(self.now().0 - start.0, spin_ns, false);
            }
        }
        self.workers.woke();
    }

    /// Looks for events, and for a call from another shard, until `spin_ns` have passed; true if there was one.
    fn spin(&mut self, start: Mono, spin_ns: u64) -> bool {
        loop {
            let any = self.poll_once(Some(0)) || (self.announced && self.bell.flag().was_called());
            let spun = self.now().0 - start.0;
            if any {
                self.spin.waited(spun, spun, true);
                return true;
            }
            if spun >= spin_ns {
                return false;
            }
            std::hint::spin_loop();
        }
    }

    fn poll(&mut self, timeout_ns: Option<u64>) {
        self.poll_once(timeout_ns);
    }

    /// Asks epoll, and notes what it says. True if it said something, wake-ups included.
    fn poll_once(&mut self, timeout_ns: Option<u64>) -> bool {
        let count = self.poller.wait(timeout_ns);
        for at in 0..count {
            let event = self.poller.event(at);
            match event.source {
                Source::Bell => {}
                Source::Conn(index) => self.conn_event(index, event),
                Source::Listener(index) => self.listener_event(index),
            }
        }
        count > 0
    }

    fn finish(&mut self, owner: Owner, result: Result<u32, Errno>, more: bool, payload: Payload) {
        match owner {
            Owner::Caller(token) => self.ready.push_back(Done { token, result, more, payload }),
            Owner::Waiter => self.waited = Some(Done { token: Token(0), result, more, payload }),
        }
    }
}

impl Drop for Epoll {
    /// Ends every operation before the locks go: those that a thread has begun run to their end.
    fn drop(&mut self) {
        self.workers.stop();
        // The locks go with their last share, behind this.
    }
}

fn refused(what: &str, error: &std::io::Error) -> Fatal {
    Fatal {
        code: "epoll-setup",
        summary: format!("{what} cannot be had ({error})"),
        found: error.to_string(),
        means: "the kernel refused what every driver needs".into(),
        tries: vec!["look at the limits of open files and processes: ulimit -a".into()],
    }
}
