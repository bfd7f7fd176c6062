//! Hot path. Group commit: which staged bytes are written now, how they are made durable, and how far the durable offset may move.
//!
//! **A round** is what one turn commits for all logs of the shard whose acks wait for a flush: a few large writes submitted together, each
//! contiguous within a 256 KiB block, and one point of durability. Exactly one log with one write: that write carries `RWF_DSYNC`, which
//! is write and flush in one operation, unless the storage does better with the two apart. Otherwise plain writes, and when all of them have completed one flush for all files that may
//! share it, and one for each file that may not: on other file systems than ext4 and XFS, and where a file that this process did not make
//! has extents that a write in place would change (`segment::Extents`). There is no linger timer: while rounds are in flight the next one gathers in memory.
//! Logs of the other durability levels write outside rounds, and join one when their flush is due.
//!
//! **The durable offset** of a log is the end of the longest prefix of its writes, in log order and across segments, in which each write
//! completed at full length and is covered by a flush: one that was submitted after that completion was seen, or the write's own
//! `RWF_DSYNC`, which is taken to cover nothing else. No completion moves it past a hole. [`Ledger`] is that sentence.
//!
//! **A log with a write in flight** writes more only with 64 KiB staged, and only where its next group starts on a 4096 boundary: no
//! block is ever under two writes (placement rule in `format.rs`). The first write to a segment waits until the one before is flushed
//! to its end (roll barrier).
//!
//! The types here know no operations, files or buffers: everything is decided from numbers.

use std::collections::VecDeque;

use super::tail::Place;
use crate::base::limits::{ALIGN, BLOCK_BYTES, PIPELINED_WRITE_BYTES_MIN, ROUNDS_IN_FLIGHT_MAX};
use crate::base::offset::Offset;
use crate::io::FileId;

/// The end of a whole group (or of a segment's header), and the offset behind its last record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    pub place: Place,
    pub next_offset: Offset,
}

/// Counts completed writes of a shard: tells which ones a flush has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(u64);

#[derive(Clone, Copy, Debug)]
struct Write {
    reach: Reach,
    /// When it completed at full length; zero while in flight.
    completed: Stamp,
    flushed: bool,
}

/// The writes of one log from the durable offset on, in log order.
#[derive(Debug, Default)]
pub struct Ledger {
    writes: VecDeque<Write>,
    /// Number of the first of them.
    first: u64,
    /// How many of them, from the first on, have completed.
    completed: usize,
    in_flight: u32,
    written: Reach,
    durable: Reach,
}

impl Ledger {
    /// A log that is durable up to `reach`.
    pub fn new(reach: Reach) -> Ledger {
        Ledger { written: reach, durable: reach, ..Ledger::default() }
    }

    /// Up to where everything is written.
    pub fn written(&self) -> Reach {
        self.written
    }

    /// Up to where everything is written and flushed.
    pub fn durable(&self) -> Reach {
        self.durable
    }

    /// Number of the first write that is not durable.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Where the last write that was entered reaches.
    pub fn last(&self) -> Reach {
        self.writes.back().map_or(self.durable, |w| w.reach)
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Nothing is in flight or waits for a flush.
    pub fn is_settled(&self) -> bool {
        self.writes.is_empty()
    }

    /// Segment of the first write that is not durable yet.
    pub fn first_ordinal(&self) -> Option<u64> {
        self.writes.front().map(|w| w.reach.place.ordinal)
    }

    /// Enters a write that is about to be submitted, and the whole groups up to its end; returns its number.
    pub fn submitted(&mut self, reach: Reach) -> u64 {
        debug_assert!(self.last().place <= reach.place);
        self.in_flight += 1;
        self.writes.push_back(Write { reach, completed: Stamp(0), flushed: false });
        self.first + self.writes.len() as u64 - 1
    }

    /// Write `number` completed at full length.
    pub fn completed(&mut self, number: u64, stamp: Stamp) {
        self.in_flight -= 1;
        self.writes[(number - self.first) as usize].completed = stamp;
        while let Some(write) = self.writes.get(self.completed).filter(|w| w.completed > Stamp(0)) {
            self.written = write.reach;
            self.completed += 1;
        }
    }

    /// A flush that was submitted at `seen` succeeded: it covers what had completed by then, in segment `ordinal`.
    pub fn flushed(&mut self, ordinal: u64, seen: Stamp) {
        for write in &mut self.writes {
            let covered = write.completed > Stamp(0) && write.completed <= seen;
            write.flushed |= covered && write.reach.place.ordinal == ordinal;
        }
        self.advance();
    }

    /// Write `number` completed with its own flush. It covers itself: a drive with FUA sends such a write past what lies in its cache.
    pub fn flushed_itself(&mut self, number: u64) {
        self.writes[(number - self.first) as usize].flushed = true;
        self.advance();
    }

    fn advance(&mut self) {
        while self.writes.front().is_some_and(|w| w.flushed) {
            if let Some(write) = self.writes.pop_front() {
                self.durable = write.reach;
                self.first += 1;
                self.completed -= 1;
            }
        }
    }

    /// For a planted bug: durable is the end of whatever completed last.
    pub fn plant_last_completed(&mut self, number: u64) {
        if number >= self.first {
            let reach = self.writes[(number - self.first) as usize].reach;
            if reach.next_offset > self.durable.next_offset {
                self.durable = reach;
            }
        }
    }

    /// For a planted bug: durable is what is written.
    pub fn plant_written(&mut self) {
        self.durable = self.written;
    }
}

/// What the decision about one log depends on.
#[derive(Clone, Copy, Debug)]
pub struct Staged {
    /// File position where the first group begins that was not submitted, and the end of what is staged.
    pub from: u64,
    pub end: u64,
    /// Writes of this log in flight.
    pub in_flight: u32,
    /// The segment's file is there, and durable in its directory.
    pub file_ready: bool,
    /// Every earlier segment is flushed to its end.
    pub predecessors_flushed: bool,
    /// End of the file's range that is zeroed and flushed.
    pub zeroed: u64,
    /// The durability level wants memory only, and neither time, bytes nor need demand a write yet.
    pub may_wait: bool,
}

/// Why staged bytes are not written now. Each is lifted by a completion or a deadline that looks at the log again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Nothing,
    Go,
    File,
    Barrier,
    InFlight,
    Zeros,
    Deadline,
}

/// Whether what `staged` describes is written now.
pub fn verdict(staged: &Staged) -> Verdict {
    let bytes = staged.end - staged.from;
    if bytes == 0 {
        Verdict::Nothing
    } else if !staged.file_ready {
        Verdict::File
    } else if !staged.predecessors_flushed {
        Verdict::Barrier
    } else if staged.in_flight > 0
        && (bytes < PIPELINED_WRITE_BYTES_MIN as u64 || !staged.from.is_multiple_of(ALIGN as u64))
    {
        Verdict::InFlight
    } else if staged.may_wait && bytes < BLOCK_BYTES as u64 {
        Verdict::Deadline
    } else if staged.end.next_multiple_of(ALIGN as u64) > staged.zeroed {
        Verdict::Zeros
    } else {
        Verdict::Go
    }
}

/// A log's part in a round.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Index of the log in its store.
    pub log: u32,
    pub ordinal: u64,
    pub file: FileId,
    /// Writes in this round; zero for a log that only wants its flush.
    pub writes: u32,
    /// A flush of another file on the device flushes this one as well.
    pub shared: bool,
    /// Wants more flushed than what it writes now.
    pub behind: bool,
}

/// How a round becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Its only write carries `RWF_DSYNC`.
    Dsync,
    /// Plain writes, then flushes.
    Flush,
}

/// A flush to submit: of one member's file, covering that member alone or all that share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush {
    pub file: FileId,
    pub cover: Cover,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cover {
    Sharing,
    Member(u32),
}

/// How a round of these members becomes durable. `flush_apart` is the storage's, see [`StorageCaps`](crate::io::StorageCaps).
pub fn sync_of(members: &[Member], flush_apart: bool) -> Sync {
    match members {
        [one] if one.writes == 1 && !one.behind && !flush_apart => Sync::Dsync,
        _ => Sync::Flush,
    }
}

/// The flushes that `members` need once their writes have completed.
pub fn flushes_of(members: &[Member], out: &mut Vec<Flush>) {
    out.clear();
    for (index, member) in members.iter().enumerate() {
        if !member.shared {
            out.push(Flush { file: member.file, cover: Cover::Member(index as u32) });
        } else if !out.iter().any(|f| f.cover == Cover::Sharing) {
            out.push(Flush { file: member.file, cover: Cover::Sharing });
        }
    }
}

/// A round in flight.
#[derive(Debug, Default)]
pub struct Round {
    pub members: Vec<Member>,
    writes_left: u32,
    flushes_left: u32,
    /// When its flushes were submitted.
    pub seen: Stamp,
    busy: bool,
}

/// The rounds of a shard.
#[derive(Debug, Default)]
pub struct Planner {
    rounds: [Round; ROUNDS_IN_FLIGHT_MAX],
    completed: Stamp,
    flush_apart: bool,
}

impl Planner {
    pub fn new(flush_apart: bool) -> Planner {
        Planner { flush_apart, ..Planner::default() }
    }

    /// A round that is not in flight.
    pub fn free(&self) -> Option<usize> {
        self.rounds.iter().position(|r| !r.busy)
    }

    pub fn is_idle(&self) -> bool {
        self.rounds.iter().all(|r| !r.busy)
    }

    /// Members of a round that is free, to be filled, or in flight.
    pub fn round(&mut self, round: usize) -> &mut Round {
        &mut self.rounds[round]
    }

    /// Puts a round with its members in flight. The caller submits the writes, and at once the flushes if there are none.
    pub fn begin(&mut self, round: usize) -> Sync {
        let round = &mut self.rounds[round];
        round.busy = true;
        round.writes_left = round.members.iter().map(|m| m.writes).sum();
        round.seen = self.completed;
        sync_of(&round.members, self.flush_apart)
    }

    /// A write of the shard completed at full length.
    pub fn completed(&mut self) -> Stamp {
        self.completed.0 += 1;
        self.completed
    }

    /// A write of the round completed at full length. True once that was the last one.
    pub fn write_done(&mut self, round: usize) -> bool {
        let round = &mut self.rounds[round];
        round.writes_left -= 1;
        round.writes_left == 0
    }

    /// The flushes that the round needs now; they cover what has completed up to here.
    pub fn begin_flush(&mut self, round: usize, out: &mut Vec<Flush>) {
        let round = &mut self.rounds[round];
        flushes_of(&round.members, out);
        round.seen = self.completed;
        round.flushes_left = out.len() as u32;
    }

    /// A flush of the round succeeded. True once that was the last one.
    pub fn flush_done(&mut self, round: usize) -> bool {
        let round = &mut self.rounds[round];
        round.flushes_left -= 1;
        round.flushes_left == 0
    }

    /// The round is over.
    pub fn end(&mut self, round: usize) {
        let round = &mut self.rounds[round];
        round.busy = false;
        round.members.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(position: u64, next: i64) -> Reach {
        Reach { place: Place { ordinal: 0, position }, next_offset: Offset(next) }
    }

    #[test]
    fn durable_is_a_prefix_and_a_flush_covers_what_it_saw() {
        let mut planner = Planner::default();
        let mut ledger = Ledger::default();
        let (a, b, c) =
            (ledger.submitted(reach(1, 1)), ledger.submitted(reach(2, 2)), ledger.submitted(reach(3, 3)));
        ledger.completed(b, planner.completed());
        let saw_b = planner.completed;
        ledger.completed(a, planner.completed());
        assert_eq!(ledger.written().next_offset, Offset(2));
        ledger.flushed(0, saw_b);
        assert_eq!(ledger.durable().next_offset, Offset(0), "the first write completed behind the flush");
        ledger.completed(c, planner.completed());
        ledger.flushed_itself(c);
        assert_eq!(ledger.durable().next_offset, Offset(0), "no completion jumps a hole");
        ledger.flushed(1, planner.completed);
        assert_eq!(ledger.durable().next_offset, Offset(0), "another segment's flush");
        ledger.flushed(0, planner.completed);
        assert_eq!(ledger.durable().next_offset, Offset(3));
        assert!(ledger.is_settled());
    }

    #[test]
    fn one_write_of_one_log_flushes_itself_and_sharing_files_flush_once() {
        let member = |log: u32, writes: u32, shared: bool| Member {
            log,
            ordinal: 0,
            file: FileId(log),
            writes,
            shared,
            behind: false,
        };
        assert_eq!(sync_of(&[member(0, 1, true)], false), Sync::Dsync);
        assert_eq!(sync_of(&[Member { behind: true, ..member(0, 1, true) }], false), Sync::Flush);
        assert_eq!(sync_of(&[member(0, 2, true)], false), Sync::Flush);
        assert_eq!(sync_of(&[member(0, 0, true)], false), Sync::Flush);
        assert_eq!(sync_of(&[member(0, 1, true), member(1, 1, true)], false), Sync::Flush);
        assert_eq!(sync_of(&[member(0, 1, true)], true), Sync::Flush);
        let mut out = Vec::new();
        flushes_of(&[member(0, 1, true), member(1, 1, false), member(2, 1, true)], &mut out);
        let shared = Flush { file: FileId(0), cover: Cover::Sharing };
        assert_eq!(out, [shared, Flush { file: FileId(1), cover: Cover::Member(1) }]);
    }

    #[test]
    fn verdicts() {
        let staged = Staged {
            from: 4096,
            end: 5000,
            in_flight: 0,
            file_ready: true,
            predecessors_flushed: true,
            zeroed: 8192,
            may_wait: false,
        };
        let check = |staged: Staged, expected: Verdict| assert_eq!(verdict(&staged), expected, "{staged:?}");
        check(staged, Verdict::Go);
        check(Staged { end: 4096, ..staged }, Verdict::Nothing);
        check(Staged { file_ready: false, ..staged }, Verdict::File);
        check(Staged { predecessors_flushed: false, ..staged }, Verdict::Barrier);
        check(Staged { in_flight: 1, ..staged }, Verdict::InFlight);
        check(Staged { may_wait: true, ..staged }, Verdict::Deadline);
        check(Staged { end: 8193, ..staged }, Verdict::Zeros);
        let large = Staged { end: 4096 + 65536, zeroed: 1 << 20, in_flight: 1, ..staged };
        check(large, Verdict::Go);
        check(Staged { from: 4097, ..large }, Verdict::InFlight);
    }
}
