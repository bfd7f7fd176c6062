//! What an append costs the log: staging, sealing, planning a round and taking its completions, with every operation done at once. And what
//! a fetch from the tail costs. `--smoke` runs it briefly, as `cargo test` does.
//!
//! Prints a line per case: name, nanoseconds per batch (the fastest of several rounds), MB/s, and a hash of offsets, watermarks and bytes,
//! which must not change with the machine.

use std::path::PathBuf;
use std::time::Instant;

use corelog::base::ids::{PartitionIndex, PartitionKey, Uuid};
use corelog::base::offset::Offset;
use corelog::io::buffer::Pool;
use corelog::io::{Done, FileId, Mono, Op, Payload, Place, StorageCaps, Token};
use corelog::log::fate::Fate;
use corelog::log::store::{
    Durability, Event, LogConfig, LogSlot, Ops, ReadPlan, ReadRequest, Store, StoreConfig,
};
use corelog::wire::batch::build::{BatchBuilder, NewRecord};
use corelog::wire::codec::Codec;

/// A disk that does everything at once and keeps nothing.
struct Machine {
    store: Store,
    pool: Pool,
    ops: Ops,
    events: Vec<Event>,
    now: Mono,
    files: u32,
    uuids: u8,
}

impl Machine {
    fn new() -> Machine {
        let caps = StorageCaps {
            device: 1,
            file_system: "ext4".to_string(),
            direct: true,
            shared_flush: true,
            shared_flush_tested: true,
            not_durable: None,
            flush_apart: false,
        };
        let config = StoreConfig {
            data_dir: PathBuf::from("/data"),
            directory: Uuid([1; 16]),
            caps,
            shared_flush: true,
            free_bytes_min: 0,
            tail_cache_bytes: 24 << 20,
            fate: Fate::default(),
            planted: None,
        };
        let mut pool = Pool::new(48 << 20);
        while pool.grow().is_some() {}
        Machine {
            store: Store::new(config),
            pool,
            ops: Vec::new(),
            events: Vec::new(),
            now: Mono(1),
            files: 0,
            uuids: 0,
        }
    }

    fn create(&mut self, partition: i32) -> LogSlot {
        let config = LogConfig {
            durability: Durability::Durable,
            flush_ms: 1000,
            flush_bytes: 1 << 20,
            segment_bytes: 64 << 20,
            segment_ms: u64::MAX,
            retention_ms: -1,
            retention_bytes: 128 << 20,
            delete: true,
            index_interval_bytes: 4096,
            producer_id_expiration_ms: 86_400_000,
            log_append_time: false,
        };
        let key = PartitionKey { topic: Uuid([2; 16]), partition: PartitionIndex(partition) };
        self.store.create(key, config)
    }

    /// Turns until nothing is in flight.
    fn turn(&mut self) {
        while self.store.uuids_wanted() > 0 {
            self.uuids = self.uuids.wrapping_add(1);
            self.store.add_uuids(std::iter::once(Uuid([self.uuids.max(1); 16])));
        }
        self.now.0 += 1000;
        loop {
            self.store.turn(self.now, 0, &mut self.pool, &mut self.ops);
            if self.ops.is_empty() {
                break;
            }
            for (op, tag) in std::mem::take(&mut self.ops) {
                let (result, payload) = match op {
                    Op::Write { data, .. } => (data.len() as u32, Payload::Written(data)),
                    Op::OpenFile { .. } => {
                        self.files += 1;
                        (
                            0,
                            Payload::Opened(
                                FileId(self.files),
                                Place { device: 1, is_own_and_written: true },
                            ),
                        )
                    }
                    _ => (0, Payload::None),
                };
                let done = Done { token: Token(0), result: Ok(result), more: false, payload };
                self.store.done(tag, done, self.now, &mut self.ops);
            }
        }
        self.store.events(&mut self.events);
        self.events.clear();
    }

    fn append(&mut self, slot: LogSlot, batch: &[u8]) -> u64 {
        let appended = self.store.append(slot, batch, &mut self.pool, self.now, 0).expect("appends");
        appended.next_offset.0 as u64
    }
}

fn batch(value_bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None);
    let value = vec![b'v'; value_bytes];
    builder.push(&NewRecord { timestamp: 1, key: None, value: Some(&value), headers: &[] });
    let mut out = Vec::new();
    builder.finish(&mut out).expect("builds");
    out
}

/// Runs `round`, which handles `batches` batches of `bytes`, several times; each result goes into the hash.
fn measure(name: &str, batches: u64, bytes: usize, smoke: bool, mut round: impl FnMut() -> u64) {
    let rounds = if smoke { 3 } else { 200 };
    let mut best = f64::MAX;
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for index in 0..rounds {
        let started = Instant::now();
        let result = round();
        best = best.min(started.elapsed().as_nanos() as f64 / batches as f64);
        if index < 3 {
            hash = (hash ^ result).wrapping_mul(0x0100_0000_01b3);
        }
    }
    println!("{name:<40} {best:>12.1} ns {:>10.0} MB/s  {hash:016x}", bytes as f64 * 1000.0 / best);
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let smoke = args.iter().any(|arg| arg == "--smoke") || !args.iter().any(|arg| arg == "--bench");
    for (value_bytes, per_turn) in [(100, 1), (100, 64), (1000, 1), (1000, 64), (16_000, 16), (256_000, 4)] {
        let mut machine = Machine::new();
        let slot = machine.create(0);
        let sent = batch(value_bytes);
        machine.turn();
        machine.append(slot, &sent);
        machine.turn();
        let name = format!("append {value_bytes} B, {per_turn} a round");
        measure(&name, 32 * per_turn, sent.len(), smoke, || {
            let mut sum = 0u64;
            for _ in 0..32 {
                for _ in 0..per_turn {
                    sum = sum.wrapping_add(machine.append(slot, &sent));
                }
                machine.turn();
                sum = sum.wrapping_add(machine.store.bounds(slot).high_watermark.get().0 as u64);
            }
            sum
        });
    }
    let mut machine = Machine::new();
    let slots: Vec<LogSlot> = (0..64).map(|i| machine.create(i)).collect();
    let sent = batch(1000);
    machine.turn();
    measure("append 1000 B to each of 64 logs", 64 * 8, sent.len(), smoke, || {
        let mut sum = 0u64;
        for _ in 0..8 {
            for slot in &slots {
                sum = sum.wrapping_add(machine.append(*slot, &sent));
            }
            machine.turn();
        }
        sum
    });
    let mut machine = Machine::new();
    let slot = machine.create(0);
    machine.turn();
    for _ in 0..4000 {
        machine.append(slot, &sent);
        machine.turn();
    }
    let mut from = 0;
    measure("fetch 64 KiB from the tail, per batch", 64, sent.len(), smoke, || {
        from = (from + 977) % 3000;
        let until = machine.store.bounds(slot).high_watermark.get();
        let request = ReadRequest { from: Offset(from), until, bytes_max: 65_536, at_least_one: true };
        match machine.store.plan_read(slot, request) {
            ReadPlan::Ready(records) => records.bytes as u64 + records.parts.len() as u64,
            _ => 0,
        }
    });
}
