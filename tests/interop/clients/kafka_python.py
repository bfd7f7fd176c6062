#!/usr/bin/env python3
"""kafka-python: create, produce, consume. See arguments.py."""

from __future__ import annotations

import argparse
import time

import arguments
import records
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic


def create(args: argparse.Namespace) -> None:
    admin = KafkaAdminClient(bootstrap_servers=args.broker)
    admin.create_topics([NewTopic(args.topic, records.PARTITIONS, 1)])
    admin.close()


def produce(args: argparse.Namespace) -> None:
    producer = KafkaProducer(bootstrap_servers=args.broker, linger_ms=5, acks="all" if args.acks == "all" else int(args.acks),
                             compression_type=None if args.codec == "none" else args.codec,
                             enable_idempotence=args.idempotent)
    futures = [producer.send(args.topic, partition=i % records.PARTITIONS, key=records.key(i),
                             value=records.value(i, args.profile), headers=records.headers(i, args.profile))
               for i in range(args.count)]
    producer.flush(90)
    for future in futures:
        future.get(10)
    producer.close()


def consume(args: argparse.Namespace) -> None:
    consumer = KafkaConsumer(bootstrap_servers=args.broker, group_id=None, check_crcs=True)
    partitions = [TopicPartition(args.topic, p) for p in range(records.PARTITIONS)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    ends = consumer.end_offsets(partitions)
    checks = {p: records.Check(p.partition, args.count, args.profile, args.acks) for p in partitions}
    end = time.monotonic() + 120
    while any(checks[p].seen < ends[p] for p in partitions):
        if time.monotonic() > end:
            raise TimeoutError(f"{sum(c.seen for c in checks.values())} of {sum(ends.values())} records read")
        for partition, batch in consumer.poll(1000, max_records=5000).items():
            for r in batch:
                checks[partition].add(r.offset, r.key, r.value, [tuple(h) for h in r.headers])
    for check in checks.values():
        check.finish()
    consumer.close()


if __name__ == "__main__":
    arguments.run(create, produce, consume)
