//! The three ways in which something is not done. `Refused` answers a client, `Corrupt` names a place on disk, `Fatal` stops the
//! process. `wire/error.rs` maps `Refused` to Kafka's numbers, in one place.

use std::fmt;
use std::path::PathBuf;

/// A request, or a part of one, that is not carried out. Named as Kafka names its errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    UnknownServerError,
    OffsetOutOfRange,
    CorruptMessage,
    UnknownTopicOrPartition,
    LeaderNotAvailable,
    NotLeaderOrFollower,
    RequestTimedOut,
    MessageTooLarge,
    CoordinatorNotAvailable,
    InvalidTopic,
    RecordListTooLarge,
    InvalidRequiredAcks,
    InvalidTimestamp,
    UnsupportedVersion,
    TopicAlreadyExists,
    InvalidPartitions,
    InvalidReplicationFactor,
    InvalidReplicaAssignment,
    InvalidConfig,
    NotController,
    InvalidRequest,
    PolicyViolation,
    OutOfOrderSequence,
    DuplicateSequence,
    InvalidProducerEpoch,
    InvalidTxnState,
    InvalidProducerIdMapping,
    InvalidTransactionTimeout,
    TransactionalIdAuthorizationFailed,
    KafkaStorageError,
    TopicDeletionDisabled,
    FencedLeaderEpoch,
    UnknownLeaderEpoch,
    UnsupportedCompressionType,
    InvalidRecord,
    ProducerFenced,
    UnknownTopicId,
    InconsistentTopicId,
    FetchSessionIdNotFound,
    InvalidFetchSessionEpoch,
    FetchSessionTopicIdError,
    MismatchedEndpointType,
    UnsupportedEndpointType,
    ThrottlingQuotaExceeded,
}

/// Bytes on disk that are not what was written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrupt {
    pub file: PathBuf,
    /// Byte position in the file where the damage was noticed.
    pub position: u64,
    pub what: &'static str,
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.file.display(), self.position, self.what)
    }
}

impl std::error::Error for Corrupt {}

/// The process cannot go on, or cannot start: what was found, what it means, and what to try (`ux.md` 1.2 of the design).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fatal {
    /// Stable name, as in `error[port-in-use]`.
    pub code: &'static str,
    pub summary: String,
    pub found: String,
    pub means: String,
    /// At least one command or setting.
    pub tries: Vec<String>,
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.code, self.summary)?;
        if !self.found.is_empty() {
            write!(f, "\n  found:  {}", self.found)?;
        }
        if !self.means.is_empty() {
            write!(f, "\n  means:  {}", self.means)?;
        }
        for (i, line) in self.tries.iter().enumerate() {
            write!(f, "\n  {}    {line}", if i == 0 { "try:" } else { " or:" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Fatal {}
