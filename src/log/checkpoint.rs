//! The small files beside the segments: `state`, and the frame that it shares with `producers` and `.idx`.
//!
//! ```text
//! byte 0   magic u32        which of the three files
//! byte 4   version u16, reserved u16
//! byte 8   check u32        CRC-32C of bytes 0..16+length with this field zero
//! byte 12  length u32       of the body
//! byte 16  body             little-endian; then zeros to a multiple of 4096
//! ```
//! A file is replaced whole (see [`Replace`](super::replace::Replace)), so that what is found after a crash is the old or the new one. A
//! version that this build does not know is refused by name.
//!
//! # When `state` is written
//! 1. **Before the first append after a start**: leader epoch and, where the last segment is not reopened, generation grow by one, and
//!    `clean` is none. Only after that write is flushed may the header of a segment or a group leave.
//! 2. After a flush, now and then (default 1 s), with `flushed` moved on.
//! 3. When the log start moves, before any file of the range goes away.
//! 4. At a clean stop, when every write has completed and is flushed: `clean` says where the log ends, so that it opens without a scan.
//!    The `producers` snapshot and the `.idx` of the last segment are written before it.
//!
//! # Non-obvious
//! - Positions here and in `flushed_through` are ends of groups, **never rounded up** to the 4096 bytes that were written: recovery takes a
//!   position beyond the last good group for a lost group.
//! - A clean stop of a process that only read a crash-ended log has `reopen` false: the process that crashed may still be writing to that
//!   segment, so the next append goes into a new one.
//! - If `state` is lost, epochs, generation and log start are rebuilt from the segments; what DeleteRecords had removed from the first
//!   segment shows again, and damage in the unsealed segment is found only as far as `flushed_through` of its groups proves it.

use super::epochs::EpochCache;
use crate::base::ids::{LeaderEpoch, PartitionIndex, PartitionKey, Uuid};
use crate::base::limits::{ALIGN, CHECKPOINT_BYTES_MAX};
use crate::base::offset::Offset;

pub const STATE_NAME: &str = "state";
pub const PRODUCERS_NAME: &str = "producers";

/// What the frame of a checkpoint file is called on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    State,
    Producers,
    Index,
}

impl Kind {
    const fn magic(self) -> u32 {
        match self {
            Kind::State => 0x5453_4cc1,
            Kind::Producers => 0x5250_4cc1,
            Kind::Index => 0x5849_4cc1,
        }
    }

    /// Newest version that this build reads, and the one it writes.
    pub const fn version(self) -> u16 {
        match self {
            Kind::State | Kind::Producers | Kind::Index => 1,
        }
    }
}

/// Why bytes are not a checkpoint file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCheckpoint {
    /// Written by a newer release.
    Newer(u16),
    /// Damaged, or another file: treated as missing.
    Damaged,
}

const FRAME_BYTES: usize = 16;

/// The bytes of a checkpoint file around `body`, padded for direct I/O.
pub fn frame(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity((FRAME_BYTES + body.len()).next_multiple_of(ALIGN));
    bytes.extend_from_slice(&kind.magic().to_le_bytes());
    bytes.extend_from_slice(&kind.version().to_le_bytes());
    bytes.extend_from_slice(&[0; 6]);
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(body);
    let check = crc32c::crc32c(&bytes);
    bytes[8..12].copy_from_slice(&check.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
    bytes
}

/// The body of a checkpoint file.
pub fn unframe(kind: Kind, bytes: &[u8]) -> Result<&[u8], NotCheckpoint> {
    let mut take = Take(bytes);
    let damaged = NotCheckpoint::Damaged;
    let (magic, version) = (take.u32().ok_or(damaged)?, take.u16().ok_or(damaged)?);
    take.u16().ok_or(damaged)?;
    let (check, len) = (take.u32().ok_or(damaged)?, take.u32().ok_or(damaged)? as usize);
    if magic != kind.magic() || len > take.0.len() || len > CHECKPOINT_BYTES_MAX {
        return Err(damaged);
    }
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &[0; 4]);
    if crc32c::crc32c_append(sum, &bytes[12..FRAME_BYTES + len]) != check {
        return Err(damaged);
    }
    if version > kind.version() {
        return Err(NotCheckpoint::Newer(version));
    }
    Ok(&bytes[FRAME_BYTES..FRAME_BYTES + len])
}

/// What a partition remembers beside its segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Counts the replacements of this file.
    pub seq: u64,
    pub key: PartitionKey,
    pub directory: Uuid,
    /// Generation of the segments written since the last start that appended.
    pub generation: u32,
    /// Epoch in effect: also where no record of it has been appended yet, so that it is never given out twice.
    pub leader_epoch: LeaderEpoch,
    pub log_start: Offset,
    pub epochs: EpochCache,
    pub clean: Option<CleanStop>,
    /// Known flushed: everything below was possibly acknowledged.
    pub flushed: Option<Mark>,
}

/// A place behind a group of a segment, with what it takes to find and to continue the chain there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub ordinal: u64,
    pub segment: Uuid,
    /// Position behind the last byte of the last group, or of the segment's header if it has none. Never rounded up.
    pub end: u64,
    pub next_offset: Offset,
    /// Check of the last group, or of the segment's header.
    pub last_check: u32,
    /// Position of that group; 0 if there is none.
    pub last_group: u64,
    /// Number that the next group of this segment gets.
    pub next_seq: u64,
}

/// Where the log ended when it was closed in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanStop {
    pub mark: Mark,
    /// Whether the segment may be appended to. False where its end was found by recovery.
    pub reopen: bool,
}

impl Mark {
    /// Whether it lies in this segment.
    pub fn is_in(&self, ordinal: u64, segment: Uuid) -> bool {
        self.ordinal == ordinal && self.segment == segment
    }

    fn put(&self, put: &mut Put) {
        put.u64(self.ordinal);
        put.uuid(self.segment);
        put.u64(self.end);
        put.i64(self.next_offset.0);
        put.u32(self.last_check);
        put.u64(self.last_group);
        put.u64(self.next_seq);
    }

    fn take(take: &mut Take) -> Option<Mark> {
        Some(Mark {
            ordinal: take.u64()?,
            segment: take.uuid()?,
            end: take.u64()?,
            next_offset: take.offset()?,
            last_check: take.u32()?,
            last_group: take.u64()?,
            next_seq: take.u64()?,
        })
    }
}

impl State {
    /// The whole file.
    pub fn encode(&self) -> Vec<u8> {
        let mut put = Put::default();
        put.u64(self.seq);
        put.uuid(self.key.topic);
        put.u32(self.key.partition.0 as u32);
        put.uuid(self.directory);
        put.u32(self.generation);
        put.u32(self.leader_epoch.0 as u32);
        put.i64(self.log_start.0);
        put.u8(u8::from(self.clean.is_some()));
        if let Some(clean) = &self.clean {
            clean.mark.put(&mut put);
            put.u8(u8::from(clean.reopen));
        }
        put.u8(u8::from(self.flushed.is_some()));
        if let Some(mark) = &self.flushed {
            mark.put(&mut put);
        }
        put.u32(self.epochs.entries().len() as u32);
        for (epoch, start) in self.epochs.entries() {
            put.u32(epoch.0 as u32);
            put.i64(start.0);
        }
        frame(Kind::State, &put.0)
    }

    /// Reads the file; `bytes` may go on behind its padding.
    pub fn decode(bytes: &[u8]) -> Result<State, NotCheckpoint> {
        State::body(unframe(Kind::State, bytes)?).ok_or(NotCheckpoint::Damaged)
    }

    fn body(body: &[u8]) -> Option<State> {
        let mut take = Take(body);
        let state = State {
            seq: take.u64()?,
            key: PartitionKey { topic: take.uuid()?, partition: PartitionIndex(take.u32()? as i32) },
            directory: take.uuid()?,
            generation: take.u32()?,
            leader_epoch: LeaderEpoch(take.u32()? as i32),
            log_start: take.offset()?,
            clean: match take.flag()? {
                false => None,
                true => Some(CleanStop { mark: Mark::take(&mut take)?, reopen: take.flag()? }),
            },
            flushed: match take.flag()? {
                false => None,
                true => Some(Mark::take(&mut take)?),
            },
            epochs: {
                let mut entries = Vec::new();
                for _ in 0..take.u32()? {
                    entries.push((LeaderEpoch(take.u32()? as i32), take.offset()?));
                }
                EpochCache::from_entries(entries)?
            },
        };
        take.0.is_empty().then_some(state)
    }
}

/// Builds a body.
#[derive(Default)]
pub struct Put(pub Vec<u8>);

impl Put {
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub fn uuid(&mut self, value: Uuid) {
        self.0.extend_from_slice(&value.0);
    }
}

/// Takes a body apart; none where it ends too early or a value is impossible.
pub struct Take<'a>(pub &'a [u8]);

impl Take<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub fn u8(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.array()?))
    }

    /// An offset: never negative.
    pub fn offset(&mut self) -> Option<Offset> {
        self.i64().filter(|o| *o >= 0).map(Offset)
    }

    pub fn uuid(&mut self) -> Option<Uuid> {
        Some(Uuid(self.array()?))
    }
}
