"""Servers that a whole run of the tests shares, and the programs of other people that it needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serving import OLDEST_GUNICORN, Server, gunicorn, pywsgi


@pytest.fixture(scope="session", params=["gunicorn-oldest", "gunicorn", "pywsgi"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The app ``served``, by each server in turn."""
    if request.param == "pywsgi":
        serving = pywsgi()
    else:
        serving = gunicorn(version=OLDEST_GUNICORN if request.param == "gunicorn-oldest" else None)
    with serving as running:
        yield running


@pytest.fixture(scope="session")
def newest_gunicorn() -> Iterator[Server]:
    """The app ``served``, by the installed gunicorn."""
    with gunicorn() as running:
        yield running
