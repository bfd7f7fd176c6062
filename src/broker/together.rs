//! What the shards of one broker share: the image in force, and how they stop. Nothing here is touched on the hot path but by one load.
//! Whether their log directory is dead they learn elsewhere, with their logs (`log/fate.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::base::board::Board;
use crate::controller::published::Published;
use crate::server::quota::ConnectionQuota;

pub struct Together {
    pub published: Published,
    /// Of all connections.
    pub quota: ConnectionQuota,
    /// What they tell of themselves.
    pub board: Arc<Board>,
    stop: AtomicBool,
    /// Shards that may still have connections: as long as there are any, all answer.
    serving: AtomicUsize,
}

impl Together {
    pub fn new(published: Published, board: Board) -> Together {
        let shards = board.rows().len();
        Together {
            published,
            quota: ConnectionQuota::default(),
            board: Arc::new(board),
            stop: AtomicBool::new(false),
            serving: AtomicUsize::new(shards),
        }
    }

    /// Every shard begins its orderly stop at its next turn.
    pub fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// One shard has no connections any more, and asks nothing of the others.
    pub fn has_drained(&self) {
        self.serving.fetch_sub(1, Ordering::AcqRel);
    }

    pub fn all_drained(&self) -> bool {
        self.serving.load(Ordering::Acquire) == 0
    }
}
