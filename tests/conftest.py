"""Servers that a whole run of the tests shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from apps.defaults import IDLE
from kinds import KINDS, Kind
from matrix import Matrix
from serving import Server, gunicorn


def pytest_report_header() -> str:
    return f"idle connections: {IDLE}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-table", action="store_true", help="put the table of servers into docs/servers.rst")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Matrix(config.getoption("--write-table")))
    config.addinivalue_line("markers", "matrix(column): counts for this column of the compatibility table")
    config.addinivalue_line("markers", "only(test): run with those kinds of server alone for which test(kind) is true")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each kind of server in turn to whoever asks for ``kind`` or ``server``."""
    if "kind" in metafunc.fixturenames:
        marks = list(metafunc.definition.iter_markers("only"))
        kinds = [kind for kind in KINDS if all(mark.args[0](kind) for mark in marks)]
        metafunc.parametrize("kind", kinds, ids=lambda kind: kind.name, scope="session")


@pytest.fixture(scope="session")
def server(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app ``served``, by this kind of server."""
    with kind.start(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def newest_gunicorn() -> Iterator[Server]:
    """The app ``served``, by the installed gunicorn."""
    with gunicorn() as running:
        yield running
