//! What only this driver has; the rest is in the conformance suite.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::*;
use crate::base::limits::{ALIGN, BLOCK_BYTES};
use crate::io::buffer::BlockSlice;
use crate::io::lane::{Receiver, lane};
use crate::io::linux::seccomp::forbid_io_uring;
use crate::io::linux::skip::skip;
use crate::io::linux::spin::SPIN_MAX;
use crate::io::{FileId, ListenMode, OpenMode, SendChain, SendPart, WriteSync};

/// A driver and a directory of its own; none where io_uring is not permitted.
struct Rig {
    uring: Uring,
    dir: PathBuf,
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn small() -> Config {
    Config { pool_bytes: 2 * SLICE_BLOCKS * BLOCK_BYTES, entries: 8, recv_buffers: 4, ..Config::default() }
}

fn rig(test: &str, made: Result<Uring, Fatal>) -> Option<Rig> {
    let mut uring = match made {
        Ok(uring) => uring,
        Err(fatal) => {
            skip(&format!("uring::{test}"), fatal);
            return None;
        }
    };
    assert!(uring.grow_pool());
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let name = format!("uring-unit-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tmp").join(name);
    fs::create_dir_all(&dir).expect("a directory for the test");
    Some(Rig { uring, dir })
}

impl Rig {
    fn create(&mut self, name: &str) -> FileId {
        let done = self.uring.wait(Op::OpenFile { path: self.dir.join(name), mode: OpenMode::Create });
        let Payload::Opened(file, _) = done.payload else { panic!("{done:?}") };
        file
    }

    fn data(&mut self, pages: usize) -> BlockSlice {
        let mut block = self.uring.pool().take().expect("a free block");
        block.append(&vec![7; pages * ALIGN]);
        block.slice(0..pages * ALIGN)
    }

    fn write(&mut self, file: FileId, pages: usize) -> Done {
        let data = self.data(pages);
        self.uring.wait(Op::Write { file, offset: 0, data, sync: WriteSync::Dsync })
    }

    fn read(&mut self, file: FileId, pages: usize) -> Done {
        let into = self.uring.pool().take().expect("a free block");
        self.uring.wait(Op::Read { file, offset: 0, into, at: 0, len: (pages * ALIGN) as u32 })
    }

    fn next(&mut self) -> Done {
        loop {
            let mut out = Vec::new();
            self.uring.turn(Wait::Forever, &mut out);
            assert!(out.len() <= 1, "one at a time in these tests");
            if let Some(done) = out.pop() {
                return done;
            }
        }
    }
}

/// A file written and read, and a request answered over a connection.
fn exercise(rig: &mut Rig) {
    let file = rig.create("data");
    assert_eq!(rig.write(file, 4).result, Ok(4 * ALIGN as u32));
    assert_eq!(rig.read(file, 8).result, Ok(4 * ALIGN as u32));
    let (listener, addr) = rig
        .uring
        .listen_with("127.0.0.1:0".parse().expect("an address"), ListenMode::Exclusive)
        .expect("a port");
    rig.uring.push(Op::Accept { listener }, Token(1));
    let mut peer = TcpStream::connect(addr).expect("accepted");
    let Payload::Accepted { conn, .. } = rig.next().payload else { panic!("not accepted") };
    assert!(rig.uring.conns.get(conn.0).socket.nodelay().expect("an open socket"));
    rig.uring.push(Op::Recv { conn }, Token(2));
    peer.write_all(b"ping").expect("sent");
    let Payload::Received(piece) = rig.next().payload else { panic!("nothing received") };
    let mut chain = SendChain::default();
    chain.push(SendPart::Bytes(piece.to_vec()));
    chain.push(SendPart::Bytes(b"pong".to_vec()));
    rig.uring.push(Op::Send { conn, chain }, Token(3));
    assert_eq!(rig.next().result, Ok(8));
    let mut answer = [0; 8];
    peer.read_exact(&mut answer).expect("answered");
    assert_eq!(&answer, b"pingpong");
}

#[test]
fn every_set_of_flags_works() {
    for first in 0..FLAG_SETS.len() {
        let made = Uring::with_flags(small(), &FLAG_SETS[first..]);
        if let Some(mut rig) = rig("every_set_of_flags_works", made) {
            exercise(&mut rig);
        }
    }
}

#[test]
fn spinning_finds_completions_too() {
    let config = Config { spin: SPIN_MAX, ..small() };
    if let Some(mut rig) = rig("spinning_finds_completions_too", Uring::new(config)) {
        exercise(&mut rig);
        let file = rig.create("spun");
        (0..200).for_each(|_| assert!(rig.write(file, 1).result.is_ok()));
    }
}

/// Two drivers on two threads answer each other; what each sleeps through is a call that the other made.
fn ping_pong(spin: bool, flags: usize) -> Option<()> {
    const ROUNDS: u64 = 500;
    let spin = if spin { SPIN_MAX } else { Duration::ZERO };
    let make = move || Uring::with_flags(Config { spin, ..small() }, &FLAG_SETS[flags..]);
    let Ok(mut here) = make() else {
        skip("uring::rings_wake_each_other_under_every_set_of_flags", "no io_uring");
        return None;
    };
    let (mut to_there, mut from_here) = lane(2);
    let (mut to_here, mut from_there) = lane(2);
    let (tell, learn) = std::sync::mpsc::channel();
    let back = here.waker();
    let there = thread::spawn(move || {
        let mut there = make().expect("a second ring as good as the first");
        tell.send(there.waker()).expect("waited for");
        for _ in 0..ROUNDS {
            let got: u64 = sleep_for(&mut there, &mut from_here);
            assert!(to_here.push(got + 1).is_ok());
            there.wake(&back);
            there.turn(Wait::No, &mut Vec::new());
        }
    });
    let waker = learn.recv().expect("told");
    for round in 0..ROUNDS {
        assert!(to_there.push(round).is_ok());
        here.wake(&waker);
        here.turn(Wait::No, &mut Vec::new());
        assert_eq!(sleep_for(&mut here, &mut from_there), round + 1);
    }
    there.join().expect("answered to the end");
    Some(())
}

fn sleep_for(uring: &mut Uring, lane: &mut Receiver<u64>) -> u64 {
    let start = uring.now();
    loop {
        if let Some(got) = lane.pop() {
            return got;
        }
        assert!(uring.now().since_ms(start) < 10_000, "a wake-up was lost");
        uring.announce_sleep();
        let wait = if lane.is_empty() { Wait::Until(start.plus_ms(10_000)) } else { Wait::No };
        uring.turn(wait, &mut Vec::new());
    }
}

#[test]
fn rings_wake_each_other_under_every_set_of_flags() {
    for first in 0..FLAG_SETS.len() {
        for spin in [false, true] {
            if ping_pong(spin, first).is_none() {
                return;
            }
        }
    }
}

#[test]
fn without_the_right_to_lock_memory_plain_operations_serve() {
    let limit = probe::memlock_bytes();
    if limit.is_none_or(|bytes| bytes >= (SLICE_BLOCKS * BLOCK_BYTES) as u64) {
        let why = format!("RLIMIT_MEMLOCK {limit:?} lets a whole slice be registered");
        skip("uring::without_the_right_to_lock_memory_plain_operations_serve", why);
        return;
    }
    // Capabilities belong to a thread, so giving one up ends with this one.
    let tested = thread::spawn(|| {
        give_up_lock_capability();
        let Some(mut rig) = rig("without_the_right_to_lock_memory", Uring::new(small())) else { return };
        assert!(matches!(rig.uring.probed().registered, Registered::Fallback(_)));
        assert!(rig.uring.probed().to_string().contains("FALLBACK"));
        exercise(&mut rig);
        assert!(rig.uring.grow_pool());
    });
    tested.join().expect("plain operations serve");
}

#[test]
fn a_seccomp_filter_is_named() {
    let tested = thread::spawn(|| {
        if !forbid_io_uring() {
            skip("uring::a_seccomp_filter_is_named", "seccomp is not permitted");
            return;
        }
        let fatal = Uring::new(small()).err().expect("forbidden");
        assert_eq!(fatal.code, "uring-blocked");
        assert!(fatal.found.contains("filter active") && !fatal.tries.is_empty(), "{fatal}");
    });
    tested.join().expect("the refusal is explained");
}

#[test]
fn completions_beyond_the_queue_are_not_lost() {
    const OPS: u64 = 2000;
    let Some(mut rig) = rig("completions_beyond_the_queue_are_not_lost", Uring::new(small())) else { return };
    for token in 0..OPS {
        rig.uring.push(Op::RemoveFile { path: rig.dir.join("absent") }, Token(token));
    }
    let mut seen: Vec<u64> = Vec::new();
    while seen.len() < OPS as usize {
        let mut out = Vec::new();
        rig.uring.turn(Wait::Forever, &mut out);
        // Long enough for the kernel to complete more than its queue of 32 takes.
        thread::sleep(Duration::from_millis(1));
        seen.extend(out.iter().map(|done| done.token.0));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..OPS).collect::<Vec<_>>());
}

#[test]
fn truncations_by_call_come_with_their_turn() {
    const OPS: usize = 3 * COMPLETIONS_PER_TURN_MAX;
    let Some(mut rig) = rig("truncations_by_call_come_with_their_turn", Uring::new(small())) else { return };
    rig.uring.probe.ftruncate = false;
    let file = rig.create("data");
    rig.uring.push(Op::Truncate { file, len: 3 * ALIGN as u64 }, Token(1));
    let mut out = Vec::new();
    // Long beyond what any machine takes.
    let until = rig.uring.now().plus_ms(10_000);
    rig.uring.turn(Wait::Until(until), &mut out);
    assert!(rig.uring.now() < until, "it slept with completions at hand: {out:?}");
    assert_eq!(out.pop().map(|done| (done.token, done.result)), Some((Token(1), Ok(0))));
    assert_eq!(fs::metadata(rig.dir.join("data")).expect("is there").len(), 3 * ALIGN as u64);
    // More of them than fill a turn do not keep a wait from its own.
    (0..OPS).for_each(|i| rig.uring.push(Op::Truncate { file, len: 0 }, Token(i as u64)));
    assert_eq!(rig.uring.wait(Op::Flush { file }).result, Ok(0));
    (0..OPS).step_by(COMPLETIONS_PER_TURN_MAX).for_each(|_| rig.uring.turn(Wait::No, &mut out));
    assert_eq!(out.len(), OPS);
}

#[test]
fn planned_faults_strike_where_they_should() {
    let Some(mut rig) = rig("planned_faults_strike_where_they_should", Uring::new(small())) else { return };
    let file = rig.create("data");
    for errno in [Errno::IO, Errno::AGAIN, Errno::CANCELED, Errno::NOSPC] {
        let plan = FaultPlan::new().strike(Counted::Writes, 1, Fault::Fails(errno));
        rig.uring.inject(plan.strike(Counted::Flushes, 0, Fault::Fails(errno)));
        assert_eq!(rig.write(file, 2).result, Ok(2 * ALIGN as u32));
        let failed = rig.write(file, 2);
        assert_eq!(failed.result, Err(errno));
        assert!(matches!(failed.payload, Payload::Written(data) if data.len() == 2 * ALIGN));
        assert_eq!(rig.uring.wait(Op::Flush { file }).result, Err(errno));
        assert_eq!(rig.uring.wait(Op::Flush { file }).result, Ok(0));
        assert_eq!(rig.write(file, 2).result, Ok(2 * ALIGN as u32));
    }
    let plan = FaultPlan::new().strike(Counted::FileOps, 0, Fault::Short);
    rig.uring.inject(plan.strike(Counted::Reads, 0, Fault::Short));
    let short = rig.write(file, 5);
    assert_eq!(short.result, Ok(2 * ALIGN as u32));
    assert!(matches!(short.payload, Payload::Written(data) if data.len() == 5 * ALIGN));
    assert_eq!(rig.read(file, 2).result, Ok(2 * ALIGN as u32), "the driver goes on with a read");
    assert_eq!(rig.read(file, 2).result, Ok(2 * ALIGN as u32));
}

#[test]
fn a_dead_holders_lock_is_waited_for() {
    let Some(mut rig) = rig("a_dead_holders_lock_is_waited_for", Uring::new(small())) else { return };
    let held = HeldLock::take(&rig.dir).expect("free");
    fs::write(rig.dir.join("lock"), "4194305 1\n").expect("a holder beyond the largest pid");
    let release = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        drop(held);
    });
    let start = rig.uring.now();
    assert_eq!(rig.uring.lock_dir(&rig.dir), Ok(()));
    assert!(rig.uring.now().since_ms(start) >= 150);
    release.join().expect("released");
    let recorded = fs::read_to_string(rig.dir.join("lock")).expect("recorded");
    assert!(recorded.starts_with(&format!("{} ", std::process::id())));
}

/// Drops CAP_IPC_LOCK (14) of this thread: capset(2), version 3, two words of `{effective, permitted, inheritable}`.
fn give_up_lock_capability() {
    let header = [0x2008_0522_u32, 0];
    let mut data = [0_u32; 6];
    // SAFETY: version 3 reads a header of two words and fills six.
    let rc = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) };
    assert_eq!(rc, 0);
    data[0] &= !(1 << 14);
    // SAFETY: as above, read only.
    let rc = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    assert_eq!(rc, 0);
}
