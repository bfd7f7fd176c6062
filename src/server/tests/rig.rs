//! Server and shard without a kernel: what they ask for is done when the test says so.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::board::Board;
use crate::base::ids::{BrokerId, LeaderEpoch, PartitionIndex, PartitionKey, ShardId, Uuid};
use crate::config::broker::BrokerConfig;
use crate::config::source::{Loader, Source};
use crate::controller::Controller;
use crate::controller::image::{Broker, Image};
use crate::controller::record::Record;
use crate::io::buffer::{Block, Pool};
use crate::io::clock::Clock;
use crate::io::recv::{RecvBuf, RecvPool};
use crate::io::{ConnId, Done, Errno, FileId, ListenerId, Mono, Op, Payload, Place, StorageCaps, Token};
use crate::log::fate::Fate;
use crate::log::store::StoreConfig;
use crate::router::mesh::Router;
use crate::server::metadata::{Ids, Metadata};
use crate::server::quota::ConnectionQuota;
use crate::server::{On, Server, ServerConfig};
use crate::shard::{Cx, Shard, TOKEN_READ, TOKEN_STORE, rules};
use crate::wire::batch::build::{BatchBuilder, NewRecord};
use crate::wire::codec::Codec;
use crate::wire::msg::{
    self, Bytes, DescribeConfigsRequest, FetchRequest, MetadataRequest, ProduceRequest, StrBytes,
    describe_configs_request, fetch_request, metadata_request, produce_request,
};

pub const NAME: &str = "orders";
const TOPIC: Uuid = Uuid([2; 16]);
const PARTITIONS: i32 = 4;
const MEMORY_BYTES: usize = 16 << 20;
const RECV_BUFFERS: u16 = 2;

pub struct Rig {
    pub server: Server,
    shard: Shard,
    router: Router,
    meta: Metadata,
    pool: Pool,
    receives: RecvPool,
    pub now: Mono,
    files: u32,
    connections: u32,
    /// What was asked for and is not done.
    pub ops: Vec<(Op, Token)>,
    /// The bytes of each send that is done, by connection.
    pub sent: Vec<(ConnId, Vec<u8>)>,
}

fn image(config: BrokerConfig, partitions: i32) -> Image {
    let me = Broker { id: BrokerId(1), host: "127.0.0.1".into(), port: 9092, rack: None };
    let mut image = Image::new("cluster".into(), Arc::new(config), vec![me]);
    let mut records = vec![Record::Topic { name: NAME.into(), id: TOPIC, config: Default::default() }];
    records.extend((0..partitions).map(|index| Record::Partition {
        topic: TOPIC,
        index: PartitionIndex(index),
        leader: BrokerId(1),
        epoch: LeaderEpoch(0),
        replicas: vec![BrokerId(1)],
    }));
    image.apply(&records).expect("records that fit");
    image
}

impl Rig {
    /// A broker with these settings, and a listener that is served.
    pub fn new(settings: &[(&str, &str)]) -> Rig {
        Rig::sized(settings, PARTITIONS, MEMORY_BYTES)
    }

    /// The same with so many partitions, and half of so much memory for their ends.
    pub fn sized(settings: &[(&str, &str)], partitions: i32, memory_bytes: usize) -> Rig {
        let mut loader = Loader::default();
        for (key, value) in settings {
            loader.set(Source::Flag, key, value).expect("a setting");
        }
        let image = image(loader.finish().expect("settings that fit"), partitions);
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
            tail_cache_bytes: memory_bytes / 2,
            fate: Fate::default(),
            planted: None,
        };
        let mut pool = Pool::new(memory_bytes);
        while pool.grow().is_some() {}
        let mut shard = Shard::new(ShardId(0), store);
        for topic in image.topics() {
            for index in 0..partitions {
                let key = PartitionKey { topic: topic.id, partition: PartitionIndex(index) };
                shard.create(key, rules::of(&topic.config, &image.config));
            }
        }
        let config = ServerConfig {
            shard: ShardId(0),
            request_bytes_max: 1 << 20,
            fetch_bytes_max: 1 << 20,
            idle_ms_max: 3_600_000,
            held_bytes_max: 4 << 20,
            inbox_bytes_max: 4 << 20,
            handover_requests: 0,
            handover_interval_ms: 0,
        };
        let server = Server::new(config, ConnectionQuota::default());
        let meta = Metadata::new(
            Arc::new(image.clone()),
            Some(Controller::new(image)),
            Arc::new(BTreeMap::new()),
            Ids::new([7; 32]),
            Arc::new(Board::new("none", [None])),
        );
        let router = Router::new(ShardId(0), Vec::new());
        let (ops, sent) = (Vec::new(), Vec::new());
        let receives = RecvPool::new(RECV_BUFFERS).expect("memory");
        let mut rig = Rig {
            server,
            shard,
            router,
            meta,
            pool,
            receives,
            now: Mono(1),
            files: 0,
            connections: 0,
            ops,
            sent,
        };
        rig.server.serve(ListenerId(1), false);
        rig.turn();
        rig
    }

    pub fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    /// One turn; what it asks for is added to `ops`.
    pub fn turn(&mut self) {
        let mut uuids = 0;
        while self.shard.uuids_wanted() > 0 {
            uuids += 1;
            self.shard.add_uuids(std::iter::once(Uuid([uuids; 16])));
        }
        self.shard.turn(&mut cx(&mut self.pool, self.now));
        let (server, mut on) = self.on();
        server.collect(&mut on);
        server.turn(&mut on);
        self.ops.extend(self.shard.take_ops());
        self.ops.extend(self.server.take_ops());
    }

    fn done(&mut self, token: Token, result: Result<u32, Errno>, more: bool, payload: Payload) {
        let done = Done { token, result, more, payload };
        match token.kind() {
            TOKEN_STORE | TOKEN_READ => self.shard.done(done, &mut cx(&mut self.pool, self.now)),
            _ => {
                let (server, mut on) = self.on();
                server.done(done, &mut on);
            }
        }
    }

    fn on(&mut self) -> (&mut Server, On<'_>) {
        let cx = cx(&mut self.pool, self.now);
        (&mut self.server, On { shard: &mut self.shard, router: &mut self.router, meta: &mut self.meta, cx })
    }

    /// Does what is asked for now and fits, and turns once; returns how many operations that were.
    pub fn complete(&mut self, fits: impl Fn(&Op) -> bool) -> usize {
        let (fitting, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.ops).into_iter().partition(|(op, _)| {
                fits(op) && !matches!(op, Op::Accept { .. } | Op::Recv { .. } | Op::RecvOnce { .. })
            });
        self.ops = rest;
        let count = fitting.len();
        for (op, token) in fitting {
            let (result, payload) = match op {
                Op::Write { data, .. } => (data.len() as u32, Payload::Written(data)),
                Op::Send { conn, chain } => {
                    self.sent.push((conn, chain.slices(usize::MAX).flatten().copied().collect()));
                    (chain.remaining() as u32, Payload::Sent(chain))
                }
                Op::OpenFile { .. } => {
                    self.files += 1;
                    (0, Payload::Opened(FileId(self.files), Place { device: 1, is_own_and_written: true }))
                }
                Op::CancelRecv { conn } => {
                    self.end_recv(conn, Err(Errno::CANCELED));
                    (0, Payload::None)
                }
                Op::CancelAccept { .. } => {
                    if self.accepting().is_some() {
                        self.fail_accept(Errno::CANCELED);
                    }
                    (0, Payload::None)
                }
                _ => (0, Payload::None),
            };
            self.done(token, Ok(result), false, payload);
        }
        self.turn();
        count
    }

    /// Turns until nothing but accepts and receives is left. The end of a job may ask for nothing before the next turn.
    pub fn settle(&mut self) {
        while self.complete(|_| true) + self.complete(|_| true) > 0 {}
    }

    /// The `Accept` in flight, if there is one.
    pub fn accepting(&self) -> Option<Token> {
        self.ops.iter().find(|(op, _)| matches!(op, Op::Accept { .. })).map(|(_, token)| *token)
    }

    /// Looks whether a connection waits, and finds that; returns how many accepts are cancelled for it.
    pub fn look(&mut self, waits: bool) -> usize {
        self.server.take_over_waiting(self.now, |_| waits);
        let before = self.ops.len();
        self.ops.extend(self.server.take_ops());
        self.ops.len() - before
    }

    pub fn fail_accept(&mut self, errno: Errno) {
        let token = self.accepting().expect("an accept");
        self.ops.retain(|(_, of)| *of != token);
        self.done(token, Err(errno), false, Payload::None);
        self.turn();
    }

    pub fn connect_from(&mut self, address: [u8; 4]) -> ConnId {
        let token = self.accepting().expect("an accept");
        self.connections += 1;
        let conn = ConnId(self.connections);
        let peer = SocketAddr::from((IpAddr::from(address), 4000));
        self.done(token, Ok(0), true, Payload::Accepted { conn, peer });
        self.turn();
        conn
    }

    pub fn connect(&mut self) -> ConnId {
        self.connect_from([127, 0, 0, 1])
    }

    /// The token of the connection's `Recv`, if it is armed.
    pub fn receiving(&self, conn: ConnId) -> Option<Token> {
        self.ops.iter().find(|(op, _)| receives(op, conn)).map(|(_, token)| *token)
    }

    /// The most that its next piece may have, if that is bounded.
    pub fn receiving_at_most(&self, conn: ConnId) -> Option<u32> {
        self.ops.iter().find_map(|(op, _)| match op {
            Op::RecvOnce { conn: of, bytes_max } if *of == conn => Some(*bytes_max),
            _ => None,
        })
    }

    pub fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        self.arrive(conn, bytes);
        self.turn();
    }

    /// Bytes that a completion brings, with others of the same turn.
    pub fn arrive(&mut self, conn: ConnId, bytes: &[u8]) {
        let payload = Payload::Received(RecvBuf::owned(bytes.to_vec()));
        self.piece(conn, bytes.len(), payload);
    }

    /// Takes what the server asks for before its turn ends.
    pub fn take_receives(&mut self) {
        self.ops.extend(self.server.take_ops());
    }

    fn piece(&mut self, conn: ConnId, len: usize, payload: Payload) {
        let token = self.receiving(conn).expect("it receives");
        let bound = self.receiving_at_most(conn);
        assert!(bound.is_none_or(|most| len <= most as usize), "{len} bytes of at most {bound:?}");
        if bound.is_some() {
            self.ops.retain(|(op, _)| !receives(op, conn));
        }
        self.done(token, Ok(len as u32), bound.is_none(), payload);
    }

    /// The same in a receive buffer; false if there is none.
    pub fn receive_pooled(&mut self, conn: ConnId, bytes: &[u8]) -> bool {
        let Some(buf) = self.receives.copy_of(bytes) else { return false };
        self.piece(conn, bytes.len(), Payload::Received(buf));
        self.turn();
        true
    }

    /// All free memory for records.
    pub fn take_memory(&mut self) -> Vec<Block> {
        std::iter::from_fn(|| self.pool.take()).collect()
    }

    /// The connection's `Recv` ends: `Ok(0)` is the peer's end of stream.
    pub fn end_recv(&mut self, conn: ConnId, result: Result<u32, Errno>) {
        let Some(token) = self.receiving(conn) else { return };
        self.ops.retain(|(op, _)| !receives(op, conn));
        self.done(token, result, false, Payload::None);
    }

    /// Topics that the controller has decided on.
    pub fn topics(&self) -> usize {
        self.meta.controller.as_ref().map_or(0, |controller| controller.staged().topics().count())
    }

    pub fn is_closing(&self, conn: ConnId) -> bool {
        self.ops.iter().any(|(op, _)| matches!(op, Op::CloseConn { conn: of } if *of == conn))
    }
}

fn receives(op: &Op, conn: ConnId) -> bool {
    matches!(op, Op::Recv { conn: of } | Op::RecvOnce { conn: of, .. } if *of == conn)
}

fn cx(pool: &mut Pool, now: Mono) -> Cx<'_> {
    Cx { pool, now, clock: Clock::Still(now), wall_ms: 0 }
}

fn batch(value: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None);
    builder.push(&NewRecord { timestamp: 1, key: None, value: Some(value), headers: &[] });
    let mut out = Vec::new();
    builder.finish(&mut out).expect("builds");
    out
}

/// A frame that produces one record to each of these partitions, acks=all.
pub fn produce(partitions: &[i32]) -> Vec<u8> {
    produce_with(-1, partitions, b"value")
}

/// The same with these acks and this value.
pub fn produce_with(acks: i16, partitions: &[i32], value: &[u8]) -> Vec<u8> {
    let mut topic = produce_request::TopicProduceData::default();
    topic.name = StrBytes::from(NAME);
    for index in partitions {
        let mut partition = produce_request::PartitionProduceData::default();
        partition.index = *index;
        partition.records = Some(Bytes::from(batch(value)));
        topic.partition_data.push(partition);
    }
    let mut request = ProduceRequest::default();
    request.acks = acks;
    request.timeout_ms = 30_000;
    request.topic_data = vec![topic];
    let mut out = Vec::new();
    msg::encode_request(&mut out, 1, Some("test"), 9, &request).expect("encodes");
    out
}

/// A frame that fetches partition 0 from this offset.
pub fn fetch(offset: i64, max_wait_ms: i32) -> Vec<u8> {
    fetch_with(0..1, offset, max_wait_ms, (1, 1 << 20))
}

/// A frame that fetches these partitions from this offset, at least and at most so many bytes.
pub fn fetch_with(partitions: Range<i32>, offset: i64, max_wait_ms: i32, bytes: (i32, i32)) -> Vec<u8> {
    let mut topic = fetch_request::FetchTopic::default();
    topic.topic = StrBytes::from(NAME);
    for index in partitions {
        let mut partition = fetch_request::FetchPartition::default();
        partition.partition = index;
        partition.fetch_offset = offset;
        partition.partition_max_bytes = 1 << 20;
        topic.partitions.push(partition);
    }
    let mut request = FetchRequest::default();
    request.max_wait_ms = max_wait_ms;
    request.min_bytes = bytes.0;
    request.max_bytes = bytes.1;
    request.session_epoch = -1;
    request.topics = vec![topic];
    let mut out = Vec::new();
    msg::encode_request(&mut out, 2, Some("test"), 12, &request).expect("encodes");
    out
}

/// A frame that asks for these topics, and creates them where they are unknown.
pub fn metadata<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut request = MetadataRequest::default();
    request.topics = Some(
        names
            .into_iter()
            .map(|name| {
                let mut topic = metadata_request::MetadataRequestTopic::default();
                topic.name = Some(StrBytes::from(name));
                topic
            })
            .collect(),
    );
    request.allow_auto_topic_creation = true;
    let mut out = Vec::new();
    msg::encode_request(&mut out, 3, Some("test"), 12, &request).expect("encodes");
    out
}

/// A frame that asks for the configurations of these resources.
pub fn describe_configs<'a>(resources: impl IntoIterator<Item = (i8, &'a str)>) -> Vec<u8> {
    let mut request = DescribeConfigsRequest::default();
    request.include_synonyms = true;
    request.include_documentation = true;
    for (kind, name) in resources {
        let mut resource = describe_configs_request::DescribeConfigsResource::default();
        resource.resource_type = kind;
        resource.resource_name = StrBytes::from(name);
        request.resources.push(resource);
    }
    let mut out = Vec::new();
    msg::encode_request(&mut out, 4, Some("test"), 4, &request).expect("encodes");
    out
}
