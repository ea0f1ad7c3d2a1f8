#!/usr/bin/env python3
"""Fan-out: one publishes, N subscribers get it; the next message leaves when the last one has it.

    python benchmarks/fanout.py [--servers NAME ...] [--scenarios fanout1000x128 ...]

Latency is from publishing to the last delivery, the rate is that of deliveries.
"""

from __future__ import annotations

import re
import sys

from cli import main
from runner import SIZE, Kind, Scenario, size_of, window_columns


def parse(found: re.Match[str]) -> Scenario:
    subscribers, size, deflate = found.groups()
    arguments = ("--fanout", "--connections", subscribers, "--size", size_of(size))
    if deflate:
        return Scenario(found[0], (*arguments, "--deflate"), "/subscribe", "fanout deflate")
    return Scenario(found[0], arguments, "/subscribe", "fanout")


KIND = Kind(
    name="fanout",
    pattern=rf"fanout(\d+)x({SIZE})(\+deflate)?",
    parse=parse,
    scenarios=("fanout1000x128", "fanout1000x1KiB+deflate"),
    columns=window_columns("deliveries"),
    help="fan-out: fanoutSUBSCRIBERSxBYTES[+deflate]",
)


if __name__ == "__main__":
    sys.exit(main([KIND], __doc__ or ""))
