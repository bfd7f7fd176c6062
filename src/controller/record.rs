//! What is persisted: one value per key, as in `etcd` later. A transaction puts and removes keys; a snapshot is all of them.
//!
//! | key | value |
//! |---|---|
//! | `topics/<name>` | `{v, id, config}`: the topic's uuid and what was set on it |
//! | `p/<topic uuid>/<partition>` | `{v, leader, leader_epoch, replicas}` |
//! | `placement/<topic uuid>` | `{v, shards}`: the shard of each partition; local to this broker, never in a cluster's store |
//! | `config/<broker id>`, `config/default` | `{v, config}`: what was altered on this broker, or for all brokers |
//! | `pid` | `{v, next}`: the first producer id that was not handed out in a block |
//!
//! All stand below `<cluster>/`, which the files say once, in their headers. Values are JSON and carry their version `v`.
//! To change a value: add the field with a serde default and keep `v`; where an older broker must not read it, raise [`VERSION`]:
//! it then refuses to start instead of guessing. `topicids/<uuid>` of a cluster's store is derived here.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::ids::{BrokerId, LeaderEpoch, PartitionIndex, ShardId, Uuid};
use crate::config::topic::Overrides;

/// Version of all values.
pub const VERSION: u32 = 1;

/// The name of a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Topic(String),
    Partition(Uuid, PartitionIndex),
    Placement(Uuid),
    /// None: for all brokers.
    Config(Option<BrokerId>),
    ProducerIds,
}

/// A change of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Topic {
        name: String,
        id: Uuid,
        config: Overrides,
    },
    Partition {
        topic: Uuid,
        index: PartitionIndex,
        leader: BrokerId,
        epoch: LeaderEpoch,
        replicas: Vec<BrokerId>,
    },
    Placement {
        topic: Uuid,
        shards: Vec<ShardId>,
        /// Of so many shards they were chosen; none where the broker that wrote it kept no count.
        of: Option<u16>,
    },
    Config {
        broker: Option<BrokerId>,
        config: Overrides,
    },
    ProducerIds {
        next: i64,
    },
    Gone(Key),
}

/// Why stored bytes are not a record of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRecord {
    /// The key is of no known form.
    Key,
    /// The value does not fit the key.
    Value,
    /// A newer broker wrote it.
    Newer,
}

#[derive(Serialize, Deserialize)]
struct TopicValue {
    v: u32,
    id: String,
    config: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct PartitionValue {
    v: u32,
    leader: i32,
    leader_epoch: i32,
    replicas: Vec<i32>,
}

#[derive(Serialize, Deserialize)]
struct PlacementValue {
    v: u32,
    shards: Vec<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    of: Option<u16>,
}

#[derive(Serialize, Deserialize)]
struct ConfigValue {
    v: u32,
    config: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct ProducerIdsValue {
    v: u32,
    next: i64,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Topic(name) => write!(f, "topics/{name}"),
            Key::Partition(topic, index) => write!(f, "p/{topic}/{index}"),
            Key::Placement(topic) => write!(f, "placement/{topic}"),
            Key::Config(Some(broker)) => write!(f, "config/{broker}"),
            Key::Config(None) => f.write_str("config/default"),
            Key::ProducerIds => f.write_str("pid"),
        }
    }
}

impl Key {
    pub fn parse(text: &str) -> Result<Key, BadRecord> {
        let number = |text: &str| text.parse::<i32>().ok().filter(|n| *n >= 0);
        let key = match text.split_once('/') {
            None if text == "pid" => Some(Key::ProducerIds),
            Some(("topics", name)) => Some(Key::Topic(name.to_string())),
            Some(("placement", topic)) => Uuid::parse(topic).map(Key::Placement),
            Some(("config", "default")) => Some(Key::Config(None)),
            Some(("config", broker)) => number(broker).map(|id| Key::Config(Some(BrokerId(id)))),
            Some(("p", rest)) => rest.split_once('/').and_then(|(topic, index)| {
                Some(Key::Partition(Uuid::parse(topic)?, PartitionIndex(number(index)?)))
            }),
            _ => None,
        };
        key.ok_or(BadRecord::Key)
    }
}

impl Record {
    pub fn key(&self) -> Key {
        match self {
            Record::Topic { name, .. } => Key::Topic(name.clone()),
            Record::Partition { topic, index, .. } => Key::Partition(*topic, *index),
            Record::Placement { topic, .. } => Key::Placement(*topic),
            Record::Config { broker, .. } => Key::Config(*broker),
            Record::ProducerIds { .. } => Key::ProducerIds,
            Record::Gone(key) => key.clone(),
        }
    }

    /// The value as stored; None: the key goes.
    pub fn value(&self) -> Option<String> {
        let v = VERSION;
        match self {
            Record::Topic { id, config, .. } => {
                Some(json(&TopicValue { v, id: id.to_string(), config: config.clone() }))
            }
            Record::Partition { leader, epoch, replicas, .. } => {
                let replicas = replicas.iter().map(|broker| broker.0).collect();
                Some(json(&PartitionValue { v, leader: leader.0, leader_epoch: epoch.0, replicas }))
            }
            Record::Placement { shards, of, .. } => {
                let shards = shards.iter().map(|shard| shard.0).collect();
                Some(json(&PlacementValue { v, shards, of: *of }))
            }
            Record::Config { config, .. } => Some(json(&ConfigValue { v, config: config.clone() })),
            Record::ProducerIds { next } => Some(json(&ProducerIdsValue { v, next: *next })),
            Record::Gone(_) => None,
        }
    }

    pub fn parse(key: &str, value: Option<&str>) -> Result<Record, BadRecord> {
        let key = Key::parse(key)?;
        let Some(value) = value else { return Ok(Record::Gone(key)) };
        Ok(match key {
            Key::Topic(name) => {
                let TopicValue { id, config, .. } = read(value)?;
                Record::Topic { name, id: Uuid::parse(&id).ok_or(BadRecord::Value)?, config }
            }
            Key::Partition(topic, index) => {
                let PartitionValue { leader, leader_epoch, replicas, .. } = read(value)?;
                let replicas = replicas.into_iter().map(BrokerId).collect();
                Record::Partition {
                    topic,
                    index,
                    leader: BrokerId(leader),
                    epoch: LeaderEpoch(leader_epoch),
                    replicas,
                }
            }
            Key::Placement(topic) => {
                let PlacementValue { shards, of, .. } = read(value)?;
                Record::Placement { topic, shards: shards.into_iter().map(ShardId).collect(), of }
            }
            Key::Config(broker) => {
                let ConfigValue { config, .. } = read(value)?;
                Record::Config { broker, config }
            }
            Key::ProducerIds => {
                let ProducerIdsValue { next, .. } = read(value)?;
                Record::ProducerIds { next }
            }
        })
    }
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("values of strings, numbers and lists have a JSON form")
}

fn read<'a, T: Deserialize<'a>>(value: &'a str) -> Result<T, BadRecord> {
    #[derive(Deserialize)]
    struct Versioned {
        v: u32,
    }
    let Versioned { v } = serde_json::from_str(value).map_err(|_| BadRecord::Value)?;
    if v > VERSION {
        return Err(BadRecord::Newer);
    }
    serde_json::from_str(value).map_err(|_| BadRecord::Value)
}
