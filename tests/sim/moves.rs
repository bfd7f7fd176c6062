//! Single scenes with several shards: a connection that moves in the middle of a frame, a shard that stands still.

use std::net::SocketAddr;

use corelog::io::sim::{DiskConfig, Faults, World};
use corelog::wire::msg::{Bytes, CreateTopicsRequest, ProduceRequest};

use crate::batch::{Batch, BatchId};
use crate::kafka::{self, Answer, Client};
use crate::shards::{ADVERTISED_PORT, Broker, Setup};

pub const SECOND: u64 = 1_000_000_000;
pub const TOPIC: &str = "topic";

pub struct Scene {
    pub world: World,
    pub broker: Broker,
    /// The number of the last one that was produced, and the name of its request.
    pub next_batch: u64,
    pub next_wake: u64,
}

impl Scene {
    /// A broker with one partition for each shard.
    pub fn new(seed: u64, setup: Setup) -> Scene {
        let world = World::new(seed, Faults { split: 300_000, ..Faults::none() });
        world.add_disk("/disk", DiskConfig { capacity_bytes: 8 << 30, ..DiskConfig::default() });
        let broker = Broker::start(&world, setup).unwrap_or_else(|why| world.fail(why));
        let mut scene = Scene { world, broker, next_batch: 0, next_wake: 0 };
        let mut client = scene.client(0);
        client.send(0, kafka::CREATE_TOPICS, &kafka::create_topic(TOPIC, i32::from(setup.shards), &[]));
        let frames = scene.answers(&mut client, 1, SECOND);
        let response = kafka::answer::<CreateTopicsRequest>(&frames[0], kafka::CREATE_TOPICS);
        assert_eq!(response.topics[0].error_code, 0);
        scene
    }

    /// A client of this shard, where shards are advertised.
    pub fn client(&self, shard: u16) -> Client {
        let addrs = self.broker.setup.addrs();
        let own = SocketAddr::from(([127, 0, 0, 1], ADVERTISED_PORT + shard));
        let addr = if self.broker.setup.advertise_shards { own } else { addrs[0] };
        Client::new(&self.world, vec![addr])
    }

    /// The partition that lives on this shard.
    pub fn partition(&self, shard: u16) -> i32 {
        let shards = i32::from(self.broker.setup.shards);
        let lives = |index: &i32| self.broker.owner(TOPIC, *index).is_some_and(|owner| owner.0 == shard);
        (0..shards).find(lives).unwrap_or_else(|| self.world.fail("a shard without a partition"))
    }

    pub fn produce(&mut self, client: &mut Client, partition: i32) {
        self.next_batch += 1;
        let batch = Batch::new(BatchId(self.next_batch), 1, 300, 1_700_000_000_000, None);
        let request = kafka::produce([((TOPIC, partition), &batch.bytes[..])], -1);
        assert!(client.send(self.next_batch, kafka::PRODUCE, &request), "a connection");
    }

    fn turn(&mut self, client: &mut Client) -> Vec<Bytes> {
        if self.world.now() >= self.next_wake {
            self.next_wake = self.world.now() + 5_000_000;
            self.world.wake_at(self.next_wake);
        }
        self.broker.turn().unwrap_or_else(|why| self.world.fail(why));
        let frame = |answer| match answer {
            Answer::Frame(_, frame) => frame,
            Answer::Unknown(name) => self.world.fail(format_args!("the connection of {name} broke")),
        };
        client.turn().into_iter().map(frame).collect()
    }

    /// Lets the shards do as they like for so long.
    fn pass(&mut self, ns: u64) {
        let limit = self.world.now() + ns;
        self.world.wake_at(limit);
        while self.world.now() < limit {
            self.broker.turn().unwrap_or_else(|why| self.world.fail(why));
        }
    }

    fn answers(&mut self, client: &mut Client, count: usize, within: u64) -> Vec<Bytes> {
        let limit = self.world.now() + within;
        let mut frames = Vec::new();
        while frames.len() < count {
            frames.extend(self.turn(client));
            if self.world.now() > limit {
                self.world.fail(format_args!("{} answers of {count} in time", frames.len()));
            }
        }
        frames
    }

    fn errors(&mut self, client: &mut Client, count: usize, within: u64) -> Vec<i16> {
        let frames = self.answers(client, count, within);
        let error = |frame: &Bytes| {
            let response = kafka::answer::<ProduceRequest>(frame, kafka::PRODUCE);
            response.responses[0].partition_responses[0].error_code
        };
        frames.iter().map(error).collect()
    }
}

#[test]
fn a_connection_moves_with_half_a_frame() {
    let setup = Setup { shards: 2, credits: 2, handover_requests: 4, ..Setup::plain() };
    for seed in 0..20 {
        let mut scene = Scene::new(seed, setup);
        let mut client = scene.client(0);
        // Whichever shard has accepted it, it goes to the one and then to the other.
        for shard in [0, 1, 0, 1] {
            let partition = scene.partition(shard);
            client.held_back = 150;
            (0..9).for_each(|_| scene.produce(&mut client, partition));
            assert_eq!(scene.errors(&mut client, 8, SECOND), [0; 8]);
            let limit = scene.world.now() + SECOND;
            while scene.broker.connections()[usize::from(shard)] == 0 {
                assert!(scene.turn(&mut client).is_empty(), "half a frame has no answer");
                assert!(scene.world.now() < limit, "seed {seed}: it does not move to {shard}");
            }
            client.held_back = 0;
            // The other half, and what follows it without a pause.
            (0..20).for_each(|_| scene.produce(&mut client, partition));
            assert_eq!(scene.errors(&mut client, 21, SECOND), [0; 21]);
        }
        assert_eq!(scene.broker.connections().iter().sum::<usize>(), 1);
    }
}

#[test]
fn a_shard_that_stands_still_harms_nobody_else() {
    let setup = Setup { shards: 3, credits: 1, advertise_shards: true, ..Setup::plain() };
    for seed in 0..3 {
        let mut scene = Scene::new(seed, setup);
        let (mut at_peace, mut patient, mut crowd) = (scene.client(0), scene.client(0), scene.client(1));
        let partitions = [0, 1, 2].map(|shard| scene.partition(shard));
        scene.broker.stall(2, 45 * SECOND);
        for partition in partitions {
            scene.produce(&mut patient, partition);
            scene.produce(&mut crowd, partition);
        }
        (0..30).for_each(|_| scene.produce(&mut crowd, partitions[2]));
        crowd.turn();
        for _ in 0..20 {
            for partition in &partitions[..2] {
                scene.produce(&mut at_peace, *partition);
                assert_eq!(scene.errors(&mut at_peace, 1, SECOND), [0]);
            }
        }
        assert_eq!(scene.errors(&mut patient, 3, 37 * SECOND), [0, 0, 7]);
        scene.produce(&mut patient, partitions[1]);
        assert_eq!(scene.errors(&mut patient, 1, SECOND), [0], "seed {seed}: the connection goes on");
        // When the shard is back, it answers, and the connections work as ever.
        let limit = scene.world.now() + 200 * SECOND;
        while crowd.in_flight() > 0 {
            scene.turn(&mut crowd);
            assert!(scene.world.now() < limit, "seed {seed}: a connection is stuck");
        }
        for client in [&mut patient, &mut crowd] {
            scene.produce(client, partitions[2]);
            assert_eq!(scene.errors(client, 1, SECOND), [0], "seed {seed}");
        }
    }
}

/// Whoever calls is served, unless it asks for partitions of the shard that stands still: the others take what it was told of, and send it
/// nobody.
#[test]
fn a_shard_that_stands_still_keeps_no_new_connection_waiting() {
    for (seed, advertise_shards) in (0..12).flat_map(|seed| [(seed, false), (seed, true)]) {
        let setup = Setup { shards: 3, advertise_shards, ..Setup::plain() };
        let mut scene = Scene::new(seed, setup);
        let still = (seed % 3) as u16;
        let others = (0..3).filter(|shard| *shard != still);
        let partitions: Vec<i32> = others.clone().map(|shard| scene.partition(shard)).collect();
        let mut own: Vec<Client> = others.map(|shard| scene.client(shard)).collect();
        scene.broker.stall(usize::from(still), 60 * SECOND);
        // Until the others know.
        scene.pass(SECOND);
        let all = scene.broker.setup.addrs()[0];
        let mut clients: Vec<Client> = (0..8).map(|_| Client::new(&scene.world, vec![all])).collect();
        clients.append(&mut own);
        for (client, partition) in clients.iter_mut().zip(partitions.iter().cycle()) {
            scene.produce(client, *partition);
            assert_eq!(scene.errors(client, 1, SECOND), [0], "seed {seed}");
        }
        let counts = scene.broker.connections();
        assert!(counts[usize::from(still)] <= 1, "seed {seed}: {counts:?}");
        // When it is back it gets its share: the first client is of before.
        scene.pass(60 * SECOND);
        let partition = scene.partition(still);
        let mut late: Vec<Client> = (0..8).map(|_| Client::new(&scene.world, vec![all])).collect();
        for client in &mut late {
            scene.produce(client, partition);
            assert_eq!(scene.errors(client, 1, SECOND), [0], "seed {seed}");
        }
        let counts = scene.broker.connections();
        assert!(counts[usize::from(still)] >= 4, "seed {seed}: {counts:?}");
    }
}

#[test]
fn a_stop_meets_connections_that_are_on_their_way() {
    let setup = Setup { shards: 2, handover_requests: 2, ..Setup::plain() };
    for seed in 0..60 {
        let mut scene = Scene::new(seed, setup);
        let mut clients = [scene.client(0), scene.client(0), scene.client(0)];
        let partitions = [0, 1].map(|shard| scene.partition(shard));
        for (at, client) in clients.iter_mut().enumerate() {
            (0..8).for_each(|_| scene.produce(client, partitions[at % 2]));
        }
        for _ in 0..20 + seed {
            clients.iter_mut().for_each(|client| drop(client.turn()));
            scene.broker.turn().unwrap_or_else(|why| scene.world.fail(why));
        }
        scene.broker.begin_stop();
        let limit = scene.world.now() + 20 * SECOND;
        while !scene.broker.is_stopped() {
            clients.iter_mut().for_each(|client| drop(client.turn()));
            scene.broker.turn().unwrap_or_else(|why| scene.world.fail(why));
            assert!(scene.world.now() < limit, "seed {seed}: a stop never ends");
        }
    }
}
