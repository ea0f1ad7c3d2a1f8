"""Builds the load generator load.c and runs it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import Clock, pinned

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "load.c"
BINARY = HERE / ".build" / "load"
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20}


@dataclass(frozen=True)
class Scenario:
    """`name` is CONNECTIONSxDEPTHxSIZE: connections, messages in flight on each, bytes per message."""

    name: str
    connections: int
    depth: int
    size: int

    @classmethod
    def parse(cls, name: str) -> Scenario:
        connections, depth, size = name.split("x")
        unit = size[-3:] if size[-3:] in UNITS else ""
        return cls(name, int(connections), int(depth), int(size.removesuffix(unit)) * UNITS.get(unit, 1))


@dataclass(frozen=True)
class Outcome:
    """What load printed, and the clocks at both ends of its measured window (None: it measured nothing)."""

    report: dict[str, Any]
    before: Clock | None
    after: Clock | None


def build_load() -> Path:
    """Compile if the source is newer; renamed into place, so two runs at once do not meet half a file."""
    if not BINARY.exists() or BINARY.stat().st_mtime < SOURCE.stat().st_mtime:
        BINARY.parent.mkdir(exist_ok=True)
        fresh = BINARY.with_suffix(f".{os.getpid()}")
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-o", fresh, SOURCE], check=True)
        fresh.replace(BINARY)
    return BINARY


def load(
    port: int,
    scenario: Scenario,
    seconds: float,
    warmup: float,
    cpu: int,
    clock: Callable[[], Clock],
    *options: str,
) -> Outcome:
    command = [str(build_load()), "127.0.0.1", str(port), "/", "--connections", str(scenario.connections)]
    command += ["--depth", str(scenario.depth), "--size", str(scenario.size)]
    command += ["--seconds", str(seconds), "--warmup", str(warmup), *options]
    marks: list[Clock] = []
    with pinned(cpu):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None and process.stderr is not None
        marks.extend(clock() for line in process.stderr if line.startswith("meas"))
        report = json.loads(process.stdout.read() or '{"errors": 1, "error": "load printed nothing"}')
    before, after = marks if len(marks) == 2 else (None, None)
    return Outcome(report, before, after)
