//! Hot path. Produce, versions 3-13: requests are parsed in place, responses are written into one buffer.
//!
//! What changed when: 7 zstd allowed, 8 record errors and messages in responses, 9 flexible, 10 current leader and endpoints in
//! responses, 13 topics by id.

use crate::wire::api::ApiKey;
use crate::wire::error::WireError;
use crate::wire::frame::{self, RequestHeader};
use crate::wire::primitive::{Reader, Span, put_length, put_no_tags, put_string};
use crate::wire::topics::{
    CurrentLeader, NodeEndpoint, Topic, TopicKey, put_endpoints, put_leader, put_topic, read_topics,
};

const FIRST_WITH_LOG_START: i16 = 5;
const FIRST_WITH_RECORD_ERRORS: i16 = 8;
const FIRST_WITH_LEADER: i16 = 10;

/// A Produce request. Keep one and parse into it again: its lists keep their memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProduceRequest {
    pub version: i16,
    pub transactional_id: Option<Span>,
    /// As sent: anything but -1, 0 and 1 is refused with INVALID_REQUIRED_ACKS for the whole request.
    pub acks: i16,
    pub timeout_ms: i32,
    /// In the order of the request; each names its part of `partitions`.
    pub topics: Vec<Topic>,
    pub partitions: Vec<ProducePartition>,
    /// Some partition's records are null, which Kafka answers by closing the connection.
    pub has_null_records: bool,
}

/// One partition of a Produce request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducePartition {
    pub index: i32,
    /// The record batches' bytes in the frame; empty also where they are null.
    pub records: Span,
}

impl ProduceRequest {
    /// Parses the body of a frame whose header was parsed. After an error the lists hold what was read so far. Bytes behind the
    /// body are ignored, as in Kafka.
    pub fn parse(&mut self, frame: &[u8], header: &RequestHeader<'_>) -> Result<(), WireError> {
        let flexible = header.is_flexible();
        let mut reader = Reader::at(frame, header.body_at);
        self.version = header.version;
        self.transactional_id = reader.string(flexible)?;
        self.acks = reader.i16()?;
        self.timeout_ms = reader.i32()?;
        let partition_bytes_min = if flexible { 6 } else { 8 };
        let lists = (&mut self.topics, &mut self.partitions);
        self.has_null_records = false;
        read_topics(&mut reader, header.version, flexible, partition_bytes_min, lists, |reader| {
            let index = reader.i32()?;
            let records = reader.bytes(flexible)?;
            self.has_null_records |= records.is_none();
            reader.skip_tags(flexible)?;
            Ok(ProducePartition { index, records: records.unwrap_or_default() })
        })?;
        reader.skip_tags(flexible)
    }
}

/// The outcome of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducedPartition<'a> {
    pub index: i32,
    pub error_code: i16,
    /// Offset of the first record; -1 with an error.
    pub base_offset: i64,
    /// Milliseconds, -1 unless the topic's timestamps are LogAppendTime.
    pub log_append_time_ms: i64,
    /// Version 5+; set with an error too, -1 if unknown.
    pub log_start_offset: i64,
    /// Version 8+: index within the batch, and why, of each record to blame.
    pub record_errors: &'a [(i32, Option<&'a str>)],
    /// Version 8+.
    pub error_message: Option<&'a str>,
    /// Version 10+, with NOT_LEADER_OR_FOLLOWER.
    pub current_leader: Option<CurrentLeader>,
}

/// Writes a Produce response frame: `begin`, then per topic `topic` and as many `partition`s as were announced, then `finish`.
#[derive(Debug)]
pub struct ProduceResponseWriter<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    version: i16,
    flexible: bool,
    in_topic: bool,
}

impl<'o> ProduceResponseWriter<'o> {
    /// Opens the frame at the end of `out`.
    pub fn begin(out: &'o mut Vec<u8>, version: i16, correlation_id: i32, topics: usize) -> Self {
        let start = frame::begin_response(out, ApiKey::Produce, version, correlation_id);
        let flexible = ApiKey::Produce.is_flexible(version);
        put_length(out, flexible, topics);
        ProduceResponseWriter { out, start, version, flexible, in_topic: false }
    }

    /// Opens a topic of so many partitions.
    pub fn topic(&mut self, key: TopicKey<'_>, partitions: usize) {
        self.close_topic();
        put_topic(self.out, self.version, self.flexible, key, partitions);
        self.in_topic = true;
    }

    /// Adds a partition to the topic.
    pub fn partition(&mut self, partition: &ProducedPartition<'_>) {
        let out = &mut *self.out;
        out.extend_from_slice(&partition.index.to_be_bytes());
        out.extend_from_slice(&partition.error_code.to_be_bytes());
        out.extend_from_slice(&partition.base_offset.to_be_bytes());
        out.extend_from_slice(&partition.log_append_time_ms.to_be_bytes());
        if self.version >= FIRST_WITH_LOG_START {
            out.extend_from_slice(&partition.log_start_offset.to_be_bytes());
        }
        if self.version >= FIRST_WITH_RECORD_ERRORS {
            put_length(out, self.flexible, partition.record_errors.len());
            for (index, message) in partition.record_errors {
                out.extend_from_slice(&index.to_be_bytes());
                put_string(out, self.flexible, *message);
                put_no_tags(out, self.flexible);
            }
            put_string(out, self.flexible, partition.error_message);
        }
        match partition.current_leader {
            Some(leader) if self.version >= FIRST_WITH_LEADER => {
                out.push(1);
                put_leader(out, 0, leader);
            }
            _ => put_no_tags(out, self.flexible),
        }
    }

    /// Closes the frame. `endpoints` (version 10+) are those of all current leaders that were named.
    pub fn finish(mut self, throttle_time_ms: i32, endpoints: &[NodeEndpoint<'_>]) {
        self.close_topic();
        self.out.extend_from_slice(&throttle_time_ms.to_be_bytes());
        if self.version >= FIRST_WITH_LEADER {
            put_endpoints(self.out, endpoints);
        } else {
            put_no_tags(self.out, self.flexible);
        }
        frame::end_response(self.out, self.start, 0);
    }

    fn close_topic(&mut self) {
        if self.in_topic {
            put_no_tags(self.out, self.flexible);
        }
    }
}
