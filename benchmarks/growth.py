#!/usr/bin/env python3
"""Growth: what a message costs with more connections, a broadcast with more subscribers, a message with more fragments,
a callback with more messages in the mailbox, a broadcast through PubSub with more topics beside its own.

    python benchmarks/growth.py [--servers NAME ...] [--series connections subscribers fragments queue topics]

A round goes through all steps of a series, so that what is compared was measured within a minute or two. Only queue and
topics are measurements of their own; the other steps are scenarios of echo.py and fanout.py.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from math import log

import echo
import fanout
from cli import find, has_failed, parser, prepare
from results import SERIES as STEP
from results import Run, middle
from runner import Kind, Scenario, Setup, rounds, window_columns
from servers import HERE, Server
from tables import render, show

__all__ = ["QUEUE", "SERIES", "TOPICS", "Series", "grow", "table"]

SECONDS = 1.0  # measured time of a step, unless less is asked for
ROUNDS = 2  # as many or less


def parse(found: re.Match[str]) -> Scenario:
    name, count = found.groups()
    return Scenario(found[0], ("--size", "128"), f"/{name}/{count}", name)


QUEUE = Kind(
    name="queue",
    pattern=r"(queue)(\d+)",
    parse=parse,
    scenarios=("queue10", "queue100", "queue1000", "queue10000"),
    columns=window_columns("echoes"),
    help="mailbox: queueMESSAGES, so many wait in the connection's own mailbox, the last one is the echo",
)

TOPICS = Kind(
    name="topics",
    pattern=r"(topics)(\d+)",
    parse=parse,
    scenarios=("topics10", "topics100", "topics1000", "topics10000"),
    columns=window_columns("echoes"),
    help="PubSub: topicsOTHERS, so many other topics are there; the echo is a broadcast to one subscriber",
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

    def only(self, scenarios: Sequence[str] | None) -> Series:
        """The same with these steps alone; None for all."""
        return replace(self, steps=tuple(step for step in self.steps if scenarios is None or step[1] in scenarios))

    def servers(self, run: Run) -> list[str]:
        return list(dict.fromkeys(server for _, name in self.steps for server in run.servers(name, series=True)))

    def points(self, run: Run, server: str) -> list[tuple[int, float]]:
        """The quantity, and microseconds of the server's CPU time."""
        found = []
        for step, scenario in self.steps:
            cost = middle(run.values(scenario, server, "cpu_us", series=True))
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
    Series(
        "topics",
        "a broadcast to one subscriber, with more topics",
        "other topics",
        "broadcast",
        tuple((n, f"topics{n}") for n in (10, 100, 1000, 10000)),
        flat=True,
    ),
)

KINDS = (QUEUE, TOPICS, echo.KIND, fanout.KIND)


def grow(run: Run, servers: Sequence[Server], setup: Setup, chosen: Sequence[Series] = SERIES) -> None:
    """Measure the series; a round is a way through all their steps."""
    brisk = replace(setup, rounds=1, seconds=min(setup.seconds, SECONDS))
    for turn in range(1, min(setup.rounds, ROUNDS) + 1):
        for series in chosen:
            for _, name in series.steps:
                kind, scenario = find(name, KINDS)
                able = [server for server in servers if server.offers >= set(scenario.needs.split())]
                measured = rounds(kind, scenario, able, brisk)
                run.measurements += [replace(one, kind=STEP, round=turn) for one in measured]


def table(run: Run) -> str:
    """All series that were measured, each with a heading."""
    parts = []
    for series in SERIES:
        steps = [step for step, _ in series.steps]
        rows = [["server", *(f"{step:,}" for step in steps), "steepest"]]
        for server in series.servers(run):
            points = dict(series.points(run, server))
            rows.append([server, *(show(points.get(step)) for step in steps), show(series.steepest(run, server))])
        title = series.title[0].upper() + series.title[1:]
        text = f"Microseconds of CPU time per {series.what}, by {series.axis}; *steepest*: 0 flat, 1 in proportion."
        if len(rows) > 1:
            parts.append(f"{title}\n{'~' * len(title)}\n\n{text}\n\n{render(rows)}\n")
    return "\n".join(parts)


def main() -> int:
    made = parser(__doc__ or "", KINDS)
    names = [series.name for series in SERIES]
    made.add_argument("--series", nargs="+", choices=names, default=names, help="which (default: all)")
    args = made.parse_args()
    chosen = [series.only(args.scenarios) for series in SERIES if series.name in args.series]
    if not any(series.steps for series in chosen):
        raise SystemExit(f"no series has {' '.join(args.scenarios)}")
    run, servers, _, setup = prepare(args)
    grow(run, servers, setup, chosen)
    print("\n" + table(run))
    out = args.out or HERE / "results" / f"growth-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}.json"
    run.save(out)
    print(f"written: {out}")
    return int(has_failed(run))


if __name__ == "__main__":
    sys.exit(main())
