//! Background work as scripts. A job is a list of file operations, one behind the other, that ends with one call back into the store. All work
//! besides commits runs this way: making directories and files, zeroing, replacing `state`, trimming, removing.
//!
//! A job that meets a full file system waits and goes on at the step where it stopped; its place goes to the next one meanwhile, which may
//! be what gives space back. Any other error of a job that the log's promise
//! depends on makes the directory dead; a job for derived data (`is_derived`) is given up and logged, but for errors of the device, which
//! are everybody's.
//!
//! # Non-obvious
//! - A step that needs a block runs only in `Store::turn`, which has the pool; completions just note that a job can go on.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::core::{Core, Pending};
use super::partition::Log;
use super::{Event, Ops, Planted, Tag};
use crate::base::limits::{ALIGN, BLOCK_BYTES};
use crate::io::buffer::{Block, BlockSlice, Pool};
use crate::io::{Done, Errno, FileId, Mono, Op, OpenMode, Payload, Place, WriteSync};
use crate::log::format::SEGMENT_HEADER_BYTES;
use crate::log::replace::TEMPORARY;
use crate::log::survey::holds_nothing;

/// Jobs that run at once per shard; zeroing is not counted, nor are jobs that wait for space or time. Bounds what background work costs the foreground.
pub const JOBS_RUNNING_MAX: usize = 32;

/// 256 KiB writes of one zeroing job in flight: 1 MiB.
const ZERO_WRITES_IN_FLIGHT_MAX: u32 = 4;

/// How long a job waits for space, or for a transient error to pass, before it goes on.
const RETRY_MS: u64 = 500;

/// Transient results (EAGAIN, EINTR, no progress) of one operation before it counts as failed.
pub const ATTEMPTS_MAX: u32 = 64;

/// Times that a segment file may turn up by itself before it is made.
const LEFTOVERS_MAX: u32 = 3;

#[derive(Debug)]
pub enum Step {
    MakeDir(PathBuf),
    SyncDir(PathBuf),
    Open(PathBuf, OpenMode),
    /// Reserves and zeroes a range of the job's file.
    Allocate {
        from: u64,
        to: u64,
    },
    Zero {
        from: u64,
        to: u64,
    },
    /// Writes these bytes from position 0 on, padded with zeros to 4096.
    Write(Vec<u8>),
    /// As `Write`, the bytes being the log's state when the step begins.
    WriteState,
    Flush,
    Truncate(u64),
    Close,
    CloseOther(FileId),
    Rename(PathBuf, PathBuf),
    /// A file that may be gone already.
    Remove(PathBuf),
    /// As `Remove`, of a file that is in the way of this segment's: only if nothing was begun in it.
    Clear {
        path: PathBuf,
        ordinal: u64,
    },
    /// A directory that may be gone or, if it is shared, not empty.
    RemoveDir {
        path: PathBuf,
        shared: bool,
    },
}

/// What a job is for: decides what its end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Directories,
    Prepare {
        ordinal: u64,
        zeroed: u64,
    },
    /// As `Prepare`, of a retired segment's file.
    Recycle {
        ordinal: u64,
        zeroed: u64,
    },
    Extend {
        ordinal: u64,
        zeroed: u64,
    },
    State,
    Trim {
        ordinal: u64,
    },
    OpenSegment {
        ordinal: u64,
        writable: bool,
    },
    Snapshot,
    Derived,
    CloseFiles,
    Retire,
    Truncate,
    Delete,
}

impl Kind {
    /// Its loss costs time at the next start, or a read; nothing that was appended.
    fn is_derived(self) -> bool {
        matches!(
            self,
            Kind::OpenSegment { writable: false, .. }
                | Kind::Derived
                | Kind::Snapshot
                | Kind::Trim { .. }
                | Kind::Retire
                | Kind::Delete
        )
    }

    /// Goes on also when the directory is dead: reads may wait for it. A file opened for writing serves them as well.
    pub fn writes_nothing(self) -> bool {
        matches!(self, Kind::OpenSegment { .. } | Kind::CloseFiles)
    }

    fn counts(self) -> bool {
        !matches!(self, Kind::Extend { .. } | Kind::OpenSegment { .. })
    }
}

#[derive(Debug)]
pub struct Job {
    pub log: u32,
    pub kind: Kind,
    pub steps: VecDeque<Step>,
    /// The file that steps work on.
    pub file: Option<FileId>,
    in_flight: u32,
    /// Progress of a step that takes several operations.
    at: u64,
    error: Option<Errno>,
    attempts: u32,
    /// Of the file that was opened last.
    pub place: Place,
    /// What a step has read.
    read: Option<Block>,
    /// Times that it began anew because of what others left or removed.
    leftovers: u32,
}

impl Job {
    pub fn new(log: u32, kind: Kind, file: Option<FileId>, steps: impl IntoIterator<Item = Step>) -> Job {
        let steps = steps.into_iter().collect();
        Job {
            log,
            kind,
            steps,
            file,
            in_flight: 0,
            at: 0,
            error: None,
            attempts: 0,
            place: Place::default(),
            read: None,
            leftovers: 0,
        }
    }
}

/// The steps that replace a small file: readers find the old one or the new one, whole. The temporary file has a name of this process's own: what
/// a killed predecessor had in flight, opening or renaming, must not meet it.
pub fn replace_steps(core: &Core, dir: &Path, name: &str, write: Step) -> [Step; 6] {
    let (temporary, path) = (temporary(core, dir, name), dir.join(name));
    [
        Step::Open(temporary.clone(), OpenMode::Replace),
        write,
        Step::Flush,
        Step::Close,
        Step::Rename(temporary, path),
        Step::SyncDir(dir.to_path_buf()),
    ]
}

/// Where the replacement of `name` is written first. Recovery removes what is left of it.
pub fn temporary(core: &Core, dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.{:08x}{TEMPORARY}", core.nonce))
}

/// What became of a job.
#[derive(Debug)]
pub enum Outcome {
    /// Operations are in flight, or it waits for memory or time.
    Waits,
    Finished(Job),
    /// Given up; it was only derived data.
    GivenUp(Job, Errno),
    Fatal(Job, Errno),
}

/// The jobs of a store.
#[derive(Debug, Default)]
pub struct Jobs {
    slots: Vec<Option<Job>>,
    free: Vec<u32>,
    /// Not started, or done waiting: too many run.
    queue: VecDeque<u32>,
    running: usize,
    /// Whose last operation completed, or which wait for memory.
    pub runnable: Vec<u32>,
    /// Waiting for space or a transient error to pass.
    parked: Vec<(Mono, u32)>,
}

impl Jobs {
    pub fn add(&mut self, job: Job) {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.slots[id as usize] = Some(job);
        self.start(id);
    }

    /// Lets a job run, at once or when it has a place.
    fn start(&mut self, id: u32) {
        let counts = self.get(id).is_some_and(|(_, kind)| kind.counts());
        if counts && self.running >= JOBS_RUNNING_MAX {
            self.queue.push_back(id);
        } else {
            self.running += usize::from(counts);
            self.runnable.push(id);
        }
    }

    /// A job that ran leaves its place to the next.
    fn leave_place(&mut self, kind: Kind) {
        self.running -= usize::from(kind.counts());
        if self.running < JOBS_RUNNING_MAX
            && let Some(next) = self.queue.pop_front()
        {
            self.start(next);
        }
    }

    /// A job that runs waits until `at`.
    fn park(&mut self, at: Mono, id: u32, kind: Kind) {
        self.parked.push((at, id));
        self.leave_place(kind);
    }

    /// When a parked job goes on.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.parked.iter().map(|(at, _)| *at).min()
    }

    /// Starts parked jobs again whose time has come.
    pub fn unpark(&mut self, now: Mono) {
        let mut parked = std::mem::take(&mut self.parked);
        parked.retain(|(at, id)| {
            let due = *at <= now;
            if due {
                self.start(*id);
            }
            !due
        });
        self.parked = parked;
    }

    pub fn get(&self, id: u32) -> Option<(u32, Kind)> {
        self.slots[id as usize].as_ref().map(|job| (job.log, job.kind))
    }

    /// Some operation of the job failed, and nobody has looked at it yet.
    pub fn has_failed(&self, id: u32) -> bool {
        self.slots[id as usize].as_ref().is_some_and(|job| job.error.is_some())
    }

    /// Whether an I/O error of what the job does now ends the directory, whatever comes of the job.
    pub fn is_of_device(&self, id: u32) -> bool {
        self.slots[id as usize].as_ref().is_some_and(|job| job.is_of_device(Errno::IO))
    }

    /// Forgets a job that is runnable: nothing of it is in flight.
    pub fn remove(&mut self, id: u32) -> Job {
        let job = self.slots[id as usize].take().expect("a job that runs");
        self.free.push(id);
        self.leave_place(job.kind);
        job
    }

    /// A completion of one of the job's operations. `write` describes it if it was a write.
    pub fn done(&mut self, id: u32, write: Option<(u64, u32)>, done: Done) -> Option<(Op, (u64, u32))> {
        let job = self.slots[id as usize].as_mut().expect("a job with an operation in flight");
        job.in_flight -= 1;
        match (done.result, done.payload) {
            (Ok(_), Payload::Opened(file, place)) => {
                job.file = Some(file);
                job.place = place;
            }
            (Ok(bytes), Payload::Read(mut block)) => {
                block.set_filled(bytes as usize);
                job.read = Some(block);
            }
            (Ok(bytes), Payload::Written(data)) => {
                let (offset, len) = write.unwrap_or_default();
                let rest = bytes as usize / ALIGN * ALIGN;
                if bytes < len && job.attempts < ATTEMPTS_MAX {
                    job.attempts += 1;
                    job.in_flight += 1;
                    let file = job.file.expect("a job that writes");
                    let data = data.sub(rest..data.len());
                    let write = (offset + rest as u64, data.len() as u32);
                    return Some((Op::Write { file, offset: write.0, data, sync: WriteSync::No }, write));
                }
                if bytes < len {
                    job.error = Some(Errno::IO);
                }
            }
            (Ok(_), _) => {}
            (Err(errno), _) => {
                let step = job.steps.front();
                if !step.is_some_and(|step| step.tolerates(errno, job.kind)) {
                    job.error = Some(errno);
                }
            }
        }
        if job.in_flight == 0 {
            self.runnable.push(id);
        }
        None
    }
}

impl Job {
    /// What it does now is a flush.
    fn flushes(&self) -> bool {
        matches!(self.steps.front(), Some(Step::Flush | Step::SyncDir(_)))
    }

    /// An error of the device under a write or a flush is everybody's: it may have lost what others wrote.
    fn is_of_device(&self, errno: Errno) -> bool {
        self.flushes() || (errno == Errno::IO && !self.kind.writes_nothing())
    }
}

impl Step {
    fn tolerates(&self, errno: Errno, kind: Kind) -> bool {
        const NOTEMPTY: Errno = Errno(39);
        match self {
            // Another partition of the topic, perhaps of another shard, was removed last, and the topic's directory with it.
            Step::SyncDir(_) => errno == Errno::NOENT && kind == Kind::Delete,
            Step::MakeDir(_) => errno == Errno::EXIST,
            Step::Remove(_) | Step::Clear { .. } => errno == Errno::NOENT,
            Step::RemoveDir { shared, .. } => errno == Errno::NOENT || (*shared && errno == NOTEMPTY),
            _ => false,
        }
    }
}

/// Runs a job as far as it gets without waiting.
pub fn run(core: &mut Core, log: &mut Log, id: u32, pool: &mut Pool, ops: &mut Ops) -> Outcome {
    loop {
        let job = core.jobs.slots[id as usize].as_mut().expect("a job that is runnable");
        if let Some(errno) = job.error.take() {
            return failed(core, log, id, errno);
        }
        match advance(core, log, id, pool, ops) {
            Advance::Wait => return Outcome::Waits,
            Advance::Failed(errno) => return failed(core, log, id, errno),
            Advance::NoMemory => {
                core.jobs.runnable.push(id);
                core.memory_short = true;
                return Outcome::Waits;
            }
            Advance::Next => {
                let job = core.jobs.slots[id as usize].as_mut().expect("a job that is runnable");
                job.steps.pop_front();
                job.at = 0;
                job.attempts = 0;
            }
            Advance::End => return Outcome::Finished(core.jobs.remove(id)),
        }
    }
}

fn failed(core: &mut Core, log: &Log, id: u32, errno: Errno) -> Outcome {
    const INTR: Errno = Errno(4);
    const NFILE: Errno = Errno(23);
    let planted = core.is_planted(Planted::RetryAfterError);
    let job = core.jobs.slots[id as usize].as_mut().expect("a job that failed");
    job.attempts += 1;
    job.at = 0;
    if errno == Errno::EXIST
        && job.leftovers < LEFTOVERS_MAX
        && let Some(Step::Open(path, OpenMode::Create)) = job.steps.front()
        && let Kind::Prepare { ordinal, .. } = job.kind
    {
        // A file that the dead predecessor was still making when recovery looked.
        let path = path.clone();
        job.leftovers += 1;
        job.steps.push_front(Step::Clear { path, ordinal });
        core.jobs.runnable.push(id);
        return Outcome::Waits;
    }
    if errno == Errno::NOENT && log.deleting && matches!(job.kind, Kind::Directories | Kind::Delete) {
        // The directory of the topic, which the last of its partitions took along.
        return gone(core, id);
    }
    if errno == Errno::NOENT
        && job.leftovers < ATTEMPTS_MAX
        && let Some(Step::MakeDir(path)) = job.steps.front()
        && *path == log.dir
        && let Some((topic, data)) = path.parent().and_then(|topic| Some((topic, topic.parent()?)))
    {
        // Another shard knows that the topic is deleted, found its directory empty, and removed it.
        let again = [Step::SyncDir(data.to_path_buf()), Step::MakeDir(topic.to_path_buf())];
        job.leftovers += 1;
        again.into_iter().for_each(|step| job.steps.push_front(step));
        core.jobs.runnable.push(id);
        return Outcome::Waits;
    }
    // A flush that failed may have lost what it should have covered: one that succeeds later proves nothing.
    let flushes = job.flushes();
    let passing = matches!(errno, Errno::AGAIN | Errno::CANCELED) || (!flushes && errno == INTR);
    // Too many open files says nothing about this log: others are closed, until this one's turn comes. A directory is opened to be synced.
    let crowded = matches!(errno, NFILE | Errno::MFILE);
    core.files_short |= crowded;
    let transient = crowded || (passing && job.attempts < ATTEMPTS_MAX);
    let no_space = errno == Errno::NOSPC && !flushes && !job.kind.is_derived() && !log.deleting;
    if transient || no_space || planted {
        let kind = job.kind;
        core.jobs.park(core.now.plus_ms(RETRY_MS), id, kind);
        if no_space {
            core.no_space(log.slot);
        }
        return Outcome::Waits;
    }
    let device = job.is_of_device(errno);
    let derived = job.kind.is_derived() || (errno == Errno::NOSPC && log.deleting);
    let job = core.jobs.remove(id);
    if derived && !device { Outcome::GivenUp(job, errno) } else { Outcome::Fatal(job, errno) }
}

/// Goes on behind a step whose directory is not there any more, as far as that makes sense.
fn gone(core: &mut Core, id: u32) -> Outcome {
    let job = core.jobs.slots[id as usize].as_mut().expect("a job that failed");
    job.steps.pop_front();
    match job.kind {
        Kind::Delete => {
            core.jobs.runnable.push(id);
            Outcome::Waits
        }
        _ => Outcome::GivenUp(core.jobs.remove(id), Errno::NOENT),
    }
}

enum Advance {
    Wait,
    Failed(Errno),
    NoMemory,
    Next,
    End,
}

/// Starts or continues the job's first step.
fn advance(core: &mut Core, log: &mut Log, id: u32, pool: &mut Pool, ops: &mut Ops) -> Advance {
    let planted = core.is_planted(Planted::NoDirectorySync);
    let job = core.jobs.slots[id as usize].as_mut().expect("a job that is runnable");
    let started = job.at > 0;
    let Some(step) = job.steps.front_mut() else { return Advance::End };
    let file = job.file;
    let op = match step {
        Step::Zero { from, to } => {
            let range = (*from + job.at, *to);
            return zero(core, id, range, pool, ops);
        }
        Step::WriteState => {
            *step = Step::Write(log.encode_state(core.config.directory));
            return advance(core, log, id, pool, ops);
        }
        Step::Write(bytes) => {
            if bytes.len() <= job.at as usize {
                return Advance::Next;
            }
            return write_on(core, id, pool, ops);
        }
        Step::Clear { .. } => return clear(core, log, id, pool, ops),
        Step::SyncDir(_) if planted => return Advance::Next,
        _ if started => {
            // The one operation of this step has completed.
            if let Step::Close = step {
                job.file = None;
            }
            return Advance::Next;
        }
        Step::MakeDir(path) => Op::MakeDir { path: path.clone() },
        Step::SyncDir(path) => Op::SyncDir { path: path.clone() },
        Step::Open(path, mode) => Op::OpenFile { path: path.clone(), mode: *mode },
        Step::Allocate { from, to } => Op::Allocate { file: of(file), offset: *from, len: *to - *from },
        Step::Flush => Op::Flush { file: of(file) },
        Step::Truncate(len) => Op::Truncate { file: of(file), len: *len },
        Step::Close => Op::CloseFile { file: of(file) },
        Step::CloseOther(other) => Op::CloseFile { file: *other },
        Step::Rename(from, to) => Op::Rename { from: from.clone(), to: to.clone() },
        Step::Remove(path) => Op::RemoveFile { path: path.clone() },
        Step::RemoveDir { path, .. } => Op::RemoveDir { path: path.clone() },
    };
    emit(core, id, op, 1, ops);
    Advance::Wait
}

/// Submits an operation other than a write, behind which the step has got to `at`.
fn emit(core: &mut Core, id: u32, op: Op, at: u64, ops: &mut Ops) {
    let job = core.jobs.slots[id as usize].as_mut().expect("a job that runs");
    job.at = at;
    job.in_flight += 1;
    let tag = core.pending.insert(Pending::Job { job: id, write: None });
    ops.push((op, tag));
}

fn of(file: Option<FileId>) -> FileId {
    file.expect("a step that works on the job's file")
}

/// Opens what is in the way, reads its first block, closes it, and removes it if nothing was begun in it. What is gone by then is cleared. A
/// segment there means that this process does not know its directory: that is for a human.
fn clear(core: &mut Core, log: &Log, id: u32, pool: &mut Pool, ops: &mut Ops) -> Advance {
    const OPENED: u64 = 1;
    const READ: u64 = 2;
    const CLOSED: u64 = 3;
    const REMOVED: u64 = 4;
    let job = core.jobs.slots[id as usize].as_mut().expect("a job that is runnable");
    let Some(Step::Clear { path, ordinal }) = job.steps.front() else { return Advance::Next };
    let (path, ordinal) = (path.clone(), *ordinal);
    let (op, at) = match (job.at, job.file) {
        (0, None) => (Op::OpenFile { path, mode: OpenMode::Read }, OPENED),
        (0 | OPENED, Some(file)) => {
            let Some(into) = core.job_block(pool) else { return Advance::NoMemory };
            (Op::Read { file, offset: 0, into, at: 0, len: SEGMENT_HEADER_BYTES as u32 }, READ)
        }
        (READ, Some(file)) => {
            job.file = None;
            (Op::CloseFile { file }, CLOSED)
        }
        (CLOSED, None) => {
            let block = job.read.take();
            if !block.is_some_and(|block| holds_nothing(block.as_slice(), log.key, ordinal)) {
                let what = "a segment is there that was to be begun now";
                core.events.push(Event::Corrupt(log.slot, log.corrupt(ordinal, 0, what)));
                return Advance::Failed(Errno::EXIST);
            }
            (Op::RemoveFile { path }, REMOVED)
        }
        _ => return Advance::Next,
    };
    emit(core, id, op, at, ops);
    Advance::Wait
}

/// Submits the next block of a `Write` step.
fn write_on(core: &mut Core, id: u32, pool: &mut Pool, ops: &mut Ops) -> Advance {
    let Some(mut block) = core.job_block(pool) else { return Advance::NoMemory };
    let job = core.jobs.slots[id as usize].as_mut().expect("a job that writes");
    let Some(Step::Write(bytes)) = job.steps.front() else { return Advance::Next };
    let offset = job.at;
    job.at += block.append(&bytes[offset as usize..]) as u64;
    let op = Op::Write { file: of(job.file), offset, data: block.slice_padded(0), sync: WriteSync::No };
    emit_write(core, id, op, ops);
    Advance::Wait
}

/// Submits the next writes of zeros of `range`.
fn zero(core: &mut Core, id: u32, range: (u64, u64), pool: &mut Pool, ops: &mut Ops) -> Advance {
    let (mut at, to) = range;
    if at >= to {
        return Advance::Next;
    }
    let Some(zeros) = core.zeros(pool) else { return Advance::NoMemory };
    for _ in 0..ZERO_WRITES_IN_FLIGHT_MAX {
        let len = (to - at).min(BLOCK_BYTES as u64);
        if len == 0 {
            break;
        }
        let job = core.jobs.slots[id as usize].as_mut().expect("a job that zeroes");
        let data = zeros.sub(0..len as usize);
        let op = Op::Write { file: of(job.file), offset: at, data, sync: WriteSync::No };
        job.at += len;
        at += len;
        emit_write(core, id, op, ops);
    }
    Advance::Wait
}

fn emit_write(core: &mut Core, id: u32, op: Op, ops: &mut Ops) {
    let Op::Write { offset, data, .. } = &op else { return };
    let write = Some((*offset, data.len() as u32));
    let job = core.jobs.slots[id as usize].as_mut().expect("a job that writes");
    job.in_flight += 1;
    let tag: Tag = core.pending.insert(Pending::Job { job: id, write });
    ops.push((op, tag));
}

/// A shared slice of zeros, one block long.
pub fn make_zeros(block: &mut Block) -> BlockSlice {
    block.pad_to(BLOCK_BYTES);
    block.slice(0..BLOCK_BYTES)
}
