//! A broker of one or several shards in one process of the world, and the loop around them: the seed says whose turn is next.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use corelog::base::ids::{PartitionIndex, PartitionKey, ShardId};
use corelog::base::limits::{BLOCK_BYTES, IN_FLIGHT_PER_CONNECTION_MAX};
use corelog::broker::assemble::{assemble_with, share};
use corelog::broker::pump::Node;
use corelog::config::source::{Loader, Source};
use corelog::io::Io;
use corelog::io::sim::{ProcessId, Rng, World};
use corelog::router::lanes::{Lanes, Planted};

use crate::oracle::Verdict;

pub const DATA_DIR: &str = "/disk/data";
pub const PORT: u16 = 9092;
pub const ADVERTISED_PORT: u16 = 9192;
const POOL_BYTES: usize = 32 * BLOCK_BYTES;

/// Half of it is the largest request, and that must take the largest of a story.
const MEMORY_BYTES_FEW: u64 = 1 << 20;

/// How one run of the broker is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub shards: u16,
    pub credits: usize,
    pub handover_requests: u32,
    pub handover_interval_ms: u64,
    pub advertise_shards: bool,
    /// What the shares of a shard's memory are made of.
    pub memory_bytes: u64,
    pub planted: Option<Planted>,
}

impl Setup {
    /// Another broker for each run: the directory must not care.
    pub fn drawn(rng: &mut Rng) -> Setup {
        Setup {
            shards: rng.between(1, 4) as u16,
            credits: [1, 2, 4, 256][rng.below(4) as usize],
            handover_requests: [0, 2, 2, 3, 5, 8][rng.below(6) as usize],
            handover_interval_ms: if rng.below(3) == 0 { 1_000 } else { 0 },
            advertise_shards: rng.below(4) == 0,
            // Or so little that what connections hold is soon too much.
            memory_bytes: if rng.below(4) == 0 { MEMORY_BYTES_FEW } else { POOL_BYTES as u64 },
            planted: None,
        }
    }

    /// One shard, and connections that stay where they are: to be changed as needed.
    pub fn plain() -> Setup {
        Setup {
            shards: 1,
            credits: 256,
            handover_requests: 0,
            handover_interval_ms: 0,
            advertise_shards: false,
            memory_bytes: POOL_BYTES as u64,
            planted: None,
        }
    }

    /// Where clients may connect.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        let own = (0..self.shards).filter(|_| self.advertise_shards).map(|shard| ADVERTISED_PORT + shard);
        let ports = std::iter::once(PORT).chain(own);
        ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
    }

    fn keys(&self) -> [(&'static str, String); 9] {
        [
            ("log.dirs", DATA_DIR.to_string()),
            ("listeners", format!("PLAINTEXT://127.0.0.1:{PORT}")),
            ("auto.create.topics.enable", "false".to_string()),
            ("log.retention.check.interval.ms", "1000".to_string()),
            ("shards", self.shards.to_string()),
            ("shard.handover.requests", self.handover_requests.to_string()),
            ("shard.handover.interval.ms", self.handover_interval_ms.to_string()),
            ("advertise", if self.advertise_shards { "shards" } else { "broker" }.to_string()),
            ("advertise.port", ADVERTISED_PORT.to_string()),
        ]
    }
}

pub struct Broker {
    world: World,
    process: ProcessId,
    /// Those that have not stopped, in the order in which they were made.
    nodes: Vec<Node>,
    pub setup: Setup,
    /// An operation on its disk was made to fail.
    pub may_die: bool,
    /// Why acks ended, on shards that have stopped.
    deaths: Vec<String>,
    /// Requests answered without an owner, on shards that have stopped.
    late_total: u64,
}

impl Broker {
    pub fn start(world: &World, setup: Setup) -> Verdict<Broker> {
        let process = world.start_process();
        let ios = (0..setup.shards).map(|_| Io::Sim(Box::new(world.io(process, POOL_BYTES)))).collect();
        let mut loader = Loader::default();
        for (key, value) in setup.keys() {
            loader.set(Source::Flag, key, &value).map_err(|fatal| fatal.to_string())?;
        }
        let config = loader.finish().map_err(|fatal| fatal.to_string())?;
        // With few credits few bytes too, so that requests wait for either.
        let bytes_max = setup.credits << 8;
        let lanes = Lanes { credits: setup.credits, bytes_max, planted: setup.planted };
        let assembled = assemble_with(ios, config, setup.memory_bytes, lanes);
        let (mut nodes, listening) = assembled.map_err(|fatal| fatal.to_string())?;
        for at in 1..nodes.len() {
            for (shared, for_all) in share(&nodes[0].io, &listening, ShardId(at as u16)) {
                let listener = nodes[at].io.add_listener(shared);
                nodes[at].server.serve(listener, for_all);
            }
        }
        for listening in listening.iter().filter(|l| l.shard.is_none_or(|only| only == ShardId(0))) {
            nodes[0].server.serve(listening.listener, listening.for_all);
        }
        if setup.shards > 1 {
            world.schedule_shards(process);
            world.mark("several_shards");
        }
        Ok(Broker {
            world: world.clone(),
            process,
            nodes,
            setup,
            may_die: false,
            deaths: Vec::new(),
            late_total: 0,
        })
    }

    /// One turn of one shard.
    pub fn turn(&mut self) -> Verdict {
        if self.nodes.is_empty() {
            self.world.pass(1_000_000);
            return Ok(());
        }
        let at = if self.setup.shards > 1 { self.world.next_turn(self.process) } else { 0 };
        let node = &mut self.nodes[at];
        node.turn();
        if let Some(why) = &node.dead
            && !self.may_die
        {
            return Err(format!("died without a failed operation: {why}"));
        }
        // A closing connection may still have a few.
        let (in_flight, connections) = (node.router.in_flight(), node.server.connections());
        if in_flight > connections * IN_FLIGHT_PER_CONNECTION_MAX {
            return Err(format!("{in_flight} requests cross for {connections} connections"));
        }
        if node.is_stopped() {
            let node = self.nodes.remove(at);
            self.count(&node);
            self.deaths.extend(node.dead.clone());
        }
        Ok(())
    }

    pub fn begin_stop(&mut self) {
        self.nodes.iter_mut().take(1).for_each(Node::begin_stop);
    }

    pub fn is_stopped(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Withholds the turns of one shard.
    pub fn stall(&self, shard: usize, ns: u64) {
        if self.setup.shards > 1 && self.nodes.len() == usize::from(self.setup.shards) {
            self.world.stall_shard(self.process, shard, ns);
        }
    }

    pub fn kill(self) {
        self.world.kill(self.process);
    }

    pub fn late_total(&self) -> u64 {
        self.late_total + self.nodes.iter().map(|node| node.router.hops().late_total).sum::<u64>()
    }

    pub fn io(&mut self) -> Option<&mut Io> {
        self.nodes.first_mut().map(|node| &mut node.io)
    }

    /// The shard that serves a partition.
    pub fn owner(&self, topic: &str, index: i32) -> Option<ShardId> {
        let image = &self.nodes.first()?.meta.image;
        image.owner(PartitionKey { topic: image.topic(topic)?.id, partition: PartitionIndex(index) })
    }

    /// Why acks ended, of each shard on which they did.
    pub fn deaths(&self) -> Vec<&str> {
        let alive = self.nodes.iter().filter_map(|node| node.dead.as_deref());
        self.deaths.iter().map(String::as_str).chain(alive).collect()
    }

    /// Of the partitions of all shards that have not stopped.
    pub fn high_watermarks(&self) -> BTreeMap<PartitionKey, i64> {
        let of =
            |node: &Node, key: &PartitionKey| Some((*key, node.shard.bounds(key)?.high_watermark.get().0));
        self.nodes.iter().flat_map(|node| node.shard.keys().filter_map(move |key| of(node, key))).collect()
    }

    /// By shard.
    pub fn connections(&self) -> Vec<usize> {
        self.nodes.iter().map(|node| node.server.connections()).collect()
    }

    fn count(&mut self, node: &Node) {
        let hops = node.router.hops();
        self.late_total += hops.late_total;
        for (name, count) in [
            ("hop", hops.sent_total),
            ("hop_held_back", hops.held_back_total),
            ("hop_deferred", hops.deferred_total),
            ("hop_hurried", hops.hurries_total),
            ("hop_late", hops.late_total),
            ("hop_control", hops.controls_total),
            ("handed_over", node.server.handed_over_total),
            ("adopted", node.server.adopted_total),
        ] {
            (0..count).for_each(|_| self.world.mark(name));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        for node in std::mem::take(&mut self.nodes) {
            self.count(&node);
        }
    }
}

/// What a run over many seeds must reach.
pub const REACHED: [&str; 12] = [
    "several_shards",
    "hop",
    "hop_held_back",
    "hop_deferred",
    "hop_hurried",
    "hop_late",
    "hop_control",
    "received_once",
    "handed_over",
    "adopted",
    "rolled",
    "retained",
];
