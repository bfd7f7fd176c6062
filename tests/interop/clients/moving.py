#!/usr/bin/env python3
"""confluent-kafka for ../movement.py: producers and consumers whose partitions change all the time, and topics that come and go.

    moving.py create --broker HOST:PORT --topic T
    moving.py clients --broker HOST:PORT --topic T --clients 0,1,2,3
    moving.py churn --broker HOST:PORT
    moving.py reread --broker HOST:PORT --topic T

Client i produces to the partitions 8 i to 8 i + 7 and consumes those of client i + 4. Record n of a partition is acknowledged at
offset n and read at offset n, for each partition has one writer, which is idempotent. The words on stdin and stdout are in ../movement.py.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
import traceback

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

EACH = 8
CLIENTS = 8
OUTSTANDING_MAX = 200
CATCH_UP_S = 120
REQUEST_TIMEOUT_MS = 10_000


def settings(args: argparse.Namespace) -> dict[str, object]:
    return {"bootstrap.servers": args.broker, "socket.timeout.ms": REQUEST_TIMEOUT_MS, "reconnect.backoff.max.ms": 500,
            "reconnect.backoff.ms": 50, "topic.metadata.refresh.interval.ms": 5000}


def content(topic: str, partition: int, n: int) -> bytes:
    return b"%s/%d/%d/" % (topic.encode(), partition, n) + b"x" * ((partition * 31 + n * 7) % 300)


class Producing(threading.Thread):
    def __init__(self, args: argparse.Namespace, client: int) -> None:
        super().__init__(daemon=True)
        self.topic, self.random = args.topic, random.Random(args.seed * 100 + client)
        self.partitions = range(client * EACH, (client + 1) * EACH)
        self.sent, self.acked = dict.fromkeys(self.partitions, 0), dict.fromkeys(self.partitions, 0)
        self.errors: list[str] = []
        self.stop = threading.Event()
        self.progress = time.monotonic()
        self.gap = 0.0
        self.producer = Producer({**settings(args), "enable.idempotence": True, "acks": "all", "linger.ms": 0,
                                  "max.in.flight": 5, "batch.num.messages": 10, "message.timeout.ms": 300_000,
                                  "retry.backoff.ms": 20})

    def send(self, partition: int) -> None:
        n, at = self.sent[partition], time.monotonic()

        def done(error: KafkaError | None, message: Message) -> None:
            now = time.monotonic()
            self.gap = max(self.gap, now - max(self.progress, at))
            self.progress = now
            if error is not None:
                self.errors.append(f"partition {partition}, record {n}: {error}")
            elif message.offset() != n or self.acked[partition] != n:
                self.errors.append(f"partition {partition}, record {n}: acknowledged at {message.offset()}, "
                                   f"behind record {self.acked[partition] - 1}")
            else:
                self.acked[partition] += 1
        self.sent[partition] += 1
        self.producer.produce(self.topic, value=content(self.topic, partition, n), partition=partition, on_delivery=done)

    def run(self) -> None:
        while not self.stop.is_set() and not self.errors:
            partition = self.random.choice(self.partitions)
            for _ in range(self.random.randrange(1, 120)):
                self.send(partition if self.random.random() > 0.02 else self.random.choice(self.partitions))
                while len(self.producer) > OUTSTANDING_MAX and not self.errors:
                    self.producer.poll(0.05)
                self.producer.poll(0)
            self.producer.poll(0.005)
        if left := self.producer.flush(CATCH_UP_S):
            self.errors.append(f"{left} records are not answered")


class Consuming(threading.Thread):
    def __init__(self, args: argparse.Namespace, partitions: list[int], client: int) -> None:
        super().__init__(daemon=True)
        self.topic, self.random = args.topic, random.Random(args.seed * 100 + 50 + client)
        self.next = dict.fromkeys(partitions, 0)
        self.errors: list[str] = []
        self.ends: dict[int, int] | None = None
        self.progress, self.gap = time.monotonic(), 0.0
        self.consumer = Consumer({**settings(args), "group.id": "unused", "enable.auto.commit": False, "check.crcs": True,
                                  "fetch.wait.max.ms": 50, "auto.offset.reset": "error", "fetch.error.backoff.ms": 20})

    def take(self, message: Message) -> None:
        if (error := message.error()) is not None:
            if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE) or error.fatal():
                self.errors.append(str(error))
            return
        now = time.monotonic()
        self.gap, self.progress = max(self.gap, now - self.progress), now
        partition, offset = message.partition(), message.offset()
        expected = self.next.get(partition)
        if offset != expected or message.value() != content(self.topic, partition, offset):
            self.errors.append(f"partition {partition}, offset {offset} where {expected} is next: {message.value()!r}")
        else:
            self.next[partition] += 1

    def read(self, partitions: list[int], seconds: float) -> None:
        self.consumer.assign([TopicPartition(self.topic, p, self.next[p]) for p in partitions])
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.errors:
            for message in self.consumer.consume(500, 0.05):
                self.take(message)
            if self.ends is not None and all(self.next[p] >= self.ends[p] for p in partitions):
                return

    def run(self) -> None:
        partitions = list(self.next)
        while self.ends is None and not self.errors:
            some = [self.random.choice(partitions)] if self.random.random() < 0.8 else partitions
            self.read(some, self.random.uniform(0.05, 0.3))
        deadline = time.monotonic() + CATCH_UP_S
        while not self.errors and (left := [p for p in partitions if self.next[p] < (self.ends or {})[p]]):
            if time.monotonic() > deadline:
                self.errors.append(f"not read to the ends: {[(p, self.next[p], (self.ends or {})[p]) for p in left]}")
            self.read(left, 1.0)
        self.consumer.close()


def told(word: str) -> list[str]:
    """The next line of stdin, without the word that it must begin with."""
    line = sys.stdin.readline().split()
    if line[:1] != [word]:
        raise RuntimeError(f"{word} expected, told {line}")
    return line[1:]


def say(word: str, *rest: object) -> None:
    print(word, *rest, flush=True)


def finish(threads: list[Producing] | list[Consuming]) -> None:
    for thread in threads:
        thread.join(2 * CATCH_UP_S)
    for thread in threads:
        for error in thread.errors[:3] or (["goes on"] if thread.is_alive() else []):
            say("error", f"{type(thread).__name__}: {error}")


def create(args: argparse.Namespace) -> None:
    admin = AdminClient(settings(args))
    for future in admin.create_topics([NewTopic(args.topic, EACH * CLIENTS, 1)]).values():
        future.result(30)


def clients(args: argparse.Namespace) -> None:
    mine = [int(c) for c in args.clients.split(",")]
    producing = [Producing(args, c) for c in mine]
    theirs = {c: [p + (c + CLIENTS // 2) % CLIENTS * EACH for p in range(EACH)] for c in mine}
    consuming = [Consuming(args, theirs[c], c) for c in mine]
    for thread in [*producing, *consuming]:
        thread.start()
    told("stop")
    for thread in producing:
        thread.stop.set()
    finish(producing)
    say("acked", *(f"{p}={n}" for thread in producing for p, n in thread.acked.items()))
    ends = {int(p): int(n) for p, n in (item.split("=") for item in told("ends"))}
    for thread in consuming:
        thread.ends = ends
    finish(consuming)
    say("done", sum(sum(thread.next.values()) for thread in consuming),
        f"{max(t.gap for t in producing):.3f}", f"{max(t.gap for t in consuming):.3f}")


def reread(args: argparse.Namespace) -> None:
    """All partitions from the start, by one consumer that reads them together."""
    ends = {int(p): int(n) for p, n in (item.split("=") for item in told("ends"))}
    consuming = Consuming(args, list(ends), 0)
    for p, end in ends.items():
        low, high = consuming.consumer.get_watermark_offsets(TopicPartition(args.topic, p), 30)
        if (low, high) != (0, end):
            say("error", f"partition {p}: offsets {low} to {high}, not 0 to {end}")
    consuming.ends = ends
    consuming.start()
    finish([consuming])
    say("done", sum(consuming.next.values()), "0", f"{consuming.gap:.3f}")


class Churn:
    """Topics that are created, written, read, grown and deleted."""

    PASSING = (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN, KafkaError.REQUEST_TIMED_OUT,
               KafkaError._WAIT_COORD, KafkaError.NOT_CONTROLLER, KafkaError.BROKER_NOT_AVAILABLE)

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.admin = AdminClient(settings(args))

    def until_done(self, ask: object, fine: int) -> None:
        """Asks again while the broker is away. `fine`: what a second try may be told, if the first one was done before a kill."""
        end, tries = time.monotonic() + CATCH_UP_S, 0
        while True:
            tries += 1
            try:
                for future in ask().values():  # type: ignore[operator]
                    future.result(60)
                return
            except KafkaException as error:
                code = error.args[0].code()
                if code == fine and tries > 1:
                    return
                if code not in self.PASSING or time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def once(self, name: str) -> None:
        self.until_done(lambda: self.admin.create_topics([NewTopic(name, 4, 1)], request_timeout=10),
                        KafkaError.TOPIC_ALREADY_EXISTS)
        producer = Producer({**settings(self.args), "enable.idempotence": True, "linger.ms": 1, "message.timeout.ms": 300_000})
        errors: list[KafkaError] = []
        for n in range(40):
            producer.produce(name, value=content(name, n % 4, n // 4), partition=n % 4,
                             on_delivery=lambda error, _message: errors.append(error) if error else None)
        if producer.flush(CATCH_UP_S) or errors:
            raise AssertionError(f"{name}: {errors[:3] or 'not answered'}")
        reading = Consuming(self.args, [0, 1, 2, 3], 0)
        reading.topic, reading.ends = name, dict.fromkeys(range(4), 10)
        reading.run()
        if reading.errors:
            raise AssertionError(f"{name}: {reading.errors[:3]}")
        self.until_done(lambda: self.admin.create_partitions([NewPartitions(name, 7)], request_timeout=10),
                        KafkaError.INVALID_PARTITIONS)
        self.until_done(lambda: self.admin.delete_topics([name], request_timeout=10), KafkaError.UNKNOWN_TOPIC_OR_PART)


def churn(args: argparse.Namespace) -> None:
    stop = threading.Event()
    threading.Thread(target=lambda: (told("stop"), stop.set()), daemon=True).start()
    topics, work = 0, Churn(args)
    while not stop.is_set():
        work.once(f"churn-{topics}")
        topics += 1
    left = [name for name in work.admin.list_topics(timeout=30).topics if name.startswith("churn-")]
    if left:
        say("error", f"topics that were deleted are there: {left}")
    say("done", topics, "0", "0")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["create", "clients", "churn", "reread"])
    parser.add_argument("--broker", required=True)
    parser.add_argument("--topic", default="")
    parser.add_argument("--clients", default="")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        {"create": create, "clients": clients, "churn": churn, "reread": reread}[args.action](args)
    except Exception as error:
        traceback.print_exc()
        say("error", f"{args.action}: {type(error).__name__}: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
