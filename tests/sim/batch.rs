//! Record batches whose every record says which batch it is from: whatever a log returns can be traced to the append that sent it.

use corelog::base::limits::BATCH_HEADER_BYTES;

/// A batch by its number: unique in a run, so that no value is ever sent twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchId(pub u64);

/// Whose sequence numbers a batch carries; none for a producer without idempotence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    pub producer: i64,
    pub first: i32,
}

/// One batch as a producer sends it.
#[derive(Clone, Debug)]
pub struct Batch {
    pub id: BatchId,
    pub records: u32,
    pub bytes: Vec<u8>,
}

/// First bytes of each value: where a search begins.
const MARK: u8 = 0xf5;

/// Bytes of a value before its padding: mark, batch number, index of the record.
const VALUE_HEAD_BYTES: usize = 6;

impl Batch {
    pub fn new(
        id: BatchId,
        records: u32,
        padding: usize,
        timestamp_ms: i64,
        sequence: Option<Sequence>,
    ) -> Batch {
        let mut bytes = vec![0; BATCH_HEADER_BYTES];
        for index in 0..records {
            record(&mut bytes, index, &value(id, index, padding));
        }
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(16, &[2]);
        put(23, &(records as i32 - 1).to_be_bytes());
        put(27, &timestamp_ms.to_be_bytes());
        put(35, &timestamp_ms.to_be_bytes());
        put(43, &sequence.map_or(-1, |s| s.producer).to_be_bytes());
        put(51, &sequence.map_or(-1i16, |_| 0).to_be_bytes());
        put(53, &sequence.map_or(-1, |s| s.first).to_be_bytes());
        put(57, &(records as i32).to_be_bytes());
        let length = bytes.len() as i32 - 12;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        Batch { id, records, bytes }
    }

    /// The part that no log may change.
    pub fn body(&self) -> &[u8] {
        &self.bytes[BATCH_HEADER_BYTES..]
    }
}

/// Pseudo-random bytes follow the head, so that equal lengths do not make equal sectors.
fn value(id: BatchId, index: u32, padding: usize) -> Vec<u8> {
    let mut value = vec![MARK];
    value.extend((id.0 as u32).to_le_bytes());
    value.push(index as u8);
    let mut word = id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(index);
    while value.len() < VALUE_HEAD_BYTES + padding {
        word = word.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
        value.extend((word >> 32).to_le_bytes());
    }
    value.truncate(VALUE_HEAD_BYTES + padding);
    value
}

fn record(out: &mut Vec<u8>, index: u32, value: &[u8]) {
    let mut body = vec![0];
    zigzag(&mut body, 0);
    zigzag(&mut body, i64::from(index));
    zigzag(&mut body, -1);
    zigzag(&mut body, value.len() as i64);
    body.extend_from_slice(value);
    zigzag(&mut body, 0);
    zigzag(out, body.len() as i64);
    out.extend(body);
}

fn zigzag(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest > 0x7f {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Where the first record's value stands: behind length, attributes, timestamp, offset, key length and value length.
fn first_value(body: &[u8]) -> Option<usize> {
    let skip = |at: usize| body[at..].iter().position(|byte| *byte < 0x80).map(|len| at + len + 1);
    let attributes = skip(0)?;
    (0..4).try_fold(attributes + 1, |at, _| skip(at))
}

/// A batch as a log returned it.
#[derive(Debug)]
pub struct Found<'a> {
    pub base_offset: i64,
    pub records: u32,
    pub id: BatchId,
    pub body: &'a [u8],
}

/// Cuts what a fetch returned into batches. Every byte must belong to one.
pub fn parse(mut bytes: &[u8]) -> Result<Vec<Found<'_>>, String> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        if bytes.len() < BATCH_HEADER_BYTES {
            return Err(format!("{} bytes behind the last batch", bytes.len()));
        }
        let length = i32::from_be_bytes(bytes[8..12].try_into().expect("four bytes"));
        let end = length as usize + 12;
        if length < 49 || end > bytes.len() {
            return Err(format!("a batch of {length} bytes in {} bytes", bytes.len()));
        }
        let (batch, rest) = bytes.split_at(end);
        let crc = u32::from_be_bytes(batch[17..21].try_into().expect("four bytes"));
        if crc32c::crc32c(&batch[21..]) != crc {
            return Err("a batch whose CRC is wrong".to_string());
        }
        let body = &batch[BATCH_HEADER_BYTES..];
        let at = first_value(body).filter(|at| body.len() >= at + VALUE_HEAD_BYTES && body[*at] == MARK);
        let at = at.ok_or("a batch without a value of ours")?;
        found.push(Found {
            base_offset: i64::from_be_bytes(batch[..8].try_into().expect("eight bytes")),
            records: u32::from_be_bytes(batch[57..61].try_into().expect("four bytes")),
            id: BatchId(u64::from(u32::from_le_bytes(body[at + 1..at + 5].try_into().expect("four bytes")))),
            body,
        });
        bytes = rest;
    }
    Ok(found)
}
