"""Comparing two answers field by field, with the table of what may differ and why."""

from __future__ import annotations

import re
import uuid
from typing import Any

from session import Exchange, Session
from wire import batch

# What may differ. (API, path, rule, reason). Rules:
#   node     a node id that the broker listed at the start is written <node>; any other number is compared
#   nodes    as sorted; and of a broker whose shards are brokers to clients, those that look alike then count once
#   topic    a topic id is written as the name it belongs to, so a wrong id still shows
#   producer a producer id is written as the how-manieth this broker has handed out
#   sign     numbers from 0 up are alike; negative ones are compared
#   null     only null against not null is compared
#   text     a text is needed where the second has one; its words are free, and one too many does no harm
#   ignore   not compared
#   subset   of two lists: each element of the first broker must be, by its key, in the second's, and equal to it
#   within   of two lists of version ranges: as subset, and each range lies inside the second's
#   sorted   the order of a list carries no meaning
#   refused  a refusal of the first broker (not 0) is right where the second answers -1; other codes are compared
MASKS: list[tuple[str, str, str, str]] = [
    ("FindCoordinator", r".*\.(nodeId|host|port|errorCode|errorMessage)", "ignore",
     "corelog has no group coordinator at this stage: it answers COORDINATOR_NOT_AVAILABLE"),
    ("*", r".*\.errorCode", "refused", "-1 is an exception that Kafka did not foresee, not a contract"),
    ("*", r".*\.(nodeId|controllerId|leaderId|brokerId|leaderIdOrNode)", "node", "each broker has its own node id"),
    ("*", r".*\.(replicaNodes|isrNodes|offlineReplicas)\[\]", "node", "each broker has its own node id"),
    ("*", r".*\.topicId", "topic", "topic ids are random"),
    ("*", r".*\.producerId", "producer", "producer ids are handed out from blocks of the broker's choice"),
    ("*", r".*\.clusterId", "null", "cluster ids are random"),
    ("*", r".*\.host", "null", "the address is the broker's own"),
    ("*", r".*\.port", "sign", "the address is the broker's own"),
    ("*", r".*[lL]eaderEpoch", "sign", "corelog raises the epoch at each start; Kafka does so at each election"),
    ("*", r".*\.divergingEpoch\.epoch", "sign", "a leader epoch"),
    ("*", r".*\.logAppendTimeMs", "sign", "the broker's clock"),
    ("*", r".*\.(errorMessage|batchIndexErrorMessage)", "text", "texts are for people, each broker words its own"),
    ("*", r".*\.documentation", "null", "texts are for people, each broker words its own"),
    ("Fetch", r"\.responses", "sorted", "Kafka answers refused partitions apart from the others"),
    ("Fetch", r"\.sessionId", "ignore", "0 (no session) is a legal answer to every request for a session"),
    ("Fetch", r".*\.cutBytes", "ignore", "Kafka may cut the last batch at the limit, corelog sends whole batches"),
    ("ApiVersions", r"\.apiKeys", "within", "corelog advertises what it implements"),
    ("ApiVersions", r"\.supportedFeatures", "within", "corelog advertises what it implements"),
    ("ApiVersions", r"\.finalizedFeatures", "within", "corelog advertises what it implements"),
    ("ApiVersions", r"\.finalizedFeaturesEpoch", "sign", "an offset of the metadata log"),
    ("ApiVersions", r"\.zkMigrationReady", "ignore", "false and absent mean the same"),
    ("DescribeConfigs", r"\.results\[\]\.resourceName", "node", "the settings of a broker are asked for by its node id"),
    ("DescribeConfigs", r"\.results\[\]\.configs", "subset", "a broker has no settings for parts it does not have"),
    ("DescribeCluster", r"\.brokers", "nodes", "no order is promised; with advertise=shards each shard is listed, and Kafka has no shards"),
    ("Metadata", r"\.brokers", "nodes", "with advertise=shards each shard is listed, and Kafka has no shards"),
    ("Metadata", r"\.topics", "sorted", "Kafka answers in no fixed order"),
    ("Metadata", r".*\.partitions", "sorted", "no order is promised"),
    ("CreateTopics", r"\.topics", "sorted", "Kafka answers in no fixed order"),
    ("CreateTopics", r"\.topics\[\]\.configs", "subset", "as in DescribeConfigs"),
    ("DeleteTopics", r"\.responses", "sorted", "Kafka answers in no fixed order"),
    ("CreatePartitions", r"\.results", "sorted", "Kafka answers in no fixed order"),
    ("IncrementalAlterConfigs", r"\.responses", "sorted", "Kafka answers in no fixed order"),
    ("DescribeConfigs", r"\.results", "sorted", "Kafka answers in no fixed order"),
    ("DeleteRecords", r"\.topics", "sorted", "Kafka answers in no fixed order"),
    ("DeleteRecords", r"\.topics\[\]\.partitions", "sorted", "Kafka answers in no fixed order"),
    ("OffsetForLeaderEpoch", r"\.topics", "sorted", "Kafka answers in no fixed order"),
    ("ListOffsets", r"\.topics", "sorted", "Kafka answers in no fixed order"),
    ("Produce", r"\.responses", "sorted", "Kafka answers in no fixed order"),
    ("Produce", r".*\.partitionResponses", "sorted", "Kafka answers in no fixed order"),
    ("Fetch", r"\.responses\[\]\.partitions", "sorted", "clients find partitions by index"),
]
# Settings that only corelog has.
OWN_SETTINGS = {"advertise", "advertise.port", "cpus", "durability", "durability.allow.degraded", "durability.flush.bytes",
                "durability.flush.ms", "log.flush.mode", "log.format", "log.free.bytes", "log.level", "memory",
                "memory.tail.cache", "replication.factor.clamp", "runtime", "shard.accept", "shard.handover.interval.ms",
                "shard.handover.requests", "shard.spin.us", "shards", "validate.deep"}
# Settings whose value is not compared: corelog flushes before it answers; addresses and folders are a broker's own;
# the reference is set up as a single node that is its own controller; some name Java classes.
OWN_VALUES = re.compile(
    r"(log\.)?flush\.(messages|interval\.messages)|(advertised\.)?listeners|broker\.id|node\.id|(metadata\.)?log\.dirs?"
    r"|controller\..*|process\.roles|inter\.broker\.listener\.name|listener\.security\.protocol\.map"
    r"|offsets\.topic\..*|transaction\.state\.log\..*|group\.initial\.rebalance\.delay\.ms"
    r"|metric\.reporters|principal\.builder\.class|.*\.class(\.name)?")
BROKER = 4


def setting(value: dict[str, Any]) -> dict[str, Any]:
    """One described setting without what is a broker's own."""
    if OWN_VALUES.fullmatch(value["name"]):
        return {**value, **{k: "<own>" for k in ("value", "configSource", "synonyms", "isDefault") if k in value}}
    return value


_COMPILED = [(api, re.compile(path), rule) for api, path, rule, _ in MASKS]
_KEYS = ("apiKey", "name", "topic", "topicId", "partitionIndex", "index", "partition", "nodeId", "brokerId", "resourceName",
         "resourceType")


def rule_of(api: str, path: str) -> str:
    return next((rule for a, p, rule in _COMPILED if a in ("*", api) and p.fullmatch(path)), "")


def canonical(session: Session, api: str, value: Any, path: str = "") -> Any:
    """A decoded answer with the values that may differ replaced by what they stand for."""
    rule = rule_of(api, path)
    if rule == "ignore":
        return "<ignored>"
    if isinstance(value, dict):
        if "isSensitive" in value:
            value = setting(value)
        if value.get("resourceType") == BROKER and "configs" in value:
            # corelog's own settings are fixed while it runs at this stage, so all are read-only.
            value = {**value, "configs": [{**c, "readOnly": "<own>"} for c in value["configs"]]}
        return {k: canonical(session, api, v, f"{path}.{k}") for k, v in value.items()}
    if isinstance(value, list):
        items = [canonical(session, api, v, path + "[]") for v in value]
        if rule == "nodes" and items:
            absent = len(session.node_ids) - len(items)
            items = [item for at, item in enumerate(items) if item not in items[:at]] + ["<absent>"] * absent
        return sorted(items, key=element_key) if rule in ("sorted", "subset", "within", "nodes") else items
    if isinstance(value, bytes) and api == "Fetch":
        return canonical(session, api, batch.parse(value), path)
    return _scalar(session, rule, value)


def _scalar(session: Session, rule: str, value: Any) -> Any:
    if rule == "node" and (value in session.node_ids or value in map(str, session.node_ids)):
        return "<node>"
    if rule == "topic" and isinstance(value, uuid.UUID) and value.int:
        return session.topic_ids.get(value, str(value))
    if rule == "producer" and value in session.producer_ids:
        return f"<producer {session.producer_ids.index(value)}>"
    if rule == "sign" and isinstance(value, int) and value >= 0:
        return "<not negative>"
    if rule in ("null", "text") and value is not None:
        return "<not null>"
    return str(value) if isinstance(value, uuid.UUID) else value


def element_key(item: Any) -> str:
    if isinstance(item, dict):
        return repr([(k, item[k]) for k in _KEYS if k in item])
    return repr(item)


def differences(api: str, a: Any, b: Any, path: str = "") -> list[str]:
    """The fields in which two canonical answers differ: `path: A != B`."""
    rule = rule_of(api, path)
    if isinstance(a, dict) and isinstance(b, dict):
        out = []
        for key in sorted(set(a) | set(b)):
            out += differences(api, a.get(key, "<absent>"), b.get(key, "<absent>"), f"{path}.{key}")
        return out
    if isinstance(a, list) and isinstance(b, list):
        if rule in ("subset", "within"):
            return _subset(api, a, b, path, rule)
        if len(a) != len(b):
            return [f"{path}: {len(a)} elements {short(a)} != {len(b)} {short(b)}"]
        out = []
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            out += [d.replace(path + "[]", f"{path}[{i}]", 1) for d in differences(api, x, y, path + "[]")]
        return out
    if rule == "text" and b is None:
        return []
    if rule == "refused" and b == -1 and a != 0:
        return []
    return [] if a == b else [f"{path}: {short(a)} != {short(b)}"]


def _subset(api: str, a: list[Any], b: list[Any], path: str, rule: str) -> list[str]:
    theirs = {element_key(item): item for item in b}
    out = []
    for item in a:
        other = theirs.get(element_key(item))
        label = f"{path}[{item.get('apiKey', item.get('name'))}]"
        if other is None and item.get("name") in OWN_SETTINGS:
            continue
        if other is None:
            out.append(f"{label}: not in the second broker")
        elif rule == "within":
            lows = [k for k in item if k.startswith("min")]
            highs = [k for k in item if k.startswith("max")]
            out += [f"{label}.{k}: {item[k]} < {other[k]}" for k in lows if item[k] < other[k]]
            out += [f"{label}.{k}: {item[k]} > {other[k]}" for k in highs if item[k] > other[k]]
        else:
            out += [label + d.removeprefix(path + "[]") for d in differences(api, item, other, path + "[]")]
    return out


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 160 else text[:157] + "..."


def compare(a: Session, x: Exchange, b: Session, y: Exchange) -> list[str]:
    if x.outcome != y.outcome:
        shown = [f"{e.outcome} {short(e.body) if e.body else ''}".strip() for e in (x, y)]
        return [f"outcome: {shown[0]} != {shown[1]}"]
    return differences(x.api, canonical(a, x.api, x.body), canonical(b, y.api, y.body))
