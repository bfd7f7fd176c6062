#!/usr/bin/env python3
"""confluent-kafka (a current librdkafka): create, produce, consume. See arguments.py."""

from __future__ import annotations

import argparse
import time

import arguments
import records
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic


def create(args: argparse.Namespace) -> None:
    admin = AdminClient({"bootstrap.servers": args.broker})
    for future in admin.create_topics([NewTopic(args.topic, records.PARTITIONS, 1)], operation_timeout=20).values():
        future.result(30)


def produce(args: argparse.Namespace) -> None:
    failures: list[str] = []
    delivered = 0

    def done(error: KafkaError | None, _message: object) -> None:
        nonlocal delivered
        if error is None:
            delivered += 1
        else:
            failures.append(str(error))
    producer = Producer({"bootstrap.servers": args.broker, "compression.type": args.codec, "acks": args.acks,
                         "enable.idempotence": args.idempotent, "linger.ms": 5, "message.timeout.ms": 60000})
    for i in range(args.count):
        while True:
            try:
                producer.produce(args.topic, partition=i % records.PARTITIONS, key=records.key(i),
                                 value=records.value(i, args.profile), headers=records.headers(i, args.profile),
                                 on_delivery=done)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    left = producer.flush(90)
    if left or failures or delivered != args.count:
        raise AssertionError(f"{delivered} of {args.count} delivered, {left} left, {failures[:3]}")


def consume(args: argparse.Namespace) -> None:
    consumer = Consumer({"bootstrap.servers": args.broker, "group.id": "unused", "enable.auto.commit": False,
                         "enable.partition.eof": True, "check.crcs": True})
    checks = {p: records.Check(p, args.count, args.profile, args.acks) for p in range(records.PARTITIONS)}
    consumer.assign([TopicPartition(args.topic, p, 0) for p in checks])
    open_partitions = set(checks)
    end = time.monotonic() + 120
    while open_partitions:
        if time.monotonic() > end:
            raise TimeoutError(f"partitions {open_partitions} have no end")
        for m in consumer.consume(1000, 1.0):
            if m.error() is not None:
                if m.error().code() != KafkaError._PARTITION_EOF:
                    raise AssertionError(str(m.error()))
                open_partitions.discard(m.partition())
                continue
            checks[m.partition()].add(m.offset(), m.key(), m.value(), m.headers())
    for check in checks.values():
        check.finish()
    consumer.close()


if __name__ == "__main__":
    arguments.run(create, produce, consume)
