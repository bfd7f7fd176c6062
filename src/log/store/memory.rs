//! Hot path. Blocks: from the pool, or out of the tail cache. Logs are asked in turn, each for its oldest block; a block goes only when it is
//! flushed to its end. A reader that still holds a slice of it keeps the memory until it is done.

use super::Store;
use super::partition::mark_dirty;
use crate::base::limits::BLOCK_BYTES;
use crate::io::buffer::{Block, Pool};

/// Logs asked for one block before the caller has to wait.
const EVICT_ASKED_MAX: usize = 256;

/// Blocks evicted at once: to get back under `tail_cache_bytes`, or to find one that no reader holds.
const EVICT_PER_TURN_MAX: usize = 32;

/// After logs were asked in vain for what is above `tail_cache_bytes`, they are asked again this much later, or once a block is full.
const EVICT_AGAIN_MS: u64 = 1_000;

/// The partly filled block of a log that was used within this time is kept while memory is not short.
const KEEP_PARTIAL_MS: u64 = 10_000;

impl Store {
    /// A block that nothing uses.
    pub(super) fn take(&mut self, pool: &mut Pool) -> Option<Block> {
        if !self.core.reserve_for_jobs(pool) {
            self.core.memory_short = true;
            return None;
        }
        if let Some(block) = pool.take() {
            return Some(block);
        }
        for _ in 0..EVICT_PER_TURN_MAX {
            if !self.evict(0) {
                break;
            }
            if let Some(block) = pool.take_dropped() {
                return Some(block);
            }
        }
        self.core.memory_short = true;
        None
    }

    /// Evicts one block, if one may go. Partly filled ones only of logs that were not used for `keep_ms`.
    fn evict(&mut self, keep_ms: u64) -> bool {
        for _ in 0..self.core.cached.len().min(EVICT_ASKED_MAX) {
            let Some(index) = self.core.cached.pop_front() else { return false };
            let Some(log) = self.logs[index as usize].log.as_deref_mut() else { continue };
            if log.tail.blocks() == 0 {
                continue;
            }
            let partial = log.is_flushed() && self.core.now.since_ms(log.used) >= keep_ms;
            if log.tail.evict(log.ledger.durable().place, partial) {
                return true;
            }
            self.core.cached.push_back(index);
        }
        false
    }

    /// Once per turn: keeps the tail cache at its size, and flushes what is only written or in memory if blocks ran out.
    pub(super) fn relieve(&mut self, pool: &mut Pool) {
        let limit = self.core.config.tail_cache_bytes / BLOCK_BYTES;
        for _ in 0..EVICT_PER_TURN_MAX {
            if self.core.cached.len() <= limit || self.core.evict_at > self.core.now {
                break;
            }
            if !self.evict(KEEP_PARTIAL_MS) {
                self.core.evict_at = self.core.now.plus_ms(EVICT_AGAIN_MS);
            }
        }
        if !std::mem::take(&mut self.core.memory_short) {
            return;
        }
        for _ in 0..EVICT_PER_TURN_MAX {
            if self.core.reserve_for_jobs(pool) || !self.evict(0) {
                break;
            }
        }
        let Store { logs, core, .. } = self;
        let mut lazy = std::mem::take(&mut core.lazy);
        lazy.retain(|index| {
            let Some(log) = logs[*index as usize].log.as_deref_mut() else { return false };
            log.is_lazy = !log.is_flushed();
            if log.is_lazy {
                log.flush_now = true;
                mark_dirty(log, core);
            }
            log.is_lazy
        });
        core.lazy = lazy;
    }

    /// Evicts all flushed blocks of a log.
    #[cfg(test)]
    pub(in crate::log) fn evict_all_of(&mut self, slot: super::LogSlot) {
        if let Some((log, _)) = self.log_and_core(slot) {
            while log.tail.evict(log.ledger.durable().place, true) {}
        }
    }

    /// What each log waits for, for messages of failed tests.
    #[cfg(test)]
    pub(in crate::log) fn waits(&self) -> Vec<String> {
        let one = |log: &super::partition::Log| {
            format!(
                "{:?} jobs {} rounds {} in flight {} stop {:?} setup {:?} flush_now {} dirty {} todo {} stretches {:?} {:?} front {:?}",
                log.slot,
                log.jobs,
                log.rounds,
                log.ledger.in_flight(),
                log.stop,
                log.setup,
                log.flush_now,
                log.is_dirty,
                log.is_todo,
                log.stage.stretches,
                log.staged(),
                log.stage
                    .stretches
                    .front()
                    .and_then(|f| log.segment(f.ordinal))
                    .map(|s| (s.handle, s.writable, s.zeroed)),
            )
        };
        self.logs.iter().filter_map(|slot| slot.log.as_deref()).map(one).collect()
    }
}
