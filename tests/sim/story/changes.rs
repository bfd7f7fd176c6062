//! What happens to a partition as a whole: it is cut on behalf of replication, deleted, made anew.

use corelog::base::ids::PartitionKey;
use corelog::base::offset::Offset;

use super::Story;
use crate::oracle::{End, Verdict};

impl Story {
    /// Asks for the log to end at some offset.
    pub(super) fn truncate(&mut self, key: PartitionKey) -> Verdict {
        let node = self.node.as_mut().expect("a run");
        let partition = self.partitions.get_mut(&key).expect("known");
        if self.dead.is_some() || partition.truncating.is_some() || partition.is_named() {
            return Ok(());
        }
        let slot = node.slots[&key];
        let bounds = node.store.bounds(slot);
        let (start, end) = (bounds.log_start.get().0, bounds.log_end.get().0);
        let target = start + self.world.below((end - start) as u64 + 1) as i64;
        if node.store.truncate_to(slot, Offset(target)).is_ok() && target < end {
            partition.truncating = Some(target);
            partition.copied = None;
            self.world.mark("truncate");
        }
        Ok(())
    }

    /// A truncation is through as soon as the log ends there.
    pub(super) fn follow_truncation(&mut self, key: PartitionKey) -> Verdict {
        let node = self.node.as_ref().expect("a run");
        let partition = self.partitions.get_mut(&key).expect("known");
        let end = node.store.bounds(node.slots[&key]).log_end.get().0;
        let Some(target) = partition.truncating.filter(|target| end <= *target) else { return Ok(()) };
        partition.truncating = None;
        partition.oracle.truncated(End::Stop, target, end)?;
        partition.renew_producer();
        self.reads.retain(|_, (of, ..)| *of != key);
        self.world.mark("truncated");
        Ok(())
    }

    /// Deletes a partition and makes another one in its place.
    pub(super) fn recreate(&mut self, key: PartitionKey) -> Verdict {
        if self.dead.is_some() {
            return Ok(());
        }
        let node = self.node.as_mut().expect("a run");
        let slot = node.slots.remove(&key).expect("known");
        node.store.delete(slot);
        let old = self.partitions.remove(&key).expect("known");
        self.gone.insert(key, old.dir);
        self.reads.retain(|_, (of, ..)| *of != key);
        let new = self.add_partition();
        let log = self.partitions[&new].log.clone();
        let node = self.node.as_mut().expect("a run");
        let slot = node.store.create(new, log);
        node.slots.insert(new, slot);
        self.world.mark("recreate");
        Ok(())
    }

    /// A partition is said to be gone.
    pub(super) fn deleted(&mut self, key: PartitionKey) -> Verdict {
        let Some(dir) = self.gone.get(&key).cloned() else {
            return Err(format!("{key:?} is deleted, and nobody asked for it"));
        };
        if self.troubled || self.plan.tight {
            return Ok(());
        }
        self.gone.remove(&key);
        let left = self.node().io.list_dir(&dir).unwrap_or_default();
        let durable = self.world.flushed_bytes(&dir.join("state"));
        if !left.is_empty() || durable.is_some() {
            return Err(format!("{key:?} is deleted, and {left:?} is there"));
        }
        Ok(())
    }
}
