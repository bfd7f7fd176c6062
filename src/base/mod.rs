//! L1, the vocabulary: names that every other layer speaks. Imports nothing of ours and does no I/O.

pub mod board;
pub mod error;
pub mod few;
pub mod ids;
pub mod limits;
pub mod metrics;
pub mod offset;
