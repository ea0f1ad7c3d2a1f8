"""The connections of this process: what the signals tell of them, and when somebody looks, what they have done so far.

Owns the table of open connections, their rates, and which of them are shown. Refuses to know pages and other processes.
Whoever looks gets the same summary for a second, however many they are. ::

    {"process": …, "host": …, "pid": …, "connections": …, "opened": …, "rates": [messages in, bytes in, messages out,
     bytes out], "filling": …, "slow": …, "drain": [connections left, seconds left] or null, "rows": [
        {"id": …, "peer": …, "path": …, "handler": …, "callback": …, "running": …, "limit": …, "filling": …, "slow": …,
         "numbers": [seconds, messages waiting, bytes unsent, slowest callback, and the four rates]}]}
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from heapq import nlargest
from itertools import count
from operator import itemgetter
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import gevent

from ... import addresses
from ...drainer import Drainer
from ...locks import new_lock
from ...signals import (
    ConnectionStarted,
    ConnectionStopped,
    DrainStarted,
    SoFar,
    connection_started,
    connection_stopped,
    drain_started,
)
from ...websocket import WebSocket

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["NUMBERS", "Watch", "interesting"]

#: How many numbers a connection has; each is an order in which the first are shown.
NUMBERS = 8
#: Seconds for which a summary is good. Less than a second, so that who asks each second gets a new one.
FRESH = 0.9
#: Part of its limit from which a mailbox fills, and seconds from which a callback is slow.
FILLING, SLOW = 0.1, 0.5
#: Connections that are asked in a row.
BATCH = 256
#: Characters of a path or a name that are shown.
MOST_TEXT = 200

T = TypeVar("T")


def interesting(rows: Sequence[T], most: int, numbers: Callable[[T], Sequence[float]]) -> list[T]:
    """Choose what is shown: of each order the first ones, as many of each; then others, up to ``most``."""
    if len(rows) <= most:
        return list(rows)
    chosen: dict[int, T] = {}
    for order in map(itemgetter, range(NUMBERS)):
        first = nlargest(most // NUMBERS, rows, key=lambda row, order=order: order(numbers(row)))  # type: ignore[misc]
        chosen.update((id(row), row) for row in first)
    for row in rows:
        if len(chosen) >= most:
            break
        chosen.setdefault(id(row), row)
    return list(chosen.values())


class _Watched:
    """One connection."""

    __slots__ = ("_at", "_began", "_event", "_number", "_running", "_slowest", "callback", "last", "numbers", "running")

    def __init__(self, event: ConnectionStarted, number: int) -> None:
        self._event = event
        self._number = number
        self._began = self._at = monotonic()
        self._running: tuple[float, str] | None = None  # since when, and which
        self._slowest = 0.0, ""
        self.last = SoFar()
        self.numbers: tuple[float, ...] = (0.0,) * NUMBERS
        self.callback, self.running = "", False

    def run(self, name: str, call: Callable[[], Any]) -> Any:
        """Around each callback."""
        began = monotonic()
        self._running = began, name
        try:
            return call()
        finally:
            self._running = None
            took = monotonic() - began
            if took > self._slowest[0]:
                self._slowest = took, name

    def sample(self, now: float) -> None:
        """Note what has been done so far, and the rates since the last time."""
        last, self.last = self.last, self._event.so_far()
        elapsed, self._at = max(now - self._at, 1e-3), now
        slowest, self.callback = self._slowest
        running, self.running = self._running, False
        if running is not None and now - running[0] > slowest:
            slowest, self.callback, self.running = now - running[0], running[1], True
        rates = ((self.last[i] - last[i]) / elapsed for i in range(4))
        self.numbers = now - self._began, self.last.waiting, self.last.unsent, slowest, *rates

    @property
    def filling(self) -> bool:
        """Whether its mailbox fills."""
        return self.last.waiting >= max(1, self.last.limit * FILLING)

    @property
    def slow(self) -> bool:
        """Whether it has, or had, a slow callback."""
        return self.numbers[3] >= SLOW

    def row(self, process: str) -> dict[str, Any]:
        """What is shown. Only now the environ is looked at: that of a parked connection is unpacked by it."""
        environ = self._event.environ
        return {
            "id": f"{process}.{self._number}",
            "peer": _shown(_peer(environ)),
            "path": _shown(self._event.path),
            "handler": self._event.handler_name[:MOST_TEXT],
            "callback": self.callback,
            "running": self.running,
            "limit": self.last.limit,
            "filling": self.filling,
            "slow": self.slow,
            "numbers": [round(number, 4) for number in self.numbers],
        }


def _peer(environ: WSGIEnvironment) -> str:
    """Address and port of the client. If ProxyFix has put it there, the port is that of the proxy: left out."""
    address, port = environ.get("REMOTE_ADDR") or "unix:", environ.get("REMOTE_PORT")
    forwarded = environ.get("HTTP_X_FORWARDED_FOR", "").split(",")
    return f"{address}:{port}" if port and address not in map(str.strip, forwarded) else address


def _shown(text: str) -> str:
    """A text of the environ (PEP 3333: bytes, as latin-1), of which a client may have made up anything."""
    read = text.encode("latin-1", "replace").decode("utf-8", "replace")[:MOST_TEXT]
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in read)


class Watch:
    """All connections of this process that are opened from now on.

    Args:
        most: Of them, so many are shown.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = new_lock()
        self._begin()
        for signal, receiver in self._receivers():
            signal.connect(receiver, weak=False)

    def _begin(self) -> None:
        """Start empty, also in a fork: the connections are the parent's."""
        self._pid = os.getpid()
        self._numbers = count(1)
        self._connections: dict[WebSocket, _Watched] = {}
        self._opened = 0
        self._ended = self._totals = [0] * 4
        self._drains: dict[Drainer, float] = {}
        self._at = monotonic() - FRESH
        self._busy = False
        self._summary = self._tell([], [0.0] * 4)

    def _receivers(self) -> list[tuple[Any, Callable[..., None]]]:
        return [
            (connection_started, self._started),
            (connection_stopped, self._stopped),
            (drain_started, self._draining),
        ]

    def stop(self) -> None:
        """Watch nobody any more."""
        for signal, receiver in self._receivers():
            signal.disconnect(receiver)

    def _started(self, sender: object, event: ConnectionStarted) -> None:
        if self._pid != os.getpid():
            self._begin()
        self._opened += 1
        watched = self._connections[event.websocket] = _Watched(event, next(self._numbers))
        event.wrap_callbacks(watched.run)

    def _stopped(self, sender: object, event: ConnectionStopped) -> None:
        watched = self._connections.pop(event.websocket, None)
        if watched is not None:
            watched.sample(monotonic())
            with self._lock:
                self._ended = [before + more for before, more in zip(self._ended, watched.last, strict=False)]

    def _draining(self, sender: Drainer, event: DrainStarted) -> None:
        self._drains[sender] = monotonic() + event.seconds

    def summary(self) -> dict[str, Any]:
        """Tell what there is to see; not to be changed. From any greenlet and any thread; it may give way."""
        now = monotonic()
        with self._lock:
            if self._busy or now - self._at < FRESH:
                return self._summary
            self._busy = True
        try:
            self._summary = self._look(now)
        finally:
            self._busy = False
        return self._summary

    def _look(self, now: float) -> dict[str, Any]:
        ended, connections = self._ended, list(self._connections.values())
        for number, watched in enumerate(connections, 1):
            watched.sample(now)
            if number % BATCH == 0:
                gevent.sleep(0)  # the others of this worker do not wait for all of them
        totals = [before + sum([watched.last[i] for watched in connections]) for i, before in enumerate(ended)]
        elapsed, self._at = now - self._at, now
        rates = [max(0.0, round((new - old) / elapsed, 1)) for new, old in zip(totals, self._totals, strict=True)]
        self._totals = totals
        return self._tell(connections, rates)

    def _tell(self, connections: list[_Watched], rates: list[float]) -> dict[str, Any]:
        process = addresses.process()
        shown = interesting(connections, self._most, lambda watched: watched.numbers)
        return {
            "process": process,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "connections": len(connections),
            "opened": self._opened,
            "rates": rates,
            "filling": sum([watched.filling for watched in connections]),
            "slow": sum([watched.slow for watched in connections]),
            "drain": self._drain(monotonic()),
            "rows": [watched.row(process) for watched in shown],
        }

    def _drain(self, now: float) -> list[float] | None:
        """How many connections are left, and how many seconds; ``None`` if no end has come."""
        if not self._drains:
            return None
        return [sum(map(len, self._drains)), round(max(0.0, *(ends - now for ends in self._drains.values())), 1)]
