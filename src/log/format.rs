//! The on-disk format: what each byte is, and how to read it after a crash.
//!
//! ```text
//! <data dir>/
//!   lock                                     held by flock for the life of the process
//!   meta                                     format version, cluster id, node id, directory uuid   (controller)
//!   metadata/                                topics, ids, configs, placement                        (controller)
//!   <topic uuid>/<partition>/
//!     0000000000.seg  0000000001.seg ...     segments, named by ordinal
//!     state                                  epochs, log start, clean-stop record: see `checkpoint.rs`
//!     producers                              snapshot of producer state at an offset: derived, may be missing
//!     0000000000.idx ...                     sparse index of a sealed segment: derived, may be missing
//! ```
//! Integers of ours are little-endian; record batches are Kafka's and big-endian. Every file is written with direct I/O in multiples of
//! 4096 bytes. `state`, `producers` and `.idx` are replaced whole: temporary file, flush, rename, directory sync.
//!
//! # A segment
//! ```text
//! position 0       SegmentHeader, one 4096-byte block
//! position 4096    group | group | zeros to a 4096 boundary | group | ... | zeros (written ahead)
//! group            GroupHeader (80 bytes) | record batches exactly as Fetch sends them
//! ```
//! **A segment is named by ordinal, not by base offset**, so that its file can be made, zeroed and its directory synced before anyone
//! knows where it will begin. The header, which holds the base offset, is the first write into it. A file whose header is not valid, or
//! names another ordinal, topic or partition than its path (a recycled file), holds nothing yet.
//!
//! **The header of a segment seals its predecessor**: it says where the predecessor ends (`prev_end`), at which offset, and with which check.
//! So a sealed segment needs no footer, and after a crash nothing is ever written into a file that the dead process may still be
//! writing: the truth about its end is in the next file. The first write to a segment is submitted only after its predecessor is
//! flushed to its end (roll barrier). `prev_end` may lie inside the predecessor's last group after a truncation: then the batches of
//! that group below `prev_next_offset` count, and its check still covers the whole group.
//!
//! | byte | SegmentHeader | |
//! |---|---|---|
//! | 0 | magic u32 | `SEGMENT_MAGIC` |
//! | 4 | version u16, reserved u16 | 1 |
//! | 8 | check u32 | CRC-32C of the block with this field zero |
//! | 12 | generation u32 | grows at each recovery |
//! | 16 | segment uuid | random; in every check of this segment, so that a recycled file's old groups are noise |
//! | 32 | topic uuid | |
//! | 48 | partition i32, reserved u32 | |
//! | 56 | ordinal u64 | position in the partition's sequence of segments |
//! | 64 | base_offset i64 | offset of its first record |
//! | 72 | prev uuid | segment uuid of the predecessor; zero for none |
//! | 88 | prev_end u64 | file position behind the predecessor's last byte that counts |
//! | 96 | prev_next_offset i64 | offset behind its last record; equals `base_offset` |
//! | 104 | prev_check u32 | check of its last group, or of its header if it has none |
//! | 108 | leader_epoch i32 | epoch at creation |
//! | 112 | created_ms i64 | wall clock |
//! | 120 | directory uuid | of the data directory |
//!
//! | byte | GroupHeader | |
//! |---|---|---|
//! | 0 | magic u32 | `GROUP_MAGIC`: its first byte on disk is 0xC1, which no base offset starts with |
//! | 4 | version u16, reserved u16 | 1 |
//! | 8 | check u32 | CRC-32C of bytes 0..21 of each batch (Kafka's own CRC is among them, so each byte is summed once), then of this header with this field zero |
//! | 12 | byte_len u32 | bytes of batches behind this header |
//! | 16 | segment uuid | |
//! | 32 | generation u32 | |
//! | 36 | leader_epoch i32 | |
//! | 40 | seq u64 | number of the group within its segment, from 0 |
//! | 48 | base_offset i64 | |
//! | 56 | next_offset i64 | |
//! | 64 | flushed_through u64 | position in this segment that was known flushed when the group was sealed |
//! | 72 | prev_check u32 | check of the group before, or of the segment header for the first |
//! | 76 | batch_count u32 | |
//!
//! # Where the next group stands (placement rule)
//! Right behind its predecessor, or at the next 4096 boundary with zeros between. The writer continues the partial block if no write of this
//! log is in flight (its acked prefix is rewritten with identical bytes), and starts on the boundary if one is: no block is ever under
//! two writes, and memory that a write or a send uses never changes. Readers and recovery try both places: at a position that does not
//! start with `GROUP_MAGIC`, the rest of the block must be zeros and the next boundary is tried, once.
//!
//! # To change the format
//! Raise `FORMAT_VERSION` and keep reading the old one (headers say which they are); add the row to the tables above; add the old bytes as
//! a fixture to the tests. A newer version than this build knows is refused by name, never guessed.

use crate::base::ids::{LeaderEpoch, PartitionIndex, PartitionKey, Uuid};
use crate::base::limits::{ALIGN, BATCH_UNCHECKED_BYTES};
use crate::base::offset::Offset;

pub const FORMAT_VERSION: u16 = 1;
pub const SEGMENT_MAGIC: u32 = 0x4753_4cc1;
pub const GROUP_MAGIC: u32 = 0x5247_4cc1;

/// Bytes of the segment header's block; the first group stands here.
pub const SEGMENT_HEADER_BYTES: usize = ALIGN;
pub const GROUP_HEADER_BYTES: usize = 80;

/// First block of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub generation: u32,
    pub uuid: Uuid,
    pub key: PartitionKey,
    pub ordinal: u64,
    pub base_offset: Offset,
    pub prev: PrevEnd,
    pub leader_epoch: LeaderEpoch,
    pub created_ms: i64,
    pub directory: Uuid,
}

/// Where the predecessor ends: its seal. `uuid` zero for the first segment of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrevEnd {
    pub uuid: Uuid,
    pub end: u64,
    pub next_offset: Offset,
    pub check: u32,
}

/// In front of the batches of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    pub check: u32,
    pub byte_len: u32,
    pub segment: Uuid,
    pub generation: u32,
    pub leader_epoch: LeaderEpoch,
    pub seq: u64,
    pub base_offset: Offset,
    pub next_offset: Offset,
    pub flushed_through: u64,
    pub prev_check: u32,
    pub batch_count: u32,
}

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotHeader {
    /// Another magic: zeros, data, or nothing of ours.
    Magic,
    /// Written by a newer release.
    Newer(u16),
    /// Magic fits, check does not.
    Check,
}

impl SegmentHeader {
    /// The block, and its check, which the first group chains to.
    pub fn encode(&self) -> (Box<[u8; SEGMENT_HEADER_BYTES]>, u32) {
        let mut block = Box::new([0u8; SEGMENT_HEADER_BYTES]);
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &SEGMENT_MAGIC.to_le_bytes());
        put(4, &FORMAT_VERSION.to_le_bytes());
        put(12, &self.generation.to_le_bytes());
        put(16, &self.uuid.0);
        put(32, &self.key.topic.0);
        put(48, &self.key.partition.0.to_le_bytes());
        put(56, &self.ordinal.to_le_bytes());
        put(64, &self.base_offset.0.to_le_bytes());
        put(72, &self.prev.uuid.0);
        put(88, &self.prev.end.to_le_bytes());
        put(96, &self.prev.next_offset.0.to_le_bytes());
        put(104, &self.prev.check.to_le_bytes());
        put(108, &self.leader_epoch.0.to_le_bytes());
        put(112, &self.created_ms.to_le_bytes());
        put(120, &self.directory.0);
        let check = crc32c::crc32c(&block[..]);
        block[8..12].copy_from_slice(&check.to_le_bytes());
        (block, check)
    }

    /// Reads the first block of a segment; also returns its check.
    pub fn decode(block: &[u8]) -> Result<(SegmentHeader, u32), NotHeader> {
        if block.len() < SEGMENT_HEADER_BYTES || le_u32(block, 0) != SEGMENT_MAGIC {
            return Err(NotHeader::Magic);
        }
        let block = &block[..SEGMENT_HEADER_BYTES];
        let check = le_u32(block, 8);
        let sum =
            crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&block[..8]), &[0; 4]), &block[12..]);
        if sum != check {
            return Err(NotHeader::Check);
        }
        if le_u16(block, 4) > FORMAT_VERSION {
            return Err(NotHeader::Newer(le_u16(block, 4)));
        }
        let header = SegmentHeader {
            generation: le_u32(block, 12),
            uuid: uuid(block, 16),
            key: PartitionKey { topic: uuid(block, 32), partition: PartitionIndex(le_u32(block, 48) as i32) },
            ordinal: le_u64(block, 56),
            base_offset: Offset(le_u64(block, 64) as i64),
            prev: PrevEnd {
                uuid: uuid(block, 72),
                end: le_u64(block, 88),
                next_offset: Offset(le_u64(block, 96) as i64),
                check: le_u32(block, 104),
            },
            leader_epoch: LeaderEpoch(le_u32(block, 108) as i32),
            created_ms: le_u64(block, 112) as i64,
            directory: uuid(block, 120),
        };
        Ok((header, check))
    }
}

impl GroupHeader {
    /// The 80 bytes with `check` as it stands.
    pub fn encode(&self) -> [u8; GROUP_HEADER_BYTES] {
        let mut bytes = [0u8; GROUP_HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &GROUP_MAGIC.to_le_bytes());
        put(4, &FORMAT_VERSION.to_le_bytes());
        put(8, &self.check.to_le_bytes());
        put(12, &self.byte_len.to_le_bytes());
        put(16, &self.segment.0);
        put(32, &self.generation.to_le_bytes());
        put(36, &self.leader_epoch.0.to_le_bytes());
        put(40, &self.seq.to_le_bytes());
        put(48, &self.base_offset.0.to_le_bytes());
        put(56, &self.next_offset.0.to_le_bytes());
        put(64, &self.flushed_through.to_le_bytes());
        put(72, &self.prev_check.to_le_bytes());
        put(76, &self.batch_count.to_le_bytes());
        bytes
    }

    /// Reads the fields. Whether `check` holds is known only with the batches: see [`GroupCheck`].
    pub fn decode(bytes: &[u8]) -> Result<GroupHeader, NotHeader> {
        if bytes.len() < GROUP_HEADER_BYTES || le_u32(bytes, 0) != GROUP_MAGIC {
            return Err(NotHeader::Magic);
        }
        if le_u16(bytes, 4) > FORMAT_VERSION {
            return Err(NotHeader::Newer(le_u16(bytes, 4)));
        }
        Ok(GroupHeader {
            check: le_u32(bytes, 8),
            byte_len: le_u32(bytes, 12),
            segment: uuid(bytes, 16),
            generation: le_u32(bytes, 32),
            leader_epoch: LeaderEpoch(le_u32(bytes, 36) as i32),
            seq: le_u64(bytes, 40),
            base_offset: Offset(le_u64(bytes, 48) as i64),
            next_offset: Offset(le_u64(bytes, 56) as i64),
            flushed_through: le_u64(bytes, 64),
            prev_check: le_u32(bytes, 72),
            batch_count: le_u32(bytes, 76),
        })
    }
}

/// Sums a group's check: the first 21 bytes of each batch as it is staged, then the header, whose fields are known last.
#[derive(Clone, Copy, Debug, Default)]
pub struct GroupCheck {
    batches: u32,
}

impl GroupCheck {
    /// Adds a batch by its first 21 bytes, as they stand after stamping.
    pub fn add(&mut self, head: &[u8; BATCH_UNCHECKED_BYTES]) {
        self.batches = crc32c::crc32c_append(self.batches, head);
    }

    /// The check of `header` (whose own `check` field is ignored) in front of these batches.
    pub fn finish(&self, header: &GroupHeader) -> u32 {
        let head = GroupHeader { check: 0, ..header.clone() }.encode();
        crc32c::crc32c_append(self.batches, &head)
    }
}

/// File name of a segment.
pub fn segment_name(ordinal: u64) -> String {
    format!("{ordinal:010}.seg")
}

/// File name of a sealed segment's index.
pub fn index_name(ordinal: u64) -> String {
    format!("{ordinal:010}.idx")
}

/// The ordinal in a segment's file name.
pub fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() >= 10 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

fn le_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn le_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn le_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le_u32(bytes, at)) | u64::from(le_u32(bytes, at + 4)) << 32
}

fn uuid(bytes: &[u8], at: usize) -> Uuid {
    let mut out = [0u8; 16];
    out.copy_from_slice(&bytes[at..at + 16]);
    Uuid(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_and_any_flipped_byte_is_noticed() {
        let header = SegmentHeader {
            generation: 7,
            uuid: Uuid([1; 16]),
            key: PartitionKey { topic: Uuid([2; 16]), partition: PartitionIndex(3) },
            ordinal: 4,
            base_offset: Offset(5),
            prev: PrevEnd { uuid: Uuid([6; 16]), end: 8192, next_offset: Offset(5), check: 9 },
            leader_epoch: LeaderEpoch(10),
            created_ms: 11,
            directory: Uuid([12; 16]),
        };
        let (block, check) = header.encode();
        assert_eq!(SegmentHeader::decode(&block[..]), Ok((header, check)));
        for at in 0..SEGMENT_HEADER_BYTES {
            let mut bad = block.clone();
            bad[at] ^= 1;
            assert!(SegmentHeader::decode(&bad[..]).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_group_check_covers_header_and_batch_heads() {
        let mut header = GroupHeader {
            check: 0,
            byte_len: 100,
            segment: Uuid([1; 16]),
            generation: 2,
            leader_epoch: LeaderEpoch(3),
            seq: 4,
            base_offset: Offset(5),
            next_offset: Offset(6),
            flushed_through: 7,
            prev_check: 8,
            batch_count: 1,
        };
        let mut sum = GroupCheck::default();
        sum.add(&[42; BATCH_UNCHECKED_BYTES]);
        header.check = sum.finish(&header);
        let head = GroupHeader { check: 0, ..header.clone() }.encode();
        let plain = [&[42; BATCH_UNCHECKED_BYTES], &head[..]].concat();
        assert_eq!(header.check, crc32c::crc32c(&plain));
        assert_eq!(GroupHeader::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn segment_names() {
        assert_eq!(parse_segment_name(&segment_name(12)), Some(12));
        assert_eq!(parse_segment_name("12.seg"), None);
        assert_eq!(parse_segment_name("0000000001.idx"), None);
    }
}
