"""CreateTopics, DeleteTopics, CreatePartitions."""

from __future__ import annotations

import uuid
from typing import Any

from session import NO_UUID, Session, fetch_body, produce_body

from .registry import case


def topic(name: str, partitions: int = 1, replicas: int = 1, **more: Any) -> dict[str, Any]:
    return {"name": name, "numPartitions": partitions, "replicationFactor": replicas, **more}


def create(s: Session, v: int, topics: list[dict[str, Any]], label: str, validate_only: bool = False) -> dict[str, Any]:
    return s.call("CreateTopics", v, {"topics": topics, "timeoutMs": 10000, "validateOnly": validate_only}, label)


def config(**values: str | None) -> list[dict[str, Any]]:
    return [{"name": k.replace("_", "."), "value": v} for k, v in values.items()]


def assignment(*brokers: list[int]) -> list[dict[str, Any]]:
    return [{"partitionIndex": i, "brokerIds": ids} for i, ids in enumerate(brokers)]


@case("createtopics.versions")
def versions(s: Session) -> None:
    for v in range(2, 8):
        name = s.name(f"create-{v}")
        create(s, v, [topic(name, 3)], "dry run", validate_only=True)
        create(s, v, [topic(name, 3, configs=config(retention_ms="1000000"))], "new")
        create(s, v, [topic(name, 3)], "exists")
        create(s, v, [topic(name, 3)], "exists, dry run", validate_only=True)
        s.wait_for_topic(name, 3)
        s.call("Metadata", 12, {"topics": [{"name": name}]}, f"made by v{v}")
        create(s, v, [topic(s.name(f"default-{v}"), -1, -1)], "default partitions and replicas")
        create(s, v, [topic(s.name(f"default-p-{v}"), -1, 1)], "default partitions")
        create(s, v, [topic(s.name(f"default-r-{v}"), 2, -1)], "default replicas")
        create(s, v, [], "no topics")


@case("createtopics.names")
def names(s: Session) -> None:
    s.topic("clash.one")
    clash = s.name("clash.one").replace(".", "_")
    for v in (2, 5, 7):
        for bad in ("", ".", "..", "a b", "a/b", "é", "x" * 250, "a\0b"):
            create(s, v, [topic(bad)], f"{bad[:8]!r}")
        create(s, v, [topic(clash)], "differs in . and _ only")
    create(s, 7, [topic(("y" * 249 + s.run_id)[-249:])], "longest name")
    create(s, 7, [topic(s.name("pair.x")), topic(s.name("pair_x"))], "two that clash with each other")
    create(s, 7, [topic("__cluster_metadata")], "__cluster_metadata")


@case("createtopics.counts")
def counts(s: Session) -> None:
    for v in (2, 4, 5, 7):
        for partitions in (0, -2, -100):
            create(s, v, [topic(s.name("count"), partitions)], f"{partitions} partitions")
        for replicas in (0, 2, -2, 32767):
            create(s, v, [topic(s.name("count"), 1, replicas)], f"{replicas} replicas")
        create(s, v, [topic(s.name("count"), 0, 0)], "0 partitions and 0 replicas")
    create(s, 7, [topic(s.name("count"), 2147483647)], "2147483647 partitions", validate_only=True)


@case("createtopics.assignments")
def assignments(s: Session) -> None:
    me = s.node_id
    for v in (2, 5, 7):
        create(s, v, [topic(s.name(f"assigned-{v}"), -1, -1, assignments=assignment([me], [me]))], "right")
        for label, rows in (
                ("unknown broker", assignment([me + 1000])), ("negative broker", assignment([-1])),
                ("broker twice", assignment([me, me])), ("no replicas", assignment([])),
                ("partitions with a gap", [{"partitionIndex": 0, "brokerIds": [me]}, {"partitionIndex": 2, "brokerIds": [me]}]),
                ("starts at 1", [{"partitionIndex": 1, "brokerIds": [me]}]),
                ("partition twice", [{"partitionIndex": 0, "brokerIds": [me]}, {"partitionIndex": 0, "brokerIds": [me]}]),
                ("different replica counts", assignment([me], [me, me + 1]))):
            create(s, v, [topic(s.name("assigned"), -1, -1, assignments=rows)], label)
        create(s, v, [topic(s.name("assigned"), 2, -1, assignments=assignment([me], [me]))], "and a partition count")
        create(s, v, [topic(s.name("assigned"), -1, 1, assignments=assignment([me]))], "and a replica count")


@case("createtopics.configs")
def configs(s: Session) -> None:
    good = {"cleanup.policy": "compact,delete", "retention.ms": "-1", "retention.bytes": "1000", "segment.bytes": "2097152",
            "max.message.bytes": "2000", "compression.type": "zstd", "min.insync.replicas": "1", "segment.ms": "60000",
            "message.timestamp.type": "LogAppendTime", "flush.messages": "1", "preallocate": "true",
            "unclean.leader.election.enable": "true", "delete.retention.ms": "5", "min.cleanable.dirty.ratio": "0.1"}
    for v in (2, 5, 7):
        create(s, v, [topic(s.name(f"configured-{v}"), configs=[{"name": k, "value": x} for k, x in good.items()])], "good")
        for key, value in (("no.such.config", "1"), ("retention.ms", "abc"), ("retention.ms", "-2"), ("retention.ms", ""),
                           ("retention.ms", None), ("cleanup.policy", "other"), ("cleanup.policy", ""),
                           ("compression.type", "rar"), ("max.message.bytes", "-1"), ("segment.bytes", "10"),
                           ("segment.bytes", "99999999999"), ("min.insync.replicas", "0"), ("preallocate", "maybe"),
                           ("message.timestamp.type", "Never"), ("min.cleanable.dirty.ratio", "1.5"),
                           ("message.format.version", "2.8"), ("", "1"), ("retention.ms", " 1000 "), ("segment.ms", "0"),
                           ("min.compaction.lag.ms", "-1"), ("max.compaction.lag.ms", "0"), ("index.interval.bytes", "-1"),
                           ("flush.messages", "0"), ("retention.ms", "1e3"), ("retention.bytes", "-2")):
            create(s, v, [topic(s.name(f"bad-{key}-{value}".replace(" ", "_") + f"-{v}"),
                                configs=[{"name": key, "value": value}])], f"{key}={value}")
    twice = [{"name": "retention.ms", "value": "1000"}, {"name": "retention.ms", "value": "2000"}]
    create(s, 7, [topic(s.name("config-twice"), configs=twice)], "retention.ms twice")
    for key, value in (("remote.storage.enable", "true"), ("remote.storage.enable", "false"), ("local.retention.ms", "1000"),
                       ("local.retention.ms", "-2"), ("leader.replication.throttled.replicas", "*"),
                       ("follower.replication.throttled.replicas", "0:1"), ("compression.gzip.level", "5"),
                       ("compression.zstd.level", "99"), ("file.delete.delay.ms", "1"), ("segment.index.bytes", "100"),
                       ("segment.jitter.ms", "5"), ("flush.ms", "5"), ("message.timestamp.before.max.ms", "5"),
                       ("message.timestamp.after.max.ms", "5"), ("remote.log.copy.disable", "true"),
                       ("internal.segment.bytes", "100"), ("message.downconversion.enable", "true")):
        create(s, 7, [topic(s.name(f"more-{key}-{value}").replace("*", "all").replace(":", "_"),
                            configs=[{"name": key, "value": value}])], f"{key}={value}", validate_only=True)


@case("createtopics.several")
def several(s: Session) -> None:
    known = s.topic("several-known")
    for v in (2, 5, 7):
        new = s.name(f"several-new-{v}")
        create(s, v, [topic(new), topic(known), topic("a b"), topic(s.name(f"none-{v}"), 0)], "good and bad")
        create(s, v, [topic(s.name(f"same-{v}")), topic(s.name(f"same-{v}"))], "name twice")
        create(s, v, [topic(s.name(f"same2-{v}")), topic(s.name(f"same2-{v}")), topic(s.name(f"alone-{v}"))],
               "name twice and another")


@case("deletetopics.versions")
def delete(s: Session) -> None:
    for v in range(1, 6):
        name = s.topic(f"delete-{v}")
        s.call("DeleteTopics", v, {"topicNames": [name], "timeoutMs": 10000}, "known")
        s.wait_for_deletion(name)
        s.call("DeleteTopics", v, {"topicNames": [name], "timeoutMs": 10000}, "again")
        s.call("DeleteTopics", v, {"topicNames": ["bad name", ""], "timeoutMs": 10000}, "bad names")
        other = s.topic(f"delete-other-{v}")
        s.call("DeleteTopics", v, {"topicNames": [other, other], "timeoutMs": 10000}, "twice in one")
        s.call("DeleteTopics", v, {"topicNames": [], "timeoutMs": 10000}, "none")
        s.call("DeleteTopics", v, {"topicNames": [s.topic(f"delete-x-{v}"), s.name("absent")], "timeoutMs": 10000}, "mixed")


@case("deletetopics.v6")
def delete_by_id(s: Session) -> None:
    def ask(rows: list[dict[str, Any]], label: str) -> None:
        s.call("DeleteTopics", 6, {"topics": rows, "timeoutMs": 10000}, label)
    one, two, three = (s.topic(f"id-{i}") for i in range(3))
    ids = [s.topic_id(n) for n in (one, two, three)]
    ask([{"name": None, "topicId": ids[0]}], "id")
    ask([{"name": two, "topicId": NO_UUID}], "name")
    ask([{"name": three, "topicId": ids[2]}], "both")
    ask([{"name": None, "topicId": NO_UUID}], "neither")
    ask([{"name": None, "topicId": uuid.UUID(int=4711)}], "unknown id")
    ask([{"name": s.name("absent"), "topicId": NO_UUID}], "unknown name")
    ask([{"name": "bad name", "topicId": NO_UUID}], "bad name")
    ask([{"name": three, "topicId": NO_UUID}, {"name": None, "topicId": ids[2]}], "the same by name and by id")
    ask([{"name": None, "topicId": ids[2]}, {"name": None, "topicId": ids[2]}], "the same id twice")
    ask([], "none")


@case("deletetopics.recreated")
def recreated(s: Session) -> None:
    name = s.topic("again")
    s.fill(name, s.batch(3))
    old = s.topic_id(name)
    s.quiet("DeleteTopics", 5, {"topicNames": [name], "timeoutMs": 10000})
    s.wait_for_deletion(name)
    s.call("Produce", 9, produce_body(name, s.batch(1)), "to a deleted topic")
    s.call("Produce", 13, produce_body(old, s.batch(1)), "to a deleted id")
    s.call("Fetch", 13, fetch_body(old, 0), "from a deleted id")
    s.call("Fetch", 12, fetch_body(name, 0), "from a deleted topic")
    s.topic("again")
    s.note("a new id", s.topic_id(name) != old)
    s.call("Fetch", 13, fetch_body(old, 0), "from the old id")
    s.call("Produce", 13, produce_body(old, s.batch(1)), "to the old id")
    s.call("Fetch", 12, fetch_body(name, 0, max_wait_ms=0), "the new topic is empty")
    s.call("Produce", 9, produce_body(name, s.batch(1)), "starts at 0")


@case("createpartitions.all")
def partitions(s: Session) -> None:
    def ask(v: int, rows: list[dict[str, Any]], label: str, validate_only: bool = False) -> None:
        s.call("CreatePartitions", v, {"topics": rows, "timeoutMs": 10000, "validateOnly": validate_only}, label)
    me = s.node_id
    for v in range(4):
        name = s.topic(f"grow-{v}", partitions=2)
        ask(v, [{"name": name, "count": 3, "assignments": None}], "dry run", validate_only=True)
        ask(v, [{"name": name, "count": 4, "assignments": None}], "to 4")
        s.wait_for_topic(name, 4)
        for count in (4, 3, 1, 0, -1, -100):
            ask(v, [{"name": name, "count": count, "assignments": None}], f"to {count}")
        ask(v, [{"name": s.name("absent"), "count": 5, "assignments": None}], "unknown topic")
        ask(v, [{"name": "bad name", "count": 5, "assignments": None}], "bad name")
        ask(v, [], "none")
        ask(v, [{"name": name, "count": 5, "assignments": None}, {"name": name, "count": 6, "assignments": None}], "twice")
        ask(v, [{"name": name, "count": 5, "assignments": [{"brokerIds": [me]}]}], "assigned")
        s.wait_for_topic(name, 5)
        ask(v, [{"name": name, "count": 6, "assignments": [{"brokerIds": [me + 1000]}]}], "assigned to an unknown broker")
        ask(v, [{"name": name, "count": 7, "assignments": [{"brokerIds": [me]}]}], "too few assignments")
        ask(v, [{"name": name, "count": 6, "assignments": [{"brokerIds": []}]}], "empty assignment")
        ask(v, [{"name": name, "count": 6, "assignments": []}], "no assignments")
        ask(v, [{"name": name, "count": 6, "assignments": [{"brokerIds": [me, me]}]}], "broker twice")
        ask(v, [{"name": name, "count": 6, "assignments": None}, {"name": s.name("absent"), "count": 2, "assignments": None}],
            "good and bad")
    ask(3, [{"name": s.topic("huge"), "count": 2147483647, "assignments": None}], "to 2147483647", validate_only=True)
