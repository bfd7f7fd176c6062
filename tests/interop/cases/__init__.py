"""The differential check's cases, one file per part of the protocol, in the order they run.

Metadata comes first: asking for a coordinator makes Kafka create its internal topics."""

from . import (  # noqa: F401
    metadata,
    connections,
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
