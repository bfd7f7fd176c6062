//! ListOffsets (key 2), versions 1-10.
//!
//! -1 latest (high watermark, or last stable offset for read_committed), -2 and -4 log start, -3 the record with the largest timestamp,
//! -5 and -6 nothing (no tiering), a time: the first record at or after it, record precise also in compressed batches.
//! A partition listed twice is refused with INVALID_REQUEST, once.
//!
//! Differs from Apache Kafka: `timeout_ms` of version 10 concerns tiered reads only and is ignored.

use std::collections::{BTreeMap, BTreeSet};

use super::{Handled, Metadata, Request, error_code, respond};
use crate::base::error::Refused;
use crate::base::ids::LeaderEpoch;
use crate::router::message::{ListOffsets, ListOffsetsPart, Message, OffsetOutcome};
use crate::server::pending::{Encoded, Pending};
use crate::wire::error::WireError;
use crate::wire::msg::{self, ListOffsetsRequest, ListOffsetsResponse, list_offsets_response};

/// First version of a request with each special timestamp; below it the value is refused.
const MAX_TIMESTAMP_FROM: i16 = 7;
const EARLIEST_LOCAL_FROM: i16 = 8;
const LATEST_TIERED_FROM: i16 = 9;
const EARLIEST_PENDING_FROM: i16 = 11;

pub struct Waiting {
    version: i16,
    correlation_id: i32,
    request: ListOffsetsRequest,
    /// Per asked partition: refused by the server, or the next outcome of the shard.
    refused: Vec<Option<Refused>>,
}

pub fn handle(request: &mut Request<'_, '_>, meta: &mut Metadata) -> Result<Handled, WireError> {
    let (header, body) = msg::decode_request::<ListOffsetsRequest>(request.frame)?;
    let (version, correlation_id) = (header.version, header.correlation_id);
    let mut times_listed = BTreeMap::new();
    for topic in &body.topics {
        for partition in &topic.partitions {
            *times_listed.entry((topic.name.to_string(), partition.partition_index)).or_insert(0) += 1;
        }
    }
    let mut refused = Vec::new();
    let mut parts = Vec::new();
    for topic in &body.topics {
        for partition in &topic.partitions {
            let twice = times_listed[&(topic.name.to_string(), partition.partition_index)] > 1;
            let key = if twice {
                Err(Refused::InvalidRequest)
            } else if !timestamp_fits(partition.timestamp, version) {
                Err(Refused::UnsupportedVersion)
            } else {
                meta.partition(&topic.name, partition.partition_index)
            };
            match key {
                Err(error) => refused.push(Some(error)),
                Ok(key) => {
                    refused.push(None);
                    parts.push(ListOffsetsPart {
                        key,
                        current_epoch: LeaderEpoch(partition.current_leader_epoch),
                        timestamp: partition.timestamp,
                    });
                }
            }
        }
    }
    let list = ListOffsets { ticket: request.ticket, read_committed: body.isolation_level == 1, parts };
    request.ask(&meta.image, Message::ListOffsets(list));
    Ok(Handled::Wait(Pending::ListOffsets(Waiting { version, correlation_id, request: body, refused })))
}

fn timestamp_fits(timestamp: i64, version: i16) -> bool {
    match timestamp {
        ..=-7 => false,
        -3 => version >= MAX_TIMESTAMP_FROM,
        -4 => version >= EARLIEST_LOCAL_FROM,
        -5 => version >= LATEST_TIERED_FROM,
        -6 => version >= EARLIEST_PENDING_FROM,
        _ => true,
    }
}

impl Waiting {
    pub fn parts(&self) -> usize {
        self.refused.len()
    }

    pub fn answer(self, outcomes: &[OffsetOutcome]) -> Encoded {
        let mut outcomes = outcomes.iter();
        let mut refused = self.refused.iter();
        let mut response = ListOffsetsResponse::default();
        let mut answered = BTreeSet::new();
        for asked in &self.request.topics {
            let mut topic = list_offsets_response::ListOffsetsTopicResponse::default();
            topic.name = asked.name.clone();
            for partition in &asked.partitions {
                let outcome = match refused.next() {
                    Some(Some(error)) => OffsetOutcome::refused(*error),
                    _ => outcomes
                        .next()
                        .copied()
                        .unwrap_or(OffsetOutcome::refused(Refused::UnknownServerError)),
                };
                if !answered.insert((asked.name.to_string(), partition.partition_index)) {
                    continue;
                }
                let mut answer = list_offsets_response::ListOffsetsPartitionResponse::default();
                answer.partition_index = partition.partition_index;
                answer.error_code = error_code(outcome.error);
                answer.offset = outcome.offset;
                answer.timestamp = outcome.timestamp;
                if self.version >= 4 {
                    answer.leader_epoch = outcome.leader_epoch.0;
                }
                topic.partitions.push(answer);
            }
            if !topic.partitions.is_empty() || asked.partitions.is_empty() {
                response.topics.push(topic);
            }
        }
        respond::<ListOffsetsRequest>(self.correlation_id, self.version, &response)
    }
}
