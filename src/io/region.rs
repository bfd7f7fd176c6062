//! Memory mapped from the kernel.

/// A mapped range of anonymous, zeroed memory. Unmapped when the last block of it is gone.
pub struct Region {
    pub start: *mut u8,
    pub len: usize,
    /// Number of the slice: the index under which a driver registers it.
    pub index: u16,
}

// SAFETY: `Region` is an address range; access to it is governed by `Block` and `BlockSlice`, which hand out disjoint or frozen parts.
unsafe impl Send for Region {}
// SAFETY: as above; `Region` itself has no interior state.
unsafe impl Sync for Region {}

impl Region {
    /// None without memory.
    pub fn map(len: usize, index: u16) -> Option<Region> {
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        (start != libc::MAP_FAILED).then(|| Region { start: start.cast(), len, index })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map` with this length and no block of it is left.
        let rc = unsafe { libc::munmap(self.start.cast(), self.len) };
        debug_assert_eq!(rc, 0);
    }
}
