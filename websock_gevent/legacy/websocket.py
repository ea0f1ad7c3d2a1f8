"""``environ["wsgi.websocket"]``, as gevent-websocket's applications expect it, but accepted only when it is used.

Owns the differences between their WebSocket and ours (`blocking`), and what hangs on it there: ``handler``, its
``server``, and the server's ``clients``. Refuses to know how a WebSocket is accepted: it asks who made it.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from geventwebsocket.handler import Client

from ..blocking import BlockingWebSocket
from ..errors import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment
    from typing_extensions import Unpack

    from ..attended import AttendedConnection
    from ..options import Overrides

__all__ = ["Handler", "LegacyWebSocket", "Server"]


class Server:
    """What ``websocket.handler.server`` is: the WebSockets that are open in this process behind one middleware.

    Attributes:
        application: What the middleware wraps.
        clients: Each with its ``address`` and ``ws``, by address.
    """

    def __init__(self, application: WSGIApplication) -> None:
        self.application = application
        self.clients: dict[Any, Client] = {}


class Handler:
    """What ``websocket.handler`` is.

    Attributes:
        server: As above.
        environ: The request's.
        websocket: The WebSocket.
        client_address: Host and port of the peer, and something more if that is no name for one alone (a unix socket).
    """

    def __init__(self, server: Server, environ: WSGIEnvironment, websocket: LegacyWebSocket) -> None:
        self.server = server
        self.environ = environ
        self.websocket = websocket
        self.client_address: tuple[Any, ...] = (environ.get("REMOTE_ADDR", ""), environ.get("REMOTE_PORT", ""))

    @property
    def active_client(self) -> Client:
        """This WebSocket among the server's clients.

        Raises:
            KeyError: it is not open.
        """
        return self.server.clients[self.client_address]

    @property
    def logger(self) -> Any:
        """The library's logger."""
        return self.websocket.logger

    def enter(self) -> None:
        """It is open: be among the clients."""
        if self.client_address in self.server.clients:
            self.client_address += (id(self),)
        self.server.clients[self.client_address] = Client(self.client_address, self.websocket)

    def leave(self) -> None:
        """It is over."""
        self.server.clients.pop(self.client_address, None)


class LegacyWebSocket(BlockingWebSocket):
    """A `BlockingWebSocket` with the manners of gevent-websocket. The first use accepts it, be it a look at `closed`.

    Args:
        environ: The request's WSGI environ.
        accept: Sends the 101 and returns the connection. Gets options by name.
        server: Where it is one of the clients.

    Attributes:
        client: What `handler` gives, without using it.
        native: The WebSocket of a server that has sent the 101 already, whose place this takes; else ``None``.
    """

    def __init__(
        self, environ: WSGIEnvironment, accept: Callable[[Overrides], AttendedConnection], server: Server
    ) -> None:
        super().__init__(environ, None)
        self._accept = accept
        self._told = False
        self.native = environ.get("wsgi.websocket")
        self.client = Handler(server, environ, self)
        self.stream = SimpleNamespace(handler=self.client)

    @property
    def accepted(self) -> bool:
        """Whether the 101 was sent."""
        return self._link is not None

    def accept(self, **options: Unpack[Overrides]) -> AttendedConnection:
        """Send the 101, unless that was done.

        Args:
            **options: As for `upgrade`, instead of the middleware's.

        Raises:
            werkzeug.exceptions.HTTPException: the request is refused.
            RuntimeError: the application has begun an HTTP response.
        """
        if self._link is None:
            self._link = self._accept(options)
        return self._link

    @property
    def _connection(self) -> AttendedConnection:
        return self.accept()

    @property
    def handler(self) -> Handler:
        """Through which gevent-websocket's applications find their ``server`` and its ``clients``."""
        self.accept()
        return self.client

    @property
    def closed(self) -> bool:  # type: ignore[override]
        """``True`` once `close` was called, or once the connection has ended and all that came before was received."""
        self.accept()
        return self._is_closed()

    @property
    def protocol(self) -> str | None:
        """The subprotocol that was agreed on (RFC 6455 §1.9), ``None`` if there is none."""
        return self._connection.websocket.protocol

    def receive(self, timeout: float | None = None) -> Any:
        """Wait for the next message: ``str`` if it is text, ``bytes`` if it is binary.

        Args:
            timeout: Seconds; ``None`` to wait as long as it takes. gevent-websocket knows none.

        Returns:
            ``None`` if the connection has ended, the first time this is asked; or if none came in that time.

        Raises:
            ConnectionClosed: it has ended, which was told before, or `close` was called. It is a ``WebSocketError``.
        """
        try:
            return super().receive(timeout)
        except ConnectionClosed:
            if self._closed or self._told:
                raise
            self._told = True
            return None
