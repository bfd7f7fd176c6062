//! The lanes of a mesh: how many letters fit, and who holds which end.

use crate::base::ids::ShardId;
use crate::base::limits::{LANE_CREDITS_ALL, LANE_CREDITS_MAX, LANE_CREDITS_MIN};
use crate::io::Waker;
use crate::io::lane::{Receiver, Sender, lane};
use crate::router::letter::Letter;

/// Least number of letters without a credit that a lane has room for.
const EXTRAS_MIN: usize = 16;

/// How the lanes of a mesh are made. The same for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lanes {
    /// Requests that one shard may have unanswered at one other; at least 1.
    pub credits: usize,
    /// Record bytes that one shard may have unanswered at one other; one request passes whatever its size.
    pub bytes_max: usize,
    pub planted: Option<Planted>,
}

/// Bugs that a harness must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Owners that wait are not told of the news that another owner had.
    HurryLost,
    /// A lane has no room set aside for replies.
    NoRoomForReplies,
    /// A reply that comes after its request was answered without it does not return the credit.
    LateReplyKeepsCredit,
}

impl Lanes {
    /// Fewer credits for each lane the more shards there are, so that the lanes of all take bounded memory.
    pub fn of(shards: usize, bytes_max: usize) -> Lanes {
        let credits = (LANE_CREDITS_ALL / shards.max(1)).clamp(LANE_CREDITS_MIN, LANE_CREDITS_MAX);
        Lanes { credits, bytes_max, planted: None }
    }

    /// Letters that need no credit and return none, on their way in one lane.
    pub(super) fn extras(self) -> usize {
        self.credits.max(EXTRAS_MIN)
    }

    /// Room for the requests of one side, the credits returned to the other, and extras.
    fn capacity(self) -> usize {
        match self.planted {
            Some(Planted::NoRoomForReplies) => self.credits,
            _ => 2 * self.credits + self.extras(),
        }
    }
}

/// The lanes between this shard and one other.
pub struct Link {
    pub(super) peer: ShardId,
    pub(super) out: Sender<Letter>,
    pub(super) inbox: Receiver<Letter>,
    pub(super) waker: Waker,
    pub(super) lanes: Lanes,
}

/// The links of each shard to all others, by shard. `wakers` has one of each, in order.
pub fn links(wakers: &[Waker], lanes: Lanes) -> Vec<Vec<Link>> {
    let shards = wakers.len();
    let mut links: Vec<Vec<Link>> = (0..shards).map(|_| Vec::with_capacity(shards)).collect();
    for a in 0..shards {
        for b in a + 1..shards {
            let (to_b, from_a) = lane(lanes.capacity());
            let (to_a, from_b) = lane(lanes.capacity());
            let id = |shard: usize| ShardId(shard as u16);
            links[a].push(Link { peer: id(b), out: to_b, inbox: from_b, waker: wakers[b].clone(), lanes });
            links[b].push(Link { peer: id(a), out: to_a, inbox: from_a, waker: wakers[a].clone(), lanes });
        }
    }
    links
}
