//! Where a file lies: its device, and on that its extents, asked of the file system (`FS_IOC_FIEMAP`, Documentation/filesystems/fiemap.rst of
//! the kernel).

use std::os::fd::RawFd;

use crate::io::Place;

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

/// Of a file that was opened with these flags. Takes some microseconds for one that is to be written over, in few pieces, with its map in
/// memory.
pub fn place(file: RawFd, flags: i32) -> Place {
    if flags & libc::O_ACCMODE == libc::O_RDONLY {
        return Place::default();
    }
    let Some(stat) = stat(file) else { return Place::default() };
    let is_new = flags & libc::O_CREAT != 0;
    Place {
        device: stat.st_dev,
        is_own_and_written: !is_new && are_own_and_written(file, stat.st_size as u64),
    }
}

fn are_own_and_written(file: RawFd, len: u64) -> bool {
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

fn stat(file: RawFd) -> Option<libc::stat> {
    // SAFETY: `stat` is a C structure of integers, for which all zeros is valid.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the call fills the structure that it is given.
    let rc = unsafe { libc::fstat(file, &raw mut stat) };
    (rc == 0).then_some(stat)
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
    use std::os::unix::fs::{FileExt, MetadataExt};
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

    fn is_settled(file: &File) -> bool {
        place(file.as_raw_fd(), libc::O_RDWR).is_own_and_written
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
        if !is_settled(&whole) {
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
        assert!(!is_settled(&sparse), "a hole in the middle");
        let ends = written(&dir, "ends");
        ends.set_len(8 * PIECE).expect("longer");
        assert!(!is_settled(&ends), "a hole at the end");
        let reserved = written(&dir, "reserved");
        // SAFETY: a plain call on an open file.
        let rc = unsafe { libc::fallocate(reserved.as_raw_fd(), 0, 0, 8 * PIECE as i64) };
        if rc == 0 {
            assert!(!is_settled(&reserved), "space that was only reserved");
            reserved.write_all_at(&[0; 4 * PIECE as usize], 4 * PIECE).expect("written");
            reserved.sync_all().expect("flushed");
            assert!(is_settled(&reserved), "and is written now");
        }
        let empty = File::create(dir.join("empty")).expect("a file");
        assert!(is_settled(&empty), "nothing to lie anywhere");
        assert_eq!(place(-1, libc::O_RDWR), Place::default());
        let device = fs::metadata(&dir).expect("there").dev();
        assert_eq!(place(whole.as_raw_fd(), libc::O_RDWR).device, device);
        assert_eq!(place(whole.as_raw_fd(), libc::O_RDWR | libc::O_CREAT).device, device);
        assert_eq!(place(whole.as_raw_fd(), libc::O_RDONLY), Place::default());
        fs::remove_dir_all(dir).expect("ours");
    }
}
