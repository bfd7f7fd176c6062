//! The ring of provided buffers: the kernel takes a receive buffer from it for each piece that arrives.
//!
//! Layout (`io_uring_register_buf_ring(3)`): a power-of-two array of 16-byte entries `{addr, len, bid, reserved}`; the reserved
//! field of the first entry is the tail, which only we move.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::base::limits::{ALIGN, RECV_BUF_BYTES};
use crate::io::recv::{RecvBuf, RecvPool};

/// Buffer group of the receive buffers: the only one of a ring.
pub const GROUP: u16 = 0;

pub struct RecvRing {
    entries: NonNull<BufRingEntry>,
    layout: Layout,
    mask: u16,
    tail: u16,
    pool: RecvPool,
    returned: Vec<u16>,
}

impl RecvRing {
    /// Memory for `count` buffers (at most 32768), not yet known to the kernel. None without memory.
    pub fn new(count: u16) -> Option<RecvRing> {
        let pool = RecvPool::new(count.max(1))?;
        let slots = count.max(1).next_power_of_two();
        let layout = Layout::from_size_align(usize::from(slots) * size_of::<BufRingEntry>(), ALIGN).ok()?;
        // SAFETY: the layout has at least one entry, so its size is not zero.
        let entries = NonNull::new(unsafe { alloc_zeroed(layout) })?.cast();
        Some(RecvRing { entries, layout, mask: slots - 1, tail: 0, pool, returned: Vec::new() })
    }

    /// Registers the ring and hands every buffer to the kernel. `self` must outlive `uring`'s last completion.
    pub fn register(&mut self, uring: &IoUring) -> std::io::Result<()> {
        let address = self.entries.as_ptr() as u64;
        // SAFETY: the array has `mask + 1` entries, is page aligned, and is freed only by `drop`, after the ring is gone.
        unsafe { uring.submitter().register_buf_ring_with_flags(address, self.mask + 1, GROUP, 0) }?;
        self.give_back();
        Ok(())
    }

    /// Hands the kernel the buffers whose bytes were consumed.
    pub fn give_back(&mut self) {
        self.pool.take_returned(&mut self.returned);
        if self.returned.is_empty() {
            return;
        }
        for i in 0..self.returned.len() {
            let id = self.returned[i];
            let at = usize::from(self.tail & self.mask);
            // SAFETY: `at` is at most `mask`, so the entry is inside the array.
            let entry = unsafe { self.entries.add(at) };
            // SAFETY: the kernel reads entries before the tail only, and there are fewer buffers than entries.
            let entry = unsafe { &mut *entry.as_ptr() };
            entry.set_addr(self.pool.address(id) as u64);
            entry.set_len(RECV_BUF_BYTES as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
        }
        self.returned.clear();
        self.publish();
    }

    /// Buffer `id` with the `len` bytes that the kernel put there.
    pub fn filled(&self, id: u16, len: usize) -> RecvBuf {
        self.pool.filled(id, len)
    }

    fn publish(&self) {
        // SAFETY: `entries` is the first, zero-initialised entry of the ring.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is 2-aligned, lives as long as `self`, and is accessed only atomically, here and by the kernel.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for RecvRing {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout, and the driver dropped its ring before.
        unsafe { dealloc(self.entries.as_ptr().cast(), self.layout) };
    }
}
