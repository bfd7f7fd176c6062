//! What lies behind the place where a walk ended: valid groups of the same segment and generation prove what had been flushed by then.
//!
//! Groups are looked for at every byte, not only on 4096 boundaries: with one write in flight at a time a group stands right behind its
//! predecessor, and it is just that group which tells a torn tail from damage to what was acknowledged. The bytes have to be read either way.

use super::format::{GROUP_HEADER_BYTES, GROUP_MAGIC};
use super::reader::{Missing, SegmentReader};
use super::scan::{BatchHead, Chain, read_group};
use crate::base::limits::BLOCK_BYTES;

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Later {
    /// Whole and valid groups of the segment's own generation.
    pub groups: u32,
    /// Largest position that one of them knew to be flushed.
    pub flushed_through: u64,
    /// Something could not be read, so that there may be more.
    pub unreadable: bool,
    /// Behind the last byte (to 64) that is not zero; 0 if all are.
    pub used_to: u64,
}

/// Bytes that are looked at together: enough for the compiler to compare them all at once.
const STRIDE: usize = 64;

/// Looks through the file from `from` to its end for groups of the segment and generation of `chain`.
pub fn later_groups(reader: &mut SegmentReader, from: u64, chain: &Chain) -> Later {
    let mut later = Later::default();
    let mut batches = Vec::new();
    let mut position = from;
    loop {
        let candidate = match reader.chunk(position) {
            Ok(chunk) => first_candidate(chunk, position, &mut later.used_to),
            Err(Missing::End) => return later,
            Err(Missing::Unreadable(_)) => {
                later.unreadable = true;
                position = next_block(position);
                continue;
            }
        };
        match candidate {
            Ok(at) => position = try_group(reader, at, chain, &mut later, &mut batches),
            Err(behind) => position = behind,
        }
    }
}

/// The position of the first byte that may begin a group, or of the chunk's end.
fn first_candidate(chunk: &[u8], position: u64, used_to: &mut u64) -> Result<u64, u64> {
    const FIRST: u8 = GROUP_MAGIC.to_le_bytes()[0];
    let mut at = position;
    for piece in chunk.chunks(STRIDE) {
        let (any, hit) = piece.iter().fold((0, false), |(any, hit), b| (any | b, hit | (*b == FIRST)));
        if any != 0 {
            *used_to = at + piece.len() as u64;
        }
        if hit {
            let within = piece.iter().position(|b| *b == FIRST).unwrap_or(0);
            return Ok(at + within as u64);
        }
        at += piece.len() as u64;
    }
    Err(at)
}

/// Counts the group at `at`, if there is one, and returns where to go on.
fn try_group(
    reader: &mut SegmentReader,
    at: u64,
    chain: &Chain,
    later: &mut Later,
    batches: &mut Vec<BatchHead>,
) -> u64 {
    let ours = reader
        .peek(at, GROUP_HEADER_BYTES)
        .is_ok_and(|head| head[..4] == GROUP_MAGIC.to_le_bytes() && head[16..32] == chain.segment.0);
    if !ours {
        return at + 1;
    }
    let Ok(header) = read_group(reader, at, chain, false, batches) else { return at + 1 };
    // What it knew to be flushed counts even if its records arrived in part: the header is ours.
    later.flushed_through = later.flushed_through.max(header.flushed_through);
    if read_group(reader, at, chain, true, batches).is_err() {
        return at + 1;
    }
    let end = at + GROUP_HEADER_BYTES as u64 + u64::from(header.byte_len);
    later.groups += 1;
    later.used_to = later.used_to.max(end);
    end
}

fn next_block(position: u64) -> u64 {
    let block = BLOCK_BYTES as u64;
    position - position % block + block
}
