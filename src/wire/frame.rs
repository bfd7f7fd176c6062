//! Hot path. Length framing and the request header.
//!
//! A frame is `length i32 | header | body`; everywhere in this code base "frame" means what stands behind the length.

use std::mem;

use crate::base::limits::FRAME_BYTES_MAX;
use crate::wire::api::{self, ApiKey};
use crate::wire::error::WireError;
use crate::wire::primitive::Reader;

/// Bytes of the length in front of each frame.
pub const LENGTH_BYTES: usize = 4;

/// Key, version and correlation id: what every request frame has, whatever its version.
const REQUEST_BYTES_MIN: usize = 8;

/// The correlation id: what every response frame has.
const RESPONSE_BYTES_MIN: usize = 4;

/// First step of the assembly buffer; from there it doubles with what has arrived.
const ASSEMBLY_BYTES_MIN: usize = 4096;

/// An assembly buffer up to this size is kept for the next frame, a larger one is returned to the allocator.
const ASSEMBLY_BYTES_KEPT: usize = 64 * 1024;

/// Cuts a stream of bytes into frames, whatever the chunks it arrives in.
///
/// A frame that lies wholly in one chunk is yielded in place. A frame that spans chunks is assembled in a buffer whose size
/// follows the bytes that have arrived (at most twice as many, and never more than the frame), not the length that was claimed.
/// After an error the stream has no frame boundaries any more: close it.
#[derive(Debug)]
pub struct FrameSplitter {
    direction: Direction,
    bytes_max: usize,
    prefix: [u8; LENGTH_BYTES],
    prefix_len: usize,
    /// Length of the frame in `assembly`; 0 until its prefix is whole.
    claimed: usize,
    assembly: Vec<u8>,
    /// `assembly` was yielded by the last call and is cleared by the next.
    yielded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Requests,
    Responses,
}

/// One whole frame, writable so that batches can be stamped where they are.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Lies in the chunk that was fed.
    InPlace(&'a [u8]),
    /// Was assembled. A caller that must keep it takes the vector (`mem::take`) instead of copying.
    Assembled(&'a mut Vec<u8>),
}

impl Frame<'_> {
    /// The frame's bytes, from the header on.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Frame::InPlace(bytes) => bytes,
            Frame::Assembled(bytes) => bytes,
        }
    }
}

impl FrameSplitter {
    /// For a broker: frames of at most `bytes_max` (and never above Kafka's 100 MiB), and of at most what the API of the frame
    /// allows: judged as soon as the two bytes of its key are there.
    pub fn requests(bytes_max: usize) -> FrameSplitter {
        FrameSplitter::new(Direction::Requests, bytes_max)
    }

    /// For a client: frames of at most `bytes_max` (and never above Kafka's 100 MiB).
    pub fn responses(bytes_max: usize) -> FrameSplitter {
        FrameSplitter::new(Direction::Responses, bytes_max)
    }

    fn new(direction: Direction, bytes_max: usize) -> FrameSplitter {
        FrameSplitter {
            direction,
            bytes_max: bytes_max.min(FRAME_BYTES_MAX),
            prefix: [0; LENGTH_BYTES],
            prefix_len: 0,
            claimed: 0,
            assembly: Vec::default(),
            yielded: false,
        }
    }

    /// Bytes of an unfinished frame that are held here, its length prefix included.
    pub fn held_bytes(&self) -> usize {
        if self.yielded { 0 } else { self.prefix_len + self.assembly.len() }
    }

    /// Bytes of memory that the assembly of frames holds.
    pub fn held_capacity(&self) -> usize {
        self.assembly.capacity()
    }

    /// Gives the assembly buffer back, if no frame is in it.
    pub fn release(&mut self) {
        if self.yielded || self.claimed == 0 {
            if self.yielded {
                self.reset();
            }
            self.assembly = Vec::default();
        }
    }

    /// Length that the unfinished frame claims, once its prefix is whole: what a memory budget is asked for.
    pub fn claimed_bytes(&self) -> Option<usize> {
        (self.claimed > 0 && !self.yielded).then_some(self.claimed)
    }

    /// The next whole frame, taken off the front of `chunk`. `None`: the chunk is used up (kept here as far as needed), feed the
    /// next one. Call until it returns `None`.
    pub fn next_frame<'s, 'c: 's>(
        &'s mut self,
        chunk: &mut &'c mut [u8],
    ) -> Result<Option<Frame<'s>>, WireError> {
        if self.yielded {
            self.reset();
        }
        if self.prefix_len == 0 && chunk.len() >= LENGTH_BYTES {
            let claimed = self.check_length([chunk[0], chunk[1], chunk[2], chunk[3]])?;
            self.check_api_cap(&chunk[LENGTH_BYTES..], claimed)?;
            if chunk.len() - LENGTH_BYTES >= claimed {
                take_front(chunk, LENGTH_BYTES);
                return Ok(Some(Frame::InPlace(take_front(chunk, claimed))));
            }
        }
        self.assemble(chunk)
    }

    fn assemble<'s>(&'s mut self, chunk: &mut &mut [u8]) -> Result<Option<Frame<'s>>, WireError> {
        if self.prefix_len < LENGTH_BYTES {
            let len = chunk.len().min(LENGTH_BYTES - self.prefix_len);
            self.prefix[self.prefix_len..self.prefix_len + len].copy_from_slice(take_front(chunk, len));
            self.prefix_len += len;
            if self.prefix_len < LENGTH_BYTES {
                return Ok(None);
            }
            self.claimed = self.check_length(self.prefix)?;
        }
        let len = chunk.len().min(self.claimed - self.assembly.len());
        let needed = self.assembly.len() + len;
        if needed > self.assembly.capacity() {
            let target = needed.next_power_of_two().max(ASSEMBLY_BYTES_MIN).min(self.claimed);
            self.assembly.reserve_exact(target - self.assembly.len());
        }
        self.assembly.extend_from_slice(take_front(chunk, len));
        self.check_api_cap(&self.assembly, self.claimed)?;
        if self.assembly.len() < self.claimed {
            return Ok(None);
        }
        self.yielded = true;
        Ok(Some(Frame::Assembled(&mut self.assembly)))
    }

    fn reset(&mut self) {
        self.yielded = false;
        self.prefix_len = 0;
        self.claimed = 0;
        self.assembly.clear();
        if self.assembly.capacity() > ASSEMBLY_BYTES_KEPT {
            self.assembly = Vec::default();
        }
    }

    fn check_length(&self, prefix: [u8; LENGTH_BYTES]) -> Result<usize, WireError> {
        let claimed = i32::from_be_bytes(prefix);
        let min = match self.direction {
            Direction::Requests => REQUEST_BYTES_MIN,
            Direction::Responses => RESPONSE_BYTES_MIN,
        };
        match usize::try_from(claimed) {
            Ok(len) if (min..=self.bytes_max).contains(&len) => Ok(len),
            _ => Err(WireError::FrameLength { claimed, max: self.bytes_max }),
        }
    }

    fn check_api_cap(&self, frame: &[u8], claimed: usize) -> Result<(), WireError> {
        if self.direction == Direction::Responses || frame.len() < 2 {
            return Ok(());
        }
        let max = api::frame_bytes_max(i16::from_be_bytes([frame[0], frame[1]])).min(self.bytes_max);
        if claimed > max {
            return Err(WireError::FrameLength { claimed: claimed as i32, max });
        }
        Ok(())
    }
}

fn take_front<'c>(chunk: &mut &'c mut [u8], len: usize) -> &'c mut [u8] {
    let (front, rest) = mem::take(chunk).split_at_mut(len);
    *chunk = rest;
    front
}

/// The header of a request, versions 1 and 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    pub api: ApiKey,
    /// Within the range that we parse.
    pub version: i16,
    pub correlation_id: i32,
    /// "" if it is not UTF-8, which Kafka takes as well.
    pub client_id: Option<&'a str>,
    /// Where the body begins in the frame.
    pub body_at: usize,
}

impl<'a> RequestHeader<'a> {
    /// Parses the header of a frame. Errors: `UnknownApi` and `UnsupportedVersion` before anything behind the first 8 bytes is
    /// looked at, since the rest may have any shape; of these only `UnsupportedVersion` of ApiVersions is answered.
    pub fn parse(frame: &'a [u8]) -> Result<RequestHeader<'a>, WireError> {
        let mut reader = Reader::at(frame, 0);
        let key = reader.i16()?;
        let version = reader.i16()?;
        let correlation_id = reader.i32()?;
        let api = ApiKey::from_wire(key).ok_or(WireError::UnknownApi { key, version })?;
        api.check(version, correlation_id)?;
        // Not compact, even in header version 2.
        let client_id = reader.text(false)?.map(|span| span.text(frame));
        reader.skip_tags(api.is_flexible(version))?;
        Ok(RequestHeader { api, version, correlation_id, client_id, body_at: reader.position() })
    }

    /// Whether the body uses compact lengths and tagged fields.
    pub fn is_flexible(&self) -> bool {
        self.api.is_flexible(self.version)
    }
}

/// Opens a response frame at the end of `out`: room for the length, then the response header of this API and version. Returns
/// the position to hand to `end_response`.
pub fn begin_response(out: &mut Vec<u8>, api: ApiKey, version: i16, correlation_id: i32) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    out.extend_from_slice(&correlation_id.to_be_bytes());
    if api.response_header_version(version) >= 1 {
        out.push(0);
    }
    start
}

/// Closes the frame that `begin_response` opened: writes its length, plus `outside` bytes that the caller sends from elsewhere.
pub fn end_response(out: &mut [u8], start: usize, outside: usize) {
    let len = out.len() - start - LENGTH_BYTES + outside;
    out[start..start + LENGTH_BYTES].copy_from_slice(&(len as i32).to_be_bytes());
}
