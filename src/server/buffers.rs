//! Hot path. Buffers of answers that were sent, for the next ones.

/// Buffers kept, and the largest capacity that is: 1 MiB together.
const BUFFERS_MAX: usize = 256;
const BYTES_MAX: usize = 4096;

/// What a new buffer holds before it grows: an answer about one partition.
const BYTES_MIN: usize = 128;

#[derive(Debug, Default)]
pub struct Buffers(Vec<Vec<u8>>);

impl Buffers {
    /// An empty buffer.
    pub fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_else(|| Vec::with_capacity(BYTES_MIN))
    }

    pub fn give(&mut self, mut buffer: Vec<u8>) {
        if self.0.len() < BUFFERS_MAX && (1..=BYTES_MAX).contains(&buffer.capacity()) {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}
