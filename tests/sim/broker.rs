//! One seed's life of a whole broker: real Kafka frames over a network that splits, delays and resets, several runs that end in
//! a stop, a kill or a power cut, then a calm phase. The store's own story looks closer; this one looks from outside, as clients do.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use corelog::base::ids::Uuid;
use corelog::base::limits::BLOCK_BYTES;
use corelog::base::offset::{Durable, HighWatermark, LastStable, LogEnd, LogStart, Offset};
use corelog::broker::assemble::assemble;
use corelog::broker::pump::Node;
use corelog::config::source::{Loader, Source};
use corelog::io::Io;
use corelog::io::sim::{DiskConfig, Faults, ProcessId, Rng, World};
use corelog::log::store::{Bounds, Durability};
use corelog::wire::msg::{
    Bytes, CreateTopicsRequest, DeleteRecordsRequest, FetchRequest, InitProducerIdRequest, ProduceRequest,
};

use crate::batch::{Batch, BatchId, Sequence, parse};
use crate::kafka::{self, Answer, Client};
use crate::oracle::{End, Oracle, Verdict};

const DATA_DIR: &str = "/disk/data";
const PORT: u16 = 9092;
const POOL_BYTES: usize = 32 * BLOCK_BYTES;

/// Virtual time within which a calm broker must have answered everything.
const CALM_NS_MAX: u64 = 120_000_000_000;

/// Batches that a producer may have in flight.
const IN_FLIGHT_MAX: usize = 5;

struct Plan {
    clients: u64,
    topics: u64,
    runs: u64,
    steps: u64,
    faults: Faults,
}

/// A partition as its clients know it.
struct Partition {
    topic: usize,
    index: i32,
    oracle: Oracle,
    producer: Producer,
    next_fetch: i64,
}

/// One idempotent producer for each partition, or one without sequence numbers.
struct Producer {
    identity: Identity,
    next: i32,
    pending: VecDeque<Batch>,
    /// How many of `pending`, from the first on, are on their way.
    in_flight: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    None,
    Wanted,
    Asked,
    Known(i64),
}

struct Topic {
    name: String,
    durability: Durability,
    partitions: i32,
    configs: Vec<(&'static str, String)>,
    created: Created,
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Created {
    No,
    Asked,
    Yes,
}

/// What a request in flight is about.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Create(usize),
    Identity(usize),
    Produce(usize, BatchId),
    Fetch(usize, i64),
    Delete(usize),
}

pub struct Story {
    world: World,
    plan: Plan,
    process: Option<ProcessId>,
    node: Option<Node>,
    addr: SocketAddr,
    clients: Vec<Client>,
    topics: Vec<Topic>,
    partitions: Vec<Partition>,
    asked: BTreeMap<u64, Asked>,
    next_name: u64,
    next_batch: u64,
    /// When the clients get a word in at the latest.
    next_wake: u64,
}

pub fn run(seed: u64) -> (u64, Vec<(&'static str, u64)>) {
    let mut rng = Rng::new(seed ^ 0xb40c);
    let plan = Plan {
        clients: rng.between(1, 3),
        topics: rng.between(1, 3),
        runs: rng.between(1, 4),
        steps: rng.between(50, 300),
        faults: Faults::drawn(&mut rng),
    };
    let world = World::new(seed, plan.faults.clone());
    world.add_disk("/disk", DiskConfig { capacity_bytes: 8 << 30, ..DiskConfig::default() });
    let mut story = Story::new(world.clone(), plan);
    if let Err(broken) = story.tell() {
        world.fail(broken);
    }
    drop(story);
    (world.trace(), world.covered())
}

impl Story {
    fn new(world: World, plan: Plan) -> Story {
        let addr = SocketAddr::from(([127, 0, 0, 1], PORT));
        let clients = (0..plan.clients).map(|_| Client::new(&world, addr)).collect();
        let mut story = Story {
            world,
            plan,
            process: None,
            node: None,
            addr,
            clients,
            topics: Vec::new(),
            partitions: Vec::new(),
            asked: BTreeMap::new(),
            next_name: 0,
            next_batch: 0,
            next_wake: 0,
        };
        (0..story.plan.topics).for_each(|_| story.add_topic());
        story
    }

    fn below(&self, end: u64) -> u64 {
        self.world.below(end)
    }

    fn add_topic(&mut self) {
        let (durability, text) = match self.below(6) {
            0 => (Durability::Written, "written"),
            1 => (Durability::Memory, "memory"),
            _ => (Durability::Durable, "durable"),
        };
        let partitions = 1 + self.below(3) as i32;
        let topic = self.topics.len();
        let segment_bytes = 1_048_576 << self.below(2);
        let configs = vec![("durability", text.to_string()), ("segment.bytes", segment_bytes.to_string())];
        let name = format!("topic-{topic}");
        for index in 0..partitions {
            let oracle = Oracle::new(format!("{name}-{index} ({durability:?})"), durability);
            let identity = if self.below(2) == 0 { Identity::Wanted } else { Identity::None };
            let producer = Producer { identity, next: 0, pending: VecDeque::new(), in_flight: 0 };
            self.partitions.push(Partition { topic, index, oracle, producer, next_fetch: 0 });
        }
        let dir = PathBuf::new();
        self.topics.push(Topic { name, durability, partitions, configs, created: Created::No, dir });
    }

    fn tell(&mut self) -> Verdict {
        let mut end = End::Stop;
        for _ in 0..self.plan.runs {
            self.start(end)?;
            for _ in 0..self.plan.steps {
                self.act();
                self.turn()?;
            }
            end = self.end()?;
        }
        self.world.set_faults(Faults::calm());
        self.start(end)?;
        self.calm()?;
        self.stop()?;
        self.start(End::Stop)
    }

    fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("a run")
    }

    fn start(&mut self, end: End) -> Verdict {
        let process = self.world.start_process();
        let io = Io::Sim(Box::new(self.world.io(process, POOL_BYTES)));
        let mut loader = Loader::default();
        for (key, value) in [
            ("log.dirs", DATA_DIR.to_string()),
            ("listeners", format!("PLAINTEXT://127.0.0.1:{PORT}")),
            ("auto.create.topics.enable", "false".to_string()),
        ] {
            loader.set(Source::Flag, key, &value).map_err(|fatal| fatal.to_string())?;
        }
        let config = loader.finish().map_err(|fatal| fatal.to_string())?;
        let assembled = assemble(vec![io], config, POOL_BYTES as u64);
        let (mut nodes, listening) =
            assembled.map_err(|fatal| format!("does not start after {end:?}: {fatal}"))?;
        let mut node = nodes.remove(0);
        for listening in &listening {
            node.server.serve(listening.listener, listening.for_all);
        }
        (self.process, self.node) = (Some(process), Some(node));
        self.verify(end)
    }

    /// Reads every partition from its start to its end, as a new consumer would, and compares.
    fn verify(&mut self, end: End) -> Verdict {
        for at in 0..self.partitions.len() {
            if self.topics[self.partitions[at].topic].created != Created::Yes {
                continue;
            }
            let mut next = None;
            let mut seen = BTreeMap::new();
            loop {
                let from = next.unwrap_or(self.partitions[at].oracle.log_start());
                let (start, hw, records) = self.fetch_now(at, from)?;
                let partition = &mut self.partitions[at];
                if next.is_none() {
                    partition.oracle.recovered(end, bounds(start, hw))?;
                    partition.next_fetch = start;
                }
                let name = partition.oracle.name.clone();
                let found = parse(&records).map_err(|e| format!("{name}: fetch from {from}: {e}"))?;
                seen.extend(found.iter().map(|batch| (batch.base_offset, batch.id)));
                let reached = partition.oracle.fetched(from.max(start), hw, &found)?;
                next = Some(reached);
                if reached >= hw {
                    break;
                }
                if found.is_empty() && from >= start && from < hw {
                    return Err(format!("{name}: a fetch from {from} below {hw} found nothing"));
                }
            }
            let start = self.partitions[at].oracle.log_start();
            self.partitions[at].oracle.complete(start, i64::MAX, &seen)?;
        }
        Ok(())
    }

    /// One fetch by a client of its own, to its end; broken connections are tried again.
    fn fetch_now(&mut self, at: usize, from: i64) -> Verdict<(i64, i64, Vec<u8>)> {
        let partition = &self.partitions[at];
        let (topic, index) = (self.topics[partition.topic].name.clone(), partition.index);
        let mut client = Client::new(&self.world, self.addr);
        let limit = self.world.now() + CALM_NS_MAX;
        let asked = partition.oracle.log_start_asked();
        let (mut from, mut probing) = (from, false);
        while self.world.now() < limit {
            if client.in_flight() == 0 {
                client.send(0, kafka::FETCH, &kafka::fetch(&topic, index, from, 1 << 20, 0));
            }
            self.node().turn();
            for answer in client.turn() {
                let Answer::Frame(_, frame) = answer else { continue };
                let response = kafka::answer::<FetchRequest>(&frame, kafka::FETCH);
                let Some(of) = response.responses.first().and_then(|t| t.partitions.first()) else {
                    continue;
                };
                match of.error_code {
                    0 if probing => (from, probing) = (of.log_start_offset, false),
                    0 => {
                        let records = of.records.as_ref().map_or_else(Vec::new, |bytes| bytes.to_vec());
                        return Ok((of.log_start_offset, of.high_watermark, records));
                    }
                    // A deletion whose answer was lost may have happened: behind it, a fetch tells where the log begins.
                    1 if !probing && asked > from => (from, probing) = (asked, true),
                    1 => {
                        return Err(format!("{topic}-{index}: offset {from} is out of range; asked {asked}"));
                    }
                    _ => {}
                }
            }
        }
        Err(format!("{topic}-{index}: a fetch from {from} never ended well"))
    }

    fn act(&mut self) {
        for _ in 0..=self.below(3) {
            let client = self.below(self.clients.len() as u64) as usize;
            let at = self.below(self.partitions.len() as u64) as usize;
            match self.below(40) {
                0..20 => self.produce(client, at),
                20..35 => self.fetch(client, at),
                35 => self.delete_records(client, at),
                36 => self.clients[client].deaf = self.below(3) == 0,
                37 if self.below(4) == 0 => {
                    let answers = self.clients[client].disconnect();
                    answers.into_iter().for_each(|answer| self.unknown(answer));
                }
                _ => self.world.pass(self.below(300_000_000)),
            }
        }
    }

    fn unknown(&mut self, answer: Answer) {
        if let Answer::Unknown(name) = answer {
            self.lost(name);
        }
    }

    /// What to do first before a partition can be used; true if it is ready.
    fn prepare(&mut self, client: usize, at: usize) -> bool {
        let topic = self.partitions[at].topic;
        if self.topics[topic].created != Created::Yes {
            if self.topics[topic].created == Created::No {
                let Topic { name, partitions, configs, .. } = &self.topics[topic];
                let request = kafka::create_topic(name, *partitions, configs);
                if self.send(client, Asked::Create(topic), kafka::CREATE_TOPICS, &request) {
                    self.topics[topic].created = Created::Asked;
                }
            }
            return false;
        }
        if self.partitions[at].producer.identity == Identity::Wanted
            && self.send(client, Asked::Identity(at), kafka::INIT_PRODUCER_ID, &kafka::init_producer_id())
        {
            self.partitions[at].producer.identity = Identity::Asked;
        }
        !matches!(self.partitions[at].producer.identity, Identity::Wanted | Identity::Asked)
    }

    fn send<R: corelog::wire::msg::Call>(
        &mut self,
        client: usize,
        about: Asked,
        version: i16,
        request: &R,
    ) -> bool {
        self.next_name += 1;
        let sent = self.clients[client].send(self.next_name, version, request);
        if sent {
            self.asked.insert(self.next_name, about);
        }
        sent
    }

    /// A producer keeps to one connection, so that its batches arrive in order.
    fn produce(&mut self, client: usize, at: usize) {
        let client = if self.partitions[at].producer.identity == Identity::None {
            client
        } else {
            at % self.clients.len()
        };
        if !self.prepare(client, at) {
            return;
        }
        let wall_ms = 1_700_000_000_000 + (self.world.now() / 1_000_000) as i64;
        let producer = &self.partitions[at].producer;
        if producer.pending.len() < IN_FLIGHT_MAX {
            self.next_batch += 1;
            let records = 1 + self.below(5) as u32;
            let padding = if self.below(8) == 0 { self.below(60_000) } else { self.below(500) } as usize;
            let producer = &mut self.partitions[at].producer;
            let sequence = match producer.identity {
                Identity::Known(id) => Some(Sequence { producer: id, first: producer.next }),
                _ => None,
            };
            let batch =
                Batch::new(BatchId(self.next_batch), records, padding / records as usize, wall_ms, sequence);
            producer.next += records as i32;
            producer.pending.push_back(batch.clone());
            self.partitions[at].oracle.sent(batch);
        }
        self.send_pending(client, at);
    }

    fn send_pending(&mut self, client: usize, at: usize) {
        while self.partitions[at].producer.in_flight < self.partitions[at].producer.pending.len() {
            let partition = &self.partitions[at];
            let batch = &partition.producer.pending[partition.producer.in_flight];
            let acks = if self.below(2) == 0 { 1 } else { -1 };
            let request =
                kafka::produce(&self.topics[partition.topic].name, partition.index, &batch.bytes, acks);
            let about = Asked::Produce(at, batch.id);
            if !self.send(client, about, kafka::PRODUCE, &request) {
                return;
            }
            self.partitions[at].producer.in_flight += 1;
        }
    }

    fn fetch(&mut self, client: usize, at: usize) {
        if self.topics[self.partitions[at].topic].created != Created::Yes
            || self.clients[client].in_flight() > 20
        {
            return;
        }
        let (max_bytes, max_wait_ms) = (1 << self.below(21), self.below(500) as i32);
        let partition = &self.partitions[at];
        let from = partition.next_fetch;
        let topic = &self.topics[partition.topic].name;
        let request = kafka::fetch(topic, partition.index, from, max_bytes, max_wait_ms);
        self.send(client, Asked::Fetch(at, from), kafka::FETCH, &request);
    }

    fn delete_records(&mut self, client: usize, at: usize) {
        let partition = &mut self.partitions[at];
        let (start, hw) = (partition.oracle.log_start(), partition.oracle.high_watermark());
        if self.topics[partition.topic].created != Created::Yes || hw <= start {
            return;
        }
        let offset = start + self.world.below((hw - start) as u64 + 1) as i64;
        partition.oracle.asked_log_start(offset);
        let request = kafka::delete_records(&self.topics[partition.topic].name, partition.index, offset);
        self.send(client, Asked::Delete(at), kafka::DELETE_RECORDS, &request);
    }

    fn turn(&mut self) -> Verdict {
        let now = self.world.now();
        if now >= self.next_wake {
            self.next_wake = now + 50_000_000;
            self.world.wake_at(self.next_wake);
        }
        self.node().turn();
        if let Some(why) = &self.node().dead {
            return Err(format!("died without a failed operation: {why}"));
        }
        for client in 0..self.clients.len() {
            for answer in self.clients[client].turn() {
                match answer {
                    Answer::Frame(name, frame) => self.answered(name, &frame)?,
                    Answer::Unknown(name) => self.lost(name),
                }
            }
        }
        Ok(())
    }

    fn answered(&mut self, name: u64, frame: &Bytes) -> Verdict {
        match self.asked.remove(&name).expect("asked") {
            Asked::Create(topic) => {
                let response = kafka::answer::<CreateTopicsRequest>(frame, kafka::CREATE_TOPICS);
                let code = response.topics[0].error_code;
                // 36: an earlier request did it, and its answer was lost.
                if code != 0 && code != 36 {
                    return Err(format!("topic {topic} is not created: {code}"));
                }
                self.topics[topic].created = Created::Yes;
                if code == 0 {
                    let id = Uuid(*response.topics[0].topic_id.as_bytes());
                    self.topics[topic].dir = Path::new(DATA_DIR).join(id.to_string());
                }
            }
            Asked::Identity(at) => {
                let response = kafka::answer::<InitProducerIdRequest>(frame, kafka::INIT_PRODUCER_ID);
                if response.error_code != 0 {
                    self.world.mark("identity_refused");
                }
                let known = Identity::Known(response.producer_id);
                self.partitions[at].producer.identity =
                    if response.error_code == 0 { known } else { Identity::Wanted };
            }
            Asked::Produce(at, id) => self.produced(at, id, frame)?,
            Asked::Fetch(at, from) => self.fetched(at, from, frame)?,
            Asked::Delete(at) => {
                let response = kafka::answer::<DeleteRecordsRequest>(frame, kafka::DELETE_RECORDS);
                let of = &response.topics[0].partitions[0];
                if of.error_code == 0 {
                    self.partitions[at].oracle.log_start_durable(of.low_watermark);
                    self.world.mark("delete_records");
                }
            }
        }
        Ok(())
    }

    fn produced(&mut self, at: usize, id: BatchId, frame: &Bytes) -> Verdict {
        let response = kafka::answer::<ProduceRequest>(frame, kafka::PRODUCE);
        let of = &response.responses[0].partition_responses[0];
        let partition = &mut self.partitions[at];
        let Some(place) = partition.producer.pending.iter().position(|batch| batch.id == id) else {
            return Ok(());
        };
        match of.error_code {
            0 => {
                partition.oracle.answered(id, of.base_offset)?;
                partition.producer.pending.remove(place);
                partition.producer.in_flight = partition.producer.in_flight.saturating_sub(1);
                self.check_disk(at, id, of.base_offset)
            }
            // Not available for a moment, or out of order behind a batch that was lost: all are sent again, in order.
            5 | 6 | 7 | 45 | 56 => {
                self.world.mark("produce_refused");
                self.send_again(at);
                Ok(())
            }
            code => Err(format!("{}: {id:?} is refused with {code}", partition.oracle.name)),
        }
    }

    /// The bytes of an acked record are where its level says, at this moment.
    fn check_disk(&mut self, at: usize, id: BatchId, base: i64) -> Verdict {
        let partition = &self.partitions[at];
        if base < partition.oracle.log_start_asked() {
            // Its segment may be gone by now.
            return Ok(());
        }
        let topic = &self.topics[partition.topic];
        if topic.dir.as_os_str().is_empty() || partition.oracle.durability == Durability::Memory {
            return Ok(());
        }
        let dir = topic.dir.join(partition.index.to_string());
        let body = partition.oracle.body(id).to_vec();
        let name = partition.oracle.name.clone();
        let durable = topic.durability == Durability::Durable;
        let world = self.world.clone();
        let listed = self.node().io.list_dir(&dir).unwrap_or_default();
        let found = listed.iter().rev().any(|entry| {
            let path = dir.join(&entry.name);
            let at =
                if durable { world.find_flushed(&path, 0, &body) } else { world.find_live(&path, 0, &body) };
            at.is_some()
        });
        if found { Ok(()) } else { Err(format!("{name}: {id:?} was acked and is not on the disk")) }
    }

    fn fetched(&mut self, at: usize, from: i64, frame: &Bytes) -> Verdict {
        let response = kafka::answer::<FetchRequest>(frame, kafka::FETCH);
        let Some(of) = response.responses.first().and_then(|topic| topic.partitions.first()) else {
            return Ok(());
        };
        let partition = &mut self.partitions[at];
        match of.error_code {
            0 => {
                let records = of.records.as_ref().map_or_else(Vec::new, |bytes| bytes.to_vec());
                let name = &partition.oracle.name;
                let found = parse(&records).map_err(|e| format!("{name}: fetch from {from}: {e}"))?;
                let reached = partition.oracle.fetched(from, of.high_watermark, &found)?;
                partition.oracle.saw_high_watermark(of.high_watermark);
                partition.next_fetch = if reached > from { reached } else { partition.oracle.log_start() };
                Ok(())
            }
            1 => {
                partition.next_fetch = partition.oracle.log_start_asked();
                self.world.mark("out_of_range");
                Ok(())
            }
            code => Err(format!("{}: fetch from {from}: error {code}", partition.oracle.name)),
        }
    }

    /// The connection broke under a request: nobody knows.
    fn lost(&mut self, name: u64) {
        self.world.mark("unknown_outcome");
        match self.asked.remove(&name).expect("asked") {
            Asked::Create(topic) => self.topics[topic].created = Created::No,
            Asked::Identity(at) => self.partitions[at].producer.identity = Identity::Wanted,
            Asked::Produce(at, _) => self.send_again(at),
            Asked::Fetch(..) | Asked::Delete(_) => {}
        }
    }

    /// An idempotent producer sends everything again that is not acked; any other gives it up.
    fn send_again(&mut self, at: usize) {
        let producer = &mut self.partitions[at].producer;
        producer.in_flight = 0;
        if producer.identity == Identity::None {
            producer.pending.clear();
        }
    }

    fn end(&mut self) -> Verdict<End> {
        let end = [End::Stop, End::Kill, End::Kill, End::Crash, End::Crash][self.below(5) as usize];
        if end == End::Stop {
            self.stop()?;
        } else {
            let node = self.node.take().expect("a run");
            match end {
                End::Kill => self.world.kill(self.process.expect("a run")),
                _ => self.world.crash(),
            }
            drop(node);
        }
        for client in 0..self.clients.len() {
            let answers = self.clients[client].disconnect();
            answers.into_iter().for_each(|answer| self.unknown(answer));
        }
        for at in 0..self.partitions.len() {
            let partition = &mut self.partitions[at];
            if partition.oracle.durability != Durability::Durable {
                // Acked batches may be gone, and with them the producer's sequence: a new producer begins.
                partition.producer.pending.clear();
                partition.producer.next = 0;
                if partition.producer.identity != Identity::None {
                    partition.producer.identity = Identity::Wanted;
                }
            }
        }
        self.world.pass(self.below(3_000_000_000));
        Ok(end)
    }

    fn stop(&mut self) -> Verdict {
        self.node().begin_stop();
        let limit = self.world.now() + CALM_NS_MAX;
        while !self.node().is_stopped() {
            self.turn()?;
            if self.world.now() > limit {
                return Err("a stop never ended".to_string());
            }
        }
        for _ in 0..3 {
            self.turn()?;
        }
        self.world.mark("clean_stop");
        self.node = None;
        Ok(())
    }

    /// No more faults: every partition takes a batch and answers for all it was sent.
    fn calm(&mut self) -> Verdict {
        let limit = self.world.now() + CALM_NS_MAX;
        self.clients.iter_mut().for_each(|client| client.deaf = false);
        let before: Vec<u64> = self.partitions.iter().map(|partition| partition.oracle.acked).collect();
        let mut served = vec![false; self.partitions.len()];
        while !served.iter().all(|done| *done) {
            for at in 0..self.partitions.len() {
                let pending = self.partitions[at].producer.pending.len();
                served[at] |= self.partitions[at].oracle.acked > before[at] && pending == 0;
                if served[at] {
                    continue;
                }
                let client = at % self.clients.len();
                if pending == 0 {
                    self.produce(client, at);
                } else if self.prepare(client, at) {
                    self.send_pending(client, at);
                }
            }
            self.turn()?;
            if self.world.now() > limit {
                let created: Vec<_> = self.topics.iter().map(|topic| topic.created).collect();
                let state =
                    |p: &Partition| (p.producer.identity, p.producer.pending.len(), p.producer.in_flight);
                let producers: Vec<_> = self.partitions.iter().map(state).collect();
                let clients: Vec<_> = self.clients.iter().map(Client::in_flight).collect();
                return Err(format!(
                    "not available: {served:?} {created:?} {producers:?}, in flight {clients:?}"
                ));
            }
        }
        Ok(())
    }
}

fn bounds(start: i64, hw: i64) -> Bounds {
    Bounds {
        log_start: LogStart(Offset(start)),
        log_end: LogEnd(Offset(hw)),
        durable: Durable(Offset(hw)),
        high_watermark: HighWatermark(Offset(hw)),
        last_stable: LastStable(Offset(hw)),
        leader_epoch: corelog::base::ids::LeaderEpoch::NONE,
    }
}
