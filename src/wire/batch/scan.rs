//! Compressed records walked while they are decompressed: for those who need offsets, times and keys, and no values. A batch may say
//! that it is small and be a hundred megabytes; this walk holds some tens of kilobytes of it. Cold.

use std::io::{self, BufRead, BufReader, Read};

use crate::base::error::Refused;
use crate::wire::batch::Batch;
use crate::wire::codec::{self, Codec};

/// What a walk tells of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    pub offset_delta: i32,
    pub timestamp_delta: i64,
    pub has_key: bool,
}

impl Scanned {
    /// The record's time: what Kafka's consumers show for it.
    pub fn timestamp(&self, batch: &Batch<'_>) -> i64 {
        if batch.is_log_append_time() {
            batch.max_timestamp()
        } else {
            batch.base_timestamp().wrapping_add(self.timestamp_delta)
        }
    }
}

/// Why a walk ended early.
enum End {
    /// The decoder's own error, or more bytes than the budget allows.
    Codec,
    Malformed,
    /// By the visitor.
    Enough,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> End {
        End::Codec
    }
}

/// Calls `visit` for each record in order until it says false. Errors: CORRUPT_MESSAGE where the payload does not decompress
/// within its budget, UNSUPPORTED_COMPRESSION_TYPE for a codec that does not exist, INVALID_RECORD where records are cut, claim
/// another length than they have, or are followed by bytes.
pub fn scan(batch: &Batch<'_>, mut visit: impl FnMut(Scanned) -> bool) -> Result<(), Refused> {
    let codec = batch.codec().ok_or(Refused::UnsupportedCompressionType)?;
    let payload = batch.payload();
    let budget = match codec {
        // Bounded by itself: what a record claims beyond it is malformed.
        Codec::None => usize::MAX,
        _ => codec::budget(payload.len()),
    };
    let reader = codec::reader(codec, payload, budget).map_err(|_| Refused::CorruptMessage)?;
    let mut walk = Walk { reader: BufReader::new(reader), left: budget as u64, over: false };
    match walk.all(batch.count(), &mut visit) {
        Ok(()) | Err(End::Enough) => Ok(()),
        Err(End::Codec) => Err(Refused::CorruptMessage),
        Err(End::Malformed) if walk.over => Err(Refused::CorruptMessage),
        Err(End::Malformed) => Err(Refused::InvalidRecord),
    }
}

struct Walk<R> {
    reader: BufReader<R>,
    /// Bytes that may still be decompressed.
    left: u64,
    /// More than those were asked for.
    over: bool,
}

impl<R: Read> Walk<R> {
    fn all(&mut self, count: i32, visit: &mut impl FnMut(Scanned) -> bool) -> Result<(), End> {
        for _ in 0..count {
            let mut len = 5;
            let len_of_record = self.varlong(&mut len)?;
            let mut body = u64::try_from(len_of_record).map_err(|_| End::Malformed)?;
            let scanned = self.record(&mut body)?;
            if body != 0 {
                return Err(End::Malformed);
            }
            if !visit(scanned) {
                return Err(End::Enough);
            }
        }
        if self.reader.fill_buf()?.is_empty() { Ok(()) } else { Err(End::Malformed) }
    }

    /// One record of which `body` bytes are left.
    fn record(&mut self, body: &mut u64) -> Result<Scanned, End> {
        self.skip(1, body)?;
        let timestamp_delta = self.varlong(body)?;
        let offset_delta = i32::try_from(self.varlong(body)?).map_err(|_| End::Malformed)?;
        let has_key = self.bytes(body)?;
        self.bytes(body)?;
        let headers = u64::try_from(self.varlong(body)?).map_err(|_| End::Malformed)?;
        for _ in 0..headers {
            if !self.bytes(body)? {
                return Err(End::Malformed);
            }
            self.bytes(body)?;
        }
        Ok(Scanned { offset_delta, timestamp_delta, has_key })
    }

    /// Passes over a length and its bytes; false for null, which is every negative length.
    fn bytes(&mut self, body: &mut u64) -> Result<bool, End> {
        let Ok(len) = u64::try_from(self.varlong(body)?) else { return Ok(false) };
        self.skip(len, body)?;
        Ok(true)
    }

    fn skip(&mut self, len: u64, body: &mut u64) -> Result<(), End> {
        *body = body.checked_sub(len).ok_or(End::Malformed)?;
        self.take(len)?;
        match io::copy(&mut (&mut self.reader).take(len), &mut io::sink())? {
            copied if copied == len => Ok(()),
            _ => Err(End::Malformed),
        }
    }

    fn varlong(&mut self, body: &mut u64) -> Result<i64, End> {
        let mut raw = 0u64;
        for shift in (0..64).step_by(7) {
            *body = body.checked_sub(1).ok_or(End::Malformed)?;
            self.take(1)?;
            let byte = *self.reader.fill_buf()?.first().ok_or(End::Malformed)?;
            self.reader.consume(1);
            raw |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((raw >> 1) as i64 ^ -((raw & 1) as i64));
            }
        }
        Err(End::Malformed)
    }

    fn take(&mut self, len: u64) -> Result<(), End> {
        match self.left.checked_sub(len) {
            Some(left) => self.left = left,
            None => {
                self.over = true;
                return Err(End::Malformed);
            }
        }
        Ok(())
    }
}
