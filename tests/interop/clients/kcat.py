#!/usr/bin/env python3
"""kcat (Debian's, with its librdkafka of 2022): create, produce, consume. See arguments.py.

Records go in as lines, one run of kcat a partition, so only the `plain` profile can be produced. kcat has no
admin command: `create` lets the broker create the topic when kcat asks for its metadata.
"""

from __future__ import annotations

import argparse
import subprocess
import time

import arguments
import records


def kcat(args: argparse.Namespace, *more: str | bytes, stdin: bytes = b"") -> bytes:
    done = subprocess.run(["kcat", "-q", "-b", args.broker, *more], input=stdin, capture_output=True, timeout=120)
    if done.returncode != 0:
        raise AssertionError(done.stderr.decode(errors="replace").strip()[-500:])
    return done.stdout


def create(args: argparse.Namespace) -> None:
    end = time.monotonic() + 30
    wanted = f'topic "{args.topic}" with {records.PARTITIONS} partitions'.encode()
    while wanted not in (seen := kcat(args, "-L", "-t", args.topic, "-X", "allow.auto.create.topics=true")):
        if time.monotonic() > end:
            raise TimeoutError(f"not created: {seen.decode(errors='replace')[-300:]}")
        time.sleep(0.2)


def produce(args: argparse.Namespace) -> None:
    if args.profile != "plain":
        raise ValueError("kcat writes the plain profile only")
    for p in range(records.PARTITIONS):
        lines = b"".join(records.key(i) + b"\t" + records.value(i, "plain") + b"\n"
                         for i in range(p, args.count, records.PARTITIONS))
        header_options: list[str | bytes] = []
        for name, content in records.headers(0, "plain"):
            header_options += ["-H", name.encode() + b"=" + content]
        kcat(args, "-P", "-t", args.topic, "-p", str(p), "-K", "\t", "-z", args.codec, *header_options,
             "-X", f"acks={args.acks}", "-X", f"enable.idempotence={str(args.idempotent).lower()}", stdin=lines)


def consume(args: argparse.Namespace) -> None:
    """Key and value are cut out by their lengths, so they may hold any byte; headers follow.

    kcat prints a header's value up to its first zero byte.
    """
    for p in range(records.PARTITIONS):
        out = kcat(args, "-C", "-t", args.topic, "-p", str(p), "-o", "beginning", "-e", "-X", "check.crcs=true",
                   "-f", "%o %K %S %k%s%h;\n")
        check = records.Check(p, args.count, args.profile, args.acks)
        at = 0
        while at < len(out):
            head = out[at:at + 60].split(b" ", 3)
            offset, key_size, value_size = (int(n) for n in head[:3])
            at += sum(len(n) + 1 for n in head[:3])
            key, value = out[at:at + key_size], out[at + key_size:at + key_size + value_size]
            at += key_size + value_size
            expected = records.headers(int(key[4:]), args.profile)
            shown = b",".join(name.encode() + b"=" + content.split(b"\0")[0] for name, content in expected) + b";\n"
            got = expected if out[at:at + len(shown)] == shown else [("as kcat shows them", out[at:at + len(shown)])]
            at += len(shown)
            check.add(offset, key, value, got)
        check.finish()


if __name__ == "__main__":
    arguments.run(create, produce, consume)
