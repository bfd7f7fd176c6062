//! The one integration binary: a new suite is a module of it.

mod bad_use;
mod broker;
mod captures;
mod cli;
mod conformance;
mod copies;
mod crash;
mod disk_full;
mod faults;
mod flushes;
mod fuzz_replay;
mod hostile;
mod loopfs;
mod many;
mod moving;
mod pipeline;
mod polls;
mod powerloss;
mod recovery;
mod runtime;
mod shards;
mod stop;
mod support;
mod talk;
mod tidy;
mod vectors;
