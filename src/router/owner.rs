//! Who owns a partition: the shard that its placement names.

use crate::base::ids::ShardId;

/// The shard in a placement record, folded onto the shards of this start: a directory that was written with more shards is
/// served by fewer without moving a byte.
pub fn owner(placed: ShardId, shards: u16) -> ShardId {
    ShardId(placed.0 % shards.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placement_folds_onto_the_shards_there_are() {
        assert_eq!(owner(ShardId(2), 4), ShardId(2));
        assert_eq!(owner(ShardId(2), 1), ShardId(0));
        assert_eq!(owner(ShardId(2), 0), ShardId(0));
    }
}
