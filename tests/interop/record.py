"""Captures: what a real Apache Kafka answered, for tests that have no network."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from session import Exchange
from wire import schema

# Larger frames are kept only from the cases named versions: the captures live in the repository.
FRAME_BYTES_MAX = 1_500
FRAME_BYTES_MAX_VERSIONS = 12_000


def thinned(exchanges: list[Exchange]) -> list[Exchange]:
    """Every version from the cases named versions; elsewhere the oldest, the newest and the first flexible one."""
    versions: dict[str, list[int]] = defaultdict(list)
    for e in exchanges:
        versions[question(e)].append(e.version)

    def kept(e: Exchange) -> bool:
        seen = versions[question(e)]
        flexible = [v for v in seen if e.api != "note" and v in schema.message(e.api + "Request").flexible]
        return ".versions" in e.label or e.version in {min(seen), max(seen), *flexible[:1]}
    return [e for e in exchanges if kept(e)]


def question(e: Exchange) -> str:
    return f"{e.api} {e.label.rpartition(' [')[0]}"


def write_captures(folder: Path, exchanges: list[Exchange]) -> int:
    """One file per API; an exchange without an answer has a null response."""
    by_api: dict[str, list[dict[str, object]]] = defaultdict(list)
    left_out = failed = 0
    for e in thinned(exchanges):
        if e.outcome == "note":
            failed += "failed" in e.label
            if "failed" in e.label:
                print(f"{e.label}: {e.body}")
            continue
        limit = FRAME_BYTES_MAX_VERSIONS if ".versions" in e.label else FRAME_BYTES_MAX
        if max(len(e.response), len(e.request)) > limit:
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
