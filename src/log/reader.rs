//! Reads a segment front to back for those who judge its bytes: recovery and the inspecting tools. Blocks of 256 KiB, the next ones asked for
//! ahead; what is looked at may span two of them.
//!
//! A read that fails is tried once more (a transfer error). If it fails again, it is repeated in steps of 4096 bytes, so that the position of the
//! unreadable sector is known and everything before it can be judged.

use crate::base::limits::{ALIGN, BLOCK_BYTES};
use crate::io::FileId;
use crate::io::buffer::Block;
use crate::log::store::Source;

/// Most bytes that can be looked at together: a header of ours or of a batch.
pub const PEEK_BYTES_MAX: usize = 128;

/// Blocks that are asked for ahead of the one in use.
const READ_AHEAD_BLOCKS: u64 = 4;

/// Why there are no bytes at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The file ends before that.
    End,
    /// The sector at this position cannot be read.
    Unreadable(u64),
}

pub struct SegmentReader<'a> {
    source: &'a mut dyn Source,
    file: FileId,
    len: u64,
    /// Bytes read at once.
    step: u64,
    block: Option<Block>,
    /// File position of the block.
    start: u64,
    unreadable: Option<u64>,
    asked: u64,
    stitched: [u8; PEEK_BYTES_MAX],
    bytes_read: u64,
}

impl<'a> SegmentReader<'a> {
    /// Reads `file`, which is `len` bytes long. The caller closes it.
    pub fn new(source: &'a mut dyn Source, file: FileId, len: u64) -> SegmentReader<'a> {
        SegmentReader {
            source,
            file,
            len,
            step: BLOCK_BYTES as u64,
            block: None,
            start: 0,
            unreadable: None,
            asked: 0,
            stitched: [0; PEEK_BYTES_MAX],
            bytes_read: 0,
        }
    }

    /// As `new`, for a look at one place: reads no more than the blocks that hold it.
    pub fn for_a_look(source: &'a mut dyn Source, file: FileId, len: u64) -> SegmentReader<'a> {
        let asked = u64::MAX;
        SegmentReader { step: ALIGN as u64, asked, ..SegmentReader::new(source, file, len) }
    }

    /// Length of the file, as far as is known.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// The bytes from `position` to the end of its block: at least one.
    pub fn chunk(&mut self, position: u64) -> Result<&[u8], Missing> {
        let at = self.load(position)?;
        Ok(&self.loaded()[at..])
    }

    /// Exactly `len` bytes from `position` on.
    pub fn peek(&mut self, position: u64, len: usize) -> Result<&[u8], Missing> {
        let at = self.load(position)?;
        if self.loaded().len() - at >= len {
            return Ok(&self.loaded()[at..at + len]);
        }
        let mut done = 0;
        while done < len {
            let at = self.load(position + done as u64)?;
            let block = self.block.as_ref().map_or(&[][..], Block::as_slice);
            let piece = (block.len() - at).min(len - done);
            self.stitched[done..done + piece].copy_from_slice(&block[at..at + piece]);
            done += piece;
        }
        Ok(&self.stitched[..len])
    }

    /// CRC-32C of a range.
    pub fn crc(&mut self, from: u64, to: u64) -> Result<u32, Missing> {
        let (mut crc, mut position) = (0, from);
        while position < to {
            let chunk = self.chunk(position)?;
            let piece = &chunk[..(to - position).min(chunk.len() as u64) as usize];
            crc = crc32c::crc32c_append(crc, piece);
            position += piece.len() as u64;
        }
        Ok(crc)
    }

    /// Whether a range holds zeros only.
    pub fn is_zero(&mut self, from: u64, to: u64) -> Result<bool, Missing> {
        let mut position = from;
        while position < to {
            let chunk = self.chunk(position)?;
            let piece = &chunk[..(to - position).min(chunk.len() as u64) as usize];
            if piece.iter().any(|b| *b != 0) {
                return Ok(false);
            }
            position += piece.len() as u64;
        }
        Ok(true)
    }

    fn loaded(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], Block::as_slice)
    }

    /// Has the block of `position` loaded; returns where in it the position is.
    fn load(&mut self, position: u64) -> Result<usize, Missing> {
        let start = position - position % self.step;
        if self.block.is_none() || start != self.start {
            self.fetch(start);
        }
        let at = (position - start) as usize;
        match self.unreadable {
            _ if at < self.loaded().len() => Ok(at),
            Some(bad) if position < self.len => Err(Missing::Unreadable(bad)),
            _ => Err(Missing::End),
        }
    }

    fn fetch(&mut self, start: u64) {
        // Given back first: the source may have no other block.
        self.block = None;
        self.unreadable = None;
        self.start = start;
        let wanted = self.len.saturating_sub(start).min(self.step) as usize;
        if wanted == 0 {
            return;
        }
        self.ask_ahead(start);
        let aligned = wanted.next_multiple_of(ALIGN);
        let read = self.source.read(self.file, start, aligned);
        let block = match read.or_else(|_| self.source.read(self.file, start, aligned)) {
            Ok(block) => Some(block),
            Err(_) => self.fetch_in_steps(start, aligned),
        };
        let got = block.as_ref().map_or(0, Block::filled);
        self.bytes_read += got as u64;
        if got < wanted && self.unreadable.is_none() {
            self.len = start + got as u64;
        }
        self.block = block;
    }

    /// What can be read in front of the sector that cannot.
    fn fetch_in_steps(&mut self, start: u64, wanted: usize) -> Option<Block> {
        let mut whole: Option<Block> = None;
        for at in (0..wanted).step_by(ALIGN) {
            match self.source.read(self.file, start + at as u64, ALIGN) {
                Ok(piece) => {
                    let got = piece.filled();
                    match &mut whole {
                        None => whole = Some(piece),
                        Some(block) => {
                            block.append(piece.as_slice());
                        }
                    }
                    if got < ALIGN {
                        return whole;
                    }
                }
                Err(_) => {
                    self.unreadable = Some(start + at as u64);
                    return whole;
                }
            }
        }
        whole
    }

    fn ask_ahead(&mut self, start: u64) {
        let block = BLOCK_BYTES as u64;
        let mut next = self.asked.max(start.saturating_add(block));
        while next <= start + READ_AHEAD_BLOCKS * block && next < self.len {
            self.source.read_ahead(
                self.file,
                next,
                (self.len - next).min(block).next_multiple_of(ALIGN as u64) as usize,
            );
            next += block;
        }
        self.asked = next;
    }
}
