"""A connection whose application calls (`receive`, `send`) instead of being called: the third driver.

Owns the rule who runs `Connection.step`: whoever waits for something, in its own greenlet, and else a lent one, so that
pings, closes, deadlines and drain go on whatever the application does meanwhile. Any greenlet of the connection's
thread may wait; others may wait beside it, and are told when something has moved. What comes goes into the `inbox`, and
no more is received than that has room for. Refuses to know what the application is given to call (`blocking`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import gevent
from gevent import GreenletExit, Timeout
from gevent.event import Event

from .connection import Connection, Phase
from .drivers import Lending
from .errors import ProtocolError, WebSocketError
from .frames import CLOSE
from .inbox import Inbox
from .kills import KILLS
from .mailbox import enter, leave
from .websock import encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .messages import Item
    from .options import Options
    from .websocket import WebSocket

__all__ = ["AttendedConnection"]

logger = logging.getLogger("websock_gevent")

_OPEN, _CLOSED = Phase.OPEN, Phase.CLOSED
#: Steps of a poll at the most, of which each takes 64 items or 256 KiB: an end for a peer that always has more pings.
POLLS = 64


class _Deferred(Exception):  # noqa: N818
    """A close frame stands behind messages that nobody has asked for."""

    def __init__(self, item: Item) -> None:
        self.item = item


class AttendedConnection(Connection):
    """One connection, and those who wait for it.

    Attributes:
        handler: What `upgrade` got as its handler.
        state: What `upgrade` got for it.
        inbox: What has come.
    """

    __slots__ = (
        "_attendant",
        "_finished",
        "_has_begun",
        "_last",
        "_lending",
        "_moved",
        "_waiting",
        "handler",
        "inbox",
        "state",
    )

    def __init__(self, websocket: WebSocket, handler: Any, state: Any, options: Options) -> None:
        self.inbox = Inbox()
        super().__init__(websocket, self.inbox, None, options)
        self.waiter.patient = True
        self.handler = handler
        self.state = state
        self._attendant: Any = None  # the greenlet that is in `attended`
        self._last: Item | ProtocolError | None = None  # what ends it, once the messages before that were taken
        self._lending: Any = Lending(self)
        self._finished = False
        self._has_begun = False  # the application runs: what it does first comes before what was sent to it
        self._moved: Event | None = None  # set for those who wait beside the greenlet that serves
        self._waiting = 0  # how many they are

    @property
    def served(self) -> Any:
        """Whose code runs: the function."""
        return self.handler.function

    @property
    def ended(self) -> bool:
        """Whether nothing can be sent any more, and nothing more comes than has come."""
        return self.inbox.reason is not None or self.phase is _CLOSED

    @property
    def is_over(self) -> bool:
        """Whether what fails on it now fails since it has ended or is about to: no fault of the application."""
        return self.ended or self._doom is not None or self.websocket.lost

    @contextmanager
    def attended(self, attendant: Any) -> Iterator[None]:
        """Open, and at the end, say goodbye. What is raised inside closes with 1011 and goes no further.

        Args:
            attendant: The greenlet that is in here, which a hard stop interrupts.

        Raises:
            SystemExit: the process is told to end; after the goodbye.
        """
        token = enter(self) if attendant is gevent.getcurrent() else None
        self._attendant = attendant
        try:
            self._begin()
            with self._failing():
                try:
                    yield
                except KILLS:
                    raise
                except BaseException as error:  # gevent.Timeout is one
                    self.crash(error)
                else:
                    self.end(1000)
                self.wait(lambda: False)
        finally:
            self._attendant = None
            self.finish()
            if token is not None:
                leave(token)

    def _begin(self) -> None:
        """Have the 101 sent; then the application has its turn."""
        self.waiter.rest(self._lending)
        with self._failing():
            self.wait(lambda: self.inbox.began)
        self._has_begun = True
        self.waiter.wake()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """What is thrown in here ends the connection at once."""
        try:
            yield
        except BaseException as error:
            try:
                self.fail(error)
            finally:
                self.finish()

    @contextmanager
    def excusing(self) -> Iterator[None]:
        """Let an error that is no more than this connection's end go no further."""
        try:
            yield
        except WebSocketError:
            if not self.is_over:
                raise

    def finish(self) -> None:
        """Nothing is left to do: give everything back but the socket, and what has come. Once."""
        if self._finished:
            return
        self._finished = True
        if self._goodbye is None and not self.websocket.lost:
            self.websocket.half_close()  # the socket stays open for as long as the application goes on
        super().finish()
        self._lending = None  # which refers to this connection
        self.waiter.wake()
        self._tell_the_others()

    def wait(self, wanted: Callable[[], object], timeout: float | None = None) -> None:
        """Give way until something wanted is there, the connection is closed, or so many seconds are over."""
        if timeout is None:
            self._wait(wanted)
        else:
            with Timeout(timeout, False):  # type: ignore[arg-type]
                self._wait(wanted)

    def _wait(self, wanted: Callable[[], object]) -> None:
        while not wanted() and self.phase < _CLOSED:
            if self.waiter.resting:
                self._serve_until(wanted)
            else:
                self._await_others()

    def _serve_until(self, wanted: Callable[[], object]) -> None:
        """Be the connection's greenlet for as long as one waits."""
        waiter = self.waiter
        waiter.belong()
        # A batch was taken: everybody else has a turn before the next one.
        more = self.inbox.began and self._more and bool(self.websocket.reader.unread)
        try:
            if self._has_begun and not self._has_turn():
                waiter.wait()  # if there is anything else to do, somebody has said so, and a wake-up is on its way
            while True:
                if more:
                    waiter.breathe()
                more = self.step()
                if wanted() or self.phase is _CLOSED:
                    break
                if not more:
                    waiter.wait()
        finally:
            if self.phase is _CLOSED:
                self.finish()
            else:
                waiter.rest(self._lending)
                if more:
                    waiter.wake()

    def _await_others(self) -> None:
        """Somebody else serves: be told when something has moved."""
        if self._moved is None:
            self._moved = Event()
        self._waiting += 1
        try:
            self._moved.clear()
            self._moved.wait()
        finally:
            self._waiting -= 1

    def take(self) -> str | bytes:
        """Take the oldest message out. There is room for more then.

        Raises:
            IndexError: there is none.
        """
        was_full = self.inbox.is_full
        message = self.inbox.take()
        if was_full and not self.inbox.is_full:
            self.waiter.wake()
        return message

    def poll(self, wanted: Callable[[], object]) -> None:
        """Have what is in the kernel already, until something wanted is there, without waiting for more."""
        for _ in range(POLLS):
            heard = self._deadlines.heard
            if not self.waiter.resting:
                break
            self.waiter.readable = True
            self._serve_until(lambda: True)
            if wanted() or self._deadlines.heard == heard:
                break

    def step(self) -> bool:
        """Do what there is to do now, and tell those who wait beside the greenlet that does it."""
        more = super().step()
        self._tell_the_others()
        return more

    def _tell_the_others(self) -> None:
        if self._waiting and self._moved is not None:
            self._moved.set()

    def _serve(self) -> bool:
        """Receive if there is room. The mailbox keeps what is in it."""
        more = self._receive() if self._has_turn() else False
        if self.websocket.out:
            self.waiter.flush()
        return (more and (self.phase is not _OPEN or self._has_turn())) or self._doom is not None

    def _has_turn(self) -> bool:
        """Whether there is something to handle, and room for it."""
        if self._last is not None:
            return not self.inbox.messages
        return self._has_begun and (self._more or self.waiter.readable) and not self.inbox.is_full

    def write(self, message: Any) -> bool:
        """Send a message, and wait until the kernel has taken it. Return whether it has. Only in the hub's thread.

        Raises:
            TypeError, ValueError: not something that can be sent; see `WebSock`.
        """
        waiter, websocket = self.waiter, self.websocket
        if waiter.stalled is not None:
            self.wait(self._is_moving)
        if self.ended or websocket.lost:
            return False
        websocket.out += encode(message, websocket.deflater, True)
        waiter.flush()
        if waiter.stalled is None:
            return not websocket.lost
        self.wait(self._is_moving)
        return not (websocket.lost or self.ended)

    # What ends the connection has its turn when what came before it was taken, so that this can still be answered.

    def _handle_items(self) -> bool:
        if self._last is not None:
            last, self._last = self._last, None
            if isinstance(last, ProtocolError):
                raise last
            super()._control(last)
            return True
        try:
            return super()._handle_items()
        except _Deferred as deferred:
            self._last = deferred.item
        except ProtocolError as error:
            if not self.inbox.messages:
                raise
            error.__traceback__ = error.__context__ = None  # their frames hold this connection, which holds it
            self._last = error
        self._deadlines.fix(self._options.close_timeout)
        return True  # nothing is received before it has had its turn

    def _call(self, callback: Callable[[Any, Any], Any], argument: Any) -> None:
        """Put a message into the inbox, which asks for nothing."""
        callback(argument, None)

    def _control(self, item: Item) -> None:
        if item[0] == CLOSE and self.inbox.messages:
            raise _Deferred(item)  # past what stands behind it
        super()._control(item)

    def _leave(self) -> bool:
        """Whatever had not had its turn when the function returned has ended the peer's side already."""
        last, self._last = self._last, None
        if last is not None:
            self._broken = True
            if not isinstance(last, ProtocolError):
                with suppress(ProtocolError):
                    self.websocket.control(last)
        return super()._leave()

    def _is_moving(self) -> bool:
        return self.waiter.stalled is None or self.ended

    def end(self, code: int, text: str = "") -> None:
        """Say goodbye, as soon as whoever serves looks; from any greenlet and any thread."""
        self._end_soon(("normal", code, text))

    def crash(self, error: BaseException) -> None:
        """The application raised: log it and close with 1011."""
        logger.error("%s: %s raised, closing with 1011", self.websocket.peer, self.handler, exc_info=error)
        if not self.ended:
            self._end_soon((("error", error), 1011, ""))

    def _cut(self) -> None:
        """In the hub: interrupt the application wherever it blocks. If it goes on all the same, then without us."""
        if self._attendant is not None:
            self._end(*self._shutdown)
            self.waiter.wake()
            self._attendant.throw(GreenletExit)
        else:
            super()._cut()
