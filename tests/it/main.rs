//! The one integration binary: a new suite is a module of it.

mod broker;
mod captures;
mod conformance;
mod pipeline;
mod fuzz_replay;
mod crash;
mod flushes;
mod loopfs;
mod powerloss;
mod stop;
mod support;
mod talk;
mod tidy;
mod vectors;
