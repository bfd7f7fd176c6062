#!/usr/bin/env python3
"""The tests that the crates rskafka and rdkafka publish, run against the broker.

    rust_clients.py --broker-cmd target/release/corelog | --address HOST:PORT

The crates come from crates.io as dependencies of the package rust-clients; their test files are copied out of the
downloaded sources into .cache and compiled as tests of that package. SKIPPED says what is left out and why, CHANGED what is changed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import setup
from broker import Broker

PACKAGE = setup.HERE / "rust-clients"
CACHE = setup.CACHE / "rust"
DEADLINE_S = 180

GROUPS = "subscribes or commits: needs a consumer group"
# (test target, test, reason). Whole files left out: rskafka produce_consume (drives a Java VM and a second librdkafka
# whose consumer asks for committed offsets; tests/codecs.rs stands in for its rskafka half) and rdkafka
# test_transactions (needs transactions).
SKIPPED: list[tuple[str, str, str]] = [
    ("rskafka_client", "test_sasl", "needs a listener with SASL"),
    ("rskafka_client", "test_tls", "needs a listener with TLS"),
    ("rskafka_client", "test_socks5", "needs a SOCKS5 proxy"),
    ("rdkafka_admin", "test_groups", GROUPS),
    ("rdkafka_high_consumers", "test_produce_consume_base", GROUPS),
    ("rdkafka_high_consumers", "test_produce_consume_base_concurrent", GROUPS),
    ("rdkafka_high_consumers", "test_produce_consume_with_timestamp", GROUPS),
    ("rdkafka_high_consumers", "test_consumer_commit_message", GROUPS),
    ("rdkafka_high_consumers", "test_consumer_store_offset_commit", GROUPS),
    ("rdkafka_high_consumers", "test_consumer_commit_metadata", GROUPS),
    ("rdkafka_low_consumers", "test_produce_consume_seek", GROUPS),
    ("rdkafka_low_consumers", "test_produce_consume_seek_partitions", GROUPS),
    ("rdkafka_low_consumers", "test_produce_consume_iter", GROUPS),
    ("rdkafka_low_consumers", "test_pause_resume_consumer_iter", GROUPS),
    ("rdkafka_metadata", "test_subscription", GROUPS),
    ("rdkafka_metadata", "test_group_membership", GROUPS),
    ("rdkafka_admin", "test_configs", "needs AlterConfigs (key 33)"),
    ("rdkafka_metadata", "test_metadata", "expects port 9092"),
    ("rdkafka_low_producers", "test_base_producer_timeout", "expects that creating a topic takes more than 100 ms"),
    ("rdkafka_high_producers", "test_future_producer_send", "connects to localhost:9092 whatever KAFKA_HOST says"),
    ("rdkafka_high_producers", "test_future_producer_send_fail", "connects to localhost:9092 whatever KAFKA_HOST says"),
]
# With advertise=shards, besides.
if os.environ.get("CORELOG_ADVERTISE") == "shards":
    SKIPPED.append(("rdkafka_admin", "test_topics", "assigns partitions to broker 0, and each shard has an id of its own"))

# (file below the crates' tests, text, what stands there instead, reason): tests that fail now and then by a race of the client with itself,
# whatever the broker does. A text that is not found is an error.
CHANGED: list[tuple[str, str, str, str]] = [
    ("rdkafka/tests/test_high_consumers.rs", "time::timeout(Duration::from_millis(1000), ", "time::timeout(Duration::from_secs(15), ",
     "librdkafka asks for the first offset 500 ms after it learned that it knows no leader, once or twice, and may then let a long "
     "poll of 500 ms for one partition pass before it fetches the next: 1.0 s was seen with Apache Kafka, too, and 1.5 s with 4 advertised shards"),
    ("rdkafka/tests/test_low_consumers.rs", "    let mut queue = consumer.split_partition_queue(&topic_name, 0).unwrap();\n    queue.set_nonempty",
     "    thread::sleep(Duration::from_secs(1));\n"
     "    let mut queue = consumer.split_partition_queue(&topic_name, 0).unwrap();\n    queue.set_nonempty",
     "librdkafka's main thread puts an entry of its own (a barrier) into the partition's queue when it begins to fetch, some time after "
     "assign() came back: counted as a wake-up if the callback is there first"),
]

# What each crate's own set-up gives its broker.
SETTINGS = {"rskafka": {"auto.create.topics.enable": "false"}, "rdkafka": {"num.partitions": "3", "node.id": "0"}}


def crate_of(target: str) -> str:
    return "rdkafka" if target.startswith("rdkafka") else "rskafka"


def cargo(*arguments: str, environment: dict[str, str] | None = None, capture: bool = False) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "CARGO_TARGET_DIR": str(CACHE / "target"), **(environment or {})}
    return subprocess.run(["cargo", *arguments], cwd=PACKAGE, env=variables, text=True, check=not capture,
                          capture_output=capture, timeout=DEADLINE_S if environment else None)


def copy_test_files() -> None:
    """Cargo runs the tests of the packages in front of it only: bring the files of the downloaded crates here."""
    cargo("fetch", "--locked")
    packages = json.loads(cargo("metadata", "--locked", "--format-version", "1", capture=True).stdout)["packages"]
    for package in packages:
        if package["name"] in ("rskafka", "rdkafka"):
            source = Path(package["manifest_path"]).parent / "tests"
            shutil.copytree(source, CACHE / package["name"] / "tests", dirs_exist_ok=True)
    for name, text, instead, _ in CHANGED:
        path = CACHE / name
        before = path.read_text()
        if text not in before:
            raise RuntimeError(f"{name} does not hold what was to be changed: {text}")
        path.write_text(before.replace(text, instead))


def targets() -> list[str]:
    return re.findall(r'\[\[test\]\]\nname = "(.*)"', (PACKAGE / "Cargo.toml").read_text())


def run_target(target: str, address: str) -> tuple[int, int]:
    """Passed and failed tests of one test file."""
    options = [o for t, test, _ in SKIPPED if t == target for o in ("--skip", test)]
    try:
        done = cargo("test", "--locked", "-q", "--test", target, "--", "--exact", "--test-threads=4", *options,
                     capture=True, environment={"TEST_INTEGRATION": "1", "TEST_BROKER_IMPL": "kafka", "RUST_LOG": "off",
                                                "KAFKA_CONNECT": address, "KAFKA_HOST": address, "KAFKA_VERSION": "4.1.1"})
    except subprocess.TimeoutExpired:
        print(f"{target:26} no end after {DEADLINE_S} s", flush=True)
        return 0, 1
    summary = re.search(r"(\d+) passed; (\d+) failed", done.stdout)
    if summary is None:
        print(f"{target}: {done.stderr[-2000:]}")
        return 0, 1
    passed, failed = int(summary[1]), int(summary[2])
    print(f"{target:26} {passed} passed, {failed} failed, {len(options) // 2} skipped", flush=True)
    if done.returncode:
        print(done.stdout[-6000:])
    return passed, max(failed, int(done.returncode != 0))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--broker-cmd", metavar="COMMAND", help="command of the broker, without `serve`")
    where.add_argument("--address", metavar="HOST:PORT", help="a running broker")
    parser.add_argument("--only", metavar="TARGET", help="one test file, such as rskafka_client")
    args = parser.parse_args()
    copy_test_files()
    cargo("test", "--locked", "-q", "--no-run")
    results = []
    for crate, settings in SETTINGS.items():
        with contextlib.ExitStack() as stack:
            address = args.address or stack.enter_context(Broker(args.broker_cmd, settings, crate)).address
            results += [run_target(t, address) for t in targets() if crate_of(t) == crate and args.only in (None, t)]
    passed, failed = (sum(column) for column in zip(*results, strict=True))
    print(f"{passed} passed, {failed} failed, {len(SKIPPED)} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
