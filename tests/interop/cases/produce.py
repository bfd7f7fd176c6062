"""Produce: versions, acks, where a record may go."""

from __future__ import annotations

import uuid

from session import NO_UUID, Session, fetch_body, produce_body
from wire import batch

from .registry import case

VERSIONS = range(3, 14)


def place(s: Session, name: str, version: int) -> str | uuid.UUID:
    return s.topic_id(name) if version >= 13 else name


@case("produce.versions")
def versions(s: Session) -> None:
    name = s.topic("produce")
    for v in VERSIONS:
        for acks in (-1, 1):
            s.call("Produce", v, produce_body(place(s, name, v), s.batch(3), acks=acks), f"acks {acks}")
    s.call("Fetch", 11, fetch_body(name, 0), "read back")


@case("produce.codecs")
def codecs(s: Session) -> None:
    for codec, label in enumerate(("none", "gzip", "snappy", "lz4", "zstd")):
        name = s.topic(f"codec-{label}")
        for v in (3, 6, 7, 9, 13):
            s.call("Produce", v, produce_body(place(s, name, v), s.batch(5, codec=codec)), label)
        s.call("Fetch", 4, fetch_body(name, 0), f"{label}, version too old for zstd")
        s.call("Fetch", 10, fetch_body(name, 0), label)
        s.call("Fetch", 16, fetch_body(s.topic_id(name), 7), label)


@case("produce.acks_0")
def acks_0(s: Session) -> None:
    name = s.topic("acks0")
    for v in VERSIONS:
        s.call("Produce", v, produce_body(place(s, name, v), s.batch(2), acks=0), "valid", answered=False)
        s.call("Produce", v, produce_body(place(s, name, v), s.batch(1), acks=1), "appended before this one")
    for v in (3, 9, 13):
        s.call("Produce", v, produce_body(uuid.UUID(int=77) if v == 13 else s.name("absent"), s.batch(1), acks=0),
               "unknown topic closes", answered=False)
        s.call("Produce", v, produce_body(place(s, name, v), s.batch(1, crc_change=1), acks=0), "bad CRC closes",
               answered=False)
        s.call("Produce", v, produce_body(place(s, name, v), s.batch(1), partition=9, acks=0), "bad partition closes",
               answered=False)
        s.call("Produce", v, produce_body(place(s, name, v), s.batch(1), acks=1), "after the errors")


@case("produce.acks_bad")
def acks_bad(s: Session) -> None:
    name = s.topic("acks-bad")
    for v in VERSIONS:
        for acks in (2, -2, 32767):
            s.call("Produce", v, produce_body(place(s, name, v), s.batch(1), acks=acks), f"acks {acks}")
    s.call("Produce", 9, produce_body(s.name("absent"), s.batch(1), acks=5), "unknown topic too")
    s.call("Produce", 9, produce_body(name, s.batch(1)), "nothing was appended")


@case("produce.unknown")
def unknown(s: Session) -> None:
    name = s.topic("place", partitions=2)
    for v in range(3, 13):
        s.call("Produce", v, produce_body(s.name("absent"), s.batch(1)), "unknown topic")
        s.call("Produce", v, produce_body(name, s.batch(1), partition=2), "unknown partition")
        s.call("Produce", v, produce_body(name, s.batch(1), partition=-1), "partition -1")
        s.call("Produce", v, produce_body("bad name", s.batch(1)), "bad name")
    s.call("Produce", 9, produce_body("", s.batch(1)), "empty name")
    s.call("Produce", 13, produce_body(uuid.UUID(int=99), s.batch(1)), "unknown id")
    s.call("Produce", 13, produce_body(NO_UUID, s.batch(1)), "nil id")
    s.call("Produce", 13, produce_body(s.topic_id(name), s.batch(1), partition=2), "unknown partition")
    s.call("Metadata", 12, {"topics": [{"name": s.name("absent")}], "allowAutoTopicCreation": False}, "was not created")


@case("produce.internal_topic")
def internal_topic(s: Session) -> None:
    s.call("Produce", 9, produce_body("__cluster_metadata", s.batch(1)), "__cluster_metadata")


@case("produce.several")
def several(s: Session) -> None:
    one, two = s.topic("several-1", partitions=3), s.topic("several-2")

    def request(good: bytes, bad: bytes | None) -> dict[str, object]:
        return {"transactionalId": None, "acks": -1, "timeoutMs": 5000, "topicData": [
            {"name": one, "partitionData": [{"index": 0, "records": good}, {"index": 2, "records": bad},
                                            {"index": 7, "records": good}]},
            {"name": s.name("absent"), "partitionData": [{"index": 0, "records": good}]},
            {"name": two, "partitionData": [{"index": 0, "records": good}]}]}
    for v in (3, 5, 8, 9, 12):
        s.call("Produce", v, request(s.batch(2), s.batch(1, crc_change=5)), "one of them corrupt")
        s.call("Produce", v, request(s.batch(2), s.batch(1)), "unknown ones among good ones")
    s.call("Produce", 9, {"acks": -1, "timeoutMs": 100, "topicData": []}, "no topics")
    s.call("Produce", 9, {"acks": -1, "timeoutMs": 100, "topicData": [{"name": one, "partitionData": []}]}, "no partitions")


@case("produce.twice_in_one")
def twice(s: Session) -> None:
    name = s.topic("twice")
    part = {"index": 0, "records": s.batch(1)}
    s.call("Produce", 9, {"acks": -1, "timeoutMs": 5000, "topicData": [{"name": name, "partitionData": [part, part]}]},
           "partition twice")
    s.call("Produce", 9, {"acks": -1, "timeoutMs": 5000, "topicData": [
        {"name": name, "partitionData": [part]}, {"name": name, "partitionData": [part]}]}, "topic twice")
    s.call("Produce", 9, produce_body(name, s.batch(1)), "after them")
    s.call("Fetch", 11, fetch_body(name, 0), "read back")


@case("produce.timeouts")
def timeouts(s: Session) -> None:
    name = s.topic("timeout")
    for timeout in (0, -1, 2147483647):
        body = produce_body(name, s.batch(1))
        body["timeoutMs"] = timeout
        s.call("Produce", 9, body, f"timeout {timeout}")


@case("produce.transactional")
def transactional(s: Session) -> None:
    """No transactions at this stage: only what is refused before a coordinator is asked."""
    name = s.topic("transactional")
    pid, epoch = s.producer()
    marked = s.batch(1, attributes=0x10, producer_id=pid, producer_epoch=epoch, base_sequence=0)
    for v in (3, 9, 11, 12):
        s.call("Produce", v, produce_body(name, marked), "transactional batch without a transactional id")
        s.call("Produce", v, produce_body(name, s.batch(1), transactional_id="t"), "plain batch with a transactional id")


@case("produce.log_append_time")
def log_append_time(s: Session) -> None:
    name = s.topic("append-time", configs={"message.timestamp.type": "LogAppendTime"})
    for v in (3, 9, 13):
        answer = s.call("Produce", v, produce_body(place(s, name, v), s.batch(3)))
        s.note("append time is now", 0 <= answer["responses"][0]["partitionResponses"][0]["logAppendTimeMs"] - s.now_ms < 600_000)
    got = s.quiet("Fetch", 11, fetch_body(name, 0))
    batches = batch.parse(got["responses"][0]["partitions"][0]["records"])["batches"]
    s.note("batches", [(b["attributes"], b["crcValid"], b["baseTimestamp"] == s.now_ms, b["maxTimestamp"] >= s.now_ms,
                        b["lastOffsetDelta"]) for b in batches])
