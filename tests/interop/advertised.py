#!/usr/bin/env python3
"""Admin clients against 4 advertised shards: what consoles ask for, by confluent-kafka and by Java.

    advertised.py --broker-cmd target/release/corelog
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

import setup
from broker import Broker

SHARDS = 4
DEADLINE_S = 120
JAVA_CLIENTS = ["java-4.1", "java-2.8"]


def commands(address: str) -> dict[str, list[str]]:
    out = {"confluent": [str(setup.PYTHON), str(setup.HERE / "clients" / "administering.py"), "--broker", address,
                         "--topic", "admin-confluent", "--shards", str(SHARDS)]}
    for client in JAVA_CLIENTS:
        jars = setup.JAVA / setup.JAVA_RELEASES[client]
        out[client] = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{setup.JAVA / 'classes'}:{jars}/*",
                       "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "Administering", address, f"admin-{client}", str(SHARDS)]
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker-cmd", metavar="COMMAND", required=True)
    args = parser.parse_args()
    setup.everything()
    os.environ.update(CORELOG_SHARDS=str(SHARDS), CORELOG_ADVERTISE="shards", CORELOG_ADVERTISE_PORT="0")
    failed = 0
    with Broker(args.broker_cmd, name="advertised") as broker:
        for name, argv in commands(broker.address).items():
            try:
                done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE_S)
                error = "" if done.returncode == 0 else (done.stderr or done.stdout).strip()[-1500:] or str(done.returncode)
            except subprocess.TimeoutExpired:
                error = f"no end after {DEADLINE_S} s"
            failed += bool(error)
            print(f"{name:13}{'FAILED: ' + error if error else 'ok'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
