//! Builds record batches: for our own client, tools and tests, and for topics that store another codec than was sent. Otherwise a
//! broker builds no data batch, it stores what was sent.

use crate::base::limits::BATCH_HEADER_BYTES;
use crate::wire::batch::{LENGTH_OVERHEAD, MAGIC, NO_TIMESTAMP, TRANSACTIONAL};
use crate::wire::codec::{self, Codec, Compression};
use crate::wire::error::WireError;

/// The leader epoch of a batch that no broker has placed.
const NO_EPOCH: i32 = -1;

/// A record to be added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewRecord<'a> {
    /// Milliseconds since 1970; -1 = none.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// Collects records and writes them as one batch; reusable, and then without allocating.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    compression: Compression,
    extra_attributes: i16,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    base_offset: i64,
    leader_epoch: i32,
    records: Vec<u8>,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// An empty batch at offset 0, without producer id.
    pub fn new(codec: Codec) -> BatchBuilder {
        BatchBuilder {
            compression: codec.into(),
            extra_attributes: 0,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            base_offset: 0,
            leader_epoch: NO_EPOCH,
            records: Vec::new(),
            count: 0,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
        }
    }

    /// Sets the codec's level; without one it is the codec's default.
    pub fn level(mut self, level: Option<i32>) -> BatchBuilder {
        self.compression.level = level;
        self
    }

    /// Makes this and the following batches those of an idempotent producer. `finish` moves the sequence on.
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> BatchBuilder {
        (self.producer_id, self.producer_epoch, self.base_sequence) = (id, epoch, base_sequence);
        self
    }

    /// Marks batches as part of a transaction.
    pub fn transactional(mut self) -> BatchBuilder {
        self.extra_attributes |= TRANSACTIONAL;
        self
    }

    /// Places the batch as a broker would have; producers leave it at 0 and -1.
    pub fn at(mut self, base_offset: i64, leader_epoch: i32) -> BatchBuilder {
        (self.base_offset, self.leader_epoch) = (base_offset, leader_epoch);
        self
    }

    /// Records added since the last `finish`.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Size of the batch if it were finished now without compression.
    pub fn bytes(&self) -> usize {
        BATCH_HEADER_BYTES + self.records.len()
    }

    /// Adds a record.
    pub fn push(&mut self, record: &NewRecord<'_>) {
        if self.count == 0 {
            self.base_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        let timestamp_delta = record.timestamp.wrapping_sub(self.base_timestamp);
        let len = body_len(record, timestamp_delta, self.count);
        let out = &mut self.records;
        put_varlong(out, len as i64);
        out.push(0);
        put_varlong(out, timestamp_delta);
        put_varlong(out, i64::from(self.count));
        put_bytes(out, record.key);
        put_bytes(out, record.value);
        put_varlong(out, record.headers.len() as i64);
        for (key, value) in record.headers {
            put_bytes(out, Some(key));
            put_bytes(out, *value);
        }
        self.count += 1;
    }

    /// Appends the batch to `out` and empties the builder; the next batch goes on behind it in offset (if placed) and sequence.
    /// An error is one of a codec's own, and leaves `out` as it was.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), WireError> {
        let start = out.len();
        let last_offset_delta = self.count - 1;
        out.extend_from_slice(&self.base_offset.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.leader_epoch.to_be_bytes());
        out.push(MAGIC);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(self.compression.codec as i16 | self.extra_attributes).to_be_bytes());
        out.extend_from_slice(&last_offset_delta.to_be_bytes());
        out.extend_from_slice(&self.base_timestamp.to_be_bytes());
        out.extend_from_slice(&self.max_timestamp.to_be_bytes());
        out.extend_from_slice(&self.producer_id.to_be_bytes());
        out.extend_from_slice(&self.producer_epoch.to_be_bytes());
        out.extend_from_slice(&self.base_sequence.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        if let Err(e) = codec::compress(self.compression, &self.records, out) {
            out.truncate(start);
            return Err(WireError::Encode(e.to_string()));
        }
        let length = (out.len() - start - LENGTH_OVERHEAD) as i32;
        out[start + 8..start + 12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&out[start + 21..]);
        out[start + 17..start + 21].copy_from_slice(&crc.to_be_bytes());
        self.next_batch();
        Ok(())
    }

    fn next_batch(&mut self) {
        if self.base_sequence >= 0 {
            self.base_sequence = self.base_sequence.wrapping_add(self.count) & i32::MAX;
        }
        if self.leader_epoch != NO_EPOCH {
            self.base_offset += i64::from(self.count);
        }
        self.records.clear();
        self.count = 0;
        self.base_timestamp = NO_TIMESTAMP;
        self.max_timestamp = NO_TIMESTAMP;
    }
}

fn body_len(record: &NewRecord<'_>, timestamp_delta: i64, offset_delta: i32) -> usize {
    let bytes = |b: Option<&[u8]>| b.map_or(1, |b| varlong_len(b.len() as i64) + b.len());
    let headers: usize = record.headers.iter().map(|(key, value)| bytes(Some(key)) + bytes(*value)).sum();
    1 + varlong_len(timestamp_delta)
        + varlong_len(i64::from(offset_delta))
        + bytes(record.key)
        + bytes(record.value)
        + varlong_len(record.headers.len() as i64)
        + headers
}

fn zigzag(value: i64) -> u64 {
    (value << 1) as u64 ^ (value >> 63) as u64
}

fn varlong_len(value: i64) -> usize {
    // 7 bits a byte; a zero still takes one.
    (70 - (zigzag(value) | 1).leading_zeros() as usize) / 7
}

/// A zigzag varint; the encoding of a 32-bit value is the same.
fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut raw = zigzag(value);
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_varlong(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => put_varlong(out, -1),
    }
}
