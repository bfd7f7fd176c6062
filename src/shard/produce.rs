//! Produce on the partition's own core: validate, append, park until the high watermark says that the ack may leave.

use super::parked::{AckWaiter, Parked, ParkedId};
use super::{Cx, Shard};
use crate::base::error::Refused;
use crate::base::offset::Offset;
use crate::log::store::NotAppended;
use crate::router::message::{Produce, ProduceOutcome, ProducePart, ReplyBody, Ticket};
use crate::wire::batch;

/// Kafka's `timeout.ms` bounds the wait for replicas; the leader's own write is not in it. So is it here, up to this bound: Kafka's
/// default for a client's own patience, after which nobody waits for the answer.
const LOCAL_PATIENCE_MS: u64 = 30_000;

/// A produce request between its appends and its acks.
pub struct ProduceState {
    pub serial: u64,
    pub ticket: Ticket,
    outcomes: Vec<ProduceOutcome>,
    /// Per part: the ack is still due.
    due: Vec<bool>,
    pending: usize,
}

impl Shard {
    pub(super) fn produce(&mut self, request: Produce<'_>, cx: &mut Cx<'_>) {
        let mut outcomes = Vec::with_capacity(request.parts.len());
        let mut waits = Vec::new();
        for (part, asked) in request.parts.iter().enumerate() {
            let outcome = match self.append(asked, request.version, cx) {
                Ok((index, next_offset, outcome)) => {
                    if request.acks != 0 {
                        waits.push((part, index, next_offset));
                    }
                    outcome
                }
                Err(refused) => refused,
            };
            outcomes.push(outcome);
        }
        if waits.is_empty() {
            return self.reply(request.ticket, ReplyBody::Produce(outcomes));
        }
        let mut due = vec![false; outcomes.len()];
        waits.iter().for_each(|(part, ..)| due[*part] = true);
        let state = ProduceState {
            serial: self.next_serial(),
            ticket: request.ticket,
            outcomes,
            due,
            pending: waits.len(),
        };
        let patience = (request.timeout_ms.max(0) as u64).max(LOCAL_PATIENCE_MS);
        let deadline = cx.now.plus_ms(patience);
        let id = self.park(Parked::Produce(state), Some(deadline));
        for (part, index, next_offset) in &waits {
            self.waiters[*index].acks.push_back(AckWaiter { next_offset: *next_offset, id, part: *part });
        }
        // At durability=memory, and for duplicates, the watermark is there already.
        for (_, index, _) in waits {
            let reached = self.waiters[index].key.and_then(|key| self.bounds(&key));
            if let Some(bounds) = reached {
                self.ack_through(index, bounds.high_watermark.get());
            }
        }
    }

    /// Appends one part. Ok: the log's index, the offset to wait for, and the outcome to answer with then.
    fn append(
        &mut self,
        part: &ProducePart<'_>,
        version: i16,
        cx: &mut Cx<'_>,
    ) -> Result<(usize, Offset, ProduceOutcome), ProduceOutcome> {
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
            Err(NotAppended::NoMemory) => {
                let why = "out of staging memory";
                return Err(ProduceOutcome::refused(Refused::KafkaStorageError, Some(why)));
            }
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
        Ok((slot.index as usize, appended.next_offset, outcome))
    }

    /// Lets go the acks of a log up to its high watermark.
    pub(super) fn ack_through(&mut self, index: usize, high_watermark: Offset) {
        while let Some(ack) = self.waiters[index].acks.front() {
            if ack.next_offset > high_watermark {
                return;
            }
            let ack = self.waiters[index].acks.pop_front().expect("looked at above");
            self.settle_ack(ack.id, ack.part, None);
        }
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
        for (outcome, due) in state.outcomes.iter_mut().zip(&state.due) {
            if *due {
                outcome.error = Some(Refused::RequestTimedOut);
            }
        }
        self.finish_produce(id);
    }

    fn finish_produce(&mut self, id: ParkedId) {
        if let Some(Parked::Produce(state)) = self.unpark(id) {
            self.reply(state.ticket, ReplyBody::Produce(state.outcomes));
        }
    }
}

/// The largest timestamp that the header of a sound batch tells.
fn max_timestamp(batch: &[u8]) -> i64 {
    batch::Batch::only(batch).map_or(batch::NO_TIMESTAMP, |batch| batch.max_timestamp())
}
