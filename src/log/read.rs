//! Hot path. Reads: a plan made of memory alone, executed by the shard on blocks that it owns, and what came back checked and cut.
//!
//! From the tail cache a read is ready at once. Else it is a few direct reads of whole extents, from the last entry of the segment's index at
//! or before the offset. What they bring is walked batch by batch: offsets must follow on, each batch that is returned must pass its
//! CRC, and each group that lies wholly in what was read must pass its check. A walk may begin inside a group: then only the group's
//! check is left out. Bytes that do not check are read once more; if they still do not, reads of the log end there for good.

use super::append::BatchView;
use super::format::{GROUP_HEADER_BYTES, GROUP_MAGIC, GroupCheck, GroupHeader};
use super::store::{ColdRead, ReadRequest, Records};
use super::tail::Tail;
use crate::base::ids::Uuid;
use crate::base::limits::{ALIGN, BATCH_HEADER_BYTES, BATCH_UNCHECKED_BYTES, BLOCK_BYTES, SEND_PARTS_MAX};
use crate::base::offset::Offset;
use crate::io::buffer::Block;

/// Extents that one cold read plans at most; a batch that is larger gets as many as it needs.
pub const READS_PLANNED_MAX: u64 = 4;

/// The lengths of the reads that cover `position..end` (aligned at the front), each within an extent.
pub fn read_lens(position: u64, end: u64) -> Vec<u32> {
    let (align, block) = (ALIGN as u64, BLOCK_BYTES as u64);
    let end = end.next_multiple_of(align);
    let mut lens = Vec::with_capacity(Tail::write_count(position, end) as usize);
    let mut at = position;
    while at < end {
        let stop = ((at / block + 1) * block).min(end);
        lens.push((stop - at) as u32);
        at = stop;
    }
    lens
}

/// What a walk over cold bytes found.
pub enum Walked {
    Records(Records),
    /// Nothing fits the request.
    Nothing,
    /// The first batch to return ends at or behind this position, beyond what was read: read on from `from`, which expects `offset`.
    Short {
        from: u64,
        offset: Offset,
        end: u64,
    },
    /// The bytes at `position` are not what was written.
    Damaged {
        position: u64,
        offset: Offset,
        what: &'static str,
    },
}

/// The blocks of a cold read as one range of file positions.
struct Bytes<'a> {
    blocks: &'a [Block],
    start: u64,
    end: u64,
}

impl<'a> Bytes<'a> {
    fn new(blocks: &'a [Block], read: &ColdRead) -> Bytes<'a> {
        let mut end = read.position;
        for (block, len) in blocks.iter().zip(&read.lens) {
            end += block.filled() as u64;
            if block.filled() < *len as usize {
                break;
            }
        }
        Bytes { blocks, start: read.position, end: end.min(read.check.end) }
    }

    /// Contiguous bytes from `at` on, at most up to `end`, which lie in one block.
    fn piece(&self, at: u64, end: u64) -> &'a [u8] {
        let block = BLOCK_BYTES as u64;
        let index = (at / block - self.start / block) as usize;
        let base = if index == 0 { self.start } else { at / block * block };
        let stop = end.min((at / block + 1) * block);
        &self.blocks[index].as_slice()[(at - base) as usize..(stop - base) as usize]
    }

    /// Copies `out.len()` bytes at `at`; false if not all of them were read.
    fn copy(&self, at: u64, out: &mut [u8]) -> bool {
        let end = at + out.len() as u64;
        if end > self.end {
            return false;
        }
        let first = self.piece(at, end);
        let (head, rest) = out.split_at_mut(first.len());
        head.copy_from_slice(first);
        if !rest.is_empty() {
            rest.copy_from_slice(self.piece(at + first.len() as u64, end));
        }
        true
    }

    fn crc(&self, from: u64, to: u64) -> u32 {
        let (mut at, mut crc) = (from, 0);
        while at < to {
            let piece = self.piece(at, to);
            crc = crc32c::crc32c_append(crc, piece);
            at += piece.len() as u64;
        }
        crc
    }

    fn is_zero(&self, from: u64, to: u64) -> bool {
        let mut at = from;
        while at < to {
            let piece = self.piece(at, to);
            if piece.iter().any(|b| *b != 0) {
                return false;
            }
            at += piece.len() as u64;
        }
        true
    }
}

/// The group that a walk is in.
struct Within {
    header: GroupHeader,
    start: u64,
    end: u64,
    sum: GroupCheck,
}

struct Walk<'a> {
    bytes: Bytes<'a>,
    request: &'a ReadRequest,
    segment: Uuid,
    /// Where the segment's bytes end.
    end: u64,
    at: u64,
    expected: Offset,
    /// None inside a group whose header was not seen.
    group: Option<Within>,
    /// End and check of the group before that one.
    before: Option<(u64, u32)>,
    /// Ranges to return, without the headers between them, and how many parts they make.
    runs: Vec<(u64, u64)>,
    parts: u32,
    taken: u64,
    next_offset: Offset,
}

/// One step of a walk.
enum Step {
    On,
    Stop,
    /// More bytes are needed, up to this position.
    More(u64),
    Damaged(&'static str),
}

/// Checks and cuts what `read` brought.
pub fn walk(read: &ColdRead, segment: Uuid, blocks: &mut [Block]) -> Walked {
    let mut walk = Walk::new(read, segment, blocks);
    let wanted = loop {
        match walk.step() {
            Step::On => {}
            Step::Stop => break None,
            Step::More(end) => break Some(end),
            Step::Damaged(what) => {
                return Walked::Damaged { position: walk.at, offset: walk.expected, what };
            }
        }
    };
    if let Err(what) = walk.finish_group() {
        return Walked::Damaged { position: walk.at, offset: walk.expected, what };
    }
    match wanted {
        Some(end) if walk.runs.is_empty() => {
            Walked::Short { from: walk.at, offset: walk.expected, end: end.min(walk.end) }
        }
        _ if walk.runs.is_empty() => Walked::Nothing,
        _ => {
            let (runs, bytes, next_offset) = (walk.runs, walk.taken as usize, walk.next_offset);
            let mut records = Records { bytes, next_offset, ..Records::default() };
            for (from, to) in runs {
                share(read, blocks, from, to, &mut records);
            }
            Walked::Records(records)
        }
    }
}

/// Where a segment is cut so that it ends at or before an offset.
pub enum CutAt {
    /// File position, the offset there, and the check of the group that the position lies in or behind.
    Cut {
        end: u64,
        next_offset: Offset,
        check: u32,
    },
    /// The group that the cut lies in, or behind, was not seen from its beginning: begin at an earlier entry.
    Earlier,
    /// Not enough was read.
    Short,
    Damaged(&'static str),
}

/// Finds the end of the last batch that ends at or before `read.request.from`, which is also its `until`.
pub fn find_cut(read: &ColdRead, segment: Uuid, blocks: &[Block]) -> CutAt {
    let mut walk = Walk::new(read, segment, blocks);
    loop {
        match walk.step() {
            Step::On => {}
            Step::More(_) => return CutAt::Short,
            Step::Damaged(what) => return CutAt::Damaged(what),
            Step::Stop => break,
        }
    }
    let next_offset = walk.expected;
    match (&walk.group, walk.before) {
        (None, _) => CutAt::Earlier,
        (Some(group), before) if walk.at == group.start + GROUP_HEADER_BYTES as u64 => match before {
            // Nothing of this group stays: the one before is the last.
            Some((end, check)) => CutAt::Cut { end, next_offset, check },
            None => CutAt::Earlier,
        },
        (Some(group), _) => CutAt::Cut { end: walk.at, next_offset, check: group.header.check },
    }
}

impl<'a> Walk<'a> {
    fn new(read: &'a ColdRead, segment: Uuid, blocks: &'a [Block]) -> Walk<'a> {
        Walk {
            bytes: Bytes::new(blocks, read),
            request: &read.request,
            segment,
            end: read.check.end,
            at: read.check.start,
            expected: read.check.start_offset,
            group: None,
            before: None,
            runs: Vec::new(),
            parts: 0,
            taken: 0,
            next_offset: read.request.from,
        }
    }

    fn step(&mut self) -> Step {
        if self.at >= self.end || self.expected >= self.request.until {
            return Step::Stop;
        }
        match &self.group {
            Some(group) if self.at < group.end => self.batch(),
            _ => self.boundary(),
        }
    }

    /// At the end of a group, or anywhere in an unknown one: a header, zeros up to the next boundary, or (unknown) a batch.
    fn boundary(&mut self) -> Step {
        if let Err(what) = self.finish_group() {
            return Step::Damaged(what);
        }
        let behind_group = self.group.is_some();
        let mut head = [0u8; GROUP_HEADER_BYTES];
        if !self.bytes.copy(self.at, &mut head) {
            // The last batch of a segment may be shorter than a group's header.
            let last = !behind_group && self.bytes.end == self.end;
            return if last { self.batch() } else { Step::More(self.at + GROUP_HEADER_BYTES as u64) };
        }
        if head.starts_with(&GROUP_MAGIC.to_le_bytes()) {
            return self.enter(&head);
        }
        // Padding may be as short as a byte, so that a look at some field would see the next block. The offset that is due decides.
        let view = BatchView::of(&head);
        if !behind_group && view.base_offset == self.expected && view.bytes >= BATCH_HEADER_BYTES as u64 {
            return self.batch();
        }
        let padding = self.at.next_multiple_of(ALIGN as u64);
        if padding == self.at || padding > self.bytes.end {
            return Step::Damaged("no group where one should begin");
        }
        if !self.bytes.is_zero(self.at, padding) {
            return Step::Damaged("neither a group nor padding");
        }
        self.at = padding;
        Step::On
    }

    fn enter(&mut self, head: &[u8]) -> Step {
        let Ok(header) = GroupHeader::decode(head) else { return Step::Damaged("unreadable group header") };
        let start = self.at;
        let end = start + GROUP_HEADER_BYTES as u64 + u64::from(header.byte_len);
        if header.segment != self.segment || header.base_offset != self.expected {
            return Step::Damaged("a group of another place");
        }
        self.at += GROUP_HEADER_BYTES as u64;
        self.before = self.group.take().map(|group| (group.end, group.header.check));
        self.group = Some(Within { header, start, end, sum: GroupCheck::default() });
        Step::On
    }

    fn batch(&mut self) -> Step {
        let mut head = [0u8; BATCH_HEADER_BYTES];
        if !self.bytes.copy(self.at, &mut head) {
            return Step::More(self.at + BATCH_HEADER_BYTES as u64);
        }
        let batch = BatchView::of(&head);
        let end = self.at + batch.bytes;
        if batch.base_offset != self.expected || batch.next_offset <= self.expected {
            return Step::Damaged("offsets do not follow on");
        }
        let group_end = self.group.as_ref().map_or(self.end, |g| g.end);
        if batch.bytes < BATCH_HEADER_BYTES as u64 || end > group_end {
            return Step::Damaged("a batch longer than its group");
        }
        if batch.next_offset > self.request.until {
            return Step::Stop;
        }
        if batch.next_offset > self.request.from {
            let fits = self.taken + batch.bytes <= u64::from(self.request.bytes_max);
            let forced = self.taken == 0 && self.request.at_least_one;
            if !fits && !forced {
                return Step::Stop;
            }
            if end > self.bytes.end {
                return Step::More(end);
            }
            let claimed = u32::from_be_bytes([head[17], head[18], head[19], head[20]]);
            if self.bytes.crc(self.at + BATCH_UNCHECKED_BYTES as u64, end) != claimed {
                return Step::Damaged("batch checksum");
            }
            if !self.take(self.at, end) {
                return Step::Stop;
            }
            self.next_offset = batch.next_offset;
        } else if end > self.bytes.end {
            return Step::More(end);
        }
        self.pass(&head, end, batch.next_offset);
        Step::On
    }

    fn pass(&mut self, head: &[u8; BATCH_HEADER_BYTES], end: u64, next: Offset) {
        if let Some(group) = &mut self.group {
            group.sum.add(head.first_chunk().expect("a header is longer"));
        }
        self.at = end;
        self.expected = next;
    }

    /// Adds a batch to what is returned. False if that would make too many parts.
    fn take(&mut self, from: u64, to: u64) -> bool {
        match self.runs.last_mut() {
            Some((_, end)) if *end == from => {
                self.parts +=
                    Tail::write_count(from, to) - u32::from(!from.is_multiple_of(BLOCK_BYTES as u64));
                *end = to;
            }
            _ => {
                let parts = Tail::write_count(from, to);
                if self.parts > 0 && (self.parts + parts) as usize > SEND_PARTS_MAX {
                    return false;
                }
                self.parts += parts;
                self.runs.push((from, to));
            }
        }
        self.taken += to - from;
        true
    }

    /// Checks the group as far as its bytes were read: all of it, or not at all.
    fn finish_group(&mut self) -> Result<(), &'static str> {
        let Some(group) = &mut self.group else { return Ok(()) };
        let (mut at, mut sum) = (self.at, group.sum);
        if group.end > self.bytes.end || at < group.start {
            return Ok(());
        }
        let mut head = [0u8; BATCH_HEADER_BYTES];
        while at < group.end {
            let whole = self.bytes.copy(at, &mut head);
            let size = BatchView::of(&head).bytes;
            if !whole || size < BATCH_HEADER_BYTES as u64 || at + size > group.end {
                return Err("a batch longer than its group");
            }
            sum.add(head.first_chunk().expect("a header is longer"));
            at += size;
        }
        if sum.finish(&group.header) != group.header.check { Err("group check") } else { Ok(()) }
    }
}

/// Adds `from..to` of the read to the records, one part per block.
fn share(read: &ColdRead, blocks: &mut [Block], from: u64, to: u64, records: &mut Records) {
    let block = BLOCK_BYTES as u64;
    let mut at = from;
    while at < to {
        let index = (at / block - read.position / block) as usize;
        let base = if index == 0 { read.position } else { at / block * block };
        let stop = ((at / block + 1) * block).min(to);
        records.parts.push(blocks[index].slice((at - base) as usize..(stop - base) as usize));
        at = stop;
    }
}
