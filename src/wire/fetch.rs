//! Hot path. Fetch, versions 4-18: requests are parsed in place; a response is metadata in one buffer with gaps, into which the
//! caller sends record bytes from wherever they lie.
//!
//! What changed when: 5 log start, 7 sessions, 9 leader epoch, 11 rack and preferred replica, 12 flexible and last fetched epoch,
//! 13 topics by id, 15 replica id in a tag, 16 endpoints in responses, 17 and 18 tags of followers.

use crate::wire::api::ApiKey;
use crate::wire::error::{WireError, codes};
use crate::wire::frame::{self, RequestHeader};
use crate::wire::primitive::{Reader, Span, put_length, put_no_tags, put_null};
use crate::wire::topics::{
    CurrentLeader, NodeEndpoint, Topic, TopicKey, put_endpoints, put_leader, put_topic, read_topics,
};

const FIRST_WITH_LOG_START: i16 = 5;
const FIRST_WITH_SESSIONS: i16 = 7;
const FIRST_WITH_LEADER_EPOCH: i16 = 9;
const FIRST_WITH_RACK: i16 = 11;
const FIRST_WITH_LAST_FETCHED_EPOCH: i16 = 12;
const FIRST_WITH_REPLICA_STATE: i16 = 15;
const FIRST_WITH_ENDPOINTS: i16 = 16;

const TAG_CLUSTER_ID: u32 = 0;
const TAG_REPLICA_STATE: u32 = 1;

/// Isolation level that hides what is undecided or aborted.
pub const READ_COMMITTED: i8 = 1;

/// A Fetch request. Keep one and parse into it again: its lists keep their memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchRequest {
    pub version: i16,
    /// -1 for a consumer. A follower's requests are not ours to serve on a client listener.
    pub replica_id: i32,
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    /// 0, or `READ_COMMITTED`.
    pub isolation_level: i8,
    /// 0 and -1 below version 7: no session.
    pub session_id: i32,
    pub session_epoch: i32,
    /// In the order of the request; each names its part of `partitions`.
    pub topics: Vec<Topic>,
    pub partitions: Vec<FetchPartition>,
    /// What leaves the session; each names its part of `forgotten_partitions`.
    pub forgotten_topics: Vec<Topic>,
    pub forgotten_partitions: Vec<i32>,
    /// "" or absent: no rack.
    pub rack: Option<Span>,
    /// Version 12+.
    pub cluster_id: Option<Span>,
}

/// One partition of a Fetch request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPartition {
    pub index: i32,
    /// Version 9+; -1 = do not check.
    pub current_leader_epoch: i32,
    pub fetch_offset: i64,
    /// Version 12+; -1 = do not check.
    pub last_fetched_epoch: i32,
    /// Version 5+, of followers; -1 = none.
    pub log_start_offset: i64,
    pub max_bytes: i32,
}

impl FetchRequest {
    /// Parses the body of a frame whose header was parsed. After an error the lists hold what was read so far. Bytes behind the
    /// body are ignored, as in Kafka.
    pub fn parse(&mut self, frame: &[u8], header: &RequestHeader<'_>) -> Result<(), WireError> {
        let (version, flexible) = (header.version, header.is_flexible());
        let mut reader = Reader::at(frame, header.body_at);
        self.version = version;
        self.replica_id = if version < FIRST_WITH_REPLICA_STATE { reader.i32()? } else { -1 };
        self.max_wait_ms = reader.i32()?;
        self.min_bytes = reader.i32()?;
        self.max_bytes = reader.i32()?;
        self.isolation_level = reader.i8()?;
        let sessions = version >= FIRST_WITH_SESSIONS;
        (self.session_id, self.session_epoch) =
            if sessions { (reader.i32()?, reader.i32()?) } else { (0, -1) };
        let lists = (&mut self.topics, &mut self.partitions);
        read_topics(&mut reader, version, flexible, partition_bytes(version), lists, |reader| {
            read_partition(reader, version, flexible)
        })?;
        self.forgotten_topics.clear();
        self.forgotten_partitions.clear();
        if sessions {
            let lists = (&mut self.forgotten_topics, &mut self.forgotten_partitions);
            read_topics(&mut reader, version, flexible, 4, lists, |reader| reader.i32())?;
        }
        self.rack = if version >= FIRST_WITH_RACK { Some(reader.string_non_null(flexible)?) } else { None };
        self.cluster_id = None;
        reader.tags(flexible, |tag, reader| {
            match tag {
                TAG_CLUSTER_ID => self.cluster_id = reader.string(true)?,
                TAG_REPLICA_STATE if version >= FIRST_WITH_REPLICA_STATE => {
                    self.replica_id = reader.i32()?;
                    let _replica_epoch = reader.i64()?;
                    reader.skip_tags(true)?;
                }
                _ => {}
            }
            Ok(())
        })
    }
}

/// Fewest bytes of a partition in a request of this version.
const fn partition_bytes(version: i16) -> usize {
    let mut bytes = 16;
    if version >= FIRST_WITH_LOG_START {
        bytes += 8;
    }
    if version >= FIRST_WITH_LEADER_EPOCH {
        bytes += 4;
    }
    if version >= FIRST_WITH_LAST_FETCHED_EPOCH {
        bytes += 5;
    }
    bytes
}

fn read_partition(
    reader: &mut Reader<'_>,
    version: i16,
    flexible: bool,
) -> Result<FetchPartition, WireError> {
    let index = reader.i32()?;
    let current_leader_epoch = if version >= FIRST_WITH_LEADER_EPOCH { reader.i32()? } else { -1 };
    let fetch_offset = reader.i64()?;
    let last_fetched_epoch = if version >= FIRST_WITH_LAST_FETCHED_EPOCH { reader.i32()? } else { -1 };
    let log_start_offset = if version >= FIRST_WITH_LOG_START { reader.i64()? } else { -1 };
    let max_bytes = reader.i32()?;
    // Tags 0 (directory id) and 1 (high watermark) are for followers.
    reader.skip_tags(flexible)?;
    Ok(FetchPartition {
        index,
        current_leader_epoch,
        fetch_offset,
        last_fetched_epoch,
        log_start_offset,
        max_bytes,
    })
}

/// A transaction whose records a read_committed consumer has to skip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: i64,
    pub first_offset: i64,
}

/// Where a consumer's log and ours part (KIP-595): the largest epoch that both have, and its end here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DivergingEpoch {
    pub epoch: i32,
    pub end_offset: i64,
}

/// The metadata of one partition of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchedPartition<'a> {
    pub index: i32,
    pub error_code: i16,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    /// Version 5+.
    pub log_start_offset: i64,
    /// Version 12+.
    pub diverging_epoch: Option<DivergingEpoch>,
    /// Version 12+, with an error about the leader.
    pub current_leader: Option<CurrentLeader>,
    /// `None` goes out as null: the answer to read_uncommitted.
    pub aborted_transactions: Option<&'a [AbortedTransaction]>,
    /// Version 11+; -1 = this broker.
    pub preferred_read_replica: i32,
}

impl FetchedPartition<'static> {
    /// A partition that was not read: all offsets -1. As in Kafka, aborted transactions are an empty list where no log was found, and
    /// null after an error at the log (for read_uncommitted; set an empty list for read_committed).
    pub const fn refused(index: i32, error_code: i16) -> FetchedPartition<'static> {
        FetchedPartition {
            index,
            error_code,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging_epoch: None,
            current_leader: None,
            aborted_transactions: match error_code {
                codes::UNKNOWN_TOPIC_OR_PARTITION | codes::UNKNOWN_TOPIC_ID => Some(&[]),
                _ => None,
            },
            preferred_read_replica: -1,
        }
    }
}

/// The fields at the head of a response. Error and session go out from version 7 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchResponseHead {
    pub correlation_id: i32,
    pub throttle_time_ms: i32,
    pub error_code: i16,
    /// 0 = no session, which is a legal answer to anything.
    pub session_id: i32,
}

/// Writes a Fetch response frame around record bytes that stay where they are: `begin`, then per topic `topic` and as many
/// `partition`s as were announced, then `finish`. What is sent is `out` up to the first gap, the records of that partition, `out`
/// up to the next gap, and so on; the frame's length counts them all.
#[derive(Debug)]
pub struct FetchResponseWriter<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    version: i16,
    flexible: bool,
    in_topic: bool,
    records_bytes: usize,
}

impl<'o> FetchResponseWriter<'o> {
    /// Opens the frame at the end of `out`.
    pub fn begin(out: &'o mut Vec<u8>, version: i16, head: &FetchResponseHead, topics: usize) -> Self {
        let start = frame::begin_response(out, ApiKey::Fetch, version, head.correlation_id);
        let flexible = ApiKey::Fetch.is_flexible(version);
        out.extend_from_slice(&head.throttle_time_ms.to_be_bytes());
        if version >= FIRST_WITH_SESSIONS {
            out.extend_from_slice(&head.error_code.to_be_bytes());
            out.extend_from_slice(&head.session_id.to_be_bytes());
        }
        put_length(out, flexible, topics);
        FetchResponseWriter { out, start, version, flexible, in_topic: false, records_bytes: 0 }
    }

    /// Opens a topic of so many partitions.
    pub fn topic(&mut self, key: TopicKey<'_>, partitions: usize) {
        self.close_topic();
        put_topic(self.out, self.version, self.flexible, key, partitions);
        self.in_topic = true;
    }

    /// Adds a partition with `records_bytes` bytes of records. Returns its gap: the position in `out` at which those bytes are to be
    /// inserted on the way to the socket.
    pub fn partition(&mut self, partition: &FetchedPartition<'_>, records_bytes: usize) -> usize {
        let out = &mut *self.out;
        out.extend_from_slice(&partition.index.to_be_bytes());
        out.extend_from_slice(&partition.error_code.to_be_bytes());
        out.extend_from_slice(&partition.high_watermark.to_be_bytes());
        out.extend_from_slice(&partition.last_stable_offset.to_be_bytes());
        if self.version >= FIRST_WITH_LOG_START {
            out.extend_from_slice(&partition.log_start_offset.to_be_bytes());
        }
        match partition.aborted_transactions {
            None => put_null(out, self.flexible),
            Some(aborted) => {
                put_length(out, self.flexible, aborted.len());
                for transaction in aborted {
                    out.extend_from_slice(&transaction.producer_id.to_be_bytes());
                    out.extend_from_slice(&transaction.first_offset.to_be_bytes());
                    put_no_tags(out, self.flexible);
                }
            }
        }
        if self.version >= FIRST_WITH_RACK {
            out.extend_from_slice(&partition.preferred_read_replica.to_be_bytes());
        }
        // Never null: librdkafka fails on a length of -1.
        put_length(out, self.flexible, records_bytes);
        self.records_bytes += records_bytes;
        let gap = out.len();
        if self.flexible {
            put_partition_tags(out, partition);
        }
        gap
    }

    /// Closes the frame; returns its bytes on the wire, length prefix and records included. `endpoints` (version 16+) are those of
    /// all current leaders that were named.
    pub fn finish(mut self, endpoints: &[NodeEndpoint<'_>]) -> usize {
        self.close_topic();
        if self.version >= FIRST_WITH_ENDPOINTS {
            put_endpoints(self.out, endpoints);
        } else {
            put_no_tags(self.out, self.flexible);
        }
        frame::end_response(self.out, self.start, self.records_bytes);
        self.out.len() - self.start + self.records_bytes
    }

    fn close_topic(&mut self) {
        if self.in_topic {
            put_no_tags(self.out, self.flexible);
        }
    }
}

/// Tags 0 and 1 of a partition, ascending.
fn put_partition_tags(out: &mut Vec<u8>, partition: &FetchedPartition<'_>) {
    out.push(u8::from(partition.diverging_epoch.is_some()) + u8::from(partition.current_leader.is_some()));
    if let Some(diverging) = partition.diverging_epoch {
        // An i32, an i64 and an empty list of tags.
        out.extend_from_slice(&[0, 13]);
        out.extend_from_slice(&diverging.epoch.to_be_bytes());
        out.extend_from_slice(&diverging.end_offset.to_be_bytes());
        put_no_tags(out, true);
    }
    if let Some(leader) = partition.current_leader {
        put_leader(out, 1, leader);
    }
}
