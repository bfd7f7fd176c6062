//! Which shard a new partition lives on. The record keeps the choice; what runs is [`home`], so that a directory written with one number
//! of shards is served by any other without moving a byte.
//!
//! A new partition goes to the shard with the fewest partitions, the lowest number among equals. That is deterministic, spreads one topic
//! over the shards, and fills up shards that were added later. Why not by load: it is not known when a topic is created;
//! moving partitions by load is a decision of its own.

use super::image::Image;
use crate::base::ids::ShardId;

/// The shard that serves what was placed on `placed`, with this many shards: the same rule for every reader of a placement.
pub fn home(placed: ShardId, shards: u16) -> ShardId {
    ShardId(placed.0 % shards.max(1))
}

/// Partitions per shard, as homes.
#[derive(Clone, Debug)]
pub struct Load {
    counts: Vec<u32>,
}

impl Load {
    pub fn of(image: &Image, shards: u16) -> Load {
        let mut counts = vec![0; usize::from(shards.max(1))];
        for partition in image.topics().flat_map(|topic| &topic.partitions) {
            counts[usize::from(home(partition.shard, shards).0)] += 1;
        }
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
