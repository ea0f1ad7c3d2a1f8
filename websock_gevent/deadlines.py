"""When a connection pings, gives up on a silent peer, or stops waiting for a goodbye.

Owns the times and the decision what is due. Deadlines are recorded, not armed: a received message costs one look at
the clock, and the waiter's one timer, when it fires, finds out whether anything has come meanwhile. Pings are sent
from the hub, so they go on while a callback blocks. Refuses to know what is done about a deadline: it raises an
alarm.
"""

from __future__ import annotations

import os
from time import monotonic

from .frames import PING, frame
from .options import Options
from .waiter import STALL_LOOKS, Waiter
from .websocket import WebSocket

__all__ = ["KEEPALIVE", "NEVER", "Deadlines"]

#: Payload of our pings, by which their pongs are known.
KEEPALIVE = os.urandom(8)
NEVER = float("inf")

_PING = frame(PING, KEEPALIVE)


class Deadlines:
    """The times of one connection, as `time.monotonic` counts them.

    Attributes:
        heard: When the peer's bytes were last handled, leaving out the time that callbacks took.
        alarm: Something is due; whoever steps the connection looks what (`due`).
    """

    __slots__ = ("_fixed", "_options", "_pinged", "_waiter", "_websocket", "alarm", "heard")

    def __init__(self, websocket: WebSocket, options: Options) -> None:
        self._websocket = websocket
        self._options = options
        self._waiter = Waiter(websocket, options.send_timeout, self._tick)
        self._fixed: float | None = NEVER
        self._pinged = self.heard = 0.0
        self.alarm = False

    @property
    def waiter(self) -> Waiter:
        """The waiter whose timer is used, made with the deadlines."""
        return self._waiter

    def begin(self) -> None:
        """The connection is open: from now on silence counts."""
        self._fixed = None
        self._pinged = self.heard = monotonic()
        waits = [seconds for seconds in (self._options.timeout, self._options.ping_interval) if seconds is not None]
        if waits:
            self._waiter.remind(min(waits))

    def pause(self) -> None:
        """Our close frame is out: nothing is due until `fix`, however long ``terminate`` takes."""
        self._fixed = NEVER

    def fix(self, seconds: float) -> None:
        """End the wait after so many seconds, whatever comes in between."""
        self._fixed = monotonic() + seconds
        self._waiter.remind(seconds)

    def due(self) -> float:
        """When something ends unless the peer moves."""
        if self._waiter.stalled is not None:
            return self._waiter.stalled + self._options.send_timeout
        if self._fixed is not None:
            return self._fixed
        return self.heard + self._options.timeout if self._options.timeout is not None else NEVER

    def _tick(self) -> None:
        """Called in the hub when the timer fires."""
        now = monotonic()
        if self._waiter.stalled is not None:
            self._waiter.look()
        # A callback that runs has the connection's greenlet: nobody can act before it has returned.
        busy = self._fixed is None and not self._waiter.parked
        if now >= self.due():
            self.alarm = True
            self._waiter.wake()
        if busy or not self.alarm:
            self.rearm(now, busy)

    def excuse(self, seconds: float) -> None:
        """Callbacks took so long, which is not the peer's silence, unless a ping gave it something to answer."""
        if self._pinged <= self.heard:
            self.heard += seconds

    def rearm(self, now: float, busy: bool = False) -> None:
        """Nothing is due: send a ping if it is time, and have the timer fire for what comes next."""
        wait = (self._options.timeout or NEVER) if busy else self.due() - now
        if self._waiter.stalled is not None:
            wait = min(wait, self._options.send_timeout / STALL_LOOKS)
        if self._fixed is None:
            wait = min(wait, self._keep_alive(now))
        if wait < NEVER:
            self._waiter.remind(wait)

    def _keep_alive(self, now: float) -> float:
        """Send a ping if it is time. Return the seconds until the next may be."""
        interval = self._options.ping_interval
        if interval is None:
            return NEVER
        wait = max(self.heard, self._pinged) + interval - now
        if wait > 0:
            return wait
        self._pinged = now
        if self._waiter.stalled is None:  # else the peer has enough to read
            self._websocket.out.append(_PING)
            self._waiter.flush()
        return interval
