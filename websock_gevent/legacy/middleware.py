"""A WSGI middleware that gives an application of gevent-websocket its ``environ["wsgi.websocket"]``.

Owns one request that may become a WebSocket while the application is called: what it answers before it has used the
WebSocket is an HTTP answer like any other; what it answers afterwards is dropped, and ends the WebSocket. Refuses to
know how the handshake is checked and the socket is found (`upgrade`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import gevent
from werkzeug.exceptions import HTTPException
from werkzeug.routing.exceptions import WebsocketMismatch

from ..blocking import Blocking
from ..errors import ConnectionClosed, WebSocketError
from ..handshake import is_upgrade
from ..options import Options
from ..relay import drop, relayed
from ..servers import is_upgraded
from ..upgrade import UpgradeResponse, upgrade
from .websocket import LegacyWebSocket, Server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from typing_extensions import Unpack

    from ..attended import AttendedConnection
    from ..lives import Life
    from ..options import Overrides

__all__ = ["WebSocketMiddleware"]


class WebSocketMiddleware:
    """Wraps a WSGI application that was written for gevent-websocket::

        app.wsgi_app = WebSocketMiddleware(app.wsgi_app)                   # Flask
        app = WebSocketMiddleware(Resource([("^/chat", ChatApplication)]))

    Requests to become a WebSocket get ``environ["wsgi.websocket"]``, a `LegacyWebSocket`; its first use accepts them.
    An application that answers without having used it answers as to any other request, 401 or 404 for instance.

    Flask's routes that were not registered with ``websocket=True`` get such requests, too, if the middleware wraps the
    Flask object or its ``wsgi_app`` directly.

    Args:
        app: What is wrapped.
        options: Common options; ``None`` for the defaults.
        **overrides: Single options, as for `upgrade`. ``idle`` has no effect: the application holds a greenlet.

    Attributes:
        flask: The Flask application all of whose routes get WebSockets; ``None`` if none is wrapped directly.

    Raises:
        TypeError, ValueError: an unknown or ill-typed option.
    """

    def __init__(self, app: WSGIApplication, *, options: Options | None = None, **overrides: Unpack[Overrides]) -> None:
        self.app = app
        self.options = (options or Options()).updated(overrides)
        self.server = Server(app)
        self.handler = Blocking(cast("Any", app))  # for its name in the log: the application is not called by it
        wrapped: Any = app
        while isinstance(wrapped, WebSocketMiddleware):
            wrapped = wrapped.app
        flask = getattr(wrapped, "__self__", wrapped)
        self.flask: Any = flask if hasattr(flask, "create_url_adapter") else None
        if self.flask is not None:
            self.flask.register_error_handler(ConnectionClosed, _on_closed)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        websocket = environ.get("wsgi.websocket")
        is_made = isinstance(websocket, LegacyWebSocket) or (websocket is not None and not is_upgraded(environ))
        if is_made or not is_upgrade(environ):
            return self.app(environ, start_response)
        exchange = _Exchange(self, environ, start_response)
        if self.flask is not None and _is_ordinary(self.flask, environ):
            del environ["HTTP_UPGRADE"]  # by which Werkzeug would refuse it
        return exchange.call()


def _on_closed(error: ConnectionClosed) -> str:
    """Flask would log a traceback for a view whose connection has ended. What it answers is dropped."""
    websocket = sys.modules["flask"].request.environ.get("wsgi.websocket")
    if websocket is None or not websocket.accepted or not websocket.accept().is_over:
        raise error
    return ""


def _is_ordinary(flask: Any, environ: WSGIEnvironment) -> bool:
    """Whether Flask has a route for this address, but not for WebSockets."""
    try:
        flask.create_url_adapter(flask.request_class(dict(environ))).match()
    except WebsocketMismatch:
        return True
    except HTTPException:
        pass
    return False


class _Exchange:
    """One request, while the application may still answer or make a WebSocket of it; and the answer, if it does."""

    def __init__(
        self, middleware: WebSocketMiddleware, environ: WSGIEnvironment, start_response: StartResponse
    ) -> None:
        self._middleware = middleware
        self._environ = environ
        self._request = dict(environ)  # as it came: what the application does to its own changes no handshake
        self._start_response = start_response
        self._stack = ExitStack()
        self._greenlet = gevent.getcurrent()
        self._status = ""
        self._over = False
        self._refusal: HTTPException | None = None
        self._answer: Iterable[bytes] = ()
        self._pieces: Iterator[bytes] = iter(())
        self._websocket = LegacyWebSocket(environ, self._accept, middleware.server)
        environ["wsgi.websocket"] = self._websocket
        environ["wsgi.websocket_version"] = environ.get("HTTP_SEC_WEBSOCKET_VERSION", "")

    # What the application does.

    def call(self) -> _Exchange:
        """Call the application."""
        with self._stack, self._refusing():
            self._answer = self._middleware.app(self._environ, relayed(self._start_response, self._on_status)) or ()
            self._pieces = iter(self._answer)
            if self._websocket.accepted:
                self._exhaust()
        return self

    def _on_status(self, status: str, headers: list[tuple[str, str]]) -> Callable[[bytes], object] | None:
        """The application answers."""
        self._status = status
        return drop if self._websocket.accepted else None

    def _accept(self, overrides: Overrides) -> AttendedConnection:
        if self._status or self._over:
            raise RuntimeError(f"the application has answered already ({self._status}): that is no WebSocket any more")
        try:
            options = self._options().updated(overrides)
            response = upgrade(self._request, self._middleware.handler, None, options=options)
            assert isinstance(response, UpgradeResponse)
            return self._attend(response.begin(self._request, self._start_response))
        except HTTPException as refusal:
            self._refusal = refusal
            raise

    def _options(self) -> Options:
        """The middleware's; the application may choose a subprotocol, as gevent-websocket's ``Resource`` does."""
        choose = getattr(self._middleware.app, "app_protocol", None)
        chosen = choose(self._environ.get("PATH_INFO", "")) if choose is not None else ""
        return self._middleware.options.updated({"subprotocols": (chosen,)} if chosen else {})

    def _attend(self, life: Life) -> AttendedConnection:
        """Be a WebSocket from now on, until the application is done."""
        connection, stack = life.attend(), self._stack
        stack.callback(life.leave, connection)
        stack.callback(self._be_done)
        self._websocket.client.enter()
        stack.callback(self._websocket.client.leave)
        stack.enter_context(connection.attended(self._greenlet))
        stack.push(partial(self._conclude, connection))
        return connection

    def _conclude(self, connection: AttendedConnection, _: object, error: BaseException | None, __: object) -> bool:
        """The application is done. Return whether what it has raised is no more than the end of its connection."""
        if error is None and self._status.startswith("5"):
            connection.end(1011)  # such as what Flask makes of an exception
        return isinstance(error, WebSocketError) and connection.is_over

    def _be_done(self) -> None:
        """The WebSocket is over: what is left of the answer, perhaps since it has raised, is not asked for."""
        self._pieces = iter(())

    def _exhaust(self) -> None:
        """Run what is left of the application; what it answers is dropped."""
        for _ in self._pieces:
            pass

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Answer with our refusal, unless the application has made an answer of it."""
        try:
            yield
        except HTTPException as error:
            if error is not self._refusal:
                raise
        if self._refusal is not None and not self._status:
            self._pieces = iter(self._refusal(self._request, relayed(self._start_response, self._on_status)))

    # What the server asks for.

    def __iter__(self) -> _Exchange:
        return self

    def __next__(self) -> bytes:
        """Return the next piece of the answer. If it is a WebSocket by then, live it; there is none."""
        with self._stack, self._refusing():
            piece = next(self._pieces, None)
            if piece is None and not self._status:
                self._websocket.accept()  # the application has said nothing, as gevent-websocket's need not
            if piece is not None and not self._websocket.accepted:
                return piece
            self._exhaust()
        return next(self._pieces)  # there is none, unless we have refused

    def close(self) -> None:
        """Called by the server behind the last piece."""
        self._over = True
        close = getattr(self._answer, "close", None)
        if close is not None:
            close()
