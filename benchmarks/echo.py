"""Echo benchmark: every server, every scenario, in interleaved rounds.

    python benchmarks/echo.py [--servers NAME ...] [--scenarios 100x1x32 ...] [--rounds 3]

The server runs on one core, the load generator on another.  Prints a table per scenario and writes every
single measurement to benchmarks/results/.  README.rst says what the numbers mean.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from loadgen import Outcome, Scenario, load
from machine import clock, describe
from servers import HERE, REFERENCE, SERVERS, Server, ServerFailed, running, why_missing

SCENARIOS = ["100x1x32", "100x1x1024", "100x1x65536", "1000x1x128", "10x16x128"]
DISTRIBUTIONS = (
    "gevent greenlet gevent-websocket wsaccel gunicorn Flask Werkzeug flask-sock simple-websocket websockets "
    "picows uvloop"
)
WARM = Scenario.parse("1x1x32")  # shows, before the measured load, that the worker has booted and answers
LOUD = 0.15  # other programs' share of the two cores, in CPUs, from which a measurement is not to be trusted
COLUMNS = (
    "server", "msg/s", "min..max", "x ref", "min..max", "us CPU/msg", "x ref",
    "p50 us", "p99 us", "p99.9 us", "server CPU", "load CPU", "others", "runs",
)  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """One server in one round of one scenario; figures are zero if `error` is not empty."""

    scenario: str
    server: str
    round: int
    error: str = ""
    msg_per_s: float = 0.0
    cpu_us_per_msg: float = 0.0
    p50_us: float = 0.0
    p99_us: float = 0.0
    p999_us: float = 0.0
    server_cpu: float = 0.0  # in CPUs: 1.0 is a core used up
    load_cpu: float = 0.0
    other_cpu: float = 0.0
    report: dict[str, Any] | None = None  # all that load printed


@dataclass(frozen=True)
class Setup:
    """What stays the same over a whole run."""

    python: str
    rounds: int
    tries: int
    seconds: float
    warmup: float
    server_cpu: int
    load_cpu: int


def evaluate(scenario: Scenario, server: Server, turn: int, outcome: Outcome) -> Measurement:
    report, before, after = outcome.report, outcome.before, outcome.after
    if report["errors"] or before is None or after is None or not report["messages"]:
        reason = report["error"] or "measured nothing"
        return Measurement(scenario.name, server.name, turn, reason, report=report)
    wall = after.wall - before.wall
    used = after.server - before.server
    return Measurement(
        scenario.name,
        server.name,
        turn,
        msg_per_s=report["msg_per_s"],
        cpu_us_per_msg=used / report["messages"] * 1e6,
        **{name: report[name] for name in ("p50_us", "p99_us", "p999_us")},
        server_cpu=used / wall,
        load_cpu=report["cpu_s"] / wall,
        other_cpu=max(0.0, (after.busy - before.busy - used - report["cpu_s"]) / wall),
        report=report,
    )


def measure(scenario: Scenario, server: Server, turn: int, setup: Setup) -> Measurement:
    """A fresh server each time: no round inherits the memory or the closed connections of another."""
    cpus = {setup.server_cpu, setup.load_cpu}
    try:
        with running(server, setup.python, setup.server_cpu) as started:
            send = partial(load, started.port, cpu=setup.load_cpu, clock=partial(clock, started.pid, cpus))
            attempt = send(WARM, 0.1, 0)
            if not attempt.report["errors"]:
                attempt = send(scenario, setup.seconds, setup.warmup)
            measurement = evaluate(scenario, server, turn, attempt)
            if measurement.error:
                return replace(measurement, error=f"{measurement.error}\n{started.tail()}".strip())
            return measurement
    except ServerFailed as error:
        return Measurement(scenario.name, server.name, turn, str(error))


def measure_quietly(scenario: Scenario, server: Server, turn: int, setup: Setup) -> Measurement:
    """The least disturbed of some tries: chosen by what other programs did, never by the figures."""
    best = measure(scenario, server, turn, setup)
    for _ in range(setup.tries - 1):
        if best.error or best.other_cpu <= LOUD:
            break
        again = measure(scenario, server, turn, setup)
        best = again if again.error else min(best, again, key=lambda one: one.other_cpu)
    return best


def spread(values: list[float], digits: int) -> str:
    return f"{min(values):,.{digits}f}..{max(values):,.{digits}f}"


def ratios(own: list[Measurement], reference: dict[int, Measurement], figure: str) -> list[float]:
    """Each round against the reference's measurement of that same round."""
    both = [(one, reference[one.round]) for one in own if one.round in reference]
    return [getattr(one, figure) / base for one, other in both if (base := getattr(other, figure))]


def brief(error: str) -> str:
    """What load says and the last line of the server's log; all of it is in the JSON file."""
    lines = error.splitlines()
    return " | ".join(dict.fromkeys([lines[0], lines[-1]]))[:160]


def row(name: str, own: list[Measurement], reference: dict[int, Measurement]) -> list[str]:
    good = [one for one in own if not one.error]
    if not good:
        return [name, "FAILED: " + brief(own[-1].error)]
    speed, cost = ratios(good, reference, "msg_per_s"), ratios(good, reference, "cpu_us_per_msg")
    digits = 0 if min(one.msg_per_s for one in good) > 100 else 2

    def middle(figure: str) -> float:
        return float(median(getattr(one, figure) for one in good))

    return [
        name,
        f"{middle('msg_per_s'):,.{digits}f}",
        spread([one.msg_per_s for one in good], digits),
        f"{median(speed):.2f}" if speed else "-",
        spread(speed, 2) if speed else "-",
        f"{middle('cpu_us_per_msg'):,.1f}",
        f"{median(cost):.2f}" if cost else "-",
        *(f"{middle(figure):,.0f}" for figure in ("p50_us", "p99_us", "p999_us")),
        *(f"{middle(figure):.2f}" for figure in ("server_cpu", "load_cpu", "other_cpu")),
        f"{len(good)}/{len(own)}",
    ]


def remarks(measurements: list[Measurement]) -> list[str]:
    notes = []
    for one in measurements:
        where = f"{one.server}, round {one.round}"
        silent = one.report["silent"] if one.report and not one.error else 0
        if one.error:
            notes.append(f"{where}: {brief(one.error)}")
        if one.other_cpu > LOUD:
            notes.append(f"{where}: other programs used {one.other_cpu:.2f} CPU")
        if one.load_cpu > 0.95:
            notes.append(f"{where}: the load generator was the limit")
        if silent:
            notes.append(f"{where}: {silent} connection(s) got no answer at all in the measured time")
    return notes


def table(scenario: str, measurements: list[Measurement], ref: str) -> str:
    reference = {one.round: one for one in measurements if one.server == ref and not one.error}
    names = dict.fromkeys(one.server for one in measurements)
    rows = [row(name, [one for one in measurements if one.server == name], reference) for name in names]
    full = [list(COLUMNS), *(cells for cells in rows if len(cells) == len(COLUMNS))]
    widths = [max(len(cells[i]) for cells in full) for i in range(len(COLUMNS))]
    widths[0] = max(len(cells[0]) for cells in [list(COLUMNS), *rows])
    lines = [f"{scenario}  (ref = {ref}, same round)"]
    for cells in [list(COLUMNS), *rows]:
        lines.append("  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]))
    return "\n".join(lines + [f"  ! {note}" for note in remarks(measurements)])


def versions(python: str) -> dict[str, str]:
    """Of the interpreter the servers run under, which need not be ours."""
    if python != sys.executable:
        script = "import echo, json; print(json.dumps(echo.own_versions()))"
        done = subprocess.run([python, "-c", script], cwd=HERE, capture_output=True, text=True, check=True)
        return dict(json.loads(done.stdout))
    return own_versions()


def own_versions() -> dict[str, str]:
    found = {"Python": f"{platform.python_implementation()} {platform.python_version()}"}
    for name in DISTRIBUTIONS.split():
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def revision() -> str:
    """The commit measured, with "-dirty" if the files differ from it."""
    command = ["git", "--no-optional-locks", "-C", str(HERE), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def arguments() -> argparse.Namespace:
    names = [server.name for server in SERVERS]
    cpus = sorted(os.sched_getaffinity(0))
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--servers", nargs="+", default=names, choices=names, metavar="NAME", help=", ".join(names))
    add(
        "--ref",
        default=REFERENCE,
        choices=names,
        metavar="NAME",
        help="what ratios refer to (default %(default)s)",
    )
    shape = "connections x in flight x bytes (KiB, MiB)"
    add("--scenarios", nargs="+", default=SCENARIOS, metavar="NxDxSIZE", help=shape)
    add("--rounds", type=int, default=3)
    add(
        "--tries",
        type=int,
        default=2,
        help="measure again when other programs disturbed (default %(default)s)",
    )
    add("--seconds", type=float, default=3.0, help="measured time")
    add("--warmup", type=float, default=1.0)
    add("--server-cpu", type=int, default=cpus[0])
    add("--load-cpu", type=int, default=cpus[-1])
    add("--python", default=sys.executable, help="interpreter for the servers")
    add("--out", type=Path, help="JSON file (default: results/echo-<time>.json)")
    return parser.parse_args()


def run(scenario: Scenario, servers: list[Server], setup: Setup) -> list[Measurement]:
    """A B C, A B C, ...: what drifts, drifts for all."""
    measurements = []
    for turn in range(1, setup.rounds + 1):
        for server in servers:
            measurements.append(one := measure_quietly(scenario, server, turn, setup))
            result = f"FAILED: {brief(one.error)}" if one.error else f"{one.msg_per_s:,.1f} msg/s"
            print(f"  {scenario.name} round {turn} {server.name}: {result}", file=sys.stderr, flush=True)
    return measurements


def facts(setup: Setup) -> dict[str, Any]:
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "revision": revision(),
        "machine": describe(),
        "versions": versions(setup.python),
        "setup": {name: value for name, value in vars(setup).items() if name != "python"},
    }


def main() -> int:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # an exception, so that the server is stopped, too
    setup = Setup(**{field.name: getattr(args, field.name) for field in fields(Setup)})
    os.sched_setaffinity(0, {setup.load_cpu})  # reading clocks must not disturb the server
    chosen = [server for server in SERVERS if server.name in args.servers]
    skipped = {server.name: reason for server in chosen if (reason := why_missing(server, args.python))}
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}")
    chosen = [server for server in chosen if server.name not in skipped]
    result = facts(setup) | {"skipped": skipped}
    everything: list[Measurement] = []
    for scenario in map(Scenario.parse, args.scenarios):
        everything += (measurements := run(scenario, chosen, setup))
        print("\n" + table(scenario.name, measurements, args.ref), flush=True)
    out = args.out or HERE / "results" / f"echo-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}.json"
    out.parent.mkdir(exist_ok=True)
    result["measurements"] = [vars(one) for one in everything]
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nwritten: {out}")
    return int(any(one.error for one in everything))


if __name__ == "__main__":
    sys.exit(main())
