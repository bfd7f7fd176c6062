//! Truncation: the log is to end at an offset, on behalf of replication. Recovery never comes here.
//!
//! In this order, each step durable before the next, so that a crash in between leaves a log that opens:
//! 1. Appends are refused; everything staged is flushed.
//! 2. The place is looked for in the segment that holds the offset: the end of the last batch that ends at or before it.
//! 3. `state` and `producers` are written without what the truncation drops; the flushed position is left out, for it may lie behind the cut.
//!    An epoch begins at the cut: whatever is appended there is of a newer leader than what was cut off. By that a recovery knows both apart
//!    even where the header of step 5 is not there yet, or damaged later.
//! 4. Segments behind the cut are removed, newest first.
//! 5. A new segment is begun. Its header says where its predecessor ends: that is the truncation.
//!
//! Until step 3 a crash leaves the log as it was; behind it, the log may end anywhere between the cut and where it was. What an earlier
//! truncation had cut off the segment stays away: the segment that step 4 removes may have been the one that said where it ended.

use super::core::{Core, Pending};
use super::flow::progress;
use super::jobs::{ATTEMPTS_MAX, Job, Kind, Step};
use super::partition::{Log, Setup, mark_dirty, mark_todo};
use super::{ColdRead, Event, LogSlot, Ops, ReadCheck, ReadRequest, Store};
use crate::base::error::Refused;
use crate::base::ids::LeaderEpoch;
use crate::base::limits::ALIGN;
use crate::base::offset::Offset;
use crate::io::buffer::{Block, Pool};
use crate::io::{Done, Errno, Op, Payload};
use crate::log::append::Stage;
use crate::log::commit::{Ledger, Reach};
use crate::log::format::{SEGMENT_HEADER_BYTES, index_name};
use crate::log::index::Index;
use crate::log::marks::Marks;
use crate::log::read::{CutAt, find_cut, read_lens};
use crate::log::segment::Handle;
use crate::log::tail::Place;

/// Bytes read behind an index entry to find the cut; the largest batch is smaller than what a second try reads.
const SEARCH_BYTES: u64 = 2 * 1024 * 1024;

/// A place where the log is cut.
#[derive(Clone, Copy, Debug)]
struct Cut {
    ordinal: u64,
    end: u64,
    next_offset: Offset,
    check: u32,
}

enum Phase {
    /// Everything staged is being flushed.
    Flush,
    /// The cut is looked for from this entry of the segment's index on, reading this many bytes.
    Search {
        entry: usize,
        bytes: u64,
    },
    Reading(Box<Search>),
    Found(Cut),
    /// `state` and `producers` are being written.
    Record(Cut),
    /// Later segments are being removed.
    Remove(Cut),
    /// The place cannot be found: the log stays as it is, read-only.
    Failed,
}

struct Search {
    entry: usize,
    bytes: u64,
    read: ColdRead,
    blocks: Vec<Option<Block>>,
    left: usize,
    failed: Option<Errno>,
}

/// A truncation on its way.
pub struct Truncation {
    target: Offset,
    phase: Phase,
    /// Reads that failed so far.
    attempts: u32,
}

impl Truncation {
    /// Everything staged is still to be flushed; nothing is cut yet.
    pub fn is_flushing(&self) -> bool {
        matches!(self.phase, Phase::Flush)
    }
}

impl Store {
    pub(super) fn begin_truncation(&mut self, slot: LogSlot, target: Offset) -> Result<(), Refused> {
        let (log, core) = self.log_and_core(slot).ok_or(Refused::UnknownTopicOrPartition)?;
        if core.is_dead() || log.read_only || core.stopping {
            return Err(Refused::KafkaStorageError);
        }
        if target < log.log_start_wanted {
            return Err(Refused::OffsetOutOfRange);
        }
        if target >= log.log_end() || log.truncation.as_ref().is_some_and(|t| t.target <= target) {
            return Ok(());
        }
        match &mut log.truncation {
            // The place that was found is not the right one any more.
            Some(running) => running.target = target,
            None => {
                log.truncation = Some(Box::new(Truncation { target, phase: Phase::Flush, attempts: 0 }));
                core.truncating.push(slot.index);
            }
        }
        mark_todo(log, core);
        Ok(())
    }

    /// Carries running truncations on.
    pub(super) fn truncate_on(&mut self, pool: &mut Pool, ops: &mut Ops) {
        let mut truncating = std::mem::take(&mut self.core.truncating);
        truncating.retain(|index| self.truncate_one(*index, pool, ops));
        self.core.truncating.append(&mut truncating);
    }

    /// False once it is over.
    fn truncate_one(&mut self, index: u32, pool: &mut Pool, ops: &mut Ops) -> bool {
        let Store { logs, core, .. } = self;
        let Some(log) = logs[index as usize].log.as_deref_mut().filter(|l| !l.deleting) else { return false };
        let Some(mut truncation) = log.truncation.take() else { return false };
        if core.is_dead() {
            return false;
        }
        let idle = log.jobs == 0 && log.rounds == 0 && !log.state.wanted;
        match truncation.phase {
            Phase::Flush if !log.is_flushed() => {
                log.flush_now = true;
                mark_dirty(log, core);
            }
            // Nothing is in flight that would wake the shard for the next step: being on the list does.
            Phase::Flush if idle => {
                truncation.phase = log.first_phase(truncation.target);
                mark_todo(log, core);
            }
            Phase::Search { entry, bytes } if idle => {
                if let Some(phase) = self.search(index, truncation.target, (entry, bytes), pool, ops) {
                    truncation.phase = phase;
                }
            }
            Phase::Reading(search) if search.left == 0 => {
                truncation.attempts += u32::from(search.failed.is_some());
                truncation.phase = log.found(core, *search, truncation.attempts < ATTEMPTS_MAX);
                mark_todo(log, core);
            }
            Phase::Found(cut) if idle => {
                truncation.phase = Phase::Record(cut);
                log.record_cut(core, &cut);
            }
            Phase::Record(cut) if idle => {
                truncation.phase = Phase::Remove(cut);
                log.remove_behind(core, &cut);
            }
            Phase::Remove(cut) if idle && self.room_to_roll(pool) => {
                if let Some(log) = self.logs[index as usize].log.as_deref_mut() {
                    log.cut_at(&mut self.core, &cut);
                }
                return false;
            }
            Phase::Failed => {
                let Store { logs, core, .. } = self;
                if let Some(log) = logs[index as usize].log.as_deref_mut() {
                    mark_todo(log, core);
                }
                return false;
            }
            _ => {}
        }
        if let Some(log) = self.logs[index as usize].log.as_deref_mut() {
            log.truncation = Some(truncation);
        }
        true
    }

    fn room_to_roll(&mut self, pool: &mut Pool) -> bool {
        !self.core.uuids.is_empty() && self.reserve(1, pool)
    }

    /// Submits the reads of a search; none while the file is not open or blocks are short.
    fn search(
        &mut self,
        index: u32,
        target: Offset,
        (entry, bytes): (usize, u64),
        pool: &mut Pool,
        ops: &mut Ops,
    ) -> Option<Phase> {
        let Store { logs, core, .. } = self;
        let log = logs[index as usize].log.as_deref_mut()?;
        let segment = log.segment_of(target)?;
        let (ordinal, end) = (segment.ordinal, segment.end.max(log.ledger.durable().place.position));
        let end = if log.ledger.durable().place.ordinal == ordinal { end } else { segment.end };
        let Some(file) = segment.handle.file() else {
            if segment.handle == Handle::Closed {
                log.open_segment(core, ordinal, false);
            }
            return None;
        };
        let from = *segment.index.entries().get(entry)?;
        let position = from.position / ALIGN as u64 * ALIGN as u64;
        let lens = read_lens(position, (position + bytes).min(end));
        let slot = log.slot;
        let mut blocks = Vec::with_capacity(lens.len());
        for _ in &lens {
            blocks.push(self.take(pool)?);
        }
        let request = ReadRequest { from: target, until: target, bytes_max: 0, at_least_one: false };
        let check = ReadCheck { ordinal, end, start: from.position, start_offset: from.offset, again: false };
        let read = ColdRead { slot, file, position, lens, request, check };
        let mut offset = position;
        for (at, into) in blocks.into_iter().enumerate() {
            let len = read.lens[at];
            let tag = self.core.pending.insert(Pending::Search { log: index, at });
            ops.push((Op::Read { file, offset, into, at: 0, len }, tag));
            offset += u64::from(len);
        }
        let left = read.lens.len();
        let blocks = read.lens.iter().map(|_| None).collect();
        if let Some(segment) = self.logs[index as usize].log.as_deref_mut()?.segment_mut(ordinal) {
            segment.readers += 1;
        }
        Some(Phase::Reading(Box::new(Search { entry, bytes, read, blocks, left, failed: None })))
    }

    /// A read of a search completed.
    pub(super) fn search_done(&mut self, index: u32, at: usize, done: Done) {
        let Some(log) = self.logs[index as usize].log.as_deref_mut() else { return };
        let Some(Phase::Reading(search)) = log.truncation.as_deref_mut().map(|t| &mut t.phase) else {
            return;
        };
        match (done.result, done.payload) {
            (Ok(bytes), Payload::Read(mut block)) => {
                block.set_filled(bytes as usize);
                search.blocks[at] = Some(block);
            }
            (Err(errno), _) => search.failed = Some(errno),
            _ => {}
        }
        search.left -= 1;
    }
}

impl Log {
    /// Where to begin: a cut at a segment's border is known.
    fn first_phase(&self, target: Offset) -> Phase {
        let at = self.segments.partition_point(|s| s.base_offset < target);
        let Some(segment) = at.checked_sub(1).map(|i| &self.segments[i]) else {
            // Nothing is left: cut behind the first segment's header.
            let first = self.segments.front();
            return Phase::Found(Cut {
                ordinal: first.map_or(0, |s| s.ordinal),
                end: SEGMENT_HEADER_BYTES as u64,
                next_offset: first.map_or(target, |s| s.base_offset),
                check: first.map_or(0, |s| s.header_check),
            });
        };
        if target >= segment.next_offset {
            let (ordinal, next_offset) = (segment.ordinal, segment.next_offset);
            return Phase::Found(Cut { ordinal, end: segment.end, next_offset, check: segment.check });
        }
        let entries = segment.index.entries();
        let entry = entries.partition_point(|e| e.offset < target).saturating_sub(1);
        Phase::Search { entry, bytes: SEARCH_BYTES }
    }

    /// Looks through what a search read. An error that says nothing about the bytes has it read again, if that `may_repeat`.
    fn found(&mut self, core: &mut Core, search: Search, may_repeat: bool) -> Phase {
        let Search { entry, bytes, read, blocks, failed, .. } = search;
        let ordinal = read.check.ordinal;
        let Some(segment) = self.segment_mut(ordinal) else { return Phase::Flush };
        segment.readers -= 1;
        let (uuid, base_offset, header_check) = (segment.uuid, segment.base_offset, segment.header_check);
        let blocks: Vec<Block> = blocks.into_iter().flatten().collect();
        let found = match failed {
            Some(errno) if may_repeat && !errno.is_of_medium() => return Phase::Search { entry, bytes },
            Some(_) => CutAt::Damaged("unreadable"),
            None => find_cut(&read, uuid, &blocks),
        };
        match found {
            CutAt::Cut { end, next_offset, check } => Phase::Found(Cut { ordinal, end, next_offset, check }),
            CutAt::Earlier if entry > 0 => Phase::Search { entry: entry - 1, bytes },
            CutAt::Earlier => Phase::Found(Cut {
                ordinal,
                end: SEGMENT_HEADER_BYTES as u64,
                next_offset: base_offset,
                check: header_check,
            }),
            CutAt::Short if read.position + bytes < read.check.end => {
                Phase::Search { entry, bytes: bytes * 8 }
            }
            CutAt::Short => self.give_up(core, &read, "no group where one should begin"),
            CutAt::Damaged(what) => self.give_up(core, &read, what),
        }
    }

    fn give_up(&mut self, core: &mut Core, read: &ColdRead, what: &'static str) -> Phase {
        self.read_only = true;
        let corrupt = self.corrupt(read.check.ordinal, read.check.start, what);
        core.events.push(Event::Corrupt(self.slot, corrupt));
        Phase::Failed
    }

    /// Writes down what holds with and without the cut.
    fn record_cut(&mut self, core: &mut Core, cut: &Cut) {
        self.epochs.truncate_end(cut.next_offset);
        if self.setup != Setup::Idle {
            self.leader_epoch = LeaderEpoch(self.leader_epoch.0 + 1);
        }
        self.epochs.assign(self.leader_epoch, cut.next_offset);
        self.producers.truncate_end(cut.next_offset);
        self.snapshot = None;
        let snapshot = self.producers.encode(cut.next_offset);
        self.write_snapshot(core, snapshot);
        self.state.wanted = true;
        mark_todo(self, core);
    }

    /// Removes the segments behind the cut, and the file that was made for the next one.
    fn remove_behind(&mut self, core: &mut Core, cut: &Cut) {
        let mut steps = Vec::new();
        if let Some(next) = self.next.take() {
            steps.extend(next.file.map(Step::CloseOther));
            steps.push(Step::Remove(self.segment_path(next.ordinal)));
        }
        while self.segments.back().is_some_and(|s| s.ordinal > cut.ordinal) {
            let Some(segment) = self.segments.pop_back() else { break };
            if let Some(file) = segment.handle.file() {
                core.leave(file, segment.readers);
            }
            steps.push(Step::Remove(self.segment_path(segment.ordinal)));
            steps.push(Step::Remove(self.dir.join(index_name(segment.ordinal))));
            steps.push(Step::SyncDir(self.dir.clone()));
        }
        steps.push(Step::Remove(self.dir.join(index_name(cut.ordinal))));
        steps.push(Step::SyncDir(self.dir.clone()));
        self.start(core, Job::new(self.index(), Kind::Truncate, None, steps));
    }

    fn cut_at(&mut self, core: &mut Core, cut: &Cut) {
        let index_interval = self.config.index_interval_bytes;
        if let Some(last) = self.segments.back_mut() {
            (last.end, last.next_offset, last.check) = (cut.end, cut.next_offset, cut.check);
            (last.sealed, last.trimmed) = (true, true);
            let mut index = Index::new(index_interval);
            for entry in last.index.entries().iter().filter(|e| e.offset < cut.next_offset) {
                index.add(entry.offset, entry.position, entry.max_timestamp_ms);
            }
            last.index = index;
        }
        let place = Place { ordinal: cut.ordinal, position: cut.end };
        self.ledger = Ledger::new(Reach { place, next_offset: cut.next_offset });
        self.marks = Marks::default();
        self.high_watermark = self.high_watermark.min(cut.next_offset);
        // A log that began inside the batch that was dropped begins at its end.
        self.log_start = self.log_start.min(cut.next_offset);
        self.log_start_wanted = self.log_start_wanted.min(cut.next_offset);
        self.stage = Stage::default();
        self.tail.clear();
        self.state.checkpointed = None;
        self.state.clean = None;
        let rolled = self.roll(core);
        assert!(rolled, "a uuid and a block were there");
        self.snapshot = None;
        self.appended = true;
        self.state.wanted |= self.setup != Setup::Idle;
        progress(self, core);
        mark_dirty(self, core);
        mark_todo(self, core);
    }
}
