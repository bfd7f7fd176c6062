//! Which shard a partition lives on. The record keeps the choice, and of how many shards it was made: a start with another number chooses
//! anew for all of them, which moves no byte, for every shard can open every log.
//!
//! A new partition goes to the shard with the fewest partitions, the lowest number among equals. That is deterministic, spreads one topic
//! over the shards, and fills up shards that were added later. Why not by load: it is not known when a topic is created;
//! moving partitions by load is a decision of its own.

use std::sync::Arc;

use super::image::{Image, Topic};
use super::record::Record;
use crate::base::ids::ShardId;

/// The shard that serves what was placed on `placed`, with this many shards: the same rule for every reader of a placement, and the last
/// word where nobody chose anew.
pub fn home(placed: ShardId, shards: u16) -> ShardId {
    ShardId(placed.0 % shards.max(1))
}

/// What a start must record before it serves: the topics whose shards were chosen of another number than runs now are placed as new ones
/// are, behind all others, whatever had been asked for when they were made. Where the number is not known, what runs is written down.
pub fn placed_anew(image: &Image) -> Vec<Record> {
    let shards = image.config.shards;
    let is_stale = |of: Option<u16>| of.is_some_and(|of| of != shards);
    let kept = image.topics().filter(|topic| !is_stale(topic.placed_of));
    let mut load =
        Load::of_placed(kept.flat_map(|topic| &topic.partitions).map(|partition| partition.shard), shards);
    let stale = image.topics().filter(|topic| topic.placed_of != Some(shards));
    let place = |topic: &Arc<Topic>| {
        let homes = if is_stale(topic.placed_of) {
            load.place(topic.partitions.iter().map(|_| None))
        } else {
            topic.partitions.iter().map(|partition| home(partition.shard, shards)).collect()
        };
        Record::Placement { topic: topic.id, shards: homes, of: Some(shards) }
    };
    stale.map(place).collect()
}

/// Partitions per shard, as homes.
#[derive(Clone, Debug)]
pub struct Load {
    counts: Vec<u32>,
}

impl Load {
    pub fn of(image: &Image, shards: u16) -> Load {
        let partitions = image.topics().flat_map(|topic| &topic.partitions);
        Load::of_placed(partitions.map(|partition| partition.shard), shards)
    }

    fn of_placed(placed: impl Iterator<Item = ShardId>, shards: u16) -> Load {
        let mut counts = vec![0; usize::from(shards.max(1))];
        placed.for_each(|shard| counts[usize::from(home(shard, shards).0)] += 1);
        Load { counts }
    }

    /// Places new partitions: each on the shard that was chosen for it, of as many as run, or where there are the fewest.
    pub fn place(&mut self, chosen: impl IntoIterator<Item = Option<ShardId>>) -> Vec<ShardId> {
        let mut shards = Vec::new();
        for chosen in chosen {
            let least = || (0..self.counts.len()).min_by_key(|shard| self.counts[*shard]).unwrap_or(0);
            let shard = chosen.map_or_else(least, |shard| usize::from(shard.0));
            self.counts[shard] += 1;
            shards.push(ShardId(shard as u16));
        }
        shards
    }
}
