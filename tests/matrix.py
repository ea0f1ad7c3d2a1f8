"""The table of servers in ``docs/servers.rst``: what was promised under each, and held in this run.

A test marked ``matrix(column)`` that runs under each kind of server counts for a cell. The table is printed at the end
of a run; ``--write-table`` puts it into that page; a whole run fails if the page has another one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest
from kinds import KINDS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "servers.rst"
BLOCK = re.compile(r"(?s)(\.\. servers: begin[^\n]*\n\n).*?(\.\. servers: end)")
COLUMNS = (
    "messages",
    "headers",
    "middlewares",
    "read-ahead",
    "released",
    "access log",
    "quiet",
    "refusals",
    "endings",
    "no leak",
    "drain",
)
HELD, BROKEN, NOT_PROMISED = "✓", "✗", "–"


class Matrix:
    """What has become of each cell.

    Args:
        write: Put the table into the page.
    """

    def __init__(self, write: bool) -> None:
        self._write = write
        self._cells: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._is_whole = False
        self._differs = False

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note whether there will be all cells."""
        config = session.config
        chosen = config.option.keyword or config.option.file_or_dir
        self._is_whole = not chosen and config.option.markexpr in ("", "kinds", "matrix")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> object:
        """Note what has become of one test."""
        report = yield
        for cell in _cells(item):
            if report.failed or report.when == "call":
                self._cells[cell].add(BROKEN if report.failed else HELD)
        return report

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write or compare."""
        found = BLOCK.search(PAGE.read_text())
        if not found or not self._is_whole or session.testsfailed:
            return
        block = f"{found[1]}{self._table()}\n{found[2]}"
        self._differs = block != found[0]
        if self._write:
            PAGE.write_text(BLOCK.sub(lambda _: block, PAGE.read_text()))
        elif self._differs:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table."""
        if self._cells:
            terminalreporter.section("servers")
            terminalreporter.write(self._table())
        if self._differs:
            done = "has been rewritten" if self._write else "has another one: run make table"
            terminalreporter.write_line(f"{PAGE.name} {done}", red=not self._write)

    def _table(self) -> str:
        """The table in reStructuredText."""
        head = ["server", *COLUMNS]
        rows = [[kind.name, *(self._cell(kind.name, column) for column in COLUMNS)] for kind in KINDS]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        rule = "  ".join("=" * width for width in widths)
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
        first = "  ".join(text.ljust(width) for text, width in zip(head, widths, strict=True))
        return "\n".join([rule, first.rstrip(), rule, *(line.rstrip() for line in lines), rule, ""])

    def _cell(self, row: str, column: str) -> str:
        outcomes = self._cells.get((row, column))
        if not outcomes:
            return NOT_PROMISED
        return BROKEN if BROKEN in outcomes else HELD


def _cells(item: pytest.Item) -> list[tuple[str, str]]:
    """The cells that a test counts for."""
    kind = getattr(item, "callspec", None) and item.callspec.params.get("kind")
    return [(kind.name, mark.args[0]) for mark in item.iter_markers("matrix")] if kind else []
