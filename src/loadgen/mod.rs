//! L6', the load generator: sends and fetches against any Kafka-wire broker, and against the bare pipeline, with one engine, so
//! that the ratio of two results is a ratio of servers. Lives in its own process, on the worker threads it makes. It deliberately
//! knows nothing of the broker's inside.
//!
//! The engine stands on the uring driver: one worker drives all its connections from one thread with batched system calls. (Why
//! not a thread per connection with blocking sockets: on the one core that a generator gets on a small machine, 64 threads
//! measure their own scheduling.) Where io_uring is forbidden there is no `bench`; the other tools use plain sockets.
//!
//! Non-obvious:
//! - A closed loop: a slow answer delays the next request, so what is measured is service time, and every result says CLOSED_LOOP.
//! - Histograms of the workers are merged bucket by bucket; percentiles are never averaged.
//! - Batches are made once and sent over and over: the generator's own cost per request is a few microseconds, and is reported.

pub mod cpu;
pub mod durability;
pub mod engine;
pub mod ledger;
pub mod report;
pub mod run;
pub mod talk;
