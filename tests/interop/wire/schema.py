"""Encode and decode messages by Kafka's own schema files; a message is a plain dict.

Field names are those of the schema with a small first letter. A field missing from a dict to
encode takes the schema's default. Unknown tagged fields are kept under "unknownTags".
"""

from __future__ import annotations

import json
import re
import struct
import uuid
from functools import cache
from pathlib import Path
from typing import Any

from .primitives import Reader, uvarint

FOLDER = Path(__file__).resolve().parent.parent / "schemas"
FIXED = {"int8": "b", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "float64": "d"}
API_NAMES = ["ApiVersions", "Metadata", "Produce", "Fetch", "ListOffsets", "OffsetForLeaderEpoch", "CreateTopics",
             "DeleteTopics", "CreatePartitions", "DeleteRecords", "DescribeConfigs", "IncrementalAlterConfigs",
             "InitProducerId", "DescribeCluster", "FindCoordinator"]


class Versions:
    """A version range of a schema: "none", "3", "3-5" or "3+"."""

    def __init__(self, text: str | None) -> None:
        self.low, self.high = 1, 0
        if text and text != "none":
            low, _, high = text.rstrip("+").partition("-")
            self.low = int(low)
            self.high = 32767 if text.endswith("+") else int(high or low)

    def __contains__(self, version: int) -> bool:
        return self.low <= version <= self.high


class Field:
    def __init__(self, raw: dict[str, Any], structs: dict[str, list[dict[str, Any]]]) -> None:
        self.name = raw["name"][0].lower() + raw["name"][1:]
        self.type: str = raw["type"]
        self.versions = Versions(raw["versions"])
        self.nullable = Versions(raw.get("nullableVersions"))
        self.tag: int | None = raw.get("tag")
        self.tagged = Versions(raw.get("taggedVersions"))
        self.never_flexible = raw.get("flexibleVersions") == "none"
        self.default = raw.get("default")
        self.element = self.type.removeprefix("[]")
        self.is_array = self.type.startswith("[]")
        inner = raw.get("fields") or structs.get(self.element)
        self.fields = [Field(f, structs) for f in inner] if inner else None

    def default_value(self) -> Any:
        if self.default == "null":
            return None
        if self.is_array:
            return []
        if self.type == "string":
            return self.default or ""
        if self.type in ("bytes", "records"):
            return b""
        if self.type == "uuid":
            return uuid.UUID(int=0)
        if self.type == "bool":
            return str(self.default).lower() == "true"
        if self.type in FIXED:
            return int(str(self.default), 0) if self.default else 0
        return {}


class Message:
    def __init__(self, name: str) -> None:
        text = (FOLDER / f"{name}.json").read_text()
        raw = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.M))
        structs = {s["name"]: s["fields"] for s in raw.get("commonStructs", [])}
        self.name = name
        self.key: int = raw.get("apiKey", -1)
        self.flexible = Versions(raw["flexibleVersions"])
        self.fields = [Field(f, structs) for f in raw["fields"]]

    def encode(self, body: dict[str, Any], version: int) -> bytes:
        out = bytearray()
        _encode_struct(out, self.fields, body, version, version in self.flexible)
        return bytes(out)

    def decode(self, reader: Reader, version: int) -> dict[str, Any]:
        return _decode_struct(reader, self.fields, version, version in self.flexible)


def _encode_struct(out: bytearray, fields: list[Field], body: dict[str, Any], version: int, flexible: bool) -> None:
    known = {f.name for f in fields} | {"unknownTags"}
    if not known.issuperset(body):
        raise KeyError(f"no such field: {set(body) - known}")
    tags: dict[int, bytes] = dict(body.get("unknownTags", {}))
    for field in fields:
        if version not in field.versions:
            continue
        value = body.get(field.name, field.default_value())
        if field.tag is not None and version in field.tagged:
            if field.name in body:
                part = bytearray()
                _encode_value(part, field, value, version, flexible)
                tags[field.tag] = bytes(part)
            continue
        _encode_value(out, field, value, version, flexible and not field.never_flexible)
    if flexible:
        out += uvarint(len(tags))
        for tag in sorted(tags):
            out += uvarint(tag) + uvarint(len(tags[tag])) + tags[tag]


def _encode_length(out: bytearray, length: int | None, flexible: bool, short: bool) -> None:
    if flexible:
        out += uvarint(0 if length is None else length + 1)
    else:
        out += (-1 if length is None else length).to_bytes(2 if short else 4, "big", signed=True)


def _encode_value(out: bytearray, field: Field, value: Any, version: int, flexible: bool) -> None:
    if field.is_array:
        _encode_length(out, None if value is None else len(value), flexible, short=False)
        for item in value or []:
            _encode_element(out, field, item, version, flexible)
    elif field.fields is not None and version in field.nullable:
        out += b"\xff" if value is None else b"\x01"
        if value is not None:
            _encode_element(out, field, value, version, flexible)
    else:
        _encode_element(out, field, value, version, flexible)


def _encode_element(out: bytearray, field: Field, value: Any, version: int, flexible: bool) -> None:
    kind = field.element
    if field.fields is not None:
        _encode_struct(out, field.fields, value, version, flexible)
    elif kind in FIXED:
        out += struct.pack(">" + FIXED[kind], value)
    elif kind == "bool":
        out.append(1 if value else 0)
    elif kind == "uuid":
        out += value.bytes
    elif kind in ("string", "bytes", "records"):
        raw = value.encode() if isinstance(value, str) else value
        _encode_length(out, None if raw is None else len(raw), flexible, short=kind == "string")
        out += raw or b""
    else:
        raise TypeError(f"{field.name}: {kind}")


def _decode_struct(r: Reader, fields: list[Field], version: int, flexible: bool) -> dict[str, Any]:
    out: dict[str, Any] = {}
    tagged: dict[int, Field] = {}
    for field in fields:
        if version not in field.versions:
            continue
        if field.tag is not None and version in field.tagged:
            tagged[field.tag] = field
            continue
        out[field.name] = _decode_value(r, field, version, flexible and not field.never_flexible)
    if flexible:
        for _ in range(r.uvarint()):
            tag, size = r.uvarint(), r.uvarint()
            part = Reader(r.take(size))
            if tag in tagged:
                out[tagged[tag].name] = _decode_value(part, tagged[tag], version, flexible)
                if part.left():
                    raise ValueError(f"{part.left()} bytes left in tag {tag}")
            else:
                out.setdefault("unknownTags", {})[tag] = part.data
    return out


def _decode_length(r: Reader, flexible: bool, short: bool) -> int:
    if flexible:
        return r.uvarint() - 1
    return r.fixed("h" if short else "i")


def _decode_value(r: Reader, field: Field, version: int, flexible: bool) -> Any:
    if field.is_array:
        count = _decode_length(r, flexible, short=False)
        if count < 0:
            return None
        return [_decode_element(r, field, version, flexible) for _ in range(count)]
    if field.fields is not None and version in field.nullable:
        return _decode_element(r, field, version, flexible) if r.fixed("b") >= 0 else None
    return _decode_element(r, field, version, flexible)


def _decode_element(r: Reader, field: Field, version: int, flexible: bool) -> Any:
    kind = field.element
    if field.fields is not None:
        return _decode_struct(r, field.fields, version, flexible)
    if kind in FIXED:
        return r.fixed(FIXED[kind])
    if kind == "bool":
        return r.fixed("b") != 0
    if kind == "uuid":
        return uuid.UUID(bytes=r.take(16))
    if kind in ("string", "bytes", "records"):
        length = _decode_length(r, flexible, short=kind == "string")
        if length < 0:
            return None
        raw = r.take(length)
        return raw.decode() if kind == "string" else raw
    raise TypeError(f"{field.name}: {kind}")


@cache
def message(name: str) -> Message:
    return Message(name)


def encode_request(api: str, version: int, body: dict[str, Any], correlation_id: int, client_id: str | None) -> bytes:
    """A request frame without its length."""
    request = message(api + "Request")
    header = {"requestApiKey": request.key, "requestApiVersion": version, "correlationId": correlation_id,
              "clientId": client_id}
    return message("RequestHeader").encode(header, 2 if version in request.flexible else 1) + request.encode(body, version)


def decode_response(api: str, version: int, frame: bytes) -> tuple[int, dict[str, Any]]:
    """Correlation id and body of a response frame without its length; every byte must be used."""
    response = message(api + "Response")
    reader = Reader(frame)
    flexible_header = version in response.flexible and api != "ApiVersions"
    header = message("ResponseHeader").decode(reader, 1 if flexible_header else 0)
    body = response.decode(reader, version)
    if reader.left():
        raise ValueError(f"{reader.left()} bytes left over")
    return header["correlationId"], body
