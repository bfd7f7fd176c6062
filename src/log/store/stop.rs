//! The clean stop: everything flushed, files cut to their ends, and for each log that was appended to since the start, or whose end was found by a
//! scan, a producers snapshot, the index of its last segment, and last the clean-stop record, by which the next start opens it without a scan.

use super::core::Core;
use super::jobs::{Job, Kind, Step, replace_steps};
use super::partition::{Log, Setup, Stop, mark_dirty, mark_todo};
use super::{Event, Store};
use crate::log::checkpoint::{PRODUCERS_NAME, STATE_NAME};
use crate::log::format::{index_name, segment_name};

impl Store {
    pub(super) fn stop(&mut self) {
        if self.core.stopping {
            return;
        }
        self.core.stopping = true;
        let Store { logs, core, .. } = self;
        for log in logs.iter_mut().filter_map(|slot| slot.log.as_deref_mut()).filter(|log| !log.deleting) {
            core.stop_left += 1;
            mark_todo(log, core);
        }
        if core.stop_left == 0 {
            core.events.push(Event::Stopped);
        }
    }
}

impl Log {
    /// Takes the next step of the stop once the one before is through.
    pub(super) fn attend_stop(&mut self, core: &mut Core) {
        if self.stop == Stop::Stopped {
            return;
        }
        if self.truncation.is_some() {
            // It comes back when it is through: before, nobody knows where the log ends.
            return;
        }
        if !self.is_flushed() {
            self.flush_now = true;
            mark_dirty(self, core);
            return;
        }
        if self.jobs > 0 || self.rounds > 0 {
            return;
        }
        let appended = self.appended && self.setup == Setup::Done;
        let recovered = self.unrecorded && self.setup == Setup::Idle;
        match self.stop {
            Stop::Running if (appended || recovered) && !self.read_only => {
                self.stop = Stop::Trimming;
                self.finish_files(core);
            }
            Stop::Trimming => {
                self.stop = Stop::Recording;
                let steps = replace_steps(core, &self.dir, STATE_NAME, Step::WriteState);
                self.state.running = true;
                self.start(core, Job::new(self.index(), Kind::State, None, steps));
            }
            Stop::Running | Stop::Recording | Stop::Stopped => self.leave_stop(core),
        }
    }

    /// The stop goes on without this log: it is through with it, or is deleted.
    pub(in crate::log) fn leave_stop(&mut self, core: &mut Core) {
        if self.stop == Stop::Stopped {
            return;
        }
        self.stop = Stop::Stopped;
        core.stop_left -= 1;
        if core.stop_left == 0 {
            core.events.push(Event::Stopped);
        }
    }

    /// Cuts the active file, removes the prepared one, writes what is derived.
    fn finish_files(&mut self, core: &mut Core) {
        let index = self.index();
        if let Some(next) = self.next.take() {
            let mut steps: Vec<Step> = next.file.map(Step::CloseOther).into_iter().collect();
            steps.push(Step::Remove(self.dir.join(segment_name(next.ordinal))));
            self.start(core, Job::new(index, Kind::Derived, None, steps));
        }
        let check = self.stage.chain.prev_check;
        let log_end = self.log_end();
        let active = self.stage.active().copied();
        let Some(ordinal) = active.map(|a| a.ordinal).or(self.segments.back().map(|s| s.ordinal)) else {
            return;
        };
        // A segment that a dead process may still be writing to stays as it is.
        if let Some(active) = active
            && let Some(last) = self.segment_mut(active.ordinal)
        {
            last.end = active.end;
            last.check = check;
            let (file, end) = (last.handle.file().filter(|_| last.writable), last.file_end());
            if let Some(file) = file {
                self.trims += 1;
                let kind = Kind::Trim { ordinal: active.ordinal };
                self.start(core, Job::new(index, kind, Some(file), [Step::Truncate(end)]));
            }
        }
        self.write_index(core, ordinal);
        let snapshot = self.producers.encode(log_end);
        self.write_snapshot(core, snapshot);
    }

    /// Writes the `producers` file. One at a time.
    pub(in crate::log) fn write_snapshot(&mut self, core: &mut Core, bytes: Vec<u8>) {
        self.snapshotting = true;
        let steps = replace_steps(core, &self.dir, PRODUCERS_NAME, Step::Write(bytes));
        self.start(core, Job::new(self.index(), Kind::Snapshot, None, steps));
    }

    /// Writes the `.idx` file of a segment that does not change any more.
    pub(in crate::log) fn write_index(&mut self, core: &mut Core, ordinal: u64) {
        let Some(segment) = self.segment(ordinal) else { return };
        let bytes = segment.index.encode(&segment.reach());
        let steps = replace_steps(core, &self.dir, &index_name(ordinal), Step::Write(bytes));
        self.trims += 1;
        self.start(core, Job::new(self.index(), Kind::Trim { ordinal }, None, steps));
    }
}
