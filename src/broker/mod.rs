//! L10, assembly: makes a running broker out of the rooms below, and ends it.
//!
//! [`start`] reads the configuration, locks the directory, recovers, listens; [`pump`] is the loop of a shard; [`control`]
//! carries the controller's transactions to disk and their consequences to the shards. One [`pump::Node`] is one shard with its
//! io; the simulator drives the same `Node` over `io::sim`.

pub mod control;
pub mod files;
pub mod logging;
pub mod machine;
pub mod pump;
pub mod source;
pub mod start;
