//! Walks the groups of a segment and says where and why the walk ends. Pure: reads through a [`SegmentReader`], decides nothing about the log.
//!
//! Everything that a group consists of is checked before the caller sees any of it: identity (segment uuid and generation), place in the chain
//! (number, base offset, check of the group before), the batches' headers, the group's check over them, and on request each batch's CRC.

use super::epochs::EpochCache;
use super::format::{
    GROUP_HEADER_BYTES, GROUP_MAGIC, GroupCheck, GroupHeader, NotHeader, PrevEnd, SEGMENT_HEADER_BYTES,
    SegmentHeader,
};
use super::producers::Sequenced;
use super::reader::{Missing, SegmentReader};
use crate::base::ids::{LeaderEpoch, ProducerEpoch, ProducerId, Uuid};
use crate::base::limits::{ALIGN, BATCH_HEADER_BYTES, BATCH_UNCHECKED_BYTES};
use crate::base::offset::Offset;

/// Bytes in front of what a batch's length field counts.
const BATCH_LENGTH_OVERHEAD: i64 = 12;
const BATCH_MAGIC: u8 = 2;
const LOG_APPEND_TIME: i16 = 1 << 3;
const CONTROL: i16 = 1 << 5;

/// A batch's header, and where the batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHead {
    pub position: u64,
    /// Of the whole batch.
    pub bytes: u64,
    pub base_offset: Offset,
    pub last_delta: i32,
    pub leader_epoch: LeaderEpoch,
    pub crc: u32,
    pub attributes: i16,
    pub max_timestamp_ms: i64,
    pub producer: ProducerId,
    pub producer_epoch: ProducerEpoch,
    pub base_sequence: i32,
    pub count: i32,
}

impl BatchHead {
    /// Reads the header of a batch at `position`; none if it cannot be one.
    fn decode(head: &[u8], position: u64) -> Option<BatchHead> {
        let bytes = i64::from(be_i32(head, 8)) + BATCH_LENGTH_OVERHEAD;
        let batch = BatchHead {
            position,
            bytes: bytes.max(0) as u64,
            base_offset: Offset(be_i64(head, 0)),
            last_delta: be_i32(head, 23),
            leader_epoch: LeaderEpoch(be_i32(head, 12)),
            crc: be_i32(head, 17) as u32,
            attributes: i16::from_be_bytes([head[21], head[22]]),
            max_timestamp_ms: be_i64(head, 35),
            producer: ProducerId(be_i64(head, 43)),
            producer_epoch: ProducerEpoch(i16::from_be_bytes([head[51], head[52]])),
            base_sequence: be_i32(head, 53),
            count: be_i32(head, 57),
        };
        let plausible =
            head[16] == BATCH_MAGIC && bytes >= BATCH_HEADER_BYTES as i64 && batch.last_delta >= 0;
        plausible.then_some(batch)
    }

    pub fn next_offset(&self) -> Offset {
        Offset(self.base_offset.0.saturating_add(i64::from(self.last_delta) + 1))
    }

    pub fn end(&self) -> u64 {
        self.position + self.bytes
    }

    /// LogAppendTime, or -1 with CreateTime.
    pub fn append_time_ms(&self) -> i64 {
        if self.attributes & LOG_APPEND_TIME != 0 { self.max_timestamp_ms } else { -1 }
    }

    pub fn sequenced(&self) -> Sequenced {
        Sequenced {
            producer: Sequenced::producer_of(self.producer),
            epoch: self.producer_epoch,
            first: self.base_sequence,
            last_delta: self.last_delta,
            control: self.attributes & CONTROL != 0,
        }
    }
}

/// Why a walk ended where it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Zeros where a group would begin.
    Zeros,
    /// The file ends, at a group's end or before a 4096 boundary that could hold one.
    EndOfFile,
    /// Not a group, or one that its own check, or a batch's, does not confirm.
    Bad(&'static str),
    /// A group of another segment or generation: what the file held before.
    Foreign,
    /// A group, or the rest of one, that a newer epoch has replaced: it was cut off, or arrived after its process was dead.
    Replaced,
    /// A group that is valid by itself, but does not follow the one before. Where it ends, and what it knew to be flushed.
    Misplaced { what: &'static str, end: u64, flushed_through: u64 },
    /// A sector of what would be the next group cannot be read.
    Unreadable,
    /// A group of this segment, written by a newer release.
    Newer(u16),
}

impl Stop {
    /// For a person who looks for what should be there.
    pub fn text(&self) -> &'static str {
        match self {
            Stop::Zeros => "zeros where a group should be",
            Stop::EndOfFile => "file ends where a group should be",
            Stop::Bad(what) | Stop::Misplaced { what, .. } => what,
            Stop::Foreign => "group of another segment or generation",
            Stop::Replaced => "group that a newer epoch has replaced",
            Stop::Unreadable => "unreadable sector",
            Stop::Newer(_) => "group of a newer release",
        }
    }
}

/// What the next group of a segment must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    pub segment: Uuid,
    pub generation: u32,
    pub seq: u64,
    pub next_offset: Offset,
    pub prev_check: u32,
}

/// A place in a segment up to which everything is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    pub chain: Chain,
    /// Behind the last good group, not rounded up.
    pub end: u64,
    /// Where that group begins; 0 before the first.
    pub last_group: u64,
}

/// How thoroughly to walk.
#[derive(Clone, Copy, Debug)]
pub struct Depth<'a> {
    /// Verify the CRC of every batch; else headers only.
    pub crc: bool,
    /// False only for the planted bug that forgets the chain: any valid group of the segment is taken.
    pub chain: bool,
    /// Where a segment's end is not known: where its epochs end, at the latest.
    pub epochs: Option<&'a EpochCache>,
}

impl Walk {
    /// Before the first group.
    pub fn start(header: &SegmentHeader, header_check: u32) -> Walk {
        let chain = Chain {
            segment: header.uuid,
            generation: header.generation,
            seq: 0,
            next_offset: header.base_offset,
            prev_check: header_check,
        };
        Walk { chain, end: SEGMENT_HEADER_BYTES as u64, last_group: 0 }
    }

    /// Checks the next group and moves behind it. Its batches are left in `batches`.
    pub fn next(
        &mut self,
        reader: &mut SegmentReader,
        depth: Depth<'_>,
        batches: &mut Vec<BatchHead>,
    ) -> Result<(GroupHeader, u64), Stop> {
        let start = locate(reader, self.end)?;
        let header = read_group(reader, start, &self.chain, depth.crc, batches)?;
        let end = start + GROUP_HEADER_BYTES as u64 + u64::from(header.byte_len);
        if let Some(what) = self.chain.misfit(&header).filter(|_| depth.chain) {
            return Err(Stop::Misplaced { what, end, flushed_through: header.flushed_through });
        }
        let epoch_end = depth.epochs.and_then(|epochs| epochs.end_of(header.leader_epoch));
        if epoch_end.is_some_and(|epoch_end| header.base_offset >= epoch_end) {
            return Err(Stop::Replaced);
        }
        self.chain.seq = header.seq.wrapping_add(1);
        self.chain.next_offset = header.next_offset;
        self.chain.prev_check = header.check;
        self.end = end;
        self.last_group = start;
        Ok((header, start))
    }

    /// Walks to where the groups end, or up to `seal`: none if that was reached and confirmed. `each` sees every batch that counts, with the
    /// position from which a reader can find it: its group's for the first of a group, else its own.
    pub fn run_to(
        &mut self,
        reader: &mut SegmentReader,
        seal: Option<&PrevEnd>,
        depth: Depth<'_>,
        each: &mut dyn FnMut(&BatchHead, u64),
    ) -> Option<Stop> {
        let mut batches = Vec::new();
        loop {
            if let Some(seal) = seal.filter(|seal| self.end >= seal.end) {
                return (!self.ends_at(seal)).then_some(MISFIT);
            }
            let before = *self;
            let (header, start) = match self.next(reader, depth, &mut batches) {
                Ok(next) => next,
                Err(stop) => return Some(stop),
            };
            let epoch_end = depth.epochs.and_then(|epochs| epochs.end_of(header.leader_epoch));
            let cut = epoch_end.filter(|epoch_end| header.next_offset > *epoch_end);
            if let Some(epoch_end) = cut {
                self.keep(&before, &mut batches, |batch| batch.next_offset() <= epoch_end);
            }
            if let Some(seal) = seal.filter(|seal| self.end > seal.end) {
                // Truncated inside this group: its check covers all of it, but only the batches below the seal count.
                self.keep(&before, &mut batches, |batch| batch.end() <= seal.end);
                if !self.ends_at(seal) {
                    *self = before;
                    return Some(MISFIT);
                }
            }
            for (i, batch) in batches.iter().enumerate() {
                each(batch, if i == 0 { start } else { batch.position });
            }
            if cut.is_some() {
                return Some(Stop::Replaced);
            }
        }
    }

    /// Of the group that was just walked, only these batches count; `before` is the walk in front of it.
    fn keep(&mut self, before: &Walk, batches: &mut Vec<BatchHead>, counts: impl Fn(&BatchHead) -> bool) {
        batches.retain(counts);
        let Some(last) = batches.last() else {
            *self = *before;
            return;
        };
        (self.end, self.chain.next_offset) = (last.end(), last.next_offset());
    }

    fn ends_at(&self, seal: &PrevEnd) -> bool {
        (self.end, self.chain.next_offset, self.chain.prev_check) == (seal.end, seal.next_offset, seal.check)
    }
}

/// The walk got to the seal, but it names another end.
const MISFIT: Stop = Stop::Bad("segment does not end as its successor says");

impl Chain {
    fn misfit(&self, header: &GroupHeader) -> Option<&'static str> {
        if header.base_offset != self.next_offset {
            Some("group does not begin at the expected offset")
        } else if header.seq != self.seq {
            Some("group does not have the expected number")
        } else if header.prev_check != self.prev_check {
            Some("group does not continue the chain")
        } else {
            None
        }
    }
}

/// Where the next group begins by the placement rule: at `from`, or at the next 4096 boundary with zeros between.
fn locate(reader: &mut SegmentReader, from: u64) -> Result<u64, Stop> {
    let boundary = from.next_multiple_of(ALIGN as u64);
    for position in [from, boundary] {
        if starts_with_magic(reader, position)? {
            return Ok(position);
        }
        let to = boundary.min(reader.len());
        if position == from && !zeros(reader, from, to)? {
            return Err(Stop::Bad("neither a group nor zeros"));
        }
    }
    let rest = reader.len().min(boundary + ALIGN as u64);
    match rest {
        _ if rest <= boundary => Err(Stop::EndOfFile),
        _ if zeros(reader, boundary, rest)? => Err(Stop::Zeros),
        _ => Err(Stop::Bad("neither a group nor zeros")),
    }
}

fn starts_with_magic(reader: &mut SegmentReader, position: u64) -> Result<bool, Stop> {
    match reader.peek(position, 4) {
        Ok(bytes) => Ok(bytes == GROUP_MAGIC.to_le_bytes()),
        Err(Missing::End) => Ok(false),
        Err(Missing::Unreadable(_)) => Err(Stop::Unreadable),
    }
}

fn zeros(reader: &mut SegmentReader, from: u64, to: u64) -> Result<bool, Stop> {
    reader.is_zero(from, to).map_err(|missing| match missing {
        Missing::End => Stop::EndOfFile,
        Missing::Unreadable(_) => Stop::Unreadable,
    })
}

/// A missing byte inside a group.
fn cut(missing: Missing) -> Stop {
    match missing {
        Missing::End => Stop::Bad("group goes on behind the end of the file"),
        Missing::Unreadable(_) => Stop::Unreadable,
    }
}

/// Checks the group at `start` but for its place in the chain. Its batches are left in `batches`.
pub fn read_group(
    reader: &mut SegmentReader,
    start: u64,
    chain: &Chain,
    crc: bool,
    batches: &mut Vec<BatchHead>,
) -> Result<GroupHeader, Stop> {
    batches.clear();
    let head = reader.peek(start, GROUP_HEADER_BYTES).map_err(cut)?;
    let ours = head[16..32] == chain.segment.0;
    let header = match GroupHeader::decode(head) {
        Ok(header) => header,
        Err(NotHeader::Newer(version)) if ours => return Err(Stop::Newer(version)),
        Err(_) => return Err(Stop::Bad("not a group header")),
    };
    if !ours || header.generation != chain.generation {
        return Err(Stop::Foreign);
    }
    let end = start + GROUP_HEADER_BYTES as u64 + u64::from(header.byte_len);
    if end > reader.len() {
        return Err(Stop::Bad("group goes on behind the end of the file"));
    }
    let mut sum = GroupCheck::default();
    let mut position = start + GROUP_HEADER_BYTES as u64;
    let mut next_offset = header.base_offset;
    for _ in 0..header.batch_count {
        if end - position < BATCH_HEADER_BYTES as u64 {
            return Err(Stop::Bad("batches do not fill the group"));
        }
        let head = reader.peek(position, BATCH_HEADER_BYTES).map_err(cut)?;
        sum.add(head.first_chunk().expect("a batch header was just peeked at"));
        let batch = BatchHead::decode(head, position)
            .filter(|b| b.base_offset == next_offset && b.bytes <= end - position)
            .ok_or(Stop::Bad("not a batch of this group"))?;
        // In the same pass as the headers: a group may be larger than a block, and its bytes are read once.
        let body = position + BATCH_UNCHECKED_BYTES as u64;
        if crc && reader.crc(body, batch.end()).map_err(cut)? != batch.crc {
            return Err(Stop::Bad("batch CRC"));
        }
        position = batch.end();
        next_offset = batch.next_offset();
        batches.push(batch);
    }
    if position != end || next_offset != header.next_offset || next_offset <= header.base_offset {
        return Err(Stop::Bad("batches do not fill the group"));
    }
    if sum.finish(&header) != header.check {
        return Err(Stop::Bad("group check"));
    }
    Ok(header)
}

fn be_i32(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn be_i64(bytes: &[u8], at: usize) -> i64 {
    i64::from(be_i32(bytes, at)) << 32 | i64::from(be_i32(bytes, at + 4) as u32)
}
