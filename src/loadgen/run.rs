//! A run: a topic, workers, a warm-up, a window, and the CPU time around it.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::engine::{Seen, Worker};
use super::report::Report;
use super::talk::{BareTalk, FetchTalk, ProduceTalk, Talk, into_blocks};
use super::{cpu, durability};
use crate::base::error::Fatal;
use crate::base::limits::BLOCK_BYTES;
use crate::client::cluster::Cluster;
use crate::client::error::ClientError;
use crate::client::producer::Producer;
use crate::client::settings::{Acks, Settings};
use crate::io::uring::{Config, Uring};
use crate::wire::batch::build::{BatchBuilder, NewRecord};
use crate::wire::codec::Codec;
use crate::wire::msg::Bytes;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Produce,
    Fetch,
    /// The bare pipeline, which speaks no Kafka.
    Bare,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Produce => "produce",
            Mode::Fetch => "fetch",
            Mode::Bare => "bare",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Load {
    pub mode: Mode,
    pub address: String,
    pub topic: String,
    pub connections: usize,
    /// Unanswered requests per connection.
    pub in_flight: usize,
    pub record_bytes: usize,
    pub batch_records: usize,
    /// Connection `i` uses partition `i` modulo this.
    pub partitions: i32,
    /// Each connection's produce requests go to all of these partitions in turn.
    pub spread: bool,
    pub acks: Acks,
    pub workers: usize,
    pub warm_up: Duration,
    pub window: Duration,
    /// Bytes asked for by a fetch.
    pub fetch_bytes: i32,
    /// Whose CPU time is told.
    pub server_pid: Option<u32>,
}

/// Why a run did not take place.
#[derive(Debug)]
pub enum Failed {
    Client(ClientError),
    Fatal(Fatal),
    Talk(String),
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Failed {
        Failed::Client(error)
    }
}

/// Where each connection goes, and what it says there.
struct Plan {
    to: SocketAddr,
    /// In turn, beginning with the first, whose leader it goes to.
    partitions: Vec<i32>,
    /// First and end offset of the first, for a fetch.
    range: (i64, i64),
}

/// Runs one load against a topic that exists (or a bare pipeline) and reports.
pub fn run(load: &Load, settings: &Settings) -> Result<Report, Failed> {
    let (plans, label) = plan(load, settings)?;
    let payload = payload(load)?;
    let workers = load.workers.clamp(1, load.connections.max(1));
    let load = Load { workers, ..load.clone() };
    std::thread::scope(|scope| {
        let mut starts = Vec::new();
        let (ready, connected) = channel();
        let threads: Vec<_> = (0..workers)
            .map(|w| {
                let (start, begin) = channel();
                starts.push(start);
                let (load, plans, payload, ready) = (&load, &plans, &payload, ready.clone());
                scope.spawn(move || work(load, plans, payload, w, &ready, &begin))
            })
            .collect();
        drop(ready);
        let connected = connected.iter().take(workers).count();
        let begin = Instant::now() + load.warm_up;
        let end = begin + load.window;
        if connected == workers {
            for start in &starts {
                let _ = start.send((begin, end));
            }
        }
        drop(starts);
        let (generator, server, steal) = watch_cpu(&load, begin, end, connected == workers);
        let mut seen = Seen::new();
        for thread in threads {
            seen.add(&thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        let seconds = load.window.as_secs_f64();
        Ok(Report {
            durability: label,
            seconds,
            seen,
            generator_cpu_s: generator,
            server_cpu_s: server,
            steal,
            load: load.clone(),
        })
    })
}

/// CPU seconds of this process and the server, and the share stolen, between two moments.
fn watch_cpu(load: &Load, begin: Instant, end: Instant, wait: bool) -> (Option<f64>, Option<f64>, f64) {
    if !wait {
        return (None, None, 0.0);
    }
    let own = std::process::id();
    let sample = || (cpu::process_ns(own), load.server_pid.and_then(cpu::process_ns), cpu::steal_ticks());
    std::thread::sleep(begin.saturating_duration_since(Instant::now()));
    let before = sample();
    // A little early: threads that have ended are not counted any more.
    std::thread::sleep(end.saturating_duration_since(Instant::now() + Duration::from_millis(5)));
    let after = sample();
    let seconds = |a: Option<u64>, b: Option<u64>| Some((b? - a?.min(b?)) as f64 / 1e9);
    let steal = match (before.2, after.2) {
        (Some(a), Some(b)) if b.1 > a.1 => (b.0 - a.0) as f64 / (b.1 - a.1) as f64,
        _ => 0.0,
    };
    (seconds(before.0, after.0), seconds(before.1, after.1), steal)
}

type Window = (Instant, Instant);

fn work(
    load: &Load,
    plans: &[Plan],
    payload: &Bytes,
    number: usize,
    ready: &Sender<()>,
    begin: &Receiver<Window>,
) -> Result<Seen, Failed> {
    let blocks = payload.len() / BLOCK_BYTES + 2;
    let recv_buffers = if load.mode == Mode::Fetch { 512 } else { 128 };
    let config =
        Config { pool_bytes: (blocks * BLOCK_BYTES).max(16 << 20), recv_buffers, ..Config::default() };
    let mut uring = Uring::new(config).map_err(Failed::Fatal)?;
    uring.grow_pool();
    let slices = into_blocks(uring.pool(), payload)
        .ok_or_else(|| Failed::Talk("the batch is too large".to_string()))?;
    let mut worker = Worker::new(uring);
    for plan in plans.iter().skip(number).step_by(load.workers) {
        let talk = match load.mode {
            Mode::Bare => Talk::Bare(BareTalk::new(slices.clone(), crc32c::crc32c(payload))),
            Mode::Fetch => Talk::Fetch(FetchTalk::new(
                &load.topic,
                plan.partitions[0],
                plan.range,
                load.in_flight,
                load.fetch_bytes,
            )),
            Mode::Produce => {
                let records = load.batch_records as u64;
                let talk = ProduceTalk::new(
                    &load.topic,
                    plan.partitions.clone(),
                    load.acks,
                    payload,
                    records,
                    slices.clone(),
                );
                Talk::Produce(talk.map_err(Failed::Talk)?)
            }
        };
        worker
            .connect(plan.to, talk, load.in_flight)
            .map_err(|e| unreachable(&plan.to.to_string(), &e.to_string()))?;
    }
    let _ = ready.send(());
    match begin.recv() {
        Ok((begin, end)) => worker.run(begin, end).map_err(Failed::Talk),
        // Another worker failed, and says why.
        Err(_) => Ok(Seen::new()),
    }
}

fn unreachable(address: &str, why: &str) -> Failed {
    Failed::Client(ClientError::Unreachable { address: address.to_string(), why: why.to_string() })
}

fn resolve(address: &str) -> Result<SocketAddr, Failed> {
    let found = address.to_socket_addrs().map_err(|e| unreachable(address, &e.to_string()))?.next();
    found.ok_or_else(|| unreachable(address, "the name resolves to no address"))
}

fn plan(load: &Load, settings: &Settings) -> Result<(Vec<Plan>, &'static str), Failed> {
    if load.mode == Mode::Bare {
        let to = resolve(&load.address)?;
        return Ok((
            (0..load.connections).map(|_| Plan { to, partitions: vec![0], range: (0, 0) }).collect(),
            "device",
        ));
    }
    let mut cluster = Cluster::new(settings.clone());
    let topic = cluster.topic(&load.topic)?;
    let label = match load.mode {
        Mode::Produce => {
            let in_sync = topic.partitions.iter().map(|p| p.in_sync.len()).min().unwrap_or(0);
            durability::label(&cluster.topic_configs(&load.topic)?, load.acks, in_sync)
        }
        _ => "none",
    };
    let ranges = cluster.offset_ranges(&load.topic)?;
    let mut plans = Vec::new();
    let used = load.partitions.clamp(1, topic.partitions.len() as i32) as usize;
    for i in 0..load.connections {
        let partition = &topic.partitions[i % used];
        let turns = if load.spread { used } else { 1 };
        let leader = cluster.brokers().find(|b| b.id == partition.leader).map(|b| b.address.clone());
        let leader = leader.unwrap_or_else(|| load.address.clone());
        plans.push(Plan {
            to: resolve(&leader)?,
            partitions: (i..i + turns).map(|at| topic.partitions[at % used].index).collect(),
            range: ranges[&partition.index],
        });
    }
    Ok((plans, label))
}

/// What each request carries: a record batch, or raw bytes for the bare pipeline. Incompressible.
fn payload(load: &Load) -> Result<Bytes, Failed> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut noise = |len: usize| -> Vec<u8> {
        let bytes = (0..len).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        });
        bytes.collect()
    };
    match load.mode {
        Mode::Fetch => Ok(Bytes::new()),
        Mode::Bare => Ok(Bytes::from(noise(load.record_bytes * load.batch_records))),
        Mode::Produce => {
            let mut builder = BatchBuilder::new(Codec::None);
            for _ in 0..load.batch_records {
                let value = noise(load.record_bytes);
                builder.push(&NewRecord {
                    timestamp: super::ledger::now_ms() as i64,
                    value: Some(&value),
                    ..NewRecord::default()
                });
            }
            let mut batch = Vec::new();
            builder.finish(&mut batch).map_err(|e| Failed::Talk(e.to_string()))?;
            Ok(Bytes::from(batch))
        }
    }
}

/// Writes about `bytes` into all partitions, for a fetch to have something to read.
pub fn fill(settings: &Settings, topic: &str, record_bytes: usize, bytes: u64) -> Result<(), ClientError> {
    let settings = Settings { batch_bytes: 256 * 1024, ..settings.clone() };
    let mut producer = Producer::new(Cluster::new(settings), topic, 1)?;
    let value = vec![b'x'; record_bytes.max(1)];
    let records = bytes / value.len() as u64;
    for i in 0..records {
        let partition = (i / 256 % producer.partitions() as u64) as i32;
        producer.push(
            Some(partition),
            &NewRecord { timestamp: 0, value: Some(&value), ..NewRecord::default() },
            0,
        )?;
        producer.take_acks().for_each(drop);
    }
    producer.flush()
}
