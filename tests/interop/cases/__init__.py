"""The differential check's cases, one file per part of the protocol, in the order they run."""

from . import (  # noqa: F401
    connections,
    metadata,
    produce,
    batches,
    idempotence,
    fetch,
    offsets,
    topics,
    configs,
    cluster,
)
from .registry import ALL, Case

__all__ = ["ALL", "Case"]
