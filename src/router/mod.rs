//! L7, how work reaches the core that owns it.
//!
//! A connection lives on one shard, a partition is owned by one shard. [`message`] is the closed set of what a connection may ask of
//! an owner, and of what comes back; who that is, a partition's placement says (`controller/placement.rs`). On one shard the
//! message is a function call with borrowed bytes; between shards the same enum crosses a lane. This room knows no sockets
//! and no bytes of the Kafka protocol.

pub mod message;
