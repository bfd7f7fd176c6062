//! What a request took, stage by stage: the stamp vector of each request in flight, and the counters of a shard.

/// Boundaries of the stages of a request, in the order in which a produce request passes them. A fetch has no write: it uses
/// `Submitted` for the moment its reads were planned, `Written` when its records were there, and `Parked`, `Woken` around its wait.
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

pub const STAMPS: usize = Stamp::Sent as usize + 1;

/// Which boundaries a request passes, and in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(usize)]
pub enum Path {
    Produce,
    Fetch,
    #[default]
    Other,
}

impl Path {
    /// From the last byte received to the last byte sent.
    pub const fn stamps(self) -> &'static [Stamp] {
        use Stamp::*;
        match self {
            Path::Produce => {
                &[Rx, Parsed, Owned, Appended, Submitted, Written, Durable, Committed, Replied, Send, Sent]
            }
            Path::Fetch => &[Rx, Parsed, Owned, Parked, Woken, Submitted, Written, Replied, Send, Sent],
            Path::Other => &[Rx, Parsed, Replied, Send, Sent],
        }
    }
}

/// Nanoseconds of the monotonic clock at each boundary; 0 where the request did not pass it. `Rx`, `Parsed` and `Appended` are a request's
/// own. The others belong to a completion, a commit or a send and are the time of its turn, so that two of one turn may be equal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stamps {
    pub path: Path,
    at: [u64; STAMPS],
}

impl Stamps {
    pub fn set(&mut self, stamp: Stamp, now_ns: u64) {
        self.at[stamp as usize] = now_ns;
    }

    /// Sets a stamp whose time is that of its turn, which began before `behind` was taken if that was in the same turn.
    pub fn set_behind(&mut self, stamp: Stamp, behind: Stamp, turn_ns: u64) {
        self.set(stamp, turn_ns.max(self.get(behind)));
    }

    pub fn get(&self, stamp: Stamp) -> u64 {
        self.at[stamp as usize]
    }

    /// Takes over what another room of the broker stamped.
    pub fn merge(&mut self, others: &Stamps) {
        for (at, other) in self.at.iter_mut().zip(others.at) {
            *at = (*at).max(other);
        }
    }
}

/// Where the time of the requests of one path went. Single writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    pub requests_total: u64,
    /// From the last byte received to the last byte sent: the sum of all stages.
    pub total_ns: u64,
    /// Of the stage that ends at each stamp.
    pub stage_ns: [u64; STAMPS],
    /// Requests that passed each stamp.
    pub passed_total: [u64; STAMPS],
    /// Stamps that were earlier than the one before them, which count as stages of 0 ns. A bug wherever it is not 0.
    pub negative_total: u64,
}

impl Stages {
    /// Adds a request whose last byte was sent.
    pub fn record(&mut self, stamps: &Stamps) {
        self.requests_total += 1;
        let rx = stamps.get(Stamp::Rx);
        let mut last = rx;
        for stamp in stamps.path.stamps() {
            let at = stamps.get(*stamp);
            if at == 0 {
                continue;
            }
            self.passed_total[*stamp as usize] += 1;
            self.negative_total += u64::from(at < last);
            self.stage_ns[*stamp as usize] += at.saturating_sub(last);
            last = last.max(at);
        }
        self.total_ns += last - rx;
    }
}

/// Counters of one shard. Single writer; read by merging copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub requests_total: u64,
    pub produce_bytes_total: u64,
    pub commits_total: u64,
    pub flushes_total: u64,
    pub commit_bytes_total: u64,
    /// Segment files that were made anew, and those made of a retired segment's.
    pub segments_made_total: u64,
    pub segments_recycled_total: u64,
    /// Zeros written ahead of appends.
    pub zeroed_bytes_total: u64,
    pub zero_ahead_waits_total: u64,
    pub tail_hit_bytes_total: u64,
    pub tail_miss_bytes_total: u64,
}
