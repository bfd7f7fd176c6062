//! Cuts a request into the shares of the owners of its partitions.

use std::collections::BTreeMap;

use super::gather::{Answers, FetchLimits, Kind};
use super::message::{
    DeleteRecords, DeleteRecordsPart, EpochEndPart, EpochEnds, Fetch, FetchPart, ListOffsets,
    ListOffsetsPart, Message, Produce, ProducePart, Ticket,
};
use crate::base::ids::{PartitionKey, ShardId};

/// The share of one owner.
pub struct Share<'a> {
    pub owner: ShardId,
    /// Places of its partitions in the request; empty if all of them are its own.
    pub places: Vec<u32>,
    pub message: Message<'a>,
}

/// A request in shares.
pub struct Divided<'a> {
    pub ticket: Ticket,
    pub kind: Kind,
    pub parts: usize,
    pub patience_ms: u64,
    pub answers: Answers,
    pub shares: Vec<Share<'a>>,
}

/// What a request names.
trait Part {
    fn key(&self) -> PartitionKey;
}

macro_rules! part {
    ($($part:ty),*) => {$(
        impl Part for $part {
            fn key(&self) -> PartitionKey {
                self.key
            }
        }
    )*};
}

part!(ProducePart<'_>, FetchPart, ListOffsetsPart, EpochEndPart, DeleteRecordsPart);

/// The only owner of all that a request names, or none if there are several. A request that names nothing belongs to `me`.
pub fn only_owner(
    message: &Message<'_>,
    me: ShardId,
    owner: &impl Fn(PartitionKey) -> ShardId,
) -> Option<ShardId> {
    fn of<'p, P: Part + 'p>(
        parts: impl Iterator<Item = &'p P>,
        me: ShardId,
        owner: &impl Fn(PartitionKey) -> ShardId,
    ) -> Option<ShardId> {
        let mut owners = parts.map(|part| owner(part.key()));
        let first = owners.next().unwrap_or(me);
        owners.all(|other| other == first).then_some(first)
    }
    match message {
        Message::Produce(produce) => of(produce.parts.iter(), me, owner),
        Message::Fetch(fetch) => of(fetch.parts.iter(), me, owner),
        Message::ListOffsets(list) => of(list.parts.iter(), me, owner),
        Message::EpochEnds(ends) => of(ends.parts.iter(), me, owner),
        Message::DeleteRecords(delete) => of(delete.parts.iter(), me, owner),
        Message::Forget { .. } | Message::Hurry { .. } => Some(me),
    }
}

fn shares<P: Part>(
    parts: impl IntoIterator<Item = P>,
    owner: &impl Fn(PartitionKey) -> ShardId,
) -> BTreeMap<ShardId, (Vec<u32>, Vec<P>)> {
    let mut shares: BTreeMap<ShardId, (Vec<u32>, Vec<P>)> = BTreeMap::new();
    for (place, part) in parts.into_iter().enumerate() {
        let (places, parts) = shares.entry(owner(part.key())).or_default();
        places.push(place as u32);
        parts.push(part);
    }
    shares
}

/// How long the origin waits for owners beyond what the client grants them.
const GRACE_MS: u64 = 5_000;
/// Kafka's default for a client's own patience.
const PATIENCE_MS: u64 = 30_000;

/// How long the origin waits for the owners of a request before it answers without them.
pub fn patience_ms(message: &Message<'_>) -> u64 {
    let granted = |ms: i32| ms.max(0) as u64;
    GRACE_MS
        + match message {
            Message::Produce(produce) => granted(produce.timeout_ms).max(PATIENCE_MS),
            Message::Fetch(fetch) => granted(fetch.max_wait_ms),
            Message::DeleteRecords(delete) => granted(delete.timeout_ms),
            _ => PATIENCE_MS,
        }
}

fn empty<T>(len: usize) -> Vec<Option<T>> {
    (0..len).map(|_| None).collect()
}

/// Cuts a request by owner. The message of a share is the request with the parts of one owner.
pub fn divide<'a>(message: Message<'a>, owner: &impl Fn(PartitionKey) -> ShardId) -> Option<Divided<'a>> {
    let patience_ms = patience_ms(&message);
    let (ticket, kind, parts, answers, shares) = match message {
        Message::Produce(Produce { ticket, version, acks, timeout_ms, parts }) => {
            let len = parts.len();
            let message = |parts: Vec<_>| {
                let parts = parts.into_iter().collect();
                Message::Produce(Produce { ticket, version, acks, timeout_ms, parts })
            };
            (ticket, Kind::Produce, len, Answers::Produce(empty(len)), each(shares(parts, owner), message))
        }
        Message::Fetch(fetch) => {
            let (len, ticket, max_bytes) = (fetch.parts.len(), fetch.ticket, fetch.max_bytes);
            let part_max = fetch.parts.iter().map(|part| part.bytes_max).collect();
            let answers = Answers::Fetch(empty(len), FetchLimits { max_bytes, part_max });
            (ticket, Kind::Fetch, len, answers, divide_fetch(fetch, owner))
        }
        Message::ListOffsets(ListOffsets { ticket, read_committed, parts }) => {
            let len = parts.len();
            let message = |parts| Message::ListOffsets(ListOffsets { ticket, read_committed, parts });
            (
                ticket,
                Kind::ListOffsets,
                len,
                Answers::ListOffsets(empty(len)),
                each(shares(parts, owner), message),
            )
        }
        Message::EpochEnds(EpochEnds { ticket, parts }) => {
            let len = parts.len();
            let message = |parts| Message::EpochEnds(EpochEnds { ticket, parts });
            (
                ticket,
                Kind::EpochEnds,
                len,
                Answers::EpochEnds(empty(len)),
                each(shares(parts, owner), message),
            )
        }
        Message::DeleteRecords(DeleteRecords { ticket, timeout_ms, parts }) => {
            let len = parts.len();
            let message = |parts| Message::DeleteRecords(DeleteRecords { ticket, timeout_ms, parts });
            let answers = Answers::DeleteRecords(empty(len));
            (ticket, Kind::DeleteRecords, len, answers, each(shares(parts, owner), message))
        }
        Message::Forget { .. } | Message::Hurry { .. } => return None,
    };
    Some(Divided { ticket, kind, parts, patience_ms, answers, shares })
}

/// `min_bytes` is shared out so that the request never waits longer than on one shard: if all together have enough, one of them has
/// its share of it. The answer may come earlier, with less. `max_bytes` is shared out too; what the owners bring over it is trimmed.
fn divide_fetch<'a>(fetch: Fetch, owner: &impl Fn(PartitionKey) -> ShardId) -> Vec<Share<'a>> {
    let Fetch { ticket, max_wait_ms, min_bytes, max_bytes, read_committed, at_once, parts } = fetch;
    let shares = shares(parts, owner);
    let owners = shares.len().max(1) as i32;
    let min_bytes = (min_bytes.max(0) as u32).div_ceil(owners as u32) as i32;
    let max_bytes = (max_bytes / owners).max(1);
    each(shares, |parts: Vec<_>| {
        let parts = parts.into_iter().collect();
        Message::Fetch(Fetch { ticket, max_wait_ms, min_bytes, max_bytes, read_committed, at_once, parts })
    })
}

fn each<'a, P>(
    shares: BTreeMap<ShardId, (Vec<u32>, Vec<P>)>,
    message: impl Fn(Vec<P>) -> Message<'a>,
) -> Vec<Share<'a>> {
    let share = |(owner, (places, parts))| Share { owner, places, message: message(parts) };
    shares.into_iter().map(share).collect()
}
