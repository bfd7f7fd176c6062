//! The leader-epoch cache of a partition: where each leadership began. It answers OffsetForLeaderEpoch (KIP-101, KIP-320), by which
//! consumers and replicas find out what they share with this log.

use crate::base::ids::LeaderEpoch;
use crate::base::limits::LEADER_EPOCHS_KEPT;
use crate::base::offset::Offset;

/// Epochs with the offset of their first record: both grow, the starts strictly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochCache {
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl EpochCache {
    /// The cache with these entries; none if they do not grow.
    pub fn from_entries(entries: Vec<(LeaderEpoch, Offset)>) -> Option<EpochCache> {
        let grows = entries.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1);
        (grows && entries.len() <= LEADER_EPOCHS_KEPT).then_some(EpochCache { entries })
    }

    pub fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }

    /// The newest epoch, or [`LeaderEpoch::NONE`].
    pub fn latest(&self) -> LeaderEpoch {
        self.entries.last().map_or(LeaderEpoch::NONE, |e| e.0)
    }

    /// Notes that `epoch` begins at `start`. Epochs that began there or later hold no record and go. An epoch that is not newer than the
    /// newest changes nothing. True if something changed.
    pub fn assign(&mut self, epoch: LeaderEpoch, start: Offset) -> bool {
        if epoch <= self.latest() {
            return false;
        }
        self.truncate_end(start);
        if self.entries.len() == LEADER_EPOCHS_KEPT {
            self.entries.remove(0);
        }
        self.entries.push((epoch, start));
        true
    }

    /// The largest epoch at or below `asked`, with its end: the start of the next one, or `log_end`. As Kafka: an epoch older than all that
    /// are known answers with itself and where the first known one begins (its records are deleted); without any entry (-1, -1).
    pub fn end_offset_for(&self, asked: LeaderEpoch, log_end: Offset) -> (LeaderEpoch, Offset) {
        const NONE: (LeaderEpoch, Offset) = (LeaderEpoch::NONE, Offset(-1));
        if asked < LeaderEpoch(0) {
            return NONE;
        }
        let above = self.entries.partition_point(|e| e.0 <= asked);
        let end = self.entries.get(above).map_or(log_end, |next| next.1);
        match above.checked_sub(1) {
            Some(floor) => (self.entries[floor].0, end),
            None if self.entries.is_empty() => NONE,
            None => (asked, end),
        }
    }

    /// Where records of `epoch` end because a newer one began there; none if none did.
    pub fn end_of(&self, epoch: LeaderEpoch) -> Option<Offset> {
        let above = self.entries.partition_point(|e| e.0 <= epoch);
        self.entries.get(above).map(|next| next.1)
    }

    /// The epoch of the record at `offset`, or [`LeaderEpoch::NONE`] below the first entry.
    pub fn epoch_at(&self, offset: Offset) -> LeaderEpoch {
        let above = self.entries.partition_point(|e| e.1 <= offset);
        above.checked_sub(1).map_or(LeaderEpoch::NONE, |i| self.entries[i].0)
    }

    /// At `start` the log was still at `epoch`: newer ones that were noted to begin before did not.
    pub fn retract(&mut self, epoch: LeaderEpoch, start: Offset) {
        self.entries.retain(|e| e.0 <= epoch || e.1 >= start);
    }

    /// Forgets epochs that begin at `end` or behind it: the log ends there now.
    pub fn truncate_end(&mut self, end: Offset) {
        self.entries.truncate(self.entries.partition_point(|e| e.1 < end));
    }

    /// Forgets epochs that end at or below `log_start`; the one in effect there begins there now.
    pub fn truncate_start(&mut self, log_start: Offset) {
        let above = self.entries.partition_point(|e| e.1 <= log_start);
        if above > 0 {
            self.entries.drain(..above - 1);
            self.entries[0].1 = log_start;
        }
    }
}
