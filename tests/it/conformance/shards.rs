//! Several shards of one process: waking, moving connections, sharing listeners and locks.

use corelog::io::lane::{Receiver, Sender, lane};
use corelog::io::{ListenMode, LockError, Mono, Socket, Waker};

use super::net::{Link, accepted, bytes, chain};
use super::*;

fn rigs(world: &mut dyn World) -> [Rig; 2] {
    let made: [Io; 2] = world.shards(2).try_into().unwrap_or_else(|_| panic!("two shards"));
    made.map(Rig::of)
}

pub fn a_call_before_the_sleep_makes_the_turn_return(world: &mut dyn World) {
    let [mut a, mut b] = rigs(world);
    for _ in 0..3 {
        let mut out = Vec::new();
        b.io.announce_sleep();
        a.io.wake(&b.io.waker());
        b.io.turn(Wait::Forever, &mut out);
        a.io.turn(Wait::No, &mut out);
        assert!(out.is_empty());
    }
}

pub fn a_call_from_outside_ends_a_sleep(world: &mut dyn World) {
    let mut io = world.io();
    let waker = io.waker();
    for announced in [false, true, false] {
        let mut out = Vec::new();
        if announced {
            io.announce_sleep();
        }
        waker.wake_from_outside();
        io.turn(Wait::Forever, &mut out);
        assert!(out.is_empty());
    }
    let until = io.now().plus_ms(20);
    while io.now() < until {
        io.announce_sleep();
        io.turn(Wait::Until(until), &mut Vec::new());
    }
}

pub fn a_waker_outlives_its_driver(world: &mut dyn World) {
    let [mut a, b] = rigs(world);
    let mut b = b.io;
    b.announce_sleep();
    let waker = b.waker();
    drop(b);
    a.io.wake(&waker);
    waker.wake_from_outside();
    a.turn(1);
}

/// A player's ends of the two lanes.
pub struct Ends {
    tx: Sender<u64>,
    rx: Receiver<u64>,
}

pub fn ends() -> [Ends; 2] {
    let (to_second, from_first) = lane(4);
    let (to_first, from_second) = lane(4);
    [Ends { tx: to_second, rx: from_second }, Ends { tx: to_first, rx: from_first }]
}

/// A shard that begins messages, one after the other is answered, answers those of the other player, and sleeps in between.
pub struct Player {
    io: Io,
    ends: Ends,
    other: Waker,
    /// Messages still to begin.
    begins: u64,
    got: u64,
    started: Mono,
}

/// Messages that each player begins: with the answers, each gets twice as many.
const BEGUN: u64 = 300;

impl Player {
    pub fn new(io: Io, ends: Ends, other: Waker) -> Player {
        let started = io.now();
        Player { io, ends, other, begins: BEGUN, got: 0, started }
    }

    /// One turn of its loop; true when it is through.
    pub fn step(&mut self) -> bool {
        while let Some(message) = self.next_message() {
            assert!(self.ends.tx.push(message).is_ok(), "two are under way at most");
            self.io.wake(&self.other);
        }
        let over = self.got == 2 * BEGUN;
        assert!(self.io.now().since_ms(self.started) < PATIENCE_MS, "a message or a wake-up was lost");
        self.io.announce_sleep();
        let sleeps = !over && self.ends.rx.is_empty();
        let until = self.started.plus_ms(PATIENCE_MS);
        self.io.turn(if sleeps { Wait::Until(until) } else { Wait::No }, &mut Vec::new());
        over
    }

    /// An answer (odd) to what came, or a message of our own (even).
    fn next_message(&mut self) -> Option<u64> {
        while let Some(message) = self.ends.rx.pop() {
            self.got += 1;
            if message.is_multiple_of(2) {
                return Some(message + 1);
            }
        }
        let all_answered = self.got >= 2 * (BEGUN - self.begins);
        (self.begins > 0 && all_answered).then(|| {
            self.begins -= 1;
            2 * self.begins
        })
    }
}

pub fn messages_cross_between_shards_that_sleep(world: &mut dyn World) {
    world.play();
}

/// A connection of the first shard, with `first` received and no operation in flight.
fn quiet_link(world: &mut dyn World, rig: Rig, first: &[u8]) -> Link {
    let mut link = Link::on(world, rig);
    let recv = link.rig.push(Op::Recv { conn: link.conn });
    let (recv, got) = link.receive(recv, first, first.len());
    assert_eq!(got, first);
    let cancel = link.rig.push(Op::CancelRecv { conn: link.conn });
    let end = link.rig.next(recv);
    assert!(!end.more, "{end:?}");
    link.rig.next(cancel);
    link
}

fn detach(rig: &mut Rig, conn: ConnId) -> Socket {
    let done = rig.run(Op::DetachConn { conn });
    match (done.result, done.payload) {
        (Ok(0), Payload::Detached(socket)) => socket,
        other => panic!("not detached: {other:?}"),
    }
}

pub fn a_detached_connection_goes_on_with_another_shard(world: &mut dyn World) {
    let [a, mut b] = rigs(world);
    let mut link = quiet_link(world, a, b"to the first");
    let socket = detach(&mut link.rig, link.conn);
    let meanwhile = b"while nobody has it";
    assert_eq!(link.peer.write(meanwhile), meanwhile.len());
    (0..5).for_each(|_| link.rig.turn(2));
    // Its first shard is gone by the time that the second takes it.
    let Link { peer, .. } = link;
    let conn = b.io.adopt(socket);
    let mut link = Link { rig: b, conn, peer };
    let recv = link.rig.push(Op::Recv { conn });
    let (_, got) = link.receive(recv, b" and after", meanwhile.len() + 10);
    assert_eq!(got, b"while nobody has it and after");
    assert_eq!(link.send_all(chain([bytes(b"from the second")])), b"from the second");
    link.rig.ok(Op::CloseConn { conn });
}

pub fn a_dropped_socket_is_closed(world: &mut dyn World) {
    let [a, mut b] = rigs(world);
    let mut link = quiet_link(world, a, b"hello");
    drop(detach(&mut link.rig, link.conn));
    let (mut got, peer) = (Vec::new(), &mut link.peer);
    b.until("the peer sees the end", |_| !peer.read(&mut got));
    assert!(got.is_empty());
}

pub fn a_shared_listener_serves_every_shard(world: &mut dyn World) {
    let [mut a, mut b] = rigs(world);
    let (listener, addr) = super::net::listen(&mut a);
    let shared = a.io.share_listener(listener);
    let joined = b.io.add_listener(shared);
    let accepts = [a.push(Op::Accept { listener }), b.push(Op::Accept { listener: joined })];
    (0..3).for_each(|_| [&mut a, &mut b].into_iter().for_each(|rig| rig.turn(1)));
    let peers: Vec<_> = (0..20).map(|_| world.connect(addr)).collect();
    let mut counts = [0; 2];
    a.until("all are accepted", |a| {
        b.turn(1);
        for (rig, (accept, count)) in [a, &mut b].into_iter().zip(accepts.iter().zip(&mut counts)) {
            while let Some(done) = rig.take(*accept) {
                accepted(done);
                *count += 1;
            }
        }
        counts[0] + counts[1] == peers.len()
    });
    drop(a);
    let _late = world.connect(addr);
    accepted(b.next(accepts[1]));
}

pub fn a_connection_does_not_wait_for_a_shard_that_does_no_turns(world: &mut dyn World) {
    let [mut a, mut b] = rigs(world);
    let (listener, addr) = super::net::listen(&mut a);
    let joined = b.io.add_listener(a.io.share_listener(listener));
    let first = a.push(Op::Accept { listener });
    // First in line.
    (0..3).for_each(|_| a.turn(1));
    let mut accept = b.push(Op::Accept { listener: joined });
    (0..3).for_each(|_| b.turn(1));
    let mut peers = Vec::new();
    for _ in 0..8 {
        peers.push(world.connect(addr));
        b.until("it is taken, or waits", |b| b.kept() > 0 || b.io.has_waiting(joined));
        let taken = super::net::cancel_accept(&mut b, joined, accept);
        accept = b.push(Op::Accept { listener: joined });
        if taken == 0 {
            accepted(b.next(accept));
        }
    }
    // The first has nothing left to take, and takes who comes when it is the only one.
    (0..3).for_each(|_| a.turn(1));
    assert!(a.take_any().is_none());
    assert_eq!(super::net::cancel_accept(&mut b, joined, accept), 0);
    peers.push(world.connect(addr));
    accepted(a.next(first));
}

pub fn listeners_that_reuse_a_port_share_its_connections(world: &mut dyn World) {
    let [mut a, mut b] = rigs(world);
    let any = "127.0.0.1:0".parse().expect("an address");
    let (first, addr) = a.io.listen_with(any, ListenMode::ReusePort).expect("a free port");
    let (second, same) = b.io.listen_with(addr, ListenMode::ReusePort).expect("it may be shared");
    assert_eq!(addr, same);
    assert_eq!(b.io.listen(addr).map(|_| ()), Err(Errno::ADDRINUSE));
    let accepts = [a.push(Op::Accept { listener: first }), b.push(Op::Accept { listener: second })];
    let peers: Vec<_> = (0..60).map(|_| world.connect(addr)).collect();
    let mut counts = [0; 2];
    a.until("all are accepted", |a| {
        b.turn(1);
        for (rig, (accept, count)) in [a, &mut b].into_iter().zip(accepts.iter().zip(&mut counts)) {
            while let Some(done) = rig.take(*accept) {
                accepted(done);
                *count += 1;
            }
        }
        counts[0] + counts[1] == peers.len()
    });
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

pub fn a_lock_lasts_until_the_last_shard_is_gone(world: &mut dyn World) {
    let dir = world.dir().to_path_buf();
    let [mut a, mut b] = rigs(world);
    let mut other = world.io();
    assert!(a.io.share_lock(&dir).is_none());
    assert_eq!(a.io.lock_dir(&dir), Ok(()));
    let lock = a.io.share_lock(&dir).expect("held");
    b.io.join_lock(lock);
    assert!(b.io.share_lock(&dir).is_some());
    assert!(matches!(other.lock_dir(&dir), Err(LockError::Held(_))));
    drop(a);
    assert!(matches!(other.lock_dir(&dir), Err(LockError::Held(_))));
    drop(b);
    assert_eq!(other.lock_dir(&dir), Ok(()));
}
