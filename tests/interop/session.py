"""One broker under test: sends requests, keeps what was asked and answered."""

from __future__ import annotations

import socket
import struct
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from broker import read_exactly, split_address
from wire import batch, schema

READ_TIMEOUT_S = 20.0
NO_UUID = uuid.UUID(int=0)


@dataclass
class Exchange:
    """One question and its answer. `outcome` is answered, closed, silent or note."""
    label: str
    api: str
    version: int
    request: bytes
    outcome: str
    response: bytes = b""
    body: Any = None


@dataclass
class Session:
    address: str
    run_id: str
    now_ms: int
    exchanges: list[Exchange] = field(default_factory=list)
    topic_ids: dict[uuid.UUID, str] = field(default_factory=dict)
    producer_ids: list[int] = field(default_factory=list)
    # More than one where each shard is a broker to clients.
    node_ids: list[int] = field(default_factory=list)
    cluster_id: str = ""
    _socket: socket.socket | None = None
    _correlation: int = 100

    def __post_init__(self) -> None:
        body = self.quiet("Metadata", 12, {"topics": []})
        self.node_ids, self.cluster_id = [broker["nodeId"] for broker in body["brokers"]], body["clusterId"]
        asked = {"transactionalId": None, "transactionTimeoutMs": 60000}
        self.wait("producer ids", lambda: self.quiet("InitProducerId", 4, asked)["errorCode"] == 0)
        self.producer_ids.clear()

    @property
    def node_id(self) -> int:
        """A broker that exists."""
        return self.node_ids[0]

    # The wire.

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connection(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.create_connection(split_address(self.address), timeout=READ_TIMEOUT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket

    def exchange_frame(self, frame: bytes, answered: bool = True, length: int | None = None) -> tuple[str, bytes]:
        """Send one frame and read one; ("closed", b"") when the broker hangs up instead."""
        try:
            s = self._connection()
            s.sendall(struct.pack(">i", len(frame) if length is None else length) + frame)
            if not answered:
                return self._silence()
            return "answered", read_exactly(s, struct.unpack(">i", read_exactly(s, 4))[0])
        except TimeoutError:
            self.close()
            return "silent", b""
        except OSError:
            self.close()
            return "closed", b""

    def _silence(self) -> tuple[str, bytes]:
        """After a request without an answer: is a later request answered, and by its own answer?"""
        s = self._connection()
        follow = schema.encode_request("ApiVersions", 0, {}, 7, "after")
        s.sendall(struct.pack(">i", len(follow)) + follow)
        answer = read_exactly(s, struct.unpack(">i", read_exactly(s, 4))[0])
        if struct.unpack_from(">i", answer)[0] == 7:
            return "silent", b""
        return "answered", answer

    # Questions that are compared.

    def call(self, api: str, version: int, body: dict[str, Any], label: str = "", answered: bool = True,
             change: Callable[[bytes], bytes] | None = None) -> dict[str, Any]:
        """Ask, keep the exchange, return the decoded body ({} when there was none)."""
        self._correlation += 1
        frame = schema.encode_request(api, version, body, self._correlation, "interop")
        if change is not None:
            frame = change(frame)
        return self.send(api, version, frame, label, answered)

    def send(self, api: str, version: int, frame: bytes, label: str, answered: bool = True,
             length: int | None = None, decode_version: int | None = None) -> dict[str, Any]:
        outcome, response = self.exchange_frame(frame, answered, length)
        exchange = Exchange(label, api, version, frame, outcome, response)
        if outcome == "answered":
            try:
                _, exchange.body = schema.decode_response(
                    api, version if decode_version is None else decode_version, response)
                self._learn(exchange.body)
            except (ValueError, UnicodeDecodeError) as error:
                exchange.body = {"undecodable": str(error)}
        self.exchanges.append(exchange)
        return exchange.body or {}

    def pipeline(self, requests: list[bytes], answers: int) -> list[int]:
        """Send all requests at once; the correlation ids in the order of the answers."""
        s = self._connection()
        s.sendall(b"".join(struct.pack(">i", len(r)) + r for r in requests))
        out = []
        for _ in range(answers):
            frame = read_exactly(s, struct.unpack(">i", read_exactly(s, 4))[0])
            out.append(struct.unpack_from(">i", frame)[0])
        return out

    def note(self, label: str, value: Any) -> None:
        """Keep an observation that is no field of a response, such as whether an answer waited."""
        self.exchanges.append(Exchange(label, "note", 0, b"", "note", body={"value": value}))

    # Preparations: not compared.

    def quiet(self, api: str, version: int, body: dict[str, Any]) -> dict[str, Any]:
        frame = schema.encode_request(api, version, body, 1, "setup")
        outcome, response = self.exchange_frame(frame)
        if outcome != "answered":
            raise RuntimeError(f"{api} v{version} of a preparation: {outcome}")
        decoded = schema.decode_response(api, version, response)[1]
        self._learn(decoded)
        return decoded

    def wait(self, what: str, done: Callable[[], Any], deadline_s: float = 20) -> Any:
        """Kafka applies metadata changes a little after it has answered; wait until it shows."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            value = done()
            if value:
                return value
            time.sleep(0.02)
        raise RuntimeError(f"waited {deadline_s} s for {what}")

    def name(self, suffix: str) -> str:
        return f"{suffix}-{self.run_id}"

    def topic(self, suffix: str, partitions: int = 1, configs: dict[str, str] | None = None) -> str:
        name = self.name(suffix)
        body = {"topics": [{"name": name, "numPartitions": partitions, "replicationFactor": 1, "configs": [
            {"name": k, "value": v} for k, v in (configs or {}).items()]}], "timeoutMs": 10000}
        error = self.quiet("CreateTopics", 7, body)["topics"][0]["errorCode"]
        if error:
            raise RuntimeError(f"creating {name}: error {error}")
        self.wait_for_topic(name, partitions)
        return name

    def wait_for_topic(self, name: str, partitions: int) -> None:
        def ready() -> bool:
            asked = {"topics": [{"name": name}], "allowAutoTopicCreation": False}
            topic = self.quiet("Metadata", 12, asked)["topics"][0]
            good = [p for p in topic["partitions"] if p["errorCode"] == 0 and p["leaderId"] >= 0]
            return topic["errorCode"] == 0 and len(good) == partitions
        self.wait(f"{name} with {partitions} partitions", ready)

        def led() -> bool:
            return all(p["errorCode"] == 0 for p in self._ends(name, partitions))
        self.wait(f"{name} to be led", led)

    def wait_for_deletion(self, name: str) -> None:
        asked = {"topics": [{"name": name}], "allowAutoTopicCreation": False}
        self.wait(f"{name} to be gone", lambda: self.quiet("Metadata", 12, asked)["topics"][0]["errorCode"] == 3)

    def wait_for_records(self, name: str, partitions: int, count: int) -> None:
        """Until the partitions hold `count` records together: what was sent with acks=0 is on its way for a while."""
        def there() -> bool:
            return sum(p["offset"] for p in self._ends(name, partitions)) >= count
        self.wait(f"{count} records in {name}", there)

    def _ends(self, name: str, partitions: int) -> list[dict[str, Any]]:
        answer = self.quiet("ListOffsets", 4, {"replicaId": -1, "topics": [{"name": name, "partitions": [
            {"partitionIndex": i, "timestamp": -1} for i in range(partitions)]}]})
        return [p for t in answer["topics"] for p in t["partitions"]]

    def topic_id(self, name: str) -> uuid.UUID:
        topic = self.quiet("Metadata", 12, {"topics": [{"name": name}], "allowAutoTopicCreation": False})["topics"][0]
        return topic["topicId"]

    def leader_epoch(self, name: str, partition: int = 0) -> int:
        topic = self.quiet("Metadata", 12, {"topics": [{"name": name}], "allowAutoTopicCreation": False})["topics"][0]
        return next(p["leaderEpoch"] for p in topic["partitions"] if p["partitionIndex"] == partition)

    def fill(self, name: str, records: bytes, partition: int = 0) -> int:
        """Produce one batch and return its offset."""
        answer = self.quiet("Produce", 9, produce_body(name, records, partition))
        part = answer["responses"][0]["partitionResponses"][0]
        if part["errorCode"]:
            raise RuntimeError(f"filling {name}: error {part['errorCode']}")
        return part["baseOffset"]

    def producer(self) -> tuple[int, int]:
        answer = self.quiet("InitProducerId", 4, {"transactionalId": None, "transactionTimeoutMs": 60000})
        return answer["producerId"], answer["producerEpoch"]

    def batch(self, values: int = 1, **keywords: Any) -> bytes:
        keywords.setdefault("base_timestamp", self.now_ms)
        return batch.simple(values, **keywords)

    # Values that differ between brokers get a name by what they stand for.

    def _learn(self, value: Any) -> None:
        if isinstance(value, dict):
            topic_id, name = value.get("topicId"), value.get("name")
            if topic_id and topic_id != NO_UUID and name and topic_id not in self.topic_ids:
                count = sum(n == name or n.startswith(name + "#") for n in self.topic_ids.values())
                self.topic_ids[topic_id] = f"{name}#{count + 1}" if count else name
            pid = value.get("producerId", -1)
            if isinstance(pid, int) and pid >= 0 and pid not in self.producer_ids:
                self.producer_ids.append(pid)
            for part in value.values():
                self._learn(part)
        elif isinstance(value, list):
            for part in value:
                self._learn(part)


def produce_body(name: str | uuid.UUID, records: bytes | None, partition: int = 0, acks: int = -1,
                 transactional_id: str | None = None) -> dict[str, Any]:
    topic = {"topicId": name} if isinstance(name, uuid.UUID) else {"name": name}
    topic["partitionData"] = [{"index": partition, "records": records}]
    return {"transactionalId": transactional_id, "acks": acks, "timeoutMs": 5000, "topicData": [topic]}


def fetch_body(name: str | uuid.UUID, offset: int, partition: int = 0, *, max_wait_ms: int = 100, min_bytes: int = 1,
               max_bytes: int = 1 << 20, partition_max_bytes: int = 1 << 20, isolation: int = 0,
               session: tuple[int, int] = (0, -1), epoch: int = -1, last_fetched_epoch: int = -1) -> dict[str, Any]:
    topic = {"topicId": name} if isinstance(name, uuid.UUID) else {"topic": name}
    topic["partitions"] = [{"partition": partition, "fetchOffset": offset, "partitionMaxBytes": partition_max_bytes,
                            "currentLeaderEpoch": epoch, "lastFetchedEpoch": last_fetched_epoch}]
    return {"maxWaitMs": max_wait_ms, "minBytes": min_bytes, "maxBytes": max_bytes, "isolationLevel": isolation,
            "sessionId": session[0], "sessionEpoch": session[1], "topics": [topic]}
