//! The one integration binary: a new suite is a module of it.

mod conformance;
mod powerloss;
mod support;
mod pipeline;
mod tidy;
