//! The recovery decision table: what is found on disk, what it means, what is done. A pure function; nothing is written before it has spoken.
//!
//! `P` is the position behind the last group of the valid chain, `D` the highest position that is known to have been flushed: everything below `D`
//! was possibly acknowledged. The rows do not overlap and leave no gap: a test walks every pattern of evidence.

/// What is found about one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A segment's file, before its groups are looked at.
    File(File),
    /// The segment that no successor seals.
    Tail(Tail),
    /// An index, epoch cache, producer snapshot or `state` file.
    Derived { usable: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    pub header: Header,
    /// No file of a higher ordinal has a valid header.
    pub newest: bool,
    /// The state file knows flushed bytes in a segment of this ordinal.
    pub named: bool,
    /// It continues its predecessor (or log start), as the predecessor's file and the checkpoints know it.
    pub follows: bool,
    /// Of the sequence, a later part begins at or before the log start and does not go on where this file ends: nothing of it is in the log.
    pub retired: bool,
}

/// The first block of a segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Of this partition and ordinal.
    Valid,
    /// Zeros, no block at all, or the valid header of a recycled file: nothing was begun here.
    Nothing,
    /// Bytes that neither zeroing nor a torn header write leaves behind (its fields lie in one 512-byte sector).
    Damaged,
    Unreadable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// The clean-stop record matches file length and last check.
    Clean,
    /// The groups were walked to `P`.
    Scanned {
        /// What stands at `P`.
        stop: At,
        /// `P` against `D` as the checkpoints know it.
        flushed: Flushed,
        /// What lies behind `P`.
        later: Later,
        /// The file ends before `D`.
        short: bool,
    },
}

/// Where the chain ends, against what the checkpoints know to be flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// `P` >= `D`, or there never was a checkpoint.
    Reached,
    /// `P` < `D`.
    Below,
    /// There is a state file, but it is damaged: replacing it never leaves it so.
    Unknown,
}

/// What stands where the chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Zeros, or the end of the file.
    Nothing,
    /// A bad or partial group.
    Bad,
    /// Bytes of another segment or of an older generation.
    Foreign,
    /// A group that is valid by itself, but not the expected one.
    Misplaced,
    Unreadable,
}

/// Valid groups of the same segment and generation behind `P`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    Nothing,
    /// There are some; none knew more than `P` to be flushed.
    Unflushed,
    /// One of them (or the misplaced group at `P`) knew more than `P` to be flushed: it raises `D`.
    Flushed,
    /// Nobody knows: a sector there cannot be read.
    Unreadable,
}

/// A row of the table. The order is that of the table in the design, then rows that only make it complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// Stopped in order, nothing appended since.
    CleanStop,
    /// Every write that left before the crash arrived.
    NormalEnd,
    /// The last write arrived in part.
    TornTail,
    /// A later write arrived and an earlier one did not: neither was flushed.
    LaterUnflushed,
    /// Damage to what was possibly acknowledged.
    BelowFlushed,
    /// What the file held before it was recycled, or before an earlier crash.
    Recycled,
    /// A misdirected or lost write.
    Misplaced,
    /// A sector that cannot be read is not a torn tail.
    Unreadable,
    /// A crash during roll, or a file prepared for one.
    RollInterrupted,
    /// A segment from before the log start that was not removed when its successor was.
    Retired,
    /// A file is missing, too short, or does not fit its neighbours.
    LostFile,
    /// A segment's header is damaged: what it held is unknown.
    HeaderDamaged,
    /// The segment does not end as a write that never left would leave it, and the file that knows how far it was flushed is damaged.
    StateDamaged,
    /// Bad or missing, and can be rebuilt from the segments.
    DerivedLost,
    /// A segment in sequence.
    InSequence,
    /// An index or checkpoint that can be used.
    DerivedUsable,
}

/// What is done about a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Take it as it is.
    Open,
    /// The log ends at `P`; the next append begins a new segment, which seals this one there.
    EndHere,
    /// Read-only below `P`, offline above; nothing is written, nothing truncated; a human must look.
    Offline,
    /// Remove the file and sync the directory.
    Remove,
    /// Rebuild from the segments.
    Rebuild,
}

/// Number of rows.
pub const ROWS: usize = Row::DerivedUsable as usize + 1;

type Pattern = fn(&Evidence) -> bool;

/// The table: a row applies where its pattern matches, which is one row for each evidence.
pub const TABLE: [(Row, Pattern, Verdict); ROWS] = {
    use Evidence::{Derived, File as F, Tail as T};
    use Flushed::{Below, Reached, Unknown};
    use Verdict::*;
    [
        (Row::CleanStop, |e| matches!(e, T(Tail::Clean)), Open),
        (Row::NormalEnd, |e| ends(e, At::Nothing, &[Reached, Unknown]), EndHere),
        (Row::TornTail, |e| ends(e, At::Bad, &[Reached]), EndHere),
        (Row::LaterUnflushed, |e| matches!(scanned(e), Some((_, Reached, Later::Unflushed))), EndHere),
        (Row::BelowFlushed, |e| matches!(scanned(e), Some((_, Below, _) | (_, _, Later::Flushed))), Offline),
        (Row::Recycled, |e| ends(e, At::Foreign, &[Reached, Unknown]), EndHere),
        (Row::Misplaced, |e| ends(e, At::Misplaced, &[Reached]), EndHere),
        (
            Row::Unreadable,
            |e| match e {
                F(file) => file.header == Header::Unreadable,
                T(Tail::Scanned { stop, later, short: false, .. }) => is_unreadable(stop, later),
                _ => false,
            },
            Offline,
        ),
        (
            Row::RollInterrupted,
            |e| matches!(e, F(File { header: Header::Nothing, newest: true, named: false, .. })),
            Remove,
        ),
        (Row::Retired, |e| in_sequence(e) == Some(true), Remove),
        (
            Row::LostFile,
            |e| match e {
                F(File { header: Header::Valid, follows, .. }) => !follows,
                F(File { header: Header::Nothing, newest, named, .. }) => !newest || *named,
                T(Tail::Scanned { short, .. }) => *short,
                _ => false,
            },
            Offline,
        ),
        (Row::HeaderDamaged, |e| matches!(e, F(File { header: Header::Damaged, .. })), Offline),
        (
            Row::StateDamaged,
            |e| match scanned(e) {
                Some((stop, Unknown, Later::Nothing)) => !matches!(stop, At::Nothing | At::Foreign),
                Some((_, Unknown, Later::Unflushed)) => true,
                _ => false,
            },
            Offline,
        ),
        (Row::DerivedLost, |e| matches!(e, Derived { usable: false }), Rebuild),
        (Row::InSequence, |e| in_sequence(e) == Some(false), Open),
        (Row::DerivedUsable, |e| matches!(e, Derived { usable: true }), Open),
    ]
};

/// The one row that applies, and what is done.
pub fn decide(evidence: &Evidence) -> (Row, Verdict) {
    let found = TABLE.iter().find(|(_, pattern, _)| pattern(evidence));
    let (row, _, verdict) = found.expect("the table covers every evidence");
    (*row, *verdict)
}

/// Whether a segment that fits is retired.
fn in_sequence(evidence: &Evidence) -> Option<bool> {
    match evidence {
        Evidence::File(File { header: Header::Valid, follows: true, retired, .. }) => Some(*retired),
        _ => None,
    }
}

/// What a walk found in a file that is long enough and can be read.
fn scanned(evidence: &Evidence) -> Option<(At, Flushed, Later)> {
    match evidence {
        Evidence::Tail(Tail::Scanned { stop, flushed, later, short: false })
            if !is_unreadable(stop, later) =>
        {
            Some((*stop, *flushed, *later))
        }
        _ => None,
    }
}

/// An end with nothing valid behind it.
fn ends(evidence: &Evidence, at: At, where_to: &[Flushed]) -> bool {
    let ends = |(stop, flushed, later)| stop == at && later == Later::Nothing && where_to.contains(&flushed);
    scanned(evidence).is_some_and(ends)
}

fn is_unreadable(stop: &At, later: &Later) -> bool {
    *stop == At::Unreadable || *later == Later::Unreadable
}
