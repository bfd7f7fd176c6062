//! A topic's configuration: what was set on it, and what follows from that, the broker's values and the defaults.

use std::collections::BTreeMap;
use std::fmt;

use super::broker::BrokerConfig;
use super::keys;
use super::option::{BadValue, list};
use super::topic_keys::{INTERNAL_SEGMENT_BYTES, TopicKey, WRITE_CACHING};

/// What was set on a topic: canonical values by key. Only keys of `topic_keys.rs` stand in it, and none of the synonyms of
/// `durability`, which are translated when they are set.
pub type Overrides = BTreeMap<String, String>;

/// What has happened before a produce with acks=1 or acks=all is answered, and up to where consumers may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Written, and a flush that began after that has completed: survives power loss.
    Durable,
    /// Written; flushed within bounds: survives the death of the process.
    Written,
    /// In the broker's memory; written and flushed within bounds: survives nothing.
    Memory,
}

impl Durability {
    pub fn name(self) -> &'static str {
        match self {
            Durability::Durable => "durable",
            Durability::Written => "written",
            Durability::Memory => "memory",
        }
    }

    fn parse(text: &str) -> Durability {
        match text {
            "written" => Durability::Written,
            "memory" => Durability::Memory,
            // The strongest, for whatever a version that knew more levels left behind.
            _ => Durability::Durable,
        }
    }

    /// Kafka's `flush.messages`, from which its tools derive whether an ack means a flush.
    pub fn flush_messages(self) -> &'static str {
        if self == Durability::Durable { "1" } else { "9223372036854775807" }
    }
}

/// The values that a topic's partitions obey. Limits of -1 mean none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    pub durability: Durability,
    pub durability_flush_ms: u64,
    pub durability_flush_bytes: u64,
    /// `cleanup.policy` contains `delete`: retention by time and size.
    pub delete: bool,
    /// `cleanup.policy` contains `compact`: records need keys.
    pub compact: bool,
    pub retention_ms: i64,
    pub retention_bytes: i64,
    pub segment_bytes: u64,
    pub segment_ms: u64,
    pub index_interval_bytes: u32,
    pub max_message_bytes: i32,
    /// `compression.type` other than `producer`: the codec's name, `uncompressed` for none, and its level unless that is the default.
    pub compression: Option<(String, Option<i32>)>,
    /// `message.timestamp.type=LogAppendTime`.
    pub log_append_time: bool,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
}

impl TopicConfig {
    /// A topic's own values over the broker's over the defaults.
    pub fn resolve(overrides: &Overrides, broker: &BrokerConfig) -> TopicConfig {
        let long = |key: &str| value_of(key, overrides, broker).parse::<i64>().unwrap_or(-1);
        let policy = value_of("cleanup.policy", overrides, broker);
        let internal = overrides.get(INTERNAL_SEGMENT_BYTES.key).and_then(|value| value.parse().ok());
        TopicConfig {
            durability: Durability::parse(&value_of("durability", overrides, broker)),
            durability_flush_ms: long("durability.flush.ms").max(1) as u64,
            durability_flush_bytes: long("durability.flush.bytes").max(1) as u64,
            delete: list(&policy).contains(&"delete"),
            compact: list(&policy).contains(&"compact"),
            retention_ms: long("retention.ms"),
            retention_bytes: long("retention.bytes").max(-1),
            segment_bytes: internal.unwrap_or_else(|| long("segment.bytes").max(4096) as u64),
            segment_ms: long("segment.ms").max(1) as u64,
            index_interval_bytes: long("index.interval.bytes").max(0) as u32,
            max_message_bytes: long("max.message.bytes").max(0) as i32,
            compression: compression(overrides, broker),
            log_append_time: value_of("message.timestamp.type", overrides, broker) == "LogAppendTime",
            timestamp_before_max_ms: long("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: long("message.timestamp.after.max.ms"),
        }
    }
}

fn compression(overrides: &Overrides, broker: &BrokerConfig) -> Option<(String, Option<i32>)> {
    let codec = value_of("compression.type", overrides, broker);
    let level = match codec.as_str() {
        "producer" => return None,
        "gzip" => {
            value_of("compression.gzip.level", overrides, broker).parse().ok().filter(|level| *level != -1)
        }
        "zstd" => value_of("compression.zstd.level", overrides, broker).parse().ok(),
        _ => None,
    };
    Some((codec, level))
}

/// Why a value is not set on a topic, in Kafka's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotSet {
    Unknown(String),
    Bad(BadValue),
    /// Each value is allowed, but not together, or not on this broker.
    Conflict(String),
}

impl fmt::Display for NotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotSet::Unknown(key) => write!(f, "Unknown topic config name: {key}"),
            NotSet::Bad(bad) => bad.fmt(f),
            NotSet::Conflict(what) => f.write_str(what),
        }
    }
}

/// Sets one value as a client gave it. The synonyms of `durability` set it: `write.caching`, and `flush.messages` of 1.
pub fn set(overrides: &mut Overrides, key: &str, value: &str) -> Result<(), NotSet> {
    let opt = keys::topic_settable(key).ok_or_else(|| NotSet::Unknown(key.to_string()))?;
    let value = opt.parse(value).map_err(NotSet::Bad)?;
    let (key, value) = match (opt.key, value.as_str()) {
        (key, "true") if key == WRITE_CACHING.key => ("durability", "memory"),
        (key, _) if key == WRITE_CACHING.key => ("durability", "durable"),
        ("flush.messages", "1") => ("durability", "durable"),
        ("flush.messages", _) => return Ok(()),
        (key, value) => (key, value),
    };
    overrides.insert(key.to_string(), value.to_string());
    Ok(())
}

/// Takes back what was set. An unknown key is not set, so there is nothing to do, as in Kafka.
pub fn unset(overrides: &mut Overrides, key: &str) {
    let synonym = key == WRITE_CACHING.key || key == "flush.messages";
    overrides.remove(if synonym { "durability" } else { key });
}

/// Checks values against each other.
pub fn check(overrides: &Overrides, broker: &BrokerConfig) -> Result<(), NotSet> {
    let long = |key: &str| value_of(key, overrides, broker).parse::<i64>().unwrap_or(0);
    let (least, most) = (long("min.compaction.lag.ms"), long("max.compaction.lag.ms"));
    if least > most {
        return Err(NotSet::Conflict(format!(
            "conflict topic config setting min.compaction.lag.ms ({least}) > max.compaction.lag.ms ({most})"
        )));
    }
    if value_of("remote.storage.enable", overrides, broker) == "true" {
        return Err(NotSet::Conflict(
            "Tiered Storage functionality is disabled in the broker. \
             Topic cannot be configured with remote log storage."
                .to_string(),
        ));
    }
    Ok(())
}

/// The value in effect of one topic key.
pub fn value_of(key: &str, overrides: &Overrides, broker: &BrokerConfig) -> String {
    if key == "flush.messages" {
        return Durability::parse(&value_of("durability", overrides, broker)).flush_messages().to_string();
    }
    match (overrides.get(key), keys::topic(key)) {
        (Some(value), _) => value.clone(),
        (None, Some(topic)) => default_of(topic, broker),
        (None, None) => String::new(),
    }
}

/// The value of a topic key where the topic does not set it. Kafka's coarser broker keys (hours, minutes) stand behind the finer.
pub(super) fn default_of(topic: &TopicKey, broker: &BrokerConfig) -> String {
    let declared = topic.opt.default.unwrap_or_default();
    let Some(key) = topic.broker else { return declared.to_string() };
    for form in keys::broker_synonyms(key) {
        let Some((value, _)) = broker.get(form) else { continue };
        let scale = match form {
            "log.retention.minutes" => 60_000,
            "log.retention.hours" | "log.roll.hours" | "log.roll.jitter.hours" => 3_600_000,
            _ => return value.to_string(),
        };
        let number: i64 = value.parse().unwrap_or(-1);
        return if number < 0 { "-1".to_string() } else { number.saturating_mul(scale).to_string() };
    }
    declared.to_string()
}
