"""The life of a WebSocket behind one request, from the hand-over of its socket to its end.

Owns the response's body as the server sees it, the order at the beginning (the connection counts, what belongs to the
request is let go, then the driver runs), and what the server is told at the end. Refuses to know how a request is
accepted (`upgrade`) and what servers look like (`servers`).
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Protocol

from .attended import AttendedConnection
from .blocking import converse
from .drivers import Own, give_up, park, run
from .hosts import hand_place, warn_if_full

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from .accesslog import Line
    from .connection import Connection
    from .drainer import Drainer
    from .drivers import Over
    from .options import Idle
    from .servers import HandOver

__all__ = ["Life"]

logger = logging.getLogger("websock_gevent")


class Opener(Protocol):
    """The response, as far as a life needs it."""

    def open(self, environ: WSGIEnvironment, hand_over: HandOver) -> tuple[Connection, Idle | None]:
        """Build the connection, and put its 101 on the wire. Tell how it goes on by itself; ``None`` if it does not."""

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
                if self._live() == "parked":
                    if not self._drainer.has_vigil:
                        warn_if_full(self._drainer)
                    self._drainer.hold_vigil()
            except Exception:
                logger.exception("the WebSocket could not be opened")
            finally:
                self._hand_over.end()
        raise StopIteration

    def _live(self) -> Idle | None:
        """Open the WebSocket, and live it unless it goes on by itself. Return how it does."""
        environ = self._environ
        assert environ is not None
        connection, idle = self._begin()
        if idle is not None:
            return idle
        try:
            if isinstance(connection, AttendedConnection):
                converse(connection, environ)
            else:
                del environ  # not held for the life of the connection
                run(connection)
        finally:
            self._drainer.discard(connection)
        return None

    def _begin(self) -> tuple[Connection, Idle | None]:
        """Open the WebSocket. Return the connection, and how it goes on by itself; ``None`` if it does not."""
        assert self._response is not None and self._environ is not None
        connection, idle = self._response.open(self._environ, self._hand_over)
        self._drainer.add(connection, idle == "parked")  # it counts before anything may block
        over: Over = self._drainer.discard
        try:
            if idle is not None:
                over = self._over()
            self._let_go()
            if idle == "parked":
                park(connection, over)
            else:
                warn_if_full(self._drainer)
                if idle == "greenlet":
                    _live_apart(connection, over)
        except BaseException:
            if idle is None:
                over(connection)
            else:
                give_up(connection, over)
            raise
        return connection, idle

    def _over(self) -> Over:
        """What is to be done when a connection has ended that its server does not know any more."""
        put_off = self._hand_over.put_off
        line = put_off() if put_off is not None else None
        return self._drainer.discard if line is None else _Logged(self._drainer, line)

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


def _live_apart(connection: Connection, over: Over) -> None:
    """Live it in a greenlet of its own, which takes the calling one's place. Returns at once."""
    own = Own(connection, over)
    hand_place(own)
    own.start()


class _Logged:
    """The end of a connection whose line in its server's access log was put off."""

    __slots__ = ("_drainer", "_line", "_pid")

    def __init__(self, drainer: Drainer, line: Line) -> None:
        self._drainer = drainer
        self._line = line
        self._pid = os.getpid()

    def __call__(self, connection: Connection) -> None:
        try:
            if os.getpid() == self._pid:  # the log of a fork's parent is not the fork's
                self._line(connection.websocket.environ)
        except Exception:
            logger.exception("the server's access log could not be written")
        finally:
            self._drainer.discard(connection)
