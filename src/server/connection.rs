//! One connection: its bytes in, its responses out, in order.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::pending::Pending;
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
}

/// A request's place in the queue of responses.
pub enum Slot {
    Waiting(Pending),
    /// To be sent as soon as it is at the head.
    Ready(Vec<SendPart>, Stamps),
    /// acks=0: answered by nothing.
    Silent,
}

impl Slot {
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
    pub phase: Phase,
    pub receiving: bool,
    pub cancelling: bool,
    pub stalled: bool,
    pub sending: bool,
    /// The peer sends no more.
    pub ended: bool,
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
            phase: Phase::Open,
            receiving: false,
            cancelling: false,
            stalled: false,
            sending: false,
            ended: false,
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

    pub fn push(&mut self, slot: Slot) {
        self.queue.push_back(slot);
    }

    /// Replaces a waiting place by its answer.
    pub fn put(&mut self, sequence: u64, slot: Slot) {
        if let Some(place) = sequence.checked_sub(self.head).and_then(|at| self.queue.get_mut(at as usize)) {
            *place = slot;
        }
    }

    /// Encodes a shard's reply into its place. None if nobody waits there.
    pub fn answer(&mut self, reply: Reply) -> Option<Answered> {
        let at = reply.ticket.sequence.checked_sub(self.head)? as usize;
        let place = self.queue.get_mut(at)?;
        let Slot::Waiting(pending) = std::mem::replace(place, Slot::Silent) else { return None };
        let encoded = pending.answer(reply.body);
        if let Some(parts) = encoded.parts {
            *place = Slot::Ready(parts, encoded.stamps);
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
                    chain.push(part);
                }
            }
        }
        chain
    }
}
