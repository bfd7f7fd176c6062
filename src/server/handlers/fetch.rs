//! Fetch (key 1), versions 4-18: a long poll for record batches.
//!
//! Whole batches only, the one that contains the asked offset included; at least one batch over any limit, from the first partition that
//! has records. Waits until `min_bytes` or `max_wait`; an error, a diverging epoch or an unknown partition answers at once.
//! Record bytes leave in the memory that they were staged in or read into, until what peers have not taken keeps a quarter of a shard's
//! blocks: from then on they are copied, and while connections hold all that they may, a large answer has none and says how long to wait.
//!
//! Differs from Apache Kafka: no fetch sessions yet, so every response says session 0 (which is always legal) and an incremental
//! request is told FETCH_SESSION_ID_NOT_FOUND; a batch is never cut at the end of a response; fetches that claim to be a
//! follower (`replica_id` >= 0) are refused with NOT_LEADER_OR_FOLLOWER, because nothing replicates from here yet.

use super::asked::Asked;
use super::{Handled, Metadata, PARSED_PARTITIONS_KEPT, Request, error_code};
use crate::base::error::Refused;
use crate::base::few::Few;
use crate::base::ids::{LeaderEpoch, PartitionIndex};
use crate::base::limits::SEND_GATHER_BYTES;
use crate::base::metrics::Path;
use crate::base::offset::Offset;
use crate::io::SendPart;
use crate::io::buffer::BlockSlice;
use crate::router::message::{Fetch, FetchOutcome, FetchPart, Message};
use crate::server::buffers::Buffers;
use crate::server::pending::{Encoded, Pending, RecordBytes};
use crate::wire::error::{WireError, code};
use crate::wire::fetch::{
    DivergingEpoch, FetchRequest, FetchResponseHead, FetchResponseWriter, FetchedPartition, READ_COMMITTED,
};
use crate::wire::topics::TopicRef;

/// First version with sessions, and so with an error for the whole response.
const SESSIONS_FROM: i16 = 7;

/// Session epochs that ask for none: -1 for sessionless, 0 for a new one, which we may decline.
const EPOCH_FINAL: i32 = -1;
const EPOCH_INITIAL: i32 = 0;

/// How long a client is asked to wait where there is neither a block to lend it nor memory for a copy.
const PUT_OFF_MS: u64 = 100;

/// What an answer may have copied even then: who takes what he is sent goes on, if slowly.
const COPIED_BYTES_WHILE_SHORT_MAX: usize = 64 * 1024;

pub struct Waiting {
    version: i16,
    correlation_id: i32,
    read_committed: bool,
    asked: Asked,
}

pub fn handle(request: &mut Request<'_, '_>, meta: &mut Metadata) -> Result<Handled, WireError> {
    let mut body = std::mem::take(&mut request.scratch.fetch);
    body.parse(request.frame, &request.header)?;
    let incremental =
        body.version >= SESSIONS_FROM && !matches!(body.session_epoch, EPOCH_FINAL | EPOCH_INITIAL);
    if incremental {
        return Ok(Handled::Encoded(refuse_session(&body, request.header.correlation_id)));
    }
    let (fetch, waiting) = split(request, &body, meta);
    if body.partitions.capacity().max(body.forgotten_partitions.capacity()) <= PARSED_PARTITIONS_KEPT {
        request.scratch.fetch = body;
    }
    request.parsed(Path::Fetch);
    request.ask(&meta.image, Message::Fetch(fetch));
    Ok(Handled::Wait(Pending::Fetch(waiting)))
}

/// What the shard is asked, and what stays behind for the response.
fn split(request: &mut Request<'_, '_>, body: &FetchRequest, meta: &Metadata) -> (Fetch, Waiting) {
    let frame = request.frame;
    let names = request.scratch.buffers.take();
    let mut asked = Asked::new(names, body.topics.len(), body.partitions.len());
    let mut parts = Few::with_capacity(body.partitions.len());
    for topic in &body.topics {
        let found = match topic.topic {
            TopicRef::Name(span) => meta.topic_by_name(span.text(frame)),
            TopicRef::Id(id) => meta.topic_by_id(id),
        };
        for partition in &body.partitions[topic.range()] {
            let key = match &found {
                _ if body.replica_id >= 0 => Err(Refused::NotLeaderOrFollower),
                Err(error) => Err(*error),
                Ok(topic) => topic.partition(PartitionIndex(partition.index)),
            };
            asked.part(partition.index, key.err());
            if let Ok(key) = key {
                parts.push(FetchPart {
                    key,
                    from: Offset(partition.fetch_offset),
                    bytes_max: partition.max_bytes,
                    current_epoch: LeaderEpoch(partition.current_leader_epoch),
                    last_fetched_epoch: LeaderEpoch(partition.last_fetched_epoch),
                });
            }
        }
        asked.topic(topic, frame, topic.range().len());
    }
    let read_committed = body.isolation_level == READ_COMMITTED;
    let max_bytes = body.max_bytes.min(request.config.fetch_bytes_max);
    let fetch = Fetch {
        ticket: request.ticket,
        max_wait_ms: body.max_wait_ms,
        // More than an answer may have would never come.
        min_bytes: body.min_bytes.min(max_bytes),
        max_bytes,
        read_committed,
        at_once: asked.any_refused(),
        parts,
    };
    let correlation_id = request.header.correlation_id;
    (fetch, Waiting { version: body.version, correlation_id, read_committed, asked })
}

fn refuse_session(body: &FetchRequest, correlation_id: i32) -> Encoded {
    let mut out = Vec::with_capacity(32);
    let head = FetchResponseHead {
        correlation_id,
        throttle_time_ms: 0,
        error_code: code(Refused::FetchSessionIdNotFound),
        session_id: 0,
    };
    FetchResponseWriter::begin(&mut out, body.version, &head, 0).finish(&[]);
    Encoded::bytes(out)
}

impl Waiting {
    pub fn parts(&self) -> usize {
        self.asked.parts()
    }

    pub fn answer(self, mut outcomes: Few<FetchOutcome>, short: bool, buffers: &mut Buffers) -> Encoded {
        let put_off = short && copied_bytes(&outcomes) > COPIED_BYTES_WHILE_SHORT_MAX;
        if put_off {
            outcomes.iter_mut().for_each(|outcome| outcome.records = Default::default());
        }
        let mut outcomes = outcomes.into_iter();
        let mut out = buffers.take();
        let head = FetchResponseHead {
            correlation_id: self.correlation_id,
            throttle_time_ms: if put_off { PUT_OFF_MS as i32 } else { 0 },
            error_code: 0,
            session_id: 0,
        };
        let mut writer = FetchResponseWriter::begin(&mut out, self.version, &head, self.asked.topics());
        let mut records: Few<(usize, Vec<BlockSlice>)> = Few::default();
        let mut parts = self.asked.each_part();
        for (topic, partitions) in self.asked.each_topic() {
            writer.topic(topic, partitions);
            for part in parts.by_ref().take(partitions) {
                let outcome = match part.refused {
                    Some(error) => FetchOutcome::refused(error),
                    None => {
                        outcomes.next().unwrap_or_else(|| FetchOutcome::refused(Refused::UnknownServerError))
                    }
                };
                let gap = writer.partition(&self.partition(part.index, &outcome), outcome.records.bytes);
                if !outcome.records.parts.is_empty() {
                    records.push((gap, outcome.records.parts));
                }
            }
        }
        writer.finish(&[]);
        drop(parts);
        self.asked.recycle(buffers);
        if records.is_empty() {
            return Encoded { mute_ms: put_off.then_some(PUT_OFF_MS), ..Encoded::bytes(out) };
        }
        let (parts, records) = weave(&out, records, buffers);
        buffers.give(out);
        Encoded { parts: Some(parts), close: false, mute_ms: None, records }
    }

    fn partition(&self, index: i32, outcome: &FetchOutcome) -> FetchedPartition<'static> {
        FetchedPartition {
            high_watermark: outcome.high_watermark.get().0,
            last_stable_offset: outcome.last_stable.get().0,
            log_start_offset: outcome.log_start.get().0,
            diverging_epoch: outcome
                .diverging
                .map(|(epoch, end)| DivergingEpoch { epoch: epoch.0, end_offset: end.0 }),
            // As Kafka: an empty list also for what it never looked up.
            aborted_transactions: (self.read_committed || never_looked_up(outcome.error)).then_some(&[][..]),
            ..FetchedPartition::refused(index, error_code(outcome.error))
        }
    }
}

fn never_looked_up(error: Option<Refused>) -> bool {
    matches!(error, Some(Refused::UnknownTopicOrPartition | Refused::UnknownTopicId))
}

/// Record bytes that would be copied because they may not be lent.
fn copied_bytes(outcomes: &Few<FetchOutcome>) -> usize {
    let slices = outcomes.iter().flat_map(|outcome| &outcome.records.parts);
    slices.filter(|slice| !slice.may_be_lent()).map(|slice| slice.len()).sum()
}

/// Puts the records between the metadata. Runs that are too small to be worth a part of their own are copied, and those that may not be
/// lent; returns how many record bytes there are and were. There may be more parts than one system call takes: what is left over goes with the next.
fn weave(
    out: &[u8],
    records: Few<(usize, Vec<BlockSlice>)>,
    buffers: &mut Buffers,
) -> (Few<SendPart>, RecordBytes) {
    let mut parts = Few::default();
    let mut small = buffers.take();
    let mut at = 0;
    let mut bytes = RecordBytes::default();
    for (gap, slices) in records {
        small.extend_from_slice(&out[at..gap]);
        at = gap;
        for slice in slices {
            bytes.sent += slice.len() as u64;
            let slice = match slice.len() < SEND_GATHER_BYTES {
                true => Err(slice),
                false => slice.lend(),
            };
            match slice {
                Err(slice) => {
                    bytes.copied += slice.len() as u64;
                    small.extend_from_slice(&slice);
                }
                Ok(lent) => {
                    if !small.is_empty() {
                        parts.push(SendPart::Bytes(std::mem::replace(&mut small, buffers.take())));
                    }
                    parts.push(SendPart::Block(lent));
                }
            }
        }
    }
    small.extend_from_slice(&out[at..]);
    match small.is_empty() {
        true => buffers.give(small),
        false => parts.push(SendPart::Bytes(small)),
    }
    (parts, bytes)
}
