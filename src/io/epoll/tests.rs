//! What only this driver does.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;

use super::*;
use crate::base::limits::ALIGN;
use crate::io::linux::fault::Counted;
use crate::io::{ListenMode, OpenMode, SendChain, SendPart, WriteSync};

const RECV_BUFFERS: u16 = 2;

fn driver() -> Epoll {
    let config = DriverConfig { pool_bytes: 4 << 20, recv_buffers: RECV_BUFFERS, ..DriverConfig::default() };
    let mut epoll = Epoll::new(&config).expect("epoll works everywhere");
    assert!(epoll.grow_pool());
    epoll
}

fn listening(epoll: &mut Epoll) -> SocketAddr {
    let (listener, addr) = epoll
        .listen_with("127.0.0.1:0".parse().expect("an address"), ListenMode::Exclusive)
        .expect("a free port");
    epoll.push(Op::Accept { listener }, Token(0));
    addr
}

/// Turns until `count` completions are there.
fn turns(epoll: &mut Epoll, count: usize) -> Vec<Done> {
    let (start, mut out) = (epoll.now(), Vec::new());
    while out.len() < count {
        assert!(epoll.now().since_ms(start) < 20_000, "{} of {count} completions", out.len());
        epoll.turn(Wait::Until(epoll.now().plus_ms(20)), &mut out);
    }
    assert_eq!(out.len(), count);
    out
}

fn accepted(epoll: &mut Epoll, to: SocketAddr) -> (ConnId, TcpStream) {
    let peer = TcpStream::connect(to).expect("the listener's queue takes us");
    match turns(epoll, 1).pop().map(|done| done.payload) {
        Some(Payload::Accepted { conn, .. }) => (conn, peer),
        other => panic!("no connection: {other:?}"),
    }
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let dir = std::env::current_exe().expect("our own path").with_file_name(format!("epoll-{name}"));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).expect("a directory");
        Scratch(dir)
    }

    fn open(&self, epoll: &mut Epoll) -> FileId {
        let open = Op::OpenFile { path: self.0.join("data"), mode: OpenMode::Create };
        match epoll.wait(open).payload {
            Payload::Opened(file, _) => file,
            other => panic!("not opened: {other:?}"),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn an_end_that_came_with_the_last_bytes_is_seen() {
    let mut epoll = driver();
    let addr = listening(&mut epoll);
    let (conn, mut peer) = accepted(&mut epoll, addr);
    peer.write_all(b"the last").expect("sent");
    peer.shutdown(Shutdown::Write).expect("shut");
    // Both are there before the first receive: one event tells of both.
    epoll.push(Op::Recv { conn }, Token(1));
    let done = turns(&mut epoll, 2);
    assert!(matches!(&done[0].payload, Payload::Received(piece) if **piece == *b"the last") && done[0].more);
    assert!(done[1].result == Ok(0) && !done[1].more);
}

#[test]
fn bytes_that_nobody_wants_wake_nobody() {
    let mut epoll = driver();
    let addr = listening(&mut epoll);
    let (conn, mut peer) = accepted(&mut epoll, addr);
    peer.write_all(b"unwanted").expect("sent");
    let mut out = Vec::new();
    let mut slept = |epoll: &mut Epoll| {
        let start = epoll.now();
        epoll.turn(Wait::Until(start.plus_ms(20)), &mut out);
        epoll.now().since_ms(start) >= 20
    };
    // Their arrival does, once.
    let undisturbed = (0..5).filter(|_| slept(&mut epoll)).count();
    assert!(undisturbed >= 3, "{undisturbed} of 5 turns slept");
    assert!(out.is_empty());
    epoll.push(Op::Recv { conn }, Token(1));
    assert_eq!(turns(&mut epoll, 1)[0].result, Ok(8));
}

#[test]
fn without_buffers_a_silent_connection_keeps_its_receive() {
    let mut epoll = driver();
    let addr = listening(&mut epoll);
    let (held, mut talker) = accepted(&mut epoll, addr);
    let (silent, mut later) = accepted(&mut epoll, addr);
    epoll.push(Op::Recv { conn: held }, Token(1));
    let pieces: Vec<Done> = (0..RECV_BUFFERS)
        .flat_map(|_| {
            talker.write_all(b"piece").expect("sent");
            turns(&mut epoll, 1)
        })
        .collect();
    epoll.push(Op::Recv { conn: silent }, Token(2));
    let mut out = Vec::new();
    (0..5).for_each(|_| epoll.turn(Wait::Until(epoll.now().plus_ms(5)), &mut out));
    assert!(out.is_empty(), "{out:?}");
    later.write_all(b"bytes").expect("sent");
    let starved = turns(&mut epoll, 1).pop().expect("one");
    assert_eq!((starved.token, starved.result, starved.more), (Token(2), Err(Errno::NOBUFS), false));
    drop(pieces);
    epoll.push(Op::Recv { conn: silent }, Token(3));
    assert_eq!(turns(&mut epoll, 1)[0].result, Ok(5));
}

#[test]
fn planned_failures_strike_in_order() {
    let scratch = Scratch::new("faults");
    let mut epoll = driver();
    let file = scratch.open(&mut epoll);
    let mut block = epoll.pool().take().expect("a block");
    block.pad_to(2 * ALIGN);
    let data = block.slice(0..2 * ALIGN);
    let plan = FaultPlan::new()
        .strike(Counted::Writes, 0, Fault::Fails(Errno::IO))
        .strike(Counted::Writes, 1, Fault::Short)
        .strike(Counted::Flushes, 0, Fault::Fails(Errno::NOSPC));
    epoll.inject(plan);
    let mut write = || epoll.wait(Op::Write { file, offset: 0, data: data.clone(), sync: WriteSync::Dsync });
    let failed = write();
    assert_eq!(failed.result, Err(Errno::IO));
    assert!(matches!(failed.payload, Payload::Written(data) if data.len() == 2 * ALIGN));
    assert_eq!(write().result, Ok(ALIGN as u32));
    assert_eq!(write().result, Ok(2 * ALIGN as u32));
    assert_eq!(epoll.wait(Op::Flush { file }).result, Err(Errno::NOSPC));
    assert_eq!(epoll.wait(Op::Flush { file }).result, Ok(0));
}

/// What one turn hands out, which must not have slept: its time is long beyond what any machine takes.
fn one_turn(epoll: &mut Epoll) -> Vec<Done> {
    let (until, mut out) = (epoll.now().plus_ms(10_000), Vec::new());
    epoll.turn(Wait::Until(until), &mut out);
    assert!(epoll.now() < until, "it slept with completions at hand: {out:?}");
    out
}

#[test]
fn what_a_call_has_ended_comes_with_its_turn() {
    let mut epoll = driver();
    let addr = listening(&mut epoll);
    let (conn, _peer) = accepted(&mut epoll, addr);
    epoll.push(Op::Recv { conn }, Token(1));
    let mut out = Vec::new();
    // The new connection can be written to, which ends a turn.
    (0..5).for_each(|_| epoll.turn(Wait::Until(epoll.now().plus_ms(2)), &mut out));
    assert!(out.is_empty(), "{out:?}");
    let mut chain = SendChain::default();
    chain.push(SendPart::Bytes(b"short".to_vec()));
    epoll.push(Op::Send { conn, chain }, Token(2));
    assert_eq!(one_turn(&mut epoll)[0].result, Ok(5));
    epoll.push(Op::CancelRecv { conn }, Token(3));
    assert_eq!(one_turn(&mut epoll).iter().map(|done| done.token.0).collect::<Vec<_>>(), [1, 3]);
    epoll.push(Op::DetachConn { conn }, Token(4));
    let Some(Payload::Detached(socket)) = one_turn(&mut epoll).pop().map(|done| done.payload) else {
        panic!("not detached")
    };
    let conn = epoll.adopt(socket);
    epoll.turn(Wait::Until(epoll.now().plus_ms(2)), &mut out);
    epoll.push(Op::CloseConn { conn }, Token(5));
    assert_eq!(one_turn(&mut epoll)[0].result, Ok(0));
}

#[test]
fn a_planned_failure_comes_with_its_turn() {
    let scratch = Scratch::new("fault-turn");
    let mut epoll = driver();
    let file = scratch.open(&mut epoll);
    epoll.turn(Wait::Until(epoll.now().plus_ms(2)), &mut Vec::new());
    epoll.inject(FaultPlan::new().strike(Counted::Flushes, 0, Fault::Fails(Errno::IO)));
    epoll.push(Op::Flush { file }, Token(1));
    assert_eq!(one_turn(&mut epoll)[0].result, Err(Errno::IO));
}
