//! Hot path. Planning reads against a log, and finishing them: see `read.rs` for the walk.

use super::background::close;
use super::core::Core;
use super::partition::{Log, mark_todo};
use super::{ColdRead, Event, LogSlot, ReadCheck, ReadPlan, ReadRequest, Store};
use crate::base::error::Refused;
use crate::base::limits::{ALIGN, BLOCK_BYTES};
use crate::base::offset::Offset;
use crate::io::buffer::Block;
use crate::io::{Errno, FileId};
use crate::log::format::SEGMENT_HEADER_BYTES;
use crate::log::read::{READS_PLANNED_MAX, Walked, read_lens, walk};
use crate::log::segment::Handle;

/// A file that was retired while reads of it were in flight.
#[derive(Clone, Copy, Debug)]
pub struct Orphan {
    pub file: FileId,
    pub readers: u32,
}

impl Store {
    pub(super) fn plan(&mut self, slot: LogSlot, mut request: ReadRequest) -> ReadPlan {
        let Some((log, core)) = self.log_and_core(slot) else {
            return ReadPlan::Refused(Refused::UnknownTopicOrPartition);
        };
        let end = log.log_end();
        if request.from < log.log_start || request.from > end {
            return ReadPlan::Refused(Refused::OffsetOutOfRange);
        }
        if let Some(corrupt) = log.corrupt_from {
            if request.from >= corrupt {
                return ReadPlan::Refused(Refused::KafkaStorageError);
            }
            request.until = request.until.min(corrupt);
        }
        request.until = request.until.min(end);
        if request.from >= request.until {
            return ReadPlan::Empty;
        }
        log.used = core.now;
        if log.tail.next_offset().is_none_or(|next| next < request.until) {
            log.seal_group();
        }
        match log.tail.read(&request) {
            Some(records) if records.bytes == 0 => ReadPlan::Empty,
            Some(records) => {
                core.counters.tail_hit_bytes_total += records.bytes as u64;
                ReadPlan::Ready(records)
            }
            None => cold(log, core, request),
        }
    }

    pub(super) fn finish(&mut self, read: ColdRead, blocks: Result<Vec<Block>, Errno>) -> ReadPlan {
        let slot = read.slot;
        let pinned = self.unpin(&read);
        let Some((log, core)) = self.log_and_core(slot) else {
            return ReadPlan::Refused(Refused::UnknownTopicOrPartition);
        };
        let ordinal = read.check.ordinal;
        let Some(uuid) = log.segment(ordinal).filter(|_| pinned).map(|s| s.uuid) else {
            // Retired meanwhile: plan from what is there now.
            return self.plan(slot, read.request);
        };
        let walked = match blocks {
            Ok(mut blocks) => walk(&read, uuid, &mut blocks),
            // It passes, or is no matter of this log: nothing is remembered.
            Err(errno) if read.check.again && !errno.is_of_medium() => {
                return ReadPlan::Refused(Refused::KafkaStorageError);
            }
            Err(_) => Walked::Damaged {
                position: read.position,
                offset: read.check.start_offset,
                what: "unreadable",
            },
        };
        match walked {
            Walked::Records(records) => {
                core.counters.tail_miss_bytes_total += records.bytes as u64;
                ReadPlan::Ready(records)
            }
            Walked::Nothing => ReadPlan::Empty,
            Walked::Short { from, offset, end } => {
                let check = ReadCheck { start: from, start_offset: offset, ..read.check };
                again(log, ColdRead { check, ..read }, from, end)
            }
            Walked::Damaged { .. } if !read.check.again => {
                let check = ReadCheck { again: true, ..read.check };
                let end = read.position + read.lens.iter().map(|len| u64::from(*len)).sum::<u64>();
                let from = read.check.start;
                again(log, ColdRead { check, ..read }, from, end)
            }
            Walked::Damaged { position, offset, what } => {
                let stop = offset.max(log.log_start);
                if log.corrupt_from.is_some_and(|known| known <= stop) && read.request.from < stop {
                    // What is in front of the damage does not check without it: it is not served, either.
                    log.corrupt_from = Some(read.request.from);
                    return ReadPlan::Refused(Refused::KafkaStorageError);
                }
                log.corrupt_from = Some(log.corrupt_from.map_or(stop, |c| c.min(stop)));
                let corrupt = log.corrupt(ordinal, position, what);
                core.events.push(Event::Corrupt(slot, corrupt));
                if read.request.from < stop {
                    return self.plan(slot, read.request);
                }
                ReadPlan::Refused(Refused::KafkaStorageError)
            }
        }
    }

    /// Whether records that were asked for, and that `bytes_max` has room for, stand behind what this read brings: it ends with its segment,
    /// or with the reads of one plan.
    pub fn is_cut_short(&self, read: &ColdRead) -> bool {
        let bytes = read.lens.iter().map(|len| u64::from(*len)).sum::<u64>();
        if bytes >= u64::from(read.request.bytes_max) {
            return false;
        }
        if read.position + bytes < read.check.end {
            return true;
        }
        let Some(log) = self.log(read.slot) else { return false };
        let durable = log.ledger.durable();
        let next = match log.segment(read.check.ordinal) {
            Some(segment) if segment.ordinal != durable.place.ordinal => segment.next_offset,
            _ => durable.next_offset,
        };
        next < read.request.until
    }

    /// Lets go of the file of a read. False if its segment was retired.
    pub(super) fn unpin(&mut self, read: &ColdRead) -> bool {
        let Store { logs, core, .. } = self;
        let log = logs
            .get_mut(read.slot.index as usize)
            .filter(|s| s.generation == read.slot.generation)
            .and_then(|s| s.log.as_deref_mut());
        if let Some(log) = log {
            let same = log.segment_mut(read.check.ordinal).filter(|s| s.handle == Handle::Open(read.file));
            if let Some(segment) = same {
                segment.readers -= 1;
                if log.deleting || core.stopping {
                    mark_todo(log, core);
                }
                return true;
            }
        }
        if let Some(index) = core.orphans.iter().position(|o| o.file == read.file) {
            core.orphans[index].readers -= 1;
            if core.orphans[index].readers == 0 {
                core.orphans.swap_remove(index);
                core.closing.push(read.file);
            }
        }
        false
    }

    /// Closes files whose last reader is gone.
    pub(super) fn close_orphans(&mut self, ops: &mut super::Ops) {
        while let Some(file) = self.core.closing.pop() {
            close(&mut self.core, file, ops);
        }
    }

    pub(super) fn time_start(&self, slot: LogSlot, timestamp_ms: i64) -> Option<Offset> {
        let log = self.log(slot)?;
        let segment = log
            .segments
            .iter()
            .find(|s| s.next_offset > log.log_start && s.max_timestamp_ms() >= timestamp_ms)?;
        let found = segment.index.find_time(timestamp_ms).map_or(segment.base_offset, |e| e.offset);
        Some(found.max(log.log_start))
    }

    pub(super) fn max_time_start(&self, slot: LogSlot) -> Option<Offset> {
        let log = self.log(slot)?;
        let mut best: Option<(i64, Offset)> = None;
        for segment in log.segments.iter().filter(|s| s.next_offset > log.log_start && !s.is_empty()) {
            let (time, offset) =
                segment.index.largest().map_or((-1, segment.base_offset), |l| (l.timestamp_ms, l.offset));
            if best.is_none_or(|(most, _)| time > most) {
                best = Some((time, offset.max(log.log_start)));
            }
        }
        best.map(|(_, offset)| offset)
    }
}

/// Plans reads from disk.
fn cold(log: &mut Log, core: &mut Core, request: ReadRequest) -> ReadPlan {
    let durable = log.ledger.durable().place;
    let slot = log.slot;
    log.arm_idle(core);
    let Some(segment) = log.segment_of(request.from) else {
        return ReadPlan::Refused(Refused::OffsetOutOfRange);
    };
    let ordinal = segment.ordinal;
    let Some(file) = segment.handle.file() else {
        log.open_wanted = Some(ordinal);
        mark_todo(log, core);
        return ReadPlan::Opening;
    };
    // Behind what is flushed the bytes may be in memory only, and are cached then.
    let end = if durable.ordinal == ordinal { durable.position } else { segment.end };
    let (start, start_offset) = match segment.index.find_offset(request.from) {
        Some(entry) => (entry.position, entry.offset),
        None => (SEGMENT_HEADER_BYTES as u64, segment.base_offset),
    };
    let position = start / ALIGN as u64 * ALIGN as u64;
    let block = BLOCK_BYTES as u64;
    let extent_end = (start / block + 1) * block;
    let ahead = u64::from(request.bytes_max).next_multiple_of(block).min((READS_PLANNED_MAX - 1) * block);
    let lens = read_lens(position, (extent_end + ahead).min(end));
    let check = ReadCheck { ordinal, end, start, start_offset, again: false };
    if let Some(segment) = log.segment_mut(ordinal) {
        segment.readers += 1;
        segment.used = core.now;
    }
    ReadPlan::Cold(ColdRead { slot, file, position, lens, request, check })
}

/// Plans the same read once more, for `start..end`.
fn again(log: &mut Log, read: ColdRead, start: u64, end: u64) -> ReadPlan {
    let position = start / ALIGN as u64 * ALIGN as u64;
    let extent_end = (start / BLOCK_BYTES as u64 + 1) * BLOCK_BYTES as u64;
    let lens = read_lens(position, end.max(extent_end).min(read.check.end));
    if let Some(segment) = log.segment_mut(read.check.ordinal) {
        segment.readers += 1;
    }
    ReadPlan::Cold(ColdRead { position, lens, ..read })
}
