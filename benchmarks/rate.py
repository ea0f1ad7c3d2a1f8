#!/usr/bin/env python3
"""Latency at a fixed rate: messages leave when they are due, however slow the server is (open loop).

    python benchmarks/rate.py [--servers NAME ...] [--scenarios 1000x128@10000 1000x128@10000+blocking]

With ``+blocking`` one handler in a hundred blocks for 10 ms, in the way that is natural to its server; the latencies
are those of the other messages.
"""

from __future__ import annotations

import re
import sys

from cli import main
from runner import SIZE, Kind, Scenario, size_of, window_columns


def parse(found: re.Match[str]) -> Scenario:
    connections, size, rate, blocking = found.groups()
    arguments = ("--connections", connections, "--size", size_of(size), "--rate", rate)
    if blocking:
        return Scenario(found[0], (*arguments, "--block"), "/blocking", "blocking")
    return Scenario(found[0], arguments)


KIND = Kind(
    name="rate",
    pattern=rf"(\d+)x({SIZE})@(\d+)(\+blocking)?",
    parse=parse,
    scenarios=("1000x128@10000", "1000x128@10000+blocking"),
    columns=window_columns("msg"),
    help="fixed rate: CONNECTIONSxBYTES@MESSAGES-PER-SECOND[+blocking]",
)


if __name__ == "__main__":
    sys.exit(main([KIND], __doc__ or ""))
