"""Record batches of magic 2: building them, right or deliberately wrong, and reading them back."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass, field
from typing import Any

from .crc32c import crc32c
from .primitives import uvarint, varint

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
LOG_APPEND_TIME, TRANSACTIONAL, CONTROL, DELETE_HORIZON = 0x08, 0x10, 0x20, 0x40
HEADER = struct.Struct(">qiibIhiqqqhii")


@dataclass
class Record:
    value: bytes | None
    key: bytes | None = None
    headers: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    timestamp_delta: int = 0
    offset_delta: int | None = None


def _bytes(value: bytes | None) -> bytes:
    return varint(-1) if value is None else varint(len(value)) + value


def encode_records(records: list[Record]) -> bytes:
    out = bytearray()
    for i, r in enumerate(records):
        delta = i if r.offset_delta is None else r.offset_delta
        body = b"\0" + varint(r.timestamp_delta) + varint(delta) + _bytes(r.key) + _bytes(r.value)
        body += varint(len(r.headers)) + b"".join(varint(len(k)) + k + _bytes(v) for k, v in r.headers)
        out += varint(len(body)) + body
    return bytes(out)


def compress(codec: int, data: bytes) -> bytes:
    if codec == NONE:
        return data
    if codec == GZIP:
        return gzip.compress(data, mtime=0)
    if codec == ZSTD:
        return zstd_raw(data)
    if codec == LZ4:
        return lz4_raw(data)
    if codec == SNAPPY:
        return snappy_raw(data)
    return data


def zstd_raw(data: bytes) -> bytes:
    """A zstd frame of one raw (uncompressed) block: legal, and needs no library."""
    assert len(data) < 1 << 17
    return b"\x28\xb5\x2f\xfd" + b"\xa0" + struct.pack("<I", len(data)) + struct.pack("<I", len(data) << 3 | 1)[:3] + data


def lz4_raw(data: bytes) -> bytes:
    """An lz4 frame of one uncompressed block; version 1, independent blocks, 64 KiB at most."""
    assert len(data) <= 1 << 16
    descriptor = b"\x60\x40"
    return (b"\x04\x22\x4d\x18" + descriptor + bytes([xxh32(descriptor) >> 8 & 0xFF])
            + struct.pack("<I", len(data) | 1 << 31) + data + b"\0\0\0\0")


def snappy_raw(data: bytes, xerial: bool = True) -> bytes:
    """Snappy literals only, in the framing of the xerial library that Java clients use."""
    out = bytearray(uvarint(len(data)))
    for i in range(0, len(data), 60):
        part = data[i:i + 60]
        out += bytes([(len(part) - 1) << 2]) + part
    if not xerial:
        return bytes(out)
    return b"\x82SNAPPY\0" + struct.pack(">iii", 1, 1, len(out)) + bytes(out)


def xxh32(data: bytes) -> int:
    """xxHash32, seed 0, for inputs shorter than 16 bytes: all that an lz4 frame header needs."""
    p = (2654435761, 2246822519, 3266489917, 668265263, 374761393)
    mask = 0xFFFFFFFF
    acc = (p[4] + len(data)) & mask
    i = 0
    while i + 4 <= len(data):
        acc = (acc + struct.unpack_from("<I", data, i)[0] * p[2]) & mask
        acc = ((acc << 17 | acc >> 15) & mask) * p[3] & mask
        i += 4
    while i < len(data):
        acc = (acc + data[i] * p[4]) & mask
        acc = ((acc << 11 | acc >> 21) & mask) * p[0] & mask
        i += 1
    acc = ((acc ^ acc >> 15) * p[1]) & mask
    acc = ((acc ^ acc >> 13) * p[2]) & mask
    return acc ^ acc >> 16


def build(records: list[Record], *, codec: int = NONE, base_timestamp: int = 0, max_timestamp: int | None = None,
          base_offset: int = 0, leader_epoch: int = -1, magic: int = 2, attributes: int = 0, producer_id: int = -1,
          producer_epoch: int = -1, base_sequence: int = -1, count: int | None = None,
          last_offset_delta: int | None = None, length_change: int = 0, crc_change: int = 0,
          payload: bytes | None = None) -> bytes:
    """One batch. Every header field can be set to a wrong value; the CRC covers what is written unless crc_change."""
    body = compress(codec, encode_records(records)) if payload is None else payload
    count = len(records) if count is None else count
    last = (len(records) - 1) if last_offset_delta is None else last_offset_delta
    if max_timestamp is None:
        max_timestamp = base_timestamp + max((r.timestamp_delta for r in records), default=0)
    covered = struct.pack(">hiqqqhii", attributes | codec, last, base_timestamp, max_timestamp, producer_id,
                          producer_epoch, base_sequence, count) + body
    crc = crc32c(covered) ^ crc_change
    head = struct.pack(">qiibI", base_offset, len(covered) + 9 + length_change, leader_epoch, magic, crc)
    return head + covered


def simple(values: int, *, size: int = 10, **keywords: Any) -> bytes:
    """A batch of `values` records with keys, headers and rising timestamps."""
    records = [Record(value=(b"v%d-" % i).ljust(size, b"x"), key=b"k%d" % i,
                      headers=[(b"h", b"\x00\xff"), (b"h", None)] if i == 0 else [], timestamp_delta=i)
               for i in range(values)]
    return build(records, **keywords)


def parse(data: bytes) -> dict[str, Any]:
    """Batch headers and payload as a comparable structure; a cut last batch is named apart."""
    batches = []
    at = 0
    while len(data) - at >= HEADER.size:
        (base, length, epoch, magic, crc, attributes, last, base_ts, max_ts, pid, pepoch, seq,
         count) = HEADER.unpack_from(data, at)
        end = at + 12 + length
        if end > len(data):
            break
        batches.append({
            "baseOffset": base, "batchLength": length, "partitionLeaderEpoch": epoch, "magic": magic,
            "crcValid": crc == crc32c(data[at + 21:end]), "attributes": attributes, "lastOffsetDelta": last,
            "baseTimestamp": base_ts, "maxTimestamp": max_ts, "producerId": pid, "producerEpoch": pepoch,
            "baseSequence": seq, "count": count, "payload": data[at + 61:end].hex()})
        at = end
    return {"batches": batches, "cutBytes": len(data) - at}
