//! What each shard tells of itself to whoever asks: figures that any thread may read.
//!
//! A shard writes its own row, about ten times a second, so that its requests pay nothing for being counted. A row is not written at one
//! moment: two figures of it may differ by what happened in between.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::ids::ShardId;

/// A shard that has not written its row for so long is silent: new connections do not go there. Rows are written every 100 ms, late by at
/// most one turn and by what the machine has each thread wait: four rows in a row are missing. A shard that is called silent too soon
/// gets fewer connections for that moment, and more in the next.
const SILENT_NS: u64 = 500_000_000;

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// One figure of a shard. Totals begin with the process.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Figure {
            $($(#[$doc])* $name,)*
        }

        impl Figure {
            pub const ALL: &[Figure] = &[$(Figure::$name,)*];

            /// Its name for programs.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Figure::$name => $text,)*
                }
            }
        }
    };
}

figures! {
    /// Since the shard began to serve.
    Elapsed = "elapsed_ns",
    /// Of that: not asleep in its turn's one system call.
    Busy = "busy_ns",
    /// The same as a share of the last second.
    BusyPermille = "busy_permille",
    /// CPU time of the shard's thread, in the kernel included; 0 where it is not known.
    Cpu = "cpu_ns",
    CpuPermille = "cpu_permille",
    PoolUsed = "pool_used_bytes",
    PoolTotal = "pool_total_bytes",
    Partitions = "partitions",
    Requests = "requests_total",
    BytesIn = "received_bytes_total",
    BytesOut = "sent_bytes_total",
    /// Record bytes in answers to fetches.
    FetchSent = "fetch_sent_bytes_total",
    /// Of these, copied in user space to be sent. The target is at most 1 %.
    FetchCopied = "fetch_copied_bytes_total",
    Commits = "commits_total",
    Flushes = "flushes_total",
    /// Bytes that commits wrote: groups with their headers, the padding, and a 4 KiB block again for each write that goes on in it.
    CommitBytes = "commit_bytes_total",
    SegmentsMade = "segments_made_total",
    /// Made of a retired segment's file: nothing has to be zeroed.
    SegmentsRecycled = "segments_recycled_total",
    /// Zeros written ahead of appends.
    Zeroed = "zeroed_bytes_total",
    Accepted = "connections_accepted_total",
    Closed = "connections_closed_total",
    HandedOver = "connections_handed_over_total",
    Adopted = "connections_adopted_total",
    HopsSent = "hops_sent_total",
    HopsServed = "hops_served_total",
    HopsHeldBack = "hops_held_back_total",
    HopsLate = "hops_late_total",
    HopsCopied = "hops_copied_bytes_total",
    LaneDepth = "lane_depth_max",
}

/// What one shard tells.
#[derive(Debug)]
pub struct Row {
    /// The CPU that it is pinned to.
    pub cpu: Option<usize>,
    /// Connections that live there, or are on their way there. Any shard changes it.
    connections: AtomicU32,
    /// When it was last written, on the monotonic clock, which all shards share; 0: never.
    written_ns: AtomicU64,
    figures: [AtomicU64; Figure::ALL.len()],
}

impl Row {
    /// Only the shard itself may.
    pub fn set(&self, figure: Figure, value: u64) {
        self.figures[figure as usize].store(value, Ordering::Relaxed);
    }

    /// The shard writes its row now. Only the shard itself may.
    pub fn written_at(&self, now_ns: u64) {
        self.written_ns.store(now_ns, Ordering::Relaxed);
    }

    pub fn get(&self, figure: Figure) -> u64 {
        self.figures[figure as usize].load(Ordering::Relaxed)
    }

    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// The shard has done no turn for long, or none yet.
    fn is_silent(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.written_ns.load(Ordering::Relaxed)) > SILENT_NS
    }
}

/// The rows of all shards.
#[derive(Debug)]
pub struct Board {
    /// The name of the driver that all run on.
    pub runtime: &'static str,
    rows: Vec<Row>,
}

impl Board {
    /// With the CPU of each shard.
    pub fn new(runtime: &'static str, cpus: impl IntoIterator<Item = Option<usize>>) -> Board {
        let row = |cpu| Row {
            cpu,
            connections: AtomicU32::new(0),
            written_ns: AtomicU64::new(0),
            figures: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        Board { runtime, rows: cpus.into_iter().map(row).collect() }
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub fn row(&self, shard: ShardId) -> &Row {
        &self.rows[usize::from(shard.0)]
    }

    /// A connection came to live on a shard.
    pub fn joined(&self, shard: ShardId) {
        self.row(shard).connections.fetch_add(1, Ordering::Relaxed);
    }

    /// It is gone, or lives elsewhere.
    pub fn left(&self, shard: ShardId) {
        self.row(shard).connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// The shard with so few connections that one of `of`, who asks, should rather live there; none if `of` is as good as any that is not
    /// silent.
    pub fn better_home(&self, of: ShardId, now_ns: u64) -> Option<ShardId> {
        let heard = self.rows.iter().enumerate().filter(|(_, row)| !row.is_silent(now_ns));
        let (least, row) = heard.min_by_key(|(_, row)| row.connections())?;
        let better = row.connections() + 1 < self.row(of).connections();
        better.then_some(ShardId(least as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_spread_to_within_one() {
        let board = Board::new("none", [None, None, None]);
        board.rows().iter().for_each(|row| row.written_at(NOW_NS));
        let mut counts = spread(&board, 16, NOW_NS);
        counts.sort_unstable();
        assert_eq!(counts, [5, 5, 6]);
    }

    #[test]
    fn connections_do_not_go_to_shards_that_are_silent() {
        let board = Board::new("none", [None, None, None]);
        let written = |shard: u16, now_ns| board.row(ShardId(shard)).written_at(now_ns);
        written(2, NOW_NS);
        // Shard 0 has never written. Shard 1, who asks, has not either.
        assert_eq!(spread(&board, 4, NOW_NS + SILENT_NS), [0, 2, 2]);
        let later = NOW_NS + SILENT_NS + 1;
        assert_eq!(spread(&board, 4, later), [0, 6, 2]);
        // Each is heard again with its first row, which another's clock may be ahead of.
        written(0, later + 5);
        assert_eq!(spread(&board, 4, later), [4, 6, 2]);
        written(2, later);
        assert_eq!(spread(&board, 6, later), [6, 6, 6]);
    }

    const NOW_NS: u64 = 7_000_000_000;

    /// Has shard 1 accept `count` connections; how many each shard has then.
    fn spread(board: &Board, count: usize, now_ns: u64) -> Vec<u32> {
        for _ in 0..count {
            board.joined(ShardId(1));
            if let Some(to) = board.better_home(ShardId(1), now_ns) {
                board.left(ShardId(1));
                board.joined(to);
            }
        }
        board.rows().iter().map(Row::connections).collect()
    }

    #[test]
    fn each_figure_has_a_place_and_a_name_of_its_own() {
        let board = Board::new("none", [Some(3)]);
        let row = board.row(ShardId(0));
        for (at, figure) in Figure::ALL.iter().enumerate() {
            row.set(*figure, at as u64 + 1);
        }
        let names: std::collections::BTreeSet<&str> = Figure::ALL.iter().map(|f| f.name()).collect();
        assert_eq!(names.len(), Figure::ALL.len());
        assert!(Figure::ALL.iter().enumerate().all(|(at, figure)| row.get(*figure) == at as u64 + 1));
        assert_eq!(row.cpu, Some(3));
    }
}
