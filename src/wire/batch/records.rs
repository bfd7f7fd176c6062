//! Hot path. The records inside a batch: a walk over their varints, in place, and what it answers.
//!
//! `length | attributes i8 | timestampDelta | offsetDelta | keyLength | key | valueLength | value | headerCount | headers`, all
//! numbers zigzag varints; a header is `keyLength | key | valueLength | value`. Header keys may repeat and need not be UTF-8.

use crate::base::error::Refused;
use crate::wire::batch::Batch;
use crate::wire::codec::{self, Codec};

/// One record. Nothing is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Added to the batch's base offset.
    pub offset_delta: i32,
    /// Added to the batch's base timestamp, in milliseconds.
    pub timestamp_delta: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

/// The headers of a record, in order, checked when the record was read. Iterates over key and value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    rest: &'a [u8],
    count: usize,
}

impl Headers<'_> {
    /// Headers not yet iterated over.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.count == 0 {
            return None;
        }
        self.count -= 1;
        read_header(&mut self.rest).ok()
    }
}

/// Walks decompressed records. Yields INVALID_RECORD once, and then nothing, where a record is cut, claims another length than
/// it has, or has bytes left over; also where bytes follow the last record.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    left: i32,
    over: bool,
}

impl<'a> Records<'a> {
    /// `payload` is what stands behind the batch header, decompressed; `count` is the number of records in it.
    pub fn new(payload: &'a [u8], count: i32) -> Records<'a> {
        Records { rest: payload, left: count, over: false }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Refused>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over || (self.left <= 0 && self.rest.is_empty()) {
            return None;
        }
        if self.left > 0
            && let Ok(record) = read_record(&mut self.rest)
        {
            self.left -= 1;
            return Some(Ok(record));
        }
        self.over = true;
        Some(Err(Refused::InvalidRecord))
    }
}

/// The records of a batch, decompressed into `scratch` if need be. Errors: CORRUPT_MESSAGE where the payload does not decompress
/// within its budget, UNSUPPORTED_COMPRESSION_TYPE for a codec that does not exist.
pub fn open<'s>(batch: &Batch<'s>, scratch: &'s mut Vec<u8>) -> Result<Records<'s>, Refused> {
    let payload = batch.payload();
    match batch.codec() {
        None => Err(Refused::UnsupportedCompressionType),
        Some(Codec::None) => Ok(batch.records()),
        Some(codec) => {
            codec::decompress(codec, payload, scratch, codec::budget(payload.len()))?;
            Ok(Records::new(scratch, batch.count()))
        }
    }
}

/// A record's time: what Kafka's consumers show for it.
pub fn timestamp(batch: &Batch<'_>, record: &Record<'_>) -> i64 {
    if batch.is_log_append_time() {
        batch.max_timestamp()
    } else {
        batch.base_timestamp().wrapping_add(record.timestamp_delta)
    }
}

/// A record's offset.
pub fn offset(batch: &Batch<'_>, record: &Record<'_>) -> i64 {
    batch.base_offset().wrapping_add(i64::from(record.offset_delta))
}

/// Cut or malformed; the walk turns it into INVALID_RECORD.
struct Bad;

fn read_record<'a>(rest: &mut &'a [u8]) -> Result<Record<'a>, Bad> {
    let len = usize::try_from(varint(rest)?).map_err(|_| Bad)?;
    let mut body = take(rest, len)?;
    let _attributes = take(&mut body, 1)?;
    let timestamp_delta = varlong(&mut body)?;
    let offset_delta = varint(&mut body)?;
    let key = bytes(&mut body)?;
    let value = bytes(&mut body)?;
    let count = usize::try_from(varint(&mut body)?).map_err(|_| Bad)?;
    let headers = Headers { rest: body, count };
    for _ in 0..count {
        read_header(&mut body)?;
    }
    if !body.is_empty() {
        return Err(Bad);
    }
    Ok(Record { offset_delta, timestamp_delta, key, value, headers })
}

fn read_header<'a>(rest: &mut &'a [u8]) -> Result<(&'a [u8], Option<&'a [u8]>), Bad> {
    let key = bytes(rest)?.ok_or(Bad)?;
    Ok((key, bytes(rest)?))
}

fn bytes<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Bad> {
    match varint(rest)? {
        len if len >= 0 => take(rest, len as usize).map(Some),
        // Kafka's reader takes every negative length for null.
        _ => Ok(None),
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], Bad> {
    let (front, back) = rest.split_at_checked(len).ok_or(Bad)?;
    *rest = back;
    Ok(front)
}

fn varint(rest: &mut &[u8]) -> Result<i32, Bad> {
    // Most lengths and deltas are one byte.
    if let [byte @ 0..0x80, back @ ..] = *rest {
        *rest = back;
        return Ok(i32::from(byte >> 1) ^ -i32::from(byte & 1));
    }
    let raw = unsigned(rest, 5)?;
    let raw = u32::try_from(raw).map_err(|_| Bad)?;
    Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
}

fn varlong(rest: &mut &[u8]) -> Result<i64, Bad> {
    let raw = unsigned(rest, 10)?;
    Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

fn unsigned(rest: &mut &[u8], bytes_max: usize) -> Result<u64, Bad> {
    let mut value = 0u64;
    for (i, byte) in rest.iter().take(bytes_max).enumerate() {
        // The tenth byte has room for one bit.
        if i == 9 && *byte > 1 {
            return Err(Bad);
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if *byte < 0x80 {
            *rest = &rest[i + 1..];
            return Ok(value);
        }
    }
    Err(Bad)
}
