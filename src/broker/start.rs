//! Start, in the order in which things can fail: configuration, ring, directory, recovery, listeners. The first connection is
//! accepted when everything else stands.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::control;
use super::files;
use super::logging;
use super::machine;
use super::pump::Node;
use super::source::IoSource;
use crate::base::error::Fatal;
use crate::base::ids::{PartitionIndex, PartitionKey, ShardId, Uuid};
use crate::base::limits::RECV_BUF_BYTES;
use crate::config::broker::{BrokerConfig, Listener, memory_default};
use crate::config::source::{Loader, Source};
use crate::controller::image::{Broker, Image};
use crate::io::uring::{self, Uring};
use crate::io::{Errno, Io, ListenerId, LockError, StorageCaps, signal};
use crate::log::store::StoreConfig;
use crate::server::metadata::{Ids, Metadata};
use crate::server::quota::ConnectionQuota;
use crate::server::{Server, ServerConfig};
use crate::shard::{Shard, rules};

/// What `corelog serve` was told. Everything else is configuration.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub data_dir: Option<PathBuf>,
    pub listen: Option<String>,
    pub shards: Option<u16>,
    pub config_file: Option<PathBuf>,
    pub dev: bool,
    /// Written when the broker serves: the bound address and a newline.
    pub ready_file: Option<PathBuf>,
    /// `key=value` pairs.
    pub set: Vec<String>,
}

/// Share of the memory that receive buffers take, and their number's bounds.
const RECV_SHARE: u64 = 16;
const RECV_BUFFERS_MIN: u64 = 64;
const RECV_BUFFERS_MAX: u64 = 1024;

/// Share of the memory that connections may hold besides it: half frames, waiting requests, answers not taken.
const HELD_SHARE: u64 = 4;

/// A floor of free space, where none is configured: two segments and 1 % of the disk.
const FREE_SEGMENTS: u64 = 2;
const FREE_SHARE: u64 = 100;

/// A file that only takes space: without it a broker on a full disk could not start, and so not delete anything.
const SPARE: &str = "spare";

/// What a start needs before it can give space back: a journal, a snapshot, the state files of logs, probes.
const SPARE_BYTES: u64 = 4 << 20;

/// Runs a broker until SIGINT or SIGTERM. Returns when everything is flushed.
pub fn serve(options: &Options) -> Result<(), Fatal> {
    let since = Instant::now();
    let config = configure(options)?;
    logging::install(&config);
    signal::block_stop_signals();
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    std::thread::spawn(move || {
        signal::wait_for_stop_signal();
        asked.store(true, Ordering::Release);
        signal::wait_for_stop_signal();
        // Asked twice: what is acknowledged is on disk already.
        std::process::exit(130);
    });
    let (mut node, listening) = on_uring(config)?;
    for (listener, _) in &listening {
        node.server.serve(*listener);
    }
    announce(&node, &listening, options, since);
    while !node.is_stopped() {
        if stop.load(Ordering::Acquire) {
            node.begin_stop();
        }
        node.turn();
    }
    tracing::info!("stopped: everything is flushed");
    match node.dead {
        None => Ok(()),
        Some(why) => Err(dead(&why)),
    }
}

/// The configuration in effect: defaults, file, environment, flags.
pub fn configure(options: &Options) -> Result<BrokerConfig, Fatal> {
    let mut loader = Loader::default();
    if options.dev {
        loader.dev();
    }
    if let Some(path) = &options.config_file {
        let text = std::fs::read_to_string(path).map_err(|e| bad_file(path, &e))?;
        loader.file(&path.display().to_string(), &text)?;
    }
    loader.env(std::env::vars())?;
    if let Some(dir) = &options.data_dir {
        loader.set(Source::Flag, "log.dirs", &dir.display().to_string())?;
    }
    if let Some(listen) = &options.listen {
        let listener = if listen.contains("://") { listen.clone() } else { format!("PLAINTEXT://{listen}") };
        loader.set(Source::Flag, "listeners", &listener)?;
    }
    if let Some(shards) = options.shards {
        loader.set(Source::Flag, "shards", &shards.to_string())?;
    }
    for pair in &options.set {
        let (key, value) = pair.split_once('=').ok_or_else(|| Fatal {
            code: "bad-config-key",
            summary: format!("-X {pair} is not key=value"),
            found: pair.clone(),
            means: "a broker setting is a name and a value".into(),
            tries: vec!["-X num.partitions=4".into()],
        })?;
        loader.set(Source::Flag, key, value)?;
    }
    let config = loader.finish()?;
    if config.shards > 1 {
        return Err(Fatal {
            code: "more-shards-than-served",
            summary: format!("{} shards were asked for", config.shards),
            found: "this release serves one shard".into(),
            means: "several shards in one broker are not there yet".into(),
            tries: vec![
                "--shards 1".into(),
                "one broker per core, each with its own --data-dir and --listen".into(),
            ],
        });
    }
    Ok(config)
}

fn on_uring(config: BrokerConfig) -> Result<(Node, Vec<(ListenerId, SocketAddr)>), Fatal> {
    let memory = config.memory.unwrap_or_else(|| memory_default(machine::usable_memory()));
    let recv_bytes = RECV_BUF_BYTES as u64;
    let recv_buffers = (memory / RECV_SHARE / recv_bytes).clamp(RECV_BUFFERS_MIN, RECV_BUFFERS_MAX);
    let pool_bytes = memory.saturating_sub(recv_buffers * recv_bytes);
    let uring = Uring::new(uring::Config {
        pool_bytes: pool_bytes as usize,
        recv_buffers: recv_buffers as u16,
        spin: config.spin_us > 0 && machine::cpus() > usize::from(config.shards),
        ..uring::Config::default()
    })?;
    tracing::info!(ring = ?uring.probed(), "io_uring");
    assemble(Io::Uring(Box::new(uring)), config, pool_bytes)
}

/// Recovers the directory and listens, over any driver.
pub fn assemble(
    mut io: Io,
    config: BrokerConfig,
    pool_bytes: u64,
) -> Result<(Node, Vec<(ListenerId, SocketAddr)>), Fatal> {
    let dir = config.data_dir.clone();
    io.grow_pool();
    files::make_dirs(&mut io, &dir).map_err(|e| bad_directory(&dir, e))?;
    io.lock_dir(&dir).map_err(|e| locked(&dir, &e))?;
    if io.disk_space(&dir).is_ok_and(|space| space.free < 2 * SPARE_BYTES) {
        let _ = files::remove(&mut io, &dir.join(SPARE));
    }
    let caps = durable_storage(&mut io, &dir, &config)?;
    let mut listening = listen(&mut io, &config)?;
    let (host, port) = advertised(&config, &listening);
    let me = Broker { id: config.node_id, host, port, rack: config.rack.clone() };
    let recovered = control::recover(&mut io, &dir, Arc::new(config.clone()), vec![me])?;
    let store = StoreConfig {
        data_dir: dir.clone(),
        directory: recovered.directory,
        shared_flush: config.shared_flush,
        free_bytes_min: free_bytes_min(&mut io, &dir, &config),
        tail_cache_bytes: config.tail_cache.unwrap_or(pool_bytes / 2) as usize,
        planted: planted(),
        caps,
    };
    let mut shard = Shard::new(ShardId(0), store);
    shard.set_retention_check_ms(config.retention_check_ms);
    open_partitions(&mut io, &mut shard, &dir, &recovered.image)?;
    keep_spare(&mut io, &dir);
    let mut seed = [0u8; 32];
    io.random(&mut seed);
    let server = Server::new(
        ServerConfig {
            shard: ShardId(0),
            // A request larger than that could never be stored.
            request_bytes_max: config.request_bytes_max.min((pool_bytes / 2) as usize),
            fetch_bytes_max: config.fetch_bytes_max,
            idle_ms_max: config.connection_idle_ms_max,
            held_bytes_max: pool_bytes / HELD_SHARE,
        },
        ConnectionQuota::default(),
    );
    let meta = Metadata::new(Arc::new(recovered.image), recovered.controller, Ids::new(seed));
    listening.sort_by_key(|(_, addr)| !addr.is_ipv4());
    Ok((Node::new(io, shard, server, meta, recovered.control), listening))
}

fn keep_spare(io: &mut Io, dir: &Path) {
    let there = io.list_dir(dir).is_ok_and(|entries| entries.iter().any(|entry| entry.name == SPARE));
    if !there && let Err(errno) = files::reserve(io, &dir.join(SPARE), SPARE_BYTES) {
        tracing::warn!(%errno, "no space to keep for the next start");
    }
}

/// Opens what has a directory, creates what has none yet, removes directories of topics that are gone.
fn open_partitions(io: &mut Io, shard: &mut Shard, dir: &Path, image: &Image) -> Result<(), Fatal> {
    let found = io.list_dir(dir).map_err(|e| bad_directory(dir, e))?;
    for entry in found.iter().filter(|entry| entry.is_dir) {
        let Some(id) = Uuid::parse(&entry.name) else { continue };
        if image.topic_by_id(id).is_none() {
            let path = dir.join(&entry.name);
            files::remove_tree(io, &path).map_err(|e| bad_directory(&path, e))?;
        }
    }
    for topic in image.topics() {
        let topic_dir = dir.join(topic.id.to_string());
        let present = io.list_dir(&topic_dir).unwrap_or_default();
        for index in 0..topic.partitions.len() {
            let key = PartitionKey { topic: topic.id, partition: PartitionIndex(index as i32) };
            let rules = rules::of(&topic.config, &image.config);
            if present.iter().any(|entry| entry.is_dir && entry.name == index.to_string()) {
                shard.open(&mut IoSource::new(io), key, rules)?;
            } else {
                shard.create(key, rules);
            }
        }
    }
    Ok(())
}

fn listen(io: &mut Io, config: &BrokerConfig) -> Result<Vec<(ListenerId, SocketAddr)>, Fatal> {
    let mut listening = Vec::new();
    for listener in &config.listeners {
        let addr = resolve(listener)?;
        let bound = io.listen(addr).map_err(|e| not_listening(addr, e))?;
        listening.push(bound);
        // `localhost` is ::1 for some clients: both loopback addresses answer, as far as the second one is free.
        if addr.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST)
            && let Ok(both) = io.listen(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), bound.1.port()))
        {
            listening.push(both);
        }
    }
    Ok(listening)
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

/// What clients are told to connect to.
fn advertised(config: &BrokerConfig, listening: &[(ListenerId, SocketAddr)]) -> (String, u16) {
    let bound = listening.first().map(|(_, addr)| *addr);
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

fn announce(node: &Node, listening: &[(ListenerId, SocketAddr)], options: &Options, since: Instant) {
    let image = &node.meta.image;
    for note in &image.config.notes {
        tracing::info!("{note}");
    }
    let relaxed = image.topics().filter(|t| t.config.durability.name() != "durable").count();
    let (default_level, _) = image.config.get("durability").unwrap_or(("durable", Source::Default));
    for (_, addr) in listening {
        tracing::info!("listening on {addr}");
    }
    let advertised = image.brokers.first().map(|b| format!("{}:{}", b.host, b.port)).unwrap_or_default();
    if listening.iter().any(|(_, addr)| addr.ip().is_unspecified()) && image.config.advertised.is_empty() {
        tracing::warn!(
            "clients are told to connect to {advertised}: set advertised.listeners for other machines"
        );
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        shards = image.config.shards,
        durability = default_level,
        relaxed_topics = relaxed,
        partitions = node.shard.partitions(),
        data_dir = %image.config.data_dir.display(),
        %advertised,
        ready_ms = since.elapsed().as_millis() as u64,
        "corelog serves"
    );
    if let (Some(path), Some((_, addr))) = (&options.ready_file, listening.first())
        && let Err(error) = std::fs::write(path, format!("{addr}\n"))
    {
        tracing::warn!(%error, path = %path.display(), "the ready file cannot be written");
    }
}

fn bad_file(path: &Path, error: &std::io::Error) -> Fatal {
    Fatal {
        code: "bad-config-file",
        summary: format!("{} cannot be read", path.display()),
        found: error.to_string(),
        means: "the broker does not start without the configuration it was told to use".into(),
        tries: vec!["--config FILE with a file that this user may read".into()],
    }
}

fn bad_directory(dir: &Path, errno: Errno) -> Fatal {
    let code = if errno == Errno::NOSPC { "disk-full" } else { "data-dir-unusable" };
    let (means, try_this) = match errno {
        Errno::ACCES => ("this user may not write there", format!("chown or chmod {}", dir.display())),
        Errno::ROFS => {
            ("the file system is mounted read-only", "mount -o remount,rw, or another --data-dir".into())
        }
        Errno::NOSPC => ("the disk is full", "free some space, or another --data-dir".into()),
        _ => ("the logs cannot be kept there", "another --data-dir".into()),
    };
    Fatal {
        code,
        summary: format!("the data directory {} cannot be used", dir.display()),
        found: errno.to_string(),
        means: means.into(),
        tries: vec![try_this],
    }
}

fn locked(dir: &Path, error: &LockError) -> Fatal {
    let (found, first) = match error {
        LockError::Held(Some(pid)) => {
            (format!("process {pid} holds it"), format!("stop that broker first: kill {pid}"))
        }
        LockError::Held(None) => ("another process holds it".into(), "stop the broker that uses it".into()),
        // Nobody holds it: the lock file cannot be made.
        LockError::Failed(errno) => return bad_directory(dir, *errno),
    };
    Fatal {
        code: "data-dir-locked",
        summary: format!("the data directory {} is in use", dir.display()),
        found,
        means: "two brokers on one directory would destroy each other's logs".into(),
        tries: vec![first, "another --data-dir".into()],
    }
}

fn not_listening(addr: SocketAddr, errno: Errno) -> Fatal {
    let in_use = errno == Errno::ADDRINUSE;
    Fatal {
        code: if in_use { "port-in-use" } else { "listener-failed" },
        summary: format!("cannot listen on {addr}"),
        found: errno.to_string(),
        means: if in_use { "another process serves this port" } else { "the address cannot be bound" }.into(),
        tries: vec![
            format!("ss -ltnp 'sport = :{}' names the owner", addr.port()),
            "--listen 127.0.0.1:0 takes a free port".into(),
        ],
    }
}

fn dead(why: &str) -> Fatal {
    Fatal {
        code: "log-directory-failed",
        summary: "a write or a flush failed while the broker ran".into(),
        found: why.into(),
        means: "nothing was acknowledged after it; a restart reads the directory and decides again".into(),
        tries: vec!["dmesg, and the disk's health; then start again".into()],
    }
}
