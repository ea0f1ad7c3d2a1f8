"""The pages are built without a warning and without a network, their examples hold, and they can be read on a phone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest
from browsing import Page, chromium
from serving import ROOT, Program

import websock_gevent
import websock_gevent.flask
import websock_gevent.frameworks
import websock_gevent.legacy
import websock_gevent.pubsub
import websock_gevent.serve
import websock_gevent.testing
from websock_gevent import Deflate, DrainSettings, Options

DOCS = ROOT / "docs"
PHONE = {"width": 390, "height": 844}
#: What a reader has to scroll the page for. What is in a table or a block of code scrolls in its own place.
BESIDE = """[...document.querySelectorAll('article :is(p, li, dt, dd, h1, h2, h3, img), .table-wrapper, .highlight')]
    .filter((one) => !one.parentElement.closest('.table-wrapper, .highlight, .docutils.container table'))
    .filter((one) => one.getBoundingClientRect().right > innerWidth)
    .map((one) => one.textContent.slice(0, 40))"""
MODULES = [
    websock_gevent,
    websock_gevent.flask,
    websock_gevent.frameworks,
    websock_gevent.legacy,
    websock_gevent.pubsub,
    websock_gevent.serve,
    websock_gevent.testing,
]


def sphinx(builder: str, folder: Path) -> None:
    """Build; a warning is an error."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-b", builder, str(DOCS), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as HTML."""
    folder = tmp_path_factory.mktemp("html")
    sphinx("html", folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Program]:
    """A chromium of our own."""
    with chromium() as started:
        yield started


def test_the_examples_hold(tmp_path: Path) -> None:
    sphinx("doctest", tmp_path)
    summary = (tmp_path / "output.txt").read_text()
    assert "0 failures in tests" in summary and "\n    0 tests" not in summary, summary


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_is_in_the_reference(module: ModuleType, built: Path) -> None:
    names: list[str] = module.__all__
    pages = "".join(page.read_text() for page in (built / "reference").glob("*.html"))
    places = {f'id="{module.__name__}.{name}"' for name in names}
    places -= {place for place in places if place in pages}
    assert not places, "not in the reference"


def test_no_page_points_outside_for_what_it_needs(built: Path) -> None:
    """Scripts, styles and fonts come with the pages."""
    for page in built.rglob("*.html"):
        text = page.read_text()
        assert '<script src="http' not in text and '<link rel="stylesheet" type="text/css" href="http' not in text, page


def test_no_page_is_wider_than_a_phone(built: Path, browser: Program) -> None:
    page = Page(browser, "reader")
    page.do("open", (built / "index.html").as_uri(), PHONE)
    wide = []
    for path in sorted(built.rglob("*.html")):
        page.do("evaluate", f"location.assign({path.as_uri()!r})")
        page.do("until", f"location.href === {path.as_uri()!r} && document.readyState === 'complete'")
        wide += [f"{path.relative_to(built)}: {what}" for what in page.do("evaluate", BESIDE)]
    page.do("leave")
    assert not wide


@pytest.mark.parametrize("pattern", ["attacks-*.rst", "soak-*.svg"])
def test_the_newest_results_are_shown(pattern: str, built: Path) -> None:
    newest = max(path.name for path in (ROOT / "benchmarks" / "results").glob(pattern))
    text = (built / "benchmarks.html").read_text()
    kind, _, rest = newest.partition("-")
    shown = (
        f"_images/{newest}" if newest.endswith(".svg") else f"{kind}.py</span></code> on {rest.removesuffix('.rst')}"
    )
    assert shown in text


@pytest.mark.parametrize("options", [Options, Deflate, DrainSettings])
def test_every_setting_is_explained(options: type, built: Path) -> None:
    text = (built / "reference" / "websock_gevent.html").read_text()
    for field in fields(options):
        assert f"<strong>{field.name}</strong>" in text


def test_the_table_of_options_is_complete() -> None:
    """With the defaults that hold."""
    shown = {"same origin": None, "10 000": 10_000, "10 000 000": 10_000_000, "``True``": True, "``False``": False,
             "``()``": (), '``"greenlet"``': "greenlet"}  # fmt: skip
    text = (DOCS / "options.rst").read_text()
    for field in fields(Options):
        (row,) = [line for line in text.splitlines() if line.startswith(f"``{field.name}``")]
        default = row[28:43].strip()
        assert (shown[default] if default in shown else float(default)) == field.default, row
