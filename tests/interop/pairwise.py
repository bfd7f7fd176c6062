"""Rows that contain every pair of values of every two factors, for the combinations that are allowed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product

Row = tuple[str, ...]


def pairs(row: Row) -> set[tuple[int, str, int, str]]:
    return {(i, row[i], j, row[j]) for i, j in combinations(range(len(row)), 2)}


def rows(factors: list[list[str]], allowed: Callable[[Row], bool]) -> list[Row]:
    """Greedy: always the row with most pairs not seen yet; the first of equals, so the result never changes."""
    every = [row for row in product(*factors) if allowed(row)]
    missing = set().union(*(pairs(row) for row in every))
    out = []
    while missing:
        best = max(every, key=lambda row: len(pairs(row) & missing))
        out.append(best)
        missing -= pairs(best)
    return out
