//! The four compression codecs of record batches, each read against a budget: a batch says nothing about its decompressed size
//! that could be trusted, so output is made in steps and stops at the budget.
//!
//! Not a hot path on plaintext produce and fetch: batches are stored as the producer compressed them. Used by deep checks,
//! topics with a codec of their own, time search, tools and tests.

use std::io::{self, Read, Write};

use crate::base::error::Refused;

/// Most bytes that one batch may decompress to (`min` of this and `RATIO_MAX` times its compressed size).
pub const DECOMPRESSED_BYTES_MAX: usize = 100 * 1024 * 1024;

/// Largest ratio of decompressed to compressed bytes.
pub const RATIO_MAX: usize = 1000;

/// A batch may always decompress to this much, whatever the ratio: zstd turns 1 MiB of one letter into 60 bytes, and a producer
/// that does so is honest. Kafka's default `max.message.bytes`, which such a batch could have without compression.
pub const DECOMPRESSED_BYTES_FLOOR: usize = 1024 * 1024;

/// Largest zstd window, as a power of two: 8 MiB, what level 19 uses. A larger one is memory that a peer chooses.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Highest zstd level whose window stays within that; above it the window is set, so that every reader of ours takes what we write.
const ZSTD_LEVEL_WINDOWED_MAX: i32 = 19;

/// Output is made in steps of this size, with a look at the budget after each.
const STEP_BYTES: usize = 64 * 1024;

/// Uncompressed bytes per snappy block and lz4 block: what Kafka's Java client uses.
const SNAPPY_BLOCK_BYTES: usize = 32 * 1024;

/// xerial's framing of snappy: magic, version 1, lowest compatible version 1, then `length i32 | raw snappy block` repeated.
const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const XERIAL_MAGIC_BYTES: usize = 8;

/// A snappy element of 3 bytes copies at most 64: a block that claims a larger ratio lies.
const SNAPPY_RATIO_MAX: usize = 22;

/// Compression of a batch, bits 0-2 of its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Codec {
    /// All codecs, ascending by their number.
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// The codec of these attributes; `None` for the numbers 5-7, which mean nothing.
    pub const fn of_attributes(attributes: i16) -> Option<Codec> {
        match attributes & 7 {
            0 => Some(Codec::None),
            1 => Some(Codec::Gzip),
            2 => Some(Codec::Snappy),
            3 => Some(Codec::Lz4),
            4 => Some(Codec::Zstd),
            _ => None,
        }
    }

    /// The name in `compression.type`.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// The codec of this name.
    pub fn from_name(name: &str) -> Option<Codec> {
        Codec::ALL.into_iter().find(|codec| codec.name() == name)
    }
}

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    pub codec: Codec,
    /// Of gzip (1 to 9) and zstd (up to 22, negative ones are fast); none for the codec's default. The others have one level here.
    pub level: Option<i32>,
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Compression {
        Compression { codec, level: None }
    }
}

/// Bytes that `compressed_bytes` may decompress to.
pub fn budget(compressed_bytes: usize) -> usize {
    compressed_bytes.saturating_mul(RATIO_MAX).clamp(DECOMPRESSED_BYTES_FLOOR, DECOMPRESSED_BYTES_MAX)
}

/// Replaces `out` with the decompressed `input`. More than `budget` bytes, or bytes that are not of this codec: CORRUPT_MESSAGE,
/// with what was made so far in `out`.
pub fn decompress(codec: Codec, input: &[u8], out: &mut Vec<u8>, budget: usize) -> Result<(), Refused> {
    out.clear();
    let done = match codec {
        Codec::None => read_bounded(input, out, budget),
        Codec::Gzip => read_bounded(flate2::bufread::MultiGzDecoder::new(input), out, budget),
        Codec::Snappy => read_snappy(input, out, budget),
        Codec::Lz4 => read_bounded(lz4_flex::frame::FrameDecoder::new(input), out, budget),
        Codec::Zstd => read_zstd(input, out, budget),
    };
    done.map_err(|_| Refused::CorruptMessage)
}

/// A reader of the decompressed `input`, for walks that keep nothing. It sets no bound on what is read from it; `budget` bounds a
/// block that has to be made whole (snappy).
pub fn reader<'a>(codec: Codec, input: &'a [u8], budget: usize) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match codec {
        Codec::None => Box::new(input),
        Codec::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        Codec::Snappy => {
            Box::new(SnappyBlocks { rest: SnappyRest::of(input)?, block: Vec::new(), at: 0, budget })
        }
        Codec::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(input)),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    })
}

/// Appends the compressed `input` to `out`, in the shape that Kafka's Java client writes.
pub fn compress(compression: Compression, input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let level = compression.level;
    match compression.codec {
        Codec::None => out.extend_from_slice(input),
        Codec::Gzip => {
            let level = level.and_then(|level| u32::try_from(level).ok()).filter(|level| *level <= 9);
            let level = level.map_or(flate2::Compression::default(), flate2::Compression::new);
            let mut encoder = flate2::write::GzEncoder::new(out, level);
            encoder.write_all(input)?;
            encoder.finish()?;
        }
        Codec::Snappy => {
            out.extend_from_slice(&XERIAL_HEADER);
            let mut encoder = snap::raw::Encoder::new();
            for block in input.chunks(SNAPPY_BLOCK_BYTES) {
                let block = encoder.compress_vec(block)?;
                out.extend_from_slice(&(block.len() as i32).to_be_bytes());
                out.extend_from_slice(&block);
            }
        }
        Codec::Lz4 => {
            // Java's reader takes independent blocks only.
            let info = lz4_flex::frame::FrameInfo::new()
                .block_size(lz4_flex::frame::BlockSize::Max64KB)
                .block_mode(lz4_flex::frame::BlockMode::Independent);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, out);
            encoder.write_all(input)?;
            encoder.finish()?;
        }
        Codec::Zstd => {
            let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
            let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
            if level > ZSTD_LEVEL_WINDOWED_MAX {
                encoder.window_log(ZSTD_WINDOW_LOG_MAX)?;
            }
            encoder.write_all(input)?;
            encoder.finish()?;
        }
    }
    Ok(())
}

fn over_budget() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "decompresses to more than its budget")
}

fn read_bounded(reader: impl Read, out: &mut Vec<u8>, budget: usize) -> io::Result<()> {
    // One byte more than allowed tells "exactly full" from "too much".
    let mut reader = reader.take(budget as u64 + 1);
    let mut filled = 0;
    let done = loop {
        // Zeroed once, however short the reads are.
        if filled == out.len() {
            out.resize(filled + STEP_BYTES, 0);
        }
        match reader.read(&mut out[filled..]) {
            Ok(0) => break Ok(()),
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => break Err(e),
        }
        if filled > budget {
            break Err(over_budget());
        }
    };
    out.truncate(filled);
    done
}

fn read_zstd(input: &[u8], out: &mut Vec<u8>, budget: usize) -> io::Result<()> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    read_bounded(decoder, out, budget)
}

/// The blocks of snappy data: xerial framing, or, without its magic, one raw block: some old clients send that.
enum SnappyRest<'a> {
    Framed(&'a [u8]),
    Raw(Option<&'a [u8]>),
}

impl<'a> SnappyRest<'a> {
    fn of(input: &'a [u8]) -> io::Result<SnappyRest<'a>> {
        if !input.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_BYTES]) {
            return Ok(SnappyRest::Raw(Some(input)));
        }
        input.get(XERIAL_HEADER.len()..).map(SnappyRest::Framed).ok_or_else(truncated)
    }

    fn next_block(&mut self) -> io::Result<Option<&'a [u8]>> {
        let rest = match self {
            SnappyRest::Raw(block) => return Ok(block.take()),
            SnappyRest::Framed(rest) => rest,
        };
        // Streams may be concatenated, as xerial's own reader allows.
        while rest.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_BYTES]) {
            *rest = rest.get(XERIAL_HEADER.len()..).ok_or_else(truncated)?;
        }
        if rest.is_empty() {
            return Ok(None);
        }
        let (len, after) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
        let len = usize::try_from(i32::from_be_bytes(*len)).map_err(|_| truncated())?;
        let block = after.get(..len).ok_or_else(truncated)?;
        *rest = &after[len..];
        Ok(Some(block))
    }
}

fn truncated() -> io::Error {
    io::Error::from(io::ErrorKind::UnexpectedEof)
}

/// Snappy data one block at a time.
struct SnappyBlocks<'a> {
    rest: SnappyRest<'a>,
    block: Vec<u8>,
    at: usize,
    budget: usize,
}

impl Read for SnappyBlocks<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() {
            let Some(block) = self.rest.next_block()? else { return Ok(0) };
            self.block.clear();
            self.at = 0;
            read_snappy_block(block, &mut self.block, self.budget)?;
        }
        let len = into.len().min(self.block.len() - self.at);
        into[..len].copy_from_slice(&self.block[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

fn read_snappy(input: &[u8], out: &mut Vec<u8>, budget: usize) -> io::Result<()> {
    let mut rest = SnappyRest::of(input)?;
    while let Some(block) = rest.next_block()? {
        read_snappy_block(block, out, budget)?;
    }
    Ok(())
}

fn read_snappy_block(block: &[u8], out: &mut Vec<u8>, budget: usize) -> io::Result<()> {
    let claimed = snap::raw::decompress_len(block)?;
    if claimed > block.len() * SNAPPY_RATIO_MAX || claimed > budget.saturating_sub(out.len()) {
        return Err(over_budget());
    }
    let len = out.len();
    out.resize(len + claimed, 0);
    let made = snap::raw::Decoder::new().decompress(block, &mut out[len..])?;
    out.truncate(len + made);
    Ok(())
}
