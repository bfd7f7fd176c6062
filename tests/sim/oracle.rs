//! What was sent to one partition, what was promised, and what was seen: I1 to I4 and I6 of the reliability page.
//!
//! A batch is *unknown* until its ack. Once it is acked at level `durable`, or any consumer saw it below the high watermark, its place
//! is *fixed*: nothing but deletion or truncation may ever take it away. An unknown batch may appear after a restart, whole, at an
//! offset that it had been given, or never.

use std::collections::BTreeMap;

use corelog::log::store::{Bounds, Durability};

use crate::batch::{Batch, BatchId, Found};

/// A broken promise, in words. The run adds the seed.
pub type Verdict<T = ()> = Result<T, String>;

/// How a run of the broker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Stop,
    Kill,
    /// A flush had failed before: what no flush had covered may be gone as after a power cut.
    KillAfterFailedFlush,
    Crash,
}

struct Sent {
    batch: Batch,
    /// Base offsets it was given, one for each run in which it was appended.
    bases: Vec<i64>,
    acked: bool,
}

pub struct Oracle {
    pub name: String,
    pub durability: Durability,
    sent: BTreeMap<BatchId, Sent>,
    /// What may never change: by base offset.
    fixed: BTreeMap<i64, (BatchId, u32)>,
    /// Where each batch was seen or acked: an idempotent producer's record, and here any record, stands at one place only.
    shown: BTreeMap<BatchId, i64>,
    /// Appends of this run that wait for their ack, in order.
    waiting: Vec<(BatchId, i64, i64)>,
    high_watermark: i64,
    durable: i64,
    log_start: i64,
    /// The largest log start that was asked for: a log may not lose more than that.
    log_start_asked: i64,
    /// Retention may raise the log start by itself.
    pub retention: bool,
    pub acked: u64,
    pub lost_unacked: u64,
}

impl Oracle {
    pub fn new(name: String, durability: Durability) -> Oracle {
        Oracle {
            name,
            durability,
            sent: BTreeMap::new(),
            fixed: BTreeMap::new(),
            shown: BTreeMap::new(),
            waiting: Vec::new(),
            high_watermark: 0,
            durable: 0,
            log_start: 0,
            log_start_asked: 0,
            retention: false,
            acked: 0,
            lost_unacked: 0,
        }
    }

    /// The topic was deleted and made again: an empty log. Requests for the old one that are still on their way may reach the new one.
    pub fn made_again(&self, name: String) -> Oracle {
        let mut sent = BTreeMap::new();
        for (id, before) in &self.sent {
            sent.insert(*id, Sent { batch: before.batch.clone(), bases: Vec::new(), acked: false });
        }
        let asked = self.log_start_asked;
        let made = Oracle::new(name, self.durability);
        Oracle { sent, log_start_asked: asked, acked: self.acked, retention: self.retention, ..made }
    }

    /// The log took a batch and gave it `base`.
    pub fn appended(&mut self, batch: Batch, base: i64, log_end_before: i64) -> Verdict {
        if base != log_end_before {
            return Err(format!("{}: appended at {base}, the log ended at {log_end_before}", self.name));
        }
        let (id, records) = (batch.id, i64::from(batch.records));
        let sent = self.sent.entry(id).or_insert(Sent { batch, bases: Vec::new(), acked: false });
        sent.bases.push(base);
        self.waiting.push((id, base, base + records));
        Ok(())
    }

    /// A batch left over the network: its place is known by its ack, or when it is seen.
    pub fn sent(&mut self, batch: Batch) {
        self.sent.entry(batch.id).or_insert(Sent { batch, bases: Vec::new(), acked: false });
    }

    /// The broker answered that the batch stands at `base`.
    pub fn answered(&mut self, id: BatchId, base: i64) -> Verdict {
        self.fix(id, base)?;
        let sent = self.sent.get_mut(&id).expect("sent");
        sent.acked = true;
        self.high_watermark = self.high_watermark.max(base + i64::from(sent.batch.records));
        self.acked += 1;
        Ok(())
    }

    /// A fetch told the high watermark. Answers overtake each other, so it may be old.
    pub fn saw_high_watermark(&mut self, hw: i64) {
        self.high_watermark = self.high_watermark.max(hw);
    }

    /// The log said that this batch had been appended before, at `base`. It is acked as soon as that is visible.
    pub fn duplicate(&mut self, id: BatchId, base: i64) -> Verdict {
        let Some(sent) = self.sent.get(&id) else {
            return Err(format!("{}: {id:?} was never sent", self.name));
        };
        if !sent.bases.contains(&base) {
            return Err(format!(
                "{}: {id:?} is called a duplicate of {base}, given {:?}",
                self.name, sent.bases
            ));
        }
        self.waiting.push((id, base, base + i64::from(sent.batch.records)));
        Ok(())
    }

    /// Takes the high watermark. Returns the batches that are acked by it.
    pub fn advanced(&mut self, bounds: Bounds) -> Verdict<Vec<BatchId>> {
        let (hw, end) = (bounds.high_watermark.get().0, bounds.log_end.get().0);
        if hw < self.high_watermark {
            return Err(format!("{}: high watermark fell from {} to {hw}", self.name, self.high_watermark));
        }
        let durable = bounds.durable.get().0;
        if hw > end || (self.durability == Durability::Durable && hw > durable) {
            return Err(format!("{}: high watermark {hw}, durable {durable}, end {end}", self.name));
        }
        self.high_watermark = hw;
        self.durable = durable;
        let mut acked = Vec::new();
        for (id, base, next) in std::mem::take(&mut self.waiting) {
            if next <= hw {
                self.fix(id, base)?;
                self.sent.get_mut(&id).expect("appended").acked = true;
                self.acked += 1;
                acked.push(id);
            } else {
                self.waiting.push((id, base, next));
            }
        }
        Ok(acked)
    }

    pub fn waits(&self) -> usize {
        self.waiting.len()
    }

    pub fn body(&self, id: BatchId) -> &[u8] {
        self.sent[&id].batch.body()
    }

    pub fn is_acked(&self, id: BatchId) -> bool {
        self.sent.get(&id).is_some_and(|s| s.acked)
    }

    /// A consumer asked for `from` and got this, at a time when the high watermark was at least `until`.
    pub fn fetched(&mut self, from: i64, until: i64, found: &[Found<'_>]) -> Verdict<i64> {
        let mut next = from;
        for (i, batch) in found.iter().enumerate() {
            let (base, records) = (batch.base_offset, i64::from(batch.records));
            let follows = base == next || (i == 0 && base <= from && from < base + records);
            if !follows {
                return Err(format!("{}: a fetch from {from} found {base} where {next} is due", self.name));
            }
            next = base + records;
            if next > until {
                return Err(format!("{}: a fetch below {until} returned up to {next}", self.name));
            }
            let Some(sent) = self.sent.get(&batch.id) else {
                return Err(format!("{}: {:?} at {base} was never sent", self.name, batch.id));
            };
            if sent.batch.body() != batch.body || sent.batch.records != batch.records {
                return Err(format!("{}: {:?} at {base} is not as it was sent", self.name, batch.id));
            }
            if !sent.bases.is_empty() && !sent.bases.contains(&base) {
                return Err(format!("{}: {:?} at {base}, given {:?}", self.name, batch.id, sent.bases));
            }
            self.fix(batch.id, base)?;
        }
        Ok(next)
    }

    fn fix(&mut self, id: BatchId, base: i64) -> Verdict {
        let records = self.sent[&id].batch.records;
        let known = *self.fixed.entry(base).or_insert((id, records));
        if known != (id, records) {
            return Err(format!("{}: offset {base} showed {:?} and now {id:?}", self.name, known.0));
        }
        let shown = *self.shown.entry(id).or_insert(base);
        if shown != base {
            return Err(format!("{}: {id:?} stands at {shown} and at {base}", self.name));
        }
        Ok(())
    }

    /// What stands at or behind `from` may be gone: it was cut, or damaged.
    fn forget_from(&mut self, from: i64) {
        self.fixed.retain(|base, (_, records)| base + i64::from(*records) <= from);
        self.shown.retain(|_, base| *base < from);
        self.high_watermark = self.high_watermark.min(from);
        self.durable = self.durable.min(from);
        for sent in self.sent.values_mut() {
            sent.acked &= sent.bases.last().is_some_and(|base| *base < from);
        }
    }

    /// The log was to end at `target` at most, and ends at `end` (the run ended like this meanwhile): before no batch that had to stay.
    pub fn truncated(&mut self, how: End, target: i64, end: i64) -> Verdict {
        let stays = self.fixed.iter().map(|(base, (_, records))| base + i64::from(*records));
        let stays = stays.filter(|next| *next <= target).max().unwrap_or(0);
        if end < stays && self.keeps(how) {
            return Err(format!("{}: cut at {end}, wanted {target}; {stays} had to stay", self.name));
        }
        self.forget_from(end);
        self.log_start = self.log_start.min(end);
        self.waiting.retain(|(_, _, next)| *next <= end);
        Ok(())
    }

    /// A truncation was interrupted, and then the state file was lost: nobody knows what an earlier one had cut off there, and records behind
    /// the cut may be those.
    pub fn cut_unknown(&mut self, target: i64) {
        self.forget_from(target);
    }

    /// A start found the log damaged at `end`, or `silent_from` allows it to end there without a word. True if promised records are gone.
    pub fn damaged(&mut self, end: i64, named: bool, silent_from: i64) -> bool {
        let lost = end < self.promised() && (named || end >= silent_from);
        if lost {
            self.forget_from(end);
        }
        lost
    }

    /// The state file is gone: nobody knows what had been deleted of the first segment.
    pub fn start_lost(&mut self) {
        self.log_start = 0;
    }

    fn promised(&self) -> i64 {
        let last = self.fixed.last_key_value();
        last.map_or(0, |(base, (_, records))| base + i64::from(*records)).max(self.high_watermark)
    }

    /// Somebody asked to delete below `offset`.
    pub fn asked_log_start(&mut self, offset: i64) {
        self.log_start_asked = self.log_start_asked.max(offset);
    }

    /// Where the log may begin at the most.
    pub fn log_start_asked(&self) -> i64 {
        self.log_start_asked
    }

    /// The log says that its start is durably here.
    pub fn log_start_durable(&mut self, offset: i64) {
        self.log_start = self.log_start.max(offset);
    }

    pub fn log_start(&self) -> i64 {
        self.log_start
    }

    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Whether the level keeps what it acknowledged through this.
    fn keeps(&self, end: End) -> bool {
        match self.durability {
            Durability::Durable => true,
            Durability::Written => matches!(end, End::Stop | End::Kill),
            Durability::Memory => end == End::Stop,
        }
    }

    /// A new run begins; the last one ended like this, and the log was recovered with these bounds.
    pub fn recovered(&mut self, end: End, bounds: Bounds) -> Verdict {
        let (start, log_end) = (bounds.log_start.get().0, bounds.log_end.get().0);
        let hw = bounds.high_watermark.get().0;
        let keeps = self.keeps(end);
        if end == End::Stop && !self.waiting.is_empty() {
            return Err(format!("{}: stopped with {} unanswered appends", self.name, self.waiting.len()));
        }
        self.lost_unacked += self.waiting.drain(..).count() as u64;
        if !keeps {
            // What was flushed stays at every level. Nothing else was promised.
            let durable = self.durable;
            self.fixed.retain(|base, (_, records)| base + i64::from(*records) <= durable);
            self.shown.retain(|_, base| *base < durable);
            self.high_watermark = self.high_watermark.min(durable);
            self.log_start = self.log_start.min(log_end);
            for sent in self.sent.values_mut() {
                sent.acked &= sent.bases.last().is_some_and(|base| *base < durable);
            }
        }
        let promised =
            self.fixed.last_key_value().map_or(0, |(base, (_, records))| base + i64::from(*records));
        if log_end < promised || hw < self.high_watermark {
            let was = self.high_watermark;
            return Err(format!(
                "{}: after {end:?} the log ends at {log_end}, high watermark {hw}; promised {promised}, was {was}",
                self.name
            ));
        }
        if start < self.log_start {
            return Err(format!(
                "{}: log start {start} fell below {} after {end:?}",
                self.name, self.log_start
            ));
        }
        if !self.retention && start > self.log_start_asked {
            let asked = self.log_start_asked;
            return Err(format!("{}: log start {start} after {end:?}, asked for {asked} at most", self.name));
        }
        self.high_watermark = hw;
        self.durable = bounds.durable.get().0;
        self.log_start = start;
        Ok(())
    }

    /// After everything from log start to `until` was fetched: is all there that was promised?
    pub fn complete(&self, log_start: i64, until: i64, seen: &BTreeMap<i64, BatchId>) -> Verdict {
        let read = |(base, (_, records)): &(&i64, &(BatchId, u32))| **base + i64::from(*records) <= until;
        for (base, (id, records)) in self.fixed.iter().filter(read) {
            if base + i64::from(*records) > log_start && seen.get(base) != Some(id) {
                return Err(format!("{}: {id:?} at {base} is gone; found {:?}", self.name, seen.get(base)));
            }
        }
        Ok(())
    }
}
