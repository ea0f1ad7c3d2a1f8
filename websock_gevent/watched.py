"""A connection that somebody watches: the parts that count, in the place of those that do not.

Owns what is told of a connection (`signals`), and the choice, made once when a connection is opened, of what it is made
of (`parts_for`). One that nobody watches is made of the plain parts, which know nothing of all this. Refuses to know
what a frame looks like (`metering`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from .attended import AttendedConnection
from .connection import Connection, Phase
from .deflate import Agreement, Deflate, Deflater
from .mailbox import Mailbox
from .messages import MessageReader
from .metering import Meter, MeteredDeflater, MeteredReader
from .options import Options
from .signals import (
    Around,
    ConnectionStarted,
    ConnectionStopped,
    SoFar,
    connection_started,
    connection_stopped,
    is_watched,
    send,
)
from .websock import Reason
from .websocket import WebSocket

__all__ = ["Parts", "parts_for"]


class Parts:
    """What a connection is made of. These are the plain ones."""

    reader: Callable[..., MessageReader] = MessageReader
    deflater: Callable[[Agreement, Deflate], Deflater] = Deflater

    def connection(
        self, kind: type[Connection], websocket: WebSocket, handler: Any, state: Any, options: Options
    ) -> Connection:
        """Make the connection, last of all: what waits in the WebSocket to be sent is no frame."""
        return kind(websocket, handler, state, options)


class _WatchedParts(Parts):
    """The parts of one connection that is watched."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender
        self._recv, self._send = Meter(), Meter()
        self.reader = partial(MeteredReader, self._recv)
        self.deflater = partial(MeteredDeflater, self._send)

    def connection(
        self, kind: type[Connection], websocket: WebSocket, handler: Any, state: Any, options: Options
    ) -> Connection:
        waiting = sum(map(len, websocket.out))
        websocket.tap(lambda sock: _WatchedSocket(sock, self._send, waiting))
        record = _Record(self._sender, self._recv, self._send)
        return _WATCHED[kind](record, websocket, handler, state, options)


_PLAIN = Parts()


def parts_for(sender: object) -> Parts:
    """Choose what a connection is made of: each call is for one connection.

    Args:
        sender: Of its signals: the handler, or the function of one in the blocking style.
    """
    return _WatchedParts(sender) if is_watched(sender) else _PLAIN


class _WatchedSocket:
    """A socket, seen by who meters what is sent."""

    __slots__ = ("_meter", "_skip", "_socket", "recv")

    def __init__(self, sock: Any, meter: Meter, skip: int) -> None:
        self.recv = sock.recv
        self._socket = sock
        self._meter = meter
        self._skip = skip  # bytes to come that are no frames

    def send(self, data: bytes | memoryview) -> int:
        sent: int = self._socket.send(data)
        self._count(memoryview(data)[:sent])
        return sent

    def sendmsg(self, pieces: list[bytes | memoryview]) -> int:
        sent: int = self._socket.sendmsg(pieces)
        left = sent
        for piece in pieces:
            self._count(memoryview(piece)[:left])
            left -= min(left, len(piece))
        return sent

    def _count(self, data: memoryview) -> None:
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._meter.feed(data[skipped:])


class _WatchedMailbox(Mailbox):
    """A mailbox that knows how full it was. It empties only by these two."""

    __slots__ = ("deepest",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.deepest = 0

    def take(self) -> Any:
        self.deepest = max(self.deepest, len(self))
        return super().take()

    def shut(self) -> None:
        self.deepest = max(self.deepest, len(self))
        super().shut()


class _WatchedHandler:
    """A handler whose callbacks are run by somebody else."""

    __slots__ = ("_handler", "_run")

    def __init__(self, handler: Any, run: Callable[..., Any]) -> None:
        self._handler = handler
        self._run = run

    def init(self, state: Any) -> Any:
        return self._run("init", self._handler.init, state)

    def handle_in(self, message: Any, state: Any) -> Any:
        return self._run("handle_in", self._handler.handle_in, message, state)

    def handle_control(self, frame: Any, state: Any) -> Any:
        return self._run("handle_control", self._handler.handle_control, frame, state)

    def handle_info(self, message: Any, state: Any) -> Any:
        return self._run("handle_info", self._handler.handle_info, message, state)

    def terminate(self, reason: Any, state: Any) -> Any:
        terminate = getattr(self._handler, "terminate", None)
        return None if terminate is None else self._run("terminate", terminate, reason, state)


class _Record:
    """What is noted of one connection. It has begun once its beginning was told, and until its end is."""

    __slots__ = ("arounds", "began", "code", "longest", "recv", "send", "sender")

    def __init__(self, sender: Any, recv: Meter, sent: Meter) -> None:
        self.sender = sender
        self.recv, self.send = recv, sent
        self.arounds: list[Around] = []
        self.began: float | None = None
        self.code: int | None = None
        self.longest = 0.0, ""

    def run(self, name: str, callback: Callable[..., Any], *args: Any) -> Any:
        """Run a callback, and whatever is around it."""
        call: Callable[[], Any] = partial(callback, *args)
        for around in self.arounds:
            call = partial(around, name, call)
        began = monotonic()
        try:
            return call()
        finally:
            self.longest = max(self.longest, (monotonic() - began, name))


class _Telling(Connection):
    """What makes a connection tell when it begins, and what it was when it ends."""

    __slots__ = ()  # of the two bases of `_WatchedAttended`, only one may have any

    mailbox_class = _WatchedMailbox
    _record: _Record

    def __init__(self, record: _Record, websocket: WebSocket, handler: Any, state: Any, options: Options) -> None:
        super().__init__(websocket, handler, state, options)
        self._record = record  # type: ignore[misc]  # in the slot of each of the two

    def _bind(self) -> Any:
        """Called behind the 101 and before ``init``."""
        record = self._record
        started = ConnectionStarted(record.sender, self.websocket, record.arounds, self._so_far)
        record.began = monotonic()
        send(connection_started, record.sender, started)
        return super()._bind()

    def _so_far(self) -> SoFar:
        record, mailbox = self._record, self._mailbox
        waiting = len(mailbox) if mailbox is not None else 0
        unsent = sum(map(len, tuple(self.websocket.out)))
        return SoFar(*record.recv.totals, *record.send.totals, waiting, self._options.max_mailbox, unsent)

    def _end(self, reason: Reason, code: int | None = None, text: str = "") -> None:
        if self.phase < Phase.CLOSING:
            self._record.code = code
        super()._end(reason, code, text)

    def finish(self) -> None:
        """Nothing is left to do: give everything back but the socket, and tell."""
        super().finish()
        record = self._record
        if record.began is None:
            return
        duration, record.began = monotonic() - record.began, None
        sent = record.send.traffic
        stopped = ConnectionStopped(
            handler=record.sender,
            websocket=self.websocket,
            duration=duration,
            reason=self.reason,
            code=record.code if sent.close.count else None,
            recv=record.recv.traffic,
            send=sent,
            longest=record.longest[0],
            longest_callback=record.longest[1],
            deepest=self._mailbox.deepest if isinstance(self._mailbox, _WatchedMailbox) else 0,
        )
        send(connection_stopped, record.sender, stopped)


class _WatchedConnection(_Telling):
    """In the callback style."""

    __slots__ = ("_record",)

    @property
    def served(self) -> Any:
        """The handler, not what times its callbacks."""
        return self._record.sender

    def _bind(self) -> Any:
        self._handler = _WatchedHandler(super()._bind(), self._record.run)
        return self._handler


class _WatchedAttended(_Telling, AttendedConnection):
    """In the blocking style, which has no callbacks to be timed."""

    __slots__ = ("_record",)


_WATCHED: dict[type[Connection], Callable[..., Connection]] = {
    Connection: _WatchedConnection,
    AttendedConnection: _WatchedAttended,
}
