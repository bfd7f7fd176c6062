//! Every topic configuration of Apache Kafka 4.1, and ours. A topic's value overrides the broker's, which overrides the default;
//! [`TopicKey::broker`] names the broker key, whose declaration is derived from the topic's in `keys.rs`.

use super::option::Kind::{Boolean, Double, Int, List, Long, String};
use super::option::{Allowed, Kind, Opt};

/// A topic key and the broker key that gives its default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopicKey {
    pub opt: Opt,
    pub broker: Option<&'static str>,
    /// The broker key has no default of its own, because a coarser one (`log.retention.hours`) stands behind it.
    pub broker_default: bool,
}

const fn key(
    key: &'static str,
    broker: &'static str,
    kind: Kind,
    default: &'static str,
    allowed: Allowed,
    doc: &'static str,
) -> TopicKey {
    let opt = Opt { key, kind, default: Some(default), allowed, dynamic: true, effect: true, doc };
    TopicKey { opt, broker: Some(broker), broker_default: true }
}

impl TopicKey {
    const fn without_effect(mut self) -> TopicKey {
        self.opt.effect = false;
        self
    }

    const fn coarser_behind(mut self) -> TopicKey {
        self.broker_default = false;
        self
    }

    const fn only_of_topics(mut self) -> TopicKey {
        self.broker = None;
        self
    }
}

/// `durability` as people write it; also what the value looks like in files and answers.
pub const DURABILITIES: &[&str] = &["durable", "written", "memory"];
const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];
const STAMPS: &[&str] = &["CreateTime", "LogAppendTime"];
const POLICIES: &[&str] = &["compact", "delete"];
const FOREVER: &str = "9223372036854775807";

/// Alphabetical, as Kafka answers them.
#[rustfmt::skip]
pub const TOPIC_KEYS: &[TopicKey] = &[
    key("cleanup.policy", "log.cleanup.policy", List, "delete", Allowed::SomeOf(POLICIES),
        "What happens to old segments: `delete` drops them by time and size. `compact` is accepted and demands keys; \
         this version keeps every record instead of the latest per key."),
    key("compression.gzip.level", "compression.gzip.level", Int, "-1", Allowed::GzipLevel,
        "Level for `compression.type=gzip`; -1: the codec's own default."),
    key("compression.lz4.level", "compression.lz4.level", Int, "9", Allowed::Between(1, 17),
        "Level for `compression.type=lz4`. This version compresses with the fast one, Kafka's default.").without_effect(),
    key("compression.type", "compression.type", String, "producer", Allowed::OneOf(CODECS),
        "producer: batches are stored as they were compressed. Another value: a batch of another codec is recompressed by the \
         broker, which costs its CPU and more latency."),
    key("compression.zstd.level", "compression.zstd.level", Int, "3", Allowed::Between(-131072, 22),
        "Level for `compression.type=zstd`."),
    key("delete.retention.ms", "log.cleaner.delete.retention.ms", Long, "86400000", Allowed::AtLeast(0),
        "How long compaction keeps tombstones.").without_effect(),
    key("durability", "durability", String, "durable", Allowed::OneOf(DURABILITIES),
        "What has happened before a produce with acks=1 or acks=all is answered, and up to where consumers read. \
         durable: written and flushed to the device (survives power loss). written: written, flushed within \
         durability.flush.ms or durability.flush.bytes (survives a killed process). memory: in the broker's memory \
         (survives nothing)."),
    key("durability.flush.bytes", "durability.flush.bytes", Long, "262144", Allowed::AtLeast(1),
        "Below `durable`: bytes of a partition after which they are flushed."),
    key("durability.flush.ms", "durability.flush.ms", Long, "100", Allowed::AtLeast(1),
        "Below `durable`: longest time until what was acknowledged is flushed."),
    key("file.delete.delay.ms", "log.segment.delete.delay.ms", Long, "60000", Allowed::AtLeast(0),
        "Files go when the last read of them has ended; no delay is needed.").without_effect(),
    key("flush.messages", "log.flush.interval.messages", Long, FOREVER, Allowed::AtLeast(1),
        "Answered as 1 where `durability` is durable, else as the largest number. Setting 1 sets durability=durable; \
         other values are accepted without effect."),
    key("flush.ms", "log.flush.interval.ms", Long, FOREVER, Allowed::AtLeast(0),
        "See durability.flush.ms.").without_effect().coarser_behind(),
    key("follower.replication.throttled.replicas", "", List, "", Allowed::Replicas,
        "Replicas throttled at the follower.").without_effect().only_of_topics(),
    key("index.interval.bytes", "log.index.interval.bytes", Int, "4096", Allowed::AtLeast(0),
        "Bytes of log per entry of the sparse offset and time index."),
    key("leader.replication.throttled.replicas", "", List, "", Allowed::Replicas,
        "Replicas throttled at the leader.").without_effect().only_of_topics(),
    key("local.retention.bytes", "log.local.retention.bytes", Long, "-2", Allowed::AtLeast(-2),
        "Local part of tiered storage.").without_effect(),
    key("local.retention.ms", "log.local.retention.ms", Long, "-2", Allowed::AtLeast(-2),
        "Local part of tiered storage.").without_effect(),
    key("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms", Long, FOREVER, Allowed::AtLeast(1),
        "Longest time that a record stays uncompacted.").without_effect(),
    key("max.message.bytes", "message.max.bytes", Int, "1048588", Allowed::AtLeast(0),
        "Largest record batch taken from a producer, as it comes: compressed."),
    key("message.timestamp.after.max.ms", "log.message.timestamp.after.max.ms", Long, "3600000", Allowed::AtLeast(0),
        "With CreateTime: how far a record's timestamp may be ahead of the broker's clock."),
    key("message.timestamp.before.max.ms", "log.message.timestamp.before.max.ms", Long, FOREVER, Allowed::AtLeast(0),
        "With CreateTime: how far a record's timestamp may be behind the broker's clock."),
    key("message.timestamp.type", "log.message.timestamp.type", String, "CreateTime", Allowed::OneOf(STAMPS),
        "CreateTime keeps the producer's timestamps, LogAppendTime replaces them by the broker's."),
    key("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio", Double, "0.5", Allowed::Ratio,
        "Share of uncompacted bytes that makes compaction worth it.").without_effect(),
    key("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms", Long, "0", Allowed::AtLeast(0),
        "Shortest time that a record stays uncompacted.").without_effect(),
    key("min.insync.replicas", "min.insync.replicas", Int, "1", Allowed::AtLeast(1),
        "Replicas that acks=all waits for, as far as the partition has that many: one in this version.").without_effect(),
    key("preallocate", "log.preallocate", Boolean, "false", Allowed::Any,
        "Segments are always zeroed ahead.").without_effect(),
    key("remote.log.copy.disable", "", Boolean, "false", Allowed::Any,
        "Tiered storage.").without_effect().only_of_topics(),
    key("remote.log.delete.on.disable", "", Boolean, "false", Allowed::Any,
        "Tiered storage.").without_effect().only_of_topics(),
    key("remote.storage.enable", "", Boolean, "false", Allowed::Any,
        "Tiered storage: only false is taken.").without_effect().only_of_topics(),
    key("retention.bytes", "log.retention.bytes", Long, "-1", Allowed::Any,
        "Size of a partition above which its oldest segments are deleted; -1: no limit."),
    key("retention.ms", "log.retention.ms", Long, "604800000", Allowed::AtLeast(-1),
        "Age of its newest record after which a segment is deleted; -1: no limit.").coarser_behind(),
    key("segment.bytes", "log.segment.bytes", Int, "1073741824", Allowed::AtLeast(1048576),
        "Size at which a partition begins a new segment file."),
    key("segment.index.bytes", "log.index.size.max.bytes", Int, "10485760", Allowed::AtLeast(4),
        "Indexes are sized by what they hold.").without_effect(),
    key("segment.jitter.ms", "log.roll.jitter.ms", Long, "0", Allowed::AtLeast(0),
        "Random delay of time-based rolls.").without_effect().coarser_behind(),
    key("segment.ms", "log.roll.ms", Long, "604800000", Allowed::AtLeast(1),
        "Age at which a partition begins a new segment file even if the old one is not full.").coarser_behind(),
    key("unclean.leader.election.enable", "unclean.leader.election.enable", Boolean, "false", Allowed::Any,
        "Replicas out of sync may lead.").without_effect(),
];

/// Kafka's own back door for tests: segments smaller than `segment.bytes` allows. Answered only where it is set, as Kafka does.
pub const INTERNAL_SEGMENT_BYTES: Opt = Opt {
    key: "internal.segment.bytes",
    kind: Int,
    default: None,
    allowed: Allowed::AtLeast(4096),
    dynamic: true,
    effect: true,
    doc: "Overrides segment.bytes. For tests only.",
};

/// Redpanda's name for two of the durability levels: true means `memory`, false `durable`. Accepted where it is set, never answered.
pub const WRITE_CACHING: Opt = Opt {
    key: "write.caching",
    kind: Boolean,
    default: None,
    allowed: Allowed::Any,
    dynamic: true,
    effect: true,
    doc: "Synonym of durability=memory (true) and durability=durable (false).",
};
