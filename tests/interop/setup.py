"""Fetch what the interop checks need: Python packages, kcat, the Java clients, the Kafka broker's jars.

Everything but system packages lands in the git-ignored folder .cache; each step is skipped when it is there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent.parent / ".cache"
VENV = CACHE / "venv"
PYTHON = VENV / "bin" / "python"
JAVA = CACHE / "java"
JAVA_RELEASES = {"java-4.1": "4.1.1", "java-3.9": "3.9.1", "java-3.6": "3.6.2", "java-2.8": "2.8.2"}
# The Java sources are compiled against the oldest release and run with each.
OLDEST = "2.8.2"
REQUIREMENTS = HERE / "requirements.txt"
SYSTEM = {"kcat": "kcat", "javac": "openjdk-17-jdk-headless", "mvn": "maven", "cc": "gcc"}


def run(*argv: str | Path) -> None:
    subprocess.run([str(a) for a in argv], check=True, stdout=sys.stderr)


def system_packages() -> None:
    missing = [package for tool, package in SYSTEM.items() if shutil.which(tool) is None]
    if not missing:
        return
    prefix = [] if os.geteuid() == 0 else ["sudo"]
    run(*prefix, "apt-get", "update", "-q")
    run(*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-q", "-y", "--no-install-recommends", *missing)


def stamped(folder: Path, *sources: Path) -> bool:
    """True when `folder` was made from these very sources; else empties it."""
    wanted = hashlib.sha256(b"".join(s.read_bytes() for s in sources)).hexdigest()
    stamp = folder / "stamp"
    if stamp.exists() and stamp.read_text() == wanted:
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def stamp(folder: Path, *sources: Path) -> None:
    (folder / "stamp").write_text(hashlib.sha256(b"".join(s.read_bytes() for s in sources)).hexdigest())


def python_packages() -> None:
    if stamped(VENV, REQUIREMENTS):
        return
    try:
        run(sys.executable, "-m", "venv", VENV)
    except subprocess.CalledProcessError:
        prefix = [] if os.geteuid() == 0 else ["sudo"]
        run(*prefix, "apt-get", "install", "-q", "-y", "python3-venv")
        run(sys.executable, "-m", "venv", VENV)
    run(PYTHON, "-m", "pip", "install", "-q", "-r", REQUIREMENTS)
    stamp(VENV, REQUIREMENTS)


def java_clients() -> None:
    pom = HERE / "clients" / "java" / "pom.xml"
    sources = [HERE / "clients" / "java" / name for name in ("Client.java", "Moving.java", "Administering.java")]
    for release in JAVA_RELEASES.values():
        folder = JAVA / release
        if not stamped(folder, pom):
            run("mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", f"-Dkafka.version={release}",
                "-DincludeScope=runtime", f"-DoutputDirectory={folder}")
            stamp(folder, pom)
    classes = JAVA / "classes"
    if not stamped(classes, pom, *sources):
        run("javac", "-Xlint:-options", "--release", "11", "-cp", f"{JAVA / OLDEST}/*", "-d", classes, *sources)
        stamp(classes, pom, *sources)


def everything() -> None:
    system_packages()
    python_packages()
    java_clients()
    run(HERE / "kafka-broker", "fetch-jars")


if __name__ == "__main__":
    everything()
