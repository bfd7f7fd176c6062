//! corelog: an Apache-Kafka-compatible message broker for Linux that gives every CPU core its own shard: its own thread, its own
//! io_uring, its own memory, its own partitions. Nothing on the hot path is shared, locked or handed to another thread.
//!
//! # Invariants
//! They are written as absences, because an absence is what a change breaks without noticing.
//!
//! 1. A partition is owned by exactly one shard. No other thread reads or writes its log, its indexes or its producers.
//! 2. No record is acknowledged below the durability its topic asks for; a failed write or flush ends acknowledgements at once,
//!    on every shard that writes into the same directory.
//! 3. The core is synchronous: `log`, `coordinator`, `controller`, `router` and `shard` take a command and return an outcome. They
//!    name no socket, no file, no clock, no thread and no random source: those come through the seam in [`io`]. The whole
//!    broker therefore runs in a simulator, from one seed, bit for bit.
//! 4. No borrow outlives a wait: whatever an operation needs belongs to it until its completion hands it back.
//! 5. Record bytes are copied at most once on the way in and not at all on the way out. Nothing on the hot path allocates
//!    outside its pool, takes a lock, formats text or logs; a file that opens with `//! Hot path.` is held to that.
//! 6. Every queue, loop, buffer and retry has a bound in [`base::limits`]. No count from the network or the disk reserves memory.
//! 7. Bytes from the network or the disk never panic: they are validated and refused. Our own invariants are asserted.
//! 8. `unsafe` stands only in `io`.
//! 9. Nothing assumes that there is only one shard, and nothing assumes which driver lies under the seam.
//!
//! # Who may use whom
//! A test (`tests/it/tidy`) reads both tables; what they do not list is forbidden. If the code teaches that an arrow is
//! wrong, change the table with the reason in the same commit. Unit tests are free to reach further.
//!
//! | module | may use |
//! |---|---|
//! | base | - |
//! | config | base |
//! | io | base, config |
//! | wire | base |
//! | log | base, config, io, wire::batch, wire::codec |
//! | coordinator | base, config, wire |
//! | controller | base, config, wire |
//! | router | base, config, io, wire, log, coordinator, controller |
//! | shard | base, config, io, wire, log, coordinator, controller, router |
//! | server | base, config, io, wire, coordinator, controller, router, shard |
//! | broker | base, config, io, wire, log, coordinator, controller, router, shard, server |
//! | calibrate | base, config, io, loadgen |
//! | client | base, wire |
//! | loadgen | base, io, wire, client |
//! | cli | base, config, io, wire, log::inspect, broker, calibrate, client, loadgen |
//! | main | cli |
//!
//! `calibrate` drives its bare pipeline with `loadgen`'s closed loop: the ratio of two results is one of servers only where both were
//! loaded by the same code.
//!
//! `server` writes JSON for our own tools alone, never for an API of Kafka's.
//!
//! `server` does not know `log`: record bytes reach it as pinned slices of `io` buffers. `log` builds operations, it does not run
//! them. `client` speaks over plain sockets, so that the tools work where io_uring is forbidden; only `loadgen`'s engine needs a ring.
//!
//! | crate | rooms |
//! |---|---|
//! | bytes | wire, shard, server, broker, client, loadgen |
//! | clap | cli |
//! | crc32c | wire::batch, log, controller, calibrate, loadgen |
//! | crossbeam_utils | io |
//! | flate2 | wire |
//! | glommio | io |
//! | hdrhistogram | base::metrics, loadgen, cli |
//! | io_uring | io |
//! | kafka_wire | wire |
//! | kafka_wire_core | wire |
//! | libc | io |
//! | loom | io |
//! | lz4_flex | wire |
//! | serde | config, controller, loadgen, cli |
//! | serde_json | controller, calibrate, loadgen, server, cli |
//! | slab | io, router, shard, server, broker |
//! | snap | wire |
//! | toml | config |
//! | tracing | config, io, log, coordinator, controller, router, shard, server, broker, calibrate, client, cli |
//! | tracing_subscriber | broker, cli |
//! | zstd | wire |

pub mod base;
pub mod config;
pub mod io;
pub mod wire;
pub mod log;
pub mod controller;
pub mod router;
pub mod shard;
pub mod server;
pub mod broker;
pub mod calibrate;
pub mod client;
pub mod loadgen;
pub mod cli;
