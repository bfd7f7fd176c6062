//! Hot path. How bytes move: from an append to staging, from staging into rounds, and from completions to the high watermark.

use super::core::{Core, Pending, Write};
use super::jobs::ATTEMPTS_MAX;
use super::partition::{Log, mark_dirty, mark_todo};
use super::{Appended, Durability, LogSlot, NotAppended, Ops, Planted, Store};
use crate::base::error::Refused;
use crate::base::limits::ALIGN;
use crate::base::offset::Offset;
use crate::io::buffer::Pool;
use crate::io::{Done, Errno, Op, Payload, WriteSync};
use crate::log::append::{BatchHead, Stamping};
use crate::log::commit::{Cover, Flush, Member, Sync, Verdict, verdict};
use crate::log::format::SEGMENT_HEADER_BYTES;
use crate::log::producers::{Checked, Sequenced};
use crate::log::segment::Extents;
use crate::log::tail::Place;

/// Largest batch: a cold read of it is one job of 64 blocks, header and alignment included.
pub const BATCH_BYTES_MAX: usize = 15 * 1024 * 1024;

/// Attribute bit of a transaction marker.
const CONTROL: i16 = 1 << 5;

const INTR: Errno = Errno(4);

impl Store {
    /// Why `batch` cannot be appended to this log now.
    pub(super) fn gate(&self, slot: LogSlot, bytes: usize, pool: &Pool) -> Result<(), Refused> {
        let log = self.log(slot).ok_or(Refused::UnknownTopicOrPartition)?;
        if self.core.stopping || log.truncation.is_some() {
            return Err(Refused::NotLeaderOrFollower);
        }
        let broken = self.core.is_dead() || log.read_only;
        if broken || self.core.disk_low || self.core.no_space.contains(&slot.index) {
            return Err(Refused::KafkaStorageError);
        }
        if bytes as u64 > log.config.segment_bytes {
            return Err(Refused::RecordListTooLarge);
        }
        let half_pool = pool.blocks_max() / 2 * crate::base::limits::BLOCK_BYTES;
        if bytes > BATCH_BYTES_MAX || bytes > half_pool {
            return Err(Refused::MessageTooLarge);
        }
        Ok(())
    }

    /// Reserves memory for a batch of `bytes` and begins a new segment if it needs one.
    fn make_room(&mut self, slot: LogSlot, bytes: usize, pool: &mut Pool) -> Result<(), NotAppended> {
        let log = self.log(slot).ok_or(NotAppended::Refused(Refused::UnknownTopicOrPartition))?;
        let rolls = log.rolls(bytes, &self.core);
        if rolls && self.core.uuids.is_empty() {
            return Err(NotAppended::NoMemory);
        }
        // What is evicted may be this log's own last block, on whose room it counted: then one more is wanted.
        while let blocks = self.log(slot).map_or(0, |log| log.stage.blocks_wanted(&log.tail, bytes, rolls))
            && self.core.spare.len() < blocks
        {
            if !self.reserve(blocks, pool) {
                return Err(NotAppended::NoMemory);
            }
        }
        let (log, core) = self.log_and_core(slot).ok_or(NotAppended::NoMemory)?;
        if rolls && log.roll(core) {
            mark_todo(log, core);
        }
        Ok(())
    }

    pub(super) fn append_one(
        &mut self,
        slot: LogSlot,
        batch: &[u8],
        pool: &mut Pool,
    ) -> Result<Appended, NotAppended> {
        self.gate(slot, batch.len(), pool).map_err(NotAppended::Refused)?;
        let head = BatchHead::of(batch).ok_or(NotAppended::Refused(Refused::CorruptMessage))?;
        let log = self.log(slot).ok_or(NotAppended::Refused(Refused::UnknownTopicOrPartition))?;
        match log.producers.check(&[sequenced(&head)]) {
            Err(refused) => return Err(NotAppended::Refused(refused)),
            Ok(Checked::Duplicate(before)) => {
                return Ok(Appended {
                    base_offset: before.base_offset,
                    next_offset: before.next_offset,
                    append_time_ms: before.append_time_ms,
                    duplicate: true,
                });
            }
            Ok(Checked::New) => {}
        }
        self.make_room(slot, batch.len(), pool)?;
        let (log, core) = self.log_and_core(slot).ok_or(NotAppended::NoMemory)?;
        let append_time_ms = log.config.log_append_time.then_some(core.wall_ms);
        let base_offset = log.log_end();
        let stamping = Stamping { base_offset, leader_epoch: log.leader_epoch, append_time_ms };
        stage(log, core, batch, &head, &stamping);
        Ok(Appended {
            base_offset,
            next_offset: base_offset.plus(head.count()),
            append_time_ms: append_time_ms.unwrap_or(-1),
            duplicate: false,
        })
    }

    /// Appends batches that carry their offsets and epochs.
    pub(super) fn append_given(
        &mut self,
        slot: LogSlot,
        mut batches: &[u8],
        pool: &mut Pool,
    ) -> Result<Offset, NotAppended> {
        while !batches.is_empty() {
            let head = BatchHead::of(batches).ok_or(NotAppended::Refused(Refused::CorruptMessage))?;
            let size = head.view.bytes as usize;
            let end = self.log(slot).map_or(Offset::ZERO, Log::log_end);
            if size > batches.len()
                || size < crate::base::limits::BATCH_HEADER_BYTES
                || head.view.base_offset != end
            {
                return Err(NotAppended::Refused(Refused::InvalidRequest));
            }
            self.gate(slot, size, pool).map_err(NotAppended::Refused)?;
            self.make_room(slot, size, pool)?;
            let (log, core) = self.log_and_core(slot).ok_or(NotAppended::NoMemory)?;
            let stamping =
                Stamping { base_offset: end, leader_epoch: head.leader_epoch, append_time_ms: None };
            log.follow_epoch(head.leader_epoch, end);
            stage(log, core, &batches[..size], &head, &stamping);
            batches = &batches[size..];
        }
        Ok(self.log(slot).map_or(Offset::ZERO, Log::log_end))
    }

    /// Fills `core.spare` up to `blocks`, from the pool or by eviction.
    pub(super) fn reserve(&mut self, blocks: usize, pool: &mut Pool) -> bool {
        while self.core.spare.len() < blocks {
            match self.take(pool) {
                Some(block) => self.core.spare.push(block),
                None => {
                    self.core.memory_short = true;
                    return false;
                }
            }
        }
        true
    }

    /// The planner's turn: what is staged and may be written goes out, as one round and, for levels that do not wait for a flush, beside it.
    pub(super) fn commit(&mut self, ops: &mut Ops) {
        if self.core.is_dead() || self.core.dirty.is_empty() {
            return;
        }
        let round = self.core.planner.free();
        let mut dirty = std::mem::take(&mut self.core.dirty);
        let Store { logs, core, .. } = self;
        dirty.retain(|index| {
            let Some(log) = logs[*index as usize].log.as_deref_mut() else { return false };
            log.is_dirty = consider(log, core, round, ops);
            log.is_dirty
        });
        assert!(core.dirty.is_empty(), "the planner makes no log dirty");
        core.dirty = dirty;
        if let Some(round) = round {
            self.submit_round(round, ops);
        }
    }

    fn submit_round(&mut self, round: usize, ops: &mut Ops) {
        if self.core.planner.round(round).members.is_empty() {
            return;
        }
        let sync = self.core.planner.begin(round);
        self.core.counters.commits_total += 1;
        let count = self.core.planner.round(round).members.len();
        let mut writes = 0;
        for index in 0..count {
            let member = self.core.planner.round(round).members[index];
            let Some(log) = self.logs[member.log as usize].log.as_deref_mut() else { continue };
            log.rounds += 1;
            if let Some(segment) = log.segment_mut(member.ordinal) {
                segment.rounds += 1;
            }
            writes += member.writes;
            if member.writes > 0 {
                submit(log, &mut self.core, Some((round, sync)), ops);
            }
        }
        if writes == 0 {
            self.flush_round(round, ops);
        }
    }

    /// All writes of the round have completed.
    fn flush_round(&mut self, round: usize, ops: &mut Ops) {
        let mut flushes = std::mem::take(&mut self.core.flushes);
        self.core.planner.begin_flush(round, &mut flushes);
        for flush in flushes.drain(..) {
            self.push_flush(round, flush, 0, ops);
        }
        self.core.flushes = flushes;
    }

    fn push_flush(&mut self, round: usize, flush: Flush, attempts: u32, ops: &mut Ops) {
        self.core.counters.flushes_total += 1;
        let tag = self.core.pending.insert(Pending::Flush { round, flush, attempts });
        ops.push((Op::Flush { file: flush.file }, tag));
    }

    pub(super) fn write_done(&mut self, write: Write, done: Done, ops: &mut Ops) {
        let Payload::Written(data) = done.payload else { return };
        if self.core.is_dead() {
            return;
        }
        let planted = self.core.is_planted(Planted::RetryAfterError);
        let rest = match done.result {
            Ok(bytes) if bytes >= write.len => {
                drop(data);
                return self.write_complete(write, ops);
            }
            Ok(bytes) => bytes as usize / ALIGN * ALIGN,
            Err(Errno::AGAIN | Errno::CANCELED) => 0,
            Err(INTR) if self.may_repeat(&write) => 0,
            Err(_) if planted => 0,
            Err(errno) => return self.die_of("a write", errno),
        };
        if write.attempts >= ATTEMPTS_MAX && !planted {
            return self.die_of("a write that makes no progress", Errno::IO);
        }
        // What a short write with RWF_DSYNC left behind is durable only once a flush has covered both parts.
        let data = data.sub(rest..data.len());
        let dsync = write.dsync && rest == 0 && done.result.is_err();
        let next = Write {
            offset: write.offset + rest as u64,
            len: data.len() as u32,
            dsync,
            attempts: write.attempts + 1,
            ..write
        };
        push_write(&mut self.core, next, data, ops);
    }

    /// Whether a write that was interrupted may be made again. With `RWF_DSYNC` its flush may be what failed, and have lost
    /// earlier writes to all later flushes: then only if there are none.
    fn may_repeat(&self, write: &Write) -> bool {
        let log = self.logs[write.log as usize].log.as_deref();
        !write.dsync || log.is_some_and(|log| log.ledger.first() == write.number)
    }

    fn write_complete(&mut self, write: Write, ops: &mut Ops) {
        let stamp = self.core.planner.completed();
        let Some(log) = self.logs[write.log as usize].log.as_deref_mut() else { return };
        if self.core.is_planted(Planted::DurableIsLastCompleted) {
            log.ledger.plant_last_completed(write.number);
        }
        log.ledger.completed(write.number, stamp);
        log.marks.written(write.number, self.core.now);
        if self.core.is_planted(Planted::AckBeforeFlush) {
            log.ledger.plant_written();
        }
        let Some(round) = write.round else {
            // The level was raised meanwhile: the flush that made up for it may have begun before this write was done, and rounds of one
            // write flush nothing else.
            log.flush_now |= log.config.durability == Durability::Durable;
            return progress(log, &mut self.core);
        };
        let last = self.core.planner.write_done(round);
        if write.dsync {
            self.core.counters.flushes_total += 1;
            log.ledger.flushed_itself(write.number);
            self.end_round(round);
        } else if last {
            self.flush_round(round, ops);
        }
        if let Some(log) = self.logs[write.log as usize].log.as_deref_mut() {
            progress(log, &mut self.core);
        }
    }

    pub(super) fn flush_done(
        &mut self,
        (round, flush, attempts): (usize, Flush, u32),
        done: &Done,
        ops: &mut Ops,
    ) {
        if self.core.is_dead() {
            return;
        }
        match done.result {
            Ok(_) => {}
            Err(_) if self.core.is_planted(Planted::RetryAfterError) => {
                return self.push_flush(round, flush, attempts, ops);
            }
            Err(Errno::AGAIN | Errno::CANCELED) if attempts < ATTEMPTS_MAX => {
                return self.push_flush(round, flush, attempts + 1, ops);
            }
            // Also EINTR: what a failed flush should have covered may be lost to all later ones.
            Err(errno) => return self.die_of("a flush", errno),
        }
        let seen = self.core.planner.round(round).seen;
        let covered = match flush.cover {
            Cover::Sharing => 0..self.core.planner.round(round).members.len(),
            Cover::Member(member) => member as usize..member as usize + 1,
        };
        for index in covered {
            let member = self.core.planner.round(round).members[index];
            if flush.cover == Cover::Sharing && !member.shared {
                continue;
            }
            let Some(log) = self.logs[member.log as usize].log.as_deref_mut() else { continue };
            log.ledger.flushed(member.ordinal, seen);
            if let (Cover::Member(_), Some(segment)) = (flush.cover, log.segment_mut(member.ordinal)) {
                segment.extents = segment.extents.flushed();
            }
            progress(log, &mut self.core);
        }
        if self.core.planner.flush_done(round) {
            self.end_round(round);
        }
    }

    fn end_round(&mut self, round: usize) {
        let members = std::mem::take(&mut self.core.planner.round(round).members);
        for member in &members {
            let Some(log) = self.logs[member.log as usize].log.as_deref_mut() else { continue };
            log.rounds -= 1;
            if let Some(segment) = log.segment_mut(member.ordinal) {
                segment.rounds -= 1;
                // It may have waited for this to be retired.
                if segment.sealed {
                    mark_todo(log, &mut self.core);
                }
            }
            let unflushed = !log.ledger.is_settled() && log.config.durability != Durability::Durable;
            if unflushed && !log.flush_now {
                lazily(log, &mut self.core, 0);
            }
            if log.flush_now {
                mark_dirty(log, &mut self.core);
            }
            if log.deleting || self.core.stopping {
                mark_todo(log, &mut self.core);
            }
        }
        self.core.planner.round(round).members = members;
        self.core.planner.end(round);
    }

    fn die_of(&mut self, what: &'static str, errno: Errno) {
        self.core.die_of(what, errno);
    }
}

/// Stages one batch and updates what follows from it.
fn stage(log: &mut Log, core: &mut Core, batch: &[u8], head: &BatchHead, stamping: &Stamping) {
    let writing = log.ledger.in_flight() > 0;
    let before = log.tail.blocks();
    let position = log.stage.push(&mut log.tail, batch, stamping, writing, &mut core.spare);
    for _ in before..log.tail.blocks() {
        core.began_block(log.slot.index);
    }
    let max_timestamp = stamping.append_time_ms.unwrap_or(head.max_timestamp);
    let next_offset = log.log_end();
    if let Some(segment) = log.segments.back_mut() {
        segment.index.add(stamping.base_offset, position, max_timestamp);
        segment.last_group = log.stage.last_group();
        segment.next_offset = next_offset;
    }
    if log.stage.is_full() {
        log.seal_group();
    }
    let sequenced = sequenced(head);
    let append_time_ms = stamping.append_time_ms.unwrap_or(-1);
    log.producers.advance(&sequenced, stamping.base_offset, append_time_ms, core.wall_ms);
    log.appended = true;
    log.used = core.now;
    if log.config.durability != Durability::Durable {
        lazily(log, core, batch.len() as u64);
    }
    mark_dirty(log, core);
    progress(log, core);
}

/// What the batch says about its producer.
fn sequenced(head: &BatchHead) -> Sequenced {
    Sequenced {
        producer: Sequenced::producer_of(head.producer),
        epoch: head.producer_epoch,
        first: head.base_sequence,
        last_delta: (head.count() - 1) as i32,
        control: head.attributes & CONTROL != 0,
    }
}

/// Notes bytes that are not flushed at once, and when they are.
fn lazily(log: &mut Log, core: &mut Core, bytes: u64) {
    log.unflushed_bytes += bytes;
    if log.unflushed_bytes >= log.config.flush_bytes {
        log.flush_now = true;
    } else if log.flush_at.is_none() {
        let at = core.now.plus_ms(log.config.flush_ms);
        log.flush_at = Some(at);
        core.timers.push(std::cmp::Reverse((at, log.slot.index)));
    }
    if !log.is_lazy {
        log.is_lazy = true;
        core.lazy.push(log.slot.index);
    }
}

/// Looks at one dirty log. True: look again next turn, because no round was free.
fn consider(log: &mut Log, core: &mut Core, round: Option<usize>, ops: &mut Ops) -> bool {
    if log.deleting {
        return false;
    }
    let Some(staged) = log.staged() else { return false };
    let waits = log.config.durability == Durability::Durable || log.flush_now;
    match verdict(&staged) {
        Verdict::Go if waits => {
            let Some(round) = round else { return true };
            join(log, core, round, true);
        }
        Verdict::Go => submit(log, core, None, ops),
        Verdict::Zeros => {
            core.counters.zero_ahead_waits_total += 1;
            mark_todo(log, core);
        }
        Verdict::File => mark_todo(log, core),
        Verdict::Nothing if log.flush_now && log.ledger.in_flight() == 0 && log.rounds == 0 => {
            if log.ledger.is_settled() {
                log.flush_now = false;
                return false;
            }
            let Some(round) = round else { return true };
            join(log, core, round, false);
        }
        Verdict::Nothing | Verdict::Barrier | Verdict::InFlight | Verdict::Deadline => {}
    }
    false
}

/// Makes the log a member of the round that is being filled.
fn join(log: &mut Log, core: &mut Core, round: usize, writes: bool) {
    let Some(front) = log.stage.stretches.front().copied() else { return };
    let ordinal = log.ledger.first_ordinal().filter(|_| !writes).unwrap_or(front.ordinal);
    let Some(file) = log.segment(ordinal).and_then(|s| s.handle.file()) else { return };
    let from = front.from / ALIGN as u64 * ALIGN as u64;
    let writes = if writes { crate::log::tail::Tail::write_count(from, front.end) } else { 0 };
    let may_share = core.config.shared_flush && core.config.caps.shared_flush;
    let shared = may_share && log.segment(ordinal).is_some_and(|s| s.extents == Extents::Settled);
    let member = Member { log: log.slot.index, ordinal, file, writes, shared, behind: log.flush_now };
    core.planner.round(round).members.push(member);
    log.flush_now = false;
    log.flush_at = None;
    log.unflushed_bytes = 0;
}

/// Submits the first stretch to its end.
fn submit(log: &mut Log, core: &mut Core, round: Option<(usize, Sync)>, ops: &mut Ops) {
    let Some(front) = log.stage.stretches.front().copied() else { return };
    let Some(file) = log.segment(front.ordinal).and_then(|s| s.handle.file()) else { return };
    if log.stage.stretches.len() == 1 {
        log.seal_group();
    }
    assert!(
        log.ledger.in_flight() == 0 || front.from.is_multiple_of(ALIGN as u64),
        "one write per 4 KiB block"
    );
    let from = Place { ordinal: front.ordinal, position: front.from / ALIGN as u64 * ALIGN as u64 };
    let mut slices = std::mem::take(&mut core.slices);
    log.tail.write_slices(from, front.end, |at, stop, slice| slices.push((at, stop, slice)));
    let mut reach = log.ledger.last();
    if reach.place.ordinal != front.ordinal || reach.place.position == 0 {
        reach.place = Place { ordinal: front.ordinal, position: SEGMENT_HEADER_BYTES as u64 };
    }
    for (offset, stop, data) in slices.drain(..) {
        let place = Place { ordinal: front.ordinal, position: stop };
        if let Some(group) = log.tail.group_before(place).filter(|g| g.end > reach.place.position) {
            reach.place.position = group.end;
            reach.next_offset = group.next;
        }
        let number = log.ledger.submitted(reach);
        log.marks.submitted(number, reach.next_offset, core.now);
        let (round, dsync) = match round {
            Some((round, sync)) => (Some(round), sync == Sync::Dsync),
            None => (None, false),
        };
        let write = Write {
            log: log.slot.index,
            number,
            file,
            offset,
            len: data.len() as u32,
            round,
            dsync,
            attempts: 0,
        };
        core.counters.commit_bytes_total += data.len() as u64;
        push_write(core, write, data, ops);
    }
    core.slices = slices;
    log.stage.submitted();
    mark_todo_if_near(log, core);
}

fn push_write(core: &mut Core, write: Write, data: crate::io::buffer::BlockSlice, ops: &mut Ops) {
    let sync = if write.dsync { WriteSync::Dsync } else { WriteSync::No };
    let tag = core.pending.insert(Pending::Write(write));
    ops.push((Op::Write { file: write.file, offset: write.offset, data, sync }, tag));
}

/// Asks for background work where the end of the zeroed range, or of the segment, comes near.
fn mark_todo_if_near(log: &mut Log, core: &mut Core) {
    let Some(active) = log.stage.active() else { return };
    let Some(segment) = log.segment(active.ordinal) else { return };
    let zeros = log.window.is_due(active.end, segment.zeroed) && !log.extending;
    let next = log.wants_next();
    if zeros || next {
        mark_todo(log, core);
    }
}

/// Moves the high watermark to what the log's level has reached, and lets the next segment begin where its predecessor is flushed.
pub(super) fn progress(log: &mut Log, core: &mut Core) {
    if core.is_dead() {
        return;
    }
    let reached = log.reached();
    if reached > log.high_watermark {
        log.high_watermark = reached;
        core.event_high_watermark(log.slot);
    }
    if let [front, _next, ..] = log.stage.stretches.make_contiguous()
        && front.bytes() == 0
    {
        if log.ledger.first_ordinal().is_none_or(|first| first > front.ordinal) {
            let ordinal = front.ordinal;
            log.stage.stretches.pop_front();
            if let Some(segment) = log.segment_mut(ordinal) {
                segment.sealed = true;
            }
            mark_todo(log, core);
        } else {
            // The roll barrier waits for this flush, whatever the level.
            log.flush_now = true;
        }
    }
    if log.may_raise_log_start() && !log.state.running {
        log.state.wanted = true;
        mark_todo(log, core);
    }
    if log.ledger.is_settled() {
        log.settled(core);
    } else if core.stopping {
        log.flush_now = true;
    }
    if log.stage.bytes() > 0 || log.flush_now {
        mark_dirty(log, core);
    }
}
