//! Produce on the partition's own core: validate, append, park until the high watermark says that the ack may leave.

use super::kept::Kept;
use super::parked::{AckWaiter, Parked, ParkedId};
use super::{Cx, Shard};
use crate::base::error::Refused;
use crate::base::few::Few;
use crate::base::metrics::{Stamp, Stamps};
use crate::base::offset::Offset;
use crate::io::Mono;
use crate::log::store::{LogSlot, NotAppended};
use crate::router::message::{Produce, ProduceOutcome, ProducePart, ReplyBody, Ticket};
use crate::wire::batch;

/// Kafka's `timeout.ms` bounds the wait for replicas; the leader's own write is not in it. So is it here, up to this bound: Kafka's
/// default for a client's own patience, after which nobody waits for the answer.
const LOCAL_PATIENCE_MS: u64 = 30_000;

/// A produce request between its appends and its acks.
pub struct ProduceState {
    pub serial: u64,
    pub ticket: Ticket,
    outcomes: Few<ProduceOutcome>,
    /// Per part: the ack is still due.
    due: Few<bool>,
    pending: usize,
    stamps: Stamps,
}

/// An append whose ack has to wait.
pub struct Wait {
    part: usize,
    slot: LogSlot,
    next_offset: Offset,
}

/// What became of one part.
pub enum Append {
    /// The log, the offset to wait for, and the outcome to answer with then.
    Done(LogSlot, Offset, ProduceOutcome),
    Refused(ProduceOutcome),
    /// Nothing happened: to be tried again.
    NoMemory,
}

impl Shard {
    pub(super) fn produce(&mut self, request: Produce<'_>, cx: &mut Cx<'_>) {
        let mut outcomes = Few::with_capacity(request.parts.len());
        let mut due = Few::with_capacity(request.parts.len());
        let mut waits = std::mem::take(&mut self.waits);
        for (part, asked) in request.parts.iter().enumerate() {
            // Behind one that waits for memory: producers count on the order.
            if !self.kept.is_empty() {
                break;
            }
            match self.append(asked, request.version, cx) {
                Append::Done(slot, next_offset, outcome) => {
                    due.push(request.acks != 0);
                    outcomes.push(outcome);
                    waits.push(Wait { part, slot, next_offset });
                }
                Append::Refused(outcome) => {
                    due.push(false);
                    outcomes.push(outcome);
                }
                Append::NoMemory => break,
            }
        }
        let appended = outcomes.len();
        for _ in appended..request.parts.len() {
            due.push(true);
            outcomes.push(ProduceOutcome::refused(Refused::RequestTimedOut, None));
        }
        let mut stamps = self.owned(request.ticket, cx);
        stamps.set(Stamp::Appended, cx.clock.now().0);
        if request.acks == 0 {
            waits.clear();
        }
        let pending = waits.len() + request.parts.len() - appended;
        if pending == 0 {
            self.waits = waits;
            return self.reply_stamped(request.ticket, ReplyBody::Produce(outcomes), stamps);
        }
        let state = ProduceState {
            serial: self.next_serial(),
            ticket: request.ticket,
            outcomes,
            due,
            pending,
            stamps,
        };
        let patience = (request.timeout_ms.max(0) as u64).max(LOCAL_PATIENCE_MS);
        let deadline = cx.now.plus_ms(patience);
        let id = self.park(Parked::Produce(state), Some(deadline));
        if appended < request.parts.len() {
            self.kept.push_back(Kept::of(&request, appended, id, deadline));
        }
        for Wait { part, slot, next_offset } in &waits {
            self.await_ack(*slot, AckWaiter { next_offset: *next_offset, id, part: *part });
        }
        // At durability=memory, and for duplicates, the watermark is there already.
        for Wait { slot, .. } in waits.drain(..) {
            self.ack_through(slot, cx.now);
        }
        self.waits = waits;
    }

    fn await_ack(&mut self, slot: LogSlot, waiter: AckWaiter) {
        self.waiters[slot.index as usize].acks.push_back(waiter);
    }

    /// A part that had to wait for memory is appended, or refused after all. Its request may have been answered or forgotten since.
    pub(super) fn kept_part_done(&mut self, id: ParkedId, part: usize, acks: i16, append: Append, now: Mono) {
        let (outcome, wait) = match append {
            Append::NoMemory => return,
            Append::Refused(outcome) => (outcome, None),
            Append::Done(slot, next_offset, outcome) => (outcome, (acks != 0).then_some((slot, next_offset))),
        };
        let Some(Parked::Produce(state)) = self.parked_mut(id) else { return };
        state.outcomes[part] = outcome;
        match wait {
            None => self.settle_ack(id, part, None),
            Some((slot, next_offset)) => {
                self.await_ack(slot, AckWaiter { next_offset, id, part });
                self.ack_through(slot, now);
            }
        }
    }

    /// Appends one part.
    pub(super) fn append(&mut self, part: &ProducePart<'_>, version: i16, cx: &mut Cx<'_>) -> Append {
        match self.try_append(part, version, cx) {
            Ok(Some((slot, next_offset, outcome))) => Append::Done(slot, next_offset, outcome),
            Ok(None) => Append::NoMemory,
            Err(refused) => Append::Refused(refused),
        }
    }

    /// Ok with nothing: no memory.
    fn try_append(
        &mut self,
        part: &ProducePart<'_>,
        version: i16,
        cx: &mut Cx<'_>,
    ) -> Result<Option<(LogSlot, Offset, ProduceOutcome)>, ProduceOutcome> {
        let Some(partition) = self.partitions.get(&part.key) else {
            return Err(ProduceOutcome::refused(Refused::UnknownTopicOrPartition, None));
        };
        let slot = partition.slot;
        if self.dead.is_some() {
            let why = "a write or flush of this log directory failed";
            return Err(ProduceOutcome::refused(Refused::KafkaStorageError, Some(why)));
        }
        let rules = &partition.rules;
        let limits = batch::Accept {
            produce_version: version,
            max_message_bytes: rules.max_message_bytes,
            segment_bytes: rules.log.segment_bytes,
            timestamp_before_max_ms: rules.timestamp_before_max_ms,
            timestamp_after_max_ms: rules.timestamp_after_max_ms,
            log_append_time: rules.log.log_append_time,
            compact: rules.compact,
            deep: rules.deep,
            compression: rules.compression,
            now_ms: cx.wall_ms,
        };
        let log_start = self.store.bounds(slot).log_start.get().0;
        let refused = |refusal: batch::Refusal| ProduceOutcome {
            records: refusal.records,
            log_start: if refusal.with_log_start { log_start } else { -1 },
            ..ProduceOutcome::refused(refusal.error, refusal.message)
        };
        let accepted = batch::accept(part.records, &limits).map_err(refused)?;
        if accepted.batch.is_transactional() {
            return Err(ProduceOutcome::refused(Refused::TransactionalIdAuthorizationFailed, None));
        }
        let rewritten = batch::rewrite(&accepted, &limits).map_err(refused)?;
        let stored = rewritten.as_deref().unwrap_or(accepted.batch.bytes());
        let appended = match self.store.append(slot, stored, cx.pool, cx.now, cx.wall_ms) {
            Ok(appended) => appended,
            Err(NotAppended::Refused(error)) => {
                return Err(ProduceOutcome { log_start, ..ProduceOutcome::refused(error, None) });
            }
            Err(NotAppended::NoMemory) => return Ok(None),
        };
        self.counters.produce_bytes_total += part.records.len() as u64;
        let outcome = ProduceOutcome {
            error: None,
            base_offset: appended.base_offset.0,
            // As Kafka: a duplicate is answered with the time of the batch that was kept.
            append_time_ms: if appended.duplicate { max_timestamp(stored) } else { appended.append_time_ms },
            log_start: self.store.bounds(slot).log_start.get().0,
            message: None,
            records: Vec::new(),
        };
        Ok(Some((slot, appended.next_offset, outcome)))
    }

    /// Lets go the acks of a log up to its high watermark.
    pub(super) fn ack_through(&mut self, slot: LogSlot, now: Mono) {
        let (index, bounds) = (slot.index as usize, self.store.bounds(slot));
        while let Some(ack) = self.waiters[index].acks.front() {
            if ack.next_offset > bounds.high_watermark.get() {
                return;
            }
            let ack = self.waiters[index].acks.pop_front().expect("looked at above");
            let durable = ack.next_offset <= bounds.durable.get();
            self.stamp_ack(&ack, slot, durable, now);
            self.settle_ack(ack.id, ack.part, None);
        }
    }

    /// The part that is acknowledged last leaves its stamps. A batch that nothing was written for, or not yet, leaves only the last.
    fn stamp_ack(&mut self, ack: &AckWaiter, slot: LogSlot, durable: bool, now: Mono) {
        let mark = self.store.pass_mark(slot, ack.next_offset);
        let Some(Parked::Produce(state)) = self.parked_mut(ack.id) else { return };
        let stamps = &mut state.stamps;
        if let Some(mark) = mark.filter(|mark| mark.written > Mono(0)) {
            stamps.set_behind(Stamp::Submitted, Stamp::Appended, mark.submitted.0);
            stamps.set_behind(Stamp::Written, Stamp::Submitted, mark.written.0);
            if durable {
                stamps.set_behind(Stamp::Durable, Stamp::Written, now.0);
            }
        }
        stamps.set_behind(Stamp::Committed, Stamp::Appended, now.0);
    }

    /// The stamps of a request that this shard begins to work on. One of a connection that lives here was not on its way.
    pub(super) fn owned(&self, ticket: Ticket, cx: &Cx<'_>) -> Stamps {
        let mut stamps = Stamps::default();
        if ticket.shard != self.id {
            stamps.set(Stamp::Owned, cx.now.0);
        }
        stamps
    }

    /// One part is done, well or not; the reply leaves with the last.
    pub(super) fn settle_ack(&mut self, id: ParkedId, part: usize, error: Option<Refused>) {
        let Some(Parked::Produce(state)) = self.parked_mut(id) else { return };
        if !std::mem::take(&mut state.due[part]) {
            return;
        }
        if let Some(error) = error {
            let log_start = state.outcomes[part].log_start;
            state.outcomes[part] = ProduceOutcome { log_start, ..ProduceOutcome::refused(error, None) };
        }
        state.pending -= 1;
        if state.pending == 0 {
            self.finish_produce(id);
        }
    }

    pub(super) fn time_out_produce(&mut self, id: ParkedId) {
        let Some(Parked::Produce(state)) = self.parked_mut(id) else { return };
        for (outcome, due) in state.outcomes.iter_mut().zip(state.due.iter()) {
            if *due {
                outcome.error = Some(Refused::RequestTimedOut);
            }
        }
        self.finish_produce(id);
    }

    fn finish_produce(&mut self, id: ParkedId) {
        if let Some(Parked::Produce(state)) = self.unpark(id) {
            self.reply_stamped(state.ticket, ReplyBody::Produce(state.outcomes), state.stamps);
        }
    }
}

/// The largest timestamp that the header of a sound batch tells.
fn max_timestamp(batch: &[u8]) -> i64 {
    batch::Batch::only(batch).map_or(batch::NO_TIMESTAMP, |batch| batch.max_timestamp())
}
