//! L7, how work reaches the core that owns it.
//!
//! A connection lives on one shard, a partition is owned by one shard. [`message`] is the closed set of what a connection may ask of
//! an owner, and of what comes back; who that is, a partition's placement says (`controller/placement.rs`). On its own shard a
//! message is a function call with borrowed bytes; to another one it crosses a lane as a [`letter`]. [`mesh`] divides, sends and
//! bounds, [`gather`] puts the answers together. This room knows no sockets and no bytes of the Kafka protocol.

mod divide;
mod gather;
pub mod lanes;
pub mod letter;
pub mod mesh;
pub mod message;
mod peer;

#[cfg(test)]
mod tests;
