//! Puts a broker together over any driver: first what the directory holds, then one [`Node`] for each shard.
//!
//! [`found`] runs once, on the first shard's `Io`: it locks the directory, reads the metadata and listens. Each shard then opens its
//! own partitions ([`open_shard`]), on its own thread where there are threads, and [`Parts`] makes nodes of them when all stand.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::control::{self, Control};
use super::failures::{bad_directory, ids_end, locked, not_advertised, not_listening, ports_end};
use super::files;
use super::memory;
use super::pump::{Node, Stand};
use super::source::IoSource;
use super::together::Together;
use crate::base::board::Board;
use crate::base::error::Fatal;
use crate::base::ids::{BrokerId, LeaderEpoch, PartitionIndex, PartitionKey, ShardId, Uuid};
use crate::base::limits::SHARDS_MAX;
use crate::config::broker::{Accept, BrokerConfig, FlushMode, Listener};
use crate::controller::Controller;
use crate::controller::image::{Broker, Image};
use crate::controller::published::Published;
use crate::io::{Errno, Io, ListenMode, ListenerId, SharedListener, StorageCaps};
use crate::log::fate::Fate;
use crate::log::store::StoreConfig;
use crate::router::lanes::{Lanes, Link, links};
use crate::router::mesh::Router;
use crate::server::metadata::{Ids, Metadata};
use crate::server::{Server, ServerConfig};
use crate::shard::{Shard, rules};

/// A floor of free space, where none is configured: two segments and 1 % of the disk.
const FREE_SEGMENTS: u64 = 2;
const FREE_SHARE: u64 = 100;

/// A file that only takes space: without it a broker on a full disk could not start, and so not delete anything.
const SPARE: &str = "spare";

/// What a start needs before it can give space back: a journal, a snapshot, the state files of logs, probes.
const SPARE_BYTES: u64 = 4 << 20;

/// How long a start waits for an address that is taken, and between two tries.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(1);
const ADDRESS_PAUSE: Duration = Duration::from_millis(10);

/// What every shard must know. The same for all.
#[derive(Clone)]
pub struct Foundation {
    pub image: Arc<Image>,
    store: StoreConfig,
    /// Bytes of blocks of one shard.
    pub(super) pool_bytes: u64,
}

/// What only the controller's shard has.
pub struct Head {
    pub controller: Controller,
    pub control: Control,
}

/// A listening socket of the first shard's driver, and the address that clients use.
pub struct Listening {
    pub listener: ListenerId,
    pub addr: SocketAddr,
    /// The only shard that accepts there, or none if all do.
    pub shard: Option<ShardId>,
    /// What comes there goes to the shard with the fewest connections, whoever accepts it.
    pub for_all: bool,
}

/// Locks and recovers the directory and binds the listeners of the first shard.
pub fn found(
    io: &mut Io,
    config: BrokerConfig,
    pool_bytes: u64,
) -> Result<(Foundation, Head, Vec<Listening>), Fatal> {
    let dir = config.data_dir.clone();
    io.grow_pool();
    files::make_dirs(io, &dir).map_err(|e| bad_directory(&dir, e))?;
    io.lock_dir(&dir).map_err(|e| locked(&dir, &e))?;
    if io.disk_space(&dir).is_ok_and(|space| space.free < 2 * SPARE_BYTES) {
        let _ = files::remove(io, &dir.join(SPARE));
    }
    let caps = durable_storage(io, &dir, &config)?;
    let mut listening = listen(io, &config)?;
    let mut brokers = vec![broker(&config, &listening)];
    if config.advertise_shards {
        brokers = listen_per_shard(io, &config, &brokers[0], &mut listening)?;
    }
    let recovered = control::recover(io, &dir, Arc::new(config.clone()), brokers)?;
    let store = StoreConfig {
        data_dir: dir.clone(),
        directory: recovered.directory,
        shared_flush: flushes_are_shared(config.flush_mode, &caps),
        free_bytes_min: free_bytes_min(io, &dir, &config),
        tail_cache_bytes: config.tail_cache.map_or(pool_bytes / 2, |all| all / u64::from(config.shards))
            as usize,
        fate: Fate::default(),
        planted: planted(),
        caps,
    };
    remove_strangers(io, &dir, &recovered.image)?;
    listening.sort_by_key(|listening| !listening.addr.is_ipv4());
    let foundation = Foundation { image: Arc::new(recovered.image), store, pool_bytes };
    Ok((foundation, Head { controller: recovered.controller, control: recovered.control }, listening))
}

/// Opens the partitions that live on a shard. Blocks until all are recovered.
pub fn open_shard(io: &mut Io, id: ShardId, foundation: &Foundation) -> Result<Shard, Fatal> {
    let mut shard = Shard::new(id, foundation.store.clone());
    shard.set_retention_check_ms(foundation.image.config.retention_check_ms);
    let (dir, image) = (&foundation.store.data_dir, &foundation.image);
    for topic in image.topics() {
        let topic_dir = dir.join(topic.id.to_string());
        let present = match io.list_dir(&topic_dir) {
            Ok(entries) => entries,
            // It comes with the first record. Any other error may hide partitions, which must not begin anew.
            Err(Errno::NOENT) => Vec::new(),
            Err(errno) => return Err(bad_directory(&topic_dir, errno)),
        };
        for index in 0..topic.partitions.len() {
            let key = PartitionKey { topic: topic.id, partition: PartitionIndex(index as i32) };
            if image.owner(key) != Some(id) {
                continue;
            }
            let rules = rules::of(&topic.config, &image.config);
            if present.iter().any(|entry| entry.is_dir && entry.name == index.to_string()) {
                shard.open(&mut IoSource::new(io), key, rules)?;
            } else {
                shard.create(key, rules);
            }
        }
    }
    Ok(shard)
}

/// The epochs that the logs of a shard were opened with.
pub fn epochs(shard: &Shard) -> BTreeMap<PartitionKey, LeaderEpoch> {
    shard.keys().filter_map(|key| Some((*key, shard.bounds(key)?.leader_epoch))).collect()
}

/// A shard that is open, and what makes it a node.
pub struct Parts {
    pub shard: Shard,
    pub links: Vec<Link>,
    /// Of all shards.
    pub epochs: Arc<BTreeMap<PartitionKey, LeaderEpoch>>,
    pub together: Arc<Together>,
    pub head: Option<Head>,
}

impl Parts {
    pub fn node(self, mut io: Io, foundation: &Foundation) -> Node {
        let image = foundation.image.clone();
        let mut seed = [0u8; 32];
        io.random(&mut seed);
        let (id, pool_bytes) = (self.shard.id(), foundation.pool_bytes);
        let config = ServerConfig {
            shard: id,
            request_bytes_max: memory::request_bytes_max(pool_bytes, image.config.request_bytes_max),
            fetch_bytes_max: image.config.fetch_bytes_max,
            idle_ms_max: image.config.connection_idle_ms_max,
            held_bytes_max: memory::held_bytes_max(pool_bytes),
            inbox_bytes_max: memory::inbox_bytes_max(pool_bytes),
            handover_requests: image.config.handover_requests,
            handover_interval_ms: image.config.handover_interval_ms,
        };
        let server = Server::new(config, self.together.quota.clone());
        let (controller, control) = match self.head {
            Some(head) => (Some(head.controller), Some(head.control)),
            None => (None, None),
        };
        if control.is_some() {
            keep_spare(&mut io, &foundation.store.data_dir);
        }
        let meta = Metadata::new(image, controller, self.epochs, Ids::new(seed), self.together.board.clone());
        let router = Router::new(id, self.links);
        let data_dir = foundation.store.data_dir.clone();
        let (shard, together) = (self.shard, self.together);
        Node::new(io, Stand { shard, server, meta, router, control, together, data_dir })
    }
}

/// `board` has a row for each shard.
pub fn together(foundation: &Foundation, board: Board) -> Arc<Together> {
    Arc::new(Together::new(Published::new(foundation.image.clone()), board))
}

/// A broker on one thread: one node for each `Io`, the first with the listeners. What the simulator and tests run.
pub fn assemble(
    ios: Vec<Io>,
    config: BrokerConfig,
    pool_bytes: u64,
) -> Result<(Vec<Node>, Vec<Listening>), Fatal> {
    let lanes = Lanes::of(ios.len(), memory::lane_bytes_max(pool_bytes, ios.len() as u64));
    assemble_with(ios, config, pool_bytes, lanes)
}

/// The same with lanes of another size.
pub fn assemble_with(
    mut ios: Vec<Io>,
    config: BrokerConfig,
    pool_bytes: u64,
    lanes: Lanes,
) -> Result<(Vec<Node>, Vec<Listening>), Fatal> {
    let (foundation, head, listening) = found(&mut ios[0], config, pool_bytes)?;
    let mut shards = Vec::new();
    for (id, io) in ios.iter_mut().enumerate() {
        if id > 0 {
            io.grow_pool();
        }
        shards.push(open_shard(io, ShardId(id as u16), &foundation)?);
    }
    let epochs = Arc::new(shards.iter().flat_map(epochs).collect::<BTreeMap<_, _>>());
    let wakers: Vec<_> = ios.iter().map(Io::waker).collect();
    let together = together(&foundation, Board::new("none", ios.iter().map(|_| None)));
    let mut head = Some(head);
    let mut nodes = Vec::new();
    for ((io, shard), links) in ios.into_iter().zip(shards).zip(links(&wakers, lanes)) {
        let (epochs, together, head) = (epochs.clone(), together.clone(), head.take());
        nodes.push(Parts { shard, links, epochs, together, head }.node(io, &foundation));
    }
    Ok((nodes, listening))
}

/// What another shard accepts on, of the first shard's sockets, and whether for all.
pub fn share(io: &Io, listening: &[Listening], shard: ShardId) -> Vec<(SharedListener, bool)> {
    let its = listening.iter().filter(|listening| listening.shard.is_none_or(|only| only == shard));
    its.map(|listening| (io.share_listener(listening.listener), listening.for_all)).collect()
}

fn keep_spare(io: &mut Io, dir: &Path) {
    let there = io.list_dir(dir).is_ok_and(|entries| entries.iter().any(|entry| entry.name == SPARE));
    if !there && let Err(errno) = files::reserve(io, &dir.join(SPARE), SPARE_BYTES) {
        tracing::warn!(%errno, "no space to keep for the next start");
    }
}

/// Removes directories of topics that are gone.
fn remove_strangers(io: &mut Io, dir: &Path, image: &Image) -> Result<(), Fatal> {
    let found = io.list_dir(dir).map_err(|e| bad_directory(dir, e))?;
    for entry in found.iter().filter(|entry| entry.is_dir) {
        let Some(id) = Uuid::parse(&entry.name) else { continue };
        if image.topic_by_id(id).is_none() {
            let path = dir.join(&entry.name);
            files::remove_tree(io, &path).map_err(|e| bad_directory(&path, e))?;
        }
    }
    Ok(())
}

fn listen(io: &mut Io, config: &BrokerConfig) -> Result<Vec<Listening>, Fatal> {
    let mut listening = Vec::new();
    for listener in &config.listeners {
        let addr = resolve(listener)?;
        let own = is_own(&listening, addr);
        let bound =
            once_free(own, || listen_at(io, config, addr)).map_err(|e| not_listening(addr, e, own))?;
        let port = bound[0].addr.port();
        listening.extend(bound);
        // `localhost` is ::1 for some clients: both loopback addresses answer, as far as the second one is free.
        let both = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port);
        if addr.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST)
            && let Ok(both) = listen_at(io, config, both)
        {
            listening.extend(both);
        }
    }
    Ok(listening)
}

/// Binds as soon as the address is free, for a while: who supervises a broker starts the next one right behind its end, and was seen to find
/// the address taken. Not where it is this broker's `own`.
fn once_free<T>(own: bool, mut bind: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    let since = Instant::now();
    loop {
        match bind() {
            Err(Errno::ADDRINUSE) if !own && since.elapsed() < ADDRESS_PATIENCE => {
                std::thread::sleep(ADDRESS_PAUSE);
            }
            bound => return bound,
        }
    }
}

/// One socket for all shards, or one for each at the same address; never none. Either way nobody else is there.
fn listen_at(io: &mut Io, config: &BrokerConfig, addr: SocketAddr) -> Result<Vec<Listening>, Errno> {
    if config.accept != Accept::ReusePort {
        let (listener, addr) = io.listen_with(addr, ListenMode::Exclusive)?;
        let for_all = config.accept == Accept::Balanced;
        return Ok(vec![Listening { listener, addr, shard: None, for_all }]);
    }
    let of =
        |(listener, addr), shard| Listening { listener, addr, shard: Some(ShardId(shard)), for_all: false };
    let mut listening = vec![of(io.listen_with(addr, ListenMode::FirstOfReusePort)?, 0)];
    let addr = listening[0].addr;
    for shard in 1..config.shards {
        listening.push(of(io.listen_with(addr, ListenMode::ReusePort)?, shard));
    }
    Ok(listening)
}

/// One listener for each shard, so that clients reach a partition's core directly. Returns the brokers that they see then.
fn listen_per_shard(
    io: &mut Io,
    config: &BrokerConfig,
    whole: &Broker,
    listening: &mut Vec<Listening>,
) -> Result<Vec<Broker>, Fatal> {
    let Some(ip) = listening.first().map(|listening| listening.addr.ip()) else { return Ok(Vec::new()) };
    let mut brokers = Vec::new();
    let no_ids = || ids_end(config.node_id.0, config.shards);
    for shard in 0..config.shards {
        let id = BrokerId(shard_broker_id(config.node_id.0, shard).ok_or_else(no_ids)?);
        let port = match config.advertise_port {
            0 => 0,
            first => first.checked_add(shard).ok_or_else(|| ports_end(first, config.shards))?,
        };
        let addr = SocketAddr::new(ip, port);
        let own = is_own(listening, addr);
        let (listener, addr) = once_free(own, || io.listen_with(addr, ListenMode::Exclusive))
            .map_err(|e| not_advertised(addr, shard, e, own))?;
        listening.push(Listening { listener, addr, shard: Some(ShardId(shard)), for_all: false });
        brokers.push(Broker { id, port: addr.port(), ..whole.clone() });
    }
    Ok(brokers)
}

/// This broker listens there already.
fn is_own(listening: &[Listening], addr: SocketAddr) -> bool {
    let same = |own: SocketAddr| own.is_ipv4() == addr.is_ipv4() && own.port() == addr.port();
    let overlaps =
        |own: SocketAddr| own.ip() == addr.ip() || own.ip().is_unspecified() || addr.ip().is_unspecified();
    listening.iter().any(|own| same(own.addr) && overlaps(own.addr))
}

/// The broker id under which a shard is advertised: the same at every start, apart from those of other nodes. None: there is no such id.
fn shard_broker_id(node: i32, shard: u16) -> Option<i32> {
    node.checked_mul(SHARDS_MAX as i32)?.checked_add(1 + i32::from(shard))
}

fn resolve(listener: &Listener) -> Result<SocketAddr, Fatal> {
    let host = if listener.host.is_empty() { "0.0.0.0" } else { &listener.host };
    let found = (host, listener.port).to_socket_addrs().ok().and_then(|mut addrs| {
        let all: Vec<SocketAddr> = addrs.by_ref().collect();
        all.iter().find(|a| a.is_ipv4()).or(all.first()).copied()
    });
    found.ok_or_else(|| Fatal {
        code: "listener-unknown-host",
        summary: format!("{host} is no address of this machine"),
        found: format!("listeners={host}:{}", listener.port),
        means: "the name does not resolve".into(),
        tries: vec!["--listen 127.0.0.1:9092".into()],
    })
}

/// This broker as clients are told to connect to it.
fn broker(config: &BrokerConfig, listening: &[Listening]) -> Broker {
    let (host, port) = advertised(config, listening.first().map(|l| l.addr));
    Broker { id: config.node_id, host, port, rack: config.rack.clone() }
}

fn advertised(config: &BrokerConfig, bound: Option<SocketAddr>) -> (String, u16) {
    if let Some(listener) = config.advertised.first() {
        let port = if listener.port == 0 { bound.map_or(0, |b| b.port()) } else { listener.port };
        return (listener.host.clone(), port);
    }
    match bound {
        Some(addr) if addr.ip().is_unspecified() => ("127.0.0.1".into(), addr.port()),
        Some(addr) => (addr.ip().to_string(), addr.port()),
        None => ("127.0.0.1".into(), 0),
    }
}

fn durable_storage(io: &mut Io, dir: &Path, config: &BrokerConfig) -> Result<StorageCaps, Fatal> {
    let caps = io.storage_caps(dir).map_err(|e| bad_directory(dir, e))?;
    let why = if caps.direct { caps.not_durable } else { Some("direct I/O does not work there") };
    let Some(why) = why else { return Ok(caps) };
    if config.durability_allow_degraded && caps.direct {
        tracing::warn!(why, "durability is degraded({why}): acks do not mean what they say");
        return Ok(caps);
    }
    Err(Fatal {
        code: "odirect-unsupported",
        summary: format!("{} cannot hold durable logs", dir.display()),
        found: format!("{} on {}", why, caps.file_system),
        means: "an ack would not survive what it promises to survive".into(),
        tries: vec![
            "--data-dir on ext4 or XFS of a local disk".into(),
            "-X durability.allow.degraded=true if losing acknowledged records is acceptable".into(),
        ],
    })
}

fn flushes_are_shared(mode: FlushMode, caps: &StorageCaps) -> bool {
    if mode == FlushMode::Auto && caps.shared_flush && !caps.shared_flush_tested {
        tracing::warn!(
            file_system = caps.file_system,
            "each file is flushed by itself: one flush for many was not tested under power cuts on this file system and kernel; \
             log.flush.mode=shared if you trust it, log.flush.mode=each to be told no more"
        );
    }
    mode.shares(caps.shared_flush_tested)
}

fn free_bytes_min(io: &mut Io, dir: &Path, config: &BrokerConfig) -> u64 {
    let total = io.disk_space(dir).map_or(0, |space| space.total);
    let segment = config.get("log.segment.bytes").and_then(|(v, _)| v.parse::<u64>().ok()).unwrap_or(1 << 30);
    // Never more than a quarter of a small disk: two default segments are more than all of it.
    let derived =
        (FREE_SEGMENTS * segment * u64::from(config.shards.max(1)) + total / FREE_SHARE).min(total / 4);
    config.free_bytes_min.unwrap_or(derived)
}

/// A bug that a harness must find, by environment and only in builds with debug assertions.
fn planted() -> Option<crate::log::store::Planted> {
    use crate::log::store::Planted;
    let name = std::env::var("CORELOG_TEST_PLANTED").ok().filter(|_| cfg!(debug_assertions))?;
    tracing::warn!(%name, "running with a planted bug");
    match name.as_str() {
        "ack-before-flush" => Some(Planted::AckBeforeFlush),
        "durable-is-last-completed" => Some(Planted::DurableIsLastCompleted),
        "no-directory-sync" => Some(Planted::NoDirectorySync),
        "no-chain" => Some(Planted::NoChain),
        "retry-after-error" => Some(Planted::RetryAfterError),
        _ => None,
    }
}
