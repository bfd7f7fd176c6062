//! What crosses a lane between two shards: the messages of [`message`](super::message) with bytes of their own.
//!
//! Record bytes of a forwarded produce are copied once, out of the receive buffer that belongs to the connection's shard; those of
//! a forwarded fetch cross as pinned slices and return to their pool from whichever thread drops them last.

use std::ops::Range;

use super::message::{
    DeleteRecords, EpochEnds, Fetch, ListOffsets, Message, Produce, ProducePart, Reply, Ticket,
};
use crate::base::ids::{PartitionKey, ShardId};
use crate::io::{Mono, Socket, SocketAddr};
use crate::wire::frame::FrameSplitter;

/// Frames up to this size cross uncounted: as many as there are credits are little memory.
const FRAME_BYTES_LIGHT: usize = 16 * 1024;

/// One entry of a lane. Small: what is large stands behind a pointer.
pub enum Letter {
    /// A request to the owner of its partitions; answered by one reply.
    Ask(Box<Parcel>),
    /// A request that only the controller's shard can answer; answered by one reply with a frame.
    Control(Box<ControlFrame>),
    /// The answer to a request, with its credit.
    Reply(Box<Reply>),
    /// A poll waits at the sender for news, however long that takes, and many do. Its credit comes back ahead of its answer.
    Waits,
    /// The answer to such a poll.
    News(Box<Reply>),
    /// The long polls of this connection should be answered with what there is.
    Hurry(Origin),
    /// A connection that shall live on the receiver's shard from now on.
    Adopt(Box<Handover>),
}

impl Letter {
    /// Bytes that it brings and that are counted: those of records, and of frames that are large.
    pub fn bytes(&self) -> usize {
        match self {
            Letter::Ask(parcel) => parcel.bytes(),
            Letter::Control(control) if control.frame.len() > FRAME_BYTES_LIGHT => control.frame.len(),
            _ => 0,
        }
    }

    /// It brings nothing that is counted.
    pub fn is_light(&self) -> bool {
        self.bytes() == 0
    }
}

/// A connection on its way between two shards: nothing of it is under way but what is in here.
pub struct Handover {
    pub socket: Socket,
    pub state: MovedState,
}

/// What a connection's new shard must know of it.
pub struct MovedState {
    pub peer: SocketAddr,
    /// With the part of a frame that had arrived.
    pub splitter: FrameSplitter,
    /// What arrived behind that, not parsed yet.
    pub inbox: Vec<Vec<u8>>,
    pub last_heard: Mono,
    pub frame_since: Option<Mono>,
}

/// A connection of some shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub shard: ShardId,
    pub conn: u32,
    pub generation: u32,
}

impl From<Ticket> for Origin {
    fn from(ticket: Ticket) -> Origin {
        Origin { shard: ticket.shard, conn: ticket.conn, generation: ticket.generation }
    }
}

/// A whole request frame.
pub struct ControlFrame {
    pub ticket: Ticket,
    pub frame: Vec<u8>,
}

/// A message that owns its bytes.
pub enum Parcel {
    Produce(OwnedProduce),
    Fetch(Fetch),
    ListOffsets(ListOffsets),
    EpochEnds(EpochEnds),
    DeleteRecords(DeleteRecords),
}

pub struct OwnedProduce {
    pub ticket: Ticket,
    version: i16,
    acks: i16,
    timeout_ms: i32,
    records: Vec<u8>,
    parts: Vec<(PartitionKey, Range<usize>)>,
}

impl OwnedProduce {
    fn of(produce: &Produce<'_>) -> OwnedProduce {
        let mut records = Vec::with_capacity(produce.parts.iter().map(|part| part.records.len()).sum());
        let mut parts = Vec::with_capacity(produce.parts.len());
        for part in produce.parts.iter() {
            let from = records.len();
            records.extend_from_slice(part.records);
            parts.push((part.key, from..records.len()));
        }
        let Produce { ticket, version, acks, timeout_ms, .. } = *produce;
        OwnedProduce { ticket, version, acks, timeout_ms, records, parts }
    }
}

impl Parcel {
    /// None for what needs no answer and so is no parcel.
    pub fn of(message: Message<'_>) -> Option<Parcel> {
        Some(match message {
            Message::Produce(produce) => Parcel::Produce(OwnedProduce::of(&produce)),
            Message::Fetch(fetch) => Parcel::Fetch(fetch),
            Message::ListOffsets(list) => Parcel::ListOffsets(list),
            Message::EpochEnds(ends) => Parcel::EpochEnds(ends),
            Message::DeleteRecords(delete) => Parcel::DeleteRecords(delete),
            Message::Forget { .. } | Message::Hurry { .. } => return None,
        })
    }

    pub fn ticket(&self) -> Ticket {
        match self {
            Parcel::Produce(produce) => produce.ticket,
            Parcel::Fetch(fetch) => fetch.ticket,
            Parcel::ListOffsets(list) => list.ticket,
            Parcel::EpochEnds(ends) => ends.ticket,
            Parcel::DeleteRecords(delete) => delete.ticket,
        }
    }

    /// Record bytes that it brings: what the owner needs staging memory for.
    pub fn bytes(&self) -> usize {
        match self {
            Parcel::Produce(produce) => produce.records.len(),
            _ => 0,
        }
    }

    /// Hands the message to its owner.
    pub fn open<T>(self, handle: impl FnOnce(Message<'_>) -> T) -> T {
        match self {
            Parcel::Produce(OwnedProduce { ticket, version, acks, timeout_ms, records, parts }) => {
                let part = |(key, range): (PartitionKey, Range<usize>)| ProducePart {
                    key,
                    records: &records[range],
                };
                let parts = parts.into_iter().map(part).collect();
                handle(Message::Produce(Produce { ticket, version, acks, timeout_ms, parts }))
            }
            Parcel::Fetch(fetch) => handle(Message::Fetch(fetch)),
            Parcel::ListOffsets(list) => handle(Message::ListOffsets(list)),
            Parcel::EpochEnds(ends) => handle(Message::EpochEnds(ends)),
            Parcel::DeleteRecords(delete) => handle(Message::DeleteRecords(delete)),
        }
    }
}
