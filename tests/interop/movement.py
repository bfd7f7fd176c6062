#!/usr/bin/env python3
"""Correctness under movement: clients over 64 partitions while connections move, topics come and go, and the broker is killed.

    movement.py --broker-cmd target/release/corelog [--quick] [--kills N] [--seed N] [-X KEY=VALUE]...

8 producers (idempotent, 5 requests in flight) and 8 consumers by assignment, half confluent-kafka and half Java, each in turn at one
partition of its own and at several, so that connections are handed over at every request where the broker is told to (settings of the
environment hold; else 4 shards, hand-over after 1 request and at once). Meanwhile topics are created, written, read, grown and deleted.

Each partition has one writer, so its record n belongs at offset n: in every ack, in everything read at any time, and at the end, when
all is read again behind one more kill. Anything lost, doubled, out of order, or answered to another request breaks that. Logs of clients
must name no request that timed out and no reply without its request; no client may be without progress for longer than its request
timeout and the time that the broker was away.

The clients (clients/moving.py, clients/java/Moving.java) speak lines:
    told `stop`                 producers end; the client says `acked PARTITION=RECORDS ...`
    told `ends PARTITION=RECORDS ...`   consumers read until there; the client says `done RECORDS LONGEST-GAP-OF-PRODUCERS OF-CONSUMERS`
    `error TEXT`                is said at any time
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import setup
from broker import wait_until_answering

TOPIC, PARTITIONS = "movement", 64
REQUEST_TIMEOUT_S = 10.0
# What a client may take besides to notice that the broker is back: its longest backoff, metadata, a loaded machine.
MARGIN_S = 5.0
START_S = 120.0
# From the word `stop` to the last word of the last client.
END_S = 400.0
# Between two kills, where connections are to move at every request: else nothing was checked.
HAND_OVERS_MIN = 50
SUSPICIOUS = re.compile(r"corr(elation)? ?id|timed out|due to request timeout|protocol parse failure|invalid response|CRC", re.IGNORECASE)
# A connection that was being set up when the broker was killed.
HARMLESS = re.compile(r"_TRANSPORT|Connection refused|Disconnected|timed out in state CONNECT", re.IGNORECASE)
# A producer that still knows a deleted topic would make it anew.
SETTINGS = ["log.segment.bytes=1048576", "auto.create.topics.enable=false"]
FORCED = {"CORELOG_SHARDS": "4", "CORELOG_SHARD_HANDOVER_REQUESTS": "1", "CORELOG_SHARD_HANDOVER_INTERVAL_MS": "0"}


def quiet_ports(count: int) -> int:
    """The first of so many free ports, below those that clients draw from, so that nobody takes one while the broker is away."""
    for first in random.sample(range(20_000, 32_000), 100):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise OSError("no free ports")


class Killed:
    """A broker that keeps address and data over its kills."""

    def __init__(self, command: str, settings: list[str], work: Path) -> None:
        self.environment = {**FORCED, **os.environ}
        shards, advertised = int(self.environment["CORELOG_SHARDS"]), self.environment.get("CORELOG_ADVERTISE")
        port = quiet_ports(1 + shards)
        self.address = f"127.0.0.1:{port}"
        # As the broker's own address: clients remember where its shards were.
        self.environment["CORELOG_ADVERTISE_PORT"] = str(port + 1)
        self.log = work / "broker.log"
        self.command = shlex.split(command)
        self.argv = [*self.command, "serve", "--data-dir", str(work / "data"), "--listen", self.address]
        for setting in settings:
            self.argv += ["-X", setting]
        self.should_move = shards > 1 and advertised != "shards" and Path(self.command[0]).name == "corelog"
        self.process: subprocess.Popen[bytes] | None = None
        self.outages: list[float] = []
        self.hand_overs = 0
        self.start()

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.process = process = subprocess.Popen(self.argv, stdout=log, stderr=log, env=self.environment)
        wait_until_answering(self.address, START_S, lambda: process.poll() is None)

    def kill(self) -> None:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the broker ended by itself:\n{self.log.read_text(errors='replace')[-2000:]}")
        self.hand_overs += hand_overs(self)
        since = time.monotonic()
        self.process.kill()
        self.process.wait()
        self.start()
        self.outages.append(time.monotonic() - since)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise


class Talk:
    """One client program."""

    def __init__(self, name: str, argv: list[str], work: Path) -> None:
        self.name, self.log = name, work / f"{name}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self.errors: list[str] = []

    def tell(self, *words: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            print(*words, file=self.process.stdin, flush=True)

    def hear(self, word: str) -> list[str]:
        """What follows this word, on the first line that begins with it; errors before it are kept."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said, *rest = line.split()
            if said == word:
                return rest
            self.errors.append(line.strip()[:500])
        self.errors.append(f"ended before it said `{word}`: {self.log.read_text(errors='replace')[-600:]}")
        return []

    def end(self) -> None:
        if self.process.poll() is None:
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def suspicious(self) -> list[str]:
        lines = self.log.read_text(errors="replace").splitlines()
        return [line[:400] for line in lines if SUSPICIOUS.search(line) and not HARMLESS.search(line)]


def python(action: str, *more: str) -> list[str]:
    return [str(setup.PYTHON), str(setup.HERE / "clients" / "moving.py"), action, *more]


def java(*more: str) -> list[str]:
    jars = setup.JAVA / setup.JAVA_RELEASES["java-4.1"]
    return ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.clients.NetworkClient=info",
            "-cp", f"{setup.JAVA / 'classes'}:{jars}/*", "Moving", "clients", *more]


def hand_overs(broker: Killed) -> int:
    """Connections that changed their shard since the broker's start, by its own count; 0 if it cannot be asked."""
    done = subprocess.run([*broker.command, "cluster", "shards", "--format", "json", "--brokers", broker.address],
                          capture_output=True, text=True, timeout=30)
    rows = json.loads(done.stdout)["shards"] if done.returncode == 0 else []
    return sum(row["connections_handed_over_total"] for row in rows)


def under_kills(broker: Killed, talks: list[Talk], kills: int, chance: random.Random) -> None:
    time.sleep(4)
    for number in range(kills):
        time.sleep(chance.uniform(0.5, 4.0))
        broker.kill()
        print(f"kill {number + 1}: away for {broker.outages[-1]:.2f} s", flush=True)
        ended = [talk.name for talk in talks if talk.process.poll() is not None]
        if ended:
            raise RuntimeError(f"ended early: {ended}")
    time.sleep(3)


def verdict(broker: Killed, talks: list[Talk], acked: dict[int, int], done: dict[str, list[str]], reread: list[str]) -> list[str]:
    errors = [f"{talk.name}: {error}" for talk in talks for error in talk.errors]
    errors += [f"{talk.name}, log: {line}" for talk in talks for line in talk.suspicious()[:5]]
    total = sum(acked.values())
    if len(acked) != PARTITIONS or min(acked.values()) == 0:
        errors.append(f"only {sum(n > 0 for n in acked.values())} of {PARTITIONS} partitions have records")
    read = sum(int(words[0]) for name, words in done.items() if words and name != "churn")
    if read != total or (reread and int(reread[0]) != total):
        errors.append(f"{total} acknowledged, {read} read meanwhile, {reread[:1]} at the end")
    allowed = REQUEST_TIMEOUT_S + MARGIN_S + max(broker.outages, default=0.0)
    gap = 0.0
    for name, words in done.items():
        for what, seconds in zip(("producers", "consumers"), map(float, words[1:])):
            gap = max(gap, seconds)
            if seconds > allowed:
                errors.append(f"{name}, {what}: {seconds:.1f} s without progress, {allowed:.1f} allowed")
    log = broker.log.read_text(errors="replace")
    errors += [f"broker: {line[:400]}" for line in log.splitlines() if "panicked" in line or '"level":"ERROR"' in line][:5]
    if broker.should_move and broker.hand_overs < HAND_OVERS_MIN * len(broker.outages):
        errors.append(f"only {broker.hand_overs} connections were handed over")
    topics = done["churn"][0] if done.get("churn") else "?"
    print(f"{total} records acknowledged, {read} read meanwhile, {reread[0] if reread else '?'} read at the end; "
          f"{len(broker.outages)} kills, longest away {max(broker.outages, default=0):.2f} s; {topics} topics came and went; "
          f"{broker.hand_overs} connections handed over; "
          f"longest without progress {gap:.2f} s")
    return errors


def run(args: argparse.Namespace, work: Path) -> list[str]:
    chance = random.Random(args.seed)
    broker = Killed(args.broker_cmd, [*SETTINGS, *args.settings], work)
    talks: list[Talk] = []
    try:
        common = ["--broker", broker.address, "--topic", TOPIC, "--seed", str(args.seed)]
        subprocess.run(python("create", *common), check=True, timeout=60)
        both = [Talk("confluent", python("clients", *common, "--clients", "0,1,2,3"), work),
                Talk("java", java(*common, "--clients", "4,5,6,7"), work)]
        churn = Talk("churn", python("churn", "--broker", broker.address), work)
        talks += [*both, churn]
        under_kills(broker, talks, args.kills - 1, chance)
        watchdog = threading.Timer(END_S, lambda: [talk.process.kill() for talk in talks])
        watchdog.start()
        for talk in talks:
            talk.tell("stop")
        acked: dict[int, int] = {}
        for talk in both:
            acked |= {int(p): int(n) for p, n in (item.split("=") for item in talk.hear("acked"))}
        ends = [f"{p}={n}" for p, n in acked.items()]
        for talk in both:
            talk.tell("ends", *ends)
        done = {talk.name: talk.hear("done") for talk in talks}
        broker.kill()
        again = Talk("reread", python("reread", *common), work)
        talks.append(again)
        again.tell("ends", *ends)
        reread = again.hear("done")
        watchdog.cancel()
        errors = verdict(broker, talks, acked, done, reread)
        broker.stop()
        return errors
    finally:
        for talk in talks:
            talk.process.kill() if sys.exc_info()[0] else None
            talk.end()
        if broker.process is not None and broker.process.poll() is None:
            broker.process.kill()
            broker.process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker-cmd", metavar="COMMAND", required=True, help="command of the broker, without `serve`")
    parser.add_argument("--quick", action="store_true", help="3 kills instead of 20")
    parser.add_argument("--kills", type=int)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("-X", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    args.kills = args.kills or (3 if args.quick else 20)
    setup.everything()
    work = Path(tempfile.mkdtemp(prefix="movement-", dir=os.environ.get("MOVEMENT_DIR")))
    print(f"seed {args.seed}, {args.kills} kills", flush=True)
    errors = run(args, work)
    for error in errors:
        print(f"FAILED: {error}")
    if errors:
        print(f"data and logs: {work}")
        return 1
    shutil.rmtree(work, ignore_errors=True)
    print("passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
