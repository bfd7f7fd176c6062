//! Which kernel this is.

use std::fs;
use std::ops::RangeInclusive;

/// Major and minor number.
pub type Version = (u32, u32);

/// Power was cut on the oldest and the newest of these under flushes that stood for other files, and on 6.12 for ext4
/// (`scripts/powerloss`, `scripts/kernels`): that they may is how these file systems work, not what they promise.
const SHARED_FLUSHES: [(&str, RangeInclusive<Version>); 2] =
    [("ext4", (6, 1)..=(6, 18)), ("xfs", (6, 18)..=(6, 18))];

/// As uname(2) has it.
pub fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_string()
}

/// Zeros where the release does not begin with a version.
pub fn version(release: &str) -> Version {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

pub fn is_tested_with_shared_flushes(release: &str, file_system: &str) -> bool {
    let version = version(release);
    SHARED_FLUSHES.iter().any(|(name, versions)| *name == file_system && versions.contains(&version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_has_a_version() {
        assert_eq!(version("6.18.44-generic"), (6, 18));
        assert_eq!(version("6.1.0-50-cloud-amd64"), (6, 1));
        assert_eq!(version("7.0-rc1"), (7, 0));
        assert_eq!(version(""), (0, 0));
        assert_eq!(version("unknown"), (0, 0));
    }

    #[test]
    fn flushes_are_shared_on_tested_kernels_alone() {
        let releases = ["5.15.0", "6.1.0-50", "6.12.111+deb12", "6.18.0", "6.19.0-rc1", "7.1.3", ""];
        let tested =
            |file_system| releases.map(|release| is_tested_with_shared_flushes(release, file_system));
        assert_eq!(tested("ext4"), [false, true, true, true, false, false, false]);
        assert_eq!(tested("xfs"), [false, false, false, true, false, false, false]);
        assert_eq!(tested("btrfs"), [false; 7]);
    }
}
