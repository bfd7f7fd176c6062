//! The broker keys that something obeys: Kafka's under Kafka's names, and ours. The defaults of topic keys are declared with them in
//! `topic_keys.rs`; the rest of Kafka's keys are in `inert.rs`.

use super::broker::{Accept, FlushMode};
use super::option::Kind::{Boolean, Int, Long, String};
use super::option::{Allowed, Kind, Opt};
use super::runtime::Runtime;
use crate::base::limits::SHARDS_MAX;

const fn key(
    key: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    allowed: Allowed,
    doc: &'static str,
) -> Opt {
    Opt { key, kind, default, allowed, dynamic: false, effect: true, doc }
}

impl Opt {
    const fn alterable(mut self) -> Opt {
        self.dynamic = true;
        self
    }
}

const LOG_LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];
const LOG_FORMATS: &[&str] = &["auto", "text", "json"];

/// Alphabetical.
#[rustfmt::skip]
pub const BROKER_KEYS: &[Opt] = &[
    key("advertise", String, Some("broker"), Allowed::OneOf(&["broker", "shards"]),
        "shards: each shard is a broker of its own to clients, which then connect straight to the core that owns a partition."),
    key("advertise.port", Int, Some("9192"), Allowed::Between(0, 65535),
        "Port of the first shard where shards are advertised; each takes the next one. 0: free ones, other ones at each start."),
    key("advertised.listeners", String, None, Allowed::Any,
        "Addresses that clients are told to use; the listeners where it is not set. Name one that every client reaches."),
    key("auto.create.topics.enable", Boolean, Some("true"), Allowed::Any,
        "A Metadata request for an unknown topic creates it."),
    key("broker.id", Int, Some("-1"), Allowed::Any,
        "Kafka's older name of node.id; used where that is not set."),
    key("broker.rack", String, None, Allowed::Any,
        "Rack of this broker, as Metadata tells it."),
    key("connections.max.idle.ms", Long, Some("600000"), Allowed::AtLeast(1),
        "A connection without requests for this long is closed."),
    key("controller.listener.names", String, None, Allowed::Any,
        "Listeners of these names belong to a KRaft controller and are left out."),
    key("cpus", String, None, Allowed::Any,
        "CPUs that shards are pinned to, as in 2-5,8; those that the process may use where it is not set."),
    key("default.replication.factor", Int, Some("1"), Allowed::AtLeast(1),
        "Replication factor of topics created without one. One broker can hold one replica."),
    key("delete.topic.enable", Boolean, Some("true"), Allowed::Any,
        "DeleteTopics is allowed."),
    key("durability.allow.degraded", Boolean, Some("false"), Allowed::Any,
        "Start even where the storage cannot keep `durable`; every result then says degraded."),
    key("fetch.max.bytes", Int, Some("57671680"), Allowed::AtLeast(1024),
        "Most record bytes in one fetch response, whatever the client asks for."),
    key("listener.security.protocol.map", String,
        Some("SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT"), Allowed::Any,
        "Security protocol of each listener name. Only PLAINTEXT is served by this version."),
    key("listeners", String, Some("PLAINTEXT://127.0.0.1:9092"), Allowed::Any,
        "Addresses to listen on, as NAME://HOST:PORT; port 0 takes a free one, an empty host all addresses."),
    key("log.dir", String, None, Allowed::Any,
        "Kafka's older name of log.dirs; used where that is not set."),
    key("log.dirs", String, None, Allowed::Any,
        "The data directory. One entry until several are supported."),
    key("log.flush.mode", String, Some("auto"), Allowed::OneOf(FlushMode::NAMES),
        "auto: one flush for many files where file system and device let it, on kernels that were tested under power cuts. \
         shared: on other kernels as well. each: a flush per file, always."),
    key("log.format", String, Some("auto"), Allowed::OneOf(LOG_FORMATS),
        "Form of log lines on stderr; auto: text on a terminal, else JSON."),
    key("log.free.bytes", Long, None, Allowed::AtLeast(0),
        "Free disk space below which produce is refused; 2 segments per shard and 1 % of the disk where it is not set."),
    key("log.level", String, Some("info"), Allowed::OneOf(LOG_LEVELS),
        "Least severe lines that are logged."),
    key("log.retention.check.interval.ms", Long, Some("300000"), Allowed::AtLeast(1),
        "How often retention looks for segments to delete."),
    key("log.retention.hours", Int, Some("168"), Allowed::Any,
        "Coarser form of log.retention.ms; used where neither that nor log.retention.minutes is set. -1: no limit."),
    key("log.retention.minutes", Int, None, Allowed::Any,
        "Coarser form of log.retention.ms; used where that is not set. -1: no limit."),
    key("log.roll.hours", Int, Some("168"), Allowed::AtLeast(1),
        "Coarser form of log.roll.ms; used where that is not set."),
    key("max.connections", Int, Some("2147483647"), Allowed::AtLeast(0),
        "Connections of the broker; beyond it a new one is closed.").alterable(),
    key("max.connections.per.ip", Int, Some("2147483647"), Allowed::AtLeast(0),
        "Connections from one address; beyond it a new one is closed.").alterable(),
    key("max.connections.per.ip.overrides", String, Some(""), Allowed::Any,
        "The same for single addresses, as ADDRESS:COUNT,..."),
    key("memory", Long, None, Allowed::AtLeast(16 << 20),
        "Memory of all pools. Where it is not set: the smaller of 1 GiB and a quarter of what the process may use; but at least 64 MiB, \
         and 32 MiB for each shard, as far as half of what the process may use reaches."),
    key("memory.tail.cache", Long, None, Allowed::AtLeast(0),
        "Part of it that keeps recent records for consumers; half of it where it is not set."),
    key("node.id", Int, Some("1"), Allowed::AtLeast(0),
        "Id of this broker. A data directory belongs to the id that formatted it."),
    key("num.partitions", Int, Some("1"), Allowed::AtLeast(1),
        "Partitions of topics created without a count."),
    key("producer.id.expiration.ms", Int, Some("86400000"), Allowed::AtLeast(1),
        "An idempotent producer that is silent for this long is forgotten.").alterable(),
    key("replication.factor.clamp", Boolean, Some("false"), Allowed::Any,
        "Store topics once whatever replication factor they ask for, instead of refusing them, and report 1."),
    key("runtime", String, Some("auto"), Allowed::OneOf(Runtime::NAMES),
        "How shards reach the kernel; auto: the best that works here, and the log says which."),
    key("shard.accept", String, Some("balanced"), Allowed::OneOf(Accept::NAMES),
        "Who takes a new connection of a listener of all shards. balanced: the shard with the fewest. shared: whichever is first. \
         reuseport: each shard has a socket of its own, and the kernel's hash of the addresses decides."),
    key("shard.handover.interval.ms", Long, Some("1000"), Allowed::AtLeast(0),
        "A connection that moved to another shard stays there for at least this long."),
    key("shard.handover.requests", Int, Some("256"), Allowed::AtLeast(0),
        "A connection moves to another shard when nearly all of this many requests were for partitions there. 0: it stays."),
    key("shard.spin.us", Int, Some("0"), Allowed::AtLeast(0),
        "Longest time that an idle shard spins before it sleeps; more than 50 is taken as 50. Only where there are more CPUs than shards."),
    key("shards", Int, None, Allowed::Between(1, SHARDS_MAX as i64),
        "Shards, one core each; as many as there are CPUs to use where it is not set."),
    key("socket.request.max.bytes", Int, Some("104857600"), Allowed::AtLeast(1),
        "Largest request; a connection that announces a larger one is closed."),
    key("validate.deep", Boolean, Some("false"), Allowed::Any,
        "Decompress and walk every produced batch, as Apache Kafka does, instead of trusting the header of a compressed one."),
];

/// What `--dev` changes besides the command line's own defaults: everything small, on this machine, nothing to wait for.
pub const DEV_DEFAULTS: &[(&str, &str)] = &[
    ("group.initial.rebalance.delay.ms", "0"),
    ("log.dirs", "./data"),
    ("memory", "268435456"),
    ("replication.factor.clamp", "true"),
    ("shards", "1"),
];

/// Where data lives without `--dev`, if nothing says otherwise: the package's state directory.
pub const STATE_DIR: &str = "/var/lib/corelog";

/// Kafka's form of a security setting for one listener; accepted in files, without effect.
pub fn is_per_listener(key: &str) -> bool {
    key.starts_with("listener.name.")
}
