//! Where a file lies on its device, asked of the file system (`FS_IOC_FIEMAP`, Documentation/filesystems/fiemap.rst of the kernel).

use std::os::fd::RawFd;

/// Extents asked for in one call.
const EXTENTS_MAX: usize = 128;

/// Calls for one file: one in more pieces than these tell of is not worth the time.
const CALLS_MAX: usize = 32;

/// `_IOWR('f', 11, struct fiemap)`.
const FS_IOC_FIEMAP: libc::c_ulong = 0xc020_660b;

const LAST: u32 = 0x1;

/// Flags of an extent that a write in place would change: its location is unknown, not chosen, encoded, inside other data, not written, or
/// another file's as well. Whatever flag is added later counts as well; only that of a neighbour's merged report says nothing of the extent.
const MERGED: u32 = 0x1000;

#[repr(C)]
#[derive(Clone, Copy)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_32: [u32; 3],
}

/// `struct fiemap` with room behind it.
#[repr(C)]
struct Request {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; EXTENTS_MAX],
}

/// Whether each byte of the file lies in an extent that is written and this file's alone, so that writing over it changes no metadata. False
/// where the file system does not tell. Takes some microseconds for a file in few pieces whose map is in memory.
pub fn are_own_and_written(file: RawFd) -> bool {
    let Some(len) = len(file) else { return false };
    let mut covered = 0;
    for _ in 0..CALLS_MAX {
        if covered >= len {
            return true;
        }
        let Some(request) = map(file, covered, len - covered) else { return false };
        let extents = request.extents.get(..request.mapped as usize).unwrap_or_default();
        if extents.is_empty() {
            return false;
        }
        for extent in extents {
            if extent.logical > covered || extent.flags & !(LAST | MERGED) != 0 {
                return false;
            }
            covered = covered.max(extent.logical.saturating_add(extent.length));
        }
    }
    covered >= len
}

fn len(file: RawFd) -> Option<u64> {
    // SAFETY: `stat` is a C structure of integers, for which all zeros is valid.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the call fills the structure that it is given.
    let rc = unsafe { libc::fstat(file, &raw mut stat) };
    (rc == 0).then_some(stat.st_size as u64)
}

fn map(file: RawFd, start: u64, length: u64) -> Option<Box<Request>> {
    let empty =
        Extent { logical: 0, physical: 0, length: 0, reserved: [0; 2], flags: 0, reserved_32: [0; 3] };
    let count = EXTENTS_MAX as u32;
    let extents = [empty; EXTENTS_MAX];
    let mut request = Box::new(Request { start, length, flags: 0, mapped: 0, count, reserved: 0, extents });
    // SAFETY: the structure is `struct fiemap` with `count` extents behind it, and lives across the call.
    let rc = unsafe { libc::ioctl(file, FS_IOC_FIEMAP, &raw mut *request) };
    (rc == 0).then_some(request)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::io::linux::skip::skip;

    const PIECE: u64 = 64 * 1024;

    #[test]
    fn the_structures_are_the_kernels() {
        assert_eq!(size_of::<Extent>(), 56);
        assert_eq!(std::mem::offset_of!(Request, extents), 32);
    }

    fn dir() -> PathBuf {
        let name = format!("extents-{}", std::process::id());
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tmp").join(name);
        fs::create_dir_all(&dir).expect("a directory for the test");
        dir
    }

    fn written(dir: &Path, name: &str) -> File {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(dir.join(name));
        let file = file.expect("a file");
        file.write_all_at(&[7; 4 * PIECE as usize], 0).expect("written");
        file.sync_all().expect("flushed");
        file
    }

    #[test]
    fn holes_and_what_is_only_reserved_are_found() {
        let dir = dir();
        let whole = written(&dir, "whole");
        if !are_own_and_written(whole.as_raw_fd()) {
            skip(
                "linux::extents::holes_and_what_is_only_reserved_are_found",
                "no map of a written file here",
            );
            return;
        }
        let sparse = written(&dir, "sparse");
        sparse.set_len(8 * PIECE).expect("longer");
        sparse.write_all_at(&[7; PIECE as usize], 7 * PIECE).expect("written");
        sparse.sync_all().expect("flushed");
        assert!(!are_own_and_written(sparse.as_raw_fd()), "a hole in the middle");
        let ends = written(&dir, "ends");
        ends.set_len(8 * PIECE).expect("longer");
        assert!(!are_own_and_written(ends.as_raw_fd()), "a hole at the end");
        let reserved = written(&dir, "reserved");
        // SAFETY: a plain call on an open file.
        let rc = unsafe { libc::fallocate(reserved.as_raw_fd(), 0, 0, 8 * PIECE as i64) };
        if rc == 0 {
            assert!(!are_own_and_written(reserved.as_raw_fd()), "space that was only reserved");
            reserved.write_all_at(&[0; 4 * PIECE as usize], 4 * PIECE).expect("written");
            reserved.sync_all().expect("flushed");
            assert!(are_own_and_written(reserved.as_raw_fd()), "and is written now");
        }
        let empty = File::create(dir.join("empty")).expect("a file");
        assert!(are_own_and_written(empty.as_raw_fd()), "nothing to lie anywhere");
        assert!(!are_own_and_written(-1));
        fs::remove_dir_all(dir).expect("ours");
    }
}
