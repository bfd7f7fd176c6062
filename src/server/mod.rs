//! L9, Kafka's protocol on sockets: connections, frames, one handler per API. Lives on the shard's core.
//!
//! Plain synchronous code like the layers below: completions of sockets and replies of shards come in, operations go out. It does not
//! know logs or files: record bytes reach it as pinned slices, and leave in the same memory.
//!
//! A frame is parsed where it was received, its handler turns it into a [`Message`](crate::router::message::Message) or an answer,
//! and a place in the connection's queue keeps the order: responses leave in the order of their requests, whatever finishes first.
//! All that a connection is owed leaves in one send.
//!
//! # Non-obvious
//! - One `Recv` stays armed, while there is memory. When a connection must wait for some, the `Recv` is cancelled and what had arrived
//!   stays in its inbox, unparsed: the peer's own socket buffer is the queue. While it waits for its own answers the `Recv` stays armed for
//!   a while, so that a peer that hangs up is noticed: its long poll is answered at once.
//! - acks=0 has no response and still a place in the queue: its errors close the connection, as in Kafka. So does a request that cannot
//!   be followed; both once all before them is answered, because Kafka looks at one request at a time.
//! - A connection's slot is reused only after `CloseConn` completed; its generation then differs, so a late reply finds nobody.

mod accept;
mod budget;
mod buffers;
pub mod connection;
pub mod dispatch;
pub mod handlers;
mod handover;
mod listen;
pub mod metadata;
mod pending;
pub mod quota;
mod starved;
mod timeouts;

#[cfg(test)]
mod tests;

use slab::Slab;

use crate::base::ids::ShardId;
use crate::base::limits::CONNECTIONS_PER_SHARD_MAX;
use crate::base::metrics::{Path, Stages};
use crate::io::{Done, Errno, Mono, Op, Payload, Token};
use crate::router::letter::ControlFrame;
use crate::router::mesh::Router;
use crate::router::message::{Message, Reply, ReplyBody, Ticket};
use crate::shard::{Cx, Shard};

use accept::Listener;
use budget::Budget;
use connection::{Chunk, Connection, Phase};
use handlers::{Metadata, Scratch};
use pending::RecordBytes;
use quota::ConnectionQuota;
use starved::Starved;

/// Token kinds of the server's operations. Slot and generation are the connection's; for `ACCEPT` the slot is the listener.
pub const TOKEN_ACCEPT: u8 = 16;
pub const TOKEN_RECV: u8 = 17;
pub const TOKEN_SEND: u8 = 18;
pub const TOKEN_CANCEL: u8 = 19;
pub const TOKEN_CLOSE: u8 = 20;
pub const TOKEN_DETACH: u8 = 21;

/// What the server obeys, from the broker's configuration.
#[derive(Clone, Copy, Debug)]
pub struct ServerConfig {
    pub shard: ShardId,
    pub request_bytes_max: usize,
    pub fetch_bytes_max: i32,
    pub idle_ms_max: u64,
    /// What all connections may hold together: half frames, waiting requests, answers not taken.
    pub held_bytes_max: u64,
    /// What those that wait may have sent, copied out of the receive buffers.
    pub inbox_bytes_max: u64,
    /// A connection moves to another shard when this many requests in a row went there, nearly all of them; 0: never.
    pub handover_requests: u32,
    pub handover_interval_ms: u64,
}

/// What the server works on: its shard, the ways to the others, the metadata, and memory and time.
pub struct On<'a> {
    pub shard: &'a mut Shard,
    pub router: &'a mut Router,
    pub meta: &'a mut Metadata,
    pub cx: Cx<'a>,
}

/// How long a peer may take with what it began.
pub const FRAME_HEADER_MS_MAX: u64 = 10_000;
pub const FRAME_BYTES_PER_SECOND_MIN: u64 = 1024;
pub const SEND_STALL_MS_MAX: u64 = 60_000;

/// The same while connections hold all that they may.
pub const SHORT_STALL_MS_MAX: u64 = 5_000;
pub const SHORT_BYTES_PER_SECOND_MIN: u64 = 256 * 1024;

pub struct Server {
    config: ServerConfig,
    connections: Slab<Connection>,
    budget: Budget,
    generation: u32,
    quota: ConnectionQuota,
    listeners: Vec<Listener>,
    /// Connections that have something to send, or whose inbox should be looked at again.
    ready: Vec<usize>,
    stalled: Vec<usize>,
    /// Some of them wait for memory of the shard.
    wants_memory: bool,
    /// Connections closed for want of memory that the log has not told of.
    closed_for_memory: u64,
    starved: Starved,
    /// When connections that wait for the budget are looked at, whatever happens.
    look_again: Option<Mono>,
    /// While memory is tight: the connections below this slot hear no more than they are asked to.
    tightened: Option<usize>,
    ops: Vec<(Op, Token)>,
    scratch: Scratch,
    /// By path.
    stages: [Stages; 3],
    next_sweep: Mono,
    /// When connections that wait are looked for.
    next_look: Mono,
    stopping: bool,
    pub received_bytes_total: u64,
    pub sent_bytes_total: u64,
    pub fetched: RecordBytes,
    pub accepted_total: u64,
    pub closed_total: u64,
    pub handed_over_total: u64,
    pub adopted_total: u64,
}

impl Server {
    /// The quota is that of all shards.
    pub fn new(config: ServerConfig, quota: ConnectionQuota) -> Server {
        Server {
            budget: Budget::new(config.held_bytes_max, config.inbox_bytes_max, quota.large_frame.clone()),
            config,
            connections: Slab::new(),
            generation: 0,
            quota,
            listeners: Vec::new(),
            ready: Vec::new(),
            stalled: Vec::new(),
            wants_memory: false,
            closed_for_memory: 0,
            starved: Starved::default(),
            look_again: None,
            tightened: None,
            ops: Vec::new(),
            scratch: Scratch::default(),
            stages: [Stages::default(); 3],
            next_sweep: Mono(0),
            next_look: Mono(0),
            stopping: false,
            received_bytes_total: 0,
            sent_bytes_total: 0,
            fetched: RecordBytes::default(),
            accepted_total: 0,
            closed_total: 0,
            handed_over_total: 0,
            adopted_total: 0,
        }
    }

    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Where the time of the requests of this path went.
    pub fn stages(&self, path: Path) -> &Stages {
        &self.stages[path as usize]
    }

    pub fn take_ops(&mut self) -> std::vec::Drain<'_, (Op, Token)> {
        self.ops.drain(..)
    }

    /// Takes a completion whose token kind is the server's.
    pub fn done(&mut self, done: Done, on: &mut On<'_>) {
        let token = done.token;
        match token.kind() {
            TOKEN_ACCEPT => self.accepted(done, on),
            TOKEN_CANCEL => {}
            TOKEN_CLOSE => self.closed(token, on),
            kind => {
                let at = token.slot() as usize;
                let alive = self.connections.get(at).is_some_and(|c| c.generation == token.generation());
                if !alive {
                    return;
                }
                match kind {
                    TOKEN_RECV => self.received(at, done, on),
                    TOKEN_SEND => self.sent(at, done, on.cx.now),
                    TOKEN_DETACH => self.detached(at, done, on),
                    _ => debug_assert!(false, "token kind {kind} is not the server's"),
                }
            }
        }
    }

    /// Takes the answers that the shard has by now: those to our own connections into their places, the others onto their way.
    pub fn collect(&mut self, on: &mut On<'_>) {
        let (shard, router) = (&mut *on.shard, &mut *on.router);
        shard.take_polls().for_each(|poll| router.wait_for_news(poll));
        let mut replies = shard.take_replies();
        if replies.len() == 0 {
            return;
        }
        let now = on.cx.clock.now();
        for reply in &mut replies {
            if let Some(reply) = router.settle(reply) {
                self.reply(reply, now);
            }
        }
    }

    /// An answer of a shard to one of our connections.
    pub fn reply(&mut self, reply: Reply, now: Mono) {
        let reply = match reply.body {
            ReplyBody::Frame(Some(bytes)) => return self.reply_bytes(reply.ticket, bytes, now),
            body => Reply { body, ..reply },
        };
        let at = reply.ticket.conn as usize;
        let Some(conn) = self.connections.get_mut(at) else { return };
        if conn.generation != reply.ticket.generation || conn.phase != Phase::Open {
            return;
        }
        let short = self.budget.is_short();
        let Some(records) = conn.answer(reply, short, now, &mut self.scratch.buffers) else { return };
        conn.stamp_ready(now);
        self.budget.settle(at, conn);
        self.fetched.sent += records.sent;
        self.fetched.copied += records.copied;
        self.ready.push(at);
    }

    /// A frame that a connection of another shard received, for the controller, which lives here.
    pub fn control_frame(&mut self, control: ControlFrame, on: &mut On<'_>) {
        if let Some(reply) =
            dispatch::control_frame(control.ticket, &control.frame, &self.config, &mut self.scratch, on)
            && let Some(own) = on.router.settle(reply)
        {
            self.reply(own, on.cx.clock.now());
        }
    }

    /// An answer to a request that waited for metadata.
    pub fn reply_bytes(&mut self, ticket: Ticket, bytes: Vec<u8>, now: Mono) {
        let at = ticket.conn as usize;
        let Some(conn) = self.connections.get_mut(at) else { return };
        if conn.generation == ticket.generation && conn.phase == Phase::Open {
            conn.put(ticket.sequence, bytes);
            conn.stamp_ready(now);
            self.budget.settle(at, conn);
            self.ready.push(at);
        }
    }

    /// Once per turn, behind all replies: inboxes that may go on, sends, timeouts.
    pub fn turn(&mut self, on: &mut On<'_>) {
        self.wants_memory = false;
        self.look_again = None;
        for at in std::mem::take(&mut self.stalled) {
            if self.connections.get(at).is_some_and(|c| c.stalled) {
                self.connections[at].stalled = false;
                self.work_inbox(at, on);
            }
        }
        self.receive_again(on.cx.now);
        self.tighten();
        self.flush_sends(&on.cx);
        self.accept_again(on.cx.now);
        if on.cx.now >= self.next_sweep {
            self.next_sweep = on.cx.now.plus_ms(1_000);
            self.sweep(on.cx.now);
        }
    }

    /// One send per connection with all it is owed, then its inbox, which may have waited for that.
    fn flush_sends(&mut self, cx: &Cx<'_>) {
        if self.ready.is_empty() {
            return;
        }
        // They enter the kernel together, at the end of this turn.
        let now = cx.clock.now();
        let mut ready = std::mem::take(&mut self.ready);
        for at in ready.drain(..) {
            self.send_owed(at, now);
        }
        self.ready = ready;
    }

    /// True if the next turn has something to do without any completion.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Requests wait in their connections until the shard has memory for them.
    pub fn is_starved(&self) -> bool {
        self.wants_memory
    }

    pub fn next_deadline(&self) -> Option<Mono> {
        let sweep = (!self.connections.is_empty()).then_some(self.next_sweep);
        [sweep, self.next_accept(), self.starved.until, self.look_again].into_iter().flatten().min()
    }

    /// Accepts no more and closes each connection as soon as it is owed nothing.
    pub fn begin_stop(&mut self) {
        self.stopping = true;
        let idle: Vec<usize> =
            self.connections.iter().filter(|(_, c)| c.owes_nothing()).map(|(at, _)| at).collect();
        for at in idle {
            self.close(at);
        }
    }

    /// Closes what is left, answered or not.
    pub fn close_all(&mut self) {
        let all: Vec<usize> = self.connections.iter().map(|(at, _)| at).collect();
        for at in all {
            self.close(at);
        }
    }

    /// Gives a connection a slot of a new generation.
    fn insert(&mut self, make: impl FnOnce(u32) -> Connection) -> usize {
        self.generation = (self.generation + 1) & 0xff_ffff;
        self.connections.insert(make(self.generation))
    }

    /// One connection more than may be.
    fn is_full(&self) -> bool {
        self.connections.len() > CONNECTIONS_PER_SHARD_MAX
    }

    fn received(&mut self, at: usize, done: Done, on: &mut On<'_>) {
        let conn = &mut self.connections[at];
        if !done.more {
            conn.receiving = false;
            conn.cancelling = false;
        }
        // The seam lets go of what closes with the end of its `Recv`, which may be in this very batch.
        if conn.phase != Phase::Open {
            return;
        }
        match (done.result, done.payload) {
            (Ok(_), Payload::Received(buf)) => {
                conn.last_heard = on.cx.now;
                self.received_bytes_total += buf.len() as u64;
                conn.inbox.push_back(Chunk { buf, at: 0, received: on.cx.now });
            }
            (Ok(_), _) => conn.ended = true,
            (Err(Errno::NOBUFS), _) => self.starve(at),
            (Err(Errno::CANCELED | Errno::AGAIN), _) => {}
            (Err(_), _) => conn.ended = true,
        }
        let conn = &mut self.connections[at];
        if !conn.stalled {
            return self.work_inbox(at, on);
        }
        if !self.keep_inbox(at) {
            return;
        }
        let conn = &self.connections[at];
        let may_listen = self.budget.may_listen(conn);
        if conn.ended {
            self.hurry(at, on);
        } else if !may_listen {
            self.cancel_recv(at);
        } else if !conn.receiving && !conn.starved && conn.waits_for_order() {
            self.arm(at);
        }
    }

    /// Parses and dispatches what has arrived, as far as the connection's bounds and the shard's memory allow.
    fn work_inbox(&mut self, at: usize, on: &mut On<'_>) {
        loop {
            let conn = &mut self.connections[at];
            if conn.phase != Phase::Open {
                return;
            }
            if conn.failed {
                // Still taken, so that a peer that goes is noticed, and answers are not lost to the reset that unread bytes cause.
                conn.inbox.clear();
            }
            if conn.ended {
                // There is but the rest of its inbox to do.
                handover::stay(conn, self.config.shard, &on.meta.board);
            }
            if conn.moving.is_some() {
                return self.wait_to_move(at);
            }
            let Some(arrived) = conn.inbox.front().map(|chunk| chunk.buf.len() - chunk.at) else { break };
            let held_back = on.router.holds_back(at as u32);
            if held_back || conn.is_muted(on.cx.now) || !self.budget.admits(at, conn) {
                self.wait_in_turn(at, held_back, on);
                self.keep_inbox(at);
                return;
            }
            let wanted = conn.splitter.claimed_bytes().unwrap_or(0).max(arrived);
            if !on.shard.room_for(wanted, &mut on.cx) {
                // Copied as long as that may be: the receive buffers are everybody's.
                self.budget.keep_inbox(conn);
                self.wants_memory = true;
                self.stall(at, on.cx.now);
                return self.cancel_recv(at);
            }
            let fetch_bytes_max = self.config.fetch_bytes_max.min(self.budget.answer_bytes_max());
            let config = ServerConfig { fetch_bytes_max, ..self.config };
            let owed_bytes_max = self.budget.owed_bytes_max(conn);
            if dispatch::one_chunk(conn, at, owed_bytes_max, &config, &mut self.scratch, on).is_err() {
                conn.fail();
            }
            conn.stamp_ready(on.cx.clock.now());
            self.budget.settle(at, conn);
            self.consider_move(at, on);
            self.collect(on);
            self.ready.push(at);
        }
        let conn = &mut self.connections[at];
        self.budget.inbox_done(conn);
        if conn.ended {
            // Half-closed peers still get what they are owed, as long as they take it; but nobody who is gone waits for news.
            if conn.owes_nothing() {
                return self.close(at);
            }
            self.hurry(at, on);
        } else if conn.receiving {
            conn.end_wait(on.cx.now);
        } else if !conn.starved {
            self.listen(at, on.cx.now);
        }
    }

    /// The peer sends no more: nobody waits for news on its behalf.
    fn hurry(&mut self, at: usize, on: &mut On<'_>) {
        let conn = &mut self.connections[at];
        // Once for each request: a fetch whose reads are in flight ends with them.
        let through = conn.next_sequence();
        if std::mem::replace(&mut conn.hurried, through) == through {
            return;
        }
        let generation = conn.generation;
        on.router.hurry(at as u32, generation);
        let hurry = Message::Hurry { shard: self.config.shard, conn: at as u32, generation };
        on.shard.handle(hurry, &mut on.cx);
        self.collect(on);
    }

    /// The inbox waits, and is looked at again in the next turns.
    fn stall(&mut self, at: usize, now: Mono) {
        let conn = &mut self.connections[at];
        conn.stalled = true;
        conn.waits_since.get_or_insert(now);
        self.stalled.push(at);
    }

    fn send_owed(&mut self, at: usize, now: Mono) {
        let stopping = self.stopping;
        let Some(conn) = self.connections.get_mut(at) else { return };
        if conn.phase != Phase::Open || conn.sending {
            return;
        }
        let chain = conn.take_owed(now, &mut self.scratch.buffers);
        if chain.is_done() {
            // What it sent before it ended, and what is not parsed yet, is answered first.
            let over = stopping || conn.ended && conn.inbox.is_empty();
            if over && conn.owes_nothing() || conn.is_over() {
                self.close(at);
            }
            return self.step_move(at);
        }
        conn.sending = true;
        conn.send_since = now;
        self.ops
            .push((Op::Send { conn: conn.id, chain }, Token::new(TOKEN_SEND, conn.generation, at as u32)));
    }

    fn sent(&mut self, at: usize, done: Done, now: Mono) {
        let conn = &mut self.connections[at];
        conn.sending = false;
        // What a shutdown cut short is not sent again: by the next turn the seam may have given the connection up.
        if conn.phase != Phase::Open {
            return;
        }
        let (Ok(bytes), Payload::Sent(mut chain)) = (done.result, done.payload) else {
            return self.close(at);
        };
        self.sent_bytes_total += u64::from(bytes);
        if (bytes as usize) < chain.remaining() {
            chain.advance(bytes as usize);
            conn.sending = true;
            if bytes > 0 {
                conn.send_since = now;
            }
            let token = Token::new(TOKEN_SEND, conn.generation, at as u32);
            self.ops.push((Op::Send { conn: conn.id, chain }, token));
            return;
        }
        conn.all_sent(chain, now, &mut self.scratch, &mut self.stages);
        self.budget.settle(at, conn);
        self.ready.push(at);
    }

    /// Begins to close; the slot is free when the seam says that nothing of it is in flight.
    fn close(&mut self, at: usize) {
        let conn = &mut self.connections[at];
        // The seam has let go of what moves, or is about to: it is closed where it arrives.
        if conn.phase != Phase::Open {
            return;
        }
        conn.phase = Phase::Closing;
        conn.inbox.clear();
        self.ops.push((Op::CloseConn { conn: conn.id }, Token::new(TOKEN_CLOSE, conn.generation, at as u32)));
    }

    /// What it sent and cannot be worked on yet is more than all together may leave waiting.
    fn close_for_memory(&mut self, at: usize) {
        self.closed_for_memory += 1;
        self.close(at);
    }

    fn closed(&mut self, token: Token, on: &mut On<'_>) {
        let at = token.slot() as usize;
        if self.connections.get(at).is_none_or(|c| c.generation != token.generation()) {
            return;
        }
        let mut conn = self.connections.remove(at);
        self.budget.forget(at, &mut conn);
        on.meta.board.left(conn.moving.unwrap_or(self.config.shard));
        if conn.counted {
            self.quota.give(conn.peer.ip());
        }
        self.closed_total += 1;
        if !conn.owes_nothing() {
            let forget =
                Message::Forget { shard: self.config.shard, conn: at as u32, generation: conn.generation };
            on.router.forget(at as u32, conn.generation);
            on.shard.handle(forget, &mut on.cx);
        }
    }
}
