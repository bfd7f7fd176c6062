//! ListOffsets and OffsetForLeaderEpoch on the partition's own core. Bounds are answered at once; a search by time walks
//! batches from where the time index points, in the tail cache or through cold reads.

use super::parked::{Parked, ParkedId};
use super::{Cx, Shard};
use crate::base::error::Refused;
use crate::base::ids::LeaderEpoch;
use crate::base::offset::Offset;
use crate::io::Errno;
use crate::io::buffer::Block;
use crate::log::store::{Bounds, ColdRead, LogSlot, ReadPlan, ReadRequest, Records};
use crate::router::message::{
    EpochEndOutcome, EpochEnds, ListOffsets, ListOffsetsPart, OffsetOutcome, ReplyBody,
};
use crate::wire::batch;

/// Kafka's special timestamps.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// Bytes that one step of a search reads.
const SEARCH_BYTES: u32 = 1024 * 1024;

/// A ListOffsets with searches to do: part by part.
pub struct SearchState {
    pub serial: u64,
    pub list: ListOffsets,
    outcomes: Vec<OffsetOutcome>,
    /// Where the search of part `outcomes.len()` goes on.
    next: Option<Offset>,
    pub read: Option<ColdRead>,
}

/// How a part is answered.
enum Asked {
    Known(OffsetOutcome),
    /// The first record at or after a time, from this offset on.
    Search(LogSlot, Offset),
}

impl Shard {
    pub(super) fn list_offsets(&mut self, list: ListOffsets, cx: &mut Cx<'_>) {
        let state = SearchState {
            serial: self.next_serial(),
            outcomes: Vec::with_capacity(list.parts.len()),
            next: None,
            read: None,
            list,
        };
        let id = self.park(Parked::ListOffsets(state), None);
        self.scan_on(id, cx);
    }

    /// Works through the parts until one needs the disk.
    pub(super) fn scan_on(&mut self, id: ParkedId, cx: &mut Cx<'_>) {
        loop {
            let Some(Parked::ListOffsets(state)) = self.parked_mut(id) else { return };
            let Some(part) = state.list.parts.get(state.outcomes.len()).copied() else {
                let Some(Parked::ListOffsets(state)) = self.unpark(id) else { return };
                return self.reply(state.list.ticket, ReplyBody::ListOffsets(state.outcomes));
            };
            let (next, read_committed) = (state.next, state.list.read_committed);
            let asked = match next {
                None => self.start_search(&part, read_committed),
                Some(from) => {
                    self.current(&part.key, part.current_epoch).map(|(slot, _)| Asked::Search(slot, from))
                }
            };
            match asked {
                Err(error) => self.part_found(id, OffsetOutcome::refused(error)),
                Ok(Asked::Known(outcome)) => self.part_found(id, outcome),
                Ok(Asked::Search(slot, from)) => {
                    if !self.search_step(id, slot, from, &part, cx) {
                        return;
                    }
                }
            }
        }
    }

    fn start_search(&mut self, part: &ListOffsetsPart, read_committed: bool) -> Result<Asked, Refused> {
        let (slot, bounds) = self.current(&part.key, part.current_epoch)?;
        let until = Shard::until(&bounds, read_committed);
        let at = |offset: Offset, epoch| OffsetOutcome {
            offset: offset.0,
            leader_epoch: epoch,
            ..OffsetOutcome::NONE
        };
        let known = match part.timestamp {
            LATEST => at(until, bounds.leader_epoch),
            EARLIEST | EARLIEST_LOCAL => {
                let start = bounds.log_start.get();
                at(start, self.store.epoch_at(slot, start))
            }
            LATEST_TIERED | EARLIEST_PENDING_UPLOAD => OffsetOutcome::NONE,
            MAX_TIMESTAMP => match self.store.max_timestamp_start(slot) {
                Some(from) => return Ok(Asked::Search(slot, from)),
                None => OffsetOutcome::NONE,
            },
            timestamp if timestamp >= 0 => match self.store.timestamp_start(slot, timestamp) {
                Some(from) => return Ok(Asked::Search(slot, from.max(bounds.log_start.get()))),
                None => OffsetOutcome::NONE,
            },
            _ => return Err(Refused::UnsupportedVersion),
        };
        Ok(Asked::Known(known))
    }

    /// One step of a search; false when it waits for reads or memory.
    fn search_step(
        &mut self,
        id: ParkedId,
        slot: LogSlot,
        from: Offset,
        part: &ListOffsetsPart,
        cx: &mut Cx<'_>,
    ) -> bool {
        let Some(Parked::ListOffsets(state)) = self.parked_mut(id) else { return false };
        state.next = Some(from);
        let until = Shard::until(&self.store.bounds(slot), state_committed(self, id));
        let request = ReadRequest { from, until, bytes_max: SEARCH_BYTES, at_least_one: true };
        match self.store.plan_read(slot, request) {
            ReadPlan::Ready(records) => self.search_records(id, slot, part, &records),
            ReadPlan::Empty => self.part_found(id, OffsetOutcome::NONE),
            ReadPlan::Refused(error) => self.part_found(id, OffsetOutcome::refused(error)),
            ReadPlan::Cold(read) => {
                self.start_search_read(id, read, cx);
                return false;
            }
            ReadPlan::Opening => {
                self.waiters[slot.index as usize].searches.push(id);
                return false;
            }
        }
        true
    }

    fn start_search_read(&mut self, id: ParkedId, mut read: ColdRead, cx: &mut Cx<'_>) {
        if self.start_reads(&mut read, id, 0, cx) {
            if let Some(Parked::ListOffsets(state)) = self.parked_mut(id) {
                state.read = Some(read);
            }
        } else {
            self.store.drop_read(read);
            self.starved.push_back(id);
        }
    }

    pub(super) fn scan_read_done(
        &mut self,
        id: ParkedId,
        blocks: Result<Vec<Block>, Errno>,
        cx: &mut Cx<'_>,
    ) {
        let Some(Parked::ListOffsets(state)) = self.parked_mut(id) else { return };
        let part = state.list.parts[state.outcomes.len()];
        let Some(read) = state.read.take() else { return };
        let slot = read.slot;
        match self.store.finish_read(read, blocks) {
            ReadPlan::Ready(records) => self.search_records(id, slot, &part, &records),
            ReadPlan::Empty => self.part_found(id, OffsetOutcome::NONE),
            // The file that was read is being replaced: the search goes on where it was, once that is open.
            ReadPlan::Opening => {}
            ReadPlan::Refused(error) => self.part_found(id, OffsetOutcome::refused(error)),
            ReadPlan::Cold(read) => return self.start_search_read(id, read, cx),
        }
        self.scan_on(id, cx);
    }

    /// Looks for the record in what was read; goes on behind it if it is not there.
    fn search_records(&mut self, id: ParkedId, slot: LogSlot, part: &ListOffsetsPart, records: &Records) {
        let bytes: Vec<u8> = records.parts.iter().flat_map(|slice| slice.iter().copied()).collect();
        let start = self.store.bounds(slot).log_start.get();
        for batch in batch::batches(&bytes) {
            let Ok(batch) = batch else {
                return self.part_found(id, OffsetOutcome::refused(Refused::CorruptMessage));
            };
            let found = if part.timestamp == MAX_TIMESTAMP {
                batch::find_max_timestamp(&batch)
            } else {
                batch::find_timestamp(&batch, part.timestamp, start.0)
            };
            match found {
                Err(_) => return self.part_found(id, OffsetOutcome::refused(Refused::CorruptMessage)),
                Ok(None) => {}
                Ok(Some((offset, timestamp))) => {
                    let leader_epoch = LeaderEpoch(batch.leader_epoch());
                    return self
                        .part_found(id, OffsetOutcome { error: None, offset, timestamp, leader_epoch });
                }
            }
        }
        if part.timestamp == MAX_TIMESTAMP || records.bytes == 0 {
            return self.part_found(id, OffsetOutcome::NONE);
        }
        if let Some(Parked::ListOffsets(state)) = self.parked_mut(id) {
            state.next = Some(records.next_offset);
        }
    }

    fn part_found(&mut self, id: ParkedId, outcome: OffsetOutcome) {
        if let Some(Parked::ListOffsets(state)) = self.parked_mut(id) {
            state.outcomes.push(outcome);
            state.next = None;
        }
    }

    pub(super) fn epoch_ends(&mut self, ends: EpochEnds) {
        let outcomes = ends.parts.iter().map(|part| match self.current(&part.key, part.current_epoch) {
            Err(error) => EpochEndOutcome { error: Some(error), epoch: LeaderEpoch::NONE, end: -1 },
            Ok((slot, bounds)) => {
                let (epoch, end) = self.epoch_end(slot, &bounds, part.epoch);
                EpochEndOutcome { error: None, epoch, end: end.0 }
            }
        });
        let outcomes = outcomes.collect();
        self.reply(ends.ticket, ReplyBody::EpochEnds(outcomes));
    }
}

impl Shard {
    /// Where an epoch ends, with the answers that Kafka gives outside of what the log has seen: nothing for a later epoch, and the
    /// asked epoch itself, ending where the log begins, for an earlier one.
    pub(super) fn epoch_end(
        &self,
        slot: LogSlot,
        bounds: &Bounds,
        asked: LeaderEpoch,
    ) -> (LeaderEpoch, Offset) {
        if asked == LeaderEpoch::NONE || asked > bounds.leader_epoch {
            return (LeaderEpoch::NONE, Offset(-1));
        }
        if asked == bounds.leader_epoch {
            return (asked, bounds.log_end.get());
        }
        match self.store.epoch_end(slot, asked) {
            (LeaderEpoch::NONE, _) => (asked, bounds.log_start.get()),
            known => known,
        }
    }
}

fn state_committed(shard: &Shard, id: ParkedId) -> bool {
    matches!(shard.parked.get(id.index), Some(Parked::ListOffsets(state)) if state.list.read_committed)
}
