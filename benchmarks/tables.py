"""Tables of a run, in reStructuredText that also reads well on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from results import Measurement, Run, middle, ratios

__all__ = ["LOUD", "Column", "brief", "remarks", "render", "show", "table"]

LOUD = 0.15  # other programs' share of the two cores, in CPUs, from which a measurement is not to be trusted
LIMITED = 0.95  # of a core, from which the load generator is the limit


@dataclass(frozen=True)
class Column:
    """A figure and how it is shown: its median, on demand also lowest and highest, and the ratio to the reference."""

    title: str
    figure: str
    spread: bool = False
    ratio: bool = False


def show(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"


def _range(values: Sequence[float]) -> str:
    return f"{show(min(values))}..{show(max(values))}" if values else "-"


def render(rows: Sequence[Sequence[str]]) -> str:
    """A simple table; the first row is its head. A row of two cells gives its second the rest of the line."""
    width = [max(len(row[i]) for row in rows if len(row) == len(rows[0])) for i in range(len(rows[0]))]
    width[0] = max(len(row[0]) for row in rows)
    rule = "  ".join("=" * n for n in width)
    lines = []
    for row in rows:
        numbers = (text.rjust(n) for text, n in zip(row[1:], width[1:], strict=False)) if len(row) > 2 else row[1:]
        lines.append("  ".join([row[0].ljust(width[0]), *numbers]).rstrip())
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def brief(error: str) -> str:
    """What load says and the last line of the server's log; all of it is in the JSON file."""
    lines = error.splitlines() or [""]
    return " | ".join(dict.fromkeys([lines[0], lines[-1]]))[:160]


def _cells(own: list[Measurement], base: list[Measurement], column: Column) -> list[str]:
    values = [one.figures[column.figure] for one in own if column.figure in one.figures]
    cells = [show(middle(values))]
    if column.spread:
        cells.append(_range(values))
    if column.ratio:
        against = ratios(own, base, column.figure)
        cells += [show(middle(against)), _range(against)]
    return cells


def table(run: Run, scenario: str, columns: Sequence[Column], reference: str) -> str:
    head = ["server"]
    for column in columns:
        head += [column.title] + ["min..max"] * column.spread + ["x ref", "min..max"] * column.ratio
    rows = [[*head, "runs"]]
    base = run.of(scenario, reference)
    for server in run.servers(scenario):
        own = run.of(scenario, server)
        good = [one for one in own if not one.error]
        if not good:
            rows.append([server, "FAILED: " + brief(own[-1].error)])
            continue
        cells = [cell for column in columns for cell in _cells(good, base, column)]
        rows.append([server, *cells, f"{len(good)}/{len(own)}"])
    return render(rows)


def remarks(measurements: Sequence[Measurement]) -> list[str]:
    notes = []
    for one in measurements:
        where, figures = f"{one.server}, round {one.round}", one.figures
        if one.error:
            notes.append(f"{where}: {brief(one.error)}")
        if figures.get("other_cpu", 0) > LOUD:
            notes.append(f"{where}: other programs used {figures['other_cpu']:.2f} CPU")
        if figures.get("load_cpu", 0) > LIMITED:
            notes.append(f"{where}: the load generator was the limit")
        if not one.error and one.report.get("silent"):
            notes.append(f"{where}: {one.report['silent']} connection(s) got no answer at all in the measured time")
    return notes
