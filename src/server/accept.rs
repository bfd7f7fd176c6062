//! New connections: taken, refused, and not asked for while there is nothing to hold them.
//!
//! A listener of all shards has one socket, and whichever shard is first takes a connection: under a burst that is nearly always the
//! same one. So a shard that accepts there hands the connection on if another has fewer; before its first byte that costs
//! one letter. Where connections live is then even to within a few, on every driver.
//!
//! Nor does a shard that stands still hold up who calls: the others look now and then whether connections wait, and take them over.

use std::net::SocketAddr;

use super::connection::Connection;
use super::handover::begin_move;
use super::{On, Server, TOKEN_ACCEPT, TOKEN_CANCEL};
use crate::io::{ConnId, Done, Errno, ListenerId, Mono, Op, Payload, Token};
use crate::wire::frame::FrameSplitter;

/// How long nothing is accepted after an accept failed: out of descriptors or of memory, it would fail again at once.
const ACCEPT_PAUSE_MS: u64 = 100;

/// How often connections that wait are looked for. A shard wakes about as often when it has nothing to do.
const LOOK_MS: u64 = 100;

/// A listener, and until when it is left alone.
pub(super) struct Listener {
    id: ListenerId,
    /// Its connections go to the shard with the fewest.
    for_all: bool,
    paused: Option<Mono>,
    /// The failure that lasts was logged.
    told: bool,
}

impl Server {
    /// Starts to accept on a listener. `for_all`: whatever comes goes to the shard with the fewest connections; else it stays here.
    pub fn serve(&mut self, listener: ListenerId, for_all: bool) {
        self.listeners.push(Listener { id: listener, for_all, paused: None, told: false });
        self.accept(self.listeners.len() - 1);
    }

    fn accept(&mut self, at: usize) {
        let listener = &mut self.listeners[at];
        listener.paused = None;
        self.ops.push((Op::Accept { listener: listener.id }, Token::new(TOKEN_ACCEPT, 0, at as u32)));
    }

    /// When a paused listener is asked again.
    pub(super) fn next_accept(&self) -> Option<Mono> {
        self.listeners.iter().filter_map(|listener| listener.paused).min()
    }

    /// Goes on accepting where the pause is over.
    pub(super) fn accept_again(&mut self, now: Mono) {
        for at in 0..self.listeners.len() {
            if self.listeners[at].paused.is_some_and(|until| until <= now) && !self.stopping {
                self.accept(at);
            }
        }
    }

    /// Takes over connections that wait, perhaps for a shard that stands still: the kernel tells one shard of each, the first in line,
    /// whether or not it gets to run. To accept anew takes what waits, and puts this shard last in line. Any waiting connection will do: one
    /// that would have been taken anyhow costs two operations, and to see it wait twice would double the time of the others.
    pub fn take_over_waiting(&mut self, now: Mono, has_waiting: impl Fn(ListenerId) -> bool) {
        if now < self.next_look || self.stopping {
            return;
        }
        self.next_look = now.plus_ms(LOOK_MS);
        for (at, listener) in self.listeners.iter().enumerate() {
            // Nothing is accepted during a pause, and behind it whatever waits.
            if listener.paused.is_none() && has_waiting(listener.id) {
                let op = Op::CancelAccept { listener: listener.id };
                self.ops.push((op, Token::new(TOKEN_CANCEL, 0, at as u32)));
            }
        }
    }

    pub(super) fn accepted(&mut self, done: Done, on: &On<'_>) {
        let at = done.token.slot() as usize;
        if !done.more && !self.stopping {
            match done.result {
                Err(errno) if !is_of_the_peer(errno) => self.pause(at, errno, on.cx.now),
                _ => self.accept(at),
            }
        }
        let Payload::Accepted { conn, peer } = done.payload else { return };
        self.listeners[at].told = false;
        self.accepted_total += 1;
        let for_all = self.listeners[at].for_all;
        self.adopt(conn, peer, for_all, on);
    }

    fn pause(&mut self, at: usize, errno: Errno, now: Mono) {
        let listener = &mut self.listeners[at];
        listener.paused = Some(now.plus_ms(ACCEPT_PAUSE_MS));
        if !std::mem::replace(&mut listener.told, true) {
            let connections = self.connections.len();
            tracing::warn!(%errno, connections, "no connection can be accepted: tried again until one can");
        }
    }

    fn adopt(&mut self, conn: ConnId, peer: SocketAddr, for_all: bool, on: &On<'_>) {
        let splitter = FrameSplitter::requests(self.config.request_bytes_max);
        let at = self.insert(|generation| Connection::new(conn, peer, generation, splitter, on.cx.now));
        on.meta.board.joined(self.config.shard);
        let refused = self.is_full() || self.stopping;
        let counted = !refused && self.quota.take(peer.ip(), &on.meta.image.config);
        self.connections[at].counted = counted;
        if !counted {
            tracing::debug!(%peer, "one connection too many is closed");
            return self.close(at);
        }
        match on.meta.board.better_home(self.config.shard, on.cx.now.0).filter(|_| for_all) {
            Some(to) => {
                begin_move(&mut self.connections[at], self.config.shard, to, &on.meta.board);
                self.step_move(at);
            }
            None => self.arm(at),
        }
    }
}

/// The connection failed before it was taken, or the call was interrupted: the next one may be fine.
fn is_of_the_peer(errno: Errno) -> bool {
    errno.is_passing() || matches!(errno, Errno::CONNABORTED | Errno::CANCELED)
}
