"""Produce: batches that are wrong in one way each."""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Callable
from typing import Any

from session import Session, fetch_body, produce_body
from wire import batch
from wire.batch import GZIP, LZ4, SNAPPY, ZSTD, Record
from wire.crc32c import crc32c

from .registry import case

DAY_MS = 86_400_000


def place(s: Session, name: str, version: int) -> str | uuid.UUID:
    return s.topic_id(name) if version >= 13 else name


def message_set_v1(value: bytes) -> bytes:
    """One message of magic 1, with a right CRC-32."""
    body = struct.pack(">bbq", 1, 0, 1000) + struct.pack(">i", -1) + struct.pack(">i", len(value)) + value
    return struct.pack(">qi", 0, len(body) + 4) + struct.pack(">I", zlib.crc32(body)) + body


def with_magic(data: bytes, magic: int) -> bytes:
    return data[:16] + bytes([magic]) + data[17:]


def with_crc(data: bytes) -> bytes:
    """The CRC of what stands there: a change made on purpose then is the only thing wrong."""
    return data[:17] + struct.pack(">I", crc32c(data[21:])) + data[21:]


def resized(data: bytes, change: int) -> bytes:
    length = struct.unpack_from(">i", data, 8)[0]
    return data[:8] + struct.pack(">i", length + change) + data[12:]


def spoiled(s: Session) -> list[tuple[str, Callable[[], bytes | None]]]:
    """Label and bytes of each wrong batch."""
    b = s.batch
    return [
        ("null records", lambda: None),
        ("no records", lambda: b""),
        ("two batches", lambda: b(1) + b(2)),
        ("two batches, the second corrupt", lambda: b(1) + b(1, crc_change=1)),
        ("a batch and a byte", lambda: b(1) + b"\0"),
        ("a batch and 20 bytes", lambda: b(1) + b"\0" * 20),
        ("magic 1, a real message set", lambda: message_set_v1(b"hello")),
        ("magic 0 written over", lambda: with_magic(b(1), 0)),
        ("magic 1 written over", lambda: with_magic(b(1), 1)),
        ("magic 3", lambda: with_magic(b(1), 3)),
        ("magic -1", lambda: with_magic(b(1), 255)),
        ("CRC off by one bit", lambda: b(1, crc_change=1)),
        ("CRC and base offset wrong", lambda: b(1, crc_change=1, base_offset=3)),
        ("base offset 5", lambda: b(1, base_offset=5)),
        ("base offset -1", lambda: b(1, base_offset=-1)),
        ("base offset 1, compressed", lambda: b(2, codec=GZIP, base_offset=1)),
        ("one byte short", lambda: b(1)[:-1]),
        ("11 bytes", lambda: b(1)[:11]),
        ("16 bytes", lambda: b(1)[:16]),
        ("17 bytes", lambda: b(1)[:17]),
        ("60 bytes", lambda: b(1)[:60]),
        ("61 bytes", lambda: b(1)[:61]),
        ("length one less", lambda: resized(b(1), -1)),
        ("length one more", lambda: resized(b(1), 1)),
        ("length 0", lambda: b(1)[:8] + b"\0\0\0\0" + b(1)[12:]),
        ("length -1", lambda: b(1)[:8] + b"\xff\xff\xff\xff" + b(1)[12:]),
        ("length 2 GiB", lambda: b(1)[:8] + b"\x7f\xff\xff\xff" + b(1)[12:]),
        ("length 48", lambda: b(1)[:8] + b"\0\0\0\x30" + b(1)[12:]),
        ("count 3 of 2", lambda: b(2, count=3)),
        ("count 1 of 2", lambda: b(2, count=1)),
        ("count 0 of 2", lambda: b(2, count=0)),
        ("count -1", lambda: b(2, count=-1)),
        ("count 0 of 0", lambda: batch.build([], base_timestamp=s.now_ms, last_offset_delta=-1)),
        ("count 0, last offset delta 0", lambda: batch.build([], base_timestamp=s.now_ms, last_offset_delta=0)),
        ("count and last offset delta 3 of 2", lambda: b(2, count=3, last_offset_delta=2)),
        ("count and last offset delta 1 of 2", lambda: b(2, count=1, last_offset_delta=0)),
        ("count 2147483647", lambda: b(1, count=2147483647)),
        ("count and last offset delta huge", lambda: b(1, count=2147483647, last_offset_delta=2147483646)),
        ("last offset delta 5 of 2", lambda: b(2, last_offset_delta=5)),
        ("last offset delta -1", lambda: b(1, last_offset_delta=-1)),
        ("count 3 of 2, gzip", lambda: b(2, codec=GZIP, count=3)),
        ("count and last offset delta 3 of 2, gzip", lambda: b(2, codec=GZIP, count=3, last_offset_delta=2)),
        ("count and last offset delta 1 of 2, gzip", lambda: b(2, codec=GZIP, count=1, last_offset_delta=0)),
        ("control bit", lambda: b(1, attributes=0x20)),
        ("control and transactional bits", lambda: b(1, attributes=0x30)),
        ("producer id without sequence", lambda: b(1, producer_id=12345, producer_epoch=0)),
        ("producer id without epoch", lambda: b(1, producer_id=12345, base_sequence=0)),
        ("sequence without producer id", lambda: b(1, base_sequence=0)),
        ("epoch without producer id", lambda: b(1, producer_epoch=3)),
        ("producer id -2", lambda: b(1, producer_id=-2)),
        ("LogAppendTime bit", lambda: b(1, attributes=0x08)),
        ("delete horizon bit", lambda: b(1, attributes=0x40)),
        ("attribute bits 7 to 14", lambda: b(1, attributes=0x7F80)),
        ("codec 5", lambda: batch.build([Record(b"v")], base_timestamp=s.now_ms, attributes=5)),
        ("codec 7", lambda: batch.build([Record(b"v")], base_timestamp=s.now_ms, attributes=7)),
        ("zstd", lambda: b(2, codec=ZSTD)),
        ("timestamp -1", lambda: batch.build([Record(b"v", b"k")], base_timestamp=-1, max_timestamp=-1)),
        ("timestamp -2", lambda: batch.build([Record(b"v", b"k")], base_timestamp=-2, max_timestamp=-2)),
        ("timestamp 0", lambda: batch.build([Record(b"v", b"k")], base_timestamp=0)),
        ("49 minutes ahead", lambda: b(1, base_timestamp=s.now_ms + 49 * 60_000)),
        ("2 hours ahead", lambda: b(1, base_timestamp=s.now_ms + 2 * 3_600_000)),
        ("one of three 2 hours ahead", lambda: batch.build(
            [Record(b"a"), Record(b"b", timestamp_delta=7_200_000), Record(b"c")], base_timestamp=s.now_ms)),
        ("one of three 2 hours ahead, gzip", lambda: batch.build(
            [Record(b"a"), Record(b"b", timestamp_delta=7_200_000), Record(b"c")], base_timestamp=s.now_ms, codec=GZIP)),
        ("10 days ahead", lambda: b(1, base_timestamp=s.now_ms + 10 * DAY_MS)),
        ("10 years ago", lambda: b(1, base_timestamp=s.now_ms - 3650 * DAY_MS)),
        ("max timestamp too small", lambda: b(3, max_timestamp=s.now_ms - 5)),
        ("max timestamp too large", lambda: b(3, max_timestamp=s.now_ms + 5000)),
        ("max timestamp -1", lambda: b(3, max_timestamp=-1)),
        ("max timestamp too large, gzip", lambda: b(3, codec=GZIP, max_timestamp=s.now_ms + 5000)),
        ("gzip of noise", lambda: b(1, codec=GZIP, payload=b"\x55" * 40)),
        ("snappy of noise", lambda: b(1, codec=SNAPPY, payload=b"\x55" * 40)),
        ("lz4 of noise", lambda: b(1, codec=LZ4, payload=b"\x55" * 40)),
        ("zstd of noise", lambda: b(1, codec=ZSTD, payload=b"\x55" * 40)),
        ("snappy without framing", lambda: b(1, codec=SNAPPY, payload=batch.snappy_raw(
            batch.encode_records([Record(b"v", b"k")]), xerial=False))),
        ("records of noise", lambda: b(1, payload=b"\x55" * 40)),
        ("records empty, count 1", lambda: b(1, payload=b"")),
        ("record with an odd offset delta", lambda: batch.build(
            [Record(b"a"), Record(b"b", offset_delta=5)], base_timestamp=s.now_ms)),
        ("record with an odd offset delta, gzip", lambda: batch.build(
            [Record(b"a"), Record(b"b", offset_delta=5)], base_timestamp=s.now_ms, codec=GZIP)),
        ("offset deltas backwards", lambda: batch.build(
            [Record(b"a", offset_delta=1), Record(b"b", offset_delta=0)], base_timestamp=s.now_ms)),
        ("bytes after the last record", lambda: b(1, payload=batch.encode_records([Record(b"v")]) + b"\0\0\0")),
        ("record longer than the batch", lambda: b(1, payload=b"\x7e" + batch.encode_records([Record(b"v")])[1:])),
        ("negative header count", lambda: b(1, payload=b"\x0e\0\0\0\x01\x02v\x01")),
        ("negative record length", lambda: b(1, payload=b"\x0d\0\0\0\x01\x02v\0")),
        ("header key null", lambda: b(1, payload=b"\x12\0\0\0\x01\x02v\x02\x01\x01")),
        ("header key not UTF-8", lambda: batch.build(
            [Record(b"v", headers=[(b"\xff\xfe", b"\0"), (b"", b"")])], base_timestamp=s.now_ms)),
        ("leader epoch 7", lambda: b(1, leader_epoch=7)),
        ("null key", lambda: batch.build([Record(b"v")], base_timestamp=s.now_ms)),
        ("null key and value", lambda: batch.build([Record(None)], base_timestamp=s.now_ms)),
        ("exactly at the end", lambda: b(1)),
    ]


@case("batches.wrong")
def wrong(s: Session) -> None:
    """Each wrong batch on a topic of its own: what was appended, and at which offset the next one goes."""
    name = s.topic("wrong", partitions=100, configs={"retention.ms": "-1"})
    for i, (label, make) in enumerate(spoiled(s)):
        for v in (3, 7, 9, 13):
            s.call("Produce", v, produce_body(place(s, name, v), make(), partition=i), label)
        s.call("Produce", 9, produce_body(name, s.batch(1), partition=i), f"{label}: the next one")
        s.call("Fetch", 11, fetch_body(name, 0, partition=i, max_wait_ms=0), f"{label}: read back")


@case("batches.too_large")
def too_large(s: Session) -> None:
    name = s.topic("small", configs={"max.message.bytes": "1000"})
    overhead = len(s.batch(1, size=500)) - 500
    for v in (3, 7, 9, 13):
        for size, label in ((1000, "exactly"), (1001, "one byte more"), (5000, "much more")):
            data = s.batch(1, size=size - overhead)
            while len(data) > size:
                data = s.batch(1, size=size - overhead - (len(data) - size))
            s.note(f"{label}: bytes sent", len(data))
            s.call("Produce", v, produce_body(place(s, name, v), data), label)
    s.call("Produce", 9, produce_body(name, s.batch(1, size=5000, crc_change=1)), "too large and corrupt")
    s.call("Produce", 9, produce_body(name, s.batch(2, size=5000, count=7)), "too large and count wrong")
    s.call("Produce", 9, produce_body(name, s.batch(1, size=5000, base_offset=7)), "too large and base offset wrong")
    tiny = s.topic("segment", configs={"segment.bytes": "1048576", "max.message.bytes": "3000000"})
    s.call("Produce", 9, produce_body(tiny, s.batch(1, size=1_100_000)), "larger than segment.bytes")
    default = s.topic("default-size")
    for extra, label in ((0, "at the default limit"), (1, "over the default limit")):
        data = s.batch(1, size=1_048_588 - 90)
        data = s.batch(1, size=1_048_588 - 90 + (1_048_588 - len(data)) + extra)
        s.note(f"{label}: bytes sent", len(data))
        s.call("Produce", 9, produce_body(default, data), label)


@case("batches.compacted")
def compacted(s: Session) -> None:
    name = s.topic("compacted", configs={"cleanup.policy": "compact"})
    for v in (3, 7, 8, 9, 13):
        for codec in (batch.NONE, GZIP):
            s.call("Produce", v, produce_body(place(s, name, v), batch.build(
                [Record(b"a", b"k"), Record(b"b"), Record(b"c", b"k"), Record(b"d")], base_timestamp=s.now_ms, codec=codec)),
                f"keys missing, codec {codec}")
        s.call("Produce", v, produce_body(place(s, name, v), batch.build(
            [Record(None, b"k"), Record(b"", b"")], base_timestamp=s.now_ms)), "tombstone and empty key")


@case("batches.timestamps")
def timestamps(s: Session) -> None:
    name = s.topic("range", configs={"retention.ms": "-1", "message.timestamp.before.max.ms": "3600000",
                                     "message.timestamp.after.max.ms": "60000"})
    for v in (3, 8, 9, 13):
        for shift, label in ((-7_200_000, "too old"), (-600_000, "old enough"), (0, "now"), (3_600_000, "too new")):
            s.call("Produce", v, produce_body(place(s, name, v), s.batch(2, base_timestamp=s.now_ms + shift)), label)
        s.call("Produce", v, produce_body(place(s, name, v), batch.build(
            [Record(b"v", b"k")], base_timestamp=-1, max_timestamp=-1)), "timestamp -1")
    s.call("Fetch", 11, fetch_body(name, 0), "read back")


@case("batches.compression_type")
def compression_type(s: Session) -> None:
    """Recompression is the broker's own bytes: headers are compared, and the bytes where they are not compressed."""
    for kind in ("uncompressed", "gzip", "snappy", "lz4", "zstd", "producer"):
        name = s.topic(f"type-{kind}", configs={"compression.type": kind})
        for codec in (batch.NONE, GZIP, SNAPPY, LZ4, ZSTD):
            s.call("Produce", 9, produce_body(name, s.batch(3, codec=codec)), f"{kind}, codec {codec}")
            s.call("Produce", 9, produce_body(name, s.batch(3, codec=codec, max_timestamp=s.now_ms + 5000)),
                   f"{kind}, codec {codec}, max timestamp too large")
            s.call("Produce", 9, produce_body(name, s.batch(2, codec=codec, producer_id=77 + codec, producer_epoch=1,
                                                            base_sequence=5)), f"{kind}, codec {codec}, a producer's")
            s.call("Produce", 9, produce_body(name, s.batch(2, codec=codec, producer_id=77 + codec, producer_epoch=1,
                                                            base_sequence=5)), f"{kind}, codec {codec}, a duplicate")
            s.call("Produce", 9, produce_body(name, s.batch(1, codec=codec, attributes=codec | 0x7FC0)),
                   f"{kind}, codec {codec}, more attribute bits")
        note_batches(s, name, kind)
    appended = s.topic("type-appended", configs={"compression.type": "gzip", "message.timestamp.type": "LogAppendTime"})
    s.call("Produce", 9, produce_body(appended, s.batch(3)), "LogAppendTime")
    s.note("LogAppendTime: batches", [(b["attributes"], b["baseTimestamp"], b["count"]) for b in stored(s, appended)])
    small = {"max.message.bytes": "2000"}
    packed = s.topic("type-grows", configs={"compression.type": "uncompressed", **small})
    s.call("Produce", 9, produce_body(packed, s.batch(1, size=5000, codec=GZIP)), "too large once it is unpacked")
    shrinks = s.topic("type-shrinks", configs={"compression.type": "gzip", **small})
    s.call("Produce", 9, produce_body(shrinks, s.batch(1, size=5000)), "too large before it is packed")
    segment = s.topic("type-segment", configs={"compression.type": "gzip", "segment.bytes": "1048576",
                                               "max.message.bytes": "3000000"})
    s.call("Produce", 9, produce_body(segment, s.batch(1, size=1_100_000)), "larger than a segment before it is packed")
    noise = s.topic("type-noise", configs={"compression.type": "lz4"})
    s.call("Produce", 9, produce_body(noise, s.batch(1, codec=GZIP, payload=b"\x55" * 40)), "noise")
    s.call("Produce", 9, produce_body(noise, s.batch(1, codec=LZ4, payload=b"\x55" * 40)), "noise in the topic's own codec")


def stored(s: Session, name: str) -> list[dict[str, Any]]:
    fetched = s.quiet("Fetch", 11, fetch_body(name, 0))["responses"][0]["partitions"][0]["records"]
    return batch.parse(fetched)["batches"]


def note_batches(s: Session, name: str, label: str) -> None:
    fields = ("baseOffset", "attributes", "count", "lastOffsetDelta", "crcValid", "baseTimestamp", "maxTimestamp", "producerId",
              "producerEpoch", "baseSequence")
    for i, b in enumerate(stored(s, name)):
        payload = b["payload"] if b["attributes"] & 7 == batch.NONE else "compressed"
        s.note(f"{label}: batch {i}", [b[field] for field in fields] + [payload])


@case("batches.record_errors")
def record_errors(s: Session) -> None:
    """Records that are bad for different reasons."""
    name = s.topic("strict", configs={"cleanup.policy": "compact", "message.timestamp.before.max.ms": "3600000"})
    old = -7_200_000
    mixed = [Record(b"a"), Record(b"b", b"k", timestamp_delta=old), Record(b"c", b"k"), Record(b"d", timestamp_delta=old)]
    for v in (7, 8, 9, 13):
        for codec in (batch.NONE, GZIP):
            s.call("Produce", v, produce_body(place(s, name, v), batch.build(mixed, base_timestamp=s.now_ms, codec=codec)),
                   f"no key and too old, codec {codec}")
    s.call("Produce", 9, produce_body(name, batch.build([Record(b"v")] * 1000, base_timestamp=s.now_ms)), "1000 without key")
