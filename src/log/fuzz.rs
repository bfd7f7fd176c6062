//! What the fuzzers drive, one function per target, as in `wire::fuzz`: any bytes in, a panic only where a promise is broken. Not called by the
//! broker.
//!
//! Input that has to guess a CRC-32C gets nowhere, so the bytes are a recipe: headers, groups and frames get the checks that fit them, and the
//! recipe says what is put in and what is spoilt afterwards.

use std::collections::BTreeMap;
use std::path::Path;

use super::checkpoint::{Kind, PRODUCERS_NAME, STATE_NAME, State, Take, frame};
use super::format::{
    GROUP_HEADER_BYTES, GroupCheck, GroupHeader, PrevEnd, SEGMENT_HEADER_BYTES, SegmentHeader, index_name,
    segment_name,
};
use super::index::{Index, Reach};
use super::inspect;
use super::producers::Producers;
use super::recovery::{Options, recover_partition};
use super::store::Source;
use crate::base::ids::{LeaderEpoch, PartitionIndex, PartitionKey, Uuid};
use crate::base::limits::{ALIGN, BATCH_HEADER_BYTES, BATCH_UNCHECKED_BYTES, BLOCK_BYTES};
use crate::base::offset::Offset;
use crate::io::buffer::{Block, Pool};
use crate::io::{DirEntry, Errno, FileId, Op, OpenMode};

const DIR: &str = "partition";
const KEY: PartitionKey = PartitionKey { topic: Uuid([1; 16]), partition: PartitionIndex(0) };
const DIRECTORY: Uuid = Uuid([2; 16]);

/// Target `checkpoints`: what decodes encodes to what decodes alike. The first byte chooses the file; the rest is its body, or the whole file.
pub fn checkpoints(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    let file = |kind| if choice & 4 == 0 { frame(kind, body) } else { body.to_vec() };
    match choice & 3 {
        0 => {
            if let Ok(state) = State::decode(&file(Kind::State)) {
                assert_eq!(State::decode(&state.encode()), Ok(state));
            }
        }
        1 => {
            if let Ok((producers, at)) = Producers::decode(&file(Kind::Producers)) {
                assert_eq!(Producers::decode(&producers.encode(at)), Ok((producers, at)));
            }
        }
        _ => {
            let reach = Reach { segment: Uuid([0; 16]), end: 8192, next_offset: Offset(9), last_check: 0 };
            if let Ok(index) = Index::decode(&file(Kind::Index), &reach) {
                assert_eq!(Index::decode(&index.encode(&reach), &reach), Ok(index));
            }
        }
    }
}

/// Target `recovery`: a directory cooked from the bytes. Recovery does not panic, gives the same twice, and leaves a damaged log alone; the
/// inspecting tools cope with the same directory.
pub fn recovery(data: &[u8]) {
    let mut disk = cook(data);
    let Ok(_) = inspect::verify(&mut disk, Path::new(DIR)) else { return };
    let before = disk.files.clone();
    let options = Options { index_interval_bytes: 4096, planted: None };
    let Ok(first) = recover_partition(&mut disk, Path::new(DIR), KEY, DIRECTORY, &options) else { return };
    assert!(first.offline.is_none() || disk.files == before, "a damaged log was changed");
    assert!(first.log_start <= first.next_offset);
    let second = recover_partition(&mut disk, Path::new(DIR), KEY, DIRECTORY, &options);
    let second = second.expect("what could be opened once can be opened again");
    assert_eq!(first.segments, second.segments);
    assert_eq!(first.producers, second.producers);
    assert_eq!((first.next_offset, first.offline), (second.next_offset, second.offline));
}

/// Makes files as the recipe says; stops where it ends.
fn cook(data: &[u8]) -> Disk {
    let mut pool = Pool::new(4 * BLOCK_BYTES);
    pool.grow();
    let mut disk = Disk { files: BTreeMap::new(), pool, open: BTreeMap::new(), next: 0 };
    let mut take = Take(data);
    let mut before = PrevEnd::default();
    for ordinal in 0..4 {
        let Some(segment) = cook_segment(&mut take, ordinal, &mut before) else { break };
        disk.files.insert(segment_name(ordinal), segment);
    }
    let names = [STATE_NAME.to_string(), PRODUCERS_NAME.to_string(), index_name(0)];
    for (name, kind) in names.into_iter().zip([Kind::State, Kind::Producers, Kind::Index]) {
        let Some(len) = take.u8() else { break };
        let (body, rest) = take.0.split_at(usize::from(len).min(take.0.len()));
        take.0 = rest;
        disk.files.insert(name, frame(kind, body));
    }
    disk
}

/// A segment that follows `before`, which becomes its end; none at the end of the recipe.
fn cook_segment(take: &mut Take, ordinal: u64, before: &mut PrevEnd) -> Option<Vec<u8>> {
    let generation = u32::from(take.u8()?);
    let header = SegmentHeader {
        generation,
        uuid: Uuid([ordinal as u8 + 3; 16]),
        key: KEY,
        ordinal,
        base_offset: before.next_offset,
        prev: *before,
        leader_epoch: LeaderEpoch(generation as i32),
        created_ms: 0,
        directory: DIRECTORY,
    };
    let (block, mut prev_check) = header.encode();
    let (mut bytes, mut next) = (block.to_vec(), header.base_offset);
    let mut end = bytes.len();
    let mut seq = 0;
    while let Some(step) = take.u8() {
        match step {
            0..128 => {
                let flushed = take.u8().map_or(0, |back| (end as u64).saturating_sub(u64::from(back)));
                let group = GroupHeader {
                    check: prev_check,
                    byte_len: 0,
                    segment: header.uuid,
                    generation,
                    leader_epoch: header.leader_epoch,
                    seq,
                    base_offset: next,
                    next_offset: next,
                    flushed_through: flushed,
                    prev_check,
                    batch_count: u32::from(step & 3) + 1,
                };
                if step & 4 != 0 {
                    bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
                }
                (prev_check, next) = cook_group(&mut bytes, group, usize::from(step) * 16);
                seq += 1;
                end = bytes.len();
            }
            128..192 => bytes.resize(bytes.len() + usize::from(step - 128) * 512, 0),
            192..224 => {
                let at = usize::from(take.u16()?) % bytes.len();
                bytes[at] ^= take.u8()?;
            }
            224..240 => bytes.truncate(usize::from(take.u16()?)),
            _ => break,
        }
        if bytes.len() > 2 * BLOCK_BYTES || bytes.is_empty() {
            break;
        }
    }
    let prev_end = end.max(SEGMENT_HEADER_BYTES) as u64;
    *before = PrevEnd { uuid: header.uuid, end: prev_end, next_offset: next, check: prev_check };
    Some(bytes)
}

/// Appends a valid group; returns its check and where it ends.
fn cook_group(bytes: &mut Vec<u8>, mut header: GroupHeader, payload: usize) -> (u32, Offset) {
    let start = bytes.len();
    bytes.resize(start + GROUP_HEADER_BYTES, 0);
    let mut sum = GroupCheck::default();
    for _ in 0..header.batch_count {
        let mut batch = vec![0; BATCH_HEADER_BYTES + payload];
        batch[..8].copy_from_slice(&header.next_offset.0.to_be_bytes());
        batch[8..12].copy_from_slice(&((BATCH_HEADER_BYTES + payload - 12) as u32).to_be_bytes());
        batch[12..16].copy_from_slice(&header.leader_epoch.0.to_be_bytes());
        batch[16] = 2;
        let crc = crc32c::crc32c(&batch[BATCH_UNCHECKED_BYTES..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        sum.add(batch.first_chunk().expect("a header is longer"));
        bytes.extend(batch);
        header.next_offset = header.next_offset.plus(1);
    }
    header.byte_len = (bytes.len() - start - GROUP_HEADER_BYTES) as u32;
    header.check = sum.finish(&header);
    bytes[start..start + GROUP_HEADER_BYTES].copy_from_slice(&header.encode());
    (header.check, header.next_offset)
}

/// The cooked directory.
struct Disk {
    files: BTreeMap<String, Vec<u8>>,
    pool: Pool,
    open: BTreeMap<u32, String>,
    next: u32,
}

fn name(path: &Path) -> Result<String, Errno> {
    path.file_name().and_then(|n| n.to_str()).map(str::to_string).ok_or(Errno::INVAL)
}

impl Source for Disk {
    fn list(&mut self, _: &Path) -> Result<Vec<DirEntry>, Errno> {
        let entry = |(name, bytes): (&String, &Vec<u8>)| DirEntry {
            name: name.clone(),
            is_dir: false,
            len: bytes.len() as u64,
        };
        Ok(self.files.iter().map(entry).collect())
    }

    fn open(&mut self, path: &Path, _: OpenMode) -> Result<FileId, Errno> {
        let name = name(path)?;
        self.files.get(&name).ok_or(Errno::NOENT)?;
        self.next += 1;
        self.open.insert(self.next, name);
        Ok(FileId(self.next))
    }

    fn close(&mut self, file: FileId) {
        self.open.remove(&file.0);
    }

    fn read(&mut self, file: FileId, position: u64, len: usize) -> Result<Block, Errno> {
        let bytes = &self.files[&self.open[&file.0]];
        let from = (position as usize).min(bytes.len());
        let mut block = self.pool.take().ok_or(Errno::NOMEM)?;
        block.append(&bytes[from..(from + len).min(bytes.len())]);
        Ok(block)
    }

    fn run(&mut self, op: Op) -> Result<(), Errno> {
        match op {
            Op::RemoveFile { path } => self.files.remove(&name(&path)?).map(drop).ok_or(Errno::NOENT),
            Op::Flush { .. } => Ok(()),
            Op::SyncDir { path } if path == Path::new(DIR) => Ok(()),
            _ => Err(Errno::INVAL),
        }
    }

    fn uuid(&mut self) -> Uuid {
        Uuid([9; 16])
    }

    fn wall_ms(&self) -> i64 {
        0
    }
}
