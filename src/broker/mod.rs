//! L10, assembly: makes a running broker out of the rooms below, and ends it.
//!
//! [`configure`] reads the configuration; [`start`] takes it from there to a serving broker, by way of [`assemble`] (what the directory
//! holds, and nodes made of it) and [`threads`] (one for each shard); [`pump`] is the loop of a shard; [`control`] carries the
//! controller's transactions to disk and their consequences to the shards. One [`pump::Node`] is one shard with its io; the
//! simulator drives the same nodes over `io::sim`.

pub mod assemble;
pub mod configure;
pub mod control;
mod failures;
pub mod files;
mod gauges;
pub mod logging;
pub mod machine;
mod memory;
pub mod pump;
mod slow;
pub mod source;
pub mod start;
mod threads;
pub mod together;

#[cfg(test)]
mod tests;
