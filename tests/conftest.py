"""What several files of tests ask for: servers that a whole run shares, a Redis and PubSubs of a test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apps.defaults import IDLE
from kinds import KINDS, Kind
from matrix import Matrix
from redis_servers import QUICK, RedisServer, redis_server
from serving import Server, gunicorn

from websock_gevent.pubsub import PubSub


def pytest_report_header() -> str:
    return f"idle connections: {IDLE}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-table", action="store_true", help="put the table of servers into docs/servers.rst")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Matrix(config.getoption("--write-table")))
    config.addinivalue_line("markers", "matrix(column): counts for this column of the compatibility table")
    config.addinivalue_line("markers", "kinds: given to each test that runs under each kind of server")
    config.addinivalue_line("markers", "only(test): run with those kinds of server alone for which test(kind) is true")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs under each kind of server: half of all tests, so that it can be run beside the rest."""
    for item in items:
        if "kind" in getattr(item, "fixturenames", ()):
            item.add_marker("kinds")


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


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for one test."""
    (tmp_path / "redis").mkdir()
    with redis_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def make() -> Iterator[Callable[..., PubSub]]:
    """Make a PubSub with short times, which is closed at the end of the test."""
    made: list[PubSub] = []

    def make(url: str, **settings: Any) -> PubSub:
        made.append(PubSub(url, **{**QUICK, **settings}))
        return made[-1]

    yield make
    for pubsub in made:
        pubsub.close()
