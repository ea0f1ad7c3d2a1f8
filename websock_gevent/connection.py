"""The life of one connection: what may happen to it, in which order, and how it ends.

Owns the phases, the callbacks and the deadlines. `Connection.step` does all there is to do now and returns; `Connection.run`
is the driver that lends it one greenlet for good and waits in between (`waiter`). Every end, whatever its cause, goes through
`Connection._end`: messages, close frame, ``terminate``, closing handshake. Refuses to know frames on the wire (`websocket`),
results (`websock.interpret`), servers and frameworks.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from time import monotonic
from typing import Any

from gevent import GreenletExit

from .errors import ProtocolError
from .frames import BINARY, CLOSE, PING, PONG, close_frame, frame
from .mailbox import Mailbox, enter, leave
from .options import Options
from .waiter import Waiter
from .websock import Reason, Stop, WebSock, interpret
from .websocket import WebSocket

__all__ = ["Connection", "Phase"]

logger = logging.getLogger("websock_gevent")

#: Items and mailbox messages handled in one step, before everybody else gets a turn.
BATCH = 64
#: Bytes read and dropped behind our close frame, so that closing sends no RST, which would hide the frame from a browser.
DISCARD = 64 << 20
#: Payload of our keepalive pings, by which their pongs are known.
KEEPALIVE = os.urandom(8)

_KEEPALIVE_PING = frame(PING, KEEPALIVE)
_KILLS = (GreenletExit, SystemExit, KeyboardInterrupt)
_NEVER = float("inf")


class Phase(IntEnum):
    """What a connection is doing; it only ever moves forward."""

    OPENING = 0  # the 101 is being sent
    OPEN = 1  # callbacks run
    CLOSING = 2  # our close frame is sent, the peer's is awaited
    DRAINING = 3  # our side of the stream is closed, what still comes is dropped
    CLOSED = 4  # nothing left to do; the socket may be closed


class Connection:
    """One connection and its handler.

    Args:
        websocket: The socket and its codec. Output that waits there (the 101) leaves before ``init`` is called.
        handler: A class, which is instantiated without arguments, or an object; see `WebSock`.
        state: What ``init`` gets.
        options: Deadlines and limits.
    """

    __slots__ = (
        "_alarm",
        "_deadline",
        "_discarded",
        "_doom",
        "_handle_control",
        "_handle_in",
        "_handle_info",
        "_handler",
        "_heard",
        "_initialised",
        "_mailbox",
        "_more",
        "_options",
        "_pinged",
        "_pushed",
        "_state",
        "_terminate",
        "_waiter",
        "phase",
        "reason",
        "websocket",
    )

    def __init__(self, websocket: WebSocket, handler: Any, state: Any, options: Options) -> None:
        self.websocket = websocket
        self.phase = Phase.OPENING
        self.reason: Reason = ("error", "closed")
        self._handler = handler
        self._state = state
        self._options = options
        self._waiter = Waiter(websocket, options.send_timeout, self._tick)
        self._mailbox: Mailbox | None = None
        self._initialised = False
        self._more = True  # the reader may hold complete items: bytes came behind the handshake
        self._alarm = False
        self._doom: tuple[Reason, int, str] | None = None
        self._pushed: list[list[bytes]] = []
        self._heard = self._pinged = monotonic()
        self._deadline = _NEVER
        self._discarded = 0

    # The driver: one greenlet for the whole life.

    def run(self) -> None:
        """Serve until the end, in the calling greenlet.

        Raises:
            SystemExit, KeyboardInterrupt: the process is told to end; after ``terminate``.
        """
        token = enter(self)
        try:
            while self.phase < Phase.CLOSED:
                if self.step():
                    self._waiter.breathe()
                elif self.phase < Phase.CLOSED:
                    self._waiter.park()
        except GreenletExit:
            self._end("shutdown", 1012)
        except (SystemExit, KeyboardInterrupt):
            self._end("shutdown", 1012)
            raise
        except (
            BaseException
        ) as error:  # ours, not the handler's; what calls us could only write an HTTP error into the socket
            self._crashed("the connection", error)
        finally:
            self.phase = Phase.CLOSED
            self.websocket.closed = True
            self._waiter.close()
            if self._mailbox is not None:
                self._mailbox.end(self.reason)
            leave(token)

    def step(self) -> bool:
        """Do what there is to do now. Return whether there is more that need not be waited for."""
        if self._alarm:
            self._alarm = False
            self._on_alarm()
        if self._waiter.stalled is not None:
            return False
        if self.phase is Phase.OPEN:
            return self._serve()
        if self.phase is Phase.OPENING:
            return self._open()
        if self.phase is Phase.CLOSING:
            return self._await_close()
        if self.phase is Phase.DRAINING:
            return self._drain()
        return False

    def _open(self) -> bool:
        """Send the 101, then begin."""
        self._waiter.flush()
        if self._waiter.stalled is not None:
            return False
        try:
            frames, self._state, stop = interpret(self._bind().init(self._state))
        except _KILLS:
            raise
        except BaseException as error:
            self._crashed("init", error)
            return True
        self._initialised = True
        self.phase = Phase.OPEN
        self._apply(frames, stop)
        self._heard = monotonic()
        self._remind()
        return True

    def _bind(self) -> Any:
        """Make the handler, if it is a class, and look its callbacks up once."""
        handler = self._handler() if isinstance(self._handler, type) else self._handler
        self._handle_in = handler.handle_in
        self._handle_info = handler.handle_info
        control = getattr(handler, "handle_control", None)
        inherited = getattr(control, "__func__", control) is WebSock.handle_control
        self._handle_control = None if inherited else control
        self._terminate = getattr(handler, "terminate", None)
        return handler

    # OPEN: received items and mailbox messages, in turns.

    def _serve(self) -> bool:
        if self._doom is not None:
            self._end(*self._doom)
            return True
        more = self._receive() if self._waiter.readable or self._more else False
        if self._mailbox and len(self._mailbox) and self.phase is Phase.OPEN:
            more = self._deliver() or more
        if self.websocket.out:
            self._waiter.flush()
        return more

    def _receive(self) -> bool:
        """Receive once, unless items are left from the last time, and handle a batch."""
        websocket, waiter = self.websocket, self._waiter
        if not self._more:
            received = websocket.fill()
            waiter.readable = websocket.pending is not None and received > 0 and websocket.pending() > 0
            if received < 0:
                return False
            if received == 0:
                self._end(("error", "closed"))
                return True
        try:
            self._more = self._handle_items()
        except ProtocolError as error:
            self._refuse(error)
            return True
        self._heard = monotonic()
        return self._more or waiter.readable

    def _handle_items(self) -> bool:
        """Handle a batch of items. Return whether there may be more."""
        websocket, waiter = self.websocket, self._waiter
        next_item = websocket.reader.next_item
        for _ in range(BATCH):
            item = next_item()
            if item is None:
                return False
            if item[0] <= BINARY:
                self._call(self._handle_in, item[1])
            else:
                self._control(item)
            if self.phase is not Phase.OPEN or waiter.stalled is not None:
                return True
        return True

    def _control(self, item: Any) -> None:
        opcode, payload = item
        self.websocket.control(item)
        if opcode == CLOSE:
            self._end("remote", self.websocket.close_reply())
        elif self._handle_control is not None and not (opcode == PONG and payload == KEEPALIVE):
            self._call(self._handle_control, ("ping" if opcode == PING else "pong", payload))

    def _deliver(self) -> bool:
        """Handle a batch of mailbox messages. Return whether there are more."""
        mailbox = self.mailbox
        began = monotonic()
        for _ in range(min(BATCH, len(mailbox))):
            self._call(self._handle_info, mailbox.take())
            if self.phase is not Phase.OPEN:
                return True
            if self._waiter.stalled is not None:
                break
        self._heard += (
            monotonic() - began
        )  # mail does not count as hearing from the peer; our own time does not count at all
        return len(mailbox) > 0

    def _call(self, callback: Callable[[Any, Any], Any], argument: Any) -> None:
        """Run one callback and do what it asks for."""
        websocket = self.websocket
        if websocket.out:
            self._waiter.flush_soon()  # this callback may block; what was answered before it must not wait for that
        try:
            frames, self._state, stop = interpret(callback(argument, self._state))
        except _KILLS:
            raise
        except BaseException as error:  # gevent.Timeout is one
            self._crashed(getattr(callback, "__name__", "callback"), error)
        else:
            self._apply(frames, stop)

    def _apply(self, frames: list[bytes], stop: Stop | None) -> None:
        if frames:
            self.websocket.out += frames
        if stop is not None:
            self._end(stop.reason, stop.code, stop.text)

    def _crashed(self, name: str, error: BaseException) -> None:
        logger.error("%s: %s raised, closing with 1011", self._peer(), name, exc_info=error)
        self._end(("error", error), 1011)

    # The end.

    def _end(self, reason: Reason, code: int | None = None, text: str = "") -> None:
        """The one way out: close frame, ``terminate``, then the phase in which the rest of the goodbye happens.

        Args:
            code: Close code to send; ``None`` if the peer cannot be reached any more.
        """
        if self.phase >= Phase.CLOSING:
            return
        self.phase = Phase.CLOSING
        self.reason = reason
        websocket = self.websocket
        if code is not None:
            websocket.out.append(close_frame(code, text))
        websocket.closed = True
        if self._mailbox is not None:
            self._mailbox.shut()
        self._waiter.flush()
        if self._initialised:
            self._call_terminate(reason)
        if code is None:
            self.phase = Phase.CLOSED
        elif reason == "remote" or (isinstance(reason, tuple) and isinstance(reason[1], ProtocolError)):
            self.phase = Phase.DRAINING  # nothing more to be understood from this peer

    def _call_terminate(self, reason: Reason) -> None:
        self._initialised = False  # before the call: whatever happens in it, it is the only one
        if self._terminate is None:
            return
        try:
            self._terminate(reason, self._state)
        except _KILLS:
            raise
        except BaseException as error:
            logger.error("%s: terminate raised", self._peer(), exc_info=error)

    def _refuse(self, error: ProtocolError) -> None:
        logger.warning("%s: %s, closing with %d", self._peer(), error, error.code)
        self._end(("error", error), error.code, str(error)[:100])

    def _await_close(self) -> bool:
        """CLOSING: look for the peer's close frame in what still comes. Callbacks are over."""
        if self._deadline == _NEVER:
            self._set_deadline()
        websocket, waiter = self.websocket, self._waiter
        try:
            for _ in range(BATCH):
                item = websocket.reader.next_item()
                if item is None:
                    break
                if item[0] == CLOSE:
                    websocket.control(item)
                    self.phase = Phase.DRAINING
                    return True
            else:
                return True
        except ProtocolError:
            self.phase = Phase.DRAINING
            return True
        if not waiter.readable:
            return False
        received = websocket.fill()
        waiter.readable = received > 0
        if received == 0:
            self.phase = Phase.CLOSED
        return received > 0

    def _drain(self) -> bool:
        """DRAINING: close our side, then drop what comes until the peer has closed its own."""
        if self._discarded == 0:
            self._discarded = 1
            self._set_deadline()
            self.websocket.half_close()
        received = self.websocket.discard()
        self._waiter.readable = False
        self._discarded += max(received, 0)
        if received == 0 or self._discarded > DISCARD:
            self.phase = Phase.CLOSED
        return received > 0

    # Deadlines: recorded as times, looked at when the one timer fires.

    def _remind(self) -> None:
        """Have the timer fire when the next deadline may be due."""
        waits = [seconds for seconds in (self._options.timeout, self._options.ping_interval) if seconds is not None]
        if waits:
            self._waiter.remind(min(waits))

    def _set_deadline(self) -> None:
        self._deadline = monotonic() + self._options.close_timeout
        self._waiter.remind(self._options.close_timeout)

    def _due(self) -> float:
        """When the connection ends unless something happens."""
        if self._waiter.stalled is not None:
            return self._waiter.stalled + self._options.send_timeout
        if self.phase is not Phase.OPEN:
            return self._deadline
        if self._options.timeout is None or not self._waiter.parked:
            return _NEVER  # a callback is running: its time is not the peer's
        return self._heard + self._options.timeout

    def _tick(self) -> None:
        """Called in the hub when the timer fires: ping, wake the greenlet for a deadline, or wait for the next."""
        now, due = monotonic(), self._due()
        if now >= due:
            self._alarm = True
            self._waiter.wake()
            return
        wait = due - now
        if self.phase is Phase.OPEN:
            wait = min(wait, self._keep_alive(now))
            if not self._waiter.parked and self._options.timeout is not None:
                wait = min(wait, self._options.timeout)
        if wait < _NEVER:
            self._waiter.remind(wait)

    def _keep_alive(self, now: float) -> float:
        """Send a ping if it is time. Return the seconds until the next may be."""
        interval = self._options.ping_interval
        if interval is None or self._waiter.stalled is not None:
            return _NEVER
        wait = max(self._heard, self._pinged) + interval - now
        if wait > 0:
            return wait
        self._pinged = now
        self.websocket.out.append(_KEEPALIVE_PING)
        self._waiter.flush()
        return interval

    def _on_alarm(self) -> None:
        """A deadline was due when the timer fired. Is it still?"""
        waiter = self._waiter
        if self.phase is Phase.OPEN and waiter.stalled is None:
            self._on_silence()
        elif monotonic() < self._due():
            self._tick()
        elif waiter.stalled is not None:
            self.websocket.lost = True
            self._end(("error", "send timeout"))
            self.phase = Phase.CLOSED
        else:
            while self._drain() and self.phase < Phase.CLOSED:
                pass
            self.phase = Phase.CLOSED

    def _on_silence(self) -> None:
        """Nothing was handled for ``timeout`` seconds; but bytes that came while the whole process was busy do count."""
        self._waiter.readable = True
        self._receive()
        if self.phase is not Phase.OPEN:
            return
        if monotonic() < self._heard + (self._options.timeout or _NEVER):
            self._tick()
        else:
            self._end("timeout", 1002)

    # What others may ask for, from any greenlet and any thread.

    @property
    def mailbox(self) -> Mailbox:
        """This connection's mailbox, made when first asked for (by `current`, in the connection's own greenlet)."""
        if self._mailbox is None:
            self._mailbox = Mailbox(self, self._options.max_mailbox)
            if self.phase >= Phase.CLOSING:
                self._mailbox.shut()
        return self._mailbox

    def wake(self) -> None:
        """Look into the mailbox soon."""
        self._waiter.wake()

    def call_soon(self, function: Callable[..., object], *args: object) -> None:
        """Have the hub call a function."""
        self._waiter.call_soon(function, *args)

    def start_timer(self, seconds: float, function: Callable[[], object]) -> Any:
        """Start a timer of the hub and return its watcher. Only from the hub's thread."""
        return self._waiter.start_timer(seconds, function)

    def push(self, frames: list[bytes]) -> bool:
        """Write frames behind what waits already, at once if nothing does. ``False`` if too many are waiting."""
        if not self._waiter.on_owner_thread():
            return self._push_from_thread(frames)
        out = self.websocket.out
        if len(out) + len(frames) > self._options.max_mailbox:
            self.overflow()
            return False
        behind = bool(out)
        out += frames
        if not behind:
            self._waiter.flush()
        return True

    def _push_from_thread(self, frames: list[bytes]) -> bool:
        if len(self._pushed) >= self._options.max_mailbox:
            self.overflow()
            return False
        self._pushed.append(frames)
        self._waiter.call_soon(self._take_pushed)
        return True

    def _take_pushed(self) -> None:
        frames = self._pushed.pop(0)
        if self.phase < Phase.CLOSING and self._doom is None:
            self.push(frames)

    def overflow(self) -> None:
        """End: more was put in than may wait."""
        self.end_soon(("error", "mailbox overflow"), 1008, "mailbox overflow")

    def end_soon(self, reason: Reason, code: int, text: str = "") -> None:
        """End as soon as the running callback, if any, has returned."""
        if self._doom is None:
            self._doom = reason, code, text
            self._waiter.wake()

    def _peer(self) -> str:
        environ = self.websocket.environ
        return f"{environ.get('REMOTE_ADDR') or 'unix:'} {environ.get('PATH_INFO', '')!r}"
