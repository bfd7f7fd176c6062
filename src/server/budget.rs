//! What connections hold of the machine's memory besides the shard's pool: half frames, requests that wait, answers that were not
//! taken yet. All together have one limit; who holds something waits while it is reached, unparsed in its own socket. A connection that
//! holds nothing is always served, so that the patient ones are those that made the memory short.
//!
//! Half frames of more than one chunk are the exception to "always served": one of them may go on over the limit, of all shards
//! together, and the others wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::connection::Connection;
use crate::base::limits::RECV_BUF_BYTES;
use crate::wire::frame::LENGTH_BYTES;

/// Share of the limit that one connection may hold and still be parsed.
const PER_CONNECTION_SHARE: u64 = 4;

/// Share of the limit that record bytes of one answer may take.
const ANSWER_SHARE: u64 = 2;

/// What a waiting inbox may hold while more is received: beyond it a peer that hangs up is noticed only when its turn comes.
const LISTENING_BYTES_MAX: usize = RECV_BUF_BYTES;

/// What is received of a connection at once where it is between frames and memory is tight.
const FIRST_PIECE_BYTES: usize = 4096;

/// The connection is within a frame of more than one piece.
fn is_large(conn: &Connection) -> bool {
    conn.splitter.claimed_bytes().is_some_and(|claimed| claimed > RECV_BUF_BYTES)
}

/// The right to grow one half frame over the limit. All shards have one.
#[derive(Clone, Debug, Default)]
pub struct LargeFrame(Arc<AtomicBool>);

impl LargeFrame {
    fn take(&self) -> bool {
        !self.0.swap(true, Ordering::Relaxed)
    }

    fn give(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub struct Budget {
    limit: u64,
    held: u64,
    /// Copied bytes of inboxes that wait: those of the receive buffers are needed by everybody.
    inboxes: u64,
    inboxes_max: u64,
    /// Whose half frame may grow though the limit is reached, while this shard has the right.
    large: Option<usize>,
    large_frame: LargeFrame,
}

impl Budget {
    pub fn new(limit: u64, inboxes_max: u64, large_frame: LargeFrame) -> Budget {
        Budget { limit, held: 0, inboxes: 0, inboxes_max, large: None, large_frame }
    }

    pub fn is_short(&self) -> bool {
        self.held >= self.limit
    }

    /// It may soon be short: what arrives is bounded before it is received.
    pub fn is_tight(&self) -> bool {
        self.held + self.inboxes > self.limit / 2
    }

    /// How much is received next from a connection, while memory is tight: the rest of its frame, or enough to tell what frame comes.
    pub fn piece_bytes_max(conn: &Connection) -> u32 {
        let left =
            conn.splitter.claimed_bytes().map(|claimed| LENGTH_BYTES + claimed - conn.splitter.held_bytes());
        left.map_or(FIRST_PIECE_BYTES, |left| left.clamp(1, RECV_BUF_BYTES)) as u32
    }

    /// Whether the connection's next bytes are parsed now.
    pub fn admits(&mut self, at: usize, conn: &Connection) -> bool {
        if conn.waits_for_order() {
            return false;
        }
        if is_large(conn) {
            // Its own half frame is what it holds: waiting for that would be waiting for itself.
            return !self.is_short() || self.may_exceed(at);
        }
        conn.owed_bytes() <= self.owed_bytes_max(conn)
    }

    /// Whether more is received from the connection: not the rest of a large frame that cannot be taken up now.
    pub fn hears(&mut self, at: usize, conn: &Connection) -> bool {
        conn.failed || !is_large(conn) || self.admits(at, conn)
    }

    /// What the connection may owe and still be parsed: its share, of what is left.
    pub fn owed_bytes_max(&self, conn: &Connection) -> u64 {
        let left = self.limit.saturating_sub(self.held);
        if left == 0 { 0 } else { (self.limit / PER_CONNECTION_SHARE).min(left + conn.charged) }
    }

    fn may_exceed(&mut self, at: usize) -> bool {
        if self.large.is_none() && self.large_frame.take() {
            self.large = Some(at);
        }
        self.large == Some(at)
    }

    /// Gives the right back once it is not needed: another shard may be short.
    fn end_large(&mut self, is_over: bool) {
        if self.large.is_some() && (is_over || !self.is_short()) {
            self.large = None;
            self.large_frame.give();
        }
    }

    /// Record bytes that an answer may have now; a fetch brings at least one batch all the same.
    pub fn answer_bytes_max(&self) -> i32 {
        let share = (self.limit / ANSWER_SHARE).min(self.limit.saturating_sub(self.held));
        i32::try_from(share).unwrap_or(i32::MAX).max(1)
    }

    /// Takes note of what a connection holds now.
    pub fn settle(&mut self, at: usize, conn: &mut Connection) {
        if self.held > self.limit / 2 {
            conn.splitter.release();
        }
        let holds = conn.owed_bytes() + conn.splitter.held_capacity() as u64;
        self.held = self.held - conn.charged + holds;
        conn.charged = holds;
        self.end_large(self.large == Some(at) && conn.splitter.claimed_bytes().is_none());
    }

    /// Copies what waits in an inbox out of the receive buffers. False: there is too much of that already.
    pub fn keep_inbox(&mut self, conn: &mut Connection) -> bool {
        let pooled = conn.pooled_bytes();
        if self.inboxes + pooled > self.inboxes_max {
            return pooled == 0;
        }
        conn.own_inbox();
        self.inboxes += pooled;
        conn.inbox_charged += pooled;
        true
    }

    /// Takes note of what a connection brings from the shard where it lived.
    pub fn adopt(&mut self, at: usize, conn: &mut Connection) {
        self.settle(at, conn);
        let bytes: u64 = conn.inbox.iter().map(|chunk| (chunk.buf.len() - chunk.at) as u64).sum();
        self.inboxes += bytes;
        conn.inbox_charged += bytes;
    }

    /// Whether the connection's inbox may grow while it waits.
    pub fn may_listen(&self, conn: &Connection) -> bool {
        let waiting: usize = conn.inbox.iter().map(|chunk| chunk.buf.len() - chunk.at).sum();
        waiting <= LISTENING_BYTES_MAX && self.inboxes <= self.inboxes_max / 2
    }

    /// An inbox was parsed to its end.
    pub fn inbox_done(&mut self, conn: &mut Connection) {
        self.inboxes -= std::mem::take(&mut conn.inbox_charged);
    }

    /// The connection is gone, with all that it held.
    pub fn forget(&mut self, at: usize, conn: &mut Connection) {
        self.held -= std::mem::take(&mut conn.charged);
        self.inbox_done(conn);
        self.end_large(self.large == Some(at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{ConnId, Mono};
    use crate::wire::frame::FrameSplitter;

    /// A connection of whose frame of a MiB, a Produce, so many bytes arrived.
    fn within_a_frame(bytes: usize) -> Connection {
        let mut splitter = FrameSplitter::requests(2 << 20);
        let mut arrived = (1_i32 << 20).to_be_bytes().to_vec();
        arrived.resize(LENGTH_BYTES + bytes, 0);
        assert!(splitter.next_frame(&mut &mut arrived[..]).expect("no error").is_none(), "it is not whole");
        Connection::new(ConnId(1), ([127, 0, 0, 1], 4000).into(), 1, splitter, Mono(1))
    }

    #[test]
    fn the_right_to_a_large_frame_is_another_shards_where_memory_is_there_again() {
        let right = LargeFrame::default();
        let [mut here, mut there] = [(); 2].map(|()| Budget::new(1 << 20, 1 << 20, right.clone()));
        let (mut large, mut other) = (within_a_frame(500_000), within_a_frame(500_000));
        let mut waiting = within_a_frame(1_000_000);
        here.settle(0, &mut large);
        here.settle(1, &mut other);
        assert!(here.is_short() && here.hears(0, &large) && !here.hears(1, &other));
        there.settle(0, &mut waiting);
        let mut more = within_a_frame(500_000);
        there.settle(1, &mut more);
        assert!(there.is_short() && !there.hears(0, &waiting), "one of all shards has it");
        here.forget(1, &mut other);
        assert!(!here.is_short() && there.hears(0, &waiting));
        // Its former holder waits like all others.
        here.settle(1, &mut within_a_frame(500_000));
        assert!(here.is_short() && !here.hears(0, &large));
        there.forget(0, &mut waiting);
        assert!(here.hears(0, &large));
    }
}
