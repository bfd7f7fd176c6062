#!/usr/bin/env python3
"""Real clients against a broker: every client writes, another reads back every byte.

    run.py --broker-cmd target/release/corelog [--quick] [--only PATTERN]
    run.py --address 127.0.0.1:9092

Pairwise over writer, codec, acks, reader; then the older Java releases, and `localhost` as address.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import os
import subprocess
import sys
import time
from dataclasses import dataclass

import pairwise
import setup
from broker import Broker, split_address
from session import Session

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
ACKS = ["0", "1", "all", "idempotent"]
CLIENTS = ["kcat", "confluent", "kafka-python", "java-4.1"]
OLD_JAVA = [("java-2.8", "lz4"), ("java-3.6", "zstd"), ("java-3.9", "snappy")]
PROGRAMS = {"kcat": "kcat.py", "confluent": "confluent.py", "kafka-python": "kafka_python.py"}
PARTITIONS = 4
DEADLINE_S = 300


@dataclass(frozen=True)
class Check:
    writer: str
    codec: str
    acks: str
    reader: str
    host: str = ""

    @property
    def name(self) -> str:
        return "/".join(part for part in (self.writer, self.codec, self.acks, self.reader, self.host) if part)


def checks() -> list[Check]:
    out = [Check(*row) for row in pairwise.rows([CLIENTS, CODECS, ACKS, CLIENTS], lambda row: True)]
    for i, (old, codec) in enumerate(OLD_JAVA):
        out += [Check(old, codec, acks, old) for acks in ACKS]
        out += [Check(old, codec, "idempotent", CLIENTS[i]), Check(CLIENTS[i], codec, "all", old)]
    out += [Check(client, "none", "all", client, "localhost") for client in CLIENTS]
    return out


def command(client: str) -> list[str]:
    if client in PROGRAMS:
        return [str(setup.PYTHON), str(setup.HERE / "clients" / PROGRAMS[client])]
    jars = setup.JAVA / setup.JAVA_RELEASES[client]
    return ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
            "-cp", f"{setup.JAVA / 'classes'}:{jars}/*", "Client"]


def call(client: str, actions: str, options: list[str]) -> str:
    """Empty when the client was satisfied, else its last words."""
    try:
        done = subprocess.run([*command(client), actions, *options], capture_output=True, timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        return f"{client} {actions}: no end after {DEADLINE_S} s"
    if done.returncode == 0:
        return ""
    text = (done.stderr or done.stdout).decode(errors="replace").strip()
    return f"{client} {actions}: {text[-600:] or done.returncode}"


def run_check(check: Check, address: str, topic: str, count: int) -> str:
    host, port = split_address(address)
    options = ["--broker", f"{check.host or host}:{port}", "--topic", topic, "--count", str(count),
               "--profile", "plain" if check.writer == "kcat" else "rich",
               "--acks", "all" if check.acks == "idempotent" else check.acks]
    writing = [*options, "--codec", check.codec, *(["--idempotent"] if check.acks == "idempotent" else [])]
    error = call(check.writer, "create", writing)
    if error:
        return error
    # Kafka answers before the partitions are led. Requests sent meanwhile are refused and sent again, in another
    # order unless idempotent, or lost with acks 0: that is Kafka's contract, and not what is checked here.
    session = Session(address, run_id="", now_ms=0)
    session.wait_for_topic(topic, PARTITIONS)
    if check.acks == "0":
        error = call(check.writer, "produce", writing)
        with contextlib.suppress(RuntimeError):
            # Nobody said that they have arrived. Should some be missing, the reader says which.
            session.wait_for_records(topic, PARTITIONS, count)
        return error or call(check.reader, "consume", options)
    if check.reader == check.writer:
        return call(check.writer, "produce,consume", writing)
    return call(check.writer, "produce", writing) or call(check.reader, "consume", options)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--broker-cmd", metavar="COMMAND", help="command of the broker, without `serve`")
    where.add_argument("--address", metavar="HOST:PORT", help="a running broker")
    parser.add_argument("--quick", action="store_true", help="2,000 records a check instead of 100,000")
    parser.add_argument("--count", type=int)
    parser.add_argument("--only", metavar="PATTERN", default="*", help="such as 'kcat/*/idempotent/*'")
    parser.add_argument("--list", action="store_true", help="print the checks and end")
    args = parser.parse_args()
    chosen = [c for c in checks() if fnmatch.fnmatch(c.name, args.only)]
    if args.list or not chosen:
        print("\n".join(c.name for c in chosen) or f"no check matches {args.only}")
        return 0 if chosen else 2
    setup.everything()
    count = args.count or (2_000 if args.quick else 100_000)
    run_id, failed = os.urandom(3).hex(), 0
    with contextlib.ExitStack() as stack:
        address = args.address or stack.enter_context(
            Broker(args.broker_cmd, {"num.partitions": "4"}, "clients")).address
        print(f"{'writer':13}{'codec':8}{'acks':12}{'reader':14}{'host':11}{'s':>6}  result")
        for i, check in enumerate(chosen):
            start = time.monotonic()
            error = run_check(check, address, f"clients-{run_id}-{i}", count)
            failed += bool(error)
            print(f"{check.writer:13}{check.codec:8}{check.acks:12}{check.reader:14}{check.host:11}"
                  f"{time.monotonic() - start:6.1f}  {'FAILED: ' + error if error else 'ok'}", flush=True)
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
