//! New connections: taken, refused, and not asked for while there is nothing to hold them.

use std::net::SocketAddr;

use super::connection::Connection;
use super::{On, Server, TOKEN_ACCEPT};
use crate::io::{ConnId, Done, Errno, ListenerId, Mono, Op, Payload, Token};
use crate::wire::frame::FrameSplitter;

/// How long nothing is accepted after an accept failed: out of descriptors or of memory, it would fail again at once.
const ACCEPT_PAUSE_MS: u64 = 100;

/// A listener, and until when it is left alone.
pub(super) struct Listener {
    id: ListenerId,
    paused: Option<Mono>,
    /// The failure that lasts was logged.
    told: bool,
}

impl Server {
    /// Starts to accept on a listener.
    pub fn serve(&mut self, listener: ListenerId) {
        self.listeners.push(Listener { id: listener, paused: None, told: false });
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
        self.adopt(conn, peer, on);
    }

    fn pause(&mut self, at: usize, errno: Errno, now: Mono) {
        let listener = &mut self.listeners[at];
        listener.paused = Some(now.plus_ms(ACCEPT_PAUSE_MS));
        if !std::mem::replace(&mut listener.told, true) {
            let connections = self.connections.len();
            tracing::warn!(%errno, connections, "no connection can be accepted: tried again until one can");
        }
    }

    fn adopt(&mut self, conn: ConnId, peer: SocketAddr, on: &On<'_>) {
        let splitter = FrameSplitter::requests(self.config.request_bytes_max);
        let at = self.insert(|generation| Connection::new(conn, peer, generation, splitter, on.cx.now));
        let refused = self.is_full() || self.stopping;
        let counted = !refused && self.quota.take(peer.ip(), &on.meta.image.config);
        self.connections[at].counted = counted;
        match counted {
            true => self.arm(at),
            false => {
                tracing::debug!(%peer, "one connection too many is closed");
                self.close(at);
            }
        }
    }
}

/// The connection failed before it was taken, or the call was interrupted: the next one may be fine.
fn is_of_the_peer(errno: Errno) -> bool {
    errno.is_passing() || matches!(errno, Errno::CONNABORTED | Errno::CANCELED)
}
