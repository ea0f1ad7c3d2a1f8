#!/usr/bin/env python3
"""Growth: what a message costs with more connections, a broadcast with more subscribers, a message with more fragments,
a callback with more messages in the mailbox.

    python benchmarks/growth.py [--servers NAME ...] [--scenarios queue1000 ...]

Only the queue is a measurement of its own; the others are scenarios of echo.py and fanout.py, told here as series.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from math import log

import echo
import fanout
from cli import main
from results import Run, middle
from runner import Kind, Scenario, window_columns

__all__ = ["QUEUE", "SERIES", "Series"]


def parse(found: re.Match[str]) -> Scenario:
    return Scenario(found[0], ("--size", "128"), f"/queue/{found[1]}", "queue")


QUEUE = Kind(
    name="queue",
    pattern=r"queue(\d+)",
    parse=parse,
    scenarios=("queue10", "queue100", "queue1000", "queue10000"),
    columns=window_columns("echoes"),
    help="mailbox: queueMESSAGES, so many wait in the connection's own mailbox, the last one is the echo",
)


@dataclass(frozen=True)
class Series:
    """Scenarios that differ in one quantity.

    Attributes:
        steps: The quantity and the scenario that has it.
        what: What costs so much.
        each: Whether the scenario's cost is for one of the quantity, so that `what` costs that many times as much.
        flat: Whether it should cost the same at each step; else it may grow in proportion.
    """

    name: str
    title: str
    axis: str
    what: str
    steps: tuple[tuple[int, str], ...]
    each: bool = False
    flat: bool = False

    def points(self, run: Run, server: str) -> list[tuple[int, float]]:
        """The quantity, and microseconds of the server's CPU time."""
        found = []
        for step, scenario in self.steps:
            cost = middle(run.values(scenario, server, "cpu_us"))
            if cost:
                found.append((step, cost * (step if self.each else 1)))
        return found

    def steepest(self, run: Run, server: str) -> float | None:
        """The largest exponent between neighbours: 0 is flat, 1 in proportion, 2 quadratic."""
        points = self.points(run, server)
        pairs = zip(points, points[1:], strict=False)
        return max((log(b / a) / log(y / x) for (x, a), (y, b) in pairs), default=None)


SERIES = (
    Series(
        "connections",
        "a message, with more connections",
        "connections",
        "message",
        tuple((n, f"{n}x1x128") for n in (10, 100, 1000, 10000)),
        flat=True,
    ),
    Series(
        "subscribers",
        "a broadcast, with more subscribers",
        "subscribers",
        "broadcast",
        tuple((n, f"fanout{n}x128") for n in (10, 100, 1000, 10000)),
        each=True,
    ),
    Series(
        "fragments",
        "a message of 64 KiB, in more fragments",
        "fragments",
        "message",
        ((1, "10x1x64KiB"), *((n, f"10x1x64KiB+fragments={n}") for n in (16, 256, 4096))),
    ),
    Series(
        "queue",
        "working through the mailbox",
        "messages waiting",
        "mailbox emptied",
        tuple((n, f"queue{n}") for n in (10, 100, 1000, 10000)),
    ),
)


if __name__ == "__main__":
    names = tuple(name for series in SERIES for _, name in series.steps)
    sys.exit(main([QUEUE, echo.KIND, fanout.KIND], __doc__ or "", names))
