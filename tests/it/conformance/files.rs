//! Files and directories.

use corelog::io::{LockError, Place};

use super::*;

pub fn a_written_block_reads_back(world: &mut dyn World) {
    let path = world.dir().join("data");
    let mut rig = Rig::new(world);
    let file = rig.open(&path, OpenMode::Create).expect("created");
    let data = rig.pattern(3, 7);
    rig.write(file, ALIGN as u64, data, WriteSync::Dsync);
    assert_eq!(rig.read(file, ALIGN as u64, 3 * ALIGN), pattern(3 * ALIGN, 7));
    assert_eq!(rig.read(file, 0, ALIGN), vec![0; ALIGN]);
    rig.ok(Op::CloseFile { file });
}

pub fn the_end_of_a_file_makes_a_read_short(world: &mut dyn World) {
    let path = world.dir().join("data");
    let mut rig = Rig::new(world);
    let file = rig.open(&path, OpenMode::Create).expect("created");
    assert_eq!(rig.read(file, 0, ALIGN), b"");
    let data = rig.pattern(2, 1);
    rig.write(file, 0, data, WriteSync::No);
    assert_eq!(rig.read(file, 0, 4 * ALIGN), pattern(2 * ALIGN, 1));
    assert_eq!(rig.read(file, ALIGN as u64, BLOCK_BYTES), pattern(2 * ALIGN, 1)[ALIGN..]);
    assert_eq!(rig.read(file, 2 * ALIGN as u64, ALIGN), b"");
    assert_eq!(rig.read(file, 1 << 30, ALIGN), b"");
}

pub fn a_read_fills_only_its_part_of_the_block(world: &mut dyn World) {
    let path = world.dir().join("data");
    let mut rig = Rig::new(world);
    let file = rig.open(&path, OpenMode::Create).expect("created");
    let data = rig.pattern(4, 3);
    rig.write(file, 0, data, WriteSync::No);
    let mut into = rig.block();
    into.as_mut_slice().fill(0xaa);
    let (at, len) = (2 * ALIGN as u32, ALIGN as u32);
    let done = rig.run(Op::Read { file, offset: ALIGN as u64, into, at, len });
    assert_eq!(done.result, Ok(len));
    let Payload::Read(mut block) = done.payload else { panic!("no block") };
    let bytes = block.as_mut_slice();
    assert_eq!(bytes[2 * ALIGN..3 * ALIGN], pattern(4 * ALIGN, 3)[ALIGN..2 * ALIGN]);
    assert!(bytes[..2 * ALIGN].iter().chain(&bytes[3 * ALIGN..]).all(|b| *b == 0xaa));
}

pub fn parts_of_one_block_go_to_several_places(world: &mut dyn World) {
    let path = world.dir().join("data");
    let mut rig = Rig::new(world);
    let file = rig.open(&path, OpenMode::Create).expect("created");
    let data = rig.pattern(8, 5);
    let writes: Vec<Token> = (0..8)
        .map(|page| {
            let data = data.sub(page * ALIGN..(page + 1) * ALIGN);
            let offset = ((7 - page) * ALIGN) as u64;
            rig.push(Op::Write { file, offset, data, sync: WriteSync::No })
        })
        .collect();
    writes.into_iter().for_each(|token| assert_eq!(rig.next(token).result, Ok(ALIGN as u32)));
    let reversed: Vec<u8> = pattern(8 * ALIGN, 5).chunks(ALIGN).rev().flatten().copied().collect();
    assert_eq!(rig.read(file, 0, 8 * ALIGN), reversed);
}

pub fn a_padded_tail_is_rewritten_in_place(world: &mut dyn World) {
    let path = world.dir().join("data");
    let mut rig = Rig::new(world);
    let file = rig.open(&path, OpenMode::Create).expect("created");
    let mut block = rig.block();
    block.append(b"first");
    let data = block.slice_padded(0);
    rig.write(file, 0, data, WriteSync::Dsync);
    block.append(b", second");
    let data = block.slice_padded(0);
    rig.write(file, 0, data, WriteSync::Dsync);
    let read = rig.read(file, 0, ALIGN);
    assert_eq!(&read[..13], b"first, second");
    assert!(read[13..].iter().all(|b| *b == 0));
}

pub fn allocated_space_reads_as_zeros(world: &mut dyn World) {
    let path = world.dir().join("data");
    let mut rig = Rig::new(world);
    let file = rig.open(&path, OpenMode::Create).expect("created");
    rig.ok(Op::Allocate { file, offset: 0, len: 16 * ALIGN as u64 });
    assert_eq!(rig.read(file, 0, BLOCK_BYTES), vec![0; 16 * ALIGN]);
    let data = rig.pattern(1, 9);
    rig.write(file, 8 * ALIGN as u64, data, WriteSync::No);
    rig.ok(Op::Allocate { file, offset: 0, len: 32 * ALIGN as u64 });
    let read = rig.read(file, 0, BLOCK_BYTES);
    assert_eq!(read.len(), 32 * ALIGN);
    assert_eq!(read[8 * ALIGN..9 * ALIGN], pattern(ALIGN, 9));
    assert!(read[..8 * ALIGN].iter().chain(&read[9 * ALIGN..]).all(|b| *b == 0));
}

/// Whether the flush of another file may stand in for this one's is decided by it.
pub fn space_that_is_only_reserved_is_told(world: &mut dyn World) {
    let path = world.dir().join("data");
    let mut rig = Rig::new(world);
    let file = rig.open(&path, OpenMode::Create).expect("created");
    let data = rig.pattern(2, 4);
    rig.write(file, 0, data, WriteSync::No);
    rig.ok(Op::Allocate { file, offset: 0, len: 16 * ALIGN as u64 });
    rig.ok(Op::Flush { file });
    rig.ok(Op::CloseFile { file });
    let opened = rig.run(Op::OpenFile { path, mode: OpenMode::Write });
    assert!(
        matches!(opened.payload, Payload::Opened(_, Place { is_own_and_written: false, .. })),
        "{opened:?}"
    );
}

/// As above.
pub fn the_device_of_a_file_is_told(world: &mut dyn World) {
    let dir = world.dir().to_path_buf();
    let mut rig = Rig::new(world);
    let device = rig.io.storage_caps(&dir).expect("storage").device;
    let data = dir.join("data");
    for (mode, wanted) in [(OpenMode::Create, device), (OpenMode::Write, device), (OpenMode::Read, 0)] {
        let opened = rig.run(Op::OpenFile { path: data.clone(), mode });
        let Payload::Opened(file, place) = opened.payload else { panic!("{opened:?}") };
        assert_eq!(place.device, wanted, "{mode:?}");
        rig.ok(Op::CloseFile { file });
    }
}

pub fn truncation_sets_the_length(world: &mut dyn World) {
    let path = world.dir().join("data");
    let mut rig = Rig::new(world);
    let file = rig.open(&path, OpenMode::Create).expect("created");
    let data = rig.pattern(4, 2);
    rig.write(file, 0, data, WriteSync::No);
    rig.ok(Op::Truncate { file, len: ALIGN as u64 });
    assert_eq!(rig.read(file, 0, BLOCK_BYTES), pattern(ALIGN, 2));
    rig.ok(Op::Truncate { file, len: 3 * ALIGN as u64 });
    assert_eq!(rig.read(file, 0, BLOCK_BYTES), [pattern(ALIGN, 2), vec![0; 2 * ALIGN]].concat());
}

pub fn flushes_and_directory_syncs_succeed(world: &mut dyn World) {
    let dir = world.dir().to_path_buf();
    let mut rig = Rig::new(world);
    let file = rig.open(&dir.join("data"), OpenMode::Create).expect("created");
    rig.ok(Op::SyncDir { path: dir.clone() });
    let data = rig.pattern(1, 2);
    rig.write(file, 0, data, WriteSync::No);
    rig.ok(Op::Flush { file });
    let data = rig.pattern(1, 3);
    rig.write(file, ALIGN as u64, data, WriteSync::Dsync);
    assert_eq!(rig.run(Op::SyncDir { path: dir.join("absent") }).result, Err(Errno::NOENT));
}

pub fn open_modes_do_what_they_say(world: &mut dyn World) {
    let path = world.dir().join("data");
    let mut rig = Rig::new(world);
    assert_eq!(rig.open(&path, OpenMode::Read), Err(Errno::NOENT));
    assert_eq!(rig.open(&path, OpenMode::Write), Err(Errno::NOENT));
    let file = rig.open(&path, OpenMode::Create).expect("created");
    let data = rig.pattern(1, 1);
    rig.write(file, 0, data, WriteSync::No);
    assert_eq!(rig.open(&path, OpenMode::Create), Err(Errno::EXIST));
    let reader = rig.open(&path, OpenMode::Read).expect("is there");
    assert_ne!(reader, file);
    assert_eq!(rig.read(reader, 0, BLOCK_BYTES), pattern(ALIGN, 1));
    let data = rig.pattern(1, 2);
    let refused = rig.run(Op::Write { file: reader, offset: 0, data, sync: WriteSync::No });
    assert!(refused.result.is_err() && matches!(refused.payload, Payload::Written(_)));
    let writer = rig.open(&path, OpenMode::Write).expect("is there");
    assert_eq!(rig.read(writer, 0, BLOCK_BYTES), pattern(ALIGN, 1));
    let emptied = rig.open(&path, OpenMode::Replace).expect("is there");
    assert_eq!(rig.read(emptied, 0, BLOCK_BYTES), b"");
    let fresh = world_file(&path, "fresh");
    rig.open(&fresh, OpenMode::Replace).expect("created");
}

pub fn a_rename_moves_and_replaces(world: &mut dyn World) {
    let (from, to) = (world.dir().join("from"), world.dir().join("to"));
    let mut rig = Rig::new(world);
    for (path, seed) in [(&from, 1), (&to, 2)] {
        let file = rig.open(path, OpenMode::Create).expect("created");
        let data = rig.pattern(1, seed);
        rig.write(file, 0, data, WriteSync::No);
        rig.ok(Op::CloseFile { file });
    }
    let renamed = rig.open(&from, OpenMode::Write).expect("is there");
    rig.ok(Op::Rename { from: from.clone(), to: to.clone() });
    assert_eq!(rig.open(&from, OpenMode::Read), Err(Errno::NOENT));
    let file = rig.open(&to, OpenMode::Read).expect("is there");
    assert_eq!(rig.read(file, 0, BLOCK_BYTES), pattern(ALIGN, 1));
    let data = rig.pattern(1, 3);
    rig.write(renamed, ALIGN as u64, data, WriteSync::No);
    assert_eq!(rig.read(file, ALIGN as u64, ALIGN), pattern(ALIGN, 3));
    assert_eq!(rig.run(Op::Rename { from, to }).result, Err(Errno::NOENT));
}

pub fn a_removed_file_lives_while_it_is_open(world: &mut dyn World) {
    let path = world.dir().join("data");
    let mut rig = Rig::new(world);
    let file = rig.open(&path, OpenMode::Create).expect("created");
    let data = rig.pattern(1, 1);
    rig.write(file, 0, data, WriteSync::No);
    rig.ok(Op::RemoveFile { path: path.clone() });
    assert_eq!(rig.run(Op::RemoveFile { path: path.clone() }).result, Err(Errno::NOENT));
    assert_eq!(rig.open(&path, OpenMode::Read), Err(Errno::NOENT));
    let fresh = rig.open(&path, OpenMode::Create).expect("the name is free");
    assert_eq!(rig.read(fresh, 0, ALIGN), b"");
    assert_eq!(rig.read(file, 0, ALIGN), pattern(ALIGN, 1));
    rig.ok(Op::CloseFile { file });
}

pub fn directories_are_made_listed_and_removed(world: &mut dyn World) {
    let dir = world.dir().join("topic");
    let mut rig = Rig::new(world);
    assert_eq!(rig.open(&dir.join("b"), OpenMode::Create), Err(Errno::NOENT));
    rig.ok(Op::MakeDir { path: dir.clone() });
    assert_eq!(rig.run(Op::MakeDir { path: dir.clone() }).result, Err(Errno::EXIST));
    assert_eq!(rig.io.list_dir(&dir), Ok(vec![]));
    for (name, pages) in [("b", 2), ("a", 1)] {
        let file = rig.open(&dir.join(name), OpenMode::Create).expect("created");
        let data = rig.pattern(pages, 0);
        rig.write(file, 0, data, WriteSync::No);
    }
    rig.ok(Op::MakeDir { path: dir.join("c") });
    let listed = rig.io.list_dir(&dir).expect("is there");
    let listed: Vec<_> = listed.iter().map(|e| (e.name.as_str(), e.is_dir, e.len)).collect();
    assert_eq!(listed, [("a", false, ALIGN as u64), ("b", false, 2 * ALIGN as u64), ("c", true, 0)]);
    assert!(rig.run(Op::RemoveDir { path: dir.clone() }).result.is_err(), "not empty");
    for name in ["a", "b"] {
        rig.ok(Op::RemoveFile { path: dir.join(name) });
    }
    rig.ok(Op::RemoveDir { path: dir.join("c") });
    rig.ok(Op::RemoveDir { path: dir.clone() });
    assert_eq!(rig.run(Op::RemoveDir { path: dir.clone() }).result, Err(Errno::NOENT));
    assert_eq!(rig.io.list_dir(&dir), Err(Errno::NOENT));
}

pub fn a_close_waits_for_the_files_operations(world: &mut dyn World) {
    let path = world.dir().join("data");
    let mut rig = Rig::new(world);
    let file = rig.open(&path, OpenMode::Create).expect("created");
    let data = rig.pattern(64, 4);
    let write = rig.push(Op::Write { file, offset: 0, data, sync: WriteSync::Dsync });
    let flush = rig.push(Op::Flush { file });
    let close = rig.push(Op::CloseFile { file });
    let other = rig.open(&world_file(&path, "other"), OpenMode::Create).expect("created");
    let data = rig.pattern(1, 6);
    rig.write(other, 0, data, WriteSync::No);
    assert_eq!(rig.next(write).result, Ok(BLOCK_BYTES as u32));
    assert_eq!(rig.next(flush).result, Ok(0));
    assert_eq!(rig.next(close).result, Ok(0));
    let file = rig.open(&path, OpenMode::Read).expect("is there");
    assert_eq!(rig.read(file, 0, BLOCK_BYTES), pattern(BLOCK_BYTES, 4));
}

pub fn blocks_are_free_again_after_their_operations(world: &mut dyn World) {
    let path = world.dir().join("data");
    let mut rig = Rig::new(world);
    let file = rig.open(&path, OpenMode::Create).expect("created");
    let before = rig.io.pool().available();
    let data = rig.pattern(2, 1);
    let write = rig.push(Op::Write { file, offset: 0, data, sync: WriteSync::No });
    assert_eq!(rig.io.pool().available(), before - 1, "a write in flight holds its block");
    drop(rig.next(write));
    assert_eq!(rig.io.pool().available(), before);
    rig.read(file, 0, ALIGN);
    assert_eq!(rig.io.pool().available(), before);
}

pub fn storage_says_what_it_can_do(world: &mut dyn World) {
    let dir = world.dir().to_path_buf();
    let mut rig = Rig::new(world);
    let caps = rig.io.storage_caps(&dir).expect("is there");
    assert!(caps.direct && !caps.file_system.is_empty());
    assert_eq!(rig.io.storage_caps(&dir), Ok(caps));
    let space = rig.io.disk_space(&dir).expect("is there");
    assert!(0 < space.free && space.free <= space.total);
    assert_eq!(rig.io.list_dir(&dir), Ok(vec![]), "asking leaves nothing behind");
    assert!(rig.io.storage_caps(&dir.join("absent")).is_err());
}

pub fn a_directory_has_one_lock_holder(world: &mut dyn World) {
    let dir = world.dir().to_path_buf();
    let (mut first, mut second) = (world.io(), world.io());
    assert_eq!(first.lock_dir(&dir), Ok(()));
    let started = second.now();
    assert!(matches!(second.lock_dir(&dir), Err(LockError::Held(_))));
    assert!(second.now().since_ms(started) < 5_000, "a living holder is refused at once");
    drop(first);
    assert_eq!(second.lock_dir(&dir), Ok(()));
}

fn world_file(beside: &Path, name: &str) -> PathBuf {
    beside.with_file_name(name)
}
