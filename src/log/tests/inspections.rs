//! The tools' view: what is listed, dumped and reported, with file and position.

use std::path::Path;

use super::disk::{DIR, Disk, Log, clean, flushed, plain, put_state, state};
use crate::log::format::{index_name, segment_name};
use crate::log::inspect::{Item, NoHeader, Verified, dump, segments, verify};
use crate::log::scan::Stop;

/// Two segments and a prepared one.
fn disk() -> (Disk, [Log; 2]) {
    let mut disk = Disk::new();
    let mut first = Log::first();
    first.group(&[plain(2, 100, 1), plain(3, 50, 2)]);
    first.group_on_boundary(&[plain(1, 5000, 3)]);
    let mut second = first.successor(1);
    second.group(&[plain(4, 300, 4)]);
    second.flushed = second.end();
    second.group(&[plain(4, 300, 5)]);
    first.store(&mut disk, 0);
    second.store(&mut disk, 4096);
    disk.files.insert(segment_name(2), vec![0; 8192]);
    put_state(&mut disk, &state());
    (disk, [first, second])
}

fn problems(verified: &Verified) -> Vec<(String, u64, &'static str)> {
    let name = |p: &Path| p.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_string();
    verified.problems.iter().map(|c| (name(&c.file), c.position, c.what)).collect()
}

#[test]
fn segments_are_listed_with_their_seals() {
    let (mut disk, [first, second]) = disk();
    let listed = segments(&mut disk, Path::new(DIR)).expect("a directory");
    assert_eq!(listed.len(), 3);
    assert_eq!(listed[0].sealed.map(|s| s.end), Some(first.end()));
    assert_eq!(listed[1].header.as_ref().map(|h| h.0.clone()), Ok(second.header));
    assert_eq!(listed[1].sealed, None);
    assert_eq!(listed[2].header, Err(NoHeader::Empty));
}

#[test]
fn a_dump_shows_every_batch_and_where_it_ends() {
    let (mut disk, [_, second]) = disk();
    let listed = segments(&mut disk, Path::new(DIR)).expect("a directory");
    let mut lines = Vec::new();
    for segment in &listed {
        let end = dump(&mut disk, Path::new(DIR), segment, &mut |item| match item {
            Item::Group { position, header } => lines.push(format!("{position} group {}", header.seq)),
            Item::Batch(batch) => lines.push(format!("{} batch {}", batch.position, batch.base_offset)),
        });
        let expected = (segment.ordinal == 1).then_some((second.end(), Stop::Zeros));
        assert_eq!(end.expect("readable"), expected);
    }
    assert_eq!(
        lines,
        [
            "4096 group 0",
            "4176 batch 0",
            "4337 batch 2",
            "8192 group 1",
            "8272 batch 5",
            "4096 group 0",
            "4176 batch 6",
            "4537 group 1",
            "4617 batch 10"
        ]
    );
}

#[test]
fn a_sound_log_has_no_problems() {
    let (mut disk, _) = disk();
    let verified = verify(&mut disk, Path::new(DIR)).expect("readable");
    assert_eq!(problems(&verified), []);
    assert_eq!((verified.segments, verified.groups, verified.batches), (2, 4, 5));
    assert_eq!(verified.unfinished, None);
}

#[test]
fn each_problem_names_file_and_position() {
    let (mut disk, [first, second]) = disk();
    disk.bytes(0)[first.end() as usize - 1] ^= 1;
    disk.bytes(1)[second.groups[0].start as usize + 92] ^= 1;
    disk.files.insert(index_name(0), vec![7; 4096]);
    disk.files.get_mut("state").expect("a file")[20] ^= 1;
    let verified = verify(&mut disk, Path::new(DIR)).expect("readable");
    let checkpoint = "checkpoint file is damaged: it is rebuilt at the next start";
    assert_eq!(
        problems(&verified),
        [
            (segment_name(0), first.groups[0].end, "batch CRC"),
            (segment_name(1), 4096, "group check"),
            (index_name(0), 0, checkpoint),
            ("state".to_string(), 0, checkpoint)
        ]
    );
}

#[test]
fn a_torn_tail_is_told_but_is_no_problem() {
    let (mut disk, [_, second]) = disk();
    disk.bytes(1)[second.end() as usize - 1] ^= 1;
    let verified = verify(&mut disk, Path::new(DIR)).expect("readable");
    assert_eq!(problems(&verified), []);
    assert_eq!(verified.unfinished.map(|c| (c.position, c.what)), Some((second.groups[0].end, "batch CRC")));
    disk.files.remove(&segment_name(0));
    disk.bytes(1)[9] ^= 1;
    let verified = verify(&mut disk, Path::new(DIR)).expect("readable");
    assert_eq!(problems(&verified), [(segment_name(1), 0, "segment header is damaged")]);
}

#[test]
fn damage_below_what_the_state_file_knows_is_a_problem() {
    let (mut disk, [_, second]) = disk();
    let last = second.groups[1].start;
    for state in [clean(&second), flushed(second.mark())] {
        put_state(&mut disk, &state);
        assert_eq!(problems(&verify(&mut disk, Path::new(DIR)).expect("readable")), []);
        disk.bytes(1)[second.end() as usize - 1] ^= 1;
        let verified = verify(&mut disk, Path::new(DIR)).expect("readable");
        assert_eq!(problems(&verified), [(segment_name(1), last, "batch CRC")]);
        assert_eq!(verified.unfinished, None);
        disk.bytes(1)[second.end() as usize - 1] ^= 1;
    }
    // Lost altogether, and cut off.
    disk.bytes(1)[last as usize..].fill(0);
    let verified = verify(&mut disk, Path::new(DIR)).expect("readable");
    assert_eq!(problems(&verified), [(segment_name(1), last, "zeros where a group should be")]);
    disk.bytes(1).truncate(4096);
    let verified = verify(&mut disk, Path::new(DIR)).expect("readable");
    assert_eq!(problems(&verified), [(segment_name(1), 4096, "file ends where a group should be")]);
}

#[test]
fn a_segment_that_the_state_file_knows_must_be_there() {
    let (mut disk, [_, second]) = disk();
    put_state(&mut disk, &flushed(second.mark()));
    disk.files.remove(&segment_name(1));
    let verified = verify(&mut disk, Path::new(DIR)).expect("readable");
    assert_eq!(problems(&verified), [(segment_name(1), 0, "segment that the state file knows is missing")]);
}
