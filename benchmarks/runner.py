"""Interleaved rounds of measurements, each on a fresh server; a measured window is one way to measure among others.

What a scenario means is known by its kind (echo.py, rate.py, ...), which servers there are by peers.py.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from loadgen import load
from machine import clock
from results import Measurement
from servers import Running, Server, ServerFailed, running
from tables import LOUD, Column, brief, show

__all__ = ["Kind", "MeasurementFailed", "Scenario", "Setup", "measure_window", "rounds", "size_of", "window_columns"]

UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}
SIZE = r"\d+(?:KiB|MiB)?"


class MeasurementFailed(Exception):
    """No figure: the text says why. `report` is what the load generator printed."""

    def __init__(self, text: str, report: dict[str, Any]) -> None:
        super().__init__(text)
        self.report = report


@dataclass(frozen=True)
class Setup:
    """What stays the same over a whole run. Times are in seconds."""

    python: str
    rounds: int
    tries: int
    seconds: float
    warmup: float
    server_cpu: int
    load_cpu: int


@dataclass(frozen=True)
class Scenario:
    """What the load generator is asked for; `needs` is what a server has to offer, in words."""

    name: str
    arguments: tuple[str, ...] = ()
    path: str = "/"
    needs: str = "echo"


Figures = tuple[dict[str, float], dict[str, Any]]


def measure_window(scenario: Scenario, started: Running, setup: Setup) -> Figures:
    """Rate, cost and latencies over the load generator's measured window."""
    read = partial(clock, started.pid, {setup.server_cpu, setup.load_cpu})
    times = ("--seconds", str(setup.seconds), "--warmup", str(setup.warmup))
    outcome = load(started.port, scenario.path, (*scenario.arguments, *times), setup.load_cpu, read)
    report, before, after = outcome.report, outcome.before, outcome.after
    if report["errors"] or before is None or after is None or not report["messages"]:
        raise MeasurementFailed(report["error"] or "measured nothing", report)
    wall, used = after.wall - before.wall, after.server - before.server
    return {
        "per_s": report["msg_per_s"],
        "cpu_us": used / report["messages"] * 1e6,
        **{name: report[name] for name in ("p50_us", "p99_us", "p999_us")},
        "server_cpu": used / wall,
        "load_cpu": report["cpu_s"] / wall,
        "other_cpu": max(0.0, (after.busy - before.busy - used - report["cpu_s"]) / wall),
    }, report


def window_columns(what: str) -> tuple[Column, ...]:
    """The columns of a measured window."""
    return (
        Column(f"{what}/s", "per_s", spread=True, ratio=True),
        Column("us CPU", "cpu_us", ratio=True),
        Column("p50 us", "p50_us"),
        Column("p99 us", "p99_us"),
        Column("p99.9 us", "p999_us"),
        Column("server CPU", "server_cpu"),
        Column("load CPU", "load_cpu"),
        Column("others", "other_cpu"),
    )


@dataclass(frozen=True)
class Kind:
    """A kind of measurement.

    Attributes:
        name: As it stands in the JSON file.
        pattern: What its scenarios' names look like.
        parse: Makes a scenario of such a name's match.
        scenarios: Those of a run of everything.
        columns: Of its table; the first one's figure is shown while it runs.
        help: How a scenario's name is made, for ``--help``.
        measure: Takes its figures from a started server.
        once: Whether one round is enough, because it repeats within a few percent.
    """

    name: str
    pattern: str
    parse: Callable[[re.Match[str]], Scenario]
    scenarios: tuple[str, ...]
    columns: tuple[Column, ...]
    help: str
    measure: Callable[[Scenario, Running, Setup], Figures] = measure_window
    once: bool = False


def size_of(text: str) -> str:
    """Bytes, as a number in digits."""
    number = re.match(r"\d+", text)
    assert number is not None
    return str(int(number[0]) * UNITS[text[number.end() :]])


WARM = Scenario("warm", ("--size", "32", "--seconds", "0.1", "--warmup", "0"))


def _measure(kind: Kind, scenario: Scenario, server: Server, turn: int, setup: Setup) -> Measurement:
    """A fresh server each time: no round inherits the memory or the closed connections of another."""
    made = partial(Measurement, kind.name, scenario.name, server.name, turn)
    try:
        with running(server, setup.python, setup.server_cpu) as started:
            try:
                warm = load(started.port, "/", WARM.arguments, setup.load_cpu, partial(clock, started.pid, set()))
                if warm.report["errors"]:
                    raise MeasurementFailed(warm.report["error"], warm.report)
                figures, report = kind.measure(scenario, started, setup)
            except MeasurementFailed as error:
                return made(f"{error}\n{started.tail()}".strip(), report=error.report)
            return made(figures=figures, report=report)
    except ServerFailed as error:
        return made(str(error))


def _measure_quietly(kind: Kind, scenario: Scenario, server: Server, turn: int, setup: Setup) -> Measurement:
    """The least disturbed of some tries: chosen by what other programs did, never by the figures."""
    best = _measure(kind, scenario, server, turn, setup)
    for _ in range(setup.tries - 1):
        if best.error or best.figures.get("other_cpu", 0) <= LOUD:
            break
        again = _measure(kind, scenario, server, turn, setup)
        best = again if again.error else min(best, again, key=lambda one: one.figures["other_cpu"])
    return best


def rounds(kind: Kind, scenario: Scenario, servers: Sequence[Server], setup: Setup) -> Iterator[Measurement]:
    """A B C, C B A, A B C, ...: what drifts, drifts for all, and nobody is always behind the same one."""
    for turn in range(1, (1 if kind.once else setup.rounds) + 1):
        for server in servers if turn % 2 else reversed(servers):
            one = _measure_quietly(kind, scenario, server, turn, setup)
            result = brief(one.error) if one.error else show(one.figures[kind.columns[0].figure])
            print(f"  {scenario.name} round {turn} {server.name}: {result}", file=sys.stderr, flush=True)
            yield one
