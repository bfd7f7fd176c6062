use std::collections::BTreeMap;
use std::sync::Arc;

use super::configs::{self, Alter, AlterResource};
use super::image::{Broker, Image};
use super::journal::{BLOCK, Header, Point, VERSION, Writer};
use super::meta::{FORMAT, Meta};
use super::metastore::{self, Files, Recovered, Row, begin, recover, unformatted};
use super::placement::{Load, home, placed_anew};
use super::record::{BadRecord, Record};
use super::topics::{Deleted, MorePartitions, NewTopic, TopicRef};
use super::{Controller, Refusal};
use crate::base::error::Refused;
use crate::base::ids::{BrokerId, PartitionIndex, ShardId, Uuid};
use crate::config::broker::BrokerConfig;
use crate::config::source::{Loader, Source};
use crate::config::topic::Durability;

const CLUSTER: Uuid = Uuid([7; 16]);

/// A broker with id 1 and these settings, just formatted.
fn image(settings: &[(&str, &str)]) -> Image {
    let mut loader = Loader::default();
    for (key, value) in settings {
        loader.set(Source::Flag, key, value).unwrap();
    }
    with_config(loader.finish().unwrap())
}

fn with_config(config: BrokerConfig) -> Image {
    let me = Broker { id: BrokerId(1), host: "127.0.0.1".to_string(), port: 9092, rack: None };
    Image::new("cluster".to_string(), Arc::new(config), vec![me])
}

fn controller(settings: &[(&str, &str)]) -> Controller {
    Controller::new(image(settings))
}

/// Draws 1, 2, 3, ... as ids.
fn ids() -> impl FnMut() -> Uuid {
    let mut last = 0u128;
    move || {
        last += 1;
        Uuid(last.to_be_bytes())
    }
}

fn topic(name: &str, partitions: i32, replication_factor: i16) -> NewTopic {
    NewTopic { name: name.to_string(), partitions, replication_factor, ..NewTopic::default() }
}

fn with(name: &str, configs: &[(&str, Option<&str>)]) -> NewTopic {
    let configs = configs.iter().map(|(key, value)| (key.to_string(), value.map(str::to_string)));
    NewTopic { configs: configs.collect(), ..topic(name, 1, 1) }
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> NewTopic {
    let assignments = assignments.iter().map(|(index, brokers)| (*index, brokers.to_vec()));
    NewTopic { assignments: assignments.collect(), ..topic(name, -1, -1) }
}

fn create(controller: &mut Controller, topics: &[NewTopic]) -> Vec<String> {
    let results = controller.create_topics(topics, false, ids()).reply;
    results.iter().map(|(_, result)| text(result.as_ref().map(|_| ()))).collect()
}

/// `ok`, or the number's name and the text.
fn text(result: Result<(), &Refusal>) -> String {
    match result {
        Ok(()) => "ok".to_string(),
        Err(refusal) => format!("{:?}: {}", refusal.error, refusal.message.as_deref().unwrap_or("-")),
    }
}

fn alter(controller: &mut Controller, kind: i8, name: &str, alters: &[(&str, i8, Option<&str>)]) -> String {
    let alters = alters.iter().map(|(key, op, value)| Alter {
        key: key.to_string(),
        op: *op,
        value: value.map(str::to_string),
    });
    let resource = AlterResource { kind, name: name.to_string(), alters: alters.collect() };
    text(controller.alter_configs(&[resource], false).reply[0].as_ref().copied())
}

#[test]
fn topics_are_refused_as_kafka_refuses_them() {
    let mut controller = controller(&[]);
    assert_eq!(create(&mut controller, &[topic("plain", 2, 1), topic("a.b", -1, -1)]), ["ok", "ok"]);
    let check = |controller: &mut Controller, topic: NewTopic, expected: &str| {
        assert_eq!(create(controller, &[topic]), [expected]);
    };
    let c = &mut controller;
    check(c, topic("", 1, 1), "InvalidTopic: Topic name is invalid: the empty string is not allowed");
    check(c, topic("..", 1, 1), "InvalidTopic: Topic name is invalid: '..' is not allowed");
    let long = "a".repeat(250);
    let expected = format!(
        "InvalidTopic: Topic name is invalid: the length of '{long}' is longer than the max allowed length 249"
    );
    check(c, topic(&long, 1, 1), &expected);
    let charset = "InvalidTopic: Topic name is invalid: 'ü' contains one or more characters other than ASCII \
                   alphanumerics, '.', '_' and '-'";
    check(c, topic("ü", 1, 1), charset);
    check(c, topic("plain", 2, 1), "TopicAlreadyExists: Topic 'plain' already exists.");
    check(c, topic("a_b", 1, 1), "InvalidTopic: Topic 'a_b' collides with existing topic: a.b");
    let positive = "InvalidPartitions: Number of partitions was set to an invalid non-positive value.";
    check(c, topic("x", 0, 1), positive);
    check(c, topic("x", -2, 1), positive);
    let factor =
        "InvalidReplicationFactor: Replication factor must be larger than 0, or -1 to use the default value.";
    check(c, topic("x", 0, 0), factor);
    let three = "InvalidReplicationFactor: Unable to replicate the partition 3 time(s): The target replication factor \
                 of 3 cannot be reached because only 1 broker(s) are registered.";
    check(c, topic("x", 1, 3), three);
    let many = "PolicyViolation: Excessively large number of partitions per request.";
    check(c, topic("x", 10_001, 1), many);
    assert_eq!(create(c, &[topic("x", 6000, 1), topic("y", 6000, 1)]), [many, many]);
    let twice = [topic("x", 1, 1), topic("x", 2, 1), topic("z", 1, 1)];
    assert_eq!(create(c, &twice), ["InvalidRequest: Duplicate topic name.", "ok"]);
    assert_eq!(create(c, &[topic("c.d", 1, 1), topic("c_d", 1, 1)]), ["ok", "ok"], "only with what exists");
}

/// A count below zero once made room in the sum for one of two thousand million, and the broker ended for want of memory.
#[test]
fn a_negative_count_makes_no_room_for_another_topic() {
    let many = "PolicyViolation: Excessively large number of partitions per request.";
    let asked = [topic("a", i32::MAX, 1), topic("b", 7 - i32::MAX, 1)];
    assert_eq!(create(&mut controller(&[]), &asked), [many, many]);
    assert_eq!(
        text(controller(&[]).create_topics(&asked, true, ids()).reply[0].1.as_ref().map(|_| ())),
        many
    );
    let fits = [topic("a", 10_000, 1), topic("b", -7, 1)];
    let negative = "InvalidPartitions: Number of partitions was set to an invalid non-positive value.";
    assert_eq!(create(&mut controller(&[]), &fits), ["ok", negative]);
}

#[test]
fn assignments_are_checked() {
    let mut controller = controller(&[]);
    let mut check =
        |topic: NewTopic, expected: &str| assert_eq!(create(&mut controller, &[topic]), [expected]);
    check(assigned("ok1", &[(1, &[1]), (0, &[1])]), "ok");
    let gap = "InvalidReplicaAssignment: partitions should be a consecutive 0-based integer sequence";
    check(assigned("x", &[(1, &[1])]), gap);
    let includes =
        |what: &str| format!("InvalidReplicaAssignment: The manual partition assignment includes {what}");
    check(assigned("x", &[(0, &[1, 1])]), &includes("the broker 1 more than once."));
    check(assigned("x", &[(0, &[1, 2])]), &includes("broker 2, but no such broker is registered."));
    check(assigned("x", &[(0, &[])]), &includes("an empty replica list."));
    let multiple = "InvalidReplicaAssignment: Found multiple manual partition assignments for partition 0";
    check(assigned("x", &[(0, &[1]), (0, &[1])]), multiple);
    let count = NewTopic { partitions: 1, ..assigned("x", &[(0, &[1])]) };
    check(
        count,
        "InvalidRequest: A manual partition assignment was specified, but numPartitions was not set to -1.",
    );
    let factor = NewTopic { replication_factor: 1, ..assigned("x", &[(0, &[1])]) };
    let not_set = "InvalidRequest: A manual partition assignment was specified, but replication factor was not set to -1.";
    check(factor, not_set);
}

#[test]
fn configurations_of_new_topics_are_checked() {
    let mut controller = controller(&[]);
    let mut check =
        |topic: NewTopic, expected: &str| assert_eq!(create(&mut controller, &[topic]), [expected]);
    check(with("x", &[("nope", Some("1"))]), "InvalidConfig: Unknown topic config name: nope");
    let null = "InvalidConfig: Null value not supported for topic configs: retention.ms";
    check(with("x", &[("retention.ms", None)]), null);
    let number = "InvalidConfig: Invalid value abc for configuration retention.ms: Not a number of type LONG";
    check(NewTopic { partitions: 0, ..with("x", &[("retention.ms", Some("abc"))]) }, number);
    check(with("y", &[("retention.ms", Some("1")), ("retention.ms", Some("2"))]), "ok");
    check(with("z", &[("durability", Some("memory"))]), "ok");
    assert_eq!(controller.staged().topic("y").unwrap().config.retention_ms, 2);
    assert_eq!(controller.staged().topic("z").unwrap().config.durability, Durability::Memory);
}

#[test]
fn the_clamp_stores_once_what_asks_for_more() {
    let mut controller =
        controller(&[("replication.factor.clamp", "true"), ("default.replication.factor", "3")]);
    let parked = controller.create_topics(&[topic("a", 1, 3), topic("b", -1, -1)], false, ids());
    let factors: Vec<i16> =
        parked.reply.iter().map(|(_, result)| result.as_ref().unwrap().replication_factor).collect();
    assert_eq!(factors, [1, 1]);
}

#[test]
fn validate_only_changes_nothing() {
    let mut controller = controller(&[]);
    let parked = controller.create_topics(&[topic("a", 3, 1)], true, ids());
    assert!(parked.reply[0].1.is_ok());
    assert_eq!((parked.after, controller.take_batch()), (0, None));
    assert!(controller.staged().topic("a").is_none());
}

#[test]
fn topics_are_deleted_by_name_or_id() {
    let mut c = controller(&[]);
    let _ = create(&mut c, &[topic("a", 2, 1), topic("b", 1, 1), topic("c", 1, 1), topic("d", 1, 1)]);
    let id = |c: &Controller, name: &str| c.staged().topic(name).unwrap().id;
    let (a, b) = (id(&c, "a"), id(&c, "b"));
    let by_name = |name: &str| TopicRef { name: Some(name.to_string()), id: Uuid::ZERO };
    let by_id = |id: Uuid| TopicRef { name: None, id };
    let shown = |deleted: &Deleted| {
        let name = deleted.name.as_deref().unwrap_or("null").to_string();
        format!("{name} {}", text(deleted.refused.as_ref().map_or(Ok(()), Err)))
    };
    let delete = |c: &mut Controller, refs: &[TopicRef]| -> Vec<String> {
        c.delete_topics(refs).reply.iter().map(shown).collect()
    };
    let supplied = "b InvalidRequest: The provided topic name maps to an ID that was already supplied.";
    assert_eq!(delete(&mut c, &[by_id(b), by_name("b")]), [supplied]);
    assert_eq!(delete(&mut c, &[by_name("b"), by_id(b)]), [supplied]);
    assert_eq!(delete(&mut c, &[by_name("c"), by_name("c")]), ["c InvalidRequest: Duplicate topic name."]);
    assert_eq!(delete(&mut c, &[by_id(a), by_name("d")]), ["a ok", "d ok"]);
    let both = TopicRef { name: Some("b".to_string()), id: b };
    let expected = [
        "null UnknownTopicId: This server does not host this topic ID.",
        "a UnknownTopicOrPartition: This server does not host this topic-partition.",
        "null InvalidRequest: Neither topic name nor id were specified.",
        "b InvalidRequest: You may not specify both topic name and topic id.",
    ];
    assert_eq!(delete(&mut c, &[by_id(a), by_name("a"), by_id(Uuid::ZERO), both]), expected);
    let left: Vec<&str> = c.staged().topics().map(|topic| topic.name.as_str()).collect();
    assert_eq!(left, ["b", "c"]);

    let mut forbidden = controller(&[("delete.topic.enable", "false")]);
    let _ = create(&mut forbidden, &[topic("a", 1, 1)]);
    let refused = "a TopicDeletionDisabled: Topic deletion is disabled.";
    assert_eq!(delete(&mut forbidden, &[by_name("a")]), [refused]);
}

#[test]
fn a_topic_that_is_created_again_has_another_id() {
    let mut controller = controller(&[]);
    let mut ids = ids();
    let first = controller.create_topics(&[topic("a", 1, 1)], false, &mut ids).reply.remove(0).1.unwrap().id;
    let _ = controller.delete_topics(&[TopicRef { name: Some("a".to_string()), id: Uuid::ZERO }]);
    let second = controller.create_topics(&[topic("a", 1, 1)], false, &mut ids).reply.remove(0).1.unwrap().id;
    assert_ne!(first, second);
    assert!(controller.staged().topic_by_id(first).is_none());
}

#[test]
fn partitions_are_only_added() {
    let mut controller = controller(&[]);
    let _ = create(&mut controller, &[topic("a", 2, 1), topic("b", 2, 1)]);
    type Asked<'a> = (&'a str, i32, Option<&'a [&'a [i32]]>);
    let mut add = |asked: &[Asked<'_>]| -> Vec<String> {
        let assignments = |of: &[&[i32]]| of.iter().map(|brokers| brokers.to_vec()).collect();
        let asked = asked.iter().map(|(name, count, chosen)| MorePartitions {
            name: name.to_string(),
            count: *count,
            assignments: chosen.map(assignments),
        });
        let results = controller.create_partitions(&asked.collect::<Vec<_>>(), false).reply;
        results.iter().map(|(_, result)| text(result.as_ref().copied())).collect()
    };
    let expected =
        ["InvalidPartitions: Topic already has 2 partition(s).", "UnknownTopicOrPartition: -", "ok"];
    assert_eq!(add(&[("a", 2, None), ("nope", 3, None), ("b", 5, None)]), expected);
    let fewer = "InvalidPartitions: The topic a currently has 2 partition(s); -1 would not be an increase.";
    assert_eq!(add(&[("a", -1, None)]), [fewer]);
    assert_eq!(add(&[("a", 3, None), ("a", 4, None)]), ["InvalidRequest: Duplicate topic name."]);
    let too_few = "InvalidReplicaAssignment: Attempted to add 2 additional partition(s), but only 1 assignment(s) were \
                   specified.";
    assert_eq!(add(&[("a", 4, Some(&[&[1]]))]), [too_few]);
    assert_eq!(add(&[("a", 4, Some(&[&[1], &[1]]))]), ["ok"]);
    assert_eq!(
        add(&[("a", 2_000_000, None)]),
        ["PolicyViolation: Excessively large number of partitions per request."]
    );
    let counts: Vec<usize> = controller.staged().topics().map(|topic| topic.partitions.len()).collect();
    assert_eq!(counts, [4, 5]);
}

#[test]
fn topic_configurations_are_altered_by_increments() {
    let mut c = controller(&[]);
    let _ = create(&mut c, &[topic("a", 1, 1), topic("b", 1, 1)]);
    let policy = |c: &Controller| c.staged().topic("a").unwrap().overrides.get("cleanup.policy").cloned();
    let append = [("retention.ms", 0, Some("5000")), ("cleanup.policy", 2, Some("compact"))];
    assert_eq!(alter(&mut c, 2, "a", &append), "ok");
    assert_eq!(policy(&c).as_deref(), Some("delete,compact"));
    assert_eq!(alter(&mut c, 2, "a", &[("cleanup.policy", 3, Some("compact,delete"))]), "ok");
    assert_eq!(policy(&c).as_deref(), Some(""));
    assert_eq!(alter(&mut c, 2, "a", &[("cleanup.policy", 1, None), ("nope", 1, None)]), "ok");
    assert_eq!(policy(&c), None);
    let mut check = |name: &str, alters: &[(&str, i8, Option<&str>)], expected: &str| {
        assert_eq!(alter(&mut c, 2, name, alters), expected);
    };
    check("nope", &[], "UnknownTopicOrPartition: The topic 'nope' does not exist.");
    check("..", &[], "InvalidTopic: Topic name is invalid: '..' is not allowed");
    check("", &[], "InvalidRequest: Default topic resources are not allowed.");
    check("a", &[("nope", 0, Some("5"))], "InvalidConfig: Unknown topic config name: nope");
    let list = "InvalidConfig: Can't APPEND to key retention.ms because its type is not LIST.";
    check("a", &[("retention.ms", 2, Some("5"))], list);
    check("a", &[("retention.ms", 0, None)], "InvalidRequest: Null value not supported for : retention.ms");
    check("a", &[("retention.ms", 9, Some("1"))], "UnknownServerError: -");
    let twice = [("retention.ms", 0, Some("1")), ("retention.ms", 1, None)];
    check("a", &twice, "InvalidRequest: Error due to duplicate config keys");
    let low = "InvalidConfig: Invalid value -2 for configuration retention.ms: Value must be at least -1";
    check("a", &[("retention.bytes", 0, Some("7")), ("retention.ms", 0, Some("-2"))], low);
    assert!(
        !c.staged().topic("a").unwrap().overrides.contains_key("retention.bytes"),
        "all of a resource, or nothing"
    );

    let set = |name: &str, value: &str| AlterResource {
        kind: 2,
        name: name.to_string(),
        alters: vec![Alter { key: "retention.ms".to_string(), op: 0, value: Some(value.to_string()) }],
    };
    let results = c.alter_configs(&[set("a", "x"), set("b", "7")], false).reply;
    assert!(results[0].is_err() && results[1].is_ok(), "resources stand by themselves");
    let results = c.alter_configs(&[set("a", "1"), set("a", "2")], false).reply;
    assert!(
        results.iter().all(|result| text(result.as_ref().copied()).ends_with("must appear at most once."))
    );
}

#[test]
fn broker_configurations_reach_topics() {
    let mut c = controller(&[("log.retention.hours", "100")]);
    let _ = create(&mut c, &[topic("a", 1, 1)]);
    let retention = |c: &Controller| c.staged().topic("a").unwrap().config.retention_ms;
    assert_eq!(retention(&c), 360_000_000);
    assert_eq!(alter(&mut c, 4, "", &[("log.retention.ms", 0, Some("2000"))]), "ok");
    assert_eq!(retention(&c), 2000);
    assert_eq!(alter(&mut c, 4, "1", &[("log.retention.ms", 0, Some("1000"))]), "ok");
    assert_eq!(retention(&c), 1000);
    assert_eq!(alter(&mut c, 4, "1", &[("log.retention.ms", 1, None)]), "ok");
    assert_eq!(alter(&mut c, 4, "", &[("log.retention.ms", 1, None)]), "ok");
    assert_eq!(retention(&c), 360_000_000);
    let mut check = |name: &str, key: &str, op: i8, value: &str, expected: &str| {
        assert_eq!(alter(&mut c, 4, name, &[(key, op, Some(value))]), expected);
    };
    check("1", "node.id", 0, "3", "InvalidRequest: Cannot update these configs dynamically: Set(node.id)");
    let number =
        "InvalidRequest: Invalid value x for configuration log.retention.ms: Not a number of type LONG";
    check("1", "log.retention.ms", 0, "x", number);
    check(
        "2",
        "log.retention.ms",
        0,
        "1",
        "InvalidRequest: Unexpected broker id, expected 1, but received 2",
    );
    check("x", "log.retention.ms", 0, "1", "InvalidRequest: Node id must be an integer, but it is: x");
    let append = "InvalidConfig: Config value append is not allowed for config key: log.retention.ms";
    check("1", "log.retention.ms", 2, "1", append);
    check(
        "1",
        "log.retention.mss",
        0,
        "1",
        "InvalidConfig: Unknown broker config name: log.retention.mss; did you mean log.retention.ms?",
    );
    check("", "log.cleanup.policy", 2, "compact", "ok");
    check("1", "num.io.threads", 0, "4", "ok");
    assert!(c.staged().topic("a").unwrap().config.compact);
}

#[test]
fn describing_refuses_as_kafka_does() {
    let image = image(&[]);
    let check = |kind: i8, name: &str, expected: &str| {
        assert_eq!(text(configs::describe(&image, kind, name).as_ref().map(|_| ())), expected);
    };
    check(2, "nope", "UnknownTopicOrPartition: -");
    check(2, "", "InvalidTopic: Topic name is invalid: the empty string is not allowed");
    let other = "InvalidRequest: Unexpected broker id, expected 1 or empty string, but received 2";
    check(4, "2", other);
    check(4, "x", "InvalidRequest: Broker id must be an integer, but it is: x");
    check(8, "2", "InvalidRequest: Unexpected broker id, expected 1 but received 2");
    check(32, "", "InvalidRequest: Group name must not be empty");
    check(4, "1", "ok");
    check(4, "", "ok");
    assert!(configs::describe(&image, 99, "z").is_err() && !configs::is_resource_type(99));
}

#[test]
fn partitions_spread_over_the_shards() {
    let mut c = controller(&[("shards", "3")]);
    let _ = create(&mut c, &[topic("a", 4, 1), topic("b", 2, 1)]);
    let shards = |c: &Controller, name: &str| -> Vec<u16> {
        c.staged().topic(name).unwrap().partitions.iter().map(|partition| partition.shard.0).collect()
    };
    assert_eq!((shards(&c, "a"), shards(&c, "b")), (vec![0, 1, 2, 0], vec![1, 2]));
    let more = MorePartitions { name: "b".to_string(), count: 4, assignments: None };
    assert!(c.create_partitions(&[more], false).reply[0].1.is_ok());
    assert_eq!(shards(&c, "b"), [1, 2, 0, 1]);
    assert_eq!(home(ShardId(2), 2), ShardId(0));
    assert_eq!(
        Load::of(c.staged(), 2).place([None; 3]),
        [ShardId(1), ShardId(1), ShardId(0)],
        "after a change of shards"
    );
}

// What one shard had written stayed on the first of four for ever.
#[test]
fn another_number_of_shards_places_anew() {
    let shards = |image: &Image, name: &str| -> Vec<u16> {
        image.topic(name).unwrap().partitions.iter().map(|partition| partition.shard.0).collect()
    };
    let mut c = controller(&[]);
    let _ = create(&mut c, &[topic("a", 4, 1), topic("b", 3, 1)]);
    let mut records = c.staged().records();
    for count in ["4", "3", "1", "8"] {
        let mut next = image(&[("shards", count)]);
        next.load(records).unwrap();
        let anew = placed_anew(&next);
        next.apply(&anew).unwrap();
        assert!(placed_anew(&next).is_empty(), "and a restart moves nothing");
        let expected = match count {
            "4" => (vec![0, 1, 2, 3], vec![0, 1, 2]),
            "3" => (vec![0, 1, 2, 0], vec![1, 2, 0]),
            "1" => (vec![0; 4], vec![0; 3]),
            _ => (vec![0, 1, 2, 3], vec![4, 5, 6]),
        };
        assert_eq!((shards(&next, "a"), shards(&next, "b")), expected, "{count} shards");
        records = next.records();
    }
}

// Records of brokers that kept no count say nothing about it: what was asked for is not undone.
#[test]
fn a_placement_without_a_count_stays_and_gets_one() {
    let mut c = controller(&[("shards", "2")]);
    let _ = create(&mut c, &[topic("a", 4, 1)]);
    let mut records = c.staged().records();
    for record in &mut records {
        if let Record::Placement { shards, of, .. } = record {
            (*shards, *of) = (vec![ShardId(1), ShardId(1), ShardId(1), ShardId(3)], None);
        }
    }
    let mut next = image(&[("shards", "2")]);
    next.load(records).unwrap();
    let anew = placed_anew(&next);
    next.apply(&anew).unwrap();
    let topic = next.topic("a").unwrap();
    assert_eq!(topic.placed_of, Some(2));
    assert!(topic.partitions.iter().all(|partition| partition.shard == ShardId(1)));
}

#[test]
fn producer_ids_are_never_given_twice() {
    let mut c = controller(&[]);
    let given: Vec<i64> = (0..1001).map(|_| c.next_producer_id().reply.0).collect();
    assert!(given.iter().copied().eq(0..1001));
    let batch = c.take_batch().unwrap();
    assert_eq!(batch.records, [Record::ProducerIds { next: 1000 }, Record::ProducerIds { next: 2000 }]);
    let mut restarted = image(&[]);
    restarted.load(batch.records).unwrap();
    assert_eq!(Controller::new(restarted).next_producer_id().reply.0, 2000);
}

#[test]
fn answers_wait_for_what_they_have_seen() {
    let mut c = controller(&[]);
    let first = c.create_topics(&[topic("a", 1, 1)], false, ids());
    let seen = c.create_topics(&[topic("a", 1, 1)], false, ids());
    assert!(seen.reply[0].1.is_err());
    assert_eq!(
        (first.after, seen.after),
        (1, 1),
        "a refusal because of something that is not durable waits too"
    );
    let batch = c.take_batch().unwrap();
    let later = c.create_topics(&[topic("b", 1, 1)], false, ids());
    assert_eq!((batch.through, later.after, c.durable_through()), (1, 2, 0));
    let image = c.durable(batch.through).unwrap();
    assert!(image.topic("a").is_some() && image.topic("b").is_none(), "only what is durable is published");
    let batch = c.take_batch().unwrap();
    assert!(c.durable(batch.through).unwrap().topic("b").is_some());
    assert_eq!(c.take_batch(), None);
    assert_eq!(c.create_topics(&[topic("a", 1, 1)], false, ids()).after, c.durable_through());
}

#[test]
fn records_are_values_under_keys() {
    let mut c = controller(&[]);
    let _ = create(&mut c, &[with("a", &[("retention.ms", Some("5"))])]);
    let _ = alter(&mut c, 4, "", &[("log.retention.ms", 0, Some("2000"))]);
    let batch = c.take_batch().unwrap().records;
    let stored: Vec<String> =
        batch.iter().map(|record| format!("{} {}", record.key(), record.value().unwrap())).collect();
    let id = "00000000-0000-0000-0000-000000000001";
    let expected = [
        format!(r#"topics/a {{"v":1,"id":"{id}","config":{{"retention.ms":"5"}}}}"#),
        format!(r#"p/{id}/0 {{"v":1,"leader":1,"leader_epoch":0,"replicas":[1]}}"#),
        format!(r#"placement/{id} {{"v":1,"shards":[0],"of":0}}"#),
        r#"config/default {"v":1,"config":{"log.retention.ms":"2000"}}"#.to_string(),
    ];
    assert_eq!(stored, expected);
    for record in c.staged().records().into_iter().chain(batch) {
        let gone = Record::Gone(record.key());
        assert_eq!(Record::parse(&record.key().to_string(), None), Ok(gone));
        assert_eq!(Record::parse(&record.key().to_string(), record.value().as_deref()), Ok(record));
    }
    assert_eq!(Record::parse("topics/a", Some(r#"{"v":2}"#)), Err(BadRecord::Newer));
    assert_eq!(Record::parse("topics/a", Some(r#"{"v":1}"#)), Err(BadRecord::Value));
    assert_eq!(Record::parse("what/a", Some("{}")), Err(BadRecord::Key));
    let stray = Record::Placement { topic: Uuid([9; 16]), shards: Vec::new(), of: None };
    assert!(image(&[]).apply(&[stray]).is_err());
}

#[test]
fn the_meta_file_says_whose_directory_it_is() {
    let meta = Meta { cluster: CLUSTER, node_id: BrokerId(1), directory: Uuid([3; 16]) };
    let bytes = meta.encode();
    assert_eq!(bytes.len(), BLOCK);
    assert_eq!(Meta::decode(&bytes, "/d", BrokerId(1)), Ok(meta.clone()));
    assert_eq!(meta.cluster_id(), CLUSTER.to_kafka_text());
    let code = |bytes: &[u8], node: i32| Meta::decode(bytes, "/d", BrokerId(node)).unwrap_err().code;
    assert_eq!(code(&bytes, 2), "data-dir-foreign");
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(code(text.replace(r#""node_id":1"#, r#""node_id":2"#).as_bytes(), 2), "metadata-corrupt");
    let newer = text.replace(&format!(r#""format":{FORMAT}"#), r#""format":9"#);
    assert_eq!(code(newer.as_bytes(), 1), "format-newer");
    assert_eq!(code(b"", 1), "metadata-corrupt");
}

/// The files of a broker, as bytes: what the caller's operations would have made durable.
#[derive(Clone)]
struct Disk {
    files: BTreeMap<u64, Files>,
    writer: Writer,
}

impl Disk {
    fn format() -> (Disk, Controller) {
        let mut disk = Disk { files: BTreeMap::new(), writer: Writer::new(0, Point::default()) };
        let image = image(&[]);
        disk.begin(&image, 1, Point::default());
        (disk, Controller::new(image))
    }

    fn begin(&mut self, image: &Image, number: u64, point: Point) {
        let generation = begin(image, CLUSTER, number, point);
        let (snapshot, journal) = (Some(generation.snapshot), Some(generation.journal_header));
        self.files.insert(number, Files { generation: number, snapshot, journal });
        self.writer = generation.writer;
    }

    /// Begins the next generation as a start or a roll does.
    fn roll(&mut self, image: &Image) {
        let (number, point) = (self.files.keys().last().unwrap() + 1, self.writer.point());
        self.begin(image, number, point);
    }

    /// Writes what the controller decided; the bytes of the write.
    fn write(&mut self, controller: &mut Controller) -> Vec<u8> {
        let batch = controller.take_batch().unwrap();
        let write = self.writer.encode(&batch.records);
        let journal = self.journal(self.writer.generation());
        journal.truncate(write.position as usize);
        journal.resize(write.position as usize, 0);
        journal.extend_from_slice(&write.bytes);
        let _ = controller.durable(batch.through);
        write.bytes
    }

    fn create(&mut self, controller: &mut Controller, name: &str) {
        let _ = controller
            .create_topics(&[topic(name, 2, 1)], false, || Uuid::from_random([name.len() as u8; 16]));
        self.write(controller);
    }

    fn journal(&mut self, number: u64) -> &mut Vec<u8> {
        self.files.get_mut(&number).unwrap().journal.as_mut().unwrap()
    }

    fn snapshot(&mut self, number: u64) -> &mut Vec<u8> {
        self.files.get_mut(&number).unwrap().snapshot.as_mut().unwrap()
    }

    fn recover(&self) -> Result<Recovered, crate::base::error::Fatal> {
        recover(&self.files.values().cloned().collect::<Vec<_>>(), CLUSTER, "/d")
    }

    /// The names of the topics that are recovered, and the rows that decided it.
    fn topics(&self) -> (String, Vec<Row>) {
        let recovered = self.recover().unwrap();
        let image = load(&recovered);
        let names: Vec<&str> = image.topics().map(|topic| topic.name.as_str()).collect();
        (names.join(" "), recovered.rows)
    }

    fn refusal(&self) -> String {
        let fatal = self.recover().unwrap_err();
        assert!(!fatal.tries.is_empty());
        format!("{}: {}", fatal.code, fatal.summary)
    }
}

fn load(recovered: &Recovered) -> Image {
    let mut image = image(&[]);
    image.load(recovered.records.clone()).unwrap();
    image
}

/// Generation 1 with topics a and bb, generation 2 with ccc and dddd.
fn two_generations() -> Disk {
    let (mut disk, mut controller) = Disk::format();
    disk.create(&mut controller, "a");
    disk.create(&mut controller, "bb");
    disk.roll(controller.staged());
    disk.create(&mut controller, "ccc");
    disk.create(&mut controller, "dddd");
    disk
}

#[test]
fn row_whole() {
    let disk = two_generations();
    assert_eq!(disk.topics(), ("a bb ccc dddd".to_string(), vec![Row::Whole { generation: 2 }]));
    let recovered = disk.recover().unwrap();
    assert_eq!((recovered.point.seq, recovered.next, recovered.remove), (4, 3, vec![1]));
    let mut padded = disk.clone();
    padded.journal(2).resize(1 << 16, 0);
    assert_eq!(padded.topics(), disk.topics(), "zeros that were allocated ahead are no tail");
}

#[test]
fn row_without_meta() {
    let decide = |disk: &Disk| {
        let files: Vec<Files> = disk.files.values().cloned().collect();
        unformatted(&files, "/d").map_err(|fatal| fatal.summary)
    };
    let refused = |disk: &Disk, file: &str, what: &str| {
        assert_eq!(decide(disk), Err(format!("/d/meta is missing, and {file} {what}")));
    };
    let (empty, mut controller) = Disk::format();
    assert_eq!(unformatted(&[], "/d").unwrap(), 0);
    assert_eq!(decide(&empty), Ok(2), "a format that did not end");
    let mut torn = empty.clone();
    torn.files.insert(2, Files { generation: 2, snapshot: None, journal: Some(vec![0; BLOCK]) });
    assert_eq!(decide(&torn), Ok(3), "another one, which ended earlier");
    let mut damaged = empty.clone();
    damaged.snapshot(1)[100] ^= 1;
    refused(&damaged, "snapshot-00000000000000000001", "fails its check");

    let mut used = empty.clone();
    used.create(&mut controller, "a");
    let journal = "journal-00000000000000000001";
    refused(&used, journal, "tells of transactions");
    used.journal(1)[..BLOCK].fill(0);
    refused(&used, journal, "tells of transactions");
    used.roll(controller.staged());
    used.files.remove(&1);
    refused(&used, "snapshot-00000000000000000002", "tells of transactions");
    used.files.get_mut(&2).unwrap().snapshot = None;
    refused(&used, "journal-00000000000000000002", "tells of transactions");
}

#[test]
fn row_torn_tail() {
    let mut disk = two_generations();
    let whole = disk.journal(2).len();
    disk.journal(2)[whole - BLOCK + 100] ^= 1;
    let (topics, rows) = disk.topics();
    assert_eq!(topics, "a bb ccc");
    assert!(
        matches!(rows[..], [Row::TornTail { generation: 2, position, dropped }] if position == 2 * BLOCK as u64 && dropped > 100)
    );
}

#[test]
fn row_hole_before_a_later_transaction() {
    let mut disk = two_generations();
    disk.journal(2)[BLOCK + 100] ^= 1;
    assert!(
        disk.refusal()
            .contains("metadata-corrupt: /d/metadata/journal-00000000000000000002 is damaged at byte 4096")
    );
}

#[test]
fn row_unborn() {
    let mut disk = two_generations();
    let expected = disk.topics().0;
    for journal in [Vec::new(), vec![0; BLOCK], vec![0; 1 << 16]] {
        disk.files.insert(3, Files { generation: 3, snapshot: None, journal: Some(journal) });
        let (topics, rows) = disk.topics();
        assert_eq!(topics, expected);
        assert!(rows.contains(&Row::Unborn { generation: 3 }));
        assert_eq!(disk.recover().unwrap().next, 4, "its number is not used again");
    }
}

#[test]
fn row_header_damaged() {
    let mut disk = two_generations();
    disk.journal(2)[40] ^= 1;
    assert!(disk.refusal().contains("the header fails its check"));
    disk.journal(2).fill(0);
    assert!(disk.refusal().contains("the header fails its check"));
}

#[test]
fn row_previous_generation() {
    let expected = "a bb ccc dddd";
    let mut damaged = two_generations();
    damaged.snapshot(2)[100] ^= 1;
    let (topics, rows) = damaged.topics();
    assert_eq!(topics, expected);
    assert!(rows.contains(&Row::PreviousGeneration { generation: 1 }));
    assert_eq!(damaged.recover().unwrap().remove, Vec::<u64>::new());
    let mut missing = two_generations();
    missing.files.get_mut(&2).unwrap().snapshot = None;
    assert_eq!(missing.topics().0, expected);
    // A start that ended between its journal and its snapshot, twice.
    let mut unfinished = two_generations();
    let point = unfinished.writer.point();
    for number in [3, 4] {
        let header = Header { version: VERSION, cluster: CLUSTER, generation: number, continues: point };
        let files = Files { generation: number, snapshot: None, journal: Some(header.encode()) };
        unfinished.files.insert(number, files);
    }
    assert_eq!(unfinished.topics().0, expected);
}

#[test]
fn row_older_journal_is_short() {
    let mut disk = two_generations();
    disk.snapshot(2)[100] ^= 1;
    let whole = disk.journal(1).len();
    disk.journal(1)[whole - BLOCK + 100] ^= 1;
    assert!(disk.refusal().contains("transactions that the next journal continues from are missing"));
}

#[test]
fn row_journal_of_the_snapshot_is_missing() {
    let mut disk = two_generations();
    disk.files.get_mut(&2).unwrap().journal = None;
    assert!(disk.refusal().contains("it is missing, and its snapshot is there"));
    disk.snapshot(2)[100] ^= 1;
    assert!(disk.refusal().contains("it is missing, and its snapshot is there"));
}

#[test]
fn row_no_snapshot() {
    let mut disk = two_generations();
    disk.snapshot(1)[100] ^= 1;
    disk.snapshot(2)[100] ^= 1;
    assert!(disk.refusal().contains("snapshot-00000000000000000002 fails its check"));
    disk.files.clear();
    assert!(disk.refusal().contains("no snapshot"));
}

#[test]
fn rows_foreign_and_newer() {
    let disk = two_generations();
    let files: Vec<Files> = disk.files.values().cloned().collect();
    assert_eq!(recover(&files, Uuid([8; 16]), "/d").unwrap_err().code, "data-dir-foreign");
    let mut newer = disk.clone();
    let header =
        Header { version: VERSION + 1, cluster: CLUSTER, generation: 3, continues: Point::default() };
    newer.files.insert(3, Files { generation: 3, snapshot: None, journal: Some(header.encode()) });
    assert_eq!(newer.recover().unwrap_err().code, "format-newer");
}

/// The story: a process is killed while its last write is on the way. The next start sees a torn tail and goes on without it. Then the write
/// lands after all, whole. Then the newest snapshot rots, so that the old journal is read once more.
#[test]
fn a_write_that_lands_late_is_not_part_of_the_history() {
    let (mut disk, mut controller) = Disk::format();
    disk.create(&mut controller, "a");
    let before = disk.clone();
    disk.create(&mut controller, "late");
    let landed = disk.journal(1).clone();

    let mut disk = before;
    let image = load(&disk.recover().unwrap());
    disk.roll(&image);
    let mut controller = Controller::new(image);
    disk.create(&mut controller, "bb");
    *disk.journal(1) = landed;
    assert_eq!(disk.topics().0, "a bb");
    disk.snapshot(2)[100] ^= 1;
    assert_eq!(disk.topics().0, "a bb");
}

#[test]
fn file_names() {
    assert_eq!(metastore::parse_name(&metastore::journal_name(7)), Some((7, false)));
    assert_eq!(metastore::parse_name(&metastore::snapshot_name(7)), Some((7, true)));
    for other in ["journal-7", "snapshot-00000000000000000007.tmp", "x-00000000000000000007", "journal"] {
        assert_eq!(metastore::parse_name(other), None);
    }
}

/// xorshift64*: small, and the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }

    fn uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        bytes.iter_mut().for_each(|byte| *byte = self.below(256) as u8);
        Uuid::from_random(bytes)
    }
}

fn random_command(controller: &mut Controller, random: &mut Random) {
    let names: Vec<String> = (0..6).map(|i| format!("t{i}")).collect();
    let name = names[random.below(6) as usize].clone();
    match random.below(6) {
        0 | 1 => {
            let topic = topic(&name, 1 + random.below(5) as i32, 1);
            let id = random.uuid();
            let _ = controller.create_topics(&[topic], false, || id);
        }
        2 => {
            let _ = controller.delete_topics(&[TopicRef { name: Some(name), id: Uuid::ZERO }]);
        }
        3 => {
            let count = 1 + random.below(9) as i32;
            let _ = controller.create_partitions(&[MorePartitions { name, count, assignments: None }], false);
        }
        4 => {
            let value = random.below(100).to_string();
            let (kind, name, key) = match random.below(3) {
                0 => (4, String::new(), "log.retention.ms"),
                _ => (2, name, "retention.ms"),
            };
            let _ = alter(controller, kind, &name, &[(key, random.below(2) as i8, Some(&value))]);
        }
        _ => {
            let _ = controller.next_producer_id();
        }
    }
}

/// Two images are the same but for their revision.
fn same(a: &Image, b: &Image) -> bool {
    a.records() == b.records() && a.config == b.config
}

/// Random commands in random batches, a crash in the middle of a write, recovery, and on. `planted` counts a write as durable when it
/// is submitted: the bug that this must find. Returns the seed's failure.
fn fuzz(seed: u64, planted: bool) -> Result<(), String> {
    let random = &mut Random(seed * 2 + 1);
    let (mut disk, mut controller) = Disk::format();
    let mut durable = controller.staged().clone();
    for _life in 0..4 {
        for _ in 0..random.below(12) {
            (0..=random.below(3)).for_each(|_| random_command(&mut controller, random));
            if let Some(batch) = controller.take_batch() {
                let write = disk.writer.encode(&batch.records);
                disk.journal(disk.writer.generation()).extend_from_slice(&write.bytes);
                let published = controller.durable(batch.through).ok_or("nothing published")?;
                durable = published.as_ref().clone();
            }
            if random.below(10) == 0 {
                disk.roll(&durable.clone());
            }
        }
        // The crash: a last write of which any 512-byte sectors landed.
        random_command(&mut controller, random);
        let mut staged = durable.clone();
        if let Some(batch) = controller.take_batch() {
            let write = disk.writer.encode(&batch.records);
            staged = controller.staged().clone();
            let landed = random.below(3);
            let torn: Vec<u8> = write
                .bytes
                .chunks(512)
                .flat_map(|sector| match landed {
                    0 => sector.to_vec(),
                    1 => vec![0; sector.len()],
                    _ if random.below(2) == 0 => sector.to_vec(),
                    _ => vec![0; sector.len()],
                })
                .collect();
            disk.journal(disk.writer.generation()).extend_from_slice(&torn);
        }
        if planted {
            durable = staged.clone();
        }
        if random.below(4) == 0 && disk.files.len() > 1 {
            let newest = *disk.files.keys().last().unwrap();
            let at = random.below(disk.snapshot(newest).len() as u64 - BLOCK as u64 + 80) as usize;
            disk.snapshot(newest)[at] ^= 0x40;
        }
        let recovered = disk.recover().map_err(|fatal| fatal.to_string())?;
        let image = load(&recovered);
        if !same(&image, &durable) && !same(&image, &staged) {
            return Err(format!("seed {seed}: recovered neither the durable nor the staged state"));
        }
        if disk.recover() != Ok(recovered.clone()) {
            return Err(format!("seed {seed}: a second recovery differs"));
        }
        disk.files.retain(|number, _| !recovered.remove.contains(number));
        disk.begin(&image, recovered.next, recovered.point);
        durable = image.clone();
        controller = Controller::new(image);
    }
    Ok(())
}

#[test]
fn any_crash_leaves_the_last_durable_state() {
    for seed in 0..300 {
        fuzz(seed, false).unwrap();
    }
    assert!(
        (0..300).any(|seed| fuzz(seed, true).is_err()),
        "an ack before the write is durable must be found"
    );
}

/// Bytes that nobody wrote are refused or cut off, never a panic.
#[test]
fn damage_anywhere_is_survived() {
    let random = &mut Random(42);
    for _ in 0..500 {
        let mut disk = two_generations();
        for _ in 0..=random.below(3) {
            let number = 1 + random.below(2);
            let file = if random.below(2) == 0 { disk.journal(number) } else { disk.snapshot(number) };
            let at = random.below(file.len() as u64) as usize;
            match random.below(3) {
                0 => file[at] ^= 1 << random.below(8),
                1 => file.truncate(at),
                _ => file[at..].fill(0xff),
            }
            if file.is_empty() {
                file.push(0);
            }
        }
        if let Ok(recovered) = disk.recover() {
            let mut image = image(&[]);
            image.load(recovered.records).unwrap();
            assert!(
                image.topic("a").is_some(),
                "what lies before the newest transactions is never lost silently"
            );
        }
    }
}

#[test]
fn partitions_are_found_by_key() {
    let mut c = controller(&[]);
    let _ = create(&mut c, &[topic("a", 2, 1)]);
    let id = c.staged().topic("a").unwrap().id;
    let key =
        |partition: i32| crate::base::ids::PartitionKey { topic: id, partition: PartitionIndex(partition) };
    assert!(c.staged().partition(key(1)).is_some());
    assert!(c.staged().partition(key(2)).is_none() && c.staged().partition(key(-1)).is_none());
    assert_eq!(c.staged().partitions(), 2);
    let refused = Refusal {
        error: Refused::TopicAlreadyExists,
        message: Some("Topic 'a' already exists.".to_string()),
    };
    let reply = c.auto_create(&["a", "b"], || Uuid([5; 16])).reply;
    assert_eq!(reply[0], ("a".to_string(), Err(refused)));
    assert!(reply[1].1.is_ok());
}
