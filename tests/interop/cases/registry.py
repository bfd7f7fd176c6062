"""A case is a function that asks one broker; what it asked and was answered is kept by the session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from session import Session


@dataclass(frozen=True)
class Case:
    name: str
    run: Callable[[Session], None]


ALL: list[Case] = []


def case(name: str) -> Callable[[Callable[[Session], None]], Callable[[Session], None]]:
    def register(run: Callable[[Session], None]) -> Callable[[Session], None]:
        ALL.append(Case(name, run))
        return run
    return register
