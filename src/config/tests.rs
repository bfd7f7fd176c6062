use std::collections::BTreeMap;

use super::broker::{BrokerConfig, FlushMode, Listener, memory_default};
use super::describe::{self, Described};
use super::source::{Loader, Source};
use super::topic::{self, Durability, Overrides, TopicConfig};
use super::topic_keys::TOPIC_KEYS;
use super::{file, keys};

fn overrides(pairs: &[(&str, &str)]) -> Overrides {
    let mut overrides = Overrides::new();
    for (key, value) in pairs {
        topic::set(&mut overrides, key, value).unwrap();
    }
    overrides
}

fn loaded(toml: &str) -> BrokerConfig {
    let mut loader = Loader::default();
    loader.file("corelog.toml", toml).unwrap();
    loader.finish().unwrap()
}

/// `value/source/synonyms`, as in `5/1 retention.ms=5/1 log.retention.hours=168/5`.
fn shown(described: &[Described], name: &str) -> String {
    let entry = described.iter().find(|entry| entry.name == name).unwrap();
    let value = |value: &Option<String>| value.clone().unwrap_or("null".to_string());
    let mut text = format!("{}/{}", value(&entry.value), entry.source);
    for synonym in &entry.synonyms {
        text += &format!(" {}={}/{}", synonym.name, value(&synonym.value), synonym.source);
    }
    text
}

#[test]
fn one_flush_stands_for_many_where_that_was_tested_or_asked_for() {
    let mode = |name: &str| loaded(&format!("log.flush.mode = \"{name}\"")).flush_mode;
    assert_eq!(loaded("").flush_mode, FlushMode::Auto);
    let shares = ["auto", "shared", "each"].map(|name| [true, false].map(|tested| mode(name).shares(tested)));
    assert_eq!(shares, [[true, false], [true, true], [false, false]]);
}

#[test]
fn declarations_are_sound() {
    assert!(TOPIC_KEYS.windows(2).all(|pair| pair[0].opt.key < pair[1].opt.key), "sorted, for the search");
    for opt in keys::broker_all().values().chain(TOPIC_KEYS.iter().map(|key| &key.opt)) {
        if let Some(default) = opt.default {
            assert_eq!(
                opt.parse(default).as_deref(),
                Ok(default),
                "{} has a canonical, allowed default",
                opt.key
            );
        }
        assert!(!describe::doc(opt).is_empty());
        assert!(opt.effect || !opt.key.starts_with("durability"));
    }
    // Kafka 4.1 has 34 topic keys, one of them internal, and we three of durability.
    assert_eq!(TOPIC_KEYS.len(), 33 + 3);
    for key in TOPIC_KEYS {
        assert!(key.broker.is_none_or(|broker| keys::broker(broker).is_some()));
    }
}

#[test]
fn client_values_get_kafkas_messages() {
    let check = |key: &str, value: &str, expected: &str| {
        let mut overrides = Overrides::new();
        let text = match topic::set(&mut overrides, key, value) {
            Ok(()) => overrides.get(key).cloned().unwrap_or_default(),
            Err(error) => error.to_string(),
        };
        assert_eq!(text, expected);
    };
    check("retention.ms", " 5 ", "5");
    check("preallocate", "TRUE", "true");
    check("cleanup.policy", "delete, compact", "delete,compact");
    check("cleanup.policy", "", "");
    check("follower.replication.throttled.replicas", "*", "*");
    check("follower.replication.throttled.replicas", "0:1,2:3", "0:1,2:3");
    check("nope", "1", "Unknown topic config name: nope");
    let long = "Invalid value abc for configuration retention.ms: Not a number of type LONG";
    check("retention.ms", "abc", long);
    check("retention.ms", "", "Invalid value  for configuration retention.ms: Not a number of type LONG");
    check(
        "retention.ms",
        "5ms",
        "Invalid value 5ms for configuration retention.ms: Not a number of type LONG",
    );
    let low = "Invalid value -2 for configuration retention.ms: Value must be at least -1";
    check("retention.ms", "-2", low);
    let ratio = "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1";
    check("min.cleanable.dirty.ratio", "2", ratio);
    let boolean =
        "Invalid value yes for configuration preallocate: Expected value to be either true or false";
    check("preallocate", "yes", boolean);
    let policy = "Invalid value x for configuration cleanup.policy: String must be one of: compact, delete";
    check("cleanup.policy", "delete,x", policy);
    let gzip = "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1";
    check("compression.gzip.level", "0", gzip);
    let throttled = "Invalid value [x] for configuration follower.replication.throttled.replicas: \
                     follower.replication.throttled.replicas must be the literal '*' or a list of replicas in the \
                     following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...";
    check("follower.replication.throttled.replicas", "x", throttled);
}

#[test]
fn people_may_use_units() {
    let check = |key: &str, value: &str, expected: Result<&str, &str>| {
        let read = keys::broker(key).unwrap().parse_human(value).map_err(|bad| bad.to_string());
        assert_eq!(read.as_deref().map_err(|text| text.as_str()), expected);
    };
    check("log.segment.bytes", "1GiB", Ok("1073741824"));
    check("log.segment.bytes", "20MB", Ok("20000000"));
    check("log.segment.bytes", "2M", Ok("2000000"));
    check("memory", "1.5GiB", Ok("1610612736"));
    check("log.retention.ms", "2h", Ok("7200000"));
    check("log.retention.ms", "-1", Ok("-1"));
    check("shard.spin.us", "5ms", Ok("5000"));
    check("log.retention.hours", "7d", Ok("168"));
    check("log.dirs", "5ms", Ok("5ms"));
    let odd = "Invalid value 1500us for configuration log.retention.ms: Not a number of type LONG";
    check("log.retention.ms", "1500us", Err(odd));
    let unit = "Invalid value 3GiB for configuration log.segment.bytes: Not a number of type INT";
    check("log.segment.bytes", "3GiB", Err(unit));
}

#[test]
fn toml_keys_may_be_prefixes_of_each_other() {
    let text = "durability = \"written\"\ndurability.flush.ms = 5\n# note\n[log]\ndir = \"x\"\n\
                dir.failure.timeout.ms = 7\ncleanup.policy = [\"compact\", \"delete\"]\n";
    let pairs = file::toml(text).unwrap();
    let expected = [
        ("durability", "written"),
        ("durability.flush.ms", "5"),
        ("log.dir", "x"),
        ("log.dir.failure.timeout.ms", "7"),
        ("log.cleanup.policy", "compact,delete"),
    ];
    let sorted: BTreeMap<_, _> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(sorted, BTreeMap::from(expected));
    assert!(file::toml("a = ").is_err());
}

#[test]
fn properties_are_read_as_java_reads_them() {
    let text = "# comment\n! comment\n\na=1\nb: 2\nc 3\n  d = e\\\n   f\nempty=\nk\\:x=y\\u0041\n";
    let expected = [("a", "1"), ("b", "2"), ("c", "3"), ("d", "ef"), ("empty", ""), ("k:x", "yA")];
    let pairs = file::properties(text).unwrap();
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.as_str().trim_end(), value.as_str())).collect();
    assert_eq!(pairs, expected);
}

#[test]
fn later_layers_hide_earlier_ones() {
    let mut loader = Loader::default();
    loader.dev();
    loader.detected("memory", "256MiB");
    loader.file("server.properties", "num.partitions=2\nlog.retention.hours=100\n").unwrap();
    let vars = [("CORELOG_NUM_PARTITIONS", "3"), ("CORELOG_BROKERS", "x"), ("PATH", "y")];
    loader.env(vars.iter().map(|(name, value)| (name.to_string(), value.to_string()))).unwrap();
    let of_env = loader.settings.get("num.partitions").map(|(value, source)| (value.to_string(), source));
    assert_eq!(of_env, Some(("3".to_string(), Source::Env)));
    loader.set(Source::Flag, "num.partitions", "4").unwrap();
    let config = loader.finish().unwrap();
    assert_eq!((config.num_partitions, config.memory), (4, Some(256 << 20)));
    assert!(config.replication_factor_clamp);
    assert_eq!(config.shards, 1);
    assert_eq!(config.data_dir.to_str(), Some("./data"));
    assert_eq!(config.all("num.partitions"), [("4", Source::Flag), ("1", Source::Default)]);
    assert!(config.notes.iter().any(|note| note.contains("CORELOG_BROKERS")));
    let printed = config.print();
    let hours = printed.iter().find(|(key, ..)| *key == "log.retention.hours").unwrap();
    assert_eq!((hours.1.as_deref(), hours.2.name()), (Some("100"), "file"));
}

#[test]
fn keys_of_older_kafkas_are_passed_over() {
    let mut loader = Loader::default();
    let old =
        "zookeeper.connect=z:2181\ninter.broker.protocol.version=3.9\nnum.partitions=3\nnum.io.threads=8\n";
    loader.file("server.properties", old).expect("taken");
    let config = loader.finish().expect("sound");
    assert_eq!((config.num_partitions, config.get("zookeeper.connect")), (3, None));
    let notes = config.notes.join("\n");
    assert!(notes.contains("zookeeper.connect is not a key of Kafka 4"), "{notes}");
    assert!(
        notes.contains("num.io.threads is accepted without effect: shards have no thread pools"),
        "{notes}"
    );
}

#[test]
fn compression_is_resolved_with_the_level_of_its_codec() {
    let broker = BrokerConfig::defaults();
    let resolve = |pairs| TopicConfig::resolve(&overrides(pairs), &broker).compression;
    assert_eq!(resolve(&[]), None);
    assert_eq!(resolve(&[("compression.type", "uncompressed")]), Some(("uncompressed".to_string(), None)));
    assert_eq!(resolve(&[("compression.type", "gzip")]), Some(("gzip".to_string(), None)));
    let gzip =
        [("compression.type", "gzip"), ("compression.gzip.level", "9"), ("compression.zstd.level", "5")];
    assert_eq!(resolve(&gzip), Some(("gzip".to_string(), Some(9))));
    assert_eq!(resolve(&[("compression.type", "zstd")]), Some(("zstd".to_string(), Some(3))));
}

#[test]
fn mistakes_say_what_was_meant() {
    let mut loader = Loader::default();
    let unknown = loader.set(Source::Flag, "num.partition", "1").unwrap_err();
    assert_eq!(unknown.code, "bad-config-key");
    assert!(unknown.to_string().contains("did you mean num.partitions?"), "{unknown}");
    let of_topic = loader.set(Source::File, "retention.ms", "1").unwrap_err();
    assert!(of_topic.to_string().contains("topic alter-config"), "{of_topic}");
    let value = loader.set(Source::Env, "num.partitions", "0").unwrap_err();
    let text = value.to_string();
    assert!(text.contains("Invalid value 0 for configuration num.partitions"), "{text}");
    assert!(text.contains("int of at least 1") && text.contains("from environment"), "{text}");
    let secret = loader.set(Source::File, "ssl.key.password", "hunter2");
    assert!(secret.is_ok() && !loader.notes.concat().contains("hunter2"));
    assert_eq!(loader.file("a.toml", "x = [").unwrap_err().code, "bad-config-file");
    let two = Loader::default().file("a.toml", "no.such = 1").unwrap_err();
    assert_eq!(two.code, "bad-config-key");
}

#[test]
fn a_stock_server_properties_is_read() {
    let text = "process.roles=broker,controller\nnode.id=7\ncontroller.quorum.bootstrap.servers=localhost:9093\n\
                listeners=PLAINTEXT://:19092,CONTROLLER://:9093\ninter.broker.listener.name=PLAINTEXT\n\
                advertised.listeners=PLAINTEXT://localhost:19092,CONTROLLER://localhost:9093\n\
                controller.listener.names=CONTROLLER\n\
                listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL\n\
                num.network.threads=3\nnum.io.threads=8\nsocket.send.buffer.bytes=102400\n\
                log.dirs=/tmp/x\nnum.recovery.threads.per.data.dir=1\noffsets.topic.replication.factor=1\n\
                log.segment.bytes=1073741824\nlog.retention.check.interval.ms=300000\n";
    let mut loader = Loader::default();
    loader.file("server.properties", text).unwrap();
    let config = loader.finish().unwrap();
    let listener =
        |host: &str| Listener { name: "PLAINTEXT".to_string(), host: host.to_string(), port: 19092 };
    assert_eq!(config.listeners, [listener("")]);
    assert_eq!(config.advertised, [listener("localhost")]);
    assert_eq!(config.node_id.0, 7);
    assert!(config.notes.iter().any(|note| note.starts_with("num.io.threads is accepted without effect")));
}

#[test]
fn listeners_must_be_served() {
    let check = |value: &str, expected: &str| {
        let mut loader = Loader::default();
        loader.set(Source::Flag, "listeners", value).unwrap();
        let error = loader.finish().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("SSL://a:1", "nothing else is served yet");
    check("NEW://a:1", "has no entry in listener.security.protocol.map");
    check("PLAINTEXT://a", "is not NAME://HOST:PORT");
    check("", "names no listener");
    let config = loaded("listeners = \"PLAINTEXT://[::1]:0\"");
    assert_eq!(config.listeners[0].to_string(), "PLAINTEXT://[::1]:0");
    assert!(Loader::default().finish().unwrap().advertised.is_empty());
}

#[test]
fn a_topic_resolves_over_the_broker_over_the_defaults() {
    let broker = loaded("log.retention.hours = 100\nmessage.max.bytes = 2000000\ndurability = \"written\"");
    let config = TopicConfig::resolve(&Overrides::new(), &broker);
    assert_eq!(config.retention_ms, 360_000_000);
    assert_eq!(config.max_message_bytes, 2_000_000);
    assert_eq!(config.durability, Durability::Written);
    assert_eq!(config.segment_ms, 604_800_000);
    assert!(config.delete && !config.compact && !config.log_append_time);
    let own =
        overrides(&[("retention.ms", "-1"), ("cleanup.policy", "compact"), ("segment.bytes", "1048576")]);
    let config = TopicConfig::resolve(&own, &broker);
    assert_eq!((config.retention_ms, config.segment_bytes), (-1, 1_048_576));
    assert!(config.compact && !config.delete);
    let tiny = overrides(&[("internal.segment.bytes", "8192")]);
    assert_eq!(TopicConfig::resolve(&tiny, &broker).segment_bytes, 8192);
    let unlimited = loaded("log.retention.minutes = -1");
    assert_eq!(TopicConfig::resolve(&Overrides::new(), &unlimited).retention_ms, -1);
}

#[test]
fn the_default_of_memory_is_bounded_by_the_machine() {
    assert_eq!(memory_default(200 << 20, 1), 64 << 20);
    assert_eq!(memory_default(64 << 30, 1), 1 << 30);
    assert_eq!(memory_default(400 << 20, 4), 128 << 20);
    assert_eq!(memory_default(64 << 30, 64), 2 << 30);
    assert_eq!(memory_default(100 << 20, 4), 50 << 20);
    assert_eq!(memory_default(24 << 30, 1024), 12 << 30);
}

#[test]
fn durability_has_synonyms() {
    let broker = BrokerConfig::defaults();
    let check = |pairs: &[(&str, &str)], durability: Durability, flush_messages: &str| {
        let own = overrides(pairs);
        assert_eq!(TopicConfig::resolve(&own, &broker).durability, durability);
        assert_eq!(topic::value_of("flush.messages", &own, &broker), flush_messages);
    };
    let forever = "9223372036854775807";
    check(&[], Durability::Durable, "1");
    check(&[("write.caching", "true")], Durability::Memory, forever);
    check(&[("write.caching", "false")], Durability::Durable, "1");
    check(&[("durability", "memory"), ("flush.messages", "1")], Durability::Durable, "1");
    check(&[("durability", "written"), ("flush.messages", "1000")], Durability::Written, forever);
    let mut own = overrides(&[("write.caching", "true")]);
    topic::unset(&mut own, "flush.messages");
    assert!(own.is_empty());
}

#[test]
fn values_are_checked_together() {
    let broker = BrokerConfig::defaults();
    let check =
        |pairs: &[(&str, &str)]| topic::check(&overrides(pairs), &broker).map_err(|error| error.to_string());
    assert_eq!(check(&[("min.compaction.lag.ms", "5")]), Ok(()));
    let lag = "conflict topic config setting min.compaction.lag.ms (5) > max.compaction.lag.ms (1)";
    assert_eq!(
        check(&[("min.compaction.lag.ms", "5"), ("max.compaction.lag.ms", "1")]),
        Err(lag.to_string())
    );
    assert!(check(&[("remote.storage.enable", "true")]).is_err());
}

/// The expected texts are the answers of a Kafka 4.1.1 broker with `log.retention.hours=100` and `message.max.bytes=2000000`.
#[test]
fn described_as_kafka_describes() {
    let broker = loaded("log.retention.hours = 100\nmessage.max.bytes = 2000000");
    let plain = describe::topic(&Overrides::new(), &broker);
    assert_eq!(plain.len(), 36);
    assert_eq!(shown(&plain, "retention.ms"), "360000000/5");
    assert_eq!(shown(&plain, "segment.ms"), "604800000/5");
    assert_eq!(shown(&plain, "segment.bytes"), "1073741824/5 log.segment.bytes=1073741824/5");
    assert_eq!(
        shown(&plain, "max.message.bytes"),
        "2000000/4 message.max.bytes=2000000/4 message.max.bytes=1048588/5"
    );
    assert_eq!(shown(&plain, "remote.storage.enable"), "false/5");
    let own = overrides(&[("retention.ms", "5000"), ("cleanup.policy", "compact")]);
    let set = describe::topic(&own, &broker);
    assert_eq!(shown(&set, "retention.ms"), "5000/1 retention.ms=5000/1");
    assert_eq!(
        shown(&set, "cleanup.policy"),
        "compact/1 cleanup.policy=compact/1 log.cleanup.policy=delete/5"
    );

    let of_all = BTreeMap::from([("log.retention.ms".to_string(), "1234567".to_string())]);
    let of_this = BTreeMap::from([("log.retention.ms".to_string(), "123456".to_string())]);
    let altered = broker.with_dynamic(&of_all, &of_this);
    assert_eq!(
        shown(&describe::topic(&Overrides::new(), &altered), "retention.ms"),
        "123456/2 log.retention.ms=123456/2 log.retention.ms=1234567/3 log.retention.hours=100/4 log.retention.hours=168/5"
    );
    let all = describe::all_brokers(&altered);
    assert_eq!(all.len(), 1);
    assert_eq!(shown(&all, "log.retention.ms"), "1234567/3 log.retention.ms=1234567/3");
    assert_eq!(altered.with_dynamic(&BTreeMap::new(), &BTreeMap::new()), broker);
}

#[test]
fn a_broker_describes_every_key() {
    let mut loader = Loader::default();
    loader.set(Source::File, "ssl.key.password", "hunter2").unwrap();
    let config = loader.finish().unwrap();
    let all = describe::broker(&config);
    assert!(all.len() > 316);
    assert_eq!(shown(&all, "ssl.key.password"), "null/4 ssl.key.password=null/4");
    assert_eq!(shown(&all, "log.retention.ms"), "null/5");
    assert_eq!(shown(&all, "num.io.threads"), "8/5 num.io.threads=8/5");
    let node = all.iter().find(|entry| entry.name == "node.id").unwrap();
    assert!(node.read_only && node.kind.id() == 3);
    assert!(!format!("{:?}", describe::broker(&config)).contains("hunter2"));
    assert!(describe::topic(&Overrides::new(), &config).iter().all(|entry| !entry.doc().is_empty()));
}
