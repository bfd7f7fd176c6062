//! The monotonic clock within a turn, for stamps: the time stamp counter where it is as good as a clock, because a read of it costs a third
//! of a call.
//!
//! A turn reads CLOCK_MONOTONIC once; until the next one the counter tells how much later it is, at a rate that is measured over at least a
//! second. Within a turn the clock is slowed by 1/1024, more than the rate can be wrong: no stamp is later than the next turn's time. The
//! error is a thousandth of the time since the turn began.

use super::Mono;

/// The rate is measured anew this often.
const RATE_NS: u64 = 1_000_000_000;

/// Rates are nanoseconds per tick times 2^32.
const RATE_SHIFT: u32 = 32;

/// Ticks between two reads that count as one moment: a few microseconds, a hundred times less than the slowing allows for.
const BOTH_TICKS_MAX: u64 = 20_000;

/// By how much the clock runs slow within a turn: a part in 2^10.
const SLOW_SHIFT: u32 = 10;

/// The clock of one turn.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// Stands still for the turn: the simulator's.
    Still(Mono),
    /// CLOCK_MONOTONIC, by a call.
    Call,
    /// The counter, from the beginning of the turn on.
    Counter { turn: Mono, ticks: u64, rate: u64 },
}

impl Clock {
    /// Not earlier than the turn, nor than any earlier call.
    pub fn now(&self) -> Mono {
        match *self {
            Clock::Still(turn) => turn,
            Clock::Call => monotonic(),
            Clock::Counter { turn, ticks, rate } => {
                let passed = counter().saturating_sub(ticks);
                Mono(turn.0 + ((u128::from(passed) * u128::from(rate)) >> RATE_SHIFT) as u64)
            }
        }
    }
}

/// Makes the clock of each turn.
#[derive(Debug)]
pub struct ClockSource {
    kind: Kind,
    /// The rate is measured over at least this long.
    rate_ns: u64,
    /// Where its measurement began, and the last result.
    began: Option<(Mono, u64)>,
    rate: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Still,
    Call,
    Counter,
}

impl ClockSource {
    fn new(kind: Kind) -> ClockSource {
        ClockSource { kind, rate_ns: RATE_NS, began: None, rate: None }
    }

    /// For a driver whose time passes only between turns.
    pub fn still() -> ClockSource {
        ClockSource::new(Kind::Still)
    }

    /// The counter if the kernel itself takes its time from it, else calls.
    pub fn of_machine() -> ClockSource {
        ClockSource::new(if counter_is_clock() { Kind::Counter } else { Kind::Call })
    }

    /// What stamps are taken from, for reports.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Still => "turn",
            Kind::Call => "CLOCK_MONOTONIC",
            Kind::Counter => "TSC",
        }
    }

    /// The clock of the turn that began at `now`.
    pub fn turn(&mut self, now: Mono) -> Clock {
        match self.kind {
            Kind::Still => return Clock::Still(now),
            Kind::Call => return Clock::Call,
            Kind::Counter => {}
        }
        let due = self.began.is_none_or(|(since, _)| now.0.saturating_sub(since.0) >= self.rate_ns);
        if due && let Some((at, ticks)) = both() {
            self.sample(at, ticks);
        }
        match self.rate {
            Some(rate) => Clock::Counter { turn: now, ticks: counter(), rate },
            // Until the first measurement is done.
            None => Clock::Call,
        }
    }

    /// One moment by both clocks.
    fn sample(&mut self, at: Mono, ticks: u64) {
        if let Some((since, first)) = self.began.replace((at, ticks))
            && ticks > first
        {
            let passed = u128::from(at.0.saturating_sub(since.0));
            let rate = ((passed << RATE_SHIFT) / u128::from(ticks - first)) as u64;
            self.rate = Some(rate - (rate >> SLOW_SHIFT));
        }
    }
}

/// Both clocks at once; none if something came between the reads.
fn both() -> Option<(Mono, u64)> {
    let before = counter();
    let at = monotonic();
    (counter().saturating_sub(before) < BOTH_TICKS_MAX).then_some((at, before))
}

fn monotonic() -> Mono {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a structure of the type that the call fills; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Mono(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

#[cfg(target_arch = "x86_64")]
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and it touches no memory.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> u64 {
    0
}

/// It ticks at one rate, also while idle, on all cores: the kernel has checked that if the counter is its clock source.
fn counter_is_clock() -> bool {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let flags = read("/proc/cpuinfo");
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    let source = read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    cfg!(target_arch = "x86_64") && source.trim() == "tsc" && has("constant_tsc") && has("nonstop_tsc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_runs_behind_the_clock_by_a_thousandth() {
        let mut source = ClockSource::new(Kind::Counter);
        // Three ticks a nanosecond.
        source.sample(Mono(5_000), 900);
        assert_eq!(source.rate, None);
        source.sample(Mono(5_000 + RATE_NS), 900 + 3 * RATE_NS);
        let rate = source.rate.expect("two moments make a rate");
        let millisecond = (3_000_000 * u128::from(rate)) >> RATE_SHIFT;
        assert!((998_900..999_100).contains(&millisecond), "{millisecond} ns");
    }

    #[test]
    fn no_stamp_is_later_than_the_next_turn() {
        let mut source = ClockSource::of_machine();
        source.rate_ns = 2_000_000;
        let mut last = Mono(0);
        let begin = monotonic();
        while monotonic().0 - begin.0 < 20_000_000 {
            let turn = monotonic();
            assert!(turn >= last, "stamped {last:?} before {turn:?}");
            let clock = source.turn(turn);
            let first = clock.now();
            last = clock.now();
            assert!(turn <= first && first <= last, "{turn:?} {first:?} {last:?}");
        }
        assert_eq!(source.rate.is_some(), source.kind == Kind::Counter);
        assert_eq!(ClockSource::still().turn(Mono(7)).now(), Mono(7));
    }
}
