"""The life of one connection: what may happen to it, in which order, and how it ends.

Owns the phases and the callbacks. `Connection.step` does all there is to do now and returns; a driver (`drivers`) calls
it in a greenlet, and waits in between (`waiter`). Every end, whatever its cause, goes through `Connection._end`:
messages, close frame, ``terminate``, closing handshake (`goodbye`). Refuses to know frames on the wire (`websocket`),
results (`websock.interpret`), servers and frameworks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import IntEnum
from time import monotonic
from typing import Any

import gevent

from .deadlines import KEEPALIVE, Deadlines
from .errors import ProtocolError
from .frames import BINARY, CLOSE, PING, PONG, close_frame
from .goodbye import Goodbye
from .kills import KILLS
from .mailbox import Mailbox
from .messages import BATCH, BATCH_SIZE, ITEM_SIZE
from .options import Options
from .websock import Reason, WebSock, interpret
from .websocket import WebSocket

__all__ = ["Connection", "Phase"]

logger = logging.getLogger("websock_gevent")


class Phase(IntEnum):
    """What a connection is doing; it only ever moves forward."""

    OPENING = 0  # the 101 is being sent
    OPEN = 1  # callbacks run
    CLOSING = 2  # our close frame is out: no callback but terminate
    CLOSED = 3  # nothing left to do; the socket may be closed


# The members by themselves: looking one up through the class costs more than comparing it.
_OPENING, _OPEN, _CLOSING, _CLOSED = Phase


class Connection:
    """One connection and its handler.

    Args:
        websocket: The socket and its codec. Output that waits there (the 101) leaves before ``init`` is called.
        handler: A class, which is instantiated without arguments, or an object; see `WebSock`.
        state: What ``init`` gets.
        options: Deadlines and limits.

    Attributes:
        phase: What it is doing.
        reason: What ``terminate`` got or would have got, once it has ended.
        websocket: As given.
        waiter: Where it waits, and who is resumed there.
    """

    mailbox_class: type[Mailbox] = Mailbox

    __slots__ = (
        "_broken",
        "_deadlines",
        "_doom",
        "_goodbye",
        "_controls",
        "_handler",
        "_initialised",
        "_mailbox",
        "_more",
        "_options",
        "_shutdown",
        "_state",
        "phase",
        "reason",
        "waiter",
        "websocket",
    )

    def __init__(self, websocket: WebSocket, handler: Any, state: Any, options: Options) -> None:
        self.websocket = websocket
        self.phase = _OPENING
        self.reason: Reason = ("error", "closed")
        self._handler = handler
        self._state = state
        self._options = options
        self._deadlines = Deadlines(websocket, options)
        self.waiter = self._deadlines.waiter
        self._mailbox: Mailbox | None = None
        self._goodbye: Goodbye | None = None
        self._initialised = False
        self._broken = False  # what comes cannot be understood any more
        self._more = True  # the reader may hold complete items: bytes came behind the handshake
        self._doom: tuple[Reason, int, str] | None = None
        self._shutdown: tuple[Reason, int, str] = ("shutdown", 1012, "")

    # For the driver.

    def step(self) -> bool:
        """Do what there is to do now. Return whether there is more that need not be waited for."""
        if self.phase is _OPENING:
            self._open()
        if self._deadlines.alarm:
            self._deadlines.alarm = False
            self._on_alarm()
        if self._doom is not None and self.phase is _OPEN:
            self._end(*self._doom)
        more = self.phase is _OPEN and self.waiter.stalled is None and self._serve()
        if self.phase is _CLOSING:
            more = self.waiter.stalled is None and self._leave()
            return more or self._deadlines.alarm  # which may have come while terminate ran, when nobody could be woken
        return more

    def fail(self, error: BaseException) -> None:
        """End without waiting, since this came out of `step`, or was thrown into the greenlet where it waits.

        Raises:
            SystemExit: that is what came; after ``terminate``.
        """
        if not isinstance(error, KILLS):
            # Ours, not the handler's. A server could only write an HTTP error behind the 101, so it goes no further.
            self._crashed("the connection", error)
            return
        self._end(*self._shutdown)
        if isinstance(error, SystemExit):
            raise error
        if isinstance(error, KeyboardInterrupt):
            # Python delivers a Ctrl-C to whichever greenlet runs. Raised on, it would end with this one under a server
            # that makes its greenlets as threads; it is meant for the main one.
            gevent.get_hub().handle_system_error(KeyboardInterrupt, error)

    def finish(self) -> None:
        """Nothing is left to do: give everything back but the socket."""
        self.phase = _CLOSED
        self.websocket.closed = True
        self.websocket.free()
        self.waiter.close()
        if self._mailbox is not None:
            self._mailbox.end(self.reason)
        if isinstance(self.reason, tuple) and isinstance(self.reason[1], BaseException):
            self.reason[1].__traceback__ = None  # its frames hold the message and this connection, which holds it

    # OPENING

    def _open(self) -> None:
        """Send the 101, then call ``init``."""
        self.waiter.flush()
        if self.waiter.stalled is not None:
            return
        try:
            frames, self._state, stop = interpret(self._bind().init(self._state), self.websocket.deflater)
        except KILLS:
            raise
        except BaseException as error:
            self._crashed("init", error)
            return
        self._initialised = True
        self.phase = _OPEN
        self._deadlines.begin()
        self.websocket.out += frames
        if stop is not None:
            self._end(stop.reason, stop.code, stop.text)

    def _bind(self) -> Any:
        """Make the handler, if it is a class."""
        if isinstance(self._handler, type):
            self._handler = self._handler()
        control = getattr(self._handler, "handle_control", None)
        inherited = getattr(control, "__func__", control) is WebSock.handle_control
        self._controls = control is not None and not inherited
        return self._handler

    # OPEN: received items and mailbox messages, in turns.

    def _serve(self) -> bool:
        more = self._receive() if self._more or self.waiter.readable else False
        mailbox = self._mailbox
        if mailbox is not None and self.phase is _OPEN:
            waiting = len(mailbox)
            if waiting:
                more = self._deliver(mailbox, waiting) or more
        if self.websocket.out and self.waiter.stalled is None and not self.websocket.flush():
            self.waiter.hold()  # `Waiter.flush` with a call less
        return more or self._doom is not None  # which may have come while a callback ran, when nobody could be woken

    def _receive(self) -> bool:
        """Receive once, unless items are left from the last time, and handle a batch. Return whether there is more."""
        websocket, waiter = self.websocket, self.waiter
        if not self._more:
            received = websocket.fill()
            if received <= 0:
                waiter.readable = False
                if received == 0:
                    self._end(("error", "closed"))
                return received == 0
            waiter.readable = websocket.pending is not None and websocket.pending() > 0
        try:
            self._more = self._handle_items()
        except ProtocolError as error:
            self._broken = True
            # Their frames, and who called those, hold the message that was refused; and ``reason`` holds them.
            error.__traceback__ = error.__context__ = None
            self.websocket.reader.free()
            logger.warning("%s: %s, closing with %d", self.websocket.peer, error, error.code)
            self._end(("error", error), error.code, str(error)[:100])
            return True
        self._deadlines.heard = monotonic()
        return self._more or waiter.readable

    def _handle_items(self) -> bool:
        """Handle a batch of items. Return whether there may be more."""
        reader, handle_in = self.websocket.reader, self._handler.handle_in
        room = BATCH_SIZE
        while True:
            item = reader.next_item()
            if item is None:
                return False
            opcode, payload = item
            if not opcode:
                return True
            if opcode > BINARY:
                self._control(item)
            else:
                self._call(handle_in, payload)
            if not reader.unread:
                return False
            room -= ITEM_SIZE + len(payload)
            if room <= 0 or self.phase is not _OPEN or self._doom or self.waiter.stalled is not None:
                return True

    def _control(self, item: Any) -> None:
        opcode, payload = item
        self.websocket.control(item)
        if opcode == CLOSE:
            self._end("remote", self.websocket.close_reply())
        elif self._controls and not (opcode == PONG and payload == KEEPALIVE):
            self._call(self._handler.handle_control, ("ping" if opcode == PING else "pong", payload))

    def _deliver(self, mailbox: Mailbox, waiting: int) -> bool:
        """Handle a batch of the mailbox messages that wait. Return whether there are more."""
        handle_info, began, left = self._handler.handle_info, monotonic(), BATCH
        while waiting and left:
            self._call(handle_info, mailbox.take())
            waiting -= 1
            left -= 1
            if self.phase is not _OPEN or self._doom or self.waiter.stalled is not None or self._deadlines.alarm:
                break
        self._deadlines.excuse(monotonic() - began)  # mail is no sign of life of the peer
        return len(mailbox) > 0 or self.phase is not _OPEN

    def _call(self, callback: Callable[[Any, Any], Any], argument: Any) -> None:
        """Run one callback and do what it asks for."""
        websocket = self.websocket
        if websocket.out:
            self.waiter.flush_soon()  # this callback may block; what was answered before it must not wait for that
        try:
            frames, self._state, stop = interpret(callback(argument, self._state), websocket.deflater)
        except KILLS:
            raise
        except BaseException as error:  # gevent.Timeout is one
            self._crashed(getattr(callback, "__name__", "callback"), error)
            return
        websocket.out += frames
        if stop is not None:
            self._end(stop.reason, stop.code, stop.text)

    def _crashed(self, name: str, error: BaseException) -> None:
        logger.error("%s: %s raised, closing with 1011", self.websocket.peer, name, exc_info=error)
        self._end(("error", error), 1011)

    # The end.

    def _end(self, reason: Reason, code: int | None = None, text: str = "") -> None:
        """The one way out: close frame, ``terminate``, and then the rest of the goodbye.

        Args:
            reason: For ``terminate``.
            code: Close code to send; ``None`` if the peer cannot be reached any more.
            text: Close text.
        """
        if self.phase >= _CLOSING:
            return
        self.phase = _CLOSING  # before terminate is called: whatever happens in it, it is the only call
        self.reason = reason
        websocket = self.websocket
        if code is not None:
            websocket.out.append(close_frame(code, text))
        websocket.closed = True
        if self._mailbox is not None:
            self._mailbox.shut()
        self._deadlines.pause()
        self.waiter.flush()
        if self._initialised:
            self._call_terminate(reason)
        if code is None:
            self.phase = _CLOSED

    def _call_terminate(self, reason: Reason) -> None:
        try:
            terminate = getattr(self._handler, "terminate", None)
            if terminate is not None:
                terminate(reason, self._state)
        except KILLS:
            raise
        except BaseException as error:
            logger.error("%s: terminate raised", self.websocket.peer, exc_info=error)

    def _leave(self) -> bool:
        """CLOSING, once ``terminate`` has returned and our close frame has left."""
        goodbye = self._goodbye
        if goodbye is None:
            answered = self._broken or self.reason == "remote"
            goodbye = Goodbye(self.websocket, self._deadlines, self._options.close_timeout, answered)
            self._goodbye = goodbye
        more = goodbye.step()
        if goodbye.done:
            self.phase = _CLOSED
        return more

    def _on_alarm(self) -> None:
        """A deadline was due when the timer fired. Is it still?"""
        if self.phase is _OPEN and self.waiter.stalled is None:
            self.waiter.readable = True
            self._receive()  # bytes that came while the whole process was busy do count
        stuck = self.waiter.stalled is not None and self.waiter.gives_up()
        now = monotonic()
        if now < self._deadlines.due():
            self._deadlines.rearm(now)
        elif stuck:
            self.websocket.lost = True
            logger.warning("%s: the peer does not read, gave up after send_timeout", self.websocket.peer)
            self._end(("error", "send timeout"))
            self.phase = _CLOSED
        elif self.phase is _OPEN:
            self._end("timeout", 1002)
        elif self._goodbye is not None:
            self._goodbye.expire()
            self.phase = _CLOSED

    # What others may ask for, from any greenlet and any thread.

    @property
    def served(self) -> Any:
        """Whose code runs: the handler, as given; from ``init`` on the instance, if it was a class."""
        return self._handler

    @property
    def mailbox(self) -> Mailbox:
        """This connection's mailbox, made when first asked for (by `current`, in the connection's own greenlet)."""
        if self._mailbox is None:
            self._mailbox = self.mailbox_class(self.websocket, self.waiter, self._options.max_mailbox, self._overflow)
            if self.phase >= _CLOSING:
                self._mailbox.shut()
            if self.phase is _CLOSED:
                self._mailbox.end(self.reason)
        return self._mailbox

    def shutdown(self, code: int, text: str) -> None:
        """End as soon as the running callback, if any, has returned: the server goes away."""
        self._shutdown = "shutdown", code, text
        self._end_soon(self._shutdown)

    def cut(self) -> None:
        """Wait no longer for a blocked callback, for the peer to read, or for its close frame."""
        self.waiter.call_soon(self._cut)

    def abandon(self) -> None:
        """Touch the socket no more: it is another process's."""
        self.phase = _CLOSED
        self.websocket.lost = True
        self.waiter.close()
        if self._mailbox is not None:
            self._mailbox.shut()

    def _cut(self) -> None:
        """In the hub. A ``terminate`` that runs is left to come to its end."""
        if self.phase <= _OPEN:
            self.waiter.kill()
        elif self.waiter.parked:
            self.phase = _CLOSED
            self.waiter.wake()

    def _overflow(self) -> None:
        """End as soon as the running callback, if any, has returned: more was put in than may wait."""
        self.websocket.deflater = None  # what was refused is in its context, and not with the client
        if self._doom is None:
            logger.warning("%s: more than max_mailbox messages are waiting, closing with 1008", self.websocket.peer)
        self._end_soon((("error", "mailbox overflow"), 1008, "mailbox overflow"))

    def _end_soon(self, doom: tuple[Reason, int, str]) -> None:
        if self._doom is None:
            self._doom = doom
        self.waiter.wake()
