//! How one shard's share of `memory` is divided: blocks for records, receive buffers, and what connections may hold besides.
//!
//! All of it together stays under `memory` and a margin for everything that is not counted. What connections hold is never taken unless
//! they hold it, but it must fit all the same: the resident size is a promise.

use crate::base::limits::RECV_BUF_BYTES;

/// Share of the memory that receive buffers take, and their number's bounds.
const RECV_SHARE: u64 = 16;
const RECV_BUFFERS_MIN: u64 = 64;
const RECV_BUFFERS_MAX: u64 = 1024;

/// Share of its blocks that a shard's connections may hold besides them: half frames, waiting requests, answers not taken.
const HELD_SHARE: u64 = 4;

/// Share of its blocks that record bytes on their way to other shards may take, all those shards together.
const LANES_SHARE: u64 = 16;

/// A request larger than this share of the blocks could never be stored.
const REQUEST_SHARE: u64 = 2;

/// Of the 64 MiB that a broker may take beyond `memory`, what all connections together may use: the rest is code, stacks, metadata.
const MARGIN_BYTES: u64 = 32 << 20;

/// Receive buffers of a shard that has `share` bytes.
pub fn recv_buffers(share: u64) -> u64 {
    (share / RECV_SHARE / RECV_BUF_BYTES as u64).clamp(RECV_BUFFERS_MIN, RECV_BUFFERS_MAX)
}

/// Bytes of blocks of a shard that has `share` bytes of `shards` equal ones, with requests of at most `request_bytes_max`.
pub fn pool_bytes(share: u64, shards: u64, request_bytes_max: u64) -> u64 {
    let free = share.saturating_sub(recv_buffers(share) * RECV_BUF_BYTES as u64);
    let all = free + MARGIN_BYTES / shards.max(1);
    // Blocks, what connections hold, what is on its way, and one request over that limit; the request is bounded by the blocks or by
    // itself. In sixteenths of the blocks.
    let lanes = if shards > 1 { 16 / LANES_SHARE } else { 0 };
    let parts = 16 + 16 / HELD_SHARE + lanes;
    let by_blocks = all * 16 / (parts + 16 / REQUEST_SHARE);
    let by_request = all.saturating_sub(request_bytes_max) * 16 / parts;
    by_blocks.max(by_request).min(free)
}

/// What connections of a shard may hold besides its blocks. Inboxes that wait may hold as much again: each has half of the share.
pub fn held_bytes_max(pool_bytes: u64) -> u64 {
    pool_bytes / HELD_SHARE / 2
}

/// Record bytes that a shard with `pool_bytes` of blocks may have on their way to one of the others.
pub fn lane_bytes_max(pool_bytes: u64, shards: u64) -> usize {
    (pool_bytes / LANES_SHARE / shards.saturating_sub(1).max(1)) as usize
}

/// The largest request of a shard.
pub fn request_bytes_max(pool_bytes: u64, configured: usize) -> usize {
    configured.min((pool_bytes / REQUEST_SHARE) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_fits_into_the_memory_and_its_margin() {
        for shards in [1, 2, 3, 4, 16, 64] {
            for memory in [32u64 << 20, 64 << 20, 128 << 20, 1 << 30, 16 << 30] {
                for request in [1 << 20, 100 << 20] {
                    let share = memory / shards;
                    let pool = pool_bytes(share, shards, request);
                    let recv = recv_buffers(share) * RECV_BUF_BYTES as u64;
                    let large = request_bytes_max(pool, request as usize) as u64;
                    let lanes = (shards - 1) * lane_bytes_max(pool, shards) as u64;
                    let all = shards * (recv + pool + 2 * held_bytes_max(pool) + lanes + large);
                    // Receive buffers have a least number, which little memory for many shards does not cover.
                    let least = shards * RECV_BUFFERS_MIN * RECV_BUF_BYTES as u64;
                    assert!(all <= memory.max(least) + MARGIN_BYTES, "{shards} shards of {memory}: {all}");
                }
            }
        }
    }

    #[test]
    fn one_shard_with_little_memory_has_nearly_all_of_it_in_blocks() {
        assert!(pool_bytes(64 << 20, 1, 100 << 20) > 50 << 20);
        assert!(pool_bytes(1 << 30, 1, 100 << 20) > 650 << 20);
    }
}
