//! From a topic's configuration to what its partitions obey.

use crate::config::broker::BrokerConfig;
use crate::config::topic::{self, TopicConfig};
use crate::log::store::{Durability, LogConfig};
use crate::router::message::PartitionRules;
use crate::wire::codec::{Codec, Compression};

pub fn of(topic: &TopicConfig, broker: &BrokerConfig) -> PartitionRules {
    PartitionRules {
        log: LogConfig {
            durability: match topic.durability {
                topic::Durability::Durable => Durability::Durable,
                topic::Durability::Written => Durability::Written,
                topic::Durability::Memory => Durability::Memory,
            },
            flush_ms: topic.durability_flush_ms,
            flush_bytes: topic.durability_flush_bytes,
            segment_bytes: topic.segment_bytes,
            segment_ms: topic.segment_ms,
            retention_ms: topic.retention_ms,
            retention_bytes: topic.retention_bytes,
            delete: topic.delete,
            index_interval_bytes: topic.index_interval_bytes,
            producer_id_expiration_ms: broker.producer_id_expiration_ms,
            log_append_time: topic.log_append_time,
        },
        max_message_bytes: topic.max_message_bytes,
        timestamp_before_max_ms: topic.timestamp_before_max_ms,
        timestamp_after_max_ms: topic.timestamp_after_max_ms,
        compact: topic.compact,
        compression: topic.compression.as_ref().and_then(|(name, level)| compression(name, *level)),
        deep: broker.validate_deep,
    }
}

/// Topics say `uncompressed` where clients say `none`.
fn compression(name: &str, level: Option<i32>) -> Option<Compression> {
    let codec = if name == "uncompressed" { Some(Codec::None) } else { Codec::from_name(name) };
    codec.map(|codec| Compression { codec, level })
}
