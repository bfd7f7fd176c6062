//! The loop of one shard: one turn after another, on the shard's own thread.
//!
//! ```text
//! submit what is queued, wait for completions or the next deadline      one system call
//! letters of other shards, the image in force
//! completions -> shard, server, controller
//! shard: events, deadlines, the commit planner                          appends of this turn leave as one round
//! replies -> connections; one send per connection with all it is owed
//! ```
//! Everything that a turn produced leaves with the next turn's one system call, so a loaded broker makes many operations per
//! entry into the kernel and an idle one sleeps.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::ShardId;
use crate::base::metrics::Stamps;
use crate::broker::control::{Control, TOKEN_CONTROL, catch_up};
use crate::broker::gauges::Gauges;
use crate::broker::slow;
use crate::broker::together::Together;
use crate::io::buffer::Pool;
use crate::io::clock::{Clock, ClockSource};
use crate::io::{Done, Io, Mono, Wait};
use crate::router::letter::{Handover, Letter, Origin, Parcel};
use crate::router::mesh::Router;
use crate::router::message::{Message, Reply, ReplyBody};
use crate::server::handlers::Metadata;
use crate::server::{On, Server};
use crate::shard::{Cx, Notice, Shard, TOKEN_READ, TOKEN_STORE};

/// The server of a node beside what it works on. A macro, because a function would borrow the whole node.
macro_rules! server_on {
    ($node:ident, $time:expr) => {{
        let Node { io, shard, server, meta, router, .. } = &mut *$node;
        (server, On { shard, router, meta, cx: $time.cx(io.pool()) })
    }};
}

/// The time of one turn.
#[derive(Clone, Copy)]
struct Time {
    now: Mono,
    clock: Clock,
    wall_ms: i64,
}

impl Time {
    fn cx(self, pool: &mut Pool) -> Cx<'_> {
        let Time { now, clock, wall_ms } = self;
        Cx { now, clock, wall_ms, pool }
    }
}

/// Longest sleep: a stop request is seen after at most this.
const SLEEP_MS_MAX: u64 = 100;

/// Longest sleep while something waits for memory, or for room in a lane: other threads make it without a word.
const SOON_MS: u64 = 1;

/// How often the free space of the data directory is looked at.
const DISK_CHECK_MS: u64 = 1_000;

/// One shard of a running broker, with its access to the outside world.
pub struct Node {
    pub io: Io,
    pub shard: Shard,
    pub server: Server,
    pub meta: Metadata,
    pub router: Router,
    /// On the controller's shard.
    control: Option<Control>,
    together: Arc<Together>,
    pub(super) gauges: Gauges,
    /// A sleep in each turn, where a test wants one.
    pause: Option<Duration>,
    data_dir: PathBuf,
    dones: Vec<Done>,
    clocks: ClockSource,
    next_disk_check: Mono,
    disk_low: bool,
    /// What starved requests wait for came at the end of the last turn.
    refilled: bool,
    /// Why acks ended, once a write or a flush failed, here or on another shard.
    pub dead: Option<String>,
    stop: Stop,
}

/// What a node is made of, besides its `Io`.
pub struct Stand {
    pub shard: Shard,
    pub server: Server,
    pub meta: Metadata,
    pub router: Router,
    pub control: Option<Control>,
    pub together: Arc<Together>,
    pub data_dir: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Serving,
    /// Connections finish what they are owed until this time.
    Draining(Mono),
    /// No connections here: the others may still ask for something, until this time. Then the logs are flushed.
    Drained(Mono),
    /// Since when.
    Flushing(Mono),
    Stopped,
}

/// How long a stop waits for space on a full disk.
const NO_SPACE_MS_MAX: u64 = 500;

/// How long connections may take to receive their last responses at a stop.
const DRAIN_MS_MAX: u64 = 500;

impl Node {
    pub fn new(io: Io, stand: Stand) -> Node {
        let Stand { shard, server, meta, router, control, together, data_dir } = stand;
        let gauges = Gauges::new(together.board.clone(), io.now());
        let mut node = Node {
            gauges,
            pause: slow::pause(shard.id()),
            clocks: io.clock_source(),
            io,
            shard,
            server,
            meta,
            router,
            control,
            together,
            data_dir,
            dones: Vec::new(),
            next_disk_check: Mono(0),
            disk_low: false,
            refilled: false,
            dead: None,
            stop: Stop::Serving,
        };
        // The first turn may bring requests: what they need must be there.
        node.tend(node.io.now());
        node
    }

    /// Begins an orderly stop of all shards; `is_stopped` tells when this one is done.
    pub fn begin_stop(&mut self) {
        self.together.ask_to_stop();
        if self.stop == Stop::Serving {
            self.stop = Stop::Draining(self.io.now().plus_ms(DRAIN_MS_MAX));
            let mut cx = self.time().cx(self.io.pool());
            self.shard.begin_drain(&mut cx);
            self.server.begin_stop();
        }
    }

    pub fn is_stopped(&self) -> bool {
        self.stop == Stop::Stopped
    }

    /// One turn. Sleeps at most until the next deadline, and not at all if there is work to go on with.
    pub fn turn(&mut self) {
        if let Some(pause) = self.pause {
            std::thread::sleep(pause);
        }
        let (wait, asked) = self.wait();
        self.io.turn(wait, &mut self.dones);
        let time = self.time();
        if wait != Wait::No {
            self.gauges.slept(asked, time.now);
        }
        if self.together.is_stopping() {
            self.begin_stop();
        }
        self.router.receive();
        // Behind the lanes: who wrote to us may know partitions that we have yet to make.
        self.catch_up(time);
        self.complete(time);
        self.open_letters(time);
        self.work(time);
        if self.router.has_peers() {
            let Node { io, server, .. } = self;
            server.take_over_waiting(time.now, |listener| io.has_waiting(listener));
        }
        self.push();
        self.tend(time.now);
    }

    fn time(&mut self) -> Time {
        let now = self.io.now();
        Time { now, clock: self.clocks.turn(now), wall_ms: self.io.wall_ms() }
    }

    /// Whether the next turn may sleep, and when that was asked.
    fn wait(&mut self) -> (Wait, Mono) {
        let now = self.io.now();
        if self.refilled || self.server.has_work() {
            return (Wait::No, now);
        }
        // Alone nobody calls: whoever else wakes us (`Waker::wake_from_outside`) does so whether or not a sleep was announced.
        if self.router.has_peers() {
            self.io.announce_sleep();
            if self.router.has_mail() {
                return (Wait::No, now);
            }
        }
        let deadlines =
            [self.shard.next_deadline(), self.server.next_deadline(), self.router.next_deadline()];
        let next = deadlines.into_iter().flatten().min().unwrap_or(Mono(u64::MAX));
        let soon = self.waits_for_memory() || self.router.waits_for_room();
        let sleep_ms = if soon { SOON_MS } else { SLEEP_MS_MAX };
        (Wait::Until(next.min(now.plus_ms(sleep_ms))), now)
    }

    /// Requests wait for memory: parsed, of other shards, or still in their connections.
    fn waits_for_memory(&self) -> bool {
        self.shard.is_starved() || self.router.is_starved() || self.server.is_starved()
    }

    /// Takes the image in force, and makes and removes partitions accordingly.
    fn catch_up(&mut self, time: Time) {
        // The logs write their clean-stop records: a topic that goes now is removed at the next start.
        if matches!(self.stop, Stop::Flushing(_) | Stop::Stopped) {
            return;
        }
        let Some(image) = self.together.published.newer_than(self.meta.image.revision) else { return };
        let mut cx = time.cx(self.io.pool());
        catch_up(&self.meta.image, &image, &mut self.shard, &mut cx);
        self.meta.image = image;
    }

    fn complete(&mut self, time: Time) {
        let mut dones = std::mem::take(&mut self.dones);
        for done in dones.drain(..) {
            match done.token.kind() {
                TOKEN_STORE | TOKEN_READ => self.shard.done(done, &mut time.cx(self.io.pool())),
                TOKEN_CONTROL => self.control_done(done, time),
                _ => {
                    let (server, mut on) = server_on!(self, time);
                    server.done(done, &mut on);
                }
            }
        }
        self.dones = dones;
    }

    /// A metadata write completed: what it made durable is in force on all shards before any answer tells of it.
    fn control_done(&mut self, done: Done, time: Time) {
        let (Some(control), Some(controller)) = (&mut self.control, &mut self.meta.controller) else {
            return;
        };
        let image = control.done(done, controller, time.now);
        self.end_acks_without_metadata();
        if let Some(image) = image {
            self.together.published.set(image);
            self.catch_up(time);
        }
    }

    /// The metadata lies in the directory of the logs: its failed write ends their acks as one of a log does.
    fn end_acks_without_metadata(&mut self) {
        if let Some(why) = self.control.as_ref().and_then(Control::failed) {
            self.shard.end_acks(why.to_string());
        }
    }

    /// What other shards ask for, and what they answered.
    fn open_letters(&mut self, time: Time) {
        let mut arrived = self.router.take_arrived();
        for (from, letter) in arrived.drain(..) {
            match letter {
                Letter::Reply(reply) => {
                    if let Some(reply) = self.router.answered(from, *reply) {
                        self.server.reply(reply, time.clock.now());
                    }
                }
                Letter::Waits => self.router.credit(from),
                Letter::News(reply) => {
                    if let Some(reply) = self.router.news(from, *reply) {
                        self.server.reply(reply, time.clock.now());
                    }
                }
                Letter::Ask(parcel) => self.ask(from, parcel, time),
                Letter::Control(control) => {
                    self.router.count_served();
                    let (server, mut on) = server_on!(self, time);
                    server.control_frame(*control, &mut on);
                }
                Letter::Adopt(moved) => {
                    let Handover { socket, state } = *moved;
                    let id = self.io.adopt(socket);
                    let (server, mut on) = server_on!(self, time);
                    server.adopt_moved(id, state, &mut on);
                }
                Letter::Hurry(origin) => {
                    self.router.hurry_deferred(origin);
                    self.hurry(origin, time);
                }
            }
        }
        self.router.reuse(arrived);
        loop {
            let mut cx = time.cx(self.io.pool());
            let shard = &mut self.shard;
            let Some(parcel) = self.router.take_deferred(|bytes| shard.room_for(bytes, &mut cx)) else {
                break;
            };
            parcel.open(|message| shard.handle(message, &mut cx));
        }
    }

    fn ask(&mut self, from: ShardId, parcel: Box<Parcel>, time: Time) {
        let mut cx = time.cx(self.io.pool());
        self.router.count_served();
        if self.router.is_deferring(from) || !self.shard.room_for(parcel.bytes(), &mut cx) {
            return self.router.defer(from, parcel);
        }
        parcel.open(|message| self.shard.handle(message, &mut cx));
    }

    fn hurry(&mut self, origin: Origin, time: Time) {
        let Origin { shard, conn, generation } = origin;
        let mut cx = time.cx(self.io.pool());
        self.shard.handle(Message::Hurry { shard, conn, generation }, &mut cx);
    }

    fn work(&mut self, time: Time) {
        let mut cx = time.cx(self.io.pool());
        if let (Some(control), Some(controller)) = (&mut self.control, &mut self.meta.controller) {
            control.turn(controller, &mut self.shard, &mut cx);
        }
        for answer in self.meta.take_answers() {
            let body = ReplyBody::Frame(Some(answer.bytes));
            let reply = Reply { ticket: answer.ticket, body, stamps: Stamps::default() };
            if let Some(reply) = self.router.settle(reply) {
                self.server.reply(reply, time.clock.now());
            }
        }
        self.shard.turn(&mut cx);
        let (server, mut on) = server_on!(self, time);
        server.collect(&mut on);
        for reply in self.router.expire(time.now) {
            self.server.reply(reply, time.clock.now());
        }
        for origin in self.router.take_hurries() {
            self.hurry(origin, time);
        }
        let (server, mut on) = server_on!(self, time);
        server.collect(&mut on);
        server.turn(&mut on);
        for notice in self.shard.take_notices() {
            self.notice(notice);
        }
        self.stop_on(time.now);
    }

    fn push(&mut self) {
        for (op, token) in self.shard.take_ops() {
            self.io.push(op, token);
        }
        for (op, token) in self.server.take_ops() {
            self.io.push(op, token);
        }
        if let Some(control) = &mut self.control {
            for (op, token) in control.take_ops() {
                self.io.push(op, token);
            }
        }
        self.router.ring(&mut self.io);
    }

    /// What need not happen every turn: random ids, memory, free space.
    fn tend(&mut self, now: Mono) {
        let wanted = self.shard.uuids_wanted();
        if wanted > 0 {
            let ids = &mut self.meta.ids;
            self.shard.add_uuids((0..wanted).map(|_| ids.draw()));
        }
        if let Some(control) = &mut self.control {
            // Not ours alone: a shard that flushes its logs takes no newer one, and what is durable still goes on.
            let newer = self.together.published.newer_than(self.meta.image.revision);
            control.roll_if_full(&mut self.io, newer.as_deref().unwrap_or(&self.meta.image));
            self.end_acks_without_metadata();
        }
        let has_grown = self.io.pool().is_short() && self.io.grow_pool();
        self.refilled = self.waits_for_memory() && (has_grown || wanted > 0);
        self.write_figures(now);
        if now >= self.next_disk_check {
            self.next_disk_check = now.plus_ms(DISK_CHECK_MS);
            if let Ok(space) = self.io.disk_space(&self.data_dir) {
                let low = self.shard.set_disk_free(space.free);
                let changed = std::mem::replace(&mut self.disk_low, low) != low;
                // One shard tells for all.
                if changed && self.control.is_some() {
                    tell_of_disk(low, space.free);
                }
            }
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Deleted(key) => {
                tracing::info!(topic = %key.topic, partition = %key.partition, "partition removed")
            }
            Notice::Dead(why) => {
                let shard = self.shard.id();
                tracing::error!(%shard, %why, "log directory failed: produce is refused until a restart");
                self.dead = Some(why);
                // Acks end everywhere: what waits for them is refused now.
                self.router.call_all();
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
            self.together.has_drained();
            self.stop = Stop::Drained(now.plus_ms(DRAIN_MS_MAX));
        }
        if let Stop::Drained(until) = self.stop
            && (self.together.all_drained() || now >= until)
        {
            self.shard.begin_stop();
            self.stop = Stop::Flushing(now);
        }
        if let Some(why) = self.control.as_ref().and_then(Control::failed) {
            tracing::error!(why, "metadata cannot be written: the broker ends");
            self.dead = Some(why.to_string());
            self.together.ask_to_stop();
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

fn tell_of_disk(low: bool, free_bytes: u64) {
    if low {
        tracing::warn!(
            free_bytes,
            "the disk is nearly full: produce is refused until there is more space (log.free.bytes says how much)"
        );
    } else {
        tracing::info!(free_bytes, "there is space on the disk again: produce is served");
    }
}
