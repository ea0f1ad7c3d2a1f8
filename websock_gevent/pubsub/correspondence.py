"""What processes say to each other: messages for single connections, and the news of their end.

Owns this process's inbox and what is due to whom: which connections of others are monitored here, and which of ours
are monitored from elsewhere. An inbox is a stream like a topic's, so what is sent survives a loss of the connection.
Refuses to know topics and presence.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from itertools import count
from typing import Any

from .. import addresses
from ..locks import new_lock
from ..mailbox import Mailbox
from .backend import Down
from .entries import Entry, encode
from .monitors import told

__all__ = ["Correspondence"]

logger = logging.getLogger("websock_gevent")


class _Delivered:
    """The names of messages delivered lately. Every PubSub of a process reads the one inbox it has on a server."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._names: dict[str, None] = {}

    def is_new(self, name: str, remembered: int) -> bool:
        with self._lock:
            if name in self._names:
                return False
            self._names[name] = None
            if len(self._names) > remembered:
                del self._names[next(iter(self._names))]
            return True


_delivered = _Delivered()
#: For the names of what this process sends.
_numbers = count(1)


def _after_fork() -> None:
    global _delivered
    _delivered = _Delivered()  # a thread of the parent may hold the lock


os.register_at_fork(after_in_child=_after_fork)


class Correspondence:
    """The correspondence of one process.

    Args:
        process: Its name.
        keep: Messages that may be read again behind a loss of the connection.
        post: Puts JSON into the inbox of a process; returns whether that is there. Blocks.
        errand: Has something that blocks done later.
        down: Told of the end of connections that are monitored here.
    """

    def __init__(
        self,
        process: str,
        keep: int,
        post: Callable[[str, str], bool],
        errand: Callable[[Callable[[], object]], None],
        down: Down,
    ) -> None:
        self._process = process
        self._remembered = 2 * keep
        self._post = post
        self._errand = errand
        self._down = down
        self._lock = new_lock()
        self._watched: dict[str, set[str]] = {}  # process → its connections that are monitored here
        self._unasked: set[str] = set()  # those of them whose process has to be asked again
        self._watching: dict[str, set[str]] = {}  # connection of ours → processes where it is monitored

    def __len__(self) -> int:
        """Count the connections of others that are monitored here."""
        return sum(map(len, self._watched.values()))

    @property
    def processes(self) -> tuple[str, ...]:
        """The processes with connections that are monitored here."""
        with self._lock:
            return tuple(self._watched)

    def receive(self, entry: Entry) -> None:
        """Take what has come."""
        if entry.kind == "gap":
            logger.warning("PubSub: messages that were sent to connections of this process may be lost")
            self.mark_unasked()
            return
        try:
            said = entry.value
        except (ValueError, RecursionError):
            said = None
        match said:
            case ["send", str(name), str(address), message]:
                mailbox = addresses.find(address)
                if mailbox is not None and _delivered.is_new(name, self._remembered):
                    mailbox.send(message)
            case ["monitor", str(address), str(process)]:
                self._watch_for(address, process)
            case ["down", str(address), reason]:
                self.lost(address, tuple(reason) if isinstance(reason, list) else reason)
            case _:
                logger.warning("PubSub: something in the inbox of this process is not ours")

    def send(self, address: str, text: str) -> bool:
        """Send to a connection of another process. Return whether that is there."""
        name = f"{self._process}.{next(_numbers)}"
        return self._post(addresses.process_of(address), f'["send",{encode(name)},{encode(address)},{text}]')

    # We monitor others.

    def monitor(self, address: str) -> None:
        """Ask the process of a connection to tell of its end."""
        with self._lock:
            self._watched.setdefault(addresses.process_of(address), set()).add(address)
        if not self._ask(address):
            self.lost(address, None)

    def _ask(self, address: str) -> bool:
        return self._post(addresses.process_of(address), encode(["monitor", address, self._process]))

    def forget(self, address: str) -> None:
        """The news of a connection's end, should they come, are for nobody."""
        process = addresses.process_of(address)
        with self._lock:
            self._unasked.discard(address)
            watched = self._watched.get(process, set())
            watched.discard(address)
            if not watched:
                self._watched.pop(process, None)

    def lost(self, address: str, reason: Any) -> None:
        """A connection has ended."""
        self.forget(address)
        self._down(address, reason)

    def lost_process(self, process: str) -> None:
        """A process has died."""
        with self._lock:
            watched = tuple(self._watched.get(process, ()))
        for address in watched:
            self.lost(address, ("error", "process lost"))

    def mark_unasked(self) -> None:
        """What was asked may be forgotten, or its answer lost: all are to be asked again."""
        with self._lock:
            self._unasked = {address for watched in self._watched.values() for address in watched}

    def ask_again(self) -> None:
        """Ask whoever is marked, as far as they are there."""
        for address in tuple(self._unasked):
            if self._ask(address):
                self._unasked.discard(address)

    # Others monitor us.

    def _watch_for(self, address: str, process: str) -> None:
        target: Mailbox | None = addresses.find(address)
        if target is None:
            self._errand(lambda: self._post(process, encode(["down", address, None])))
            return
        with self._lock:
            is_first = address not in self._watching
            self._watching.setdefault(address, set()).add(process)
        if is_first:
            target.at_end(self._tell)

    def _tell(self, target: Mailbox, reason: Any) -> None:
        address = target.address
        with self._lock:
            processes = self._watching.pop(address, set())
        text = encode(["down", address, told(reason)])
        for process in processes:
            self._errand(lambda process=process: self._post(process, text))  # type: ignore[misc]
