//! Completions out: from the kernel's entry to a [`Done`](crate::io::Done), or to the next step of an operation that takes several.

use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use io_uring::cqueue;

use super::conns::Conn;
use super::ring::Cqe;
use super::slots::{InFlight, Work};
use super::{MESSAGES_KEPT, OpenFile, Uring};
use crate::io::linux::table::Owner;
use crate::io::linux::{extents, files, sockets, storage};
use crate::io::{ConnId, Errno, FileId, ListenerId, Payload};

impl Uring {
    pub(super) fn complete(&mut self, cqe: Cqe) {
        if self.complete_bell(cqe.user_data, cqe.result) {
            return;
        }
        let Some(held) = self.slots.get_mut(cqe.user_data) else {
            return;
        };
        match &mut held.work {
            Work::Recv { conn } => {
                let conn = *conn;
                return self.received(cqe, conn);
            }
            Work::Accept { listener } => {
                let listener = *listener;
                return self.accepted(cqe, listener);
            }
            Work::Open { flags, .. } => {
                if let Some(weaker) = files::weaker_open(*flags, Errno(-cqe.result)) {
                    *flags = weaker;
                    return self.submit_file(cqe.user_data);
                }
            }
            Work::Read(reading) => {
                let goes_on = u32::try_from(cqe.result).is_ok_and(|moved| reading.goes_on(moved));
                if goes_on {
                    return self.submit_file(cqe.user_data);
                }
            }
            Work::SyncDir { opened: opened @ None, .. } if cqe.result >= 0 => {
                *opened = Some(File::from(own(cqe.result)));
                return self.submit_file(cqe.user_data);
            }
            _ => {}
        }
        let InFlight { owner, work } = self.slots.remove(cqe.user_data);
        self.complete_once(owner, work, cqe.result);
    }

    /// An operation with one completion, which is this.
    fn complete_once(&mut self, owner: Owner, work: Work, code: i32) {
        let moved = if code >= 0 { Ok(code as u32) } else { Err(Errno(-code)) };
        let plain = moved.map(|_| 0);
        if let Some(file) = work.file() {
            self.files.get_mut(file.0).in_flight -= 1;
            self.close_if_idle(file);
        }
        match work {
            Work::Write { data, .. } => self.finish(owner, moved, false, Payload::Written(data)),
            Work::Read(reading) => {
                self.finish(owner, moved.map(|_| reading.read), false, Payload::Read(reading.into));
            }
            Work::Send { conn, chain, message } => {
                if let Some(message) = message.filter(|_| self.messages.len() < MESSAGES_KEPT) {
                    self.messages.push(message);
                }
                self.conns.get_mut(conn.0).send = None;
                self.finish(owner, moved, false, Payload::Sent(chain));
                self.close_if_quiet(conn);
            }
            Work::Open { flags, .. } => {
                let payload = match plain {
                    Ok(_) => Payload::Opened(self.opened(code), extents::place(code, flags)),
                    Err(_) => Payload::None,
                };
                self.finish(owner, plain.map(|_| 0), false, payload);
            }
            Work::CloseFile { file, fd } => {
                close_if_cancelled(code, fd);
                self.files.release(file.0);
                self.finish(owner, Ok(0), false, Payload::None);
            }
            Work::CloseConn { conn, fd } => {
                close_if_cancelled(code, fd);
                self.conns.release(conn.0);
                self.finish(owner, Ok(0), false, Payload::None);
            }
            // Whether there was something left to cancel is of no interest.
            Work::Cancel => self.finish(owner, Ok(0), false, Payload::None),
            _ => self.finish(owner, plain, false, Payload::None),
        }
    }

    fn opened(&mut self, fd: RawFd) -> FileId {
        let file = File::from(own(fd));
        FileId(self.files.insert(OpenFile { file, in_flight: 0, closing: None }))
    }

    fn received(&mut self, cqe: Cqe, conn: ConnId) {
        let more = cqueue::more(cqe.flags);
        let buffer = cqueue::buffer_select(cqe.flags);
        let buffer = buffer.map(|id| self.recv.filled(id, cqe.result.max(0) as usize));
        let owner = self.slots.get_mut(cqe.user_data).expect("the receive in flight").owner;
        let state = self.conns.get_mut(conn.0);
        let result = match cqe.result {
            // Our own shutdown looks like the peer's end of stream.
            0 if state.closing.is_some() => Err(Errno::CANCELED),
            code if code < 0 => Err(Errno(-code)),
            len => Ok(len as u32),
        };
        if !more {
            self.slots.remove(cqe.user_data);
            state.recv = None;
        }
        let payload = buffer.filter(|_| cqe.result > 0).map_or(Payload::None, Payload::Received);
        self.finish(owner, result, more, payload);
        if !more {
            self.close_if_quiet(conn);
        }
    }

    fn accepted(&mut self, cqe: Cqe, listener: ListenerId) {
        let more = cqueue::more(cqe.flags);
        let owner = self.slots.get_mut(cqe.user_data).expect("the accept in flight").owner;
        if !more {
            self.slots.remove(cqe.user_data);
            self.listeners.get_mut(listener.0).accept = None;
        }
        let adopted = if cqe.result >= 0 { sockets::accepted(cqe.result) } else { Err(Errno(-cqe.result)) };
        match adopted {
            Ok((socket, peer)) => {
                let conn = ConnId(self.conns.insert(Conn::new(socket)));
                self.finish(owner, Ok(0), more, Payload::Accepted { conn, peer });
            }
            // A peer that left before it was accepted: the next one may stay.
            Err(_) if more => {}
            Err(errno) => self.finish(owner, Err(errno), false, Payload::None),
        }
    }

    /// A truncation where the ring has no operation for it.
    pub(super) fn truncate_by_call(&mut self, user_data: u64) {
        let InFlight { owner, work } = self.slots.remove(user_data);
        let Work::Truncate { file, len } = work else { unreachable!() };
        let result = self.files.get(file.0).file.set_len(len).map_err(storage::errno);
        self.complete_once(owner, Work::Truncate { file, len }, result.map_or_else(|e| -e.0, |()| 0));
    }
}

fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the open that completed with this descriptor gave it to us alone.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A close that was cancelled before it began, which only `drop` does, has left the descriptor open.
fn close_if_cancelled(code: i32, fd: RawFd) {
    if code == -libc::ECANCELED {
        // SAFETY: the cancelled entry owned the descriptor and did not close it.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}
