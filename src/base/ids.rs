//! Identities that must not be mixed up: each is its own type, so that the compiler refuses a partition where a broker is due.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// One core's share of the broker: thread, ring, memory, partitions. Dense from 0.
    ShardId(u16)
);
id!(
    /// Kafka's `node.id` of a broker, as it stands in Metadata.
    BrokerId(i32)
);
id!(
    /// Index of a partition within its topic, dense from 0.
    PartitionIndex(i32)
);
id!(
    /// Kafka's producer id; -1 means none.
    ProducerId(i64)
);
id!(
    /// Epoch that fences older instances of one producer id; -1 means none.
    ProducerEpoch(i16)
);
id!(
    /// Grows with each change of leadership, and on one broker at each start that appends; -1 means unknown.
    LeaderEpoch(i32)
);

impl ProducerId {
    pub const NONE: ProducerId = ProducerId(-1);
}

impl LeaderEpoch {
    pub const NONE: LeaderEpoch = LeaderEpoch(-1);
}

/// A random 128-bit id: of a topic, a segment, a data directory. All zero means none.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    pub const ZERO: Uuid = Uuid([0; 16]);

    /// A version 4 (random) uuid made of 16 random bytes that the caller drew from the seam.
    pub fn from_random(mut bytes: [u8; 16]) -> Uuid {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Uuid(bytes)
    }

    pub fn is_zero(&self) -> bool {
        self.0 == [0; 16]
    }

    /// Parses the 36-character form with dashes that `Display` writes.
    pub fn parse(text: &str) -> Option<Uuid> {
        let hex: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
        if text.len() != 36 || hex.len() != 32 {
            return None;
        }
        let mut bytes = [0u8; 16];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let digit = |d: u8| (d as char).to_digit(16);
            *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
        }
        let uuid = Uuid(bytes);
        (uuid.to_string() == text).then_some(uuid)
    }

    /// Kafka's own text form: url-safe base64 without padding, 22 characters.
    pub fn to_kafka_text(&self) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = String::with_capacity(22);
        for chunk in self.0.chunks(3) {
            let word = chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
            for digit in 0..=chunk.len() {
                text.push(DIGITS[(word >> (18 - 6 * digit)) as usize & 63] as char);
            }
        }
        text
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A partition by its topic's id: the key under which shards and directories know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionKey {
    pub topic: Uuid,
    pub partition: PartitionIndex,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_texts() {
        let uuid = Uuid::from_random([0xab; 16]);
        assert_eq!(Uuid::parse(&uuid.to_string()), Some(uuid));
        assert_eq!(Uuid::parse("not-a-uuid"), None);
        assert_eq!(Uuid::ZERO.to_kafka_text(), "AAAAAAAAAAAAAAAAAAAAAA");
        // Kafka's METADATA_TOPIC_ID, Uuid(0, 1), prints as this text.
        let mut one = [0u8; 16];
        one[15] = 1;
        assert_eq!(Uuid(one).to_kafka_text(), "AAAAAAAAAAAAAAAAAAAAAQ");
    }
}
