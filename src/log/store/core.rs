//! What the logs of a store share: operations in flight, jobs, rounds, timers, lists of logs with work to do. Apart from the logs, so that a
//! log and this can be borrowed at once.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::jobs::{Jobs, make_zeros};
use super::reads::Orphan;
use super::{Counters, Event, LogSlot, Planted, StoreConfig, Tag};
use crate::base::ids::Uuid;
use crate::io::buffer::{Block, BlockSlice, Pool};
use crate::io::{Errno, FileId, Mono};
use crate::log::commit::{Flush, Planner};
use crate::log::recovered::Totals;
use crate::log::segment::Segment;

/// Uuids kept at hand. Each roll takes one; a turn with more rolls than this makes some appends wait for the next.
pub const UUIDS_KEPT: usize = 64;

/// Blocks set aside for background work.
const JOB_BLOCKS: usize = 1;

/// What an operation in flight was for.
#[derive(Clone, Copy, Debug)]
pub enum Pending {
    Write(Write),
    Flush {
        round: usize,
        flush: Flush,
        attempts: u32,
    },
    Job {
        job: u32,
        write: Option<(u64, u32)>,
    },
    /// A read that looks for the place of a truncation.
    Search {
        log: u32,
        at: usize,
    },
    /// Closing a file: nothing follows.
    Close,
}

/// A commit's write.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    pub log: u32,
    /// In the log's ledger.
    pub number: u64,
    pub file: FileId,
    pub offset: u64,
    pub len: u32,
    /// None outside rounds: the log's level does not wait for a flush.
    pub round: Option<usize>,
    pub dsync: bool,
    pub attempts: u32,
}

/// Operations in flight, by tag: 20 bits of slot, 12 of generation.
#[derive(Debug, Default)]
pub struct PendingTable {
    entries: Vec<(u16, Option<Pending>)>,
    free: Vec<u32>,
}

const SLOT_BITS: u32 = 20;

impl PendingTable {
    pub fn insert(&mut self, what: Pending) -> Tag {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push((0, None));
            self.entries.len() as u32 - 1
        });
        assert!(slot < 1 << SLOT_BITS, "operations in flight are bounded by jobs, rounds and blocks");
        let entry = &mut self.entries[slot as usize];
        entry.1 = Some(what);
        Tag(u32::from(entry.0) << SLOT_BITS | slot)
    }

    pub fn take(&mut self, tag: Tag) -> Option<Pending> {
        let slot = tag.0 & ((1 << SLOT_BITS) - 1);
        let entry = self.entries.get_mut(slot as usize)?;
        if u32::from(entry.0) != tag.0 >> SLOT_BITS {
            return None;
        }
        let what = entry.1.take()?;
        entry.0 = (entry.0 + 1) & 0xfff;
        self.free.push(slot);
        Some(what)
    }
}

/// A list of logs without duplicates; membership is a flag in the log.
pub type LogList = Vec<u32>;

pub struct Core {
    pub config: StoreConfig,
    pub counters: Counters,
    pub events: Vec<Event>,
    pub pending: PendingTable,
    pub jobs: Jobs,
    pub planner: Planner,
    pub flushes: Vec<Flush>,
    /// Staged bytes, or a flush that is due: the planner looks at these.
    pub dirty: LogList,
    /// Background work to start.
    pub todo: LogList,
    /// Written or in memory only, and not flushed: flushed early when memory is short.
    pub lazy: LogList,
    /// Wake-ups of logs; stale ones are recognised by the log.
    pub timers: BinaryHeap<Reverse<(Mono, u32)>>,
    pub uuids: Vec<Uuid>,
    /// Random, and another one in each process: part of the names of temporary files.
    pub nonce: u32,
    pub spare: Vec<Block>,
    pub slices: Vec<(u64, u64, BlockSlice)>,
    /// Logs in the order in which they started blocks: eviction goes round.
    pub cached: VecDeque<u32>,
    /// Before then none of them would give a block that the cache's size asks for.
    pub evict_at: Mono,
    zeros: Option<BlockSlice>,
    job_blocks: Vec<Block>,
    /// Retired files with reads in flight, and those whose last read is over.
    pub orphans: Vec<Orphan>,
    pub closing: Vec<FileId>,
    /// What opening the logs met.
    pub opened: Totals,
    /// The next look at all logs' retention, and the log at which it goes on.
    pub sweep_at: Mono,
    pub sweep_ms: u64,
    pub sweep_next: usize,
    /// Logs that are being truncated.
    pub truncating: LogList,
    /// Logs that the clean stop still waits for.
    pub stop_left: usize,
    /// [`Event::Dead`] has left.
    pub death_told: bool,
    pub disk_low: bool,
    pub stopping: bool,
    pub memory_short: bool,
    /// A file could not be opened because too many are; and the log from which on others are asked to close theirs.
    pub files_short: bool,
    pub files_next: usize,
    pub now: Mono,
    /// The first time that the store was told: what was opened before then was opened about then.
    began: Mono,
    pub wall_ms: i64,
    /// Logs that wait for space: appends to them are refused.
    pub no_space: Vec<u32>,
}

impl Core {
    pub fn new(config: StoreConfig) -> Core {
        let planner = Planner::new(config.caps.flush_apart);
        Core {
            config,
            counters: Counters::default(),
            events: Vec::new(),
            pending: PendingTable::default(),
            jobs: Jobs::default(),
            planner,
            flushes: Vec::new(),
            dirty: Vec::new(),
            todo: Vec::new(),
            lazy: Vec::new(),
            timers: BinaryHeap::new(),
            uuids: Vec::new(),
            nonce: 0,
            spare: Vec::new(),
            slices: Vec::new(),
            cached: VecDeque::new(),
            evict_at: Mono(0),
            zeros: None,
            job_blocks: Vec::new(),
            orphans: Vec::new(),
            closing: Vec::new(),
            opened: Totals::default(),
            sweep_at: Mono(0),
            sweep_ms: super::background::SWEEP_MS,
            sweep_next: 0,
            truncating: Vec::new(),
            stop_left: 0,
            death_told: false,
            disk_low: false,
            stopping: false,
            memory_short: false,
            files_short: false,
            files_next: 0,
            now: Mono(0),
            began: Mono(0),
            wall_ms: 0,
            no_space: Vec::new(),
        }
    }

    /// Takes random uuids; the first one ever also names this process.
    pub fn add_uuids(&mut self, uuids: impl Iterator<Item = Uuid>) {
        self.uuids.extend(uuids);
        if let (0, Some(Uuid([a, b, c, d, ..]))) = (self.nonce, self.uuids.first()) {
            self.nonce = u32::from_le_bytes([*a, *b, *c, *d]) | 1;
        }
    }

    pub fn set_time(&mut self, now: Mono, wall_ms: i64) {
        if self.began == Mono(0) {
            self.began = now;
        }
        self.now = self.now.max(now);
        self.wall_ms = wall_ms;
    }

    /// How old a segment is, in ms. Counted by the monotonic clock from where this process took over.
    pub fn age_ms(&self, segment: &Segment) -> u64 {
        segment.age_ms.saturating_add(self.now.since_ms(segment.known.max(self.began)))
    }

    /// When the store has something to do by itself.
    pub fn next_deadline(&self, has_logs: bool) -> Option<Mono> {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        let sweep = (has_logs && !self.stopping).then_some(self.sweep_at);
        // Asked for behind the announcement of a sleep: who dies later wakes us.
        let death = (!self.death_told && self.is_dead()).then_some(self.now);
        let work = !self.jobs.runnable.is_empty() || !self.todo.is_empty() || !self.closing.is_empty();
        let soon = work.then(|| self.now.plus_ms(1));
        [death, timer, sweep, soon, self.jobs.next_deadline()].into_iter().flatten().min()
    }

    pub fn is_planted(&self, bug: Planted) -> bool {
        self.config.planted == Some(bug)
    }

    /// Sets aside what background work needs: staged bytes may wait for it, so it must not wait for their blocks.
    pub fn reserve_for_jobs(&mut self, pool: &mut Pool) -> bool {
        while self.job_blocks.len() < JOB_BLOCKS {
            match pool.take() {
                Some(block) => self.job_blocks.push(block),
                None => return false,
            }
        }
        self.zeros(pool).is_some()
    }

    /// A block for a job to write from.
    pub fn job_block(&mut self, pool: &mut Pool) -> Option<Block> {
        self.job_blocks.pop().or_else(|| pool.take())
    }

    /// A log started a block: the one before it is full.
    pub fn began_block(&mut self, log: u32) {
        self.cached.push_back(log);
        self.evict_at = Mono(0);
    }

    /// A block of zeros, made once.
    pub fn zeros(&mut self, pool: &mut Pool) -> Option<BlockSlice> {
        if self.zeros.is_none() {
            self.zeros = Some(make_zeros(&mut pool.take()?));
        }
        self.zeros.clone()
    }

    pub fn no_space(&mut self, slot: LogSlot) {
        if !self.no_space.contains(&slot.index) {
            tracing::warn!(
                log = slot.index,
                "no space left for a log; appends to it are refused until there is"
            );
            self.no_space.push(slot.index);
            self.events.push(Event::NoSpace(slot));
        }
    }

    /// A write or flush failed: from now on no ack leaves this directory.
    pub fn die(&mut self, reason: String) {
        self.config.fate.die(reason);
    }

    /// This store, or another one of the same directory, saw a write or flush fail.
    pub fn is_dead(&self) -> bool {
        self.config.fate.is_dead()
    }

    /// The last look before acks leave. What happened since the one before and would let some go is taken back: its flush may have
    /// succeeded behind the one that failed.
    pub fn tell_death(&mut self) {
        if !self.death_told
            && let Some(why) = self.config.fate.why()
        {
            self.death_told = true;
            self.events.retain(|event| !matches!(event, Event::HighWatermark(_) | Event::LogStart(_)));
            self.events.push(Event::Dead(why));
        }
    }

    /// Closes a file that nothing new uses, behind its last read.
    pub fn leave(&mut self, file: FileId, readers: u32) {
        match readers {
            0 => self.closing.push(file),
            readers => self.orphans.push(Orphan { file, readers }),
        }
    }

    pub fn die_of(&mut self, what: &'static str, errno: Errno) {
        self.die(format!("{what} failed: {errno}"));
    }

    pub fn event_high_watermark(&mut self, slot: LogSlot) {
        self.events.push(Event::HighWatermark(slot));
    }
}
