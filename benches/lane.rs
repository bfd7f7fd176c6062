//! What a message between two shards costs. `--smoke` runs it briefly, as `cargo test` does.
//!
//! Prints a line per case: name, nanoseconds per operation (the fastest of several rounds). The hop between two threads is half of a
//! round trip with both awake; on a machine whose other core is busy it measures the scheduler instead.

use std::hint::{black_box, spin_loop};
use std::thread;
use std::time::Instant;

use corelog::io::lane::{Receiver, lane};

/// As large as a message between shards may well be.
type Message = [u64; 8];

/// Runs `round` several times, each of `count` operations, and prints the fastest.
fn measure(name: &str, rounds: u32, count: u64, mut round: impl FnMut(u64)) {
    let mut best = f64::MAX;
    for _ in 0..rounds {
        let started = Instant::now();
        round(count);
        best = best.min(started.elapsed().as_nanos() as f64 / count as f64);
    }
    println!("{name:<40} {best:>12.1} ns");
}

/// Spins for the next message; lets others run now and then, so that a single core gets through too.
fn next(rx: &mut Receiver<Message>) -> Message {
    loop {
        for _ in 0..10_000 {
            if let Some(message) = rx.pop() {
                return message;
            }
            spin_loop();
        }
        thread::yield_now();
    }
}

fn round_trips(count: u64) {
    let (mut there, mut arrived) = lane::<Message>(256);
    let (mut back, mut answered) = lane::<Message>(256);
    let echo = thread::spawn(move || {
        for _ in 0..count {
            assert!(back.push(next(&mut arrived)).is_ok());
        }
    });
    for i in 0..count {
        assert!(there.push([i; 8]).is_ok());
        assert_eq!(next(&mut answered)[7], i);
    }
    echo.join().expect("echoed");
}

fn stream(count: u64) {
    let (mut tx, mut rx) = lane::<Message>(256);
    let sender = thread::spawn(move || {
        for i in 0..count {
            let mut message = [i; 8];
            while let Err(back) = tx.push(message) {
                message = back;
                thread::yield_now();
            }
        }
    });
    (0..count).for_each(|i| assert_eq!(next(&mut rx)[0], i));
    sender.join().expect("all sent");
}

fn main() {
    // Cargo says `--bench` when it measures; `cargo test` runs the same program briefly.
    let args: Vec<String> = std::env::args().collect();
    let smoke = args.iter().any(|arg| arg == "--smoke") || !args.iter().any(|arg| arg == "--bench");
    let (rounds, count) = if smoke { (1, 1_000) } else { (15, 200_000) };
    let (mut tx, mut rx) = lane::<Message>(256);
    measure("push and pop, one thread", rounds, count, |count| {
        for i in 0..count {
            assert!(tx.push(black_box([i; 8])).is_ok());
            black_box(rx.pop().expect("just pushed"));
        }
    });
    measure("look at an empty lane", rounds, count, |count| {
        (0..count).for_each(|_| assert!(black_box(&mut rx).pop().is_none()));
    });
    measure("stream, two threads", rounds, count, stream);
    // Two hops each.
    measure("hop, two threads awake", rounds, count, |count| round_trips(count / 2));
}
