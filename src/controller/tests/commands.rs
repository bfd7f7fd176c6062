//! What each command does, and what it refuses as Kafka does.

use super::rig::*;
use crate::base::error::Refused;
use crate::base::ids::{PartitionIndex, ShardId, Uuid};
use crate::config::topic::Durability;
use crate::controller::configs::{self, Alter, AlterResource};
use crate::controller::image::Image;
use crate::controller::placement::{Load, home, placed_anew};
use crate::controller::record::Record;
use crate::controller::topics::{Deleted, MorePartitions, NewTopic, TopicRef};
use crate::controller::{Controller, Refusal};

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
