//! Turns: many operations, time, `wait`, and the end.

use corelog::base::limits::COMPLETIONS_PER_TURN_MAX;

use super::net::{Link, bytes, chain};
use super::*;

pub fn five_hundred_operations_are_in_flight(world: &mut dyn World) {
    const OPS: usize = 500;
    let path = world.dir().join("data");
    let mut rig = Rig::new(world);
    let file = rig.open(&path, OpenMode::Create).expect("created");
    let data = rig.pattern(64, 8);
    let writes: Vec<Token> = (0..OPS)
        .map(|i| {
            let data = data.sub(i % 64 * ALIGN..(i % 64 + 1) * ALIGN);
            rig.push(Op::Write { file, offset: (i * ALIGN) as u64, data, sync: WriteSync::No })
        })
        .collect();
    writes.into_iter().for_each(|token| assert_eq!(rig.next(token).result, Ok(ALIGN as u32)));
    let expected = pattern(BLOCK_BYTES, 8);
    for start in (0..OPS).step_by(64) {
        let pages = 64.min(OPS - start);
        assert_eq!(rig.read(file, (start * ALIGN) as u64, pages * ALIGN), expected[..pages * ALIGN]);
    }
}

pub fn a_turn_hands_out_a_bounded_number(world: &mut dyn World) {
    let dir = world.dir().to_path_buf();
    let mut rig = Rig::new(world);
    let tokens: Vec<Token> = (0..3 * COMPLETIONS_PER_TURN_MAX)
        .map(|i| rig.push(Op::RemoveFile { path: dir.join(format!("absent-{i}")) }))
        .collect();
    let mut before = 0;
    rig.until("all have failed", |rig| {
        let kept = rig.kept();
        assert!(kept - before <= COMPLETIONS_PER_TURN_MAX);
        before = kept;
        kept == tokens.len()
    });
    for token in tokens {
        assert_eq!(rig.take(token).expect("kept").result, Err(Errno::NOENT));
    }
}

pub fn a_turn_sleeps_until_its_time(world: &mut dyn World) {
    let mut io = world.io();
    let mut out = Vec::new();
    let start = io.now();
    let until = start.plus_ms(30);
    while io.now() < until {
        io.turn(Wait::Until(until), &mut out);
    }
    assert!(io.now().since_ms(start) < 5_000);
    io.turn(Wait::Until(start), &mut out);
    io.turn(Wait::No, &mut out);
    assert!(out.is_empty());
}

pub fn a_turn_wakes_for_a_completion(world: &mut dyn World) {
    let path = world.dir().join("made");
    let mut io = world.io();
    let mut out = Vec::new();
    io.push(Op::MakeDir { path }, Token(7));
    while out.is_empty() {
        io.turn(Wait::Forever, &mut out);
    }
    assert_eq!((out[0].token, out[0].result), (Token(7), Ok(0)));
}

// A driver that had looked for completions before it made the calls of the turn slept on what those had ended.
pub fn a_turn_does_not_sleep_on_what_ends_at_once(world: &mut dyn World) {
    let rig = Rig::new(world);
    let Link { rig, conn: first, peer: _first } = Link::on(world, rig);
    let Link { mut rig, conn: second, peer: _second } = Link::on(world, rig);
    let recv = rig.push(Op::Recv { conn: first });
    // What else there is to tell of new connections would end a turn as well.
    (0..5).for_each(|_| rig.turn(2));
    ends_before_its_time(&mut rig, Op::Send { conn: first, chain: chain([bytes(b"short")]) });
    ends_before_its_time(&mut rig, Op::Send { conn: first, chain: SendChain::default() });
    ends_before_its_time(&mut rig, Op::CancelRecv { conn: first });
    assert_eq!(rig.next(recv).result, Err(Errno::CANCELED));
    ends_before_its_time(&mut rig, Op::CancelRecv { conn: first });
    ends_before_its_time(&mut rig, Op::DetachConn { conn: first });
    rig.push(Op::Recv { conn: second });
    rig.turn(2);
    ends_before_its_time(&mut rig, Op::CloseConn { conn: second });
}

/// An operation may take its driver several turns, but none that sleeps until its time: that is long beyond what any machine takes.
fn ends_before_its_time(rig: &mut Rig, op: Op) {
    const SLEEP_MS: u64 = 10_000;
    let what = format!("{op:?}");
    let (token, start) = (rig.push(op), rig.io.now());
    let done = loop {
        if let Some(done) = rig.take(token) {
            break done;
        }
        assert!(rig.io.now().since_ms(start) < SLEEP_MS, "no completion: {what}");
        rig.turn(SLEEP_MS);
    };
    assert!(done.result.is_ok() && !done.more, "{done:?}");
    assert!(rig.io.now().since_ms(start) < SLEEP_MS, "a turn slept with the completion at hand: {what}");
}

pub fn waiting_for_one_keeps_the_others(world: &mut dyn World) {
    let dir = world.dir().to_path_buf();
    let mut rig = Rig::new(world);
    let tokens: Vec<Token> =
        (0..40).map(|i| rig.push(Op::MakeDir { path: dir.join(format!("{i:02}")) })).collect();
    let waited = rig.io.wait(Op::MakeDir { path: dir.join("waited") });
    assert_eq!((waited.result, waited.more), (Ok(0), false));
    let again = rig.io.wait(Op::MakeDir { path: dir.join("waited") });
    assert_eq!(again.result, Err(Errno::EXIST));
    tokens.into_iter().for_each(|token| assert_eq!(rig.next(token).result, Ok(0)));
    assert_eq!(rig.io.list_dir(&dir).expect("is there").len(), 41);
}

// Once 256 other completions had piled up in front of it, a `wait` took no further one, its own included, and spun for ever.
pub fn waiting_for_one_outlasts_more_than_a_turns_completions(world: &mut dyn World) {
    let dir = world.dir().to_path_buf();
    let mut rig = Rig::new(world);
    let absent = |i: usize| Op::RemoveFile { path: dir.join(format!("absent-{i}")) };
    let tokens: Vec<Token> = (0..3 * COMPLETIONS_PER_TURN_MAX).map(|i| rig.push(absent(i))).collect();
    for round in 0..3 {
        let waited = rig.io.wait(Op::MakeDir { path: dir.join(format!("waited-{round}")) });
        assert_eq!((waited.result, waited.more), (Ok(0), false));
    }
    tokens.into_iter().for_each(|token| assert_eq!(rig.next(token).result, Err(Errno::NOENT)));
}

pub fn waiting_for_one_outlasts_what_ends_at_once(world: &mut dyn World) {
    let path = world.dir().join("waited");
    let rig = Rig::new(world);
    let Link { mut rig, conn, peer: _peer } = Link::on(world, rig);
    let tokens: Vec<Token> =
        (0..3 * COMPLETIONS_PER_TURN_MAX).map(|_| rig.push(Op::CancelRecv { conn })).collect();
    assert_eq!(rig.io.wait(Op::MakeDir { path }).result, Ok(0));
    tokens.into_iter().for_each(|token| assert_eq!(rig.next(token).result, Ok(0)));
}

pub fn clocks_and_random_numbers_move(world: &mut dyn World) {
    let mut io = world.io();
    let (first, second) = (io.now(), io.now());
    assert!(first <= second);
    assert!(io.wall_ms() > 1_500_000_000_000, "after 2017");
    let (mut a, mut b) = ([0; 300], [0; 300]);
    io.random(&mut a);
    io.random(&mut b);
    assert_ne!(a, b);
    assert!(a[284..].iter().any(|x| *x != 0), "filled to the end");
}

pub fn the_pool_grows_to_its_budget(world: &mut dyn World) {
    let mut io = world.io();
    assert!(io.pool().take().is_none(), "nothing is mapped at first");
    while io.grow_pool() {
        assert!(io.pool().available() > 0);
    }
    let pool = io.pool();
    assert_eq!(pool.blocks_mapped(), pool.blocks_max());
    let blocks: Vec<Block> = std::iter::from_fn(|| pool.take()).collect();
    assert!(blocks.len() >= 16 && blocks.len() == pool.blocks_max());
}

pub fn dropping_it_ends_what_is_in_flight(world: &mut dyn World) {
    let path = world.dir().join("data");
    let mut rig = Rig::new(world);
    let (listener, addr) = rig.io.listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    rig.push(Op::Accept { listener });
    let peer = world.connect(addr);
    rig.turn(50);
    let file = rig.open(&path, OpenMode::Create).expect("created");
    let kept = rig.pattern(64, 1);
    for i in 0..32 {
        let offset = i * BLOCK_BYTES as u64;
        rig.push(Op::Write { file, offset, data: kept.clone(), sync: WriteSync::Dsync });
    }
    rig.push(Op::Flush { file });
    rig.push(Op::SyncDir { path: path.with_file_name("") });
    rig.turn(0);
    drop(rig);
    assert_eq!(*kept, pattern(BLOCK_BYTES, 1), "memory that is still held outlives the driver");
    drop(peer);
    let mut rig = Rig::new(world);
    rig.open(&path, OpenMode::Read).expect("is there");
}
