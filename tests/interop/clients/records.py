"""The records that every client writes, and the check that every client makes on what it reads back.

Record i goes to partition i % 4. A reader knows from the key which record it has before it, so the bytes need not
be kept anywhere. Two profiles: `rich` has every byte value, `plain` is what kcat can write (lines, fixed headers).
"""

from __future__ import annotations

PARTITIONS = 4
Headers = list[tuple[str, bytes]]


def key(i: int) -> bytes:
    return b"key-%d" % i


def value(i: int, profile: str) -> bytes:
    if profile == "plain":
        return b"%d|" % i + b"x" * (i % 97)
    return b"%d|" % i + bytes((i * 31 + j) & 255 for j in range(i % 97))


def headers(i: int, profile: str) -> Headers:
    if profile == "plain":
        return [("h", b"\x01\xff\xfe"), ("h", b"second")]
    return [("h", b"\xff\xfe-%d\x00\x01" % i), ("h", b"second"), ("empty", b"")]


class Check:
    """Reads of one partition: with acks 1 or all every record in order; with acks 0 the order only."""

    def __init__(self, partition: int, count: int, profile: str, acks: str) -> None:
        self.partition, self.profile, self.acks = partition, profile, acks
        self.expected = len(range(partition, count, PARTITIONS))
        self.seen = 0
        self.last = partition - PARTITIONS

    def add(self, offset: int, got_key: bytes | None, got_value: bytes | None, got_headers: Headers | None) -> None:
        where = f"partition {self.partition}, offset {offset}"
        if offset != self.seen:
            raise AssertionError(f"{where}: offset {self.seen} expected")
        if got_key is None or not got_key.startswith(b"key-"):
            raise AssertionError(f"{where}: key {got_key!r}")
        i = int(got_key[4:])
        if i % PARTITIONS != self.partition or i <= self.last:
            raise AssertionError(f"{where}: record {i} after record {self.last}")
        if self.acks != "0" and i != self.last + PARTITIONS:
            raise AssertionError(f"{where}: record {i} after record {self.last}: records missing")
        if got_value != value(i, self.profile):
            raise AssertionError(f"{where}: value {got_value!r} of record {i}")
        if got_headers is not None and got_headers != headers(i, self.profile):
            raise AssertionError(f"{where}: headers {got_headers!r} of record {i}")
        self.last = i
        self.seen += 1

    def finish(self) -> None:
        if self.acks != "0" and self.seen != self.expected:
            raise AssertionError(f"partition {self.partition}: {self.seen} of {self.expected} records")
        if self.expected and not self.seen:
            raise AssertionError(f"partition {self.partition}: nothing to read")
