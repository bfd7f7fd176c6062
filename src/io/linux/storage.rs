//! What the storage under a directory can do, asked with plain calls at start-up.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::base::limits::ALIGN;
use crate::io::linux::kernel;
use crate::io::{DirEntry, DiskSpace, Errno, StorageCaps};

/// File system types by their `statfs` magic (statfs(2)), for mounts that `mountinfo` does not list under their device number.
const MAGICS: [(i64, &str); 19] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0xf2f5_2010, "f2fs"),
    (0x2fc1_2fc1, "zfs"),
    (0xca45_1a4e, "bcachefs"),
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x794c_7630, "overlay"),
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x6573_5546, "fuse"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "ceph"),
    (0x0bd0_0bd0, "lustre"),
    (0x4750_4653, "gpfs"),
    (0x6a65_6a63, "virtiofs"),
    (0x4d44, "vfat"),
];

pub fn caps(dir: &Path) -> Result<StorageCaps, Errno> {
    let device = fs::metadata(dir).map_err(errno)?.dev();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mount = find_mount(&mounts, libc::major(device), libc::minor(device));
    let magic = stat_fs(dir)?.f_type;
    let by_magic = MAGICS.iter().find(|(m, _)| *m == magic).map(|(_, name)| *name);
    let file_system = mount.as_ref().map(|m| m.kind).or(by_magic).unwrap_or("unknown").to_string();
    let options = mount.map_or("", |m| m.options);
    Ok(StorageCaps {
        device,
        direct: direct_io_works(dir)?,
        shared_flush: shares_flush(&file_system, options),
        shared_flush_tested: kernel::is_tested_with_shared_flushes(&kernel::release(), &file_system),
        flush_apart: needs_flush(Path::new("/sys/dev/block"), libc::major(device), libc::minor(device)),
        not_durable: not_durable(&file_system, options),
        file_system,
    })
}

/// A durable write to this block device takes a flush of the device's cache: there is a cache, and no FUA to write past it. False where
/// sysfs does not tell, as for file systems with a device number of their own. `devices` is `/sys/dev/block`; a partition has its disk's
/// queue.
///
/// Such a direct write that is submitted asynchronously (io_uring, with `RWF_DSYNC` or on an `O_DSYNC` descriptor; from a worker of the
/// ring as well) is flushed by the workqueue `dio/DEVICE` of the file system, on the CPU that took the device's interrupt and behind
/// whatever runs there. An fsync as an operation runs on a thread of the submitter's instead.
fn needs_flush(devices: &Path, major: u32, minor: u32) -> bool {
    let device = devices.join(format!("{major}:{minor}"));
    let told = |name: &str| {
        let of = |queue: &str| fs::read_to_string(device.join(queue).join(name)).ok();
        of("queue").or_else(|| of("../queue"))
    };
    told("write_cache").is_some_and(|cache| cache.trim() == "write back")
        && told("fua").is_some_and(|fua| fua.trim() == "0")
}

pub fn space(dir: &Path) -> Result<DiskSpace, Errno> {
    let stat = stat_fs(dir)?;
    let unit = stat.f_frsize as u64;
    Ok(DiskSpace { free: stat.f_bavail * unit, total: stat.f_blocks * unit })
}

pub fn list(dir: &Path) -> Result<Vec<DirEntry>, Errno> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).map_err(errno)? {
        let entry = entry.map_err(errno)?;
        let meta = entry.metadata().map_err(errno)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let len = if meta.is_dir() { 0 } else { meta.len() };
        entries.push(DirEntry { name, is_dir: meta.is_dir(), len });
    }
    entries.sort();
    Ok(entries)
}

pub fn errno(error: std::io::Error) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EINVAL))
}

struct Mount<'a> {
    kind: &'a str,
    /// Options of the super block.
    options: &'a str,
}

/// A line of proc_pid_mountinfo(5): `id parent major:minor root point options [fields] - type source super-options`.
fn find_mount(mounts: &str, major: u32, minor: u32) -> Option<Mount<'_>> {
    let device = format!("{major}:{minor}");
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        if left.split(' ').nth(2)? != device {
            return None;
        }
        let mut right = right.splitn(3, ' ');
        let kind = right.next()?;
        Some(Mount { kind, options: right.nth(1).unwrap_or("") })
    })
}

fn has_option(options: &str, names: &[&str]) -> bool {
    options
        .split(',')
        .any(|o| names.contains(&o) || names.iter().any(|n| n.ends_with('=') && o.starts_with(n)))
}

/// One flush reaches every file only where all writes and the journal share the device whose cache is flushed.
fn shares_flush(file_system: &str, options: &str) -> bool {
    match file_system {
        "ext4" => {
            !has_option(options, &["journal_path=", "journal_dev=", "nobarrier", "barrier=0", "data=journal"])
        }
        "xfs" => !has_option(options, &["logdev=", "rtdev=", "nobarrier"]),
        _ => false,
    }
}

fn not_durable(file_system: &str, options: &str) -> Option<&'static str> {
    match file_system {
        "tmpfs" | "ramfs" => Some("the file system lives in memory"),
        "overlay" => Some("an overlay file system does not pass flushes through faithfully; use a volume"),
        "nfs" | "nfs4" | "cifs" | "smb2" | "smb3" | "9p" | "ceph" | "lustre" | "gpfs" => {
            Some("a network file system's flush is not a flush of the disk behind it")
        }
        _ if file_system.starts_with("fuse") || file_system == "virtiofs" => {
            Some("a user-space file system's flush is not a flush of the disk behind it")
        }
        _ if has_option(options, &["nobarrier", "barrier=0"]) => {
            Some("mounted with nobarrier: flushes are skipped")
        }
        "ext4" | "ext3" if has_option(options, &["data=journal"]) => {
            Some("mounted with data=journal: direct writes silently become buffered ones")
        }
        _ => None,
    }
}

/// Writes and reads one page past the page cache. False if the file system refuses O_DIRECT.
fn direct_io_works(dir: &Path) -> Result<bool, Errno> {
    let path = dir.join(format!(".direct-probe-{}", std::process::id()));
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC)
        .open(&path);
    let works = match opened {
        Ok(file) => Ok(write_and_read_page(&file).is_ok()),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(errno(error)),
    };
    // O_DIRECT may be refused after the file was made.
    let _ = fs::remove_file(&path);
    works
}

fn write_and_read_page(file: &fs::File) -> std::io::Result<()> {
    let mut memory = vec![0x5a_u8; 2 * ALIGN];
    let at = memory.as_ptr().align_offset(ALIGN);
    let page = &mut memory[at..at + ALIGN];
    file.write_all_at(page, 0)?;
    page.fill(0);
    file.read_exact_at(page, 0)?;
    if page.iter().all(|b| *b == 0x5a) { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

fn stat_fs(dir: &Path) -> Result<libc::statfs, Errno> {
    let path = CString::new(dir.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
    // SAFETY: `statfs` is a C structure of integers, for which all zeros is valid.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a C string and `stat` a structure of the type that the call fills.
    let rc = unsafe { libc::statfs(path.as_ptr(), &raw mut stat) };
    if rc == 0 { Ok(stat) } else { Err(errno(std::io::Error::last_os_error())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_device_number() {
        let mounts = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,data=journal\n\
                      23 22 0:21 / /proc rw shared:5 - proc proc rw\n";
        let mount = find_mount(mounts, 254, 0).expect("listed");
        assert_eq!((mount.kind, mount.options), ("ext4", "rw,data=journal"));
        assert!(find_mount(mounts, 254, 1).is_none());
    }

    #[test]
    fn a_durable_write_needs_a_flush_where_a_cache_has_no_fua() {
        let devices = std::env::temp_dir().join(format!("corelog-queues-{}", std::process::id()));
        let disk = |number: &str, fua: &str, cache: &str| {
            let queue = devices.join(number).join("queue");
            fs::create_dir_all(&queue).expect("made");
            fs::write(queue.join("fua"), fua).expect("written");
            fs::write(queue.join("write_cache"), cache).expect("written");
        };
        disk("254:0", "0\n", "write back\n");
        disk("259:0", "1\n", "write back\n");
        disk("8:0", "0\n", "write through\n");
        // As sysfs has it: a partition is a directory of its disk's.
        fs::create_dir_all(devices.join("254:0/vda1")).expect("made");
        std::os::unix::fs::symlink("254:0/vda1", devices.join("254:1")).expect("linked");
        let found = [(254, 0), (259, 0), (8, 0), (254, 1), (0, 40)].map(|(a, b)| needs_flush(&devices, a, b));
        fs::remove_dir_all(&devices).expect("removed");
        assert_eq!(found, [true, false, false, true, false]);
    }

    #[test]
    fn promises_follow_type_and_mount_options() {
        assert_eq!(not_durable("ext4", "rw,relatime"), None);
        assert!(shares_flush("ext4", "rw"));
        assert!(not_durable("ext4", "rw,nobarrier").is_some());
        assert!(not_durable("ext4", "rw,data=journal").is_some());
        assert!(!shares_flush("ext4", "rw,journal_path=/dev/sdb1"));
        assert!(!shares_flush("xfs", "rw,logdev=/dev/sdb1"));
        assert_eq!((not_durable("btrfs", ""), shares_flush("btrfs", "")), (None, false));
        assert!(not_durable("tmpfs", "").is_some());
        assert!(not_durable("fuse.sshfs", "").is_some());
    }
}
