//! What happens around commits: making directories and files before they are needed, zeroing ahead, trimming and removing behind, `state`,
//! idle files, deletion, the clean stop. [`Store::attend`] looks at one log and starts the jobs that are due; the end of a job, a roll, or a
//! timer puts a log on the list of those to attend to. A log with nothing to do is on no list.

use std::cmp::Reverse;

use super::core::{Core, Pending};
use super::flow::progress;
use super::jobs::{self, Job, Kind, Outcome, Step, replace_steps};
use super::partition::{Log, Prepared, Setup, mark_dirty, mark_todo};
use super::{Event, Ops, Planted, Store};
use crate::io::buffer::Pool;
use crate::io::{Done, Errno, FileId, Op, OpenMode, Place};
use crate::log::checkpoint::STATE_NAME;
use crate::log::format::segment_name;
use crate::log::segment::{Extents, Handle, Segment};

/// The flushed position is written down this long after the last append: while appends go on, each group header says it.
const CHECKPOINT_MS: u64 = 1_000;

/// Between two looks at the retention of all logs, where nothing else was set: Kafka's default.
pub(super) const SWEEP_MS: u64 = 300_000;

/// Logs looked at in one turn.
const SWEEP_LOGS_MAX: usize = 256;

/// Logs attended to in one turn. Where load on very many ends at once, all their checkpoints come due at the same time.
const ATTENDED_LOGS_MAX: usize = 256;

/// Files of sealed segments that a log keeps open for reads.
const READ_FILES_MAX: usize = 8;

/// Logs asked to close their files at once, where too many are open, and those that do.
const CROWD_ASKED_MAX: usize = 4096;
const CROWD_CLOSED_MAX: usize = 64;

/// Files of a log that was neither read nor written for this long are closed.
const IDLE_MS: u64 = 60_000;

/// What failed, where a job did.
const BACKGROUND: &str = "background work on a log";

impl Store {
    /// Runs due timers, starts and continues jobs.
    pub(super) fn background(&mut self, pool: &mut Pool, ops: &mut Ops) {
        let now = self.core.now;
        while self.core.timers.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((_, index))) = self.core.timers.pop() else { break };
            let Store { logs, core, .. } = self;
            if let Some(log) = logs[index as usize].log.as_deref_mut() {
                log.timer(core);
            }
        }
        self.sweep(pool);
        if std::mem::take(&mut self.core.files_short) {
            self.close_quiet();
        }
        let mut todo = std::mem::take(&mut self.core.todo);
        let count = todo.len().min(ATTENDED_LOGS_MAX);
        for index in todo.drain(..count) {
            let Store { logs, core, .. } = self;
            let Some(log) = logs[index as usize].log.as_deref_mut() else { continue };
            log.is_todo = false;
            log.attend(core);
        }
        let added = std::mem::replace(&mut self.core.todo, todo);
        self.core.todo.extend(added);
        self.truncate_on(pool, ops);
        self.run_jobs(pool, ops);
    }

    /// A completion of a job's operation.
    pub(super) fn job_done(&mut self, job: u32, write: Option<(u64, u32)>, done: Done, ops: &mut Ops) {
        let core = &mut self.core;
        // At once: what becomes of the job shows later in the turn, and acks may leave before.
        if done.result == Err(Errno::IO)
            && core.jobs.is_of_device(job)
            && !core.is_planted(Planted::RetryAfterError)
        {
            core.die_of(BACKGROUND, Errno::IO);
        }
        if let Some((op, write)) = core.jobs.done(job, write, done) {
            let tag = core.pending.insert(Pending::Job { job, write: Some(write) });
            ops.push((op, tag));
        }
    }

    /// Looks at the retention of all logs, a bounded number per turn.
    fn sweep(&mut self, pool: &mut Pool) {
        let now = self.core.now;
        if self.core.sweep_at > now || self.core.stopping || self.logs.is_empty() {
            return;
        }
        let stop = (self.core.sweep_next + SWEEP_LOGS_MAX).min(self.logs.len());
        for index in self.core.sweep_next..stop {
            let Some(log) = self.logs[index].log.as_deref() else { continue };
            let rolls = log.should_roll_idle(&self.core) && !self.core.uuids.is_empty();
            let rolls = rolls && self.reserve(1, pool);
            let Store { logs, core, .. } = self;
            let Some(log) = logs[index].log.as_deref_mut().filter(|log| !log.deleting) else { continue };
            log.producers.expire(core.wall_ms, log.config.producer_id_expiration_ms);
            if rolls && log.roll(core) {
                progress(log, core);
                mark_dirty(log, core);
                mark_todo(log, core);
            }
            log.apply_retention(core);
        }
        self.core.sweep_next = stop;
        if stop == self.logs.len() {
            self.core.sweep_next = 0;
            self.core.sweep_at = now.plus_ms(self.core.sweep_ms);
        }
    }

    /// Closes files of logs that use none at this moment, in turn: others wait for theirs.
    fn close_quiet(&mut self) {
        let mut closed = 0;
        for _ in 0..self.logs.len().min(CROWD_ASKED_MAX) {
            self.core.files_next = (self.core.files_next + 1) % self.logs.len();
            let Store { logs, core, .. } = self;
            let Some(log) = logs[core.files_next].log.as_deref_mut() else { continue };
            if log.is_quiet() && log.is_flushed() && !log.deleting && log.close_files(core) {
                closed += 1;
            }
            if closed == CROWD_CLOSED_MAX {
                break;
            }
        }
    }

    fn run_jobs(&mut self, pool: &mut Pool, ops: &mut Ops) {
        self.core.jobs.unpark(self.core.now);
        // Jobs that run out of memory put themselves back: one pass.
        let runnable = std::mem::take(&mut self.core.jobs.runnable);
        for id in runnable {
            let Some((index, kind)) = self.core.jobs.get(id) else { continue };
            let Store { logs, core, .. } = self;
            let Some(log) = logs[index as usize].log.as_deref_mut() else { continue };
            if core.is_dead() && !kind.writes_nothing() && !core.jobs.has_failed(id) {
                // Nothing is promised any more, whatever this would still achieve. Its place is for files to be closed.
                core.jobs.remove(id);
                log.jobs -= 1;
                continue;
            }
            match jobs::run(core, log, id, pool, ops) {
                Outcome::Waits => {}
                Outcome::Finished(job) => self.job_ended(job, None, ops),
                Outcome::GivenUp(job, errno) => {
                    tracing::warn!(kind = ?job.kind, %errno, "background work of a log was given up");
                    self.job_ended(job, Some(errno), ops);
                }
                Outcome::Fatal(job, errno) => {
                    tracing::error!(kind = ?job.kind, step = ?job.steps.front(), %errno, "background work failed");
                    core.die_of(BACKGROUND, errno);
                    log.jobs -= 1;
                    if let Kind::OpenSegment { ordinal, .. } = job.kind {
                        log.not_opened_to_write(core, ordinal);
                    }
                }
            }
        }
    }

    fn job_ended(&mut self, job: Job, failed: Option<Errno>, ops: &mut Ops) {
        let Store { logs, core, .. } = self;
        let Some(log) = logs[job.log as usize].log.as_deref_mut() else { return };
        log.jobs -= 1;
        core.no_space.retain(|index| *index != job.log);
        log.retiring &= !matches!(job.kind, Kind::Retire | Kind::Recycle { .. });
        match job.kind {
            Kind::Directories => {
                log.has_directory = true;
                log.making_directory = false;
            }
            Kind::State => log.state_written(core),
            Kind::Prepare { ordinal, zeroed } | Kind::Recycle { ordinal, zeroed } => {
                // Both flush the file at their end. A new one has the extents that its zeros took.
                let home = core.config.caps.device;
                let extents = match job.kind {
                    Kind::Prepare { .. } => Extents::made(job.place, home),
                    _ => Extents::found(job.place, home).flushed(),
                };
                match (failed, job.file) {
                    (None, file) => {
                        log.tell_place(job.place, home);
                        log.prepared(Prepared { ordinal, file, zeroed, extents });
                    }
                    (Some(_), Some(file)) => close(core, file, ops),
                    (Some(_), None) => {}
                }
            }
            Kind::Extend { ordinal, zeroed } => {
                log.extending = false;
                if let Some(segment) = log.segment_mut(ordinal) {
                    segment.zeroed = segment.zeroed.max(zeroed);
                }
            }
            Kind::OpenSegment { ordinal, writable } => {
                if let (Some(file), Some(segment)) = (job.file, log.segment_mut(ordinal)) {
                    segment.handle = Handle::Open(file);
                    segment.writable = writable;
                    segment.extents = Extents::found(job.place, core.config.caps.device);
                    if writable {
                        log.tell_place(job.place, core.config.caps.device);
                    }
                    core.events.push(Event::Opened(log.slot));
                    log.arm_idle(core);
                } else if let Some(file) = job.file {
                    close(core, file, ops);
                } else {
                    log.not_opened(core, ordinal);
                }
            }
            Kind::Delete => return self.forget(job.log),
            Kind::Trim { .. } => log.trims -= 1,
            Kind::Snapshot => log.snapshotting = false,
            Kind::Derived | Kind::CloseFiles | Kind::Retire | Kind::Truncate => {}
        }
        mark_dirty(log, core);
        mark_todo(log, core);
    }

    /// The last of a deleted log.
    fn forget(&mut self, index: u32) {
        let slot = &mut self.logs[index as usize];
        if let Some(log) = slot.log.take() {
            self.core.events.push(Event::Deleted(log.key));
        }
        slot.generation += 1;
        self.free.push(index);
    }
}

/// Closes a file that nothing uses any more.
pub(in crate::log) fn close(core: &mut Core, file: FileId, ops: &mut Ops) {
    let tag = core.pending.insert(Pending::Close);
    ops.push((Op::CloseFile { file }, tag));
}

impl Log {
    pub(in crate::log) fn start(&mut self, core: &mut Core, job: Job) {
        self.jobs += 1;
        core.jobs.add(job);
    }

    /// Starts what is due and does not run yet.
    pub(super) fn attend(&mut self, core: &mut Core) {
        if self.deleting && !core.is_dead() {
            return self.attend_deletion(core);
        }
        if let Some(ordinal) = self.open_wanted.take()
            && self.segment(ordinal).is_some_and(|s| s.handle == Handle::Closed)
        {
            self.open_segment(core, ordinal, false);
        }
        if core.is_dead() {
            // Reads that still work go on; nothing else does.
            return;
        }
        if self.setup == Setup::Idle && self.stage.bytes() > 0 {
            self.setup = Setup::State;
            self.state.wanted = true;
            self.epochs.assign(self.leader_epoch, self.ledger.durable().next_offset);
        }
        if self.state.wanted && !self.has_directory {
            self.make_directory(core);
        }
        if self.state.wanted && !self.state.running && self.has_directory {
            self.state.running = true;
            self.state.wanted = false;
            let steps = replace_steps(core, &self.dir, STATE_NAME, Step::WriteState);
            self.start(core, Job::new(self.index(), Kind::State, None, steps));
        }
        // A truncation waits until what is staged is flushed: that takes files as ever.
        let cutting = self.truncation.as_ref().is_some_and(|truncation| !truncation.is_flushing());
        if self.has_directory && self.setup != Setup::Idle && !cutting {
            self.attend_files(core);
            self.attend_zeros(core);
        }
        self.finish_sealed(core);
        self.retire(core);
        if core.stopping {
            self.attend_stop(core);
        }
    }

    /// Makes the directory, and every entry on the way to it durable. One that exists may be there in memory only.
    fn make_directory(&mut self, core: &mut Core) {
        if self.making_directory {
            return;
        }
        (self.making_directory, self.exists) = (true, true);
        let data = core.config.data_dir.clone();
        let topic = data.join(self.key.topic.to_string());
        let steps = [
            Step::MakeDir(topic.clone()),
            Step::SyncDir(data),
            Step::MakeDir(self.dir.clone()),
            Step::SyncDir(topic),
        ];
        self.start(core, Job::new(self.index(), Kind::Directories, None, steps));
    }

    /// `state` is on disk as it was when the job began to write it.
    fn state_written(&mut self, core: &mut Core) {
        self.state.running = false;
        self.state.checkpointed = self.state.flushed;
        if self.setup == Setup::State && self.state.epoch == self.leader_epoch {
            self.setup = Setup::Done;
        }
        if self.state.log_start > self.log_start {
            self.log_start = self.state.log_start;
            core.events.push(Event::LogStart(self.slot));
        }
        self.state.wanted |= self.may_raise_log_start();
    }

    /// Says once that somebody mounted or linked another device's directory here.
    fn tell_place(&mut self, place: Place, home: u64) {
        if place.device != home && !std::mem::replace(&mut self.is_elsewhere, true) {
            tracing::warn!(
                topic = %self.key.topic,
                partition = %self.key.partition,
                dir = %self.dir.display(),
                "lies on another device than the data directory: flushed by itself, and what flushes promise there was not checked"
            );
        }
    }

    /// Takes a file that is ready: for the segment that waits for it, or for the next one.
    fn prepared(&mut self, prepared: Prepared) {
        self.preparing = None;
        match self.segment_mut(prepared.ordinal) {
            Some(segment) => {
                segment.handle = prepared.file.map_or(Handle::Closed, Handle::Open);
                segment.writable = prepared.file.is_some();
                segment.zeroed = prepared.zeroed;
                segment.extents = prepared.extents;
            }
            None => self.next = Some(prepared),
        }
    }

    /// Whether the next segment's file should be made now.
    pub(super) fn wants_next(&self) -> bool {
        let Some(active) = self.stage.active() else { return false };
        self.next.is_none() && self.preparing.is_none() && active.end >= self.config.segment_bytes / 2
    }

    fn attend_files(&mut self, core: &mut Core) {
        if let Some(next) = self.next
            && self.segment(next.ordinal).is_some()
        {
            self.next = None;
            self.prepared(next);
        }
        if self.preparing.is_some() {
            return;
        }
        let front = self.stage.stretches.front().map_or(u64::MAX, |f| f.ordinal);
        let waiting = self
            .segments
            .iter()
            .find(|s| s.ordinal >= front && !(s.handle.file().is_some() && s.writable))
            .map(|s| (s.ordinal, s.zeroed, s.handle));
        match waiting {
            Some((ordinal, 0, _)) => self.prepare(core, ordinal),
            Some((ordinal, _, handle)) if handle != Handle::Opening && self.stage.bytes() > 0 => {
                self.open_segment(core, ordinal, true);
            }
            Some(_) => {}
            None if self.wants_next() && !core.stopping => self.prepare(core, self.next_ordinal),
            None => {}
        }
    }

    fn prepare(&mut self, core: &mut Core, ordinal: u64) {
        self.preparing = Some(ordinal);
        let staged = self.stage.stretches.iter().find(|s| s.ordinal == ordinal).map_or(0, |s| s.end);
        let to = self.window.extend(staged, 0, self.config.segment_bytes, core.now);
        let steps = [
            Step::Open(self.dir.join(segment_name(ordinal)), OpenMode::Create),
            Step::Allocate { from: 0, to },
            Step::Zero { from: 0, to },
            Step::Flush,
            Step::SyncDir(self.dir.clone()),
        ];
        core.counters.segments_made_total += 1;
        core.counters.zeroed_bytes_total += to;
        self.start(core, Job::new(self.index(), Kind::Prepare { ordinal, zeroed: to }, None, steps));
    }

    /// Opens the file of an existing segment.
    pub(super) fn open_segment(&mut self, core: &mut Core, ordinal: u64, writable: bool) {
        let path = self.segment_path(ordinal);
        self.close_least_used(core);
        let Some(segment) = self.segment_mut(ordinal) else { return };
        if let Handle::Open(file) = segment.handle {
            // It was opened for reading only.
            core.leave(file, std::mem::take(&mut segment.readers));
        }
        segment.handle = Handle::Opening;
        let mode = if writable { OpenMode::Write } else { OpenMode::Read };
        let kind = Kind::OpenSegment { ordinal, writable };
        self.start(core, Job::new(self.index(), kind, None, [Step::Open(path, mode)]));
    }

    /// A segment cannot be opened for reading: reads end where it begins.
    fn not_opened(&mut self, core: &mut Core, ordinal: u64) {
        let Some(segment) = self.segment_mut(ordinal) else { return };
        segment.handle = Handle::Closed;
        let base = segment.base_offset.max(self.log_start);
        self.corrupt_from = Some(self.corrupt_from.map_or(base, |c| c.min(base)));
        core.events.push(Event::Corrupt(self.slot, self.corrupt(ordinal, 0, "cannot be opened")));
        core.events.push(Event::Opened(self.slot));
    }

    /// A segment cannot be opened for writing: reads that wait for it have it opened for themselves.
    fn not_opened_to_write(&mut self, core: &mut Core, ordinal: u64) {
        let Some(segment) = self.segment_mut(ordinal) else { return };
        segment.handle = Handle::Closed;
        core.events.push(Event::Opened(self.slot));
    }

    /// Keeps the number of files low that are open only because they were read.
    fn close_least_used(&mut self, core: &mut Core) {
        let front = self.stage.stretches.front().map_or(u64::MAX, |f| f.ordinal);
        if self.trims > 0 || self.extending {
            return;
        }
        let idle = |s: &&mut Segment| {
            s.ordinal < front && s.readers == 0 && s.rounds == 0 && s.handle.file().is_some()
        };
        if self.segments.iter_mut().filter(idle).count() >= READ_FILES_MAX
            && let Some(segment) = self.segments.iter_mut().filter(idle).min_by_key(|s| s.used)
            && let Some(file) = segment.handle.file()
        {
            core.closing.push(file);
            segment.handle = Handle::Closed;
            segment.writable = false;
        }
    }

    /// Zeroes on where the staged end comes close to the zeroed one.
    fn attend_zeros(&mut self, core: &mut Core) {
        let Some(front) = self.stage.stretches.front().copied() else { return };
        let Some(segment) = self.segment(front.ordinal) else { return };
        let Some(file) = segment.handle.file() else { return };
        let (zeroed, writable) = (segment.zeroed, segment.writable);
        let idle = core.stopping && self.is_flushed();
        if self.extending || idle || !writable || !self.window.is_due(front.end, zeroed) {
            return;
        }
        let to = self.window.extend(front.end, zeroed, self.config.segment_bytes, core.now);
        if to == zeroed {
            return;
        }
        self.extending = true;
        let steps = [Step::Allocate { from: zeroed, to }, Step::Zero { from: zeroed, to }, Step::Flush];
        let kind = Kind::Extend { ordinal: front.ordinal, zeroed: to };
        core.counters.zeroed_bytes_total += to - zeroed;
        self.start(core, Job::new(self.index(), kind, Some(file), steps));
    }

    /// All writes are flushed.
    pub(super) fn settled(&mut self, core: &mut Core) {
        if self.stage.bytes() == 0 {
            self.flush_now = false;
            self.flush_at = None;
            self.unflushed_bytes = 0;
        }
        if self.state.checkpoint_at.is_none() && self.has_unmarked() && !core.stopping {
            let at = core.now.plus_ms(CHECKPOINT_MS);
            self.state.checkpoint_at = Some(at);
            core.timers.push(Reverse((at, self.index())));
        }
        self.arm_idle(core);
        if core.stopping {
            mark_todo(self, core);
        }
    }

    /// The flushed position is not written down.
    fn has_unmarked(&self) -> bool {
        let mark = self.end_mark();
        mark.is_some() && mark != self.state.checkpointed
    }

    /// Sees to it that idle files get closed.
    pub(super) fn arm_idle(&mut self, core: &mut Core) {
        if self.idle_at.is_none() {
            let at = core.now.plus_ms(IDLE_MS);
            self.idle_at = Some(at);
            core.timers.push(Reverse((at, self.index())));
        }
    }

    /// A timer of this log: whatever of its deadlines has passed.
    fn timer(&mut self, core: &mut Core) {
        let now = core.now;
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush_at = None;
            self.flush_now = !self.is_flushed();
            mark_dirty(self, core);
        }
        if self.state.checkpoint_at.is_some_and(|at| at <= now) {
            let quiet = self.used.plus_ms(CHECKPOINT_MS);
            if quiet > now {
                self.state.checkpoint_at = Some(quiet);
                core.timers.push(Reverse((quiet, self.index())));
            } else {
                self.state.checkpoint_at = None;
                self.state.wanted |= self.has_unmarked();
                mark_todo(self, core);
            }
        }
        if self.idle_at.is_some_and(|at| at <= now) {
            self.idle(core);
        }
    }

    /// Closes files that nothing has used for a while.
    fn idle(&mut self, core: &mut Core) {
        let now = core.now;
        let idle_at = self.used.plus_ms(IDLE_MS);
        if idle_at > now || !self.is_quiet() || !self.is_flushed() {
            let at = idle_at.max(now.plus_ms(IDLE_MS / 4));
            self.idle_at = Some(at);
            core.timers.push(Reverse((at, self.index())));
            return;
        }
        self.idle_at = None;
        self.close_files(core);
    }

    /// Closes all files of a log that uses none of them. False if none is open.
    fn close_files(&mut self, core: &mut Core) -> bool {
        let mut steps = Vec::new();
        for segment in &mut self.segments {
            if let Handle::Open(file) = segment.handle {
                steps.push(Step::CloseOther(file));
                segment.handle = Handle::Closed;
                segment.writable = false;
            }
        }
        if let Some(next) = &mut self.next {
            steps.extend(next.file.take().map(Step::CloseOther));
        }
        if steps.is_empty() {
            return false;
        }
        self.start(core, Job::new(self.index(), Kind::CloseFiles, None, steps));
        true
    }
}
