//! One shard's end of the lanes to all others, and the requests of its connections that other shards work on.
//!
//! # Bounds
//! A shard has at most `credits` requests unanswered at one other shard. A lane holds that many requests of its sender, as many replies
//! to the requests of its receiver, and some extras (hurries, connections that move): so a reply always finds room, and two full lanes cannot wait for each other. What
//! finds no credit waits here, in order, and its connection is not parsed any further ([`Router::holds_back`]): one request for each
//! connection at most, so that the peer's socket is the queue.
//! Record bytes are credited beside the number: those that one other shard has not answered stay below `bytes_max`, or are one request's.
//! What brings no records goes past a request that waits for bytes. Frames for the controller are not counted: they are small, and
//! those that wait for other members of a group wait long.
//!
//! # Non-obvious
//! - Each request that crossed brings exactly one reply back, whatever became of its connection: credits return with replies.
//! - A reply that comes after its request was answered without it only returns the credit.
//! - Letters are popped a bounded number per turn; a produce that its owner has no staging memory for waits at the owner, and
//!   everything of that sender behind it, replies excepted.

use std::collections::{BTreeMap, VecDeque};

use super::divide::{Share, divide, only_owner, patience_ms};
use super::gather::{Answers, Gather, Kind, Leg, Progress};
use super::lanes::{Link, Planted};
use super::letter::{ControlFrame, Handover, Letter, Origin, Parcel};
use super::message::{Message, Reply, Ticket};
use crate::base::ids::{PartitionKey, ShardId};
use crate::base::limits::LETTERS_PER_TURN_MAX;
use crate::base::metrics::Stamps;
use crate::io::{Io, Mono};

/// How often requests are looked through for owners that do not answer.
const SWEEP_MS: u64 = 1_000;

/// How long a frame waits for the controller's shard.
const CONTROL_PATIENCE_MS: u64 = 60_000;

/// What a shard counts of its traffic with others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hops {
    /// Requests, or shares of them, sent to another shard.
    pub sent_total: u64,
    /// Requests of other shards worked on here, those for the controller included.
    pub served_total: u64,
    /// Of those sent: how many found no credit at first.
    pub held_back_total: u64,
    /// Record bytes copied for sending.
    pub copied_bytes_total: u64,
    /// Requests answered without an owner that did not answer in time.
    pub late_total: u64,
    /// Most letters that were found in one lane.
    pub depth_max: u64,
    /// Requests of other shards that had to wait for staging memory here.
    pub deferred_total: u64,
    /// Hurries sent to other shards.
    pub hurries_total: u64,
    /// Frames sent to the controller's shard.
    pub controls_total: u64,
}

struct Peer {
    link: Link,
    /// Requests that may still be sent before a reply comes.
    credits: usize,
    /// Record bytes of the requests that were sent and not answered, and of each of them that brought any.
    bytes: usize,
    bytes_of: BTreeMap<Ticket, usize>,
    /// Requests without a credit, oldest first.
    waiting: VecDeque<Letter>,
    /// How many of those bring no records.
    waiting_light: usize,
    hurries: VecDeque<Origin>,
    /// Connections that go to live there.
    moves: VecDeque<Box<Handover>>,
    /// Requests of that shard that wait for staging memory here.
    deferred: VecDeque<Box<Parcel>>,
    rings: bool,
}

pub struct Router {
    me: ShardId,
    planted: Option<Planted>,
    peers: BTreeMap<ShardId, Peer>,
    gathers: BTreeMap<Ticket, Gather>,
    /// Connections with requests that wait for a credit, and how many.
    held_back: BTreeMap<u32, usize>,
    arrived: Vec<(ShardId, Letter)>,
    /// Long polls of our own that should be answered, because another owner had news for the same request.
    hurries: Vec<Origin>,
    /// Owners of the requests since the last look, none where there were several.
    asked: Vec<Option<ShardId>>,
    next_sweep: Mono,
    hops: Hops,
}

impl Router {
    /// With no links: the only shard there is.
    pub fn new(me: ShardId, links: Vec<Link>) -> Router {
        let planted = links.first().and_then(|link| link.lanes.planted);
        let peer = |link: Link| {
            let credits = link.lanes.credits;
            let (waiting, hurries, moves, deferred) = Default::default();
            let (bytes, bytes_of, waiting_light, rings) = Default::default();
            let peer = link.peer;
            (
                peer,
                Peer {
                    link,
                    credits,
                    bytes,
                    bytes_of,
                    waiting,
                    waiting_light,
                    hurries,
                    moves,
                    deferred,
                    rings,
                },
            )
        };
        Router {
            me,
            planted,
            peers: links.into_iter().map(peer).collect(),
            gathers: BTreeMap::new(),
            held_back: BTreeMap::new(),
            arrived: Vec::new(),
            hurries: Vec::new(),
            asked: Vec::new(),
            next_sweep: Mono(0),
            hops: Hops::default(),
        }
    }

    pub fn shard(&self) -> ShardId {
        self.me
    }

    pub fn hops(&self) -> Hops {
        self.hops
    }

    /// Requests of our connections that other shards have not answered.
    pub fn in_flight(&self) -> usize {
        self.gathers.len()
    }

    /// Sends a request to the owners of its partitions. Returns what this shard has to do itself, at once.
    pub fn route<'a>(
        &mut self,
        message: Message<'a>,
        owner: impl Fn(PartitionKey) -> ShardId,
        now: Mono,
    ) -> Option<Message<'a>> {
        if self.peers.is_empty() {
            return Some(message);
        }
        let only = only_owner(&message, self.me, &owner);
        self.asked.push(only);
        match only {
            Some(only) if only == self.me || !self.peers.contains_key(&only) => Some(message),
            Some(only) => {
                self.send_whole(only, message, now);
                None
            }
            None => self.send_shares(message, owner, now),
        }
    }

    fn send_whole(&mut self, owner: ShardId, message: Message<'_>, now: Mono) {
        let deadline = now.plus_ms(patience_ms(&message));
        let (kind, parts) = match &message {
            Message::Produce(produce) => (Kind::Produce, produce.parts.len()),
            Message::Fetch(fetch) => (Kind::Fetch, fetch.parts.len()),
            Message::ListOffsets(list) => (Kind::ListOffsets, list.parts.len()),
            Message::EpochEnds(ends) => (Kind::EpochEnds, ends.parts.len()),
            Message::DeleteRecords(delete) => (Kind::DeleteRecords, delete.parts.len()),
            Message::Forget { .. } | Message::Hurry { .. } => return,
        };
        let Some(parcel) = Parcel::of(message) else { return };
        let ticket = parcel.ticket();
        let legs = vec![Leg { owner, places: Vec::new(), done: false }];
        self.gathers.insert(
            ticket,
            Gather {
                ticket,
                kind,
                parts,
                legs,
                answers: Answers::Whole,
                stamps: Stamps::default(),
                deadline,
            },
        );
        self.post_parcel(owner, parcel);
    }

    fn send_shares<'a>(
        &mut self,
        message: Message<'a>,
        owner: impl Fn(PartitionKey) -> ShardId,
        now: Mono,
    ) -> Option<Message<'a>> {
        let divided = divide(message, &owner)?;
        let (ticket, kind, parts) = (divided.ticket, divided.kind, divided.parts);
        let deadline = now.plus_ms(divided.patience_ms);
        let mut legs = Vec::with_capacity(divided.shares.len());
        let mut own = None;
        for Share { owner, places, message } in divided.shares {
            legs.push(Leg { owner, places, done: false });
            if owner == self.me {
                own = Some(message);
            } else if let Some(parcel) = Parcel::of(message) {
                self.post_parcel(owner, parcel);
            }
        }
        let answers = divided.answers;
        self.gathers.insert(
            ticket,
            Gather { ticket, kind, parts, legs, answers, stamps: Stamps::default(), deadline },
        );
        own
    }

    /// Owners of the requests since the last call: whose partitions they were for, none where of several shards.
    pub fn take_asked(&mut self) -> std::vec::Drain<'_, Option<ShardId>> {
        self.asked.drain(..)
    }

    /// Sends a connection to the shard that it shall live on.
    pub fn hand_over(&mut self, to: ShardId, moved: Handover) {
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.moves.push_back(Box::new(moved));
        }
    }

    /// Sends a frame to the shard of the controller.
    pub fn send_control(&mut self, to: ShardId, ticket: Ticket, frame: &[u8], now: Mono) {
        let legs = vec![Leg { owner: to, places: Vec::new(), done: false }];
        let deadline = now.plus_ms(CONTROL_PATIENCE_MS);
        let (kind, answers) = (Kind::Control, Answers::Whole);
        self.gathers.insert(
            ticket,
            Gather { ticket, kind, parts: 1, legs, answers, stamps: Stamps::default(), deadline },
        );
        self.hops.copied_bytes_total += frame.len() as u64;
        self.hops.controls_total += 1;
        self.post(to, Letter::Control(Box::new(ControlFrame { ticket, frame: frame.to_vec() })));
    }

    fn post_parcel(&mut self, to: ShardId, parcel: Parcel) {
        self.hops.copied_bytes_total += parcel.bytes() as u64;
        self.post(to, Letter::Ask(Box::new(parcel)));
    }

    fn post(&mut self, to: ShardId, letter: Letter) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        self.hops.sent_total += 1;
        if peer.takes(&letter) {
            return peer.send(letter);
        }
        self.hops.held_back_total += 1;
        if let Some(ticket) = ticket_of(&letter) {
            *self.held_back.entry(ticket.conn).or_default() += 1;
        }
        peer.wait(letter);
    }

    /// True while a request of this connection waits for its owner to take it: no more of it should be parsed.
    pub fn holds_back(&self, conn: u32) -> bool {
        self.held_back.contains_key(&conn)
    }

    /// An answer that this shard gave: to a connection of its own, or of another shard. Returns what a connection may have now.
    pub fn settle(&mut self, reply: Reply) -> Option<Reply> {
        if reply.ticket.shard == self.me {
            return if self.gathers.is_empty() { Some(reply) } else { self.take(self.me, reply) };
        }
        if let Some(peer) = self.peers.get_mut(&reply.ticket.shard) {
            peer.push(Letter::Reply(Box::new(reply)));
        }
        None
    }

    /// The answer of another shard to one of our requests.
    pub fn answered(&mut self, from: ShardId, reply: Reply) -> Option<Reply> {
        let late = !self.gathers.contains_key(&reply.ticket);
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.bytes -= peer.bytes_of.remove(&reply.ticket).unwrap_or(0);
            if !(late && self.planted == Some(Planted::LateReplyKeepsCredit)) {
                peer.credits += 1;
            }
        }
        self.send_waiting(from);
        self.take(from, reply)
    }

    fn take(&mut self, from: ShardId, reply: Reply) -> Option<Reply> {
        let Some(gather) = self.gathers.get_mut(&reply.ticket) else {
            // Answered by its only owner, which is this shard; or by nobody any more.
            return (from == self.me).then_some(reply);
        };
        match gather.take(from, reply.body, reply.stamps) {
            Progress::Wait => None,
            Progress::Complete(complete) => {
                self.gathers.remove(&complete.ticket);
                Some(complete)
            }
            Progress::Hurry => {
                self.hurry_request(reply.ticket);
                None
            }
        }
    }

    fn send_waiting(&mut self, to: ShardId) {
        let Some(peer) = self.peers.get_mut(&to) else { return };
        while let Some(letter) = peer.next_waiting() {
            if let Some(ticket) = ticket_of(&letter) {
                release(&mut self.held_back, ticket.conn);
            }
            peer.send(letter);
        }
    }

    /// Those owners that still wait for records should answer with what they have.
    fn hurry_request(&mut self, ticket: Ticket) {
        let Some(gather) = self.gathers.get(&ticket) else { return };
        if self.planted == Some(Planted::HurryLost) {
            return;
        }
        for leg in gather.legs.iter().filter(|leg| !leg.done) {
            match self.peers.get_mut(&leg.owner) {
                Some(peer) => peer.hurry(ticket),
                None => self.hurries.push(ticket.into()),
            }
        }
    }

    /// The peer of this connection sends no more, and is perhaps gone: other shards answer its long polls now.
    pub fn hurry(&mut self, conn: u32, generation: u32) {
        for ticket in self.tickets_of(conn, generation) {
            self.hurry_request(ticket);
        }
    }

    /// The connection is gone. What waits for a credit is dropped; what was sent is answered to nobody.
    pub fn forget(&mut self, conn: u32, generation: u32) {
        for ticket in self.tickets_of(conn, generation) {
            self.hurry_request(ticket);
            self.gathers.remove(&ticket);
        }
        if !self.held_back.contains_key(&conn) {
            return;
        }
        for peer in self.peers.values_mut() {
            peer.keep_waiting(|letter| {
                ticket_of(letter).is_none_or(|t| (t.conn, t.generation) != (conn, generation))
            });
        }
        self.held_back.remove(&conn);
    }

    fn tickets_of(&self, conn: u32, generation: u32) -> Vec<Ticket> {
        let ticket = |sequence| Ticket { shard: self.me, conn, generation, sequence };
        self.gathers.range(ticket(0)..=ticket(u64::MAX)).map(|(ticket, _)| *ticket).collect()
    }

    /// Pops what has arrived, as far as one turn's share goes.
    pub fn receive(&mut self) {
        for (from, peer) in &mut self.peers {
            self.hops.depth_max = self.hops.depth_max.max(peer.link.inbox.len() as u64);
            for _ in 0..LETTERS_PER_TURN_MAX {
                let Some(letter) = peer.link.inbox.pop() else { break };
                self.arrived.push((*from, letter));
            }
        }
    }

    pub fn take_arrived(&mut self) -> Vec<(ShardId, Letter)> {
        std::mem::take(&mut self.arrived)
    }

    /// Gives an emptied list back for the next turn.
    pub fn reuse(&mut self, arrived: Vec<(ShardId, Letter)>) {
        debug_assert!(arrived.is_empty());
        if self.arrived.is_empty() {
            self.arrived = arrived;
        }
    }

    pub fn count_served(&mut self) {
        self.hops.served_total += 1;
    }

    /// A request of `from` that waits for staging memory here, or for one that does.
    pub fn defer(&mut self, from: ShardId, parcel: Box<Parcel>) {
        self.hops.deferred_total += 1;
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.deferred.push_back(parcel);
        }
    }

    /// A connection of another shard wants its long polls answered: those that wait here as requests must not wait as polls too.
    pub fn hurry_deferred(&mut self, origin: Origin) {
        let Some(peer) = self.peers.get_mut(&origin.shard) else { return };
        for parcel in &mut peer.deferred {
            if let Parcel::Fetch(fetch) = &mut **parcel
                && Origin::from(fetch.ticket) == origin
            {
                fetch.at_once = true;
            }
        }
    }

    pub fn is_deferring(&self, from: ShardId) -> bool {
        self.peers.get(&from).is_some_and(|peer| !peer.deferred.is_empty())
    }

    /// The oldest deferred request of some shard that has room now.
    pub fn take_deferred(&mut self, mut has_room: impl FnMut(usize) -> bool) -> Option<Parcel> {
        let peer = self
            .peers
            .values_mut()
            .find(|peer| peer.deferred.front().is_some_and(|p| has_room(p.bytes())))?;
        peer.deferred.pop_front().map(|parcel| *parcel)
    }

    /// Long polls of this shard whose request has news elsewhere.
    pub fn take_hurries(&mut self) -> Vec<Origin> {
        std::mem::take(&mut self.hurries)
    }

    /// False for the only shard there is.
    pub fn has_peers(&self) -> bool {
        !self.peers.is_empty()
    }

    /// True if something lies in a lane: looked at after the sleep was announced.
    pub fn has_mail(&self) -> bool {
        self.peers.values().any(|peer| !peer.link.inbox.is_empty())
    }

    /// Wakes the shards that were written to since the last call.
    pub fn ring(&mut self, io: &mut Io) {
        for peer in self.peers.values_mut() {
            self.hops.hurries_total += peer.send_extras();
            if std::mem::take(&mut peer.rings) {
                io.wake(&peer.link.waker);
            }
        }
    }

    /// Answers what other shards have not answered in time.
    pub fn expire(&mut self, now: Mono) -> Vec<Reply> {
        if now < self.next_sweep || self.gathers.is_empty() {
            return Vec::new();
        }
        self.next_sweep = now.plus_ms(SWEEP_MS);
        let late = self.gathers.iter().filter(|(_, gather)| gather.deadline <= now);
        let late: Vec<Ticket> = late.map(|(ticket, _)| *ticket).collect();
        self.hops.late_total += late.len() as u64;
        self.withdraw(&late);
        late.iter()
            .filter_map(|ticket| self.gathers.remove(ticket))
            .map(|mut gather| gather.finish())
            .collect()
    }

    /// Drops what of these requests still waits for a credit: whoever asked was told that it is over, and its connection goes on.
    fn withdraw(&mut self, late: &[Ticket]) {
        let held_back = &mut self.held_back;
        for peer in self.peers.values_mut() {
            peer.keep_waiting(|letter| {
                let over = ticket_of(letter).filter(|ticket| late.contains(ticket));
                over.inspect(|ticket| release(held_back, ticket.conn)).is_none()
            });
        }
    }

    pub fn next_deadline(&self) -> Option<Mono> {
        (!self.gathers.is_empty()).then_some(self.next_sweep)
    }
}

impl Peer {
    /// A new request may be sent at once: overtaking others only where those wait for bytes and it brings none.
    fn takes(&self, letter: &Letter) -> bool {
        let first = if letter.is_light() { self.waiting_light == 0 } else { self.waiting.is_empty() };
        first && self.credits > 0 && self.has_room(letter)
    }

    fn has_room(&self, letter: &Letter) -> bool {
        let bytes = letter.record_bytes();
        bytes == 0 || self.bytes == 0 || self.bytes + bytes <= self.link.lanes.bytes_max
    }

    fn wait(&mut self, letter: Letter) {
        self.waiting_light += usize::from(letter.is_light());
        self.waiting.push_back(letter);
    }

    /// The oldest waiting request that may be sent now. Behind one that waits for bytes only those that bring none: a smaller one must
    /// not take the room that a larger one waits for.
    fn next_waiting(&mut self) -> Option<Letter> {
        let has_room = self.credits > 0 && self.has_room(self.waiting.front()?);
        let at = match (has_room, self.credits > 0 && self.waiting_light > 0) {
            (true, _) => 0,
            (false, true) => self.waiting.iter().position(Letter::is_light)?,
            (false, false) => return None,
        };
        let letter = self.waiting.remove(at)?;
        self.waiting_light -= usize::from(letter.is_light());
        Some(letter)
    }

    fn keep_waiting(&mut self, keep: impl FnMut(&Letter) -> bool) {
        self.waiting.retain(keep);
        self.waiting_light = self.waiting.iter().filter(|letter| letter.is_light()).count();
    }

    /// Sends a request, for a credit.
    fn send(&mut self, letter: Letter) {
        self.credits -= 1;
        let bytes = letter.record_bytes();
        if let Some(ticket) = ticket_of(&letter).filter(|_| bytes > 0) {
            self.bytes += bytes;
            self.bytes_of.insert(ticket, bytes);
        }
        self.push(letter);
    }

    fn push(&mut self, letter: Letter) {
        self.rings = true;
        let full = self.link.out.push(letter).is_err();
        assert!(!full, "a lane has room for every request with a credit and every reply");
    }

    /// Overtakes nothing: a request that still waits here is changed instead.
    fn hurry(&mut self, ticket: Ticket) {
        for letter in &mut self.waiting {
            if let Letter::Ask(parcel) = letter
                && let Parcel::Fetch(fetch) = &mut **parcel
                && fetch.ticket == ticket
            {
                fetch.at_once = true;
                return;
            }
        }
        let origin = Origin::from(ticket);
        if !self.hurries.contains(&origin) {
            self.hurries.push_back(origin);
        }
    }

    /// Sends what has no credit and no reply, as far as the lane has room besides those.
    /// Returns how many hurries were among it.
    fn send_extras(&mut self) -> u64 {
        let mut hurries = 0;
        let reserved = 2 * self.link.lanes.credits;
        while !(self.hurries.is_empty() && self.moves.is_empty()) && self.link.out.free() > reserved {
            if let Some(origin) = self.hurries.pop_front() {
                hurries += 1;
                self.push(Letter::Hurry(origin));
            } else if let Some(moved) = self.moves.pop_front() {
                self.push(Letter::Adopt(moved));
            }
        }
        hurries
    }
}

fn ticket_of(letter: &Letter) -> Option<Ticket> {
    match letter {
        Letter::Ask(parcel) => Some(parcel.ticket()),
        Letter::Control(control) => Some(control.ticket),
        Letter::Reply(_) | Letter::Hurry(_) | Letter::Adopt(_) => None,
    }
}

fn release(held_back: &mut BTreeMap<u32, usize>, conn: u32) {
    if let Some(count) = held_back.get_mut(&conn) {
        *count -= 1;
        if *count == 0 {
            held_back.remove(&conn);
        }
    }
}
