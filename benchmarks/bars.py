"""The bars: what our server has to reach, as data, and whether a run says that it does.

Ratios are of the same round; a bar without anything to compare with is an absolute figure. They are never lowered to
what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from growth import SERIES
from peers import BARE, OURS, REFERENCE
from results import Run, ratios
from tables import render, show

__all__ = ["BARS", "GOALS", "Bar", "Verdict", "judge", "table"]

LIMIT, PICOWS, NODE, WEBSOCKETS = "epoll/C", "picows/uvloop", "ws/node", "websockets/asyncio"
FLASK_SOCK = "flask-sock/gunicorn"
THROUGH_HANDLE_INFO, PARKED = f"{OURS} handle_info", f"{OURS} parked"
RATE, IDLE, FANOUT = "1000x128@10000", "idle10000", "fanout1000x128"


@dataclass(frozen=True)
class Bar:
    """`server`'s `figure` has to be at least, or at most, `factor` times another's.

    Attributes:
        than: The other server; empty to compare with `than_scenario`, or with nothing.
        than_scenario: Another scenario of the same server.
        steepest: The name of a series of growth.py whose largest exponent is meant, instead of a figure.
    """

    scenario: str
    figure: str
    at_least: bool
    factor: float
    than: str = ""
    than_scenario: str = ""
    server: str = OURS
    steepest: str = ""

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        other = self.than or self.than_scenario
        return f"{sign} {self.factor:g}{' × ' + other if other else ''}"


@dataclass(frozen=True)
class Verdict:
    bar: Bar
    measured: float | None  # None: one of the two was not measured
    low: float = 0.0
    high: float = 0.0
    by_cpu: float | None = None
    failed: bool = False  # our server did, in every round
    bare: float | None = None  # measured of a loop that keeps no promise, in the place of our server

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return False if self.failed else None
        return self.measured >= self.bar.factor if self.bar.at_least else self.measured <= self.bar.factor


def _speed(scenario: str, factor: float, than: str, server: str = OURS) -> Bar:
    return Bar(scenario, "per_s", True, factor, than, server=server)


BARS = (
    _speed("100x1x32", 0.5, LIMIT),
    _speed("100x1x32", 1.15, NODE),
    _speed("100x1x32", 3, REFERENCE),
    _speed("100x1x1KiB", 1.1, NODE),
    _speed("100x1x64KiB", 0.95, PICOWS),
    _speed("100x1x64KiB+binary", 0.95, PICOWS),  # text is checked and decoded by us only: picows hands out bytes
    _speed("1000x1x128", 1, NODE),
    Bar("1000x1x128", "p99_us", False, 1, NODE),
    _speed("10x16x128", 3, PICOWS),
    _speed("1x1x16MiB", 1, WEBSOCKETS),
    _speed(FANOUT, 0.6, REFERENCE, THROUGH_HANDLE_INFO),
    _speed(FANOUT, 1.4, REFERENCE),
    _speed(FANOUT, 0.85, PICOWS),
    Bar(IDLE, "kib_each", False, 11),
    Bar(IDLE, "kib_each", False, 3, server=PARKED),
    Bar(RATE, "p99_us", False, 1, WEBSOCKETS),
    _speed("connect16", 1.5, FLASK_SOCK),
    Bar("1000x1x128", "cpu_us", False, 1.5, than_scenario="100x1x128"),
    Bar("", "", False, 1.3, steepest="subscribers"),
    Bar("", "", False, 1.3, steepest="fragments"),
    Bar("", "", False, 1.3, steepest="queue"),
    Bar("", "", False, 0.3, steepest="topics"),
)

GOALS = (
    _speed("100x1x32", 0.75, LIMIT),
    _speed("100x1x32", 1, PICOWS),
    _speed("100x1x1KiB", 0.8, PICOWS),
    _speed("100x1x64KiB", 0.9, LIMIT),
    _speed("1000x1x128", 1, PICOWS),
    _speed("10x16x128", 0.4, LIMIT),
    _speed("1x1x16MiB", 1, PICOWS),
    _speed(FANOUT, 1, PICOWS),
    Bar(IDLE, "kib_each", False, 2, server=PARKED),
)


def _values(bar: Bar, run: Run, figure: str) -> list[float]:
    """What is measured, against what it is compared with, round by round."""
    if bar.steepest:
        series = next(one for one in SERIES if one.name == bar.steepest)
        exponent = series.steepest(run, bar.server)
        return [] if exponent is None else [exponent]
    if bar.than:
        return ratios(run.of(bar.scenario, bar.server), run.of(bar.scenario, bar.than), figure)
    if bar.than_scenario:
        base = run.of(bar.than_scenario, bar.server, series=True)
        return ratios(run.of(bar.scenario, bar.server, series=True), base, figure)
    return run.values(bar.scenario, bar.server, figure)


def judge(bars: Sequence[Bar], run: Run) -> list[Verdict]:
    verdicts = []
    for bar in bars:
        values = _values(bar, run, bar.figure)
        costs = _values(bar, run, "cpu_us") if bar.figure == "per_s" else []
        by_cpu = 1 / median(costs) if costs else None
        bare = _values(replace(bar, server=BARE), run, bar.figure) if bar.server == OURS else []
        failed = not values and any(one.error for one in run.of(bar.scenario, bar.server, bool(bar.than_scenario)))
        limit = median(bare) if bare else None
        if values:
            verdicts.append(Verdict(bar, median(values), min(values), max(values), by_cpu, bare=limit))
        else:
            verdicts.append(Verdict(bar, None, failed=failed, bare=limit))
    return verdicts


FIGURES = {"per_s": "rate", "p99_us": "p99", "cpu_us": "CPU per message", "kib_each": "KiB per connection"}
WORDS = {True: "met", False: "**MISSED**", None: "not measured"}


def table(verdicts: Sequence[Verdict], everything: bool = True) -> str:
    """Each bar and its verdict; only those that were measured unless `everything` is set.

    *A bare loop* is what would be measured of the least that a Flask view can do (apps/bare_flask.py): a bar beyond it
    cannot be reached there. *By CPU* is the same ratio made of CPU time per message. It decides nothing, but it tells
    where another program, or the load generator, was the limit rather than the two servers.
    """
    rows = [["server", "what", "bar", "", "measured", "min..max", "by CPU", "a bare loop"]]
    for one in verdicts:
        bar = one.bar
        what = f"{bar.scenario} {FIGURES[bar.figure]}" if bar.figure else f"steepest growth with {bar.steepest}"
        spread = "-" if one.measured is None else f"{show(one.low)}..{show(one.high)}"
        if everything or one.met is not None:
            figures = [show(one.measured), spread, show(one.by_cpu), show(one.bare)]
            rows.append([bar.server, what, str(bar), WORDS[one.met], *figures])
    return render(rows, words=4)
