//! The loop of one shard: one turn after another, on the shard's own thread.
//!
//! ```text
//! submit what is queued, wait for completions or the next deadline      one system call
//! completions -> shard, server, controller
//! shard: events, deadlines, the commit planner                          appends of this turn leave as one round
//! replies -> connections; one send per connection with all it is owed
//! ```
//! Everything that a turn produced leaves with the next turn's one system call, so a loaded broker makes many operations per
//! entry into the kernel and an idle one sleeps.

use crate::broker::control::{Control, TOKEN_CONTROL};
use crate::io::clock::{Clock, ClockSource};
use crate::io::{Done, Io, Mono, Wait};
use crate::server::Server;
use crate::server::handlers::Metadata;
use crate::shard::{Cx, Notice, Shard, TOKEN_READ, TOKEN_STORE};

/// Longest sleep: a stop request is seen after at most this.
const SLEEP_MS_MAX: u64 = 100;

/// How often the free space of the data directory is looked at.
const DISK_CHECK_MS: u64 = 1_000;

/// One shard of a running broker, with its access to the outside world.
pub struct Node {
    pub io: Io,
    pub shard: Shard,
    pub server: Server,
    pub meta: Metadata,
    pub control: Control,
    dones: Vec<Done>,
    clocks: ClockSource,
    next_disk_check: Mono,
    /// Why acks ended, once a write or a flush failed.
    pub dead: Option<String>,
    stop: Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Serving,
    /// Connections finish what they are owed until this time, then the logs are flushed.
    Draining(Mono),
    /// Since when.
    Flushing(Mono),
    Stopped,
}

/// How long a stop waits for space on a full disk.
const NO_SPACE_MS_MAX: u64 = 500;

/// How long connections may take to receive their last responses at a stop.
const DRAIN_MS_MAX: u64 = 500;

impl Node {
    pub fn new(io: Io, shard: Shard, server: Server, meta: Metadata, control: Control) -> Node {
        Node {
            clocks: io.clock_source(),
            io,
            shard,
            server,
            meta,
            control,
            dones: Vec::new(),
            next_disk_check: Mono(0),
            dead: None,
            stop: Stop::Serving,
        }
    }

    /// Begins an orderly stop; `is_stopped` tells when it is done.
    pub fn begin_stop(&mut self) {
        if self.stop == Stop::Serving {
            self.stop = Stop::Draining(self.io.now().plus_ms(DRAIN_MS_MAX));
            let now = self.io.now();
            let clock = self.clocks.turn(now);
            let mut cx = Cx { now, clock, wall_ms: self.io.wall_ms(), pool: self.io.pool() };
            self.shard.begin_drain(&mut cx);
            self.server.begin_stop();
        }
    }

    pub fn is_stopped(&self) -> bool {
        self.stop == Stop::Stopped
    }

    /// One turn. Sleeps at most until the next deadline, and not at all if there is work to go on with.
    pub fn turn(&mut self) {
        let wait = self.wait();
        self.io.turn(wait, &mut self.dones);
        let (now, wall_ms) = (self.io.now(), self.io.wall_ms());
        let clock = self.clocks.turn(now);
        self.complete(now, clock, wall_ms);
        self.work(now, clock, wall_ms);
        self.push();
        self.tend(now);
    }

    fn wait(&self) -> Wait {
        let now = self.io.now();
        if self.shard.is_starved() || self.server.has_work() {
            return Wait::No;
        }
        let deadlines = [self.shard.next_deadline(), self.server.next_deadline()];
        let next = deadlines.into_iter().flatten().min().unwrap_or(Mono(u64::MAX));
        Wait::Until(next.min(now.plus_ms(SLEEP_MS_MAX)))
    }

    fn complete(&mut self, now: Mono, clock: Clock, wall_ms: i64) {
        let mut dones = std::mem::take(&mut self.dones);
        for done in dones.drain(..) {
            let mut cx = Cx { now, clock, wall_ms, pool: self.io.pool() };
            match done.token.kind() {
                TOKEN_STORE | TOKEN_READ => self.shard.done(done, &mut cx),
                TOKEN_CONTROL => self.control.done(done, &mut self.meta, &mut self.shard, &mut cx),
                _ => self.server.done(done, &mut self.shard, &mut self.meta, &mut cx),
            }
        }
        self.dones = dones;
    }

    fn work(&mut self, now: Mono, clock: Clock, wall_ms: i64) {
        let mut cx = Cx { now, clock, wall_ms, pool: self.io.pool() };
        self.control.turn(&mut self.meta, &mut self.shard, &mut cx);
        for answer in self.meta.take_answers() {
            self.server.reply_bytes(answer.ticket, answer.bytes, clock.now());
        }
        self.shard.turn(&mut cx);
        let replied = clock.now();
        for reply in self.shard.take_replies() {
            self.server.reply(reply, replied);
        }
        self.server.turn(&mut self.shard, &mut self.meta, &mut cx);
        for notice in self.shard.take_notices() {
            self.notice(notice);
        }
        self.stop_on(now);
    }

    fn push(&mut self) {
        for (op, token) in self.shard.take_ops() {
            self.io.push(op, token);
        }
        for (op, token) in self.server.take_ops() {
            self.io.push(op, token);
        }
        for (op, token) in self.control.take_ops() {
            self.io.push(op, token);
        }
    }

    /// What need not happen every turn: random ids, memory, free space.
    fn tend(&mut self, now: Mono) {
        let wanted = self.shard.uuids_wanted();
        if wanted > 0 {
            let ids = &mut self.meta.ids;
            self.shard.add_uuids((0..wanted).map(|_| ids.draw()));
        }
        self.control.roll_if_full(&mut self.io, &self.meta);
        if self.shard.is_starved() || self.server.is_stalled() {
            self.io.grow_pool();
        }
        if now >= self.next_disk_check {
            self.next_disk_check = now.plus_ms(DISK_CHECK_MS);
            if let Ok(space) = self.io.disk_space(self.control.data_dir()) {
                self.shard.set_disk_free(space.free);
            }
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Deleted(key) => {
                tracing::info!(topic = %key.topic, partition = %key.partition, "partition removed")
            }
            Notice::Dead(why) => {
                tracing::error!(%why, "log directory failed: produce is refused until a restart");
                self.dead = Some(why);
            }
            Notice::Corrupt(key, what) => {
                tracing::error!(topic = %key.topic, partition = %key.partition, %what, "partition is damaged: reads end here");
            }
            Notice::Stopped => self.stop = Stop::Stopped,
        }
    }

    fn stop_on(&mut self, now: Mono) {
        if let Stop::Draining(until) = self.stop
            && (self.server.connections() == 0 || now >= until)
        {
            self.server.close_all();
            self.shard.begin_stop();
            self.stop = Stop::Flushing(now);
        }
        if let Some(why) = self.control.failed() {
            tracing::error!(why, "metadata cannot be written: the broker ends");
            self.dead = Some(why.to_string());
            self.stop = Stop::Stopped;
        }
        if let Stop::Flushing(since) = self.stop {
            // What waits for space was never acknowledged as durable, and nobody knows for how long.
            let no_space = self.shard.waits_for_space() && now.since_ms(since) > NO_SPACE_MS_MAX;
            if no_space {
                tracing::warn!("the disk is full: what waits for space is left out of the stop");
            }
            // After a failed write nothing more can be made durable: end at once.
            if no_space || self.dead.is_some() {
                self.stop = Stop::Stopped;
            }
        }
    }
}
