//! Hot path. Buffers of answers that were sent, for the next ones.

/// What all buffers that are kept may hold together, and the largest that is kept. A request in flight has two of the smallest.
const KEPT_BYTES_MAX: usize = 1 << 20;
const BYTES_MAX: usize = 4096;

/// What a new buffer holds before it grows: an answer about one partition.
const BYTES_MIN: usize = 128;

#[derive(Debug, Default)]
pub struct Buffers {
    kept: Vec<Vec<u8>>,
    kept_bytes: usize,
}

impl Buffers {
    /// An empty buffer.
    pub fn take(&mut self) -> Vec<u8> {
        let Some(buffer) = self.kept.pop() else { return Vec::with_capacity(BYTES_MIN) };
        self.kept_bytes -= buffer.capacity();
        buffer
    }

    pub fn give(&mut self, mut buffer: Vec<u8>) {
        let bytes = buffer.capacity();
        if (1..=BYTES_MAX).contains(&bytes) && self.kept_bytes + bytes <= KEPT_BYTES_MAX {
            buffer.clear();
            self.kept_bytes += bytes;
            self.kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded() {
        let mut buffers = Buffers::default();
        for _ in 0..3 * KEPT_BYTES_MAX / BYTES_MAX {
            buffers.give(vec![7; BYTES_MAX]);
        }
        buffers.give(vec![7; BYTES_MAX + 1]);
        assert_eq!((buffers.kept.len(), buffers.kept_bytes), (KEPT_BYTES_MAX / BYTES_MAX, KEPT_BYTES_MAX));
        let taken = buffers.take();
        assert!(taken.is_empty() && taken.capacity() == BYTES_MAX);
        buffers.give(Vec::with_capacity(BYTES_MIN));
        assert_eq!(buffers.kept_bytes, KEPT_BYTES_MAX - BYTES_MAX + BYTES_MIN);
    }
}
