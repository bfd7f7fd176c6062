//! Small files at start: read whole, replaced whole. Blocking, through the seam.

use std::path::Path;

use super::source::IoSource;
use crate::base::limits::{ALIGN, BLOCK_BYTES};
use crate::io::buffer::Block;
use crate::io::{Errno, FileId, Io, Op, OpenMode, WriteSync};
use crate::log::store::Source;

/// Largest small file: a snapshot of 100,000 partitions is about 20 MiB.
const FILE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Reads a whole file; none if it is not there.
pub fn read(io: &mut Io, path: &Path) -> Result<Option<Vec<u8>>, Errno> {
    let mut source = IoSource::new(io);
    let file = match source.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let mut bytes = Vec::new();
    let result = loop {
        match source.read(file, bytes.len() as u64, BLOCK_BYTES) {
            Err(errno) => break Err(errno),
            Ok(block) => {
                bytes.extend_from_slice(block.as_slice());
                if block.filled() < BLOCK_BYTES {
                    break Ok(Some(bytes));
                }
                if bytes.len() > FILE_BYTES_MAX {
                    break Err(Errno::NOMEM);
                }
            }
        }
    };
    source.close(file);
    result
}

/// Replaces a file: temporary file, flush, rename, directory sync. Padded with zeros to a multiple of 4096 bytes. After an error
/// the old file is what it was.
pub fn replace(io: &mut Io, path: &Path, bytes: &[u8]) -> Result<(), Errno> {
    let temporary = path.with_extension("tmp");
    let mut source = IoSource::new(io);
    let file = source.open(&temporary, OpenMode::Replace)?;
    let written = write(&mut source, file, bytes);
    source.close(file);
    written?;
    source.run(Op::Rename { from: temporary, to: path.to_path_buf() })?;
    let parent = path.parent().unwrap_or(Path::new("."));
    source.run(Op::SyncDir { path: parent.to_path_buf() })
}

fn write(source: &mut IoSource<'_>, file: FileId, bytes: &[u8]) -> Result<(), Errno> {
    let mut offset = 0;
    for chunk in bytes.chunks(BLOCK_BYTES) {
        let mut block = source.block()?;
        block.append(chunk);
        let len = chunk.len().next_multiple_of(ALIGN);
        source.write(file, offset, block.slice_padded(0), WriteSync::No)?;
        offset += len as u64;
    }
    source.run(Op::Flush { file })
}

/// Keeps `bytes` of the disk in a file of no content, for a later start to give up. Fails where there is no space for it.
pub fn reserve(io: &mut Io, path: &Path, bytes: u64) -> Result<(), Errno> {
    let mut source = IoSource::new(io);
    let file = source.open(path, OpenMode::Replace)?;
    let allocated = source.run(Op::Allocate { file, offset: 0, len: bytes });
    source.close(file);
    if allocated.is_err() {
        source.run(Op::RemoveFile { path: path.to_path_buf() })?;
    }
    allocated
}

/// A block that holds `bytes`, at most one block's worth.
pub fn block_of(io: &mut Io, bytes: &[u8]) -> Result<Block, Errno> {
    let mut block = IoSource::new(io).block()?;
    block.append(bytes);
    Ok(block)
}

/// Makes a directory and its parents, each durable in its own parent.
pub fn make_dirs(io: &mut Io, path: &Path) -> Result<(), Errno> {
    let mut source = IoSource::new(io);
    let missing: Vec<&Path> = path.ancestors().filter(|p| !p.as_os_str().is_empty()).collect();
    for dir in missing.into_iter().rev() {
        let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let made = source.run(Op::MakeDir { path: dir.to_path_buf() });
        let synced = source.run(Op::SyncDir { path: parent.to_path_buf() });
        match made {
            Ok(()) => synced?,
            // A predecessor may have made it and been killed before it was durable; a parent that we may not open is not ours.
            Err(Errno::EXIST) => {}
            // A read-only parent that is there already is no error; one that is not shows at the next step.
            Err(errno) if source.list(dir).is_err() => return Err(errno),
            Err(_) => {}
        }
    }
    Ok(())
}

/// Removes a file.
pub fn remove(io: &mut Io, path: &Path) -> Result<(), Errno> {
    IoSource::new(io).run(Op::RemoveFile { path: path.to_path_buf() })
}

/// Removes a directory with everything in it.
pub fn remove_tree(io: &mut Io, path: &Path) -> Result<(), Errno> {
    let mut dirs = vec![path.to_path_buf()];
    let mut at = 0;
    while at < dirs.len() {
        let dir = dirs[at].clone();
        at += 1;
        for entry in io.list_dir(&dir)? {
            let entry_path = dir.join(&entry.name);
            if entry.is_dir {
                dirs.push(entry_path);
            } else {
                IoSource::new(io).run(Op::RemoveFile { path: entry_path })?;
            }
        }
    }
    for dir in dirs.into_iter().rev() {
        IoSource::new(io).run(Op::RemoveDir { path: dir })?;
    }
    let parent = path.parent().unwrap_or(Path::new("."));
    IoSource::new(io).run(Op::SyncDir { path: parent.to_path_buf() })
}
