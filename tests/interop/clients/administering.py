#!/usr/bin/env python3
"""confluent-kafka's AdminClient, as consoles and operators use it, against a broker whose shards are advertised.

    administering.py --broker HOST:PORT --topic T --shards N
"""

from __future__ import annotations

import argparse
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType

PATIENCE_S = 30
RECORDS = 50


def result(futures: dict[object, object]) -> list[object]:
    return [future.result(PATIENCE_S) for future in futures.values()]  # type: ignore[attr-defined]


def expect(what: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise AssertionError(f"{what}: {got}, not {wanted}")


def cluster(admin: AdminClient, shards: int) -> list[int]:
    described = admin.describe_cluster().result(PATIENCE_S)
    ids = sorted(node.id for node in described.nodes)
    expect("brokers", len(ids), shards)
    expect("ports", len({node.port for node in described.nodes}), shards)
    if described.controller is None or described.controller.id not in ids:
        raise AssertionError(f"the controller is {described.controller}, brokers are {ids}")
    metadata = admin.list_topics(timeout=PATIENCE_S)
    expect("brokers in Metadata", sorted(metadata.brokers), ids)
    expect("controller in Metadata", metadata.controller_id in ids, True)
    for node in ids:
        (settings,) = result(admin.describe_configs([ConfigResource(ResourceType.BROKER, str(node))]))
        expect(f"shards of broker {node}", settings["shards"].value, str(shards))
    return ids


def partitions(admin: AdminClient, topic: str, count: int, ids: list[int]) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        (described,) = result(admin.describe_topics(TopicCollection([topic])))
        if len(described.partitions) == count or time.monotonic() > end:
            break
        time.sleep(0.1)
    expect("partitions", len(described.partitions), count)
    leaders = {p.leader.id for p in described.partitions}
    expect("leaders", sorted(leaders), ids)
    for p in described.partitions:
        expect(f"replicas of {p.id}", [r.id for r in p.replicas], [p.leader.id])
        expect(f"in-sync replicas of {p.id}", [r.id for r in p.isr], [p.leader.id])


def offsets(admin: AdminClient, topic: str, count: int, spec: OffsetSpec) -> list[int]:
    asked = {TopicPartition(topic, p): spec for p in range(count)}
    futures = admin.list_offsets(asked)
    return [futures[p].result(PATIENCE_S).offset for p in asked]


def records(broker: str, topic: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": broker, "enable.idempotence": True})
    for n in range(RECORDS * count):
        producer.produce(topic, value=b"%d" % n, partition=n % count)
    expect("unanswered records", producer.flush(PATIENCE_S), 0)
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "unused", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, p, 0) for p in range(count)])
    seen, end = 0, time.monotonic() + PATIENCE_S
    while seen < RECORDS * count and time.monotonic() < end:
        seen += sum(m.error() is None for m in consumer.consume(500, 0.5))
    consumer.close()
    expect("records read", seen, RECORDS * count)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--shards", type=int, required=True)
    args = parser.parse_args()
    admin = AdminClient({"bootstrap.servers": args.broker})
    ids = cluster(admin, args.shards)
    count = 2 * args.shards
    result(admin.create_topics([NewTopic(args.topic, count, 1, config={"retention.ms": "3600000"})]))
    partitions(admin, args.topic, count, ids)
    (settings,) = result(admin.describe_configs([ConfigResource(ResourceType.TOPIC, args.topic)]))
    expect("retention.ms", settings["retention.ms"].value, "3600000")
    records(args.broker, args.topic, count)
    expect("ends", offsets(admin, args.topic, count, OffsetSpec.latest()), [RECORDS] * count)
    deleted = result(admin.delete_records([TopicPartition(args.topic, p, p + 1) for p in range(count)]))
    expect("low watermarks", sorted(d.low_watermark for d in deleted), list(range(1, count + 1)))
    expect("starts", offsets(admin, args.topic, count, OffsetSpec.earliest()), list(range(1, count + 1)))
    result(admin.create_partitions([NewPartitions(args.topic, 2 * count)]))
    partitions(admin, args.topic, 2 * count, ids)
    expect("ends of all", offsets(admin, args.topic, 2 * count, OffsetSpec.latest()), [RECORDS] * count + [0] * count)
    result(admin.delete_topics([args.topic]))
    end = time.monotonic() + PATIENCE_S
    while args.topic in admin.list_topics(timeout=PATIENCE_S).topics:
        if time.monotonic() > end:
            raise AssertionError("the topic is still there")
        time.sleep(0.1)
    try:
        result(admin.describe_topics(TopicCollection([args.topic])))
        raise AssertionError("a deleted topic is described")
    except KafkaException:
        pass


if __name__ == "__main__":
    main()
