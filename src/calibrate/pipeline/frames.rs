//! Requests out of a byte stream, left in the pieces in which they arrived.
//!
//! A request is `length u32 | crc u32 | seq u64 | payload`, little-endian: `length` and `crc` (CRC-32C) are of the payload.
//! A reply is 64 bytes and begins with the request's `seq`.

use std::collections::VecDeque;

use crate::io::recv::RecvBuf;

pub const HEADER_BYTES: usize = 16;
pub const REPLY_BYTES: usize = 64;

/// Pieces below this are copied while they wait for the rest of their request, so that they do not pin a receive buffer.
const PINNED_BYTES_MIN: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub payload_bytes: u32,
    pub crc: u32,
    pub seq: u64,
}

impl Header {
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Header {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Header { payload_bytes: word(0), crc: word(4), seq: u64::from(word(8)) | u64::from(word(12)) << 32 }
    }

    pub fn bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.crc.to_le_bytes());
        bytes[8..].copy_from_slice(&self.seq.to_le_bytes());
        bytes
    }
}

/// What arrived on one connection and is not yet consumed.
#[derive(Default)]
pub struct Stream {
    pieces: VecDeque<RecvBuf>,
    /// Bytes of the first piece that are consumed.
    consumed: usize,
    available: usize,
}

impl Stream {
    pub fn push(&mut self, piece: RecvBuf) {
        self.available += piece.len();
        self.pieces.push_back(piece);
    }

    /// The header of the first request, if all of the request is there.
    pub fn whole(&self) -> Option<Header> {
        let header = self.header()?;
        (self.available >= HEADER_BYTES + header.payload_bytes as usize).then_some(header)
    }

    /// The header of the first request, once it is there.
    pub fn header(&self) -> Option<Header> {
        if self.available < HEADER_BYTES {
            return None;
        }
        let mut bytes = [0; HEADER_BYTES];
        let mut filled = 0;
        for slice in self.slices(HEADER_BYTES) {
            bytes[filled..filled + slice.len()].copy_from_slice(slice);
            filled += slice.len();
        }
        Some(Header::parse(&bytes))
    }

    /// The first `len` bytes, piece by piece.
    pub fn slices(&self, len: usize) -> impl Iterator<Item = &[u8]> {
        let (mut skip, mut left) = (self.consumed, len);
        self.pieces.iter().map_while(move |piece| {
            let slice = &piece[std::mem::take(&mut skip)..];
            let slice = &slice[..slice.len().min(left)];
            left -= slice.len();
            (!slice.is_empty()).then_some(slice)
        })
    }

    /// Drops the first `len` bytes, and with them the buffers that are used up.
    pub fn consume(&mut self, len: usize) {
        self.available -= len;
        self.consumed += len;
        while self.pieces.front().is_some_and(|piece| piece.len() <= self.consumed) {
            self.consumed -= self.pieces.pop_front().map_or(0, |piece| piece.len());
        }
    }

    /// Copies what waits for the rest of its request out of small buffers, or out of all when they have run `short`.
    pub fn unpin(&mut self, short: bool) {
        for (i, piece) in self.pieces.iter_mut().enumerate() {
            let from = if i == 0 { self.consumed } else { 0 };
            if !piece.is_pooled() || (!short && piece.len() - from >= PINNED_BYTES_MIN) {
                continue;
            }
            *piece = RecvBuf::owned(piece[from..].to_vec());
            if i == 0 {
                self.consumed = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_out_of_any_split() {
        let mut bytes = Vec::new();
        let payloads: Vec<Vec<u8>> = (0..20_usize).map(|i| vec![i as u8; i * 7]).collect();
        for (seq, payload) in payloads.iter().enumerate() {
            let header = Header { payload_bytes: payload.len() as u32, crc: 9, seq: seq as u64 };
            bytes.extend(header.bytes());
            bytes.extend(payload);
        }
        for piece_bytes in [1, 2, 15, 16, 17, 100, bytes.len()] {
            let mut stream = Stream::default();
            let mut seen = 0;
            for piece in bytes.chunks(piece_bytes) {
                stream.push(RecvBuf::owned(piece.to_vec()));
                while let Some(header) = stream.whole() {
                    assert_eq!(header.seq, seen as u64);
                    stream.consume(HEADER_BYTES);
                    let len = header.payload_bytes as usize;
                    assert_eq!(stream.slices(len).flatten().copied().collect::<Vec<_>>(), payloads[seen]);
                    stream.consume(len);
                    seen += 1;
                }
                stream.unpin(true);
            }
            assert_eq!(seen, payloads.len());
        }
    }
}
