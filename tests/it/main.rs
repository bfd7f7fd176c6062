//! The one integration binary: a new suite is a module of it.

mod broker;
mod captures;
mod cli;
mod conformance;
mod crash;
mod flushes;
mod loopfs;
mod fuzz_replay;
mod pipeline;
mod powerloss;
mod stop;
mod support;
mod talk;
mod tidy;
mod vectors;
