//! L5, one partition on disk.
pub mod append;
pub mod checkpoint;
pub mod commit;
pub mod decide;
pub mod epochs;
pub mod format;
pub mod fuzz;
pub mod index;
pub mod inspect;
pub mod producers;
pub mod read;
pub mod reader;
pub mod recovered;
pub mod recovery;
pub mod replace;
pub mod retention;
pub mod scan;
pub mod search;
pub mod segment;
pub mod store;
pub mod survey;
pub mod tail;

#[cfg(test)]
mod tests;
