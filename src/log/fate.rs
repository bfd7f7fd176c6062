//! Whether a log directory is dead: one word for all stores of a process that write into it.
//!
//! The shards' files lie on one device. What a failed write or flush of one of them has lost may be what another had written and not yet flushed, and
//! that one's next flush succeeds all the same. So whoever sees a failure says so here at once, and every store looks here before it takes an
//! append, moves a high watermark or lets acks leave. Looking is one atomic load of a line that nobody writes while all is well.
//!
//! What is left is a race that no flag can win: an ack may be on its way out of its shard while another shard takes the completion.
//!
//! Why not a letter to each shard: it would lie in a lane while acks leave.

use std::sync::{Arc, OnceLock};

use crate::base::ids::ShardId;

/// One shard's view of a directory's fate; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Fate {
    shard: ShardId,
    death: Arc<OnceLock<Death>>,
}

#[derive(Debug)]
struct Death {
    seen_by: ShardId,
    why: String,
}

impl Fate {
    /// The same directory as this shard sees it.
    pub fn of(&self, shard: ShardId) -> Fate {
        Fate { shard, ..self.clone() }
    }

    /// This shard saw a write or a flush fail: final until a restart. The first failure is the one that is told.
    pub fn die(&self, why: String) {
        // An error says that another was first.
        let _ = self.death.set(Death { seen_by: self.shard, why });
    }

    pub fn is_dead(&self) -> bool {
        self.death.get().is_some()
    }

    /// Why the directory is dead, and which shard saw it where that was another one.
    pub fn why(&self) -> Option<String> {
        let Death { seen_by, why } = self.death.get()?;
        Some(if *seen_by == self.shard { why.clone() } else { format!("{why} (seen by shard {seen_by})") })
    }
}
