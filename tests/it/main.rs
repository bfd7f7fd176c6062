//! The one integration binary: a new suite is a module of it.

mod captures;
mod cli;
mod conformance;
mod crash;
mod fuzz_replay;
mod pipeline;
mod powerloss;
mod support;
mod tidy;
mod vectors;
