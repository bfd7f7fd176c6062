//! What this process may use of the machine.

use std::fs;

/// Bytes of memory that this process may use: the smaller of the machine's memory and its control group's limit.
pub fn usable_memory() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo_total(&text));
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .into_iter()
        .filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok())
        .min();
    machine.into_iter().chain(group).min().unwrap_or(1 << 30)
}

fn meminfo_total(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// CPUs that this process may run on.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_total_is_read() {
        assert_eq!(
            super::meminfo_total("MemTotal:       24589312 kB\nMemFree: 1 kB\n"),
            Some(24_589_312 * 1024)
        );
        assert_eq!(super::meminfo_total("nothing"), None);
    }
}
