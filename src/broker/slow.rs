//! A shard that is slow on purpose, so that tests see what others suffer from it: by environment, and only in builds with debug assertions.

use std::time::Duration;

use crate::base::ids::ShardId;

/// How long this shard sleeps in each turn, from `CORELOG_TEST_SLOW_SHARD=SHARD:MS`.
pub fn pause(shard: ShardId) -> Option<Duration> {
    let text = std::env::var("CORELOG_TEST_SLOW_SHARD").ok().filter(|_| cfg!(debug_assertions))?;
    let (which, ms) = text.split_once(':')?;
    let (which, ms): (u16, u64) = (which.parse().ok()?, ms.parse().ok()?);
    (which == shard.0).then(|| {
        tracing::warn!(shard = which, ms, "sleeping in each turn");
        Duration::from_millis(ms)
    })
}
