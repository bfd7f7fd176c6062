//! corelog: a Kafka-wire-compatible message broker for Linux that gives every CPU core its own shard.
pub mod base;
pub mod config;
pub mod io;
