//! Hot path. The tail cache of one log: the blocks that appends were staged in, kept for readers after they are written.
//!
//! A block mirrors one 256 KiB extent of a segment file, so a position in the file is a position in a block. Blocks stand in log order, without
//! gaps from the first one to the last. The table of groups covers the cached range: a group whose first byte was evicted is read from disk.
//! Whole blocks are evicted, oldest first, once they are flushed to their filled end; a reader's slice keeps the memory, not the entry.
//!
//! # Non-obvious
//! - A reader freezes what it slices, so only sealed groups are read: the header of an open group is still to be patched.
//! - The last, partly filled block of a log that is quiet may go as well, or a thousand quiet logs would hold a thousand blocks.
//!   The next group then starts on the 4096 boundary of a new block for the same extent (`first` says from where it counts).

use std::collections::VecDeque;

use super::append::BatchView;
use super::format::GROUP_HEADER_BYTES;
use super::store::{ReadRequest, Records};
use crate::base::limits::{BLOCK_BYTES, SEND_PARTS_MAX};
use crate::base::offset::Offset;
use crate::io::buffer::Block;

/// Bytes between two marks within a group: a walk over batch headers is at most this long, and one batch.
const MARK_BYTES: u64 = 16 * 1024;

/// A place in a log's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub ordinal: u64,
    pub position: u64,
}

/// A sealed group in the cached range.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub ordinal: u64,
    /// Of its header.
    pub start: u64,
    /// Behind its last batch.
    pub end: u64,
    pub base: Offset,
    pub next: Offset,
}

/// A batch inside a group, from which a walk may begin.
#[derive(Clone, Copy, Debug)]
struct Mark {
    place: Place,
    offset: Offset,
}

struct Cached {
    ordinal: u64,
    extent: u64,
    /// Bytes of the block before this one were not staged here.
    first: usize,
    block: Block,
}

impl Cached {
    fn start(&self) -> Place {
        Place { ordinal: self.ordinal, position: self.extent * BLOCK_BYTES as u64 + self.first as u64 }
    }

    fn end(&self) -> Place {
        Place {
            ordinal: self.ordinal,
            position: self.extent * BLOCK_BYTES as u64 + self.block.filled() as u64,
        }
    }
}

#[derive(Default)]
pub struct Tail {
    blocks: VecDeque<Cached>,
    groups: VecDeque<Group>,
    marks: VecDeque<Mark>,
    /// Where the last mark or group began.
    marked: Place,
}

impl Tail {
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Bytes of free room behind `place`, if the last block holds it; the writer continues there.
    pub fn room_at(&self, place: Place) -> Option<usize> {
        self.blocks.back().filter(|b| b.end() == place).map(|b| b.block.room())
    }

    /// Starts the block that holds `place`, which is 4096-aligned and where the log is staged next.
    pub fn start_block(&mut self, place: Place, mut block: Block) {
        let first = place.position as usize % BLOCK_BYTES;
        block.set_filled(first);
        let extent = place.position / BLOCK_BYTES as u64;
        self.blocks.push_back(Cached { ordinal: place.ordinal, extent, first, block });
    }

    /// Stages `bytes` behind the last block's filled end, into `spare` blocks once that is full. The caller has reserved enough of them.
    pub fn push(&mut self, mut bytes: &[u8], spare: &mut Vec<Block>) {
        while !bytes.is_empty() {
            let back = self.blocks.back_mut().expect("a block to stage into");
            let done = back.block.append(bytes);
            bytes = &bytes[done..];
            if !bytes.is_empty() {
                let next = Place { ordinal: back.ordinal, position: (back.extent + 1) * BLOCK_BYTES as u64 };
                let block = spare.pop().expect("blocks were reserved");
                self.start_block(next, block);
            }
        }
    }

    /// Goes on at the next 4096 boundary; returns how many bytes that skips.
    pub fn pad_over(&mut self) -> u64 {
        let block = &mut self.blocks.back_mut().expect("a block to pad").block;
        let before = block.filled();
        block.pad_over();
        (block.filled() - before) as u64
    }

    /// Overwrites staged bytes of an open group; may span two blocks.
    pub fn patch(&mut self, place: Place, bytes: &[u8]) {
        let mut place = place;
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let at = place.position as usize % BLOCK_BYTES;
            let len = bytes.len().min(BLOCK_BYTES - at);
            let index = self.block_of(place).expect("an open group is cached");
            self.blocks[index].block.patch(at, &bytes[..len]);
            bytes = &bytes[len..];
            place.position += len as u64;
        }
    }

    /// Enters a sealed group into the table.
    pub fn add_group(&mut self, group: Group) {
        self.groups.push_back(group);
    }

    /// Notes a staged batch as a place to start walking from, if the last such place is far enough away.
    pub fn mark(&mut self, place: Place, offset: Offset) {
        let near = self.marked.ordinal == place.ordinal && place.position < self.marked.position + MARK_BYTES;
        if !near {
            self.marks.push_back(Mark { place, offset });
            self.marked = place;
        }
    }

    /// The slices of the direct writes for `from..end` of a segment, one per block; `from` is 4096-aligned, `end` is what is staged.
    pub fn write_slices(
        &mut self,
        from: Place,
        end: u64,
        mut emit: impl FnMut(u64, u64, crate::io::buffer::BlockSlice),
    ) {
        let mut at = from;
        while at.position < end {
            let index = self.block_of(at).expect("staged bytes are cached");
            let cached = &mut self.blocks[index];
            let slice = cached.block.slice_padded(at.position as usize % BLOCK_BYTES);
            let stop = cached.end().position.min(end);
            debug_assert_eq!(stop, cached.end().position, "a write ends where its block is filled");
            emit(at.position, stop, slice);
            at.position = (cached.extent + 1) * BLOCK_BYTES as u64;
        }
    }

    /// The last group of this segment that ends at or before `place`; none if no such group is cached.
    pub fn group_before(&self, place: Place) -> Option<&Group> {
        let index = self.groups.partition_point(|g| (g.ordinal, g.end) <= (place.ordinal, place.position));
        index.checked_sub(1).map(|i| &self.groups[i]).filter(|g| g.ordinal == place.ordinal)
    }

    /// How many writes `from..end` makes.
    pub fn write_count(from: u64, end: u64) -> u32 {
        let block = BLOCK_BYTES as u64;
        (end.div_ceil(block) - from / block) as u32
    }

    /// Drops the oldest block if it ends at or before `flushed`. A partly filled last block goes only with `partial`.
    pub fn evict(&mut self, flushed: Place, partial: bool) -> bool {
        let Some(front) = self.blocks.front() else { return false };
        let whole = front.block.room() == 0 || self.blocks.len() > 1;
        if front.end() > flushed || !(whole || partial) {
            return false;
        }
        self.blocks.pop_front();
        let start = self.blocks.front().map(Cached::start);
        let gone = |at: Place| start.is_none_or(|s| at < s);
        while self.groups.front().is_some_and(|g| gone(Place { ordinal: g.ordinal, position: g.start })) {
            self.groups.pop_front();
        }
        while self.marks.front().is_some_and(|m| gone(m.place)) {
            self.marks.pop_front();
        }
        true
    }

    /// Forgets everything. For a deleted or truncated log.
    pub fn clear(&mut self) {
        self.blocks.clear();
        self.groups.clear();
        self.marks.clear();
        self.marked = Place::default();
    }

    /// First offset that is cached.
    pub fn first_offset(&self) -> Option<Offset> {
        self.groups.front().map(|g| g.base)
    }

    /// Behind the last offset in the table.
    pub fn next_offset(&self) -> Option<Offset> {
        self.groups.back().map(|g| g.next)
    }

    /// The group that holds `offset`.
    pub fn group_of(&self, offset: Offset) -> Option<usize> {
        let index = self.groups.partition_point(|g| g.next <= offset);
        (index < self.groups.len() && self.groups[index].base <= offset).then_some(index)
    }

    /// The whole batches from the one that holds `request.from`, or none if that is not cached. Nothing is checked again: these bytes were
    /// checked when they came in and did not leave memory since.
    pub fn read(&mut self, request: &ReadRequest) -> Option<Records> {
        let first = self.group_of(request.from)?;
        let (mut position, mut offset) = self.batch_of(first, request.from);
        let mut records = Records { cached: true, next_offset: offset, ..Records::default() };
        for index in first..self.groups.len() {
            let group = self.groups[index];
            if index > first {
                position = group.start + GROUP_HEADER_BYTES as u64;
                offset = group.base;
            }
            let room = u64::from(request.bytes_max).saturating_sub(records.bytes as u64);
            let whole = group.next <= request.until && group.end - position <= room;
            let (end, next) = if whole {
                (group.end, group.next)
            } else {
                let forced = request.at_least_one && records.bytes == 0;
                self.cut(&group, (position, offset), room, request.until, forced)
            };
            if end == position || !self.share(group.ordinal, position, end, &mut records) {
                break;
            }
            records.next_offset = next;
            if !whole {
                break;
            }
        }
        Some(records)
    }

    /// Position and base offset of the batch of group `index` that holds `offset`.
    pub fn batch_of(&self, index: usize, offset: Offset) -> (u64, Offset) {
        let group = &self.groups[index];
        let (mut position, mut base) = (group.start + GROUP_HEADER_BYTES as u64, group.base);
        let mark = self.marks.partition_point(|m| m.offset <= offset);
        if mark > 0 && self.marks[mark - 1].offset > base {
            position = self.marks[mark - 1].place.position;
            base = self.marks[mark - 1].offset;
        }
        loop {
            let batch = self.batch_at(Place { ordinal: group.ordinal, position });
            if batch.next_offset > offset {
                return (position, base);
            }
            position += batch.bytes;
            base = batch.next_offset;
        }
    }

    /// Where to stop within `group`: the end of the last batch from `start` on that fits into `room` bytes and ends at or before `until`. With
    /// `forced` the first batch may be larger than `room`.
    fn cut(
        &self,
        group: &Group,
        start: (u64, Offset),
        room: u64,
        until: Offset,
        forced: bool,
    ) -> (u64, Offset) {
        let (mut position, mut next) = start;
        let limit = Place { ordinal: group.ordinal, position: start.0.saturating_add(room) };
        let mark = self.marks.partition_point(|m| m.place <= limit && m.offset <= until);
        if mark > 0 && self.marks[mark - 1].offset > next {
            position = self.marks[mark - 1].place.position;
            next = self.marks[mark - 1].offset;
        }
        while position < group.end {
            let batch = self.batch_at(Place { ordinal: group.ordinal, position });
            let fits = position + batch.bytes - start.0 <= room || (forced && position == start.0);
            if !fits || batch.next_offset > until {
                break;
            }
            position += batch.bytes;
            next = batch.next_offset;
        }
        (position, next)
    }

    /// Adds `from..to` to the records, one part per block. False, with nothing added, if that would be too many parts.
    fn share(&mut self, ordinal: u64, from: u64, to: u64, records: &mut Records) -> bool {
        let parts = Tail::write_count(from, to) as usize;
        if !records.parts.is_empty() && records.parts.len() + parts > SEND_PARTS_MAX {
            return false;
        }
        let mut at = from;
        while at < to {
            let index =
                self.block_of(Place { ordinal, position: at }).expect("a group in the table is cached");
            let start = at as usize % BLOCK_BYTES;
            let len = (BLOCK_BYTES - start).min((to - at) as usize);
            records.parts.push(self.blocks[index].block.slice(start..start + len));
            records.bytes += len;
            at += len as u64;
        }
        true
    }

    fn batch_at(&self, place: Place) -> BatchView {
        let mut head = [0u8; BatchView::BYTES];
        let at = place.position as usize % BLOCK_BYTES;
        let index = self.block_of(place).expect("a batch in the table is cached");
        let bytes = &self.blocks[index].block.as_slice()[at..];
        let here = bytes.len().min(head.len());
        head[..here].copy_from_slice(&bytes[..here]);
        if here < head.len() {
            let rest = head.len() - here;
            head[here..].copy_from_slice(&self.blocks[index + 1].block.as_slice()[..rest]);
        }
        BatchView::of(&head)
    }

    fn block_of(&self, place: Place) -> Option<usize> {
        let extent = place.position / BLOCK_BYTES as u64;
        let index = self.blocks.partition_point(|b| (b.ordinal, b.extent) < (place.ordinal, extent));
        self.blocks.get(index).filter(|b| (b.ordinal, b.extent) == (place.ordinal, extent)).map(|_| index)
    }
}
