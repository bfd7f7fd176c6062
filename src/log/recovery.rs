//! Opens a partition from what is on disk: after a clean stop without a scan, after a crash by walking the segment that nobody sealed.
//!
//! 1. [`survey`](super::survey): files, `state`, segment headers, their sequence.
//! 2. Sealed segments are trusted as far as their successor's header says. One is walked only where its index is missing, or producer state or
//!    epochs have to be rebuilt from it: headers only, its content is verified when it is read.
//! 3. The last segment: taken as the clean-stop record says, or walked with every CRC to where the chain ends. What lies behind is searched for
//!    groups that prove what had been flushed. The table in [`decide`](super::decide) speaks.
//! 4. Only then something is done: a crash-ended segment is flushed, files that hold nothing are removed, the directory is synced. Nothing is
//!    written into a segment. A crash in between leads to the same decision.
//!
//! # Non-obvious
//! - **The crash-ended segment is flushed before anyone reads it.** Its last groups may be in the device's cache only, written and never flushed; a
//!   consumer would see records that a power cut takes back.
//! - It is not reopened: the dead process's writes may still land in it. The next append begins a segment that seals it where recovery ended.
//! - Damage never shortens the log: `offline` is set, everything below `next_offset` can be read, and nothing on disk is touched, prepared
//!   files included.
//! - **Where a segment ends stands in its successor's header.** A segment without one is walked, and there may be bytes behind its end that would
//!   count: what a truncation cut off, or what a killed process's writes brought later than its successor looked. The header may be lost to
//!   damage, or to a crash within a truncation that removes what is behind its cut. `state` says the same once more: both kinds of end begin an
//!   epoch, and `state` with its start is durable before that header leaves, or the removal begins. So the walk stops where a newer epoch began.
//!   With `state` lost as well there are two losses, and records that were never promised, or were cut off, may be shown again.
//! - An epoch that is in `state` and was never begun in a segment hides what stands behind its start in the last segment: that was never
//!   acknowledged, or was to be cut off. If a later segment is of an older epoch, the cut was not finished: it still ends that segment, in
//!   which an earlier one may have cut, and is forgotten for what comes.
//! - Producer state and epochs come from snapshot and state file where these are good, and from the batches behind them.

use std::path::{Path, PathBuf};

use super::checkpoint::{CleanStop, Mark, NotCheckpoint, PRODUCERS_NAME};
use super::decide::{At, Evidence, Flushed, Later, Row, Tail, Verdict, decide};
use super::epochs::EpochCache;
use super::format::{GROUP_HEADER_BYTES, GroupHeader, PrevEnd, SEGMENT_HEADER_BYTES, index_name};
use super::index::{Index, Reach, entries_per_segment};
use super::producers::Producers;
use super::reader::SegmentReader;
use super::recovered::{Dropped, Rebuilt, Recovered, Reopen, Report, SegmentMeta};
use super::scan::{BatchHead, Depth, Stop, Walk};
use super::search::later_groups;
use super::store::{Planted, Source};
pub use super::survey::OpenError;
use super::survey::{Found, Survey, read_checkpoint, survey};
use crate::base::error::Corrupt;
use crate::base::ids::{LeaderEpoch, PartitionKey, Uuid};
use crate::base::offset::Offset;
use crate::io::{FileId, Op, OpenMode};

/// What recovery is told.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub index_interval_bytes: u32,
    /// Only [`Planted::NoChain`] means something here.
    pub planted: Option<Planted>,
}

/// Opens the partition in `dir`. Blocks: for start-up. Reads everything first and writes nothing until the decision is complete; running it
/// twice gives the same result.
pub fn recover_partition(
    source: &mut dyn Source,
    dir: &Path,
    key: PartitionKey,
    directory: Uuid,
    options: &Options,
) -> Result<Recovered, OpenError> {
    let mut survey = survey(source, dir, key, directory)?;
    let (state, segments) = (&mut survey.state, &survey.segments);
    let written_epochs = state.as_ref().map(|state| state.epochs.clone());
    if let Some(state) = state {
        // Of a truncation that was interrupted before it removed the segments behind its cut.
        segments.iter().for_each(|s| state.epochs.retract(s.header.leader_epoch, s.header.base_offset));
    }
    let mut recovery = Recovery::new(source, dir, survey, *options);
    recovery.written_epochs = written_epochs;
    recovery.load_producers()?;
    recovery.pass()?;
    if recovery.replay_from > recovery.next_offset() {
        // The snapshot knows records that are not there (any more): it describes another log.
        recovery.forget_producers();
        recovery.pass()?;
    }
    recovery.finish()
}

/// How far a segment is walked.
enum Until<'a> {
    /// To its seal, headers only: it was verified when it was written. The index is complete already, or made.
    Seal(&'a PrevEnd, bool),
    /// To where its groups or its epochs end, with every CRC.
    End,
}

struct Recovery<'a> {
    source: &'a mut dyn Source,
    dir: &'a Path,
    survey: Survey,
    options: Options,
    now_ms: i64,
    /// As loaded, and as replayed so far.
    snapshot: Producers,
    producers: Producers,
    replay_from: Offset,
    epochs: EpochCache,
    rebuild_epochs: bool,
    segments: Vec<SegmentMeta>,
    reopen: Option<Reopen>,
    /// The last segment was walked and is to be flushed.
    crashed: bool,
    /// Epochs as `state` has them, also one whose cut was not finished: they end the last segment.
    written_epochs: Option<EpochCache>,
    /// The log ends where a newer epoch began.
    replaced: bool,
    offline: Option<Corrupt>,
    report: Report,
}

impl<'a> Recovery<'a> {
    fn new(source: &'a mut dyn Source, dir: &'a Path, survey: Survey, options: Options) -> Recovery<'a> {
        let now_ms = source.wall_ms();
        let rebuild_epochs = survey.state.is_none();
        Recovery {
            source,
            dir,
            survey,
            options,
            now_ms,
            snapshot: Producers::default(),
            producers: Producers::default(),
            replay_from: Offset::ZERO,
            epochs: EpochCache::default(),
            rebuild_epochs,
            segments: Vec::new(),
            reopen: None,
            crashed: false,
            written_epochs: None,
            replaced: false,
            offline: None,
            report: Report::default(),
        }
    }

    fn next_offset(&self) -> Offset {
        self.segments.last().map_or(self.log_start(), |s| s.next_offset)
    }

    fn log_start(&self) -> Offset {
        let first = self.survey.segments.first().map_or(Offset::ZERO, |s| s.header.base_offset);
        self.survey.state.as_ref().map_or(first, |s| s.log_start)
    }

    fn load_producers(&mut self) -> Result<(), OpenError> {
        self.forget_producers();
        let Some(len) = self.survey.file_len(PRODUCERS_NAME) else { return Ok(()) };
        let path = self.dir.join(PRODUCERS_NAME);
        match read_checkpoint(self.source, &path, len)?.map(|bytes| Producers::decode(&bytes)) {
            Some(Ok((producers, at))) => (self.snapshot, self.replay_from) = (producers, at),
            Some(Err(NotCheckpoint::Newer(version))) => return Err(OpenError::Newer { path, version }),
            _ => {}
        }
        Ok(())
    }

    /// Everything that is in the log is replayed.
    fn forget_producers(&mut self) {
        self.snapshot = Producers::default();
        self.replay_from = Offset::ZERO;
    }

    /// Goes through all segments once.
    fn pass(&mut self) -> Result<(), OpenError> {
        let scanned = self.report.bytes_scanned;
        self.report = Report { rows: self.survey.rows.clone(), bytes_scanned: scanned, ..Report::default() };
        self.producers = self.snapshot.clone();
        self.epochs = self.survey.state.as_ref().map(|s| s.epochs.clone()).unwrap_or_default();
        self.segments.clear();
        (self.reopen, self.crashed, self.replaced) = (None, false, false);
        self.offline = self.survey.offline.clone();
        for at in 0..self.survey.segments.len() {
            let found = self.survey.segments[at].clone();
            match self.survey.segments.get(at + 1).map(|next| next.header.prev) {
                Some(seal) => {
                    if !self.sealed(&found, &seal)? {
                        return Ok(());
                    }
                    // Generations grow at each recovery: the successor was begun by another process.
                    let next = &self.survey.segments[at + 1].header;
                    let crash_ended = next.generation > found.header.generation;
                    self.segments.last_mut().expect("pushed by sealed").crash_ended = crash_ended;
                }
                None => self.tail(&found)?,
            }
        }
        Ok(())
    }

    /// A segment whose end its successor, or a clean stop, knows. False if its bytes do not confirm it: then the log is offline from there.
    fn sealed(&mut self, found: &Found, seal: &PrevEnd) -> Result<bool, OpenError> {
        let (index, stored) = self.load_index(found, seal)?;
        let mut walk = Walk::start(&found.header, found.check);
        (walk.end, walk.chain.next_offset, walk.chain.prev_check) = (seal.end, seal.next_offset, seal.check);
        let replay = self.rebuild_epochs || self.replay_from < seal.next_offset;
        if stored && !replay {
            self.push(found, &walk, index, true);
            return Ok(true);
        }
        let mut walk = Walk::start(&found.header, found.check);
        let (index, stop) = self.walk(found, &mut walk, index, Until::Seal(seal, stored))?;
        if !stored {
            self.report.rebuilt.push(Rebuilt::Index(found.header.ordinal));
            self.note(Evidence::Derived { usable: false });
        }
        self.push(found, &walk, index, stored && stop.is_none());
        let Some(stop) = stop else { return Ok(true) };
        let short = found.len < seal.end;
        let tail = Tail::Scanned { stop: at(&stop), flushed: Flushed::Below, later: Later::Nothing, short };
        self.note(Evidence::Tail(tail));
        self.take_offline(found, walk.end, &stop);
        Ok(false)
    }

    /// The last segment.
    fn tail(&mut self, found: &Found) -> Result<(), OpenError> {
        let is_here = |m: &Mark| m.is_in(found.header.ordinal, found.header.uuid);
        let clean = self.survey.state.as_ref().and_then(|s| s.clean).filter(|c| is_here(&c.mark));
        if let Some(clean) = clean.filter(|_| self.offline.is_none())
            && self.clean_matches(found, &clean.mark)?
        {
            return self.clean(found, &clean);
        }
        self.crashed = true;
        let flushed = self.survey.marks().filter(|m| is_here(m)).map(|m| m.end).max().unwrap_or(0);
        let mut walk = Walk::start(&found.header, found.check);
        let mut index = Index::new(self.options.index_interval_bytes);
        if let Some((mark, mark_index)) = self.resume(found)? {
            walk.chain.seq = mark.next_seq;
            walk.chain.next_offset = mark.next_offset;
            walk.chain.prev_check = mark.last_check;
            (walk.end, walk.last_group, index) = (mark.end, mark.last_group, mark_index);
        }
        let (index, stop) = self.walk(found, &mut walk, index, Until::End)?;
        let stop = stop.expect("a walk without a seal ends somewhere");
        self.replaced = stop == Stop::Replaced;
        let (later, used_to) = match stop {
            // What follows is not of this log, whatever it knows.
            Stop::Replaced => (Later::Nothing, walk.end),
            _ => self.later(found, &walk, &stop)?,
        };
        let evidence = Tail::Scanned {
            stop: at(&stop),
            flushed: match self.survey.state_damaged {
                true => Flushed::Unknown,
                false if walk.end < flushed => Flushed::Below,
                false => Flushed::Reached,
            },
            later,
            short: found.len < flushed,
        };
        let (row, verdict) = self.note(Evidence::Tail(evidence));
        self.push(found, &walk, index, false);
        if verdict == Verdict::Offline {
            self.take_offline(found, walk.end, &stop);
        } else if matches!(row, Row::TornTail | Row::LaterUnflushed | Row::Misplaced) {
            let bytes = used_to.saturating_sub(walk.end);
            self.report.dropped = Some(Dropped { file: found.path.clone(), from: walk.end, bytes });
        }
        Ok(())
    }

    /// Opens the last segment as the clean-stop record says.
    fn clean(&mut self, found: &Found, clean: &CleanStop) -> Result<(), OpenError> {
        let mark = &clean.mark;
        let seal = PrevEnd {
            uuid: mark.segment,
            end: mark.end,
            next_offset: mark.next_offset,
            check: mark.last_check,
        };
        if self.sealed(found, &seal)? {
            self.note(Evidence::Tail(Tail::Clean));
            let meta = self.segments.last_mut().expect("pushed by sealed");
            (meta.last_group, meta.next_seq) = (mark.last_group, mark.next_seq);
            meta.crash_ended = !clean.reopen;
            let reopen = Reopen { next_seq: mark.next_seq, last_group: mark.last_group };
            self.reopen = clean.reopen.then_some(reopen);
        }
        Ok(())
    }

    /// Whether the file is as long as the record says, and the group or header that it names stands at its end.
    fn clean_matches(&mut self, found: &Found, mark: &Mark) -> Result<bool, OpenError> {
        if found.len < mark.end {
            return Ok(false);
        }
        if mark.last_group == 0 {
            let header_only = mark.end == SEGMENT_HEADER_BYTES as u64 && mark.next_seq == 0;
            let fits = mark.next_offset == found.header.base_offset && mark.last_check == found.check;
            return Ok(header_only && fits);
        }
        self.look(found, |reader| {
            let head = reader.peek(mark.last_group, GROUP_HEADER_BYTES).ok();
            head.and_then(|head| GroupHeader::decode(head).ok()).is_some_and(|group| {
                group.segment == mark.segment
                    && group.generation == found.header.generation
                    && group.check == mark.last_check
                    && group.next_offset == mark.next_offset
                    && group.seq.wrapping_add(1) == mark.next_seq
                    && mark.last_group + GROUP_HEADER_BYTES as u64 + u64::from(group.byte_len) == mark.end
            })
        })
    }

    /// The flush checkpoint, where the walk can begin: if index and producer state reach as far.
    fn resume(&mut self, found: &Found) -> Result<Option<(Mark, Index)>, OpenError> {
        let state = self.survey.state.as_ref();
        let mark = state.and_then(|s| s.flushed).filter(|m| m.is_in(found.header.ordinal, found.header.uuid));
        let Some(mark) = mark.filter(|m| m.end <= found.len && self.replay_from >= m.next_offset) else {
            return Ok(None);
        };
        let seal = PrevEnd {
            uuid: mark.segment,
            end: mark.end,
            next_offset: mark.next_offset,
            check: mark.last_check,
        };
        let (index, stored) = self.load_index(found, &seal)?;
        Ok(stored.then_some((mark, index)))
    }

    /// The index file of a segment that ends at `seal`, or an empty index and false.
    fn load_index(&mut self, found: &Found, seal: &PrevEnd) -> Result<(Index, bool), OpenError> {
        let name = index_name(found.header.ordinal);
        let empty = Index::new(self.options.index_interval_bytes);
        let Some(len) = self.survey.file_len(&name) else { return Ok((empty, false)) };
        let path = self.dir.join(name);
        let reach = Reach {
            segment: found.header.uuid,
            end: seal.end,
            next_offset: seal.next_offset,
            last_check: seal.check,
        };
        match read_checkpoint(self.source, &path, len)?.map(|bytes| Index::decode(&bytes, &reach)) {
            Some(Ok(index)) => Ok((index, true)),
            Some(Err(NotCheckpoint::Newer(version))) => Err(OpenError::Newer { path, version }),
            _ => Ok((empty, false)),
        }
    }

    /// Walks on from `walk` and gathers what is derived. Returns the index, and why the walk ended unless it reached the seal.
    fn walk(
        &mut self,
        found: &Found,
        walk: &mut Walk,
        mut index: Index,
        until: Until<'_>,
    ) -> Result<(Index, Option<Stop>), OpenError> {
        let (seal, complete) = match until {
            Until::Seal(seal, complete) => (Some(seal), complete),
            Until::End => (None, false),
        };
        let known_epochs = self.written_epochs.clone().filter(|_| seal.is_none());
        let chain = self.options.planted != Some(Planted::NoChain);
        let depth = Depth { crc: seal.is_none(), chain, epochs: known_epochs.as_ref() };
        let (mut producers, mut epochs) =
            (std::mem::take(&mut self.producers), std::mem::take(&mut self.epochs));
        let (now_ms, replay_from) = (self.now_ms, self.replay_from);
        let mut see = |batch: &BatchHead, position: u64| {
            if !complete {
                index.add(batch.base_offset, position, batch.max_timestamp_ms);
            }
            if batch.base_offset >= replay_from {
                producers.advance(&batch.sequenced(), batch.base_offset, batch.append_time_ms(), now_ms);
            }
            epochs.assign(batch.leader_epoch, batch.base_offset);
        };
        let stop = self.with_reader(found, |reader| walk.run_to(reader, seal, depth, &mut see))?;
        (self.producers, self.epochs) = (producers, epochs);
        match stop {
            Some(Stop::Newer(version)) => Err(OpenError::Newer { path: found.path.clone(), version }),
            stop => Ok((index, stop)),
        }
    }

    /// What lies behind the end of the walk, and how far there is anything.
    fn later(&mut self, found: &Found, walk: &Walk, stop: &Stop) -> Result<(Later, u64), OpenError> {
        let (from, misplaced) = match stop {
            Stop::Misplaced { end, flushed_through, .. } => (*end, *flushed_through),
            _ => (walk.end, 0),
        };
        let chain = walk.chain;
        let later = self.with_reader(found, |reader| later_groups(reader, from, &chain))?;
        let flushed = later.flushed_through.max(misplaced) > walk.end;
        let kind = match later {
            _ if flushed => Later::Flushed,
            later if later.unreadable => Later::Unreadable,
            later if later.groups > 0 => Later::Unflushed,
            _ => Later::Nothing,
        };
        Ok((kind, later.used_to.max(from)))
    }

    fn with_reader<T>(
        &mut self,
        found: &Found,
        run: impl FnOnce(&mut SegmentReader) -> T,
    ) -> Result<T, OpenError> {
        let file = self.open(found)?;
        let mut reader = SegmentReader::new(self.source, file, found.len);
        let result = run(&mut reader);
        self.report.bytes_scanned += reader.bytes_read();
        self.source.close(file);
        Ok(result)
    }

    /// As `with_reader`, where one place is looked at.
    fn look<T>(&mut self, found: &Found, run: impl FnOnce(&mut SegmentReader) -> T) -> Result<T, OpenError> {
        let file = self.open(found)?;
        let mut reader = SegmentReader::for_a_look(self.source, file, found.len);
        let result = run(&mut reader);
        self.report.bytes_scanned += reader.bytes_read();
        self.source.close(file);
        Ok(result)
    }

    fn open(&mut self, found: &Found) -> Result<FileId, OpenError> {
        let opened = self.source.open(&found.path, OpenMode::Read);
        opened.map_err(|errno| OpenError::Io { path: found.path.clone(), errno })
    }

    fn push(&mut self, found: &Found, walk: &Walk, index: Index, index_stored: bool) {
        self.segments.push(SegmentMeta {
            header: found.header.clone(),
            file_len: found.len,
            end: walk.end,
            next_offset: walk.chain.next_offset,
            last_check: walk.chain.prev_check,
            last_group: walk.last_group,
            next_seq: walk.chain.seq,
            index,
            index_stored,
            crash_ended: self.crashed,
        });
    }

    fn note(&mut self, evidence: Evidence) -> (Row, Verdict) {
        let (row, verdict) = decide(&evidence);
        self.report.rows.push(row);
        (row, verdict)
    }

    fn take_offline(&mut self, found: &Found, position: u64, stop: &Stop) {
        self.offline = Some(Corrupt { file: found.path.clone(), position, what: stop.text() });
    }

    /// Does what was decided, and hands over.
    fn finish(mut self) -> Result<Recovered, OpenError> {
        let (mut log_start, next_offset) = (self.log_start(), self.next_offset());
        if self.replaced && self.offline.is_none() {
            // It began inside the batch that a truncation dropped.
            log_start = log_start.min(next_offset);
        }
        if log_start > next_offset && self.offline.is_none() {
            self.report.rows.push(Row::LostFile);
            let what = "log start lies behind the end of the log";
            let file = self.survey.segments.last().map_or(self.dir.to_path_buf(), |s| s.path.clone());
            self.offline = Some(Corrupt { file, position: 0, what });
        }
        if self.rebuild_epochs && !self.survey.segments.is_empty() {
            self.report.rebuilt.push(Rebuilt::State);
            self.note(Evidence::Derived { usable: false });
        }
        if self.replay_from == Offset::ZERO && next_offset > Offset::ZERO {
            self.report.rebuilt.push(Rebuilt::Producers);
            self.note(Evidence::Derived { usable: false });
        }
        if self.offline.is_none() {
            self.act()?;
        }
        let state = self.survey.state.as_ref();
        let headers = || self.survey.segments.iter().map(|s| &s.header);
        let newest = headers().map(|h| h.generation).chain(state.map(|s| s.generation)).max().unwrap_or(0);
        let leader_epoch = headers().map(|h| h.leader_epoch).chain(state.map(|s| s.leader_epoch)).max();
        let leader_epoch = leader_epoch.unwrap_or(LeaderEpoch::NONE).max(self.epochs.latest());
        let next_offset = next_offset.max(log_start);
        self.epochs.truncate_end(next_offset);
        self.epochs.truncate_start(log_start);
        let sealed = self.segments.len().saturating_sub(1);
        for segment in &mut self.segments[..sealed] {
            segment.index.shrink_to(entries_per_segment(sealed));
        }
        let generation = match (&self.reopen, self.segments.last()) {
            (Some(_), Some(last)) => last.header.generation,
            _ => newest.saturating_add(1),
        };
        let unrecorded = self.crashed || !self.report.rebuilt.is_empty();
        Ok(Recovered {
            strays: self.strays(),
            unrecorded: unrecorded && self.offline.is_none() && !self.segments.is_empty(),
            state_seq: state.map_or(0, |s| s.seq),
            segments: self.segments,
            reopen: self.reopen,
            next_offset,
            log_start,
            epochs: self.epochs,
            leader_epoch,
            producers: self.producers,
            generation,
            offline: self.offline,
            report: self.report,
        })
    }

    /// What a deletion of the log would not find by its segments.
    fn strays(&self) -> Vec<PathBuf> {
        let files = self.survey.files.iter().filter(|e| !e.is_dir && self.offline.is_some());
        files.map(|entry| self.dir.join(&entry.name)).collect()
    }

    fn act(&mut self) -> Result<(), OpenError> {
        let last = self.survey.segments.last().map(|s| s.path.clone()).filter(|_| self.crashed);
        if let Some(path) = &last {
            let io = |errno| OpenError::Io { path: path.clone(), errno };
            let file = self.source.open(path, OpenMode::Write).map_err(io)?;
            let flushed = self.source.run(Op::Flush { file });
            self.source.close(file);
            flushed.map_err(io)?;
        }
        for path in std::mem::take(&mut self.survey.remove) {
            let removed = self.source.run(Op::RemoveFile { path: path.clone() });
            removed.map_err(|errno| OpenError::Io { path: path.clone(), errno })?;
            self.report.removed.push(path);
        }
        // A log start that only the page cache has, of a process that was killed behind its rename, must not fall again once it was shown.
        let raised = self.log_start() > Offset::ZERO;
        if last.is_some() || raised || !self.report.removed.is_empty() {
            let path = self.dir.to_path_buf();
            let synced = self.source.run(Op::SyncDir { path: path.clone() });
            synced.map_err(|errno| OpenError::Io { path, errno })?;
        }
        Ok(())
    }
}

fn at(stop: &Stop) -> At {
    match stop {
        Stop::Zeros | Stop::EndOfFile => At::Nothing,
        Stop::Bad(_) | Stop::Newer(_) => At::Bad,
        Stop::Foreign | Stop::Replaced => At::Foreign,
        Stop::Misplaced { .. } => At::Misplaced,
        Stop::Unreadable => At::Unreadable,
    }
}
