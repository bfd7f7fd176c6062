//! A sparse index of one segment: by offset, and by time. Derived from the batches' headers; kept beside a sealed segment as `.idx`.
//!
//! An entry is a place at which a walk may begin: a group's header, or a batch within a group. Whoever looks up an offset or a time walks on
//! from there.
//!
//! # Non-obvious
//! - Timestamps are whatever producers said: not in order, and for compressed batches perhaps not even true. An entry carries the largest one
//!   from the segment's beginning to the next entry, which always grows; a walk that finds nothing in the first batches goes on. A batch that
//!   claims *less* than it holds cannot be found by time without unpacking every batch.
//! - Memory is bounded: at `entries_max` every second entry goes and the interval doubles.

use super::checkpoint::{Kind, NotCheckpoint, Put, Take, frame, unframe};
use super::format::SEGMENT_HEADER_BYTES;
use crate::base::ids::Uuid;
use crate::base::limits::{INDEX_ENTRIES_MAX, INDEX_ENTRIES_MIN, INDEX_PARTITION_ENTRIES_MAX};
use crate::base::offset::Offset;

/// A place in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Base offset of the batch, or of the group's first.
    pub offset: Offset,
    pub position: u64,
    /// Largest timestamp from the segment's beginning to the next entry, in ms.
    pub max_timestamp_ms: i64,
}

/// The largest timestamp of a segment, and the first batch that claims it: where ListOffsets -3 looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Largest {
    pub timestamp_ms: i64,
    /// Base offset of that batch.
    pub offset: Offset,
    /// Where that batch begins, or its group if it is the group's first.
    pub position: u64,
}

/// How far into its segment an index reaches: it is only used for a segment, or a prefix of one, that ends just so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    pub segment: Uuid,
    /// Position behind the last byte that counts.
    pub end: u64,
    pub next_offset: Offset,
    /// Check of the last group, or of the segment's header.
    pub last_check: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    entries: Vec<Entry>,
    /// File bytes between entries, at least.
    interval: u64,
    largest: Option<Largest>,
}

impl Index {
    /// An empty index with entries at least `interval` bytes apart (`index.interval.bytes`).
    pub fn new(interval: u32) -> Index {
        Index { entries: Vec::new(), interval: u64::from(interval.max(1)), largest: None }
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// None without batches, and if none has a timestamp.
    pub fn largest(&self) -> Option<Largest> {
        self.largest
    }

    /// Notes a batch. Called in log order. `position` is the group's for the first batch of a group.
    pub fn add(&mut self, offset: Offset, position: u64, max_timestamp_ms: i64) {
        let largest = self.largest.map_or(-1, |l| l.timestamp_ms);
        if max_timestamp_ms > largest {
            self.largest = Some(Largest { timestamp_ms: max_timestamp_ms, offset, position });
        }
        let so_far = largest.max(max_timestamp_ms);
        match self.entries.last_mut() {
            Some(last) if position < last.position + self.interval => last.max_timestamp_ms = so_far,
            _ => {
                if self.entries.len() >= INDEX_ENTRIES_MAX {
                    self.thin();
                }
                self.entries.push(Entry { offset, position, max_timestamp_ms: so_far });
            }
        }
    }

    /// The last entry at or before `offset`; none if the segment begins behind it or is empty.
    pub fn find_offset(&self, offset: Offset) -> Option<Entry> {
        let behind = self.entries.partition_point(|e| e.offset <= offset);
        behind.checked_sub(1).map(|i| self.entries[i])
    }

    /// The first entry from which on a record at or after `timestamp_ms` may lie; none if no batch claims one.
    pub fn find_time(&self, timestamp_ms: i64) -> Option<Entry> {
        self.entries.get(self.entries.partition_point(|e| e.max_timestamp_ms < timestamp_ms)).copied()
    }

    /// Drops every second entry until at most `entries_max` (at least one) are left.
    pub fn shrink_to(&mut self, entries_max: usize) {
        while self.entries.len() > entries_max.max(1) {
            self.thin();
        }
        self.entries.shrink_to_fit();
    }

    fn thin(&mut self) {
        let kept = self.entries.len().div_ceil(2);
        for i in 0..kept {
            // The entry that goes hands over the time that it covers.
            let covered = self.entries.get(2 * i + 1).unwrap_or(&self.entries[2 * i]).max_timestamp_ms;
            self.entries[i] = Entry { max_timestamp_ms: covered, ..self.entries[2 * i] };
        }
        self.entries.truncate(kept);
        self.interval *= 2;
    }

    /// The `.idx` file of a segment that ends at `reach`.
    pub fn encode(&self, reach: &Reach) -> Vec<u8> {
        let mut put = Put::default();
        put.uuid(reach.segment);
        put.u64(reach.end);
        put.i64(reach.next_offset.0);
        put.u32(reach.last_check);
        put.u64(self.interval);
        put.u8(u8::from(self.largest.is_some()));
        if let Some(largest) = &self.largest {
            put.i64(largest.timestamp_ms);
            put.i64(largest.offset.0);
            put.u64(largest.position);
        }
        put.u32(self.entries.len() as u32);
        for entry in &self.entries {
            put.i64(entry.offset.0);
            put.u64(entry.position);
            put.i64(entry.max_timestamp_ms);
        }
        frame(Kind::Index, &put.0)
    }

    /// Reads the file. One that reaches elsewhere counts as damaged: it describes other bytes.
    pub fn decode(bytes: &[u8], reach: &Reach) -> Result<Index, NotCheckpoint> {
        let body = unframe(Kind::Index, bytes)?;
        Index::body(body, reach).filter(|index| index.is_plausible(reach)).ok_or(NotCheckpoint::Damaged)
    }

    fn body(body: &[u8], reach: &Reach) -> Option<Index> {
        let mut take = Take(body);
        let found = Reach {
            segment: take.uuid()?,
            end: take.u64()?,
            next_offset: take.offset()?,
            last_check: take.u32()?,
        };
        let interval = take.u64()?.max(1);
        let largest = match take.flag()? {
            false => None,
            true => {
                Some(Largest { timestamp_ms: take.i64()?, offset: take.offset()?, position: take.u64()? })
            }
        };
        let mut entries = Vec::new();
        for _ in 0..take.u32()? {
            entries.push(Entry {
                offset: take.offset()?,
                position: take.u64()?,
                max_timestamp_ms: take.i64()?,
            });
        }
        (take.0.is_empty() && found == *reach).then_some(Index { entries, interval, largest })
    }

    fn is_plausible(&self, reach: &Reach) -> bool {
        let inside = |position: u64, offset: Offset| {
            (SEGMENT_HEADER_BYTES as u64..reach.end).contains(&position) && offset < reach.next_offset
        };
        let grows = |w: &[Entry]| {
            w[0].offset < w[1].offset
                && w[0].position < w[1].position
                && w[0].max_timestamp_ms <= w[1].max_timestamp_ms
        };
        self.entries.len() <= INDEX_ENTRIES_MAX
            && self.interval <= u64::from(u32::MAX) * INDEX_ENTRIES_MAX as u64
            && self.entries.is_empty() == (reach.end == SEGMENT_HEADER_BYTES as u64)
            && self.entries.windows(2).all(grows)
            && self.entries.iter().all(|e| inside(e.position, e.offset))
            && self.largest.is_none_or(|l| inside(l.position, l.offset))
    }
}

/// Entries that each of `segments` indexes of a partition may keep in memory.
pub fn entries_per_segment(segments: usize) -> usize {
    (INDEX_PARTITION_ENTRIES_MAX / segments.max(1)).clamp(INDEX_ENTRIES_MIN, INDEX_ENTRIES_MAX)
}
