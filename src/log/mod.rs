//! L5, one partition on disk.
pub mod checkpoint;
pub mod epochs;
pub mod format;
pub mod index;
pub mod producers;
pub mod replace;
pub mod store;

#[cfg(test)]
mod tests;
