"""ListOffsets, OffsetForLeaderEpoch, DeleteRecords."""

from __future__ import annotations

from session import Session
from wire import batch
from wire.batch import GZIP, Record

from .registry import case


def asked(name: str, timestamp: int, partition: int = 0, epoch: int = -1, isolation: int = 0) -> dict[str, object]:
    return {"replicaId": -1, "isolationLevel": isolation, "timeoutMs": 5000, "topics": [{"name": name, "partitions": [
        {"partitionIndex": partition, "currentLeaderEpoch": epoch, "timestamp": timestamp}]}]}


def timed_log(s: Session, suffix: str, **configs: str) -> str:
    """Offsets 0-9. Timestamps, from now: 0 100 200 | 300 400 (gzip) | 250 350 600 | 600 (gzip) | -50."""
    name = s.topic(suffix, configs={k.replace("_", "."): v for k, v in configs.items()})
    for codec, deltas in ((0, (0, 100, 200)), (GZIP, (300, 400)), (0, (250, 350, 600)), (GZIP, (600,)), (0, (-50,))):
        records = [Record(b"v", b"k", timestamp_delta=d - deltas[0]) for d in deltas]
        s.fill(name, batch.build(records, base_timestamp=s.now_ms + deltas[0], codec=codec))
    return name


@case("listoffsets.special")
def special(s: Session) -> None:
    name, empty = timed_log(s, "special"), s.topic("empty")
    for v in range(1, 11):
        for timestamp in (-1, -2, -3, -4, -5, -6, -7, -100):
            s.call("ListOffsets", v, asked(name, timestamp), f"timestamp {timestamp}")
            if timestamp > -6:
                s.call("ListOffsets", v, asked(empty, timestamp), f"timestamp {timestamp}, empty")


@case("listoffsets.times")
def times(s: Session) -> None:
    name = timed_log(s, "times")
    for v in (1, 4, 7, 10):
        for shift in (-10_000, -50, -49, 0, 1, 100, 101, 201, 300, 301, 400, 401, 600, 601, 100_000):
            s.call("ListOffsets", v, asked(name, s.now_ms + shift), f"now {shift:+}")
        s.call("ListOffsets", v, asked(name, 0), "time 0")
        s.call("ListOffsets", v, asked(name, (1 << 63) - 1), "largest time")
        s.call("ListOffsets", v, asked(name, s.now_ms + 150, isolation=1), "read committed")
        s.call("ListOffsets", v, asked(name, -1, isolation=1), "read committed, latest")
        s.call("ListOffsets", v, asked(name, -3, isolation=1), "read committed, max timestamp")


@case("listoffsets.gzip_max")
def gzip_max(s: Session) -> None:
    """-3 inside a compressed batch: the record, and the first of equals."""
    for codec in (0, GZIP):
        name = s.topic(f"max-{codec}")
        s.fill(name, batch.build([Record(b"a"), Record(b"b", timestamp_delta=50), Record(b"c", timestamp_delta=50),
                                  Record(b"d", timestamp_delta=10)], base_timestamp=s.now_ms, codec=codec))
        s.fill(name, batch.build([Record(b"e", timestamp_delta=50)], base_timestamp=s.now_ms, codec=codec))
        for v in (7, 10):
            s.call("ListOffsets", v, asked(name, -3), f"codec {codec}")
            s.call("ListOffsets", v, asked(name, s.now_ms + 20), f"codec {codec}, time search")


@case("listoffsets.places")
def places(s: Session) -> None:
    name = timed_log(s, "places-list")
    now = s.leader_epoch(name)
    for v in range(1, 11):
        s.call("ListOffsets", v, asked(s.name("absent"), -1), "unknown topic")
        s.call("ListOffsets", v, asked(name, -1, partition=4), "unknown partition")
        s.call("ListOffsets", v, asked(name, -1, partition=-1), "partition -1")
        s.call("ListOffsets", v, asked("bad name", -1), "bad name")
        if v >= 4:
            s.call("ListOffsets", v, asked(name, -1, epoch=now), "current epoch")
            s.call("ListOffsets", v, asked(name, -1, epoch=now + 1), "newer epoch")
            s.call("ListOffsets", v, asked(name, s.now_ms, epoch=now + 1), "newer epoch, by time")
        part = {"partitionIndex": 0, "timestamp": -1}
        s.call("ListOffsets", v, {"replicaId": -1, "topics": [{"name": name, "partitions": [part, part]}]}, "partition twice")
        s.call("ListOffsets", v, {"replicaId": -1, "topics": [
            {"name": name, "partitions": [part]}, {"name": name, "partitions": [{**part, "timestamp": -2}]}]}, "topic twice")
        s.call("ListOffsets", v, {"replicaId": -1, "topics": []}, "no topics")


@case("listoffsets.deleted")
def deleted(s: Session) -> None:
    name = timed_log(s, "deleted-list")
    s.quiet("DeleteRecords", 1, {"timeoutMs": 5000, "topics": [{"name": name, "partitions": [
        {"partitionIndex": 0, "offset": 4}]}]})
    for v in (1, 7, 10):
        for timestamp in (-2, -1, -3, -4, s.now_ms, s.now_ms + 300, s.now_ms + 500):
            label = f"timestamp {timestamp}" if timestamp < 0 else f"now {timestamp - s.now_ms:+}"
            s.call("ListOffsets", v, asked(name, timestamp), f"log start 4, {label}")


@case("listoffsets.log_append_time")
def log_append_time(s: Session) -> None:
    name = s.topic("append-list", configs={"message.timestamp.type": "LogAppendTime"})
    s.fill(name, s.batch(3, codec=GZIP))
    s.fill(name, s.batch(3))
    found = [s.quiet("ListOffsets", 7, asked(name, t))["topics"][0]["partitions"][0]["offset"]
             for t in (0, s.now_ms, s.now_ms + 10**9)]
    s.note("offsets by time", found)


@case("epochs.end_offset")
def end_offset(s: Session) -> None:
    name, empty = timed_log(s, "epoch-end"), s.topic("epoch-empty")
    now = s.leader_epoch(name)

    def body(topic: str, epoch: int, current: int = -1, partition: int = 0) -> dict[str, object]:
        return {"replicaId": -1, "topics": [{"topic": topic, "partitions": [
            {"partition": partition, "currentLeaderEpoch": current, "leaderEpoch": epoch}]}]}
    for v in (2, 3, 4):
        s.call("OffsetForLeaderEpoch", v, body(name, now), "current epoch")
        s.call("OffsetForLeaderEpoch", v, body(empty, s.leader_epoch(empty)), "current epoch, empty")
        s.call("OffsetForLeaderEpoch", v, body(name, now + 5), "later epoch")
        s.call("OffsetForLeaderEpoch", v, body(name, -1), "epoch -1")
        s.call("OffsetForLeaderEpoch", v, body(name, -2), "epoch -2")
        s.call("OffsetForLeaderEpoch", v, body(name, now, now), "with the current epoch")
        s.call("OffsetForLeaderEpoch", v, body(name, now, now + 1), "with a newer current epoch")
        s.call("OffsetForLeaderEpoch", v, body(name, now, partition=7), "unknown partition")
        s.call("OffsetForLeaderEpoch", v, body(s.name("absent"), now), "unknown topic")
        s.call("OffsetForLeaderEpoch", v, body("bad name", now), "bad name")
        s.call("OffsetForLeaderEpoch", v, {"replicaId": -1, "topics": []}, "no topics")


@case("deleterecords.all")
def delete_records(s: Session) -> None:
    def body(name: str, offset: int, partition: int = 0) -> dict[str, object]:
        return {"timeoutMs": 5000, "topics": [{"name": name, "partitions": [
            {"partitionIndex": partition, "offset": offset}]}]}
    compacted = s.topic("dr-compact", configs={"cleanup.policy": "compact"})
    both = s.topic("dr-both", configs={"cleanup.policy": "compact,delete"})
    for v in range(3):
        name = timed_log(s, f"dr-{v}")
        for offset in (0, 2, 1, 4, 11, -2, 5, -1, 10, 3):
            s.call("DeleteRecords", v, body(name, offset), f"to {offset}")
        s.call("ListOffsets", 1, asked(name, -2), "log start afterwards")
        s.call("DeleteRecords", v, body(name, 1, partition=5), "unknown partition")
        s.call("DeleteRecords", v, body(name, 1, partition=-1), "partition -1")
        s.call("DeleteRecords", v, body(s.name("absent"), 1), "unknown topic")
        s.call("DeleteRecords", v, body("bad name", 1), "bad name")
        s.call("DeleteRecords", v, body(compacted, 0), "compacted topic")
        s.call("DeleteRecords", v, body(both, 0), "compacted and deleted topic")
        s.call("DeleteRecords", v, body("__cluster_metadata", 0), "internal topic")
        s.call("DeleteRecords", v, {"timeoutMs": 1000, "topics": []}, "no topics")
        part = {"partitionIndex": 0, "offset": 1}
        s.call("DeleteRecords", v, {"timeoutMs": 1000, "topics": [{"name": name, "partitions": [part, part]}]}, "twice")
