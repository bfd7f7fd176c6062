//! One thread for each shard but the first, which runs on the caller's.
//!
//! A shard's driver is made on the thread that uses it. So a start goes in two steps: every thread makes its driver and opens its
//! partitions, all at the same time, and reports; when all stand, the lanes are handed out and the loops begin. One thread that
//! fails takes the start down; one that panics takes the process down, because nobody else could answer for its partitions.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use super::assemble::{Foundation, Head, Listening, Parts, epochs, open_shard, share};
use super::failures::thread_ended;
use super::memory;
use super::pump::Node;
use super::together::Together;
use crate::base::error::Fatal;
use crate::base::ids::{LeaderEpoch, PartitionKey, ShardId};
use crate::config::runtime::Runtime;
use crate::io::open::{DriverConfig, open};
use crate::io::{DirLock, Io, SharedListener, Waker};
use crate::router::lanes::{Lanes, Link, links};

type Epochs = BTreeMap<PartitionKey, LeaderEpoch>;

/// A shard's partitions are open.
struct Standing {
    waker: Waker,
    epochs: Epochs,
}

/// What a shard begins to serve with.
struct Go {
    links: Vec<Link>,
    epochs: Arc<Epochs>,
}

/// A thread that stands, or is on its way to.
struct Starting {
    shard: u16,
    standing: Receiver<Result<Standing, Fatal>>,
    go: Sender<Go>,
    thread: JoinHandle<Option<String>>,
}

/// The shards on threads of their own.
pub struct Others {
    threads: Vec<(u16, JoinHandle<Option<String>>)>,
    wakers: Vec<Waker>,
    together: Arc<Together>,
}

impl Others {
    /// Of all shards, the first included.
    pub fn wakers(&self) -> Vec<Waker> {
        self.wakers.clone()
    }
}

/// What a thread is given: everything in it may cross threads.
struct Task {
    id: ShardId,
    runtime: Runtime,
    driver: DriverConfig,
    foundation: Foundation,
    listeners: Vec<(SharedListener, bool)>,
    lock: Option<DirLock>,
    together: Arc<Together>,
}

/// Starts all shards. Returns the first, to be run on this thread, and the others, which serve already.
pub fn start(
    mut io: Io,
    runtime: Runtime,
    drivers: &[DriverConfig],
    foundation: &Foundation,
    head: Head,
    listening: &[Listening],
    together: &Arc<Together>,
) -> Result<(Node, Others), Fatal> {
    let mut starting = Vec::new();
    for (shard, driver) in drivers.iter().enumerate().skip(1) {
        let id = ShardId(shard as u16);
        let task = Task {
            id,
            runtime,
            driver: driver.clone(),
            foundation: foundation.clone(),
            listeners: share(&io, listening, id),
            lock: io.share_lock(&foundation.image.config.data_dir),
            together: together.clone(),
        };
        starting.push(spawn(task)?);
    }
    let shard = open_shard(&mut io, ShardId(0), foundation)?;
    let mut all_epochs = epochs(&shard);
    let mut wakers = vec![io.waker()];
    for starting in &starting {
        let standing =
            starting.standing.recv().map_err(|_| thread_ended(starting.shard, "its thread ended"))??;
        all_epochs.extend(standing.epochs);
        wakers.push(standing.waker);
    }
    let all_epochs = Arc::new(all_epochs);
    let lanes = Lanes::of(wakers.len(), memory::lane_bytes_max(foundation.pool_bytes, wakers.len() as u64));
    let mut all_links = links(&wakers, lanes).into_iter();
    let own_links = all_links.next().unwrap_or_default();
    let mut threads = Vec::new();
    for (Starting { shard, go, thread, .. }, links) in starting.into_iter().zip(all_links) {
        let sent = go.send(Go { links, epochs: all_epochs.clone() });
        sent.map_err(|_| thread_ended(shard, "its thread ended"))?;
        threads.push((shard, thread));
    }
    let parts =
        Parts { shard, links: own_links, epochs: all_epochs, together: together.clone(), head: Some(head) };
    let mut node = parts.node(io, foundation);
    let own = |listening: &&Listening| listening.shard.is_none_or(|only| only == ShardId(0));
    listening
        .iter()
        .filter(own)
        .for_each(|listening| node.server.serve(listening.listener, listening.for_all));
    Ok((node, Others { threads, wakers, together: together.clone() }))
}

fn spawn(task: Task) -> Result<Starting, Fatal> {
    let (report, standing) = channel();
    let (go, begin) = channel();
    let shard = task.id.0;
    let builder = std::thread::Builder::new().name(format!("shard-{shard}"));
    let thread = builder.spawn(move || {
        let on_panic = AbortOnPanic;
        let ended = run_task(task, &report, &begin);
        std::mem::forget(on_panic);
        ended
    });
    let thread = thread.map_err(|error| thread_ended(shard, &error.to_string()))?;
    Ok(Starting { shard, standing, go, thread })
}

/// The life of one shard's thread. Returns why acks ended, if they did.
fn run_task(
    task: Task,
    report: &mpsc::Sender<Result<Standing, Fatal>>,
    begin: &Receiver<Go>,
) -> Option<String> {
    let Task { id, runtime, driver, foundation, listeners, lock, together } = task;
    let opened = open(runtime, driver).and_then(|mut io| {
        if let Some(lock) = lock {
            io.join_lock(lock);
        }
        io.grow_pool();
        let shard = open_shard(&mut io, id, &foundation)?;
        let own: Vec<_> =
            listeners.into_iter().map(|(one, for_all)| (io.add_listener(one), for_all)).collect();
        Ok((io, shard, own))
    });
    let (io, shard, listeners) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let _ = report.send(Err(error));
            return None;
        }
    };
    let standing = Standing { waker: io.waker(), epochs: epochs(&shard) };
    // The start was given up meanwhile if nobody listens, and says so itself.
    report.send(Ok(standing)).ok()?;
    let Go { links, epochs } = begin.recv().ok()?;
    let mut node = Parts { shard, links, epochs, together, head: None }.node(io, &foundation);
    listeners.into_iter().for_each(|(listener, for_all)| node.server.serve(listener, for_all));
    while !node.is_stopped() {
        node.turn();
    }
    node.dead
}

/// Runs the first shard to its end, then waits for the others. Some if acks ended before the stop, and why.
pub fn run(mut node: Node, others: Others) -> Result<Option<String>, Fatal> {
    while !node.is_stopped() {
        node.turn();
    }
    let mut dead = node.dead.take();
    // However it ended: without the controller nobody goes on.
    others.together.ask_to_stop();
    others.wakers.iter().for_each(Waker::wake_from_outside);
    for (shard, thread) in others.threads {
        match thread.join() {
            Ok(ended) => dead = dead.or(ended),
            Err(_) => return Err(thread_ended(shard, "it panicked")),
        }
    }
    Ok(dead)
}

/// Ends the process when a shard's thread unwinds: the others would wait for its answers for ever.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        std::process::abort();
    }
}
