//! The io seam in memory, on one seed: virtual time, a disk that loses what was not flushed, a network that splits and resets.
//!
//! A [`World`] holds disks, processes and clients; a [`SimIo`] is one shard's driver in it. Everything runs on one thread, and
//! every choice is drawn from the world's seed: the same seed and the same commit give the same run, which
//! [`World::trace`] proves. Nothing here knows partitions, requests or Kafka.
//!
//! # Time
//! Virtual. It moves while a [`turn`](crate::io::Io::turn) waits, to the next event, and a little with each turn, so that no loop
//! can spin forever at one instant. A turn that waits returns early when a client outside has something to read, when another
//! driver of the world has completions, or at [`World::wake_at`]: a test drives brokers and clients from one loop.
//!
//! # The disk
//! A file has a live image, which reads see, and a flushed image, which survives. In between stand its changes, in the order
//! in which they took effect.
//! - *Completion*: after a random delay, in any order, perhaps short, perhaps with an error. A write that failed may have
//!   reached any of its sectors.
//! - *Flush*: moves to the flushed image the changes of that file whose `Done` had been returned before the flush was
//!   pushed. With [`shared_flush`](crate::io::StorageCaps::shared_flush) also the data of other files, where their extents are written: they were
//!   covered by a flush of their own once before. Never their metadata.
//! - *Dsync*: this write, and what was returned before it was pushed. With [`DiskConfig::dsync_covers_earlier`] off, this
//!   write alone, which is what a drive with FUA does.
//! - *A failed flush loses*: each change it should have covered may stay readable and is yet forgotten by all later flushes.
//! - *Power loss* ([`World::crash`]): the flushed image, and of the other changes none, all, some, or some of their 512-byte
//!   sectors. Directory entries: some of the changes that no directory sync covered; a rename survives as a whole or not
//!   at all. Changes of length, being journalled, survive up to some point.
//! - *Kill* ([`World::kill`]): the live image stays. Each write in flight lands now, up to 20 s later - the successor may have the
//!   file open by then - or never.
//! - *Only on demand*, because no single machine can survive them, only notice them: rot, and what a lost or misdirected
//!   write leaves ([`World::overwrite`]).
//!
//! # The network
//! Each direction of a connection is a pipe with a small buffer: a peer that does not read makes sends short, then
//! blocks them. Packets are delayed, held up for seconds, split down to single bytes, and may break the connection. A connection to a
//! listener of several drivers waits for the one that was told of it, by chance, however long that one gets no turn, unless another looks.
//!
//! # Several shards
//! A process may have several drivers. By default a turn that waits moves time for all of them until anyone has something to do. After
//! [`World::schedule_shards`] turns return at once, and [`World::next_turn`] picks whose loop goes on: the seed permutes the
//! shards' turns. Wake-ups take up to 20 ms. A test that splits a shard's loop (announce, check, turn) into several picks
//! finds a sleep protocol in the wrong order; if all sleep for ever, the world fails.
//!
//! # What is checked at all times
//! A violation panics with the seed: two writes in flight over one 4 KiB block; a buffer that changed while its write was in
//! flight; an operation on a closed file or connection, or by a killed process; a second `Send` or `Recv` in flight; a connection
//! that is detached with either in flight; unaligned direct I/O.
//!
//! # Non-obvious
//! - `SIM_LOG=1` in the environment prints every event.
//! - Faults are drawn even at rate 0, so that switching one off leaves the rest of the run alike for as long as possible.
//! - A world is `Rc`: all of its drivers and clients live on one thread.

mod accept;
mod client;
mod core;
mod disk;
mod driver;
mod faults;
mod file;
mod files;
mod image;
mod net;
mod rng;
mod schedule;
mod sharing;
mod world;

#[cfg(test)]
mod shard_tests;
#[cfg(test)]
mod tests;

pub use client::{ClientRead, SimConn};
pub use core::ProcessId;
pub use driver::SimIo;
pub use faults::{DiskConfig, Faults, Injected, OpKind};
pub use rng::Rng;
pub use sharing::{Bell, Detached, HeldLock, SharedSocket};
pub use world::World;
