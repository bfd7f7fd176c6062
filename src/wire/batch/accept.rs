//! Hot path. What a produced batch must be before it is appended: the checks of one partition, in the order in which Kafka makes
//! them, so that a batch with two faults gets the error that Kafka's clients expect. Left to the log: the producer's sequence.
//!
//! The records themselves are walked where that is cheap (uncompressed) or needed (compacted topic, another codec to be stored); only
//! the latter decompresses. What Kafka would store differently from how it was sent is told, not done: see `rewrite`.

use crate::base::error::Refused;
use crate::base::limits::RECORD_ERRORS_MAX;
use crate::wire::batch::scan::{Scanned, scan};
use crate::wire::batch::{self, Batch, NO_TIMESTAMP};
use crate::wire::codec::{Codec, Compression};

/// First Produce version that may carry zstd (KIP-110).
const PRODUCE_ZSTD: i16 = 7;

/// Smallest length of a record of magic 0, the shortest there ever was.
const RECORD_BYTES_MIN: i32 = 14;

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
    /// `validate.deep`: compressed batches are decompressed and walked too, as Apache Kafka always does.
    pub deep: bool,
    /// `compression.type` other than `producer`: how batches are stored, whatever they come in.
    pub compression: Option<Compression>,
    /// Wall clock, milliseconds since 1970.
    pub now_ms: i64,
}

/// A batch that may be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted<'a> {
    pub batch: Batch<'a>,
    /// What is stored in its place, if not the batch as it was sent.
    pub change: Option<Change>,
}

/// How the stored batch differs from the one that was sent; made by [`batch::rewrite`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The header's largest timestamp was not that of the records, which is this one.
    MaxTimestamp(i64),
    /// The batch is of another codec than the topic wants.
    Recompressed(Compression),
}

/// Why a batch is not appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub error: Refused,
    /// For `error_message` of the partition (Produce 8+), in Kafka's words where tools show them.
    pub message: Option<&'static str>,
    /// Each record that is to blame by its index within the batch, and why, for `record_errors` (Produce 8+). The first
    /// `RECORD_ERRORS_MAX` of them.
    pub records: Vec<(i32, &'static str)>,
    /// Found by what Kafka calls the record validator: its answer then carries the log start offset, and -1 otherwise.
    pub with_log_start: bool,
}

impl Refusal {
    pub(super) fn new(error: Refused, message: &'static str) -> Refusal {
        Refusal { error, message: Some(message), records: Vec::new(), with_log_start: false }
    }

    pub(super) fn validated(error: Refused, message: &'static str) -> Refusal {
        Refusal { with_log_start: true, ..Refusal::new(error, message) }
    }
}

/// Accepts the records field of one partition: exactly one sound batch, which is returned, or the first error in Kafka's order.
///
/// Differs from Apache Kafka, which takes offset deltas that do not count from 0, the LogAppendTime bit, and part of a batch behind
/// the batch: refused here. A compressed batch is not decompressed without need, so a wrong count or maxTimestamp in one is not
/// noticed.
pub fn accept<'a>(bytes: &'a [u8], limits: &Accept) -> Result<Accepted<'a>, Refusal> {
    let (batch, left_over) = only_batch(bytes)?;
    check_header(&batch, limits)?;
    let change = check_records(&batch, limits)?;
    if batch.is_log_append_time() {
        return Err(Refusal::validated(
            Refused::InvalidTimestamp,
            "Invalid timestamp type in record: a producer should not set the timestamp type to LogAppendTime",
        ));
    }
    // Kafka holds what it stores against this limit, so a batch that is yet to be recompressed is not judged here.
    if !matches!(change, Some(Change::Recompressed(_))) {
        limits.check_segment(batch.size())?;
    }
    if left_over > 0 {
        return Err(Refusal::new(Refused::InvalidRecord, "Bytes are left over behind the record batch"));
    }
    Ok(Accepted { batch, change })
}

/// The batch at the front, and how many bytes follow it. Another batch behind it is refused here, before anything else is looked at;
/// bytes that are no whole batch are refused last, since Kafka drops them.
fn only_batch(bytes: &[u8]) -> Result<(Batch<'_>, usize), Refusal> {
    if whole_batch(bytes)?.is_none() {
        return Err(Refusal::new(
            Refused::InvalidRecord,
            "Produce requests with version 3 or higher must have at least one record batch",
        ));
    }
    if bytes[batch::AT_MAGIC] != batch::MAGIC {
        return Err(Refusal::new(
            Refused::InvalidRecord,
            "Produce requests with version 3 or higher are only allowed to contain record batches with magic version 2",
        ));
    }
    let (batch, rest) = Batch::first(bytes)
        .map_err(|error| Refusal::new(error, "Record batch is smaller than its header"))?;
    if whole_batch(rest)?.is_some() {
        return Err(Refusal::new(
            Refused::InvalidRecord,
            "Produce requests with version 3 or higher are only allowed to contain exactly one record batch per partition",
        ));
    }
    Ok((batch, rest.len()))
}

/// Size of the batch of any magic at the front of `bytes`, if it is there in full; judged as Kafka's reader of record sets does.
fn whole_batch(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    let Some(length) = bytes.get(batch::AT_LENGTH..).and_then(|bytes| bytes.first_chunk::<4>()) else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*length);
    if length < RECORD_BYTES_MIN {
        return Err(Refusal::new(
            Refused::CorruptMessage,
            "Record size is less than the minimum record overhead",
        ));
    }
    match bytes.get(batch::AT_MAGIC) {
        None => return Ok(None),
        Some(0..=batch::MAGIC) => {}
        Some(_) => return Err(Refusal::new(Refused::CorruptMessage, "Invalid magic found in record")),
    }
    let size = length as usize + batch::LENGTH_OVERHEAD;
    Ok((size <= bytes.len()).then_some(size))
}

fn check_header(batch: &Batch<'_>, limits: &Accept) -> Result<(), Refusal> {
    match batch.codec() {
        Some(Codec::Zstd) if limits.produce_version < PRODUCE_ZSTD => {
            return Err(Refusal::new(
                Refused::UnsupportedCompressionType,
                "Produce requests with version 6 or lower are not allowed to use ZStandard compression",
            ));
        }
        None => return Err(Refusal::validated(Refused::UnknownServerError, "Unknown compression type id")),
        Some(_) => {}
    }
    if batch.base_offset() != 0 {
        return Err(Refusal::validated(
            Refused::InvalidRecord,
            "The baseOffset of the record batch should be 0",
        ));
    }
    limits.check_size(batch.size())?;
    if !batch.crc_matches() {
        return Err(Refusal::new(Refused::CorruptMessage, "Record is corrupt: its CRC does not match"));
    }
    let count = batch.count();
    if count <= 0 || batch.last_offset_delta() != count - 1 {
        return Err(Refusal::validated(
            Refused::InvalidRecord,
            "Inconsistent batch offset range and record count",
        ));
    }
    if batch.is_control() {
        return Err(Refusal::validated(
            Refused::InvalidRecord,
            "Clients are not allowed to write control records",
        ));
    }
    if batch.producer_id() >= 0 && batch.base_sequence() < 0 {
        return Err(Refusal::validated(
            Refused::InvalidRecord,
            "Invalid sequence number in record batch with producerId",
        ));
    }
    Ok(())
}

/// Walks the records where that is cheap, where the topic needs it, or where the header's times are out of range, to name the records.
fn check_records(batch: &Batch<'_>, limits: &Accept) -> Result<Option<Change>, Refusal> {
    let recompressed = limits.compression.filter(|wanted| batch.codec() != Some(wanted.codec));
    // The base timestamp is that of the first record.
    let in_time = limits.allows(batch.base_timestamp()) && limits.allows(batch.max_timestamp());
    if batch.codec() != Some(Codec::None)
        && !limits.compact
        && !limits.deep
        && recompressed.is_none()
        && in_time
    {
        return Ok(None);
    }
    let (mut index, mut max_timestamp, mut good) = (0, NO_TIMESTAMP, true);
    let walked = walk(batch, |record| {
        let timestamp = record.timestamp(batch);
        good = limits.fault(index, timestamp, &record).is_none();
        max_timestamp = max_timestamp.max(timestamp);
        index += 1;
        good
    });
    if !good {
        return Err(blame(batch, limits));
    }
    whole(walked, index == batch.count())?;
    Ok(match recompressed {
        Some(wanted) => Some(Change::Recompressed(wanted)),
        // With LogAppendTime the log writes a time of its own.
        None if limits.log_append_time || max_timestamp == batch.max_timestamp() => None,
        None => Some(Change::MaxTimestamp(max_timestamp)),
    })
}

fn walk(batch: &Batch<'_>, visit: impl FnMut(Scanned) -> bool) -> Result<(), Refused> {
    if batch.codec() == Some(Codec::None) { in_place(batch, visit) } else { scan(batch, visit) }
}

/// What a walk to the end says about the batch.
fn whole(walked: Result<(), Refused>, counted: bool) -> Result<(), Refusal> {
    match walked {
        Ok(()) if counted => Ok(()),
        Ok(()) => Err(Refusal::validated(Refused::InvalidRecord, "Record count is not that of the records")),
        Err(Refused::InvalidRecord) => {
            Err(Refusal::validated(Refused::InvalidRecord, "Found invalid record structure"))
        }
        Err(error) => Err(Refusal::validated(error, "Failed to decompress record stream")),
    }
}

/// Walks a batch with a bad record to its end, to name all of them. As in Kafka, records that cannot be read at all come first, and one
/// record out of time makes the whole answer INVALID_TIMESTAMP, whatever is wrong with the others.
#[cold]
fn blame(batch: &Batch<'_>, limits: &Accept) -> Refusal {
    let (mut index, mut found) = (0, None);
    let mut records = Vec::new();
    let walked = walk(batch, |record| {
        if let Some(fault) = limits.fault(index, record.timestamp(batch), &record) {
            if records.len() < RECORD_ERRORS_MAX {
                records.push((index, fault.why()));
            }
            found = found.max(Some(fault));
        }
        index += 1;
        found != Some(Fault::Offset)
    });
    let fault = found.unwrap_or(Fault::Offset);
    if fault != Fault::Offset
        && let Err(refusal) = whole(walked, index == batch.count())
    {
        return refusal;
    }
    match fault {
        Fault::Key => Refusal { records, ..Refusal::validated(Refused::InvalidRecord, fault.why()) },
        Fault::Timestamp => {
            Refusal { records, ..Refusal::validated(Refused::InvalidTimestamp, OUT_OF_RANGE) }
        }
        Fault::Offset => Refusal {
            records: vec![(index - 1, fault.why())],
            ..Refusal::validated(Refused::InvalidRecord, fault.why())
        },
    }
}

/// What is wrong with one record; of several in a batch, the greatest decides the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Key,
    Timestamp,
    /// It is not where it should be, so the others are not worth naming.
    Offset,
}

impl Fault {
    fn why(self) -> &'static str {
        match self {
            Fault::Key => "Compacted topic cannot accept message without key",
            Fault::Timestamp => "Timestamp is out of the range that the topic allows",
            Fault::Offset => "Inconsistent record offset within its batch",
        }
    }
}

/// The records of an uncompressed batch, in place.
fn in_place(batch: &Batch<'_>, mut visit: impl FnMut(Scanned) -> bool) -> Result<(), Refused> {
    for record in batch.records() {
        let record = record?;
        let scanned = Scanned {
            offset_delta: record.offset_delta,
            timestamp_delta: record.timestamp_delta,
            has_key: record.key.is_some(),
        };
        if !visit(scanned) {
            break;
        }
    }
    Ok(())
}

const OUT_OF_RANGE: &str = "One or more records have been rejected due to invalid timestamp";

impl Accept {
    /// `max.message.bytes`, for a batch as it came and as it is stored.
    pub(super) fn check_size(&self, bytes: usize) -> Result<(), Refusal> {
        if bytes as i64 > i64::from(self.max_message_bytes) {
            return Err(Refusal::new(
                Refused::MessageTooLarge,
                "The record batch size exceeds the maximum configured value of max.message.bytes",
            ));
        }
        Ok(())
    }

    /// `segment.bytes`, for a batch as it is stored.
    pub(super) fn check_segment(&self, bytes: usize) -> Result<(), Refusal> {
        if bytes as u64 > self.segment_bytes {
            return Err(Refusal::new(
                Refused::RecordListTooLarge,
                "The record batch is larger than a log segment may be",
            ));
        }
        Ok(())
    }

    #[inline]
    fn fault(&self, index: i32, timestamp: i64, record: &Scanned) -> Option<Fault> {
        if record.offset_delta != index {
            return Some(Fault::Offset);
        }
        if self.compact && !record.has_key {
            return Some(Fault::Key);
        }
        (!self.allows(timestamp)).then_some(Fault::Timestamp)
    }

    /// Whether a record may have this timestamp.
    fn allows(&self, timestamp: i64) -> bool {
        let earliest = self.now_ms.saturating_sub(self.timestamp_before_max_ms);
        let latest = self.now_ms.saturating_add(self.timestamp_after_max_ms);
        self.log_append_time || timestamp == NO_TIMESTAMP || (earliest..=latest).contains(&timestamp)
    }
}
