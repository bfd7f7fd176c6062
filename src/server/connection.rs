//! One connection: its bytes in, its responses out, in order.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::handover::Affinity;
use super::pending::Pending;
use crate::base::ids::ShardId;
use crate::base::limits::SEND_PARTS_MAX;
use crate::base::metrics::Stamps;
use crate::io::buffer::RecvBuf;
use crate::io::{ConnId, Mono, SendChain, SendPart};
use crate::router::message::Reply;
use crate::wire::frame::FrameSplitter;

/// Bytes that arrived, and how many of them are parsed.
pub struct Chunk {
    pub buf: RecvBuf,
    pub at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Open,
    /// `CloseConn` is pushed; nothing is read or answered any more.
    Closing,
    /// `DetachConn` is pushed: it leaves for another shard.
    Moving,
}

/// What one partition of a waiting request takes, in the server and in its shard together.
const WAITING_PART_BYTES: u64 = 256;

/// A request's place in the queue of responses.
pub enum Slot {
    Waiting(Pending),
    /// To be sent as soon as it is at the head.
    Ready(Vec<SendPart>, Stamps),
    /// acks=0: answered by nothing.
    Silent,
}

impl Slot {
    /// Memory that it stands for.
    fn bytes_held(&self) -> u64 {
        match self {
            Slot::Waiting(pending) => pending.parts() as u64 * WAITING_PART_BYTES,
            Slot::Ready(parts, _) => parts.iter().map(|part| part.as_slice().len() as u64).sum(),
            Slot::Silent => 0,
        }
    }

    fn is_fetch(&self) -> bool {
        matches!(self, Slot::Waiting(Pending::Fetch(_)))
    }

    pub fn bytes(bytes: Vec<u8>) -> Slot {
        Slot::Ready(vec![SendPart::Bytes(bytes)], Stamps::default())
    }
}

/// What came of an answer.
pub struct Answered {
    pub close: bool,
    pub copied_bytes: u64,
}

pub struct Connection {
    pub id: ConnId,
    pub peer: SocketAddr,
    pub generation: u32,
    pub splitter: FrameSplitter,
    pub inbox: VecDeque<Chunk>,
    /// Responses owed, oldest first; the request with sequence `head` is at the front.
    queue: VecDeque<Slot>,
    head: u64,
    /// Bytes that the queue and the send in flight stand for.
    queue_bytes: u64,
    sending_bytes: u64,
    /// Fetches in the queue that wait.
    fetches: usize,
    /// What the server's budget counts for this connection, and for its inbox.
    pub charged: u64,
    pub inbox_charged: u64,
    pub phase: Phase,
    pub receiving: bool,
    pub cancelling: bool,
    pub stalled: bool,
    pub sending: bool,
    /// The peer sends no more.
    pub ended: bool,
    pub affinity: Affinity,
    /// Where it shall live: nothing more is parsed, and it goes when it is quiet.
    pub moving: Option<ShardId>,
    pub last_heard: Mono,
    pub send_since: Mono,
    /// When the unfinished frame began, and its first byte's time for the stamps.
    pub frame_since: Option<Mono>,
}

impl Connection {
    pub fn new(
        id: ConnId,
        peer: SocketAddr,
        generation: u32,
        splitter: FrameSplitter,
        now: Mono,
    ) -> Connection {
        Connection {
            id,
            peer,
            generation,
            splitter,
            inbox: VecDeque::new(),
            queue: VecDeque::new(),
            head: 0,
            queue_bytes: 0,
            sending_bytes: 0,
            fetches: 0,
            charged: 0,
            inbox_charged: 0,
            phase: Phase::Open,
            receiving: false,
            cancelling: false,
            stalled: false,
            sending: false,
            ended: false,
            affinity: Affinity::default(),
            moving: None,
            last_heard: now,
            send_since: now,
            frame_since: None,
        }
    }

    /// Requests that are not answered yet, sends in flight not counted.
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    pub fn owes_nothing(&self) -> bool {
        self.queue.is_empty() && !self.sending
    }

    /// The sequence that the next request gets.
    pub fn next_sequence(&self) -> u64 {
        self.head + self.queue.len() as u64
    }

    /// Bytes of requests that wait and of answers that the peer has not taken.
    pub fn owed_bytes(&self) -> u64 {
        self.queue_bytes + self.sending_bytes
    }

    /// A fetch waits: as in Kafka, what follows it on this connection waits too.
    pub fn is_fetching(&self) -> bool {
        self.fetches > 0
    }

    /// The peer took all of the last send.
    pub fn all_sent(&mut self) {
        self.sending_bytes = 0;
    }

    pub fn push(&mut self, slot: Slot) {
        self.queue_bytes += slot.bytes_held();
        self.fetches += usize::from(slot.is_fetch());
        self.queue.push_back(slot);
    }

    /// Bytes of the inbox that lie in receive buffers.
    pub fn pooled_bytes(&self) -> u64 {
        let pooled = self.inbox.iter().filter(|chunk| chunk.buf.is_pooled());
        pooled.map(|chunk| (chunk.buf.len() - chunk.at) as u64).sum()
    }

    /// Copies the inbox out of the receive buffers.
    pub fn own_inbox(&mut self) {
        for chunk in self.inbox.iter_mut().filter(|chunk| chunk.buf.is_pooled()) {
            *chunk = Chunk { buf: RecvBuf::owned(chunk.buf[chunk.at..].to_vec()), at: 0 };
        }
    }

    /// Replaces a waiting place by its answer.
    pub fn put(&mut self, sequence: u64, slot: Slot) {
        if let Some(at) = sequence.checked_sub(self.head)
            && (at as usize) < self.queue.len()
        {
            self.replace(at as usize, slot);
        }
    }

    fn replace(&mut self, at: usize, slot: Slot) -> Slot {
        self.queue_bytes += slot.bytes_held();
        self.fetches += usize::from(slot.is_fetch());
        let old = std::mem::replace(&mut self.queue[at], slot);
        self.queue_bytes -= old.bytes_held();
        self.fetches -= usize::from(old.is_fetch());
        old
    }

    /// Encodes a shard's reply into its place. None if nobody waits there.
    pub fn answer(&mut self, reply: Reply) -> Option<Answered> {
        let at = reply.ticket.sequence.checked_sub(self.head)? as usize;
        if !matches!(self.queue.get(at)?, Slot::Waiting(_)) {
            return None;
        }
        let Slot::Waiting(pending) = self.replace(at, Slot::Silent) else { return None };
        let encoded = pending.answer(reply.body);
        if let Some(parts) = encoded.parts {
            self.replace(at, Slot::Ready(parts, encoded.stamps));
        }
        Some(Answered { close: encoded.close, copied_bytes: encoded.copied_bytes })
    }

    /// Everything at the head that is ready, in order, up to one send's worth of parts.
    pub fn take_owed(&mut self) -> SendChain {
        let mut chain = SendChain::default();
        let mut parts = 0;
        while parts < SEND_PARTS_MAX {
            match self.queue.front() {
                Some(Slot::Ready(..) | Slot::Silent) => {}
                _ => break,
            }
            self.head += 1;
            if let Some(Slot::Ready(ready, _)) = self.queue.pop_front() {
                parts += ready.len();
                for part in ready {
                    let bytes = part.as_slice().len() as u64;
                    self.queue_bytes -= bytes;
                    self.sending_bytes += bytes;
                    chain.push(part);
                }
            }
        }
        chain
    }
}
