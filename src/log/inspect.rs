//! What `corelog log segments`, `dump` and `verify` show. Reads through a [`Source`] and writes nothing; the broker is stopped, or the reads are
//! direct. It knows no topics: partition and data directory are whatever the first segment says.
//!
//! The last segment of a running or crashed log ends in the middle of things: what stands behind its last good group is told, and is a problem
//! only where a later group, or the state file, proves that it had been flushed.

use std::path::Path;

use super::checkpoint::{Mark, NotCheckpoint, PRODUCERS_NAME, STATE_NAME, State};
use super::format::{
    GroupHeader, NotHeader, PrevEnd, SEGMENT_HEADER_BYTES, SegmentHeader, index_name, parse_segment_name,
    segment_name,
};
use super::index::{Index, Reach};
use super::producers::Producers;
use super::reader::SegmentReader;
use super::scan::{BatchHead, Depth, Stop, Walk};
use super::search::later_groups;
use super::store::Source;
use super::survey::{OpenError, read_checkpoint};
use crate::base::error::Corrupt;
use crate::io::{DirEntry, OpenMode};

/// A segment's file as `segments` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    pub name: String,
    pub ordinal: u64,
    /// Length of the file.
    pub len: u64,
    /// The header and its check, or why there is none.
    pub header: Result<(SegmentHeader, u32), NoHeader>,
    /// Where the next segment says that this one ends.
    pub sealed: Option<PrevEnd>,
}

/// Why a file has no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHeader {
    /// Zeros or nothing: prepared for a roll.
    Empty,
    /// The header of the segment that the file was before it was recycled, or of another file.
    OtherOrdinal(u64),
    Damaged,
    Unreadable,
    Newer(u16),
}

/// One thing of a segment, in file order.
#[derive(Clone, Debug)]
pub enum Item<'a> {
    Group { position: u64, header: &'a GroupHeader },
    Batch(&'a BatchHead),
}

/// What `verify` found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    pub segments: u64,
    pub groups: u64,
    pub batches: u64,
    /// Bytes of segments that were checked.
    pub bytes: u64,
    /// File, position and what is wrong there.
    pub problems: Vec<Corrupt>,
    /// What is behind the end of the last segment, if it is not zeros: the mark of a crash, not damage.
    pub unfinished: Option<Corrupt>,
}

/// The segments in `dir`, by ordinal.
pub fn segments(source: &mut dyn Source, dir: &Path) -> Result<Vec<SegmentFile>, OpenError> {
    let files = list(source, dir)?;
    let mut segments = Vec::new();
    for entry in files {
        let Some(ordinal) = parse_segment_name(&entry.name) else { continue };
        let header = read_header(source, &dir.join(&entry.name), ordinal)?;
        segments.push(SegmentFile { name: entry.name, ordinal, len: entry.len, header, sealed: None });
    }
    segments.sort_by_key(|s| s.ordinal);
    let mut next: Option<PrevEnd> = None;
    for segment in segments.iter_mut().rev() {
        if let Ok((header, _)) = &segment.header {
            segment.sealed = next.filter(|seal| seal.uuid == header.uuid);
            next = Some(header.prev);
        }
    }
    Ok(segments)
}

/// Shows every group and batch of a segment to `each`, with all CRCs checked. Returns where and why that ended; none at the end that its
/// successor names.
pub fn dump(
    source: &mut dyn Source,
    dir: &Path,
    segment: &SegmentFile,
    each: &mut dyn FnMut(Item),
) -> Result<Option<(u64, Stop)>, OpenError> {
    let Ok((header, check)) = &segment.header else { return Ok(None) };
    with_reader(source, dir, segment, |reader| {
        let mut walk = Walk::start(header, *check);
        let mut batches = Vec::new();
        let end = segment.sealed.map_or(u64::MAX, |seal| seal.end);
        while walk.end < end {
            match walk.next(reader, Depth { crc: true, chain: true, epochs: None }, &mut batches) {
                Ok((group, position)) => {
                    each(Item::Group { position, header: &group });
                    batches.iter().filter(|b| b.end() <= end).for_each(|batch| each(Item::Batch(batch)));
                }
                Err(stop) => return Some((walk.end, stop)),
            }
        }
        None
    })
}

/// Checks everything that can be checked in `dir`: headers and their sequence, groups, batches, checkpoints.
pub fn verify(source: &mut dyn Source, dir: &Path) -> Result<Verified, OpenError> {
    let mut verified = Verified::default();
    let segments = segments(source, dir)?;
    let marks = marks(source, dir, &segments)?;
    let last = segments.iter().rposition(|s| s.header.is_ok());
    let mut before: Option<&SegmentHeader> = None;
    for (i, segment) in segments.iter().enumerate() {
        let mut problem = |position, what| {
            verified.problems.push(Corrupt { file: dir.join(&segment.name), position, what });
        };
        let (header, check) = match &segment.header {
            Ok((header, check)) => (header, *check),
            // Behind the newest segment such files are prepared for the next ones.
            Err(NoHeader::Empty | NoHeader::OtherOrdinal(_)) if last.is_none_or(|last| i > last) => continue,
            Err(why) => {
                problem(0, no_header(why));
                continue;
            }
        };
        if let Some(what) = misfit(before, header) {
            problem(0, what);
        }
        before = Some(header);
        verified.segments += 1;
        let here = marks.iter().filter(|mark| mark.is_in(segment.ordinal, header.uuid));
        let flushed = here.map(|mark| mark.end).max().unwrap_or(0);
        verify_segment(source, dir, segment, (header, check, flushed), &mut verified)?;
    }
    let newest = last.map(|last| segments[last].ordinal);
    if let Some(lost) = marks.iter().map(|mark| mark.ordinal).filter(|named| Some(*named) > newest).max() {
        let what = "segment that the state file knows is missing";
        verified.problems.push(Corrupt { file: dir.join(segment_name(lost)), position: 0, what });
    }
    verify_checkpoints(source, dir, &segments, &mut verified)?;
    Ok(verified)
}

fn misfit(before: Option<&SegmentHeader>, header: &SegmentHeader) -> Option<&'static str> {
    let before = before?;
    if before.key != header.key || before.directory != header.directory {
        Some("segment of another partition or data directory")
    } else if header.prev.uuid != before.uuid || header.prev.next_offset != header.base_offset {
        Some("segment does not follow the one before")
    } else {
        None
    }
}

/// The places that the state file knows to be flushed; none if it is missing, damaged, or another partition's.
fn marks(source: &mut dyn Source, dir: &Path, segments: &[SegmentFile]) -> Result<Vec<Mark>, OpenError> {
    let entry = list(source, dir)?.into_iter().find(|e| e.name == STATE_NAME && !e.is_dir);
    let Some(entry) = entry else { return Ok(Vec::new()) };
    let bytes = read_checkpoint(source, &dir.join(STATE_NAME), entry.len)?;
    let Some(state) = bytes.and_then(|bytes| State::decode(&bytes).ok()) else { return Ok(Vec::new()) };
    let mut headers = segments.iter().filter_map(|s| s.header.as_ref().ok());
    let ours = headers.all(|(h, _)| h.key == state.key && h.directory == state.directory);
    let marks = state.clean.map(|clean| clean.mark).into_iter().chain(state.flushed);
    Ok(if ours { marks.collect() } else { Vec::new() })
}

/// `flushed`: up to where the state file knows that the segment was flushed.
fn verify_segment(
    source: &mut dyn Source,
    dir: &Path,
    segment: &SegmentFile,
    (header, check, flushed): (&SegmentHeader, u32, u64),
    verified: &mut Verified,
) -> Result<(), OpenError> {
    let corrupt = |position, what| Corrupt { file: dir.join(&segment.name), position, what };
    let mut walk = Walk::start(header, check);
    let (mut groups, mut batches) = (0, 0);
    let depth = Depth { crc: true, chain: true, epochs: None };
    let (stop, later) = with_reader(source, dir, segment, |reader| {
        let mut each = |batch: &BatchHead, position: u64| {
            batches += 1;
            groups += u64::from(position != batch.position);
        };
        let stop = walk.run_to(reader, segment.sealed.as_ref(), depth, &mut each);
        let from = match stop {
            Some(Stop::Misplaced { end, .. }) => end,
            _ => walk.end,
        };
        (stop, if stop.is_some() { later_groups(reader, from, &walk.chain) } else { Default::default() })
    })?;
    verified.groups += groups;
    verified.batches += batches;
    verified.bytes += walk.end;
    let Some(stop) = stop else { return Ok(()) };
    let flushed = flushed.max(match stop {
        Stop::Misplaced { flushed_through, .. } => flushed_through.max(later.flushed_through),
        _ => later.flushed_through,
    });
    let found = corrupt(walk.end, stop.text());
    if segment.sealed.is_some() || flushed > walk.end || matches!(stop, Stop::Unreadable | Stop::Newer(_)) {
        verified.problems.push(found);
    } else if later.unreadable {
        verified.problems.push(corrupt(walk.end, "unreadable sector behind the last group"));
    } else if !matches!(stop, Stop::Zeros | Stop::EndOfFile) || later.groups > 0 {
        verified.unfinished = Some(found);
    }
    Ok(())
}

fn verify_checkpoints(
    source: &mut dyn Source,
    dir: &Path,
    segments: &[SegmentFile],
    verified: &mut Verified,
) -> Result<(), OpenError> {
    for entry in list(source, dir)? {
        let path = dir.join(&entry.name);
        let of_index = segments.iter().find(|s| index_name(s.ordinal) == entry.name);
        let sealed = of_index.and_then(|s| s.sealed.zip(s.header.as_ref().ok()));
        if !matches!(entry.name.as_str(), STATE_NAME | PRODUCERS_NAME) && sealed.is_none() {
            continue;
        }
        let bytes = read_checkpoint(source, &path, entry.len)?;
        let result = match (&bytes, entry.name.as_str(), sealed) {
            (None, ..) => Err(NotCheckpoint::Damaged),
            (Some(bytes), STATE_NAME, _) => State::decode(bytes).map(drop),
            (Some(bytes), PRODUCERS_NAME, _) => Producers::decode(bytes).map(drop),
            (Some(bytes), _, Some((seal, (header, _)))) => {
                let reach = Reach {
                    segment: header.uuid,
                    end: seal.end,
                    next_offset: seal.next_offset,
                    last_check: seal.check,
                };
                Index::decode(bytes, &reach).map(drop)
            }
            (Some(_), ..) => Ok(()),
        };
        let what = match result {
            Ok(()) => continue,
            Err(NotCheckpoint::Damaged) => "checkpoint file is damaged: it is rebuilt at the next start",
            Err(NotCheckpoint::Newer(_)) => "checkpoint file of a newer release",
        };
        verified.problems.push(Corrupt { file: path, position: 0, what });
    }
    Ok(())
}

fn no_header(why: &NoHeader) -> &'static str {
    match why {
        NoHeader::Empty => "segment has lost its header",
        NoHeader::OtherOrdinal(_) => "segment header names another place",
        NoHeader::Damaged => "segment header is damaged",
        NoHeader::Unreadable => "segment header cannot be read",
        NoHeader::Newer(_) => "segment of a newer release",
    }
}

fn list(source: &mut dyn Source, dir: &Path) -> Result<Vec<DirEntry>, OpenError> {
    source.list(dir).map_err(|errno| OpenError::Io { path: dir.to_path_buf(), errno })
}

fn read_header(
    source: &mut dyn Source,
    path: &Path,
    ordinal: u64,
) -> Result<Result<(SegmentHeader, u32), NoHeader>, OpenError> {
    let opened = source.open(path, OpenMode::Read);
    let file = opened.map_err(|errno| OpenError::Io { path: path.to_path_buf(), errno })?;
    let read = source.read(file, 0, SEGMENT_HEADER_BYTES);
    let read = read.or_else(|_| source.read(file, 0, SEGMENT_HEADER_BYTES));
    source.close(file);
    let Ok(block) = read else { return Ok(Err(NoHeader::Unreadable)) };
    Ok(match SegmentHeader::decode(block.as_slice()) {
        Ok((header, check)) if header.ordinal == ordinal => Ok((header, check)),
        Ok((header, _)) => Err(NoHeader::OtherOrdinal(header.ordinal)),
        Err(NotHeader::Magic) if block.as_slice().iter().all(|b| *b == 0) => Err(NoHeader::Empty),
        Err(NotHeader::Magic | NotHeader::Check) => Err(NoHeader::Damaged),
        Err(NotHeader::Newer(version)) => Err(NoHeader::Newer(version)),
    })
}

fn with_reader<T>(
    source: &mut dyn Source,
    dir: &Path,
    segment: &SegmentFile,
    run: impl FnOnce(&mut SegmentReader) -> T,
) -> Result<T, OpenError> {
    let path = dir.join(&segment.name);
    let file = source.open(&path, OpenMode::Read).map_err(|errno| OpenError::Io { path, errno })?;
    let result = run(&mut SegmentReader::new(source, file, segment.len));
    source.close(file);
    Ok(result)
}
