//! Produce (key 0), advertised 0-13, served 3-13.
//!
//! Whole request: acks other than -1, 0, 1 is INVALID_REQUIRED_ACKS on every partition that exists; null records close the
//! connection. A partition that is named twice is appended once, from its last place, and answered once. Each partition is
//! checked and appended on its own; see `wire/batch/accept.rs` for the checks and their order. Transactional batches are refused with
//! TRANSACTIONAL_ID_AUTHORIZATION_FAILED until transactions are served.
//! acks=0 is answered by nothing, and any error closes the connection. acks=1 and acks=all wait for the topic's durability.
//!
//! Differs from Apache Kafka: acks=1 does not ack from memory; both levels mean what `durability` says.

use std::collections::{BTreeMap, BTreeSet};

use super::asked::Asked;
use super::{Handled, Metadata, PARSED_PARTITIONS_KEPT, Request, error_code};
use crate::base::error::Refused;
use crate::base::few::Few;
use crate::base::ids::PartitionIndex;
use crate::base::metrics::Path;
use crate::router::message::{Message, Produce, ProduceOutcome, ProducePart};
use crate::server::buffers::Buffers;
use crate::server::pending::{Encoded, Pending, RecordBytes};
use crate::wire::error::WireError;
use crate::wire::produce::{ProduceRequest, ProduceResponseWriter, ProducedPartition};
use crate::wire::topics::TopicRef;

/// What the response needs of the request.
pub struct Waiting {
    version: i16,
    correlation_id: i32,
    acks: i16,
    asked: Asked,
}

pub fn handle(request: &mut Request<'_, '_>, meta: &mut Metadata) -> Result<Handled, WireError> {
    let mut body = std::mem::take(&mut request.scratch.produce);
    body.parse(request.frame, &request.header)?;
    if body.has_null_records {
        return Err(WireError::Malformed { at: request.header.body_at, what: "null records" });
    }
    let (produce, waiting) = split(request, &body, meta);
    if body.partitions.capacity() <= PARSED_PARTITIONS_KEPT {
        request.scratch.produce = body;
    }
    request.parsed(Path::Produce);
    request.ask(&meta.image, Message::Produce(produce));
    Ok(Handled::Wait(Pending::Produce(waiting)))
}

/// What the shard is asked, and what stays behind for the response.
fn split<'a>(
    request: &mut Request<'a, '_>,
    body: &ProduceRequest,
    meta: &Metadata,
) -> (Produce<'a>, Waiting) {
    let frame = request.frame;
    let whole = (!(-1..=1).contains(&body.acks)).then_some(Refused::InvalidRequiredAcks);
    let superseded = superseded(body, frame);
    let names = request.scratch.buffers.take();
    let mut asked = Asked::new(names, body.topics.len(), body.partitions.len());
    let mut parts = Few::with_capacity(body.partitions.len());
    for topic in &body.topics {
        let found = match topic.topic {
            TopicRef::Name(span) => meta.topic_by_name(span.text(frame)),
            TopicRef::Id(id) => meta.topic_by_id(id),
        };
        let mut partitions = 0;
        for at in topic.range().filter(|at| !superseded.contains(at)) {
            let partition = &body.partitions[at];
            partitions += 1;
            let key = match &found {
                Ok(topic) => topic.partition(PartitionIndex(partition.index)),
                Err(error) => Err(*error),
            };
            let key = key.and_then(|key| whole.map_or(Ok(key), Err));
            asked.part(partition.index, key.err());
            if let Ok(key) = key {
                parts.push(ProducePart { key, records: partition.records.bytes(frame) });
            }
        }
        asked.topic(topic, frame, partitions);
    }
    let produce = Produce {
        ticket: request.ticket,
        version: body.version,
        acks: body.acks,
        timeout_ms: body.timeout_ms,
        parts,
    };
    let correlation_id = request.header.correlation_id;
    (produce, Waiting { version: body.version, correlation_id, acks: body.acks, asked })
}

/// Places of partitions that are named again further on.
fn superseded(body: &ProduceRequest, frame: &[u8]) -> BTreeSet<usize> {
    let mut last = BTreeMap::new();
    let mut superseded = BTreeSet::new();
    if body.partitions.len() < 2 {
        return superseded;
    }
    for topic in &body.topics {
        for at in topic.range() {
            let key = (topic.name(frame), topic.id(), body.partitions[at].index);
            superseded.extend(last.insert(key, at));
        }
    }
    superseded
}

impl Waiting {
    pub fn parts(&self) -> usize {
        self.asked.parts()
    }

    pub fn answer(self, outcomes: Few<ProduceOutcome>, buffers: &mut Buffers) -> Encoded {
        let mut outcomes = outcomes.into_iter();
        let mut parts = self.asked.each_part().map(|part| {
            let outcome = match part.refused {
                Some(error) => ProduceOutcome::refused(error, None),
                None => outcomes.next().unwrap_or(ProduceOutcome::refused(Refused::UnknownServerError, None)),
            };
            (part.index, outcome)
        });
        if self.acks == 0 {
            let close = parts.any(|(_, outcome)| outcome.error.is_some());
            return Encoded { parts: None, close, mute_ms: None, records: RecordBytes::default() };
        }
        let mut out = buffers.take();
        let topics = self.asked.topics();
        let mut writer = ProduceResponseWriter::begin(&mut out, self.version, self.correlation_id, topics);
        for (topic, partitions) in self.asked.each_topic() {
            writer.topic(topic, partitions);
            for (index, outcome) in parts.by_ref().take(partitions) {
                let blamed: Vec<_> =
                    outcome.records.iter().map(|(index, why)| (*index, Some(*why))).collect();
                writer.partition(&ProducedPartition {
                    index,
                    error_code: error_code(outcome.error),
                    base_offset: outcome.base_offset,
                    log_append_time_ms: outcome.append_time_ms,
                    log_start_offset: outcome.log_start,
                    record_errors: &blamed,
                    error_message: outcome.message,
                    current_leader: None,
                });
            }
        }
        writer.finish(0, &[]);
        drop(parts);
        self.asked.recycle(buffers);
        Encoded::bytes(out)
    }
}
