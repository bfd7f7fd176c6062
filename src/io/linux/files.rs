//! How files are opened and addressed.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::base::limits::{ALIGN, BLOCK_BYTES};
use crate::io::{Errno, FileId, Op, OpenMode, Payload};

pub const FILE_MODE: libc::mode_t = 0o640;
pub const DIR_MODE: libc::mode_t = 0o750;

/// The open file that an operation uses.
pub fn file_of(op: &Op) -> Option<FileId> {
    match op {
        Op::Allocate { file, .. }
        | Op::Write { file, .. }
        | Op::Read { file, .. }
        | Op::Flush { file }
        | Op::Truncate { file, .. } => Some(*file),
        _ => None,
    }
}

/// What goes back to the caller of an operation that is not carried out.
pub fn handed_back(op: Op) -> Payload {
    match op {
        Op::Write { data, .. } => Payload::Written(data),
        Op::Read { into, .. } => Payload::Read(into),
        _ => Payload::None,
    }
}

/// The seam's rule for positions, lengths and buffers. Breaking it is a bug of the layer above.
pub fn assert_aligned(op: &Op) {
    let aligned = |offset: u64, len: usize| {
        assert!(
            offset.is_multiple_of(ALIGN as u64) && len.is_multiple_of(ALIGN),
            "direct I/O off its alignment"
        );
    };
    match op {
        Op::Write { offset, data, .. } => {
            aligned(*offset, data.len());
            assert!(data.as_ptr().addr().is_multiple_of(ALIGN), "a direct write from unaligned memory");
        }
        Op::Read { offset, at, len, .. } => {
            let (at, len) = (*at as usize, *len as usize);
            aligned(*offset, len);
            assert!(at.is_multiple_of(ALIGN) && at + len <= BLOCK_BYTES, "a read off its block");
        }
        _ => {}
    }
}

pub fn open_flags(mode: OpenMode) -> i32 {
    let mode = match mode {
        OpenMode::Read => libc::O_RDONLY,
        OpenMode::Write => libc::O_RDWR,
        OpenMode::Create => libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
        OpenMode::Replace => libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC,
    };
    mode | libc::O_DIRECT | libc::O_NOATIME | libc::O_CLOEXEC
}

/// Flags to open a file with after they were refused: O_NOATIME is for owners (EPERM), O_DIRECT not everywhere (EINVAL).
pub fn weaker_open(flags: i32, refusal: Errno) -> Option<i32> {
    match refusal.0 {
        libc::EPERM if flags & libc::O_NOATIME != 0 => Some(flags & !libc::O_NOATIME),
        // The refused open may have made the file. `StorageCaps::direct` tells that writes are buffered.
        libc::EINVAL if flags & libc::O_DIRECT != 0 => Some(flags & !(libc::O_DIRECT | libc::O_EXCL)),
        _ => None,
    }
}

pub fn c_path(path: PathBuf) -> Result<CString, Errno> {
    CString::new(path.into_os_string().into_vec()).map_err(|_| Errno::INVAL)
}
