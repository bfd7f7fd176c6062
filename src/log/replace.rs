//! Replaces a file whole: temporary file, write, flush, rename, directory sync. After a crash at any point the name shows the old bytes or the
//! new ones; after `Finished` only the new ones.
//!
//! A state machine over the seam: it emits one operation at a time and is fed that operation's completion. One replacement of a path at a time;
//! the owner queues further ones. A leftover temporary file is emptied by the next replacement and removed by recovery.

use std::path::{Path, PathBuf};

use crate::base::limits::{ALIGN, BLOCK_BYTES, REPLACE_RETRIES_MAX};
use crate::io::buffer::{BlockSlice, Pool};
use crate::io::{Done, Errno, FileId, Op, OpenMode, Payload, WriteSync};

/// Ending of the temporary file's name.
pub const TEMPORARY: &str = ".tmp";

const EINTR: Errno = Errno(4);

/// What to do next.
#[derive(Debug)]
pub enum Next {
    Op(Op),
    /// The new bytes are durable under the name.
    Finished,
    /// The name shows the old bytes or, after a failed directory sync, perhaps the new ones. An error of a write, flush or sync is final
    /// for the log directory.
    Failed(Errno),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Open,
    Write,
    Close,
    /// The temporary file is closed after an error, which is then reported.
    CloseFailed(Errno),
    Rename,
    SyncDir,
}

/// One replacement on its way.
#[derive(Debug)]
pub struct Replace {
    path: PathBuf,
    parts: Vec<BlockSlice>,
    step: Step,
    file: Option<FileId>,
    /// File position of the write in flight or next, and the part that it belongs to.
    position: u64,
    part: usize,
    retries: u32,
    sync_dir: bool,
}

impl Replace {
    /// Begins to replace `path` by `parts`, each a multiple of 4096 bytes long: see [`fill`]. `sync_dir` is true, but for the planted bug that
    /// leaves the directory unsynced.
    pub fn start(path: PathBuf, parts: Vec<BlockSlice>, sync_dir: bool) -> (Replace, Op) {
        assert!(!parts.is_empty() && parts.iter().all(|p| !p.is_empty() && p.len().is_multiple_of(ALIGN)));
        let replace =
            Replace { path, parts, step: Step::Open, file: None, position: 0, part: 0, retries: 0, sync_dir };
        let op = Op::OpenFile { path: replace.temporary(), mode: OpenMode::Replace };
        (replace, op)
    }

    /// The file that is replaced.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the completion of the last operation.
    pub fn next(&mut self, done: Done) -> Next {
        match (done.result, done.payload) {
            (Ok(_), Payload::Opened(file, _)) => {
                self.file = Some(file);
                self.write(self.parts[0].clone())
            }
            (Ok(bytes), Payload::Written(data)) => self.written(bytes as usize, data),
            (Ok(_), _) => self.stepped(),
            (Err(errno), payload) => self.failed(errno, payload),
        }
    }

    /// A write that did `bytes` of `data`: the rest, the next part, or on to the rename.
    fn written(&mut self, bytes: usize, data: BlockSlice) -> Next {
        // What follows a short write starts at a multiple of 4096 again; the bytes between are written twice, alike.
        let whole = bytes.min(data.len()) / ALIGN * ALIGN;
        self.position += whole as u64;
        if whole < data.len() {
            if self.retries == REPLACE_RETRIES_MAX {
                return self.give_up(Errno::IO);
            }
            self.retries += 1;
            return self.write(data.sub(whole..data.len()));
        }
        self.retries = 0;
        self.part += 1;
        match self.parts.get(self.part) {
            Some(part) => {
                let part = part.clone();
                self.write(part)
            }
            None => {
                self.parts.clear();
                self.step = Step::Close;
                self.close()
            }
        }
    }

    /// The operations that hand nothing over.
    fn stepped(&mut self) -> Next {
        self.retries = 0;
        match self.step {
            Step::Close => {
                self.step = Step::Rename;
                Next::Op(Op::Rename { from: self.temporary(), to: self.path.clone() })
            }
            Step::Rename if self.sync_dir => {
                self.step = Step::SyncDir;
                Next::Op(self.sync())
            }
            Step::Rename | Step::SyncDir => Next::Finished,
            Step::CloseFailed(errno) => Next::Failed(errno),
            Step::Open | Step::Write => unreachable!("these hand over a file or bytes"),
        }
    }

    fn failed(&mut self, errno: Errno, payload: Payload) -> Next {
        if matches!(errno, Errno::AGAIN | EINTR | Errno::CANCELED) && self.retries < REPLACE_RETRIES_MAX {
            self.retries += 1;
            match (self.step, payload) {
                (Step::Write, Payload::Written(data)) => return self.write(data),
                (Step::Open, _) => {
                    return Next::Op(Op::OpenFile { path: self.temporary(), mode: OpenMode::Replace });
                }
                (Step::SyncDir, _) if errno != Errno::CANCELED => return Next::Op(self.sync()),
                _ => {}
            }
        }
        match self.step {
            // Whether closing failed says nothing about the bytes: they are flushed.
            Step::Close => self.stepped(),
            Step::CloseFailed(first) => Next::Failed(first),
            Step::Write => self.give_up(errno),
            Step::Open | Step::Rename | Step::SyncDir => Next::Failed(errno),
        }
    }

    fn give_up(&mut self, errno: Errno) -> Next {
        self.parts.clear();
        self.step = Step::CloseFailed(errno);
        self.close()
    }

    /// The last write flushes itself and those before it, whose completions were seen.
    fn write(&mut self, data: BlockSlice) -> Next {
        self.step = Step::Write;
        let last = self.part + 1 == self.parts.len();
        let sync = if last { WriteSync::Dsync } else { WriteSync::No };
        Next::Op(Op::Write { file: self.open_file(), offset: self.position, data, sync })
    }

    fn close(&mut self) -> Next {
        Next::Op(Op::CloseFile { file: self.open_file() })
    }

    fn open_file(&self) -> FileId {
        self.file.expect("opened by the first step")
    }

    fn sync(&self) -> Op {
        let dir = self.path.parent().expect("a file in a directory");
        Op::SyncDir { path: dir.to_path_buf() }
    }

    fn temporary(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(TEMPORARY);
        name.into()
    }
}

/// Copies the bytes of a checkpoint file into blocks for [`Replace::start`]; none without enough blocks.
pub fn fill(bytes: &[u8], pool: &mut Pool) -> Option<Vec<BlockSlice>> {
    let mut parts = Vec::new();
    for chunk in bytes.chunks(BLOCK_BYTES) {
        let mut block = pool.take()?;
        block.append(chunk);
        parts.push(block.slice_padded(0));
    }
    Some(parts)
}
