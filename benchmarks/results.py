"""Measurements, and what is derived from several of them: medians, spreads, ratios within a round, their JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["SERIES", "Measurement", "Run", "middle", "ratios"]


SERIES = "series"  # the kind of a measurement that is a step of a series


@dataclass(frozen=True)
class Measurement:
    """One server in one round of one scenario.

    Attributes:
        figures: What was measured, by name; empty if `error` is not.
        report: All that the load generator printed.
    """

    kind: str
    scenario: str
    server: str
    round: int
    error: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """All measurements of a run, and the facts that they depend on."""

    facts: dict[str, Any]
    measurements: list[Measurement] = field(default_factory=list)

    def of(self, scenario: str, server: str, series: bool = False) -> list[Measurement]:
        """Its measurements; those that belong to a series of growth.py only if `series` is set, and no others then."""
        found = [one for one in self.measurements if (one.scenario, one.server) == (scenario, server)]
        return [one for one in found if (one.kind == SERIES) == series]

    def values(self, scenario: str, server: str, figure: str, series: bool = False) -> list[float]:
        return [one.figures[figure] for one in self.of(scenario, server, series) if figure in one.figures]

    def scenarios(self, kind: str) -> list[str]:
        return list(dict.fromkeys(one.scenario for one in self.measurements if one.kind == kind))

    def servers(self, scenario: str, series: bool = False) -> list[str]:
        found = [one for one in self.measurements if one.scenario == scenario and (one.kind == SERIES) == series]
        return list(dict.fromkeys(one.server for one in found))

    def save(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        lines = ",\n".join(json.dumps(asdict(one)) for one in self.measurements)
        path.write_text(f'{json.dumps(self.facts, indent=1)[:-2]},\n "measurements": [\n{lines}\n ]\n}}\n')

    @classmethod
    def load(cls, path: Path) -> Run:
        facts = json.loads(path.read_text())
        return cls(facts, [Measurement(**one) for one in facts.pop("measurements")])


def middle(values: Sequence[float]) -> float | None:
    return float(median(values)) if values else None


def ratios(own: Iterable[Measurement], base: Iterable[Measurement], figure: str) -> list[float]:
    """Each measurement against the base's of that same round: what slows the machine for a minute slows both."""
    by_round = {one.round: one.figures[figure] for one in base if one.figures.get(figure)}
    return [one.figures[figure] / by_round[one.round] for one in own if figure in one.figures and one.round in by_round]
