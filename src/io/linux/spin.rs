//! When an idle shard spins before it sleeps: only while work has lately come within the time a wake-up costs, and never for more
//! than a tenth of the time.

use std::time::Duration;

/// Longest spin that may be asked for: about three times what a wake-up costs. Beyond that sleeping is always cheaper.
pub const SPIN_MAX: Duration = Duration::from_micros(50);

/// Part of the time that fruitless spinning may take.
const BUDGET_PART: u64 = 10;

/// Window over which the budget is kept.
const WINDOW_NS: u64 = 100_000_000;

pub struct SpinGate {
    /// A gap longer than this is slept through; 0: all are.
    longest_ns: u64,
    /// Moving average of how long a shard waited for its next completion, over 8 waits.
    gap_ns: u64,
    window_start_ns: u64,
    /// Time spun in this window without anything to show for it.
    wasted_ns: u64,
}

impl SpinGate {
    /// Spins for `longest` at most, and never for more than [`SPIN_MAX`].
    pub fn new(longest: Duration) -> SpinGate {
        let longest_ns = longest.min(SPIN_MAX).as_nanos() as u64;
        SpinGate { longest_ns, gap_ns: 4 * longest_ns, window_start_ns: 0, wasted_ns: 0 }
    }

    pub fn enabled(&self) -> bool {
        self.longest_ns > 0
    }

    /// Nanoseconds to spin from `now_ns` on before sleeping; 0 to sleep at once.
    pub fn spin_ns(&mut self, now_ns: u64) -> u64 {
        if !self.enabled() || self.gap_ns > self.longest_ns {
            return 0;
        }
        if now_ns.saturating_sub(self.window_start_ns) > WINDOW_NS {
            self.window_start_ns = now_ns;
            self.wasted_ns = 0;
        }
        let left = (WINDOW_NS / BUDGET_PART).saturating_sub(self.wasted_ns);
        self.longest_ns.min(left)
    }

    /// Notes a wait that took `gap_ns` until the first completion, `spun_ns` of it spinning, and whether the spin found it.
    pub fn waited(&mut self, gap_ns: u64, spun_ns: u64, found: bool) {
        self.gap_ns = self.gap_ns - self.gap_ns / 8 + gap_ns.min(100 * self.longest_ns) / 8;
        if !found {
            self.wasted_ns += spun_ns;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPIN_NS_MAX: u64 = SPIN_MAX.as_nanos() as u64;

    #[test]
    fn it_spins_after_short_gaps_and_not_after_long_ones() {
        let mut gate = SpinGate::new(SPIN_MAX);
        assert_eq!(gate.spin_ns(0), 0);
        (0..40).for_each(|_| gate.waited(5_000, 5_000, true));
        assert_eq!(gate.spin_ns(0), SPIN_NS_MAX);
        (0..3).for_each(|_| gate.waited(5_000_000, SPIN_NS_MAX, false));
        assert_eq!(gate.spin_ns(0), 0);
    }

    // Whatever was asked for, it spun for 50 us.
    #[test]
    fn it_spins_as_long_as_it_was_told_and_no_longer_than_is_worth_it() {
        let check = |asked_us, expected_ns| {
            let mut gate = SpinGate::new(Duration::from_micros(asked_us));
            (0..40).for_each(|_| gate.waited(1_000, 1_000, true));
            assert_eq!(gate.spin_ns(0), expected_ns, "{asked_us}");
        };
        check(0, 0);
        check(10, 10_000);
        check(5_000, SPIN_NS_MAX);
        assert!(!SpinGate::new(Duration::ZERO).enabled());
    }

    #[test]
    fn fruitless_spinning_stays_within_a_tenth() {
        let mut gate = SpinGate::new(SPIN_MAX);
        let (mut now, mut wasted) = (0, 0);
        while now < 10 * WINDOW_NS {
            (0..20).for_each(|_| gate.waited(1_000, 0, true));
            let spin = gate.spin_ns(now);
            gate.waited(SPIN_NS_MAX, spin, false);
            wasted += spin;
            now += SPIN_NS_MAX;
        }
        assert!(wasted <= now / BUDGET_PART + WINDOW_NS / BUDGET_PART, "{wasted} of {now}");
    }
}
