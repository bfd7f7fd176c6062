//! Produce that found no memory: what is left of it owns its bytes here, and goes on in order once the pool has grown or evicted. Bounded by
//! what was parsed already: while one waits, [`Shard::room_for`] lets nobody parse more.

use std::ops::Range;

use super::parked::ParkedId;
use super::produce::Append;
use super::{Cx, Shard};
use crate::base::ids::PartitionKey;
use crate::io::Mono;
use crate::router::message::{Produce, ProducePart};

/// The parts of a produce request that are not appended yet.
pub struct Kept {
    id: ParkedId,
    version: i16,
    acks: i16,
    deadline: Mono,
    records: Vec<u8>,
    /// Where the records of each part stand.
    parts: Vec<(PartitionKey, Range<usize>)>,
    /// The first of them, by its place in the request.
    first: usize,
    done: usize,
}

impl Kept {
    /// The parts of `request` from `first` on.
    pub fn of(request: &Produce<'_>, first: usize, id: ParkedId, deadline: Mono) -> Kept {
        let left = || request.parts.iter().skip(first);
        let mut records = Vec::with_capacity(left().map(|part| part.records.len()).sum());
        let mut parts = Vec::with_capacity(request.parts.len() - first);
        for part in left() {
            let from = records.len();
            records.extend_from_slice(part.records);
            parts.push((part.key, from..records.len()));
        }
        Kept { id, version: request.version, acks: request.acks, deadline, records, parts, first, done: 0 }
    }
}

impl Shard {
    /// Once per turn: appends what waits for memory until there is none again.
    pub(super) fn append_kept(&mut self, cx: &mut Cx<'_>) {
        while let Some(mut kept) = self.kept.pop_front() {
            if !self.append_rest(&mut kept, cx) {
                return self.kept.push_front(kept);
            }
        }
    }

    /// False: no memory for the next part. A connection that is gone does not stop it, as what it sent counts; the deadline does.
    fn append_rest(&mut self, kept: &mut Kept, cx: &mut Cx<'_>) -> bool {
        while let Some((key, range)) = kept.parts.get(kept.done)
            && kept.deadline > cx.now
        {
            let asked = ProducePart { key: *key, records: &kept.records[range.clone()] };
            let append = self.append(&asked, kept.version, cx);
            if matches!(append, Append::NoMemory) {
                return false;
            }
            self.kept_part_done(kept.id, kept.first + kept.done, kept.acks, append, cx.now);
            kept.done += 1;
        }
        true
    }
}
