//! File operations: checked when they are pushed, drawn a delay when they leave, carried out when they complete.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use super::core::{Core, Event, FileRef, IoId};
use super::driver::{Closes, Ready};
use super::faults::{Injected, OpKind};
use super::file::Stamp;
use super::image::{PAGE, SECTOR};
use crate::base::limits::{ALIGN, BLOCK_BYTES};
use crate::io::buffer::{Block, BlockSlice};
use crate::io::{Done, Errno, FileId, Op, OpenMode, Payload, Place, Token, WriteSync};

/// The file was not opened for this.
const BADF: Errno = Errno(9);

/// A file operation between its push and its completion.
pub struct FileOp {
    pub token: Token,
    pub op: Op,
    /// What it may rely on: everything returned at a smaller stamp.
    pub stamp: Stamp,
    /// The file it concerns, where it names an open one.
    pub target: Option<FileRef>,
    /// Names its change of a file or directory.
    pub change: u64,
    /// The bytes of a write as they were pushed.
    pub pushed: Option<Rc<[u8]>>,
    /// A write to a file that is open for reading.
    refused: bool,
    pub submitted: bool,
}

impl FileOp {
    /// The open file that it names.
    fn file(&self) -> Option<FileId> {
        match &self.op {
            Op::CloseFile { file }
            | Op::Flush { file }
            | Op::Read { file, .. }
            | Op::Allocate { file, .. }
            | Op::Truncate { file, .. }
            | Op::Write { file, .. } => Some(*file),
            _ => None,
        }
    }
}

/// An open file of one driver.
pub struct OpenFile {
    pub file: FileRef,
    pub writable: bool,
    pub closing: bool,
}

/// What an operation did: its result, what it hands over, and what the layers above learn by it.
type Outcome = (Result<u32, Errno>, Payload, Closes);

impl Core {
    /// Checks a file operation and gives it a place. It leaves at the next turn.
    pub fn push_file_op(&mut self, io: IoId, op: Op, token: Token) {
        let mut refused = false;
        let target = match &op {
            Op::CloseFile { file } | Op::Flush { file } => Some(self.open_file(io, *file)),
            Op::Read { file, offset, at, len, .. } => {
                self.check_range(*offset, u64::from(*len));
                let fits = (*at as usize).is_multiple_of(ALIGN) && (*at + *len) as usize <= BLOCK_BYTES;
                if !fits {
                    self.fail(format_args!("read of {len} bytes into position {at} of a block"));
                }
                Some(self.open_file(io, *file))
            }
            Op::Allocate { file, offset, len } => {
                self.check_range(*offset, *len);
                Some(self.open_file(io, *file))
            }
            Op::Truncate { file, len } => {
                let file = self.open_file(io, *file);
                if self.busy.range((file, len / PAGE)..=(file, u64::MAX)).next().is_some() {
                    self.fail(format_args!("truncation to {len} under a write in flight"));
                }
                Some(file)
            }
            Op::Write { file, offset, data, .. } => {
                self.check_range(*offset, data.len() as u64);
                refused = !self.ios[&io].files.get(&file.0).is_some_and(|open| open.writable);
                let file = self.open_file(io, *file);
                if !refused {
                    self.claim_blocks(file, blocks(*offset, data));
                }
                Some(file)
            }
            _ => None,
        };
        if let Op::CloseFile { file } = &op {
            self.ios.get_mut(&io).expect("alive").files.get_mut(&file.0).expect("open").closing = true;
        }
        let pushed = if let Op::Write { data, .. } = &op { Some(Rc::from(&data[..])) } else { None };
        let change = self.id();
        let stamp = self.stamp + 1;
        let state = self.ios.get_mut(&io).expect("alive");
        state
            .ops
            .insert(change, FileOp { token, op, stamp, target, change, pushed, refused, submitted: false });
        state.queued_files.push(change);
    }

    fn open_file(&self, io: IoId, file: FileId) -> FileRef {
        match self.ios[&io].files.get(&file.0) {
            Some(open) if open.closing => self.fail(format_args!("operation on {file:?} after its close")),
            Some(open) => open.file,
            None => self.fail(format_args!("operation on {file:?}, which is not open")),
        }
    }

    fn check_range(&self, offset: u64, len: u64) {
        if len == 0 || !offset.is_multiple_of(PAGE) || !len.is_multiple_of(PAGE) {
            self.fail(format_args!("range {offset} + {len} is empty or not aligned"));
        }
    }

    fn claim_blocks(&mut self, file: FileRef, blocks: Range<u64>) {
        for block in blocks {
            if !self.busy.insert((file, block)) {
                self.fail(format_args!("two writes in flight over block {block} of {file:?}"));
            }
        }
    }

    /// The queued file operations leave for the disk.
    pub fn submit_files(&mut self, io: IoId) {
        let queued = std::mem::take(&mut self.ios.get_mut(&io).expect("alive").queued_files);
        for id in queued {
            let delay = self.disk_delay();
            let op = self.ios.get_mut(&io).expect("alive").ops.get_mut(&id).expect("queued");
            op.submitted = true;
            if let (Op::Write { offset, .. }, Some(file), Some(data), false) =
                (&op.op, op.target, &op.pushed, op.refused)
            {
                let (offset, data) = (*offset, data.clone());
                let file = self.disks[file.disk].1.file_mut(file.node).expect("open files exist");
                file.begin_write(id, offset, data);
            }
            self.schedule(self.now + delay, Event::FileOp { io, op: id });
        }
    }

    /// An operation completes, now.
    pub fn finish_file_op(&mut self, io: IoId, id: u64) {
        let Some(state) = self.ios.get_mut(&io) else { return };
        let Some(op) = state.ops.remove(&id) else { return };
        if let Op::CloseFile { file } = &op.op
            && state.ops.values().any(|other| other.file() == Some(*file))
        {
            // A close waits for what else the file has to do.
            state.ops.insert(id, op);
            let at = self.now + self.rng.between(1_000, 50_000);
            self.schedule(at, Event::FileOp { io, op: id });
            return;
        }
        let ready = self.carry_out(io, op);
        self.post(io, ready);
    }

    /// Does what the operation asks for, or what the faults make of it.
    pub fn carry_out(&mut self, io: IoId, op: FileOp) -> Ready {
        let FileOp { token, op, stamp, target, change, pushed, refused, .. } = op;
        let file = target.unwrap_or(FileRef { disk: 0, node: super::disk::ROOT });
        let (result, payload, closes) = match op {
            Op::Write { data, .. } if refused => (Err(BADF), Payload::Written(data), Closes::Nothing),
            Op::Write { offset, data, sync, .. } => {
                let pushed = pushed.expect("kept at push");
                let result = self.write(file, (change, stamp), offset, &pushed, sync);
                let blocks = blocks(offset, &data);
                (result, Payload::Written(data), Closes::Write { file, change, blocks, pushed })
            }
            Op::Read { offset, into, at, len, .. } => self.read(file, offset, into, at, len),
            Op::Flush { .. } => (self.flush(file, stamp), Payload::None, Closes::Nothing),
            Op::Allocate { offset, len, .. } => (
                self.allocate(file, change, offset..offset + len),
                Payload::None,
                Closes::Change { file, change },
            ),
            Op::Truncate { len, .. } => (
                self.meta(|core| {
                    core.disks[file.disk].1.file_mut(file.node).map(|f| f.truncate(change, len))
                }),
                Payload::None,
                Closes::Change { file, change },
            ),
            Op::CloseFile { file } => {
                if let Some(io) = self.ios.get_mut(&io) {
                    io.files.remove(&file.0);
                }
                (Ok(0), Payload::None, Closes::Nothing)
            }
            Op::OpenFile { path, mode } => self.open(io, &path, mode, change),
            other => self.change_entries(other, change, stamp),
        };
        self.note("file", token.0, result.map_or_else(|e| 1 << 32 | e.0 as u64, u64::from));
        Ready { done: Done { token, result, more: false, payload }, lane: None, closes }
    }

    fn write(
        &mut self,
        at: FileRef,
        (change, stamp): (u64, Stamp),
        offset: u64,
        data: &[u8],
        sync: WriteSync,
    ) -> Result<u32, Errno> {
        let len = data.len();
        let fault = self.draw_fault(OpKind::Write);
        let disk = &mut self.disks[at.disk].1;
        if let Err(full) = disk.check_space(at.node, offset..offset + len as u64) {
            disk.file_mut(at.node)?.lose(change);
            self.mark("write_enospc");
            return Err(full);
        }
        let file = disk.file_mut(at.node)?;
        match fault {
            Some(Injected::Fails(errno)) => {
                if never_ran(errno) {
                    file.lose(change);
                } else {
                    file.land_in_part(change, &mut self.rng);
                }
                self.mark("write_failed");
                return Err(errno);
            }
            Some(Injected::Short) => {
                let kept = self.rng.between(1, len as u64 / SECTOR - 1) * SECTOR;
                file.land(change, kept as usize);
                self.mark("write_short");
                return Ok(kept as u32);
            }
            None => {
                file.land(change, len);
            }
        }
        if sync == WriteSync::Dsync {
            if let Some(Injected::Fails(errno)) = self.draw_fault(OpKind::Flush) {
                let file = self.disks[at.disk].1.file_mut(at.node)?;
                if !never_ran(errno) {
                    file.forget(change);
                    file.flush_failed(stamp, &mut self.rng);
                }
                self.mark("dsync_failed");
                return Err(errno);
            }
            if self.disks[at.disk].1.config.dsync_covers_earlier {
                self.flush_covered(at, stamp);
            }
            self.disks[at.disk].1.file_mut(at.node)?.flush_one(change);
        }
        Ok(len as u32)
    }

    fn read(&mut self, file: FileRef, offset: u64, mut into: Block, at: u32, len: u32) -> Outcome {
        let fault = self.draw_fault(OpKind::Read);
        let result = self.disks[file.disk].1.file(file.node).and_then(|file| {
            let live = &file.live;
            if !file.is_readable(offset..offset + u64::from(len)) {
                return Err(Errno::IO);
            }
            let there = live.len().saturating_sub(offset).min(u64::from(len)) as usize;
            // A short one is the driver's own business: it goes on until the end of the file.
            if let Some(Injected::Fails(errno)) = fault {
                return Err(errno);
            }
            let at = at as usize;
            live.read(offset, &mut into.as_mut_slice()[at..at + there]);
            Ok(there as u32)
        });
        if let Some(Injected::Fails(_)) = fault {
            self.mark("read_failed");
        }
        (result, Payload::Read(into), Closes::Nothing)
    }

    fn flush(&mut self, file: FileRef, stamp: Stamp) -> Result<u32, Errno> {
        if let Some(Injected::Fails(errno)) = self.draw_fault(OpKind::Flush) {
            let disk = &mut self.disks[file.disk].1;
            let shared = disk.config.shared_flush;
            if never_ran(errno) {
                return Err(errno);
            }
            for (node, other) in disk.files_mut().filter(|(_, f)| f.has_pending()) {
                if node == file.node || shared {
                    other.flush_failed(stamp, &mut self.rng);
                }
            }
            self.mark("flush_failed");
            return Err(errno);
        }
        self.flush_covered(file, stamp);
        Ok(0)
    }

    fn flush_covered(&mut self, file: FileRef, stamp: Stamp) {
        let disk = &mut self.disks[file.disk].1;
        let shared = disk.config.shared_flush;
        for (node, other) in disk.files_mut().filter(|(_, f)| f.has_pending()) {
            if node == file.node {
                other.flush(stamp);
            } else if shared {
                other.flush_by_neighbour(stamp);
            }
        }
    }

    fn allocate(&mut self, file: FileRef, change: u64, range: Range<u64>) -> Result<u32, Errno> {
        self.meta(|core| {
            let disk = &mut core.disks[file.disk].1;
            if let Err(full) = disk.check_space(file.node, range.clone()) {
                core.mark("allocate_enospc");
                return Err(full);
            }
            disk.file_mut(file.node).map(|f| f.extend(change, range))
        })
    }

    fn open(&mut self, io: IoId, path: &Path, mode: OpenMode, change: u64) -> Outcome {
        let mut opened = None;
        let result = self.meta(|core| {
            let (disk, below) = core.resolve(path).ok_or(Errno::NOENT)?;
            let tree = &mut core.disks[disk].1;
            let node = match (mode, tree.find(below)) {
                (OpenMode::Read | OpenMode::Write, found) => found?,
                (OpenMode::Create, Ok(_)) => return Err(Errno::EXIST),
                (OpenMode::Replace, Ok(node)) => {
                    tree.file_mut(node)?.truncate(change, 0);
                    node
                }
                (OpenMode::Create | OpenMode::Replace, Err(_)) => tree.create_file(below, change)?,
            };
            tree.file(node)?;
            opened = Some(FileRef { disk, node });
            Ok(())
        });
        let Some(file) = opened else { return (result, Payload::None, Closes::Nothing) };
        let closes = Closes::Entries { disk: file.disk, node: file.node, change };
        // The process may have been killed under the operation: the file is made, and nobody has it open.
        let Some(state) = self.ios.get_mut(&io) else { return (result, Payload::None, closes) };
        state.next_file += 1;
        let id = state.next_file;
        state.files.insert(id, OpenFile { file, writable: mode != OpenMode::Read, closing: false });
        let is_settled =
            || self.disks[file.disk].1.file(file.node).is_ok_and(|file| file.is_own_and_written());
        let place = match mode {
            OpenMode::Read => Place::default(),
            _ => Place {
                device: file.disk as u64,
                is_own_and_written: mode == OpenMode::Write && is_settled(),
            },
        };
        (result, Payload::Opened(FileId(id), place), closes)
    }

    fn change_entries(&mut self, op: Op, change: u64, stamp: Stamp) -> Outcome {
        let mut touched = None;
        let result = self.meta(|core| {
            let path = match &op {
                Op::Rename { from: path, .. }
                | Op::RemoveFile { path }
                | Op::MakeDir { path }
                | Op::RemoveDir { path }
                | Op::SyncDir { path } => path,
                _ => unreachable!("handled by the caller"),
            };
            let found = core.resolve(path);
            let is_there = |mount: &Path| mount == path || found.is_none() && mount.starts_with(path);
            if matches!(op, Op::MakeDir { .. }) && core.disks.iter().any(|(mount, _)| is_there(mount)) {
                return Err(Errno::EXIST);
            }
            let (disk, below) = found.ok_or(Errno::NOENT)?;
            touched = Some(disk);
            match &op {
                Op::Rename { to, .. } => {
                    let (to_disk, to) = core.resolve(to).ok_or(Errno::NOENT)?;
                    if to_disk != disk {
                        return Err(Errno(18));
                    }
                    core.disks[disk].1.rename(below, to, change)
                }
                Op::RemoveFile { .. } => core.disks[disk].1.remove_file(below, change),
                Op::MakeDir { .. } => core.disks[disk].1.make_dir(below, change).map(|_| ()),
                Op::RemoveDir { .. } => core.disks[disk].1.remove_dir(below, change),
                _ => core.disks[disk].1.sync_dir(below, stamp),
            }
        });
        // Who is told that a directory is there already has seen the entry, whoever made it.
        let seen = match (&op, result, touched) {
            (Op::MakeDir { path }, Err(Errno::EXIST), Some(disk)) => {
                self.resolve(path).and_then(|(_, below)| self.disks[disk].1.pending_entry(below))
            }
            _ => None,
        };
        let change = seen.unwrap_or(change);
        let closes = match touched {
            Some(disk) => Closes::Entries { disk, node: super::disk::ROOT, change },
            None => Closes::Nothing,
        };
        (result, Payload::None, closes)
    }

    /// Runs a change of metadata, unless it fails by chance.
    fn meta(&mut self, change: impl FnOnce(&mut Core) -> Result<(), Errno>) -> Result<u32, Errno> {
        match self.draw_fault(OpKind::Meta) {
            Some(Injected::Fails(errno)) => {
                self.mark("meta_failed");
                Err(errno)
            }
            _ => change(self).map(|()| 0),
        }
    }

    /// A write of a killed process lands now.
    pub fn land_late(&mut self, at: FileRef, change: u64) {
        self.stamp += 1;
        let stamp = self.stamp;
        let Ok(file) = self.disks[at.disk].1.file_mut(at.node) else { return };
        if file.land(change, usize::MAX) {
            file.returned(change, stamp);
            self.mark("late_write");
            self.note("late", at.node.0, change);
        }
    }

    /// Forgets files that nobody can reach any more.
    pub fn collect_files(&mut self) {
        for disk in 0..self.disks.len() {
            let open = self.ios.values().flat_map(|io| io.files.values()).map(|open| open.file);
            let late = self.late_files();
            let open: BTreeSet<_> = open.chain(late).filter(|f| f.disk == disk).map(|f| f.node).collect();
            self.disks[disk].1.collect(&open);
        }
    }
}

/// Errors by which the kernel says that it did not even begin.
fn never_ran(errno: Errno) -> bool {
    const INTR: Errno = Errno(4);
    matches!(errno, Errno::AGAIN | INTR | Errno::CANCELED)
}

pub fn blocks(offset: u64, data: &BlockSlice) -> Range<u64> {
    offset / PAGE..(offset + data.len() as u64).div_ceil(PAGE)
}
