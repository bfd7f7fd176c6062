//! The first look at a partition's directory: which files there are, which segments they hold, whether these follow one another. Reads the
//! segments' headers only and writes nothing.

use std::path::{Path, PathBuf};

use super::checkpoint::{Mark, NotCheckpoint, STATE_NAME, State};
use super::decide::{self, Evidence, Header, Row, Verdict, decide};
use super::format::{NotHeader, SEGMENT_HEADER_BYTES, SegmentHeader, parse_segment_name, segment_name};
use super::replace::TEMPORARY;
use super::store::Source;
use crate::base::error::Corrupt;
use crate::base::ids::{PartitionKey, Uuid};
use crate::base::limits::{ALIGN, BLOCK_BYTES, CHECKPOINT_BYTES_MAX};
use crate::io::{DirEntry, Errno, OpenMode};

/// Why a partition could not be opened at all. Damage is not among them: see `Recovered::offline`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Opening, listing or a step of the decision failed. Unreadable sectors do not end here.
    Io { path: PathBuf, errno: Errno },
    /// A newer release wrote this file; it is refused, not guessed.
    Newer { path: PathBuf, version: u16 },
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::Io { path, errno } => write!(f, "{}: {errno}", path.display()),
            OpenError::Newer { path, version } => {
                write!(f, "{}: written by a newer release (format version {version})", path.display())
            }
        }
    }
}

impl std::error::Error for OpenError {}

/// A segment with a valid header.
#[derive(Clone, Debug)]
pub struct Found {
    pub path: PathBuf,
    /// Length of the file.
    pub len: u64,
    pub header: SegmentHeader,
    pub check: u32,
}

/// What a directory holds.
#[derive(Debug, Default)]
pub struct Survey {
    /// None if missing or damaged.
    pub state: Option<State>,
    /// It is there, but damaged, unreadable, or another partition's.
    pub state_damaged: bool,
    /// In order, each the successor of the one before.
    pub segments: Vec<Found>,
    /// Why the sequence ends before the last file.
    pub offline: Option<Corrupt>,
    /// Files that hold nothing of the log: prepared, interrupted or retired segments, temporary files, indexes without a segment.
    pub remove: Vec<PathBuf>,
    pub rows: Vec<Row>,
    /// Length of each file of the directory by name.
    pub files: Vec<DirEntry>,
}

/// Looks at `dir`; a directory that does not exist holds nothing.
pub fn survey(
    source: &mut dyn Source,
    dir: &Path,
    key: PartitionKey,
    directory: Uuid,
) -> Result<Survey, OpenError> {
    let mut survey = Survey::default();
    survey.files = match source.list(dir) {
        Ok(files) => files,
        Err(Errno::NOENT) => return Ok(survey),
        Err(errno) => return Err(OpenError::Io { path: dir.to_path_buf(), errno }),
    };
    survey.read_state(source, dir, key, directory)?;
    let mut candidates = Vec::new();
    for entry in survey.files.iter().filter(|e| !e.is_dir) {
        if let Some(ordinal) = parse_segment_name(&entry.name) {
            let path = dir.join(&entry.name);
            let block = read_header(source, &path, key, ordinal)?;
            candidates.push(Candidate { ordinal, path, len: entry.len, block });
        }
    }
    candidates.sort_by_key(|c| c.ordinal);
    survey.order(dir, directory, candidates);
    survey.note_leftovers(dir);
    Ok(survey)
}

struct Candidate {
    ordinal: u64,
    path: PathBuf,
    len: u64,
    block: Block,
}

enum Block {
    Valid(SegmentHeader, u32),
    Nothing,
    Damaged,
    Unreadable,
}

impl Survey {
    /// The length of a file by name, or none.
    pub fn file_len(&self, name: &str) -> Option<u64> {
        self.files.iter().find(|e| e.name == name && !e.is_dir).map(|e| e.len)
    }

    /// The marks of the state file: what it knows to be flushed.
    pub fn marks(&self) -> impl Iterator<Item = &Mark> {
        let state = self.state.as_ref();
        let clean = state.and_then(|s| s.clean.as_ref()).map(|c| &c.mark);
        clean.into_iter().chain(state.and_then(|s| s.flushed.as_ref()))
    }

    fn read_state(
        &mut self,
        source: &mut dyn Source,
        dir: &Path,
        key: PartitionKey,
        directory: Uuid,
    ) -> Result<(), OpenError> {
        let Some(len) = self.file_len(STATE_NAME) else { return Ok(()) };
        let path = dir.join(STATE_NAME);
        let state = read_checkpoint(source, &path, len)?.map(|bytes| State::decode(&bytes));
        match state {
            Some(Ok(state)) if state.key == key && state.directory == directory => self.state = Some(state),
            Some(Err(NotCheckpoint::Newer(version))) => return Err(OpenError::Newer { path, version }),
            _ => self.state_damaged = true,
        }
        Ok(())
    }

    /// Takes the segments in sequence up to the first file that does not belong there.
    fn order(&mut self, dir: &Path, directory: Uuid, candidates: Vec<Candidate>) {
        let newest_valid =
            candidates.iter().rev().find(|c| matches!(c.block, Block::Valid(..))).map(|c| c.ordinal);
        let start = self.first_in_log(&candidates, directory);
        let mut remove = Vec::new();
        for candidate in candidates {
            let misfit = match &candidate.block {
                Block::Valid(header, _) => self.misfit(header, directory),
                _ => None,
            };
            let evidence = decide::File {
                header: match &candidate.block {
                    Block::Valid(..) => Header::Valid,
                    Block::Nothing => Header::Nothing,
                    Block::Damaged => Header::Damaged,
                    Block::Unreadable => Header::Unreadable,
                },
                newest: newest_valid.is_none_or(|newest| candidate.ordinal > newest),
                named: self.marks().any(|m| m.ordinal >= candidate.ordinal),
                follows: misfit.is_none(),
                retired: misfit.is_none() && start.is_some_and(|start| candidate.ordinal < start),
            };
            let (row, verdict) = decide(&Evidence::File(evidence));
            if row != Row::InSequence {
                self.rows.push(row);
            }
            match (verdict, candidate.block) {
                (Verdict::Remove, _) => remove.push(candidate.path),
                (Verdict::Open, Block::Valid(header, check)) => {
                    self.segments.push(Found { path: candidate.path, len: candidate.len, header, check });
                }
                (_, block) => {
                    let what = match block {
                        Block::Valid(..) => misfit.unwrap_or("segment does not follow its predecessor"),
                        Block::Nothing => "segment has lost its header",
                        Block::Damaged => "segment header is damaged",
                        Block::Unreadable => "segment header cannot be read",
                    };
                    self.offline = Some(Corrupt { file: candidate.path, position: 0, what });
                    return;
                }
            }
        }
        self.check_named(dir);
        if self.offline.is_none() {
            self.remove = remove;
        }
    }

    /// The segment from which on the sequence counts, where one that begins at or before the log start does not follow the one before: what is
    /// missing between them was to go, and so was everything before. None where the sequence has no such gap.
    fn first_in_log(&self, candidates: &[Candidate], directory: Uuid) -> Option<u64> {
        let log_start = self.state.as_ref()?.log_start;
        let headers = candidates.iter().filter_map(|candidate| match &candidate.block {
            Block::Valid(header, _) if header.directory == directory => Some(header),
            _ => None,
        });
        let mut gap: Option<&SegmentHeader> = None;
        let mut last: Option<&SegmentHeader> = None;
        for header in headers.take_while(|header| header.base_offset <= log_start) {
            gap = if last.is_some_and(|last| last.uuid != header.prev.uuid) { Some(header) } else { gap };
            last = Some(header);
        }
        // What was flushed of the segments before lies before this one, or they are not what they seem.
        let fits = |m: &Mark, start: &SegmentHeader| {
            m.ordinal >= start.ordinal || m.next_offset <= start.base_offset
        };
        gap.filter(|start| self.marks().all(|mark| fits(mark, start))).map(|start| start.ordinal)
    }

    /// Why a segment with this header cannot come next.
    fn misfit(&self, header: &SegmentHeader, directory: Uuid) -> Option<&'static str> {
        if header.directory != directory {
            return Some("segment belongs to another data directory");
        }
        if self.marks().any(|m| m.ordinal == header.ordinal && m.segment != header.uuid) {
            return Some("segment is not the one that the state file knows");
        }
        let prev = &header.prev;
        let Some(last) = self.segments.last() else {
            let lost = self.state.as_ref().is_some_and(|s| s.log_start < header.base_offset);
            return lost.then_some("segments before this one are missing");
        };
        if prev.uuid != last.header.uuid {
            return Some("segment does not follow the one before");
        }
        let sealed_below = |m: &Mark| m.is_in(last.header.ordinal, last.header.uuid) && m.end > prev.end;
        if self.marks().any(sealed_below) {
            return Some("segment seals its predecessor below what was flushed of it");
        }
        if prev.end > last.len {
            return Some("the segment before is shorter than its end");
        }
        let offsets_fit =
            prev.next_offset == header.base_offset && header.base_offset >= last.header.base_offset;
        let fits = offsets_fit
            && header.generation >= last.header.generation
            && prev.end >= SEGMENT_HEADER_BYTES as u64;
        (!fits).then_some("segment does not follow the one before")
    }

    /// A segment that the state file knows and nobody has is lost.
    fn check_named(&mut self, dir: &Path) {
        let last = self.segments.last().map(|s| s.header.ordinal);
        let lost =
            self.marks().map(|m| m.ordinal).filter(|named| last.is_none_or(|last| *named > last)).max();
        if let Some(ordinal) = lost {
            let evidence = decide::File {
                header: Header::Nothing,
                newest: true,
                named: true,
                follows: false,
                retired: false,
            };
            self.rows.push(decide(&Evidence::File(evidence)).0);
            let what = "segment that the state file knows is missing";
            self.offline = Some(Corrupt { file: dir.join(segment_name(ordinal)), position: 0, what });
        }
    }

    fn note_leftovers(&mut self, dir: &Path) {
        let orphan = |name: &str| {
            let ordinal = name.strip_suffix(".idx").and_then(|n| parse_segment_name(&format!("{n}.seg")));
            ordinal.is_some_and(|o| !self.segments.iter().any(|s| s.header.ordinal == o))
        };
        let leftover = |e: &&DirEntry| !e.is_dir && (e.name.ends_with(TEMPORARY) || orphan(&e.name));
        let paths: Vec<PathBuf> = self.files.iter().filter(leftover).map(|e| dir.join(&e.name)).collect();
        if self.offline.is_none() {
            self.remove.extend(paths);
        }
    }
}

fn read_header(
    source: &mut dyn Source,
    path: &Path,
    key: PartitionKey,
    ordinal: u64,
) -> Result<Block, OpenError> {
    let io = |errno| OpenError::Io { path: path.to_path_buf(), errno };
    let file = source.open(path, OpenMode::Read).map_err(io)?;
    let read = source.read(file, 0, SEGMENT_HEADER_BYTES);
    let read = read.or_else(|_| source.read(file, 0, SEGMENT_HEADER_BYTES));
    source.close(file);
    let Ok(block) = read else { return Ok(Block::Unreadable) };
    first_block(block.as_slice(), key, ordinal)
        .map_err(|version| OpenError::Newer { path: path.to_path_buf(), version })
}

/// What the first bytes of a segment's file say; the version of one that a newer release wrote as an error.
fn first_block(bytes: &[u8], key: PartitionKey, ordinal: u64) -> Result<Block, u16> {
    if bytes.len() < SEGMENT_HEADER_BYTES {
        return Ok(Block::Nothing);
    }
    match SegmentHeader::decode(bytes) {
        Ok((header, check)) if header.key == key && header.ordinal == ordinal => {
            Ok(Block::Valid(header, check))
        }
        // A file is recycled for a later segment, never for an earlier one: this one was put in the wrong place.
        Ok((header, _)) if header.key == key && header.ordinal > ordinal => Ok(Block::Damaged),
        Ok(_) => Ok(Block::Nothing),
        Err(NotHeader::Newer(version)) => Err(version),
        Err(NotHeader::Magic) if bytes.iter().all(|b| *b == 0) => Ok(Block::Nothing),
        Err(NotHeader::Magic | NotHeader::Check) => Ok(Block::Damaged),
    }
}

/// Whether nothing was begun in a file of this name, going by its first bytes.
pub fn holds_nothing(bytes: &[u8], key: PartitionKey, ordinal: u64) -> bool {
    matches!(first_block(bytes, key, ordinal), Ok(Block::Nothing))
}

/// The bytes of a checkpoint file; none if they cannot be read or are too many.
pub fn read_checkpoint(source: &mut dyn Source, path: &Path, len: u64) -> Result<Option<Vec<u8>>, OpenError> {
    if len > CHECKPOINT_BYTES_MAX as u64 {
        return Ok(None);
    }
    let file = match source.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::IO) => return Ok(None),
        Err(errno) => return Err(OpenError::Io { path: path.to_path_buf(), errno }),
    };
    let mut bytes = Vec::with_capacity(len as usize);
    let mut whole = true;
    while whole && (bytes.len() as u64) < len {
        let (position, wanted) =
            (bytes.len() as u64, (len as usize - bytes.len()).next_multiple_of(ALIGN).min(BLOCK_BYTES));
        let read = source.read(file, position, wanted);
        match read.or_else(|_| source.read(file, position, wanted)) {
            Ok(block) if block.filled() > 0 => bytes.extend_from_slice(block.as_slice()),
            _ => whole = false,
        }
    }
    source.close(file);
    Ok(whole.then_some(bytes))
}
