//! The bytes of one file at one moment: sparse pages, shared between images until one of them changes.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::base::limits::ALIGN;

pub const PAGE: u64 = ALIGN as u64;

/// Unit of tearing.
pub const SECTOR: u64 = 512;

#[derive(Clone, Debug, Default)]
pub struct Image {
    pages: BTreeMap<u64, Rc<[u8; ALIGN]>>,
    len: u64,
}

impl Image {
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Reads `into.len()` bytes; what was never written is zero, also behind the end.
    pub fn read(&self, offset: u64, into: &mut [u8]) {
        for (page, within, range) in pieces(offset, into.len()) {
            match self.pages.get(&page) {
                Some(bytes) => into[range.clone()].copy_from_slice(&bytes[within..within + range.len()]),
                None => into[range].fill(0),
            }
        }
    }

    pub fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read(offset, &mut bytes);
        bytes
    }

    /// Where `needle` stands at or behind `from`.
    pub fn find(&self, from: u64, needle: &[u8]) -> Option<u64> {
        (from..self.len).step_by(ALIGN).find_map(|start| {
            let bytes = self.bytes(start, ALIGN + needle.len() - 1);
            let mut at = 0;
            while let Some(skip) = bytes[at..].iter().position(|byte| *byte == needle[0]) {
                at += skip;
                if bytes[at..].starts_with(needle) {
                    return Some(start + at as u64);
                }
                at += 1;
            }
            None
        })
    }

    /// Writes `data` and extends the file over it.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        for (page, within, range) in pieces(offset, data.len()) {
            let page = self.pages.entry(page).or_insert_with(|| Rc::new([0; ALIGN]));
            Rc::make_mut(page)[within..within + range.len()].copy_from_slice(&data[range]);
        }
        self.len = self.len.max(offset + data.len() as u64);
    }

    pub fn extend_to(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    /// Cuts the file, or extends it with zeros.
    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.split_off(&len.div_ceil(PAGE));
            if let Some(page) = self.pages.get_mut(&(len / PAGE)) {
                Rc::make_mut(page)[(len % PAGE) as usize..].fill(0);
            }
        }
        self.len = len;
    }

    /// Both images hold the same bytes here, and both files reach this far.
    pub fn same(&self, other: &Image, offset: u64, len: u64) -> bool {
        let end = offset + len;
        end <= self.len
            && end <= other.len
            && pieces(offset, len as usize).all(|(page, within, range)| {
                match (self.pages.get(&page), other.pages.get(&page)) {
                    (Some(a), Some(b)) if Rc::ptr_eq(a, b) => true,
                    (None, None) => true,
                    (a, b) => {
                        let zeros = [0; ALIGN];
                        let (a, b) = (a.map_or(&zeros, |p| &**p), b.map_or(&zeros, |p| &**p));
                        a[within..within + range.len()] == b[within..within + range.len()]
                    }
                }
            })
    }
}

/// Splits a range of a file at page boundaries: page number, offset within it, range within the caller's bytes.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == len {
            return None;
        }
        let position = offset + at as u64;
        let within = (position % PAGE) as usize;
        let part = (ALIGN - within).min(len - at);
        let range = at..at + part;
        at += part;
        Some((position / PAGE, within, range))
    })
}
