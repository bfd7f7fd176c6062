//! Load on a bare pipeline in this process: the load generator's closed loop on the one side, a server's thread on the other.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::{Args, FILE_NAME, failed, open};
use crate::base::error::Fatal;
use crate::io::uring::{Config, Uring};
use crate::io::{Errno, Wait};
use crate::loadgen::engine::{Seen, Worker};
use crate::loadgen::talk::{BareTalk, Talk, into_blocks};

#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub conns: usize,
    pub payload_bytes: usize,
    /// Requests in flight per connection.
    pub depth: usize,
    pub warm_up_ms: u64,
    pub measured_ms: u64,
    /// CPU of the driver.
    pub cpu: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub requests: u64,
    pub requests_per_s: f64,
    pub payload_bytes_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    /// CPU time of the server's thread for each request, and as a part of one core.
    pub server_us_per_request: f64,
    pub server_busy: f64,
    /// Over the server's whole life, with its warm-up.
    pub requests_per_round: f64,
    pub bytes_per_write: f64,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} req/s  {:.1} MB/s  p50 {:.0} p99 {:.0} p99.9 {:.0} us  server {:.2} us/req, {:.0} % busy  {:.1} req/round, {:.0} B/write",
            self.requests_per_s,
            self.payload_bytes_per_s / 1e6,
            self.p50_us,
            self.p99_us,
            self.p999_us,
            self.server_us_per_request,
            100.0 * self.server_busy,
            self.requests_per_round,
            self.bytes_per_write,
        )
    }
}

/// Runs a server and this driver for a while, and removes the server's files.
pub fn measure(args: &Args, load: &Load) -> Result<Measured, Fatal> {
    let stop = Arc::new(AtomicBool::new(false));
    let (ready, started) = mpsc::channel();
    let server = thread::spawn({
        let (args, stop) = (args.clone(), stop.clone());
        move || -> Result<(u64, u64, u64, u64), Fatal> {
            let mut pipeline = open(&args)?;
            let _ = ready.send((pipeline.addr(), thread_stat_path()));
            while !stop.load(Ordering::Relaxed) {
                let until = pipeline.io.now().plus_ms(20);
                pipeline.turn(Wait::Until(until))?;
            }
            let rounds = &pipeline.rounds;
            Ok((pipeline.requests_total, rounds.rounds_total, rounds.writes_total, rounds.bytes_total))
        }
    });
    let measured = match started.recv() {
        Ok((addr, stat)) => drive(addr, load, &stat),
        Err(_) => Err(failed("the server", Errno::IO)),
    };
    stop.store(true, Ordering::Relaxed);
    let served = server.join().unwrap_or_else(|_| Err(failed("the server", Errno::IO)));
    for i in 0..args.files.max(1) {
        let _ = fs::remove_file(args.data_dir.join(format!("{FILE_NAME}{i}")));
    }
    let (requests, rounds, writes, bytes) = served?;
    let mut measured = measured?;
    measured.requests_per_round = requests as f64 / rounds.max(1) as f64;
    measured.bytes_per_write = bytes as f64 / writes.max(1) as f64;
    Ok(measured)
}

/// Warms up, then measures; the CPU time is that of the server's thread in the window.
fn drive(addr: SocketAddr, load: &Load, stat: &str) -> Result<Measured, Fatal> {
    let worker = connected(addr, load)?;
    let begin = Instant::now() + Duration::from_millis(load.warm_up_ms);
    let end = begin + Duration::from_millis(load.measured_ms);
    let (seen, cpu_ns) = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let at = |moment: Instant| {
                thread::sleep(moment.saturating_duration_since(Instant::now()));
                thread_cpu_ns(stat)
            };
            let before = at(begin);
            at(end).saturating_sub(before)
        });
        (worker.run(begin, end), watcher.join().unwrap_or(0))
    });
    Ok(measured(&seen.map_err(lost)?, (end - begin).as_secs_f64(), cpu_ns as f64))
}

fn connected(addr: SocketAddr, load: &Load) -> Result<Worker, Fatal> {
    let config = Config { pool_bytes: 16 << 20, cpu: load.cpu, ..Config::default() };
    let mut uring = Uring::new(config)?;
    uring.grow_pool();
    let payload: Vec<u8> = (0..load.payload_bytes).map(|i| ((i * 7) >> 3) as u8).collect();
    let slices = into_blocks(uring.pool(), &payload).ok_or_else(|| failed("a block", Errno::NOMEM))?;
    let crc = crc32c::crc32c(&payload);
    let mut worker = Worker::new(uring);
    for _ in 0..load.conns {
        let talk = Talk::Bare(BareTalk::new(slices.clone(), crc));
        worker.connect(addr, talk, load.depth).map_err(|e| failed("connect", e))?;
    }
    Ok(worker)
}

fn measured(seen: &Seen, seconds: f64, cpu_ns: f64) -> Measured {
    let requests = seen.records;
    let quantile = |q: f64| seen.service.value_at_quantile(q) as f64 / 1e3;
    Measured {
        requests,
        requests_per_s: requests as f64 / seconds,
        payload_bytes_per_s: seen.bytes as f64 / seconds,
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        p999_us: quantile(0.999),
        server_us_per_request: cpu_ns / 1e3 / requests.max(1) as f64,
        server_busy: cpu_ns / 1e9 / seconds,
        requests_per_round: 0.0,
        bytes_per_write: 0.0,
    }
}

fn lost(what: String) -> Fatal {
    Fatal { found: what, ..failed("the load on the pipeline", Errno::IO) }
}

/// Where the calling thread's CPU time is told: the first field of `schedstat`, in nanoseconds.
fn thread_stat_path() -> String {
    let link = fs::read_link("/proc/thread-self").unwrap_or_default();
    format!("/proc/{}/schedstat", link.display())
}

fn thread_cpu_ns(path: &str) -> u64 {
    let stat = fs::read_to_string(path).unwrap_or_default();
    stat.split_ascii_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0)
}
