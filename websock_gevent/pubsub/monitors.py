"""Who wants to know of whose end, across processes: addresses on one side, mailboxes of this process on the other.

Owns one table. Refuses to know how the news gets here.
"""

from __future__ import annotations

from typing import Any

from ..locks import new_lock
from ..mailbox import Mailbox

__all__ = ["Monitors", "told"]


class Monitors:
    """The table. May be used from any greenlet and any thread."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._watchers: dict[str, set[Mailbox]] = {}
        self._watched: dict[Mailbox, set[str]] = {}

    def __len__(self) -> int:
        """Count what is held: addresses and mailboxes."""
        return len(self._watchers) + len(self._watched)

    def add(self, address: str, watcher: Mailbox) -> None:
        """A mailbox wants to know."""
        with self._lock:
            self._watchers.setdefault(address, set()).add(watcher)
            self._watched.setdefault(watcher, set()).add(address)

    def remove(self, address: str, watcher: Mailbox) -> bool:
        """A mailbox does not want to know any more. Return whether nobody here does."""
        with self._lock:
            self._remove(address, watcher)
            return address not in self._watchers

    def drop(self, watcher: Mailbox) -> list[str]:
        """A mailbox has ended. Return the addresses that nobody here wants to know of any more."""
        with self._lock:
            watched = tuple(self._watched.get(watcher, ()))
            for address in watched:
                self._remove(address, watcher)
            return [address for address in watched if address not in self._watchers]

    def _remove(self, address: str, watcher: Mailbox) -> None:
        _discard(self._watchers, address, watcher)
        _discard(self._watched, watcher, address)

    def down(self, address: str, reason: Any) -> None:
        """Tell of an end, once.

        Args:
            reason: As `told` shows it; ``None`` if there is no such connection.
        """
        with self._lock:
            watchers = tuple(self._watchers.get(address, ()))
            for watcher in watchers:
                self._remove(address, watcher)
        for watcher in watchers:
            watcher.send(("down", address, ("error", "no such connection") if reason is None else told(reason)))


def told(reason: Any) -> Any:
    """Return why a connection ended as other processes are told: what is no text in it, described."""
    if isinstance(reason, str):
        return reason
    detail = reason[1]
    text = detail if isinstance(detail, str) else f"{type(detail).__name__}: {detail}"
    return "error", text.encode(errors="replace").decode()  # half a surrogate pair, from a client perhaps, is no text


def _discard(table: dict[Any, set[Any]], key: object, value: object) -> None:
    held = table.get(key, set())
    held.discard(value)
    if not held:
        table.pop(key, None)
