//! Rows of the recovery table, counted: a run over many seeds must reach each of them.

use std::sync::OnceLock;

use corelog::io::sim::World;
use corelog::log::decide::{Row, TABLE};
use corelog::log::recovered::Totals;

use crate::Covered;

/// Seeds from which on every row must have been reached.
pub const SEEDS_MIN: u64 = 200;

/// Names of the rows, in the order of the table. The last two say that nothing is wrong with one file, and are not reported.
fn names() -> &'static [&'static str] {
    static NAMES: OnceLock<Vec<&'static str>> = OnceLock::new();
    NAMES.get_or_init(|| {
        let reported = TABLE.iter().filter(|(row, ..)| *row < Row::InSequence);
        reported.map(|(row, ..)| &*format!("row {row:?}").leak()).collect()
    })
}

/// Counts the rows that the recoveries of one start met.
pub fn mark(world: &World, totals: &Totals) {
    for (name, count) in names().iter().zip(totals.rows) {
        (0..count).for_each(|_| world.mark(name));
    }
}

/// The rows that should have been reached and were not.
pub fn missed(covered: &Covered) -> Vec<&'static str> {
    names().iter().copied().filter(|name| !covered.contains_key(name)).collect()
}
