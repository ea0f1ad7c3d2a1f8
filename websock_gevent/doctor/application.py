"""The application: how it is loaded, its Flask routes, its `Options`, and what else has a name in it. Calls nothing of
it but what gunicorn calls to load it."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

import websock_gevent

from ..options import Options
from .environment import RESERVE
from .findings import Finding, described, ok, problem, warning

__all__ = ["Broken", "load", "named", "options", "routes"]

#: Under which names middlewares keep what they wrap.
_INNER = ("wsgi_app", "app", "application", "_app")
_REGISTER = "@websock_gevent.flask.websocket(app, rule), or @app.route(rule, websocket=True)"


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
    flask = _flask(app)
    if flask is not None:
        places += [flask.config, flask.extensions]
    found = {
        id(value): (str(key), value) for place in places for key, value in place.items() if isinstance(value, kind)
    }
    return dict(found.values())


def options(uri: str, app: Any, limit: int) -> Iterator[Finding]:
    """Judge the `Options` that can be found.

    Args:
        limit: Files that a worker may open.
    """
    for name, found in named(uri, app, Options).items():
        if found.timeout is not None and (found.ping_interval is None or found.ping_interval >= found.timeout):
            seen = f"timeout {found.timeout} ends a client that is only listening: no ping asks it before"
            yield warning(f"options {name}", seen, "ping_interval = half of timeout, or timeout = None")
        if found.idle == "parked" and found.max_connections + RESERVE > limit:
            seen = f"max_connections {found.max_connections}, but a worker may open {limit} files"
            yield problem(f"options {name}", seen, f"ulimit -n {found.max_connections + RESERVE}, or a lower limit")


def _flask(app: Any) -> Any:
    """The Flask application behind middlewares; ``None`` if there is none."""
    flask = sys.modules.get("flask")
    for _ in range(20):
        if flask is None or app is None or isinstance(app, flask.Flask):
            break
        app = next((getattr(app, name) for name in _INNER if hasattr(app, name)), None)
    return app if flask is not None and app is not None else None


def routes(app: Any) -> Iterator[Finding]:
    """Look for WebSocket views whose rule is none, and for any WebSocket rule at all."""
    flask = _flask(app)
    if flask is None:
        yield ok("routes", "not looked at, this is not a Flask application")
        return
    rules = list(flask.url_map.iter_rules())
    websocket_rules = {rule.rule for rule in rules if rule.websocket}
    suspects = [rule for rule in rules if not rule.websocket and rule.rule not in websocket_rules]
    suspects = [rule for rule in suspects if calls_upgrade(flask.view_functions.get(rule.endpoint))]
    for rule in suspects:
        seen = "looks like a WebSocket route (its view uses upgrade), but has no websocket=True: answers 400"
        yield warning(f"route {rule.rule}", seen, _REGISTER)
    if websocket_rules:
        yield ok("routes", f"{len(websocket_rules)} for WebSockets: {', '.join(sorted(websocket_rules))}")
    elif not suspects:
        yield warning("routes", f"none of {len(rules)} is for WebSockets", _REGISTER)


def calls_upgrade(view: Any) -> bool:
    """Tell whether `upgrade` is named in a view, in what its decorators wrap, or in the methods of its class."""
    waiting, seen = [view], set()
    while waiting:
        function = waiting.pop()
        if id(function) in seen or not isinstance(function, FunctionType):
            continue
        seen.add(id(function))
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_full(cell)]
        if websock_gevent.upgrade in cells or any(_names_upgrade(code, function) for code in _codes(function.__code__)):
            return True
        waiting += [*cells, getattr(function, "__wrapped__", None)]
        waiting += [method for _, method in inspect.getmembers(getattr(function, "view_class", None), callable)]
    return False


def _is_full(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # its variable is not set yet
        return False


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code, and that of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _names_upgrade(code: CodeType, function: Callable[..., Any]) -> bool:
    values = [function.__globals__.get(name) for name in code.co_names]
    if any(value is websock_gevent.upgrade for value in values):
        return True
    is_ours = "websock_gevent" in code.co_names or any(value is websock_gevent for value in values)
    return "upgrade" in code.co_names and is_ours
