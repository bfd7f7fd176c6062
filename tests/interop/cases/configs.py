"""DescribeConfigs and IncrementalAlterConfigs."""

from __future__ import annotations

from typing import Any

from compare import OWN_SETTINGS
from session import Session

from .registry import case

TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = range(4)
# A broker's own settings: those that every broker of this protocol has.
BROKER_KEYS = ["num.partitions", "auto.create.topics.enable", "message.max.bytes", "log.retention.ms", "log.retention.bytes",
               "log.segment.bytes", "delete.topic.enable", "socket.request.max.bytes", "default.replication.factor",
               "log.cleanup.policy", "compression.type", "min.insync.replicas", "producer.id.expiration.ms"]


def describe(s: Session, v: int, kind: int, name: str, label: str, keys: list[str] | None = None,
             synonyms: bool = False, documentation: bool = False) -> dict[str, Any]:
    return s.call("DescribeConfigs", v, {"resources": [
        {"resourceType": kind, "resourceName": name, "configurationKeys": keys}],
        "includeSynonyms": synonyms, "includeDocumentation": documentation}, label)


@case("describeconfigs.topic")
def topic(s: Session) -> None:
    name = s.topic("described", configs={"retention.ms": "1234567", "cleanup.policy": "compact,delete"})
    for v in range(1, 5):
        answer = describe(s, v, TOPIC, name, "all")
        s.note(f"names at v{v}", sorted(c["name"] for c in answer["results"][0]["configs"] if c["name"] not in OWN_SETTINGS))
        describe(s, v, TOPIC, name, "synonyms", synonyms=True)
        describe(s, v, TOPIC, name, "documentation", documentation=True)
        describe(s, v, TOPIC, name, "two keys", ["retention.ms", "segment.bytes"], synonyms=True)
        describe(s, v, TOPIC, name, "key twice and an unknown one", ["retention.ms", "retention.ms", "no.such.config"])
        describe(s, v, TOPIC, name, "no keys", [])


@case("describeconfigs.errors")
def errors(s: Session) -> None:
    name = s.topic("described-2")
    for v in range(1, 5):
        describe(s, v, TOPIC, s.name("absent"), "unknown topic")
        describe(s, v, TOPIC, "bad name", "bad name")
        describe(s, v, TOPIC, "", "empty name")
        describe(s, v, BROKER, "4711", "another broker")
        describe(s, v, BROKER, "abc", "broker that is no number")
        describe(s, v, BROKER, "-1", "broker -1")
        describe(s, v, BROKER_LOGGER, "4711", "logger of another broker")
        describe(s, v, GROUP, "", "group without a name")
        for kind in (0, 1, 3, 99, -1):
            describe(s, v, kind, name, f"type {kind}")
        resource = {"resourceType": TOPIC, "resourceName": name, "configurationKeys": ["retention.ms"]}
        s.call("DescribeConfigs", v, {"resources": []}, "none")
        s.call("DescribeConfigs", v, {"resources": [resource, resource]}, "twice")
        s.call("DescribeConfigs", v, {"resources": [resource, {**resource, "resourceName": s.name("absent")}]}, "good and bad")


@case("describeconfigs.broker")
def broker(s: Session) -> None:
    for v in range(1, 5):
        describe(s, v, BROKER, str(s.node_id), "settings that all have", BROKER_KEYS)
        describe(s, v, BROKER, str(s.node_id), "with synonyms", BROKER_KEYS, synonyms=True)
        describe(s, v, BROKER, str(s.node_id), "all")
        describe(s, v, BROKER, "", "cluster default")


def alter(s: Session, v: int, kind: int, name: str, rows: list[tuple[str, int, str | None]], label: str,
          validate_only: bool = False) -> None:
    s.call("IncrementalAlterConfigs", v, {"validateOnly": validate_only, "resources": [
        {"resourceType": kind, "resourceName": name, "configs": [
            {"name": n, "configOperation": op, "value": value} for n, op, value in rows]}]}, label)


def settled(s: Session, name: str, key: str, value: str) -> None:
    """Wait until the change shows, then keep what is described."""
    def shown() -> bool:
        rows = s.quiet("DescribeConfigs", 1, {"resources": [{"resourceType": TOPIC, "resourceName": name,
                                                            "configurationKeys": [key]}]})["results"][0]["configs"]
        return bool(rows) and rows[0]["value"] == value
    s.wait(f"{key}={value}", shown, 5)
    describe(s, 4, TOPIC, name, f"{key}={value}", [key], synonyms=True)


@case("alterconfigs.topic")
def alter_topic(s: Session) -> None:
    for v in range(2):
        name = s.topic(f"altered-{v}")
        alter(s, v, TOPIC, name, [("retention.ms", SET, "5000")], "dry run", validate_only=True)
        alter(s, v, TOPIC, name, [("retention.ms", SET, "5000000"), ("max.message.bytes", SET, "4000")], "set")
        settled(s, name, "retention.ms", "5000000")
        alter(s, v, TOPIC, name, [("retention.ms", DELETE, None)], "delete")
        settled(s, name, "retention.ms", "604800000")
        alter(s, v, TOPIC, name, [("retention.ms", DELETE, None)], "delete what is not set")
        alter(s, v, TOPIC, name, [("cleanup.policy", APPEND, "compact")], "append")
        settled(s, name, "cleanup.policy", "delete,compact")
        alter(s, v, TOPIC, name, [("cleanup.policy", APPEND, "compact")], "append what is there")
        alter(s, v, TOPIC, name, [("cleanup.policy", SUBTRACT, "delete")], "subtract")
        settled(s, name, "cleanup.policy", "compact")
        alter(s, v, TOPIC, name, [("cleanup.policy", SUBTRACT, "delete")], "subtract what is not there")
        alter(s, v, TOPIC, name, [("retention.ms", APPEND, "1")], "append to a number")
        alter(s, v, TOPIC, name, [("retention.ms", SUBTRACT, "1")], "subtract from a number")
        alter(s, v, TOPIC, name, [], "nothing")


@case("alterconfigs.errors")
def alter_errors(s: Session) -> None:
    name = s.topic("alter-errors")
    for v in range(2):
        for label, rows in (("bad number", [("retention.ms", SET, "abc")]), ("below range", [("retention.ms", SET, "-2")]),
                            ("unknown config", [("no.such.config", SET, "1")]), ("null value", [("retention.ms", SET, None)]),
                            ("delete an unknown config", [("no.such.config", DELETE, None)]),
                            ("operation 7", [("retention.ms", 7, "1")]), ("operation -1", [("retention.ms", -1, "1")]),
                            ("key twice", [("retention.ms", SET, "1"), ("retention.ms", SET, "2")]),
                            ("key twice, set and delete", [("retention.ms", SET, "1"), ("retention.ms", DELETE, None)]),
                            ("one good, one bad", [("segment.ms", SET, "70000"), ("retention.ms", SET, "x")]),
                            ("append an unknown policy", [("cleanup.policy", APPEND, "other")]),
                            ("append null", [("cleanup.policy", APPEND, None)]), ("empty key", [("", SET, "1")]),
                            ("empty policy", [("cleanup.policy", SET, "")])):
            alter(s, v, TOPIC, name, rows, label)
        alter(s, v, TOPIC, s.name("absent"), [("retention.ms", SET, "1")], "unknown topic")
        alter(s, v, TOPIC, "bad name", [("retention.ms", SET, "1")], "bad name")
        alter(s, v, TOPIC, "", [("retention.ms", SET, "1")], "empty name")
        for kind in (0, 1, 3, 99, -1):
            alter(s, v, kind, name, [("retention.ms", SET, "1")], f"type {kind}")
        alter(s, v, BROKER, "4711", [("log.retention.ms", SET, "100000000")], "another broker")
        alter(s, v, BROKER, "abc", [("log.retention.ms", SET, "100000000")], "broker that is no number")
        s.call("IncrementalAlterConfigs", v, {"resources": []}, "none")
        good = {"resourceType": TOPIC, "resourceName": name, "configs": [
            {"name": "segment.ms", "configOperation": SET, "value": "80000"}]}
        s.call("IncrementalAlterConfigs", v, {"resources": [good, {**good, "resourceName": s.name("absent")}]}, "good and bad")
        s.call("IncrementalAlterConfigs", v, {"resources": [good, good]}, "resource twice")
    describe(s, 4, TOPIC, name, "what remains", ["retention.ms", "segment.ms", "cleanup.policy"])
