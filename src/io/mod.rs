//! L3, the io seam: operations in, completions out. The only room with unsafe code, and the only one that names `libc` or
//! `io-uring`. Each shard owns one [`Io`] on its own thread; nothing here knows partitions, requests or Kafka.
//!
//! # The contract
//! The layers above are plain synchronous state machines. They [`push`](Io::push) an [`Op`] with a [`Token`] of their own making
//! and later find a [`Done`] with that token in what [`turn`](Io::turn) returns. There are no callbacks and no
//! futures: a completion is an event, and the shard's loop is the executor. (Why not futures: the state machines must run in the
//! simulator as they are, and a borrow that cannot live across a wait cannot be held across one.)
//!
//! - **Every operation completes.** Each pushed op posts at least one `Done`. `Accept` and `Recv` are multishot: they post
//!   `Done`s with `more == true` and end with one that has `more == false` (error, peer closed, cancelled, out of buffers).
//!   Whoever wants more pushes the op again; that must be done after `Errno::NOBUFS`.
//! - **Order is not promised** between operations, except that the data of one connection's `Recv` arrives in stream order.
//!   One `Send` per connection may be in flight: a second may overtake the rest of a short first one. The seam asserts it.
//! - **Short results are normal** for a `Write` and a `Send`: `Done::result` says how much was done, and the caller pushes the rest. A
//!   short write is not a durable write, whatever its [`WriteSync`] says. A `Send` takes at most
//!   [`SEND_BYTES_MAX`](crate::base::limits::SEND_BYTES_MAX) and may complete with any part of that as soon as the socket's
//!   buffer took it, so a peer that reads slowly shows progress, and one that does not read at all shows none.
//! - **A short `Read` is the end of the file**, and nothing else: where the kernel stops early, the driver goes on by itself.
//! - **Ownership**: a buffer given to an op belongs to it until its `Done`, which hands it back. Dropping the `Io` waits for, or
//!   cancels and reaps, everything in flight before any memory is freed.
//! - **A flush covers what it saw.** [`Op::Flush`] makes durable the writes of that file whose `Done` was returned by `turn` before
//!   the flush was pushed. A write with [`WriteSync::Dsync`] makes itself durable, and the writes whose `Done` was returned
//!   before it was pushed, nothing else. Whether one flush also covers other files of the same device is an implementation fact of
//!   some file systems, see [`StorageCaps::shared_flush`].
//! - **Directory entries are volatile** until [`Op::SyncDir`] on their directory completes: creation, rename and removal alike.
//! - File positions, lengths and buffers of `Read`, `Write` and `Allocate` are multiples of [`ALIGN`](crate::base::limits::ALIGN).
//! - Blocking calls ([`Io::list_dir`], [`Io::wait`], ...) are for start-up and for tools, before the first connection is accepted.
//!
//! # Several shards in one process
//! Each shard has an `Io` of its own, made on its own thread and used by no other: a ring belongs to the thread that made it. What
//! crosses threads is [`Send`]: [`Waker`], [`Socket`], [`SharedListener`], [`DirLock`], and every buffer. A buffer that is
//! dropped on another thread returns to its pool by itself, which its owner notices in one of its next turns.
//!
//! - **Messages** go over [`lane`]s, one for each pair of shards and direction. A sender pushes and then calls [`Io::wake`]. Before a turn
//!   that may sleep, a shard calls [`Io::announce_sleep`], then looks at all its lanes once more, and then calls `turn`: with
//!   [`Wait::No`] if something is there. In any other order a message may lie there until something else happens. The flag is
//!   cleared when `turn` returns; a wake-up makes it return. Room in a lane that was full is not announced.
//! - **A wake-up leaves with the sender's next turn**, as operations do. It may come late, and it may come for nothing.
//! - **Connections move** with [`Op::DetachConn`] and [`Io::adopt`], when nothing of them is in flight. Bytes that arrive in between
//!   wait in the socket. A [`Socket`] that is dropped instead closes the connection.
//! - **Listeners** are shared by [`Io::share_listener`], and each connection goes to one of the shards that accept, whichever is
//!   first; or each shard has one of its own at the same address, with [`ListenMode::ReusePort`].
//! - **A connection to a shared listener may wait for a shard that does no turns**: the kernel tells one of those that accept, the first in
//!   line, and tells it again of the next one. Whoever finds with [`Io::has_waiting`] that one waits takes it with [`Op::CancelAccept`] and
//!   then a new [`Op::Accept`], which looks for itself, and goes to the end of the line.
//! - **The lock** of a data directory is taken by one shard and joined by the others, so that what any of them had in flight when the
//!   process was killed keeps it.
//!
//! # The fault model, which every layer above must survive and the `sim` driver produces
//! | part | may happen | relied on |
//! |---|---|---|
//! | disk | loses unflushed writes in any subset and order; tears a write at 512 B; EIO on read, write or flush; stalls; fills up; rots; a killed process's write lands late | a flush that reports success keeps what completed before it began; a sector rewritten with identical bytes keeps them |
//! | network | delay, reset, split at every byte, one-way partition, peers that never read, hostile bytes | bytes that arrive are in order |
//! | clock | the wall clock jumps and steps back; the monotonic clock may run 10 % fast or slow | the monotonic clock never goes back |
//! | process | SIGKILL, SIGSTOP for minutes, two starts on one directory | no arbitrary memory corruption |
//!
//! # Drivers
//! All pass the conformance suite (`tests/it/conformance/`); the layers above run on any of them. [`open::open`] makes the one that
//! the key `runtime` names.
//!
//! | driver | what it is | it can | it cannot |
//! |---|---|---|---|
//! | `uring` | production: one ring per shard | make all calls of a turn in one, receive and accept without a call for each, write from registered memory, cancel what waits | run before Linux 6.1, or where io_uring is forbidden |
//! | `epoll` | the baseline: readiness, and threads for files | run on any Linux, under Docker's default seccomp profile | batch calls, write without handing over to a thread and back, cancel a file operation that has begun, sleep to less than a millisecond |
//! | `glommio` | another thread-per-core runtime, to compare with | run the same shard code over futures | use our memory for files, receive and accept by multishot operations, make one write durable without opening the file again, hold the lock for a killed process's writes, run where `uring` cannot |
//! | `sim` | the same seam in memory, on one seed | fail in every way of the fault model, again in the same way | serve anybody outside |
//!
//! # Non-obvious
//! - `Token` is opaque here. Drivers keep their own in-flight slots, so a stale completion can never reach a new owner.
//! - Pushing does not enter the kernel: ops leave at the next `turn`, all together.
//! - The spin before a sleep (`uring::Config::spin`) ends as well when another shard calls, and then neither needs a system call.
//! - `Token`s of cancelled `Recv`s still complete; a connection may be reused only after its last `Done`.

pub mod descriptors;
pub mod buffer;
pub mod clock;
pub mod epoll;
#[cfg(feature = "glommio")]
pub mod glommio;
pub mod lane;
mod linux;
pub mod open;
pub mod recv;
mod region;
mod returns;
mod send;
mod share;
pub mod signal;
pub mod sim;
mod sleep;
mod sync;
pub mod uring;

pub use send::{SendChain, SendPart};
pub use share::{DirLock, SharedListener, Socket, Waker};

use std::fmt;
pub use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::config::runtime::Runtime;
use buffer::{Block, BlockSlice, Pool};
use recv::RecvBuf;

/// The caller's name for an operation, handed back in its [`Done`]. The layers above encode kind, slot and generation in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

impl Token {
    /// `kind` says whose operation it is, `slot` which of theirs, `generation` that the slot was not given to another since.
    pub fn new(kind: u8, generation: u32, slot: u32) -> Token {
        Token(u64::from(kind) << 56 | u64::from(generation & 0xff_ffff) << 32 | u64::from(slot))
    }

    pub fn kind(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// The low 24 bits of the generation that `new` was given.
    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & 0xff_ffff
    }

    pub fn slot(self) -> u32 {
        self.0 as u32
    }
}

/// An open file of this driver. Never reused within one `Io` while an operation of the old file is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId(pub u32);

/// A connection of this driver, with the same rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId(pub u32);

/// A listening socket of this driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u32);

/// Monotonic nanoseconds since an arbitrary start. Never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    pub fn plus_ms(self, ms: u64) -> Mono {
        Mono(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }

    pub fn since_ms(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000_000
    }
}

/// A kernel error number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    pub const NOENT: Errno = Errno(2);
    pub const IO: Errno = Errno(5);
    pub const AGAIN: Errno = Errno(11);
    pub const NOMEM: Errno = Errno(12);
    pub const ACCES: Errno = Errno(13);
    pub const EXIST: Errno = Errno(17);
    pub const INVAL: Errno = Errno(22);
    pub const NOSPC: Errno = Errno(28);
    pub const ROFS: Errno = Errno(30);
    pub const MFILE: Errno = Errno(24);
    pub const PIPE: Errno = Errno(32);
    pub const ADDRINUSE: Errno = Errno(98);
    pub const CONNABORTED: Errno = Errno(103);
    pub const CONNRESET: Errno = Errno(104);
    pub const NOBUFS: Errno = Errno(105);
    pub const CANCELED: Errno = Errno(125);
}

impl Errno {
    pub const INTR: Errno = Errno(4);

    /// The medium or the file system's own structures cannot be read: it says something about the bytes that were asked for, not about this
    /// moment.
    pub fn is_of_medium(self) -> bool {
        const NODATA: Errno = Errno(61);
        const BADMSG: Errno = Errno(74);
        const ILSEQ: Errno = Errno(84);
        const UCLEAN: Errno = Errno(117);
        matches!(self, Errno::IO | NODATA | BADMSG | ILSEQ | UCLEAN)
    }

    /// The operation was not done and may be pushed again: EAGAIN, EINTR.
    pub fn is_passing(self) -> bool {
        matches!(self, Errno::AGAIN | Errno::INTR)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&std::io::Error::from_raw_os_error(self.0), f)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {self})", self.0)
    }
}

impl std::error::Error for Errno {}

/// How a file is opened. All files are opened for direct I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Existing file, reading only.
    Read,
    /// Existing file, reading and writing.
    Write,
    /// New file, reading and writing; `Errno::EXIST` if it is there.
    Create,
    /// As `Create`, but an existing file is emptied: for temporary files that are renamed into place.
    Replace,
}

/// Who may listen at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenMode {
    /// Nobody else: `Errno::ADDRINUSE` for a second one.
    Exclusive,
    /// As `Exclusive`, and then open to [`ListenMode::ReusePort`]: the first of several, so that nobody else is at the address already.
    FirstOfReusePort,
    /// Everybody of this user who says so as well (`SO_REUSEPORT`): each connection goes to one of the listeners, by a hash of its
    /// addresses. A connection that waits in the queue of a listener that closes is lost.
    ReusePort,
}

/// What a completed write means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteSync {
    /// The bytes left the process; they survive its death, not the machine's.
    No,
    /// `RWF_DSYNC`: when it completes at full length, this write is durable.
    Dsync,
}

/// One operation. Buffers inside are owned by it until its [`Done`].
#[derive(Debug)]
pub enum Op {
    OpenFile {
        path: PathBuf,
        mode: OpenMode,
    },
    /// Completes after the operations of that file that are in flight; none may follow it.
    CloseFile {
        file: FileId,
    },
    /// Reserves disk space (`fallocate`) and extends the file's length over it; the bytes read as zeros.
    Allocate {
        file: FileId,
        offset: u64,
        len: u64,
    },
    Write {
        file: FileId,
        offset: u64,
        data: BlockSlice,
        sync: WriteSync,
    },
    /// Reads into `into[at..at + len]`; `Done` hands the block back. Fewer bytes than asked mean the end of the file.
    Read {
        file: FileId,
        offset: u64,
        into: Block,
        at: u32,
        len: u32,
    },
    /// `fdatasync` of one file.
    Flush {
        file: FileId,
    },
    Truncate {
        file: FileId,
        len: u64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    RemoveFile {
        path: PathBuf,
    },
    /// Creates one directory; `Errno::EXIST` if it is there.
    MakeDir {
        path: PathBuf,
    },
    /// Removes one empty directory.
    RemoveDir {
        path: PathBuf,
    },
    /// Makes the entries of a directory durable.
    SyncDir {
        path: PathBuf,
    },
    /// Multishot: one `Done` with [`Payload::Accepted`] for each connection, those that wait already first.
    Accept {
        listener: ListenerId,
    },
    /// Ends the `Accept` of that listener, if one is in flight; the `Accept` completes with `Errno::CANCELED`, behind what it took. What it
    /// was told of and had not taken waits for the next `Accept`, of this driver or another that shares the listener: nobody is told anew.
    CancelAccept {
        listener: ListenerId,
    },
    /// Multishot: one `Done` with [`Payload::Received`] for each piece; result 0 without payload is the peer's end of stream.
    Recv {
        conn: ConnId,
    },
    /// One piece of at most `bytes_max`, and in everything else a `Recv`: for who must know how much may come.
    RecvOnce {
        conn: ConnId,
        bytes_max: u32,
    },
    /// Ends the `Recv` of that connection early; the `Recv` completes with `Errno::CANCELED` or what it had.
    CancelRecv {
        conn: ConnId,
    },
    /// Sends the chain from its current position, up to `SEND_BYTES_MAX` of it; `Done` hands it back with its position
    /// unchanged. Waits while the socket takes nothing.
    Send {
        conn: ConnId,
        chain: SendChain,
    },
    /// Takes a connection out of this `Io`, for another one to [`adopt`](Io::adopt): only when no `Recv` and no `Send` of it is in flight,
    /// which is asserted. Completes with [`Payload::Detached`]; the id is free again from the push on.
    DetachConn {
        conn: ConnId,
    },
    /// Shuts the connection down and closes it: its `Recv` (with an error) and `Send` (with an error
    /// or short) in flight complete first, then this one.
    CloseConn {
        conn: ConnId,
    },
}

impl Op {
    /// Its completions have no fixed number.
    pub fn is_multishot(&self) -> bool {
        matches!(self, Op::Accept { .. } | Op::Recv { .. })
    }
}

/// One completion.
#[derive(Debug)]
pub struct Done {
    pub token: Token,
    /// Bytes done where the op moves bytes, else 0.
    pub result: Result<u32, Errno>,
    /// More completions of the same multishot op will follow.
    pub more: bool,
    pub payload: Payload,
}

/// What a completion hands over or back.
#[derive(Debug)]
pub enum Payload {
    None,
    Opened(FileId, Place),
    /// The block of a `Read`, also when it failed.
    Read(Block),
    /// The bytes of a `Write`, also when it failed or was short: what is missing can be written again.
    Written(BlockSlice),
    Accepted {
        conn: ConnId,
        peer: SocketAddr,
    },
    Received(RecvBuf),
    Sent(SendChain),
    Detached(Socket),
}

/// What is known of the place of a file that was opened to be written: nothing of one that was opened to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Device number, as [`StorageCaps::device`].
    pub device: u64,
    /// Of a file that was there: each byte lies in an extent that is written and no other file's, so that a write in place changes no
    /// metadata. False if not, or if nobody can tell.
    pub is_own_and_written: bool,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    pub name: String,
    pub is_dir: bool,
    /// File length in bytes; 0 for a directory.
    pub len: u64,
}

/// What the storage under a directory can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageCaps {
    /// Device number; equal numbers share a device.
    pub device: u64,
    /// Name of the file system type, as in `ext4`.
    pub file_system: String,
    /// Direct I/O works at 4096-byte alignment.
    pub direct: bool,
    /// A flush of one file, whose extents are all written, flushes the device's cache for every file: ext4 and XFS.
    pub shared_flush: bool,
    /// Power was cut under such flushes on kernels as old and as new as this one.
    pub shared_flush_tested: bool,
    /// A write and then a flush are sooner durable than a write with [`WriteSync::Dsync`]: the device has a cache and no FUA, and this
    /// driver's durable write leaves its flush to a worker of the kernel.
    pub flush_apart: bool,
    /// Why `durable` cannot be promised here (tmpfs, overlay, network file systems), or none.
    pub not_durable: Option<&'static str>,
}

/// Free and total bytes of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    pub free: u64,
    pub total: u64,
}

/// Why a data directory could not be locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockError {
    /// Another process holds it: its pid, if the lock file tells.
    Held(Option<u32>),
    Failed(Errno),
}

/// Whether a turn may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Submit and reap what is there.
    No,
    /// Sleep until a completion, a wake-up, or this time.
    Until(Mono),
    /// Sleep until a completion or a wake-up.
    Forever,
}

/// One shard's access to the outside world. A closed enum: the layers above name no driver.
pub enum Io {
    Uring(Box<uring::Uring>),
    Epoll(Box<epoll::Epoll>),
    #[cfg(feature = "glommio")]
    Glommio(Box<glommio::Glommio>),
    Sim(Box<sim::SimIo>),
}

macro_rules! each_driver {
    ($self:ident, $driver:ident => $body:expr) => {
        match $self {
            Io::Uring($driver) => $body,
            Io::Epoll($driver) => $body,
            #[cfg(feature = "glommio")]
            Io::Glommio($driver) => $body,
            Io::Sim($driver) => $body,
        }
    };
}

impl Io {
    /// Which driver it is; none for `sim`.
    pub fn runtime(&self) -> Option<Runtime> {
        match self {
            Io::Uring(_) => Some(Runtime::Uring),
            Io::Epoll(_) => Some(Runtime::Epoll),
            #[cfg(feature = "glommio")]
            Io::Glommio(_) => Some(Runtime::Glommio),
            Io::Sim(_) => None,
        }
    }

    /// What is in effect, for people: once the pool was mapped, whether the kernel knows its memory too.
    pub fn description(&self) -> String {
        match self {
            Io::Uring(io) => io.probed().to_string(),
            _ => self.runtime().map_or("sim", Runtime::name).to_string(),
        }
    }

    /// Queues an operation. It leaves at the next [`Io::turn`].
    pub fn push(&mut self, op: Op, token: Token) {
        each_driver!(self, io => io.push(op, token))
    }

    /// Submits what is queued, waits as `wait` allows and may return early, and appends at most
    /// [`COMPLETIONS_PER_TURN_MAX`](crate::base::limits::COMPLETIONS_PER_TURN_MAX) completions to `out`.
    pub fn turn(&mut self, wait: Wait, out: &mut Vec<Done>) {
        each_driver!(self, io => io.turn(wait, out))
    }

    /// The monotonic clock.
    pub fn now(&self) -> Mono {
        each_driver!(self, io => io.now())
    }

    /// CPU time of the calling thread, in nanoseconds, the kernel's work for it included; 0 under `sim`.
    pub fn cpu_ns(&self) -> u64 {
        match self {
            Io::Sim(_) => 0,
            _ => linux::thread_cpu_ns(),
        }
    }

    /// What the clocks of turns are made by.
    pub fn clock_source(&self) -> clock::ClockSource {
        match self {
            Io::Sim(_) => clock::ClockSource::still(),
            _ => clock::ClockSource::of_machine(),
        }
    }

    /// The wall clock, in milliseconds since 1970. May jump and step back.
    pub fn wall_ms(&self) -> i64 {
        each_driver!(self, io => io.wall_ms())
    }

    /// Random bytes for ids; from the seed under `sim`.
    pub fn random(&mut self, bytes: &mut [u8]) {
        each_driver!(self, io => io.random(bytes))
    }

    /// The shard's blocks.
    pub fn pool(&mut self) -> &mut Pool {
        each_driver!(self, io => io.pool())
    }

    /// Maps, prefaults and registers one more slice of the pool; false at its budget. For idle turns and for need.
    pub fn grow_pool(&mut self) -> bool {
        each_driver!(self, io => io.grow_pool())
    }

    /// The means to wake this `Io` from other threads.
    pub fn waker(&self) -> Waker {
        each_driver!(self, io => io.waker())
    }

    /// Second half of a message: call it after pushing into the lane of the shard that `to` belongs to. One atomic access if that shard is
    /// awake; else queues a wake-up that leaves at the next [`Io::turn`] of this one, which must not be far.
    pub fn wake(&mut self, to: &Waker) {
        each_driver!(self, io => io.wake(to))
    }

    /// Announces that the next `turn` may sleep. Then look at every lane again, and call [`Io::turn`]: with [`Wait::No`] if something is
    /// there. A turn that may sleep without this is not woken by [`Io::wake`].
    pub fn announce_sleep(&mut self) {
        each_driver!(self, io => io.announce_sleep())
    }

    /// Opens a listening socket, exclusively; port 0 takes a free one. Returns the address in effect.
    pub fn listen(&mut self, addr: SocketAddr) -> Result<(ListenerId, SocketAddr), Errno> {
        self.listen_with(addr, ListenMode::Exclusive)
    }

    /// As [`Io::listen`], and says who else may.
    pub fn listen_with(
        &mut self,
        addr: SocketAddr,
        mode: ListenMode,
    ) -> Result<(ListenerId, SocketAddr), Errno> {
        each_driver!(self, io => io.listen_with(addr, mode))
    }

    /// A handle of a listening socket, for other shards to accept from as well.
    pub fn share_listener(&self, listener: ListenerId) -> SharedListener {
        each_driver!(self, io => io.share_listener(listener))
    }

    /// Joins a listening socket: each connection goes to one of the shards whose `Accept` is armed.
    pub fn add_listener(&mut self, shared: SharedListener) -> ListenerId {
        each_driver!(self, io => io.add_listener(shared))
    }

    /// A connection waits at a listening socket to be accepted, by whomever. One short system call.
    pub fn has_waiting(&self, listener: ListenerId) -> bool {
        each_driver!(self, io => io.has_waiting(listener))
    }

    /// Takes over a connection that another `Io` of the same kind detached. Nothing of its stream is lost on the way.
    pub fn adopt(&mut self, socket: Socket) -> ConnId {
        each_driver!(self, io => io.adopt(socket))
    }

    /// The entries of a directory, sorted by name. Blocks; for start-up.
    pub fn list_dir(&mut self, path: &Path) -> Result<Vec<DirEntry>, Errno> {
        each_driver!(self, io => io.list_dir(path))
    }

    /// What the storage under an existing directory can do. Blocks; for start-up.
    pub fn storage_caps(&mut self, path: &Path) -> Result<StorageCaps, Errno> {
        each_driver!(self, io => io.storage_caps(path))
    }

    /// Free space of the file system of an existing directory. Fast enough to ask now and then while serving.
    pub fn disk_space(&mut self, path: &Path) -> Result<DiskSpace, Errno> {
        each_driver!(self, io => io.disk_space(path))
    }

    /// Locks `dir` for this process until the `Io` is gone and every operation of it has ended. Refuses at once while the
    /// recorded process lives, else waits up to 10 s for what a killed predecessor left in flight.
    pub fn lock_dir(&mut self, dir: &Path) -> Result<(), LockError> {
        each_driver!(self, io => io.lock_dir(dir))
    }

    /// A share in the lock that [`Io::lock_dir`] took, for the other shards of the process; none if this `Io` has no share in it.
    pub fn share_lock(&self, dir: &Path) -> Option<DirLock> {
        each_driver!(self, io => io.share_lock(dir))
    }

    /// Holds the lock with this `Io` too: it ends when the last `Io` that has joined it is gone, and a killed process's writes
    /// through any of them keep it while they are in flight.
    pub fn join_lock(&mut self, lock: DirLock) {
        each_driver!(self, io => io.join_lock(lock))
    }

    /// Runs one file operation to its end, keeping other completions for the next turn. Blocks; for start-up and tools.
    pub fn wait(&mut self, op: Op) -> Done {
        each_driver!(self, io => io.wait(op))
    }
}
