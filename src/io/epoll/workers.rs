//! The threads that make blocking file calls for one shard.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use super::bell::Bell;
use super::file_ops::{Finished, Job, run};
use crate::base::limits::ROUNDS_IN_FLIGHT_MAX;

/// File operations that run at once: the commit rounds in flight, and as many reads or calls of the file system beside them.
pub const THREADS_MAX: usize = 2 * ROUNDS_IN_FLIGHT_MAX;

/// Stack of a thread: it makes one call at a time.
const STACK_BYTES: usize = 256 * 1024;

pub struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Not yet handed over.
    batch: Vec<Job>,
    /// Handed over, and not taken back.
    in_flight: usize,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    bell: Bell,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    finished: Vec<Finished>,
    /// Threads without a job.
    idle: usize,
    /// The shard sleeps, or is about to: the next thread that ends an operation wakes it.
    asleep: bool,
    stop: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock leaves it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workers {
    /// Starts with one thread; more come when they are needed.
    pub fn new(bell: Bell) -> io::Result<Workers> {
        let shared = Shared { state: Mutex::default(), work: Condvar::new(), bell };
        let mut workers =
            Workers { shared: Arc::new(shared), threads: Vec::new(), batch: Vec::new(), in_flight: 0 };
        workers.start()?;
        Ok(workers)
    }

    fn start(&mut self) -> io::Result<()> {
        let shared = self.shared.clone();
        let builder = Builder::new().name("corelog-files".into()).stack_size(STACK_BYTES);
        self.threads.push(builder.spawn(move || work(&shared))?);
        Ok(())
    }

    /// Queues a job for the next `submit`.
    pub fn push(&mut self, job: Job) {
        self.batch.push(job);
    }

    /// Hands over what was queued.
    pub fn submit(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let count = self.batch.len();
        self.in_flight += count;
        let mut state = self.shared.state();
        state.jobs.extend(self.batch.drain(..));
        let missing = state.jobs.len().saturating_sub(state.idle);
        drop(state);
        if count == 1 {
            self.shared.work.notify_one()
        } else {
            self.shared.work.notify_all()
        }
        for _ in 0..missing.min(THREADS_MAX - self.threads.len()) {
            // Without another thread the jobs wait for those that there are.
            if self.start().is_err() {
                break;
            }
        }
    }

    /// Moves what has ended to the empty `into`. The two lists trade their memory.
    pub fn take_finished(&mut self, into: &mut Vec<Finished>) {
        assert!(into.is_empty());
        if self.in_flight > 0 {
            std::mem::swap(into, &mut self.shared.state().finished);
            self.in_flight -= into.len();
        }
    }

    /// Announces that the shard will sleep: from here to `woke`, the end of an operation wakes it. False if one has ended already.
    pub fn may_sleep(&mut self) -> bool {
        if self.in_flight == 0 {
            return true;
        }
        let mut state = self.shared.state();
        state.asleep = state.finished.is_empty();
        state.asleep
    }

    pub fn woke(&mut self) {
        if self.in_flight > 0 {
            self.shared.state().asleep = false;
        }
    }

    /// Forgets what no thread has begun, and waits for the rest.
    pub fn stop(&mut self) {
        let mut state = self.shared.state();
        state.stop = true;
        let forgotten = std::mem::take(&mut state.jobs);
        drop(state);
        drop(forgotten);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn work(shared: &Shared) {
    let mut state = shared.state();
    loop {
        if state.stop {
            return;
        }
        let Some(job) = state.jobs.pop_front() else {
            state.idle += 1;
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
            continue;
        };
        drop(state);
        let finished = run(job);
        state = shared.state();
        state.finished.push(finished);
        if std::mem::take(&mut state.asleep) {
            drop(state);
            shared.bell.sound();
            state = shared.state();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::io::linux::table::Owner;
    use crate::io::{Errno, Op, Token};

    #[test]
    fn threads_come_with_the_work_and_are_few() {
        let bell = Bell::new().expect("a descriptor");
        let mut workers = Workers::new(bell).expect("a thread");
        assert_eq!(workers.threads.len(), 1);
        let jobs = 100 * THREADS_MAX;
        for i in 0..jobs {
            let op = Op::RemoveDir { path: PathBuf::from("/absent") };
            workers.push(Job { owner: Owner::Caller(Token(i as u64)), op, file: None, short: false });
        }
        workers.submit();
        assert_eq!(workers.threads.len(), THREADS_MAX);
        let (since, mut count, mut finished) = (Instant::now(), 0, Vec::new());
        while count < jobs {
            assert!(since.elapsed() < Duration::from_secs(20), "{count} of {jobs}");
            workers.take_finished(&mut finished);
            assert!(finished.iter().all(|done| done.result == Err(Errno::NOENT)));
            count += finished.drain(..).count();
        }
        assert!(workers.may_sleep() && workers.in_flight == 0);
        workers.stop();
        assert!(workers.threads.is_empty());
    }
}
