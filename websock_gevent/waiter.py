"""Where a connection waits: for its socket, for a wake-up, and for the hub to send what is left.

Owns the io watchers, the greenlet that is resumed and the one timer of a connection. Refuses to know why anybody is
woken: it calls back. The greenlet is switched to straight from the watcher's callback; there is no queue and no second
greenlet in between. It either waits in `Waiter.wait`, or there is none while nothing is to be done (`Waiter.rest`), and
whoever would resume it asks for a new one to be lent.

Rules that keep it fast and right:
- The read watcher stays started while its greenlet works, and is stopped when it fires for one that is not parked, or
  is patient and has not looked yet (it is level-triggered and would spin). Most messages so cost no change of it.
- ``_parked`` is cleared by whoever resumes, so two wake-ups cannot switch twice, and a greenlet that is blocked
  elsewhere (in a handler) is never resumed from here. A wake-up without reason does no harm: whoever waits looks for
  work and parks again.
- While output is waiting for the peer to read, nothing is received: a slow reader holds back its own requests.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol

import gevent
from gevent import monkey
from gevent.exceptions import BlockingSwitchOutError
from greenlet import greenlet

from .websocket import WebSocket

__all__ = ["Waiter"]

# The real thread's id, whether or not the process is patched.
_get_ident: Callable[[], int] = monkey.get_original("_thread", "get_ident")
# The hub's own method looks for a ``switch_out`` of whoever waits first, each time.
_switch_to: Callable[[Any], object] = greenlet.switch

_READ, _WRITE = 1, 2
#: Looks, in ``send_timeout`` seconds, at whether the peer takes something: it is given up at most one of them late.
STALL_LOOKS = 4


class Lender(Protocol):
    """Who has greenlets for a connection that has none of its own."""

    def lend(self, error: BaseException | None) -> None:
        """Have a greenlet run that says `Waiter.belong`, and raises there what is given, if anything."""


class Waiter:
    """The joint between one connection and gevent's hub. Made in, and bound to, the thread of its connection.

    Args:
        websocket: Whose socket is waited for, and whose output is sent.
        send_timeout: Seconds after which ``remind`` tells of output that is stuck.
        tick: Called in the hub when the time given to `remind` has come. Must not block or raise.

    Attributes:
        readable: The socket has something to receive.
        patient: Who has been told of that is not told again before it has looked: it may have no room.
        stalled: When (`time.monotonic`) the peer last took bytes, while output is waiting for it; else ``None``.
    """

    __slots__ = (
        "_flushing",
        "_greenlet",
        "_held",
        "_hub",
        "_lender",
        "_loop",
        "_parked",
        "_pushed",
        "_reader",
        "_reading",
        "_remind_at",
        "_resuming",
        "_send_timeout",
        "_thread",
        "_tick",
        "_timer",
        "_websocket",
        "_writer",
        "patient",
        "readable",
        "stalled",
    )

    def __init__(self, websocket: WebSocket, send_timeout: float, tick: Callable[[], None]) -> None:
        self._hub: Any = gevent.get_hub()
        self._loop: Any = self._hub.loop
        self._thread: int = self._hub.thread_ident
        self._greenlet: Any = None
        self._lender: Lender | None = None
        self._parked = self._resuming = self._flushing = self._reading = False
        self._websocket = websocket
        self._pushed: list[bytes] = []
        self._reader: Any = self._loop.io(websocket.fileno(), _READ)
        self._writer: Any = None
        self._send_timeout = send_timeout
        self._held = 0  # bytes in the kernel when ``stalled`` was set
        self._tick = tick
        self._timer: Any = None
        self._remind_at = 0.0
        self.readable = self.patient = False
        self.stalled: float | None = None

    def belong(self) -> None:
        """Note that the calling greenlet is the connection's from now on.

        Raises:
            gevent.exceptions.BlockingSwitchOutError: it is the hub, which cannot wait.
        """
        caller = gevent.getcurrent()
        if caller is self._hub:
            raise BlockingSwitchOutError("a callback of the event loop cannot wait for a WebSocket: spawn a greenlet")
        self._greenlet = caller
        self._parked = False

    def rest(self, lender: Lender) -> None:
        """Let the greenlet go, which must end now. Returns at once.

        Args:
            lender: Asked, in the hub, when there is a reason to look.
        """
        self._greenlet = None
        self._lender = lender
        if not self._reading:
            self._watch()
        self._parked = True

    def kill(self) -> None:
        """Throw `GreenletExit` into the connection's greenlet, wherever it waits. Only from the hub."""
        self._parked = False
        if self._greenlet is not None:
            self._greenlet.throw(gevent.GreenletExit)
        elif self._lender is not None:
            self._lender.lend(gevent.GreenletExit())

    @property
    def parked(self) -> bool:
        """Whether nothing is being done: no greenlet is there, or it waits here, and not in a handler."""
        return self._parked

    @property
    def resting(self) -> bool:
        """Whether there is no greenlet; one may `belong`."""
        return self._parked and self._greenlet is None

    def wait(self) -> None:
        """Give way until there is a reason to look: bytes, a wake-up, or output that has gone at last.

        Raises:
            GreenletExit: somebody killed the greenlet; so does anything else thrown into it.
        """
        if not self._reading:
            self._watch()
        self._parked = True
        try:
            _switch_to(self._hub)
        finally:
            self._parked = False

    def _watch(self) -> None:
        self._reading = True
        self._reader.start(self._on_readable)

    def breathe(self) -> None:
        """Let everybody else run once, though there is work left."""
        # A callback would not do: gevent runs fifty of them before it looks at a socket. The timer's turn comes after
        # the sockets that are ready, and one's own is not a reason for a second turn.
        timer = self._loop.timer(0, priority=-1)
        timer.start(self._resume)
        try:
            while timer.active:  # a callback may be on its way to whoever was here before
                self._resuming = True
                self.wait()
        finally:
            self._resuming = False
            timer.stop()
            timer.close()

    def is_mine(self) -> bool:
        """Tell whether the calling greenlet is one of the connection's thread. (What broadcasts use asks by itself.)"""
        return _get_ident() == self._thread

    def call_soon(self, function: Callable[..., object], *args: object) -> None:
        """Have the hub call a function; from any thread."""
        if self.is_mine():
            self._loop.run_callback(function, *args)
        else:
            self._call_from_afar(function, *args)

    def _call_from_afar(self, function: Callable[..., object], *args: object) -> None:
        with suppress(ValueError):  # its thread has ended, and the hub with it
            self._loop.run_callback_threadsafe(function, *args)

    def wake(self) -> None:
        """Have the greenlet look for work, if it is parked; from any greenlet and any thread."""
        if _get_ident() == self._thread:
            self._wake()
        else:
            self._call_from_afar(self._wake)

    def _wake(self) -> None:
        if self._parked and not self._resuming:
            self._resuming = True
            self._loop.run_callback(self._resume)

    def _resume(self) -> None:
        self._resuming = False
        if self._parked:
            self._parked = False
            if self._greenlet is not None:
                self._greenlet.switch()
            elif self._lender is not None:
                self._lender.lend(None)

    def _on_readable(self) -> None:
        known, self.readable = self.readable and self.patient, True
        if known or not self._parked or self.stalled is not None:
            self._reading = False
            self._reader.stop()
        elif not self._resuming:
            self._resume()

    def flush(self) -> None:
        """Send what is waiting. What the kernel does not take now is sent from the hub as the peer reads."""
        if self.stalled is None and not self._websocket.flush():
            self.hold()

    def hold(self) -> None:
        """The kernel does not take what is waiting: send it from the hub as the peer reads. Not while that is done."""
        self._note_stall()
        self._writer = self._loop.io(self._websocket.fileno(), _WRITE)
        self._writer.start(self._on_writable)
        self.remind(self._send_timeout / STALL_LOOKS)

    def push(self, frames: list[bytes], limit: int) -> bool:
        """Write frames behind those that wait, at once if none do; from any greenlet and any thread.

        Returns:
            ``False`` if more than ``limit`` frames would wait; none of these is written then.
        """
        if _get_ident() != self._thread:
            if len(self._pushed) + len(self._websocket.out) + len(frames) > limit:
                return False
            self._pushed += frames
            self._call_from_afar(self._push_next)
            return True
        out = self._websocket.out
        if len(out) + len(frames) > limit:
            self.flush()  # what waits may only wait for its turn, not for the peer
            if len(out) + len(frames) > limit:
                return False
        idle = not out
        out += frames
        if idle:
            self.flush()
        return True

    def _push_next(self) -> None:
        """Write what another thread has pushed. It was counted there, so that a busy hub cannot pile it up."""
        count = len(self._pushed)  # more may come meanwhile
        frames = self._pushed[:count]
        del self._pushed[:count]
        if frames and self._reader is not None and not self._websocket.closed:
            self.push(frames, sys.maxsize)

    def flush_soon(self) -> None:
        """Send what is waiting as soon as the running greenlet gives way."""
        if not self._flushing:
            self._flushing = True
            self._loop.run_callback(self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = False
        if self._reader is not None:
            self.flush()

    def _on_writable(self) -> None:
        if self._websocket.flush():
            self._stop_writing()
            self._wake()
        else:
            self._note_stall()

    def _note_stall(self) -> None:
        self.stalled = monotonic()
        self._held = self._websocket.unacknowledged()

    def look(self) -> None:
        """If the peer has taken something since the last look, the wait for it begins anew."""
        held = self._websocket.unacknowledged()
        if held < self._held:
            self.stalled = monotonic()
        self._held = held

    def gives_up(self) -> bool:
        """Tell whether the peer has taken nothing for ``send_timeout`` seconds."""
        self.look()
        return self.stalled is not None and monotonic() >= self.stalled + self._send_timeout

    def _stop_writing(self) -> None:
        self.stalled = None
        if self._writer is not None:
            self._writer.stop()
            self._writer.close()
            self._writer = None

    def remind(self, seconds: float) -> None:
        """Have ``tick`` called after so many seconds at the latest. One timer serves all deadlines of a connection."""
        at = monotonic() + seconds
        if self._timer is not None:
            if self._remind_at <= at:
                return
            self._stop_timer()
        self._remind_at = at
        self._timer = self.start_timer(seconds, self._on_timer)

    def start_timer(self, seconds: float, function: Callable[[], object]) -> Any:
        """Start another timer and return its watcher, which the caller stops and closes. Only from the hub's thread."""
        timer = self._loop.timer(seconds)
        timer.start(function)
        return timer

    def _on_timer(self) -> None:
        self._stop_timer()
        self._tick()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def close(self) -> None:
        """Give the watchers back; must come before the socket is closed. Who waits still is resumed by `wake`."""
        if self._reader is not None:
            self._reader.stop()
            self._reader.close()
            self._reader = None
        self._stop_writing()
        self._stop_timer()
        if not self._parked:
            self._greenlet = None
        self._tick, self._lender = _nothing, None  # no cycle: unsent frames and half a message are freed at once


def _nothing() -> None:
    """A connection that has ended has no deadlines."""
