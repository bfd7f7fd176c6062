"""Metadata: listing, auto-creation, names, ids."""

from __future__ import annotations

import uuid

from session import NO_UUID, Session

from .registry import case

BAD_NAMES = ["", ".", "..", "a b", "a/b", "é", "x" * 250, "a\nb", "a,b", "a:b"]


@case("metadata.versions")
def versions(s: Session) -> None:
    name = s.topic("known", partitions=3)
    for v in range(14):
        s.call("Metadata", v, {"topics": [{"name": name}], "allowAutoTopicCreation": False}, "known topic")
        s.call("Metadata", v, {"topics": [{"name": name}, {"name": name}], "allowAutoTopicCreation": False}, "named twice")
        if v >= 1:
            s.call("Metadata", v, {"topics": []}, "no topics")


@case("metadata.all")
def all_topics(s: Session) -> None:
    """The listings are reduced to the topics of this case: other cases' topics may be there."""
    mine = {s.topic("all-1"), s.topic("all-2", partitions=2)}
    for v in range(14):
        body = s.quiet("Metadata", v, {"topics": [] if v == 0 else None})
        found = sorted((t["name"], t["errorCode"], len(t["partitions"])) for t in body["topics"] if t["name"] in mine)
        s.note(f"all topics at v{v}", found)


@case("metadata.authorized_operations")
def authorized_operations(s: Session) -> None:
    name = s.topic("ops")
    for v in range(8, 14):
        s.call("Metadata", v, {"topics": [{"name": name}], "includeClusterAuthorizedOperations": True,
                               "includeTopicAuthorizedOperations": True})


@case("metadata.auto_create")
def auto_create(s: Session) -> None:
    for v in range(14):
        name = s.name(f"auto-{v}")
        s.call("Metadata", v, {"topics": [{"name": name}], "allowAutoTopicCreation": True}, "first sight")
        s.wait_for_topic(name, 4)
        s.call("Metadata", v, {"topics": [{"name": name}], "allowAutoTopicCreation": True}, "created")
    for v in range(4, 14):
        s.call("Metadata", v, {"topics": [{"name": s.name("never")}], "allowAutoTopicCreation": False}, "not asked for")


@case("metadata.bad_names")
def bad_names(s: Session) -> None:
    for v in (0, 1, 4, 9, 12, 13):
        for bad in BAD_NAMES:
            for create in (True, False) if v >= 4 else (True,):
                s.call("Metadata", v, {"topics": [{"name": bad}], "allowAutoTopicCreation": create},
                       f"{bad[:8]!r} create={create}")
    s.topic("colliding.name")
    collides = s.name("colliding.name").replace(".", "_")
    s.call("Metadata", 12, {"topics": [{"name": collides}], "allowAutoTopicCreation": True}, "differs in . and _ only")
    s.call("Metadata", 12, {"topics": [{"name": collides}], "allowAutoTopicCreation": False}, "differs in . and _ only")


@case("metadata.ids")
def ids(s: Session) -> None:
    name = s.topic("by-id")
    topic_id, other = s.topic_id(name), uuid.UUID(int=0xABCDEF)
    for v in range(10, 14):
        s.call("Metadata", v, {"topics": [{"topicId": topic_id, "name": None}]}, "id")
        s.call("Metadata", v, {"topics": [{"topicId": other, "name": None}]}, "unknown id")
        s.call("Metadata", v, {"topics": [{"topicId": NO_UUID, "name": name}]}, "name with nil id")
        s.call("Metadata", v, {"topics": [{"topicId": NO_UUID, "name": None}]}, "neither")
        s.call("Metadata", v, {"topics": [{"topicId": topic_id, "name": name}]}, "both")
        s.call("Metadata", v, {"topics": [{"topicId": topic_id, "name": None}, {"topicId": other, "name": None}]}, "two ids")
        s.call("Metadata", v, {"topics": [{"topicId": topic_id, "name": None}, {"name": name}]}, "an id and a name")


@case("metadata.mixed")
def mixed(s: Session) -> None:
    name = s.topic("mixed")
    for v in (1, 4, 9, 12, 13):
        s.call("Metadata", v, {"topics": [{"name": name}, {"name": s.name("absent")}, {"name": "bad name"}],
                               "allowAutoTopicCreation": False} if v >= 4 else {"topics": [{"name": name}, {"name": "a b"}]})


@case("metadata.internal")
def internal(s: Session) -> None:
    for v in (4, 12):
        for name in ("__consumer_offsets", "__transaction_state", "__cluster_metadata"):
            s.call("Metadata", v, {"topics": [{"name": name}], "allowAutoTopicCreation": False}, name)
