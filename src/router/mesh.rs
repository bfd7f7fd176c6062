//! One shard's end of the lanes to all others, and the requests of its connections that other shards work on.
//!
//! # Bounds
//! A shard has at most `credits` requests in work at one other shard. A lane holds that many requests of its sender, as many credits
//! returned to its receiver, and some extras: so a reply always finds room, and two full lanes cannot wait for each other. What
//! finds no credit waits here, in order, and its connection is not parsed any further ([`Router::holds_back`]): one request for each
//! connection at most, so that the peer's socket is the queue.
//! Bytes are credited beside the number: those of records and of large frames that one other shard has not answered stay below
//! `bytes_max`, or are one request's. What brings none goes past a request that waits for bytes.
//! Extras are hurries, connections that move, and news for polls that waited: they wait here until those before them were popped, one
//! hurry for each connection, one move for each, and news for each poll, of which a connection has one at a time.
//!
//! # Non-obvious
//! - Each request that crossed brings exactly one credit back, whatever became of its connection: with its reply, or ahead of it when it
//!   is a poll that begins to wait where others do. Idle consumers so never hold more than a share of what all need.
//! - A reply that comes after its request was answered without it only returns the credit.
//! - Letters are popped a bounded number per turn; a produce that its owner has no staging memory for waits at the owner, and
//!   everything of that sender behind it, replies excepted.

use std::collections::BTreeMap;

use super::divide::{Share, divide, only_owner, patience_ms};
use super::gather::{Answers, Gather, Kind, Leg, Progress};
use super::lanes::{Link, Planted};
use super::letter::{ControlFrame, Handover, Letter, Origin, Parcel};
use super::message::{Message, Reply, Ticket};
use super::peer::{Peer, ticket_of};
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
        let peers = links.into_iter().map(|link| (link.peer, Peer::new(link))).collect();
        Router {
            me,
            planted,
            peers,
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
            peer.extras.push_back(Letter::Adopt(Box::new(moved)));
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
            peer.reply(Box::new(reply));
        }
        None
    }

    /// A poll of another shard begins to wait here.
    pub fn wait_for_news(&mut self, ticket: Ticket) {
        if let Some(peer) = self.peers.get_mut(&ticket.shard) {
            peer.wait_for_news(ticket);
        }
    }

    /// The answer of another shard to one of our requests.
    pub fn answered(&mut self, from: ShardId, reply: Reply) -> Option<Reply> {
        let late = !self.gathers.contains_key(&reply.ticket);
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.bytes -= peer.bytes_of.remove(&reply.ticket).unwrap_or(0);
        }
        if !(late && self.planted == Some(Planted::LateReplyKeepsCredit)) {
            self.credit(from);
        }
        self.take(from, reply)
    }

    /// A poll of ours waits at another shard.
    pub fn credit(&mut self, from: ShardId) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.credits += 1;
        }
        self.send_waiting(from);
    }

    /// What a poll of ours that waited at another shard is answered with.
    pub fn news(&mut self, from: ShardId, reply: Reply) -> Option<Reply> {
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

    /// Requests of other shards wait here for staging memory.
    pub fn is_starved(&self) -> bool {
        self.peers.values().any(|peer| !peer.deferred.is_empty())
    }

    /// Something waits for room in a lane, which nobody announces.
    pub fn waits_for_room(&self) -> bool {
        self.peers.values().any(|peer| !(peer.hurries.is_empty() && peer.extras.is_empty()))
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

    /// Something that all share has changed: whoever sleeps looks at it.
    pub fn call_all(&mut self) {
        self.peers.values_mut().for_each(|peer| peer.rings = true);
    }

    /// Wakes the shards that were written to or called since the last time.
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

fn release(held_back: &mut BTreeMap<u32, usize>, conn: u32) {
    if let Some(count) = held_back.get_mut(&conn) {
        *count -= 1;
        if *count == 0 {
            held_back.remove(&conn);
        }
    }
}
