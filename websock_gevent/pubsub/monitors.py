"""Who wants to know of whose end, across processes: addresses on one side, mailboxes of this process on the other.

Owns one table. Refuses to know how the news gets here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gevent import monkey

from ..mailbox import Mailbox

__all__ = ["Monitors", "told"]

_new_lock: Callable[[], Any] = monkey.get_original("_thread", "allocate_lock")


class Monitors:
    """The table. May be used from any greenlet and any thread."""

    def __init__(self) -> None:
        self._lock = _new_lock()
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

    def remove(self, address: str, watcher: Mailbox) -> None:
        """A mailbox does not want to know any more."""
        with self._lock:
            self._remove(address, watcher)

    def drop(self, watcher: Mailbox) -> None:
        """A mailbox has ended."""
        with self._lock:
            for address in tuple(self._watched.get(watcher, ())):
                self._remove(address, watcher)

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
    return "error", detail if isinstance(detail, str) else f"{type(detail).__name__}: {detail}"


def _discard(table: dict[Any, set[Any]], key: object, value: object) -> None:
    held = table.get(key, set())
    held.discard(value)
    if not held:
        table.pop(key, None)
