//! L5, one partition on disk.
pub mod format;
pub mod store;
