//! Load on a bare pipeline: a fixed number of connections, each with a fixed number of requests in flight (a closed loop).

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use hdrhistogram::Histogram;

use super::frames::{HEADER_BYTES, Header, REPLY_BYTES};
use super::{Args, FILE_NAME, failed, open};
use crate::base::error::Fatal;
use crate::base::limits::BLOCK_BYTES;
use crate::io::buffer::BlockSlice;
use crate::io::uring::{Config, Uring};
use crate::io::{ConnId, Done, Errno, Mono, Op, Payload, SendChain, SendPart, Token, Wait};

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
        Ok((addr, stat)) => Driver::new(addr, load).and_then(|mut driver| driver.measure(load, &stat)),
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

struct Driver {
    uring: Uring,
    conns: Vec<Conn>,
    payload: Vec<BlockSlice>,
    header: Header,
    latency_ns: Histogram<u64>,
    done: Vec<Done>,
}

struct Conn {
    id: ConnId,
    seq: u64,
    /// When each request in flight was made.
    sent: VecDeque<Mono>,
    /// Requests that wait for the send in flight.
    owed: usize,
    sending: bool,
    /// Bytes of a reply that has not arrived whole.
    partial: usize,
}

const RECV: u64 = 1 << 32;
const SEND: u64 = 2 << 32;

impl Driver {
    fn new(addr: SocketAddr, load: &Load) -> Result<Driver, Fatal> {
        let config = Config { pool_bytes: 16 << 20, cpu: load.cpu, ..Config::default() };
        let mut uring = Uring::new(config)?;
        uring.grow_pool();
        let mut payload = Vec::new();
        let mut crc = 0;
        let mut left = load.payload_bytes;
        while left > 0 {
            let mut block = uring.pool().take().ok_or_else(|| failed("a block", Errno::NOMEM))?;
            let len = left.min(BLOCK_BYTES);
            block.append(&(0..len).map(|i| ((i * 7) >> 3) as u8).collect::<Vec<u8>>());
            payload.push(block.slice(0..len));
            crc = crc32c::crc32c_append(crc, payload.last().map_or(&[], |slice| &**slice));
            left -= len;
        }
        let header = Header { payload_bytes: load.payload_bytes as u32, crc, seq: 0 };
        let latency_ns =
            Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("up to a minute, three digits");
        let mut driver = Driver { uring, conns: Vec::new(), payload, header, latency_ns, done: Vec::new() };
        for i in 0..load.conns {
            let id = driver.uring.connect(addr).map_err(|e| failed("connect", e))?;
            driver.uring.push(Op::Recv { conn: id }, Token(RECV | i as u64));
            let sent = VecDeque::with_capacity(load.depth);
            driver.conns.push(Conn { id, seq: 0, sent, owed: load.depth, sending: false, partial: 0 });
        }
        Ok(driver)
    }

    fn measure(&mut self, load: &Load, stat: &str) -> Result<Measured, Fatal> {
        (0..self.conns.len()).for_each(|i| self.send(i));
        self.drive(load.warm_up_ms)?;
        self.latency_ns.reset();
        let (start, cpu_ns) = (self.uring.now(), thread_cpu_ns(stat));
        self.drive(load.measured_ms)?;
        let seconds = (self.uring.now().0 - start.0) as f64 / 1e9;
        let cpu_ns = (thread_cpu_ns(stat) - cpu_ns) as f64;
        let requests = self.latency_ns.len();
        let quantile = |q: f64| self.latency_ns.value_at_quantile(q) as f64 / 1e3;
        Ok(Measured {
            requests,
            requests_per_s: requests as f64 / seconds,
            payload_bytes_per_s: (requests * load.payload_bytes as u64) as f64 / seconds,
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            server_us_per_request: cpu_ns / 1e3 / requests.max(1) as f64,
            server_busy: cpu_ns / 1e9 / seconds,
            requests_per_round: 0.0,
            bytes_per_write: 0.0,
        })
    }

    fn drive(&mut self, ms: u64) -> Result<(), Fatal> {
        let until = self.uring.now().plus_ms(ms);
        loop {
            let mut done = std::mem::take(&mut self.done);
            self.uring.turn(Wait::Until(until), &mut done);
            let now = self.uring.now();
            for completion in done.drain(..) {
                let i = (completion.token.0 & 0xffff_ffff) as usize;
                match completion.token.0 - i as u64 {
                    RECV => self.received(i, completion, now)?,
                    _ => self.sent(i, completion)?,
                }
            }
            self.done = done;
            if now >= until {
                return Ok(());
            }
        }
    }

    fn received(&mut self, i: usize, done: Done, now: Mono) -> Result<(), Fatal> {
        let conn = &mut self.conns[i];
        match (done.result, done.payload) {
            (_, Payload::Received(piece)) => {
                let bytes = conn.partial + piece.len();
                conn.partial = bytes % REPLY_BYTES;
                for _ in 0..bytes / REPLY_BYTES {
                    let sent = conn
                        .sent
                        .pop_front()
                        .ok_or_else(|| failed("a reply nobody waits for", Errno::INVAL))?;
                    self.latency_ns.saturating_record(now.0 - sent.0);
                    conn.owed += 1;
                }
            }
            (Err(Errno::NOBUFS), _) => {}
            (result, _) => return Err(failed("receiving replies", result.err().unwrap_or(Errno::CONNRESET))),
        }
        if !done.more {
            self.uring.push(Op::Recv { conn: conn.id }, Token(RECV | i as u64));
        }
        self.send(i);
        Ok(())
    }

    fn sent(&mut self, i: usize, done: Done) -> Result<(), Fatal> {
        let conn = &mut self.conns[i];
        let Payload::Sent(mut chain) = done.payload else { unreachable!("a send hands its chain back") };
        chain.advance(done.result.map_err(|e| failed("sending requests", e))? as usize);
        conn.sending = false;
        if !chain.is_done() {
            conn.sending = true;
            self.uring.push(Op::Send { conn: conn.id, chain }, Token(SEND | i as u64));
        }
        self.send(i);
        Ok(())
    }

    /// Sends the requests that the connection may have in flight.
    fn send(&mut self, i: usize) {
        let conn = &mut self.conns[i];
        if conn.sending || conn.owed == 0 {
            return;
        }
        let now = self.uring.now();
        let mut chain = SendChain::default();
        for _ in 0..std::mem::take(&mut conn.owed) {
            let header: [u8; HEADER_BYTES] = Header { seq: conn.seq, ..self.header }.bytes();
            chain.push(SendPart::Bytes(header.to_vec()));
            self.payload.iter().for_each(|slice| chain.push(SendPart::Block(slice.clone())));
            conn.seq += 1;
            conn.sent.push_back(now);
        }
        conn.sending = true;
        self.uring.push(Op::Send { conn: conn.id, chain }, Token(SEND | i as u64));
    }
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
