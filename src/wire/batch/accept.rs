//! Hot path. What a produced batch must be before it is appended: the checks of one partition, in the order in which Kafka makes
//! them, so that a batch with two faults gets the error that Kafka's clients expect. Left to the log: the producer's sequence.
//!
//! The records themselves are walked where that is cheap (uncompressed) or needed (compacted topic); only the latter decompresses.

use crate::base::error::Refused;
use crate::wire::batch::{Batch, NO_TIMESTAMP, records};
use crate::wire::codec::Codec;

/// First Produce version that may carry zstd (KIP-110).
const PRODUCE_ZSTD: i16 = 7;

/// What a batch is held against: the request's version, the topic's configuration, the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    pub produce_version: i16,
    /// `max.message.bytes`: counts the whole batch.
    pub max_message_bytes: i32,
    pub segment_bytes: u64,
    /// `message.timestamp.before.max.ms`, looked at unless `log_append_time`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`, looked at unless `log_append_time`.
    pub timestamp_after_max_ms: i64,
    /// `message.timestamp.type` is LogAppendTime.
    pub log_append_time: bool,
    /// `cleanup.policy` has compact: each record needs a key.
    pub compact: bool,
    /// Wall clock, milliseconds since 1970.
    pub now_ms: i64,
}

/// Why a batch is not appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub error: Refused,
    /// For `error_message` of the partition (Produce 8+), in Kafka's words where tools show them.
    pub message: Option<&'static str>,
    /// Index within the batch of the one record that is to blame, for `record_errors` (Produce 8+).
    pub record: Option<i32>,
}

impl Refusal {
    fn new(error: Refused, message: &'static str) -> Refusal {
        Refusal { error, message: Some(message), record: None }
    }
}

/// Accepts the records field of one partition: exactly one sound batch, which is returned, or the first error in Kafka's order.
pub fn accept<'a>(bytes: &'a [u8], limits: &Accept) -> Result<Batch<'a>, Refusal> {
    let batch = only_batch(bytes)?;
    check_header(&batch, limits)?;
    let times = check_records(&batch, limits.compact)?;
    check_times(&batch, times, limits)?;
    if batch.size() as u64 > limits.segment_bytes {
        return Err(Refusal::new(
            Refused::RecordListTooLarge,
            "The record batch is larger than a log segment may be",
        ));
    }
    Ok(batch)
}

fn only_batch(bytes: &[u8]) -> Result<Batch<'_>, Refusal> {
    let none = "Produce requests with version 3 or higher must have at least one record batch";
    match Batch::first(bytes) {
        Ok((batch, [])) => Ok(batch),
        Ok(_) => Err(Refusal::new(
            Refused::InvalidRecord,
            "Produce requests with version 3 or higher are only allowed to contain exactly one record batch per partition",
        )),
        Err(Refused::InvalidRecord) => Err(Refusal::new(Refused::InvalidRecord, none)),
        Err(error) => Err(Refusal { error, message: None, record: None }),
    }
}

fn check_header(batch: &Batch<'_>, limits: &Accept) -> Result<(), Refusal> {
    match batch.codec() {
        Some(Codec::Zstd) if limits.produce_version < PRODUCE_ZSTD => {
            return Err(Refusal::new(
                Refused::UnsupportedCompressionType,
                "Produce requests with version 6 or lower are not allowed to use ZStandard compression",
            ));
        }
        None => return Err(Refusal::new(Refused::UnsupportedCompressionType, "Unknown compression type id")),
        Some(_) => {}
    }
    if batch.base_offset() != 0 {
        return Err(Refusal::new(Refused::InvalidRecord, "The baseOffset of the record batch should be 0"));
    }
    if batch.size() as i64 > i64::from(limits.max_message_bytes) {
        return Err(Refusal::new(
            Refused::MessageTooLarge,
            "The record batch size exceeds the maximum configured value of max.message.bytes",
        ));
    }
    if !batch.crc_matches() {
        return Err(Refusal::new(Refused::CorruptMessage, "Record is corrupt: its CRC does not match"));
    }
    let count = batch.count();
    if count <= 0 || batch.last_offset_delta() != count - 1 {
        return Err(Refusal::new(Refused::InvalidRecord, "Inconsistent batch offset range and record count"));
    }
    if batch.is_control() {
        return Err(Refusal::new(Refused::InvalidRecord, "Clients are not allowed to write control records"));
    }
    if batch.producer_id() >= 0 && batch.base_sequence() < 0 {
        return Err(Refusal::new(
            Refused::InvalidRecord,
            "Invalid sequence number in record batch with producerId",
        ));
    }
    Ok(())
}

/// Smallest and largest timestamp of the records that have one; `NO_TIMESTAMP` if none has.
#[derive(Clone, Copy)]
struct Times {
    earliest: i64,
    latest: i64,
}

fn check_records(batch: &Batch<'_>, compact: bool) -> Result<Times, Refusal> {
    if batch.codec() != Some(Codec::None) && !compact {
        // The base timestamp is that of the first record.
        return Ok(Times { earliest: batch.base_timestamp(), latest: batch.max_timestamp() });
    }
    // Stays empty, and so costs nothing, for an uncompressed batch.
    let mut scratch = Vec::default();
    let records = records::open(batch, &mut scratch)
        .map_err(|error| Refusal::new(error, "Failed to decompress record stream"))?;
    let mut times = Times { earliest: NO_TIMESTAMP, latest: NO_TIMESTAMP };
    let mut index = 0;
    for record in records {
        let invalid = |what| Refusal { record: Some(index), ..Refusal::new(Refused::InvalidRecord, what) };
        let record =
            record.map_err(|_| Refusal::new(Refused::InvalidRecord, "Found invalid record structure"))?;
        if record.offset_delta != index {
            return Err(invalid("Inconsistent record offset within its batch"));
        }
        if compact && record.key.is_none() {
            return Err(invalid("Compacted topic cannot accept message without key"));
        }
        let timestamp = records::timestamp(batch, &record);
        if timestamp != NO_TIMESTAMP {
            let first = times.earliest == NO_TIMESTAMP;
            times.earliest = if first { timestamp } else { times.earliest.min(timestamp) };
            times.latest = times.latest.max(timestamp);
        }
        index += 1;
    }
    if index != batch.count() {
        return Err(Refusal::new(Refused::InvalidRecord, "Record count is not that of the records"));
    }
    Ok(times)
}

fn check_times(batch: &Batch<'_>, times: Times, limits: &Accept) -> Result<(), Refusal> {
    if batch.is_log_append_time() {
        return Err(Refusal::new(
            Refused::InvalidTimestamp,
            "Invalid timestamp type in record: a producer should not set the timestamp type to LogAppendTime",
        ));
    }
    let earliest_allowed = limits.now_ms.saturating_sub(limits.timestamp_before_max_ms);
    let latest_allowed = limits.now_ms.saturating_add(limits.timestamp_after_max_ms);
    let early = times.earliest != NO_TIMESTAMP && times.earliest < earliest_allowed;
    let late = times.latest != NO_TIMESTAMP && times.latest > latest_allowed;
    if !limits.log_append_time && (early || late) {
        return Err(Refusal::new(Refused::InvalidTimestamp, "Timestamp of message is out of range"));
    }
    Ok(())
}
