//! One zeroed file that is written around and around, staged in pool blocks: the placement of the broker's log without its format.
//!
//! A block of memory mirrors a block of the file. Bytes go right behind their predecessors, unless a write of the last partial page
//! is in flight: then they start on the next page, so that no page is ever in flight twice.

use crate::base::limits::{ALIGN, BLOCK_BYTES, PIPELINED_WRITE_BYTES_MIN};
use crate::io::buffer::{Block, BlockSlice, Pool};
use crate::io::{ConnId, FileId};

/// A write to come: where, and what.
pub struct StagedWrite {
    pub offset: u64,
    pub data: BlockSlice,
}

/// A request that waits for its bytes to be durable.
#[derive(Clone, Copy, Debug)]
pub struct Owed {
    pub conn: ConnId,
    /// Which of the connections that had this number.
    pub epoch: u32,
    pub seq: u64,
}

pub struct RingLog {
    pub file: FileId,
    bytes: u64,
    /// File offset of `block`.
    at: u64,
    block: Option<Block>,
    /// Start of what is staged in `block` and not yet submitted.
    staged_from: usize,
    /// Parts of earlier blocks, filled to their ends.
    full: Vec<StagedWrite>,
    staged_bytes: usize,
    pub writes_in_flight: usize,
    pub owed: Vec<Owed>,
}

impl RingLog {
    /// `bytes` is a multiple of the block size.
    pub fn new(file: FileId, bytes: u64) -> RingLog {
        assert!(bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES as u64));
        RingLog {
            file,
            bytes,
            at: 0,
            block: None,
            staged_from: 0,
            full: Vec::new(),
            staged_bytes: 0,
            writes_in_flight: 0,
            owed: Vec::new(),
        }
    }

    /// Blocks that appending `len` bytes could take from the pool.
    pub fn blocks_needed(&self, len: usize) -> usize {
        let room =
            self.block.as_ref().map_or(0, |block| BLOCK_BYTES - block.filled().next_multiple_of(ALIGN));
        len.saturating_sub(room).div_ceil(BLOCK_BYTES)
    }

    /// Stages bytes; the pool has [`RingLog::blocks_needed`].
    pub fn append(&mut self, mut bytes: &[u8], pool: &mut Pool) {
        if self.staged_bytes == 0
            && self.writes_in_flight > 0
            && let Some(block) = &mut self.block
        {
            block.pad_over();
            self.staged_from = block.filled();
        }
        while !bytes.is_empty() {
            if self.block.as_ref().is_none_or(|block| block.room() == 0) {
                self.next_block(pool);
            }
            let block = self.block.as_mut().expect("the next block");
            let taken = block.append(bytes);
            self.staged_bytes += taken;
            bytes = &bytes[taken..];
        }
    }

    /// Something may be written now: all of it, or enough to be worth a second write in flight.
    pub fn is_due(&self) -> bool {
        self.staged_bytes >= PIPELINED_WRITE_BYTES_MIN
            || (self.staged_bytes > 0 && self.writes_in_flight == 0)
    }

    /// Hands out everything staged as writes.
    pub fn take_staged(&mut self, into: &mut Vec<StagedWrite>) {
        into.append(&mut self.full);
        if let Some(block) = &mut self.block
            && self.staged_from < block.filled()
        {
            let from = self.staged_from / ALIGN * ALIGN;
            into.push(StagedWrite { offset: self.at + from as u64, data: block.slice_padded(from) });
            self.staged_from = block.filled();
        }
        self.staged_bytes = 0;
    }

    fn next_block(&mut self, pool: &mut Pool) {
        if let Some(mut block) = self.block.take() {
            let from = self.staged_from / ALIGN * ALIGN;
            if self.staged_from < BLOCK_BYTES {
                let data = block.slice(from..BLOCK_BYTES);
                self.full.push(StagedWrite { offset: self.at + from as u64, data });
            }
            self.at = (self.at + BLOCK_BYTES as u64) % self.bytes;
        }
        self.block = Some(pool.take().expect("the caller counted the blocks"));
        self.staged_from = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn staged(log: &mut RingLog) -> Vec<(u64, usize)> {
        let mut writes = Vec::new();
        log.take_staged(&mut writes);
        writes.iter().map(|write| (write.offset, write.data.len())).collect()
    }

    #[test]
    fn no_page_is_in_flight_twice() {
        let mut pool = Pool::new(8 * BLOCK_BYTES);
        pool.grow().expect("memory");
        let mut log = RingLog::new(FileId(0), 4 * BLOCK_BYTES as u64);
        let page = ALIGN as u64;
        log.append(&[1; 100], &mut pool);
        assert_eq!(staged(&mut log), [(0, ALIGN)]);
        log.append(&[2; 100], &mut pool);
        assert_eq!(staged(&mut log), [(0, ALIGN)], "a partial page goes on when nothing is in flight");
        log.writes_in_flight = 1;
        log.append(&[3; 100], &mut pool);
        assert!(!log.is_due(), "too little for a second write");
        log.append(&[4; PIPELINED_WRITE_BYTES_MIN], &mut pool);
        assert!(log.is_due());
        assert_eq!(staged(&mut log), [(page, PIPELINED_WRITE_BYTES_MIN + ALIGN)]);
        log.writes_in_flight = 0;
        log.append(&[5; 3 * BLOCK_BYTES], &mut pool);
        let writes = staged(&mut log);
        let first = page + PIPELINED_WRITE_BYTES_MIN as u64;
        assert_eq!(writes[0], (first, BLOCK_BYTES - first as usize), "to the end of its block");
        assert_eq!(writes[1..3], [(1 << 18, BLOCK_BYTES), (2 << 18, BLOCK_BYTES)]);
        log.append(&[6; BLOCK_BYTES], &mut pool);
        assert_eq!(staged(&mut log).last().map(|write| write.0), Some(0), "around to the start");
    }
}
