//! What recovery hands over: a partition as it was found, and a report of how.

use std::path::PathBuf;

use super::decide::{ROWS, Row};
use super::epochs::EpochCache;
use super::format::SegmentHeader;
use super::index::Index;
use super::producers::Producers;
use crate::base::error::Corrupt;
use crate::base::ids::LeaderEpoch;
use crate::base::offset::Offset;

/// A partition as it was found.
#[derive(Debug)]
pub struct Recovered {
    /// In order. The last one is the active segment if `reopen` is set, else all of them are closed for good.
    pub segments: Vec<SegmentMeta>,
    /// The last segment goes on where it ended: with this number of the next group. None after a crash.
    pub reopen: Option<Reopen>,
    /// Behind the last record. Offline: the first offset that cannot be read.
    pub next_offset: Offset,
    pub log_start: Offset,
    pub epochs: EpochCache,
    /// Largest leader epoch that was ever given out here, also without records. The next one must be larger.
    pub leader_epoch: LeaderEpoch,
    pub producers: Producers,
    /// Generation of groups and segments to come.
    pub generation: u32,
    /// Number of the last state file; 0 without one.
    pub state_seq: u64,
    /// The next start would have to look again: the end was found by a walk, or derived files are missing. A clean stop writes them.
    pub unrecorded: bool,
    /// Where and why reading stops. Set: nothing may be appended, removed or truncated.
    pub offline: Option<Corrupt>,
    pub report: Report,
}

/// How the chain of a segment that was closed in order goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reopen {
    pub next_seq: u64,
    /// Position of its last group; 0 if it has none.
    pub last_group: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentMeta {
    pub header: SegmentHeader,
    /// Length of the file: what lies behind `end` does not count.
    pub file_len: u64,
    /// Position behind the last byte that counts.
    pub end: u64,
    pub next_offset: Offset,
    /// Check of the last group, or of the header: what a successor's header repeats.
    pub last_check: u32,
    /// Position and number of the last group where it is known (the last segment): for a clean-stop record.
    pub last_group: u64,
    pub next_seq: u64,
    pub index: Index,
    /// The index came from its file; else the file is to be written.
    pub index_stored: bool,
    /// Its end was found by recovery. Never recycle the file: a dead process may still be writing to it.
    pub crash_ended: bool,
}

/// What the recoveries of a store's logs met, all together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How often each row of the decision table applied, by its place in the table.
    pub rows: [u64; ROWS],
    pub bytes_scanned: u64,
}

impl Totals {
    pub fn add(&mut self, report: &Report) {
        self.bytes_scanned += report.bytes_scanned;
        report.rows.iter().for_each(|row| self.rows[*row as usize] += 1);
    }
}

/// What happened, for the log and for coverage counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Every row of the decision table that applied, but for segments in sequence.
    pub rows: Vec<Row>,
    pub bytes_scanned: u64,
    pub rebuilt: Vec<Rebuilt>,
    pub removed: Vec<PathBuf>,
    /// Bytes behind the end that were not taken: never acknowledged. Worth a warning.
    pub dropped: Option<Dropped>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    pub file: PathBuf,
    pub from: u64,
    pub bytes: u64,
}

/// Derived data that had to be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebuilt {
    /// Index of the segment of this ordinal.
    Index(u64),
    Producers,
    /// Epochs, generation and log start: the state file was missing or damaged.
    State,
}
