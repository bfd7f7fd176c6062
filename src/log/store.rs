//! The logs of one shard: a plain state machine over the io seam. It takes appends, read requests, completions and time, and emits
//! operations and events. It runs no loop, answers no client and draws nothing random.
//!
//! One turn of a shard calls, in this order: [`Store::done`] for each completion that carries a token of the store, any number of
//! [`Store::append`] and [`Store::plan_read`], then [`Store::turn`], which asks the commit planner for the next round and
//! starts background work; then it pushes the emitted ops and reads the [`Event`]s.

use std::path::PathBuf;

use crate::base::error::{Corrupt, Fatal, Refused};
use crate::base::ids::{LeaderEpoch, PartitionKey, ProducerEpoch, ProducerId, Uuid};
use crate::base::offset::{Durable, HighWatermark, LastStable, LogEnd, LogStart, Offset};
use crate::io::buffer::{Block, BlockSlice, Pool};
use crate::io::{Done, FileId, Mono, Op, StorageCaps};

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
    /// `log.flush.mode`: false flushes each file by itself even where one flush would do.
    pub shared_flush: bool,
    /// Below this many free bytes appends are refused with `KafkaStorageError`.
    pub free_bytes_min: u64,
    /// Bytes of blocks that the tail cache may keep.
    pub tail_cache_bytes: usize,
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
    /// The new log start is on disk: DeleteRecords may answer.
    LogStart(LogSlot),
    /// The directory of a deleted partition is gone from disk.
    Deleted(PartitionKey),
    /// Reads of this log stop at `Corrupt::position`; the rest of the broker goes on.
    Corrupt(LogSlot, Corrupt),
    /// A write or a flush failed: no ack leaves this log directory any more. Final until a restart.
    Dead(String),
    /// Everything that was appended is flushed and every log has a clean-stop record.
    Stopped,
}

/// The start of recovery and tools: blocking reads through the seam.
pub trait Source {
    fn list(&mut self, dir: &std::path::Path) -> Result<Vec<crate::io::DirEntry>, crate::io::Errno>;
    fn open(&mut self, path: &std::path::Path, mode: crate::io::OpenMode) -> Result<FileId, crate::io::Errno>;
    fn close(&mut self, file: FileId);
    /// Reads up to `len` bytes (at most one block) at `position`; fewer at the end of the file.
    fn read(&mut self, file: FileId, position: u64, len: usize) -> Result<Block, crate::io::Errno>;
    /// Runs one operation of recovery's decision (seal, rename, directory sync) to its end.
    fn run(&mut self, op: Op) -> Result<(), crate::io::Errno>;
    /// A version 4 uuid.
    fn uuid(&mut self) -> Uuid;
    fn wall_ms(&self) -> i64;
}
