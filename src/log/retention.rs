//! What goes: whole segments that are older than the topic keeps, or more than it keeps; records that DeleteRecords names; logs of deleted
//! topics. The log start is persisted in `state` before any file goes, and a file that is still read is closed only behind its last read.
//!
//! The file of a retired segment becomes the next segment's where one is wanted: its extents are written already. It is renamed, unless a
//! segment has that name, the directory synced, and its old header zeroed; until then the header names another ordinal than the file, so
//! the file holds nothing.

use super::checkpoint::{PRODUCERS_NAME, STATE_NAME};
use super::format::{SEGMENT_HEADER_BYTES, index_name, segment_name};
use super::segment::{Handle, Segment};
use super::store::core::Core;
use super::store::jobs::{Job, Kind, Step, temporary};
use super::store::partition::{Log, Setup, mark_todo};
use crate::base::offset::Offset;
use crate::io::OpenMode;

impl Log {
    /// Behind the last record that retention lets go now.
    fn expired(&self, core: &Core) -> Offset {
        let mut start = self.log_start_wanted;
        if !self.config.delete || self.read_only {
            return start;
        }
        let mut bytes: u64 = self.segments.iter().map(Segment::file_end).sum();
        for segment in self.segments.iter().take_while(|s| self.is_over(s)) {
            let size = segment.file_end();
            let too_much =
                self.config.retention_bytes >= 0 && bytes - size >= self.config.retention_bytes as u64;
            if !(too_much || self.is_old(segment, core)) {
                break;
            }
            bytes -= size;
            start = start.max(segment.next_offset.min(self.high_watermark));
        }
        start
    }

    /// Its successor's header is flushed: the log goes on without it.
    fn is_over(&self, segment: &Segment) -> bool {
        segment.sealed && segment.ordinal < self.ledger.durable().place.ordinal
    }

    fn is_old(&self, segment: &Segment, core: &Core) -> bool {
        let keep = self.config.retention_ms;
        if keep < 0 {
            return false;
        }
        match segment.max_timestamp_ms() {
            // No record has a timestamp: from the time it was begun.
            ..0 => core.age_ms(segment) > keep as u64,
            newest => newest < core.wall_ms.saturating_sub(keep),
        }
    }

    /// Raises the log start to what retention lets go.
    pub(in crate::log) fn apply_retention(&mut self, core: &mut Core) {
        let start = self.expired(core);
        if start > self.log_start_wanted && self.truncation.is_none() {
            self.log_start_wanted = start;
            self.state.wanted = true;
            mark_todo(self, core);
        }
    }

    /// The last segment holds only records that are old enough to go, and has its age: it should be rolled so that it can.
    pub(in crate::log) fn should_roll_idle(&self, core: &Core) -> bool {
        let Some(last) = self.segments.back() else { return false };
        let aged = core.age_ms(last) >= self.config.segment_ms;
        let flushed = self.is_flushed() && !self.deleting;
        self.config.delete
            && !self.read_only
            && flushed
            && aged
            && !last.is_empty()
            && self.is_old(last, core)
    }

    /// Finishes sealed segments: cuts the zeros behind their end, writes index and producers snapshot.
    pub(in crate::log) fn finish_sealed(&mut self, core: &mut Core) {
        if self.extending {
            return;
        }
        while let Some(segment) = self.segments.iter_mut().find(|s| s.sealed && !s.trimmed) {
            segment.trimmed = true;
            let (ordinal, end) = (segment.ordinal, segment.file_end());
            if let Some(file) = segment.handle.file().filter(|_| segment.writable) {
                self.trims += 1;
                let job = Job::new(self.index(), Kind::Trim { ordinal }, Some(file), [Step::Truncate(end)]);
                self.start(core, job);
            }
            self.write_index(core, ordinal);
            self.apply_retention(core);
        }
        let wanted = !self.snapshotting && self.segments.iter().rev().skip(1).all(|s| s.sealed);
        if let Some(bytes) = self.snapshot.take_if(|_| wanted) {
            self.write_snapshot(core, bytes);
        }
    }

    /// Removes or recycles the files of segments that lie wholly before the persisted log start.
    pub(in crate::log) fn retire(&mut self, core: &mut Core) {
        let mut steps = Vec::new();
        while !self.retiring && self.trims == 0 {
            let Some(front) = self.segments.front() else { break };
            let busy = !front.trimmed || front.rounds > 0 || front.handle == Handle::Opening;
            if busy || !self.is_over(front) || front.next_offset > self.log_start {
                break;
            }
            let Some(segment) = self.segments.pop_front() else { break };
            if steps.is_empty() && self.recycle(core, &segment) {
                return;
            }
            if let Handle::Open(file) = segment.handle {
                core.leave(file, segment.readers);
            }
            steps.extend([
                Step::Remove(self.dir.join(segment_name(segment.ordinal))),
                Step::Remove(self.dir.join(index_name(segment.ordinal))),
                // In order: what a crash leaves has no gap.
                Step::SyncDir(self.dir.clone()),
            ]);
        }
        if !steps.is_empty() {
            self.retiring = true;
            self.start(core, Job::new(self.index(), Kind::Retire, None, steps));
        }
    }

    /// Makes the next segment's file of a retired one, if one is wanted and nothing can touch this file any more.
    fn recycle(&mut self, core: &mut Core, segment: &Segment) -> bool {
        let wanted = self.setup == Setup::Done && self.next.is_none() && self.preparing.is_none();
        if !wanted || !segment.recyclable || segment.readers > 0 || core.stopping {
            return false;
        }
        let zeroed = segment.file_end();
        let ordinal = self.next_ordinal;
        let (old, new) = (self.dir.join(segment_name(segment.ordinal)), self.dir.join(segment_name(ordinal)));
        let mut steps = Vec::with_capacity(8);
        // A rename replaces what is there without a word.
        steps.push(Step::Clear { path: new.clone(), ordinal });
        steps.extend(segment.handle.file().map(Step::CloseOther));
        steps.extend([
            Step::Remove(self.dir.join(index_name(segment.ordinal))),
            Step::Rename(old, new.clone()),
            Step::SyncDir(self.dir.clone()),
            Step::Open(new, OpenMode::Write),
            Step::Write(vec![0; SEGMENT_HEADER_BYTES]),
            Step::Flush,
        ]);
        (self.preparing, self.retiring) = (Some(ordinal), true);
        self.start(core, Job::new(self.index(), Kind::Recycle { ordinal, zeroed }, None, steps));
        core.counters.segments_recycled_total += 1;
        true
    }

    /// Removes everything of a deleted log once nothing of it is in flight.
    pub(in crate::log) fn attend_deletion(&mut self, core: &mut Core) {
        if !self.is_quiet() || self.removing {
            return;
        }
        self.removing = true;
        let mut steps = Vec::new();
        if self.exists {
            let files = self.segments.iter().filter_map(|s| s.handle.file());
            steps.extend(files.chain(self.next.and_then(|n| n.file)).map(Step::CloseOther));
            let ordinals = self.segments.iter().map(|s| s.ordinal);
            for ordinal in ordinals.chain([self.next_ordinal]) {
                steps.push(Step::Remove(self.dir.join(segment_name(ordinal))));
                steps.push(Step::Remove(self.dir.join(index_name(ordinal))));
            }
            steps.extend(std::mem::take(&mut self.strays).into_iter().map(Step::Remove));
            for name in [STATE_NAME, PRODUCERS_NAME] {
                steps.push(Step::Remove(self.dir.join(name)));
                steps.push(Step::Remove(temporary(core, &self.dir, name)));
            }
            let topic = core.config.data_dir.join(self.key.topic.to_string());
            steps.push(Step::RemoveDir { path: self.dir.clone(), shared: false });
            steps.push(Step::SyncDir(topic.clone()));
            steps.push(Step::RemoveDir { path: topic, shared: true });
            steps.push(Step::SyncDir(core.config.data_dir.clone()));
        }
        self.tail.clear();
        self.start(core, Job::new(self.index(), Kind::Delete, None, steps));
    }
}
