"""Fetch: limits, offsets, epochs, ids. Sessionless but for the last cases."""

from __future__ import annotations

import time
import uuid

from session import NO_UUID, Session, fetch_body
from wire.batch import GZIP

from .registry import case

VERSIONS = range(4, 18)


def place(s: Session, name: str, version: int) -> str | uuid.UUID:
    return s.topic_id(name) if version >= 13 else name


def filled(s: Session, suffix: str, batches: int = 4, **configs: str) -> str:
    """Batches of 5 records of about 70 bytes: offsets 0-4, 5-9, ..."""
    name = s.topic(suffix, configs={k.replace("_", "."): v for k, v in configs.items()})
    for i in range(batches):
        s.fill(name, s.batch(5, size=40, codec=GZIP if i % 2 else 0))
    return name


@case("fetch.versions")
def versions(s: Session) -> None:
    name = filled(s, "fetch")
    for v in VERSIONS:
        s.call("Fetch", v, fetch_body(place(s, name, v), 0), "from the start")
        s.call("Fetch", v, fetch_body(place(s, name, v), 7), "middle of a compressed batch")
        s.call("Fetch", v, fetch_body(place(s, name, v), 12), "middle of a batch")
        s.call("Fetch", v, fetch_body(place(s, name, v), 20, max_wait_ms=0), "at the end")
        s.call("Fetch", v, fetch_body(place(s, name, v), 0, isolation=1), "read committed")


@case("fetch.offsets")
def offsets(s: Session) -> None:
    name, empty = filled(s, "offsets"), s.topic("nothing")
    for v in (4, 5, 11, 12, 13, 16, 17):
        for offset in (-1, -2, 21, 1 << 40):
            s.call("Fetch", v, fetch_body(place(s, name, v), offset), f"offset {offset}")
        s.call("Fetch", v, fetch_body(place(s, name, v), 19), "last record")
        s.call("Fetch", v, fetch_body(place(s, empty, v), 0, max_wait_ms=0), "empty partition")
        s.call("Fetch", v, fetch_body(place(s, empty, v), 1), "beyond the empty partition")


@case("fetch.places")
def places(s: Session) -> None:
    name = filled(s, "places")
    for v in range(4, 13):
        s.call("Fetch", v, fetch_body(s.name("absent"), 0), "unknown topic")
        s.call("Fetch", v, fetch_body(name, 0, partition=3), "unknown partition")
        s.call("Fetch", v, fetch_body(name, 0, partition=-1), "partition -1")
        s.call("Fetch", v, fetch_body("bad name", 0), "bad name")
    for v in range(13, 18):
        s.call("Fetch", v, fetch_body(uuid.UUID(int=123), 0), "unknown id")
        s.call("Fetch", v, fetch_body(NO_UUID, 0), "nil id")
        s.call("Fetch", v, fetch_body(s.topic_id(name), 0, partition=3), "unknown partition")
    for v in (4, 7, 12, 13):
        s.call("Fetch", v, {"maxWaitMs": 100, "minBytes": 1, "maxBytes": 1000, "sessionEpoch": -1, "topics": []}, "no topics")


@case("fetch.limits")
def limits(s: Session) -> None:
    name = filled(s, "limits", 8)
    for v in (4, 11, 13, 17):
        for size in (0, 1, 100, 350, 1000, -1):
            s.call("Fetch", v, fetch_body(place(s, name, v), 0, partition_max_bytes=size), f"partition max {size}")
            s.call("Fetch", v, fetch_body(place(s, name, v), 0, max_bytes=size), f"max {size}")
        s.call("Fetch", v, fetch_body(place(s, name, v), 2, max_bytes=1), "max 1 from the middle")
        s.call("Fetch", v, fetch_body(place(s, name, v), 0, min_bytes=0), "min 0")
        s.call("Fetch", v, fetch_body(place(s, name, v), 0, min_bytes=-1), "min -1")
        s.call("Fetch", v, fetch_body(place(s, name, v), 0, max_wait_ms=-1), "wait -1")


@case("fetch.several")
def several(s: Session) -> None:
    """Budgets shared by partitions: the first with data gets a batch, the rest what is left."""
    one = s.topic("several-a", partitions=3)
    for p in range(3):
        for _ in range(3):
            s.fill(one, s.batch(5, size=40), p)
    two = filled(s, "several-b", 3)

    def asked(v: int, order: list[tuple[str, int, int]], max_bytes: int, partition_max: int) -> dict[str, object]:
        topics = []
        for name, partition, offset in order:
            key = {"topicId": s.topic_id(name)} if v >= 13 else {"topic": name}
            topics.append({**key, "partitions": [{"partition": partition, "fetchOffset": offset,
                                                  "partitionMaxBytes": partition_max}]})
        return {"maxWaitMs": 100, "minBytes": 1, "maxBytes": max_bytes, "sessionEpoch": -1, "topics": topics}
    for v in (4, 11, 12, 13, 17):
        s.call("Fetch", v, asked(v, [(one, 0, 0), (two, 0, 0)], 1 << 20, 1 << 20), "everything")
        s.call("Fetch", v, asked(v, [(one, 0, 15), (two, 0, 0)], 1, 1), "first empty, max 1")
        s.call("Fetch", v, asked(v, [(one, 1, 0), (two, 0, 0)], 1, 1), "max 1")
        s.call("Fetch", v, asked(v, [(one, 2, 0), (two, 0, 0)], 1 << 20, 1), "partition max 1")
        s.call("Fetch", v, asked(v, [(one, 0, 99), (two, 0, 0)], 1 << 20, 1 << 20), "first out of range")
        s.call("Fetch", v, asked(v, [(one, 9, 0), (two, 0, 15)], 1 << 20, 1 << 20), "first unknown, second empty")


@case("fetch.partition_order")
def partition_order(s: Session) -> None:
    """Topics and partitions are answered in the order of the request."""
    name = s.topic("ordered", partitions=4)
    for p in range(4):
        s.fill(name, s.batch(1), p)
    parts = [{"partition": p, "fetchOffset": 0, "partitionMaxBytes": 1000} for p in (2, 0, 3, 1)]
    for v in (4, 12, 13):
        key = {"topicId": s.topic_id(name)} if v >= 13 else {"topic": name}
        body = {"maxWaitMs": 100, "minBytes": 1, "maxBytes": 10000, "sessionEpoch": -1, "topics": [{**key, "partitions": parts}]}
        answer = s.call("Fetch", v, body)
        s.note(f"order at v{v}", [p["partitionIndex"] for t in answer["responses"] for p in t["partitions"]])
        body["topics"][0]["partitions"] = [parts[0], parts[0]]
        s.call("Fetch", v, body, "partition twice")


@case("fetch.wait")
def wait(s: Session) -> None:
    name = filled(s, "wait", 1)

    def timed(label: str, body: dict[str, object], least_ms: int, version: int = 11) -> None:
        start = time.monotonic()
        s.call("Fetch", version, body, label)
        took = (time.monotonic() - start) * 1000
        s.note(f"{label}: waited", took >= least_ms * 0.9 if least_ms else took < 300)
    timed("at the end", fetch_body(name, 5, max_wait_ms=400), 400)
    timed("min bytes not there", fetch_body(name, 0, max_wait_ms=400, min_bytes=100_000), 400)
    timed("min bytes there", fetch_body(name, 0, max_wait_ms=5000, min_bytes=200), 0)
    timed("out of range", fetch_body(name, 50, max_wait_ms=5000), 0)
    timed("unknown topic", fetch_body(s.name("absent"), 0, max_wait_ms=5000), 0)
    timed("min 0 at the end", fetch_body(name, 5, max_wait_ms=5000, min_bytes=0), 0)
    timed("wait 0 at the end", fetch_body(name, 5, max_wait_ms=0), 0)
    timed("no topics", {"maxWaitMs": 5000, "minBytes": 1, "maxBytes": 1000, "sessionEpoch": -1, "topics": []}, 0)
    timed("min bytes above partition max", fetch_body(name, 0, max_wait_ms=400, min_bytes=100_000, partition_max_bytes=1), 400)


@case("fetch.epochs")
def epochs(s: Session) -> None:
    name = filled(s, "epochs-fetch")
    now = s.leader_epoch(name)
    for v in range(9, 18):
        s.call("Fetch", v, fetch_body(place(s, name, v), 0, epoch=now), "current epoch")
        s.call("Fetch", v, fetch_body(place(s, name, v), 0, epoch=now + 1), "newer epoch")
        s.call("Fetch", v, fetch_body(place(s, name, v), 0, epoch=-2), "epoch -2")
        if v >= 12:
            s.call("Fetch", v, fetch_body(place(s, name, v), 10, epoch=now, last_fetched_epoch=now), "last fetched is current")
            s.call("Fetch", v, fetch_body(place(s, name, v), 10, epoch=now, last_fetched_epoch=now + 3), "last fetched is newer")
            s.call("Fetch", v, fetch_body(place(s, name, v), 21, epoch=now, last_fetched_epoch=now), "beyond the end")


@case("fetch.sessions")
def sessions(s: Session) -> None:
    name = filled(s, "sessions")
    for v in (7, 11, 12, 13, 17):
        s.call("Fetch", v, fetch_body(place(s, name, v), 0, session=(0, 0)), "asks for a session")
        s.call("Fetch", v, fetch_body(place(s, name, v), 0, session=(12345, 0)), "a full one in place of an unknown one")
        s.call("Fetch", v, fetch_body(place(s, name, v), 0, session=(12345, -1)), "closes an unknown one")
        s.call("Fetch", v, fetch_body(place(s, name, v), 0, session=(12345, 3)), "unknown session")
        s.call("Fetch", v, fetch_body(place(s, name, v), 0, session=(0, 3)), "session 0, epoch 3")


@case("fetch.truncated")
def truncated(s: Session) -> None:
    """Below the log start offset after DeleteRecords."""
    name = filled(s, "truncated")
    s.quiet("DeleteRecords", 1, {"timeoutMs": 5000, "topics": [{"name": name, "partitions": [
        {"partitionIndex": 0, "offset": 7}]}]})
    for v in (4, 5, 11, 13):
        for offset in (0, 5, 6, 7, 8):
            s.call("Fetch", v, fetch_body(place(s, name, v), offset), f"log start 7, offset {offset}")
