//! Idempotence: what each producer appended last to this partition, so that a retry is recognised and a gap refused (KIP-98).
//!
//! [`Producers::check`] is pure and comes first, over all batches of an append; [`Producers::advance`] follows once they are appended. A rejected
//! append therefore changes nothing: a sequence that moved without its records would lose the retry of them silently.
//!
//! # Non-obvious
//! - A duplicate is looked for before epoch and sequence are: a retry that was overtaken by later batches is not out of order.
//! - Without state any first sequence is accepted, as in Kafka: the state may have expired, or been evicted.
//! - Expiry counts from when *we* saw the last batch, not from the batch's timestamps, which the client sets: a producer that replays old records
//!   must not lose its state between a send and its retry. A replay after a crash counts as seen.
//! - Eviction goes by offset, the one order that neither clocks nor clients can bend.

use std::collections::BTreeMap;

use super::checkpoint::{Kind, NotCheckpoint, Put, Take, frame, unframe};
use crate::base::error::Refused;
use crate::base::ids::{ProducerEpoch, ProducerId};
use crate::base::limits::{PRODUCER_BATCHES_KEPT, PRODUCERS_PER_PARTITION_MAX};
use crate::base::offset::Offset;

/// What a batch says about its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequenced {
    /// [`ProducerId::NONE`]: not idempotent, always accepted and not remembered.
    pub producer: ProducerId,
    pub epoch: ProducerEpoch,
    /// Sequence of the first record.
    pub first: i32,
    /// Last offset of the batch minus its first.
    pub last_delta: i32,
    /// A transaction marker: it has an epoch but no sequence.
    pub control: bool,
}

impl Sequenced {
    /// The producer for which a batch with this id counts: as in Kafka, any negative one is none.
    pub fn producer_of(id: ProducerId) -> ProducerId {
        if id < ProducerId(0) { ProducerId::NONE } else { id }
    }

    /// Sequence of the last record; behind 2147483647 comes 0.
    pub fn last(&self) -> i32 {
        (i64::from(self.first) + i64::from(self.last_delta)) as i32 & i32::MAX
    }
}

/// What [`Producers::check`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// To be appended.
    New,
    /// Appended before: answered with what it got then.
    Duplicate(Remembered),
}

/// A batch that was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    pub base_offset: Offset,
    pub next_offset: Offset,
    /// LogAppendTime in ms, or -1 with CreateTime.
    pub append_time_ms: i64,
}

/// One of the last batches of a producer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Batch {
    first: i32,
    last: i32,
    base_offset: Offset,
    append_time_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Producer {
    epoch: ProducerEpoch,
    /// Wall clock when its last batch was appended or replayed.
    seen_ms: i64,
    /// Offset of the last record, or marker, that it appended.
    last_offset: Offset,
    /// The newest `kept` of them, oldest first.
    batches: [Batch; PRODUCER_BATCHES_KEPT],
    kept: u8,
}

impl Producer {
    fn batches(&self) -> &[Batch] {
        &self.batches[..usize::from(self.kept)]
    }

    fn last_sequence(&self) -> Option<i32> {
        self.batches().last().map(|b| b.last)
    }

    fn remember(&mut self, batch: Batch) {
        if usize::from(self.kept) == PRODUCER_BATCHES_KEPT {
            self.batches.rotate_left(1);
        } else {
            self.kept += 1;
        }
        self.batches[usize::from(self.kept) - 1] = batch;
    }

    fn duplicate(&self, batch: &Sequenced) -> Option<Remembered> {
        let same = |b: &&Batch| b.first == batch.first && b.last == batch.last();
        let found = self.batches().iter().find(same).filter(|_| self.epoch == batch.epoch)?;
        Some(Remembered {
            base_offset: found.base_offset,
            next_offset: found.base_offset.plus(i64::from(batch.last_delta) + 1),
            append_time_ms: found.append_time_ms,
        })
    }
}

/// The producers of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    by_id: BTreeMap<ProducerId, Producer>,
}

/// Epoch and last sequence as they are, or will be after the batches checked so far.
type Position = (ProducerEpoch, Option<i32>);

impl Producers {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Whether these batches, in this order, may be appended. Changes nothing. `Duplicate` if all of them were appended before; the answer is the
    /// first one's. Errors: `InvalidProducerEpoch` for an epoch that a newer instance has fenced, `OutOfOrderSequence` for a gap, for a new epoch
    /// that does not begin at 0, and for duplicates mixed with new batches, of which only a part could be appended.
    pub fn check(&self, batches: &[Sequenced]) -> Result<Checked, Refused> {
        let sequenced = || batches.iter().filter(|b| b.producer != ProducerId::NONE && !b.control);
        let mut first_duplicate = None;
        let (mut duplicates, mut total) = (0, 0);
        for batch in sequenced() {
            total += 1;
            if let Some(found) = self.by_id.get(&batch.producer).and_then(|p| p.duplicate(batch)) {
                first_duplicate.get_or_insert(found);
                duplicates += 1;
            }
        }
        match first_duplicate {
            Some(found) if duplicates == total && total == batches.len() => {
                return Ok(Checked::Duplicate(found));
            }
            Some(_) => return Err(Refused::OutOfOrderSequence),
            None => {}
        }
        for (i, batch) in batches.iter().enumerate() {
            let earlier = batches[..i].iter().rev().find(|b| b.producer == batch.producer);
            let position = match earlier {
                Some(earlier) => Some((earlier.epoch, (!earlier.control).then(|| earlier.last()))),
                None => self.by_id.get(&batch.producer).map(|p| (p.epoch, p.last_sequence())),
            };
            in_order(position, batch)?;
        }
        Ok(Checked::New)
    }

    /// Notes a batch that was appended at `base_offset`, or is replayed from there. `append_time_ms` as in [`Remembered`]; `now_ms` is the wall clock.
    pub fn advance(&mut self, batch: &Sequenced, base_offset: Offset, append_time_ms: i64, now_ms: i64) {
        if batch.producer == ProducerId::NONE {
            return;
        }
        if self.by_id.len() >= PRODUCERS_PER_PARTITION_MAX && !self.by_id.contains_key(&batch.producer) {
            self.evict();
        }
        let last_offset = base_offset.plus(i64::from(batch.last_delta));
        let fresh = Producer {
            epoch: batch.epoch,
            seen_ms: now_ms,
            last_offset,
            batches: [Batch::default(); PRODUCER_BATCHES_KEPT],
            kept: 0,
        };
        let producer = self.by_id.entry(batch.producer).or_insert(fresh);
        if producer.epoch != batch.epoch {
            *producer = fresh;
        }
        producer.seen_ms = now_ms;
        producer.last_offset = last_offset;
        if !batch.control {
            producer.remember(Batch { first: batch.first, last: batch.last(), base_offset, append_time_ms });
        }
    }

    /// Forgets producers that were last seen `expiration_ms` ago or earlier. Returns how many.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) -> usize {
        let before = self.by_id.len();
        self.by_id.retain(|_, p| now_ms.saturating_sub(p.seen_ms) < expiration_ms);
        before - self.by_id.len()
    }

    /// Forgets what was appended at and behind `end`: the log ends there now. A producer of which nothing is left that it could continue is
    /// forgotten whole, and may go on with any sequence.
    pub fn truncate_end(&mut self, end: Offset) {
        self.by_id.retain(|_, producer| {
            let kept = producer.batches().iter().filter(|b| b.base_offset < end).count();
            producer.kept = kept as u8;
            producer.last_offset = producer.last_offset.min(end.plus(-1));
            kept > 0
        });
    }

    /// Forgets the sixteenth part whose last records are oldest: one by one would search them all for each new producer.
    fn evict(&mut self) {
        let mut offsets: Vec<Offset> = self.by_id.values().map(|p| p.last_offset).collect();
        let count = offsets.len().div_ceil(16);
        let (_, newest_gone, _) = offsets.select_nth_unstable(count - 1);
        let newest_gone = *newest_gone;
        self.by_id.retain(|_, p| p.last_offset > newest_gone);
    }

    /// The `producers` file: this state as it was behind the record before `at`.
    pub fn encode(&self, at: Offset) -> Vec<u8> {
        let mut put = Put::default();
        put.i64(at.0);
        put.u32(self.by_id.len() as u32);
        for (id, producer) in &self.by_id {
            put.i64(id.0);
            put.u16(producer.epoch.0 as u16);
            put.i64(producer.seen_ms);
            put.i64(producer.last_offset.0);
            put.u8(producer.kept);
            for batch in producer.batches() {
                put.u32(batch.first as u32);
                put.u32(batch.last as u32);
                put.i64(batch.base_offset.0);
                put.i64(batch.append_time_ms);
            }
        }
        frame(Kind::Producers, &put.0)
    }

    /// Reads the file: the state, and the offset from which the log is to be replayed.
    pub fn decode(bytes: &[u8]) -> Result<(Producers, Offset), NotCheckpoint> {
        Producers::body(unframe(Kind::Producers, bytes)?).ok_or(NotCheckpoint::Damaged)
    }

    fn body(body: &[u8]) -> Option<(Producers, Offset)> {
        let mut take = Take(body);
        let at = take.offset()?;
        let count = take.u32()? as usize;
        let mut by_id = BTreeMap::new();
        for _ in 0..count {
            let id = ProducerId(take.i64()?);
            let mut producer = Producer {
                epoch: ProducerEpoch(take.u16()? as i16),
                seen_ms: take.i64()?,
                last_offset: take.offset()?,
                batches: [Batch::default(); PRODUCER_BATCHES_KEPT],
                kept: take.u8()?,
            };
            for batch in producer.batches.get_mut(..usize::from(producer.kept))? {
                *batch = Batch {
                    first: take.u32()? as i32,
                    last: take.u32()? as i32,
                    base_offset: take.offset()?,
                    append_time_ms: take.i64()?,
                };
            }
            by_id.insert(id, producer);
        }
        let whole = take.0.is_empty() && by_id.len() == count && count <= PRODUCERS_PER_PARTITION_MAX;
        whole.then_some((Producers { by_id }, at))
    }
}

/// Whether `batch` may follow what is known of its producer.
fn in_order(known: Option<Position>, batch: &Sequenced) -> Result<(), Refused> {
    let Some((epoch, last)) = known.filter(|_| batch.producer != ProducerId::NONE) else { return Ok(()) };
    if batch.epoch < epoch {
        return Err(Refused::InvalidProducerEpoch);
    }
    let expected = match last {
        Some(last) if batch.epoch == epoch => last.wrapping_add(1) & i32::MAX,
        _ => 0,
    };
    if batch.control || batch.first == expected { Ok(()) } else { Err(Refused::OutOfOrderSequence) }
}
