//! One seed's life of a whole broker: real Kafka frames over a network that splits, delays and resets, several runs that end in
//! a stop, a kill or a power cut, each with another number of shards, then a calm phase. The store's own story looks closer; this
//! one looks from outside, as clients do.

mod answers;
mod asks;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use corelog::base::offset::{Durable, HighWatermark, LastStable, LogEnd, LogStart, Offset};
use corelog::io::sim::{DiskConfig, Faults, Rng, World};
use corelog::log::store::{Bounds, Durability};
use corelog::router::lanes::Planted;
use corelog::wire::msg::{FetchRequest, ListOffsetsRequest};

use crate::batch::{Batch, BatchId, parse};
use crate::kafka::{self, Answer, Client};
use crate::oracle::{End, Oracle, Verdict};
use crate::shards::{Broker, Setup};

/// Virtual time within which a calm broker must have answered everything.
const CALM_NS_MAX: u64 = 120_000_000_000;

/// Virtual time within which a calm broker brings records that are there, whatever else the fetch waits for.
const PROMPT_NS_MAX: u64 = 5_000_000_000;

/// Longest that one shard gets no turn.
const STALL_NS_MAX: u64 = 40_000_000_000;

struct Plan {
    clients: u64,
    topics: u64,
    runs: u64,
    steps: u64,
    stalls: bool,
    planted: Option<Planted>,
    faults: Faults,
}

/// A partition as its clients know it.
struct Partition {
    topic: usize,
    index: i32,
    oracle: Oracle,
    producer: Producer,
    next_fetch: i64,
    /// Where the log began at the latest, as far as answers said.
    start_seen: i64,
    /// The newest segment that this run was seen to have.
    newest_segment: Option<u64>,
}

/// One idempotent producer for each partition, or one without sequence numbers.
struct Producer {
    identity: Identity,
    next: i32,
    pending: VecDeque<Batch>,
    /// How many of `pending`, from the first on, are on their way.
    in_flight: usize,
}

impl Producer {
    /// Nothing of what was sent counts any more.
    fn begin_anew(&mut self) {
        let identity = if self.identity == Identity::None { Identity::None } else { Identity::Wanted };
        *self = Producer { identity, next: 0, pending: VecDeque::new(), in_flight: 0 };
    }
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
    /// Old segments go by themselves.
    retention: bool,
    created: Created,
    dir: PathBuf,
    /// How often it was deleted. What was asked of an earlier life tells nothing of this one.
    life: u32,
    /// A request for this name may still be on its way, and do its work on a later life.
    tainted: bool,
    growing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Created {
    No,
    Asked,
    Yes,
    /// It can only go: the request is on its way, or its answer was lost and it has to be sent again.
    Removing,
    RemovalLost,
}

/// A partition in a request: what is expected of its answer, in which life of its topic.
#[derive(Clone, Copy, Debug)]
struct Part {
    at: usize,
    life: u32,
    offset: i64,
}

/// What a request in flight is about.
#[derive(Clone, Debug)]
enum Asked {
    Create(usize),
    Remove(usize),
    /// To so many partitions.
    Grow(usize, u32, i32),
    Identity(usize, u32),
    Produce(Vec<(usize, BatchId)>),
    /// From an offset, with so many bytes at most.
    Fetch(Vec<Part>, i32),
    /// The end, which was known to be at an offset.
    Latest(Vec<Part>),
    Delete(Part),
}

pub struct Story {
    world: World,
    plan: Plan,
    /// For how the runs are set up.
    rng: Rng,
    setup: Setup,
    broker: Option<Broker>,
    clients: Vec<Client>,
    topics: Vec<Topic>,
    partitions: Vec<Partition>,
    asked: BTreeMap<u64, Asked>,
    next_name: u64,
    next_batch: u64,
    /// When the clients get a word in at the latest.
    next_wake: u64,
}

pub fn run(seed: u64, planted: Option<Planted>) -> (u64, Vec<(&'static str, u64)>) {
    let mut rng = Rng::new(seed ^ 0xb40c);
    let plan = Plan {
        clients: rng.between(1, 4),
        topics: rng.between(1, 3),
        runs: rng.between(1, 4),
        steps: rng.between(50, 300),
        stalls: rng.below(3) == 0,
        planted,
        faults: Faults::drawn(&mut rng),
    };
    let world = World::new(seed, plan.faults.clone());
    world.add_disk("/disk", DiskConfig { capacity_bytes: 8 << 30, ..DiskConfig::default() });
    let mut story = Story::new(world.clone(), plan, rng);
    if let Err(broken) = story.tell() {
        world.fail(broken);
    }
    drop(story);
    (world.trace(), world.covered())
}

impl Story {
    fn new(world: World, plan: Plan, mut rng: Rng) -> Story {
        let setup = Setup::drawn(&mut rng);
        let clients = (0..plan.clients).map(|_| Client::new(&world, setup.addrs())).collect();
        let mut story = Story {
            world,
            plan,
            rng,
            setup,
            broker: None,
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
        let mut configs =
            vec![("durability", text.to_string()), ("segment.bytes", segment_bytes.to_string())];
        // Few stories write as much as a segment holds, so segments end by their age.
        let retention = self.below(3) == 0;
        if retention || self.below(2) == 0 {
            configs.push(("segment.ms", (10 << self.below(8)).to_string()));
        }
        if retention {
            let bytes = [1, 10_000, 100_000][self.below(3) as usize];
            configs.push(("retention.bytes", bytes.to_string()));
        }
        self.topics.push(Topic {
            name: format!("topic-{topic}"),
            durability,
            partitions,
            configs,
            retention,
            created: Created::No,
            dir: PathBuf::new(),
            life: 0,
            tainted: false,
            growing: false,
        });
        (0..partitions).for_each(|index| self.add_partition(topic, index));
    }

    fn add_partition(&mut self, topic: usize, index: i32) {
        let mut oracle = Oracle::new(self.oracle_name(topic, index), self.topics[topic].durability);
        oracle.retention = self.topics[topic].retention;
        let identity = if self.below(2) == 0 { Identity::Wanted } else { Identity::None };
        let producer = Producer { identity, next: 0, pending: VecDeque::new(), in_flight: 0 };
        self.partitions.push(Partition {
            topic,
            index,
            oracle,
            producer,
            next_fetch: 0,
            start_seen: 0,
            newest_segment: None,
        });
    }

    fn oracle_name(&self, topic: usize, index: i32) -> String {
        let Topic { name, durability, life, .. } = &self.topics[topic];
        format!("{name}-{index} (life {life}, {durability:?})")
    }

    fn tell(&mut self) -> Verdict {
        let mut end = End::Stop;
        for _ in 0..self.plan.runs {
            self.start(end)?;
            for _ in 0..self.plan.steps {
                self.act();
                self.round()?;
            }
            end = self.end()?;
        }
        self.world.set_faults(Faults::calm());
        self.start(end)?;
        self.calm()?;
        self.stop()?;
        self.start(End::Stop)
    }

    fn broker(&mut self) -> &mut Broker {
        self.broker.as_mut().expect("a run")
    }

    fn start(&mut self, end: End) -> Verdict {
        self.setup = Setup { planted: self.plan.planted, ..Setup::drawn(&mut self.rng) };
        let broker = Broker::start(&self.world, self.setup);
        self.broker = Some(broker.map_err(|why| format!("does not start after {end:?}: {why}"))?);
        self.clients.iter_mut().for_each(|client| client.addrs = self.setup.addrs());
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
            let mut begins;
            loop {
                let from = next.unwrap_or(self.partitions[at].oracle.log_start());
                let (start, hw, records) = self.fetch_now(at, from)?;
                let partition = &mut self.partitions[at];
                if next.is_none() {
                    partition.oracle.recovered(end, bounds(start, hw))?;
                    if start > partition.oracle.log_start_asked() {
                        self.world.mark("retained");
                    }
                    (partition.next_fetch, partition.start_seen) = (start, start);
                    partition.newest_segment = None;
                }
                // Retention goes on while this reads.
                begins = if partition.oracle.retention { start } else { partition.oracle.log_start() };
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
            self.partitions[at].oracle.complete(begins, i64::MAX, &seen)?;
        }
        Ok(())
    }

    /// One fetch by a client of its own, to its end; broken connections are tried again. What begins behind `from` is read from its start.
    fn fetch_now(&mut self, at: usize, from: i64) -> Verdict<(i64, i64, Vec<u8>)> {
        let partition = &self.partitions[at];
        let (topic, index) = (self.topics[partition.topic].name.clone(), partition.index);
        let mut client = Client::new(&self.world, self.setup.addrs());
        let limit = self.world.now() + CALM_NS_MAX;
        let (asked, retention) = (partition.oracle.log_start_asked(), partition.oracle.retention);
        let (mut from, mut probing) = (from, false);
        while self.world.now() < limit {
            if client.in_flight() == 0 && probing {
                let named = [(topic.as_str(), index)];
                client.send(1, kafka::LIST_OFFSETS, &kafka::list_offsets(named, kafka::EARLIEST));
            } else if client.in_flight() == 0 {
                let parts = [((topic.as_str(), index), from)];
                client.send(0, kafka::FETCH, &kafka::fetch(parts, 1 << 20, 0, 1));
            }
            self.broker().turn()?;
            for answer in client.turn() {
                match answer {
                    Answer::Frame(0, frame) => {
                        let response = kafka::answer::<FetchRequest>(&frame, kafka::FETCH);
                        let of = &response.responses[0].partitions[0];
                        let records = of.records.as_ref().map_or_else(Vec::new, |bytes| bytes.to_vec());
                        match of.error_code {
                            0 => return Ok((of.log_start_offset, of.high_watermark, records)),
                            // A deletion whose answer was lost may have happened.
                            1 if asked > from || retention => probing = true,
                            1 => {
                                return Err(format!(
                                    "{topic}-{index}: {from} is out of range; asked {asked}"
                                ));
                            }
                            3 => return Err(format!("{topic}-{index} is gone")),
                            _ => {}
                        }
                    }
                    Answer::Frame(_, frame) => {
                        let response = kafka::answer::<ListOffsetsRequest>(&frame, kafka::LIST_OFFSETS);
                        let of = &response.topics[0].partitions[0];
                        if of.error_code == 0 && of.offset <= from {
                            return Err(format!(
                                "{topic}-{index}: {from} is out of range, and the log begins at {}",
                                of.offset
                            ));
                        }
                        if of.error_code == 0 {
                            (from, probing) = (of.offset, false);
                        }
                    }
                    Answer::Unknown(_) => {}
                }
            }
        }
        Err(format!("{topic}-{index}: a fetch from {from} never ended well"))
    }

    fn round(&mut self) -> Verdict {
        (0..self.setup.shards).try_for_each(|_| self.turn())
    }

    fn turn(&mut self) -> Verdict {
        let now = self.world.now();
        if now >= self.next_wake {
            self.next_wake = now + 50_000_000;
            self.world.wake_at(self.next_wake);
        }
        self.broker().turn()?;
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

    fn end(&mut self) -> Verdict<End> {
        let end = [End::Stop, End::Kill, End::Kill, End::Crash, End::Crash][self.below(5) as usize];
        if end == End::Stop {
            self.stop()?;
        } else {
            let broker = self.broker.take().expect("a run");
            match end {
                End::Kill => broker.kill(),
                _ => {
                    self.world.crash();
                    drop(broker);
                }
            }
        }
        for client in 0..self.clients.len() {
            self.disconnect(client);
        }
        for partition in &mut self.partitions {
            if partition.oracle.durability != Durability::Durable {
                // Acked batches may be gone, and with them the producer's sequence: a new producer begins.
                partition.producer.begin_anew();
            }
        }
        self.world.pass(self.below(3_000_000_000));
        Ok(end)
    }

    fn disconnect(&mut self, client: usize) {
        for answer in self.clients[client].disconnect() {
            if let Answer::Unknown(name) = answer {
                self.lost(name);
            }
        }
    }

    fn stop(&mut self) -> Verdict {
        self.broker().begin_stop();
        let limit = self.world.now() + CALM_NS_MAX;
        while !self.broker().is_stopped() {
            self.turn()?;
            if self.world.now() > limit {
                return Err("a stop never ended".to_string());
            }
        }
        for _ in 0..3 {
            self.turn()?;
        }
        self.world.mark("clean_stop");
        self.broker = None;
        Ok(())
    }

    /// No more faults: every partition takes a batch, and every request is answered by the shards that it is for.
    fn calm(&mut self) -> Verdict {
        self.clients.iter_mut().for_each(|client| client.deaf = false);
        let limit = self.world.now() + CALM_NS_MAX;
        for _ in 0..self.plan.steps / 4 {
            self.act_calmly();
            self.round()?;
        }
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
                    self.send_pending(client, &[at]);
                }
            }
            self.turn()?;
            if self.world.now() > limit {
                return Err(format!("not available: {served:?}, {}", self.state()));
            }
        }
        while self.clients.iter().any(|client| client.in_flight() > 0) {
            self.turn()?;
            if self.world.now() > limit {
                return Err(format!("unanswered: {}", self.state()));
            }
        }
        for client in 0..self.clients.len() {
            self.fetch_promptly(client)?;
        }
        match self.broker().late_total() {
            0 => Ok(()),
            late => Err(format!("{late} requests were answered without an owner on a calm day")),
        }
    }

    /// A fetch of several shards of which one has records: the others do not make it wait.
    fn fetch_promptly(&mut self, client: usize) -> Verdict {
        let count = self.partitions.len() as u64;
        let (full, empty) = (self.below(count) as usize, self.below(count) as usize);
        let owner = |at: usize| {
            let partition = &self.partitions[at];
            self.broker.as_ref()?.owner(&self.topics[partition.topic].name, partition.index)
        };
        let (start, end) =
            (self.partitions[full].oracle.log_start(), self.partitions[full].oracle.high_watermark());
        if owner(full) == owner(empty) || end <= start {
            return Ok(());
        }
        let parts =
            vec![self.part(empty, self.partitions[empty].oracle.high_watermark()), self.part(full, end - 1)];
        self.send_fetch(client, parts, 1 << 20, 60_000, 1);
        let limit = self.world.now() + PROMPT_NS_MAX;
        while self.clients[client].in_flight() > 0 {
            self.turn()?;
            if self.world.now() > limit {
                return Err("a fetch waits though one of its partitions has records".to_string());
            }
        }
        self.world.mark("fetched_promptly");
        Ok(())
    }

    fn state(&mut self) -> String {
        let created: Vec<_> = self.topics.iter().map(|topic| topic.created).collect();
        let state = |p: &Partition| (p.producer.identity, p.producer.pending.len(), p.producer.in_flight);
        let producers: Vec<_> = self.partitions.iter().map(state).collect();
        let clients: Vec<_> = self.clients.iter().map(Client::in_flight).collect();
        let (setup, connections) = (self.setup, self.broker().connections());
        format!("{created:?} {producers:?}, in flight {clients:?}, {setup:?}, connections {connections:?}")
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
