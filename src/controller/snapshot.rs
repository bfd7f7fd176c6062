//! The snapshot: every key and value at one point of the history, in one file that is written once. Integers are little-endian.
//!
//! ```text
//!   0  magic          "CLSNAP\0\0"
//!   8  check          u32   CRC-32C of bytes 12..80 + body
//!  12  version        u32   that of the journal
//!  16  cluster        16 bytes
//!  32  generation     u64   this file's number
//!  40  seq            u64   the last transaction that is in it
//!  48  its check      u32   where the journal of this generation continues
//!  52  body bytes     u64
//!  60  changes        u32   number of values in the body
//!  64  zeros to 80
//!  80  body                 as in a transaction of the journal
//!      zeros to the next multiple of 4096
//! ```

use super::image::Image;
use super::journal::{BLOCK, Change, Point, VERSION, decode_changes, encode_changes, u32_at, u64_at};
use crate::base::ids::Uuid;

const MAGIC: &[u8; 8] = b"CLSNAP\0\0";
const HEADER: usize = 80;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub version: u32,
    pub cluster: Uuid,
    pub generation: u64,
    pub point: Point,
    pub values: Vec<Change>,
}

/// The bytes of a snapshot of this image.
pub fn encode(image: &Image, cluster: Uuid, generation: u64, point: Point) -> Vec<u8> {
    let records = image.records();
    let (body, count) =
        encode_changes(records.iter().map(|record| (record.key().to_string(), record.value())));
    let mut bytes = vec![0; HEADER];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[12..16].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..32].copy_from_slice(&cluster.0);
    bytes[32..40].copy_from_slice(&generation.to_le_bytes());
    bytes[40..48].copy_from_slice(&point.seq.to_le_bytes());
    bytes[48..52].copy_from_slice(&point.check.to_le_bytes());
    bytes[52..60].copy_from_slice(&(body.len() as u64).to_le_bytes());
    bytes[60..64].copy_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&body);
    let check = crc32c::crc32c(&bytes[12..]);
    bytes[8..12].copy_from_slice(&check.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// None: not a whole snapshot.
pub fn decode(bytes: &[u8]) -> Option<Snapshot> {
    let head = bytes.get(..HEADER)?;
    let body_len = usize::try_from(u64_at(head, 52)?).ok()?;
    let end = HEADER.checked_add(body_len)?;
    if &head[..8] != MAGIC || u32_at(head, 8)? != crc32c::crc32c(bytes.get(12..end)?) {
        return None;
    }
    Some(Snapshot {
        version: u32_at(head, 12)?,
        cluster: Uuid(head[16..32].try_into().ok()?),
        generation: u64_at(head, 32)?,
        point: Point { seq: u64_at(head, 40)?, check: u32_at(head, 48)? },
        values: decode_changes(&bytes[HEADER..end], u32_at(head, 60)?)?,
    })
}
