//! How many connections there may be: of the broker, and from one address (`max.connections`, `max.connections.per.ip` and its
//! overrides). Shared by the shards; taken at an accept and given back at a close, so a lock costs nothing that matters.
//!
//! Differs from Apache Kafka: at `max.connections` a new connection is closed like one too many from its address; Kafka leaves it in the
//! backlog until another one ends.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::budget::LargeFrame;
use crate::config::broker::BrokerConfig;

#[derive(Clone, Debug, Default)]
pub struct ConnectionQuota {
    counts: Arc<Mutex<Counts>>,
    pub(super) large_frame: LargeFrame,
}

#[derive(Debug, Default)]
struct Counts {
    total: u32,
    by_address: BTreeMap<IpAddr, u32>,
}

impl ConnectionQuota {
    /// Counts a connection from `address`; false if it is one too many, and then it is not counted.
    pub fn take(&self, address: IpAddr, config: &BrokerConfig) -> bool {
        let address = address.to_canonical();
        let mut counts = self.counts();
        let there = counts.by_address.get(&address).copied().unwrap_or(0);
        if counts.total >= config.connections_max || there >= config.connections_from_max(address) {
            return false;
        }
        counts.total += 1;
        counts.by_address.insert(address, there + 1);
        true
    }

    /// A counted connection is gone.
    pub fn give(&self, address: IpAddr) {
        let address = address.to_canonical();
        let mut counts = self.counts();
        counts.total -= 1;
        match counts.by_address.get_mut(&address) {
            Some(there) if *there > 1 => *there -= 1,
            _ => {
                counts.by_address.remove(&address);
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
