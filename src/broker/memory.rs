//! How one shard's share of `memory` is divided: blocks for records, receive buffers, and what connections may hold besides.
//!
//! All of it together stays under `memory` and a margin for everything that is not counted. What connections hold is never taken unless
//! they hold it, but it must fit all the same: the resident size is a promise. A start whose shards would get too little is refused.

use super::failures;
use crate::base::error::Fatal;
use crate::base::limits::{BLOCK_BYTES, RECV_BUF_BYTES};
use crate::config::broker::memory_default;

/// Share of the memory that receive buffers take, and the bounds of their number.
const RECV_SHARE: u64 = 16;
const RECV_BUFFERS_FEW: u64 = 16;
const RECV_BUFFERS_MAX: u64 = 1024;

/// Of little memory they take a larger share, down to a number with which a driver still has some free while it waits for others.
const RECV_SHARE_MAX: u64 = 4;
const RECV_BUFFERS_MIN: u64 = 8;

/// Share of its blocks that a shard's connections may hold besides them: half frames, waiting requests, answers not taken.
const HELD_SHARE: u64 = 8;

/// And that what they sent and must wait may take besides: about twice the receive buffers, which arrive before all have been told to
/// send no more.
const INBOX_SHARE: u64 = 6;

/// Share of its blocks that record bytes on their way to other shards may take, all those shards together.
const LANES_SHARE: u64 = 16;

/// All shares are whole numbers of so many parts of the blocks.
const WHOLE: u64 = 48;

/// A request larger than this share of the blocks could never be stored.
const REQUEST_SHARE: u64 = 2;

/// What producers send by default must fit: a batch of Kafka's default `max.message.bytes`, and the frame around it.
const REQUEST_BYTES_MIN: u64 = 1_048_588 + (64 << 10);

/// Least blocks of a shard that serves.
const POOL_BYTES_MIN: u64 = (REQUEST_SHARE * REQUEST_BYTES_MIN).next_multiple_of(BLOCK_BYTES as u64);

/// Of the 64 MiB that a broker may take beyond `memory`, what all connections together may use: the rest is code, stacks, metadata.
const MARGIN_BYTES: u64 = 32 << 20;

/// `memory` of a broker of `shards` on a machine that lets it use `usable` bytes: what is configured, or the default. Refused where a
/// shard could not take a request of the usual size.
pub fn total(
    configured: Option<u64>,
    usable: u64,
    shards: u16,
    request_bytes_max: u64,
) -> Result<u64, Fatal> {
    let memory = configured.unwrap_or_else(|| memory_default(usable, shards));
    let fits = |memory, shards| serves(memory, u64::from(shards), request_bytes_max);
    if fits(memory, shards) {
        return Ok(memory);
    }
    let found = match configured {
        Some(_) => format!("memory={}", mib(memory)),
        None => format!("{}, as this process may use {}", mib(memory), mib(usable)),
    };
    let least = (1..).map(|mib| mib << 20).find(|memory| fits(*memory, shards)).unwrap_or(u64::MAX);
    let fewer = (1..shards).rev().find(|fewer| fits(memory, *fewer));
    Err(failures::memory_small(shards, found, &mib(least), fewer))
}

/// Each of `shards` gets what it needs.
fn serves(memory: u64, shards: u64, request_bytes_max: u64) -> bool {
    pool_bytes(memory / shards, shards, request_bytes_max) >= POOL_BYTES_MIN
}

fn mib(bytes: u64) -> String {
    format!("{}MiB", bytes >> 20)
}

/// Receive buffers of a shard that has `share` bytes.
pub fn recv_buffers(share: u64) -> u64 {
    let all = share / RECV_BUF_BYTES as u64;
    let most = (all / RECV_SHARE_MAX).max(RECV_BUFFERS_MIN);
    (all / RECV_SHARE).clamp(RECV_BUFFERS_FEW, RECV_BUFFERS_MAX).min(most)
}

/// Bytes of blocks of a shard that has `share` bytes of `shards` equal ones, with requests of at most `request_bytes_max`.
pub fn pool_bytes(share: u64, shards: u64, request_bytes_max: u64) -> u64 {
    let free = share.saturating_sub(recv_buffers(share) * RECV_BUF_BYTES as u64);
    let all = free + MARGIN_BYTES / shards.max(1);
    // Blocks, what connections hold, what is on its way, and one request over that limit; the request is bounded by the blocks or by
    // itself.
    let lanes = if shards > 1 { WHOLE / LANES_SHARE } else { 0 };
    let parts = WHOLE + WHOLE / HELD_SHARE + WHOLE / INBOX_SHARE + lanes;
    let by_blocks = all * WHOLE / (parts + WHOLE / REQUEST_SHARE);
    let by_request = all.saturating_sub(request_bytes_max) * WHOLE / parts;
    by_blocks.max(by_request).min(free)
}

/// What connections of a shard may hold besides its blocks.
pub fn held_bytes_max(pool_bytes: u64) -> u64 {
    pool_bytes / HELD_SHARE
}

/// What those that wait may have sent.
pub fn inbox_bytes_max(pool_bytes: u64) -> u64 {
    pool_bytes / INBOX_SHARE
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

    const REQUEST: u64 = 100 << 20;

    #[test]
    fn everything_fits_into_the_memory_and_its_margin() {
        for shards in [1, 2, 3, 4, 16, 64] {
            for memory in [32u64 << 20, 64 << 20, 128 << 20, 256 << 20, 1 << 30, 16 << 30] {
                for request in [1 << 20, 100 << 20] {
                    let share = memory / shards;
                    let pool = pool_bytes(share, shards, request);
                    let recv = recv_buffers(share) * RECV_BUF_BYTES as u64;
                    let large = request_bytes_max(pool, request as usize) as u64;
                    let lanes = (shards - 1) * lane_bytes_max(pool, shards) as u64;
                    let held = held_bytes_max(pool) + inbox_bytes_max(pool);
                    let all = shards * (recv + pool + held + lanes + large);
                    assert!(all <= memory + MARGIN_BYTES, "{shards} shards of {memory}: {all}");
                }
            }
        }
    }

    // Receive buffers took the whole share: the broker said that it serves, and closed every connection.
    #[test]
    fn what_is_not_refused_takes_a_request_of_the_usual_size() {
        for shards in [1, 2, 3, 4, 8, 16, 64, 256, 1024] {
            for mib in [16, 32, 64, 128, 256, 1024, 4096, 16384] {
                for request in [1 << 20, REQUEST] {
                    let Ok(memory) = total(Some(mib << 20), 64 << 30, shards, request) else { continue };
                    let pool = pool_bytes(memory / u64::from(shards), u64::from(shards), request);
                    let takes = request_bytes_max(pool, REQUEST as usize) as u64;
                    assert!(takes >= REQUEST_BYTES_MIN, "{shards} shards of {mib} MiB: {takes}");
                }
            }
        }
        for (shards, mib) in [(1, 16), (4, 16), (8, 32), (16, 64), (64, 512)] {
            assert_eq!(total(Some(mib << 20), 64 << 30, shards, REQUEST), Ok(mib << 20), "{shards} of {mib}");
        }
    }

    #[test]
    fn too_little_memory_names_the_least_that_works_and_fewer_shards() {
        let refused = total(Some(128 << 20), 64 << 30, 64, REQUEST).expect_err("2 MiB each");
        assert_eq!((refused.code, refused.found.as_str()), ("bad-config-value", "memory=128MiB"));
        let least = refused.tries[0].strip_prefix("-X memory=").and_then(|least| least.strip_suffix("MiB"));
        let least: u64 = least.and_then(|mib| mib.parse().ok()).expect("a number of MiB");
        assert_eq!(total(Some(least << 20), 64 << 30, 64, REQUEST), Ok(least << 20));
        assert!(total(Some((least - 1) << 20), 64 << 30, 64, REQUEST).is_err());
        let fewer = refused.tries[1].strip_prefix("--shards ").and_then(|t| t.strip_suffix(" or fewer"));
        let fewer: u16 = fewer.and_then(|shards| shards.parse().ok()).expect("a number of shards");
        assert!(total(Some(128 << 20), 64 << 30, fewer, REQUEST).is_ok());
        assert!(total(Some(128 << 20), 64 << 30, fewer + 1, REQUEST).is_err());
    }

    // 1024 shards took 32 GiB of a machine that has 24.
    #[test]
    fn the_default_serves_and_leaves_half_of_the_machine_or_is_refused() {
        for usable_mib in [64, 100, 512, 2 << 10, 24 << 10, 512 << 10] {
            for shards in [1, 2, 4, 16, 64, 256, 1024] {
                match total(None, usable_mib << 20, shards, REQUEST) {
                    Ok(memory) => assert!(memory <= (usable_mib << 20) / 2, "{shards} of {usable_mib} MiB"),
                    Err(refused) => assert!(usable_mib < u64::from(shards) * 12, "{usable_mib}: {refused}"),
                }
            }
        }
        let refused = total(None, 2 << 30, 1024, REQUEST).expect_err("1 MiB each");
        assert!(refused.found.contains("2048MiB") && refused.tries[1].starts_with("--shards "), "{refused}");
    }

    #[test]
    fn one_shard_with_little_memory_has_nearly_all_of_it_in_blocks() {
        assert!(pool_bytes(64 << 20, 1, 100 << 20) > 50 << 20);
        assert!(pool_bytes(1 << 30, 1, 100 << 20) > 650 << 20);
    }
}
