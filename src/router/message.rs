//! The closed enum of what a connection's shard asks of a partition's shard, and of the answers.
//!
//! Every request carries a [`Ticket`]; every ticket gets exactly one [`Reply`], except where the request says that none is wanted. Parts
//! of a request are answered in the order in which they were asked, one outcome each.

use crate::base::error::Refused;
use crate::base::few::Few;
use crate::base::ids::{LeaderEpoch, PartitionKey, ShardId};
use crate::base::metrics::Stamps;
use crate::base::offset::{HighWatermark, LastStable, LogStart, Offset};
use crate::log::store::{LogConfig, Records};

/// Where an answer belongs: a request of a connection. The sequence is never used twice on one connection slot's generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// Shard of the connection.
    pub shard: ShardId,
    pub conn: u32,
    pub generation: u32,
    pub sequence: u64,
}

/// What is asked of an owner.
pub enum Message<'a> {
    Produce(Produce<'a>),
    Fetch(Fetch),
    ListOffsets(ListOffsets),
    EpochEnds(EpochEnds),
    DeleteRecords(DeleteRecords),
    /// The connection is gone: drop what it waits for.
    Forget {
        shard: ShardId,
        conn: u32,
        generation: u32,
    },
    /// The peer sends no more, and is perhaps gone: answer its long polls with what there is.
    Hurry {
        shard: ShardId,
        conn: u32,
        generation: u32,
    },
}

/// Records for partitions of one owner.
pub struct Produce<'a> {
    pub ticket: Ticket,
    /// Version of the request: zstd is refused below 7.
    pub version: i16,
    /// 0, 1 or -1, checked by the server.
    pub acks: i16,
    pub timeout_ms: i32,
    pub parts: Few<ProducePart<'a>>,
}

pub struct ProducePart<'a> {
    pub key: PartitionKey,
    /// What stands in the records field; empty for null.
    pub records: &'a [u8],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceOutcome {
    pub error: Option<Refused>,
    pub base_offset: i64,
    pub append_time_ms: i64,
    pub log_start: i64,
    /// Kafka's text for the error, where clients show it.
    pub message: Option<&'static str>,
    /// Index within the batch of the record to blame.
    pub record: Option<i32>,
}

impl ProduceOutcome {
    pub fn refused(error: Refused, message: Option<&'static str>) -> ProduceOutcome {
        ProduceOutcome {
            error: Some(error),
            base_offset: -1,
            append_time_ms: -1,
            log_start: -1,
            message,
            record: None,
        }
    }
}

/// One long poll on partitions of one owner.
pub struct Fetch {
    pub ticket: Ticket,
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub read_committed: bool,
    /// Something of the request is answered already (an unknown partition), so the rest must not wait.
    pub at_once: bool,
    pub parts: Few<FetchPart>,
}

#[derive(Clone, Copy, Debug)]
pub struct FetchPart {
    pub key: PartitionKey,
    pub from: Offset,
    pub bytes_max: i32,
    /// The epoch that the client believes in, -1 to skip the check.
    pub current_epoch: LeaderEpoch,
    /// The epoch of the last record it has, -1 to skip the check.
    pub last_fetched_epoch: LeaderEpoch,
}

pub struct FetchOutcome {
    pub error: Option<Refused>,
    pub high_watermark: HighWatermark,
    pub last_stable: LastStable,
    pub log_start: LogStart,
    /// The log of the client and ours part at the end of this epoch.
    pub diverging: Option<(LeaderEpoch, Offset)>,
    pub records: Records,
}

impl FetchOutcome {
    pub fn refused(error: Refused) -> FetchOutcome {
        FetchOutcome {
            error: Some(error),
            high_watermark: HighWatermark(Offset(-1)),
            last_stable: LastStable(Offset(-1)),
            log_start: LogStart(Offset(-1)),
            diverging: None,
            records: Records::default(),
        }
    }
}

/// Kafka's ListOffsets for partitions of one owner.
pub struct ListOffsets {
    pub ticket: Ticket,
    pub read_committed: bool,
    pub parts: Vec<ListOffsetsPart>,
}

#[derive(Clone, Copy, Debug)]
pub struct ListOffsetsPart {
    pub key: PartitionKey,
    pub current_epoch: LeaderEpoch,
    /// Milliseconds, or one of Kafka's negative specials.
    pub timestamp: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetOutcome {
    pub error: Option<Refused>,
    pub offset: i64,
    pub timestamp: i64,
    pub leader_epoch: LeaderEpoch,
}

impl OffsetOutcome {
    pub fn refused(error: Refused) -> OffsetOutcome {
        OffsetOutcome { error: Some(error), ..OffsetOutcome::NONE }
    }

    /// No such record.
    pub const NONE: OffsetOutcome =
        OffsetOutcome { error: None, offset: -1, timestamp: -1, leader_epoch: LeaderEpoch::NONE };
}

/// OffsetForLeaderEpoch for partitions of one owner.
pub struct EpochEnds {
    pub ticket: Ticket,
    pub parts: Vec<EpochEndPart>,
}

#[derive(Clone, Copy, Debug)]
pub struct EpochEndPart {
    pub key: PartitionKey,
    pub current_epoch: LeaderEpoch,
    pub epoch: LeaderEpoch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEndOutcome {
    pub error: Option<Refused>,
    pub epoch: LeaderEpoch,
    pub end: i64,
}

/// DeleteRecords for partitions of one owner.
pub struct DeleteRecords {
    pub ticket: Ticket,
    pub timeout_ms: i32,
    pub parts: Vec<DeleteRecordsPart>,
}

#[derive(Clone, Copy, Debug)]
pub struct DeleteRecordsPart {
    pub key: PartitionKey,
    /// New log start, -1 for the high watermark.
    pub offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteRecordsOutcome {
    pub error: Option<Refused>,
    pub low_watermark: i64,
}

/// An answer. Exactly one for each ticket.
pub struct Reply {
    pub ticket: Ticket,
    pub body: ReplyBody,
    /// What the owner stamped.
    pub stamps: Stamps,
}

pub enum ReplyBody {
    Produce(Few<ProduceOutcome>),
    Fetch(Few<FetchOutcome>),
    ListOffsets(Vec<OffsetOutcome>),
    EpochEnds(Vec<EpochEndOutcome>),
    DeleteRecords(Vec<DeleteRecordsOutcome>),
    /// A response frame of the controller's shard; none where the connection must close.
    Frame(Option<Vec<u8>>),
}

/// What an owner must know of a partition, from the topic's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRules {
    pub log: LogConfig,
    pub max_message_bytes: i32,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    /// `cleanup.policy` contains `compact`: records need keys.
    pub compact: bool,
    /// `validate.deep`: walk compressed batches too.
    pub deep: bool,
}
