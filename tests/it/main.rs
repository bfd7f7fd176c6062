//! The one integration binary: a new suite is a module of it.

mod captures;
mod conformance;
mod pipeline;
mod fuzz_replay;
mod crash;
mod powerloss;
mod support;
mod tidy;
mod vectors;
