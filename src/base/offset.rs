//! Offset kinds that cannot mix. All are record offsets of one partition; each end is exclusive: the offset of the next record.

use std::fmt;

/// The position of one record in its partition, dense from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub i64);

impl Offset {
    pub const ZERO: Offset = Offset(0);

    /// The offset `count` records further on.
    pub fn plus(self, count: i64) -> Offset {
        Offset(self.0 + count)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! bound {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Offset);

        impl $name {
            /// The bare offset, for comparing with a record's.
            pub fn get(self) -> Offset {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

bound!(
    /// First offset that may still be read; grows by retention and DeleteRecords.
    LogStart
);
bound!(
    /// Behind the last record appended, staged ones included.
    LogEnd
);
bound!(
    /// Behind the last record of the longest prefix that is written and flushed.
    Durable
);
bound!(
    /// Behind the last record that consumers may see: what the topic's durability level has reached.
    HighWatermark
);
bound!(
    /// Behind the last record whose transaction is decided: the bound of read_committed.
    LastStable
);
