//! Requests that wait: for a commit, for records, for reads from disk.

use std::cmp::Reverse;
use std::collections::VecDeque;

use super::Shard;
use super::delete_records::DeleteState;
use super::fetch::FetchState;
use super::list_offsets::SearchState;
use super::produce::ProduceState;
use crate::base::ids::{PartitionKey, ShardId};
use crate::base::offset::Offset;
use crate::io::Mono;
use crate::router::message::Ticket;

/// Deadlines of answered requests that may stay besides as many as there are parked requests.
const DEADLINES_SPARE: usize = 1024;

/// A parked request. The serial tells it from a later one in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ParkedId {
    pub index: usize,
    pub serial: u64,
}

pub enum Parked {
    Produce(ProduceState),
    Fetch(FetchState),
    ListOffsets(SearchState),
    DeleteRecords(DeleteState),
}

impl Parked {
    pub fn serial(&self) -> u64 {
        match self {
            Parked::Produce(state) => state.serial,
            Parked::Fetch(state) => state.serial,
            Parked::ListOffsets(state) => state.serial,
            Parked::DeleteRecords(state) => state.serial,
        }
    }

    pub fn ticket(&self) -> Ticket {
        match self {
            Parked::Produce(state) => state.ticket,
            Parked::Fetch(state) => state.fetch.ticket,
            Parked::ListOffsets(state) => state.list.ticket,
            Parked::DeleteRecords(state) => state.ticket,
        }
    }

    /// A fetch that waits for records, not for reads in flight.
    pub fn is_long_poll(&self) -> bool {
        matches!(self, Parked::Fetch(state) if state.reads_pending == 0)
    }
}

/// An ack that leaves when the high watermark reaches `next_offset`.
pub struct AckWaiter {
    pub next_offset: Offset,
    pub id: ParkedId,
    pub part: usize,
}

/// A fetch in the list of a log, for one of its parts. Only parked fetches are listed.
#[derive(Clone, Copy)]
pub struct FetchWaiter {
    pub id: ParkedId,
    pub part: usize,
}

/// The place of a part of a fetch: the log's index, and where in its list.
#[derive(Clone, Copy)]
pub struct Listed {
    pub log: usize,
    pub at: usize,
}

/// A DeleteRecords that leaves when the log start has reached `wanted` on disk.
pub struct StartWaiter {
    pub wanted: Offset,
    pub id: ParkedId,
    pub part: usize,
}

/// What waits on one log.
#[derive(Default)]
pub struct Waiters {
    pub key: Option<PartitionKey>,
    /// In the order of their appends, so nearly always in the order of their offsets; a duplicate may wait behind a newer one.
    pub acks: VecDeque<AckWaiter>,
    pub fetches: Vec<FetchWaiter>,
    /// Searches that wait for a file to be opened.
    pub searches: Vec<ParkedId>,
    pub log_starts: Vec<StartWaiter>,
}

impl Shard {
    pub(super) fn next_serial(&mut self) -> u64 {
        self.parked_serial += 1;
        self.parked_serial
    }

    /// Parks a request, to be looked at again at `deadline` if not before.
    pub(super) fn park(&mut self, parked: Parked, deadline: Option<Mono>) -> ParkedId {
        let serial = parked.serial();
        let id = ParkedId { index: self.parked.insert(parked), serial };
        if let Some(at) = deadline {
            self.look_again(id, at);
        }
        id
    }

    /// Sets a deadline of a parked request. Those of requests that were answered since are dropped before they outnumber the
    /// parked ones: an ack takes a millisecond and its deadline is half a minute away.
    pub(super) fn look_again(&mut self, id: ParkedId, at: Mono) {
        if self.deadlines.len() >= 2 * self.parked.len() + DEADLINES_SPARE {
            let parked = &self.parked;
            self.deadlines
                .retain(|Reverse((_, id))| parked.get(id.index).is_some_and(|it| it.serial() == id.serial));
        }
        self.deadlines.push(Reverse((at, id)));
    }

    pub(super) fn parked_mut(&mut self, id: ParkedId) -> Option<&mut Parked> {
        self.parked.get_mut(id.index).filter(|parked| parked.serial() == id.serial)
    }

    pub(super) fn unpark(&mut self, id: ParkedId) -> Option<Parked> {
        if let Parked::Fetch(_) = self.parked_mut(id)? {
            self.unlist_fetch(id);
        }
        Some(self.parked.remove(id.index))
    }

    /// Drops what a closed connection waits for. Appends that it sent stay; their acks have nowhere to go.
    pub(super) fn forget(&mut self, shard: ShardId, conn: u32, generation: u32) {
        let of_conn =
            |ticket: Ticket| (ticket.shard, ticket.conn, ticket.generation) == (shard, conn, generation);
        let goes = |parked: &Parked| match parked {
            // Reads in flight come back to their request: it goes when they have.
            Parked::Fetch(state) if state.reads_pending > 0 => false,
            Parked::ListOffsets(state) if state.read.is_some() => false,
            _ => of_conn(parked.ticket()),
        };
        let gone = self.parked.iter().filter(|(_, parked)| goes(parked));
        let gone: Vec<ParkedId> =
            gone.map(|(index, parked)| ParkedId { index, serial: parked.serial() }).collect();
        for id in gone {
            self.unpark(id);
        }
    }
}
