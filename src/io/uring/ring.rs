//! The kernel's queues: building them with the best flags that the kernel takes, submitting, sleeping, and taking completions.
//!
//! # Non-obvious
//! - With DEFER_TASKRUN completions appear only inside `enter(GETEVENTS)`. The TASKRUN flag says that some are waiting for it.
//! - A full submission queue is no error: entries wait in `backlog` and leave in the same `enter` round.
//! - The kernel never drops completions (FEAT_NODROP, required): what does not fit waits inside until `enter` flushes it.

use std::collections::VecDeque;
use std::io;

use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{Builder, EnterFlags, IoUring, squeue};

/// A completion as the kernel posted it.
#[derive(Clone, Copy, Debug)]
pub struct Cqe {
    pub user_data: u64,
    pub result: i32,
    pub flags: u32,
}

/// Whether `enter` waits for a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    No,
    /// At most this long.
    Ns(u64),
    Forever,
}

pub struct Ring {
    uring: IoUring,
    backlog: VecDeque<squeue::Entry>,
    wait_flags: EnterFlags,
}

/// A combination of set-up flags.
pub struct FlagSet {
    names: &'static [&'static str],
    set: fn(&mut Builder),
}

/// By decreasing worth. A ring without DEFER_TASKRUN loses 20-28 %; NO_SQARRAY is worth little and new (6.6).
pub const FLAG_SETS: [FlagSet; 3] = [
    FlagSet {
        names: &["SINGLE_ISSUER", "DEFER_TASKRUN", "TASKRUN_FLAG", "SUBMIT_ALL", "CQSIZE", "NO_SQARRAY"],
        set: |b| {
            deferred(b).setup_no_sqarray();
        },
    },
    FlagSet {
        names: &["SINGLE_ISSUER", "DEFER_TASKRUN", "TASKRUN_FLAG", "SUBMIT_ALL", "CQSIZE"],
        set: |b| {
            deferred(b);
        },
    },
    FlagSet {
        names: &["SINGLE_ISSUER", "COOP_TASKRUN", "TASKRUN_FLAG", "SUBMIT_ALL", "CQSIZE"],
        set: |b| {
            b.setup_single_issuer().setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
        },
    },
];

/// Completion entries for each submission entry: multishot operations complete more often than they are submitted.
const COMPLETIONS_PER_ENTRY: u32 = 4;

fn deferred(builder: &mut Builder) -> &mut Builder {
    builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all()
}

/// A ring of `entries` submissions, bound to this thread, with the first of `sets` that the kernel knows; and their names.
pub fn build(entries: u32, sets: &[FlagSet]) -> io::Result<(Ring, &'static [&'static str])> {
    let mut last = io::Error::from_raw_os_error(libc::EINVAL);
    for flags in sets {
        let mut builder = IoUring::builder();
        (flags.set)(&mut builder);
        builder.setup_cqsize(entries.saturating_mul(COMPLETIONS_PER_ENTRY)).setup_clamp();
        match builder.build(entries) {
            Ok(uring) => return Ok((Ring::new(uring), flags.names)),
            Err(error) => last = error,
        }
        if last.raw_os_error() != Some(libc::EINVAL) {
            break;
        }
    }
    Err(last)
}

impl Ring {
    fn new(uring: IoUring) -> Ring {
        let mut wait_flags = EnterFlags::GETEVENTS;
        if uring.params().is_feature_no_iowait() {
            wait_flags |= EnterFlags::NO_IOWAIT;
        }
        Ring { uring, backlog: VecDeque::new(), wait_flags }
    }

    pub fn uring(&self) -> &IoUring {
        &self.uring
    }

    /// Queues an entry for the next `enter`.
    ///
    /// # Safety
    /// What the entry points at stays valid and, where the kernel writes, untouched until its last completion was reaped.
    pub unsafe fn push(&mut self, entry: squeue::Entry) {
        if self.backlog.is_empty() {
            // SAFETY: passed on from the caller.
            let pushed = unsafe { self.uring.submission().push(&entry) };
            if pushed.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    /// Completions can be taken without entering the kernel.
    pub fn has_completions(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    /// The kernel holds completions back until it is entered.
    pub fn has_deferred(&mut self) -> bool {
        let submission = self.uring.submission();
        submission.taskrun() || submission.cq_overflow()
    }

    /// Entries wait for `enter`.
    pub fn has_queued(&mut self) -> bool {
        !self.backlog.is_empty() || !self.uring.submission().is_empty()
    }

    /// Submits everything queued and, unless completions are there already, waits as `sleep` allows. Ends early on a signal.
    pub fn enter(&mut self, sleep: Sleep) {
        loop {
            let queued = self.fill();
            let waits = sleep != Sleep::No && self.backlog.is_empty() && !self.has_completions();
            match self.enter_once(queued, if waits { sleep } else { Sleep::No }) {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::ETIME | libc::EINTR) => return,
                    // Completions must be taken first (EBUSY), or the kernel is short of memory for requests for the moment.
                    Some(libc::EBUSY | libc::EAGAIN) if self.has_completions() => return,
                    Some(libc::EBUSY | libc::EAGAIN) => std::thread::yield_now(),
                    _ => panic!("io_uring_enter: {error}"),
                },
            }
            if !self.has_queued() || self.has_completions() {
                return;
            }
        }
    }

    /// Takes at most `max` completions.
    pub fn take(&mut self, max: usize, into: &mut Vec<Cqe>) {
        let taken = self.uring.completion().take(max);
        into.extend(taken.map(|c| Cqe { user_data: c.user_data(), result: c.result(), flags: c.flags() }));
    }

    /// Moves the backlog into the submission queue as far as there is room; returns the entries in it.
    fn fill(&mut self) -> u32 {
        let mut submission = self.uring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: the promise made to `push` holds until the entry completes.
            if unsafe { submission.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
        submission.len() as u32
    }

    fn enter_once(&self, queued: u32, sleep: Sleep) -> io::Result<usize> {
        let submitter = self.uring.submitter();
        let none = None::<&SubmitArgs>;
        match sleep {
            Sleep::No => {
                // SAFETY: at most `queued` entries are in the queue, all pushed under `push`'s promise; no argument is passed.
                unsafe { submitter.enter(queued, 0, EnterFlags::GETEVENTS.bits(), none) }
            }
            Sleep::Forever => {
                // SAFETY: as above.
                unsafe { submitter.enter(queued, 1, self.wait_flags.bits(), none) }
            }
            Sleep::Ns(ns) => {
                let time = Timespec::new().sec(ns / 1_000_000_000).nsec((ns % 1_000_000_000) as u32);
                let args = SubmitArgs::new().timespec(&time);
                let flags = self.wait_flags | EnterFlags::EXT_ARG;
                // SAFETY: as above; `args` and the time it points at live across the call.
                unsafe { submitter.enter(queued, 1, flags.bits(), Some(&args)) }
            }
        }
    }
}
