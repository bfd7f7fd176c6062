//! Files as glommio's `DmaFile`, and what glommio does on its blocking threads.

use std::cell::RefCell;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;

use ::glommio::GlommioError;
use ::glommio::io::{self as dma, DmaFile};

use crate::io::linux::extents;
use crate::io::linux::files::{DIR_MODE, FILE_MODE, open_flags};
use crate::io::linux::reading::Reading;
use crate::io::linux::storage::errno;
use crate::io::{Errno, Op, OpenMode, Place, WriteSync};

pub struct OpenFile {
    file: DmaFile,
    writable: bool,
    /// The same file once more, opened with O_DSYNC at its first durable write.
    durable: RefCell<Option<Rc<DmaFile>>>,
}

/// Opens a file. The plain open comes first, on a blocking thread, and glommio opens that descriptor again: given the path it would
/// ask for the file system by name a second time, and panic where the name has moved on since.
pub async fn open(path: std::path::PathBuf, mode: OpenMode) -> Result<(OpenFile, Place), Errno> {
    let call = move || {
        let opened = open_by_call(&path, mode);
        opened.map(|(file, flags)| {
            let place = extents::place(file.as_raw_fd(), open_flags(mode));
            (file, flags, place)
        })
    };
    let (held, flags, place) = ::glommio::executor().spawn_blocking(call).await?;
    let writable = mode != OpenMode::Read;
    let file = reopen(held.as_raw_fd(), true, writable, flags).await?;
    Ok((OpenFile { file, writable, durable: RefCell::new(None) }, place))
}

/// With O_NOATIME where we own the file; the flags say which.
fn open_by_call(path: &Path, mode: OpenMode) -> Result<(File, i32), Errno> {
    let open = |flags: i32| {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read).mode(FILE_MODE).custom_flags(libc::O_DIRECT | flags);
        match mode {
            OpenMode::Read | OpenMode::Write => {}
            OpenMode::Create => _ = options.create_new(true),
            OpenMode::Replace => _ = options.create(true).truncate(true),
        }
        options.open(path).map(|file| (file, flags)).map_err(errno)
    };
    match open(libc::O_NOATIME) {
        Err(Errno(libc::EPERM)) => open(0),
        opened => opened,
    }
}

async fn reopen(fd: RawFd, read: bool, write: bool, flags: i32) -> Result<DmaFile, Errno> {
    let mut options = dma::OpenOptions::new();
    options.read(read).write(write).custom_flags(flags);
    options.dma_open(format!("/proc/self/fd/{fd}")).await.map_err(code)
}

pub fn code(error: GlommioError<()>) -> Errno {
    Errno(error.raw_os_error().unwrap_or(libc::EIO))
}

impl OpenFile {
    /// The descriptor for durable writes; none where it cannot be had.
    async fn durable(&self) -> Option<Rc<DmaFile>> {
        if let Some(file) = &*self.durable.borrow() {
            return Some(file.clone());
        }
        let opened = reopen(self.file.as_raw_fd(), false, true, libc::O_DSYNC).await.ok()?;
        // Two first writes may have opened it twice: the second one goes.
        Some(self.durable.borrow_mut().get_or_insert_with(|| Rc::new(opened)).clone())
    }

    /// Writes a copy of `data`: glommio takes no memory but its own.
    pub async fn write(&self, offset: u64, data: &[u8], sync: WriteSync) -> Result<u32, Errno> {
        if data.is_empty() {
            return Ok(0);
        }
        let wants_sync = sync == WriteSync::Dsync;
        let durable = if wants_sync && self.writable { self.durable().await } else { None };
        let file = durable.as_deref().unwrap_or(&self.file);
        let mut copy = file.alloc_dma_buffer(data.len());
        copy.as_bytes_mut().copy_from_slice(data);
        let written = file.write_at(copy, offset).await.map_err(code)?;
        if wants_sync && durable.is_none() && written == data.len() {
            self.flush().await?;
        }
        Ok(written as u32)
    }

    pub async fn read(&self, reading: &mut Reading) -> Result<(), Errno> {
        loop {
            let (offset, part) = reading.next();
            if part.is_empty() {
                return Ok(());
            }
            let got = self.file.read_at_aligned(offset, part.len()).await.map_err(code)?;
            part[..got.len()].copy_from_slice(&got);
            if !reading.goes_on(got.len() as u32) {
                return Ok(());
            }
        }
    }

    pub async fn flush(&self) -> Result<(), Errno> {
        self.file.fdatasync().await.map_err(code)
    }

    /// glommio reserves from the start of the file only. What is reserved or written there already stays as it is.
    pub async fn allocate(&self, offset: u64, len: u64) -> Result<(), Errno> {
        self.file.pre_allocate(offset + len, false).await.map_err(code)
    }

    pub async fn truncate(&self, len: u64) -> Result<(), Errno> {
        self.file.truncate(len).await.map_err(code)
    }

    /// Linux closes a file whatever close(2) says.
    pub async fn close(self) {
        if let Some(durable) = self.durable.into_inner() {
            let _ = durable.close_rc().await;
        }
        let _ = self.file.close().await;
    }
}

/// Carries out an operation on a path. For the file system's own names glommio has nothing but its blocking threads; its
/// `Directory::sync` would be an fdatasync, which leaves a renamed entry out on ext4.
pub async fn call(op: Op) -> Result<(), Errno> {
    let call = move || match op {
        Op::Rename { from, to } => fs::rename(from, to),
        Op::RemoveFile { path } => fs::remove_file(path),
        Op::MakeDir { path } => DirBuilder::new().mode(DIR_MODE).create(path),
        Op::RemoveDir { path } => fs::remove_dir(path),
        Op::SyncDir { path } => sync_dir(&path),
        op => unreachable!("{op:?} is no operation on a path"),
    };
    ::glommio::executor().spawn_blocking(call).await.map_err(errno)
}

fn sync_dir(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use ::glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

    use super::*;
    use crate::base::limits::ALIGN;

    /// The flags of an open file as proc_pid_fdinfo(5) tells them.
    fn flags(file: &DmaFile) -> i32 {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).expect("listed");
        let octal = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("a line of flags");
        i32::from_str_radix(octal.trim(), 8).expect("octal digits")
    }

    /// An executor and a path for a file, unless there can be no executor here.
    fn world(test: &str) -> Option<(LocalExecutor, PathBuf)> {
        let Ok(executor) = LocalExecutorBuilder::new(Placement::Unbound).io_memory(1 << 16).make() else {
            crate::io::linux::skip::skip(&format!("glommio::files::{test}"), "no executor of glommio");
            return None;
        };
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tmp");
        fs::create_dir_all(&dir).expect("a directory for tests");
        Some((executor, dir.join(format!("glommio-{}-{test}", std::process::id()))))
    }

    #[test]
    fn durable_writes_have_a_descriptor_of_their_own() {
        let Some((executor, path)) = world("durable_writes_have_a_descriptor_of_their_own") else { return };
        executor.run(async {
            let (file, _) = open(path.clone(), OpenMode::Replace).await.expect("opened");
            let page = [7; ALIGN];
            assert_eq!(file.write(0, &page, WriteSync::No).await, Ok(ALIGN as u32));
            assert!(file.durable.borrow().is_none() && flags(&file.file) & libc::O_DSYNC == 0);
            assert_eq!(file.write(ALIGN as u64, &page, WriteSync::Dsync).await, Ok(ALIGN as u32));
            let durable = file.durable.borrow().clone().expect("opened by the write");
            assert_eq!(flags(&durable) & (libc::O_DSYNC | libc::O_DIRECT), libc::O_DSYNC | libc::O_DIRECT);
            drop(durable);
            fs::remove_file(&path).expect("removed");
            file.close().await;
        });
    }

    #[test]
    fn a_file_that_is_only_read_takes_no_durable_write() {
        let Some((executor, path)) = world("a_file_that_is_only_read_takes_no_durable_write") else { return };
        executor.run(async {
            open(path.clone(), OpenMode::Replace).await.expect("made").0.close().await;
            let (file, _) = open(path.clone(), OpenMode::Read).await.expect("opened");
            let refused = file.write(0, &[7; ALIGN], WriteSync::Dsync).await;
            assert_eq!(refused, Err(Errno(libc::EBADF)));
            fs::remove_file(&path).expect("removed");
            file.close().await;
        });
    }
}
