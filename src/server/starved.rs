//! Connections whose `Recv` ended because there was no receive buffer.
//!
//! Armed again at once, it would end again at once for as long as the buffers are away, and the shard would do nothing else. Where bytes
//! arrived meanwhile, buffers are coming back and the next turn listens again; where none did, that is tried once in a while.

use super::Server;
use super::connection::Phase;
use crate::io::Mono;

/// How long nobody listens again while nothing arrives. An arrival is noticed by so much later at most.
const PAUSE_MS: u64 = 1;

#[derive(Debug, Default)]
pub struct Starved {
    connections: Vec<usize>,
    /// Bytes that had been received when it was last looked at.
    received_bytes: u64,
    pub until: Option<Mono>,
}

impl Server {
    /// The connection listens again when there may be a buffer.
    pub(super) fn starve(&mut self, at: usize) {
        self.connections[at].starved = true;
        self.starved.connections.push(at);
    }

    /// Once per turn, behind all inboxes.
    pub(super) fn receive_again(&mut self, now: Mono) {
        if self.starved.connections.is_empty() {
            return;
        }
        let before = std::mem::replace(&mut self.starved.received_bytes, self.received_bytes_total);
        let paused = || if before == self.received_bytes_total { now.plus_ms(PAUSE_MS) } else { now };
        if *self.starved.until.get_or_insert_with(paused) > now {
            return;
        }
        self.starved.until = None;
        for at in std::mem::take(&mut self.starved.connections) {
            // Its slot may have another one by now.
            let Some(conn) = self.connections.get_mut(at).filter(|conn| conn.starved) else { continue };
            conn.starved = false;
            let listens = conn.phase == Phase::Open && conn.moving.is_none() && !conn.stalled;
            if listens && !conn.receiving && !conn.ended {
                self.listen(at, now);
            }
        }
    }
}
