"""gunicorn's settings: read by gunicorn itself, from file, GUNICORN_CMD_ARGS and command line, and judged.

Refuses to know the application. The only module of the doctor that imports gunicorn.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ..drainer import settings as drain_settings
from ..hosts import SPARE_FILES, most_files
from ..options import Options
from .findings import Finding, ok, problem, warning

__all__ = ["GUNICORN", "judge", "load", "patches"]

#: How to say which settings are meant.
GUNICORN = "gunicorn -k gevent, or worker_class = 'gevent' in gunicorn.conf.py; give the doctor its arguments behind --"
_GEVENT_WEBSOCKET = "geventwebsocket."


def load(arguments: Sequence[str], uri: str) -> Any:
    """Return gunicorn's configuration, as its command line would make it; set ``raw_env`` and ``pythonpath`` of it.

    Args:
        arguments: Of gunicorn's command line, but for the application.
        uri: The application.

    Raises:
        ImportError: gunicorn is not installed.
        ValueError: gunicorn would not start with it; the text is its own.
    """
    from gunicorn.app.wsgiapp import WSGIApplication

    said, before = io.StringIO(), sys.argv
    sys.argv = ["gunicorn", *arguments, uri]
    try:
        with contextlib.redirect_stderr(said):
            cfg = WSGIApplication().cfg
    except SystemExit:
        lines = [line.strip() for line in said.getvalue().splitlines() if line.strip()]
        raise ValueError(lines[-1] if lines else "gunicorn has ended without a word") from None
    finally:
        sys.argv = before
    os.environ.update(cfg.env)
    sys.path[:0] = [os.path.abspath(path) for path in (cfg.pythonpath or "").split(",") if path]
    return cfg


def patches(cfg: Any) -> bool:
    """Tell whether the worker patches the process before it serves.

    Raises:
        RuntimeError: the worker class cannot be loaded; the text tells why.
    """
    worker = _worker_class(cfg)
    return any(base.__module__ == "gunicorn.workers.ggevent" for base in worker.__mro__)


def judge(cfg: Any, connections: int) -> Iterator[Finding]:
    """Judge the settings that matter to WebSockets.

    Args:
        cfg: What `load` has returned.
        connections: How many WebSockets a worker is meant to hold.
    """
    try:
        is_gevent = patches(cfg)
    except RuntimeError as error:
        yield problem("worker_class", str(error), "pip install 'gunicorn[gevent]', or what else the worker needs")
    else:
        yield _worker(cfg, is_gevent, connections)
        if is_gevent:
            yield from _places(cfg, connections)
    yield _graceful(cfg)
    if cfg.timeout and cfg.timeout < 10:
        seen = f"{cfg.timeout}: a worker whose callbacks compute for so many seconds is killed with all its WebSockets"
        yield warning("timeout", seen, "leave it at 30; it does not limit how long a WebSocket lives")
    if cfg.max_requests and not cfg.max_requests_jitter:
        seen = f"{cfg.max_requests}: all workers end their WebSockets (1012) at about the same time"
        yield warning("max_requests", seen, "set max_requests_jitter, or leave max_requests at 0")


def _worker_class(cfg: Any) -> Any:
    from gunicorn.util import load_class

    try:
        return load_class(cfg.settings["worker_class"].get())
    except Exception as error:
        last = str(error).strip(" \n]").splitlines()[-1]
        raise RuntimeError(f"{cfg.worker_class_str} cannot be loaded: {last}") from error


def _worker(cfg: Any, is_gevent: bool, connections: int) -> Finding:
    name = cfg.worker_class_str
    if str(_worker_class(cfg).__module__).startswith(_GEVENT_WEBSOCKET):
        seen = f"{name} sends the 101 before the view is asked, so a view cannot refuse and no cookie is sent"
        return warning("worker_class", seen, "gunicorn -k gevent, or websock_gevent.serve.let_views_decide()")
    if is_gevent:
        return ok("worker_class", name)
    if name == "gthread":
        seen = f"gthread holds a thread for each WebSocket: {cfg.threads} of {connections}"
        return (problem if cfg.threads < connections else warning)("worker_class", seen, GUNICORN)
    return problem("worker_class", f"{name} answers WebSockets with 501", GUNICORN)


def _places(cfg: Any, connections: int) -> Iterator[Finding]:
    places, limit = cfg.worker_connections, most_files()
    if places < connections:
        seen = f"{places}: a worker full of WebSockets accepts nothing more, not even health checks"
        advice = f"worker_connections = {connections} or more (parked connections do not count)"
        yield problem("worker_connections", seen, advice)
    elif places + SPARE_FILES > limit:
        seen = f"{places}, but a process may open {limit} files"
        yield warning("worker_connections", seen, f"ulimit -n {places + SPARE_FILES} before the server is started")
    else:
        yield ok("worker_connections", str(places))


def _graceful(cfg: Any) -> Finding:
    """The last to be told need time for their closing handshake, gunicorn two seconds to see that all are gone."""
    seconds, share, handshake = cfg.graceful_timeout, drain_settings().share, Options.close_timeout
    needed = handshake / (1 - share) + 2 if share < 1 else float("inf")
    if seconds < needed:
        seen = f"{seconds}: at a deploy, the last to be told to go get less than close_timeout ({handshake:g} s)"
        return warning("graceful_timeout", seen, f"graceful_timeout = {needed:g} or more; 30 is gunicorn's default")
    return ok("graceful_timeout", f"{seconds}")
