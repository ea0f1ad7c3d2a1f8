#!/usr/bin/env python3
"""Pictures of a run, as SVG: throughput, latency, growth, idle memory. The only file that needs matplotlib.

    python benchmarks/plots.py benchmarks/results/idle-2026-11-25.json    # what idle connections cost, beside it

What a run has not measured is left out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib
from growth import SERIES, Series
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from peers import OURS
from results import Run, middle

__all__ = ["draw", "draw_idle"]

THROUGHPUT = ("100x1x32", "100x1x1KiB", "100x1x64KiB", "1000x1x128", "10x16x128", "fanout1000x128")
LATENCY = ("1000x128@10000", "1000x128@10000+blocking")
PERCENTILES = (("p50_us", "50 %"), ("p99_us", "99 %"), ("p999_us", "99.9 %"))
OWN, OTHER = "#c0392b", "#9aa5b1"
PEERS = ("blue", "orange", "green", "purple", "brown", "pink", "gray", "olive", "cyan")  # ours alone are red
matplotlib.rcParams["axes.prop_cycle"] = matplotlib.cycler(color=[f"tab:{name}" for name in PEERS])
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "websock_gevent", "font.size": 8})


def _is_ours(server: str) -> bool:
    return server.startswith(OURS.partition("/")[0])


def _look(server: str) -> dict[str, Any]:
    """Ours stand out; their variants are dashed."""
    if not _is_ours(server):
        return {"lw": 1.0}
    return {"lw": 2.5, "color": OWN, "ls": "-" if server == OURS else "--"}


def _bars(axes: Axes, run: Run, scenario: str) -> None:
    found = {server: middle(run.values(scenario, server, "per_s")) for server in run.servers(scenario)}
    values = sorted(((value, server) for server, value in found.items() if value is not None))
    axes.barh(
        [server for _, server in values],
        [value for value, _ in values],
        color=[OWN if _is_ours(server) else OTHER for _, server in values],
    )
    axes.set_title(scenario)
    axes.set_xlabel("per second")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _percentiles(axes: Axes, run: Run, scenario: str) -> None:
    for server in run.servers(scenario):
        values = [middle(run.values(scenario, server, figure)) for figure, _ in PERCENTILES]
        points = [(name, value / 1e3) for (_, name), value in zip(PERCENTILES, values, strict=True) if value]
        names, heights = [name for name, _ in points], [value for _, value in points]
        axes.plot(names, heights, marker="o", label=server, **_look(server))
    axes.set_title(scenario)
    axes.set_ylabel("milliseconds")
    if axes.lines:
        axes.set_yscale("log")
        axes.legend(fontsize=6)


def _growth(axes: Axes, run: Run, series: Series) -> None:
    for server in series.servers(run):
        points = series.points(run, server)
        if len(points) > 1:
            axes.plot(*zip(*points, strict=True), marker="o", label=server, **_look(server))
    axes.set(xscale="log", yscale="log", xlabel=series.axis, ylabel=f"µs CPU per {series.what}", title=series.title)
    axes.set_aspect("equal", adjustable="datalim")  # proportion is a slope of 45 degrees
    if axes.lines:
        axes.legend(fontsize=6)


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None})
    return path


def draw(run: Run, stem: Path) -> list[Path]:
    """Write STEM-*.svg; return their paths."""
    throughput = Figure(figsize=(11, 7), layout="constrained")
    for axes, scenario in zip(throughput.subplots(3, 2).flat, THROUGHPUT, strict=True):
        _bars(axes, run, scenario)
    latency = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, scenario in zip(latency.subplots(1, 2), LATENCY, strict=True):
        _percentiles(axes, run, scenario)
    growing = Figure(figsize=(11, 13), layout="constrained")
    grid = list(growing.subplots(3, 2).flat)
    for axes, series in zip(grid, SERIES, strict=False):
        _growth(axes, run, series)
    for axes in grid[len(SERIES) :]:
        axes.remove()
    named = {"throughput": throughput, "latency": latency, "growth": growing}
    return [_save(figure, stem.with_name(f"{stem.name}-{name}.svg")) for name, figure in named.items()]


def _idle_points(run: Run, server: str) -> list[tuple[int, float]]:
    """Connections and KiB for each of them; a scenario has looked at half of its connections, too."""
    found = {}
    for scenario in run.scenarios("idle"):
        count = int(scenario.removeprefix("idle"))
        for connections, figure in ((count // 2, "kib_each_half"), (count, "kib_each")):
            value = middle(run.values(scenario, server, figure))
            if value is not None:
                found[connections] = value
    return sorted(found.items())


def draw_idle(run: Run, path: Path) -> Path:
    """Write what an idle connection costs, by how many there are."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for server in dict.fromkeys(one.server for one in run.measurements if one.kind == "idle"):
        points = _idle_points(run, server)
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=server, **_look(server))
    axes.set(xlabel="idle connections", ylabel="KiB per connection", title="Memory of an idle connection")
    axes.set_ylim(bottom=0)
    if axes.lines:
        axes.legend(fontsize=6)
    return _save(figure, path)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(draw_idle(Run.load(Path(name)), Path(name).with_suffix(".svg")))
