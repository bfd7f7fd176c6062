//! Memory that the kernel reads and writes: 256 KiB blocks carved out of mapped slices.
//!
//! A [`Block`] has one writer. Bytes below its frozen mark never change again and may be shared as [`BlockSlice`]s: by a write in
//! flight, by sends, by readers of the tail. That is how staging memory is the tail cache and a fetch copies nothing.
//! The pool keeps a handle on every block; a block is free again when that handle is the last one, so a slice may be dropped
//! anywhere and no drop has to find its way back. A dropped `Block` says so in a bit of its slice of the pool: the pool looks only at
//! those, and again at the few that readers still held, never at all it has.
//!
//! # Non-obvious
//! - Blocks are always filled from 0, and a block's memory address has the alignment of its file offset (both multiples of 256 KiB).
//! - [`Block::slice_padded`] shares zeros behind the filled end until its slice is dropped. Filling the block further while such a slice
//!   lives would change memory under a write: it panics. The placement rule of the log never does that.
//! - Memory is recycled without clearing. Builds with debug assertions poison it, so that reuse before completion shows.

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::region::Region;
use crate::base::limits::{ALIGN, BLOCK_BYTES};

/// Blocks that are mapped, prefaulted and registered together. 16 MiB: about 35 ms of first touch on a slow VM.
pub const SLICE_BLOCKS: usize = 64;

/// Share of a pool's blocks of which slices may be lent.
const LENT_SHARE: usize = 4;

/// How many blocks of a pool have slices that are lent, and may have. Counts of blocks and of slices are hints alone: what orders the
/// use of a block are its handles.
struct Lent {
    blocks: AtomicUsize,
    blocks_max: usize,
}

/// A slice of the pool.
struct Slice {
    region: Region,
    lent: Arc<Lent>,
    /// By block: its `Block` was dropped since the pool last looked. A hint where to look, so nothing is ordered by it: who may use a
    /// block is told by its handles alone.
    dropped: AtomicU64,
}

const _: () = assert!(SLICE_BLOCKS <= u64::BITS as usize, "a bit for each block of a slice");

/// The memory of one block.
struct BlockMem {
    slice: Arc<Slice>,
    /// Its number within the slice.
    number: u8,
    start: *mut u8,
    /// Slices alive that share zeros behind the filled end.
    padded: AtomicU32,
    /// Slices alive that are lent.
    lent: AtomicU32,
}

// SAFETY: `start` points into the slice's region, which this keeps alive; writes go through the one `Block`, reads through frozen ranges.
unsafe impl Send for BlockMem {}
// SAFETY: as above.
unsafe impl Sync for BlockMem {}

/// The blocks of one shard, up to a budget. Grows by slices of 16 MiB.
pub struct Pool {
    /// In the order of the slices, each of which has [`SLICE_BLOCKS`] but perhaps the last.
    blocks: Vec<Arc<BlockMem>>,
    slices: Vec<Arc<Slice>>,
    /// Nobody else has a handle of these.
    free: Vec<usize>,
    /// The `Block` of these is gone, slices of it were not when last looked at.
    pinned: Vec<usize>,
    blocks_max: usize,
    lent: Arc<Lent>,
    /// Somebody found no block since the pool grew last.
    missed: bool,
}

impl Pool {
    /// A pool of at most `bytes_max` (rounded down to whole blocks, at least four), with nothing mapped yet.
    pub fn new(bytes_max: usize) -> Pool {
        let (blocks, slices, free, pinned) = Default::default();
        let blocks_max = (bytes_max / BLOCK_BYTES).max(4);
        let lent = Arc::new(Lent { blocks: AtomicUsize::new(0), blocks_max: blocks_max / LENT_SHARE });
        Pool { blocks, slices, free, pinned, blocks_max, lent, missed: false }
    }

    /// Maps and prefaults one more slice. Returns its memory for registering, or none at the budget or without memory.
    pub fn grow(&mut self) -> Option<MappedSlice> {
        let blocks = (self.blocks_max - self.blocks.len()).min(SLICE_BLOCKS);
        if blocks == 0 {
            return None;
        }
        // One block more than needed lets every block start at a multiple of its size.
        let index = self.slices.len() as u16;
        let region = Region::map((blocks + 1) * BLOCK_BYTES, index)?;
        let first = region.start.align_offset(BLOCK_BYTES);
        // SAFETY: `first` is below one block and so inside the region.
        let first = unsafe { region.start.add(first) };
        let slice = Arc::new(Slice { region, lent: self.lent.clone(), dropped: AtomicU64::new(0) });
        for i in 0..blocks {
            // SAFETY: `first` is at most one block behind the region's start, whose length is one block more than `blocks`.
            let start = unsafe { first.add(i * BLOCK_BYTES) };
            let (slice, number) = (slice.clone(), i as u8);
            let (padded, lent) = Default::default();
            self.free.push(self.blocks.len());
            self.blocks.push(Arc::new(BlockMem { slice, number, start, padded, lent }));
        }
        self.slices.push(slice);
        self.missed = false;
        Some(MappedSlice { index, start: first, len: blocks * BLOCK_BYTES })
    }

    /// A free block, or none: the caller evicts from the tail cache, grows the pool, or waits.
    pub fn take(&mut self) -> Option<Block> {
        if self.free.is_empty() {
            self.collect_dropped();
        }
        if self.free.is_empty() {
            self.sweep_pinned();
        }
        self.missed |= self.free.is_empty();
        self.take_free()
    }

    /// As `take`, without another look at what readers held just now: for who has dropped a block since, and wants that.
    pub fn take_dropped(&mut self) -> Option<Block> {
        if self.free.is_empty() {
            self.collect_dropped();
        }
        self.take_free()
    }

    fn take_free(&mut self) -> Option<Block> {
        let mem = self.blocks[self.free.pop()?].clone();
        let mut block = Block { mem, filled: 0, frozen: 0, padded_end: 0 };
        if cfg!(debug_assertions) {
            block.as_mut_slice().fill(0xdb);
            block.filled = 0;
        }
        Some(block)
    }

    /// Blocks that `take` could hand out now without growing.
    pub fn available(&mut self) -> usize {
        self.collect_dropped();
        self.sweep_pinned();
        self.free.len()
    }

    /// Somebody wanted a block and there was none, though the budget allows more: the pool should grow. Also true where one could be
    /// evicted, or the tail cache would never reach its size.
    pub fn is_short(&self) -> bool {
        self.missed && self.blocks.len() < self.blocks_max
    }

    pub fn blocks_mapped(&self) -> usize {
        self.blocks.len()
    }

    pub fn blocks_max(&self) -> usize {
        self.blocks_max
    }

    /// Sorts the blocks that were dropped since the last call into free ones and pinned ones.
    fn collect_dropped(&mut self) {
        for (at, slice) in self.slices.iter().enumerate() {
            if slice.dropped.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut dropped = slice.dropped.swap(0, Ordering::Relaxed);
            while dropped != 0 {
                let index = at * SLICE_BLOCKS + dropped.trailing_zeros() as usize;
                dropped &= dropped - 1;
                let list = if is_free(&mut self.blocks[index]) { &mut self.free } else { &mut self.pinned };
                list.push(index);
            }
        }
    }

    /// Finds the pinned blocks whose last reader is gone.
    fn sweep_pinned(&mut self) {
        let Pool { blocks, free, pinned, .. } = self;
        pinned.retain(|index| {
            let now_free = is_free(&mut blocks[*index]);
            if now_free {
                free.push(*index);
            }
            !now_free
        });
    }
}

/// The pool's handle is the only one.
fn is_free(mem: &mut Arc<BlockMem>) -> bool {
    // `get_mut` also orders our next use behind the last drop on another thread.
    Arc::get_mut(mem).is_some()
}

/// Address range of a pool slice, for a driver that registers it with the kernel.
pub struct MappedSlice {
    pub index: u16,
    pub start: *mut u8,
    pub len: usize,
}

/// One 256 KiB block with its single writer. Dropping it tells its pool.
pub struct Block {
    mem: Arc<BlockMem>,
    filled: usize,
    frozen: usize,
    /// Where the zeros of the last padded slice end.
    padded_end: usize,
}

impl Block {
    /// Bytes written so far.
    pub fn filled(&self) -> usize {
        self.filled
    }

    pub fn room(&self) -> usize {
        BLOCK_BYTES - self.filled
    }

    /// Appends as many of `bytes` as there is room for and returns how many.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(self.room());
        self.assert_not_under_write();
        // SAFETY: `filled + len` is within the block; no slice covers bytes behind `filled` (asserted), and `&mut self` is the writer.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.mem.start.add(self.filled), len) };
        self.filled += len;
        len
    }

    /// Appends zeros up to position `end`.
    pub fn pad_to(&mut self, end: usize) {
        assert!(end >= self.filled && end <= BLOCK_BYTES);
        self.assert_not_under_write();
        self.zero(self.filled..end);
        self.filled = end;
    }

    /// Overwrites bytes that were appended but not yet frozen.
    pub fn patch(&mut self, at: usize, bytes: &[u8]) {
        assert!(at >= self.frozen && at + bytes.len() <= self.filled, "patch of frozen or unwritten bytes");
        // SAFETY: the range lies between the frozen mark and the filled end, so no slice shares it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.mem.start.add(at), bytes.len()) };
    }

    /// The bytes written so far.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `filled` bytes are initialised, and only `&mut self` could change them.
        unsafe { std::slice::from_raw_parts(self.mem.start, self.filled) }
    }

    /// The whole block as memory to read into. Only for a block that shares nothing yet.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        assert_eq!(self.frozen, 0, "a block that is shared cannot be written from the start");
        self.assert_not_under_write();
        // SAFETY: mapped memory is initialised, nothing is frozen so no slice exists, and `&mut self` is the only writer.
        unsafe { std::slice::from_raw_parts_mut(self.mem.start, BLOCK_BYTES) }
    }

    /// The number of the pool slice that holds it: the index of a registered buffer.
    pub fn region_index(&self) -> u16 {
        self.mem.slice.region.index
    }

    /// Declares the first `filled` bytes written, after something was read into [`Block::as_mut_slice`].
    pub fn set_filled(&mut self, filled: usize) {
        assert!(filled <= BLOCK_BYTES && self.frozen <= filled);
        self.filled = filled;
    }

    /// Freezes everything up to `range.end` and shares the range.
    pub fn slice(&mut self, range: Range<usize>) -> BlockSlice {
        assert!(range.start <= range.end && range.end <= self.filled);
        self.frozen = self.frozen.max(range.end);
        BlockSlice { mem: self.mem.clone(), start: range.start, len: range.len(), mark: Mark::None }
    }

    /// Freezes everything and shares it from `start`, with zeros up to the next multiple of 4096: the buffer of a direct write.
    /// Until that slice is dropped the block cannot be filled further, unless it is filled to its padded end first by `pad_over`.
    pub fn slice_padded(&mut self, start: usize) -> BlockSlice {
        assert!(start.is_multiple_of(ALIGN) && start <= self.filled);
        let end = self.filled.next_multiple_of(ALIGN);
        self.frozen = self.filled;
        if end > self.filled {
            self.assert_not_under_write();
            self.zero(self.filled..end);
            self.mem.padded.fetch_add(1, Ordering::Relaxed);
            self.padded_end = end;
        }
        let mark = if end > self.filled { Mark::Padded } else { Mark::None };
        BlockSlice { mem: self.mem.clone(), start, len: end - start, mark }
    }

    /// Counts the zeros that `slice_padded` wrote as filled: the next append starts on the 4096 boundary, which a write in flight
    /// does not touch. Its slices no longer forbid filling.
    pub fn pad_over(&mut self) {
        let end = self.filled.next_multiple_of(ALIGN);
        if end > self.filled {
            if self.mem.padded.load(Ordering::Acquire) == 0 {
                self.zero(self.filled..end);
            }
            self.filled = end;
            self.frozen = end;
        }
    }

    fn zero(&mut self, range: Range<usize>) {
        debug_assert!(range.end <= BLOCK_BYTES);
        // SAFETY: the range is within the block and behind every frozen byte; callers checked that no padded slice shares it.
        unsafe { std::ptr::write_bytes(self.mem.start.add(range.start), 0, range.len()) };
    }

    fn assert_not_under_write(&self) {
        let clear = self.filled >= self.padded_end || self.mem.padded.load(Ordering::Acquire) == 0;
        assert!(clear, "block filled further while under write");
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // Before our handle goes: a pool that looks in between finds the block pinned, and looks again.
        self.mem.slice.dropped.fetch_or(1 << self.mem.number, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Block({} filled, {} frozen)", self.filled, self.frozen)
    }
}

/// What a slice is counted as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    None,
    /// It shares zeros behind the filled end.
    Padded,
    /// A peer decides how long it lives.
    Lent,
}

/// A shared, immutable range of a block. Keeps the block from being reused.
pub struct BlockSlice {
    mem: Arc<BlockMem>,
    start: usize,
    len: usize,
    mark: Mark,
}

impl BlockSlice {
    /// A part of this slice.
    pub fn sub(&self, range: Range<usize>) -> BlockSlice {
        assert!(range.start <= range.end && range.end <= self.len);
        self.mem.count(self.mark);
        let (start, len) = (self.start + range.start, range.len());
        BlockSlice { mem: self.mem.clone(), start, len, mark: self.mark }
    }

    /// Whether it may be lent: of its block something is, or of fewer than a quarter of the pool's blocks.
    pub fn may_be_lent(&self) -> bool {
        let lent = &self.mem.slice.lent;
        self.mem.lent.load(Ordering::Relaxed) > 0 || lent.blocks.load(Ordering::Relaxed) < lent.blocks_max
    }

    /// For a peer, who decides how long the whole block cannot be used: as long as this slice lives. Back as it was where it may not be
    /// lent, and should be copied. Threads that lend at once may pass the quarter by a block each.
    pub fn lend(mut self) -> Result<BlockSlice, BlockSlice> {
        if self.mark != Mark::None || !self.may_be_lent() {
            return Err(self);
        }
        self.mark = Mark::Lent;
        self.mem.count(self.mark);
        Ok(self)
    }

    /// The number of the pool slice that holds it: the index of a registered buffer.
    pub fn region_index(&self) -> u16 {
        self.mem.slice.region.index
    }
}

impl Clone for BlockSlice {
    fn clone(&self) -> BlockSlice {
        self.sub(0..self.len)
    }
}

impl Deref for BlockSlice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range is frozen (or zero padding that cannot be filled while this lives) and the block is kept alive.
        unsafe { std::slice::from_raw_parts(self.mem.start.add(self.start), self.len) }
    }
}

impl Drop for BlockSlice {
    fn drop(&mut self) {
        match self.mark {
            Mark::None => {}
            Mark::Padded => {
                self.mem.padded.fetch_sub(1, Ordering::Release);
            }
            Mark::Lent => {
                if self.mem.lent.fetch_sub(1, Ordering::Relaxed) == 1 {
                    self.mem.slice.lent.blocks.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }
}

impl BlockMem {
    /// One slice more of this mark.
    fn count(&self, mark: Mark) {
        match mark {
            Mark::None => {}
            Mark::Padded => {
                self.padded.fetch_add(1, Ordering::Relaxed);
            }
            Mark::Lent => {
                if self.lent.fetch_add(1, Ordering::Relaxed) == 0 {
                    self.slice.lent.blocks.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

impl std::fmt::Debug for BlockSlice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlockSlice({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::recv::{RecvBuf, RecvPool};

    fn block() -> (Pool, Block) {
        let mut pool = Pool::new(4 * BLOCK_BYTES);
        pool.grow().expect("memory for four blocks");
        let block = pool.take().expect("a block");
        (pool, block)
    }

    #[test]
    fn a_block_is_free_again_when_its_last_slice_is_dropped() {
        let (mut pool, mut block) = block();
        block.append(b"records");
        let slice = block.slice(0..7);
        drop(block);
        assert_eq!(pool.available(), 3);
        assert_eq!(&*slice, b"records");
        drop(slice);
        assert_eq!(pool.available(), 4);
    }

    // The pool grew by a slice in each turn in which some connection waited for whatever it was.
    #[test]
    fn a_pool_is_short_from_a_miss_until_it_grows_and_never_at_its_budget() {
        let mut pool = Pool::new((SLICE_BLOCKS + 1) * BLOCK_BYTES);
        assert!(!pool.is_short(), "nobody asked");
        assert!(pool.take().is_none() && pool.is_short());
        pool.grow().expect("memory");
        let blocks: Vec<Block> = (0..SLICE_BLOCKS).filter_map(|_| pool.take()).collect();
        assert!(blocks.len() == SLICE_BLOCKS && !pool.is_short(), "all are in use, and nobody misses any");
        assert!(pool.take().is_none() && pool.is_short());
        pool.grow().expect("memory");
        assert!(!pool.is_short());
        let _last = pool.take().expect("one more");
        assert!(pool.take().is_none() && !pool.is_short(), "it is as large as it may be");
    }

    // With all blocks in use each new one cost a look at every other, up to 33 times: what is evicted is at hand without any.
    #[test]
    fn a_block_that_is_dropped_is_at_hand_unless_a_reader_holds_it() {
        let (mut pool, mut block) = block();
        let mut others: Vec<Block> = std::iter::from_fn(|| pool.take()).collect();
        assert!(others.len() == 3 && pool.take_dropped().is_none());
        let slice = block.slice(0..0);
        drop(block);
        assert!(pool.take_dropped().is_none(), "a reader holds it");
        assert_eq!(pool.pinned.len(), 1, "and it alone is looked at again");
        drop(others.pop());
        let again = pool.take_dropped().expect("the dropped one");
        assert!(pool.take().is_none());
        drop(slice);
        assert!(pool.take_dropped().is_none(), "nothing was dropped since");
        let last = pool.take().expect("no reader holds it any more");
        assert!(pool.pinned.is_empty());
        drop((again, last, others));
        assert_eq!((pool.available(), pool.pinned.len()), (4, 0));
    }

    // Peers that did not read kept the blocks of all that they were sent, and the others had none.
    #[test]
    fn slices_of_a_quarter_of_the_blocks_may_be_lent() {
        let mut pool = Pool::new(8 * BLOCK_BYTES);
        pool.grow().expect("memory for eight blocks");
        let mut slices: Vec<BlockSlice> = std::iter::from_fn(|| {
            let mut block = pool.take()?;
            block.append(b"records");
            Some(block.slice(0..7))
        })
        .collect();
        let [third, second, first] = std::array::from_fn(|_| slices.pop().expect("eight"));
        let (first_again, third_again) = (first.sub(0..3), third.clone());
        let first = first.lend().expect("the first of two");
        let second = second.lend().expect("the second");
        let third = third.lend().expect_err("one too many");
        assert_eq!(&*third, b"records", "and it is as it was");
        let first_again = first_again.lend().expect("its block is lent as it is");
        drop(first);
        assert!(!third.may_be_lent(), "the other slice still keeps its block");
        let part = second.sub(0..2);
        drop((first_again, second));
        let third = third.lend().expect("the first block is back");
        assert!(!slices[0].may_be_lent(), "a part keeps the second");
        drop(part);
        assert!(slices[0].may_be_lent() && third_again.may_be_lent());
        drop((slices, third, third_again));
        assert_eq!((pool.available(), pool.lent.blocks.load(Ordering::Relaxed)), (8, 0));
    }

    #[test]
    #[should_panic(expected = "under write")]
    fn filling_a_block_under_write_is_refused() {
        let (_pool, mut block) = block();
        block.append(b"records");
        let _in_flight = block.slice_padded(0);
        block.append(b"more");
    }

    #[test]
    fn behind_a_write_in_flight_the_next_bytes_start_on_the_boundary() {
        let (_pool, mut block) = block();
        block.append(b"records");
        let in_flight = block.slice_padded(0);
        block.pad_over();
        block.append(b"mo");
        block.append(b"re");
        assert_eq!(in_flight.len(), ALIGN);
        assert_eq!(&in_flight[..8], b"records\0");
        assert_eq!(&block.as_slice()[ALIGN..], b"more");
    }

    #[test]
    fn after_the_write_the_partial_block_continues() {
        let (_pool, mut block) = block();
        block.append(b"records");
        drop(block.slice_padded(0));
        block.append(b"more");
        assert_eq!(&*block.slice_padded(0), [b"recordsmore".as_slice(), &[0; ALIGN - 11]].concat());
    }

    #[test]
    #[should_panic(expected = "frozen")]
    fn frozen_bytes_cannot_be_patched() {
        let (_pool, mut block) = block();
        block.append(b"records");
        let _shared = block.slice(0..4);
        block.patch(0, b"R");
    }

    #[test]
    fn what_other_threads_drop_comes_back_to_its_pools() {
        let mut pool = Pool::new(8 * BLOCK_BYTES);
        pool.grow().expect("memory");
        let mut recv = RecvPool::new(4).expect("memory");
        let (tx, rx) = std::sync::mpsc::sync_channel::<(BlockSlice, RecvBuf)>(2);
        let reader = std::thread::spawn(move || {
            rx.iter().fold(0, |count, (slice, piece)| {
                assert!(slice.iter().all(|b| *b == slice[0]) && *piece == [slice[0]; 100]);
                // One of them lives a little longer than the other.
                if count % 2 == 0 {
                    drop(slice)
                } else {
                    drop(piece)
                }
                count + 1
            })
        });
        let rounds = 2000_usize;
        for round in 0..rounds {
            let mut block = loop {
                match pool.take() {
                    Some(block) => break block,
                    None => std::thread::yield_now(),
                }
            };
            // A slice that somebody still read would now change.
            block.append(&vec![round as u8; ALIGN]);
            let piece = loop {
                match recv.copy_of(&[round as u8; 100]) {
                    Some(piece) => break piece,
                    None => std::thread::yield_now(),
                }
            };
            tx.send((block.slice_padded(0), piece)).expect("the reader reads");
        }
        drop(tx);
        assert_eq!(reader.join().expect("nothing changed under it"), rounds);
        assert_eq!(pool.available(), 8);
        let mut all = Vec::new();
        recv.take_returned(&mut all);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
    }
}
