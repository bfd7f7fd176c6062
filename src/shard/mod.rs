//! L8, what one core owns: the logs of its partitions, the requests that wait on them, and the memory they share.
//!
//! Lives on one core. Plain synchronous code: [`Shard::handle`] takes a [`Message`], [`Shard::done`] a completion, [`Shard::turn`]
//! the time; out come replies and operations. It runs no loop, knows no sockets and no bytes of the Kafka protocol but
//! the record batches it owns.
//!
//! # Non-obvious
//! - A reply may be ready within `handle`, or many turns later; the caller collects both by [`Shard::take_replies`].
//! - Acks wait on the high watermark of their log, never on a write: see `log/commit.rs` for when it moves.
//! - A produce that finds no memory is not refused: what is left of it waits, and every later one behind it (`kept.rs`).
//! - A request whose connection is gone stays parked until it would have been answered; `Message::Forget` drops it early.

mod delete_records;
mod fetch;
mod kept;
mod list_offsets;
mod parked;
mod produce;
pub mod rules;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use slab::Slab;

use crate::base::error::{Fatal, Refused};
use crate::base::ids::{LeaderEpoch, PartitionKey, ShardId, Uuid};
use crate::base::metrics::{Counters, Stamps};
use crate::base::offset::Offset;
use crate::io::buffer::{Block, Pool};
use crate::io::clock::Clock;
use crate::io::{Done, Errno, Mono, Op, Payload, Token};
use crate::log::store::{Bounds, Event, LogSlot, Ops, Source, Store, StoreConfig, Tag};
use crate::router::message::{Message, PartitionRules, Reply, ReplyBody, Ticket};

use kept::Kept;
use parked::{Parked, ParkedId, Waiters};
use produce::Wait;

/// Token kinds of the shard's operations.
pub const TOKEN_STORE: u8 = 1;
pub const TOKEN_READ: u8 = 2;

/// What a call may use of the world: the shard's memory and the time. `now` is that of the turn, `clock` goes on.
pub struct Cx<'a> {
    pub pool: &'a mut Pool,
    pub now: Mono,
    pub clock: Clock,
    pub wall_ms: i64,
}

/// A partition that lives here.
struct Partition {
    slot: LogSlot,
    rules: PartitionRules,
}

/// Reads of one cold fetch in flight: block `i` stands at its place when its read is done.
struct ReadJob {
    request: ParkedId,
    part: usize,
    blocks: Vec<Option<Block>>,
    pending: usize,
    failed: Option<Errno>,
    generation: u32,
}

pub struct Shard {
    id: ShardId,
    store: Store,
    partitions: BTreeMap<PartitionKey, Partition>,
    /// By index of the log's slot.
    waiters: Vec<Waiters>,
    parked: Slab<Parked>,
    parked_serial: u64,
    deadlines: BinaryHeap<Reverse<(Mono, ParkedId)>>,
    reads: Slab<ReadJob>,
    read_generation: u32,
    /// Requests that found no memory: tried again at the next turn.
    starved: VecDeque<ParkedId>,
    /// Produce that found no memory, in the order of arrival. Later ones wait behind it.
    kept: VecDeque<Kept>,
    replies: Vec<Reply>,
    /// Polls of other shards that began to wait for news.
    polls: Vec<Ticket>,
    /// Of the produce request at hand.
    waits: Vec<Wait>,
    /// Fetches to look at behind the events at hand.
    woken: Vec<ParkedId>,
    ops: Vec<(Op, Token)>,
    store_ops: Ops,
    events: Vec<Event>,
    /// What happened to logs that whoever runs the shard must know.
    notices: Vec<Notice>,
    dead: Option<String>,
    counters: Counters,
}

/// News for the broker around the shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    Deleted(PartitionKey),
    /// A write or flush failed, here or on another shard: produce is refused until a restart.
    Dead(String),
    /// Reads of this partition end at damage on disk.
    Corrupt(PartitionKey, String),
    /// Everything is flushed: the process may end.
    Stopped,
}

impl Shard {
    pub fn new(id: ShardId, config: StoreConfig) -> Shard {
        Shard {
            id,
            store: Store::new(StoreConfig { fate: config.fate.of(id), ..config }),
            partitions: BTreeMap::new(),
            waiters: Vec::new(),
            parked: Slab::new(),
            parked_serial: 0,
            deadlines: BinaryHeap::new(),
            reads: Slab::new(),
            read_generation: 0,
            starved: VecDeque::new(),
            kept: VecDeque::new(),
            replies: Vec::new(),
            polls: Vec::new(),
            waits: Vec::new(),
            woken: Vec::new(),
            ops: Vec::new(),
            store_ops: Vec::new(),
            events: Vec::new(),
            notices: Vec::new(),
            dead: None,
            counters: Counters::default(),
        }
    }

    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Looks at the retention of all logs this often from now on.
    pub fn set_retention_check_ms(&mut self, ms: u64) {
        self.store.set_retention_check_ms(ms);
    }

    /// Recovers a partition from its directory. Blocks; for start-up.
    pub fn open(
        &mut self,
        source: &mut dyn Source,
        key: PartitionKey,
        rules: PartitionRules,
    ) -> Result<(), Fatal> {
        let slot = self.store.open(source, key, rules.log.clone())?;
        self.adopt(key, slot, rules);
        Ok(())
    }

    /// A new, empty partition. Its files appear at the first append.
    pub fn create(&mut self, key: PartitionKey, rules: PartitionRules) {
        if self.partitions.contains_key(&key) {
            return;
        }
        let slot = self.store.create(key, rules.log.clone());
        self.adopt(key, slot, rules);
    }

    fn adopt(&mut self, key: PartitionKey, slot: LogSlot, rules: PartitionRules) {
        let index = slot.index as usize;
        if self.waiters.len() <= index {
            self.waiters.resize_with(index + 1, Waiters::default);
        }
        self.waiters[index] = Waiters { key: Some(key), ..Waiters::default() };
        self.partitions.insert(key, Partition { slot, rules });
    }

    /// The topic is gone: what waits on the partition is refused, its files are removed behind.
    pub fn delete(&mut self, key: PartitionKey, cx: &mut Cx<'_>) {
        let Some(partition) = self.partitions.remove(&key) else { return };
        self.store.delete(partition.slot);
        let waiters = std::mem::take(&mut self.waiters[partition.slot.index as usize]);
        self.fail_waiters(waiters, Refused::UnknownTopicOrPartition, cx);
        self.look_at_woken(cx);
    }

    /// A changed topic configuration.
    pub fn set_rules(&mut self, key: PartitionKey, rules: PartitionRules) {
        if let Some(partition) = self.partitions.get_mut(&key) {
            self.store.set_config(partition.slot, rules.log.clone());
            partition.rules = rules;
        }
    }

    pub fn handle(&mut self, message: Message<'_>, cx: &mut Cx<'_>) {
        self.counters.requests_total += 1;
        match message {
            Message::Produce(produce) => self.produce(produce, cx),
            Message::Fetch(fetch) => self.fetch(fetch, cx),
            Message::ListOffsets(list) => self.list_offsets(list, cx),
            Message::EpochEnds(ends) => self.epoch_ends(ends),
            Message::DeleteRecords(delete) => self.delete_records(delete, cx),
            Message::Forget { shard, conn, generation } => self.forget(shard, conn, generation),
            Message::Hurry { shard, conn, generation } => {
                let of_conn = |t: Ticket| (t.shard, t.conn, t.generation) == (shard, conn, generation);
                self.drain_polls(|parked| of_conn(parked.ticket()), cx);
            }
        }
    }

    /// Takes a completion whose token kind is the shard's.
    pub fn done(&mut self, done: Done, cx: &mut Cx<'_>) {
        match done.token.kind() {
            TOKEN_STORE => {
                let tag = Tag(done.token.slot());
                self.store.done(tag, done, cx.now, &mut self.store_ops);
                self.wrap_store_ops();
            }
            TOKEN_READ => self.read_done(done, cx),
            other => debug_assert!(false, "token kind {other} is not the shard's"),
        }
    }

    /// Once per turn, behind all completions and messages: events, deadlines, starved requests, the commit planner.
    pub fn turn(&mut self, cx: &mut Cx<'_>) {
        self.take_events(cx);
        self.expire(cx);
        for _ in 0..self.starved.len() {
            let Some(id) = self.starved.pop_front() else { break };
            self.retry_starved(id, cx);
        }
        self.append_kept(cx);
        self.store.turn(cx.now, cx.wall_ms, cx.pool, &mut self.store_ops);
        self.wrap_store_ops();
        self.take_events(cx);
    }

    /// When `turn` has something to do by itself.
    pub fn next_deadline(&self) -> Option<Mono> {
        let parked = self.deadlines.peek().map(|Reverse((at, _))| *at);
        [parked, self.store.next_deadline()].into_iter().flatten().min()
    }

    /// True if requests wait for memory: the pool should grow, and the next turn must come soon.
    pub fn is_starved(&self) -> bool {
        !self.starved.is_empty() || !self.kept.is_empty()
    }

    pub fn take_ops(&mut self) -> std::vec::Drain<'_, (Op, Token)> {
        self.ops.drain(..)
    }

    pub fn take_replies(&mut self) -> std::vec::Drain<'_, Reply> {
        self.replies.drain(..)
    }

    /// Polls of other shards that began to wait for news, each once. To be taken ahead of the replies.
    pub fn take_polls(&mut self) -> std::vec::Drain<'_, Ticket> {
        self.polls.drain(..)
    }

    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Random uuids that the store wants to have at hand.
    pub fn uuids_wanted(&self) -> usize {
        self.store.uuids_wanted()
    }

    pub fn add_uuids(&mut self, uuids: impl Iterator<Item = Uuid>) {
        self.store.add_uuids(uuids);
    }

    /// Something that was appended cannot be written until there is space on the disk.
    pub fn waits_for_space(&self) -> bool {
        self.store.waits_for_space()
    }

    /// Something else than a log failed to write to the directory: no ack leaves any more, of no shard.
    pub fn end_acks(&mut self, why: String) {
        self.store.die(why);
    }

    /// True if that is too little: appends are refused.
    pub fn set_disk_free(&mut self, bytes: u64) -> bool {
        self.store.set_disk_free(bytes)
    }

    /// Answers every long poll with what there is: the broker is about to stop.
    pub fn begin_drain(&mut self, cx: &mut Cx<'_>) {
        self.drain_polls(|_| true, cx);
    }

    fn drain_polls(&mut self, which: impl Fn(&Parked) -> bool, cx: &mut Cx<'_>) {
        let fetches: Vec<ParkedId> = self
            .parked
            .iter()
            .filter(|(_, parked)| parked.is_long_poll() && which(parked))
            .map(|(index, parked)| ParkedId { index, serial: parked.serial() })
            .collect();
        for id in fetches {
            self.drain_fetch(id, cx);
        }
    }

    /// Flushes everything and leaves clean-stop records; ends with [`Notice::Stopped`].
    pub fn begin_stop(&mut self) {
        self.store.begin_stop();
    }

    /// A block for other writes of this shard's thread: free, or evicted from the tail cache.
    pub fn take_block(&mut self, cx: &mut Cx<'_>) -> Option<Block> {
        self.store.take_block(cx.pool)
    }

    /// Staging memory for `bytes` more: without it the server leaves the request in the socket.
    pub fn room_for(&mut self, bytes: usize, cx: &mut Cx<'_>) -> bool {
        self.kept.is_empty() && self.store.room_for(cx.pool, bytes, 1)
    }

    pub fn bounds(&self, key: &PartitionKey) -> Option<Bounds> {
        self.partitions.get(key).map(|p| self.store.bounds(p.slot))
    }

    /// What lives here.
    pub fn keys(&self) -> impl Iterator<Item = &PartitionKey> {
        self.partitions.keys()
    }

    pub fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// Counters of the shard and of its store together.
    pub fn counters(&self) -> Counters {
        let store = self.store.counters();
        Counters {
            commits_total: store.commits_total,
            flushes_total: store.flushes_total,
            commit_bytes_total: store.commit_bytes_total,
            segments_made_total: store.segments_made_total,
            segments_recycled_total: store.segments_recycled_total,
            zeroed_bytes_total: store.zeroed_bytes_total,
            zero_ahead_waits_total: store.zero_ahead_waits_total,
            tail_hit_bytes_total: store.tail_hit_bytes_total,
            tail_miss_bytes_total: store.tail_miss_bytes_total,
            ..self.counters
        }
    }

    /// The log of a partition, after the epoch check of KIP-320: a negative `asked` skips it.
    fn current(&self, key: &PartitionKey, asked: LeaderEpoch) -> Result<(LogSlot, Bounds), Refused> {
        let partition = self.partitions.get(key).ok_or(Refused::UnknownTopicOrPartition)?;
        let bounds = self.store.bounds(partition.slot);
        if asked >= LeaderEpoch(0) {
            match asked.cmp(&bounds.leader_epoch) {
                std::cmp::Ordering::Less => return Err(Refused::FencedLeaderEpoch),
                std::cmp::Ordering::Greater => return Err(Refused::UnknownLeaderEpoch),
                std::cmp::Ordering::Equal => {}
            }
        }
        Ok((partition.slot, bounds))
    }

    fn reply(&mut self, ticket: Ticket, body: ReplyBody) {
        self.reply_stamped(ticket, body, Stamps::default());
    }

    fn reply_stamped(&mut self, ticket: Ticket, body: ReplyBody, stamps: Stamps) {
        self.replies.push(Reply { ticket, body, stamps });
    }

    fn wrap_store_ops(&mut self) {
        self.ops.extend(self.store_ops.drain(..).map(|(op, Tag(tag))| (op, Token::new(TOKEN_STORE, 0, tag))));
    }

    fn take_events(&mut self, cx: &mut Cx<'_>) {
        let mut events = std::mem::take(&mut self.events);
        self.store.events(&mut events);
        for event in events.drain(..) {
            match event {
                Event::HighWatermark(slot) => self.advance(slot, cx.now),
                Event::Opened(slot) => self.opened(slot, cx),
                Event::LogStart(slot) => self.log_start_moved(slot),
                Event::Deleted(key) => self.notices.push(Notice::Deleted(key)),
                Event::Corrupt(slot, corrupt) => {
                    if let Some(key) = self.waiters.get(slot.index as usize).and_then(|w| w.key) {
                        self.notices.push(Notice::Corrupt(key, corrupt.to_string()));
                    }
                }
                Event::NoSpace(slot) => self.refuse_acks(slot),
                Event::Dead(why) => self.die(why, cx),
                Event::Stopped => self.notices.push(Notice::Stopped),
            }
        }
        self.events = events;
        self.look_at_woken(cx);
    }

    /// The high watermark of a log moved: acks leave, fetches will look again.
    fn advance(&mut self, slot: LogSlot, now: Mono) {
        self.ack_through(slot, now);
        let index = slot.index as usize;
        let mut listed = std::mem::take(&mut self.waiters[index].fetches);
        self.wake_listed(&mut listed);
        // Its memory serves the next ones.
        self.waiters[index].fetches = listed;
    }

    /// A file is open that reads of this log wait for.
    fn opened(&mut self, slot: LogSlot, cx: &mut Cx<'_>) {
        let waiters = &mut self.waiters[slot.index as usize];
        let (mut fetches, searches) =
            (std::mem::take(&mut waiters.fetches), std::mem::take(&mut waiters.searches));
        self.wake_listed(&mut fetches);
        for id in searches {
            self.scan_on(id, cx);
        }
    }

    /// A write or flush failed: what waits for an ack fails, what reads goes on.
    fn die(&mut self, why: String, cx: &mut Cx<'_>) {
        for index in 0..self.waiters.len() {
            let waiters = &mut self.waiters[index];
            let failed = Waiters {
                acks: std::mem::take(&mut waiters.acks),
                log_starts: std::mem::take(&mut waiters.log_starts),
                ..Waiters::default()
            };
            self.fail_waiters(failed, Refused::KafkaStorageError, cx);
        }
        if self.dead.is_none() {
            self.notices.push(Notice::Dead(why.clone()));
        }
        self.dead = Some(why);
    }

    /// Nobody knows when these appends reach the disk: their producers may ask again instead of waiting.
    fn refuse_acks(&mut self, slot: LogSlot) {
        for ack in std::mem::take(&mut self.waiters[slot.index as usize].acks) {
            self.settle_ack(ack.id, ack.part, Some(Refused::KafkaStorageError));
        }
    }

    fn fail_waiters(&mut self, mut waiters: Waiters, error: Refused, cx: &mut Cx<'_>) {
        for ack in waiters.acks {
            self.settle_ack(ack.id, ack.part, Some(error));
        }
        for waiter in waiters.log_starts {
            self.settle_delete(waiter.id, waiter.part, Err(error));
        }
        self.wake_listed(&mut waiters.fetches);
        for id in waiters.searches {
            self.scan_on(id, cx);
        }
    }

    fn expire(&mut self, cx: &mut Cx<'_>) {
        while let Some(Reverse((at, id))) = self.deadlines.peek().copied() {
            if at > cx.now {
                return;
            }
            self.deadlines.pop();
            match self.parked_mut(id) {
                None => {}
                Some(Parked::Produce(_)) => self.time_out_produce(id),
                Some(Parked::Fetch(_)) => self.time_out_fetch(id, cx),
                Some(Parked::DeleteRecords(_)) => self.time_out_delete(id),
                Some(Parked::ListOffsets(_)) => {}
            }
        }
    }

    fn retry_starved(&mut self, id: ParkedId, cx: &mut Cx<'_>) {
        match self.parked_mut(id) {
            Some(Parked::Fetch(state)) => {
                state.starved = false;
                self.wake_fetch(id, cx);
            }
            Some(Parked::ListOffsets(_)) => self.scan_on(id, cx),
            _ => {}
        }
    }

    /// Starts the reads of a cold plan; false without memory for a single one. Fewer blocks than planned shorten the read.
    fn start_reads(
        &mut self,
        read: &mut crate::log::store::ColdRead,
        id: ParkedId,
        part: usize,
        cx: &mut Cx<'_>,
    ) -> bool {
        let mut blocks = Vec::with_capacity(read.lens.len());
        while blocks.len() < read.lens.len() {
            match self.store.take_block(cx.pool) {
                Some(block) => blocks.push(block),
                None => break,
            }
        }
        if blocks.is_empty() {
            return false;
        }
        read.lens.truncate(blocks.len());
        self.read_generation = self.read_generation.wrapping_add(1);
        let generation = self.read_generation & 0xff_ffff;
        let job = self.reads.insert(ReadJob {
            request: id,
            part,
            blocks: blocks.iter().map(|_| None).collect(),
            pending: blocks.len(),
            failed: None,
            generation,
        });
        assert!(blocks.len() <= READS_PER_JOB_MAX && job < JOBS_MAX, "read token");
        let mut offset = read.position;
        for (i, into) in blocks.into_iter().enumerate() {
            let len = read.lens[i];
            let token = Token::new(TOKEN_READ, generation, (job * READS_PER_JOB_MAX + i) as u32);
            self.ops.push((Op::Read { file: read.file, offset, into, at: 0, len }, token));
            offset += u64::from(len);
        }
        true
    }

    fn read_done(&mut self, done: Done, cx: &mut Cx<'_>) {
        let (job, at) =
            (done.token.slot() as usize / READS_PER_JOB_MAX, done.token.slot() as usize % READS_PER_JOB_MAX);
        let Some(read) = self.reads.get_mut(job).filter(|r| r.generation == done.token.generation()) else {
            return;
        };
        if let Payload::Read(mut block) = done.payload {
            block.set_filled(done.result.unwrap_or(0) as usize);
            read.blocks[at] = Some(block);
        }
        if let Err(errno) = done.result {
            read.failed = Some(errno);
        }
        read.pending -= 1;
        if read.pending > 0 {
            return;
        }
        let read = self.reads.remove(job);
        let blocks = match read.failed {
            Some(errno) => Err(errno),
            None => Ok(read.blocks.into_iter().flatten().collect()),
        };
        match self.parked_mut(read.request) {
            Some(Parked::Fetch(_)) => self.fetch_read_done(read.request, read.part, blocks, cx),
            Some(Parked::ListOffsets(_)) => self.scan_read_done(read.request, blocks, cx),
            _ => {}
        }
    }

    /// Where a fetch or a search may read up to.
    fn until(bounds: &Bounds, read_committed: bool) -> Offset {
        if read_committed { bounds.last_stable.get() } else { bounds.high_watermark.get() }
    }
}

/// Blocks of one cold read: a fetch of more than 16 MiB from one partition goes out in several.
const READS_PER_JOB_MAX: usize = 64;
const JOBS_MAX: usize = u32::MAX as usize / READS_PER_JOB_MAX;
