//! Operations in: from an [`Op`] to a slot and a submission entry.

use std::os::fd::{AsRawFd, IntoRawFd};

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{opcode, squeue};

use super::recv_ring::GROUP;
use super::slots::Work;
use super::{Fault, Uring};
use crate::base::limits::{ALIGN, RECV_BUF_BYTES, SEND_BYTES_MAX};
use crate::io::linux::files::{self, DIR_MODE, FILE_MODE, c_path, open_flags};
use crate::io::linux::message::{Message, SEND_FLAGS};
use crate::io::linux::reading::Reading;
use crate::io::linux::table::Owner;
use crate::io::{ConnId, Errno, FileId, ListenerId, Op, Payload, SendChain, WriteSync};

const CWD: Fd = Fd(libc::AT_FDCWD);

impl Uring {
    pub(super) fn begin(&mut self, op: Op, owner: Owner) {
        match self.faults.next(&op) {
            Some(Fault::Fails(errno)) => {
                return self.finish(owner, Err(errno), false, files::handed_back(op));
            }
            Some(Fault::Short) => return self.begin_short(op, owner),
            None => {}
        }
        match op {
            Op::Accept { listener } => self.begin_accept(listener, owner),
            Op::CancelAccept { listener } => self.begin_cancel(self.listeners.get(listener.0).accept, owner),
            Op::Recv { conn } => self.begin_recv(conn, None, owner),
            Op::RecvOnce { conn, bytes_max } => self.begin_recv(conn, Some(bytes_max), owner),
            Op::CancelRecv { conn } => self.begin_cancel(self.conns.get(conn.0).recv, owner),
            Op::Send { conn, chain } => self.begin_send(conn, chain, owner),
            Op::CloseConn { conn } => self.begin_close_conn(conn, owner),
            Op::DetachConn { conn } => self.detach(conn, owner),
            Op::CloseFile { file } => self.begin_close_file(file, owner),
            op => match file_work(op) {
                Ok(work) => self.begin_file(work, owner),
                Err(errno) => self.finish(owner, Err(errno), false, Payload::None),
            },
        }
    }

    fn begin_file(&mut self, work: Work, owner: Owner) {
        if let Some(file) = work.file() {
            let state = self.files.get_mut(file.0);
            assert!(state.closing.is_none(), "operation on a file that is being closed");
            state.in_flight += 1;
        }
        let by_call = matches!(work, Work::Truncate { .. }) && !self.probe.ftruncate;
        let user_data = self.slots.insert(owner, work);
        if by_call {
            self.truncating.push(user_data);
        } else {
            self.submit_file(user_data);
        }
    }

    /// Pushes the entry of a file operation: its first, or that of its next step.
    pub(super) fn submit_file(&mut self, user_data: u64) {
        let held = self.slots.get_mut(user_data).expect("an operation in flight");
        let fd = held.work.file().map_or(CWD, |f| Fd(self.files.get(f.0).file.as_raw_fd()));
        let entry = file_entry(fd, &mut held.work, &self.registered).user_data(user_data);
        // SAFETY: paths and buffers belong to the slot until the completion; blocks and strings do not move with it.
        unsafe { self.ring.push(entry) };
    }

    fn begin_close_file(&mut self, file: FileId, owner: Owner) {
        let user_data = self.slots.insert(owner, Work::CloseFile { file, fd: -1 });
        let state = self.files.get_mut(file.0);
        assert!(state.closing.is_none(), "a file is closed once");
        state.closing = Some(user_data);
        self.close_if_idle(file);
    }

    /// Closes a file that was asked to close once nothing of it is in flight.
    pub(super) fn close_if_idle(&mut self, file: FileId) {
        let state = self.files.get(file.0);
        let Some(user_data) = state.closing.filter(|_| state.in_flight == 0) else {
            return;
        };
        let raw = self.files.take(file.0).file.into_raw_fd();
        self.slots.get_mut(user_data).expect("the close in flight").work = Work::CloseFile { file, fd: raw };
        // On a worker: the last close of a removed file frees its space, which may take long.
        let entry = opcode::Close::new(Fd(raw)).build().flags(squeue::Flags::ASYNC).user_data(user_data);
        // SAFETY: the entry points at no memory, and the descriptor is the entry's alone.
        unsafe { self.ring.push(entry) };
    }

    fn begin_accept(&mut self, listener: ListenerId, owner: Owner) {
        let user_data = self.slots.insert(owner, Work::Accept { listener });
        let state = self.listeners.get_mut(listener.0);
        assert!(state.accept.is_none(), "one Accept per listener");
        state.accept = Some(user_data);
        let fd = Fd(state.socket.as_raw_fd());
        let entry = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build().user_data(user_data);
        // SAFETY: the entry points at no memory.
        unsafe { self.ring.push(entry) };
    }

    /// Without `once`, the most bytes of a single piece, it goes on.
    fn begin_recv(&mut self, conn: ConnId, once: Option<u32>, owner: Owner) {
        let user_data = self.slots.insert(owner, Work::Recv { conn });
        let state = self.conns.get_mut(conn.0);
        assert!(state.recv.is_none() && state.closing.is_none(), "one Recv per open connection");
        state.recv = Some(user_data);
        let fd = Fd(state.socket.as_raw_fd());
        let entry = match once {
            None => opcode::RecvMulti::new(fd, GROUP).build(),
            Some(bytes_max) => {
                let bytes_max = bytes_max.clamp(1, RECV_BUF_BYTES as u32);
                let recv = opcode::Recv::new(fd, std::ptr::null_mut(), bytes_max).buf_group(GROUP);
                recv.build().flags(squeue::Flags::BUFFER_SELECT)
            }
        };
        // SAFETY: the entry points at no memory; the kernel writes to the buffers that it was provided with.
        unsafe { self.ring.push(entry.user_data(user_data)) };
    }

    /// Asks for the end of an operation, if there is one. By its name, so that it never hits the next one of that socket.
    fn begin_cancel(&mut self, target: Option<u64>, owner: Owner) {
        let Some(target) = target else {
            return self.finish(owner, Ok(0), false, Payload::None);
        };
        let user_data = self.slots.insert(owner, Work::Cancel);
        let entry = opcode::AsyncCancel::new(target).build().user_data(user_data);
        // SAFETY: the entry points at no memory.
        unsafe { self.ring.push(entry) };
    }

    fn begin_send(&mut self, conn: ConnId, chain: SendChain, owner: Owner) {
        let state = self.conns.get_mut(conn.0);
        assert!(state.send.is_none() && state.closing.is_none(), "one Send per open connection");
        if chain.is_done() {
            return self.finish(owner, Ok(0), false, Payload::Sent(chain));
        }
        let fd = Fd(state.socket.as_raw_fd());
        // Without MSG_WAITALL: it completes with what the socket's buffer took, so that a peer who reads slowly shows progress. Where
        // the peer keeps up that is all, and it costs less than waiting inside for the rest.
        let mut slices = chain.slices(2);
        let (first, single) = (slices.next().unwrap_or_default(), slices.next().is_none());
        let (start, len) = (first.as_ptr(), first.len().min(SEND_BYTES_MAX) as u32);
        drop(slices);
        let (entry, message) = if single {
            (opcode::Send::new(fd, start, len).flags(SEND_FLAGS).build(), None)
        } else {
            let mut message = self.messages.pop().unwrap_or_else(Message::new);
            let (header, _) = message.point_at(&chain, 0);
            (opcode::SendMsg::new(fd, header).flags(SEND_FLAGS as u32).build(), Some(message))
        };
        let user_data = self.slots.insert(owner, Work::Send { conn, chain, message });
        state.send = Some(user_data);
        // SAFETY: the chain's parts and the boxed message belong to the slot until the completion.
        unsafe { self.ring.push(entry.user_data(user_data)) };
    }

    fn begin_close_conn(&mut self, conn: ConnId, owner: Owner) {
        let user_data = self.slots.insert(owner, Work::CloseConn { conn, fd: -1 });
        let state = self.conns.get_mut(conn.0);
        assert!(state.closing.is_none(), "a connection is closed once");
        state.closing = Some(user_data);
        self.shutting.push(conn);
    }

    /// Closes a connection that was shut down, once nothing of it is in flight.
    pub(super) fn close_if_quiet(&mut self, conn: ConnId) {
        let state = self.conns.get(conn.0);
        let Some(user_data) = state.closing.filter(|_| state.is_quiet()) else {
            return;
        };
        let raw = self.conns.take(conn.0).socket.into_raw_fd();
        self.slots.get_mut(user_data).expect("the close in flight").work = Work::CloseConn { conn, fd: raw };
        let entry = opcode::Close::new(Fd(raw)).build().user_data(user_data);
        // SAFETY: the entry points at no memory, and the descriptor is the entry's alone.
        unsafe { self.ring.push(entry) };
    }

    /// An injected short read or write: at first, half of its pages is carried out. The driver itself goes on with a read.
    fn begin_short(&mut self, op: Op, owner: Owner) {
        let half = |len: usize| (len / 2 / ALIGN * ALIGN) as u32;
        match op {
            Op::Write { data, .. } if half(data.len()) == 0 => {
                self.finish(owner, Ok(0), false, Payload::Written(data));
            }
            Op::Write { file, offset, data, sync } => {
                let len = half(data.len());
                self.begin_file(Work::Write { file, offset, data, len, sync }, owner);
            }
            Op::Read { file, offset, into, at, len } => {
                let mut reading = Reading::new(file, offset, into, at, len);
                reading.shorten();
                self.begin_file(Work::Read(reading), owner);
            }
            op => match file_work(op) {
                Ok(work) => self.begin_file(work, owner),
                Err(errno) => self.finish(owner, Err(errno), false, Payload::None),
            },
        }
    }
}

fn file_work(op: Op) -> Result<Work, Errno> {
    files::assert_aligned(&op);
    Ok(match op {
        Op::OpenFile { path, mode } => Work::Open { path: c_path(path)?, flags: open_flags(mode) },
        Op::Allocate { file, offset, len } => Work::Allocate { file, offset, len },
        Op::Write { file, offset, data, sync } => {
            let len = data.len() as u32;
            Work::Write { file, offset, data, len, sync }
        }
        Op::Read { file, offset, into, at, len } => Work::Read(Reading::new(file, offset, into, at, len)),
        Op::Flush { file } => Work::Flush { file },
        Op::Truncate { file, len } => Work::Truncate { file, len },
        Op::Rename { from, to } => Work::Rename { from: c_path(from)?, to: c_path(to)? },
        Op::RemoveFile { path } => Work::Remove { path: c_path(path)?, flags: 0 },
        Op::RemoveDir { path } => Work::Remove { path: c_path(path)?, flags: libc::AT_REMOVEDIR },
        Op::MakeDir { path } => Work::MakeDir { path: c_path(path)? },
        Op::SyncDir { path } => Work::SyncDir { path: c_path(path)?, opened: None },
        Op::CloseFile { .. } | Op::Accept { .. } | Op::Recv { .. } | Op::RecvOnce { .. } => unreachable!(),
        Op::CancelAccept { .. } | Op::CancelRecv { .. } => unreachable!(),
        Op::Send { .. } | Op::CloseConn { .. } | Op::DetachConn { .. } => unreachable!(),
    })
}

fn file_entry(fd: Fd, work: &mut Work, registered: &[bool]) -> squeue::Entry {
    let known = |region: u16| registered.get(usize::from(region)).copied().unwrap_or(false);
    match work {
        Work::Open { path, flags } => {
            opcode::OpenAt::new(CWD, path.as_ptr()).flags(*flags).mode(FILE_MODE).build()
        }
        Work::Allocate { offset, len, .. } => opcode::Fallocate::new(fd, *len).offset(*offset).build(),
        Work::Write { offset, data, len, sync, .. } => {
            let flags = if *sync == WriteSync::Dsync { libc::RWF_DSYNC } else { 0 };
            let (start, region) = (data.as_ptr(), data.region_index());
            if known(region) {
                opcode::WriteFixed::new(fd, start, *len, region).offset(*offset).rw_flags(flags).build()
            } else {
                opcode::Write::new(fd, start, *len).offset(*offset).rw_flags(flags).build()
            }
        }
        Work::Read(reading) => {
            let region = reading.into.region_index();
            let (offset, part) = reading.next();
            let (start, len) = (part.as_mut_ptr(), part.len() as u32);
            if known(region) {
                opcode::ReadFixed::new(fd, start, len, region).offset(offset).build()
            } else {
                opcode::Read::new(fd, start, len).offset(offset).build()
            }
        }
        Work::Flush { .. } => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
        Work::Truncate { len, .. } => opcode::Ftruncate::new(fd, *len).build(),
        Work::Rename { from, to } => opcode::RenameAt::new(CWD, from.as_ptr(), CWD, to.as_ptr()).build(),
        Work::Remove { path, flags } => opcode::UnlinkAt::new(CWD, path.as_ptr()).flags(*flags).build(),
        Work::MakeDir { path } => opcode::MkDirAt::new(CWD, path.as_ptr()).mode(DIR_MODE).build(),
        Work::SyncDir { path, opened: None } => {
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
            opcode::OpenAt::new(CWD, path.as_ptr()).flags(flags).build()
        }
        Work::SyncDir { opened: Some(dir), .. } => opcode::Fsync::new(Fd(dir.as_raw_fd())).build(),
        Work::CloseFile { .. } | Work::Accept { .. } | Work::Recv { .. } | Work::Cancel => unreachable!(),
        Work::Send { .. } | Work::CloseConn { .. } => unreachable!(),
    }
}
