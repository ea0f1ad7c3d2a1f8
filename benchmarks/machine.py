"""The machine under the benchmark: which core runs what, whose CPU time went where, what it is made of."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


@dataclass(frozen=True)
class Clock:
    """CPU seconds at one moment."""

    wall: float
    server: float  # of the server's whole process tree
    busy: float  # of the cores used, whoever used them; time stolen by the hypervisor counts as used


@contextlib.contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """What is started inside runs on `cpu` alone: children inherit it, no code runs between fork and exec."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit() -> int:
    """Allow as many open files as the system lets us; return how many. What is started later inherits it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on; the name before them may hold spaces and brackets."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def process_tree(root: int) -> list[int]:
    pids = [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]
    parents = {pid: int(fields[1]) for pid in pids if (fields := _stat_fields(pid))}
    tree = [root]
    for member in tree:  # it grows meanwhile: children's children are found, too
        tree += [pid for pid, parent in parents.items() if parent == member]
    return tree


def _tree_seconds(root: int) -> float:
    used = (_stat_fields(pid) for pid in process_tree(root))
    return sum(int(fields[11]) + int(fields[12]) for fields in used if fields) / TICK


def _busy_seconds(cpus: set[int]) -> float:
    total = 0
    for line in (PROC / "stat").read_text().splitlines():
        name, *values = line.split()
        if name in {f"cpu{cpu}" for cpu in cpus}:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, values[:8])
            total += user + nice + system + irq + softirq + steal
    return total / TICK


def clock(server: int, cpus: set[int]) -> Clock:
    return Clock(time.monotonic(), _tree_seconds(server), _busy_seconds(cpus))


def tree_kib(root: int) -> float:
    """KiB of memory of a process tree: its own pages, and its share of those it shares (Pss)."""
    total = 0
    for pid in process_tree(root):
        try:
            lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return float(total)


def describe() -> dict[str, str]:
    models = [line for line in (PROC / "cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "open files": str(raise_file_limit()),
    }
