//! The model itself under test: a disk that is too kind would let every bug above it pass.

use std::net::SocketAddr;
use std::path::Path;

use super::{ClientRead, DiskConfig, Faults, Injected, OpKind, SimConn, SimIo, World};
use crate::base::limits::{ALIGN, BLOCK_BYTES};
use crate::io::buffer::BlockSlice;
use crate::io::{
    ConnId, Done, Errno, FileId, ListenMode, LockError, Op, OpenMode, Payload, SendChain, SendPart, Token,
    Wait, WriteSync,
};

const PAGE: u64 = ALIGN as u64;

fn world(seed: u64, config: DiskConfig) -> World {
    let world = World::new(seed, Faults::none());
    world.add_disk("/disk", config);
    world
}

/// A process with one driver, and its operations one at a time.
struct Rig {
    io: SimIo,
    token: u64,
}

impl Rig {
    fn new(world: &World) -> Rig {
        let mut io = world.io(world.start_process(), 16 * BLOCK_BYTES);
        assert!(io.grow_pool());
        Rig { io, token: 0 }
    }

    fn push(&mut self, op: Op) -> Token {
        self.token += 1;
        self.io.push(op, Token(self.token));
        Token(self.token)
    }

    fn run(&mut self, op: Op) -> Result<u32, Errno> {
        self.io.wait(op).result
    }

    fn open(&mut self, path: &str, mode: OpenMode) -> FileId {
        match self.io.wait(Op::OpenFile { path: path.into(), mode }).payload {
            Payload::Opened(file, _) => file,
            other => panic!("{path} was not opened: {other:?}"),
        }
    }

    fn data(&mut self, pages: usize, fill: u8) -> BlockSlice {
        let mut block = self.io.pool().take().expect("a block");
        block.append(&vec![fill; pages * ALIGN]);
        block.slice(0..pages * ALIGN)
    }

    fn write_op(&mut self, file: FileId, page: u64, pages: usize, fill: u8, sync: WriteSync) -> Op {
        let data = self.data(pages, fill);
        Op::Write { file, offset: page * PAGE, data, sync }
    }

    fn write(&mut self, file: FileId, page: u64, pages: usize, fill: u8, sync: WriteSync) {
        let op = self.write_op(file, page, pages, fill, sync);
        assert_eq!(self.run(op), Ok((pages * ALIGN) as u32));
    }

    /// A file that is durable with its zeros, as the log prepares its segments.
    fn prepared(&mut self, path: &str, pages: usize) -> FileId {
        let file = self.open(path, OpenMode::Create);
        self.write(file, 0, pages, 0, WriteSync::No);
        assert_eq!(self.run(Op::Flush { file }), Ok(0));
        assert_eq!(self.run(Op::SyncDir { path: "/disk".into() }), Ok(0));
        file
    }

    fn turn(&mut self, wait: Wait) -> Vec<Done> {
        let mut out = Vec::new();
        self.io.turn(wait, &mut out);
        out
    }

    /// Turns until `tokens` are complete, and returns all that came.
    fn until(&mut self, tokens: &[Token]) -> Vec<Done> {
        let mut seen = Vec::new();
        for _ in 0..10_000 {
            if tokens.iter().all(|t| seen.iter().any(|d: &Done| d.token == *t && !d.more)) {
                return seen;
            }
            seen.extend(self.turn(Wait::Until(self.io.now().plus_ms(10))));
        }
        panic!("not complete: {tokens:?}, only {seen:?}");
    }
}

/// Runs a case on many seeds and returns how often it held.
fn count(seeds: u64, mut case: impl FnMut(u64) -> bool) -> u64 {
    (0..seeds).filter(|seed| case(*seed)).count() as u64
}

fn bytes(world: &World, path: &str) -> Vec<u8> {
    world.live_bytes(Path::new(path)).unwrap_or_default()
}

#[test]
fn a_crash_loses_what_was_not_flushed_on_some_seeds_and_tears_it_on_others() {
    let mut torn = 0;
    let kept = count(200, |seed| {
        let world = world(seed, DiskConfig::default());
        let mut rig = Rig::new(&world);
        let file = rig.prepared("/disk/a", 8);
        rig.write(file, 0, 2, 1, WriteSync::No);
        assert_eq!(bytes(&world, "/disk/a")[..2 * ALIGN], [1; 2 * ALIGN]);
        world.crash();
        torn += world.cover("torn_write");
        bytes(&world, "/disk/a")[..2 * ALIGN] == [1; 2 * ALIGN]
    });
    assert!((40..160).contains(&kept), "kept on {kept} of 200 seeds");
    assert!(torn > 10, "torn on {torn} seeds");
}

#[test]
fn a_flush_keeps_what_was_returned_before_its_push_and_nothing_else() {
    let second_kept = count(100, |seed| {
        let world = world(seed, DiskConfig::default());
        let mut rig = Rig::new(&world);
        let file = rig.prepared("/disk/a", 8);
        rig.write(file, 0, 1, 1, WriteSync::No);
        // Pushed before the flush, completed before the flush completes: still not covered.
        let op = rig.write_op(file, 1, 1, 2, WriteSync::No);
        let write = rig.push(op);
        let flush = rig.push(Op::Flush { file });
        rig.until(&[write, flush]);
        assert!(world.is_flushed(Path::new("/disk/a"), 0..PAGE));
        assert!(!world.is_flushed(Path::new("/disk/a"), PAGE..2 * PAGE));
        world.crash();
        let bytes = bytes(&world, "/disk/a");
        assert_eq!(bytes[..ALIGN], [1; ALIGN]);
        bytes[ALIGN..2 * ALIGN] == [2; ALIGN]
    });
    assert!((10..90).contains(&second_kept), "kept on {second_kept} of 100 seeds");
}

#[test]
fn a_dsync_write_covers_itself_and_what_was_returned_before() {
    for seed in 0..50 {
        let world = world(seed, DiskConfig::default());
        let mut rig = Rig::new(&world);
        let file = rig.prepared("/disk/a", 8);
        rig.write(file, 0, 1, 1, WriteSync::No);
        let op = rig.write_op(file, 1, 1, 2, WriteSync::No);
        let unseen = rig.push(op);
        let op = rig.write_op(file, 2, 1, 3, WriteSync::Dsync);
        let own = rig.push(op);
        rig.until(&[unseen, own]);
        let path = Path::new("/disk/a");
        assert!(world.is_flushed(path, 0..PAGE));
        assert!(!world.is_flushed(path, PAGE..2 * PAGE));
        assert!(world.is_flushed(path, 2 * PAGE..3 * PAGE));
    }
}

#[test]
fn on_a_drive_with_fua_a_dsync_write_covers_itself_alone() {
    let world = world(1, DiskConfig { dsync_covers_earlier: false, ..DiskConfig::default() });
    let mut rig = Rig::new(&world);
    let file = rig.prepared("/disk/a", 8);
    rig.write(file, 0, 1, 1, WriteSync::No);
    rig.write(file, 2, 1, 3, WriteSync::Dsync);
    assert!(!world.is_flushed(Path::new("/disk/a"), 0..PAGE));
    assert!(world.is_flushed(Path::new("/disk/a"), 2 * PAGE..3 * PAGE));
}

#[test]
fn a_shared_flush_saves_other_files_only_where_their_extents_are_written() {
    for shared_flush in [true, false] {
        let world = world(3, DiskConfig { shared_flush, ..DiskConfig::default() });
        let mut rig = Rig::new(&world);
        let flushed = rig.prepared("/disk/a", 8);
        let zeroed = rig.prepared("/disk/b", 8);
        let allocated = rig.prepared("/disk/c", 1);
        assert_eq!(rig.run(Op::Allocate { file: allocated, offset: 0, len: 8 * PAGE }), Ok(0));
        assert_eq!(rig.run(Op::Flush { file: allocated }), Ok(0));
        rig.write(zeroed, 4, 1, 7, WriteSync::No);
        rig.write(allocated, 4, 1, 7, WriteSync::No);
        assert_eq!(rig.run(Op::Flush { file: flushed }), Ok(0));
        assert_eq!(world.is_flushed(Path::new("/disk/b"), 4 * PAGE..5 * PAGE), shared_flush);
        assert!(!world.is_flushed(Path::new("/disk/c"), 4 * PAGE..5 * PAGE));
    }
}

#[test]
fn entries_are_volatile_until_their_directory_is_synced() {
    let gone = count(100, |seed| {
        let world = world(seed, DiskConfig::default());
        let mut rig = Rig::new(&world);
        let file = rig.open("/disk/a", OpenMode::Create);
        rig.write(file, 0, 1, 1, WriteSync::Dsync);
        assert!(!world.is_flushed(Path::new("/disk/a"), 0..PAGE));
        world.crash();
        world.live_bytes(Path::new("/disk/a")).is_none()
    });
    assert!((20..80).contains(&gone), "gone on {gone} of 100 seeds");

    for seed in 0..50 {
        let world = world(seed, DiskConfig::default());
        let mut rig = Rig::new(&world);
        rig.prepared("/disk/a", 1);
        let (from, to) = ("/disk/a".into(), "/disk/b".into());
        assert_eq!(rig.run(Op::Rename { from, to }), Ok(0));
        world.crash();
        let names: Vec<String> = Rig::new(&world)
            .io
            .list_dir(Path::new("/disk"))
            .expect("there")
            .into_iter()
            .map(|e| e.name)
            .collect();
        assert!(names == ["a"] || names == ["b"], "a rename survives whole or not at all: {names:?}");
    }
}

#[test]
fn writes_of_a_killed_process_land_late_on_some_seeds() {
    let mut late = 0;
    let never = count(300, |seed| {
        let world = world(seed, DiskConfig::default());
        let process = world.start_process();
        let mut rig = Rig { io: world.io(process, 16 * BLOCK_BYTES), token: 0 };
        assert!(rig.io.grow_pool());
        let file = rig.prepared("/disk/a", 8);
        let op = rig.write_op(file, 0, 1, 1, WriteSync::No);
        rig.push(op);
        rig.turn(Wait::No);
        world.kill(process);
        let mut successor = Rig::new(&world);
        successor.open("/disk/a", OpenMode::Write);
        let before = bytes(&world, "/disk/a")[0];
        world.pass(30_000_000_000);
        let after = bytes(&world, "/disk/a")[0];
        late += u64::from(before == 0 && after == 1);
        after == 0
    });
    assert!(late > 30 && never > 30, "{late} late, {never} never");
}

#[test]
fn a_retry_after_a_failed_flush_succeeds_and_proves_nothing() {
    let lost = count(100, |seed| {
        let world = world(seed, DiskConfig::default());
        let mut rig = Rig::new(&world);
        let file = rig.prepared("/disk/a", 8);
        rig.write(file, 0, 1, 1, WriteSync::No);
        world.place_fault(OpKind::Flush, 0, Injected::Fails(Errno::IO));
        assert_eq!(rig.run(Op::Flush { file }), Err(Errno::IO));
        assert_eq!(rig.run(Op::Flush { file }), Ok(0));
        assert_eq!(bytes(&world, "/disk/a")[0], 1);
        !world.is_flushed(Path::new("/disk/a"), 0..PAGE)
    });
    assert!((20..80).contains(&lost), "lost on {lost} of 100 seeds");
}

#[test]
fn a_recycled_file_keeps_its_bytes_and_a_full_disk_refuses() {
    let world = world(4, DiskConfig { capacity_bytes: 8 * PAGE, ..DiskConfig::default() });
    let mut rig = Rig::new(&world);
    let file = rig.prepared("/disk/old", 6);
    rig.write(file, 1, 1, 9, WriteSync::Dsync);
    assert_eq!(rig.run(Op::Rename { from: "/disk/old".into(), to: "/disk/new".into() }), Ok(0));
    assert_eq!(bytes(&world, "/disk/new")[ALIGN..2 * ALIGN], [9; ALIGN]);
    let op = rig.write_op(file, 6, 3, 1, WriteSync::No);
    assert_eq!(rig.run(op), Err(Errno::NOSPC));
    assert_eq!(rig.run(Op::Truncate { file, len: 2 * PAGE }), Ok(0));
    rig.write(file, 6, 3, 1, WriteSync::No);
    assert_eq!(rig.io.disk_space(Path::new("/disk")).expect("there").free, 3 * PAGE);
}

#[test]
#[should_panic(expected = "two writes in flight over block")]
fn two_writes_over_one_block_are_refused() {
    let world = world(5, DiskConfig::default());
    let mut rig = Rig::new(&world);
    let file = rig.prepared("/disk/a", 8);
    let first = rig.write_op(file, 0, 2, 1, WriteSync::No);
    let second = rig.write_op(file, 1, 2, 2, WriteSync::No);
    rig.push(first);
    rig.push(second);
}

#[test]
fn a_directory_has_one_living_owner() {
    let world = world(6, DiskConfig::default());
    let first = world.start_process();
    let mut rig = Rig { io: world.io(first, 4 * BLOCK_BYTES), token: 0 };
    let mut second = Rig::new(&world);
    assert_eq!(rig.io.lock_dir(Path::new("/disk")), Ok(()));
    assert_eq!(second.io.lock_dir(Path::new("/disk")), Err(LockError::Held(Some(first.0))));
    world.kill(first);
    assert_eq!(second.io.lock_dir(Path::new("/disk")), Ok(()));
}

/// A broker's and a client's end of one connection. The accept and the receive stay armed.
fn connected(world: &World, rig: &mut Rig) -> (ConnId, SimConn) {
    let addr: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let (listener, addr) = rig.io.listen_with(addr, ListenMode::Exclusive).expect("a free port");
    let client = world.connect(addr).expect("somebody listens");
    rig.push(Op::Accept { listener });
    for _ in 0..1000 {
        for done in rig.turn(Wait::Until(rig.io.now().plus_ms(1))) {
            if let Payload::Accepted { conn, .. } = done.payload {
                return (conn, client);
            }
        }
    }
    panic!("nobody came");
}

#[test]
fn what_a_client_sends_arrives_in_order_and_the_end_comes_last() {
    (0..30).for_each(arrives_in_order);
}

fn arrives_in_order(seed: u64) {
    let world = world(seed, DiskConfig::default());
    world.set_faults(Faults::calm());
    let mut rig = Rig::new(&world);
    let (conn, client) = connected(&world, &mut rig);
    let sent: Vec<u8> = (0..50_000u32).map(|i| (i % 251) as u8).collect();
    let (mut at, mut got, mut recv) = (0, Vec::new(), rig.push(Op::Recv { conn }));
    for _ in 0..100_000 {
        at += client.send(&sent[at..]);
        if at == sent.len() {
            client.finish();
        }
        for done in rig.turn(Wait::Until(rig.io.now().plus_ms(1))) {
            match (&done.payload, done.result) {
                (Payload::Received(piece), _) => got.extend_from_slice(piece),
                (_, Err(Errno::NOBUFS)) => recv = rig.push(Op::Recv { conn }),
                (_, Ok(0)) if done.token == recv => {
                    assert_eq!(got, sent);
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    panic!("the end never came");
}

#[test]
fn a_client_that_does_not_read_blocks_the_send_until_the_close() {
    let world = world(7, DiskConfig::default());
    let mut rig = Rig::new(&world);
    let (conn, client) = connected(&world, &mut rig);
    let mut chain = SendChain::default();
    chain.push(SendPart::Bytes(vec![1; 300_000]));
    let short = rig.push(Op::Send { conn, chain });
    let Some(Done { result: Ok(sent), payload: Payload::Sent(mut chain), .. }) = rig.until(&[short]).pop()
    else {
        panic!("a part has left")
    };
    chain.advance(sent as usize);
    let blocked = rig.push(Op::Send { conn, chain });
    let dones: Vec<Done> = (0..100).flat_map(|_| rig.turn(Wait::Until(rig.io.now().plus_ms(10)))).collect();
    assert!(dones.is_empty() && world.cover("send_blocked") > 0, "{dones:?}");
    let close = rig.push(Op::CloseConn { conn });
    let dones = rig.until(&[close]);
    assert_eq!(dones.iter().map(|d| d.token).collect::<Vec<_>>(), [blocked, close]);
    assert_eq!(dones[0].result, Err(Errno::CANCELED));
    world.pass(1_000_000_000);
    let ClientRead::Bytes(bytes) = client.recv(usize::MAX) else { panic!("nothing arrived") };
    assert_eq!((bytes.len() as u32, client.recv(1)), (sent, ClientRead::End));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| {
        let world = World::new(seed, Faults::none());
        world.set_faults(Faults::drawn(&mut super::Rng::new(seed)));
        world.add_disk("/disk", DiskConfig::default());
        for round in 0..5u8 {
            let mut rig = Rig::new(&world);
            let path = format!("/disk/{round}");
            let file = rig.open(&path, OpenMode::Create);
            for page in 0..8 {
                let op = rig.write_op(file, page, 1, round, WriteSync::No);
                rig.push(op);
            }
            rig.push(Op::Flush { file });
            for _ in 0..world.below(12) {
                rig.turn(Wait::Until(rig.io.now().plus_ms(1)));
            }
            world.crash();
        }
        world.trace()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn clocks_run_at_their_own_rate_and_waits_end_on_time() {
    let world = world(9, DiskConfig::default());
    world.set_faults(Faults { clock_skew: true, wall_jump: 1_000_000, ..Faults::none() });
    let mut rig = Rig::new(&world);
    let (mono, wall) = (rig.io.now(), rig.io.wall_ms());
    rig.turn(Wait::Until(mono.plus_ms(1000)));
    let elapsed = rig.io.now().since_ms(mono);
    assert!((1000..=1001).contains(&elapsed), "{elapsed}");
    assert!((rig.io.wall_ms() - wall).abs() <= 3_602_000);
    assert!((900_000_000..1_200_000_000).contains(&world.now()));
}
