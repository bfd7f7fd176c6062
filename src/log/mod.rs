//! L5, one partition on disk.
pub mod append;
pub mod checkpoint;
pub mod commit;
pub mod epochs;
pub mod format;
pub mod index;
pub mod producers;
pub mod read;
pub mod replace;
pub mod retention;
pub mod segment;
pub mod store;
pub mod tail;

#[cfg(test)]
mod tests;
