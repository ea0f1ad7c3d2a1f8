"""The blocking style: a function that is given a WebSocket, and calls `receive` and `send` as long as it likes.

Owns `blocking`, which makes such a function a handler for `upgrade`, and `BlockingWebSocket`, what the function gets.
Everything else is as with callbacks, whatever the function does meanwhile: pings, limits, deadlines, drain, the
mailbox. Refuses to know how waiting is done (`attended`) and how a WebSocket begins (`upgrade`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import TYPE_CHECKING, Any, Literal

import gevent
from geventwebsocket.websocket import WebSocket as GeventWebSocket

from .attended import AttendedConnection
from .errors import ConnectionClosed
from .frames import TEXT
from .mailbox import Mailbox
from .websock import Data, Reason, checked_close

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["Blocking", "BlockingWebSocket", "blocking", "converse"]


class Blocking:
    """A handler that is one function. Made by `blocking`; any number of connections may share it."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[Any], object]) -> None:
        self.function = function

    def __repr__(self) -> str:
        return getattr(self.function, "__qualname__", None) or repr(self.function)


def blocking(function: Callable[[BlockingWebSocket], object]) -> Blocking:
    """Make a handler for `upgrade` of a function that runs for the life of the connection::

        def echo(ws):
            for message in ws:                  # ends when the connection does
                ws.send(message)

        @websocket(app, "/echo")
        def view():
            return upgrade(request.environ, blocking(echo), {"user": session["user"]})     # ws.state

    It runs in the connection's greenlet, after the view's contexts are torn down, and always holds one (option ``idle``
    changes nothing). When it returns, the connection is closed with 1000; when it raises, with 1011. When the
    connection ends before it, whatever it waits for on the WebSocket raises `ConnectionClosed`, which it may let pass;
    what it cleans up goes into a ``finally``. At a hard stop `GreenletExit` is raised wherever it blocks.

    Raises:
        TypeError: what is given cannot be called, or to call it would run nothing: a generator or coroutine function.
    """
    if not callable(function):
        raise TypeError(f"blocking() takes a function of one argument, the WebSocket, not {function!r}")
    if _is_deferred(function) or _is_deferred(type(function).__call__):
        raise TypeError(
            f"blocking() takes a plain function, which calls ws.receive() and ws.send(); with await or yield in it, "
            f"{function!r} would not run"
        )
    return Blocking(function)


def _is_deferred(function: Any) -> bool:
    """Whether a call makes something that somebody would have to run."""
    return isgeneratorfunction(function) or iscoroutinefunction(function) or isasyncgenfunction(function)


def converse(connection: AttendedConnection, environ: WSGIEnvironment) -> None:
    """Run the function of an `upgrade` with `blocking`, and the connection around it, in the calling greenlet."""
    with connection.attended(gevent.getcurrent()):
        if connection.inbox.began:
            with connection.excusing():
                connection.handler.function(BlockingWebSocket(environ, connection))


class BlockingWebSocket(GeventWebSocket):
    """One connection, to be used from any greenlet of its thread; `send` and `close` from other threads, too.

    It *is a* ``geventwebsocket.websocket.WebSocket``, of which it has name, attributes and exceptions. Applications may
    keep attributes of their own on it.

    Attributes:
        environ: The WSGI environ of the request.
    """

    def __init__(self, environ: WSGIEnvironment, connection: AttendedConnection | None) -> None:
        self.environ = environ
        self.stream: Any = None
        self.raw_read = self.raw_write = None
        self._link = connection
        self._closed = False
        self._mail_is_next = False

    def __del__(self) -> None:
        """Do nothing: gevent-websocket would send a close frame from wherever the garbage collector runs."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path!r} {'closed' if self._is_closed() else 'open'}>"

    @property
    def _connection(self) -> AttendedConnection:
        """The connection, open or ended."""
        assert self._link is not None
        return self._link

    # What is known.

    @property
    def handler(self) -> Any:
        """gevent-websocket's way to its server; ``None``, except where `legacy` has one."""
        return None

    @property
    def state(self) -> Any:
        """What `upgrade` was given as its state."""
        return self._connection.state

    @property
    def closed(self) -> bool:  # type: ignore[override]
        """``True`` once `close` was called, or once the connection has ended and all that came before was received."""
        return self._is_closed()

    def _is_closed(self) -> bool:
        link = self._link
        return self._closed or (link is not None and link.ended and not link.inbox.messages)

    @property
    def protocol(self) -> str | None:
        """The subprotocol that was agreed on (RFC 6455 §1.9), ``None`` if there is none."""
        return self._link.websocket.protocol if self._link is not None else None

    @property
    def close_code(self) -> int | None:
        """The peer's close code; ``None`` until its close frame came, or if that had none."""
        return self._link.websocket.close_code if self._link is not None else None

    @property
    def close_text(self) -> str:
        """The peer's close text."""
        return self._link.websocket.close_text if self._link is not None else ""

    @property
    def reason(self) -> Reason | None:
        """Why the connection ended, as ``terminate`` of `WebSock` would get it; ``None`` while it is open."""
        return self._link.inbox.reason if self._link is not None else None

    @property
    def mailbox(self) -> Mailbox:
        """This connection's mailbox, through which anybody can talk to it; see `receive_any`."""
        return self._connection.mailbox

    @property
    def logger(self) -> logging.Logger:
        """The library's logger."""
        return logging.getLogger("websock_gevent")

    # Receiving.

    def receive(self, timeout: float | None = None) -> Any:
        """Wait for the next message: ``str`` if it is text, ``bytes`` if it is binary.

        Args:
            timeout: Seconds; 0 to take only what is there, ``None`` to wait as long as it takes.

        Returns:
            ``None`` if none came in that time.

        Raises:
            ConnectionClosed: the connection has ended, and what came before was received; or `close` was called.
            TypeError, ValueError: a timeout that is no number, or negative or infinite.
            RuntimeError: another thread than the connection's calls.
        """
        connection = self._connection
        messages = connection.inbox.messages
        self._wait(self._has_message, timeout)
        if self._is_closed():
            raise self._end()
        return connection.take() if messages else None

    def receive_any(
        self, timeout: float | None = None
    ) -> tuple[Literal["in"], str | bytes] | tuple[Literal["info"], Any] | None:
        """Wait for the next message of the client, or the next one in the mailbox, in turns if there are both.

        Args:
            timeout: As for `receive`.

        Returns:
            ``("in", message)`` from the client, ``("info", message)`` from the mailbox; ``None`` if none came in time.

        Raises:
            ConnectionClosed, TypeError, ValueError, RuntimeError: as for `receive`.
        """
        connection, mailbox = self._connection, self.mailbox
        messages = connection.inbox.messages
        self._wait(self._has_any, timeout)
        if self._is_closed():
            raise self._end()
        if len(mailbox) and (self._mail_is_next or not messages):
            self._mail_is_next = False
            return "info", mailbox.take()
        self._mail_is_next = True
        return ("in", connection.take()) if messages else None

    def __iter__(self) -> Iterator[Any]:
        """Yield each message as it comes, until the connection ends."""
        while True:
            try:
                message = BlockingWebSocket.receive(self)  # whatever else tells of the end
            except ConnectionClosed:
                return
            yield message

    def _wait(self, wanted: Callable[[], object], timeout: float | None) -> None:
        connection = self._connection
        if timeout is not None:
            _check_seconds(timeout)
        if not connection.waiter.is_mine():
            raise RuntimeError("receive() is for the connection's own thread; send() and mailbox.send() are for all")
        if wanted():
            return
        if timeout == 0:
            connection.poll(wanted)
        else:
            connection.wait(wanted, timeout)

    def _has_message(self) -> object:
        return self._connection.inbox.messages or self._closed or self._connection.ended

    def _has_any(self) -> object:
        return self._has_message() or len(self.mailbox)

    def _end(self) -> ConnectionClosed:
        return ConnectionClosed(self.close_code, self.close_text)

    # Sending.

    def send(self, message: str | Data | None, binary: bool | None = None) -> None:
        """Send one message and wait until the kernel has taken it. From another thread than the connection's: do not
        wait, but have at most ``max_mailbox`` messages wait.

        Args:
            binary: ``None`` sends ``str`` as text and bytes as binary.

        Raises:
            ConnectionClosed: the connection has ended, perhaps as the peer did not read for ``send_timeout`` seconds.
            TypeError, ValueError: not something that can be sent.
        """
        connection = self._connection
        if self._closed:
            raise self._end()
        if binary is not None:
            message = _as_binary(message) if binary else _as_text(message)
        if not (connection.write(message) if connection.waiter.is_mine() else self.mailbox.push(message)):  # type: ignore[arg-type]
            raise self._end()

    def send_frame(self, message: Any, opcode: int) -> None:
        """Send one frame, as gevent-websocket does: text, binary, ping, pong or close by opcode.

        Raises:
            ConnectionClosed, TypeError, ValueError: as for `send`.
        """
        tag = _TAGS.get(opcode)
        if tag is None:
            raise ValueError(f"opcode {opcode!r} cannot be sent by itself; accepted are {', '.join(map(hex, _TAGS))}")
        if opcode == TEXT:
            self.send(message, binary=False)
        else:
            self.send((tag, _as_binary(message)))  # type: ignore[arg-type]

    def close(self, code: int = 1000, message: str | Data = "") -> None:
        """Say goodbye with code and text, and send nothing more. Does nothing if that was done, or nobody is there.

        Returns at once; the closing handshake goes on meanwhile.

        Raises:
            TypeError, ValueError: a code that may not be sent, or more than 123 bytes of text (RFC 6455 §5.5, §7.4).
        """
        checked = checked_close((code, _as_text(message)))
        self._closed = True
        self._connection.end(*checked)


def _check_seconds(timeout: object) -> None:
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
    if not 0 <= timeout < float("inf"):
        raise ValueError(f"timeout must be a finite number of seconds from 0 up or None, not {timeout!r}")


_TAGS = {0x1: "text", 0x2: "binary", 0x9: "ping", 0xA: "pong"}


def _as_text(message: Any) -> str:
    return message if isinstance(message, str) else bytes(message or b"").decode()


def _as_binary(message: Any) -> bytes:
    return message.encode() if isinstance(message, str) else bytes(message)
