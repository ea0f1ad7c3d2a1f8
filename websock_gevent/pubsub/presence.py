"""Who of this process's connections is present on which topic, as they have said themselves.

Owns one table. The embedded backend needs no more; the one for Redis keeps its part of the cluster's presence here, to
take it back when a connection ends and to say it again when the server has forgotten. Knows neither.
"""

from __future__ import annotations

from typing import NamedTuple

from ..locks import new_lock
from ..mailbox import Mailbox

__all__ = ["Presence", "Tracked"]


class Tracked(NamedTuple):
    """One connection is present under a key.

    Attributes:
        topic: Where.
        mailbox: Whose.
        key: The key.
        text: ``[key, meta]`` as JSON.
    """

    topic: str
    mailbox: Mailbox
    key: str
    text: str


class Presence:
    """The table. May be used from any greenlet and any thread."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._by_mailbox: dict[Mailbox, dict[tuple[str, str], Tracked]] = {}
        self._by_topic: dict[str, dict[tuple[Mailbox, str], Tracked]] = {}

    def __len__(self) -> int:
        """Count what is held: topics and mailboxes."""
        return len(self._by_topic) + len(self._by_mailbox)

    def put(self, tracked: Tracked) -> Tracked | None:
        """Enter something. Return what it replaces: the same mailbox, topic and key."""
        topic, mailbox, key, _ = tracked
        with self._lock:
            before = self._by_topic.setdefault(topic, {}).get((mailbox, key))
            self._by_topic[topic][mailbox, key] = tracked
            self._by_mailbox.setdefault(mailbox, {})[topic, key] = tracked
        return before

    def take(self, topic: str, mailbox: Mailbox, key: str) -> Tracked | None:
        """Remove something, and return it if it was there."""
        with self._lock:
            return self._take(topic, mailbox, key)

    def drop(self, mailbox: Mailbox) -> list[Tracked]:
        """A mailbox has ended: remove what it has, and return that."""
        with self._lock:
            taken = [self._take(topic, mailbox, key) for topic, key in tuple(self._by_mailbox.get(mailbox, ()))]
        return [tracked for tracked in taken if tracked is not None]

    def restore(self, tracked: Tracked, before: Tracked | None) -> None:
        """Take `put` back, unless something else has been put there since."""
        topic, mailbox, key, _ = tracked
        with self._lock:
            if self._by_topic.get(topic, {}).get((mailbox, key)) is not tracked:
                return
            if before is None:
                self._take(topic, mailbox, key)
            else:
                self._by_topic[topic][mailbox, key] = self._by_mailbox[mailbox][topic, key] = before

    def now(self, tracked: Tracked) -> Tracked | None:
        """Return what is there now in the place of something that is or was entered."""
        return self._by_topic.get(tracked.topic, {}).get((tracked.mailbox, tracked.key))

    def of(self, topic: str) -> list[Tracked]:
        """Return who is present on a topic."""
        with self._lock:
            return list(self._by_topic.get(topic, {}).values())

    def all(self) -> list[Tracked]:
        """Return everything."""
        with self._lock:
            return [tracked for held in self._by_mailbox.values() for tracked in held.values()]

    def _take(self, topic: str, mailbox: Mailbox, key: str) -> Tracked | None:
        held = self._by_mailbox.get(mailbox, {})
        tracked = held.pop((topic, key), None)
        if tracked is None:
            return None
        if not held:
            del self._by_mailbox[mailbox]
        present = self._by_topic[topic]
        del present[mailbox, key]
        if not present:
            del self._by_topic[topic]
        return tracked
