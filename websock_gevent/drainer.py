"""The goodbye of many connections at once: in batches, spread over a share of the time there is, and done before it
ends.

Owns the pace, the settings, and the list of open connections that a server's end closes. Who serves and when that
ends is noticed elsewhere (`hosts`); how one connection ends is its own business. Works from any greenlet and any
thread.

Ten thousand clients that are told to go in one instant come back in one instant, to the workers that have just
started. So they are told little by little, the oldest first; but a few are not kept waiting (``rate``), and whoever has
not ended when the time is nearly over is cut off while its ``terminate`` can still run.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, fields, replace
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Protocol, TypedDict

import gevent
from gevent import GreenletExit, Timeout
from gevent.event import Event

from .signals import DrainFinished, DrainStarted, drain_finished, drain_started, send
from .websock import checked_close

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["DrainOverrides", "DrainSettings", "Drainer", "configure_drain", "settings"]

logger = logging.getLogger("websock_gevent")

#: Seconds between two batches.
INTERVAL = 0.1
#: Seconds that those who were cut off get for their ``terminate``.
LAST_MOMENT = 0.5
NEVER = float("inf")


@dataclass(frozen=True)
class DrainSettings:
    """How the connections of a process are ended with their server; see `configure_drain`.

    Attributes:
        code: Close code of the goodbye (RFC 6455 §7.4); 1012 is "service restart".
        text: Close text, of up to 123 bytes of UTF-8.
        share: Part of the time there is over which the close frames are spread, from 0 (all at once) to 1. The rest is
            for ``terminate`` and the closing handshakes.
        rate: Close frames per second at the least, so that a few connections do not take that long.
        grace: Seconds a server without a ``graceful_timeout`` of its own gives its connections.
        retry_after: Seconds in the ``Retry-After`` header of the 503 that refuses new connections meanwhile.

    Raises:
        TypeError, ValueError: a setting of the wrong type or out of its range; the text names it.
    """

    code: int = 1012
    text: str = ""
    share: float = 0.5
    rate: float = 200.0
    grace: float = 30.0
    retry_after: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", checked_close((self.code, self.text))[1])
        for name, most in (("share", 1.0), ("rate", NEVER), ("grace", NEVER), ("retry_after", NEVER)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"drain setting {name} must be a number, not {value!r}")
            if not 0 <= value <= most or value == NEVER or (name == "retry_after" and value != int(value)):
                raise ValueError(f"drain setting {name} must be from 0 to {most:g}, not {value!r}")


class DrainOverrides(TypedDict, total=False):
    """Single settings, as keyword arguments: for type checkers, which look at a call with it. See `DrainSettings`."""

    code: int
    text: str
    share: float
    rate: float
    grace: float
    retry_after: int


_settings = DrainSettings()


def configure_drain(**changes: Unpack[DrainOverrides]) -> DrainSettings:
    """Change how this process ends its connections: by the names of `DrainSettings`. Returns what holds now.

    Raises:
        TypeError, ValueError: an unknown setting, or one of the wrong type or out of its range; the text names it.
    """
    global _settings
    known = [field.name for field in fields(DrainSettings)]
    for name in changes:
        if name not in known:
            raise TypeError(f"unknown drain setting {name!r}; known are {', '.join(known)}")
    _settings = replace(_settings, **changes)
    return _settings


def settings() -> DrainSettings:
    """Return what holds now."""
    return _settings


class Drainable(Protocol):
    """A connection, as far as it is ended from here; both calls from any thread, neither blocks."""

    def shutdown(self, code: int, text: str) -> None:
        """Say goodbye as soon as the running callback, if any, has returned."""

    def cut(self) -> None:
        """Wait for the peer or for a blocked callback no longer."""

    def abandon(self) -> None:
        """Leave the socket to the process that this one was forked from."""


class Drainer:
    """The open connections that end together, with one server.

    Attributes:
        draining: The end has come, and there is no way back: new connections are to be refused.
        parked: How many of the connections are not known to their server any more.
    """

    def __init__(self) -> None:
        self.draining = False
        self.parked = 0
        self._vigil: Event | None = None
        self._begun = False
        self._connections: dict[Drainable, bool] = {}  # in their order; whether they are parked
        self._told_by = self._ended_by = NEVER

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: Drainable, parked: bool = False) -> None:
        """Note an open connection. One that slipped in behind the beginning of the end is told at once.

        Args:
            parked: Its server does not know it any more.
        """
        self._connections[connection] = parked
        self.parked += parked
        if self.draining:
            connection.shutdown(_settings.code, _settings.text)

    def discard(self, connection: Drainable) -> None:
        """Forget a connection that has ended."""
        self.parked -= self._connections.pop(connection, False)
        if self._vigil is not None and not self.parked:
            self._vigil.set()

    def abandon(self) -> None:
        """Forget all connections: this process is a fork of the one that has them."""
        while self._connections:
            self._connections.popitem()[0].abandon()
        self.parked = 0

    @property
    def has_vigil(self) -> bool:
        """Whether a greenlet is in `hold_vigil`."""
        return self._vigil is not None

    def hold_vigil(self) -> None:
        """Wait in a greenlet that the server knows until no connection is parked, lest the server ends before them.

        Returns at once if another greenlet does so already. Killed, it cuts them off.
        """
        if self._vigil is not None:
            return
        self._vigil = Event()
        try:
            while self.parked:
                self._vigil.clear()
                try:
                    self._vigil.wait()
                except Timeout as left:
                    logger.warning("%r came too late: the view that it was for has returned", left)
        except GreenletExit:
            for connection in [connection for connection, parked in self._connections.items() if parked]:
                connection.cut()
            self._vigil.wait(LAST_MOMENT)
        finally:
            self._vigil = None

    def drain(self, seconds: float, share: float | None = None) -> int:
        """End all connections and wait for it. Called again, it makes haste, if it is given less time.

        Args:
            seconds: The time there is.
            share: Of `DrainSettings`; ``None`` for the one that is set.

        Returns:
            How many had not ended when the time was over.
        """
        now = monotonic()
        self._told_by = min(self._told_by, now + seconds * (_settings.share if share is None else share))
        self._ended_by = min(self._ended_by, now + seconds)
        self.draining = True
        if not self._begun:
            self._begun = True
            send(drain_started, self, DrainStarted(len(self), seconds))
            count, cut = len(self), self._say_goodbye(seconds)
            self._wait()
            send(drain_finished, self, DrainFinished(count, monotonic() - now, cut))
        self._wait()
        return len(self._connections)

    def _wait(self) -> None:
        while self._connections and monotonic() < self._ended_by + LAST_MOMENT:
            gevent.sleep(INTERVAL / 2)

    def _say_goodbye(self, seconds: float) -> int:
        """Tell all connections, and cut off who has not ended in time. Return how many those were."""
        began, count = monotonic(), len(self._connections)
        if count:
            logger.info("draining: %d connections, %.1f seconds", count, seconds)
        waiting = deque(self._connections)
        while waiting and monotonic() < self._ended_by:
            for _ in range(self._batch(len(waiting))):
                waiting.popleft().shutdown(_settings.code, _settings.text)
            gevent.sleep(INTERVAL)
        while self._connections and monotonic() < self._ended_by:
            gevent.sleep(INTERVAL / 2)
        left = tuple(self._connections)
        for connection in left:
            connection.cut()
        if left:
            logger.warning("draining: %d of %d connections cut off after %.1f s", len(left), count, monotonic() - began)
        return len(left)

    def _batch(self, waiting: int) -> int:
        """How many are told now, so that all have been told in time."""
        rounds = max(1, ceil((self._told_by - monotonic()) / INTERVAL))
        return min(waiting, max(ceil(waiting / rounds), ceil(_settings.rate * INTERVAL)))
