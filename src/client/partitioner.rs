//! Which partition a record goes to: Kafka's own rules, so that keys land where other clients put and expect them.

/// Kafka's murmur2 (`org.apache.kafka.common.utils.Utils.murmur2`): the hash behind key-based placement in every client.
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut h: u32 = 0x9747_b28c ^ data.len() as u32;
    let words = data.chunks_exact(4);
    let tail = words.remainder();
    for word in words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> R;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// The partition of a key among `partitions`. The sign bit is cleared, not negated: Kafka's `toPositive`.
pub fn partition_of_key(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff) as i32 % partitions.max(1)
}

/// Places records without a key: stays on one partition until a batch's worth of bytes went there, then moves on. Fills batches
/// instead of spreading single records over all partitions (KIP-480; by bytes as in KIP-794).
#[derive(Debug)]
pub struct Sticky {
    current: i32,
    bytes_left: usize,
    batch_bytes: usize,
    state: u64,
}

impl Sticky {
    /// `seed` decides the first partition, so that many producers do not all begin at the same one.
    pub fn new(batch_bytes: usize, seed: u64) -> Sticky {
        Sticky { current: -1, bytes_left: 0, batch_bytes: batch_bytes.max(1), state: seed | 1 }
    }

    /// The partition for a record of `bytes`.
    pub fn next(&mut self, bytes: usize, partitions: i32) -> i32 {
        let partitions = partitions.max(1);
        if self.current < 0 || self.bytes_left == 0 || self.current >= partitions {
            self.current = self.another(partitions);
            self.bytes_left = self.batch_bytes;
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes.max(1));
        self.current
    }

    /// A random partition other than the current one.
    fn another(&mut self, partitions: i32) -> i32 {
        // xorshift64*: quality is irrelevant here, an even spread is not.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let draw = (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as i32;
        if self.current < 0 || self.current >= partitions || partitions == 1 {
            return draw % partitions;
        }
        (self.current + 1 + draw % (partitions - 1)) % partitions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of Kafka's UtilsTest.testMurmur2.
    #[test]
    fn murmur2_agrees_with_kafka() {
        let cases: [(&[u8], i32); 6] = [
            (b"21", -973932308),
            (b"foobar", -790332482),
            (b"a-little-bit-long-string", -985981536),
            (b"a-little-bit-longer-string", -1486304829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
            (b"abc", 479470107),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key) as i32, hash, "{}", String::from_utf8_lossy(key));
        }
        assert_eq!(partition_of_key(b"foobar", 10), (0x7fff_ffff & -790332482i32) % 10);
    }

    #[test]
    fn sticky_fills_a_batch_then_visits_the_others() {
        let mut sticky = Sticky::new(1000, 7);
        let draws: Vec<i32> = (0..1000).map(|_| sticky.next(100, 4)).collect();
        for run in draws.chunks(10) {
            assert!(run.iter().all(|p| p == &run[0] && (0..4).contains(p)));
        }
        let mut seen: Vec<i32> = draws.chunks(10).map(|run| run[0]).collect();
        assert!(seen.windows(2).all(|pair| pair[0] != pair[1]));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 1, 2, 3]);
        assert_eq!(Sticky::new(10, 3).next(5, 1), 0);
    }
}
