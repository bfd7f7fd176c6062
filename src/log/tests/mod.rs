//! The log's tests: the files of one partition, recovery, and the store over the simulated seam.

mod checkpoints;
mod copies;
mod crashes;
mod disk;
mod faults;
mod fuzz;
mod indexes;
mod inspections;
mod keeping;
mod producers;
mod recoveries;
mod rig;
mod stops;
mod stores;
mod truncations;

/// Numbers from a seed (splitmix64), the same on every machine.
pub(crate) struct Seeded(u64);

impl Seeded {
    pub fn new(seed: u64) -> Seeded {
        Seeded(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
