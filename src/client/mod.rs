//! L5', a small Kafka client for our own tools: the command line, the load generator, the demo and the crash tests. Lives on
//! whatever thread calls it; every call blocks. It deliberately knows nothing of the broker it comes with: plain sockets, any
//! Kafka-wire broker, works where io_uring is forbidden.
//!
//! Why not asynchronous: a tool waits for one thing at a time, and a thread per connection is simple to bound.
//!
//! Non-obvious:
//! - A retry of an idempotent batch must carry the same sequence and stay in order with its neighbours: after any error all
//!   unacknowledged batches of a partition are sent again, oldest first.
//! - Being refused before any broker ever answered is final; later it is a restart, and retried until the deadline.
//! - Answers are read in order; a connection with a failed or half-read answer is closed, never reused.
//! - The bootstrap connection and the one to the same broker by its advertised address are two: they may differ.

pub mod admin;
pub mod cluster;
pub mod connection;
pub mod consumer;
pub mod error;
pub mod partitioner;
pub mod producer;
pub mod settings;
