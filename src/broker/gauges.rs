//! What a shard writes on the board for others to read: totals ten times a second, shares and memory once.

use std::sync::Arc;

use super::pump::Node;
use crate::base::board::{Board, Figure, Row};
use crate::base::limits::BLOCK_BYTES;
use crate::base::metrics::Path;
use crate::io::Mono;

/// How old a total may be on a shard that turns. A sleep is no longer.
const WRITE_MS: u64 = 100;

/// Over how long shares are taken.
const WINDOW_MS: u64 = 1_000;

/// The times of one shard.
pub struct Gauges {
    board: Arc<Board>,
    began: Mono,
    slept_ns: u64,
    next_write: Mono,
    window: Window,
}

/// Where the window of the shares began.
#[derive(Clone, Copy)]
struct Window {
    since: Mono,
    slept_ns: u64,
    cpu_ns: u64,
}

impl Gauges {
    pub fn new(board: Arc<Board>, now: Mono) -> Gauges {
        let window = Window { since: now, slept_ns: 0, cpu_ns: 0 };
        Gauges { board, began: now, slept_ns: 0, next_write: Mono(0), window }
    }

    /// A turn that might sleep took from `from` to `to`.
    pub fn slept(&mut self, from: Mono, to: Mono) {
        self.slept_ns += to.0.saturating_sub(from.0);
    }

    fn row(&self, node: &Node) -> &Row {
        self.board.row(node.shard.id())
    }
}

/// Thousandths.
fn permille(part_ns: u64, whole_ns: u64) -> u64 {
    (part_ns * 1_000).checked_div(whole_ns).unwrap_or(0).min(1_000)
}

impl Node {
    /// Once per turn; writes where it is time.
    pub(super) fn write_figures(&mut self, now: Mono) {
        if now < self.gauges.next_write {
            return;
        }
        self.gauges.next_write = now.plus_ms(WRITE_MS);
        let cpu_ns = self.io.cpu_ns();
        self.write_totals(now, cpu_ns);
        let window = self.gauges.window;
        if now.since_ms(window.since) < WINDOW_MS {
            return;
        }
        let pool = self.io.pool();
        let (free, mapped, max) = (pool.available(), pool.blocks_mapped(), pool.blocks_max());
        let row = self.gauges.row(self);
        row.set(Figure::PoolUsed, ((mapped - free) * BLOCK_BYTES) as u64);
        row.set(Figure::PoolTotal, (max * BLOCK_BYTES) as u64);
        let elapsed = now.0 - window.since.0;
        let slept = self.gauges.slept_ns - window.slept_ns;
        row.set(Figure::BusyPermille, permille(elapsed.saturating_sub(slept), elapsed));
        row.set(Figure::CpuPermille, permille(cpu_ns - window.cpu_ns, elapsed));
        self.gauges.window = Window { since: now, slept_ns: self.gauges.slept_ns, cpu_ns };
    }

    fn write_totals(&self, now: Mono, cpu_ns: u64) {
        let (row, gauges, server) = (self.gauges.row(self), &self.gauges, &self.server);
        row.written_at(now.0);
        let (counters, hops) = (self.shard.counters(), self.router.hops());
        let requests =
            [Path::Produce, Path::Fetch, Path::Other].map(|path| server.stages(path).requests_total);
        let elapsed = now.0.saturating_sub(gauges.began.0);
        for (figure, value) in [
            (Figure::Elapsed, elapsed),
            (Figure::Busy, elapsed.saturating_sub(gauges.slept_ns)),
            (Figure::Cpu, cpu_ns),
            (Figure::Partitions, self.shard.partitions() as u64),
            (Figure::Requests, requests.iter().sum()),
            (Figure::BytesIn, server.received_bytes_total),
            (Figure::BytesOut, server.sent_bytes_total),
            (Figure::FetchSent, server.fetched.sent),
            (Figure::FetchCopied, server.fetched.copied),
            (Figure::Commits, counters.commits_total),
            (Figure::Flushes, counters.flushes_total),
            (Figure::CommitBytes, counters.commit_bytes_total),
            (Figure::SegmentsMade, counters.segments_made_total),
            (Figure::SegmentsRecycled, counters.segments_recycled_total),
            (Figure::Zeroed, counters.zeroed_bytes_total),
            (Figure::Accepted, server.accepted_total),
            (Figure::Closed, server.closed_total),
            (Figure::HandedOver, server.handed_over_total),
            (Figure::Adopted, server.adopted_total),
            (Figure::HopsSent, hops.sent_total),
            (Figure::HopsServed, hops.served_total),
            (Figure::HopsHeldBack, hops.held_back_total),
            (Figure::HopsLate, hops.late_total),
            (Figure::HopsCopied, hops.copied_bytes_total),
            (Figure::LaneDepth, hops.depth_max),
        ] {
            row.set(figure, value);
        }
    }
}
