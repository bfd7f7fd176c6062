//! Recovery: a test for each row of the decision table, then the stories behind them.

use super::disk::{BatchSpec, Disk, Log, clean, flushed, names, plain, put_state, state};
use crate::base::ids::{LeaderEpoch, Uuid};
use crate::base::limits::ALIGN;
use crate::base::offset::Offset;
use crate::log::checkpoint::{CleanStop, Mark, PRODUCERS_NAME, State};
use crate::log::decide::{
    At, Evidence, File, Flushed, Header, Later, ROWS, Row, TABLE, Tail, Verdict, decide,
};
use crate::log::epochs::EpochCache;
use crate::log::format::{index_name, segment_name};
use crate::log::index::{Index, Reach};
use crate::log::producers::{Checked, Producers};
use crate::log::recovered::{Rebuilt, Recovered};
use crate::log::recovery::OpenError;
use crate::log::store::Planted;

/// Three groups: right behind one another, and one on a boundary. Nothing flushed is known.
fn three_groups() -> Log {
    let mut log = Log::first();
    log.group(&[plain(2, 100, 1), plain(3, 50, 2)]);
    log.group(&[plain(1, 5000, 3)]);
    log.group_on_boundary(&[plain(4, 300, 4)]);
    log
}

/// The same disk recovered twice gives the same, and the second time nothing is left to remove.
fn recover(disk: &mut Disk) -> Recovered {
    let first = disk.recover();
    let before = disk.files.clone();
    let second = disk.recover();
    assert_eq!(before, disk.files, "the second recovery changes nothing");
    assert_eq!(first.segments, second.segments);
    assert_eq!(first.producers, second.producers);
    assert_eq!(first.epochs, second.epochs);
    assert_eq!(first.offline, second.offline);
    assert_eq!(
        (first.next_offset, first.log_start, first.generation, first.leader_epoch, first.reopen),
        (second.next_offset, second.log_start, second.generation, second.leader_epoch, second.reopen)
    );
    first
}

/// Recovers and expects the row, the end of the last segment, and whether the log is offline there.
fn check(disk: &mut Disk, row: Row, next: Offset, offline_at: Option<u64>) -> Recovered {
    let before = disk.files.clone();
    let recovered = recover(disk);
    assert!(recovered.report.rows.contains(&row), "{row:?} not in {:?}", recovered.report.rows);
    assert_eq!(recovered.next_offset, next);
    assert_eq!(recovered.offline.as_ref().map(|c| c.position), offline_at, "{:?}", recovered.offline);
    if offline_at.is_some() {
        assert_eq!(disk.files, before, "damage: nothing is touched");
        assert!(disk.ran.is_empty());
    }
    recovered
}

fn every_evidence() -> Vec<Evidence> {
    let mut all = vec![
        Evidence::Tail(Tail::Clean),
        Evidence::Derived { usable: true },
        Evidence::Derived { usable: false },
    ];
    let both = [false, true];
    for header in [Header::Valid, Header::Nothing, Header::Damaged, Header::Unreadable] {
        for newest in both {
            for named in both {
                for (follows, retired) in [(false, false), (false, true), (true, false), (true, true)] {
                    all.push(Evidence::File(File { header, newest, named, follows, retired }));
                }
            }
        }
    }
    for stop in [At::Nothing, At::Bad, At::Foreign, At::Misplaced, At::Unreadable] {
        for later in [Later::Nothing, Later::Unflushed, Later::Flushed, Later::Unreadable] {
            for flushed in [Flushed::Reached, Flushed::Below, Flushed::Unknown] {
                for short in both {
                    all.push(Evidence::Tail(Tail::Scanned { stop, flushed, later, short }));
                }
            }
        }
    }
    all
}

#[test]
fn every_evidence_matches_exactly_one_row() {
    let mut hit = [0; ROWS];
    for evidence in every_evidence() {
        let rows: Vec<Row> = TABLE.iter().filter(|(_, p, _)| p(&evidence)).map(|(r, _, _)| *r).collect();
        assert_eq!(rows.len(), 1, "{evidence:?} matches {rows:?}");
        hit[rows[0] as usize] += 1;
        let (_, verdict) = decide(&evidence);
        if let Evidence::Tail(Tail::Scanned { flushed: Flushed::Below, .. }) = evidence {
            assert_eq!(verdict, Verdict::Offline, "what was flushed is never cut off: {evidence:?}");
        }
    }
    assert!(hit.iter().all(|n| *n > 0), "a row without evidence: {hit:?}");
    assert!(TABLE.iter().enumerate().all(|(i, (row, _, _))| *row as usize == i));
}

#[test]
fn an_empty_directory_is_an_empty_log() {
    let mut disk = Disk::new();
    let recovered = recover(&mut disk);
    assert_eq!((recovered.next_offset, recovered.generation), (Offset(0), 1));
    assert_eq!(recovered.leader_epoch, LeaderEpoch::NONE);
    assert!(recovered.segments.is_empty() && recovered.offline.is_none() && recovered.reopen.is_none());
}

#[test]
fn clean_stop() {
    let (mut disk, log) = (Disk::new(), three_groups());
    log.store(&mut disk, 65536);
    put_state(&mut disk, &clean(&log));
    disk.files.insert(PRODUCERS_NAME.into(), Producers::default().encode(log.next));
    let recovered = check(&mut disk, Row::CleanStop, log.next, None);
    assert_eq!(recovered.reopen.map(|r| (r.next_seq, r.last_group)), Some((3, log.groups[2].start)));
    assert_eq!(recovered.generation, 1);
    assert_eq!(recovered.report.rebuilt, [Rebuilt::Index(0)]);
    assert!(disk.ran.is_empty(), "{:?}", disk.ran);

    let reach =
        Reach { segment: log.header.uuid, end: log.end(), next_offset: log.next, last_check: log.check };
    disk.files.insert(index_name(0), recovered.segments[0].index.encode(&reach));
    let again = check(&mut disk, Row::CleanStop, log.next, None);
    assert_eq!(again.segments[0].index, recovered.segments[0].index);
    assert!(again.report.rebuilt.is_empty());
    assert!(again.report.bytes_scanned <= 64 * 1024 + 20_000, "only the last group's header is looked at");
}

#[test]
fn a_clean_stop_after_a_crash_does_not_reopen_the_segment() {
    let (mut disk, log) = (Disk::new(), three_groups());
    log.store(&mut disk, 65536);
    put_state(&mut disk, &State { clean: Some(CleanStop { mark: log.mark(), reopen: false }), ..state() });
    let recovered = check(&mut disk, Row::CleanStop, log.next, None);
    assert_eq!((recovered.reopen, recovered.generation), (None, 2));
    assert!(recovered.segments[0].crash_ended);
}

#[test]
fn a_clean_stop_record_that_lies_is_no_clean_stop() {
    let (mut disk, log) = (Disk::new(), three_groups());
    log.store(&mut disk, 65536);
    let mut lie = clean(&log);
    if let Some(clean) = &mut lie.clean {
        clean.mark.last_check ^= 1;
    }
    put_state(&mut disk, &lie);
    let recovered = check(&mut disk, Row::NormalEnd, log.next, None);
    assert_eq!(recovered.reopen, None);
}

#[test]
fn normal_end() {
    for zeroed in [0, 4096, 600_000] {
        let (mut disk, log) = (Disk::new(), three_groups());
        log.store(&mut disk, zeroed);
        put_state(&mut disk, &flushed(log.mark()));
        let recovered = check(&mut disk, Row::NormalEnd, log.next, None);
        assert_eq!((recovered.reopen, recovered.generation), (None, 2));
        assert_eq!(recovered.segments[0].end, log.end());
        assert!(recovered.segments[0].crash_ended);
        assert_eq!(recovered.report.dropped, None);
        assert_eq!(disk.ran, ["flush 0000000000.seg", "sync"], "flushed before anyone reads it");
    }
}

#[test]
fn zeros_below_what_was_flushed_are_damage() {
    let (mut disk, log) = (Disk::new(), three_groups());
    log.store(&mut disk, 4096);
    put_state(&mut disk, &flushed(log.mark()));
    let (from, to) = (log.groups[1].end as usize, log.end() as usize);
    disk.bytes(0)[from..to].fill(0);
    check(&mut disk, Row::BelowFlushed, log.groups[1].next, Some(log.groups[1].end));
}

#[test]
fn torn_tail_at_every_sector() {
    let mut log = three_groups();
    let end = log.end();
    let last = log.group(&[plain(2, 3000, 5), plain(1, 9000, 6)]);
    for cut in (last.start.next_multiple_of(512)..last.end).step_by(512) {
        let mut disk = Disk::new();
        log.store(&mut disk, 65536);
        put_state(&mut disk, &state());
        disk.bytes(0)[cut as usize..].fill(0);
        let recovered = check(&mut disk, Row::TornTail, log.groups[2].next, None);
        assert_eq!(recovered.segments[0].end, end);
        let dropped = recovered.report.dropped.expect("bytes were dropped");
        assert!(dropped.from == end && dropped.bytes > 0 && dropped.bytes <= last.end - end);
    }
}

#[test]
fn later_unflushed() {
    // Four groups in flight together; each one may be the one that got lost, and all behind it arrived.
    for lost in 1..4 {
        let (mut disk, mut log) = (Disk::new(), three_groups());
        log.group(&[plain(1, 10, 5)]);
        log.flushed = log.groups[0].end;
        log.group_on_boundary(&[plain(1, 10, 6)]);
        log.store(&mut disk, 65536);
        put_state(&mut disk, &flushed(Mark { end: log.groups[0].end, ..log.mark() }));
        let gone = &log.groups[lost];
        disk.bytes(0)[gone.start as usize..gone.end as usize].fill(0);
        // Where the lost one fits into the rest of a block, the next one stands where it is looked for.
        let row = if lost == 3 { Row::Misplaced } else { Row::LaterUnflushed };
        check(&mut disk, row, gone.base, None);
    }
}

#[test]
fn below_flushed() {
    for damaged in 0..3 {
        let (mut disk, log) = (Disk::new(), three_groups());
        log.store(&mut disk, 4096);
        put_state(&mut disk, &flushed(log.mark()));
        let group = log.groups[damaged].clone();
        let before = damaged.checked_sub(1).map_or(4096, |i| log.groups[i].end);
        disk.bytes(0)[group.end as usize - 1] ^= 1;
        check(&mut disk, Row::BelowFlushed, group.base, Some(before));
    }
}

#[test]
fn a_later_group_proves_that_the_damaged_one_was_flushed() {
    for on_boundary in [false, true] {
        for whole_header in [false, true] {
            let (mut disk, mut log) = (Disk::new(), three_groups());
            log.flushed = log.end();
            if on_boundary {
                log.group_on_boundary(&[plain(1, 10, 5)]);
            } else {
                log.group(&[plain(1, 10, 5)]);
            }
            log.store(&mut disk, 4096);
            put_state(&mut disk, &state());
            let damaged = log.groups[2].clone();
            let from = damaged.start as usize + if whole_header { 0 } else { 100 };
            disk.bytes(0)[from..from + 20].fill(0x55);
            check(&mut disk, Row::BelowFlushed, damaged.base, Some(log.groups[1].end));
        }
    }
}

#[test]
fn recycled() {
    // The file was a segment before: its groups follow where ours end, at a boundary and right behind.
    let mut old = Log::first();
    old.header.uuid = Uuid([99; 16]);
    for _ in 0..20 {
        old.group_on_boundary(&[plain(2, 1000, 7)]);
    }
    let mut log = Log::first();
    log.group_on_boundary(&[plain(4, 3900, 4)]);
    let mut disk = Disk::new();
    log.store(&mut disk, 0);
    let ours = disk.bytes(0).len();
    let rest = old.bytes[ours..].to_vec();
    disk.bytes(0).extend(rest);
    put_state(&mut disk, &flushed(log.mark()));
    check(&mut disk, Row::Recycled, log.next, None);
}

#[test]
fn an_older_generation_is_not_part_of_the_log() {
    let (mut disk, mut log) = (Disk::new(), three_groups());
    let end = log.next;
    log.header.generation = 0;
    log.group_on_boundary(&[plain(1, 10, 5)]);
    log.store(&mut disk, 4096);
    put_state(&mut disk, &state());
    check(&mut disk, Row::Recycled, end, None);
}

#[test]
fn misplaced() {
    let (mut disk, mut log) = (Disk::new(), three_groups());
    let end = log.next;
    log.next = log.next.plus(1);
    log.group_on_boundary(&[plain(1, 10, 5)]);
    log.store(&mut disk, 4096);
    put_state(&mut disk, &state());
    let recovered = check(&mut disk, Row::Misplaced, end, None);
    assert!(recovered.report.dropped.is_some());
    // The same below what is known to be flushed is damage.
    put_state(&mut disk, &flushed(log.mark()));
    check(&mut disk, Row::BelowFlushed, end, Some(log.groups[2].end));
}

#[test]
fn unreadable() {
    for (mark, times, row) in [
        (false, u32::MAX, Row::Unreadable),
        (true, u32::MAX, Row::Unreadable),
        (false, 1, Row::NormalEnd),
        (true, 1, Row::NormalEnd),
    ] {
        let (mut disk, log) = (Disk::new(), three_groups());
        log.store(&mut disk, 600_000);
        put_state(&mut disk, &if mark { flushed(log.mark()) } else { state() });
        let sector = log.groups[2].start;
        disk.unreadable.insert((segment_name(0), sector), times);
        let lost = row == Row::Unreadable;
        let next = if lost { log.groups[2].base } else { log.next };
        check(&mut disk, row, next, lost.then_some(log.groups[1].end));
    }
}

#[test]
fn an_unreadable_sector_behind_the_end_is_not_a_torn_tail() {
    let (mut disk, log) = (Disk::new(), three_groups());
    log.store(&mut disk, 600_000);
    put_state(&mut disk, &state());
    disk.unreadable.insert((segment_name(0), 100 * ALIGN as u64), u32::MAX);
    check(&mut disk, Row::Unreadable, log.next, Some(log.end()));
}

#[test]
fn an_unreadable_header_takes_the_segment_offline() {
    let (mut disk, log) = (Disk::new(), three_groups());
    log.store(&mut disk, 0);
    log.successor(0).store(&mut disk, 4096);
    put_state(&mut disk, &state());
    disk.unreadable.insert((segment_name(1), 0), u32::MAX);
    let recovered = check(&mut disk, Row::Unreadable, log.next, Some(0));
    assert_eq!(recovered.segments.len(), 1);
}

#[test]
fn roll_interrupted() {
    let (mut disk, log) = (Disk::new(), three_groups());
    log.store(&mut disk, 4096);
    put_state(&mut disk, &state());
    // Created only, zeroed, and two recycled ones: of this partition and of another.
    disk.files.insert(segment_name(1), Vec::new());
    disk.files.insert(segment_name(2), vec![0; 65536]);
    let mut recycled = Log::first();
    recycled.group(&[plain(3, 500, 9)]);
    disk.files.insert(segment_name(3), recycled.bytes.clone());
    recycled.header.key.topic = Uuid([77; 16]);
    recycled.header.ordinal = 4;
    recycled.bytes[..4096].copy_from_slice(&recycled.header.encode().0[..]);
    disk.files.insert(segment_name(4), recycled.bytes);
    disk.files.insert("state.tmp".into(), vec![1; 4096]);
    disk.files.insert(index_name(7), vec![1; 4096]);
    let recovered = check(&mut disk, Row::RollInterrupted, log.next, None);
    assert_eq!(recovered.report.removed.len(), 6);
    assert_eq!(names(&disk), ["0000000000.seg", "state"].into());
    assert_eq!(recovered.segments.len(), 1);
}

#[test]
fn lost_files() {
    let mut first = three_groups();
    first.flushed = first.end();
    let mut second = first.successor(0);
    second.group(&[plain(2, 200, 5)]);
    let mut third = second.successor(0);
    third.group(&[plain(2, 200, 6)]);
    type Spoil = fn(&mut Disk, &Log);
    let cases: [(&str, Spoil, Offset, u64); 7] = [
        ("the first is missing", |d, _| drop(d.files.remove(&segment_name(0))), Offset(0), 0),
        ("one is missing", |d, _| drop(d.files.remove(&segment_name(1))), first.next, 0),
        ("the last is missing", |d, _| drop(d.files.remove(&segment_name(2))), second.next, 0),
        ("all are missing", |d, _| d.files.retain(|n, _| n == "state"), Offset(0), 0),
        ("the second lost its header", |d, _| d.bytes(1)[..4096].fill(0), first.next, 0),
        ("the last lost its header", |d, _| d.bytes(2)[..4096].fill(0), second.next, 0),
        ("the last is shorter than its checkpoint", |d, _| d.bytes(2).truncate(4096), second.next, 4096),
    ];
    for (what, spoil, next, position) in cases {
        let mut disk = Disk::new();
        for log in [&first, &second, &third] {
            log.store(&mut disk, 0);
        }
        put_state(&mut disk, &flushed(third.mark()));
        check(&mut disk, Row::NormalEnd, third.next, None);
        spoil(&mut disk, &first);
        eprintln!("{what}");
        check(&mut disk, Row::LostFile, next, Some(position));
    }
}

/// A job that removed old segments was given up at one of them, and a later one removed what came behind: the gap lies before the log start,
/// where nothing is missed.
#[test]
fn a_gap_below_the_log_start_costs_nothing() {
    let first = three_groups();
    let mut second = first.successor(0);
    second.group(&[plain(2, 200, 5)]);
    let mut third = second.successor(0);
    third.group(&[plain(2, 200, 6)]);
    let disk_from = |log_start: Offset, mark| {
        let mut disk = Disk::new();
        first.store(&mut disk, 0);
        third.store(&mut disk, 0);
        put_state(&mut disk, &State { log_start, ..flushed(mark) });
        disk
    };
    for mark in [first.mark(), third.mark()] {
        let mut disk = disk_from(third.header.base_offset, mark);
        let recovered = check(&mut disk, Row::Retired, third.next, None);
        assert_eq!(recovered.report.removed.len(), 1);
        assert_eq!(names(&disk), ["0000000002.seg", "state"].into());
        assert_eq!(recovered.segments.len(), 1);
    }
    // A record that is still part of the log is missing.
    let within = third.header.base_offset.plus(-1);
    check(&mut disk_from(within, third.mark()), Row::LostFile, within, Some(0));
    // The first segment was flushed further than where the third begins: one of them is not what it says.
    let beyond = Mark { next_offset: third.header.base_offset.plus(1), ..first.mark() };
    let start = third.header.base_offset;
    check(&mut disk_from(start, beyond), Row::LostFile, start, Some(0));
}

/// Its successor's header says where a segment ends; if that is lost, the epochs of `state` do.
#[test]
fn what_a_lost_successor_replaced_does_not_come_back() {
    for (group, batch) in [(0, 0), (0, 1), (1, 0), (2, 0)] {
        let log = three_groups();
        let (end, next) = log.groups[group].batches[batch];
        let mut second = log.successor_at(end, next, 1);
        second.group(&[plain(9, 200, 5)]);
        let epochs = EpochCache::from_entries(vec![(LeaderEpoch(1), Offset(0)), (LeaderEpoch(2), next)]);
        let known = State { epochs: epochs.expect("they grow"), ..state() };
        let mut disk = Disk::new();
        log.store(&mut disk, 4096);
        second.store(&mut disk, 4096);
        put_state(&mut disk, &known);
        if next == log.next {
            check(&mut disk, Row::NormalEnd, second.next, None);
        }
        disk.bytes(1)[100] ^= 1;
        let recovered = check(&mut disk, Row::HeaderDamaged, next, Some(0));
        assert_eq!(recovered.segments[0].end, end);
        assert_eq!(recovered.offline.map(|c| c.what), Some("segment header is damaged"));
        // The first segment is back from a recycling that was cut off: what was removed before stays removed.
        put_state(&mut disk, &State { log_start: second.next, ..known });
        let recovered = check(&mut disk, Row::HeaderDamaged, second.next, Some(0));
        assert_eq!(recovered.log_start, second.next);
    }
}

#[test]
fn a_sealed_segment_that_is_too_short_is_offline_from_its_end() {
    let (mut disk, log) = (Disk::new(), three_groups());
    log.store(&mut disk, 0);
    log.successor(0).store(&mut disk, 0);
    put_state(&mut disk, &state());
    disk.bytes(0).truncate(8192);
    let recovered = check(&mut disk, Row::LostFile, log.groups[0].next, Some(0));
    assert_eq!(recovered.segments[0].end, log.groups[0].end);
}

#[test]
fn swapped_files_are_noticed() {
    let (mut disk, log) = (Disk::new(), three_groups());
    let mut second = log.successor(0);
    second.group(&[plain(1, 10, 5)]);
    log.store(&mut disk, 0);
    second.store(&mut disk, 0);
    put_state(&mut disk, &state());
    let (a, b) = (disk.bytes(0).clone(), disk.bytes(1).clone());
    disk.files.insert(segment_name(0), b);
    disk.files.insert(segment_name(1), a);
    check(&mut disk, Row::HeaderDamaged, Offset(0), Some(0));
}

#[test]
fn header_damaged() {
    let (mut disk, log) = (Disk::new(), three_groups());
    log.store(&mut disk, 0);
    let mut second = log.successor(0);
    second.group(&[plain(1, 10, 5)]);
    second.store(&mut disk, 0);
    put_state(&mut disk, &state());
    disk.bytes(1)[70] ^= 1;
    check(&mut disk, Row::HeaderDamaged, log.next, Some(0));
}

#[test]
fn state_damaged() {
    // How far was it flushed? The file that knew is damaged, so a torn group may have been acknowledged; a plain end may not.
    let (mut disk, log) = (Disk::new(), three_groups());
    log.store(&mut disk, 4096);
    put_state(&mut disk, &state());
    disk.files.get_mut("state").expect("a file")[20] ^= 1;
    check(&mut disk, Row::NormalEnd, log.next, None);
    disk.bytes(0)[log.end() as usize - 1] ^= 1;
    check(&mut disk, Row::StateDamaged, log.groups[2].base, Some(log.groups[1].end));
    disk.files.remove("state");
    check(&mut disk, Row::TornTail, log.groups[2].base, None);
}

#[test]
fn derived_lost() {
    let producer = |first: i32| BatchSpec { producer: Some((7, 0, first)), ..plain(2, 100, 1) };
    let mut first = Log::first();
    first.group(&[producer(0), producer(2)]);
    let mut second = first.successor(1);
    second.group(&[producer(4)]);
    for damage in [false, true] {
        let mut disk = Disk::new();
        first.store(&mut disk, 0);
        second.store(&mut disk, 0);
        if damage {
            for name in ["state", PRODUCERS_NAME, "0000000000.idx"] {
                disk.files.insert(name.into(), vec![0x77; 4096]);
            }
        }
        let recovered = check(&mut disk, Row::DerivedLost, second.next, None);
        assert_eq!(recovered.report.rebuilt, [Rebuilt::Index(0), Rebuilt::State, Rebuilt::Producers]);
        assert_eq!((recovered.leader_epoch, recovered.generation), (LeaderEpoch(2), 3));
        assert_eq!(recovered.epochs.entries(), [(LeaderEpoch(1), Offset(0)), (LeaderEpoch(2), Offset(4))]);
        assert!(recovered.segments[0].crash_ended, "begun by a later generation");
        let next = |first| {
            let batch = crate::log::producers::Sequenced {
                producer: crate::base::ids::ProducerId(7),
                epoch: crate::base::ids::ProducerEpoch(0),
                first,
                last_delta: 1,
                control: false,
            };
            recovered.producers.check(&[batch])
        };
        assert_eq!(next(6), Ok(Checked::New));
        assert!(matches!(next(4), Ok(Checked::Duplicate(found)) if found.base_offset == Offset(4)));
        assert!(next(7).is_err());
        let found = recovered.segments[0].index.find_offset(Offset(3)).expect("an entry");
        assert_eq!(found.position, 4096);
    }
}

#[test]
fn a_snapshot_from_beyond_the_end_is_not_used() {
    let (mut disk, mut log) = (Disk::new(), three_groups());
    let mut producers = Producers::default();
    let batch = BatchSpec { producer: Some((7, 3, 0)), ..plain(1, 10, 5) };
    log.group(&[batch]);
    log.store(&mut disk, 0);
    put_state(&mut disk, &state());
    let gone = crate::log::producers::Sequenced {
        producer: crate::base::ids::ProducerId(8),
        epoch: crate::base::ids::ProducerEpoch(0),
        first: 5,
        last_delta: 0,
        control: false,
    };
    producers.advance(&gone, log.next, -1, 0);
    disk.files.insert(PRODUCERS_NAME.into(), producers.encode(log.next.plus(1)));
    let recovered = check(&mut disk, Row::NormalEnd, log.next, None);
    assert_eq!(recovered.producers.len(), 1);
    disk.files.insert(PRODUCERS_NAME.into(), producers.encode(log.next));
    let recovered = check(&mut disk, Row::NormalEnd, log.next, None);
    assert_eq!(recovered.producers, producers, "replayed from where it ends");
}

#[test]
fn newer_files_are_refused_by_name() {
    let (mut disk, log) = (Disk::new(), three_groups());
    log.store(&mut disk, 0);
    put_state(&mut disk, &state());
    let at = log.groups[1].start as usize + 4;
    disk.bytes(0)[at] = 9;
    match disk.try_recover(None) {
        Err(OpenError::Newer { path, version: 9 }) => assert!(path.ends_with(segment_name(0))),
        other => panic!("{other:?}"),
    }
}

/// The story of the chain. Crash: group A is lost, B behind it has landed. Recovery ends the log before A. Had the next process written into
/// the same place, A' of A's length would stand before the old B, and B would look as if it followed.
#[test]
fn an_old_group_behind_a_new_one_of_the_same_length_stays_dead() {
    let mut before = Log::first();
    before.group(&[plain(1, 100, 1)]);
    let mut after = Log::first();
    after.group(&[plain(1, 100, 1)]);
    let lost = before.group(&[plain(1, 700, 2)]);
    before.group(&[plain(1, 50, 3)]);
    let instead = after.group(&[plain(1, 700, 9)]);
    assert_eq!((lost.start, lost.end), (instead.start, instead.end));
    let mut disk = Disk::new();
    before.store(&mut disk, 0);
    disk.bytes(0)[..after.bytes.len()].copy_from_slice(&after.bytes);
    put_state(&mut disk, &state());
    check(&mut disk, Row::Misplaced, after.next, None);
    let planted = disk.try_recover(Some(Planted::NoChain)).expect("recovery decides");
    assert_eq!(planted.next_offset, before.next, "without the chain the dead record appears");
}

/// The story of the late write. A process is killed with a write in flight; its successor finds the log's end at P and goes on in a new
/// segment. Then the write lands, valid in every respect, right at P.
#[test]
fn a_write_that_lands_after_its_process_died_changes_nothing() {
    let (mut disk, mut log) = (Disk::new(), three_groups());
    log.store(&mut disk, 65536);
    put_state(&mut disk, &state());
    let found = check(&mut disk, Row::NormalEnd, log.next, None);
    let (end, next) = (found.segments[0].end, found.next_offset);
    let mut second = log.successor(1);
    second.group(&[plain(1, 10, 8)]);
    second.store(&mut disk, 4096);
    log.group(&[plain(5, 40, 6)]);
    log.group_on_boundary(&[plain(5, 40, 7)]);
    log.store(&mut disk, 65536);
    let recovered = check(&mut disk, Row::NormalEnd, second.next, None);
    assert_eq!((recovered.segments[0].end, recovered.segments[0].next_offset), (end, next));
    assert!(recovered.segments[0].crash_ended);
    let entries = recovered.segments[0].index.entries();
    assert!(entries.iter().all(|e| e.position < end));
}

#[test]
fn a_seal_may_lie_inside_a_group() {
    let mut log = three_groups();
    let cut = log.group(&[plain(2, 100, 5), plain(2, 100, 6), plain(2, 100, 7)]);
    let (end, next) = cut.batches[1];
    let mut second = log.successor_at(end, next, 0);
    second.group(&[plain(1, 10, 8)]);
    let mut disk = Disk::new();
    log.store(&mut disk, 0);
    second.store(&mut disk, 0);
    put_state(&mut disk, &state());
    let recovered = check(&mut disk, Row::NormalEnd, second.next, None);
    assert_eq!((recovered.segments[0].end, recovered.segments[0].next_offset), (end, next));
    // Not at a batch's end: nobody wrote that.
    let mut second = log.successor_at(end - 1, next, 0);
    second.group(&[plain(1, 10, 8)]);
    second.store(&mut disk, 0);
    check(&mut disk, Row::BelowFlushed, cut.base, Some(log.groups[2].end));
}

#[test]
fn groups_and_batches_may_span_blocks() {
    let mut log = Log::first();
    for tag in 0..40u8 {
        let big = plain(3, 200_000 + usize::from(tag) * 997, tag);
        log.group(&[plain(1, 30, tag), big, plain(2, 60_000, tag)]);
    }
    let mut disk = Disk::new();
    log.store(&mut disk, 1_000_000);
    put_state(&mut disk, &flushed(log.mark()));
    let recovered = check(&mut disk, Row::NormalEnd, log.next, None);
    assert_eq!(recovered.segments[0].end, log.end());
    assert!(recovered.report.bytes_scanned < 2 * disk.bytes(0).len() as u64 + 1_000_000);
    let last = log.groups[39].clone();
    disk.bytes(0)[last.end as usize - 1] ^= 1;
    check(&mut disk, Row::BelowFlushed, last.base, Some(log.groups[38].end));
}

#[test]
fn the_walk_resumes_at_the_flush_checkpoint() {
    let mut log = Log::first();
    for tag in 0..30 {
        log.group(&[plain(1, 40_000, tag)]);
    }
    let mark = log.mark();
    let mut index = Index::new(4096);
    for group in &log.groups {
        index.add(group.base, group.start, 0);
    }
    let reach = Reach {
        segment: log.header.uuid,
        end: mark.end,
        next_offset: mark.next_offset,
        last_check: mark.last_check,
    };
    let last = log.group(&[plain(1, 10, 77)]);
    let mut disk = Disk::new();
    log.store(&mut disk, 0);
    put_state(&mut disk, &flushed(mark));
    disk.files.insert(index_name(0), index.encode(&reach));
    disk.files.insert(PRODUCERS_NAME.into(), Producers::default().encode(mark.next_offset));
    let recovered = check(&mut disk, Row::NormalEnd, log.next, None);
    assert!(recovered.report.bytes_scanned < 600_000, "{}", recovered.report.bytes_scanned);
    assert_eq!(recovered.segments[0].index.largest().map(|l| l.offset), Some(last.base));
    assert_eq!((recovered.segments[0].end, recovered.segments[0].next_seq), (log.end(), 31));
}

#[test]
fn state_of_another_partition_is_not_believed() {
    let (mut disk, log) = (Disk::new(), three_groups());
    log.store(&mut disk, 0);
    put_state(&mut disk, &State { log_start: Offset(3), directory: Uuid([9; 16]), ..clean(&log) });
    let recovered = check(&mut disk, Row::DerivedLost, log.next, None);
    assert_eq!((recovered.log_start, recovered.reopen), (Offset(0), None));
    put_state(&mut disk, &State { log_start: Offset(3), ..state() });
    let recovered = check(&mut disk, Row::NormalEnd, log.next, None);
    assert_eq!(recovered.log_start, Offset(3));
    assert_eq!(recovered.epochs.entries(), [(LeaderEpoch(1), Offset(3))]);
    put_state(&mut disk, &State { log_start: Offset(3000), ..state() });
    check(&mut disk, Row::LostFile, Offset(3000), Some(0));
}
