//! Hot path. Kafka's primitive types: a bounds-checked reader over a frame, and writers that append to a buffer of the caller.
//!
//! "Flexible" chooses between the two encodings of strings, bytes and arrays: a fixed-width length (-1 = null, and as in Kafka's own
//! reader any other negative number too), or an unsigned
//! varint one larger than the length (0 = null), with tagged fields behind each structure (KIP-482).

use std::ops::Range;

use crate::base::ids::Uuid;
use crate::wire::error::WireError;

/// Tagged fields that one structure may carry. Kafka itself defines fewer than ten in any.
pub const TAGGED_FIELDS_MAX: u32 = 64;

/// Bytes of a frame by position: what a parser keeps instead of a borrow, so that its lists outlive the frame and are reused.
/// 32 bits hold any frame (the cap is 100 MiB).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub len: u32,
}

impl Span {
    /// The positions as a range.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }

    /// The bytes, out of the frame that this span was parsed from.
    pub fn bytes(self, frame: &[u8]) -> &[u8] {
        &frame[self.range()]
    }

    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The bytes as text. Spans of strings were checked to be UTF-8 when they were parsed; another frame gives "".
    pub fn text(self, frame: &[u8]) -> &str {
        frame.get(self.range()).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("")
    }
}

/// Reads one frame from front to back. Each read checks the bytes that are left; an error names the byte of the frame.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at byte `at` of `bytes` (a frame without its length prefix).
    pub fn at(bytes: &'a [u8], at: usize) -> Reader<'a> {
        Reader { bytes, at: at.min(bytes.len()) }
    }

    /// Position of the next byte.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Requires that nothing is left over.
    pub fn finish(&self) -> Result<(), WireError> {
        if self.remaining() == 0 { Ok(()) } else { Err(WireError::TrailingBytes { at: self.at }) }
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        if len > self.remaining() {
            return Err(WireError::Truncated { at: self.at });
        }
        let bytes = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub fn i8(&mut self) -> Result<i8, WireError> {
        Ok(i8::from_be_bytes(self.array()?))
    }

    pub fn i16(&mut self) -> Result<i16, WireError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub fn i32(&mut self) -> Result<i32, WireError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64, WireError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub fn uuid(&mut self) -> Result<Uuid, WireError> {
        Ok(Uuid(self.array()?))
    }

    /// An unsigned varint of at most five bytes.
    pub fn varint(&mut self) -> Result<u32, WireError> {
        let start = self.at;
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.array::<1>()?[0];
            // The fifth byte has room for four bits.
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::Malformed { at: start, what: "varint" })
    }

    /// Length of an array, `None` for null. Refused if the rest of the frame cannot hold that many elements of at least
    /// `element_bytes_min` (>= 1) bytes each.
    pub fn count(&mut self, flexible: bool, element_bytes_min: usize) -> Result<Option<usize>, WireError> {
        let start = self.at;
        let Some(count) = self.length(flexible)? else { return Ok(None) };
        if count > self.remaining() / element_bytes_min {
            return Err(WireError::Oversized { at: start });
        }
        Ok(Some(count))
    }

    /// Like `count`, for an array that must not be null.
    pub fn count_non_null(&mut self, flexible: bool, element_bytes_min: usize) -> Result<usize, WireError> {
        let at = self.at;
        self.count(flexible, element_bytes_min)?.ok_or(WireError::Malformed { at, what: "null array" })
    }

    fn length(&mut self, flexible: bool) -> Result<Option<usize>, WireError> {
        if flexible {
            return Ok((self.varint()? as usize).checked_sub(1));
        }
        Ok(usize::try_from(self.i32()?).ok())
    }

    /// A nullable string, checked to be UTF-8 and at most 32767 bytes.
    pub fn string(&mut self, flexible: bool) -> Result<Option<Span>, WireError> {
        let start = self.at;
        let Some(span) = self.text(flexible)? else { return Ok(None) };
        match std::str::from_utf8(span.bytes(self.bytes)) {
            Ok(_) => Ok(Some(span)),
            Err(_) => Err(WireError::Malformed { at: start, what: "UTF-8" }),
        }
    }

    /// A nullable string that may hold any bytes; its `Span::text` is "" where they are not UTF-8.
    pub fn text(&mut self, flexible: bool) -> Result<Option<Span>, WireError> {
        let start = self.at;
        let len = match flexible {
            true => (self.varint()? as usize).checked_sub(1),
            false => usize::try_from(self.i16()?).ok(),
        };
        let Some(len) = len else { return Ok(None) };
        if len > i16::MAX as usize {
            return Err(WireError::Oversized { at: start });
        }
        let span = Span { start: self.at as u32, len: len as u32 };
        self.take(len)?;
        Ok(Some(span))
    }

    /// A string that must not be null.
    pub fn string_non_null(&mut self, flexible: bool) -> Result<Span, WireError> {
        let at = self.at;
        self.string(flexible)?.ok_or(WireError::Malformed { at, what: "null string" })
    }

    /// Nullable bytes or records.
    pub fn bytes(&mut self, flexible: bool) -> Result<Option<Span>, WireError> {
        let Some(len) = self.length(flexible)? else { return Ok(None) };
        let start = self.at as u32;
        self.take(len)?;
        Ok(Some(Span { start, len: len as u32 }))
    }

    /// Skips the tagged fields behind a structure, if the version has them.
    pub fn skip_tags(&mut self, flexible: bool) -> Result<(), WireError> {
        self.tags(flexible, |_, _| Ok(()))
    }

    /// Reads the tagged fields behind a structure, if the version has them: `known` is called with each tag and a reader of
    /// exactly its bytes, and reads a tag that it knows to the end or leaves one that it does not know untouched.
    pub fn tags(
        &mut self,
        flexible: bool,
        mut known: impl FnMut(u32, &mut Reader<'a>) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        if !flexible {
            return Ok(());
        }
        let start = self.at;
        let count = self.varint()?;
        if count > TAGGED_FIELDS_MAX || count as usize > self.remaining() / 2 {
            return Err(WireError::Oversized { at: start });
        }
        let mut previous = None;
        for _ in 0..count {
            let at = self.at;
            let tag = self.varint()?;
            if previous.is_some_and(|previous| tag <= previous) {
                return Err(WireError::Malformed { at, what: "order of tagged fields" });
            }
            previous = Some(tag);
            let len = self.varint()? as usize;
            let body = self.at;
            self.take(len)?;
            let mut inner = Reader { bytes: &self.bytes[..self.at], at: body };
            known(tag, &mut inner)?;
            if inner.at != body {
                inner.finish()?;
            }
        }
        Ok(())
    }
}

/// Appends an unsigned varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that `put_varint` appends.
pub const fn varint_len(value: u32) -> usize {
    // 7 bits a byte; a zero still takes one.
    (38 - (value | 1).leading_zeros() as usize) / 7
}

/// Appends the length of an array, or of bytes.
pub fn put_length(out: &mut Vec<u8>, flexible: bool, len: usize) {
    if flexible {
        put_varint(out, len as u32 + 1);
    } else {
        out.extend_from_slice(&(len as i32).to_be_bytes());
    }
}

/// Bytes that `put_length` appends.
pub const fn length_len(flexible: bool, len: usize) -> usize {
    if flexible { varint_len(len as u32 + 1) } else { 4 }
}

/// Appends a null array or null bytes.
pub fn put_null(out: &mut Vec<u8>, flexible: bool) {
    if flexible {
        out.push(0);
    } else {
        out.extend_from_slice(&(-1i32).to_be_bytes());
    }
}

/// Appends a nullable string. The caller keeps it within 32767 bytes; what is longer is cut at a character.
pub fn put_string(out: &mut Vec<u8>, flexible: bool, text: Option<&str>) {
    let text = text.map(|text| {
        let mut len = text.len().min(i16::MAX as usize);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        &text[..len]
    });
    match (flexible, text) {
        (true, Some(text)) => put_varint(out, text.len() as u32 + 1),
        (true, None) => out.push(0),
        (false, Some(text)) => out.extend_from_slice(&(text.len() as i16).to_be_bytes()),
        (false, None) => out.extend_from_slice(&(-1i16).to_be_bytes()),
    }
    out.extend_from_slice(text.unwrap_or_default().as_bytes());
}

/// Appends "no tagged fields", if the version has them.
pub fn put_no_tags(out: &mut Vec<u8>, flexible: bool) {
    if flexible {
        out.push(0);
    }
}
