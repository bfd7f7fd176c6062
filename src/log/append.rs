//! Hot path. Staging: batches are copied once, from the request into the block that mirrors where they will stand in the file. Base offset,
//! leader epoch and, if the topic says so, the append time are written on the way. `append` is not `flush`: see `commit.rs`.
//!
//! A group is open from its first batch until something needs its header: a commit, a roll, its size, or a reader. It is sealed once and
//! never changes afterwards. A stretch is what is staged of one segment; more than one exists only while a predecessor is not flushed to
//! its end (roll barrier).

use std::collections::VecDeque;

use super::format::{GROUP_HEADER_BYTES, GroupCheck, GroupHeader, SEGMENT_HEADER_BYTES};
use super::tail::{Group, Place, Tail};
use crate::base::ids::{LeaderEpoch, ProducerEpoch, ProducerId, Uuid};
use crate::base::limits::{ALIGN, BATCH_HEADER_BYTES, BATCH_UNCHECKED_BYTES, BLOCK_BYTES};
use crate::base::offset::Offset;
use crate::io::buffer::Block;

/// A group is sealed once it holds this much: bounds the memory that one check, and one cut of a fetch, has to walk.
pub const GROUP_BYTES_TARGET: u64 = 1024 * 1024;

const LOG_APPEND_TIME: i16 = 1 << 3;

/// What the store reads of a batch's header to find the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchView {
    pub base_offset: Offset,
    pub next_offset: Offset,
    /// Whole size.
    pub bytes: u64,
}

impl BatchView {
    /// Bytes of a header that it is read from.
    pub const BYTES: usize = 27;

    /// Reads the fields; plausible only if the bytes are a batch.
    pub fn of(head: &[u8]) -> BatchView {
        let base = i64::from_be_bytes(field(head, 0));
        let length = i64::from(i32::from_be_bytes(field(head, 8)));
        let last_delta = i64::from(i32::from_be_bytes(field(head, 23)));
        BatchView {
            base_offset: Offset(base),
            next_offset: Offset(base.wrapping_add(last_delta).wrapping_add(1)),
            bytes: (length + 12).max(0) as u64,
        }
    }
}

/// The header fields of a batch that the log acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHead {
    pub view: BatchView,
    pub leader_epoch: LeaderEpoch,
    pub max_timestamp: i64,
    pub producer: ProducerId,
    pub producer_epoch: ProducerEpoch,
    pub base_sequence: i32,
    pub attributes: i16,
}

impl BatchHead {
    /// Reads the header of a batch; none if there are not even as many bytes.
    pub fn of(batch: &[u8]) -> Option<BatchHead> {
        if batch.len() < BATCH_HEADER_BYTES {
            return None;
        }
        Some(BatchHead {
            view: BatchView::of(batch),
            leader_epoch: LeaderEpoch(i32::from_be_bytes(field(batch, 12))),
            attributes: i16::from_be_bytes(field(batch, 21)),
            max_timestamp: i64::from_be_bytes(field(batch, 35)),
            producer: ProducerId(i64::from_be_bytes(field(batch, 43))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(field(batch, 51))),
            base_sequence: i32::from_be_bytes(field(batch, 53)),
        })
    }

    /// Records that the batch stands for.
    pub fn count(&self) -> i64 {
        self.view.next_offset.0 - self.view.base_offset.0
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// What a batch gets written over as it is staged.
#[derive(Clone, Copy, Debug)]
pub struct Stamping {
    pub base_offset: Offset,
    pub leader_epoch: LeaderEpoch,
    /// LogAppendTime in ms.
    pub append_time_ms: Option<i64>,
}

/// The first bytes of a batch as they are stored: stamped, with a new CRC if the time was changed.
fn stamped_head(batch: &[u8], stamping: &Stamping) -> [u8; BATCH_HEADER_BYTES] {
    let mut head: [u8; BATCH_HEADER_BYTES] = field(batch, 0);
    head[0..8].copy_from_slice(&stamping.base_offset.0.to_be_bytes());
    head[12..16].copy_from_slice(&stamping.leader_epoch.0.to_be_bytes());
    if let Some(time) = stamping.append_time_ms {
        let attributes = i16::from_be_bytes(field(batch, 21)) | LOG_APPEND_TIME;
        head[21..23].copy_from_slice(&attributes.to_be_bytes());
        head[35..43].copy_from_slice(&time.to_be_bytes());
        let crc = crc32c::crc32c(&head[BATCH_UNCHECKED_BYTES..]);
        let crc = crc32c::crc32c_append(crc, &batch[BATCH_HEADER_BYTES..]);
        head[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    head
}

/// A group that takes batches.
#[derive(Clone, Copy, Debug)]
struct Open {
    start: u64,
    base: Offset,
    batches: u32,
    sum: GroupCheck,
}

/// What is staged of one segment and not submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub ordinal: u64,
    /// Where the first group begins that was not submitted; 0 if not even the segment's header was.
    pub from: u64,
    /// Behind the last staged byte.
    pub end: u64,
    /// Offset behind the last staged batch.
    pub next_offset: Offset,
}

impl Stretch {
    pub fn bytes(&self) -> u64 {
        self.end - self.from
    }

    pub fn place(&self) -> Place {
        Place { ordinal: self.ordinal, position: self.end }
    }
}

/// The identity that the group headers of a segment repeat, and where its chain stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chain {
    pub segment: Uuid,
    pub generation: u32,
    pub leader_epoch: LeaderEpoch,
    pub seq: u64,
    pub prev_check: u32,
}

/// The staging side of one log. The last stretch is the active segment's.
#[derive(Debug, Default)]
pub struct Stage {
    pub stretches: VecDeque<Stretch>,
    pub chain: Chain,
    open: Option<Open>,
    last_group: u64,
}

impl Stage {
    pub fn active(&self) -> Option<&Stretch> {
        self.stretches.back()
    }

    /// Staged and not submitted, over all segments.
    pub fn bytes(&self) -> u64 {
        self.stretches.iter().map(Stretch::bytes).sum()
    }

    /// Where the active segment would end with `batch_bytes` more; none without an active segment.
    pub fn end_with(&self, batch_bytes: usize) -> Option<u64> {
        let header = if self.open.is_some() { 0 } else { GROUP_HEADER_BYTES as u64 };
        self.active().map(|a| a.end + header + batch_bytes as u64)
    }

    /// Blocks to reserve before a batch of `bytes` is staged: in the active segment, or in a new one if it `rolls`.
    pub fn blocks_wanted(&self, tail: &Tail, bytes: usize, rolls: bool) -> usize {
        let (room, block, bytes) = match self.active().filter(|_| !rolls) {
            None => (BLOCK_BYTES, 1, SEGMENT_HEADER_BYTES + GROUP_HEADER_BYTES + bytes),
            Some(active) => match tail.room_at(active.place()) {
                Some(room) => (room, 0, ALIGN + GROUP_HEADER_BYTES + bytes),
                None => {
                    let at = active.end.next_multiple_of(ALIGN as u64) as usize % BLOCK_BYTES;
                    (BLOCK_BYTES - at, 1, GROUP_HEADER_BYTES + bytes)
                }
            },
        };
        block + bytes.saturating_sub(room).div_ceil(BLOCK_BYTES)
    }

    /// Begins the segment `ordinal`, whose header block is `header`. The predecessor's last group is sealed.
    pub fn begin_segment(
        &mut self,
        tail: &mut Tail,
        ordinal: u64,
        base: Offset,
        header: &[u8],
        chain: Chain,
        spare: &mut Vec<Block>,
    ) {
        assert!(self.open.is_none(), "a roll seals the open group");
        let place = Place { ordinal, position: 0 };
        tail.start_block(place, spare.pop().expect("blocks were reserved"));
        tail.push(header, spare);
        self.chain = chain;
        self.last_group = 0;
        self.stretches.push_back(Stretch { ordinal, from: 0, end: header.len() as u64, next_offset: base });
    }

    /// Goes on behind the end of a segment that was closed in order.
    pub fn reopen(&mut self, ordinal: u64, end: u64, next_offset: Offset, last_group: u64, chain: Chain) {
        self.chain = chain;
        self.last_group = last_group;
        self.stretches.push_back(Stretch { ordinal, from: end, end, next_offset });
    }

    /// Copies one batch to the end of the active segment; returns the position of it, or of the group that begins with it. `writing`: writes
    /// of this log are in flight.
    pub fn push(
        &mut self,
        tail: &mut Tail,
        batch: &[u8],
        stamping: &Stamping,
        writing: bool,
        spare: &mut Vec<Block>,
    ) -> u64 {
        if self.open.is_none() {
            self.open_group(tail, stamping.base_offset, writing, spare);
        }
        let active = self.stretches.back_mut().expect("an active segment");
        let open = self.open.as_mut().expect("an open group");
        let head = stamped_head(batch, stamping);
        let view = BatchView::of(&head);
        let position = if open.batches == 0 { open.start } else { active.end };
        tail.mark(active.place(), stamping.base_offset);
        tail.push(&head, spare);
        tail.push(&batch[BATCH_HEADER_BYTES..], spare);
        open.sum.add(head.first_chunk().expect("a head is longer"));
        open.batches += 1;
        active.end += batch.len() as u64;
        active.next_offset = view.next_offset;
        position
    }

    /// Position of the active segment's last group, open or sealed; 0 if it has none.
    pub fn last_group(&self) -> u64 {
        self.last_group
    }

    /// The open group has its target size.
    pub fn is_full(&self) -> bool {
        let end = self.active().map_or(0, |a| a.end);
        self.open.as_ref().is_some_and(|open| end - open.start >= GROUP_BYTES_TARGET)
    }

    /// Seals the open group, if there is one: its header is final from here on. `flushed` is the position of the active segment that is
    /// known flushed.
    pub fn seal(&mut self, tail: &mut Tail, flushed: u64) {
        let Some(open) = self.open.take() else { return };
        let active = self.stretches.back().expect("an active segment");
        let mut header = GroupHeader {
            check: 0,
            byte_len: (active.end - open.start) as u32 - GROUP_HEADER_BYTES as u32,
            segment: self.chain.segment,
            generation: self.chain.generation,
            leader_epoch: self.chain.leader_epoch,
            seq: self.chain.seq,
            base_offset: open.base,
            next_offset: active.next_offset,
            flushed_through: flushed,
            prev_check: self.chain.prev_check,
            batch_count: open.batches,
        };
        header.check = open.sum.finish(&header);
        tail.patch(Place { ordinal: active.ordinal, position: open.start }, &header.encode());
        self.chain.seq += 1;
        self.chain.prev_check = header.check;
        tail.add_group(Group {
            ordinal: active.ordinal,
            start: open.start,
            end: active.end,
            base: open.base,
            next: active.next_offset,
        });
    }

    /// The first stretch was submitted to its end.
    pub fn submitted(&mut self) {
        let first = self.stretches.front_mut().expect("a stretch");
        first.from = first.end;
    }

    /// Reserves the header of a new group. It stands right behind its predecessor, but on the next 4096 boundary if that one is under write, or
    /// if its block was evicted.
    fn open_group(&mut self, tail: &mut Tail, base: Offset, writing: bool, spare: &mut Vec<Block>) {
        let active = self.stretches.back_mut().expect("an active segment");
        let all_submitted = active.from == active.end;
        if tail.room_at(active.place()).is_none() {
            assert!(all_submitted, "unsubmitted bytes are cached");
            active.end = active.end.next_multiple_of(ALIGN as u64);
            active.from = active.end;
            tail.start_block(active.place(), spare.pop().expect("blocks were reserved"));
        } else if writing && all_submitted {
            active.end += tail.pad_over();
            active.from = active.end;
        }
        self.last_group = active.end;
        self.open = Some(Open { start: active.end, base, batches: 0, sum: GroupCheck::default() });
        tail.push(&[0; GROUP_HEADER_BYTES], spare);
        active.end += GROUP_HEADER_BYTES as u64;
    }
}
