//! What one shard has to do with one other: the lanes between them, credits, and what waits for either. The rules stand in
//! [`mesh`](super::mesh).

use std::collections::{BTreeMap, VecDeque};

use super::lanes::Link;
use super::letter::{Letter, Origin, Parcel};
use super::message::{Reply, Ticket};

/// Of the credits of a lane, so many polls may keep theirs while they wait: few consumers cost no letter more.
const KEPT_SHARE: usize = 4;

/// What became of the credit of a poll that waits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Credit {
    Kept,
    Returned,
}

pub struct Peer {
    pub link: Link,
    /// Requests that may still be sent before a reply comes.
    pub credits: usize,
    /// Counted bytes of the requests that were sent and not answered, and of each of them that brought any.
    pub bytes: usize,
    pub bytes_of: BTreeMap<Ticket, usize>,
    /// Requests without a credit, oldest first.
    pub waiting: VecDeque<Letter>,
    /// How many of those bring nothing that is counted.
    waiting_light: usize,
    pub hurries: VecDeque<Origin>,
    /// Other letters without a credit: connections that go to live there, news.
    pub extras: VecDeque<Letter>,
    /// Where in the lane the extras lie that were not popped when that was last looked at.
    lying: VecDeque<usize>,
    /// Polls of that shard that wait here for news, and how many of them keep their credit.
    polls: BTreeMap<Ticket, Credit>,
    kept: usize,
    /// Requests of that shard that wait for staging memory here.
    pub deferred: VecDeque<Box<Parcel>>,
    pub rings: bool,
}

impl Peer {
    pub fn new(link: Link) -> Peer {
        Peer {
            credits: link.lanes.credits,
            link,
            bytes: 0,
            bytes_of: BTreeMap::new(),
            waiting: VecDeque::new(),
            waiting_light: 0,
            hurries: VecDeque::new(),
            extras: VecDeque::new(),
            lying: VecDeque::new(),
            polls: BTreeMap::new(),
            kept: 0,
            deferred: VecDeque::new(),
            rings: false,
        }
    }

    /// A new request may be sent at once: overtaking others only where those wait for bytes and it brings none.
    pub fn takes(&self, letter: &Letter) -> bool {
        let first = if letter.is_light() { self.waiting_light == 0 } else { self.waiting.is_empty() };
        first && self.credits > 0 && self.has_room(letter)
    }

    fn has_room(&self, letter: &Letter) -> bool {
        let bytes = letter.bytes();
        bytes == 0 || self.bytes == 0 || self.bytes + bytes <= self.link.lanes.bytes_max
    }

    pub fn wait(&mut self, letter: Letter) {
        self.waiting_light += usize::from(letter.is_light());
        self.waiting.push_back(letter);
    }

    /// The oldest waiting request that may be sent now. Behind one that waits for bytes only those that bring none: a smaller one must
    /// not take the room that a larger one waits for.
    pub fn next_waiting(&mut self) -> Option<Letter> {
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

    pub fn keep_waiting(&mut self, keep: impl FnMut(&Letter) -> bool) {
        self.waiting.retain(keep);
        self.waiting_light = self.waiting.iter().filter(|letter| letter.is_light()).count();
    }

    /// Sends a request, for a credit.
    pub fn send(&mut self, letter: Letter) {
        self.credits -= 1;
        let bytes = letter.bytes();
        if let Some(ticket) = ticket_of(&letter).filter(|_| bytes > 0) {
            self.bytes += bytes;
            self.bytes_of.insert(ticket, bytes);
        }
        self.push(letter);
    }

    /// A poll of that shard begins to wait here.
    pub fn wait_for_news(&mut self, ticket: Ticket) {
        let keeps = self.kept < self.link.lanes.credits / KEPT_SHARE;
        if keeps {
            self.kept += 1;
        } else {
            self.push(Letter::Waits);
        }
        self.polls.insert(ticket, if keeps { Credit::Kept } else { Credit::Returned });
    }

    /// The answer to a request of that shard.
    pub fn reply(&mut self, reply: Box<Reply>) {
        let poll = if self.polls.is_empty() { None } else { self.polls.remove(&reply.ticket) };
        if poll == Some(Credit::Returned) {
            return self.extras.push_back(Letter::News(reply));
        }
        self.kept -= usize::from(poll == Some(Credit::Kept));
        self.push(Letter::Reply(reply));
    }

    fn push(&mut self, letter: Letter) {
        self.rings = true;
        let full = self.link.out.push(letter).is_err();
        assert!(!full, "a lane has room for every request with a credit and every reply");
    }

    /// Overtakes nothing: a request that still waits here is changed instead.
    pub fn hurry(&mut self, ticket: Ticket) {
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

    /// Sends what has no credit, as far as the lane has room besides requests and replies. Returns how many hurries were among it.
    pub fn send_extras(&mut self) -> u64 {
        let mut hurries = 0;
        while !(self.hurries.is_empty() && self.extras.is_empty()) && self.has_room_for_extra() {
            // By turns: neither keeps the other waiting.
            let hurry = self.extras.is_empty() || self.lying.len().is_multiple_of(2);
            let origin = if hurry { self.hurries.pop_front() } else { None };
            hurries += u64::from(origin.is_some());
            let letter = origin.map(Letter::Hurry).or_else(|| self.extras.pop_front());
            letter.into_iter().for_each(|letter| self.push_extra(letter));
        }
        hurries
    }

    fn has_room_for_extra(&mut self) -> bool {
        let popped = self.link.out.popped();
        while self.lying.front().is_some_and(|at| popped.wrapping_sub(*at) as isize > 0) {
            self.lying.pop_front();
        }
        self.lying.len() < self.link.lanes.extras()
    }

    fn push_extra(&mut self, letter: Letter) {
        self.lying.push_back(self.link.out.pushed());
        self.push(letter);
    }
}

/// The request that a letter is.
pub fn ticket_of(letter: &Letter) -> Option<Ticket> {
    match letter {
        Letter::Ask(parcel) => Some(parcel.ticket()),
        Letter::Control(control) => Some(control.ticket),
        Letter::Reply(_) | Letter::Waits | Letter::News(_) | Letter::Hurry(_) | Letter::Adopt(_) => None,
    }
}
