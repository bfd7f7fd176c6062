//! Listening sockets and who accepts there. As in a kernel, a connection waits at its socket until a driver that accepts looks: one is
//! told of it, and does so in its next turn; each looks as its `Accept` begins.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::core::{Core, IoId, ProcessId};
use super::driver::{Closes, Ready};
use crate::io::{ConnId, Done, Errno, ListenMode, ListenerId, Payload, Token};

/// A driver's share in a listening socket.
pub struct Listener {
    pub socket: u32,
    pub io: IoId,
    pub accept: Option<Token>,
    /// The driver was told of a connection, and looks in its next turn.
    pub told: bool,
}

pub struct ListenSocket {
    pub addr: SocketAddr,
    pub mode: ListenMode,
    pub process: ProcessId,
    pub backlog: VecDeque<u32>,
    /// Also held by handles outside of the drivers.
    pub held: Arc<()>,
}

impl Core {
    pub fn own_listener(&self, io: IoId, listener: ListenerId) -> &Listener {
        match self.net.listeners.get(&listener.0) {
            Some(found) if found.io == io => found,
            _ => self.fail(format_args!("operation on {listener:?}, which is not ours")),
        }
    }

    pub fn has_waiting(&self, io: IoId, listener: ListenerId) -> bool {
        !self.net.sockets[&self.own_listener(io, listener).socket].backlog.is_empty()
    }

    /// One of those who accept is told of a connection, whether or not it gets a turn to take it: any of them, although a kernel tells the
    /// first in line. Until somebody looks, the connection waits.
    pub fn tell_of_connection(&mut self, socket: u32) {
        let armed = self.net.listeners.iter().filter(|(_, l)| l.socket == socket && l.accept.is_some());
        let armed: Vec<u32> = armed.map(|(id, _)| *id).collect();
        let listener = match armed[..] {
            [] => return,
            [one] => one,
            _ => armed[self.rng.below(armed.len() as u64) as usize],
        };
        let state = self.net.listeners.get_mut(&listener).expect("just there");
        state.told = true;
        if let Some(io) = self.ios.get_mut(&state.io) {
            io.woken = true;
        }
    }

    /// A turn looks where its driver was told of connections.
    pub fn take_told(&mut self, io: IoId) {
        let told = self.net.listeners.iter().filter(|(_, l)| l.io == io && l.told);
        let told: Vec<u32> = told.map(|(id, _)| *id).collect();
        told.into_iter().for_each(|listener| self.accept_waiting(listener));
    }

    /// Gives all that wait at its socket to a listener that accepts, as far as its `Accept` goes on.
    pub fn accept_waiting(&mut self, listener: u32) {
        let state = self.net.listeners.get_mut(&listener).expect("caller has it");
        state.told = false;
        let socket = state.socket;
        while self.net.listeners[&listener].accept.is_some()
            && let Some(found) = self.net.sockets.get_mut(&socket)
            && let Some(conn) = found.backlog.pop_front()
        {
            self.accept(listener, conn);
        }
    }

    pub fn cancel_accept(&mut self, io: IoId, listener: u32, token: Token) {
        let state = self.net.listeners.get_mut(&listener).expect("checked at push");
        state.told = false;
        let accept = state.accept.take().map(|accept| (accept, Err(Errno::CANCELED)));
        for (token, result) in accept.into_iter().chain([(token, Ok(0))]) {
            let done = Done { token, result, more: false, payload: Payload::None };
            // In the lane of what was accepted, which comes first.
            self.post(io, Ready { done, lane: Some(listener), closes: Closes::Nothing });
        }
    }

    fn accept(&mut self, listener: u32, conn: u32) {
        let ends = self.faults.accept_end;
        let more = !self.rng.chance(ends);
        let state = self.net.listeners.get_mut(&listener).expect("caller has it");
        let (io, token) = (state.io, state.accept.expect("armed"));
        if !more {
            state.accept = None;
            self.mark("accept_ended");
        }
        if let Some(state) = self.net.conns.get_mut(&conn) {
            state.io = Some(io);
            let payload = Payload::Accepted { conn: ConnId(conn), peer: state.peer };
            let done = Done { token, result: Ok(0), more, payload };
            // Its own lane, so that nothing of the accept overtakes: the last one tells that no more will come.
            let ready = Ready { done, lane: Some(listener), closes: Closes::Nothing };
            self.post(io, ready);
        }
    }
}
