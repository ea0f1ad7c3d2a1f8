#!/usr/bin/env python3
"""Connect rate: open, shake hands, one echo, closing handshake, end of the stream; so many at a time, again and again.

python benchmarks/connect.py [--servers NAME ...] [--scenarios connect16 ...]
"""

from __future__ import annotations

import re
import sys

from cli import main
from runner import Kind, Scenario, window_columns


def parse(found: re.Match[str]) -> Scenario:
    return Scenario(found[0], ("--connect", "--connections", found[1], "--size", "32"))


KIND = Kind(
    name="connect",
    pattern=r"connect([1-9]|[1-5]\d|6[0-4])",
    parse=parse,
    scenarios=("connect16",),
    columns=window_columns("connections"),
    help="connect rate: connectAT-A-TIME (64 at the most)",
)


if __name__ == "__main__":
    sys.exit(main([KIND], __doc__ or ""))
