//! A disk in memory for recovery and tools, and a builder of segments as the store writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::ids::{LeaderEpoch, PartitionIndex, PartitionKey, Uuid};
use crate::base::limits::{ALIGN, BATCH_HEADER_BYTES, BATCH_UNCHECKED_BYTES, BLOCK_BYTES};
use crate::base::offset::Offset;
use crate::io::buffer::{Block, Pool};
use crate::io::{DirEntry, Errno, FileId, Op, OpenMode};
use crate::log::checkpoint::{CleanStop, Mark, STATE_NAME, State};
use crate::log::epochs::EpochCache;
use crate::log::format::{
    GROUP_HEADER_BYTES, GroupCheck, GroupHeader, PrevEnd, SEGMENT_HEADER_BYTES, SegmentHeader, segment_name,
};
use crate::log::recovered::Recovered;
use crate::log::recovery::{OpenError, Options, recover_partition};
use crate::log::store::{Planted, Source};

pub const DIR: &str = "data/partition";
pub const KEY: PartitionKey = PartitionKey { topic: Uuid([1; 16]), partition: PartitionIndex(2) };
pub const DIRECTORY: Uuid = Uuid([3; 16]);

/// Files by name, and what was done to them.
pub struct Disk {
    pub files: BTreeMap<String, Vec<u8>>,
    /// Sectors of 4096 bytes that cannot be read: (file, position), with how often it fails.
    pub unreadable: BTreeMap<(String, u64), u32>,
    pub ran: Vec<String>,
    pub bytes_read: u64,
    pool: Pool,
    open: BTreeMap<u32, String>,
    next_file: u32,
}

impl Disk {
    pub fn new() -> Disk {
        let mut pool = Pool::new(8 * BLOCK_BYTES);
        pool.grow().expect("memory");
        Disk {
            files: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            ran: Vec::new(),
            bytes_read: 0,
            pool,
            open: BTreeMap::new(),
            next_file: 0,
        }
    }

    pub fn recover(&mut self) -> Recovered {
        self.try_recover(None).expect("recovery decides")
    }

    pub fn try_recover(&mut self, planted: Option<Planted>) -> Result<Recovered, OpenError> {
        self.ran.clear();
        let options = Options { index_interval_bytes: 4096, planted };
        let recovered = recover_partition(self, Path::new(DIR), KEY, DIRECTORY, &options);
        assert!(self.open.is_empty(), "files stay open");
        recovered
    }

    pub fn bytes(&mut self, ordinal: u64) -> &mut Vec<u8> {
        self.files.get_mut(&segment_name(ordinal)).expect("a segment")
    }
}

fn name(path: &Path) -> String {
    assert_eq!(path.parent(), Some(Path::new(DIR)), "only files of the partition are touched");
    path.file_name().and_then(|n| n.to_str()).expect("a name").to_string()
}

impl Source for Disk {
    fn list(&mut self, dir: &Path) -> Result<Vec<DirEntry>, Errno> {
        assert_eq!(dir, Path::new(DIR));
        let entry = |(name, bytes): (&String, &Vec<u8>)| DirEntry {
            name: name.clone(),
            is_dir: false,
            len: bytes.len() as u64,
        };
        Ok(self.files.iter().map(entry).collect())
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> Result<FileId, Errno> {
        assert!(matches!(mode, OpenMode::Read | OpenMode::Write));
        let name = name(path);
        if !self.files.contains_key(&name) {
            return Err(Errno::NOENT);
        }
        self.next_file += 1;
        self.open.insert(self.next_file, name);
        Ok(FileId(self.next_file))
    }

    fn close(&mut self, file: FileId) {
        self.open.remove(&file.0).expect("an open file");
    }

    fn read(&mut self, file: FileId, position: u64, len: usize) -> Result<Block, Errno> {
        assert!(position.is_multiple_of(ALIGN as u64) && len.is_multiple_of(ALIGN) && len <= BLOCK_BYTES);
        let name = self.open[&file.0].clone();
        for ((_, sector), times) in self.unreadable.iter_mut().filter(|((n, _), _)| *n == name) {
            if (position..position + len as u64).contains(sector) && *times > 0 {
                *times -= 1;
                return Err(Errno::IO);
            }
        }
        let bytes = &self.files[&name];
        let from = (position as usize).min(bytes.len());
        let to = (from + len).min(bytes.len());
        self.bytes_read += (to - from) as u64;
        let mut block = self.pool.take().expect("recovery holds few blocks");
        block.append(&bytes[from..to]);
        Ok(block)
    }

    fn run(&mut self, op: Op) -> Result<(), Errno> {
        let text = match op {
            Op::Flush { file } => format!("flush {}", self.open[&file.0]),
            Op::SyncDir { path } => {
                assert_eq!(path, PathBuf::from(DIR));
                "sync".to_string()
            }
            Op::RemoveFile { path } => {
                let name = name(&path);
                self.files.remove(&name).ok_or(Errno::NOENT)?;
                format!("remove {name}")
            }
            other => panic!("recovery must not run {other:?}"),
        };
        self.ran.push(text);
        Ok(())
    }

    fn uuid(&mut self) -> Uuid {
        panic!("recovery needs none")
    }

    fn wall_ms(&self) -> i64 {
        1_000_000
    }
}

/// A record batch with `count` records whose bytes are `payload` long and derived from `tag`.
#[derive(Clone, Copy, Debug)]
pub struct BatchSpec {
    pub count: i32,
    pub payload: usize,
    pub tag: u8,
    pub timestamp: i64,
    /// Id, epoch, first sequence.
    pub producer: Option<(i64, i16, i32)>,
}

pub fn plain(count: i32, payload: usize, tag: u8) -> BatchSpec {
    BatchSpec { count, payload, tag, timestamp: i64::from(tag), producer: None }
}

fn batch_bytes(spec: &BatchSpec, base: Offset, epoch: LeaderEpoch) -> Vec<u8> {
    let mut bytes = vec![0; BATCH_HEADER_BYTES];
    let (producer, producer_epoch, sequence) = spec.producer.unwrap_or((-1, -1, -1));
    let length = (BATCH_HEADER_BYTES + spec.payload - 12) as i32;
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &base.0.to_be_bytes());
    put(8, &length.to_be_bytes());
    put(12, &epoch.0.to_be_bytes());
    put(16, &[2]);
    put(23, &(spec.count - 1).to_be_bytes());
    put(27, &spec.timestamp.to_be_bytes());
    put(35, &spec.timestamp.to_be_bytes());
    put(43, &producer.to_be_bytes());
    put(51, &producer_epoch.to_be_bytes());
    put(53, &sequence.to_be_bytes());
    put(57, &spec.count.to_be_bytes());
    bytes.extend((0..spec.payload).map(|i| spec.tag.wrapping_add((i % 251) as u8) | 1));
    let crc = crc32c::crc32c(&bytes[BATCH_UNCHECKED_BYTES..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Where a group ended up.
#[derive(Clone, Debug)]
pub struct Written {
    pub start: u64,
    pub end: u64,
    pub base: Offset,
    pub next: Offset,
    /// End position and next offset of each batch.
    pub batches: Vec<(u64, Offset)>,
}

/// Writes one segment after the other as the store would.
pub struct Log {
    pub header: SegmentHeader,
    pub header_check: u32,
    pub bytes: Vec<u8>,
    pub groups: Vec<Written>,
    pub next: Offset,
    pub seq: u64,
    pub check: u32,
    pub epoch: LeaderEpoch,
    pub flushed: u64,
}

impl Log {
    pub fn first() -> Log {
        Log::begin(0, Uuid([10; 16]), 1, Offset(0), PrevEnd::default(), LeaderEpoch(1))
    }

    fn begin(
        ordinal: u64,
        uuid: Uuid,
        generation: u32,
        base: Offset,
        prev: PrevEnd,
        epoch: LeaderEpoch,
    ) -> Log {
        let header = SegmentHeader {
            generation,
            uuid,
            key: KEY,
            ordinal,
            base_offset: base,
            prev,
            leader_epoch: epoch,
            created_ms: 500,
            directory: DIRECTORY,
        };
        let (block, check) = header.encode();
        Log {
            header,
            header_check: check,
            bytes: block.to_vec(),
            groups: Vec::new(),
            next: base,
            seq: 0,
            check,
            epoch,
            flushed: 0,
        }
    }

    /// The successor, which seals this segment where it ends. `generation` and epoch grow by `restart`.
    pub fn successor(&self, restart: u32) -> Log {
        self.successor_at(self.end(), self.next, restart)
    }

    pub fn successor_at(&self, end: u64, next: Offset, restart: u32) -> Log {
        let prev = PrevEnd { uuid: self.header.uuid, end, next_offset: next, check: self.check };
        let ordinal = self.header.ordinal + 1;
        let uuid = Uuid([10 + ordinal as u8; 16]);
        let epoch = LeaderEpoch(self.epoch.0 + restart as i32);
        Log::begin(ordinal, uuid, self.header.generation + restart, next, prev, epoch)
    }

    pub fn end(&self) -> u64 {
        self.groups.last().map_or(SEGMENT_HEADER_BYTES as u64, |g| g.end)
    }

    pub fn group(&mut self, batches: &[BatchSpec]) -> Written {
        self.place(self.bytes.len(), batches)
    }

    /// A group that begins on the next 4096 boundary, as behind a write in flight.
    pub fn group_on_boundary(&mut self, batches: &[BatchSpec]) -> Written {
        self.place(self.bytes.len().next_multiple_of(ALIGN), batches)
    }

    fn place(&mut self, start: usize, specs: &[BatchSpec]) -> Written {
        self.bytes.resize(start + GROUP_HEADER_BYTES, 0);
        let (base, mut sum) = (self.next, GroupCheck::default());
        let mut ends = Vec::new();
        for spec in specs {
            let batch = batch_bytes(spec, self.next, self.epoch);
            sum.add(batch.first_chunk().expect("a head"));
            self.next = self.next.plus(i64::from(spec.count));
            self.bytes.extend(batch);
            ends.push((self.bytes.len() as u64, self.next));
        }
        let mut header = GroupHeader {
            check: 0,
            byte_len: (self.bytes.len() - start - GROUP_HEADER_BYTES) as u32,
            segment: self.header.uuid,
            generation: self.header.generation,
            leader_epoch: self.epoch,
            seq: self.seq,
            base_offset: base,
            next_offset: self.next,
            flushed_through: self.flushed,
            prev_check: self.check,
            batch_count: specs.len() as u32,
        };
        header.check = sum.finish(&header);
        self.bytes[start..start + GROUP_HEADER_BYTES].copy_from_slice(&header.encode());
        self.seq += 1;
        self.check = header.check;
        let written = Written {
            start: start as u64,
            end: self.bytes.len() as u64,
            base,
            next: self.next,
            batches: ends,
        };
        self.groups.push(written.clone());
        written
    }

    /// The place behind the last group.
    pub fn mark(&self) -> Mark {
        Mark {
            ordinal: self.header.ordinal,
            segment: self.header.uuid,
            end: self.end(),
            next_offset: self.next,
            last_check: self.check,
            last_group: self.groups.last().map_or(0, |g| g.start),
            next_seq: self.seq,
        }
    }

    /// Puts the segment on a disk, with `zeroed` bytes behind its last block.
    pub fn store(&self, disk: &mut Disk, zeroed: usize) {
        let mut bytes = self.bytes.clone();
        bytes.resize(bytes.len().next_multiple_of(ALIGN) + zeroed, 0);
        disk.files.insert(segment_name(self.header.ordinal), bytes);
    }
}

/// A state file that knows nothing but who it belongs to.
pub fn state() -> State {
    State {
        seq: 1,
        key: KEY,
        directory: DIRECTORY,
        generation: 1,
        leader_epoch: LeaderEpoch(1),
        log_start: Offset(0),
        epochs: EpochCache::from_entries(vec![(LeaderEpoch(1), Offset(0))]).expect("one entry"),
        clean: None,
        flushed: None,
    }
}

pub fn clean(log: &Log) -> State {
    State { clean: Some(CleanStop { mark: log.mark(), reopen: true }), ..state() }
}

pub fn flushed(mark: Mark) -> State {
    State { flushed: Some(mark), ..state() }
}

pub fn put_state(disk: &mut Disk, state: &State) {
    disk.files.insert(STATE_NAME.to_string(), state.encode());
}

/// Names of the files on a disk.
pub fn names(disk: &Disk) -> BTreeSet<&str> {
    disk.files.keys().map(String::as_str).collect()
}
