//! A store over the simulated seam, with what was appended kept beside it.

use std::path::{Path, PathBuf};

use crate::base::error::Refused;
use crate::base::ids::{PartitionIndex, PartitionKey, Uuid};
use crate::base::offset::Offset;
use crate::io::buffer::Block;
use crate::io::sim::{DiskConfig, Faults, ProcessId, World};
use crate::io::{DirEntry, Done, Errno, FileId, Io, Mono, Op, OpenMode, Payload, Token, Wait, WriteSync};
use crate::log::fate::Fate;
use crate::log::format::{SegmentHeader, parse_segment_name, segment_name};
use crate::log::store::{
    Appended, ColdRead, Durability, Event, LogConfig, LogSlot, NotAppended, Ops, Planted, ReadPlan,
    ReadRequest, Records, Source, Store, StoreConfig, Tag,
};
use crate::wire::batch::{
    Batch, batches,
    build::{BatchBuilder, NewRecord},
};
use crate::wire::codec::Codec;

pub const DATA: &str = "/data";
const READ: u8 = 2;

pub fn config() -> LogConfig {
    LogConfig {
        durability: Durability::Durable,
        flush_ms: 50,
        flush_bytes: 1 << 20,
        segment_bytes: 1 << 20,
        segment_ms: 7 * 24 * 3_600_000,
        retention_ms: -1,
        retention_bytes: -1,
        delete: true,
        index_interval_bytes: 4096,
        producer_id_expiration_ms: 86_400_000,
        log_append_time: false,
    }
}

pub fn key(partition: i32) -> PartitionKey {
    PartitionKey { topic: Uuid([7; 16]), partition: PartitionIndex(partition) }
}

/// A batch of `count` records whose values tell `name` apart.
pub fn batch(name: u64, count: usize, value_bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None);
    fill(&mut builder, name, count, value_bytes)
}

pub fn fill(builder: &mut BatchBuilder, name: u64, count: usize, value_bytes: usize) -> Vec<u8> {
    for index in 0..count {
        let mut value = vec![(name % 251) as u8; value_bytes.max(16)];
        value[..8].copy_from_slice(&name.to_le_bytes());
        value[8..16].copy_from_slice(&(index as u64).to_le_bytes());
        let timestamp = 1_700_000_000_000 + name as i64;
        builder.push(&NewRecord { timestamp, key: None, value: Some(&value), headers: &[] });
    }
    let mut out = Vec::new();
    builder.finish(&mut out).expect("a batch");
    out
}

/// A cold read on its way: its blocks as they come, how many are left, and an error.
type Reading = (ColdRead, Vec<Option<Block>>, usize, Option<Errno>);

pub fn segment_path(key: PartitionKey, ordinal: u64) -> String {
    format!("{DATA}/{}/{}/{}", key.topic, key.partition, segment_name(ordinal))
}

fn kind_of(op: &Op) -> &'static str {
    match op {
        Op::Write { sync: WriteSync::Dsync, .. } => "dsync",
        Op::Write { .. } => "write",
        Op::Flush { .. } => "flush",
        Op::OpenFile { .. } => "open",
        Op::CloseFile { .. } => "close",
        _ => "other",
    }
}

pub struct Rig {
    pub world: World,
    pub process: ProcessId,
    pub io: Io,
    pub store: Store,
    pub ops: Ops,
    pub events: Vec<Event>,
    /// What was pushed, by kind.
    pub pushed: Vec<&'static str>,
    pub check_barrier: bool,
    /// A write with these bytes in it is stuck until [`Rig::release`].
    pub stuck: Option<Vec<u8>>,
    held: Ops,
    /// Prints what is pushed.
    log: bool,
    done: Vec<Done>,
    reads: Vec<Reading>,
    finished: Vec<ReadPlan>,
}

impl Rig {
    pub fn new(seed: u64, faults: Faults) -> Rig {
        Rig::with(World::new(seed, faults), true, |_| {})
    }

    /// A process on a new disk of this world.
    pub fn with(world: World, fresh: bool, adjust: impl FnOnce(&mut StoreConfig)) -> Rig {
        Rig::with_pool(world, fresh, 32 << 20, adjust)
    }

    pub fn with_pool(
        world: World,
        fresh: bool,
        pool_bytes: usize,
        adjust: impl FnOnce(&mut StoreConfig),
    ) -> Rig {
        if fresh {
            world.add_disk(DATA, DiskConfig::default());
        }
        let process = world.start_process();
        let mut io = Io::Sim(Box::new(world.io(process, pool_bytes)));
        let caps = io.storage_caps(DATA.as_ref()).expect("a disk");
        let mut config = StoreConfig {
            data_dir: PathBuf::from(DATA),
            directory: Uuid([9; 16]),
            caps,
            shared_flush: true,
            free_bytes_min: 0,
            tail_cache_bytes: 16 << 20,
            fate: Fate::default(),
            planted: None,
        };
        adjust(&mut config);
        Rig {
            world,
            process,
            io,
            store: Store::new(config),
            ops: Vec::new(),
            events: Vec::new(),
            pushed: Vec::new(),
            check_barrier: true,
            stuck: None,
            held: Vec::new(),
            log: std::env::var_os("RIG_LOG").is_some(),
            done: Vec::new(),
            reads: Vec::new(),
            finished: Vec::new(),
        }
    }

    /// The next process on the same disks, after this one was stopped, killed or lost its power.
    pub fn successor(self, adjust: impl FnOnce(&mut StoreConfig)) -> Rig {
        let world = self.world.clone();
        drop(self);
        Rig::with(world, false, adjust)
    }

    pub fn open(&mut self, partition: i32, config: LogConfig) -> LogSlot {
        let mut source = RigSource(&mut self.io);
        self.store.open(&mut source, key(partition), config).expect("the log opens")
    }

    pub fn planted(seed: u64, bug: Planted) -> Rig {
        Rig::with(World::new(seed, Faults::none()), true, |c| c.planted = Some(bug))
    }

    pub fn now(&self) -> Mono {
        self.io.now()
    }

    pub fn append(&mut self, slot: LogSlot, batch: &[u8]) -> Result<Appended, NotAppended> {
        self.give_uuids();
        let (now, wall) = (self.io.now(), self.io.wall_ms());
        for _ in 0..2 {
            match self.store.append(slot, batch, self.io.pool(), now, wall) {
                Err(NotAppended::NoMemory) if self.io.grow_pool() => {}
                other => return other,
            }
        }
        Err(NotAppended::NoMemory)
    }

    /// Appends, waiting for memory as long as it takes.
    pub fn append_patiently(&mut self, slot: LogSlot, batch: &[u8]) -> Appended {
        for _ in 0..10_000 {
            match self.append(slot, batch) {
                Ok(appended) => return appended,
                Err(NotAppended::NoMemory) => self.turn(),
                Err(other) => panic!("refused: {other:?}"),
            }
        }
        panic!("no memory for ever");
    }

    fn give_uuids(&mut self) {
        let mut uuids = Vec::new();
        for _ in 0..self.store.uuids_wanted() {
            let mut bytes = [0; 16];
            self.io.random(&mut bytes);
            uuids.push(Uuid::from_random(bytes));
        }
        self.store.add_uuids(uuids.into_iter());
    }

    /// One turn of a shard; sleeps until something happens.
    pub fn turn(&mut self) {
        self.turn_until(Mono(u64::MAX));
    }

    fn turn_until(&mut self, latest: Mono) {
        self.pump();
        let busy = self.store.next_deadline().unwrap_or(Mono(u64::MAX)).min(latest);
        let mut done = std::mem::take(&mut self.done);
        self.io.turn(Wait::Until(busy), &mut done);
        for done in done.drain(..) {
            self.take(done);
        }
        self.done = done;
        self.pump();
    }

    /// The part of a turn that does not wait.
    pub fn pump(&mut self) {
        self.give_uuids();
        let (now, wall) = (self.io.now(), self.io.wall_ms());
        if self.io.pool().blocks_mapped() == 0 {
            self.io.grow_pool();
        }
        self.store.turn(now, wall, self.io.pool(), &mut self.ops);
        self.push_ops();
        self.store.events(&mut self.events);
    }

    fn push_ops(&mut self) {
        for (op, tag) in std::mem::take(&mut self.ops) {
            if self.log {
                eprintln!("{:?} {op:?}", self.io.now());
            }
            if self.is_stuck(&op) {
                self.held.push((op, tag));
                continue;
            }
            self.check_op(&op);
            self.pushed.push(kind_of(&op));
            self.io.push(op, Token::new(1, 0, tag.0));
        }
    }

    fn is_stuck(&self, op: &Op) -> bool {
        let Op::Write { data, .. } = op else { return false };
        self.stuck.as_ref().is_some_and(|bytes| data.windows(bytes.len()).any(|found| found == bytes))
    }

    /// The write that was stuck goes on.
    pub fn release(&mut self) {
        self.stuck = None;
        assert!(!self.held.is_empty(), "a write is stuck");
        self.ops.append(&mut self.held);
        self.push_ops();
    }

    /// The roll barrier: a segment's header leaves only when its predecessor is flushed to its end.
    fn check_op(&mut self, op: &Op) {
        let Op::Write { offset: 0, data, .. } = op else { return };
        let Ok((header, _)) = SegmentHeader::decode(data) else { return };
        if header.ordinal > 0 && !header.prev.uuid.is_zero() && self.check_barrier {
            let is_it = |path: &String| {
                let bytes = self.world.live_bytes(path.as_ref()).unwrap_or_default();
                SegmentHeader::decode(&bytes).is_ok_and(|(found, _)| found.uuid == header.prev.uuid)
            };
            // Ordinals leave gaps: each process numbers from a place of its own.
            let first = segment_path(header.key, 0);
            let dir = std::path::Path::new(&first).parent().expect("a partition's directory");
            let names = self.io.list_dir(dir).expect("the directory");
            let ordinals = names.iter().rev().filter_map(|entry| parse_segment_name(&entry.name));
            let mut paths = ordinals
                .filter(|ordinal| *ordinal < header.ordinal)
                .map(|ordinal| segment_path(header.key, ordinal));
            let path = paths.find(is_it).expect("the predecessor's file");
            let end = header.prev.end;
            assert!(self.world.is_flushed(path.as_ref(), 0..end), "the predecessor is flushed: {header:?}");
        }
    }

    fn take(&mut self, done: Done) {
        if done.token.kind() == READ {
            return self.read_done(done);
        }
        let tag = Tag(done.token.slot());
        let now = self.io.now();
        self.store.done(tag, done, now, &mut self.ops);
        self.push_ops();
    }

    /// Turns until `reached`, at most `ms` of virtual time.
    pub fn run(&mut self, ms: u64, mut reached: impl FnMut(&mut Rig) -> bool) -> bool {
        let end = self.now().plus_ms(ms);
        loop {
            if reached(self) {
                return true;
            }
            if self.now() >= end {
                return false;
            }
            self.turn_until(end);
        }
    }

    /// Lets everything in flight and due within `ms` happen.
    pub fn settle(&mut self, ms: u64) {
        self.run(ms, |_| false);
    }

    pub fn durable(&self, slot: LogSlot) -> Offset {
        self.store.bounds(slot).durable.get()
    }

    pub fn high_watermark(&self, slot: LogSlot) -> Offset {
        self.store.bounds(slot).high_watermark.get()
    }

    /// Appends and waits for the ack.
    pub fn produce(&mut self, slot: LogSlot, batch: &[u8]) -> Appended {
        let appended = self.append_patiently(slot, batch);
        let reached = self.run(60_000, |rig| rig.high_watermark(slot) >= appended.next_offset);
        assert!(reached, "no ack: {:?} {:?}", self.store.bounds(slot), self.events);
        appended
    }

    fn read_done(&mut self, done: Done) {
        let (index, at) = (done.token.generation() as usize, done.token.slot() as usize);
        let Payload::Read(mut block) = done.payload else { panic!("a read hands its block back") };
        let read = &mut self.reads[index];
        match done.result {
            Ok(bytes) => block.set_filled(bytes as usize),
            Err(errno) => read.3 = Some(errno),
        }
        read.1[at] = Some(block);
        read.2 -= 1;
        if read.2 == 0 {
            let (cold, blocks, _, failed) = self.reads.remove(index);
            assert!(self.reads.is_empty(), "one read at a time");
            let blocks = match failed {
                Some(errno) => Err(errno),
                None => Ok(blocks.into_iter().flatten().collect()),
            };
            let plan = self.store.finish_read(cold, blocks);
            self.finished.push(plan);
        }
    }

    fn start_read(&mut self, cold: ColdRead) {
        let mut offset = cold.position;
        let blocks: Vec<Option<Block>> = cold.lens.iter().map(|_| None).collect();
        for (i, len) in cold.lens.iter().enumerate() {
            let into = loop {
                match self.store.take_block(self.io.pool()) {
                    Some(block) => break block,
                    None if self.io.grow_pool() => {}
                    None => self.turn(),
                }
            };
            let op = Op::Read { file: cold.file, offset, into, at: 0, len: *len };
            self.io.push(op, Token::new(READ, 0, i as u32));
            offset += u64::from(*len);
        }
        let pending = cold.lens.len();
        self.reads.push((cold, blocks, pending, None));
    }

    /// Reads to its end.
    pub fn read(&mut self, slot: LogSlot, request: ReadRequest) -> ReadPlan {
        let mut plan = self.store.plan_read(slot, request);
        for _ in 0..1000 {
            plan = match plan {
                ReadPlan::Cold(cold) => {
                    self.start_read(cold);
                    assert!(self.run(60_000, |rig| !rig.finished.is_empty()));
                    self.finished.remove(0)
                }
                ReadPlan::Opening => {
                    let opened = self.run(60_000, |rig| rig.events.contains(&Event::Opened(slot)));
                    assert!(opened, "a file to read is opened: {:#?} {:?}", self.store.waits(), self.events);
                    self.events.retain(|event| *event != Event::Opened(slot));
                    self.store.plan_read(slot, request)
                }
                done => return done,
            };
        }
        panic!("a read that does not end");
    }

    /// Whole batches from `from` on, at most `bytes_max`.
    pub fn fetch(&mut self, slot: LogSlot, from: Offset, bytes_max: u32) -> (Vec<u8>, Records) {
        let until = self.high_watermark(slot);
        match self.read(slot, ReadRequest { from, until, bytes_max, at_least_one: true }) {
            ReadPlan::Ready(records) => {
                let bytes: Vec<u8> = records.parts.iter().flat_map(|part| part.iter().copied()).collect();
                assert_eq!(bytes.len(), records.bytes);
                (bytes, records)
            }
            // Retention overtook the read.
            ReadPlan::Refused(Refused::OffsetOutOfRange)
                if from < self.store.bounds(slot).log_start.get() =>
            {
                (Vec::new(), Records { next_offset: from, ..Records::default() })
            }
            ReadPlan::Empty => (Vec::new(), Records { next_offset: from, ..Records::default() }),
            ReadPlan::Refused(error) => panic!("refused: {error:?}"),
            ReadPlan::Cold(_) | ReadPlan::Opening => unreachable!("read to its end"),
        }
    }

    /// Reads everything up to the high watermark and compares it with what was appended.
    pub fn check_all(&mut self, slot: LogSlot, model: &Model, bytes_max: u32) {
        let mut from = self.store.bounds(slot).log_start.get();
        let end = self.high_watermark(slot);
        while from < end {
            let (bytes, records) = self.fetch(slot, from, bytes_max);
            let start = self.store.bounds(slot).log_start.get();
            if bytes.is_empty() && from < start {
                from = start;
                continue;
            }
            assert!(!bytes.is_empty(), "nothing at {from} below {end}");
            let next = model.check(&bytes, from);
            assert_eq!(next, records.next_offset);
            from = next;
        }
        assert_eq!(from, end);
    }

    pub fn count(&self, kind: &str) -> usize {
        self.pushed.iter().filter(|k| **k == kind).count()
    }

    pub fn cold_only(&mut self, slot: LogSlot) {
        self.store.evict_all_of(slot);
    }

    pub fn stop(&mut self) {
        self.store.begin_stop();
        let stopped = self.run(60_000, |rig| rig.events.contains(&Event::Stopped));
        assert!(stopped, "stops: {:#?}", self.store.waits());
    }
}

struct RigSource<'a>(&'a mut Io);

impl Source for RigSource<'_> {
    fn list(&mut self, dir: &Path) -> Result<Vec<DirEntry>, Errno> {
        self.0.list_dir(dir)
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> Result<FileId, Errno> {
        let done = self.0.wait(Op::OpenFile { path: path.to_path_buf(), mode });
        done.result?;
        let Payload::Opened(file, _) = done.payload else { panic!("an opened file") };
        Ok(file)
    }

    fn close(&mut self, file: FileId) {
        self.0.wait(Op::CloseFile { file });
    }

    fn read(&mut self, file: FileId, position: u64, len: usize) -> Result<Block, Errno> {
        let into = loop {
            match self.0.pool().take() {
                Some(block) => break block,
                None => assert!(self.0.grow_pool(), "memory for recovery"),
            }
        };
        let done = self.0.wait(Op::Read { file, offset: position, into, at: 0, len: len as u32 });
        let bytes = done.result?;
        let Payload::Read(mut block) = done.payload else { panic!("a read hands its block back") };
        block.set_filled(bytes as usize);
        Ok(block)
    }

    fn run(&mut self, op: Op) -> Result<(), Errno> {
        self.0.wait(op).result.map(|_| ())
    }

    fn uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        self.0.random(&mut bytes);
        Uuid::from_random(bytes)
    }

    fn wall_ms(&self) -> i64 {
        self.0.wall_ms()
    }
}

/// What was appended to one log: batches as sent, by base offset.
#[derive(Clone, Default)]
pub struct Model {
    pub batches: Vec<(Offset, Vec<u8>)>,
}

impl Model {
    pub fn add(&mut self, appended: &Appended, batch: &[u8]) {
        self.batches.push((appended.base_offset, batch.to_vec()));
    }

    /// Checks that `bytes` are whole batches, in order, the first one holding `from`; returns the offset behind the last.
    pub fn check(&self, bytes: &[u8], from: Offset) -> Offset {
        let mut next = None;
        for found in batches(bytes) {
            let found: Batch<'_> = found.expect("whole batches");
            let base = Offset(found.base_offset());
            match next {
                None => assert!(base <= from && from.0 < found.next_offset(), "{base} holds {from}"),
                Some(next) => assert_eq!(base, next, "offsets follow on"),
            }
            let index = self.batches.partition_point(|b| b.0 < base);
            let (at, sent) = self.batches.get(index).expect("a batch that was appended");
            assert_eq!(*at, base);
            assert_eq!(&found.bytes()[16..], &sent[16..], "the bytes that were sent, at {base}");
            assert_eq!(&found.bytes()[8..12], &sent[8..12]);
            assert!(found.crc_matches());
            next = Some(Offset(found.next_offset()));
        }
        next.unwrap_or(from)
    }
}
