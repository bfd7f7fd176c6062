//! A shard on the simulator's disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::error::Refused;
use crate::base::few::Few;
use crate::base::ids::{LeaderEpoch, PartitionIndex, PartitionKey, ShardId, Uuid};
use crate::base::offset::Offset;
use crate::io::clock::Clock;
use crate::io::sim::{DiskConfig, Faults, World};
use crate::io::{Done, Io, Op, Token, Wait};
use crate::log::fate::Fate;
use crate::log::store::{Durability, LogConfig, StoreConfig};
use crate::router::message::{
    DeleteRecords, DeleteRecordsOutcome, DeleteRecordsPart, Fetch, FetchOutcome, FetchPart, ListOffsets,
    ListOffsetsPart, Message, OffsetOutcome, PartitionRules, Produce, ProduceOutcome, ProducePart, ReplyBody,
    Ticket,
};
use crate::shard::{Cx, Notice, Shard};
use crate::wire::batch::build::{BatchBuilder, NewRecord};
use crate::wire::codec::Codec;

pub const DATA: &str = "/data";

pub struct Rig {
    pub world: World,
    io: Io,
    pub shard: Shard,
    pub replies: BTreeMap<u64, ReplyBody>,
    pub notices: Vec<Notice>,
    next: u64,
    dones: Vec<Done>,
    /// Operations that are not handed to the disk.
    pub held: Vec<(Op, Token)>,
    pub hold: fn(&Op) -> bool,
}

pub fn key(partition: i32) -> PartitionKey {
    PartitionKey { topic: Uuid([7; 16]), partition: PartitionIndex(partition) }
}

pub fn rules(durability: Durability) -> PartitionRules {
    PartitionRules {
        log: LogConfig {
            durability,
            flush_ms: 3_600_000,
            flush_bytes: 1 << 30,
            segment_bytes: 1 << 20,
            segment_ms: 7 * 24 * 3_600_000,
            retention_ms: -1,
            retention_bytes: -1,
            delete: true,
            index_interval_bytes: 4096,
            producer_id_expiration_ms: 86_400_000,
            log_append_time: false,
        },
        max_message_bytes: 1 << 20,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        compact: false,
        deep: false,
        compression: None,
    }
}

pub fn batch(value_bytes: usize) -> Vec<u8> {
    batch_at(1, value_bytes)
}

pub fn batch_at(timestamp: i64, value_bytes: usize) -> Vec<u8> {
    finish(BatchBuilder::new(Codec::None), timestamp, value_bytes)
}

/// One record of an idempotent producer.
pub fn sequenced(sequence: i32) -> Vec<u8> {
    finish(BatchBuilder::new(Codec::None).producer(5, 0, sequence), 1, 100)
}

fn finish(mut builder: BatchBuilder, timestamp: i64, value_bytes: usize) -> Vec<u8> {
    let value = vec![b'v'; value_bytes];
    builder.push(&NewRecord { timestamp, key: None, value: Some(&value), headers: &[] });
    let mut out = Vec::new();
    builder.finish(&mut out).expect("a batch");
    out
}

pub fn part(partition: i32, from: i64) -> FetchPart {
    FetchPart {
        key: key(partition),
        from: Offset(from),
        bytes_max: 1 << 20,
        current_epoch: LeaderEpoch::NONE,
        last_fetched_epoch: LeaderEpoch::NONE,
    }
}

/// A long poll of up to a minute.
pub fn poll(parts: impl IntoIterator<Item = FetchPart>) -> Fetch {
    Fetch {
        ticket: ticket(0),
        max_wait_ms: 60_000,
        min_bytes: 1,
        max_bytes: 1 << 20,
        read_committed: false,
        at_once: false,
        parts: parts.into_iter().collect(),
    }
}

fn ticket(sequence: u64) -> Ticket {
    Ticket { shard: ShardId(0), conn: 1, generation: 1, sequence }
}

impl Rig {
    /// A shard with partitions 0 and 1.
    pub fn new(durability: Durability) -> Rig {
        Rig::with_tail_cache(durability, 16 << 20)
    }

    pub fn with_tail_cache(durability: Durability, tail_cache_bytes: usize) -> Rig {
        let mut rig = Rig::bare(tail_cache_bytes);
        while rig.io.grow_pool() {}
        rig.shard.create(key(0), rules(durability));
        rig.shard.create(key(1), rules(durability));
        rig
    }

    /// So many partitions, and one slice of the memory that they may have, as at the start of a broker.
    pub fn fresh(partitions: i32) -> Rig {
        let mut rig = Rig::bare(16 << 20);
        assert!(rig.io.grow_pool());
        (0..partitions).for_each(|at| rig.shard.create(key(at), rules(Durability::Durable)));
        rig
    }

    fn bare(tail_cache_bytes: usize) -> Rig {
        let world = World::new(11, Faults::none());
        world.add_disk(DATA, DiskConfig::default());
        let process = world.start_process();
        let mut io = Io::Sim(Box::new(world.io(process, 32 << 20)));
        let store = StoreConfig {
            data_dir: PathBuf::from(DATA),
            directory: Uuid([9; 16]),
            caps: io.storage_caps(Path::new(DATA)).expect("a disk"),
            shared_flush: true,
            free_bytes_min: 0,
            tail_cache_bytes,
            fate: Fate::default(),
            planted: None,
        };
        let shard = Shard::new(ShardId(0), store);
        let (replies, notices, dones, held) = Default::default();
        let mut rig = Rig { world, io, shard, replies, notices, next: 0, dones, held, hold: |_| false };
        rig.collect();
        rig
    }

    pub fn with_cx<T>(&mut self, act: impl FnOnce(&mut Shard, &mut Cx<'_>) -> T) -> T {
        let (now, wall_ms) = (self.io.now(), self.io.wall_ms());
        let clock = Clock::Still(now);
        let result = act(&mut self.shard, &mut Cx { pool: self.io.pool(), now, clock, wall_ms });
        self.collect();
        result
    }

    fn collect(&mut self) {
        for reply in self.shard.take_replies() {
            let twice = self.replies.insert(reply.ticket.sequence, reply.body);
            assert!(twice.is_none(), "a ticket was answered twice");
        }
        self.notices.extend(self.shard.take_notices());
        for (op, token) in self.shard.take_ops() {
            match (self.hold)(&op) {
                true => self.held.push((op, token)),
                false => self.io.push(op, token),
            }
        }
        while self.shard.uuids_wanted() > 0 {
            let mut bytes = [0; 16];
            self.io.random(&mut bytes);
            self.shard.add_uuids(std::iter::once(Uuid::from_random(bytes)));
        }
    }

    /// Hands over what was held, and holds nothing more.
    pub fn release(&mut self) {
        self.hold = |_| false;
        for (op, token) in self.held.drain(..) {
            self.io.push(op, token);
        }
    }

    /// Hands over what was held from `at` on, and goes on as before with what comes.
    pub fn release_from(&mut self, at: usize) {
        for (op, token) in self.held.drain(at..) {
            self.io.push(op, token);
        }
    }

    pub fn wall_ms(&self) -> i64 {
        self.io.wall_ms()
    }

    /// Turns for so long.
    pub fn run(&mut self, ms: u64) {
        let end = self.io.now().plus_ms(ms);
        // What was handed in belongs to this turn.
        self.with_cx(|shard, cx| shard.turn(cx));
        while self.io.now() < end {
            let mut until = self.shard.next_deadline().map_or(end, |at| at.min(end));
            if self.shard.is_starved() {
                self.io.grow_pool();
                until = until.min(self.io.now().plus_ms(1));
            }
            let mut dones = std::mem::take(&mut self.dones);
            self.io.turn(Wait::Until(until), &mut dones);
            for done in dones.drain(..) {
                self.with_cx(|shard, cx| shard.done(done, cx));
            }
            self.dones = dones;
            self.with_cx(|shard, cx| shard.turn(cx));
        }
    }

    /// Hands in what completes next. Then acks end, of all shards, and then comes the turn.
    pub fn end_acks_behind_completions(&mut self) {
        let mut dones = Vec::new();
        while dones.is_empty() {
            self.io.turn(Wait::Until(self.io.now().plus_ms(1)), &mut dones);
        }
        for done in dones.drain(..) {
            self.with_cx(|shard, cx| shard.done(done, cx));
        }
        self.with_cx(|shard, cx| {
            shard.end_acks("another saw it".to_string());
            shard.turn(cx);
        });
    }

    /// Produces to each of these partitions; returns the ticket's sequence.
    pub fn produce(&mut self, acks: i16, parts: &[(i32, &[u8])]) -> u64 {
        self.next += 1;
        let parts = parts.iter().map(|(partition, records)| ProducePart { key: key(*partition), records });
        let produce = Produce {
            ticket: ticket(self.next),
            version: 9,
            acks,
            timeout_ms: 1_000,
            parts: parts.collect(),
        };
        self.with_cx(|shard, cx| shard.handle(Message::Produce(produce), cx));
        self.next
    }

    pub fn fetch(&mut self, fetch: Fetch) -> u64 {
        self.next += 1;
        let fetch = Fetch { ticket: ticket(self.next), ..fetch };
        self.with_cx(|shard, cx| shard.handle(Message::Fetch(fetch), cx));
        self.next
    }

    pub fn delete_records(&mut self, partition: i32, offset: i64) -> u64 {
        self.next += 1;
        let parts = vec![DeleteRecordsPart { key: key(partition), offset }];
        let delete = DeleteRecords { ticket: ticket(self.next), timeout_ms: 1_000, parts };
        self.with_cx(|shard, cx| shard.handle(Message::DeleteRecords(delete), cx));
        self.next
    }

    pub fn list_offset(&mut self, partition: i32, timestamp: i64) -> u64 {
        self.next += 1;
        let parts =
            vec![ListOffsetsPart { key: key(partition), current_epoch: LeaderEpoch::NONE, timestamp }];
        let list = ListOffsets { ticket: ticket(self.next), read_committed: false, parts };
        self.with_cx(|shard, cx| shard.handle(Message::ListOffsets(list), cx));
        self.next
    }

    /// Tells the shard about the connection that all tickets are of.
    pub fn forget(&mut self) {
        let gone = Message::Forget { shard: ShardId(0), conn: 1, generation: 1 };
        self.with_cx(|shard, cx| shard.handle(gone, cx));
    }

    pub fn hurry(&mut self) {
        let ended = Message::Hurry { shard: ShardId(0), conn: 1, generation: 1 };
        self.with_cx(|shard, cx| shard.handle(ended, cx));
    }

    pub fn is_answered(&self, sequence: u64) -> bool {
        self.replies.contains_key(&sequence)
    }

    pub fn produced(&mut self, sequence: u64) -> Vec<ProduceOutcome> {
        match self.replies.remove(&sequence) {
            Some(ReplyBody::Produce(outcomes)) => outcomes.into_iter().collect(),
            _ => panic!("no answer to the produce"),
        }
    }

    /// Base offset and error of each part.
    pub fn acked(&mut self, sequence: u64) -> Vec<(i64, Option<Refused>)> {
        self.produced(sequence).iter().map(|outcome| (outcome.base_offset, outcome.error)).collect()
    }

    pub fn fetched(&mut self, sequence: u64) -> Few<FetchOutcome> {
        match self.replies.remove(&sequence) {
            Some(ReplyBody::Fetch(outcomes)) => outcomes,
            _ => panic!("no answer to the fetch"),
        }
    }

    /// Bytes of records and the error of each part.
    pub fn sizes(&mut self, sequence: u64) -> Vec<(usize, Option<Refused>)> {
        self.fetched(sequence).iter().map(|outcome| (outcome.records.bytes, outcome.error)).collect()
    }

    pub fn listed(&mut self, sequence: u64) -> OffsetOutcome {
        match self.replies.remove(&sequence) {
            Some(ReplyBody::ListOffsets(outcomes)) => outcomes[0],
            _ => panic!("no answer to the search"),
        }
    }

    pub fn deleted(&mut self, sequence: u64) -> DeleteRecordsOutcome {
        match self.replies.remove(&sequence) {
            Some(ReplyBody::DeleteRecords(outcomes)) => outcomes[0],
            _ => panic!("no answer to the deletion"),
        }
    }
}
