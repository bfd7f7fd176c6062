//! `corelog serve`: configuration, driver, directory, recovery, listeners, in the order in which things can fail. The first connection
//! is accepted when everything else stands.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::assemble::{Listening, found, together};
use super::configure::{Options, configure};
use super::failures::dead;
use super::logging;
use super::machine;
use super::memory;
use super::pump::Node;
use super::threads;
use super::together::Together;
use crate::base::board::Board;
use crate::base::error::Fatal;
use crate::config::broker::BrokerConfig;
use crate::config::runtime::Runtime;
use crate::config::source::Source;
use crate::io::open::{DriverConfig, open};
use crate::io::{Waker, descriptors, signal};

/// What is true once the broker serves.
#[derive(Clone, Debug)]
pub struct Facts {
    pub listening: Vec<SocketAddr>,
    /// HOST:PORT that clients are told, of each shard where shards are advertised.
    pub advertised: String,
    pub shards: u16,
    pub runtime: &'static str,
    /// Default of topics that set none.
    pub durability: String,
    /// Topics below `durable`.
    pub relaxed_topics: usize,
    pub partitions: usize,
    pub data_dir: PathBuf,
    pub ready_ms: u64,
}

/// Runs a broker until SIGINT or SIGTERM, and tells once that it serves. Returns when everything is flushed.
pub fn serve(options: &Options, serving: &dyn Fn(&Facts)) -> Result<(), Fatal> {
    let since = Instant::now();
    let config = configure(options)?;
    logging::install(&config);
    signal::block_stop_signals();
    descriptors::raise_limit();
    let drivers = drivers(&config)?;
    let asked = config.runtime;
    let mut io = open(asked, drivers[0].clone())?;
    // What `auto` came to here holds for all shards.
    let runtime = io.runtime().unwrap_or(asked);
    let (foundation, head, listening) = found(&mut io, config, drivers[0].pool_bytes as u64)?;
    let board =
        Board::new(io.runtime().map_or("none", Runtime::name), drivers.iter().map(|driver| driver.cpu));
    let together = together(&foundation, board);
    let (node, others) = threads::start(io, runtime, &drivers, &foundation, head, &listening, &together)?;
    stop_on_signal(together.clone(), others.wakers());
    serving(&announce(&node, &listening, options, since));
    let ended = threads::run(node, others);
    tracing::info!("stopped: everything is flushed");
    match ended? {
        None => Ok(()),
        Some(why) => Err(dead(&why)),
    }
}

/// Signals within so long of the first ask for the same stop.
const ONE_REQUEST: Duration = Duration::from_millis(100);

/// Waits for the signals on a thread of its own.
fn stop_on_signal(together: Arc<Together>, wakers: Vec<Waker>) {
    std::thread::spawn(move || {
        signal::wait_for_stop_signal();
        together.ask_to_stop();
        wakers.iter().for_each(Waker::wake_from_outside);
        let asked = Instant::now();
        // timeout(1), and a terminal beside a supervisor, send one request twice.
        while asked.elapsed() < ONE_REQUEST {
            signal::wait_for_stop_signal();
        }
        // Asked again: what is acknowledged as durable or written is on disk already.
        std::process::exit(130);
    });
}

/// What each shard's driver is told: its share of the memory, and its CPU.
fn drivers(config: &BrokerConfig) -> Result<Vec<DriverConfig>, Fatal> {
    let shards = u64::from(config.shards.max(1));
    let cpus = machine::cpus(config.cpus.as_deref())?;
    let request_bytes_max = config.request_bytes_max as u64;
    let usable = machine::usable_memory();
    let share = memory::total(config.memory, usable, config.shards.max(1), request_bytes_max)? / shards;
    let pool_bytes = memory::pool_bytes(share, shards, request_bytes_max);
    // One shard alone goes where the scheduler likes, unless it was told.
    let pinned = shards > 1 || config.cpus.is_some();
    let driver = |shard: usize| DriverConfig {
        pool_bytes: pool_bytes as usize,
        recv_buffers: memory::recv_buffers(share) as u16,
        spin: if cpus.len() > usize::from(config.shards) { config.spin } else { Duration::ZERO },
        cpu: pinned.then(|| cpus[shard % cpus.len()]),
        ..DriverConfig::default()
    };
    Ok((0..shards as usize).map(driver).collect())
}

fn announce(node: &Node, listening: &[Listening], options: &Options, since: Instant) -> Facts {
    let image = &node.meta.image;
    for note in &image.config.notes {
        tracing::warn!("{note}");
    }
    let (default_level, _) = image.config.get("durability").unwrap_or(("durable", Source::Default));
    for Listening { addr, shard, .. } in listening {
        match shard {
            None => tracing::info!("listening on {addr}"),
            Some(shard) => tracing::info!("shard {shard} listens on {addr}"),
        }
    }
    let advertised: Vec<String> = image.brokers.iter().map(|b| format!("{}:{}", b.host, b.port)).collect();
    let mut addresses: Vec<SocketAddr> = listening.iter().map(|listening| listening.addr).collect();
    addresses.dedup();
    let facts = Facts {
        listening: addresses,
        advertised: advertised.join(","),
        shards: image.config.shards,
        runtime: node.io.runtime().map_or("none", Runtime::name),
        durability: default_level.to_string(),
        relaxed_topics: image.topics().filter(|t| t.config.durability.name() != "durable").count(),
        partitions: image.partitions(),
        data_dir: image.config.data_dir.clone(),
        ready_ms: since.elapsed().as_millis() as u64,
    };
    if listening.iter().any(|l| l.addr.ip().is_unspecified()) && image.config.advertised.is_empty() {
        let advertised = &facts.advertised;
        tracing::warn!(
            "clients are told to connect to {advertised}: set advertised.listeners for other machines"
        );
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        shards = facts.shards,
        runtime = facts.runtime,
        io = node.io.description(),
        durability = facts.durability,
        relaxed_topics = facts.relaxed_topics,
        partitions = facts.partitions,
        data_dir = %facts.data_dir.display(),
        advertised = %facts.advertised,
        ready_ms = facts.ready_ms,
        "corelog serves"
    );
    if let (Some(path), Some(addr)) = (&options.ready_file, facts.listening.first())
        && let Err(error) = std::fs::write(path, format!("{addr}\n"))
    {
        tracing::warn!(%error, path = %path.display(), "the ready file cannot be written");
    }
    facts
}
