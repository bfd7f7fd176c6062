//! One connection: its bytes in, its responses out, in order.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::buffers::Buffers;
use super::handlers::Scratch;
use super::handover::Affinity;
use super::pending::{Pending, RecordBytes};
use crate::base::few::Few;
use crate::base::ids::ShardId;
use crate::base::limits::{IN_FLIGHT_PER_CONNECTION_MAX, SEND_GATHER_BYTES, SEND_PARTS_MAX};
use crate::base::metrics::{Stages, Stamp, Stamps};
use crate::io::recv::RecvBuf;
use crate::io::{ConnId, Mono, SendChain, SendPart};
use crate::router::message::Reply;
use crate::wire::frame::FrameSplitter;

/// Bytes that arrived, how many of them are parsed, and in which turn they came.
pub struct Chunk {
    pub buf: RecvBuf,
    pub at: usize,
    pub received: Mono,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Open,
    /// `CloseConn` is pushed; nothing is read or answered any more.
    Closing,
    /// `DetachConn` is pushed: it leaves for another shard.
    Moving,
}

/// A request's place in the queue of responses.
pub enum Slot {
    Waiting(Pending, Stamps),
    /// To be sent as soon as it is at the head.
    Ready(Few<SendPart>, Stamps),
    /// acks=0: answered by nothing.
    Silent,
    /// The request's error closes the connection once all before it is answered.
    Close,
}

impl Slot {
    /// Memory that it stands for.
    fn bytes_held(&self) -> u64 {
        match self {
            Slot::Waiting(pending, _) => pending.bytes_held(),
            Slot::Ready(parts, _) => parts.iter().map(|part| part.as_slice().len() as u64).sum(),
            Slot::Silent | Slot::Close => 0,
        }
    }

    pub fn bytes(bytes: Vec<u8>, stamps: Stamps) -> Slot {
        Slot::Ready(Few::from_iter([SendPart::Bytes(bytes)]), stamps)
    }

    fn is_fetch(&self) -> bool {
        matches!(self, Slot::Waiting(Pending::Fetch(_), _))
    }
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
    /// The chain of the last send, for the next one.
    chain: SendChain,
    /// Stamps of the requests whose answers the send in flight holds.
    in_send: Vec<Stamps>,
    /// Slots at the head of the queue that are ready, and stamped so.
    ready: usize,
    /// Fetches in the queue that wait.
    fetches: usize,
    /// What the server's budget counts for this connection, and for its inbox.
    pub charged: u64,
    pub inbox_charged: u64,
    /// It is counted by the quota.
    pub counted: bool,
    pub phase: Phase,
    pub receiving: bool,
    /// The `Recv` in flight brings whatever comes, not one piece that is bounded.
    pub hears_all: bool,
    pub cancelling: bool,
    pub stalled: bool,
    /// It found no receive buffer, and listens again when there may be one.
    pub starved: bool,
    pub sending: bool,
    /// The peer sends no more.
    pub ended: bool,
    /// The requests below this sequence were told so.
    pub hurried: u64,
    /// A request's error closes it, behind what it is owed before that: nothing more is parsed.
    pub failed: bool,
    pub affinity: Affinity,
    /// Where it shall live: nothing more is parsed, and it goes when it is quiet.
    pub moving: Option<ShardId>,
    pub last_heard: Mono,
    pub send_since: Mono,
    /// When the unfinished frame began, and its first byte's time for the stamps.
    pub frame_since: Option<Mono>,
    /// Since when the rest of the unfinished frame is not received, or what was received is not looked at.
    pub waits_since: Option<Mono>,
    /// Until when it was asked to wait with its next request.
    pub muted_until: Option<Mono>,
    /// From when on the peer's pace is judged, where the frame began earlier.
    pace_from: Mono,
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
            chain: SendChain::default(),
            in_send: Vec::new(),
            ready: 0,
            fetches: 0,
            charged: 0,
            inbox_charged: 0,
            counted: false,
            phase: Phase::Open,
            receiving: false,
            hears_all: false,
            cancelling: false,
            stalled: false,
            starved: false,
            sending: false,
            ended: false,
            hurried: 0,
            failed: false,
            affinity: Affinity::default(),
            moving: None,
            last_heard: now,
            send_since: now,
            frame_since: None,
            waits_since: None,
            muted_until: None,
            pace_from: now,
        }
    }

    /// How long the peer has been sending its unfinished frame, in ms: without the time in which it waited for us.
    pub fn frame_ms(&self, now: Mono) -> Option<u64> {
        let since = self.frame_since.filter(|_| self.waits_since.is_none())?;
        Some(now.since_ms(since.max(self.pace_from)))
    }

    /// All that was received is looked at, and the rest of the unfinished frame is received.
    pub fn end_wait(&mut self, now: Mono) {
        if let (Some(since), Some(began)) = (self.waits_since.take(), self.frame_since) {
            self.pace_from = began.max(self.pace_from).plus_ms(now.since_ms(since.max(began)));
        }
    }

    /// Its next request is not looked at yet, because it was asked to wait with it.
    pub fn is_muted(&self, now: Mono) -> bool {
        self.muted_until.is_some_and(|until| now < until)
    }

    pub fn owes_nothing(&self) -> bool {
        self.queue.is_empty() && !self.sending
    }

    /// All is sent that was owed before the request whose error closes it.
    pub fn is_over(&self) -> bool {
        !self.sending && matches!(self.queue.front(), Some(Slot::Close))
    }

    /// The next request's error closes it.
    pub fn fail(&mut self) {
        self.failed = true;
        self.frame_since = None;
        self.push(Slot::Close);
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

    /// The peer took all of the last send, which was this.
    pub fn all_sent(
        &mut self,
        mut chain: SendChain,
        now: Mono,
        scratch: &mut Scratch,
        stages: &mut [Stages],
    ) {
        self.sending_bytes = 0;
        chain.clear(|bytes| scratch.buffers.give(bytes));
        self.chain = chain;
        for stamps in &mut self.in_send {
            stamps.set(Stamp::Sent, now.0);
            stages[stamps.path as usize].record(stamps);
        }
        self.in_send.clear();
    }

    pub fn push(&mut self, slot: Slot) {
        self.queue_bytes += slot.bytes_held();
        self.fetches += usize::from(slot.is_fetch());
        self.queue.push_back(slot);
    }

    /// Its next request waits for its own answers, not for memory.
    pub fn waits_for_order(&self) -> bool {
        self.queue.len() >= IN_FLIGHT_PER_CONNECTION_MAX || self.is_fetching()
    }

    /// Bytes of the inbox that lie in receive buffers.
    pub fn pooled_bytes(&self) -> u64 {
        let pooled = self.inbox.iter().filter(|chunk| chunk.buf.is_pooled());
        pooled.map(|chunk| (chunk.buf.len() - chunk.at) as u64).sum()
    }

    /// Copies the inbox out of the receive buffers.
    pub fn own_inbox(&mut self) {
        for chunk in self.inbox.iter_mut().filter(|chunk| chunk.buf.is_pooled()) {
            chunk.buf = RecvBuf::owned(chunk.buf[chunk.at..].to_vec());
            chunk.at = 0;
        }
    }

    /// Replaces a waiting place by its answer.
    pub fn put(&mut self, sequence: u64, bytes: Vec<u8>) {
        let Some(at) = sequence.checked_sub(self.head).map(|at| at as usize) else { return };
        if let Some(Slot::Waiting(_, stamps)) = self.queue.get(at) {
            let slot = Slot::bytes(bytes, *stamps);
            self.replace(at, slot);
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

    /// Encodes a shard's reply into its place. Returns the record bytes in it; none if nobody waits there.
    pub fn answer(
        &mut self,
        reply: Reply,
        short: bool,
        now: Mono,
        buffers: &mut Buffers,
    ) -> Option<RecordBytes> {
        let at = reply.ticket.sequence.checked_sub(self.head)? as usize;
        if !matches!(self.queue.get(at)?, Slot::Waiting(..)) {
            return None;
        }
        let Slot::Waiting(pending, mut stamps) = self.replace(at, Slot::Silent) else { return None };
        let encoded = pending.answer(reply.body, short, buffers);
        if let Some(ms) = encoded.mute_ms {
            self.muted_until = Some(now.plus_ms(ms));
        }
        if encoded.close {
            self.failed = true;
            self.replace(at, Slot::Close);
        } else if let Some(parts) = encoded.parts {
            stamps.merge(&reply.stamps);
            if stamps.get(Stamp::Owned) == 0 {
                stamps.set(Stamp::Owned, stamps.get(Stamp::Parsed));
            }
            self.replace(at, Slot::Ready(parts, stamps));
        }
        Some(encoded.records)
    }

    /// Stamps the answers whose turn it is: each that is ready, up to the first that is not, or that closes the connection.
    pub fn stamp_ready(&mut self, now: Mono) {
        while let Some(slot) = self.queue.get_mut(self.ready) {
            match slot {
                Slot::Waiting(..) | Slot::Close => return,
                Slot::Ready(_, stamps) => stamps.set(Stamp::Replied, now.0),
                Slot::Silent => {}
            }
            self.ready += 1;
        }
    }

    /// Everything at the head that is ready, in order, up to one send's worth of parts. Short answers share one.
    pub fn take_owed(&mut self, now: Mono, buffers: &mut Buffers) -> SendChain {
        let mut chain = std::mem::take(&mut self.chain);
        let mut parts = 0;
        let mut short = None;
        while parts < SEND_PARTS_MAX && self.ready > 0 {
            self.head += 1;
            self.ready -= 1;
            let Some(Slot::Ready(ready, mut stamps)) = self.queue.pop_front() else { continue };
            stamps.set(Stamp::Send, now.0);
            self.in_send.push(stamps);
            for part in ready {
                let bytes = part.as_slice().len();
                self.queue_bytes -= bytes as u64;
                self.sending_bytes += bytes as u64;
                parts += gather(&mut chain, &mut short, part, buffers);
            }
        }
        if let Some(bytes) = short {
            chain.push(SendPart::Bytes(bytes));
        }
        chain
    }
}

/// Adds a part to the chain, or to the short bytes that will be its next part: an entry of its own costs more than the copy. Returns by
/// how many parts the chain gets longer.
fn gather(
    chain: &mut SendChain,
    short: &mut Option<Vec<u8>>,
    part: SendPart,
    buffers: &mut Buffers,
) -> usize {
    match (short.as_mut(), part) {
        (Some(run), SendPart::Bytes(bytes)) if run.len() + bytes.len() <= SEND_GATHER_BYTES => {
            run.extend_from_slice(&bytes);
            buffers.give(bytes);
            0
        }
        (_, SendPart::Bytes(bytes)) => {
            if let Some(run) = short.replace(bytes) {
                chain.push(SendPart::Bytes(run));
            }
            1
        }
        (_, block) => {
            if let Some(run) = short.take() {
                chain.push(SendPart::Bytes(run));
            }
            chain.push(block);
            1
        }
    }
}
