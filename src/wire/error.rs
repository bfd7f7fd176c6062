//! Our errors as Kafka's numbers, in one place, and what can be wrong with bytes from a peer.

use std::fmt;

use crate::base::error::Refused;
use crate::wire::api::ApiKey;

macro_rules! kafka_errors {
    ($($name:ident = $code:literal,)*) => {
        /// Kafka's error numbers, under Kafka's names (`org.apache.kafka.common.protocol.Errors`, 4.2).
        pub mod codes {
            $(pub const $name: i16 = $code;)*
        }

        /// Kafka's name of an error number, for people to read; `None` for a number that Kafka 4.2 does not have.
        pub fn name(code: i16) -> Option<&'static str> {
            match code {
                $($code => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

kafka_errors! {
    UNKNOWN_SERVER_ERROR = -1,
    NONE = 0,
    OFFSET_OUT_OF_RANGE = 1,
    CORRUPT_MESSAGE = 2,
    UNKNOWN_TOPIC_OR_PARTITION = 3,
    INVALID_FETCH_SIZE = 4,
    LEADER_NOT_AVAILABLE = 5,
    NOT_LEADER_OR_FOLLOWER = 6,
    REQUEST_TIMED_OUT = 7,
    BROKER_NOT_AVAILABLE = 8,
    REPLICA_NOT_AVAILABLE = 9,
    MESSAGE_TOO_LARGE = 10,
    STALE_CONTROLLER_EPOCH = 11,
    OFFSET_METADATA_TOO_LARGE = 12,
    NETWORK_EXCEPTION = 13,
    COORDINATOR_LOAD_IN_PROGRESS = 14,
    COORDINATOR_NOT_AVAILABLE = 15,
    NOT_COORDINATOR = 16,
    INVALID_TOPIC_EXCEPTION = 17,
    RECORD_LIST_TOO_LARGE = 18,
    NOT_ENOUGH_REPLICAS = 19,
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20,
    INVALID_REQUIRED_ACKS = 21,
    ILLEGAL_GENERATION = 22,
    INCONSISTENT_GROUP_PROTOCOL = 23,
    INVALID_GROUP_ID = 24,
    UNKNOWN_MEMBER_ID = 25,
    INVALID_SESSION_TIMEOUT = 26,
    REBALANCE_IN_PROGRESS = 27,
    INVALID_COMMIT_OFFSET_SIZE = 28,
    TOPIC_AUTHORIZATION_FAILED = 29,
    GROUP_AUTHORIZATION_FAILED = 30,
    CLUSTER_AUTHORIZATION_FAILED = 31,
    INVALID_TIMESTAMP = 32,
    UNSUPPORTED_SASL_MECHANISM = 33,
    ILLEGAL_SASL_STATE = 34,
    UNSUPPORTED_VERSION = 35,
    TOPIC_ALREADY_EXISTS = 36,
    INVALID_PARTITIONS = 37,
    INVALID_REPLICATION_FACTOR = 38,
    INVALID_REPLICA_ASSIGNMENT = 39,
    INVALID_CONFIG = 40,
    NOT_CONTROLLER = 41,
    INVALID_REQUEST = 42,
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43,
    POLICY_VIOLATION = 44,
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45,
    DUPLICATE_SEQUENCE_NUMBER = 46,
    INVALID_PRODUCER_EPOCH = 47,
    INVALID_TXN_STATE = 48,
    INVALID_PRODUCER_ID_MAPPING = 49,
    INVALID_TRANSACTION_TIMEOUT = 50,
    CONCURRENT_TRANSACTIONS = 51,
    TRANSACTION_COORDINATOR_FENCED = 52,
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53,
    SECURITY_DISABLED = 54,
    OPERATION_NOT_ATTEMPTED = 55,
    KAFKA_STORAGE_ERROR = 56,
    LOG_DIR_NOT_FOUND = 57,
    SASL_AUTHENTICATION_FAILED = 58,
    UNKNOWN_PRODUCER_ID = 59,
    REASSIGNMENT_IN_PROGRESS = 60,
    DELEGATION_TOKEN_AUTH_DISABLED = 61,
    DELEGATION_TOKEN_NOT_FOUND = 62,
    DELEGATION_TOKEN_OWNER_MISMATCH = 63,
    DELEGATION_TOKEN_REQUEST_NOT_ALLOWED = 64,
    DELEGATION_TOKEN_AUTHORIZATION_FAILED = 65,
    DELEGATION_TOKEN_EXPIRED = 66,
    INVALID_PRINCIPAL_TYPE = 67,
    NON_EMPTY_GROUP = 68,
    GROUP_ID_NOT_FOUND = 69,
    FETCH_SESSION_ID_NOT_FOUND = 70,
    INVALID_FETCH_SESSION_EPOCH = 71,
    LISTENER_NOT_FOUND = 72,
    TOPIC_DELETION_DISABLED = 73,
    FENCED_LEADER_EPOCH = 74,
    UNKNOWN_LEADER_EPOCH = 75,
    UNSUPPORTED_COMPRESSION_TYPE = 76,
    STALE_BROKER_EPOCH = 77,
    OFFSET_NOT_AVAILABLE = 78,
    MEMBER_ID_REQUIRED = 79,
    PREFERRED_LEADER_NOT_AVAILABLE = 80,
    GROUP_MAX_SIZE_REACHED = 81,
    FENCED_INSTANCE_ID = 82,
    ELIGIBLE_LEADERS_NOT_AVAILABLE = 83,
    ELECTION_NOT_NEEDED = 84,
    NO_REASSIGNMENT_IN_PROGRESS = 85,
    GROUP_SUBSCRIBED_TO_TOPIC = 86,
    INVALID_RECORD = 87,
    UNSTABLE_OFFSET_COMMIT = 88,
    THROTTLING_QUOTA_EXCEEDED = 89,
    PRODUCER_FENCED = 90,
    RESOURCE_NOT_FOUND = 91,
    DUPLICATE_RESOURCE = 92,
    UNACCEPTABLE_CREDENTIAL = 93,
    INCONSISTENT_VOTER_SET = 94,
    INVALID_UPDATE_VERSION = 95,
    FEATURE_UPDATE_FAILED = 96,
    PRINCIPAL_DESERIALIZATION_FAILURE = 97,
    SNAPSHOT_NOT_FOUND = 98,
    POSITION_OUT_OF_RANGE = 99,
    UNKNOWN_TOPIC_ID = 100,
    DUPLICATE_BROKER_REGISTRATION = 101,
    BROKER_ID_NOT_REGISTERED = 102,
    INCONSISTENT_TOPIC_ID = 103,
    INCONSISTENT_CLUSTER_ID = 104,
    TRANSACTIONAL_ID_NOT_FOUND = 105,
    FETCH_SESSION_TOPIC_ID_ERROR = 106,
    INELIGIBLE_REPLICA = 107,
    NEW_LEADER_ELECTED = 108,
    OFFSET_MOVED_TO_TIERED_STORAGE = 109,
    FENCED_MEMBER_EPOCH = 110,
    UNRELEASED_INSTANCE_ID = 111,
    UNSUPPORTED_ASSIGNOR = 112,
    STALE_MEMBER_EPOCH = 113,
    MISMATCHED_ENDPOINT_TYPE = 114,
    UNSUPPORTED_ENDPOINT_TYPE = 115,
    UNKNOWN_CONTROLLER_ID = 116,
    UNKNOWN_SUBSCRIPTION_ID = 117,
    TELEMETRY_TOO_LARGE = 118,
    INVALID_REGISTRATION = 119,
    TRANSACTION_ABORTABLE = 120,
    INVALID_RECORD_STATE = 121,
    SHARE_SESSION_NOT_FOUND = 122,
    INVALID_SHARE_SESSION_EPOCH = 123,
    FENCED_STATE_EPOCH = 124,
    INVALID_VOTER_KEY = 125,
    DUPLICATE_VOTER = 126,
    VOTER_NOT_FOUND = 127,
    INVALID_REGULAR_EXPRESSION = 128,
    REBOOTSTRAP_REQUIRED = 129,
    STREAMS_INVALID_TOPOLOGY = 130,
    STREAMS_INVALID_TOPOLOGY_EPOCH = 131,
    STREAMS_TOPOLOGY_FENCED = 132,
    SHARE_SESSION_LIMIT_REACHED = 133,
}

/// The number with which a refusal goes out.
pub fn code(refused: Refused) -> i16 {
    match refused {
        Refused::UnknownServerError => codes::UNKNOWN_SERVER_ERROR,
        Refused::OffsetOutOfRange => codes::OFFSET_OUT_OF_RANGE,
        Refused::CorruptMessage => codes::CORRUPT_MESSAGE,
        Refused::UnknownTopicOrPartition => codes::UNKNOWN_TOPIC_OR_PARTITION,
        Refused::LeaderNotAvailable => codes::LEADER_NOT_AVAILABLE,
        Refused::NotLeaderOrFollower => codes::NOT_LEADER_OR_FOLLOWER,
        Refused::RequestTimedOut => codes::REQUEST_TIMED_OUT,
        Refused::MessageTooLarge => codes::MESSAGE_TOO_LARGE,
        Refused::CoordinatorNotAvailable => codes::COORDINATOR_NOT_AVAILABLE,
        Refused::InvalidTopic => codes::INVALID_TOPIC_EXCEPTION,
        Refused::RecordListTooLarge => codes::RECORD_LIST_TOO_LARGE,
        Refused::InvalidRequiredAcks => codes::INVALID_REQUIRED_ACKS,
        Refused::InvalidTimestamp => codes::INVALID_TIMESTAMP,
        Refused::UnsupportedVersion => codes::UNSUPPORTED_VERSION,
        Refused::TopicAlreadyExists => codes::TOPIC_ALREADY_EXISTS,
        Refused::InvalidPartitions => codes::INVALID_PARTITIONS,
        Refused::InvalidReplicationFactor => codes::INVALID_REPLICATION_FACTOR,
        Refused::InvalidReplicaAssignment => codes::INVALID_REPLICA_ASSIGNMENT,
        Refused::InvalidConfig => codes::INVALID_CONFIG,
        Refused::NotController => codes::NOT_CONTROLLER,
        Refused::InvalidRequest => codes::INVALID_REQUEST,
        Refused::PolicyViolation => codes::POLICY_VIOLATION,
        Refused::OutOfOrderSequence => codes::OUT_OF_ORDER_SEQUENCE_NUMBER,
        Refused::DuplicateSequence => codes::DUPLICATE_SEQUENCE_NUMBER,
        Refused::InvalidProducerEpoch => codes::INVALID_PRODUCER_EPOCH,
        Refused::InvalidTxnState => codes::INVALID_TXN_STATE,
        Refused::InvalidProducerIdMapping => codes::INVALID_PRODUCER_ID_MAPPING,
        Refused::InvalidTransactionTimeout => codes::INVALID_TRANSACTION_TIMEOUT,
        Refused::TransactionalIdAuthorizationFailed => codes::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        Refused::KafkaStorageError => codes::KAFKA_STORAGE_ERROR,
        Refused::TopicDeletionDisabled => codes::TOPIC_DELETION_DISABLED,
        Refused::FencedLeaderEpoch => codes::FENCED_LEADER_EPOCH,
        Refused::UnknownLeaderEpoch => codes::UNKNOWN_LEADER_EPOCH,
        Refused::UnsupportedCompressionType => codes::UNSUPPORTED_COMPRESSION_TYPE,
        Refused::InvalidRecord => codes::INVALID_RECORD,
        Refused::ProducerFenced => codes::PRODUCER_FENCED,
        Refused::UnknownTopicId => codes::UNKNOWN_TOPIC_ID,
        Refused::InconsistentTopicId => codes::INCONSISTENT_TOPIC_ID,
        Refused::FetchSessionIdNotFound => codes::FETCH_SESSION_ID_NOT_FOUND,
        Refused::InvalidFetchSessionEpoch => codes::INVALID_FETCH_SESSION_EPOCH,
        Refused::FetchSessionTopicIdError => codes::FETCH_SESSION_TOPIC_ID_ERROR,
        Refused::MismatchedEndpointType => codes::MISMATCHED_ENDPOINT_TYPE,
        Refused::UnsupportedEndpointType => codes::UNSUPPORTED_ENDPOINT_TYPE,
        Refused::ThrottlingQuotaExceeded => codes::THROTTLING_QUOTA_EXCEEDED,
    }
}

/// The code of an outcome: 0, or that of its refusal.
pub fn code_of<T>(outcome: &Result<T, Refused>) -> i16 {
    outcome.as_ref().err().map_or(codes::NONE, |refused| code(*refused))
}

/// Bytes from a peer that are not a message we take, or a message of ours that cannot be written. A broker answers
/// `UnsupportedVersion` of ApiVersions only; everything else closes the connection (protocol notes, "Connections, versions").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireError {
    /// A frame length that is negative, smaller than the smallest header, or above the cap of its API.
    FrameLength { claimed: i32, max: usize },
    /// No row in the table of `api` for this key.
    UnknownApi { key: i16, version: i16 },
    /// Known key, version outside what we parse.
    UnsupportedVersion { api: ApiKey, version: i16, correlation_id: i32 },
    /// The message ends inside a field, at this byte of the frame.
    Truncated { at: usize },
    /// A count or length that the remaining bytes cannot hold, or that is above our limit.
    Oversized { at: usize },
    /// A field whose value its type does not allow (null, negative length, bad varint, bad UTF-8).
    Malformed { at: usize, what: &'static str },
    /// Bytes behind the end of the message.
    TrailingBytes { at: usize },
    /// The cold codec refused the bytes, in its own words.
    Decode(String),
    /// A message that this version cannot carry: our own bug.
    Encode(String),
    /// A response to a request that was not the oldest one in flight.
    CorrelationId { expected: i32, found: i32 },
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::FrameLength { claimed, max } => {
                write!(f, "frame length {claimed} is outside what is accepted (at most {max})")
            }
            WireError::UnknownApi { key, version } => write!(f, "unknown API key {key} (version {version})"),
            WireError::UnsupportedVersion { api, version, .. } => {
                write!(f, "{} version {version} is not served", api.name())
            }
            WireError::Truncated { at } => write!(f, "message ends inside a field at byte {at}"),
            WireError::Oversized { at } => {
                write!(f, "count or length at byte {at} exceeds the message or a limit")
            }
            WireError::Malformed { at, what } => write!(f, "malformed {what} at byte {at}"),
            WireError::TrailingBytes { at } => write!(f, "bytes left over behind the message at byte {at}"),
            WireError::Decode(what) => write!(f, "cannot decode: {what}"),
            WireError::Encode(what) => write!(f, "cannot encode: {what}"),
            WireError::CorrelationId { expected, found } => {
                write!(f, "response carries correlation id {found}, expected {expected}")
            }
        }
    }
}

impl std::error::Error for WireError {}
