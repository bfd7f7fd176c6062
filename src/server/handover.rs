//! Moving a connection to the shard that owns what it asks for.
//!
//! A connection whose requests go to one other shard nearly all the time pays a hop for each. It moves there instead, and its requests
//! become function calls again. It moves only when nothing of it is under way: no request unanswered, no send in flight, the `Recv`
//! cancelled and its last completion seen. From the decision on nothing more is parsed, so that this moment comes.
//!
//! A fresh connection may move before it said anything: to the shard with the fewest, where shards accept for each other.
//!
//! What travels is the socket, the frame that had arrived in part, and bytes not parsed yet.

use super::connection::{Chunk, Connection, Phase};
use super::{On, Server, TOKEN_DETACH};
use crate::base::board::Board;
use crate::base::ids::ShardId;
use crate::io::recv::RecvBuf;
use crate::io::{ConnId, Done, Mono, Op, Payload, Token};
use crate::router::letter::{Handover, MovedState};

/// Of this many hundredths of its requests, all must go to one other shard.
const MAJORITY_PERCENT: u32 = 90;

/// Whose partitions a connection asks for: counted over windows of so many requests.
#[derive(Debug, Default)]
pub struct Affinity {
    candidate: Option<ShardId>,
    /// Balance of the candidate's requests against all others within this window: who leads at its end is the next candidate.
    lead: u32,
    hits: u32,
    requests: u32,
    moved_at: Option<Mono>,
}

impl Affinity {
    /// Of a connection that moved here just now.
    fn moved(now: Mono) -> Affinity {
        Affinity { moved_at: Some(now), ..Affinity::default() }
    }

    /// Counts a request for partitions of `owner`, none if it has several. Some: nearly the whole window went to this shard.
    fn count(&mut self, owner: Option<ShardId>, window: u32) -> Option<ShardId> {
        self.requests += 1;
        match (owner, self.candidate) {
            (Some(owner), Some(candidate)) if owner == candidate => {
                self.hits += 1;
                self.lead += 1;
            }
            (owner, _) if self.lead == 0 => {
                self.candidate = owner;
                (self.lead, self.hits) = (1, 1);
            }
            _ => self.lead -= 1,
        }
        if self.requests < window {
            return None;
        }
        let enough = self.hits * 100 >= window * MAJORITY_PERCENT;
        (self.lead, self.hits, self.requests) = (0, 0, 0);
        self.candidate.filter(|_| enough)
    }
}

/// The connection is to live on another shard, and counts there from now on.
pub fn begin_move(conn: &mut Connection, from: ShardId, to: ShardId, board: &Board) {
    conn.moving = Some(to);
    board.left(from);
    board.joined(to);
}

/// The connection stays where it is, wherever it was to go.
pub fn stay(conn: &mut Connection, here: ShardId, board: &Board) {
    if let Some(to) = conn.moving.take() {
        board.left(to);
        board.joined(here);
    }
}

impl Server {
    /// Takes note of whom a connection's requests went to, and begins to move it if it should live there.
    pub(super) fn consider_move(&mut self, at: usize, on: &mut On<'_>) {
        let window = self.config.handover_requests;
        let conn = &mut self.connections[at];
        for owner in on.router.take_asked() {
            if window == 0 || conn.moving.is_some() || conn.ended || conn.failed || conn.phase != Phase::Open
            {
                continue;
            }
            let Some(to) = conn.affinity.count(owner, window) else { continue };
            let rested = conn
                .affinity
                .moved_at
                .is_none_or(|at| on.cx.now.since_ms(at) >= self.config.handover_interval_ms);
            if to != self.config.shard && rested && !self.stopping {
                begin_move(conn, self.config.shard, to, &on.meta.board);
            }
        }
    }

    /// Goes on with a move as far as the connection is quiet.
    pub(super) fn step_move(&mut self, at: usize) {
        let Some(conn) = self.connections.get_mut(at) else { return };
        let quiet = conn.owes_nothing() && conn.phase == Phase::Open;
        if conn.moving.is_none() || !quiet {
            return;
        }
        let token = |kind| Token::new(kind, conn.generation, at as u32);
        if conn.receiving {
            if !conn.cancelling {
                conn.cancelling = true;
                let op = (Op::CancelRecv { conn: conn.id }, token(super::TOKEN_CANCEL));
                self.ops.push(op);
            }
            return;
        }
        let op = (Op::DetachConn { conn: conn.id }, token(TOKEN_DETACH));
        conn.phase = Phase::Moving;
        self.ops.push(op);
    }

    /// What arrives until a connection may go is kept, within the bounds of every inbox that waits.
    pub(super) fn wait_to_move(&mut self, at: usize) {
        let conn = &mut self.connections[at];
        if !self.budget.keep_inbox(conn) {
            return self.close_for_memory(at);
        }
        if !self.budget.may_listen(conn) {
            self.cancel_recv(at);
        }
        self.step_move(at);
    }

    /// The seam has let go of a connection: it leaves for its new shard.
    pub(super) fn detached(&mut self, at: usize, done: Done, on: &mut On<'_>) {
        let mut conn = self.connections.remove(at);
        self.budget.forget(at, &mut conn);
        self.closed_total += 1;
        let (Payload::Detached(socket), Some(to)) = (done.payload, conn.moving) else {
            on.meta.board.left(conn.moving.unwrap_or(self.config.shard));
            return self.quota.give(conn.peer.ip());
        };
        self.handed_over_total += 1;
        conn.own_inbox();
        let inbox = conn.inbox.drain(..).map(|chunk| chunk.buf[chunk.at..].to_vec()).collect();
        let Connection { peer, splitter, last_heard, frame_since, .. } = conn;
        let state = MovedState { peer, splitter, inbox, last_heard, frame_since };
        on.router.hand_over(to, Handover { socket, state });
    }

    /// A connection of another shard comes to live here.
    pub fn adopt_moved(&mut self, id: ConnId, moved: MovedState, on: &mut On<'_>) {
        let MovedState { peer, splitter, inbox, last_heard, frame_since } = moved;
        let at = self.insert(|generation| Connection::new(id, peer, generation, splitter, on.cx.now));
        let conn = &mut self.connections[at];
        (conn.last_heard, conn.frame_since) = (last_heard, frame_since);
        conn.affinity = Affinity::moved(on.cx.now);
        let received = on.cx.now;
        conn.inbox.extend(inbox.into_iter().map(|bytes| Chunk {
            buf: RecvBuf::owned(bytes),
            at: 0,
            received,
        }));
        self.budget.adopt(at, conn);
        // All shards have one quota, and what moves was counted by it.
        conn.counted = true;
        self.adopted_total += 1;
        if self.is_full() || self.stopping {
            return self.close(at);
        }
        self.arm(at);
        self.work_inbox(at, on);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(owners: impl Iterator<Item = Option<u16>>) -> Vec<Option<u16>> {
        let mut affinity = Affinity::default();
        owners.filter_map(|owner| affinity.count(owner.map(ShardId), 10).map(|to| Some(to.0))).collect()
    }

    #[test]
    fn a_window_to_one_shard_moves_the_connection() {
        assert_eq!(verdicts((0..10).map(|_| Some(3))), [Some(3)]);
        assert_eq!(verdicts((0..20).map(|i| Some(if i == 4 { 1 } else { 3 }))), [Some(3), Some(3)]);
    }

    #[test]
    fn mixed_windows_do_not() {
        assert_eq!(verdicts((0..40).map(|i| Some(i % 2))), []);
        assert_eq!(verdicts((0..40).map(|i| if i % 5 == 0 { None } else { Some(2) })), []);
        assert_eq!(verdicts((0..9).map(|_| Some(3))), [], "the window is not full yet");
    }
}
