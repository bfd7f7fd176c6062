"""The command line that all client programs share.

    PROGRAM create,produce,consume --broker HOST:PORT --topic T --count N --codec C --acks A --idempotent --profile P
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

Action = Callable[[argparse.Namespace], None]


def run(create: Action, produce: Action, consume: Action) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("actions", help="create, produce, consume; several with commas")
    parser.add_argument("--broker", default=os.environ.get("BROKER", "127.0.0.1:9092"))
    parser.add_argument("--topic", required=True)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--codec", default="none", choices=["none", "gzip", "snappy", "lz4", "zstd"])
    parser.add_argument("--acks", default="all", choices=["0", "1", "all"])
    parser.add_argument("--idempotent", action="store_true")
    parser.add_argument("--profile", default="rich", choices=["rich", "plain"])
    args = parser.parse_args()
    table = {"create": create, "produce": produce, "consume": consume}
    for action in args.actions.split(","):
        try:
            table[action](args)
        except Exception as error:  # the driver prints the last line
            print(f"{action}: {type(error).__name__}: {error}", file=sys.stderr)
            sys.exit(1)
