"""The application: how it is loaded, what it wraps, its `Options`, and what else has a name in it. Calls nothing of it
but what gunicorn calls to load it."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Iterator
from typing import Any

from ..hosts import SPARE_FILES
from ..options import Options
from .findings import Finding, described, problem, warning

__all__ = ["Broken", "flask_of", "layers", "load", "named", "options", "resource_apps"]

#: Under which names middlewares keep what they wrap.
_INNER = ("wsgi_app", "app", "application", "_app")


class Broken(Exception):
    """The application cannot be loaded; the text says why, and where."""


def load(uri: str) -> Any:
    """Import ``MODULE:APP`` as gunicorn does, or without gunicorn where that is not installed.

    Raises:
        Broken: it cannot be loaded, or is none.
    """
    try:
        try:
            from gunicorn.util import import_app
        except ImportError:
            return _imported(uri)
        return import_app(uri)
    except (Exception, SystemExit) as error:
        raise Broken(f"{described(error)}{_place(error)}") from error


def _imported(uri: str) -> Any:
    module, _, name = uri.partition(":")
    found = getattr(importlib.import_module(module), (name or "application").removesuffix("()"))
    return found() if name.endswith("()") else found


def _place(error: BaseException) -> str:
    """Where it was raised, unless the import itself has."""
    frames = traceback.extract_tb(error.__traceback__)
    name = frames[-1].filename
    is_ours = name.startswith("<") or name in (__file__, importlib.__file__) or name.endswith("/gunicorn/util.py")
    return "" if is_ours else f" ({name}, line {frames[-1].lineno})"


def named(uri: str, app: Any, kind: type[Any]) -> dict[str, Any]:
    """Objects of a kind by their names: in the application's module, its ``config`` and its ``extensions``."""
    places: list[Any] = [vars(sys.modules[uri.partition(":")[0]])]
    flask = flask_of(app)
    if flask is not None:
        places += [flask.config, flask.extensions]
    found = {
        id(value): (str(key), value) for place in places for key, value in place.items() if isinstance(value, kind)
    }
    return dict(found.values())


def options(uri: str, app: Any, limit: float) -> Iterator[Finding]:
    """Judge the `Options` that can be found.

    Args:
        limit: Files that a worker may open.
    """
    for name, found in named(uri, app, Options).items():
        if found.timeout is not None and (found.ping_interval is None or found.ping_interval >= found.timeout):
            seen = f"timeout {found.timeout} ends a client that is only listening: no ping asks it before"
            yield warning(f"options {name}", seen, "ping_interval = half of timeout, or timeout = None")
        if found.idle == "parked" and found.max_connections + SPARE_FILES > limit:
            seen = f"max_connections {found.max_connections}, but a worker may open {limit} files"
            yield problem(f"options {name}", seen, f"ulimit -n {found.max_connections + SPARE_FILES}, or a lower limit")


def layers(app: Any) -> list[Any]:
    """The application and what it wraps, from the outside in; middlewares around Flask's ``wsgi_app`` behind Flask."""
    found: list[Any] = []
    waiting = [app]
    while waiting and len(found) < 20:
        layer = waiting.pop(0)
        if inspect.ismethod(layer):
            layer = layer.__self__
        if layer is None or any(layer is other for other in found):
            continue
        found.append(layer)
        waiting += [getattr(layer, name) for name in _INNER if hasattr(layer, name)][:1]
        waiting += [app for _, app in resource_apps(layer)]
    return found


def resource_apps(layer: Any) -> list[tuple[str, Any]]:
    """Of gevent-websocket's ``Resource``: its patterns of paths, and what serves them."""
    module = sys.modules.get("geventwebsocket.resource")
    return list(layer.apps) if module is not None and isinstance(layer, module.Resource) else []


def flask_of(app: Any) -> Any:
    """The Flask application behind middlewares; ``None`` if there is none."""
    flask = sys.modules.get("flask")
    return next((layer for layer in layers(app) if flask is not None and isinstance(layer, flask.Flask)), None)
