//! DeleteRecords: moves the log start and answers when that is on disk.

use super::parked::{Parked, ParkedId, StartWaiter};
use super::{Cx, Shard};
use crate::base::error::Refused;
use crate::base::ids::LeaderEpoch;
use crate::base::offset::Offset;
use crate::log::store::LogSlot;
use crate::router::message::{DeleteRecords, DeleteRecordsOutcome, DeleteRecordsPart, ReplyBody, Ticket};

/// A DeleteRecords between its moves and their persistence.
pub struct DeleteState {
    pub serial: u64,
    pub ticket: Ticket,
    outcomes: Vec<DeleteRecordsOutcome>,
    due: Vec<bool>,
}

fn refused(error: Refused) -> DeleteRecordsOutcome {
    DeleteRecordsOutcome { error: Some(error), low_watermark: -1 }
}

impl Shard {
    pub(super) fn delete_records(&mut self, request: DeleteRecords, cx: &mut Cx<'_>) {
        let mut outcomes = Vec::with_capacity(request.parts.len());
        let mut waits = Vec::new();
        for (i, part) in request.parts.iter().enumerate() {
            match self.move_log_start(part) {
                Err(error) => outcomes.push(refused(error)),
                Ok((_, start, true)) => {
                    outcomes.push(DeleteRecordsOutcome { error: None, low_watermark: start.0 });
                }
                Ok((index, start, false)) => {
                    outcomes.push(DeleteRecordsOutcome { error: None, low_watermark: start.0 });
                    waits.push((i, index, start));
                }
            }
        }
        if waits.is_empty() {
            return self.reply(request.ticket, ReplyBody::DeleteRecords(outcomes));
        }
        let mut due = vec![false; outcomes.len()];
        waits.iter().for_each(|(part, ..)| due[*part] = true);
        let state = DeleteState { serial: self.next_serial(), ticket: request.ticket, outcomes, due };
        let deadline = cx.now.plus_ms(request.timeout_ms.max(0) as u64);
        let id = self.park(Parked::DeleteRecords(state), Some(deadline));
        for (part, index, wanted) in waits {
            let Shard { waiters, parked, .. } = self;
            let log_starts = &mut waiters[index].log_starts;
            // Those that timed out go here: while the disk is full the log start does not move.
            log_starts.retain(|w| parked.get(w.id.index).is_some_and(|it| it.serial() == w.id.serial));
            log_starts.push(StartWaiter { wanted, id, part });
        }
    }

    /// The log's index, its new start, and whether that needs no write.
    fn move_log_start(&mut self, part: &DeleteRecordsPart) -> Result<(usize, Offset, bool), Refused> {
        let (slot, bounds) = self.current(&part.key, LeaderEpoch::NONE)?;
        let partition = &self.partitions[&part.key];
        if !partition.rules.log.delete {
            return Err(Refused::PolicyViolation);
        }
        let end = bounds.high_watermark.get();
        let offset = if part.offset == -1 { end } else { Offset(part.offset) };
        if offset < Offset::ZERO || offset > end {
            return Err(Refused::OffsetOutOfRange);
        }
        let start = bounds.log_start.get();
        if offset <= start {
            return Ok((slot.index as usize, start, true));
        }
        self.store.set_log_start(slot, offset)?;
        Ok((slot.index as usize, offset, false))
    }

    /// A log start is on disk. Not always the last one that was asked for: it may have been on its way when that came, and it never goes
    /// beyond what is flushed.
    pub(super) fn log_start_moved(&mut self, slot: LogSlot) {
        let mut waiting = std::mem::take(&mut self.waiters[slot.index as usize].log_starts);
        let start = self.store.bounds(slot).log_start.get();
        waiting.retain(|waiter| {
            let goes_on = waiter.wanted > start;
            if !goes_on {
                self.settle_delete(waiter.id, waiter.part, Ok(start));
            }
            goes_on
        });
        self.waiters[slot.index as usize].log_starts = waiting;
    }

    pub(super) fn settle_delete(&mut self, id: ParkedId, part: usize, result: Result<Offset, Refused>) {
        let Some(Parked::DeleteRecords(state)) = self.parked_mut(id) else { return };
        match result {
            Ok(start) => state.outcomes[part].low_watermark = start.0,
            Err(error) => state.outcomes[part] = refused(error),
        }
        state.due[part] = false;
        if !state.due.contains(&true) {
            self.finish_delete(id);
        }
    }

    pub(super) fn time_out_delete(&mut self, id: ParkedId) {
        let Some(Parked::DeleteRecords(state)) = self.parked_mut(id) else { return };
        for (outcome, due) in state.outcomes.iter_mut().zip(&state.due) {
            if *due {
                *outcome = refused(Refused::RequestTimedOut);
            }
        }
        self.finish_delete(id);
    }

    fn finish_delete(&mut self, id: ParkedId) {
        if let Some(Parked::DeleteRecords(state)) = self.unpark(id) {
            self.reply(state.ticket, ReplyBody::DeleteRecords(state.outcomes));
        }
    }
}
