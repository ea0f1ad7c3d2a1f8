"""Builds the load generator and runs it."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import Clock, pinned, raise_file_limit
from native import build

SOURCES = sorted((Path(__file__).resolve().parent / "load").glob("*.[ch]"))


@dataclass(frozen=True)
class Outcome:
    """What load printed, and the clocks at both ends of its measured window (None: it measured nothing)."""

    report: dict[str, Any]
    before: Clock | None
    after: Clock | None


def build_load() -> Path:
    return build("load", SOURCES, "-lz")


def command(port: int, path: str, arguments: Sequence[str]) -> list[str]:
    return [str(build_load()), "127.0.0.1", str(port), path, *arguments]


def load(port: int, path: str, arguments: Sequence[str], cpu: int, clock: Callable[[], Clock]) -> Outcome:
    marks: list[Clock] = []
    raise_file_limit()
    with pinned(cpu):
        process = subprocess.Popen(
            command(port, path, arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    with process:
        assert process.stdout is not None and process.stderr is not None
        marks.extend(clock() for line in process.stderr if line.startswith("meas"))
        report = json.loads(process.stdout.read() or '{"errors": 1, "error": "load printed nothing"}')
    before, after = marks if len(marks) == 2 else (None, None)
    return Outcome(report, before, after)


class Holder:
    """Connections that are held open and quiet."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stderr is not None
        self.ready = process.stderr.readline() == "ready\n"

    def finish(self) -> dict[str, Any]:
        """Close them, and return what load printed."""
        output, _ = self._process.communicate(timeout=60)
        return dict(json.loads(output or '{"errors": 1, "error": "load printed nothing"}'))


@contextlib.contextmanager
def holding(port: int, connections: int, first: int, cpu: int) -> Iterator[Holder]:
    """So many connections beside the `first` that are held already; all are open unless `Holder.ready` is false."""
    raise_file_limit()
    pipe = subprocess.PIPE
    with pinned(cpu):
        process = subprocess.Popen(
            command(port, "/", ("--hold", "--connections", str(connections), "--first", str(first))),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
    try:
        yield Holder(process)
    finally:
        process.kill()
        process.wait()
