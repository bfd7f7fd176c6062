//! Every interleaving, within bounds, of what crosses threads in `src/io`: lanes, the sleep flag, receive buffers on their way back.
#![cfg(loom)]

#[path = "../../../src/io/lane.rs"]
pub mod lane;
#[path = "../../../src/io/returns.rs"]
pub mod returns;
#[path = "../../../src/io/sleep.rs"]
pub mod sleep;
#[path = "../../../src/io/sync.rs"]
pub mod sync;

#[cfg(test)]
mod tests;
