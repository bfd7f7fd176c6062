//! A segment of a log as the store knows it: where it begins and ends, its file, and where its batches stand.
//!
//! The files of segments are made ahead of need: created, allocated, zeroed over a window and flushed, their directory synced. A commit into
//! the window then changes no metadata, and one flush serves all files of the device. Only the stretches of `append.rs` are still
//! written; a sealed segment never changes.

use super::checkpoint::Mark;
use super::format::SEGMENT_HEADER_BYTES;
use super::index::{Index, Reach};
use super::recovered::SegmentMeta;
use crate::base::ids::Uuid;
use crate::base::limits::{ALIGN, ZERO_AHEAD_BYTES_MAX, ZERO_AHEAD_BYTES_MIN};
use crate::base::offset::Offset;
use crate::io::{FileId, Mono, Place};

/// A window that lasted less than this was too small; one that lasted longer than `WINDOW_MS_MAX` too large.
const WINDOW_MS_MIN: u64 = 2_000;
const WINDOW_MS_MAX: u64 = 60_000;

/// The open file of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handle {
    Closed,
    /// A job opens or makes it.
    Opening,
    Open(FileId),
}

impl Handle {
    pub fn file(&self) -> Option<FileId> {
        match self {
            Handle::Open(file) => Some(*file),
            Handle::Closed | Handle::Opening => None,
        }
    }
}

#[derive(Debug)]
pub struct Segment {
    pub ordinal: u64,
    pub uuid: Uuid,
    pub base_offset: Offset,
    /// Behind its last staged record.
    pub next_offset: Offset,
    /// File position behind the last byte that counts.
    pub end: u64,
    /// Check of its last group, or of its header.
    pub check: u32,
    pub header_check: u32,
    /// Position of its last group, 0 if it has none, and the number of the next. Known of segments that were active in this process.
    pub last_group: u64,
    pub next_seq: u64,
    /// When this process began or found it, and how old it was then, in ms by the clock that its header was stamped from.
    pub known: Mono,
    pub age_ms: u64,
    pub index: Index,
    pub handle: Handle,
    /// Opened for writing.
    pub writable: bool,
    /// Cold reads in flight.
    pub readers: u32,
    /// Rounds in flight that may still flush it: its file stays open.
    pub rounds: u32,
    /// When it was last read or written: an idle file is closed.
    pub used: Mono,
    /// End of the range that is allocated, zeroed and flushed: commits stay below.
    pub zeroed: u64,
    /// Flushed to its end, with a successor: it never changes again, but may go.
    pub sealed: bool,
    /// The zeros behind its end are cut.
    pub trimmed: bool,
    /// Whether the flush of another file may stand in for its own.
    pub extents: Extents,
    /// Its file may become a new segment: nothing of a dead process can land in it any more.
    pub recyclable: bool,
}

/// What is known of the place of a segment's file on the device. A flush of another file empties the device's cache and saves no metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extents {
    /// Written by this process, and flushed by way of this file.
    #[default]
    Settled,
    /// Found written. Nobody knows whether that is durable, until this file has been flushed.
    Found,
    /// There are holes, or space that was only reserved, or other files share it: somebody copied the directory. Writes change metadata.
    /// Or it lies on another device: somebody mounted or linked one into the data directory.
    Unsettled,
}

impl Extents {
    /// Of a file that was there when it was opened. `home` is the device of the data directory.
    pub fn found(place: Place, home: u64) -> Extents {
        if place.device == home && place.is_own_and_written { Extents::Found } else { Extents::Unsettled }
    }

    /// Of a file that this process made, zeroed and flushed.
    pub fn made(place: Place, home: u64) -> Extents {
        if place.device == home { Extents::Settled } else { Extents::Unsettled }
    }

    /// The file was flushed.
    pub fn flushed(self) -> Extents {
        if self == Extents::Found { Extents::Settled } else { self }
    }
}

impl Segment {
    /// An empty segment whose file is still to come.
    pub fn new(
        ordinal: u64,
        uuid: Uuid,
        base_offset: Offset,
        check: u32,
        index: Index,
        now: Mono,
    ) -> Segment {
        Segment {
            ordinal,
            uuid,
            base_offset,
            next_offset: base_offset,
            end: SEGMENT_HEADER_BYTES as u64,
            check,
            header_check: check,
            last_group: 0,
            next_seq: 0,
            known: now,
            age_ms: 0,
            index,
            handle: Handle::Closed,
            writable: false,
            readers: 0,
            rounds: 0,
            used: now,
            zeroed: 0,
            sealed: false,
            trimmed: false,
            extents: Extents::Settled,
            recyclable: true,
        }
    }

    /// A segment that recovery found.
    pub fn found(meta: SegmentMeta, now: Mono, wall_ms: i64) -> Segment {
        let header = &meta.header;
        let mut segment =
            Segment::new(header.ordinal, header.uuid, header.base_offset, meta.last_check, meta.index, now);
        segment.header_check = header.encode().1;
        segment.age_ms = wall_ms.saturating_sub(header.created_ms).max(0) as u64;
        segment.next_offset = meta.next_offset;
        segment.end = meta.end;
        (segment.last_group, segment.next_seq) = (meta.last_group, meta.next_seq);
        (segment.sealed, segment.trimmed) = (true, true);
        segment.recyclable = !meta.crash_ended;
        segment.zeroed = segment.file_end();
        segment
    }

    /// Its end, as a checkpoint names it.
    pub fn end_mark(&self) -> Mark {
        Mark {
            ordinal: self.ordinal,
            segment: self.uuid,
            end: self.end,
            next_offset: self.next_offset,
            last_check: self.check,
            last_group: self.last_group,
            next_seq: self.next_seq,
        }
    }

    /// The largest timestamp that a batch claims, in ms; -1 for none.
    pub fn max_timestamp_ms(&self) -> i64 {
        self.index.largest().map_or(-1, |l| l.timestamp_ms)
    }

    pub fn is_empty(&self) -> bool {
        self.next_offset == self.base_offset
    }

    /// What its index describes.
    pub fn reach(&self) -> Reach {
        Reach { segment: self.uuid, end: self.end, next_offset: self.next_offset, last_check: self.check }
    }

    /// Length of its file once it is trimmed.
    pub fn file_end(&self) -> u64 {
        self.end.next_multiple_of(ALIGN as u64)
    }
}

/// How far ahead of its end a log's file is zeroed: 64 KiB for a log that trickles, up to 64 MiB for one that fills a window in two
/// seconds.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub bytes: u64,
    extended: Mono,
}

impl Default for Window {
    fn default() -> Window {
        Window { bytes: ZERO_AHEAD_BYTES_MIN, extended: Mono(0) }
    }
}

impl Window {
    /// Whether `end`, the end of what is staged, has come close to the `zeroed` end.
    pub fn is_due(&self, end: u64, zeroed: u64) -> bool {
        end + self.bytes / 2 >= zeroed
    }

    /// The next range to zero, `zeroed..`, so that it covers `end` and a window more. Not beyond `limit`, where the segment rolls, unless
    /// `end` already is.
    pub fn extend(&mut self, end: u64, zeroed: u64, limit: u64, now: Mono) -> u64 {
        let lasted = now.since_ms(self.extended);
        if self.extended > Mono(0) && lasted < WINDOW_MS_MIN {
            self.bytes = (self.bytes * 4).min(ZERO_AHEAD_BYTES_MAX);
        } else if lasted > WINDOW_MS_MAX {
            self.bytes = (self.bytes / 4).max(ZERO_AHEAD_BYTES_MIN);
        }
        self.extended = now;
        let align = ALIGN as u64;
        let target = (end.max(zeroed) + self.bytes).min(limit).next_multiple_of(align);
        target.max(end.next_multiple_of(align)).max(zeroed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_follows_the_rate() {
        let mut window = Window::default();
        let limit = 1 << 30;
        let mut zeroed = window.extend(0, 0, limit, Mono(1));
        assert_eq!(zeroed, ZERO_AHEAD_BYTES_MIN);
        for step in 1..20u64 {
            zeroed = window.extend(zeroed, zeroed, limit, Mono(1).plus_ms(step * 100));
        }
        assert_eq!(window.bytes, ZERO_AHEAD_BYTES_MAX);
        assert_eq!(window.extend(limit + 5, zeroed, limit, Mono(0).plus_ms(9_000)), limit + 4096);
    }
}
