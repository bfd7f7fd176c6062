//! Receive buffers: what a connection's bytes arrive in.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::region::Region;
use super::returns::Returns;
use crate::base::limits::RECV_BUF_BYTES;

/// Receive buffers that the kernel picks from. Belongs to one shard's thread; what it hands out may be dropped on any.
pub struct RecvPool {
    shared: Arc<RecvShared>,
    /// Buffers that the driver owns and has not asked for yet.
    free: Vec<u16>,
}

struct RecvShared {
    region: Region,
    /// Buffers whose bytes were consumed, to be handed to the kernel again.
    returned: Returns,
}

impl RecvPool {
    /// `count` buffers of [`RECV_BUF_BYTES`], all of them in `take_returned` at first.
    pub fn new(count: u16) -> Option<RecvPool> {
        let region = Region::map(usize::from(count) * RECV_BUF_BYTES, 0)?;
        let shared = Arc::new(RecvShared { region, returned: Returns::new(count) });
        Some(RecvPool { shared, free: (0..count).rev().collect() })
    }

    /// Moves the buffers that the driver owns again to the empty `returned`.
    pub fn take_returned(&mut self, returned: &mut Vec<u16>) {
        assert!(returned.is_empty());
        returned.extend(self.free.drain(..).rev());
        self.shared.returned.take_all(returned);
    }

    /// A whole free buffer to read into, or none while all are in use. For a driver that reads itself: what it read is what is left
    /// after [`RecvBuf::truncate`].
    pub fn take(&mut self) -> Option<RecvBuf> {
        self.shared.returned.take_all(&mut self.free);
        let id = self.free.pop()?;
        Some(self.filled(id, RECV_BUF_BYTES))
    }

    /// A copy of `bytes` in a free buffer, or none while all are in use. For a driver that copies, and takes no buffers itself.
    pub fn copy_of(&mut self, bytes: &[u8]) -> Option<RecvBuf> {
        assert!(bytes.len() <= RECV_BUF_BYTES);
        self.shared.returned.take_all(&mut self.free);
        let id = self.free.pop()?;
        // SAFETY: a returned buffer belongs to nobody else, `address` checks its bounds, and `bytes` cannot lie inside of it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.address(id), bytes.len()) };
        Some(self.filled(id, bytes.len()))
    }

    /// Address of buffer `id`, for handing it to the kernel.
    pub fn address(&self, id: u16) -> *mut u8 {
        let at = usize::from(id) * RECV_BUF_BYTES;
        assert!(at + RECV_BUF_BYTES <= self.shared.region.len);
        // SAFETY: the offset was just checked against the region's length.
        unsafe { self.shared.region.start.add(at) }
    }

    /// Buffer `id` with the `len` bytes that the kernel put there. The driver must own `id` no more until it is returned.
    pub fn filled(&self, id: u16, len: usize) -> RecvBuf {
        assert!(len <= RECV_BUF_BYTES && (usize::from(id) + 1) * RECV_BUF_BYTES <= self.shared.region.len);
        RecvBuf(RecvBytes::Pooled { shared: self.shared.clone(), id, len })
    }
}

/// Bytes that came from a connection. Dropping it hands the buffer back, so parse and drop.
pub struct RecvBuf(RecvBytes);

enum RecvBytes {
    Pooled { shared: Arc<RecvShared>, id: u16, len: usize },
    Owned(Vec<u8>),
}

impl RecvBuf {
    /// A piece that a driver without receive buffers read into memory of its own.
    pub fn owned(bytes: Vec<u8>) -> RecvBuf {
        RecvBuf(RecvBytes::Owned(bytes))
    }

    /// Keeps the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        match &mut self.0 {
            RecvBytes::Owned(bytes) => bytes.truncate(len),
            RecvBytes::Pooled { len: kept, .. } => *kept = len.min(*kept),
        }
    }

    /// It holds one of the receive buffers. Who keeps many of these starves the connections: copy with [`RecvBuf::owned`].
    pub fn is_pooled(&self) -> bool {
        matches!(self.0, RecvBytes::Pooled { .. })
    }
}

impl Deref for RecvBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            RecvBytes::Owned(bytes) => bytes,
            RecvBytes::Pooled { shared, id, len } => {
                // SAFETY: `filled` checked the bounds; the kernel does not own this buffer until `drop` returns it.
                unsafe {
                    std::slice::from_raw_parts(
                        shared.region.start.add(usize::from(*id) * RECV_BUF_BYTES),
                        *len,
                    )
                }
            }
        }
    }
}

impl DerefMut for RecvBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            RecvBytes::Owned(bytes) => bytes,
            RecvBytes::Pooled { shared, id, len } => {
                // SAFETY: as in `deref`; a buffer has one `RecvBuf`, so `&mut self` is the only access.
                unsafe {
                    std::slice::from_raw_parts_mut(
                        shared.region.start.add(usize::from(*id) * RECV_BUF_BYTES),
                        *len,
                    )
                }
            }
        }
    }
}

impl Drop for RecvBuf {
    fn drop(&mut self) {
        if let RecvBytes::Pooled { shared, id, .. } = &self.0 {
            shared.returned.put(*id);
        }
    }
}

impl std::fmt::Debug for RecvBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecvBuf({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receive_buffer_returns_on_drop() {
        let mut pool = RecvPool::new(2).expect("memory");
        let mut returned = Vec::new();
        pool.take_returned(&mut returned);
        assert_eq!(returned, vec![0, 1]);
        returned.clear();
        let buf = pool.filled(1, 10);
        pool.take_returned(&mut returned);
        assert!(returned.is_empty());
        drop(buf);
        pool.take_returned(&mut returned);
        assert_eq!(returned, vec![1]);
    }
}
