"""InitProducerId, sequences, duplicates, epochs."""

from __future__ import annotations

from session import Session, fetch_body, produce_body

from .registry import case


def send(s: Session, name: str, label: str, pid: int, epoch: int, sequence: int, count: int = 1, version: int = 9,
         partition: int = 0, **more: int) -> None:
    data = s.batch(count, producer_id=pid, producer_epoch=epoch, base_sequence=sequence, **more)
    place = s.topic_id(name) if version >= 13 else name
    s.call("Produce", version, produce_body(place, data, partition), label)


@case("idempotence.init")
def init(s: Session) -> None:
    for v in range(6):
        body = {"transactionalId": None, "transactionTimeoutMs": 60000}
        s.call("InitProducerId", v, body, "no transactional id")
        s.call("InitProducerId", v, {**body, "transactionTimeoutMs": 0}, "timeout 0")
        s.call("InitProducerId", v, {**body, "transactionTimeoutMs": -1}, "timeout -1")
        s.call("InitProducerId", v, {**body, "transactionTimeoutMs": 2147483647}, "largest timeout")
        s.call("InitProducerId", v, {**body, "transactionalId": ""}, "empty transactional id")
        if v >= 3:
            s.call("InitProducerId", v, {**body, "producerId": 5, "producerEpoch": -1}, "producer id without epoch")
            s.call("InitProducerId", v, {**body, "producerId": -1, "producerEpoch": 5}, "epoch without producer id")
            s.call("InitProducerId", v, {**body, "producerId": 5, "producerEpoch": 5}, "both, without transactional id")
            s.call("InitProducerId", v, {**body, "producerId": -2, "producerEpoch": -2}, "both -2")


@case("idempotence.duplicates")
def duplicates(s: Session) -> None:
    name = s.topic("duplicates")
    pid, epoch = s.producer()
    for i in range(7):
        send(s, name, f"batch {i}", pid, epoch, 3 * i, 3)
    for i in range(7):
        send(s, name, f"batch {i} again (five are kept)", pid, epoch, 3 * i, 3)
    send(s, name, "part of the last batch", pid, epoch, 19, 2)
    send(s, name, "last batch and one more", pid, epoch, 18, 4)
    send(s, name, "first of the last batch only", pid, epoch, 18, 1)
    send(s, name, "last batch again, other bytes", pid, epoch, 18, 3, codec=1)
    for v in (3, 5, 8, 12, 13):
        send(s, name, "last batch again", pid, epoch, 18, 3, version=v)
    send(s, name, "goes on", pid, epoch, 21, 1)
    s.call("Fetch", 11, fetch_body(name, 0), "read back")


@case("idempotence.order")
def order(s: Session) -> None:
    name = s.topic("order", partitions=4)
    pid, epoch = s.producer()
    send(s, name, "starts at 0", pid, epoch, 0)
    for v in (3, 8, 9, 13):
        send(s, name, "gap", pid, epoch, 2, version=v)
        send(s, name, "far gap", pid, epoch, 1000, version=v)
    send(s, name, "next", pid, epoch, 1)
    send(s, name, "old sequence, larger batch", pid, epoch, 0, 5)
    other, other_epoch = s.producer()
    send(s, name, "new producer starts at 7", other, other_epoch, 7, partition=1)
    send(s, name, "and goes on at 8", other, other_epoch, 8, partition=1)
    send(s, name, "and repeats 7", other, other_epoch, 7, partition=1)
    send(s, name, "another partition of the same producer starts at 0", pid, epoch, 0, partition=2)
    send(s, name, "a producer id that nobody handed out", 987654321, 0, 0, partition=3)
    send(s, name, "and goes on", 987654321, 0, 1, partition=3)
    send(s, name, "sequence -2", pid, epoch, -2)
    send(s, name, "epoch -2", pid, -2, 0)


@case("idempotence.wrap")
def wrap(s: Session) -> None:
    name = s.topic("wrap", partitions=3)
    pid, epoch = s.producer()
    send(s, name, "up to the largest sequence", pid, epoch, 2147483645, 3)
    send(s, name, "0 follows it", pid, epoch, 0, 2)
    send(s, name, "the last one before the wrap again", pid, epoch, 2147483645, 3)
    send(s, name, "2 follows", pid, epoch, 2)
    send(s, name, "a batch across the wrap", pid, epoch, 2147483646, 5, partition=1)
    send(s, name, "3 follows it", pid, epoch, 3, partition=1)
    send(s, name, "the batch across the wrap again", pid, epoch, 2147483646, 5, partition=1)
    send(s, name, "ends at the largest", pid, epoch, 2147483647, 1, partition=2)
    send(s, name, "1 is a gap", pid, epoch, 1, partition=2)


@case("idempotence.epochs")
def epochs(s: Session) -> None:
    name = s.topic("epochs", partitions=2)
    pid, _ = s.producer()
    send(s, name, "epoch 3", pid, 3, 0, 2)
    for v in (3, 8, 9, 10, 12, 13):
        send(s, name, "older epoch", pid, 2, 2, version=v)
    send(s, name, "older epoch, a duplicate's sequence", pid, 2, 0, 2)
    send(s, name, "newer epoch not at 0", pid, 4, 2)
    send(s, name, "newer epoch at 0", pid, 4, 0, 2)
    send(s, name, "newer epoch again", pid, 4, 0, 2)
    send(s, name, "the old epoch's last", pid, 3, 0, 2)
    send(s, name, "two epochs on", pid, 6, 0)
    send(s, name, "largest epoch", pid, 32767, 0, partition=1)
    send(s, name, "goes on in it", pid, 32767, 1, partition=1)


@case("idempotence.mixed")
def mixed(s: Session) -> None:
    """Batches with and without a producer on one partition, and a wrong one in between."""
    name = s.topic("mixed-producers")
    pid, epoch = s.producer()
    send(s, name, "first", pid, epoch, 0)
    s.call("Produce", 9, produce_body(name, s.batch(2)), "no producer id")
    send(s, name, "corrupt", pid, epoch, 1, crc_change=9)
    send(s, name, "corrupt duplicate", pid, epoch, 0, crc_change=9)
    send(s, name, "right", pid, epoch, 1)
    send(s, name, "first again", pid, epoch, 0)
    s.call("Fetch", 11, fetch_body(name, 0), "read back")


@case("idempotence.log_append_time")
def log_append_time(s: Session) -> None:
    name = s.topic("pid-append-time", configs={"message.timestamp.type": "LogAppendTime"})
    pid, epoch = s.producer()
    send(s, name, "first", pid, epoch, 0, 2)
    send(s, name, "again", pid, epoch, 0, 2)
