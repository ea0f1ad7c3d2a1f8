#!/usr/bin/env python3
"""Echo, closed loop: an echo that came back is replaced by the next message.

python benchmarks/echo.py [--servers NAME ...] [--scenarios 100x1x32 ...] [--rounds 3]
python benchmarks/echo.py --against HEAD~3                  # this checkout against another, in interleaved rounds
python benchmarks/echo.py --options '{"compress": true}'    # our server against itself with other options
"""

from __future__ import annotations

import re
import sys

from cli import main
from runner import SIZE, Kind, Scenario, size_of, window_columns

__all__ = ["KIND"]

LONG = 1 << 13


def parse(found: re.Match[str]) -> Scenario:
    connections, depth, size, extra, fragments = found.groups()
    arguments = ["--connections", connections, "--depth", depth, "--size", size_of(size)]
    if fragments:
        arguments += ["--fragments", fragments]
    if extra == "deflate":
        return Scenario(found[0], (*arguments, "--deflate"), needs="deflate")
    if extra == "binary":
        arguments.append("--binary")
    return Scenario(found[0], tuple(arguments), needs="echo long" if int(size_of(size)) > LONG else "echo")


KIND = Kind(
    name="echo",
    pattern=rf"(\d+)x(\d+)x({SIZE})(?:\+(deflate|binary|fragments=(\d+)))?",
    parse=parse,
    scenarios=(
        "1x1x32",
        "100x1x32",
        "100x1x1KiB",
        "100x1x64KiB",
        "100x1x64KiB+binary",
        "1000x1x128",
        "10x16x128",
        "1x1x16MiB",
        "100x1x1KiB+deflate",
        "100x1x64KiB+deflate",
    ),
    columns=window_columns("msg"),
    help="echo: CONNECTIONSxIN-FLIGHT-ON-EACHxBYTES[KiB|MiB][+deflate|+binary|+fragments=N]",
)


if __name__ == "__main__":
    sys.exit(main([KIND], __doc__ or ""))
