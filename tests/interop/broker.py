"""Start and stop a broker process, and wait until it answers."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
KAFKA_COMMAND = str(HERE / "kafka-broker")
# ApiVersions v0, correlation id 1, client id "probe".
PROBE = struct.pack(">hhih5s", 18, 0, 1, 5, b"probe")
# Metadata v1 with an empty topic list: brokers only.
PROBE_METADATA = struct.pack(">hhih5si", 3, 1, 2, 5, b"probe", 0)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def split_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def ask(address: str, request: bytes, timeout_s: float = 5) -> bytes:
    with socket.create_connection(split_address(address), timeout=timeout_s) as s:
        s.sendall(struct.pack(">i", len(request)) + request)
        size = struct.unpack(">i", read_exactly(s, 4))[0]
        return read_exactly(s, size)


def read_exactly(s: socket.socket, size: int) -> bytes:
    out = bytearray()
    while len(out) < size:
        part = s.recv(size - len(out))
        if not part:
            raise ConnectionError(f"closed after {len(out)} of {size} bytes")
        out += part
    return bytes(out)


def wait_until_answering(address: str, deadline_s: float, alive: Callable[[], bool]) -> None:
    """Ready = ApiVersions answers 0 and Metadata lists a broker and a controller."""
    end = time.monotonic() + deadline_s
    last: object = "no answer"
    while time.monotonic() < end:
        if not alive():
            raise TimeoutError("the broker process ended before it was ready")
        try:
            versions = ask(address, PROBE)
            metadata = ask(address, PROBE_METADATA)
            error, brokers = struct.unpack_from(">h", versions, 4)[0], struct.unpack_from(">i", metadata, 4)[0]
            if error == 0 and brokers >= 1:
                return
            last = f"error {error}, {brokers} brokers"
        except OSError as error:
            last = error
        time.sleep(0.1)
    raise TimeoutError(f"{address} not ready in {deadline_s} s: {last}")


class Broker:
    """A broker process on a data directory of its own; `with` stops it by pid."""

    def __init__(self, command: str, overrides: dict[str, str] | None = None, name: str = "broker") -> None:
        self.command = shlex.split(command)
        self.overrides = overrides or {}
        self.name = name
        self.address = ""
        self.dir = Path(tempfile.mkdtemp(prefix=f"interop-{name}-"))
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Broker:
        ready = self.dir / "ready"
        argv = [*self.command, "serve", "--data-dir", str(self.dir / "data"), "--listen", "127.0.0.1:0",
                "--ready-file", str(ready)]
        for key, value in self.overrides.items():
            argv += ["-X", f"{key}={value}"]
        with open(self.dir / "output", "wb") as output:
            self.process = subprocess.Popen(argv, stdout=output, stderr=output)
        end = time.monotonic() + 180
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                text = (self.dir / "output").read_text(errors="replace")[-2000:]
                self.stop()
                raise RuntimeError(f"{self.name} did not start: {' '.join(argv)}\n{text}")
            time.sleep(0.05)
        self.address = ready.read_text().strip()
        wait_until_answering(self.address, 60, lambda: self.process is not None and self.process.poll() is None)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if not os.environ.get("INTEROP_KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)
