"""The routes of the application that are for WebSockets: Flask's, and those behind `legacy.WebSocketMiddleware`. No
view is called; what its code names tells what it is for."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

import websock_gevent

from .application import flask_of, layers, resource_apps
from .findings import Finding, ok, problem, warning

__all__ = ["NOT_FLASK_SOCKETS", "routes"]

NOT_FLASK_SOCKETS = "from websock_gevent.legacy import Sockets, in place of flask_sockets"

_REGISTER = "@websock_gevent.flask.websocket(app, rule), or @app.route(rule, websocket=True)"
_WRAP = "app.wsgi_app = WebSocketMiddleware(app.wsgi_app) of websock_gevent.legacy, before other middlewares"
_KEY = "wsgi.websocket"


def routes(app: Any) -> Iterator[Finding]:
    """Look for WebSocket views whose rule is none, and for any WebSocket rule at all."""
    module = sys.modules.get("websock_gevent.legacy.middleware")
    middlewares = [layer for layer in layers(app) if module and isinstance(layer, module.WebSocketMiddleware)]
    found = {path for around in middlewares for path in _sockets_of(around.app)}
    flask = flask_of(app)
    if any(type(layer).__module__ == "flask_sockets" for layer in layers(app)):
        yield problem("routes", "no request matches those of Flask-Sockets", NOT_FLASK_SOCKETS)
    elif flask is not None:
        yield from _flask_routes(flask, any(around.flask is flask for around in middlewares), found)
    elif found:
        yield _listed(found)
    else:
        yield ok("routes", "not looked at, this is not a Flask application")


def _sockets_of(app: Any) -> Iterator[str]:
    """The paths of a ``Resource`` that are for WebSockets."""
    for path, served in resource_apps(app):
        if app._is_websocket_app(served):
            yield path


def _flask_routes(flask: Any, all_may: bool, found: set[str]) -> Iterator[Finding]:
    """Judge the routes of a Flask application.

    Args:
        all_may: Requests for WebSockets reach all routes, with ``wsgi.websocket`` in their environ.
        found: What is known to be for WebSockets already.
    """
    rules = list(flask.url_map.iter_rules())
    websocket_rules = {rule.rule for rule in rules if rule.websocket}
    pages = [(rule.rule, flask.view_functions.get(rule.endpoint)) for rule in rules if rule.rule not in websocket_rules]
    old = {rule for rule, view in pages if _uses(view, _names_key)}
    new = {rule for rule, view in pages if _uses(view, _names_upgrade)} - old
    suspects = [(rule, "upgrade", _REGISTER) for rule in sorted(new)]
    if not all_may:
        suspects += [(rule, _KEY, _WRAP) for rule in sorted(old)]
    for rule, used, advice in suspects:
        seen = f"looks like a WebSocket route (its view uses {used}), but has no websocket=True: answers 400"
        yield warning(f"route {rule}", seen, advice)
    found = found | websocket_rules | (old if all_may else set())
    if found:
        yield _listed(found)
    elif all_may:
        yield ok("routes", f"each of {len(rules)} may be for WebSockets, by its WebSocketMiddleware")
    elif not suspects:
        yield warning("routes", f"none of {len(rules)} is for WebSockets", _REGISTER)


def _listed(found: set[str]) -> Finding:
    return ok("routes", f"{len(found)} for WebSockets: {', '.join(sorted(found))}")


def _uses(view: Any, is_named: Callable[[CodeType, FunctionType], bool]) -> bool:
    """Tell whether something is named in a view, in what its decorators wrap, or in the methods of its class."""
    waiting, seen = [view], set()
    while waiting:
        function = waiting.pop()
        if id(function) in seen or not isinstance(function, FunctionType):
            continue
        seen.add(id(function))
        if any(is_named(code, function) for code in _codes(function.__code__)):
            return True
        waiting += [*_cells(function), getattr(function, "__wrapped__", None)]
        waiting += [method for _, method in inspect.getmembers(getattr(function, "view_class", None), callable)]
    return False


def _cells(function: FunctionType) -> list[Any]:
    return [cell.cell_contents for cell in function.__closure__ or () if _is_full(cell)]


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


def _names_key(code: CodeType, function: FunctionType) -> bool:
    return _KEY in code.co_consts


def _names_upgrade(code: CodeType, function: FunctionType) -> bool:
    values = [*_cells(function), *(function.__globals__.get(name) for name in code.co_names)]
    if any(value is websock_gevent.upgrade for value in values):
        return True
    is_ours = "websock_gevent" in code.co_names or any(value is websock_gevent for value in values)
    return "upgrade" in code.co_names and is_ours
