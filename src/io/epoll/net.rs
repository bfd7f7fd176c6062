//! Sockets by readiness: what epoll said is remembered, and calls are made while they have something to do.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use super::Epoll;
use super::poller::{Event, Source};
use crate::base::limits::COMPLETIONS_PER_TURN_MAX;
use crate::io::linux::message::SEND_FLAGS;
use crate::io::linux::sockets;
use crate::io::linux::storage::errno;
use crate::io::linux::table::Owner;
use crate::io::recv::RecvBuf;
use crate::io::{ConnId, Errno, ListenerId, Payload, SendChain};

pub struct Listener {
    socket: Arc<TcpListener>,
    /// While there is one, epoll tells of connections.
    accept: Option<Owner>,
    /// A connection may wait to be accepted.
    readable: bool,
}

impl Listener {
    /// Of a socket that does not block.
    pub fn new(socket: Arc<TcpListener>) -> Listener {
        Listener { socket, accept: None, readable: false }
    }

    pub fn socket(&self) -> Arc<TcpListener> {
        self.socket.clone()
    }
}

pub struct Conn {
    socket: TcpStream,
    recv: Option<Receiving>,
    send: Option<Sending>,
    /// Bytes, an end or an error may wait to be received.
    readable: bool,
    /// The end or an error is there, behind the bytes: no further event will tell.
    hung_up: bool,
}

impl Conn {
    /// Nothing of it is in flight.
    pub fn is_quiet(&self) -> bool {
        self.recv.is_none() && self.send.is_none()
    }

    pub fn into_socket(self) -> TcpStream {
        self.socket
    }
}

/// A `Recv` in flight, and the most bytes of the one piece that it takes, if it takes one.
#[derive(Clone, Copy)]
struct Receiving {
    owner: Owner,
    once: Option<u32>,
}

/// A `Send` in flight, and how much of it has left.
struct Sending {
    owner: Owner,
    chain: SendChain,
    sent: usize,
}

/// What one call on a socket came to.
enum Step {
    /// Go on when epoll says so.
    Later,
    /// Go on in this turn.
    Again,
}

impl Epoll {
    /// Takes a socket that does not block. Where epoll has no room for it, it is shut: its `Recv` and `Send` then end at once.
    pub(super) fn register_conn(&mut self, socket: TcpStream) -> ConnId {
        let fd = socket.as_raw_fd();
        let conn = Conn { socket, recv: None, send: None, readable: false, hung_up: false };
        let index = self.conns.insert(conn);
        if let Err(error) = self.poller.add_conn(fd, index) {
            tracing::warn!(%error, "a connection is given up: epoll does not take it");
            let state = self.conns.get_mut(index);
            let _ = state.socket.shutdown(Shutdown::Both);
            (state.readable, state.hung_up) = (true, true);
        }
        ConnId(index)
    }

    pub(super) fn begin_accept(&mut self, listener: ListenerId, owner: Owner) {
        let state = self.listeners.get_mut(listener.0);
        assert!(state.accept.is_none(), "one Accept per listener");
        match self.poller.add_listener(state.socket.as_raw_fd(), listener.0) {
            Ok(()) => state.accept = Some(owner),
            Err(error) => self.finish(owner, Err(errno(error)), false, Payload::None),
        }
    }

    pub(super) fn cancel_accept(&mut self, listener: ListenerId, owner: Owner) {
        if let Some(accept) = self.listeners.get_mut(listener.0).accept {
            self.end_accept(listener.0, accept, Errno::CANCELED);
        }
        self.finish(owner, Ok(0), false, Payload::None);
    }

    pub(super) fn begin_recv(&mut self, conn: ConnId, once: Option<u32>, owner: Owner) {
        let state = self.conns.get_mut(conn.0);
        assert!(state.recv.is_none(), "one Recv per open connection");
        state.recv = Some(Receiving { owner, once });
        if state.readable {
            self.runnable.push_back(Source::Conn(conn.0));
        }
    }

    pub(super) fn cancel_recv(&mut self, conn: ConnId, owner: Owner) {
        if let Some(recv) = self.conns.get_mut(conn.0).recv.take() {
            self.finish(recv.owner, Err(Errno::CANCELED), false, Payload::None);
        }
        self.finish(owner, Ok(0), false, Payload::None);
    }

    pub(super) fn begin_send(&mut self, conn: ConnId, chain: SendChain, owner: Owner) {
        let state = self.conns.get_mut(conn.0);
        assert!(state.send.is_none(), "one Send per open connection");
        state.send = Some(Sending { owner, chain, sent: 0 });
        self.go_on_sending(conn.0);
    }

    pub(super) fn close_conn(&mut self, conn: ConnId, owner: Owner) {
        let Conn { socket, recv, send, .. } = self.conns.take(conn.0);
        // A connection that the peer has reset is shut already.
        let _ = socket.shutdown(Shutdown::Both);
        if let Some(recv) = recv {
            self.finish(recv.owner, Err(Errno::CANCELED), false, Payload::None);
        }
        if let Some(Sending { owner, chain, sent }) = send {
            let result = if sent > 0 { Ok(sent as u32) } else { Err(Errno::CANCELED) };
            self.finish(owner, result, false, Payload::Sent(chain));
        }
        drop(socket);
        self.conns.release(conn.0);
        self.finish(owner, Ok(0), false, Payload::None);
    }

    pub(super) fn conn_event(&mut self, index: u32, event: Event) {
        let state = self.conns.get_mut(index);
        state.readable |= event.readable;
        state.hung_up |= event.hung_up;
        if event.readable && state.recv.is_some() {
            self.runnable.push_back(Source::Conn(index));
        }
        if event.writable && state.send.is_some() {
            self.go_on_sending(index);
        }
    }

    pub(super) fn listener_event(&mut self, index: u32) {
        let state = self.listeners.get_mut(index);
        state.readable = true;
        if state.accept.is_some() {
            self.runnable.push_back(Source::Listener(index));
        }
    }

    /// Receives and accepts, one call for each socket in turn, until nothing is ready or the turn is full.
    pub(super) fn run_sockets(&mut self) {
        while self.ready.len() < COMPLETIONS_PER_TURN_MAX
            && let Some(source) = self.runnable.pop_front()
        {
            let step = match source {
                Source::Conn(index) => self.receive(index),
                Source::Listener(index) => self.accept(index),
                Source::Bell => Step::Later,
            };
            if matches!(step, Step::Again) {
                self.runnable.push_back(source);
            }
        }
    }

    /// One receive call, if there is something to receive and somebody who wants it: the connection may have been closed since it
    /// became runnable, and its number given to another.
    fn receive(&mut self, index: u32) -> Step {
        let Some(state) = self.conns.find(index) else { return Step::Later };
        let Some(recv) = state.recv.filter(|_| state.readable) else { return Step::Later };
        let received = match self.recv.take() {
            Some(mut buffer) => {
                let most = recv.once.map_or(buffer.len(), |most| (most.max(1) as usize).min(buffer.len()));
                (&state.socket).read(&mut buffer[..most]).map(|len| (len, Some((buffer, most))))
            }
            // Without a buffer only bytes are a reason to give up; an end or an error needs none.
            None => state.socket.peek(&mut [0]).map(|len| (len, None)),
        };
        let (result, payload) = match received {
            Ok((0, _)) => (Ok(0), Payload::None),
            Ok((len, Some((buffer, most)))) => {
                // A piece shorter than it could be was all that there is (epoll(7)), unless an end waits behind it.
                state.readable = len == most || state.hung_up;
                return self.hand_over(index, recv, buffer, len);
            }
            Ok((_, None)) => (Err(Errno::NOBUFS), Payload::None),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                state.readable = false;
                return Step::Later;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return Step::Again,
            Err(error) => (Err(errno(error)), Payload::None),
        };
        state.recv = None;
        self.finish(recv.owner, result, false, payload);
        Step::Later
    }

    fn hand_over(&mut self, index: u32, recv: Receiving, mut buffer: RecvBuf, len: usize) -> Step {
        let state = self.conns.get_mut(index);
        let goes_on = recv.once.is_none();
        if !goes_on {
            state.recv = None;
        }
        let step = if goes_on && state.readable { Step::Again } else { Step::Later };
        buffer.truncate(len);
        self.finish(recv.owner, Ok(len as u32), goes_on, Payload::Received(buffer));
        step
    }

    fn accept(&mut self, index: u32) -> Step {
        let Some(state) = self.listeners.find(index) else { return Step::Later };
        let Some(owner) = state.accept.filter(|_| state.readable) else { return Step::Later };
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let (address, len) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the socket is open for as long as it is borrowed, and no address is asked for.
        let fd = unsafe { libc::accept4(state.socket.as_raw_fd(), address, len, flags) };
        if fd < 0 {
            let refusal = errno(std::io::Error::last_os_error());
            return self.refused_accept(index, owner, refusal);
        }
        // A peer that left before it was accepted: the next one may stay.
        let Ok((socket, peer)) = sockets::accepted(fd) else { return Step::Again };
        let conn = self.register_conn(socket);
        self.finish(owner, Ok(0), true, Payload::Accepted { conn, peer });
        Step::Again
    }

    fn refused_accept(&mut self, index: u32, owner: Owner, refusal: Errno) -> Step {
        match refusal.0 {
            libc::EAGAIN => {
                self.listeners.get_mut(index).readable = false;
                Step::Later
            }
            libc::EINTR | libc::ECONNABORTED | libc::EPROTO => Step::Again,
            _ => {
                self.end_accept(index, owner, refusal);
                Step::Later
            }
        }
    }

    /// From here on others that share the listener are told; the next `Accept` is told of what still waits.
    fn end_accept(&mut self, index: u32, owner: Owner, why: Errno) {
        let state = self.listeners.get_mut(index);
        (state.accept, state.readable) = (None, false);
        self.poller.remove(state.socket.as_raw_fd());
        self.finish(owner, Err(why), false, Payload::None);
    }

    /// Sends until the chain, or as much of it as one send may take, has left, or the socket takes no more.
    fn go_on_sending(&mut self, index: u32) {
        let state = self.conns.get_mut(index);
        let sending = state.send.as_mut().expect("a send in flight");
        let result = loop {
            let (header, offered) = self.message.point_at(&sending.chain, sending.sent);
            if offered == 0 {
                break Ok(());
            }
            // SAFETY: the header points at parts of `message`, and these at parts of the chain; neither changes across the call.
            let sent = unsafe { libc::sendmsg(state.socket.as_raw_fd(), header, SEND_FLAGS) };
            if sent >= 0 {
                sending.sent += sent as usize;
                if (sent as usize) < offered {
                    return;
                }
                continue;
            }
            match errno(std::io::Error::last_os_error()) {
                Errno::AGAIN => return,
                Errno::INTR => {}
                failed => break Err(failed),
            }
        };
        let Some(Sending { owner, chain, sent }) = state.send.take() else { return };
        let result = if sent > 0 { Ok(sent as u32) } else { result.map(|()| 0) };
        self.finish(owner, result, false, Payload::Sent(chain));
    }
}
