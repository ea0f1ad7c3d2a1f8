"""The connection on which a process listens to Redis.

Owns the socket of one connection and the watch over it: a server that is silent is asked whether it is there, and one
that does not answer has gone, however open the socket looks. Whoever waits here can be woken by any thread. Refuses to
know what comes. Used by one thread, but for `Wakener.wake`.
"""

from __future__ import annotations

import math
import os
import select
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from typing import Any

from ..locks import new_lock
from .client import Client
from .errors import Unavailable

__all__ = ["Channel", "Wakener"]


class Wakener:
    """Ends the wait of one thread, from any other."""

    def __init__(self) -> None:
        self._lock = new_lock()  # a descriptor that is closed may be somebody else's the next moment
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def wake(self) -> None:
        """Wake the thread that waits, or the next time it does."""
        with self._lock, suppress(BlockingIOError):  # it has been woken so often that the pipe is full
            if self._writer >= 0:
                os.write(self._writer, b"x")

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._reader

    def clear(self) -> None:
        """Forget that it was woken."""
        with suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass

    def close(self) -> None:
        """Give the descriptors back."""
        with self._lock:
            os.close(self._writer)
            os.close(self._reader)
            self._writer = -1


class Channel:
    """One connection to the server, connected when it is made.

    Args:
        client: Knows the way.
        wakener: Ends a wait.
        silence: Seconds without a word after which the server is asked; after as many again, it has gone.

    Attributes:
        heard: When (`time.monotonic`) something last came.

    Raises:
        PubSubError: it cannot be reached.
    """

    def __init__(self, client: Client, wakener: Wakener, silence: float) -> None:
        self._client = client
        self._wakener = wakener
        self._silence = silence
        self._connection = client.connection()
        self.heard = monotonic()
        self._asked = 0.0

    def send(self, *command: str) -> None:
        """Send a command.

        Raises:
            Unavailable: the connection is lost.
        """
        with self._client.errors():
            self._connection.send_command(*command)

    def read(self) -> list[Any]:
        """Return what comes next.

        Raises:
            Unavailable: the connection is lost, or nothing comes.
        """
        with self._client.errors():
            response: list[Any] = self._connection.read_response()
        self.heard = monotonic()
        return response

    def pending(self) -> Iterator[list[Any]]:
        """Return all that has come.

        Raises:
            Unavailable: the connection is lost.
        """
        while self._can_read():
            yield self.read()

    def _can_read(self) -> bool:
        with self._client.errors():
            return bool(self._connection.can_read(0))

    def wait(self, until: float) -> None:
        """Wait until something comes, somebody wakes us, it is time (`time.monotonic`), or time to `watch`."""
        due = min(until, max(self.heard, self._asked) + self._silence)
        self._poll(max(0.0, due - monotonic()))

    def _poll(self, seconds: float) -> bool:
        """Wait. Return whether something has come."""
        poll: Any = select.poll()  # not select(): its descriptors end at 1024
        descriptor: int = self._connection._sock.fileno()
        for waited_for in (descriptor, self._wakener.fileno()):
            poll.register(waited_for, select.POLLIN)
        return any(found == descriptor for found, _ in poll.poll(math.ceil(seconds * 1000)))

    def watch(self) -> None:
        """Ask a silent server whether it is there.

        Raises:
            Unavailable: it was asked, and is not.
        """
        now = monotonic()
        if now - self.heard < self._silence:
            return
        if self._asked <= self.heard:
            self._asked = now
            self.send("PING")
        elif now - self._asked >= self._silence and not self._poll(0):  # this process may have been the slow one
            raise Unavailable(f"Redis at {self._client.shown} does not answer")

    def close(self) -> None:
        """Disconnect."""
        with suppress(Exception):
            self._connection.disconnect()
