"""Two directives that take what the benchmarks have written last: its name contains a date.

``.. newest:: attacks-*.rst`` includes it, ``.. newest-pictures:: soak-*.svg`` shows all pictures of that day. Where
nothing was written yet, nothing is shown.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.directives.other import Include

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
DATE = re.compile(r"\d{4}-\d\d-\d\d")


def newest(pattern: str) -> list[Path]:
    """All files of the last day, in the order of their names."""
    found = sorted(path for path in RESULTS.glob(pattern) if DATE.search(path.name))
    days = [DATE.findall(path.name)[0] for path in found]
    return [path for path, day in zip(found, days, strict=True) if day == max(days)]


def relative(path: Path, directive: Directive) -> str:
    """The path as Sphinx wants it: seen from the page."""
    return os.path.relpath(path, Path(directive.state.document.current_source).parent)


class Newest(Include):
    """Include the newest file that fits."""

    def run(self) -> list[nodes.Node]:
        found = newest(self.arguments[0])
        if not found:
            return []
        self.arguments[0] = relative(found[-1], self)
        return list(super().run())


class NewestPictures(Directive):
    """Show the newest pictures that fit; the content says what they show."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        made: list[nodes.Node] = []
        for path in newest(self.arguments[0]):
            image = nodes.image(uri=relative(path, self))
            image["alt"] = " ".join(self.content) or path.stem
            made.append(image)
        return made


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("newest", Newest)
    app.add_directive("newest-pictures", NewestPictures)
    return {"parallel_read_safe": True}
