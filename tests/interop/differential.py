#!/usr/bin/env python3
"""Send the same requests to two brokers and compare the answers field by field.

    differential.py --a-cmd CORELOG          corelog against an Apache Kafka that this script starts
    differential.py --a 127.0.0.1:9092       a running broker against such a Kafka
    differential.py --self                   Kafka against Kafka: must be all ok
    differential.py --record DIR             talk to Kafka only and write what it answered

One line per exchange, `ok` or `DIFF` with the fields that differ (first broker != second). What may differ, and
why, is the table MASKS in compare.py; answers that may differ as a whole are the table EXCEPTIONS below.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cases
from broker import KAFKA_COMMAND, Broker
from compare import compare
from record import write_captures
from session import Exchange, Session

# Exchanges whose difference is known and meant: (label pattern, reason).
EXCEPTIONS: list[tuple[str, str]] = [
    ("batches.wrong: null records *", "Kafka fails on it and hangs up; a refusal (87) is as good"),
    ("fetch.limits: * -1 *", "Kafka fails on a negative limit (-1); it may also count as 0"),
    ("metadata.ids: neither *", "Kafka fails on it (-1) and then lists no brokers"),
    ("apiversions.unknown_version: version 99, no tags*", "corelog answers this too; nothing after the header is needed"),
    ("connections.bodies: count fffffffe*", "Kafka reads every negative count as null; corelog only -1"),
    ("batches.wrong: timestamp 0: read back*", "Kafka rolled a segment by record time, and a fetch ends at a segment's end"),
    ("batches.wrong: 10 years ago: read back*", "Kafka rolled a segment by record time, and a fetch ends at a segment's end"),
    ("createtopics.configs: retention.ms= 1000 *", "Kafka shows the spaces of a number again"),
    ("createtopics.configs: internal.segment.bytes*", "a setting of Kafka's own tests"),
    ("batches.wrong: record with an odd offset delta*", "Kafka stores the deltas as they are: offsets that clients misread"),
    ("batches.wrong: offset deltas backwards*", "Kafka stores the deltas as they are: offsets that clients misread"),
    ("metadata.ids: * [[]Metadata v10]", "ids are answered from v12 on; Kafka refuses them here and lists no brokers"),
    ("metadata.ids: * [[]Metadata v11]", "ids are answered from v12 on; Kafka refuses them here and lists no brokers"),
    ("metadata.internal: *", "groups and transactions, whose topics these are, come later"),
    ("produce.several: no partitions*", "Kafka leaves out a topic without partitions"),
    ("produce.twice_in_one: topic twice*", "Kafka joins a topic that is named twice"),
    ("batches.wrong: a batch and a byte*", "Kafka drops the byte; corelog stores what was sent or refuses it (87)"),
    ("batches.wrong: control and transactional bits*", "refused either way: 87 before 53"),
    ("batches.wrong: LogAppendTime bit*", "corelog refuses the bit from a client (32), Kafka ignores it"),
    ("fetch.partition_order: partition twice*", "Kafka answers a partition that is named twice once"),
    ("createtopics.names: __cluster_metadata*", "no topic of corelog's: an ordinary name"),
]

# Both brokers run with these, so that defaults which the checks rely on are the same.
SETTINGS = {"num.partitions": "4"}
# Kafka decompresses and walks every batch that it appends; corelog does so when told to.
SETTINGS_TESTED = {**SETTINGS, "validate.deep": "true"}


def excepted(label: str) -> str:
    return next((reason for pattern, reason in EXCEPTIONS if fnmatch.fnmatch(label, pattern)), "")


def run_case(case: cases.Case, session: Session) -> list[Exchange]:
    session.exchanges = []
    session.close()
    try:
        case.run(session)
    except Exception as error:  # a broker that fails a preparation must not end the whole check
        session.note("failed", f"{type(error).__name__}: {error}")
    for exchange in session.exchanges:
        exchange.label = f"{case.name}: {exchange.label}" if exchange.label else case.name
        if exchange.outcome != "note":
            exchange.label += f" [{exchange.api} v{exchange.version}]"
    return session.exchanges


def compare_case(case: cases.Case, a: Session, b: Session) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(2) as both:
        left, right = both.map(lambda session: run_case(case, session), (a, b))
    rows = []
    for i in range(max(len(left), len(right))):
        if i >= len(left) or i >= len(right) or left[i].label != right[i].label:
            labels = [side[i].label + f" {side[i].body}" if i < len(side) else "nothing" for side in (left, right)]
            rows.append({"label": case.name, "differences": [f"the exchanges part ways: {labels[0]} != {labels[1]}"]})
            break
        found = compare(a, left[i], b, right[i])
        if left[i].outcome == "note" and "failed" in left[i].label:
            found.append(f"could not run: {left[i].body['value']}")
        rows.append({"label": left[i].label, "differences": found, "reason": excepted(left[i].label),
                     "request": left[i].request.hex(), "a": left[i].response.hex(), "b": right[i].response.hex(),
                     "a_body": repr(left[i].body), "b_body": repr(right[i].body)})
    return rows


def report(rows: list[dict[str, Any]], quiet: bool) -> int:
    bad = 0
    for row in rows:
        if row["differences"] and not row.get("reason"):
            bad += 1
            print(f"DIFF {row['label']}")
            for line in row["differences"]:
                print(f"       {line}")
        elif row["differences"]:
            print(f"meant {row['label']}: {row['reason']}")
        elif not quiet:
            print(f"ok   {row['label']}")
    sys.stdout.flush()
    return bad


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--a", metavar="HOST:PORT", help="address of the broker under test")
    parser.add_argument("--a-cmd", metavar="COMMAND", help="command of the broker under test, without `serve`")
    parser.add_argument("--b", metavar="HOST:PORT", help="a running reference; without it Kafka is started")
    parser.add_argument("--self", action="store_true", help="compare Kafka with Kafka")
    parser.add_argument("--record", metavar="DIR", help="write captures of Kafka's answers")
    parser.add_argument("--only", metavar="PATTERN", default="*", help="cases to run, such as 'produce.*'")
    parser.add_argument("--json", metavar="FILE", help="write every exchange with its bytes")
    parser.add_argument("--quiet", action="store_true", help="print differences only")
    args = parser.parse_args()
    if not (args.a or args.a_cmd or args.self or args.record):
        parser.error("one of --a, --a-cmd, --self, --record is needed")
    return args


def main() -> int:
    args = arguments()
    chosen = [c for c in cases.ALL if fnmatch.fnmatch(c.name, args.only)]
    if not chosen:
        print(f"no case matches {args.only}", file=sys.stderr)
        return 2
    run_id, now_ms = os.urandom(3).hex(), int(time.time() * 1000)
    with contextlib.ExitStack() as stack:
        def address(given: str | None, command: str, name: str, settings: dict[str, str]) -> str:
            return given or stack.enter_context(Broker(command, settings, name)).address

        reference = Session(address(args.b, KAFKA_COMMAND, "kafka", SETTINGS), run_id, now_ms)
        if args.record:
            recorded = [exchange for case in chosen for exchange in run_case(case, reference)]
            return write_captures(Path(args.record), recorded)
        tested = Session(address(args.a, args.a_cmd or KAFKA_COMMAND, "tested",
                                 SETTINGS_TESTED if args.a_cmd else SETTINGS), run_id, now_ms)
        rows: list[dict[str, Any]] = []
        bad = 0
        for case in chosen:
            part = compare_case(case, tested, reference)
            bad += report(part, args.quiet)
            rows += part
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1))
    meant = sum(1 for r in rows if r["differences"] and r.get("reason"))
    print(f"{len(rows) - bad - meant} ok, {meant} meant, {bad} DIFF")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
