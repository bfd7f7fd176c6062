"""Captures: what a real Apache Kafka answered, for tests that have no network."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from session import Exchange

RESPONSE_BYTES_MAX = 24_000


def write_captures(folder: Path, exchanges: list[Exchange]) -> int:
    """One file per API; an exchange without an answer has a null response."""
    by_api: dict[str, list[dict[str, object]]] = defaultdict(list)
    left_out = failed = 0
    for e in exchanges:
        if e.outcome == "note":
            failed += "failed" in e.label
            if "failed" in e.label:
                print(f"{e.label}: {e.body}")
            continue
        if len(e.response) > RESPONSE_BYTES_MAX or len(e.request) > RESPONSE_BYTES_MAX:
            left_out += 1
            continue
        by_api[e.api].append({"name": e.label, "api": e.api, "version": e.version, "outcome": e.outcome,
                              "request_hex": e.request.hex(),
                              "response_hex": e.response.hex() if e.outcome == "answered" else None})
    folder.mkdir(parents=True, exist_ok=True)
    for api, rows in by_api.items():
        lines = ",\n".join(json.dumps(row) for row in rows)
        (folder / f"{api}.json").write_text(f"[\n{lines}\n]\n")
    total = sum(len(rows) for rows in by_api.values())
    print(f"{total} exchanges written, {left_out} left out for their size, {failed} cases failed")
    return 1 if failed else 0
