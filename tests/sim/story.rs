//! One seed's life of a log store: producers, consumers, deletes, faults, several runs that end in a stop, a kill or a power cut;
//! then a calm phase in which everything must become available.

mod changes;
mod harm;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use corelog::base::error::Refused;
use corelog::base::ids::{PartitionIndex, PartitionKey, Uuid};
use corelog::base::offset::Offset;
use corelog::io::Errno;
use corelog::io::sim::{DiskConfig, Faults, Injected, OpKind, Rng, World};
use corelog::log::fate::Fate;
use corelog::log::inspect::SegmentFile;
use corelog::log::store::{
    Appended, Durability, Event, LogConfig, NotAppended, Planted, ReadRequest, StoreConfig,
};

use crate::batch::{Batch, BatchId, Sequence, parse};
use crate::node::{DATA_DIR, Node, Outcome};
use crate::oracle::{End, Oracle, Verdict};
use crate::rows;
use harm::Harmed;

/// Virtual time within which a calm broker must have answered everything.
const CALM_MS_MAX: u64 = 120_000;

/// What is drawn once for each seed.
#[derive(Clone, Debug)]
struct Plan {
    partitions: u64,
    runs: u64,
    steps: u64,
    shared_flush: bool,
    /// Out of 6 runs, in how many a disk operation fails.
    errors: u64,
    /// The disk is so small that it fills up.
    tight: bool,
    /// The disks rot, and files vanish, while no process runs.
    harm: bool,
    faults: Faults,
}

impl Plan {
    fn draw(seed: u64) -> (Plan, DiskConfig) {
        let mut rng = Rng::new(seed ^ 0x91a2);
        let plan = Plan {
            partitions: rng.between(1, 4),
            runs: rng.between(2, 5),
            steps: rng.between(20, 150),
            shared_flush: rng.below(3) > 0,
            errors: [0, 0, 0, 2][rng.below(4) as usize],
            tight: rng.below(8) == 0,
            harm: rng.below(3) == 0,
            faults: Faults::drawn(&mut rng),
        };
        let disk = DiskConfig {
            shared_flush: rng.below(3) > 0,
            dsync_covers_earlier: rng.below(3) > 0,
            flush_apart: rng.below(3) == 0,
            ..DiskConfig::default()
        };
        (plan, disk)
    }
}

struct Partition {
    log: LogConfig,
    oracle: Oracle,
    dir: PathBuf,
    producer: Producer,
    /// Where the newest acked batch stands: segment's name and position.
    newest: (String, u64),
    /// A `set_log_start` that waits for its event.
    deleting: bool,
    /// A truncation that is not through.
    truncating: Option<i64>,
    harmed: Option<Harmed>,
    /// Somebody's copy of a segment.
    copied: Option<(SegmentFile, Vec<u8>)>,
}

/// An idempotent producer, or one without sequence numbers.
struct Producer {
    id: Option<i64>,
    next: i32,
    /// Sent and not acked, oldest first: what a real client sends again after a restart.
    pending: VecDeque<Batch>,
}

/// Batches that an idempotent producer may have in flight.
const IN_FLIGHT_MAX: usize = 5;

pub struct Story {
    world: World,
    plan: Plan,
    planted: Option<Planted>,
    node: Option<Node>,
    partitions: BTreeMap<PartitionKey, Partition>,
    reads: BTreeMap<u32, (PartitionKey, i64, i64)>,
    next_batch: u64,
    next_partition: usize,
    /// Partitions that are being deleted.
    gone: BTreeMap<PartitionKey, PathBuf>,
    /// A write or flush failed: high watermarks as they were then.
    dead: Option<BTreeMap<PartitionKey, i64>>,
    /// A fault was placed or drawn in this run: errors may show.
    troubled: bool,
    stopped: bool,
    /// Flushes that failed before this run.
    failed_before: u64,
    /// The one operation that fails, of a test that goes through all of them.
    nth: Option<(u64, Injected)>,
    struck: bool,
}

/// What a run leaves to look at.
pub struct Report {
    pub trace: u64,
    pub covered: Vec<(&'static str, u64)>,
}

/// Runs one seed. Panics with the seed at the first broken promise.
pub fn run(seed: u64, planted: Option<Planted>) -> Report {
    let (mut plan, disk) = Plan::draw(seed);
    if planted == Some(Planted::RetryAfterError) {
        // Without errors there is nothing to retry.
        plan.errors = 6;
    }
    plan.harm &= planted.is_none();
    let world = World::new(seed, plan.faults.clone());
    world.add_disk("/disk", disk);
    let mut story = Story::new(world.clone(), plan, planted);
    if let Err(broken) = story.tell() {
        world.fail(broken);
    }
    // What is left of the process ends before the world is looked at.
    drop(story);
    Report { trace: world.trace(), covered: world.covered() }
}

/// Runs a short life without other faults in which file operation number `n` of the first run fails. False if there were fewer.
pub fn fail_nth(seed: u64, n: u64, what: Injected) -> bool {
    let (plan, disk) = Plan::draw(seed);
    let plan =
        Plan { runs: 2, steps: 100, errors: 0, tight: false, harm: false, faults: Faults::none(), ..plan };
    let world = World::new(seed, plan.faults.clone());
    world.add_disk("/disk", disk);
    let mut story = Story::new(world.clone(), plan, None);
    story.nth = Some((n, what));
    if let Err(broken) = story.tell() {
        world.fail(format_args!("operation {n} {what:?}: {broken}"));
    }
    story.struck
}

impl Story {
    fn new(world: World, plan: Plan, planted: Option<Planted>) -> Story {
        let mut story = Story {
            world,
            plan,
            planted,
            node: None,
            partitions: BTreeMap::new(),
            reads: BTreeMap::new(),
            next_batch: 0,
            next_partition: 0,
            gone: BTreeMap::new(),
            dead: None,
            troubled: false,
            stopped: false,
            failed_before: 0,
            nth: None,
            struck: false,
        };
        for _ in 0..story.plan.partitions {
            story.add_partition();
        }
        story
    }

    fn below(&self, end: u64) -> u64 {
        self.world.below(end)
    }

    fn add_partition(&mut self) -> PartitionKey {
        let index = self.next_partition;
        self.next_partition += 1;
        let key =
            PartitionKey { topic: Uuid([index as u8 + 1; 16]), partition: PartitionIndex(index as i32) };
        let durability = match self.below(4) {
            0 => Durability::Written,
            1 if self.below(2) == 0 => Durability::Memory,
            _ => Durability::Durable,
        };
        let retention = self.below(4) == 0;
        let log = LogConfig {
            durability,
            flush_ms: 200,
            flush_bytes: 256 * 1024,
            segment_bytes: (64 * 1024) << self.below(4),
            segment_ms: [7 * 86_400_000, 2_000][(self.below(6) == 0) as usize],
            retention_ms: -1,
            retention_bytes: if retention { 256 * 1024 } else { -1 },
            delete: true,
            index_interval_bytes: 4096,
            producer_id_expiration_ms: 86_400_000,
            log_append_time: self.below(4) == 0,
        };
        let mut oracle = Oracle::new(format!("partition {index} ({durability:?})"), durability);
        oracle.retention = retention;
        let dir = PathBuf::from(DATA_DIR).join(key.topic.to_string()).join(index.to_string());
        let id = (self.below(2) == 0).then_some(1000 + index as i64);
        let producer = Producer { id, next: 0, pending: VecDeque::new() };
        let newest = (String::new(), 0);
        let (deleting, truncating, harmed, copied) = (false, None, None, None);
        let partition =
            Partition { log, oracle, dir, producer, newest, deleting, truncating, harmed, copied };
        self.partitions.insert(key, partition);
        key
    }

    fn tell(&mut self) -> Verdict {
        let mut end = End::Stop;
        for _ in 0..self.plan.runs {
            self.start(end)?;
            self.trouble();
            for _ in 0..self.plan.steps {
                self.act()?;
                self.turn(100)?;
                if self.dead.is_some() && self.below(20) == 0 {
                    break;
                }
            }
            end = self.end()?;
        }
        self.calm(end)
    }

    /// Starts a process, compares what it recovered with what was promised, and reads all of it.
    fn start(&mut self, end: End) -> Verdict {
        self.recover(end)?;
        if self.below(4) == 0 {
            let node = self.node.take().expect("just started");
            self.world.kill(node.process);
            drop(node);
            self.world.mark("recovered_twice");
            self.recover(End::Kill)?;
        }
        self.read_all()?;
        self.send_again()
    }

    fn recover(&mut self, end: End) -> Verdict {
        (self.dead, self.troubled, self.stopped) = (None, false, false);
        self.failed_before = self.failed_flushes();
        self.reads.clear();
        self.harm(end)?;
        self.remove_gone();
        let logs = self.partitions.iter().map(|(key, p)| (*key, p.log.clone())).collect();
        let (planted, shared_flush) = (self.planted, self.plan.shared_flush);
        let config = |caps| StoreConfig {
            data_dir: PathBuf::from(DATA_DIR),
            directory: Uuid([9; 16]),
            caps,
            shared_flush,
            free_bytes_min: 512 * 1024,
            tail_cache_bytes: 1 << 20,
            fate: Fate::default(),
            planted,
        };
        let started = Node::start(&self.world, config, &logs);
        let mut node = started.map_err(|fatal| format!("does not start after {end:?}: {fatal}"))?;
        if std::env::var_os("SIM_LOG").is_some() {
            self.show(&mut node);
        }
        node.store.events(&mut node.events);
        rows::mark(&self.world, node.store.opened());
        for event in std::mem::take(&mut node.events) {
            if let Event::Corrupt(slot, corrupt) = event {
                let key = node.slots.iter().find(|(_, s)| **s == slot).map(|(key, _)| *key);
                let partition = self.partitions.get_mut(&key.expect("a slot of ours")).expect("known");
                let Some(harmed) = partition.harmed.as_mut().filter(|harmed| harmed.offline) else {
                    return Err(format!("nothing was corrupted, yet after {end:?}: {corrupt}"));
                };
                harmed.named = true;
                self.world.mark("damage_named");
            }
        }
        for (key, partition) in &mut self.partitions {
            partition.deleting = false;
            let bounds = node.store.bounds(node.slots[key]);
            let log_end = bounds.log_end.get().0;
            let state_lost = partition.harmed.is_some_and(|harmed| harmed.start_lost);
            if let Some(harmed) = &mut partition.harmed {
                if std::mem::take(&mut harmed.start_lost) {
                    partition.oracle.start_lost();
                }
                let silent_from = std::mem::replace(&mut harmed.silent_from, i64::MAX);
                if partition.oracle.damaged(log_end, harmed.named, silent_from) {
                    self.world.mark(if harmed.named { "named_loss" } else { "silent_loss" });
                    partition.renew_producer();
                }
            }
            if let Some(target) = partition.truncating.take() {
                partition.oracle.truncated(end, target, log_end)?;
                if state_lost {
                    partition.oracle.cut_unknown(target);
                }
                partition.renew_producer();
            }
            partition.oracle.recovered(end, bounds)?;
        }
        self.node = Some(node);
        Ok(())
    }

    fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("a run")
    }

    /// Places an error on one of the operations to come.
    fn trouble(&mut self) {
        if let Some((n, what)) = self.nth.take() {
            self.world.place_fault(OpKind::Any, n, what);
            self.troubled = true;
            self.struck = true;
        }
        if self.below(6) < self.plan.errors {
            let kind = [OpKind::Write, OpKind::Flush, OpKind::Flush, OpKind::Meta][self.below(4) as usize];
            let errno = [Errno::IO, Errno::IO, Errno::NOSPC][self.below(3) as usize];
            self.world.place_fault(kind, self.below(60), Injected::Fails(errno));
            self.troubled = true;
        }
        if self.plan.tight {
            self.world.set_capacity(DATA_DIR.as_ref(), (2 + self.below(6)) << 20);
        }
    }

    fn act(&mut self) -> Verdict {
        for _ in 0..=self.below(4) {
            let keys: Vec<PartitionKey> = self.partitions.keys().copied().collect();
            let key = keys[self.below(keys.len() as u64) as usize];
            match self.below(20) {
                0..12 => self.produce(key)?,
                12..18 => self.fetch(key),
                18 => match self.below(8) {
                    0 => self.truncate(key)?,
                    1 if self.below(3) == 0 => self.recreate(key)?,
                    _ => self.delete_records(key)?,
                },
                _ => self.world.pass(self.below(1_000_000_000)),
            }
        }
        Ok(())
    }

    fn produce(&mut self, key: PartitionKey) -> Verdict {
        let records = 1 + self.below(4) as u32;
        let padding = match self.below(8) {
            0 => self.below(60_000),
            1 | 2 => self.below(6_000),
            3 => 0,
            _ => self.below(300),
        } as usize;
        self.next_batch += 1;
        let id = BatchId(self.next_batch);
        let wall_ms = self.node().io.wall_ms();
        let producer = &mut self.partitions.get_mut(&key).expect("known").producer;
        if producer.id.is_some() && producer.pending.len() == IN_FLIGHT_MAX {
            return Ok(());
        }
        let sequence = producer.id.map(|id| Sequence { producer: id, first: producer.next });
        let batch = Batch::new(id, records, padding / records as usize, wall_ms, sequence);
        if self.append(key, &batch)? && sequence.is_some() {
            let producer = &mut self.partitions.get_mut(&key).expect("known").producer;
            producer.next += records as i32;
            producer.pending.push_back(batch);
        }
        Ok(())
    }

    /// Appends one batch; false if the log did not take it.
    fn append(&mut self, key: PartitionKey, batch: &Batch) -> Verdict<bool> {
        let node = self.node.as_mut().expect("a run");
        let slot = node.slots[&key];
        let (now, wall_ms) = (node.io.now(), node.io.wall_ms());
        let end = node.store.bounds(slot).log_end.get().0;
        let result = node.store.append(slot, &batch.bytes, node.io.pool(), now, wall_ms);
        let partition = self.partitions.get_mut(&key).expect("known");
        let excused = partition.is_named();
        let oracle = &mut partition.oracle;
        match result {
            Ok(Appended { base_offset, duplicate: true, .. }) => {
                self.world.mark("duplicate");
                oracle.duplicate(batch.id, base_offset.0)?;
            }
            Ok(appended) => oracle.appended(batch.clone(), appended.base_offset.0, end)?,
            Err(NotAppended::NoMemory) => self.world.mark("append_without_memory"),
            Err(NotAppended::Refused(Refused::KafkaStorageError)) => {
                self.world.mark("append_refused");
                if self.dead.is_none() && !self.plan.tight && !self.troubled && !excused {
                    return Err(format!("{}: refused without a reason", oracle.name));
                }
            }
            Err(NotAppended::Refused(Refused::NotLeaderOrFollower)) if partition.truncating.is_some() => {}
            Err(NotAppended::Refused(other)) => {
                return Err(format!("{}: refused with {other:?}", oracle.name));
            }
        }
        if self.dead.is_some() && result.is_ok_and(|appended| !appended.duplicate) {
            return Err("a dead log directory took an append".to_string());
        }
        Ok(result.is_ok())
    }

    /// After a restart, producers send again what was not acked; with idempotence that is safe.
    fn send_again(&mut self) -> Verdict {
        let keys: Vec<PartitionKey> = self.partitions.keys().copied().collect();
        for key in keys {
            let partition = self.partitions.get_mut(&key).expect("known");
            if partition.oracle.durability != Durability::Durable {
                // Acked batches may be gone, and with them the producer's sequence: a new producer begins.
                partition.renew_producer();
                continue;
            }
            let mut pending = std::mem::take(&mut partition.producer.pending);
            for batch in &pending {
                for _ in 0..1000 {
                    if self.append(key, batch)? || self.dead.is_some() || self.partitions[&key].is_named() {
                        break;
                    }
                    self.turn(10)?;
                }
            }
            let partition = self.partitions.get_mut(&key).expect("known");
            pending.retain(|batch| !partition.oracle.is_acked(batch.id));
            partition.producer.pending = pending;
        }
        Ok(())
    }

    fn fetch(&mut self, key: PartitionKey) {
        let node = self.node.as_mut().expect("a run");
        if node.reads_in_flight() > 8 {
            return;
        }
        let slot = node.slots[&key];
        let bounds = node.store.bounds(slot);
        let (start, hw) = (bounds.log_start.get().0, bounds.high_watermark.get().0);
        let from = start + self.world.below((hw - start) as u64 + 1) as i64;
        let bytes_max = 1 << self.world.below(21);
        let request = ReadRequest { from: Offset(from), until: Offset(hw), bytes_max, at_least_one: true };
        let id = node.read(slot, request);
        self.reads.insert(id, (key, from, hw));
    }

    fn delete_records(&mut self, key: PartitionKey) -> Verdict {
        let node = self.node.as_mut().expect("a run");
        let partition = self.partitions.get_mut(&key).expect("known");
        let busy = partition.deleting || partition.truncating.is_some();
        if busy || self.dead.is_some() || self.world.below(3) > 0 {
            return Ok(());
        }
        let slot = node.slots[&key];
        let bounds = node.store.bounds(slot);
        let (start, hw) = (bounds.log_start.get().0, bounds.high_watermark.get().0);
        let offset = start + self.world.below((hw - start) as u64 + 1) as i64;
        if offset > start && node.store.set_log_start(slot, Offset(offset)).is_ok() {
            partition.oracle.asked_log_start(offset);
            partition.deleting = true;
            self.world.mark("delete_records");
        }
        Ok(())
    }

    /// One turn of the node, and the checks behind it.
    fn turn(&mut self, patience_ms: u64) -> Verdict {
        self.node().turn(patience_ms);
        for event in std::mem::take(&mut self.node().events) {
            self.event(event)?;
        }
        let keys: Vec<PartitionKey> = self.partitions.keys().copied().collect();
        for key in keys {
            self.follow_truncation(key)?;
            self.take_acks(key)?;
        }
        for (id, outcome) in std::mem::take(&mut self.node().finished) {
            self.fetched(id, outcome)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event) -> Verdict {
        match event {
            Event::Dead(why) => {
                if !self.troubled && !self.plan.tight {
                    return Err(format!("died without a failed operation: {why}"));
                }
                self.world.mark("dead");
                let node = self.node.as_ref().expect("a run");
                let hw = |slot| node.store.bounds(slot).high_watermark.get().0;
                self.dead = Some(node.slots.iter().map(|(key, slot)| (*key, hw(*slot))).collect());
            }
            // Of a log that was deleted meanwhile.
            Event::LogStart(slot) if !self.node().slots.values().any(|other| *other == slot) => {}
            Event::LogStart(slot) if self.dead.is_some() => {
                let key = self.node().slots.iter().find(|(_, s)| **s == slot).map(|(key, _)| *key);
                let name = &self.partitions[&key.expect("a slot of ours")].oracle.name;
                return Err(format!("{name}: a log start is promised after a failed write or flush"));
            }
            Event::LogStart(slot) => {
                let node = self.node.as_ref().expect("a run");
                let start = node.store.bounds(slot).log_start.get().0;
                let key = node.slots.iter().find(|(_, s)| **s == slot).map(|(key, _)| *key);
                let partition = self.partitions.get_mut(&key.expect("a slot of ours")).expect("known");
                partition.deleting = false;
                partition.oracle.log_start_durable(start);
            }
            Event::Corrupt(slot, corrupt) => {
                let key = self.node().slots.iter().find(|(_, s)| **s == slot).map(|(key, _)| *key);
                let partition = self.partitions.get_mut(&key.expect("a slot of ours")).expect("known");
                if let Some(harmed) = partition.harmed.as_mut().filter(|harmed| harmed.offline) {
                    harmed.named = true;
                    self.world.mark("damage_named");
                    return Ok(());
                }
                let (bounds, files) = (self.node().store.bounds(slot), self.node().store.describe(slot));
                return Err(format!("nothing was corrupted, yet: {corrupt}\n{bounds:?}\n{files:#?}"));
            }
            Event::Stopped => self.stopped = true,
            Event::Deleted(key) => self.deleted(key)?,
            Event::HighWatermark(_) | Event::Opened(_) | Event::NoSpace(_) => {}
        }
        Ok(())
    }

    /// Notes what became visible, and checks that it is as safe as its level says: before any crash, by looking at the disk.
    fn take_acks(&mut self, key: PartitionKey) -> Verdict {
        let node = self.node.as_mut().expect("a run");
        let partition = self.partitions.get_mut(&key).expect("known");
        let bounds = node.store.bounds(node.slots[&key]);
        let hw = bounds.high_watermark.get().0;
        if let Some(was) = self.dead.as_ref().map(|dead| dead[&key])
            && hw != was
        {
            return Err(format!(
                "{}: high watermark went from {was} to {hw} after a failure",
                partition.oracle.name
            ));
        }
        for id in partition.oracle.advanced(bounds)? {
            partition.producer.pending.retain(|batch| batch.id != id);
            let found = match partition.oracle.durability {
                Durability::Durable => partition
                    .locate(id, node, |path, from, needle| self.world.find_flushed(path, from, needle)),
                Durability::Written => {
                    partition.locate(id, node, |path, from, needle| self.world.find_live(path, from, needle))
                }
                Durability::Memory => true,
            };
            if !found && hw > partition.oracle.log_start() && !partition.oracle.retention {
                return Err(format!("{}: {id:?} was acked and is not on the disk", partition.oracle.name));
            }
        }
        Ok(())
    }

    fn fetched(&mut self, id: u32, outcome: Outcome) -> Verdict<Option<i64>> {
        let Some((key, from, until)) = self.reads.remove(&id) else { return Ok(None) };
        let node = self.node.as_ref().expect("a run");
        let start = node.store.bounds(node.slots[&key]).log_start.get().0;
        let partition = self.partitions.get_mut(&key).expect("known");
        let excused = partition.is_named();
        let oracle = &mut partition.oracle;
        match outcome {
            Outcome::Records(bytes) => {
                let found = parse(&bytes).map_err(|e| format!("{}: fetch from {from}: {e}", oracle.name))?;
                // What a truncation drops may be gone before the log ends there.
                let cutting = partition.truncating.is_some();
                if found.is_empty() && from < until && from >= start && !cutting {
                    let bounds = node.store.bounds(node.slots[&key]);
                    let name = &oracle.name;
                    return Err(format!(
                        "{name}: a fetch from {from} below {until} found nothing in {bounds:?}"
                    ));
                }
                oracle.fetched(from, until, &found).map(Some)
            }
            Outcome::Refused(Refused::OffsetOutOfRange) if from < start => Ok(None),
            Outcome::Refused(_) if self.troubled || excused => Ok(None),
            Outcome::Refused(refused) => Err(format!("{}: fetch from {from}: {refused:?}", oracle.name)),
        }
    }

    /// Fetches everything there is, and compares it with everything promised.
    fn read_all(&mut self) -> Verdict {
        let keys: Vec<PartitionKey> = self.partitions.keys().copied().collect();
        for key in keys {
            let bounds = self.node().bounds(key);
            let (start, hw) = (bounds.log_start.get().0, bounds.high_watermark.get().0);
            let mut next = start;
            let mut seen = BTreeMap::new();
            while next < hw {
                let slot = self.node().slots[&key];
                let request = ReadRequest {
                    from: Offset(next),
                    until: Offset(hw),
                    bytes_max: 1 << 20,
                    at_least_one: true,
                };
                let id = self.node().read(slot, request);
                self.reads.insert(id, (key, next, hw));
                let Some(bytes) = self.wait_for(id)? else {
                    if self.partitions[&key].is_named() {
                        break;
                    }
                    // Deleted while it was read.
                    let start = self.node().bounds(key).log_start.get().0;
                    if start <= next {
                        return Err(format!(
                            "a fetch from {next} is out of range, the log begins at {start}"
                        ));
                    }
                    next = start;
                    continue;
                };
                let name = &self.partitions[&key].oracle.name;
                let found = parse(&bytes).map_err(|e| format!("{name}: fetch from {next}: {e}"))?;
                seen.extend(found.iter().map(|batch| (batch.base_offset, batch.id)));
                let oracle = &mut self.partitions.get_mut(&key).expect("known").oracle;
                let reached = oracle.fetched(next, hw, &found)?;
                if reached == next {
                    return Err(format!("{}: a fetch from {next} below {hw} found nothing", oracle.name));
                }
                next = reached;
            }
            let now_start = self.node().bounds(key).log_start.get().0;
            self.partitions[&key].oracle.complete(now_start, next, &seen)?;
        }
        Ok(())
    }

    /// Turns until one fetch has ended with records; none if they are out of range.
    fn wait_for(&mut self, id: u32) -> Verdict<Option<Vec<u8>>> {
        let start = self.node().io.now();
        loop {
            let at = self.node().finished.iter().position(|(other, _)| *other == id);
            if let Some(at) = at {
                let of = self.reads.remove(&id).map(|(key, ..)| key);
                let named = of.is_some_and(|key| self.partitions[&key].is_named());
                return match self.node().finished.remove(at).1 {
                    Outcome::Records(bytes) => Ok(Some(bytes)),
                    Outcome::Refused(Refused::OffsetOutOfRange) => Ok(None),
                    Outcome::Refused(_) if named => Ok(None),
                    Outcome::Refused(refused) => Err(format!("a fetch was refused with {refused:?}")),
                };
            }
            if self.node().io.now().since_ms(start) > CALM_MS_MAX {
                let (key, from, until) = self.reads[&id];
                let (bounds, partition) = (self.node().bounds(key), &self.partitions[&key]);
                let (name, harmed) = (&partition.oracle.name, partition.harmed);
                return Err(format!(
                    "{name}: a fetch from {from} below {until} never ended: {bounds:?} {harmed:?}"
                ));
            }
            self.node().turn(100);
            for event in std::mem::take(&mut self.node().events) {
                self.event(event)?;
            }
        }
    }

    /// Ends the run in one of three ways.
    fn end(&mut self) -> Verdict<End> {
        let missed = self.world.clear_placed_faults();
        self.struck &= missed == 0;
        let end = match self.below(5) {
            0 if self.dead.is_none() => End::Stop,
            0..3 => End::Kill,
            _ => End::Crash,
        };
        if end == End::Stop {
            return self.stop().map(|()| End::Stop);
        }
        let mut node = self.node.take().expect("a run");
        if std::env::var_os("SIM_LOG").is_some() {
            self.show(&mut node);
        }
        let end = match end {
            End::Kill if self.failed_flushes() > self.failed_before => End::KillAfterFailedFlush,
            end => end,
        };
        match end {
            End::Crash => self.world.crash(),
            _ => self.world.kill(node.process),
        }
        drop(node);
        if self.below(2) == 0 {
            self.world.pass(self.below(20_000_000_000));
        }
        Ok(end)
    }

    fn failed_flushes(&self) -> u64 {
        self.world.cover("flush_failed") + self.world.cover("dsync_failed")
    }

    /// Prints where every log stands: for a failure that is replayed.
    fn show(&self, node: &mut Node) {
        for (key, partition) in &self.partitions {
            eprintln!("{}: {:?}", partition.oracle.name, node.bounds(*key));
            eprintln!("{:?}", node.store.describe(node.slots[key]).segments);
            for entry in node.io.list_dir(&partition.dir).unwrap_or_default() {
                let path = partition.dir.join(&entry.name);
                let live = self.world.live_bytes(&path).unwrap_or_default();
                let data = live.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1);
                let flushed =
                    (0..data).step_by(4096).find(|at| !self.world.is_flushed(&path, *at..at + 4096));
                eprintln!(
                    "  {} of {} bytes, {data} of them data, not flushed from {flushed:?}",
                    entry.name, entry.len
                );
            }
        }
    }

    fn stop(&mut self) -> Verdict {
        // On a full disk a stop waits for space, since what is staged has nowhere to go: an operator makes room.
        self.world.set_capacity(DATA_DIR.as_ref(), 1 << 30);
        self.node().store.begin_stop();
        let start = self.node().io.now();
        while !self.stopped {
            self.turn(100)?;
            if self.dead.is_some() {
                break;
            }
            if self.node().io.now().since_ms(start) > CALM_MS_MAX {
                return Err("a stop never ended".to_string());
            }
        }
        if self.dead.is_none() {
            // Acks of the last flush are as good as any.
            let keys: Vec<PartitionKey> = self.partitions.keys().copied().collect();
            keys.into_iter().try_for_each(|key| self.take_acks(key))?;
        }
        self.world.mark("clean_stop");
        self.node = None;
        Ok(())
    }

    /// No more faults: everything must be answered, a stop must end, and all of it must be there afterwards.
    fn calm(&mut self, end: End) -> Verdict {
        self.world.set_faults(Faults::calm());
        self.world.set_capacity(DATA_DIR.as_ref(), 1 << 30);
        self.plan.tight = false;
        self.start(end)?;
        let keys: Vec<PartitionKey> = self.partitions.keys().copied().collect();
        let mut left: Vec<PartitionKey> = keys.clone();
        left.retain(|key| !self.partitions[key].may_be_offline());
        let start = self.node().io.now();
        while !left.is_empty()
            || self.partitions.values().any(|p| p.oracle.waits() > 0)
            || !self.reads.is_empty()
        {
            let before = self.next_batch;
            if let Some(key) = left.pop() {
                self.plan.tight = true; // Space may be seen a moment later than it is there.
                self.produce(key)?;
                self.plan.tight = false;
                let took = self.partitions[&key].oracle.waits() > 0 || self.next_batch == before;
                if !took {
                    left.insert(0, key);
                }
                self.fetch(key);
            }
            self.turn(100)?;
            if self.node().io.now().since_ms(start) > CALM_MS_MAX {
                let waiting: Vec<_> = self
                    .partitions
                    .values()
                    .filter(|p| p.oracle.waits() > 0)
                    .map(|p| &p.oracle.name)
                    .collect();
                return Err(format!("not available: {left:?} take nothing, {waiting:?} are not acked"));
            }
        }
        self.stop()?;
        self.start(End::Stop)?;
        self.node = None;
        Ok(())
    }
}

impl Partition {
    /// Its damage was named: what is refused has a reason.
    fn is_named(&self) -> bool {
        self.harmed.is_some_and(|harmed| harmed.named)
    }

    fn may_be_offline(&self) -> bool {
        self.harmed.is_some_and(|harmed| harmed.offline)
    }

    /// Acked batches may be gone, and with them the producer's sequence: a new producer begins.
    fn renew_producer(&mut self) {
        self.producer.id = self.producer.id.map(|id| id + 100);
        self.producer.next = 0;
        self.producer.pending.clear();
    }

    /// Finds the bytes of a batch in one of the log's segments.
    fn locate(
        &mut self,
        id: BatchId,
        node: &mut Node,
        find: impl Fn(&std::path::Path, u64, &[u8]) -> Option<u64>,
    ) -> bool {
        let body = self.oracle.body(id).to_vec();
        if let Some(at) = find(&self.dir.join(&self.newest.0), self.newest.1, &body) {
            self.newest.1 = at;
            return true;
        }
        let entries = node.io.list_dir(&self.dir).unwrap_or_default();
        for entry in entries.into_iter().rev() {
            if let Some(at) = find(&self.dir.join(&entry.name), 0, &body) {
                self.newest = (entry.name, at);
                return true;
            }
        }
        false
    }
}
