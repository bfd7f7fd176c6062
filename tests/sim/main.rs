//! Deterministic simulation: whole lives of the log store, one per seed.
//!
//! `cargo test --test sim` runs some seeds; `SEEDS=2000 cargo test --test sim` runs many; a failure names its seed, and
//! `SEED=n cargo test --test sim stores` (or `brokers`) replays exactly that one, with `SIM_LOG=1` event by event.

mod batch;
mod broker;
mod dying;
mod kafka;
mod moves;
mod node;
mod oracle;
mod rows;
mod shards;
mod story;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use corelog::io::Errno;
use corelog::io::sim::Injected;
use corelog::log::store::Planted;
use corelog::router::lanes;

/// Seeds of an ordinary test run: of brokers, and of stores, which are quicker.
const SEEDS: u64 = 60;
const STORE_SEEDS: u64 = 200;

/// Seeds within which each planted bug must be found.
const PLANTED_SEEDS_MAX: u64 = 1_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// What was reached, and how often, over all seeds of a test.
type Covered = BTreeMap<&'static str, u64>;

fn each_seed(ordinary: u64, run: impl Fn(u64) -> Vec<(&'static str, u64)>) -> Covered {
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(ordinary),
    };
    let mut covered = Covered::new();
    for (name, count) in seeds.flat_map(run) {
        *covered.entry(name).or_insert(0) += count;
    }
    eprintln!("covered: {covered:#?}");
    covered
}

#[test]
fn stores_keep_their_promises() {
    let covered = each_seed(STORE_SEEDS, |seed| story::run(seed, None).covered);
    if number("SEED").is_none() && number("SEEDS").unwrap_or(STORE_SEEDS) >= rows::SEEDS_MIN {
        assert_eq!(rows::missed(&covered), [""; 0], "rows of the recovery table that no seed reached");
    }
}

#[test]
fn brokers_keep_their_promises() {
    let covered = each_seed(SEEDS, |seed| broker::run(seed, None).1);
    if number("SEED").is_none() && number("SEEDS").unwrap_or(SEEDS) >= rows::SEEDS_MIN {
        let missed = shards::REACHED.iter().filter(|name| !covered.contains_key(*name));
        assert_eq!(missed.collect::<Vec<_>>(), [&""; 0], "what no seed reached");
    }
}

/// T7: each file operation of a short life fails once, in each way.
#[test]
fn any_one_operation_may_fail() {
    let ways = [
        Injected::Fails(Errno::IO),
        Injected::Fails(Errno::AGAIN),
        Injected::Fails(Errno::CANCELED),
        Injected::Fails(Errno::NOSPC),
        Injected::Short,
    ];
    let step = number("NTH_STEP").unwrap_or(7);
    for (seed, what) in (1..).zip(ways) {
        let count = (0..500).step_by(step as usize).take_while(|n| story::fail_nth(seed, *n, what)).count();
        eprintln!("{what:?}: {count} operations");
        assert!(count > 5, "{what:?} struck only {count} operations");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [1, 2, 3] {
        assert_eq!(story::run(seed, None).trace, story::run(seed, None).trace, "seed {seed}");
    }
}

/// The first seed at which a planted bug turns the simulation red.
fn found_at<P: Copy + std::fmt::Debug>(planted: P, run: impl Fn(u64, P)) -> Option<u64> {
    std::panic::set_hook(Box::new(|_| {}));
    let red = |seed: &u64| catch_unwind(AssertUnwindSafe(|| run(*seed, planted))).is_err();
    let seed = (0..PLANTED_SEEDS_MAX).find(red);
    let _ = std::panic::take_hook();
    eprintln!("{planted:?} is found at seed {seed:?}");
    seed
}

#[test]
fn planted_bugs_are_found() {
    let all = [
        Planted::AckBeforeFlush,
        Planted::DurableIsLastCompleted,
        Planted::NoDirectorySync,
        Planted::NoChain,
        Planted::RetryAfterError,
    ];
    let run = |seed, planted| drop(story::run(seed, Some(planted)));
    let missed: Vec<Planted> = all.into_iter().filter(|planted| found_at(*planted, run).is_none()).collect();
    assert!(missed.is_empty(), "never found: {missed:?}");
}

#[test]
fn bugs_planted_between_shards_are_found() {
    use lanes::Planted::{HurryLost, LateReplyKeepsCredit, NoRoomForReplies};
    let run = |seed, planted| drop(broker::run(seed, Some(planted)));
    let all = [HurryLost, LateReplyKeepsCredit, NoRoomForReplies];
    let missed: Vec<_> = all.into_iter().filter(|planted| found_at(*planted, run).is_none()).collect();
    assert!(missed.is_empty(), "never found: {missed:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace_of_shards() {
    for seed in [1, 2, 3] {
        assert_eq!(broker::run(seed, None).0, broker::run(seed, None).0, "seed {seed}");
    }
}
