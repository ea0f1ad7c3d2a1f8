"""The life of a WebSocket behind one request, from the hand-over of its socket to its end.

Owns the response's body as the server sees it, the order at the beginning (the connection counts, what belongs to the
request is let go, then the driver runs), and what the server is told at the end. Refuses to know how a request is
accepted (`upgrade`) and what servers look like (`servers`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from .attended import AttendedConnection
from .blocking import converse
from .drivers import give_up, park, run
from .hosts import warn_if_full

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from .connection import Connection
    from .drainer import Drainer
    from .servers import HandOver

__all__ = ["Life"]

logger = logging.getLogger("websock_gevent")


class Opener(Protocol):
    """The response, as far as a life needs it."""

    def open(self, environ: WSGIEnvironment, hand_over: HandOver) -> tuple[Connection, bool]:
        """Build the connection, and put its 101 on the wire. Tell whether it is parked."""

    def close(self) -> None:
        """Call what was given to ``call_on_close``."""


class Life:
    """The response's body, as the server sees it: asked for its first piece, it lives the WebSocket, and is empty.

    Args:
        response: Makes the connection.
        environ: Of the request.
        hand_over: The socket.
        drainer: Ends it with its server.
    """

    def __init__(self, response: Opener, environ: WSGIEnvironment, hand_over: HandOver, drainer: Drainer) -> None:
        self._response: Opener | None = response
        self._environ: WSGIEnvironment | None = environ
        self._hand_over = hand_over
        self._drainer = drainer

    def __iter__(self) -> Life:
        return self

    def __next__(self) -> bytes:
        if self._response is not None:
            try:
                if self._live():
                    if not self._drainer.has_vigil:
                        warn_if_full(self._drainer)
                    self._drainer.hold_vigil()
            except Exception:
                logger.exception("the WebSocket could not be opened")
            finally:
                self._hand_over.end()
        raise StopIteration

    def _live(self) -> bool:
        """Open the WebSocket, and live it unless it is parked. Return whether it is."""
        environ = self._environ
        assert environ is not None
        connection, parked = self._begin()
        if parked:
            return True
        try:
            if isinstance(connection, AttendedConnection):
                converse(connection, environ)
            else:
                del environ  # not held for the life of the connection
                run(connection)
        finally:
            self._drainer.discard(connection)
        return False

    def _begin(self) -> tuple[Connection, bool]:
        """Open the WebSocket. Return the connection, and whether it is parked: then it goes on by itself."""
        assert self._response is not None and self._environ is not None
        connection, parked = self._response.open(self._environ, self._hand_over)
        self._drainer.add(connection, parked)  # it counts before anything may block
        try:
            self._let_go()
            if parked:
                park(connection, self._drainer)
            else:
                warn_if_full(self._drainer)
        except BaseException:
            if parked:
                give_up(connection, self._drainer)
            else:
                self._drainer.discard(connection)
            raise
        return connection, parked

    def _let_go(self) -> None:
        """Nothing of the request is held for the life of the connection."""
        response, self._response, self._environ = self._response, None, None
        try:
            if response is not None:
                response.close()
        except Exception:
            logger.exception("a function given to call_on_close raised")

    def attend(self) -> AttendedConnection:
        """Open the WebSocket for a caller in the blocking style, who lives it, and then calls `leave`."""
        connection, _ = self._begin()
        assert isinstance(connection, AttendedConnection)
        return connection

    def leave(self, connection: AttendedConnection) -> None:
        """What `attend` began is over."""
        self._drainer.discard(connection)
        self._hand_over.end()

    def close(self) -> None:
        """Called by the server behind the last piece. If it never asked for the first one, there was no WebSocket."""
        if self._response is not None:
            self._hand_over.end()
            self._let_go()
