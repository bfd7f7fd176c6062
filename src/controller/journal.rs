//! The journal: an append-only file of transactions, each checksummed, chained to its predecessor and padded to blocks of 4096 bytes, so that
//! no write ever touches a block of another. Integers are little-endian.
//!
//! ```text
//! block 0, the header (4096 bytes)
//!   0  magic          "CLJRNL\0\0"
//!   8  check          u32   CRC-32C of bytes 12..80
//!  12  version        u32   1
//!  16  cluster        16 bytes
//!  32  generation     u64   this file's number
//!  40  continues seq  u64   the transaction before the first of this file
//!  48  continues chk  u32   its check: what an older journal holds behind it was never part of the history
//!  52  zeros to 4096
//!
//! each transaction, from a multiple of 4096
//!   0  magic          u32   0x4e58544d
//!   4  check          u32   CRC-32C of bytes 8..40 + body
//!   8  generation     u64
//!  16  seq            u64   1 more than the transaction before
//!  24  previous check u32   of the transaction before; of the snapshot's last for the first
//!  28  body bytes     u32
//!  32  changes        u32   number of changes in the body
//!  36  zero           u32
//!  40  body                 per change: key bytes u16, value bytes u32 (0xffffffff: the key goes), key, value
//!      zeros to the next multiple of 4096
//! ```
//! A reader that sees a larger version refuses. To raise it: 1. bump [`VERSION`], 2. keep the old reader until no directory has
//! it, 3. write the new form only into new generations: they begin at each start, so nothing is ever mixed within a file.

use super::record::Record;
use crate::base::ids::Uuid;

/// Version of journals and snapshots.
pub const VERSION: u32 = 1;

/// Transactions, snapshots and headers are multiples of this: the alignment of direct I/O.
pub const BLOCK: usize = crate::base::limits::ALIGN;

/// A journal longer than this asks for a new generation: reading it at a start costs a few milliseconds.
pub const JOURNAL_BYTES_MAX: u64 = 16 << 20;

const FILE_MAGIC: &[u8; 8] = b"CLJRNL\0\0";
const TXN_MAGIC: u32 = 0x4e58_544d;
const HEADER_CHECKED: std::ops::Range<usize> = 12..80;
const TXN_HEADER: usize = 40;
const GONE: u32 = u32::MAX;

/// A change as it is stored: a key, and its value or none where it goes.
pub type Change = (String, Option<String>);

/// A place in the history: the last transaction and its check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    pub seq: u64,
    pub check: u32,
}

/// What block 0 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub version: u32,
    pub cluster: Uuid,
    pub generation: u64,
    pub continues: Point,
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..8].copy_from_slice(FILE_MAGIC);
        block[12..16].copy_from_slice(&self.version.to_le_bytes());
        block[16..32].copy_from_slice(&self.cluster.0);
        block[32..40].copy_from_slice(&self.generation.to_le_bytes());
        block[40..48].copy_from_slice(&self.continues.seq.to_le_bytes());
        block[48..52].copy_from_slice(&self.continues.check.to_le_bytes());
        let check = crc32c::crc32c(&block[HEADER_CHECKED]);
        block[8..12].copy_from_slice(&check.to_le_bytes());
        block
    }

    /// None: these bytes are no header, or a torn one.
    pub fn decode(bytes: &[u8]) -> Option<Header> {
        let block = bytes.get(..BLOCK)?;
        if &block[..8] != FILE_MAGIC || u32_at(block, 8)? != crc32c::crc32c(&block[HEADER_CHECKED]) {
            return None;
        }
        Some(Header {
            version: u32_at(block, 12)?,
            cluster: Uuid(block[16..32].try_into().ok()?),
            generation: u64_at(block, 32)?,
            continues: Point { seq: u64_at(block, 40)?, check: u32_at(block, 48)? },
        })
    }
}

/// One transaction as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    pub generation: u64,
    pub point: Point,
    pub previous_check: u32,
    pub changes: Vec<Change>,
    /// Bytes in the file, padding included.
    pub len: usize,
}

impl Txn {
    /// The transaction that begins at `bytes`; None where there is none that is whole.
    pub fn decode(bytes: &[u8]) -> Option<Txn> {
        let head = bytes.get(..TXN_HEADER)?;
        let body_len = u32_at(head, 28)? as usize;
        if u32_at(head, 0)? != TXN_MAGIC {
            return None;
        }
        let end = TXN_HEADER.checked_add(body_len)?;
        let checked = bytes.get(8..end)?;
        let check = u32_at(head, 4)?;
        if crc32c::crc32c(checked) != check {
            return None;
        }
        Some(Txn {
            generation: u64_at(head, 8)?,
            point: Point { seq: u64_at(head, 16)?, check },
            previous_check: u32_at(head, 24)?,
            changes: decode_changes(&bytes[TXN_HEADER..end], u32_at(head, 32)?)?,
            len: end.next_multiple_of(BLOCK),
        })
    }
}

/// Where a journal is written on. One write in flight at a time, each with DSYNC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    generation: u64,
    point: Point,
    position: u64,
}

/// Bytes for one place of the journal: a multiple of [`BLOCK`] long, at one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub position: u64,
    pub bytes: Vec<u8>,
}

impl Writer {
    /// Behind the header of a new journal.
    pub fn new(generation: u64, continues: Point) -> Writer {
        Writer { generation, point: continues, position: BLOCK as u64 }
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The last transaction that was encoded.
    pub fn point(&self) -> Point {
        self.point
    }

    /// The next transaction. What it returns must be written, and be durable, before the next call.
    pub fn encode(&mut self, records: &[Record]) -> Write {
        let (body, count) =
            encode_changes(records.iter().map(|record| (record.key().to_string(), record.value())));
        let mut bytes = vec![0; TXN_HEADER];
        bytes[0..4].copy_from_slice(&TXN_MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[16..24].copy_from_slice(&(self.point.seq + 1).to_le_bytes());
        bytes[24..28].copy_from_slice(&self.point.check.to_le_bytes());
        bytes[28..32].copy_from_slice(&(body.len() as u32).to_le_bytes());
        bytes[32..36].copy_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&body);
        let check = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&check.to_le_bytes());
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        let position = self.position;
        self.position += bytes.len() as u64;
        self.point = Point { seq: self.point.seq + 1, check };
        Write { position, bytes }
    }

    /// Behind the last transaction that was encoded.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Time for a new generation.
    pub fn is_full(&self) -> bool {
        self.position > JOURNAL_BYTES_MAX
    }
}

/// The body form of changes, and how many they are.
pub(super) fn encode_changes(changes: impl Iterator<Item = Change>) -> (Vec<u8>, u32) {
    let (mut body, mut count) = (Vec::new(), 0);
    for (key, value) in changes {
        let value_len = value.as_ref().map_or(GONE, |value| value.len() as u32);
        body.extend_from_slice(&(key.len() as u16).to_le_bytes());
        body.extend_from_slice(&value_len.to_le_bytes());
        body.extend_from_slice(key.as_bytes());
        body.extend_from_slice(value.as_deref().unwrap_or_default().as_bytes());
        count += 1;
    }
    (body, count)
}

/// The changes of a body that has exactly this many.
pub(super) fn decode_changes(mut body: &[u8], count: u32) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    for _ in 0..count {
        let key_len = usize::from(u16::from_le_bytes(body.get(..2)?.try_into().ok()?));
        let value_len = u32_at(body, 2)?;
        let (key, rest) = body[6..].split_at_checked(key_len)?;
        let (value, rest) = match value_len {
            GONE => (None, rest),
            len => {
                let (value, rest) = rest.split_at_checked(len as usize)?;
                (Some(String::from_utf8(value.to_vec()).ok()?), rest)
            }
        };
        changes.push((String::from_utf8(key.to_vec()).ok()?, value));
        body = rest;
    }
    body.is_empty().then_some(changes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
