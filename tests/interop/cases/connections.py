"""ApiVersions, unsupported keys and versions, malformed frames."""

from __future__ import annotations

import struct

from session import Session, fetch_body, produce_body
from wire import schema

from .registry import case


def header(key: int, version: int, correlation: int = 5) -> bytes:
    return struct.pack(">hhih7s", key, version, correlation, 7, b"interop")


@case("apiversions.versions")
def versions(s: Session) -> None:
    for v in range(5):
        s.call("ApiVersions", v, {"clientSoftwareName": "corelog-check", "clientSoftwareVersion": "1.0"})


@case("apiversions.unknown_version")
def unknown_version(s: Session) -> None:
    """The header of a version from 3 on has tags, also when nobody knows that version."""
    for v in (5, 99, 32767):
        s.send("ApiVersions", v, header(18, v) + b"\0", f"version {v} answered as v0", decode_version=0)
    s.send("ApiVersions", -1, header(18, -1), "version -1 answered as v0", decode_version=0)
    s.send("ApiVersions", 99, header(18, 99) + b"\0" + b"\xff" * 40, "version 99 with a body of noise", decode_version=0)
    s.send("ApiVersions", 99, header(18, 99), "version 99, no tags in the header", decode_version=0)


@case("apiversions.software_name")
def software_name(s: Session) -> None:
    for name, version in (("", "1"), ("a", ""), ("-a", "1"), ("a-", "1"), ("a b", "1"), ("a", "1.0-beta"), ("é", "1"),
                          ("apache-kafka-java", "4.1.1"), ("a", "1_0")):
        s.call("ApiVersions", 3, {"clientSoftwareName": name, "clientSoftwareVersion": version}, f"{name!r} {version!r}")


@case("connections.unsupported")
def unsupported(s: Session) -> None:
    for key, version, label in ((0, 2, "Produce 2"), (0, 14, "Produce 14"), (1, 3, "Fetch 3"), (1, 99, "Fetch 99"),
                                (3, 14, "Metadata 14"), (3, -1, "Metadata -1"), (4, 0, "LeaderAndIsr"), (999, 0, "key 999"),
                                (-1, 0, "key -1"), (2, 0, "ListOffsets 0"), (19, 1, "CreateTopics 1"), (52, 0, "Vote")):
        s.send("Metadata", version, header(key, version) + b"\0" * 8, label)


@case("connections.client_id")
def client_id(s: Session) -> None:
    for v in (0, 8, 9, 12):
        body = schema.message("MetadataRequest").encode({"topics": []}, v)
        tags = b"\0" if v >= 9 else b""
        s.send("Metadata", v, struct.pack(">hhih", 3, v, 1, -1) + tags + body, "null client id")
        s.send("Metadata", v, struct.pack(">hhih", 3, v, 1, 0) + tags + body, "empty client id")
        s.send("Metadata", v, struct.pack(">hhih2s", 3, v, 1, 2, b"\xff\xfe") + tags + body, "client id not UTF-8")
        s.send("Metadata", v, struct.pack(">hhih", 3, v, 1, -2) + tags + body, "client id of length -2")
        s.send("Metadata", v, struct.pack(">hhih", 3, v, 1, 32767) + tags + body, "client id longer than the frame")


@case("connections.unknown_tags")
def unknown_tags(s: Session) -> None:
    def tag_in_header(frame: bytes) -> bytes:
        at = 8 + 2 + len("interop")
        return frame[:at] + b"\x01\x63\x03abc" + frame[at + 1:]
    name = s.topic("tags")
    s.call("ApiVersions", 3, {"clientSoftwareName": "a", "clientSoftwareVersion": "1", "unknownTags": {99: b"x"}})
    s.call("Metadata", 12, {"topics": [{"name": name, "unknownTags": {7: b"abc"}}], "unknownTags": {99: b""}})
    s.call("Metadata", 12, {"topics": []}, "in the header", change=tag_in_header)
    body = produce_body(name, s.batch(2))
    body["unknownTags"] = {55: b"one"}
    body["topicData"][0]["unknownTags"] = {56: b"two"}
    body["topicData"][0]["partitionData"][0]["unknownTags"] = {57: b"three" * 100}
    s.call("Produce", 9, body, "at every level")
    asked = fetch_body(name, 0)
    asked["unknownTags"] = {77: b"one"}
    asked["topics"][0]["unknownTags"] = {56: b"two"}
    asked["topics"][0]["partitions"][0]["unknownTags"] = {57: b"three"}
    s.call("Fetch", 12, asked, "at every level", change=tag_in_header)


@case("connections.frames")
def frames(s: Session) -> None:
    whole = header(3, 1) + struct.pack(">i", 0)
    for length, label in ((-1, "length -1"), (-2147483648, "smallest length"), (2147483647, "length 2 GiB"),
                          (104857601, "length one more than socket.request.max.bytes"), (0, "length 0")):
        s.send("Metadata", 1, whole, label, length=length)
    for cut in range(1, len(whole)):
        s.send("Metadata", 1, whole[:cut], f"cut after {cut} bytes")


@case("connections.bodies")
def bodies(s: Session) -> None:
    """Bodies one byte short, one byte long, and with counts larger than the frame."""
    name = s.topic("bodies")
    group = {"key": "g", "keyType": 0, "coordinatorKeys": ["g"]}
    config = {"resources": [{"resourceType": 2, "resourceName": name, "configurationKeys": None, "configs": []}]}
    asked = [
        ("Metadata", (1, 8, 12), {"topics": [{"name": name}]}),
        ("Produce", (3, 9), produce_body(name, s.batch(1))),
        ("Fetch", (4, 12), fetch_body(name, 0, max_wait_ms=0)),
        ("ListOffsets", (1, 6), {"replicaId": -1, "topics": [{"name": name, "partitions": [
            {"partitionIndex": 0, "timestamp": -1}]}]}),
        ("OffsetForLeaderEpoch", (3, 4), {"replicaId": -1, "topics": [{"topic": name, "partitions": [
            {"partition": 0, "leaderEpoch": 0}]}]}),
        ("InitProducerId", (0, 2), {"transactionalId": None, "transactionTimeoutMs": 1000}),
        ("DescribeCluster", (0,), {}),
        ("FindCoordinator", (2, 3), {"key": group["key"], "keyType": 0}),
        ("CreateTopics", (4, 5), {"topics": [], "timeoutMs": 1000}),
        ("DeleteTopics", (3, 4), {"topicNames": [], "timeoutMs": 1000}),
        ("CreatePartitions", (1, 2), {"topics": [], "timeoutMs": 1000}),
        ("DeleteRecords", (1, 2), {"topics": [], "timeoutMs": 1000}),
        ("DescribeConfigs", (1, 4), {"resources": [{"resourceType": 2, "resourceName": name,
                                                    "configurationKeys": ["retention.ms"]}]}),
        ("IncrementalAlterConfigs", (0, 1), {"resources": config["resources"][:0]}),
    ]
    for api, api_versions, body in asked:
        for v in api_versions:
            s.call(api, v, body, "whole")
            s.call(api, v, body, "one byte short", change=lambda f: f[:-1])
            s.call(api, v, body, "one byte more", change=lambda f: f + b"\0")
    for v, count in ((1, b"\x7f\xff\xff\xff"), (1, b"\x00\x01\x00\x00"), (1, b"\xff\xff\xff\xfe"),
                     (9, b"\xff\xff\xff\xff\x0f"), (9, b"\xff\xff\xff\xff\xff\x7f"), (9, b"\x80\x80\x04")):
        tag = b"\0" if v == 9 else b""
        s.send("Metadata", v, header(3, v) + tag + count, f"count {count.hex()}")


@case("connections.pipelined")
def pipelined(s: Session) -> None:
    """Answers come in the order of the requests, slow ones included."""
    name = s.topic("pipelined")
    requests = [
        schema.encode_request("Fetch", 4, fetch_body(name, 0, max_wait_ms=400, min_bytes=1), 1, "p"),
        schema.encode_request("Metadata", 1, {"topics": []}, 2, "p"),
        schema.encode_request("Produce", 7, produce_body(name, s.batch(1), acks=0), 3, "p"),
        schema.encode_request("Produce", 7, produce_body(name, s.batch(1), acks=1), 4, "p"),
        schema.encode_request("Produce", 7, produce_body(name, s.batch(1), acks=-1), 5, "p"),
        schema.encode_request("ApiVersions", 0, {}, 6, "p"),
    ]
    s.note("order of correlation ids", s.pipeline(requests, answers=5))
    s.call("ListOffsets", 1, {"replicaId": -1, "topics": [{"name": name, "partitions": [
        {"partitionIndex": 0, "timestamp": -1}]}]}, "all three were appended")
