//! One write or flush of one shard fails. All shards write to one device, whose cache may have held what others had written and not yet
//! flushed: their acks end, too, with that of the shard that saw it.

use std::collections::BTreeMap;

use corelog::base::ids::PartitionKey;
use corelog::io::Errno;
use corelog::io::sim::{Injected, OpKind};
use corelog::wire::msg::{Bytes, Call, DeleteTopicsRequest, FetchRequest, ProduceRequest};

use crate::batch::{BatchId, parse};
use crate::kafka::{self, Answer, Client};
use crate::moves::{SECOND, Scene, TOPIC};
use crate::number;
use crate::shards::{Broker, Setup};

const KAFKA_STORAGE_ERROR: i16 = 56;

/// Seeds of an ordinary run.
const SEEDS: u64 = 40;

/// Requests of a client that wait for answers.
const IN_FLIGHT_MAX: usize = 4;

struct Sent {
    partition: i32,
    /// Some shard knew already that acks have ended.
    late: bool,
}

struct Story {
    scene: Scene,
    clients: Vec<Client>,
    sent: BTreeMap<u64, Sent>,
    /// Partition and offset of each batch that was acknowledged.
    acked: BTreeMap<u64, (i32, i64)>,
    refused_late: usize,
    /// Once some shard has died.
    final_marks: Option<BTreeMap<PartitionKey, i64>>,
}

impl Story {
    fn new(seed: u64) -> Story {
        let shards = 2 + (seed % 3) as u16;
        let setup = Setup { shards, advertise_shards: seed.is_multiple_of(2), ..Setup::plain() };
        let mut scene = Scene::new(seed, setup);
        scene.broker.may_die = true;
        let clients = (0..shards).map(|shard| scene.client(shard)).collect();
        Story {
            scene,
            clients,
            sent: BTreeMap::new(),
            acked: BTreeMap::new(),
            refused_late: 0,
            final_marks: None,
        }
    }

    fn fail(&self, what: impl std::fmt::Display) -> ! {
        self.scene.world.fail(what)
    }

    /// A turn of some shard. Nothing that it does moves a high watermark once any shard saw the failure.
    fn turn(&mut self) {
        let Scene { world, broker, next_wake, .. } = &mut self.scene;
        if world.now() >= *next_wake {
            *next_wake = world.now() + 5_000_000;
            world.wake_at(*next_wake);
        }
        broker.turn().unwrap_or_else(|why| world.fail(why));
        let marks = broker.high_watermarks();
        match &self.final_marks {
            None if broker.deaths().is_empty() => {}
            None => self.final_marks = Some(marks),
            Some(last) => {
                let moved = marks.iter().find(|(key, mark)| last.get(*key).is_some_and(|last| last != *mark));
                if let Some((key, mark)) = moved {
                    self.fail(format_args!("{key:?} was committed up to {mark} after the failure"));
                }
            }
        }
    }

    /// Produces everywhere, a turn at a time.
    fn produce(&mut self) {
        let late = self.final_marks.is_some();
        for at in 0..self.clients.len() {
            if self.clients[at].in_flight() < IN_FLIGHT_MAX {
                let partition = self.scene.world.below(self.clients.len() as u64) as i32;
                self.scene.produce(&mut self.clients[at], partition);
                self.sent.insert(self.scene.next_batch, Sent { partition, late });
            }
        }
        self.turn();
        self.take_produced();
    }

    fn take_produced(&mut self) {
        for at in 0..self.clients.len() {
            for answer in self.clients[at].turn() {
                match answer {
                    Answer::Frame(name, frame) if self.sent.contains_key(&name) => {
                        self.produced(name, &frame);
                    }
                    _ => {}
                }
            }
        }
    }

    fn produced(&mut self, name: u64, frame: &Bytes) {
        let response = kafka::answer::<ProduceRequest>(frame, kafka::PRODUCE);
        let outcome = &response.responses[0].partition_responses[0];
        let Sent { partition, late } = self.sent.remove(&name).expect("asked once");
        match outcome.error_code {
            0 if late => self.fail(format_args!("batch {name} was sent after the failure and acknowledged")),
            0 => drop(self.acked.insert(name, (partition, outcome.base_offset))),
            KAFKA_STORAGE_ERROR => self.refused_late += usize::from(late),
            other => self.fail(format_args!("batch {name} is answered with {other}")),
        }
    }

    /// An answer of the first client, which has nothing else in flight.
    fn ask<R: Call>(&mut self, version: i16, request: &R) -> R::Response {
        let limit = self.scene.world.now() + 10 * SECOND;
        let sent = self.clients[0].send(0, version, request);
        assert!(sent, "a connection");
        loop {
            self.turn();
            if let Some(Answer::Frame(_, frame)) = self.clients[0].turn().into_iter().next() {
                return kafka::answer::<R>(&frame, version);
            }
            if self.scene.world.now() > limit {
                self.fail("no answer");
            }
        }
    }

    /// Whatever was acknowledged can be read.
    fn check_acked(&mut self) {
        for partition in 0..i32::from(self.scene.broker.setup.shards) {
            let mut wanted: BTreeMap<i64, BatchId> = BTreeMap::new();
            wanted.extend(
                self.acked.iter().filter(|(_, at)| at.0 == partition).map(|(id, at)| (at.1, BatchId(*id))),
            );
            let mut next = 0;
            while let Some((last, _)) = wanted.last_key_value()
                && next <= *last
            {
                let request = kafka::fetch([((TOPIC, partition), next)], 1 << 20, 0, 1);
                let response = self.ask::<FetchRequest>(kafka::FETCH, &request);
                let data = &response.responses[0].partitions[0];
                let bytes = data.records.as_ref().map_or_else(Vec::new, |bytes| bytes.to_vec());
                let found = parse(&bytes).unwrap_or_else(|why| self.fail(why));
                let Some(end) = found.last() else {
                    self.fail(format_args!("nothing at {next} of {partition}: error {}", data.error_code));
                };
                next = end.base_offset + 1;
                for batch in &found {
                    if wanted.get(&batch.base_offset).is_some_and(|id| *id != batch.id) {
                        self.fail(format_args!("{:?} is where another was acknowledged", batch.id));
                    }
                    wanted.remove(&batch.base_offset);
                }
                if let Some((offset, id)) = wanted.first_key_value().filter(|(offset, _)| **offset < next) {
                    self.fail(format_args!("{id:?}, acknowledged at {offset} of {partition}, is gone"));
                }
            }
        }
    }

    fn stop(&mut self) {
        self.scene.broker.begin_stop();
        let limit = self.scene.world.now() + 20 * SECOND;
        while !self.scene.broker.is_stopped() {
            self.turn();
            self.clients.iter_mut().for_each(|client| drop(client.turn()));
            if self.scene.world.now() > limit {
                self.fail("a stop never ends");
            }
        }
    }

    fn restart(self, crashed: bool) -> Story {
        let Story { scene: Scene { world, broker, next_batch, .. }, acked, .. } = self;
        let setup = broker.setup;
        if crashed {
            world.crash();
            drop(broker);
        } else {
            broker.kill();
        }
        let broker = Broker::start(&world, setup).unwrap_or_else(|why| world.fail(why));
        let scene = Scene { world, broker, next_batch, next_wake: 0 };
        let clients = vec![scene.client(0)];
        Story { scene, clients, sent: BTreeMap::new(), acked, refused_late: 0, final_marks: None }
    }
}

fn tell(seed: u64) {
    let mut story = Story::new(seed);
    let world = story.scene.world.clone();
    let shards = story.clients.len();
    let kind = [OpKind::Write, OpKind::Flush][world.below(2) as usize];
    world.place_fault(kind, world.below(60), Injected::Fails(Errno::IO));
    let limit = world.now() + 100 * SECOND;
    while story.refused_late < 5 * shards {
        story.produce();
        if world.now() > limit {
            story.fail("acks never ended");
        }
    }
    let limit = world.now() + 10 * SECOND;
    while story.clients.iter().any(|client| client.in_flight() > 0) {
        story.turn();
        story.take_produced();
        if world.now() > limit {
            story.fail("a request is never answered");
        }
    }
    let deaths = story.scene.broker.deaths();
    assert_eq!(deaths.len(), shards, "seed {seed}: {deaths:?}");
    let told = deaths.iter().filter(|why| why.contains("(seen by shard ")).count();
    assert_eq!(told, shards - 1, "seed {seed}: one saw it, the others know which: {deaths:?}");
    story.check_acked();
    if seed.is_multiple_of(4) {
        let deleted = story.ask::<DeleteTopicsRequest>(kafka::DELETE_TOPICS, &kafka::delete_topic(TOPIC));
        assert_eq!(deleted.responses[0].error_code, 0, "seed {seed}");
        return story.stop();
    }
    let crashed = seed.is_multiple_of(2);
    if !crashed {
        story.stop();
    }
    story.restart(crashed).check_acked();
}

/// Returns true if it was a write of the metadata that failed, not one of a log.
fn tell_of_metadata(seed: u64) -> bool {
    let mut story = Story::new(seed);
    let world = story.scene.world.clone();
    (0..world.below(200)).for_each(|_| story.produce());
    world.place_fault(OpKind::Flush, world.below(3), Injected::Fails(Errno::IO));
    let request = kafka::create_topic("another", 1, &[]);
    assert!(story.clients[0].send(0, kafka::CREATE_TOPICS, &request), "a connection");
    while story.final_marks.is_none() {
        story.produce();
    }
    let of_metadata = story.scene.broker.deaths()[0].contains("metadata");
    if of_metadata {
        let limit = world.now() + 20 * SECOND;
        // All end: without metadata nobody goes on.
        while !story.scene.broker.is_stopped() {
            story.turn();
            story.take_produced();
            if world.now() > limit {
                story.fail("a shard does not end");
            }
        }
        assert_eq!(story.scene.broker.deaths().len(), usize::from(story.scene.broker.setup.shards));
        story.restart(seed.is_multiple_of(2)).check_acked();
    }
    of_metadata
}

#[test]
fn a_failed_write_of_the_metadata_ends_the_acks_of_all() {
    let seeds = number("SEED").map_or(0..number("SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    let count = seeds.clone().filter(|seed| tell_of_metadata(*seed)).count() as u64;
    assert!(count > 0 || seeds.end - seeds.start < SEEDS, "no seed failed a write of the metadata");
}

#[test]
fn a_failure_that_one_shard_saw_ends_the_acks_of_all() {
    let seeds = number("SEED").map_or(0..number("SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    seeds.for_each(tell);
}
