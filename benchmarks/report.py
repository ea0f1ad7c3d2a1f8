#!/usr/bin/env python3
"""Turns the JSON file of a run of everything into its tables, its pictures, the section of
docs/benchmarks.rst, and the README's short table.

python benchmarks/report.py benchmarks/results/suite-2026-11-25.json [--publish]
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import connect
import echo
import fanout
import idle
import rate
from bars import BARS, GOALS, Verdict, judge
from bars import table as bars_table
from growth import table as growth_table
from peers import OURS, REFERENCE, SERVERS
from quoted import RATIOS
from results import Run, middle, ratios
from servers import ROOT
from tables import reference_in, remarks, render, show, table

__all__ = ["write"]

BLOCK = re.compile(r"(?s)(\.\. speed: begin[^\n]*\n\n).*?(\.\. speed: end)")
KINDS = (echo.KIND, rate.KIND, fanout.KIND, connect.KIND, idle.KIND)
MAIN = ("100x1x32", "100x1x1KiB", "100x1x64KiB", "1000x1x128", "10x16x128", "1x1x16MiB", "fanout1000x128")
FIRST = ("100x1x32", "100x1x1KiB", "100x1x64KiB", "1000x1x128")
FEW = (REFERENCE, OURS, "flask-sock/gunicorn", "websockets/asyncio", "picows/uvloop")
RATE, BLOCKING, CONNECT, IDLE = "1000x128@10000", "1000x128@10000+blocking", "connect16", "idle10000"


def pretty(scenario: str) -> str:
    if found := re.fullmatch(fanout.KIND.pattern, scenario):
        return f"fan-out {int(found[1]):,} × {found[2]} B"
    connections, depth, size = scenario.split("x")
    size = re.sub(r"(?<=\d)(?=[KM])", " ", size) if size[-1] == "B" else f"{size} B"
    return f"{int(connections):,} × {f'{depth} × ' if depth != '1' else ''}{size}"


def paragraph(text: str) -> str:
    return fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False) + "\n"


def heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n"


def _rate_cell(run: Run, scenario: str, server: str) -> str:
    value = middle(run.values(scenario, server, "per_s"))
    against = middle(ratios(run.of(scenario, server), run.of(scenario, REFERENCE), "per_s"))
    if value is None:
        return "failed" if run.of(scenario, server) else "-"
    return f"{show(value)} ({show(against)})"


def _in_order(run: Run, scenarios: Sequence[str]) -> list[str]:
    """The servers measured in any of these, as peers.py has them; others, such as another checkout, behind."""
    found = dict.fromkeys(server for name in scenarios for server in run.servers(name))
    known = [server.name for server in SERVERS if server.name in found]
    return known + [name for name in found if name not in known]


def _shown(name: str) -> str:
    return f"**{name}**" if name.startswith(OURS.partition("/")[0]) else name


def throughput(run: Run) -> str:
    """Messages a second, and the ratio to the reference; at the end those quoted from another run."""
    scenarios = [name for name in MAIN if run.servers(name)]
    rows = [["server", *map(pretty, scenarios)]]
    for server in _in_order(run, scenarios):
        rows.append([_shown(server), *(_rate_cell(run, name, server) for name in scenarios)])
    for server, known in RATIOS.items():
        cells = [f"({show(known[name])})" if name in known else "-" for name in scenarios]
        rows.append([f"{server}, another run", *cells])
    return render(rows)


def waiting(run: Run) -> str:
    """Latency at a fixed rate, connect rate, and what an idle connection costs."""
    columns = [
        ("p50 ms", RATE, "p50_us", 1e-3),
        ("p99 ms", RATE, "p99_us", 1e-3),
        ("p99.9 ms", RATE, "p999_us", 1e-3),
        ("p99 ms, 1 % block", BLOCKING, "p99_us", 1e-3),
        ("connections/s", CONNECT, "per_s", 1),
        ("KiB per idle connection", IDLE, "kib_each", 1),
        ("idle CPU %", IDLE, "idle_cpu_percent", 1),
    ]
    rows = [["server", *(title for title, *_ in columns)]]
    for server in _in_order(run, (RATE, CONNECT, IDLE)):
        cells = []
        for _, scenario, figure, factor in columns:
            value = middle(run.values(scenario, server, figure))
            cells.append(show(None if value is None else value * factor))
        rows.append([_shown(server), *cells])
    return render(rows)


def facts(run: Run) -> str:
    """What was run, where, with what."""
    known = run.facts
    machine, versions = known["machine"], known["versions"]
    lines = [
        f"Run on {known['started'][:10]} at revision {known['revision']}, by::\n",
        f"    {known['command']}\n",
        paragraph("Machine: " + ", ".join(f"{name} {value}" for name, value in machine.items()) + "."),
        paragraph("Versions: " + ", ".join(f"{name} {value}" for name, value in versions.items()) + "."),
    ]
    lines += [paragraph(f"Not measured: {name}: {reason}") for name, reason in known["skipped"].items()]
    return "\n".join(lines)


def _missed(one: Verdict) -> str:
    bare = f", a bare loop {show(one.bare)}" if one.bare is not None else ""
    return f"{one.bar.scenario or one.bar.steepest} {one.bar} (is {show(one.measured)}{bare})"


def summary(verdicts: Sequence[Verdict]) -> str:
    """One sentence that hides nothing."""
    missed = [_missed(one) for one in verdicts if one.met is False]
    met, unknown = sum(one.met is True for one in verdicts), sum(one.met is None for one in verdicts)
    text = f"Of the {len(verdicts)} bars we set ourselves, {met} are met"
    text += f" and {unknown} could not be measured" if unknown else ""
    return f"{text}. Missed: {'; '.join(missed)}." if missed else f"{text}; none is missed."


def document(run: Run, pictures: Sequence[Path]) -> str:
    parts = [heading("Benchmarks", "="), facts(run), heading("Bars", "-"), bars_table(judge(BARS, run)), ""]
    parts += ["Where it goes:\n", bars_table(judge(GOALS, run)), "", heading("Pictures", "-")]
    parts += [f".. image:: {picture.name}\n" for picture in pictures]
    for kind in KINDS:
        if run.scenarios(kind.name):
            parts.append(heading(kind.name.capitalize(), "-"))
        for scenario in run.scenarios(kind.name):
            reference = reference_in(run, scenario, run.facts["reference"])
            parts += [heading(scenario, "~"), f"Ratios are to {reference} in the same round.\n"]
            parts += [table(run, scenario, kind.columns, reference), ""]
            measured = [one for one in run.measurements if one.scenario == scenario]
            parts.append("".join(f"* {note}\n" for note in remarks(measured)))
    return "\n".join([*parts, heading("Growth", "-"), growth_table(run)])


INTRODUCTION = """
Messages a second, and in brackets how many times as many as gevent-websocket on pywsgi in the same round; medians of
{rounds} interleaved rounds, one core for the server, every byte that comes back compared. Ratios travel, absolute
figures do not. The C server does as little as a correct one can: it is the limit. The bare loop does as little as a
Flask view under gunicorn can, and keeps no promise: it is the limit of any engine in Python there. Cowboy and Bandit
were measured in another run.
"""
SHORT = """
Echoes a second, one core for the server, medians of {rounds} interleaved rounds on one machine (``{made}``).
Ratios travel, absolute figures do not.
"""
WAITING = """
Latency at 10 000 messages a second over 1 000 connections, counted from the moment each was due, and the same where
one handler in a hundred blocks for 10 ms; new connections a second, each with handshake, one echo and closing
handshake; and what 10 000 idle connections cost.
"""


def section(run: Run, path: Path) -> str:
    """That of docs/benchmarks.rst: both tables, what the bars say, how it was made."""
    details = path.resolve().relative_to(ROOT).with_suffix(".rst")
    parts = [
        paragraph(INTRODUCTION.format(rounds=run.facts["setup"]["rounds"])),
        throughput(run) + "\n",
        paragraph(WAITING),
        waiting(run) + "\n",
        paragraph(summary(judge(BARS, run))),
        f"All of it, with the spread of each figure and pictures: ``{details}``.\n",
        facts(run) + "\n",
    ]
    return "\n".join(parts)


def short(run: Run, path: Path) -> str:
    """The README's: a few servers, and how many times as fast as the reference ours is."""
    scenarios = [name for name in FIRST if run.servers(name)]
    rows = [["messages", *map(pretty, scenarios)]]
    for server in [name for name in _in_order(run, scenarios) if name in FEW]:
        cells = [middle(run.values(name, server, "per_s")) for name in scenarios]
        rows.append([_shown(server), *map(show, cells)])
    last = [middle(ratios(run.of(name, OURS), run.of(name, REFERENCE), "per_s")) for name in scenarios]
    rows.append(["ours / gevent-websocket", *map(show, last)])
    made = path.resolve().relative_to(ROOT)
    return paragraph(SHORT.format(rounds=run.facts["setup"]["rounds"], made=made)) + f"\n{render(rows)}\n\n"


def _put(file: Path, text: str) -> None:
    file.write_text(BLOCK.sub(lambda found: found[1] + text + found[2], file.read_text()))


def write(run: Run, path: Path, publish: bool) -> None:
    """Tables and pictures beside the JSON file; into the page and the README if asked for."""
    try:
        from plots import draw
    except ImportError as error:
        print(f"no pictures: {error}", file=sys.stderr)
        pictures: list[Path] = []
    else:
        pictures = draw(run, path.with_suffix(""))
    path.with_suffix(".rst").write_text(document(run, pictures))
    if publish:
        _put(ROOT / "docs" / "benchmarks.rst", section(run, path))
        _put(ROOT / "README.rst", short(run, path))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the JSON file")
    parser.add_argument("--publish", action="store_true", help="also write docs/benchmarks.rst and the README's table")
    args = parser.parse_args()
    write(Run.load(args.run), args.run, args.publish)
    return 0


if __name__ == "__main__":
    sys.exit(main())
