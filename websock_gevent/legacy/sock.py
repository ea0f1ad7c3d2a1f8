"""flask-sock's ``Sock`` on our connections, with the manners of the simple-websocket that it hands out.

Owns the routes, the names that simple-websocket has for things, and its ``ConnectionClosed``. As there, the function
runs inside its view, so it has the request and the session, and holds them for the life of the connection. Flask is
imported when it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .. import errors
from ..blocking import BlockingWebSocket
from ..websock import Data
from .middleware import WebSocketMiddleware

if TYPE_CHECKING:
    from flask import Blueprint, Flask

Base: Any = Exception
with suppress(ImportError):
    Base = import_module("simple_websocket").ConnectionClosed

__all__ = ["ConnectionClosed", "Sock", "SockWebSocket", "install"]

Function = Callable[..., object]

#: Of simple-websocket's options, those that say how it works inside.
_INTERNAL = frozenset(("receive_bytes", "thread_class", "event_class", "selector_class"))


class ConnectionClosed(errors.ConnectionClosed, Base):  # type: ignore[misc]
    """The connection has ended. Where simple-websocket is installed, this is one of its ``ConnectionClosed``, too.

    Attributes:
        reason: The peer's close code; 1005 if it sent none (RFC 6455 §7.4.1).
        message: The peer's close text; ``None`` if it sent none.
    """

    def __init__(self, code: int | None = None, text: str = "") -> None:
        errors.ConnectionClosed.__init__(self, code, text)
        self.reason = 1005 if code is None else code
        self.message = text or None


class SockWebSocket(BlockingWebSocket):
    """A `BlockingWebSocket` with simple-websocket's names."""

    @property
    def connected(self) -> bool:
        """Whether messages may still be sent."""
        return not (self._closed or self._connection.ended)

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was agreed on; ``None`` if there is none."""
        return self.protocol

    @property
    def close_reason(self) -> int:
        """The peer's close code; 1005 as long as there is none."""
        return 1005 if self.close_code is None else self.close_code

    @property
    def close_message(self) -> str | None:
        """The peer's close text; ``None`` as long as there is none."""
        return self.close_text or None

    def send(self, data: object, binary: bool | None = None) -> None:
        """Send one message: ``bytes`` as binary, anything else as the text that ``str`` makes of it.

        Raises:
            ConnectionClosed: the connection has ended.
        """
        message: str | Data = data if isinstance(data, (str, bytes, bytearray, memoryview)) else str(data)
        super().send(message, binary)

    def close(self, reason: int | None = None, message: str | Data | None = None) -> None:
        """Say goodbye.

        Args:
            reason: Close code; ``None`` for 1000.
            message: Close text.

        Raises:
            ConnectionClosed: the connection has ended already.
            TypeError, ValueError: a code that may not be sent, or more than 123 bytes of text.
        """
        if not self.connected:
            raise self._end()
        super().close(1000 if reason is None else reason, message or "")

    def _end(self) -> ConnectionClosed:
        return ConnectionClosed(self.close_code, self.close_text)


class Sock:
    """Stands in for ``flask_sock.Sock``::

        from websock_gevent.legacy import Sock

        sock = Sock(app)

        @sock.route("/echo")
        def echo(ws):
            while True:
                ws.send(ws.receive())

    Options are read from ``app.config["SOCK_SERVER_OPTIONS"]``: flask-sock's ``ping_interval``, ``max_message_size``
    and ``subprotocols``, and all of `Options`. As there, ``ping_interval`` also says when a peer is given up: after two
    of them without a byte, and never if it is ``None`` or 0; unless there is a ``timeout``, too.

    Args:
        app: The application; ``None`` to call `init_app` later.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self.app: Flask | None = None
        self.bp: Blueprint | None = None
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Use this application, and register the routes that were made before."""
        install(app)
        if self.bp is not None:
            app.register_blueprint(self.bp)
        self.app = app

    def route(self, path: str, bp: Blueprint | None = None, **options: Any) -> Callable[[Function], Function]:
        """Have a function serve the WebSockets of a route. It gets the `SockWebSocket`, and then the route's variables.

        Args:
            path: As for Flask's ``route``.
            bp: The blueprint to register it with; ``None`` for the application.
            **options: As for Flask's ``route``.
        """

        def decorate(function: Function) -> Function:
            self._target(bp).route(path, **{**options, "websocket": True})(_view(function))
            return function

        return decorate

    def _target(self, bp: Blueprint | None) -> Flask | Blueprint:
        if bp is not None:
            bp.record_once(lambda setup: install(setup.app))
            return bp
        if self.app is not None:
            return self.app
        if self.bp is None:
            from flask import Blueprint

            self.bp = Blueprint("__sock", __name__)
        return self.bp


def install(app: Any) -> None:
    """Put the middleware around an application, once."""
    if "websock_gevent" not in app.extensions:
        app.extensions["websock_gevent"] = app.wsgi_app = WebSocketMiddleware(app.wsgi_app)


def _view(function: Function) -> Callable[..., str]:
    """Make the view of a function: accept, call it, and say goodbye."""

    @wraps(function)
    def view(*args: Any, **values: Any) -> str:
        from flask import current_app, request

        websocket = request.environ["wsgi.websocket"]
        connection = websocket.accept(**_options(current_app.config.get("SOCK_SERVER_OPTIONS", {})))
        with connection.excusing():
            function(SockWebSocket(request.environ, connection), *args, **values)
        connection.end(1000)
        return ""

    return view


def _options(configured: dict[str, Any]) -> dict[str, Any]:
    """Ours, for what was written for simple-websocket: one subprotocol may be alone, ``None`` leaves our default."""
    options = {name: value for name, value in configured.items() if name not in _INTERNAL}
    if "ping_interval" in options:
        interval = options["ping_interval"] = options["ping_interval"] or None
        options.setdefault("timeout", interval and 2 * interval)
    for name in ("subprotocols", "max_message_size"):
        if options.get(name, ...) is None:
            del options[name]
    if isinstance(options.get("subprotocols"), str):
        options["subprotocols"] = (options["subprotocols"],)
    if "max_message_size" in options:
        options.setdefault("max_frame_size", options["max_message_size"])
    return options
