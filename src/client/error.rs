//! What can go wrong between a client and a broker, in words that say what to try.

use std::fmt;
use std::time::Duration;

use crate::base::error::Fatal;
use crate::wire::error::{WireError, codes, name};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// No connection to an address that the user gave.
    Unreachable { address: String, why: String },
    /// The bootstrap address answered, the address that it advertised does not.
    AdvertisedUnreachable { bootstrap: String, advertised: String, why: String },
    /// An open connection was lost.
    Lost { address: String, why: String },
    /// Bytes that are no answer to what was asked.
    Protocol { address: String, error: WireError },
    /// An error number in an answer; `what` says of which thing.
    Refused { code: i16, what: String, message: String },
    /// No version of the API that both sides know.
    Unsupported { address: String, api: &'static str, ours: (i16, i16), theirs: Option<(i16, i16)> },
    /// A broker of another make, asked what only corelog knows.
    NotCorelog { address: String },
    /// Time ran out; `last` is what stood in the way.
    Deadline { what: String, after: Duration, last: Box<ClientError> },
    /// The topic is not there, and asking for it does not create it.
    TopicUnknown { topic: String },
    /// Stored bytes that are not what a producer sent.
    Corrupt(String),
    /// Input that cannot be sent as it is.
    Input(String),
}

/// Numbers that mean "again, a little later": Kafka's RetriableException and what a restart looks like.
const RETRIABLE: &[i16] = &[
    codes::CORRUPT_MESSAGE,
    codes::UNKNOWN_TOPIC_OR_PARTITION,
    codes::LEADER_NOT_AVAILABLE,
    codes::NOT_LEADER_OR_FOLLOWER,
    codes::REQUEST_TIMED_OUT,
    codes::BROKER_NOT_AVAILABLE,
    codes::REPLICA_NOT_AVAILABLE,
    codes::NETWORK_EXCEPTION,
    codes::COORDINATOR_LOAD_IN_PROGRESS,
    codes::COORDINATOR_NOT_AVAILABLE,
    codes::NOT_COORDINATOR,
    codes::NOT_ENOUGH_REPLICAS,
    codes::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    codes::NOT_CONTROLLER,
    codes::KAFKA_STORAGE_ERROR,
    codes::FENCED_LEADER_EPOCH,
    codes::UNKNOWN_LEADER_EPOCH,
    codes::OFFSET_NOT_AVAILABLE,
    codes::THROTTLING_QUOTA_EXCEEDED,
    codes::UNKNOWN_TOPIC_ID,
    codes::INCONSISTENT_TOPIC_ID,
];

/// An error number under Kafka's name.
pub fn code_text(code: i16) -> String {
    name(code).map_or_else(|| format!("error {code}"), str::to_string)
}

impl ClientError {
    /// `Ok` for number 0.
    pub fn check(code: i16, what: impl Into<String>, message: Option<&str>) -> Result<(), ClientError> {
        if code == codes::NONE { Ok(()) } else { Err(ClientError::refused(code, what, message)) }
    }

    pub fn refused(code: i16, what: impl Into<String>, message: Option<&str>) -> ClientError {
        ClientError::Refused { code, what: what.into(), message: message.unwrap_or_default().to_string() }
    }

    /// Worth another attempt, on a new connection or with new metadata.
    pub fn is_retriable(&self) -> bool {
        match self {
            ClientError::Unreachable { .. } | ClientError::Lost { .. } => true,
            ClientError::AdvertisedUnreachable { .. } => true,
            ClientError::Refused { code, .. } => RETRIABLE.contains(code),
            _ => false,
        }
    }

    /// The connection itself failed, as opposed to what was asked over it.
    pub fn is_connection(&self) -> bool {
        match self {
            ClientError::Unreachable { .. } | ClientError::AdvertisedUnreachable { .. } => true,
            ClientError::Lost { .. } | ClientError::Protocol { .. } => true,
            ClientError::Deadline { last, .. } => last.is_connection(),
            _ => false,
        }
    }

    /// No broker could be spoken to.
    pub fn is_unreachable(&self) -> bool {
        match self {
            ClientError::Unreachable { .. } | ClientError::AdvertisedUnreachable { .. } => true,
            ClientError::Lost { .. } => true,
            ClientError::Deadline { last, .. } => last.is_unreachable(),
            _ => false,
        }
    }

    pub fn code(&self) -> Option<i16> {
        match self {
            ClientError::Refused { code, .. } => Some(*code),
            ClientError::TopicUnknown { .. } => Some(codes::UNKNOWN_TOPIC_OR_PARTITION),
            ClientError::Deadline { last, .. } => last.code(),
            _ => None,
        }
    }

    /// For a person: what was found, what it means, what to try.
    pub fn to_fatal(&self) -> Fatal {
        match self {
            ClientError::Unreachable { address, why } => fatal(
                "broker-unreachable",
                format!("no broker answers at {address}"),
                why,
                "nothing listens there, or a firewall is in between",
                &[
                    "corelog serve --dev          (starts a broker on 127.0.0.1:9092)",
                    "-b HOST:PORT                 (another address)",
                ],
            ),
            ClientError::AdvertisedUnreachable { bootstrap, advertised, why } => fatal(
                "advertised-unreachable",
                format!("{bootstrap} answers, but tells its clients to use {advertised}, which does not"),
                why,
                "the broker's advertised.listeners names an address that this machine cannot reach",
                &[
                    &format!("corelog serve ... -X advertised.listeners=PLAINTEXT://{bootstrap}"),
                    "make the advertised name resolve here (/etc/hosts, DNS)",
                ],
            ),
            ClientError::Lost { address, why } => fatal(
                "connection-lost",
                format!("the connection to {address} was lost"),
                why,
                "the broker stopped, or refused what was sent",
                &["run the command again", "read the broker's log"],
            ),
            ClientError::Protocol { address, error } => fatal(
                "not-kafka",
                format!("{address} sent bytes that are no Kafka answer"),
                &error.to_string(),
                "another service listens there, or it expects TLS",
                &["-b HOST:PORT                 (the broker's plaintext listener)"],
            ),
            ClientError::Refused { code, what, message } => refused(*code, what, message),
            ClientError::Unsupported { address, api, ours, theirs } => fatal(
                "api-unsupported",
                format!("{address} does not serve {api} in a version known here"),
                &theirs.map_or("not served at all".to_string(), |(min, max)| {
                    format!("it serves {min} to {max}, this client {} to {}", ours.0, ours.1)
                }),
                "the two programs are too far apart in age",
                &["update the older of the two"],
            ),
            ClientError::NotCorelog { address } => not_corelog(address),
            ClientError::Deadline { what, after, last } => {
                let mut inner = last.to_fatal();
                inner.found = format!("{} ({})", inner.summary, inner.found);
                inner.summary = format!("{what}: gave up after {:.0} s", after.as_secs_f64());
                inner.tries.push("-X delivery.timeout.ms=MS     (wait longer)".to_string());
                inner
            }
            ClientError::TopicUnknown { topic } => fatal(
                "topic-unknown",
                format!("there is no topic {topic}"),
                "Kafka error 3 (UNKNOWN_TOPIC_OR_PARTITION)",
                "it was never created, or it was deleted",
                &["corelog topic list", &format!("corelog topic create {topic}")],
            ),
            ClientError::Corrupt(what) => fatal(
                "corrupt",
                what.clone(),
                "the bytes that the broker sent do not match their checksum or their own structure",
                "they were damaged on disk or on the way",
                &["corelog log verify --data-dir DIR"],
            ),
            ClientError::Input(what) => bad_input(what),
        }
    }
}

fn bad_input(what: &str) -> Fatal {
    fatal("bad-input", what.to_string(), "", "", &["corelog help", "corelog produce --help"])
}

fn not_corelog(address: &str) -> Fatal {
    fatal(
        "not-corelog",
        format!("{address} is no corelog broker, or an older one"),
        "it closed the connection on a request that only corelog knows",
        "shards are corelog's own: other brokers have none to show",
        &["-b HOST:PORT                 (a corelog broker)", "corelog topic describe NAME  (any broker)"],
    )
}

fn refused(code: i16, what: &str, message: &str) -> Fatal {
    let (stable, try_first) = match code {
        codes::INVALID_CONFIG if message.starts_with("Invalid value") => {
            ("bad-config-value", "corelog topic describe NAME --all   (lists the keys with their values)")
        }
        codes::UNKNOWN_TOPIC_OR_PARTITION => ("topic-unknown", "corelog topic list"),
        codes::TOPIC_ALREADY_EXISTS => ("topic-exists", "corelog topic describe NAME"),
        codes::INVALID_TOPIC_EXCEPTION => {
            ("topic-name", "a name of letters, digits, '.', '_' and '-', at most 249 long")
        }
        codes::INVALID_CONFIG => ("bad-config-key", "corelog topic describe NAME --all   (lists the keys)"),
        codes::MESSAGE_TOO_LARGE => {
            ("message-too-large", "corelog topic alter-config NAME --set max.message.bytes=N")
        }
        codes::INVALID_PARTITIONS => {
            ("partition-count", "a count of 1 or more, above the present one (corelog topic describe NAME)")
        }
        codes::OFFSET_OUT_OF_RANGE => ("offset-range", "-o beginning"),
        _ => ("refused", "read the broker's log for the reason"),
    };
    let found = if message.is_empty() {
        format!("Kafka error {code}")
    } else {
        format!("Kafka error {code}: {message}")
    };
    fatal(
        stable,
        format!("{what}: {}", code_text(code)),
        &found,
        "the broker understood the request and does not carry it out",
        &[try_first],
    )
}

fn fatal(code: &'static str, summary: String, found: &str, means: &str, tries: &[&str]) -> Fatal {
    Fatal {
        code,
        summary,
        found: found.to_string(),
        means: means.to_string(),
        tries: tries.iter().map(|t| t.to_string()).collect(),
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Unreachable { address, why } => write!(f, "cannot reach {address}: {why}"),
            ClientError::AdvertisedUnreachable { bootstrap, advertised, why } => {
                write!(f, "{bootstrap} advertises {advertised}, which cannot be reached: {why}")
            }
            ClientError::Lost { address, why } => write!(f, "connection to {address} lost: {why}"),
            ClientError::Protocol { address, error } => write!(f, "{address}: {error}"),
            ClientError::Refused { code, what, message } => {
                write!(f, "{what}: {}", code_text(*code))?;
                if message.is_empty() { Ok(()) } else { write!(f, " ({message})") }
            }
            ClientError::Unsupported { address, api, .. } => {
                write!(f, "{address} does not serve {api} as needed")
            }
            ClientError::NotCorelog { address } => write!(f, "{address} is no corelog broker"),
            ClientError::Deadline { what, after, last } => {
                write!(f, "{what}: gave up after {after:?}: {last}")
            }
            ClientError::TopicUnknown { topic } => write!(f, "there is no topic {topic}"),
            ClientError::Corrupt(what) | ClientError::Input(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ClientError {}
