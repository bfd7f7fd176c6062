//! Recovery's view of the seam: blocking reads and single operations, before the first connection is accepted.

use std::path::Path;

use crate::base::ids::Uuid;
use crate::base::limits::{ALIGN, WRITE_TRIES_MAX};
use crate::io::buffer::{Block, BlockSlice};
use crate::io::{DirEntry, Done, Errno, FileId, Io, Op, OpenMode, Payload, WriteSync};
use crate::log::store::Source;

/// Refusals of memory in a row before a start gives up: a neighbour's pressure may pass, a limit does not.
const GROW_TRIES_MAX: u32 = 16;

pub struct IoSource<'a> {
    io: &'a mut Io,
}

impl<'a> IoSource<'a> {
    pub fn new(io: &'a mut Io) -> IoSource<'a> {
        IoSource { io }
    }

    /// A free block; grows the pool if there is none.
    pub fn block(&mut self) -> Result<Block, Errno> {
        for _ in 0..GROW_TRIES_MAX {
            if let Some(block) = self.io.pool().take() {
                return Ok(block);
            }
            self.io.grow_pool();
        }
        self.io.pool().take().ok_or(Errno::NOMEM)
    }

    /// Writes all of `data`, a multiple of 4096 bytes: a short write goes on at the last whole block.
    pub fn write(
        &mut self,
        file: FileId,
        offset: u64,
        data: BlockSlice,
        sync: WriteSync,
    ) -> Result<(), Errno> {
        let mut at = 0;
        for _ in 0..WRITE_TRIES_MAX {
            let done = self.io.wait(Op::Write {
                file,
                offset: offset + at as u64,
                data: data.sub(at..data.len()),
                sync,
            });
            match done.result {
                Ok(written) if at + written as usize == data.len() => return Ok(()),
                Ok(written) => at += written as usize / ALIGN * ALIGN,
                Err(errno) if errno.is_passing() => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::IO)
    }
}

impl Source for IoSource<'_> {
    fn list(&mut self, dir: &Path) -> Result<Vec<DirEntry>, Errno> {
        self.io.list_dir(dir)
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> Result<FileId, Errno> {
        let done = self.io.wait(Op::OpenFile { path: path.to_path_buf(), mode });
        done.result?;
        match done.payload {
            Payload::Opened(file, _) => Ok(file),
            _ => Err(Errno::IO),
        }
    }

    fn close(&mut self, file: FileId) {
        self.io.wait(Op::CloseFile { file });
    }

    fn read(&mut self, file: FileId, position: u64, len: usize) -> Result<Block, Errno> {
        let into = self.block()?;
        let done: Done = self.io.wait(Op::Read { file, offset: position, into, at: 0, len: len as u32 });
        let read = done.result?;
        match done.payload {
            Payload::Read(mut block) => {
                block.set_filled(read as usize);
                Ok(block)
            }
            _ => Err(Errno::IO),
        }
    }

    fn run(&mut self, op: Op) -> Result<(), Errno> {
        self.io.wait(op).result.map(|_| ())
    }

    fn uuid(&mut self) -> Uuid {
        random_uuid(self.io)
    }

    fn wall_ms(&self) -> i64 {
        self.io.wall_ms()
    }
}

/// A version 4 uuid from the seam's randomness.
pub fn random_uuid(io: &mut Io) -> Uuid {
    let mut bytes = [0u8; 16];
    io.random(&mut bytes);
    Uuid::from_random(bytes)
}
