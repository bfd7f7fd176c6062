//! L5, one partition on disk.
pub mod checkpoint;
pub mod epochs;
pub mod format;
pub mod replace;
pub mod store;

#[cfg(test)]
mod tests;
