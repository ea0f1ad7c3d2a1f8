"""Flask-Sockets' ``Sockets`` on our connections: routes whose functions get a gevent-websocket `LegacyWebSocket`.

Owns the routes. They are Flask's own here, registered with ``websocket=True``: request hooks and error handlers run, as
Flask-Sockets did not have it, and the function is inside its view.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

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
        self._rules: list[tuple[str, str | None, Function, dict[str, Any]]] = []
        self.blueprints: dict[str, Blueprint] = {}
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Use this application, and register the routes that were made before."""
        install(app)
        self._app = app
        for rule, endpoint, function, options in self._rules:
            self.add_url_rule(rule, endpoint, function, **options)
        self._rules.clear()

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
            self._rules.append((rule, endpoint, function, options))
            return
        # A page at the same address may have a function of the same name, which to Flask is one endpoint.
        name = f"websocket:{len(self._app.view_functions)}:{endpoint or function.__name__}"
        self._app.add_url_rule(rule, name, _view(function), **{**options, "websocket": True})

    def register_blueprint(self, blueprint: Blueprint, **options: Any) -> None:
        """Register the functions of a blueprint, whose routes are all WebSockets.

        Args:
            blueprint: Made by ``flask.Blueprint``.
            **options: ``url_prefix`` and what else Flask's takes.

        Raises:
            ValueError: another blueprint of that name is registered.
        """
        if self.blueprints.setdefault(blueprint.name, blueprint) is not blueprint:
            raise ValueError(f"another blueprint of the name {blueprint.name!r} is registered for WebSockets")
        setup: Any = blueprint.make_setup_state(self, options, first_registration=True)  # type: ignore[arg-type]
        for register in blueprint.deferred_functions:
            register(setup)


def _view(function: Function) -> Callable[..., str]:
    @wraps(function)
    def view(*args: Any, **values: Any) -> str:
        from flask import request

        websocket = request.environ["wsgi.websocket"]
        with websocket.accept().excusing():
            function(websocket, *args, **values)
        return ""

    return view
