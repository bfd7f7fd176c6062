//! L5, one partition on disk.
pub mod checkpoint;
pub mod decide;
pub mod epochs;
pub mod format;
pub mod index;
pub mod inspect;
pub mod producers;
pub mod reader;
pub mod recovered;
pub mod recovery;
pub mod replace;
pub mod scan;
pub mod search;
pub mod store;
pub mod survey;

#[cfg(test)]
mod tests;
