//! A read that goes on until it has all.

use crate::base::limits::ALIGN;
use crate::io::FileId;
use crate::io::buffer::Block;

/// A read, which goes on where the kernel left it until it has all or finds the end of the file.
pub struct Reading {
    pub file: FileId,
    offset: u64,
    pub into: Block,
    at: u32,
    len: u32,
    /// Bytes asked for at most in the next step: below what is missing only for an injected short read.
    step: u32,
    /// Bytes read so far, and how many of them, a multiple of 4096, the next step starts behind.
    pub read: u32,
    from: u32,
}

impl Reading {
    pub fn new(file: FileId, offset: u64, into: Block, at: u32, len: u32) -> Reading {
        Reading { file, offset, into, at, len, step: len, read: 0, from: 0 }
    }

    /// An injected fault: the first step reads half of the pages, and at least one.
    pub fn shorten(&mut self) {
        self.step = (self.len / 2 / ALIGN as u32 * ALIGN as u32).max(ALIGN as u32).min(self.len);
    }

    /// Where the next step reads from, and into.
    pub fn next(&mut self) -> (u64, &mut [u8]) {
        let start = (self.at + self.from) as usize;
        let part = &mut self.into.as_mut_slice()[start..start + self.step as usize];
        (self.offset + u64::from(self.from), part)
    }

    /// Takes the outcome of a step; true if another one is needed: the kernel may stop anywhere, and only a step that finds nothing
    /// new shows the end of the file. What lies before the end in its last page is read twice, because direct reads start
    /// on a page.
    pub fn goes_on(&mut self, moved: u32) -> bool {
        let before = self.read;
        self.read = before.max(self.from + moved);
        self.from = self.read / ALIGN as u32 * ALIGN as u32;
        self.step = self.len - self.from;
        before < self.read && self.read < self.len
    }
}
