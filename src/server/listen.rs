//! Who is listened to, and to how much: `Recv`s are armed and cancelled here.
//!
//! As a rule one `Recv` stays armed and brings whatever comes. Before it can be ended it brings what there are receive buffers for, so while
//! memory is tight each connection is asked for a piece that is bounded: the rest of its frame, or enough to tell what frame comes. Who is
//! within a large frame that cannot be taken up now is not listened to: the peer's own socket is the queue.

use super::budget::Budget;
use super::connection::Phase;
use super::{On, Server, TOKEN_CANCEL, TOKEN_RECV};
use crate::io::{Mono, Op, Token};

/// How long a shard on which nothing happens sleeps while connections wait for memory, which may come from another shard.
const LOOK_AGAIN_MS: u64 = 10;

/// Connections that are looked at in a turn to bound what they hear.
const TIGHTENED_PER_TURN: usize = 512;

impl Server {
    pub(super) fn arm(&mut self, at: usize) {
        let conn = &mut self.connections[at];
        conn.receiving = true;
        conn.hears_all = !self.budget.is_tight();
        if conn.hears_all {
            // It may be tight again before this turn ends.
            self.tightened = None;
        }
        let op = match conn.hears_all {
            true => Op::Recv { conn: conn.id },
            false => Op::RecvOnce { conn: conn.id, bytes_max: Budget::piece_bytes_max(conn) },
        };
        self.ops.push((op, Token::new(TOKEN_RECV, conn.generation, at as u32)));
    }

    /// Receives more from a connection that has nothing waiting, unless that would be what cannot be taken up now.
    pub(super) fn listen(&mut self, at: usize, now: Mono) {
        let conn = &mut self.connections[at];
        if self.budget.hears(at, conn) {
            conn.end_wait(now);
            return self.arm(at);
        }
        self.look_by(now.plus_ms(LOOK_AGAIN_MS));
        self.stall(at, now);
    }

    /// The next turn begins by then.
    fn look_by(&mut self, when: Mono) {
        self.look_again = Some(self.look_again.map_or(when, |earlier| earlier.min(when)));
    }

    /// While memory is tight, nobody hears more than is asked for: what a `Recv` without a bound brings before it can be ended is whatever
    /// there are buffers for. Once per turn; nothing to do where that is so already.
    pub(super) fn tighten(&mut self) {
        if !self.budget.is_tight() {
            self.tightened = None;
            return;
        }
        let from = self.tightened.unwrap_or(0);
        let to = (from + TIGHTENED_PER_TURN).min(self.connections.capacity());
        for at in from..to {
            if self.connections.get(at).is_some_and(|conn| conn.hears_all) {
                self.cancel_recv(at);
            }
        }
        self.tightened = Some(to);
    }

    /// The inbox waits for the connection's own answers, for the time that it was asked to, or for memory. In the first two cases a peer that
    /// hangs up is still noticed.
    pub(super) fn wait_in_turn(&mut self, at: usize, held_back: bool, on: &mut On<'_>) {
        self.stall(at, on.cx.now);
        let conn = &self.connections[at];
        let muted_until = conn.muted_until.filter(|_| conn.is_muted(on.cx.now));
        let for_memory = !held_back && muted_until.is_none() && !conn.waits_for_order();
        let again = if for_memory { Some(on.cx.now.plus_ms(LOOK_AGAIN_MS)) } else { muted_until };
        let ended = conn.ended;
        let deaf = for_memory || !self.budget.may_listen(conn);
        if let Some(when) = again {
            self.look_by(when);
        }
        if ended {
            self.hurry(at, on);
        } else if deaf {
            self.cancel_recv(at);
        }
    }

    /// What waits is copied out of the receive buffers, for as long as its peer likes. Not before the end of a `Recv` that is on its way:
    /// it brings no more than there are buffers. False: there is too much that waits, and the connection closes.
    pub(super) fn keep_inbox(&mut self, at: usize) -> bool {
        let conn = &mut self.connections[at];
        let kept = conn.cancelling || self.budget.keep_inbox(conn);
        if !kept {
            self.close_for_memory(at);
        }
        kept
    }

    pub(super) fn cancel_recv(&mut self, at: usize) {
        let conn = &mut self.connections[at];
        if conn.phase == Phase::Open && conn.receiving && !conn.cancelling {
            conn.cancelling = true;
            let token = Token::new(TOKEN_CANCEL, conn.generation, at as u32);
            self.ops.push((Op::CancelRecv { conn: conn.id }, token));
        }
    }

    /// Listens to connections that wait for their own answers, where a `Recv` ended because there was no buffer.
    pub(super) fn listen_again(&mut self) {
        let deaf = self.connections.iter().filter(|(_, conn)| {
            let waits = conn.phase == Phase::Open && conn.stalled && conn.waits_for_order();
            waits && !conn.receiving && !conn.ended && self.budget.may_listen(conn)
        });
        let deaf: Vec<usize> = deaf.map(|(at, _)| at).collect();
        for at in deaf {
            self.arm(at);
        }
    }
}
