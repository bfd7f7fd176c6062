//! The one integration binary: a new suite is a module of it.

mod tidy;
fn main(){}
//! The one integration test binary: a new suite is a module of it.

mod conformance;
