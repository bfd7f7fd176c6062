//! The driver over glommio (crate `glommio-ng`): for comparing another thread-per-core runtime under the same shard code.
//!
//! It owns a `LocalExecutor`, and each operation is a task on it. `LocalExecutor::run` leaves unfinished tasks where they are, so a
//! turn is one `run` of a short future: start what was pushed, then wait for the first event or the time. The shard's loop stays as
//! it is, and a thread may have two drivers; with the loop inside of one long `run` neither would hold.
//!
//! | part | here | what glommio cannot do |
//! |---|---|---|
//! | read, write | `DmaFile` with a copy from or to our block | use our memory: it takes and gives buffers of its own |
//! | durable write | a second descriptor with O_DSYNC, opened at the first one; a write and fdatasync where that is refused | RWF_DSYNC on one write |
//! | allocate | from the start of the file | allocate a range |
//! | rename, remove, directories, truncate | plain calls on two blocking threads | make them in the ring |
//! | receive, accept | a one-shot poll in the ring, then a plain call | multishot operations; wait for bytes without holding a buffer; use one `TcpStream` in a reading and a writing task, because both take it mutably |
//! | send | a plain `sendmsg`, a poll only when the socket is full | as for receiving; its own streams make the same two steps |
//! | wake-ups | an eventfd, polled in the ring and read | MSG_RING; its own channels belong to its own executors |
//! | shared listener | every shard that listens wakes for a connection, one gets it | EPOLLEXCLUSIVE or its like |
//! | batches | operations of one turn share an entry into each of three rings | order that entry: it also arms timers and its eventfd, several calls a turn |
//! | cancel | polls are called off; what has begun on a file is waited for | cancel file operations |
//!
//! # Non-obvious
//! - A woken task outside of `run` is dropped without a word: wakers are called from tasks only.
//! - The ring is entered where a run begins and where it sleeps. A turn that starts something and does not sleep runs once more for it.
//! - A lock of a killed process may end before the last of its writes: the lock's descriptor cannot be registered in glommio's rings. The
//!   log's start does not rely on it alone.
//! - glommio tells only the crate `log` when it may not register its memory, and goes on without.
//! - A panic in a task unwinds through `turn`.
//! - It wants /proc, for the second opening of each file by the name of its first descriptor.

mod begin;
mod files;
mod net;
mod outbox;
mod refusal;
mod sharing;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use ::glommio::{LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement};

use self::files::OpenFile;
use self::net::{Conn, Listener, Stop};
use self::outbox::{Event, Kit, Outbox, What};
use super::buffer::Pool;
use super::linux::bell::Bell;
use super::linux::fault::FaultPlan;
use super::linux::lock::HeldLock;
use super::linux::message::Message;
use super::linux::spin::SPIN_MAX;
use super::linux::table::{Owner, Table};
use super::linux::{self, sockets, storage};
use super::open::DriverConfig;
use super::recv::RecvPool;
use super::{ConnId, DirEntry, DiskSpace, Done, Errno, FileId, Mono, Op, Payload, StorageCaps, Token, Wait};
use crate::base::error::Fatal;
use crate::base::limits::COMPLETIONS_PER_TURN_MAX;

/// Memory for glommio's reads and writes, registered with each of its three rings: all together below the usual RLIMIT_MEMLOCK of
/// 8 MiB. What does not fit comes from the allocator.
const IO_MEMORY_BYTES: usize = 2 << 20;

/// Threads for calls that block: one may be busy freeing a large file.
const BLOCKING_THREADS: usize = 2;

/// Never: our tasks are short. A timer that fires before the first task of a run, as after a long stop of the process, would have the
/// executor sleep with tasks in its queue.
const PREEMPT_AFTER: Duration = Duration::from_secs(365 * 24 * 3600);

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A file and who uses it.
struct FileState {
    file: Rc<OpenFile>,
    in_flight: u32,
    /// Who asked to close it, while operations of it are in flight.
    closing: Option<Owner>,
}

pub struct Glommio {
    executor: LocalExecutor,
    kit: Rc<Kit>,
    /// Tasks that begin at the next turn: outside of the executor's run none can.
    starting: Vec<Task>,
    events: Vec<Event>,
    /// Operations that have not ended.
    in_flight: usize,
    pool: Pool,
    files: Table<FileState>,
    conns: Table<Conn>,
    listeners: Table<Listener>,
    /// Completions not yet handed out.
    ready: VecDeque<Done>,
    /// The completion that `wait` waits for.
    waited: Option<Done>,
    locks: Vec<HeldLock>,
    bell: Bell,
    /// Ends the task that listens to the bell.
    hearing: Rc<Stop>,
    /// The sleep was announced for the turn to come.
    announced: bool,
    faults: FaultPlan,
}

impl Glommio {
    /// A driver for the calling thread.
    pub fn new(config: &DriverConfig) -> Result<Glommio, Fatal> {
        refusal::check()?;
        // The blocking threads go where the thread is that starts them: to the shard's own core.
        config.cpu.into_iter().for_each(linux::pin);
        let placement = config.cpu.map_or(Placement::Unbound, Placement::Fixed);
        let mut builder = LocalExecutorBuilder::new(placement)
            .io_memory(IO_MEMORY_BYTES)
            .ring_depth(config.entries as usize)
            .preempt_timer(PREEMPT_AFTER)
            .blocking_thread_pool_placement(PoolPlacement::Unbound(BLOCKING_THREADS));
        if !config.spin.is_zero() {
            builder = builder.spin_before_park(config.spin.min(SPIN_MAX));
        }
        let executor = builder.make().map_err(|e| refusal::explain(&e))?;
        let recv = RecvPool::new(config.recv_buffers.max(1));
        let recv = recv.ok_or_else(|| linux::no_memory(config.recv_buffers))?;
        let bell = Bell::new().map_err(|e| refusal::explain(&e.into()))?;
        let mut made = Glommio {
            executor,
            kit: Rc::new(Kit {
                outbox: Outbox::default(),
                recv: RefCell::new(recv),
                message: RefCell::new(Message::new()),
            }),
            starting: Vec::new(),
            events: Vec::new(),
            in_flight: 0,
            pool: Pool::new(config.pool_bytes),
            files: Table::new(),
            conns: Table::new(),
            listeners: Table::new(),
            ready: VecDeque::new(),
            waited: None,
            locks: Vec::new(),
            bell,
            hearing: Rc::new(Stop::default()),
            announced: false,
            faults: FaultPlan::new(),
        };
        made.begin_hearing();
        Ok(made)
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
        self.pool.grow().is_some()
    }

    /// Connects to a listener, for load drivers: the seam has no such operation. Blocks.
    pub fn connect(&mut self, to: SocketAddr) -> Result<ConnId, Errno> {
        let socket = sockets::connect(to)?;
        socket.set_nonblocking(true).map_err(storage::errno)?;
        Ok(ConnId(self.conns.insert(Conn::new(socket))))
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

    /// Starts what was pushed, sleeps if nothing is at hand, and turns events into completions. Who waits for one of its own has none
    /// `at_hand`, whatever has piled up in `ready`.
    fn step(&mut self, wait: Wait, at_hand: usize) {
        let idle = at_hand == 0 && self.waited.is_none();
        let called = idle && self.announced && wait != Wait::No && !self.bell.flag().fall_asleep();
        let sleep = idle && wait != Wait::No && !called;
        let until = if let Wait::Until(time) = wait { Some(time) } else { None };
        let starting = std::mem::take(&mut self.starting);
        let started = !starting.is_empty();
        let outbox = &self.kit.outbox;
        let slept = self.executor.run(async move {
            for task in starting {
                ::glommio::spawn_local(task).detach();
            }
            sleep && outbox.wait(until).await
        });
        // The ring is entered when a run begins and when it sleeps: what was started leaves with the next one otherwise.
        if started && !slept {
            self.executor.run(async {});
        }
        self.settle();
    }

    fn settle(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        self.kit.outbox.take(&mut events);
        events.drain(..).for_each(|event| self.event(event));
        self.events = events;
    }

    fn event(&mut self, event: Event) {
        let Event { owner, what, result, payload } = event;
        match what {
            What::Once => self.end(owner, result, payload),
            What::OfFile(file) => {
                self.files.get_mut(file.0).in_flight -= 1;
                self.end(owner, result, payload);
                self.close_if_idle(file);
            }
            What::Opened(file, place) => {
                let state = FileState { file: Rc::new(file), in_flight: 0, closing: None };
                let file = FileId(self.files.insert(state));
                self.end(owner, result, Payload::Opened(file, place));
            }
            What::FileClosed(file) => {
                self.files.release(file.0);
                self.end(owner, result, payload);
            }
            What::Accepted(socket, peer) => {
                let conn = ConnId(self.conns.insert(Conn::new(socket)));
                self.finish(owner, result, true, Payload::Accepted { conn, peer });
            }
            What::AcceptEnded(listener) => {
                self.listeners.get_mut(listener.0).accept = None;
                self.end(owner, result, payload);
            }
            What::Received => self.finish(owner, result, true, payload),
            What::RecvEnded(conn) => {
                let state = self.conns.get_mut(conn.0);
                state.recv = None;
                // Our own shutdown looks like the peer's end of stream.
                let result = if state.closing.is_some() { Err(Errno::CANCELED) } else { result };
                self.end(owner, result, payload);
                self.close_if_quiet(conn);
            }
            What::Sent(conn) => {
                self.conns.get_mut(conn.0).sending = false;
                self.end(owner, result, payload);
                self.close_if_quiet(conn);
            }
        }
    }

    /// The last completion of an operation that a task carried out.
    fn end(&mut self, owner: Owner, result: Result<u32, Errno>, payload: Payload) {
        self.in_flight -= 1;
        self.finish(owner, result, false, payload);
    }

    fn finish(&mut self, owner: Owner, result: Result<u32, Errno>, more: bool, payload: Payload) {
        match owner {
            Owner::Caller(token) => self.ready.push_back(Done { token, result, more, payload }),
            Owner::Waiter => self.waited = Some(Done { token: Token(0), result, more, payload }),
        }
    }
}

impl Drop for Glommio {
    /// Ends every operation and closes every file before the executor and the memory go: it would lose descriptors otherwise.
    fn drop(&mut self) {
        self.stop_all();
        while self.in_flight > 0 || !self.starting.is_empty() {
            self.step(Wait::Until(self.now().plus_ms(100)), 0);
            self.ready.clear();
            self.waited = None;
        }
        // The locks go with their last share, behind the executor.
    }
}
