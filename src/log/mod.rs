//! L5, the logs of a shard on disk. Lives on every core, inside the shard that owns the partitions: plain state machines that take appends, reads,
//! completions and time, and emit operations and events. It runs no loop and no operation, reads no clock, and knows no requests, peers,
//! topics' names or other shards, but for whether one of them saw the directory die (`fate`).
//!
//! **Write path**: `append` stages a batch in a block that mirrors the file -> `commit` plans a round, `store/flow` submits it -> completions move
//! the ledger -> the high watermark follows by the topic's durability level.
//! **Read path**: `tail` (memory) or `read` (disk), both by plan: nothing is borrowed while operations run.
//! **Around it**: `store/background` (files made ahead, `state`, idle files), `retention`, `store/stop`, `store/truncation`, all of it as
//! scripts of file operations (`store/jobs`).
//! **Start**: `recovery` decides by the table in `decide` what a directory holds; `store/opening` takes it over.
//!
//! # Non-obvious
//! - Why was my produce acknowledged: `commit.rs`. What is on disk: `format.rs`. After a power loss: `recovery.rs`, `decide.rs`.
//! - A log has two ends in flight at once, memory's and the disk's: `Stage` ends where appends go, `Ledger` where the device is. Whatever needs a
//!   place on disk asks the ledger.
//! - Ends that are written down (`flushed_through`, `state`) are ends of whole groups, never of writes.
//! - An entry of a directory that exists may exist in memory only: before its first write a process syncs the whole way to a log's files.
//! - Segments go oldest first, one directory sync each, and only when their successor's header is flushed: what a crash leaves has no gap.
//! - The directory may die between any two looks at it, of what another shard saw. It stays dead, and [`store::Event::Dead`] leaves with the
//!   last look before acks would.
//! - Background work never waits for blocks that staged bytes hold: its memory is set aside.
pub mod append;
pub mod checkpoint;
pub mod commit;
pub mod decide;
pub mod epochs;
pub mod fate;
pub mod format;
pub mod fuzz;
pub mod index;
pub mod inspect;
pub mod marks;
pub mod producers;
pub mod read;
pub mod reader;
pub mod recovered;
pub mod recovery;
pub mod replace;
pub mod retention;
pub mod scan;
pub mod search;
pub mod segment;
pub mod store;
pub mod survey;
pub mod tail;

#[cfg(test)]
mod tests;
