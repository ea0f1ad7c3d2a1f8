"""PubSub within one process: no service, no thread, nothing to configure.

Owns the kept messages of each topic and their order. A message is delivered by whoever publishes it, unless another
thread is just delivering on that topic, which then takes this one along: so all subscribers see one order, and no lock
is held meanwhile. Refuses to know other processes: none can be reached.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from itertools import count

from ..locks import new_lock
from ..mailbox import Mailbox
from .backend import Down, Settings
from .entries import NOWHERE, Entry, Kind, Replay, gap, position
from .presence import Presence, Tracked
from .registry import Registry, Topic

__all__ = ["Embedded"]


class _Log:
    """The kept messages of one topic, and those that wait to be delivered."""

    __slots__ = ("before", "busy", "entries", "published", "waiting")

    def __init__(self, keep: int) -> None:
        self.entries: deque[Entry] = deque(maxlen=keep)
        self.before = NOWHERE  # the position in front of the oldest
        self.waiting: deque[Entry] = deque()
        self.busy = False
        self.published = 0.0

    def append(self, entry: Entry) -> None:
        if len(self.entries) == self.entries.maxlen:
            self.before = self.entries[0].position
        self.entries.append(entry)
        self.waiting.append(entry)
        self.published = time.monotonic()


class Embedded:
    """The backend of one process; see `Backend`."""

    def __init__(self, settings: Settings, registry: Registry, down: Down) -> None:
        self._settings = settings
        self._registry = registry
        self._down = down
        self._lock = new_lock()
        self._logs: OrderedDict[str, _Log] = OrderedDict()  # the one published to last is the last
        self._epoch = time.time_ns() // 1000  # tells ids of this process's life from those of an earlier one
        self._numbers = count(1)
        self.presence = Presence()

    def publish(self, topic: str, text: str, sender: str) -> str:
        """Deliver to all subscribers, and keep."""
        with self._lock:
            log, id_ = self._keep(topic, "message", text, sender)
        self._deliver(log)
        return id_

    def _keep(self, topic: str, kind: Kind, text: str, sender: str = "") -> tuple[_Log, str]:
        """Put an entry in its place, under the lock. Return where, and its id."""
        self._expire()
        log = self._logs.get(topic)
        if log is None:
            log = self._logs[topic] = _Log(self._settings.keep)
        self._logs.move_to_end(topic)
        entry = Entry(topic, kind, f"{self._epoch}-{next(self._numbers)}", text, sender)
        log.append(entry)
        return log, entry.id

    def _expire(self) -> None:
        limit = time.monotonic() - self._settings.age
        while self._logs:
            name, log = next(iter(self._logs.items()))
            if log.published > limit or log.busy:
                break
            del self._logs[name]

    def _deliver(self, log: _Log) -> None:
        while True:
            with self._lock:
                if log.busy or not log.waiting:
                    return
                log.busy = True
                entry = log.waiting.popleft()
            try:
                topic = self._registry.get(entry.topic)
                if topic is not None:
                    topic.deliver(entry)
            finally:
                log.busy = False

    def replay(self, topic: str, since: str) -> Replay:
        """Return what is kept behind an id."""
        known = position(since)
        with self._lock:
            self._expire()
            log = self._logs.get(topic)
            entries = tuple(log.entries) if log is not None else ()
            before = log.before if log is not None else NOWHERE
        later = [entry for entry in entries if known is None or entry.position > known]
        if known not in (NOWHERE, before) and not any(entry.position == known for entry in entries):
            later.insert(0, gap(topic))
        return Replay(later, entries[-1].position if entries else NOWHERE)

    def join(self, topic: Topic) -> None:
        """Nothing to do: the registry is looked at when something is published."""

    def leave(self, topic: Topic) -> None:
        """Nothing to do."""

    def send(self, address: str, text: str) -> bool:
        """No other process can be reached."""
        return False

    def monitor(self, address: str) -> None:
        """Nobody is there."""
        self._down(address, None)

    def demonitor(self, address: str) -> None:
        """Nothing to do."""

    def track(self, tracked: Tracked) -> None:
        """Enter, and tell the topic."""
        with self._lock:
            before = self.presence.put(tracked)
            if before is not None and before.text == tracked.text:
                return
            log, _ = self._keep(tracked.topic, "join", tracked.text)
            if before is not None:
                self._keep(tracked.topic, "leave", before.text)
        self._deliver(log)

    def untrack(self, topic: str, mailbox: Mailbox, key: str) -> None:
        """Remove, and tell the topic."""
        with self._lock:
            gone = self.presence.take(topic, mailbox, key)
            if gone is None:
                return
            log, _ = self._keep(topic, "leave", gone.text)
        self._deliver(log)

    def list(self, topic: str) -> list[str]:
        """Return who is present."""
        return [tracked.text for tracked in self.presence.of(topic)]

    def end(self, mailbox: Mailbox) -> None:
        """Remove all that it has, and tell the topics."""
        with self._lock:
            logs = [self._keep(gone.topic, "leave", gone.text)[0] for gone in self.presence.drop(mailbox)]
        for log in logs:
            self._deliver(log)

    def flush(self, timeout: float) -> bool:
        """Nothing waits."""
        return True

    def close(self, seconds: float) -> None:
        """Nothing to do."""
