//! One file: what a reader sees, what a power cut keeps, and the changes in between.
//!
//! `live` is what a read returns. `flushed` is what survives for certain. Every change to the file stands in `pending`, in the
//! order in which it took effect, until a flush that covers it moves it into `flushed`. A crash applies a random part of the
//! rest, sector by sector.
//!
//! # Non-obvious
//! - An extent is *written* once a flush of this very file has covered a write to it. Data in other extents needs a change of
//!   metadata before a power cut spares it, so the flush of another file does not save it, whatever the device's cache does.
//! - A failed flush loses: each change it should have covered may stay visible and yet be forgotten by every later flush, as
//!   kernels do. That is why a retry which "succeeds" proves nothing.
//! - A recycled file is the same file under another name: its bytes and its written extents stay.

use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

use super::image::{Image, PAGE, SECTOR};
use super::rng::Rng;

/// Order in which things were handed back to the layers above: what was returned at a smaller stamp had been seen.
pub type Stamp = u64;

#[derive(Debug, Default)]
pub struct File {
    pub live: Image,
    pub flushed: Image,
    /// Pages that take up space.
    allocated: BTreeSet<u64>,
    /// Pages whose extents are written, and durably so.
    written: BTreeSet<u64>,
    /// Pages that cannot be read until they are written again.
    unreadable: BTreeSet<u64>,
    pending: Vec<Change>,
}

#[derive(Debug)]
struct Change {
    id: u64,
    what: What,
    state: State,
}

#[derive(Debug)]
enum What {
    Write {
        offset: u64,
        data: Rc<[u8]>,
    },
    /// Length and space, by `Allocate`.
    Extend(u64),
    Truncate(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The device may or may not have it.
    InFlight,
    /// Complete, but the layers above do not know it yet.
    Landed,
    Returned(Stamp),
    /// Complete, visible, and dropped by a failed flush: no power cut will spare it.
    Lost,
}

/// How much of what was not flushed a crash keeps. Drawn once per crash, so that the extremes are common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    Nothing,
    Everything,
    SomeChanges,
    SomeSectors,
}

impl Survival {
    pub fn draw(rng: &mut Rng) -> Survival {
        [Survival::Nothing, Survival::Everything, Survival::SomeChanges, Survival::SomeSectors]
            [rng.below(4) as usize]
    }

    fn keeps_change(self, rng: &mut Rng) -> bool {
        match self {
            Survival::Nothing => false,
            Survival::Everything => true,
            Survival::SomeChanges | Survival::SomeSectors => rng.below(2) == 0,
        }
    }
}

/// What a crash did to one file, for the coverage counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    pub lost: u32,
    pub torn: u32,
    pub kept: u32,
}

impl File {
    /// What stands on the disk changes by itself: rot, or another file's write that went astray.
    pub fn overwrite(&mut self, offset: u64, data: &[u8]) {
        for image in [&mut self.live, &mut self.flushed] {
            image.write(offset, data);
        }
        let pages = pages(offset..offset + data.len() as u64);
        self.allocated.extend(pages.clone());
        self.written.extend(pages);
    }

    /// All of its extents seem to be written: those of writes that no flush has covered yet do as well.
    pub fn is_own_and_written(&self) -> bool {
        let writes = self.pending.iter().filter(|c| c.state != State::InFlight);
        let fresh: BTreeSet<u64> = writes
            .filter_map(|change| match &change.what {
                What::Write { offset, data } => Some(pages(*offset..*offset + data.len() as u64)),
                _ => None,
            })
            .flatten()
            .collect();
        pages(0..self.live.len()).all(|page| self.written.contains(&page) || fresh.contains(&page))
    }

    /// Somebody put a copy in its place, of which all is on the disk, and whose extents are another file's as well, or holes.
    pub fn become_copy(&mut self) {
        self.flushed = self.live.clone();
        self.pending.clear();
        self.written.clear();
    }

    /// The page at this position cannot be read any more.
    pub fn spoil(&mut self, position: u64) {
        self.unreadable.insert(position / PAGE);
    }

    pub fn is_readable(&self, range: Range<u64>) -> bool {
        self.unreadable.range(pages(range)).next().is_none()
    }

    /// Notes a write that is in flight from now on.
    pub fn begin_write(&mut self, id: u64, offset: u64, data: Rc<[u8]>) {
        self.pending.push(Change { id, what: What::Write { offset, data }, state: State::InFlight });
    }

    /// The first `len` bytes of write `id` arrive, now. False if it is gone: a truncation took it, or a crash.
    pub fn land(&mut self, id: u64, len: usize) -> bool {
        let Some(at) = self.pending.iter().position(|c| c.id == id) else { return false };
        // What lands last is on top, whenever it was pushed: late writes of a killed process come after their successor's.
        let mut change = self.pending.remove(at);
        let What::Write { offset, data } = &mut change.what else {
            unreachable!("only writes are in flight")
        };
        if len < data.len() {
            *data = data[..len].into();
        }
        self.live.write(*offset, data);
        let pages = pages(*offset..*offset + data.len() as u64);
        self.allocated.extend(pages.clone());
        pages.for_each(|page| {
            self.unreadable.remove(&page);
        });
        change.state = State::Landed;
        self.pending.push(change);
        true
    }

    /// A write that failed: any of its sectors may be on the disk nevertheless.
    pub fn land_in_part(&mut self, id: u64, rng: &mut Rng) {
        let Some(at) = self.pending.iter().position(|c| c.id == id) else { return };
        let Change { what: What::Write { offset, data }, .. } = self.pending.remove(at) else { return };
        for (i, sector) in data.chunks(SECTOR as usize).enumerate() {
            if rng.below(2) == 0 {
                let offset = offset + i as u64 * SECTOR;
                self.live.write(offset, sector);
                self.allocated.extend(pages(offset..offset + SECTOR));
                let what = What::Write { offset, data: sector.into() };
                self.pending.push(Change { id, what, state: State::Landed });
            }
        }
    }

    /// A write that the device acknowledges and forgets.
    pub fn lose(&mut self, id: u64) {
        self.pending.retain(|c| c.id != id);
    }

    pub fn extend(&mut self, id: u64, range: Range<u64>) {
        self.live.extend_to(range.end);
        self.allocated.extend(pages(range.clone()));
        self.pending.push(Change { id, what: What::Extend(range.end), state: State::Landed });
    }

    pub fn truncate(&mut self, id: u64, len: u64) {
        self.live.set_len(len);
        self.allocated.split_off(&len.div_ceil(PAGE));
        self.pending.push(Change { id, what: What::Truncate(len), state: State::Landed });
    }

    /// The layers above now know that change `id` is complete.
    pub fn returned(&mut self, id: u64, stamp: Stamp) {
        for change in self.pending.iter_mut().filter(|c| c.id == id && c.state == State::Landed) {
            change.state = State::Returned(stamp);
        }
    }

    /// The process that saw a flush fail is gone. What the failure lost is now either gone for readers as well, or it was not lost
    /// after all: a restart reads what the disk holds, and may rely on it.
    pub fn settle_lost(&mut self, stamp: Stamp, rng: &mut Rng) {
        if self.pending.iter().all(|c| c.state != State::Lost) {
            return;
        }
        self.pending.retain(|c| c.state != State::Lost || rng.below(2) == 0);
        let len = self.live.len();
        self.live = self.flushed.clone();
        for change in &mut self.pending {
            if change.state == State::Lost {
                change.state = State::Returned(stamp);
            }
            match &change.what {
                _ if change.state == State::InFlight => {}
                What::Write { offset, data } => self.live.write(*offset, data),
                What::Extend(len) => self.live.extend_to(*len),
                What::Truncate(len) => self.live.set_len(*len),
            }
        }
        // The length is metadata: it was not lost with the data.
        if len > self.live.len() {
            self.live.extend_to(len);
            self.pending.push(Change { id: 0, what: What::Extend(len), state: State::Returned(stamp) });
        }
    }

    /// Bytes of space that writing or allocating `range` would take on top of what the file has.
    pub fn space_needed(&self, range: Range<u64>) -> u64 {
        pages(range).filter(|p| !self.allocated.contains(p)).count() as u64 * PAGE
    }

    pub fn space(&self) -> u64 {
        self.allocated.len() as u64 * PAGE
    }

    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// A flush of this file that saw everything returned before `stamp`.
    pub fn flush(&mut self, stamp: Stamp) {
        for change in std::mem::take(&mut self.pending) {
            match change.state {
                State::Returned(at) if at < stamp => self.make_durable(&change.what),
                _ => self.pending.push(change),
            }
        }
    }

    /// The durable write `id` has landed at full length.
    pub fn flush_one(&mut self, id: u64) {
        let Some(at) = self.pending.iter().position(|c| c.id == id) else { return };
        // It may lie behind the durable end or a truncation that is still pending: those come first.
        let mut before: Vec<Change> = self.pending.drain(..=at).collect();
        let own = before.pop().expect("drained up to `at`");
        for change in
            before.iter().filter(|c| !matches!(c.what, What::Write { .. }) && c.state != State::Lost)
        {
            self.make_durable(&change.what);
        }
        before.retain(|c| matches!(c.what, What::Write { .. }));
        if let What::Write { offset, data } = &own.what {
            before.iter_mut().for_each(|earlier| earlier.supersede(*offset, data));
        }
        self.pending.splice(0..0, before);
        self.make_durable(&own.what);
    }

    /// The flush of another file emptied the device's cache: it saves data in written extents, and no metadata.
    pub fn flush_by_neighbour(&mut self, stamp: Stamp) {
        let mut kept = Vec::with_capacity(self.pending.len());
        let mut shrinks = false;
        for change in std::mem::take(&mut self.pending) {
            shrinks |= matches!(change.what, What::Truncate(_));
            match (&change.what, change.state) {
                (What::Write { offset, data }, State::Returned(at)) if at < stamp && !shrinks => {
                    self.save_written_parts(change.id, change.state, *offset, data, &mut kept);
                }
                _ => kept.push(change),
            }
        }
        self.pending = kept;
    }

    fn save_written_parts(
        &mut self,
        id: u64,
        state: State,
        offset: u64,
        data: &Rc<[u8]>,
        kept: &mut Vec<Change>,
    ) {
        let mut at = 0;
        while at < data.len() {
            let position = offset + at as u64;
            let len = ((PAGE - position % PAGE) as usize).min(data.len() - at);
            let part = &data[at..at + len];
            at += len;
            if self.written.contains(&(position / PAGE)) && position + len as u64 <= self.flushed.len() {
                self.flushed.write(position, part);
            } else {
                kept.push(Change { id, what: What::Write { offset: position, data: part.into() }, state });
            }
        }
    }

    /// A flush failed. Each change it should have covered is lost or gets another chance.
    pub fn flush_failed(&mut self, stamp: Stamp, rng: &mut Rng) {
        for change in &mut self.pending {
            if matches!(change.state, State::Returned(at) if at < stamp) && rng.below(2) == 0 {
                change.state = State::Lost;
            }
        }
    }

    /// A write that was to be durable failed: it has landed and is lost.
    pub fn forget(&mut self, id: u64) {
        for change in self.pending.iter_mut().filter(|c| c.id == id) {
            change.state = State::Lost;
        }
    }

    /// The power went: what is flushed stays, of the rest a random part.
    pub fn crash(&mut self, survival: Survival, rng: &mut Rng) -> Damage {
        let mut damage = Damage::default();
        // Metadata is journalled: once one change of it is gone, the later ones are, too.
        let mut journal = true;
        for change in std::mem::take(&mut self.pending) {
            match &change.what {
                _ if change.state == State::Lost => damage.lost += 1,
                What::Extend(_) | What::Truncate(_) => {
                    journal = journal && survival.keeps_change(rng);
                    if journal {
                        self.make_durable(&change.what);
                    }
                }
                What::Write { offset, data } => {
                    self.crash_write(*offset, data, (survival, journal), rng, &mut damage);
                }
            }
        }
        self.live = self.flushed.clone();
        self.allocated.retain(|p| p * PAGE < self.flushed.len().next_multiple_of(PAGE));
        damage
    }

    fn crash_write(
        &mut self,
        offset: u64,
        data: &[u8],
        (how, journal): (Survival, bool),
        rng: &mut Rng,
        damage: &mut Damage,
    ) {
        let whole = how != Survival::SomeSectors || rng.below(3) == 0;
        let keep_all = how.keeps_change(rng);
        let (mut kept, mut lost) = (0, 0);
        for (i, sector) in data.chunks(SECTOR as usize).enumerate() {
            let offset = offset + i as u64 * SECTOR;
            let drawn = if whole { keep_all } else { rng.below(10) < 7 };
            let placed = self.written.contains(&(offset / PAGE)) && offset < self.flushed.len();
            if drawn && (placed || journal) {
                self.flushed.write(offset, sector);
                self.written.insert(offset / PAGE);
                kept += 1;
            } else {
                lost += 1;
            }
        }
        damage.torn += u32::from(kept > 0 && lost > 0);
        damage.lost += u32::from(kept == 0);
        damage.kept += u32::from(lost == 0);
    }

    fn make_durable(&mut self, what: &What) {
        match what {
            What::Write { offset, data } => {
                self.flushed.write(*offset, data);
                self.written.extend(pages(*offset..*offset + data.len() as u64));
            }
            What::Extend(len) => self.flushed.extend_to(*len),
            What::Truncate(len) => {
                self.flushed.set_len(*len);
                self.written.split_off(&len.div_ceil(PAGE));
            }
        }
    }
}

impl Change {
    /// A later write has become durable before this one: what both hold of the disk is the later one's.
    fn supersede(&mut self, later: u64, bytes: &[u8]) {
        let What::Write { offset, data } = &mut self.what else { return };
        let (from, to) = (later.max(*offset), (later + bytes.len() as u64).min(*offset + data.len() as u64));
        if from < to {
            let mut patched = data.to_vec();
            let at = (from - *offset) as usize;
            let piece = &bytes[(from - later) as usize..(to - later) as usize];
            patched[at..at + piece.len()].copy_from_slice(piece);
            *data = patched.into();
        }
    }
}

/// Numbers of the pages that a range of bytes touches.
fn pages(range: Range<u64>) -> Range<u64> {
    range.start / PAGE..range.end.div_ceil(PAGE)
}
