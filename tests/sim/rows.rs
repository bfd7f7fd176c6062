//! Rows of the recovery table, counted: a run over many seeds must reach each of them.

use std::sync::OnceLock;

use corelog::io::sim::World;
use corelog::log::decide::{Row, TABLE};
use corelog::log::recovered::Totals;

use crate::Covered;

/// Seeds from which on every row must have been reached, but for the rare ones.
pub const SEEDS_MIN: u64 = 200;

/// Rows that need several unlikely things in a row, and the seeds from which on they must have been reached: about 5 of 1,000 have a removal
/// of old segments that is given up at one of them, and a crash behind the next one.
const RARE: (Row, u64) = (Row::Retired, 2_000);

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

/// The rows that so many seeds should have reached and did not.
pub fn missed(covered: &Covered, seeds: u64) -> Vec<&'static str> {
    let (rare, seeds_min) = RARE;
    let due = TABLE.iter().zip(names()).filter(|((row, ..), _)| *row != rare || seeds >= seeds_min);
    due.map(|(_, name)| *name).filter(|name| !covered.contains_key(*name)).collect()
}
