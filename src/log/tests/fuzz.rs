//! Seeded fuzz of recovery: logs as the store writes them, then damage of every kind. Few seeds here; `CORELOG_FUZZ_SEEDS=100000` for more, and
//! `CORELOG_FUZZ_FIRST` for the seed to begin with.
//!
//! What must hold: recovery does not panic, gives the same result twice, never takes a record that nobody wrote or that is in the wrong place, and
//! never ends a log below what the surviving evidence proves to have been flushed, unless it says so by taking it offline.

use std::collections::BTreeMap;

use super::Seeded;
use super::disk::{BatchSpec, Disk, Log, flushed, plain, put_state, state};
use crate::base::limits::ALIGN;
use crate::base::offset::Offset;
use crate::io::OpenMode;
use crate::log::checkpoint::{CleanStop, Mark, PRODUCERS_NAME, STATE_NAME, State};
use crate::log::format::{SegmentHeader, index_name, segment_name};
use crate::log::index::Reach;
use crate::log::reader::SegmentReader;
use crate::log::recovered::Recovered;
use crate::log::scan::{Depth, Walk};
use crate::log::store::{Planted, Source};

/// A log as it was written.
struct Story {
    segments: Vec<Log>,
    state: Option<State>,
}

fn batches(random: &mut Seeded) -> Vec<BatchSpec> {
    let count = 1 + random.below(4);
    let batch = |random: &mut Seeded| {
        let payload = match random.below(40) {
            0 => 300_000,
            1..10 => 4000 + random.below(9000),
            _ => random.below(700),
        };
        let producer = (random.below(3) == 0).then(|| (random.below(5) as i64, 0, random.below(99) as i32));
        BatchSpec { producer, ..plain(1 + random.below(5) as i32, payload as usize, random.next() as u8) }
    };
    (0..count).map(|_| batch(random)).collect()
}

fn segment(random: &mut Seeded, mut log: Log) -> Log {
    for _ in 0..random.below(9) {
        // Known flushed when a group is sealed: any earlier end.
        if random.below(2) == 0 {
            log.flushed = log.flushed.max(log.end());
        }
        let batches = batches(random);
        match random.below(3) {
            0 => log.group_on_boundary(&batches),
            _ => log.group(&batches),
        };
    }
    log
}

/// Writes a log of up to three segments. Some files of derived data are there, some are not.
fn write(random: &mut Seeded, disk: &mut Disk) -> Story {
    let mut segments = vec![segment(random, Log::first())];
    for _ in 0..random.below(3) {
        let last = segments.last().expect("one");
        let next = last.successor(random.below(2) as u32);
        segments.push(segment(random, next));
    }
    for log in &segments {
        let zeroed = [0, 4096, 65536][random.below(3) as usize];
        log.store(disk, zeroed);
    }
    let tail = segments.last().expect("one");
    let state = match random.below(5) {
        0 => None,
        1 => Some(state()),
        2 => Some(State {
            clean: Some(CleanStop { mark: tail.mark(), reopen: true }),
            flushed: Some(tail.mark()),
            ..state()
        }),
        _ => Some(flushed(mark(random, tail))),
    };
    if let Some(state) = &state {
        put_state(disk, state);
    }
    let recovered = disk.recover();
    assert_eq!(recovered.next_offset, tail.next, "an undamaged log is whole: {:?}", recovered.report);
    assert_eq!(recovered.offline, None);
    store_derived(random, disk, &recovered);
    Story { segments, state }
}

/// The place behind one of the groups.
fn mark(random: &mut Seeded, log: &Log) -> Mark {
    let group = random.below(log.groups.len() as u64 + 1) as usize;
    match group.checked_sub(1).map(|i| &log.groups[i]) {
        None => Mark {
            end: 4096,
            next_offset: log.header.base_offset,
            last_check: log.header_check,
            last_group: 0,
            next_seq: 0,
            ..log.mark()
        },
        Some(written) => Mark {
            end: written.end,
            next_offset: written.next,
            last_check: u32::from_le_bytes(
                log.bytes[written.start as usize + 8..][..4].try_into().expect("four bytes"),
            ),
            last_group: written.start,
            next_seq: group as u64,
            ..log.mark()
        },
    }
}

fn store_derived(random: &mut Seeded, disk: &mut Disk, recovered: &Recovered) {
    for segment in &recovered.segments {
        let reach = Reach {
            segment: segment.header.uuid,
            end: segment.end,
            next_offset: segment.next_offset,
            last_check: segment.last_check,
        };
        if random.below(2) == 0 {
            disk.files.insert(index_name(segment.header.ordinal), segment.index.encode(&reach));
        }
    }
    if random.below(2) == 0 {
        disk.files.insert(PRODUCERS_NAME.into(), recovered.producers.encode(recovered.next_offset));
    }
}

/// One piece of damage to one file.
fn spoil(random: &mut Seeded, disk: &mut Disk, story: &Story) {
    let names: Vec<String> = disk.files.keys().cloned().collect();
    if names.is_empty() {
        return;
    }
    let name = names[random.below(names.len() as u64) as usize].clone();
    let other = names[random.below(names.len() as u64) as usize].clone();
    let bytes = disk.files.get_mut(&name).expect("listed");
    let unit = [1, 16, 512, ALIGN][random.below(4) as usize];
    let len = bytes.len();
    if len < 2 * unit {
        return;
    }
    let at = |random: &mut Seeded| random.below((len / unit) as u64) as usize * unit;
    let (from, to) = (at(random), at(random));
    match random.below(12) {
        0 | 1 => bytes[from] ^= 1 << random.below(8),
        2 => bytes[from..from + unit].fill(0),
        3 => bytes[from..].fill(0),
        4 => bytes.copy_within(from..from + unit, to),
        5 => {
            let (a, b) = (bytes[from..from + unit].to_vec(), bytes[to..to + unit].to_vec());
            bytes[from..from + unit].copy_from_slice(&b);
            bytes[to..to + unit].copy_from_slice(&a);
        }
        6 => bytes.truncate(from),
        7 => bytes[from..from + unit].iter_mut().for_each(|b| *b = random.next() as u8),
        8 => {
            let theirs = disk.files[&other].clone();
            let ours = disk.files.insert(name, theirs).expect("listed");
            disk.files.insert(other, ours);
        }
        9 => drop(disk.files.remove(&name)),
        10 => {
            disk.unreadable.insert((name, from as u64 / 4096 * 4096), 1 + random.below(200) as u32);
        }
        _ => copy_group(random, disk, story),
    }
}

/// A whole valid group in the place of another: a misdirected write, or an old generation.
fn copy_group(random: &mut Seeded, disk: &mut Disk, story: &Story) {
    let pick = |random: &mut Seeded| {
        let log = &story.segments[random.below(story.segments.len() as u64) as usize];
        let group = (!log.groups.is_empty()).then(|| random.below(log.groups.len() as u64) as usize);
        group.map(|g| (log, log.groups[g].clone()))
    };
    let (Some((from, source)), Some((to, target))) = (pick(random), pick(random)) else { return };
    let group = from.bytes[source.start as usize..source.end as usize].to_vec();
    let Some(bytes) = disk.files.get_mut(&segment_name(to.header.ordinal)) else { return };
    let at = target.start as usize;
    if at <= bytes.len() {
        bytes.resize(bytes.len().max(at + group.len()).next_multiple_of(ALIGN), 0);
        bytes[at..at + group.len()].copy_from_slice(&group);
    }
}

/// Every batch of the recovered log that can be read is one that was written, in its place.
fn check_records(
    disk: &mut Disk,
    story: &Story,
    recovered: &Recovered,
    planted: Option<Planted>,
) -> Result<(), String> {
    let mut written: BTreeMap<i64, (u64, &[u8])> = BTreeMap::new();
    for log in &story.segments {
        for group in &log.groups {
            let (mut from, mut base) = (group.start + 80, group.base);
            for (end, next) in &group.batches {
                written.insert(base.0, (log.header.ordinal, &log.bytes[from as usize..*end as usize]));
                (from, base) = (*end, *next);
            }
        }
    }
    let mut expected: Option<Offset> = None;
    for segment in &recovered.segments {
        let last = segment.header.ordinal == recovered.segments.last().map_or(0, |s| s.header.ordinal);
        if expected.is_some_and(|e| e != segment.header.base_offset) {
            return Err("segments leave a gap".into());
        }
        expected = Some(segment.next_offset);
        let name = segment_name(segment.header.ordinal);
        let path = std::path::Path::new(super::disk::DIR).join(&name);
        let file = disk.open(&path, OpenMode::Read).map_err(|e| e.to_string())?;
        let bytes = disk.files[&name].clone();
        let mut seen = Vec::new();
        let mut reader = SegmentReader::new(disk, file, segment.file_len);
        let mut walk = Walk::start(&segment.header, header_check(&bytes));
        let mut found = Vec::new();
        let mut stop = None;
        while walk.end < segment.end && stop.is_none() {
            match walk.next(
                &mut reader,
                Depth { crc: true, chain: planted.is_none(), epochs: None },
                &mut found,
            ) {
                Ok(_) => seen.extend(found.iter().filter(|b| b.end() <= segment.end).copied()),
                Err(why) => stop = Some(why),
            }
        }
        disk.close(file);
        // What is sealed, cleanly closed or below the flush checkpoint is trusted; what is wrong there is found when it is read, as here.
        let trusted = story.state.as_ref().and_then(|s| s.flushed).map_or(0, |m| m.end);
        let walked = last && segment.crash_ended && walk.end >= trusted;
        if let Some(why) = stop.filter(|_| walked) {
            return Err(format!("recovered bytes cannot be read: {why:?}"));
        }
        let mut next = segment.header.base_offset;
        for batch in seen {
            let bytes = &bytes[batch.position as usize..batch.end() as usize];
            if batch.base_offset != next {
                return Err(format!("batch {} where {next} is due", batch.base_offset));
            }
            if written.get(&batch.base_offset.0) != Some(&(segment.header.ordinal, bytes)) {
                return Err(format!("batch {} was never written so", batch.base_offset));
            }
            next = batch.next_offset();
        }
    }
    Ok(())
}

fn header_check(bytes: &[u8]) -> u32 {
    SegmentHeader::decode(bytes).map_or(0, |(_, check)| check)
}

/// The log is not shorter than what the evidence that is still there proves.
fn check_end(disk: &Disk, story: &Story, recovered: &Recovered) -> Result<(), String> {
    if recovered.offline.is_some() {
        return Ok(());
    }
    let readable = disk.unreadable.keys().all(|(name, _)| name != STATE_NAME);
    let intact =
        |s: &&State| readable && disk.files.get(STATE_NAME).is_some_and(|bytes| *bytes == s.encode());
    if let Some(state) = story.state.as_ref().filter(intact) {
        let marks = state.flushed.iter().chain(state.clean.as_ref().map(|c| &c.mark));
        let known = marks.map(|m| m.next_offset).max().unwrap_or(Offset(0));
        if recovered.next_offset < known {
            return Err(format!("ends at {} below the checkpoint {known}", recovered.next_offset));
        }
    }
    let tail = recovered.segments.last().map(|s| s.header.ordinal);
    for log in &story.segments {
        let Some(bytes) = disk.files.get(&segment_name(log.header.ordinal)) else { continue };
        for group in &log.groups {
            let range = group.start as usize..group.end as usize;
            let header = &log.bytes[range.clone()][..80];
            let knew = u64::from_le_bytes(header[64..72].try_into().expect("eight bytes"));
            let survived = bytes.get(range.clone()) == Some(&log.bytes[range]);
            let end = recovered.segments.iter().find(|s| s.header.uuid == log.header.uuid).map(|s| s.end);
            if survived && tail == Some(log.header.ordinal) && end.is_some_and(|end| end < knew) {
                return Err(format!("ends at {end:?}, but a group knew {knew} to be flushed"));
            }
        }
    }
    Ok(())
}

fn run(seed: u64, planted: Option<Planted>) -> Result<(), String> {
    let mut random = Seeded::new(seed);
    let mut disk = Disk::new();
    let story = write(&mut random, &mut disk);
    for _ in 0..1 + random.below(3) {
        spoil(&mut random, &mut disk, &story);
    }
    let unreadable = disk.unreadable.clone();
    let before = disk.files.clone();
    let Ok(recovered) = disk.try_recover(planted) else { return Ok(()) };
    if recovered.offline.is_some() && disk.files != before {
        return Err("a damaged log was written to".into());
    }
    disk.unreadable = unreadable;
    let checked = check_end(&disk, &story, &recovered);
    checked.map_err(|what| format!("{what}: {:?} {:?}", recovered.report, recovered.segments.last()))?;
    let again = disk.try_recover(planted).map_err(|e| e.to_string())?;
    if (&again.segments, again.next_offset, &again.offline)
        != (&recovered.segments, recovered.next_offset, &recovered.offline)
    {
        return Err("the second recovery differs".into());
    }
    disk.unreadable.clear();
    let checked = check_records(&mut disk, &story, &recovered, planted);
    checked.map_err(|what| format!("{what}: {:?} {:?}", recovered.report, recovered.offline))
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let first = number("CORELOG_FUZZ_FIRST").unwrap_or(0);
    first..first + number("CORELOG_FUZZ_SEEDS").unwrap_or(default)
}

#[test]
fn damaged_logs_are_never_misread() {
    for seed in seeds(250) {
        if let Err(what) = run(seed, None) {
            panic!("CORELOG_FUZZ_FIRST={seed} CORELOG_FUZZ_SEEDS=1: {what}");
        }
    }
}

#[test]
fn the_fuzz_notices_a_missing_chain() {
    let found = (0..3000).any(|seed| run(seed, Some(Planted::NoChain)).is_err());
    assert!(found, "a fuzz that cannot fail proves nothing");
}

#[test]
fn arbitrary_bytes_never_panic() {
    for seed in seeds(300) {
        let mut random = Seeded::new(seed);
        let mut disk = Disk::new();
        for ordinal in 0..1 + random.below(3) {
            let len =
                random.below(4) as usize * 4096 + random.below(2) as usize * random.below(9000) as usize;
            let mut bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
            let mut log = Log::first();
            log.header.ordinal = ordinal;
            if len >= 4096 && random.below(3) > 0 {
                bytes[..4096].copy_from_slice(&log.header.encode().0[..]);
                let group = log.group(&batches(&mut random));
                let garbage = random.below(200) as usize;
                let group = &mut log.bytes[group.start as usize..];
                let at = random.below(group.len() as u64) as usize;
                let to = (at + garbage).min(group.len());
                group[at..to].iter_mut().for_each(|b| *b = random.next() as u8);
                let fits = group.len().min(len - 4096);
                bytes[4096..4096 + fits].copy_from_slice(&group[..fits]);
            }
            disk.files.insert(segment_name(ordinal), bytes);
        }
        for name in [STATE_NAME, PRODUCERS_NAME, "0000000000.idx"] {
            let bytes = (0..random.below(2) * 4096).map(|_| random.next() as u8).collect();
            disk.files.insert(name.into(), bytes);
        }
        let _ = disk.try_recover(None);
    }
}

#[test]
fn cooked_directories_keep_the_promises() {
    for seed in seeds(300) {
        let mut random = Seeded::new(seed);
        // Steps are more often groups than anything else.
        let mut byte = || if random.below(3) == 0 { random.next() as u8 } else { random.below(140) as u8 };
        let recipe: Vec<u8> = (0..60).map(|_| byte()).collect();
        crate::log::fuzz::recovery(&recipe);
        crate::log::fuzz::checkpoints(&recipe);
    }
}
