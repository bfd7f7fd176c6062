//! Hot path. A record batch of magic 2, seen in place: header fields, checks, and the few bytes that a broker changes. Used on every
//! core by whoever holds the bytes (produce, log, fetch, tools). It knows no topics and assigns no offsets: it is told.
//!
//! Offsets, epochs and ids are the bare numbers of the wire here; who gives them a meaning wraps them.
//!
//! ```text
//!  0 baseOffset i64            21 attributes i16 (codec 0-2, LogAppendTime 3, transactional 4, control 5, delete horizon 6)
//!  8 batchLength i32           23 lastOffsetDelta i32
//! 12 partitionLeaderEpoch i32  27 baseTimestamp i64      35 maxTimestamp i64
//! 16 magic i8 = 2              43 producerId i64         51 producerEpoch i16   53 baseSequence i32
//! 17 crc u32, of 21..end       57 count i32              61 records
//! ```
//! batchLength counts from byte 12. Bits 7-15 of the attributes are ignored and kept.
//!
//! Non-obvious:
//! - The CRC leaves out base offset, length, leader epoch and magic: a batch in the wrong place passes it.
//! - maxTimestamp is what the producer said. For compressed batches nobody need have compared it with the records: searches walk.
//! - lastOffsetDelta + 1 is the count only until compaction: it keeps the offsets and drops records, perhaps all.
//! - A batch with the delete horizon bit has the horizon as its base timestamp, and its deltas count from there.

mod accept;
pub mod build;
pub mod records;
mod rewrite;
pub mod scan;
mod search;
#[cfg(test)]
mod tests;

use crate::base::error::Refused;
use crate::base::limits::{BATCH_HEADER_BYTES, BATCH_UNCHECKED_BYTES};
use crate::wire::codec::Codec;

pub use accept::{Accept, Accepted, Change, Refusal, accept};
use records::Records;
pub use rewrite::rewrite;
pub use search::{find_max_timestamp, find_timestamp};

/// The magic of the one batch format that we read and write.
pub const MAGIC: u8 = 2;

/// Bytes in front of what batchLength counts.
pub const LENGTH_OVERHEAD: usize = 12;

/// Attribute bits.
pub const LOG_APPEND_TIME: i16 = 1 << 3;
pub const TRANSACTIONAL: i16 = 1 << 4;
pub const CONTROL: i16 = 1 << 5;
pub const DELETE_HORIZON: i16 = 1 << 6;

/// A timestamp that means "none": its record is exempt from time checks.
pub const NO_TIMESTAMP: i64 = -1;

const AT_LENGTH: usize = 8;
const AT_LEADER_EPOCH: usize = 12;
const AT_MAGIC: usize = 16;
const AT_CRC: usize = 17;
const AT_ATTRIBUTES: usize = 21;
const AT_LAST_OFFSET_DELTA: usize = 23;
const AT_BASE_TIMESTAMP: usize = 27;
const AT_MAX_TIMESTAMP: usize = 35;
const AT_PRODUCER_ID: usize = 43;
const AT_PRODUCER_EPOCH: usize = 51;
const AT_BASE_SEQUENCE: usize = 53;
const AT_COUNT: usize = 57;

/// One batch, exactly: from base offset to the last byte of its records. Header and length were checked when the view was made,
/// nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    bytes: &'a [u8],
}

impl<'a> Batch<'a> {
    /// The batch at the front of `bytes`, and what follows it. Errors: fewer bytes than its length says INVALID_RECORD; a length
    /// smaller than the header CORRUPT_MESSAGE; another magic INVALID_RECORD.
    pub fn first(bytes: &'a [u8]) -> Result<(Batch<'a>, &'a [u8]), Refused> {
        match size(bytes)? {
            Some(size) if size <= bytes.len() => {
                let (batch, rest) = bytes.split_at(size);
                if batch[AT_MAGIC] != MAGIC {
                    return Err(Refused::InvalidRecord);
                }
                Ok((Batch { bytes: batch }, rest))
            }
            _ => Err(Refused::InvalidRecord),
        }
    }

    /// The one batch that `bytes` are. Errors as `first`, and INVALID_RECORD if something follows.
    pub fn only(bytes: &'a [u8]) -> Result<Batch<'a>, Refused> {
        match Batch::first(bytes)? {
            (batch, []) => Ok(batch),
            _ => Err(Refused::InvalidRecord),
        }
    }

    /// The whole batch.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.bytes[at..at + N]);
        field
    }

    pub fn base_offset(&self) -> i64 {
        i64::from_be_bytes(self.get(0))
    }

    /// Offset of the last record, or of where it was before compaction.
    pub fn last_offset(&self) -> i64 {
        self.base_offset().wrapping_add(i64::from(self.last_offset_delta()))
    }

    /// Offset of the record behind this batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().wrapping_add(1)
    }

    /// Bytes of the whole batch.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub fn leader_epoch(&self) -> i32 {
        i32::from_be_bytes(self.get(AT_LEADER_EPOCH))
    }

    /// The CRC-32C that the batch claims.
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(self.get(AT_CRC))
    }

    pub fn attributes(&self) -> i16 {
        i16::from_be_bytes(self.get(AT_ATTRIBUTES))
    }

    /// `None` for a codec number that means nothing.
    pub fn codec(&self) -> Option<Codec> {
        Codec::of_attributes(self.attributes())
    }

    /// Whether every record's timestamp is `max_timestamp`, which the broker wrote.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes() & LOG_APPEND_TIME != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL != 0
    }

    /// Whether the batch is a transaction marker, which no client may send.
    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL != 0
    }

    /// Whether `base_timestamp` is the time from which compaction may drop the batch's tombstones.
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes() & DELETE_HORIZON != 0
    }

    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(self.get(AT_LAST_OFFSET_DELTA))
    }

    /// Milliseconds that the records' timestamp deltas add to.
    pub fn base_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.get(AT_BASE_TIMESTAMP))
    }

    /// Largest timestamp of a record in milliseconds, as the producer says (or the append time); not verified here.
    pub fn max_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.get(AT_MAX_TIMESTAMP))
    }

    /// -1 without one.
    pub fn producer_id(&self) -> i64 {
        i64::from_be_bytes(self.get(AT_PRODUCER_ID))
    }

    /// -1 without a producer id.
    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(self.get(AT_PRODUCER_EPOCH))
    }

    /// Sequence of the first record; -1 without a producer id and in markers.
    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(self.get(AT_BASE_SEQUENCE))
    }

    /// Sequence of the last record; wraps from 2147483647 to 0 (KIP-98). -1 where there is no sequence.
    pub fn last_sequence(&self) -> i32 {
        match self.base_sequence() {
            base if base < 0 => -1,
            base => (i64::from(base) + i64::from(self.last_offset_delta())) as i32 & i32::MAX,
        }
    }

    /// Records in the batch, as it says; compaction may leave 0.
    pub fn count(&self) -> i32 {
        i32::from_be_bytes(self.get(AT_COUNT))
    }

    /// The records' bytes, compressed if the codec says so.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[BATCH_HEADER_BYTES..]
    }

    /// The records of an uncompressed batch; for a compressed one see [`records::open`].
    pub fn records(&self) -> Records<'a> {
        Records::new(self.payload(), self.count())
    }

    /// Whether the bytes from the attributes on are those that the CRC was made of.
    pub fn crc_matches(&self) -> bool {
        crc32c::crc32c(&self.bytes[BATCH_UNCHECKED_BYTES..]) == self.crc()
    }

    /// What every batch must be that we store or accept, compacted ones included: CRC (CORRUPT_MESSAGE), a known codec
    /// (UNSUPPORTED_COMPRESSION_TYPE), `0 <= count <= lastOffsetDelta + 1` (INVALID_RECORD).
    pub fn check(&self) -> Result<(), Refused> {
        if !self.crc_matches() {
            return Err(Refused::CorruptMessage);
        }
        if self.codec().is_none() {
            return Err(Refused::UnsupportedCompressionType);
        }
        let (count, last) = (i64::from(self.count()), i64::from(self.last_offset_delta()));
        if count < 0 || last < 0 || count > last + 1 {
            return Err(Refused::InvalidRecord);
        }
        Ok(())
    }
}

/// Size of the batch at the front of `bytes`, or `None` if not even the length is there. CORRUPT_MESSAGE: a size that cannot hold
/// a header. `bytes` may be shorter than the size.
pub fn size(bytes: &[u8]) -> Result<Option<usize>, Refused> {
    let Some(length) = bytes.get(AT_LENGTH..).and_then(|b| b.first_chunk::<4>()) else { return Ok(None) };
    let size = i64::from(i32::from_be_bytes(*length)) + LENGTH_OVERHEAD as i64;
    match usize::try_from(size) {
        Ok(size) if size >= BATCH_HEADER_BYTES => Ok(Some(size)),
        _ => Err(Refused::CorruptMessage),
    }
}

/// Writes base offset and leader epoch into the batch at the front of `bytes` (at least a header). Both lie outside the CRC.
pub fn stamp(bytes: &mut [u8], base_offset: i64, leader_epoch: i32) {
    bytes[..AT_LENGTH].copy_from_slice(&base_offset.to_be_bytes());
    bytes[AT_LEADER_EPOCH..AT_MAGIC].copy_from_slice(&leader_epoch.to_be_bytes());
}

/// Gives every record of the batch that `bytes` are the time of its append: sets the LogAppendTime bit and the maximum, and makes
/// a new CRC. The records' deltas stay; readers do not use them then.
pub fn set_log_append_time(bytes: &mut [u8], now_ms: i64) {
    bytes[AT_ATTRIBUTES + 1] |= LOG_APPEND_TIME as u8;
    set_max_timestamp(bytes, now_ms);
}

/// Replaces the largest timestamp of the batch that `bytes` are, and makes a new CRC.
pub fn set_max_timestamp(bytes: &mut [u8], max_ms: i64) {
    bytes[AT_MAX_TIMESTAMP..AT_PRODUCER_ID].copy_from_slice(&max_ms.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[BATCH_UNCHECKED_BYTES..]);
    bytes[AT_CRC..AT_ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
}

/// The batches of a record set, in order.
pub fn batches(records: &[u8]) -> Batches<'_> {
    Batches { rest: records }
}

/// The batches of a record set, such as a fetch returns. Ends at the first batch that is not there in full, which a fetch may
/// cut; yields an error once, and then nothing, for bytes that are no batch. CRCs are not checked.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    /// What was not yielded (yet): at the end, the part of a batch.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<Batch<'a>, Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = match size(self.rest) {
            Ok(Some(size)) if size <= self.rest.len() => Batch::first(self.rest),
            Ok(_) => return None,
            Err(refused) => Err(refused),
        };
        match found {
            Ok((batch, rest)) => {
                self.rest = rest;
                Some(Ok(batch))
            }
            Err(refused) => {
                self.rest = &[];
                Some(Err(refused))
            }
        }
    }
}
