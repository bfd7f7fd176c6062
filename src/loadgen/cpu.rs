//! CPU time of a process, from the scheduler's own nanosecond counters.

use std::fs;

/// Nanoseconds on a CPU of all threads of `pid` that still live; `None` where /proc does not tell.
pub fn process_ns(pid: u32) -> Option<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let mut sum = None;
    for thread in threads.flatten() {
        let stat = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        if let Some(ns) = stat.split_ascii_whitespace().next().and_then(|n| n.parse::<u64>().ok()) {
            sum = Some(sum.unwrap_or(0) + ns);
        }
    }
    sum
}

/// What the host has taken from this machine's CPUs and how much there was, in ticks since boot: (steal, total).
pub fn steal_ticks() -> Option<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.split_ascii_whitespace().skip(1);
    let ticks: Vec<u64> = fields.filter_map(|f| f.parse().ok()).collect();
    Some((*ticks.get(7)?, ticks.iter().take(8).sum()))
}
