"""Tables of a run, in reStructuredText that also reads well on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from results import Measurement, Run, middle, ratios

__all__ = ["LOUD", "Column", "brief", "reference_in", "remarks", "render", "show", "table"]

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
    size = abs(value)
    digits = 0 if size >= 100 or not size else 1 if size >= 10 else 2 if size >= 0.1 else 4
    return f"{value:,.{digits}f}"


def _range(values: Sequence[float]) -> str:
    return f"{show(min(values))}..{show(max(values))}" if values else "-"


def render(rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A simple table; the first row is its head, the first `words` columns are no numbers."""
    width = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "  ".join("=" * n for n in width)
    lines = []
    for row in rows:
        left = [text.ljust(n) for text, n in zip(row, width, strict=True)]
        right = [text.rjust(n) for text, n in zip(row, width, strict=True)]
        cells = left[:words] + right[words:]
        lines.append("  ".join(cells).rstrip())
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


def reference_in(run: Run, scenario: str, wanted: str) -> str:
    """What ratios refer to: another one where the wanted server is not in, since it does not offer that."""
    servers = run.servers(scenario)
    return wanted if wanted in servers or not servers else servers[0]


def table(run: Run, scenario: str, columns: Sequence[Column], reference: str) -> str:
    head = ["server"]
    for column in columns:
        head += [column.title] + ["min..max"] * column.spread + ["x ref", "min..max"] * column.ratio
    rows = [[*head, "runs"]]
    base = run.of(scenario, reference_in(run, scenario, reference))
    for server in run.servers(scenario):
        own = run.of(scenario, server)
        good = [one for one in own if not one.error]
        if not good:
            rows.append([server, "FAILED", *["-"] * (len(head) - 2), f"0/{len(own)}"])
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
