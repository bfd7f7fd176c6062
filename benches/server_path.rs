//! What a produce and a fetch cost from received bytes to the bytes of the answer, with every operation done at once: connection, frame,
//! handler, shard, log, reply, send. `--smoke` runs it briefly, as `cargo test` does.
//!
//! Prints a line per case: name, nanoseconds and allocations per request (the fastest of several rounds, the fewest of them), and a hash of
//! the answers, which must not change with the machine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use corelog::base::board::Board;
use corelog::base::ids::{BrokerId, LeaderEpoch, PartitionIndex, PartitionKey, ShardId, Uuid};
use corelog::config::broker::BrokerConfig;
use corelog::config::topic::Overrides;
use corelog::controller::Controller;
use corelog::controller::image::{Broker, Image};
use corelog::controller::record::Record;
use corelog::io::buffer::Pool;
use corelog::io::clock::{Clock, ClockSource};
use corelog::io::recv::RecvBuf;
use corelog::io::{ConnId, Done, FileId, ListenerId, Mono, Op, Payload, Place, StorageCaps, Token};
use corelog::log::fate::Fate;
use corelog::log::store::StoreConfig;
use corelog::router::mesh::Router;
use corelog::server::metadata::{Ids, Metadata};
use corelog::server::quota::ConnectionQuota;
use corelog::server::{On, Server, ServerConfig};
use corelog::shard::{Cx, Shard, TOKEN_READ, TOKEN_STORE, rules};
use corelog::wire::batch::build::{BatchBuilder, NewRecord};
use corelog::wire::codec::Codec;
use corelog::wire::msg::{
    self, Bytes, FetchRequest, ProduceRequest, StrBytes, fetch_request, produce_request,
};

const TOPIC: Uuid = Uuid([2; 16]);
const NAME: &str = "orders";
const PARTITIONS: i32 = 16;
const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 12;

/// Nothing in it moves while a case is measured: all appends fit one segment.
const SEGMENT_BYTES: &str = "1073741824";

/// A broker without kernel: disk and peer do everything at once and keep nothing.
struct Machine {
    server: Server,
    shard: Shard,
    router: Router,
    meta: Metadata,
    pool: Pool,
    now: Mono,
    clocks: ClockSource,
    clock: Clock,
    files: u32,
    recv: Option<Token>,
    ops: Vec<(Op, Token)>,
    /// Of the bytes that were sent, while there is one.
    hash: Option<u64>,
}

fn image() -> Image {
    let me = Broker { id: BrokerId(1), host: "127.0.0.1".into(), port: 9092, rack: None };
    let mut image = Image::new("cluster".into(), Arc::new(BrokerConfig::defaults()), vec![me]);
    let config = Overrides::from([("segment.bytes".to_string(), SEGMENT_BYTES.to_string())]);
    let mut records = vec![Record::Topic { name: NAME.into(), id: TOPIC, config }];
    records.extend((0..PARTITIONS).map(|index| Record::Partition {
        topic: TOPIC,
        index: PartitionIndex(index),
        leader: BrokerId(1),
        epoch: LeaderEpoch(0),
        replicas: vec![BrokerId(1)],
    }));
    records.push(Record::Placement { topic: TOPIC, shards: vec![ShardId(0); PARTITIONS as usize], of: None });
    image.apply(&records).expect("records that fit");
    image
}

impl Machine {
    fn new() -> Machine {
        let caps = StorageCaps {
            device: 1,
            file_system: "ext4".to_string(),
            direct: true,
            shared_flush: true,
            shared_flush_tested: true,
            flush_apart: false,
            not_durable: None,
        };
        let store = StoreConfig {
            data_dir: PathBuf::from("/data"),
            directory: Uuid([1; 16]),
            caps,
            shared_flush: true,
            free_bytes_min: 0,
            tail_cache_bytes: 24 << 20,
            fate: Fate::default(),
            planted: None,
        };
        let mut pool = Pool::new(48 << 20);
        while pool.grow().is_some() {}
        let image = image();
        let mut shard = Shard::new(ShardId(0), store);
        for topic in image.topics() {
            for index in 0..PARTITIONS {
                let key = PartitionKey { topic: topic.id, partition: PartitionIndex(index) };
                shard.create(key, rules::of(&topic.config, &image.config));
            }
        }
        let server = Server::new(
            ServerConfig {
                shard: ShardId(0),
                request_bytes_max: 100 << 20,
                fetch_bytes_max: 50 << 20,
                idle_ms_max: u64::MAX,
                held_bytes_max: 64 << 20,
                inbox_bytes_max: 64 << 20,
                handover_requests: 0,
                handover_interval_ms: 0,
            },
            ConnectionQuota::default(),
        );
        let meta = Metadata::new(
            Arc::new(image.clone()),
            Some(Controller::new(image)),
            Arc::new(BTreeMap::new()),
            Ids::new([7; 32]),
            Arc::new(Board::new("none", [None])),
        );
        let mut machine = Machine {
            server,
            shard,
            router: Router::new(ShardId(0), Vec::new()),
            meta,
            pool,
            now: Clock::Call.now(),
            clocks: ClockSource::of_machine(),
            clock: Clock::Call,
            files: 0,
            recv: None,
            ops: Vec::new(),
            hash: None,
        };
        machine.connect();
        machine
    }

    /// Turns for long enough that the clock of stamps is the one of a broker that has run for a while.
    fn run_in(&mut self, smoke: bool) {
        let begin = Instant::now();
        while !smoke && begin.elapsed().as_millis() < 1_100 {
            self.turn();
        }
    }

    fn connect(&mut self) {
        self.server.serve(ListenerId(1), false);
        let (_, token) = self.server.take_ops().next().expect("it accepts");
        let peer = SocketAddr::from(([127, 0, 0, 1], 4000));
        let payload = Payload::Accepted { conn: ConnId(1), peer };
        self.server_done(Done { token, result: Ok(0), more: true, payload });
        self.turn();
        assert!(self.recv.is_some(), "it receives");
    }

    fn cx(pool: &mut Pool, now: Mono, clock: Clock) -> Cx<'_> {
        Cx { pool, now, clock, wall_ms: 0 }
    }

    fn on(&mut self) -> (&mut Server, On<'_>) {
        let cx = Machine::cx(&mut self.pool, self.now, self.clock);
        (&mut self.server, On { shard: &mut self.shard, router: &mut self.router, meta: &mut self.meta, cx })
    }

    fn server_done(&mut self, done: Done) {
        let (server, mut on) = self.on();
        server.done(done, &mut on);
    }

    /// Turns until nothing is in flight.
    fn turn(&mut self) {
        let mut uuids = 0;
        while self.shard.uuids_wanted() > 0 {
            uuids += 1;
            self.shard.add_uuids(std::iter::once(Uuid([uuids; 16])));
        }
        self.now = Clock::Call.now();
        self.clock = self.clocks.turn(self.now);
        loop {
            self.shard.turn(&mut Machine::cx(&mut self.pool, self.now, self.clock));
            let (server, mut on) = self.on();
            server.collect(&mut on);
            server.turn(&mut on);
            let mut ops = std::mem::take(&mut self.ops);
            ops.extend(self.shard.take_ops());
            ops.extend(self.server.take_ops());
            let idle = ops.is_empty();
            for (op, token) in ops.drain(..) {
                self.carry_out(op, token);
            }
            self.ops = ops;
            if idle {
                return;
            }
        }
    }

    fn carry_out(&mut self, op: Op, token: Token) {
        let (result, payload) = match op {
            Op::Recv { .. } => return self.recv = Some(token),
            Op::Write { data, .. } => (data.len() as u32, Payload::Written(data)),
            Op::Send { chain, .. } => {
                if let Some(hash) = &mut self.hash {
                    for byte in chain.slices(usize::MAX).flatten() {
                        *hash = (*hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
                    }
                }
                (chain.remaining() as u32, Payload::Sent(chain))
            }
            Op::OpenFile { .. } => {
                self.files += 1;
                (0, Payload::Opened(FileId(self.files), Place { device: 1, is_own_and_written: true }))
            }
            _ => (0, Payload::None),
        };
        let done = Done { token, result: Ok(result), more: false, payload };
        match token.kind() {
            TOKEN_STORE | TOKEN_READ => {
                self.shard.done(done, &mut Machine::cx(&mut self.pool, self.now, self.clock));
            }
            _ => self.server_done(done),
        }
    }

    fn receive(&mut self, chunk: RecvBuf) {
        let token = self.recv.expect("it receives");
        let len = chunk.len() as u32;
        self.server_done(Done { token, result: Ok(len), more: true, payload: Payload::Received(chunk) });
        self.turn();
    }
}

fn batch(value_bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None);
    let value = vec![b'v'; value_bytes];
    builder.push(&NewRecord { timestamp: 1, key: None, value: Some(&value), headers: &[] });
    let mut out = Vec::new();
    builder.finish(&mut out).expect("builds");
    out
}

/// Whole frames, length prefixes included: request `i` is for `partitions` partitions from `i` on.
fn produce_frames(requests: i32, partitions: i32, value_bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for request in 0..requests {
        let mut topic = produce_request::TopicProduceData::default();
        topic.name = StrBytes::from(NAME);
        for i in 0..partitions {
            let mut partition = produce_request::PartitionProduceData::default();
            partition.index = (request + i) % PARTITIONS;
            partition.records = Some(Bytes::from(batch(value_bytes)));
            topic.partition_data.push(partition);
        }
        let mut body = ProduceRequest::default();
        body.acks = -1;
        body.timeout_ms = 30_000;
        body.topic_data = vec![topic];
        msg::encode_request(&mut out, request, Some("bench"), PRODUCE_VERSION, &body).expect("encodes");
    }
    out
}

fn fetch_frame(partitions: i32, max_bytes: i32) -> Vec<u8> {
    let mut topic = fetch_request::FetchTopic::default();
    topic.topic = StrBytes::from(NAME);
    for index in 0..partitions {
        let mut partition = fetch_request::FetchPartition::default();
        partition.partition = index;
        partition.partition_max_bytes = max_bytes;
        topic.partitions.push(partition);
    }
    let mut request = FetchRequest::default();
    request.max_bytes = 50 << 20;
    request.min_bytes = 1;
    request.session_epoch = -1;
    request.topics = vec![topic];
    let mut out = Vec::new();
    msg::encode_request(&mut out, 1, Some("bench"), FETCH_VERSION, &request).expect("encodes");
    out
}

/// Sends `frames`, which hold `requests` requests, again and again, in pieces as large as a receive buffer.
fn measure(name: &str, machine: &mut Machine, frames: &[u8], requests: u64, smoke: bool) {
    let rounds = if smoke { 5 } else { 300 };
    let (mut best, mut allocations) = (f64::MAX, u64::MAX);
    let mut hash = 0;
    machine.hash = Some(0xcbf2_9ce4_8422_2325);
    for round in 0..rounds {
        let chunks: Vec<RecvBuf> =
            frames.chunks(64 * 1024).map(|chunk| RecvBuf::owned(chunk.to_vec())).collect();
        let started = Instant::now();
        let counted = allocation_counter::measure(|| {
            for chunk in chunks {
                machine.receive(chunk);
            }
        });
        // Hashing would be most of what is measured.
        if round < 3 {
            hash = machine.hash.unwrap_or_default();
            continue;
        }
        machine.hash = None;
        best = best.min(started.elapsed().as_nanos() as f64 / requests as f64);
        allocations = allocations.min(counted.count_total);
    }
    let each = allocations as f64 / requests as f64;
    println!("{name:<48} {best:>10.1} ns {each:>8.2} allocations  {hash:016x}");
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let smoke = args.iter().any(|arg| arg == "--smoke") || !args.iter().any(|arg| arg == "--bench");
    for (requests, partitions, value_bytes) in
        [(1, 1, 100), (64, 1, 100), (64, 1, 1000), (16, 1, 16_000), (64, 3, 100)]
    {
        let frames = produce_frames(requests, partitions, value_bytes);
        let mut machine = Machine::new();
        machine.run_in(smoke);
        // Segments, rounds and lists come into being.
        for _ in 0..4 {
            machine.receive(RecvBuf::owned(produce_frames(64, 3, 100)));
        }
        let name = format!("produce {value_bytes} B to {partitions}, {requests} at once");
        measure(&name, &mut machine, &frames, requests as u64, smoke);
    }
    for (partitions, max_bytes) in [(1, 100), (1, 64 * 1024), (16, 100)] {
        let mut machine = Machine::new();
        machine.run_in(smoke);
        for _ in 0..40 {
            machine.receive(RecvBuf::owned(produce_frames(64, 1, 1000)[..].to_vec()));
        }
        let frame = fetch_frame(partitions, max_bytes);
        let name = format!("fetch at most {max_bytes} B of each of {partitions}");
        measure(&name, &mut machine, &frame, 1, smoke);
    }
}
