//! What a request took, stage by stage: the stamp vector of each request in flight, and the counters of a shard.
//!
//! Recording into histograms and exporting come later; the stamps are taken from the first produce path on, because a stage
//! that was not stamped cannot be explained afterwards.

/// Boundaries of the stages of a request, in the order in which a produce request passes them. A fetch has no write: it uses
/// `Submitted` for the moment its reads were entered, `Written` when the last one completed, and `Parked`, `Woken` around its wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Stamp {
    FirstByte,
    Rx,
    Parsed,
    Owned,
    Appended,
    Submitted,
    Written,
    Durable,
    Committed,
    Parked,
    Woken,
    Replied,
    Send,
    Sent,
}

const STAMPS: usize = Stamp::Sent as usize + 1;

/// Nanoseconds of the monotonic clock at each boundary; 0 where the request did not pass it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stamps([u64; STAMPS]);

impl Stamps {
    pub fn set(&mut self, stamp: Stamp, now_ns: u64) {
        self.0[stamp as usize] = now_ns;
    }

    pub fn get(&self, stamp: Stamp) -> u64 {
        self.0[stamp as usize]
    }
}

/// Counters of one shard. Single writer; read by merging copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub requests_total: u64,
    pub produce_bytes_total: u64,
    pub fetch_sent_bytes_total: u64,
    /// Record bytes that a fetch copied in user space before sending them. The target is at most 1 % of `fetch_sent_bytes_total`.
    pub fetch_copied_bytes_total: u64,
    pub commits_total: u64,
    pub flushes_total: u64,
    pub commit_bytes_total: u64,
    pub zero_ahead_waits_total: u64,
    pub tail_hit_bytes_total: u64,
    pub tail_miss_bytes_total: u64,
    pub connections_accepted_total: u64,
    pub connections_closed_total: u64,
}
