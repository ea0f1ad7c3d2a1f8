"""The second process: loads the application as gunicorn would, and looks at what came of it. Started by `command`.

gunicorn's gevent worker patches the process, then loads the application; with ``preload_app``, the master loads it
first, forks, and the workers patch then. Other workers, and ``--no-gunicorn``, leave patching to the application.
Findings are written one by one, so that none is lost if the application ends this process.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..hosts import most_files
from ..pubsub.pubsub import PubSub
from . import application, patching, redis, settings
from .findings import Finding, ok, problem, warning
from .routes import NOT_FLASK_SOCKETS, routes

__all__ = ["Questions"]


class Questions(NamedTuple):
    """What is to be looked at.

    Attributes:
        uri: The application, as ``MODULE:APP``.
        gunicorn: Arguments of gunicorn's command line; ``None`` if it is not served by gunicorn.
        connections: How many WebSockets a worker is meant to hold.
        redis: Address of a Redis server to be asked, empty for none.
    """

    uri: str
    gunicorn: list[str] | None
    connections: int
    redis: str


def answer(questions: Questions) -> Iterator[Finding]:
    """Look at everything."""
    cfg = None
    try:
        if questions.gunicorn is not None:
            cfg = settings.load(questions.gunicorn, questions.uri)
    except ImportError:
        seen = "not read, gunicorn is not installed; the application is looked at as it is served without it"
        yield warning(
            "gunicorn's settings", seen, "pip install 'gunicorn[gevent]', or --no-gunicorn if that is meant so"
        )
    except ValueError as error:
        yield problem("gunicorn's settings", str(error), "correct them: gunicorn would not start")
        return
    app = None
    try:
        app, found = _load(questions.uri, cfg)
    except application.Broken as error:
        advice = NOT_FLASK_SOCKETS if "flask_sockets.py" in str(error) else "correct it; gunicorn fails alike"
        yield problem("application", f"{questions.uri} cannot be loaded: {error}", advice)
    if cfg is not None:
        yield from settings.judge(cfg, questions.connections)
    if app is not None:
        yield ok("application", f"{questions.uri} was loaded")
        yield from found
        yield from _examine(questions.uri, app, cfg)
    if questions.redis:
        yield from redis.ask_address(questions.redis)


def _load(uri: str, cfg: Any) -> tuple[Any, list[Finding]]:
    """Load the application; return it, and what is to be said about how that went."""
    patches = cfg is not None and _patches(cfg)
    if patches and not cfg.preload_app:
        patching.patch()
    running = patching.what_runs()
    app = application.load(uri)
    found = list(patching.started(running)) if cfg is not None and cfg.preload_app else []
    if patches:
        if cfg.preload_app and not patching.is_patched():
            advice = "preload_app = False, or from gevent import monkey; monkey.patch_all() first in gunicorn.conf.py"
            found.append(warning("preload_app", "the application is loaded before the worker patches", advice))
        patching.patch()
    if patching.is_patched():
        found += patching.kept_originals("of gunicorn.conf.py" if patches else "of the application")
    elif cfg is None:
        seen = "missing: a callback that waits (database, sleep, requests) holds up everybody"
        found.append(warning("monkey patching", seen, f"{patching.FIRST_LINE} of the application"))
    return app, found


def _patches(cfg: Any) -> bool:
    try:
        return settings.patches(cfg)
    except RuntimeError:  # told by `judge`
        return False


def _examine(uri: str, app: Any, cfg: Any) -> Iterator[Finding]:
    yield from routes(app)
    yield from application.options(uri, app, most_files())
    for name, pubsub in application.named(uri, app, PubSub).items():
        yield from redis.ask(name, pubsub, cfg.workers if cfg is not None else 1)


def _main(path: str, questions: str) -> None:
    with open(path, "a") as file:
        for finding in answer(Questions(*json.loads(questions))):
            print(json.dumps(finding), file=file, flush=True)
    os._exit(0)  # whatever the application has started


if __name__ == "__main__":
    _main(*sys.argv[1:])
