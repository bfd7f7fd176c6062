//! What a record batch costs on its way in: checks, stamp, walk, per codec and size. `--smoke` runs it briefly, as `cargo test` does.
//!
//! Prints a line per case: name, nanoseconds per operation (the fastest of several rounds), MB/s, and a hash of the results, which
//! must not change with the machine.

use std::hint::black_box;
use std::time::Instant;

use corelog::wire::batch::build::{BatchBuilder, NewRecord};
use corelog::wire::batch::{self, Accept, Batch, records};
use corelog::wire::codec::Codec;

const LIMITS: Accept = Accept {
    produce_version: 9,
    max_message_bytes: i32::MAX,
    segment_bytes: 1 << 30,
    timestamp_before_max_ms: i64::MAX,
    timestamp_after_max_ms: i64::MAX,
    log_append_time: false,
    compact: false,
    deep: false,
    compression: None,
    now_ms: 0,
};

fn build(codec: Codec, count: usize, value_bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    let mut value = vec![0; value_bytes];
    let mut out = Vec::new();
    for i in 0..count {
        // Half noise, so that codecs have something to do.
        let mut state = i as u64 + 1;
        for byte in value.iter_mut().step_by(2) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
        builder.push(&NewRecord {
            timestamp: 1_700_000_000_000 + i as i64,
            key: None,
            value: Some(&value),
            headers: &[],
        });
    }
    builder.finish(&mut out).expect("builds");
    out
}

/// Runs `op` in rounds and prints the fastest; `op` returns a number that goes into the hash.
fn measure(name: &str, bytes: usize, smoke: bool, mut op: impl FnMut() -> u64) {
    let (rounds, round_ms) = if smoke { (1, 1) } else { (7, 100) };
    let mut best = f64::MAX;
    let hash = op();
    for _ in 0..rounds {
        let started = Instant::now();
        let mut runs = 0u64;
        while started.elapsed().as_millis() < round_ms {
            for _ in 0..16 {
                assert_eq!(black_box(op()), hash, "{name} is not repeatable");
            }
            runs += 16;
        }
        best = best.min(started.elapsed().as_nanos() as f64 / runs as f64);
    }
    println!("{name:<40} {best:>12.1} ns {:>10.0} MB/s  {hash:016x}", bytes as f64 * 1000.0 / best);
}

fn main() {
    // Cargo says `--bench` when it measures; `cargo test` runs the same program briefly.
    let args: Vec<String> = std::env::args().collect();
    let smoke = args.iter().any(|arg| arg == "--smoke") || !args.iter().any(|arg| arg == "--bench");
    for (count, value_bytes) in [(1, 100), (10, 100), (100, 100), (100, 1000), (10, 100_000)] {
        let mut bytes = build(Codec::None, count, value_bytes);
        let case = format!("{count} x {value_bytes} B");
        measure(&format!("accept, {case}"), bytes.len(), smoke, || {
            batch::accept(black_box(&bytes), &LIMITS).map_or(0, |accepted| u64::from(accepted.batch.crc()))
        });
        measure(&format!("CRC-32C, {case}"), bytes.len(), smoke, || {
            let batch = Batch::only(black_box(&bytes)).expect("a batch");
            u64::from(batch.crc_matches())
        });
        measure(&format!("walk, {case}"), bytes.len(), smoke, || {
            let batch = Batch::only(black_box(&bytes)).expect("a batch");
            batch.records().flatten().map(|r| r.value.map_or(0, |v| v.len() as u64)).sum()
        });
        let len = bytes.len();
        measure(&format!("stamp, {case}"), len, smoke, || {
            batch::stamp(black_box(&mut bytes), 1 << 33, 7);
            u64::from(bytes[3])
        });
    }
    for codec in Codec::ALL {
        let bytes = build(codec, 100, 1000);
        let mut scratch = Vec::new();
        measure(&format!("open and walk, {}, 100 x 1000 B", codec.name()), bytes.len(), smoke, || {
            let batch = Batch::only(black_box(&bytes)).expect("a batch");
            let walk = records::open(&batch, &mut scratch).expect("opens");
            walk.flatten().map(|r| r.offset_delta as u64).sum()
        });
        let mut builder = BatchBuilder::new(codec);
        let mut out = Vec::new();
        measure(&format!("build, {}, 100 x 1000 B", codec.name()), 100_000, smoke, || {
            out.clear();
            for _ in 0..100 {
                builder.push(&NewRecord {
                    timestamp: 1,
                    key: None,
                    value: Some(&[b'x'; 1000]),
                    headers: &[],
                });
            }
            builder.finish(&mut out).expect("builds");
            builder.count() as u64 + u64::from(out[16])
        });
    }
}
