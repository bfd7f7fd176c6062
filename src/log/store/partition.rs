//! One log: what the store keeps for a partition. The rules live where they act: staging in `append.rs`, durability in `commit.rs`, and what
//! starts when in `flow.rs` and `background.rs` beside this.

use std::collections::VecDeque;
use std::path::PathBuf;

use super::core::Core;
use super::truncation::Truncation;
use super::{Bounds, Description, Durability, LogConfig, LogSlot, SegmentDescription};
use crate::base::error::Corrupt;
use crate::base::ids::{LeaderEpoch, PartitionKey, Uuid};
use crate::base::offset::{Durable, HighWatermark, LastStable, LogEnd, LogStart, Offset};
use crate::io::{FileId, Mono};
use crate::log::append::{Chain, Stage};
use crate::log::checkpoint::{CleanStop, Mark, State};
use crate::log::commit::{Ledger, Reach, Staged};
use crate::log::epochs::EpochCache;
use crate::log::format::{PrevEnd, SEGMENT_HEADER_BYTES, SegmentHeader, segment_name};
use crate::log::index::Index;
use crate::log::marks::Marks;
use crate::log::producers::Producers;
use crate::log::recovered::Recovered;
use crate::log::segment::{Extents, Segment, Window};
use crate::log::tail::{Place, Tail};

/// Segments that a generation may begin before the names of the next one come near.
const ORDINALS_PER_GENERATION: u64 = 1_000_000;

/// What must be on disk before the first write of a log after its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// Nothing was appended since the start.
    Idle,
    /// `state` with the new epoch is not durable yet, perhaps not even the directory.
    State,
    Done,
}

/// A segment file that is ready and not used yet.
#[derive(Clone, Copy, Debug)]
pub struct Prepared {
    pub ordinal: u64,
    /// None once it was closed because the log is idle.
    pub file: Option<FileId>,
    pub zeroed: u64,
    pub extents: Extents,
}

/// Progress of the `state` file.
#[derive(Clone, Copy, Debug, Default)]
pub struct StateFile {
    /// Replacements so far.
    pub seq: u64,
    /// It should be written again.
    pub wanted: bool,
    /// A job writes it.
    pub running: bool,
    /// What the running job wrote down.
    pub log_start: Offset,
    pub epoch: LeaderEpoch,
    pub flushed: Option<Mark>,
    /// The flushed position that is on disk.
    pub checkpointed: Option<Mark>,
    /// When the flushed position is written down.
    pub checkpoint_at: Option<Mono>,
    /// Where the log ended when it was closed in order, while nothing was appended since.
    pub clean: Option<CleanStop>,
}

/// Progress of the clean stop of one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Running,
    /// Flushed; files are being trimmed and derived files written.
    Trimming,
    /// The clean-stop record is being written.
    Recording,
    Stopped,
}

pub struct Log {
    pub slot: LogSlot,
    pub key: PartitionKey,
    pub config: LogConfig,
    pub dir: PathBuf,
    /// There may be files of it.
    pub exists: bool,
    /// The directory and the way to it are durable, as this process made sure; and whether it is doing so.
    pub has_directory: bool,
    pub making_directory: bool,
    pub setup: Setup,
    pub deleting: bool,
    pub leader_epoch: LeaderEpoch,
    pub epochs: EpochCache,
    pub producers: Producers,
    /// The `producers` file as of the last roll, to be written once that is flushed; and whether a job writes one.
    pub snapshot: Option<Vec<u8>>,
    pub snapshotting: bool,
    pub generation: u32,
    pub segments: VecDeque<Segment>,
    pub next_ordinal: u64,
    pub next: Option<Prepared>,
    /// Ordinal whose file a job makes.
    pub preparing: Option<u64>,
    pub window: Window,
    pub extending: bool,
    pub stage: Stage,
    pub tail: Tail,
    pub ledger: Ledger,
    pub marks: Marks,
    pub log_start: Offset,
    /// Log start to be persisted.
    pub log_start_wanted: Offset,
    pub high_watermark: Offset,
    pub state: StateFile,
    /// When what is written or in memory only is flushed.
    pub flush_at: Option<Mono>,
    pub unflushed_bytes: u64,
    /// The flush is due.
    pub flush_now: bool,
    /// Rounds in flight that this log is a member of.
    pub rounds: u32,
    /// Jobs of this log.
    pub jobs: u32,
    pub is_dirty: bool,
    pub is_todo: bool,
    pub is_lazy: bool,
    /// Its files were seen to lie on another device than the data directory.
    pub is_elsewhere: bool,
    /// Damage below a position that was possibly acknowledged was found at start: nothing is appended.
    pub read_only: bool,
    /// Reads at or behind this offset are refused: the bytes there are damaged.
    pub corrupt_from: Option<Offset>,
    pub appended: bool,
    /// What recovery found, and the files do not say.
    pub unrecorded: bool,
    /// Files of a damaged log beside those of its segments.
    pub strays: Vec<PathBuf>,
    /// Last append or read.
    pub used: Mono,
    /// When idle files are looked for.
    pub idle_at: Option<Mono>,
    /// Segment that a read waits for to be opened.
    pub open_wanted: Option<u64>,
    /// A job removes or recycles segments: one at a time, oldest first, so that what is left after a crash has no gap.
    pub retiring: bool,
    /// Jobs that finish sealed segments: until they are through no segment is retired.
    pub trims: u32,
    /// The job that removes everything runs.
    pub removing: bool,
    pub stop: Stop,
    pub truncation: Option<Box<Truncation>>,
}

impl Log {
    pub fn new(slot: LogSlot, key: PartitionKey, config: LogConfig, core: &Core) -> Log {
        let topic = core.config.data_dir.join(key.topic.to_string());
        Log {
            slot,
            key,
            config,
            dir: topic.join(key.partition.to_string()),
            exists: false,
            has_directory: false,
            making_directory: false,
            setup: Setup::Idle,
            deleting: false,
            leader_epoch: LeaderEpoch(0),
            epochs: EpochCache::default(),
            producers: Producers::default(),
            snapshot: None,
            snapshotting: false,
            generation: 1,
            segments: VecDeque::new(),
            next_ordinal: 0,
            next: None,
            preparing: None,
            window: Window::default(),
            extending: false,
            stage: Stage::default(),
            tail: Tail::default(),
            ledger: Ledger::default(),
            marks: Marks::default(),
            log_start: Offset::ZERO,
            log_start_wanted: Offset::ZERO,
            high_watermark: Offset::ZERO,
            state: StateFile::default(),
            flush_at: None,
            unflushed_bytes: 0,
            flush_now: false,
            rounds: 0,
            jobs: 0,
            is_dirty: false,
            is_todo: false,
            is_lazy: false,
            is_elsewhere: false,
            read_only: false,
            corrupt_from: None,
            appended: false,
            unrecorded: false,
            strays: Vec::new(),
            used: Mono(0),
            idle_at: None,
            open_wanted: None,
            retiring: false,
            trims: 0,
            removing: false,
            stop: Stop::Running,
            truncation: None,
        }
    }

    pub fn index(&self) -> u32 {
        self.slot.index
    }

    /// Behind the last staged record.
    pub fn log_end(&self) -> Offset {
        match self.stage.active() {
            Some(active) => active.next_offset,
            None => self.ledger.durable().next_offset,
        }
    }

    pub fn bounds(&self) -> Bounds {
        Bounds {
            log_start: LogStart(self.log_start),
            log_end: LogEnd(self.log_end()),
            durable: Durable(self.ledger.durable().next_offset),
            high_watermark: HighWatermark(self.high_watermark),
            last_stable: LastStable(self.high_watermark),
            leader_epoch: self.leader_epoch,
        }
    }

    /// What the topic's durability level has reached.
    pub fn reached(&self) -> Offset {
        match self.config.durability {
            Durability::Durable => self.ledger.durable().next_offset,
            Durability::Written => self.ledger.written().next_offset.max(self.ledger.durable().next_offset),
            Durability::Memory => self.log_end(),
        }
    }

    pub fn segment(&self, ordinal: u64) -> Option<&Segment> {
        let index = self.segments.partition_point(|s| s.ordinal < ordinal);
        self.segments.get(index).filter(|s| s.ordinal == ordinal)
    }

    pub fn segment_mut(&mut self, ordinal: u64) -> Option<&mut Segment> {
        let index = self.segments.partition_point(|s| s.ordinal < ordinal);
        self.segments.get_mut(index).filter(|s| s.ordinal == ordinal)
    }

    /// The segment that holds `offset`, or the last one.
    pub fn segment_of(&self, offset: Offset) -> Option<&Segment> {
        let index = self.segments.partition_point(|s| s.base_offset <= offset);
        self.segments.get(index.checked_sub(1)?)
    }

    /// Position of the active segment that is known flushed, for the next group header.
    pub fn flushed_position(&self) -> u64 {
        let durable = self.ledger.durable().place;
        match self.stage.active() {
            Some(active) if active.ordinal == durable.ordinal => durable.position,
            _ => 0,
        }
    }

    /// Seals the open group.
    pub fn seal_group(&mut self) {
        let flushed = self.flushed_position();
        self.stage.seal(&mut self.tail, flushed);
    }

    /// Whether a batch of `bytes` needs a new segment.
    pub fn rolls(&self, bytes: usize, core: &Core) -> bool {
        let (Some(end), Some(active)) = (self.stage.end_with(bytes), self.segments.back()) else {
            return true;
        };
        let full = end > self.config.segment_bytes || core.age_ms(active) >= self.config.segment_ms;
        full && !active.is_empty()
    }

    /// A batch of another leader comes next: it begins a group of its own epoch.
    pub fn follow_epoch(&mut self, epoch: LeaderEpoch, start: Offset) {
        if epoch > self.leader_epoch || self.epochs.entries().is_empty() {
            self.seal_group();
            self.leader_epoch = epoch;
            self.stage.chain.leader_epoch = epoch;
            self.epochs.assign(epoch, start);
            self.state.wanted = true;
        }
    }

    /// Ends the active segment, if there is one, and begins the next. Its file may come later. False without a uuid for it.
    pub fn roll(&mut self, core: &mut Core) -> bool {
        let Some(uuid) = core.uuids.pop() else { return false };
        self.seal_group();
        let prev = self.end_active();
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        let base_offset = self.log_end();
        let header = SegmentHeader {
            generation: self.generation,
            uuid,
            key: self.key,
            ordinal,
            base_offset,
            prev,
            leader_epoch: self.leader_epoch,
            created_ms: core.wall_ms,
            directory: core.config.directory,
        };
        let (block, check) = header.encode();
        let chain = Chain {
            segment: uuid,
            generation: self.generation,
            leader_epoch: self.leader_epoch,
            seq: 0,
            prev_check: check,
        };
        let index = Index::new(self.config.index_interval_bytes);
        self.segments.push_back(Segment::new(ordinal, uuid, base_offset, check, index, core.now));
        self.stage.begin_segment(&mut self.tail, ordinal, base_offset, &block[..], chain, &mut core.spare);
        core.began_block(self.index());
        true
    }

    /// Writes down where the active segment ends; returns its seal.
    fn end_active(&mut self) -> PrevEnd {
        let check = self.stage.chain.prev_check;
        let active = self.stage.active().copied();
        let next_offset = self.log_end();
        let Some(last) = self.segments.back_mut() else {
            return PrevEnd { next_offset, ..PrevEnd::default() };
        };
        if let Some(active) = active {
            self.snapshot = Some(self.producers.encode(active.next_offset));
            last.end = active.end;
            last.next_offset = active.next_offset;
            last.check = check;
            last.next_seq = self.stage.chain.seq;
        }
        PrevEnd { uuid: last.uuid, end: last.end, next_offset: last.next_offset, check: last.check }
    }

    /// What the commit planner decides on; none without staged bytes.
    pub fn staged(&self) -> Option<Staged> {
        let front = self.stage.stretches.front()?;
        let segment = self.segment(front.ordinal)?;
        Some(Staged {
            from: front.from,
            end: front.end,
            in_flight: self.ledger.in_flight(),
            file_ready: self.setup == Setup::Done && segment.handle.file().is_some() && segment.writable,
            predecessors_flushed: self.ledger.first_ordinal().is_none_or(|first| first >= front.ordinal),
            zeroed: segment.zeroed,
            may_wait: self.config.durability == Durability::Memory && !self.flush_now,
        })
    }

    /// Nothing of this log is in flight.
    pub fn is_quiet(&self) -> bool {
        self.jobs == 0
            && self.rounds == 0
            && self.ledger.in_flight() == 0
            && self.segments.iter().all(|s| s.readers == 0)
    }

    /// Everything that was appended is flushed.
    pub fn is_flushed(&self) -> bool {
        self.stage.bytes() == 0 && self.ledger.is_settled()
    }

    /// The bytes of the `state` file now; notes what they say.
    pub fn encode_state(&mut self, directory: Uuid) -> Vec<u8> {
        self.state.seq += 1;
        // Never behind what is flushed: a log would start where it may not be after a crash.
        self.state.log_start = self.log_start_wanted.min(self.ledger.durable().next_offset);
        self.state.flushed = self.flushed_mark();
        let clean = match self.stop {
            Stop::Recording if self.setup == Setup::Done => self.clean_stop(),
            _ if self.setup == Setup::Idle && self.truncation.is_none() => self.state.clean,
            _ => None,
        };
        self.state.epoch = if self.setup == Setup::Idle { LeaderEpoch::NONE } else { self.leader_epoch };
        let state = State {
            seq: self.state.seq,
            key: self.key,
            directory,
            generation: self.generation,
            // Not given out yet: the next start may have it.
            leader_epoch: if self.setup == Setup::Idle {
                LeaderEpoch(self.leader_epoch.0 - 1)
            } else {
                self.leader_epoch
            },
            log_start: self.state.log_start,
            epochs: self.epochs.clone(),
            clean,
            flushed: self.state.flushed,
        };
        state.encode()
    }

    /// The end of the log, if everything staged is flushed: then it is the end of a group.
    pub fn end_mark(&self) -> Option<Mark> {
        let active = self.stage.active().filter(|_| self.is_flushed())?;
        Some(Mark {
            ordinal: active.ordinal,
            segment: self.stage.chain.segment,
            end: self.ledger.durable().place.position,
            next_offset: active.next_offset,
            last_check: self.stage.chain.prev_check,
            last_group: self.stage.last_group(),
            next_seq: self.stage.chain.seq,
        })
    }

    /// A place that is known flushed and lies in a segment that stays: the end of the log, else what was written down before, else the header
    /// of the segment that is being written, or the end of the one before it.
    fn flushed_mark(&self) -> Option<Mark> {
        if self.truncation.is_some() {
            return None;
        }
        let durable = self.ledger.durable().place.ordinal;
        let before = self.state.checkpointed.filter(|mark| mark.ordinal == durable);
        self.end_mark().or(before).or_else(|| {
            let segment = self.segment(durable).filter(|_| self.ledger.durable().place.position > 0)?;
            if segment.sealed {
                return Some(segment.end_mark());
            }
            Some(Mark {
                ordinal: durable,
                segment: segment.uuid,
                end: SEGMENT_HEADER_BYTES as u64,
                next_offset: segment.base_offset,
                last_check: segment.header_check,
                last_group: 0,
                next_seq: 0,
            })
        })
    }

    fn clean_stop(&self) -> Option<CleanStop> {
        Some(CleanStop { mark: self.end_mark()?, reopen: true })
    }

    pub fn segment_path(&self, ordinal: u64) -> PathBuf {
        self.dir.join(segment_name(ordinal))
    }

    pub fn corrupt(&self, ordinal: u64, position: u64, what: &'static str) -> Corrupt {
        Corrupt { file: self.segment_path(ordinal), position, what }
    }

    /// Wants the log start raised to `offset`, at most to the high watermark. It moves once that is on disk.
    pub fn raise_log_start(&mut self, core: &mut Core, offset: Offset) {
        let offset = offset.min(self.high_watermark);
        if offset > self.log_start_wanted {
            self.log_start_wanted = offset;
            self.state.wanted = true;
            mark_todo(self, core);
            if offset > self.ledger.durable().next_offset {
                self.flush_now = true;
                mark_dirty(self, core);
            }
        }
    }

    /// The log start is to be raised, and can be by now, at least in part.
    pub fn may_raise_log_start(&self) -> bool {
        self.log_start_wanted > self.log_start && self.ledger.durable().next_offset > self.log_start
    }

    pub fn epoch_at(&self, offset: Offset) -> LeaderEpoch {
        if offset >= self.log_end() { self.leader_epoch } else { self.epochs.epoch_at(offset) }
    }

    pub fn epoch_end(&self, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
        self.epochs.end_offset_for(epoch, self.log_end())
    }

    pub fn describe(&self) -> Description {
        let active = self.stage.active();
        let segments: Vec<SegmentDescription> = self
            .segments
            .iter()
            .map(|s| SegmentDescription {
                ordinal: s.ordinal,
                base_offset: s.base_offset,
                next_offset: s.next_offset,
                bytes: active.filter(|a| a.ordinal == s.ordinal).map_or(s.end, |a| a.end),
                max_timestamp_ms: s.max_timestamp_ms(),
            })
            .collect();
        Description { bytes: segments.iter().map(|s| s.bytes).sum(), segments }
    }

    /// Takes over what recovery found.
    pub fn adopt(&mut self, recovered: Recovered, now: Mono, wall_ms: i64) {
        self.exists = true;
        self.leader_epoch = LeaderEpoch(recovered.leader_epoch.0 + 1);
        self.epochs = recovered.epochs;
        self.producers = recovered.producers;
        self.generation = recovered.generation;
        (self.log_start, self.log_start_wanted) = (recovered.log_start, recovered.log_start);
        self.high_watermark = recovered.next_offset;
        self.state.seq = recovered.state_seq;
        let found = recovered.segments.into_iter().map(|meta| Segment::found(meta, now, wall_ms));
        self.segments = found.collect();
        // A killed predecessor may still be making or renaming files: its names are not ours. After a clean stop nothing is in flight.
        let own = if recovered.reopen.is_some() {
            0
        } else {
            u64::from(self.generation - 1) * ORDINALS_PER_GENERATION
        };
        self.next_ordinal = self.segments.back().map_or(0, |s| s.ordinal + 1).max(own);
        self.unrecorded = recovered.unrecorded;
        self.strays = recovered.strays;
        let next_offset = recovered.next_offset;
        let place =
            self.segments.back().map_or(Place::default(), |s| Place { ordinal: s.ordinal, position: s.end });
        self.ledger = Ledger::new(Reach { place, next_offset });
        self.marks = Marks::default();
        if recovered.offline.is_some() {
            self.read_only = true;
            self.corrupt_from = Some(next_offset);
            return;
        }
        let Some(last) = self.segments.back_mut() else { return };
        // Recovery has flushed what it found: until something is appended, the log ends there for good.
        self.state.clean = Some(CleanStop { mark: last.end_mark(), reopen: recovered.reopen.is_some() });
        if let Some(reopen) = recovered.reopen {
            (last.sealed, last.trimmed) = (false, false);
            (last.next_seq, last.last_group) = (reopen.next_seq, reopen.last_group);
            let chain = Chain {
                segment: last.uuid,
                generation: self.generation,
                leader_epoch: self.leader_epoch,
                seq: reopen.next_seq,
                prev_check: last.check,
            };
            self.stage.reopen(last.ordinal, last.end, next_offset, reopen.last_group, chain);
        }
    }
}

/// Puts a log on the list of those that the planner looks at.
pub fn mark_dirty(log: &mut Log, core: &mut Core) {
    if !log.is_dirty {
        log.is_dirty = true;
        core.dirty.push(log.slot.index);
    }
}

/// Puts a log on the list of those with background work.
pub fn mark_todo(log: &mut Log, core: &mut Core) {
    if !log.is_todo {
        log.is_todo = true;
        core.todo.push(log.slot.index);
    }
}
