//! What this process may use of the machine.

use std::fs;

use crate::base::error::Fatal;

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

/// The CPUs for shards: those of `wanted` (as in `2-5,8`), else all that this process may run on.
pub fn cpus(wanted: Option<&str>) -> Result<Vec<usize>, Fatal> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let allowed = allowed_cpus(&status).unwrap_or_else(|| {
        (0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get)).collect()
    });
    let Some(text) = wanted else { return Ok(allowed) };
    let bad = |found: String, means: &str| Fatal {
        code: "bad-cpu-list",
        summary: format!("cpus={text} cannot be used"),
        found,
        means: means.into(),
        tries: vec![format!("cpus={}", show_list(&allowed)), "leave cpus out: all of them are used".into()],
    };
    let list = match parse_list(text) {
        Ok(list) => list,
        Err(BadList::TooLarge(cpu)) => {
            return Err(bad(
                format!("CPU {cpu}"),
                &format!("the largest number of a CPU is {}", CPUS_MAX - 1),
            ));
        }
        Err(BadList::NoList) => {
            return Err(bad(text.into(), "a CPU list is numbers and ranges, as in 2-5,8"));
        }
    };
    match list.iter().find(|cpu| !allowed.contains(cpu)) {
        None => Ok(list),
        Some(cpu) => Err(bad(
            format!("CPU {cpu}; this process may use {}", show_list(&allowed)),
            "the machine does not have it, or a taskset or control group keeps this process from it",
        )),
    }
}

fn allowed_cpus(status: &str) -> Option<Vec<usize>> {
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    parse_list(line.trim()).ok()
}

/// Why a text names no CPUs.
#[derive(Debug, PartialEq, Eq)]
enum BadList {
    NoList,
    TooLarge(usize),
}

/// Most CPUs that a list may name: far above any machine, far below what a typing error like `0-999999999` would allocate.
const CPUS_MAX: usize = 8192;

/// Numbers and ranges, each CPU once, in the order given.
fn parse_list(text: &str) -> Result<Vec<usize>, BadList> {
    let number = |text: &str| text.trim().parse::<usize>().map_err(|_| BadList::NoList);
    let mut list = Vec::new();
    for item in text.split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(BadList::NoList);
        }
        if last >= CPUS_MAX {
            return Err(BadList::TooLarge(last));
        }
        list.extend(first..=last);
    }
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|cpu| seen.insert(*cpu));
    Ok(list)
}

fn show_list(cpus: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
            _ => ranges.push((*cpu, *cpu)),
        }
    }
    let show = |(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(show).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::{BadList, allowed_cpus, cpus, meminfo_total, parse_list, show_list};

    #[test]
    fn memory_total_is_read() {
        assert_eq!(meminfo_total("MemTotal:       24589312 kB\nMemFree: 1 kB\n"), Some(24_589_312 * 1024));
        assert_eq!(meminfo_total("nothing"), None);
    }

    #[test]
    fn cpu_lists_are_numbers_and_ranges() {
        assert_eq!(parse_list("2-4,8"), Ok(vec![2, 3, 4, 8]));
        assert_eq!(parse_list("3,1,3"), Ok(vec![3, 1]), "each CPU once, in the order given");
        for bad in ["", "a", "1-", "-1", "4-2", "1,,2"] {
            assert_eq!(parse_list(bad), Err(BadList::NoList), "{bad}");
        }
        assert_eq!(parse_list("0-999999999"), Err(BadList::TooLarge(999_999_999)));
        assert_eq!(parse_list("1,8192"), Err(BadList::TooLarge(8192)));
        assert_eq!(show_list(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(allowed_cpus("Name:\tx\nCpus_allowed_list:\t0-1,4\n"), Some(vec![0, 1, 4]));
    }

    #[test]
    fn a_cpu_that_is_not_there_is_refused() {
        let error = cpus(Some("8191")).expect_err("no machine has it");
        assert_eq!(error.code, "bad-cpu-list");
        assert!(!cpus(None).expect("some CPU").is_empty());
    }
}
