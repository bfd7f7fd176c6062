//! What is sent: bytes and pinned blocks, in order, and how far it has come.

use super::buffer::BlockSlice;

/// One piece of what is sent.
#[derive(Debug)]
pub enum SendPart {
    /// Bytes made for this response: headers, metadata, gathered small runs.
    Bytes(Vec<u8>),
    /// Record bytes in a pooled block, pinned until sent.
    Block(BlockSlice),
}

impl SendPart {
    pub fn as_slice(&self) -> &[u8] {
        match self {
            SendPart::Bytes(bytes) => bytes,
            SendPart::Block(slice) => slice,
        }
    }
}

/// A sequence of parts and how far it has been sent. May hold more parts than one system call takes: a short send follows.
#[derive(Debug, Default)]
pub struct SendChain {
    parts: Vec<SendPart>,
    /// Part that is next, and bytes of it that are sent already.
    next: usize,
    within: usize,
}

impl SendChain {
    pub fn push(&mut self, part: SendPart) {
        if !part.as_slice().is_empty() {
            self.parts.push(part);
        }
    }

    /// Takes all parts out, sent or not, and hands out the memory of those made for a response. The list keeps its own.
    pub fn clear(&mut self, mut take: impl FnMut(Vec<u8>)) {
        for part in self.parts.drain(..) {
            if let SendPart::Bytes(bytes) = part {
                take(bytes);
            }
        }
        (self.next, self.within) = (0, 0);
    }

    /// Bytes not yet sent.
    pub fn remaining(&self) -> usize {
        self.parts[self.next..].iter().map(|p| p.as_slice().len()).sum::<usize>() - self.within
    }

    pub fn is_done(&self) -> bool {
        self.next == self.parts.len()
    }

    /// Marks `bytes` more as sent and drops the parts that are wholly sent, which unpins their blocks.
    pub fn advance(&mut self, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            let len = self.parts[self.next].as_slice().len() - self.within;
            if left < len {
                self.within += left;
                return;
            }
            left -= len;
            self.within = 0;
            self.parts[self.next] = SendPart::Bytes(Vec::new());
            self.next += 1;
        }
    }

    /// The unsent slices, at most `max` of them.
    pub fn slices(&self, max: usize) -> impl Iterator<Item = &[u8]> {
        let within = self.within;
        self.parts[self.next..]
            .iter()
            .take(max)
            .enumerate()
            .map(move |(i, part)| &part.as_slice()[if i == 0 { within } else { 0 }..])
    }
}
