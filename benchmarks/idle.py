#!/usr/bin/env python3
"""Idle connections: what they cost in memory and in CPU time, and how fast that many can be opened.

    python benchmarks/idle.py [--servers NAME ...] [--scenarios idle10000 ...]

Memory is Pss, that is the server's own pages and its share of those it shares, over its whole process tree: with none,
with half of the connections, with all of them. CPU time is taken while all are held. Pings are answered.
"""

from __future__ import annotations

import re
import sys
import time
from contextlib import ExitStack

from cli import main
from loadgen import Holder, holding
from machine import clock, raise_file_limit, tree_kib
from runner import Figures, Kind, MeasurementFailed, Scenario, Setup
from servers import Running
from tables import Column

SPARE_FILES = 100  # what a server has open beside its connections, generously
HELD = 30.0  # seconds over which CPU time is taken: every server that pings has done so once


def parse(found: re.Match[str]) -> Scenario:
    return Scenario(found[0], (found[1],), needs="idle")


def _finish(holders: list[Holder]) -> dict[str, object]:
    reports = [holder.finish() for holder in holders]
    for report in reports:
        if report["errors"]:
            raise MeasurementFailed(report["error"], report)
    return {**reports[-1], "connect_s": sum(report["connect_s"] for report in reports)}


def measure(scenario: Scenario, started: Running, setup: Setup) -> Figures:
    """Open half, look, open the other half, look, wait, look again."""
    count = int(scenario.arguments[0])
    if count + SPARE_FILES > (allowed := raise_file_limit()):
        raise MeasurementFailed(f"{count} connections need more than the {allowed} open files allowed here", {})
    halves = [count // 2, count - count // 2]
    cpus = {setup.server_cpu, setup.load_cpu}
    memory = [tree_kib(started.pid)]
    with ExitStack() as stack:
        holders = []
        for half in halves:
            holders.append(stack.enter_context(holding(started.port, half, len(holders) * halves[0], setup.load_cpu)))
            if not holders[-1].ready:
                _finish(holders)
                raise MeasurementFailed("the connections were not opened", {})
            memory.append(tree_kib(started.pid))
        before = clock(started.pid, cpus)
        time.sleep(HELD)
        after = clock(started.pid, cpus)
        report = _finish(holders)
    wall, used = after.wall - before.wall, after.server - before.server
    return {
        "kib_each": (memory[2] - memory[0]) / count,
        "kib_each_half": (memory[1] - memory[0]) / halves[0],
        "mib_empty": memory[0] / 1024,
        "mib_full": memory[2] / 1024,
        "idle_cpu_percent": used / wall * 100,
        "opened_per_s": count / float(str(report["connect_s"])),
    }, report


KIND = Kind(
    name="idle",
    pattern=r"idle(\d+)",
    parse=parse,
    scenarios=("idle10000",),
    columns=(
        Column("KiB each", "kib_each", ratio=True),
        Column("at half", "kib_each_half"),
        Column("MiB at 0", "mib_empty"),
        Column("MiB full", "mib_full"),
        Column("idle CPU %", "idle_cpu_percent"),
        Column("opened/s", "opened_per_s"),
    ),
    help="idle connections: idleCONNECTIONS",
    measure=measure,
    once=True,
)


if __name__ == "__main__":
    sys.exit(main([KIND], __doc__ or ""))
