"""Flask-Sockets' ``Sockets`` on our connections: routes whose functions get a gevent-websocket `LegacyWebSocket`.

Owns the routes. They are Flask's own here, registered with ``websocket=True``: request hooks and error handlers run, as
Flask-Sockets did not have it, and the function is inside its view.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from werkzeug.local import LocalProxy

from .sock import install

if TYPE_CHECKING:
    from flask import Blueprint, Flask

__all__ = ["Sockets"]

Function = Callable[..., object]


class Sockets:
    """Stands in for ``flask_sockets.Sockets``::

        from websock_gevent.legacy import Sockets

        sockets = Sockets(app)

        @sockets.route("/echo")
        def echo(ws):
            while not ws.closed:
                ws.send(ws.receive())

    Args:
        app: The application; ``None`` to call `init_app` later.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._app: Flask | None = None
        self._waiting: list[Callable[[], None]] = []
        self.blueprints: dict[str, Blueprint] = {}
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Use this application, and register the routes that were made before."""
        install(app)
        self._app = app
        for register in self._waiting:
            register()
        self._waiting.clear()

    def route(self, rule: str, **options: Any) -> Callable[[Function], Function]:
        """Have a function serve the WebSockets of a route. It gets the `LegacyWebSocket`, and the route's variables.

        Args:
            rule: As for Flask's ``route``.
            **options: As for Flask's ``route``.
        """

        def decorate(function: Function) -> Function:
            self.add_url_rule(rule, options.pop("endpoint", None), function, **options)
            return function

        return decorate

    def add_url_rule(self, rule: str, endpoint: str | None, function: Function, **options: Any) -> None:
        """Do what `route` does."""
        if self._app is None:
            self._waiting.append(partial(self.add_url_rule, rule, endpoint, function, **options))
            return
        # A page at the same address may have a function of the same name, which to Flask is one endpoint.
        name = f"websocket:{len(self._app.view_functions)}:{endpoint or function.__name__}"
        self._app.add_url_rule(rule, name, _view(function), **{**options, "websocket": True})

    def register_blueprint(self, blueprint: Blueprint, **options: Any) -> None:
        """Register a blueprint, whose routes are all WebSockets, as are those of blueprints in it.

        What it has for requests (``before_request``, ``errorhandler`` ...) works as in Flask. Flask knows it by a name
        of its own, so a blueprint of pages may have the same one.

        Args:
            blueprint: Made by ``flask.Blueprint``.
            **options: ``url_prefix`` and what else Flask's takes.

        Raises:
            ValueError: another blueprint of that name is registered.
        """
        if self.blueprints.setdefault(blueprint.name, blueprint) is not blueprint:
            raise ValueError(f"another blueprint of the name {blueprint.name!r} is registered for WebSockets")
        if self._app is None:
            self._waiting.append(partial(self.register_blueprint, blueprint, **options))
            return
        app: Any = _Registering(lambda: self._app)
        name = f"websocket:{len(self._app.blueprints)}:{options.get('name', blueprint.name)}"
        blueprint.register(app, {**options, "name": name})


class _Registering(LocalProxy[Any]):
    """The application, as a blueprint sees it whose functions are for WebSockets."""

    def add_url_rule(self, rule: str, endpoint: str, view_func: Function, **options: Any) -> None:
        """Register one of its functions; a page, if it is for the blueprint's own files."""
        app = self._get_current_object()
        if getattr(view_func, "__name__", "") == "send_static_file":
            app.add_url_rule(rule, endpoint, view_func, **options)
        else:  # two rules may have one function, which has two views then
            name = f"{endpoint}:{len(app.view_functions)}"
            app.add_url_rule(rule, name, _view(view_func), **{**options, "websocket": True})


def _view(function: Function) -> Callable[..., str]:
    @wraps(function)
    def view(*args: Any, **values: Any) -> str:
        from flask import request

        websocket = request.environ["wsgi.websocket"]
        with websocket.accept().excusing():
            function(websocket, *args, **values)
        return ""

    return view
