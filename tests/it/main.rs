//! The one integration test binary: a new suite is a module of it.

mod conformance;
