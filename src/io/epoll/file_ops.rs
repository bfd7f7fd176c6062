//! File operations as blocking calls, on a thread that may wait for them.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::limits::ALIGN;
use crate::io::buffer::{Block, BlockSlice};
use crate::io::linux::extents;
use crate::io::linux::files::{DIR_MODE, FILE_MODE, c_path, open_flags, weaker_open};
use crate::io::linux::reading::Reading;
use crate::io::linux::storage::errno;
use crate::io::linux::table::Owner;
use crate::io::{Errno, FileId, Op, OpenMode, Place, WriteSync};

/// One operation with the file that it is about, on its way to a thread.
pub struct Job {
    pub owner: Owner,
    pub op: Op,
    pub file: Option<(FileId, Arc<File>)>,
    /// An injected fault: a read or a write does half of its pages.
    pub short: bool,
}

/// The end of a job, on its way back.
pub struct Finished {
    pub owner: Owner,
    /// The file that was used, if it is still open.
    pub file: Option<FileId>,
    pub result: Result<u32, Errno>,
    pub outcome: Outcome,
}

/// What a job hands over or back: a [`Payload`](crate::io::Payload) without what belongs to the shard's thread.
pub enum Outcome {
    Nothing,
    Opened(File, Place),
    Closed(FileId),
    Read(Block),
    Written(BlockSlice),
}

/// Carries a job out.
pub fn run(job: Job) -> Finished {
    let Job { owner, op, file, short } = job;
    let part = |len: usize| if short { len / 2 / ALIGN * ALIGN } else { len };
    let id = file.as_ref().map(|(id, _)| *id);
    let (result, outcome) = match (op, &file) {
        (Op::Write { offset, data, sync, .. }, Some((_, file))) => {
            let written = write(file, offset, &data[..part(data.len())], sync);
            (counted(written), Outcome::Written(data))
        }
        (Op::Read { file: id, offset, into, at, len }, Some((_, file))) => {
            let mut reading = Reading::new(id, offset, into, at, len);
            if short {
                reading.shorten();
            }
            (read(file, &mut reading).map_err(errno), Outcome::Read(reading.into))
        }
        (Op::Flush { .. }, Some((_, file))) => (plain(file.sync_data()), Outcome::Nothing),
        (Op::Allocate { offset, len, .. }, Some((_, file))) => {
            (plain(allocate(file, offset, len)), Outcome::Nothing)
        }
        (Op::Truncate { len, .. }, Some((_, file))) => (plain(file.set_len(len)), Outcome::Nothing),
        (Op::CloseFile { file: id }, _) => {
            drop(file);
            return Finished { owner, file: None, result: Ok(0), outcome: Outcome::Closed(id) };
        }
        (Op::OpenFile { path, mode }, _) => match open(path, mode) {
            Ok(file) => {
                let place = extents::place(file.as_raw_fd(), open_flags(mode));
                (Ok(0), Outcome::Opened(file, place))
            }
            Err(errno) => (Err(errno), Outcome::Nothing),
        },
        (op, _) => (plain(in_directory(&op)), Outcome::Nothing),
    };
    Finished { owner, file: id, result, outcome }
}

/// Operations on the entries of a directory.
fn in_directory(op: &Op) -> io::Result<()> {
    match op {
        Op::Rename { from, to } => fs::rename(from, to),
        Op::RemoveFile { path } => fs::remove_file(path),
        Op::RemoveDir { path } => fs::remove_dir(path),
        Op::MakeDir { path } => DirBuilder::new().mode(DIR_MODE).create(path),
        Op::SyncDir { path } => File::open(path)?.sync_all(),
        _ => unreachable!("no operation on files: {op:?}"),
    }
}

fn counted(moved: io::Result<usize>) -> Result<u32, Errno> {
    moved.map(|len| len as u32).map_err(errno)
}

fn plain(done: io::Result<()>) -> Result<u32, Errno> {
    done.map(|()| 0).map_err(errno)
}

fn open(path: PathBuf, mode: OpenMode) -> Result<File, Errno> {
    let path = c_path(path)?;
    let mut flags = open_flags(mode);
    loop {
        // SAFETY: `path` is a C string that lives across the call.
        let fd = unsafe { libc::open(path.as_ptr(), flags, FILE_MODE) };
        if fd >= 0 {
            // SAFETY: the open that returned this descriptor gave it to us alone.
            return Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
        }
        let refusal = errno(io::Error::last_os_error());
        flags = weaker_open(flags, refusal).ok_or(refusal)?;
    }
}

/// Reads until all is there, or the end of the file.
fn read(file: &File, reading: &mut Reading) -> io::Result<u32> {
    loop {
        let (offset, part) = reading.next();
        let moved = file.read_at(part, offset)?;
        if !reading.goes_on(moved as u32) {
            return Ok(reading.read);
        }
    }
}

fn write(file: &File, offset: u64, data: &[u8], sync: WriteSync) -> io::Result<usize> {
    if sync == WriteSync::No {
        return file.write_at(data, offset);
    }
    let part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: the call reads the bytes of `data`, which is borrowed across it.
    let written =
        unsafe { libc::pwritev2(file.as_raw_fd(), &raw const part, 1, offset as i64, libc::RWF_DSYNC) };
    if written >= 0 { Ok(written as usize) } else { Err(io::Error::last_os_error()) }
}

fn allocate(file: &File, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: the call takes no memory, and the file is open across it.
    let rc = unsafe { libc::fallocate(file.as_raw_fd(), 0, offset as i64, len as i64) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
