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
from runner import SIZE, Kind, Scenario, size_of
from tables import Column


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
    columns=(
        Column("p99 us", "p99_us", spread=True, ratio=True),
        Column("p50 us", "p50_us"),
        Column("p99.9 us", "p999_us"),
        Column("us CPU", "cpu_us", ratio=True),
        Column("msg/s", "per_s"),
        Column("server CPU", "server_cpu"),
        Column("load CPU", "load_cpu"),
        Column("others", "other_cpu"),
    ),
    help="fixed rate: CONNECTIONSxBYTES@MESSAGES-PER-SECOND[+blocking]",
)


if __name__ == "__main__":
    sys.exit(main([KIND], __doc__ or ""))
