"""DescribeCluster and FindCoordinator."""

from __future__ import annotations

from session import Session

from .registry import case


@case("cluster.describe")
def describe(s: Session) -> None:
    for v in range(3):
        s.call("DescribeCluster", v, {})
        s.call("DescribeCluster", v, {"includeClusterAuthorizedOperations": True}, "authorized operations")
        if v >= 1:
            for kind in (1, 2, 0, 3, -1):
                s.call("DescribeCluster", v, {"endpointType": kind}, f"endpoint type {kind}")
        if v >= 2:
            s.call("DescribeCluster", v, {"includeFencedBrokers": True}, "fenced brokers too")


@case("coordinator.find")
def find(s: Session) -> None:
    for v in range(7):
        for kind in (0,) if v == 0 else (0, 1):
            body = {"keyType": kind, "coordinatorKeys": ["a", "b"]} if v >= 4 else {"key": "a", "keyType": kind}
            s.call("FindCoordinator", v, body, f"type {kind}")
