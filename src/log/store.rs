//! The logs of one shard: a plain state machine over the io seam. It takes appends, read requests, completions and time, and emits
//! operations and events. It runs no loop, answers no client and draws nothing random.
//!
//! One turn of a shard calls, in this order: [`Store::done`] for each completion that carries a token of the store, any number of
//! [`Store::append`] and [`Store::plan_read`], then [`Store::turn`], which asks the commit planner for the next round and
//! starts background work; then it pushes the emitted ops and reads the [`Event`]s.

pub(super) mod background;
pub(super) mod core;
mod flow;
pub(super) mod jobs;
mod memory;
mod opening;
pub(super) mod partition;
pub(super) mod reads;
mod stop;
mod truncation;

use std::path::PathBuf;

use super::recovered::Totals;
use crate::base::error::{Corrupt, Fatal, Refused};
use crate::base::ids::{LeaderEpoch, PartitionKey, Uuid};
use crate::base::limits::BLOCK_BYTES;
use crate::base::metrics::Counters;
use crate::base::offset::{Durable, HighWatermark, LastStable, LogEnd, LogStart, Offset};
use crate::io::buffer::{Block, BlockSlice, Pool};
use crate::io::{Done, Errno, FileId, Mono, Op, StorageCaps};
use crate::log::fate::Fate;
use crate::log::marks::Mark;
use core::{Core, Pending};
use partition::{Log, mark_todo};

/// What has happened before a produce request with acks=1 or acks=all is answered, and up to where consumers may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Written, and a flush that began after that has completed.
    Durable,
    /// Written; flushed within `flush_ms` or `flush_bytes`.
    Written,
    /// Staged in memory; written and flushed within `flush_ms` or `flush_bytes`.
    Memory,
}

/// The part of a topic's configuration that its logs obey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    pub durability: Durability,
    pub flush_ms: u64,
    pub flush_bytes: u64,
    pub segment_bytes: u64,
    pub segment_ms: u64,
    /// -1: unlimited.
    pub retention_ms: i64,
    /// -1: unlimited.
    pub retention_bytes: i64,
    /// `cleanup.policy` contains `delete`.
    pub delete: bool,
    pub index_interval_bytes: u32,
    pub producer_id_expiration_ms: i64,
    /// `message.timestamp.type=LogAppendTime`.
    pub log_append_time: bool,
}

/// What is the same for all logs of the shard.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    pub data_dir: PathBuf,
    pub directory: Uuid,
    pub caps: StorageCaps,
    /// `log.flush.mode`: false flushes each file by itself even where the storage lets one flush do.
    pub shared_flush: bool,
    /// Below this many free bytes appends are refused with `KafkaStorageError`.
    pub free_bytes_min: u64,
    /// Bytes of blocks that the tail cache may keep.
    pub tail_cache_bytes: usize,
    /// Shared by all stores that write into `data_dir`.
    pub fate: Fate,
    /// For tests that must turn red: see [`Planted`].
    pub planted: Option<Planted>,
}

/// Bugs that every harness must find. Never set outside tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    AckBeforeFlush,
    DurableIsLastCompleted,
    NoDirectorySync,
    NoChain,
    RetryAfterError,
}

/// A log within its store. Carries a generation: a slot of a deleted log is not mistaken for its successor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogSlot {
    pub index: u32,
    pub generation: u32,
}

/// The store's own name for an operation in flight; the shard wraps it in its `Token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub u32);

/// Operations to push, each with its tag.
pub type Ops = Vec<(Op, Tag)>;

/// The offsets of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub log_start: LogStart,
    pub log_end: LogEnd,
    pub durable: Durable,
    pub high_watermark: HighWatermark,
    pub last_stable: LastStable,
    pub leader_epoch: LeaderEpoch,
}

/// An append that happened, or had happened before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    /// The ack waits until the high watermark (acks=1 and acks=all alike on one broker) reaches this offset.
    pub next_offset: Offset,
    /// LogAppendTime of the batch in ms, or -1 with CreateTime.
    pub append_time_ms: i64,
    /// Answered from the producer's cached batches; nothing was appended.
    pub duplicate: bool,
}

/// Why nothing was appended. After any of these the log is unchanged, producer state included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAppended {
    Refused(Refused),
    /// No free block: try again after completions, pool growth or eviction. The request stays queued in order.
    NoMemory,
}

/// What a fetch wants of one log.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    pub from: Offset,
    /// No record at or behind this offset is returned (high watermark, or last stable offset).
    pub until: Offset,
    pub bytes_max: u32,
    /// Return the first batch whole even where it is larger than `bytes_max`.
    pub at_least_one: bool,
}

/// How a read goes on.
pub enum ReadPlan {
    /// All of it lies in the tail cache.
    Ready(Records),
    /// These reads, then [`Store::finish_read`] with their blocks in the same order.
    Cold(ColdRead),
    /// The file is being opened: plan again after [`Event::Opened`] of this log.
    Opening,
    /// Nothing to return: `from` is at `until`, or between it and log end.
    Empty,
    Refused(Refused),
}

/// Reads of at most 256 KiB each, contiguous in one file. The file stays open until `finish_read`, also across retention.
pub struct ColdRead {
    pub slot: LogSlot,
    pub file: FileId,
    /// File position of the first read; each block continues where the one before ended.
    pub position: u64,
    /// Length of each read in bytes, multiples of 4096.
    pub lens: Vec<u32>,
    /// What was asked, kept for checking and cutting.
    pub request: ReadRequest,
    /// What the store needs to check the bytes.
    pub check: ReadCheck,
}

/// The part of a [`ColdRead`] that only the store reads.
#[derive(Clone, Copy, Debug)]
pub struct ReadCheck {
    /// Ordinal of the segment.
    pub ordinal: u64,
    /// File position behind the last byte that counts.
    pub end: u64,
    /// Where in the file the first batch or group header to look at stands, and the offset expected there.
    pub start: u64,
    pub start_offset: Offset,
    /// Read again already because the first bytes did not check.
    pub again: bool,
}

/// A log's files, for DescribeLogDirs and tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    pub bytes: u64,
    pub segments: Vec<SegmentDescription>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentDescription {
    pub ordinal: u64,
    pub base_offset: Offset,
    pub next_offset: Offset,
    pub bytes: u64,
    pub max_timestamp_ms: i64,
}

/// Whole record batches, ready to be sent: pinned slices without the group headers between them.
#[derive(Default)]
pub struct Records {
    pub parts: Vec<BlockSlice>,
    pub bytes: usize,
    /// Behind the last record returned.
    pub next_offset: Offset,
    /// True if it came from the tail cache.
    pub cached: bool,
}

/// What happened since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The high watermark moved: acks up to it may leave, and fetches may find records.
    HighWatermark(LogSlot),
    /// A file that a read needs is open: plan reads that got [`ReadPlan::Opening`] again.
    Opened(LogSlot),
    /// The new log start is on disk: DeleteRecords may answer.
    LogStart(LogSlot),
    /// The directory of a deleted partition is gone from disk.
    Deleted(PartitionKey),
    /// Reads of this log stop at `Corrupt::position`; the rest of the broker goes on.
    Corrupt(LogSlot, Corrupt),
    /// Appends to this log wait for space and new ones are refused: the acks that are due should not be waited for. What was appended is
    /// written once there is space.
    NoSpace(LogSlot),
    /// A write or a flush failed, here or in another store of the directory: no ack leaves it any more. Final until a restart.
    Dead(String),
    /// Everything that was appended is flushed and every log has a clean-stop record.
    Stopped,
}

/// The start of recovery and tools: blocking reads through the seam.
pub trait Source {
    fn list(&mut self, dir: &std::path::Path) -> Result<Vec<crate::io::DirEntry>, crate::io::Errno>;
    fn open(&mut self, path: &std::path::Path, mode: crate::io::OpenMode)
    -> Result<FileId, crate::io::Errno>;
    fn close(&mut self, file: FileId);
    /// Reads up to `len` bytes (at most one block) at `position`; fewer at the end of the file.
    fn read(&mut self, file: FileId, position: u64, len: usize) -> Result<Block, crate::io::Errno>;
    /// Says that these bytes are likely to be read soon, in this order. A source that can read in the background starts now; it may
    /// ignore any of them.
    fn read_ahead(&mut self, _file: FileId, _position: u64, _len: usize) {}
    /// Runs one operation of recovery's decision (seal, rename, directory sync) to its end.
    fn run(&mut self, op: Op) -> Result<(), crate::io::Errno>;
    /// A version 4 uuid.
    fn uuid(&mut self) -> Uuid;
    fn wall_ms(&self) -> i64;
}

/// A place for a log; its generation tells whose slots are alive.
#[derive(Default)]
struct Slot {
    generation: u32,
    log: Option<Box<Log>>,
}

/// The logs of one shard.
pub struct Store {
    logs: Vec<Slot>,
    free: Vec<u32>,
    core: Core,
}

impl Store {
    pub fn new(config: StoreConfig) -> Store {
        Store { logs: Vec::new(), free: Vec::new(), core: Core::new(config) }
    }

    /// Random uuids for segments to come. Appends that need one wait ([`NotAppended::NoMemory`]) while there is none.
    pub fn add_uuids(&mut self, uuids: impl Iterator<Item = Uuid>) {
        self.core.add_uuids(uuids);
    }

    /// How many uuids the shard should add now.
    pub fn uuids_wanted(&self) -> usize {
        core::UUIDS_KEPT.saturating_sub(self.core.uuids.len())
    }

    /// Looks at the retention of all logs this often from now on.
    pub fn set_retention_check_ms(&mut self, ms: u64) {
        self.core.sweep_ms = ms;
        self.core.sweep_at = Mono(0);
    }

    /// Recovers the log of an existing directory. Blocks; for start-up.
    pub fn open(
        &mut self,
        source: &mut dyn Source,
        key: PartitionKey,
        config: LogConfig,
    ) -> Result<LogSlot, Fatal> {
        let slot = self.create(key, config);
        let Some((log, core)) = self.log_and_core(slot) else { return Ok(slot) };
        let opened = opening::open(log, core, source);
        if opened.is_err() {
            self.logs[slot.index as usize].log = None;
            self.free.push(slot.index);
        }
        opened.map(|()| slot)
    }

    /// A new log. Its directory and first segment are made at the first append.
    pub fn create(&mut self, key: PartitionKey, config: LogConfig) -> LogSlot {
        let index = self.free.pop().unwrap_or_else(|| {
            self.logs.push(Slot::default());
            self.logs.len() as u32 - 1
        });
        let place = &mut self.logs[index as usize];
        let slot = LogSlot { index, generation: place.generation };
        let mut log = Log::new(slot, key, config, &self.core);
        if self.core.stopping {
            // Nothing is appended any more: the stop has nothing to do for it.
            log.stop = partition::Stop::Stopped;
        }
        place.log = Some(Box::new(log));
        slot
    }

    /// Forgets the log and removes its files; [`Event::Deleted`] follows. The slot is dead at once.
    pub fn delete(&mut self, slot: LogSlot) {
        if let Some((log, core)) = self.log_and_core(slot) {
            log.deleting = true;
            if core.stopping {
                log.leave_stop(core);
            }
            mark_todo(log, core);
        }
    }

    /// Stages one record batch (magic 2, header and CRC already checked) at the log's end: assigns offsets and leader epoch.
    pub fn append(
        &mut self,
        slot: LogSlot,
        batch: &[u8],
        pool: &mut Pool,
        now: Mono,
        wall_ms: i64,
    ) -> Result<Appended, NotAppended> {
        self.core.set_time(now, wall_ms);
        self.append_one(slot, batch, pool)
    }

    /// Stages batches that have offsets and leader epochs already (replication); the first must stand at the log's end. Returns the log end.
    /// After an error the batches before the refused one are appended.
    pub fn append_at(
        &mut self,
        slot: LogSlot,
        batches: &[u8],
        pool: &mut Pool,
        now: Mono,
        wall_ms: i64,
    ) -> Result<Offset, NotAppended> {
        self.core.set_time(now, wall_ms);
        self.append_given(slot, batches, pool)
    }

    /// Drops the batches that end behind `offset`: the next segment's header says that its predecessor ends there. For replication. Appends are
    /// refused with `NotLeaderOrFollower` until that is done, which [`Bounds::log_end`] shows; a crash before leaves the log as it was.
    pub fn truncate_to(&mut self, slot: LogSlot, offset: Offset) -> Result<(), Refused> {
        self.begin_truncation(slot, offset)
    }

    /// How to read `request`. Pure memory work.
    pub fn plan_read(&mut self, slot: LogSlot, request: ReadRequest) -> ReadPlan {
        self.plan(slot, request)
    }

    /// Checks and cuts what a [`ColdRead`] brought: one block per length, each filled with the bytes that were read. To be called for
    /// every `ColdRead`, also with the error of a failed one (or [`Store::drop_read`]): it holds its file open. Fewer blocks than lengths are
    /// as good: a prefix.
    pub fn finish_read(&mut self, read: ColdRead, blocks: Result<Vec<Block>, Errno>) -> ReadPlan {
        self.finish(read, blocks)
    }

    /// Gives up a [`ColdRead`] whose reads were not made, or whose answer nobody wants.
    pub fn drop_read(&mut self, read: ColdRead) {
        self.unpin(&read);
    }

    /// A block for a cold read: free, or evicted from the tail cache. None: grow the pool, or wait.
    pub fn take_block(&mut self, pool: &mut Pool) -> Option<Block> {
        self.take(pool)
    }

    /// Whether `bytes` of batches for `parts` logs could be staged now. Sets the blocks aside, evicting from the tail cache if need be.
    pub fn room_for(&mut self, pool: &mut Pool, bytes: usize, parts: usize) -> bool {
        // Never more than a quarter of the pool, or a request with many parts could wait for ever.
        let blocks = (bytes.div_ceil(BLOCK_BYTES) + parts).min(pool.blocks_max().div_ceil(4));
        self.reserve(blocks, pool)
    }

    /// For ListOffsets: an offset at or before the first record whose timestamp is at least `timestamp_ms`, to walk on from; none if no
    /// batch claims such a timestamp. Headers of compressed batches may claim too much, so the walk may have to pass several.
    pub fn timestamp_start(&mut self, slot: LogSlot, timestamp_ms: i64) -> Option<Offset> {
        self.time_start(slot, timestamp_ms)
    }

    /// For ListOffsets -3: base offset of the batch that claims the largest timestamp; none for an empty log.
    pub fn max_timestamp_start(&mut self, slot: LogSlot) -> Option<Offset> {
        self.max_time_start(slot)
    }

    /// The leader epoch under which the record at `offset` was or will be appended.
    pub fn epoch_at(&self, slot: LogSlot, offset: Offset) -> LeaderEpoch {
        self.log(slot).map_or(LeaderEpoch::NONE, |log| log.epoch_at(offset))
    }

    /// The largest epoch that is at most `epoch`, and where it ends; (-1, -1) if there is none (OffsetForLeaderEpoch).
    pub fn epoch_end(&self, slot: LogSlot, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
        self.log(slot).map_or((LeaderEpoch::NONE, Offset(-1)), |log| log.epoch_end(epoch))
    }

    /// When the record before `next_offset` was written, if that is known: for stamps, not for acks. Asked with ascending offsets.
    pub fn pass_mark(&mut self, slot: LogSlot, next_offset: Offset) -> Option<Mark> {
        self.log_and_core(slot).and_then(|(log, _)| log.marks.pass(next_offset))
    }

    /// The offsets of the log; all zero for a log that was deleted.
    pub fn bounds(&self, slot: LogSlot) -> Bounds {
        self.log(slot).map_or(NO_BOUNDS, Log::bounds)
    }

    pub fn set_config(&mut self, slot: LogSlot, config: LogConfig) {
        if let Some((log, core)) = self.log_and_core(slot) {
            log.config = config;
            // A level that waits for more than the one before: what it left behind is flushed now.
            log.flush_now |= !log.is_flushed();
            flow::progress(log, core);
            mark_todo(log, core);
        }
    }

    /// Raises the log start (DeleteRecords), at most to the high watermark; [`Event::LogStart`] when that is on disk. Nothing happens where the
    /// log starts there already.
    pub fn set_log_start(&mut self, slot: LogSlot, offset: Offset) -> Result<(), Refused> {
        let (log, core) = self.log_and_core(slot).ok_or(Refused::UnknownTopicOrPartition)?;
        if core.is_dead() || log.read_only {
            return Err(Refused::KafkaStorageError);
        }
        if offset > log.high_watermark {
            return Err(Refused::OffsetOutOfRange);
        }
        if log.truncation.is_some() {
            // It might begin behind its end.
            return Err(Refused::NotLeaderOrFollower);
        }
        log.raise_log_start(core, offset);
        Ok(())
    }

    /// Once per turn of the shard, behind its appends: commits what is staged, and starts background work that is due.
    pub fn turn(&mut self, now: Mono, wall_ms: i64, pool: &mut Pool, ops: &mut Ops) {
        self.core.set_time(now, wall_ms);
        self.close_orphans(ops);
        self.relieve(pool);
        self.background(pool, ops);
        self.commit(ops);
    }

    /// A completion of one of the store's operations.
    pub fn done(&mut self, tag: Tag, done: Done, now: Mono, ops: &mut Ops) {
        self.core.now = self.core.now.max(now);
        match self.core.pending.take(tag) {
            Some(Pending::Write(write)) => self.write_done(write, done, ops),
            Some(Pending::Flush { round, flush, attempts }) => {
                self.flush_done((round, flush, attempts), &done, ops);
            }
            Some(Pending::Job { job, write }) => self.job_done(job, write, done, ops),
            Some(Pending::Search { log, at }) => self.search_done(log, at, done),
            Some(Pending::Close) => {}
            None => debug_assert!(false, "a completion without an operation"),
        }
    }

    /// Moves what happened since the last call to the end of `out`.
    pub fn events(&mut self, out: &mut Vec<Event>) {
        self.core.tell_death();
        out.append(&mut self.core.events);
    }

    /// When [`Store::turn`] is to be called at the latest, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.core.next_deadline(!self.logs.is_empty())
    }

    /// Refuses appends from now on, flushes everything and writes clean-stop records; [`Event::Stopped`] follows.
    pub fn begin_stop(&mut self) {
        self.stop();
    }

    /// Something else than a log of this store failed to write to the directory, or to flush it.
    pub fn die(&mut self, why: String) {
        self.core.die(why);
    }

    /// Appends to some log wait for space.
    pub fn waits_for_space(&self) -> bool {
        !self.core.no_space.is_empty()
    }

    /// Free bytes of the data directory's file system, as the shard last saw them. True if that is too little.
    pub fn set_disk_free(&mut self, bytes: u64) -> bool {
        self.core.disk_low = bytes < self.core.config.free_bytes_min;
        self.core.disk_low
    }

    /// Commit, flush and tail counters; the shard adds them to its own.
    pub fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// What opening the logs met: rows of the decision table, bytes that had to be read.
    pub fn opened(&self) -> &Totals {
        &self.core.opened
    }

    pub fn describe(&self, slot: LogSlot) -> Description {
        self.log(slot).map(Log::describe).unwrap_or_default()
    }

    fn log(&self, slot: LogSlot) -> Option<&Log> {
        let place = self.logs.get(slot.index as usize).filter(|p| p.generation == slot.generation)?;
        place.log.as_deref().filter(|log| !log.deleting)
    }

    fn log_and_core(&mut self, slot: LogSlot) -> Option<(&mut Log, &mut Core)> {
        let place = self.logs.get_mut(slot.index as usize).filter(|p| p.generation == slot.generation)?;
        let log = place.log.as_deref_mut().filter(|log| !log.deleting)?;
        Some((log, &mut self.core))
    }
}

const NO_BOUNDS: Bounds = Bounds {
    log_start: LogStart(Offset::ZERO),
    log_end: LogEnd(Offset::ZERO),
    durable: Durable(Offset::ZERO),
    high_watermark: HighWatermark(Offset::ZERO),
    last_stable: LastStable(Offset::ZERO),
    leader_epoch: LeaderEpoch::NONE,
};
