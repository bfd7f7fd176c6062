//! What a message to another shard costs on each driver, by what that shard is doing: awake, spinning before it sleeps, asleep.
//! `--smoke` runs it briefly, as `cargo test` does.
//!
//! Prints a line per driver and case: nanoseconds from before the push to the receiver having the message (median and 99th
//! percentile), and what the sender itself spends on push, wake-up and the turn that carries it out (median). Sender and receiver
//! have a CPU each; on a machine with one, or with busy ones, it measures the scheduler instead.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use corelog::config::runtime::Runtime;
use corelog::io::lane::{Receiver, lane};
use corelog::io::open::{DriverConfig, SPIN_MAX, open};
use corelog::io::{Io, Wait};

/// What the receiver does while no message comes, and how far apart messages come so that it is surely doing it.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    awake: bool,
    spin: Duration,
    gap: Duration,
}

const CASES: [Case; 3] = [
    Case { name: "awake", awake: true, spin: Duration::ZERO, gap: Duration::from_micros(5) },
    // Far below the longest gap that a driver spins for.
    Case { name: "spinning", awake: false, spin: SPIN_MAX, gap: Duration::from_micros(5) },
    // Long enough for the receiver's CPU to be idle, as it is beside a load that leaves it time to sleep.
    Case { name: "asleep", awake: false, spin: Duration::ZERO, gap: Duration::from_micros(300) },
];

/// The end of a run.
const OVER: u64 = u64::MAX;

/// No wait of a run takes as long.
const PATIENCE_MS: u64 = 10_000;

/// For the shard of this number, which has a CPU of its own where there are `cpus` enough.
fn config(spin: Duration, number: usize, cpus: usize) -> DriverConfig {
    let cpu = (number < cpus).then_some(number);
    DriverConfig { pool_bytes: 4 << 20, entries: 64, recv_buffers: 4, spin, cpu }
}

/// Takes messages, each the time of its push, until `OVER`; nanoseconds that each took.
fn receive(
    mut io: Io,
    case: Case,
    epoch: Instant,
    lane: &mut Receiver<u64>,
    received: &AtomicU64,
) -> Vec<u64> {
    let mut took = Vec::new();
    let mut out = Vec::new();
    loop {
        while let Some(pushed) = lane.pop() {
            if pushed == OVER {
                return took;
            }
            took.push(nanos(epoch) - pushed);
            received.store(took.len() as u64, Ordering::Release);
        }
        let wait = if case.awake {
            Wait::No
        } else {
            io.announce_sleep();
            let until = Wait::Until(io.now().plus_ms(PATIENCE_MS));
            if lane.is_empty() { until } else { Wait::No }
        };
        io.turn(wait, &mut out);
    }
}

fn nanos(epoch: Instant) -> u64 {
    epoch.elapsed().as_nanos() as u64
}

/// Spins, and lets others run now and then, so that a single core gets through too.
fn spin_until(mut over: impl FnMut() -> bool) {
    let mut spins = 0u32;
    while !over() {
        spins += 1;
        if spins.is_multiple_of(20_000) {
            thread::yield_now();
        }
        spin_loop();
    }
}

/// `count` messages; nanoseconds that each was under way, and that each cost its sender.
fn hops(runtime: Runtime, case: Case, count: u64, cpus: usize) -> Option<(Vec<u64>, Vec<u64>)> {
    let mut io = open(runtime, config(Duration::ZERO, 0, cpus)).ok()?;
    let (mut tx, mut rx) = lane::<u64>(4);
    let (epoch, received) = (Instant::now(), AtomicU64::new(0));
    let (tell, learn) = mpsc::channel();
    let mut cost = Vec::new();
    let took = thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let io = open(runtime, config(case.spin, 1, cpus)).expect("a driver as good as the first");
            tell.send(io.waker()).expect("the sender waits for it");
            receive(io, case, epoch, &mut rx, &received)
        });
        let waker = learn.recv().expect("the receiver tells it");
        let mut out = Vec::new();
        for number in 1..=count {
            let until = Instant::now() + case.gap;
            spin_until(|| Instant::now() >= until);
            let begin = nanos(epoch);
            assert!(tx.push(begin).is_ok(), "one is under way at most");
            io.wake(&waker);
            io.turn(Wait::No, &mut out);
            cost.push(nanos(epoch) - begin);
            spin_until(|| received.load(Ordering::Acquire) == number);
        }
        assert!(tx.push(OVER).is_ok(), "one is under way at most");
        io.wake(&waker);
        io.turn(Wait::No, &mut out);
        receiver.join().expect("received to the end")
    });
    Some((took, cost))
}

fn at(sorted: &[u64], part: f64) -> u64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}

fn main() {
    // Cargo says `--bench` when it measures; `cargo test` runs the same program briefly.
    let args: Vec<String> = std::env::args().collect();
    let smoke = args.iter().any(|arg| arg == "--smoke") || !args.iter().any(|arg| arg == "--bench");
    let count = if smoke { 50 } else { 20_000 };
    // Before this thread is bound to one of them.
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    println!("{:<24}{:>14}{:>14}{:>16}", "ns", "hop p50", "hop p99", "sender p50");
    for runtime in Runtime::built().filter_map(Runtime::parse) {
        for case in CASES {
            let name = format!("{}, {}", runtime.name(), case.name);
            let Some((mut took, mut cost)) = hops(runtime, case, count, cpus) else {
                println!("{name:<24} this runtime cannot run here");
                continue;
            };
            took.sort_unstable();
            cost.sort_unstable();
            println!("{name:<24}{:>14}{:>14}{:>16}", at(&took, 0.5), at(&took, 0.99), at(&cost, 0.5));
        }
    }
}
