"""Who in this process listens to which topic.

Owns the subscriptions, by topic and by mailbox, and the delivery of an entry to those of its topic. Refuses to know
where entries come from. May be used from any greenlet and any thread; the lock is held to find or to change, never
while something is delivered.
"""

from __future__ import annotations

import logging
from typing import Any

from .. import addresses
from ..locks import new_lock
from ..mailbox import Mailbox
from ..signals import PubsubGap, pubsub_gap, send
from .entries import Entry, Position, Replay, gap

__all__ = ["Registry", "Subscription", "Topic"]

logger = logging.getLogger("websock_gevent")


class Subscription:
    """One mailbox's interest in one topic.

    Args:
        mailbox: Who.
        push: Messages go straight to the client.
        ids: Messages come with their ids.
        waiting: Keep what comes until `settle` has delivered what came before.
    """

    __slots__ = ("_lock", "_replayed", "_waiting", "ids", "mailbox", "push")

    def __init__(self, mailbox: Mailbox, push: bool, ids: bool, waiting: bool) -> None:
        self.mailbox = mailbox
        self.push = push
        self.ids = ids
        self._waiting: list[Entry] | None = [] if waiting else None
        self._replayed: Position | None = None  # up to where, as long as entries before that may still come live
        self._lock = new_lock() if waiting else None

    def take(self, entry: Entry) -> bool:
        """Deliver an entry that comes live. Return whether the mailbox was told of a gap."""
        if self._lock is not None:
            with self._lock:
                if self._waiting is not None:
                    self._waiting.append(entry)
                    return False
        return self._put_once(entry)

    def settle(self, replay: Replay) -> None:
        """Deliver what was missed, then what has come meanwhile, none of it twice; from now on, live."""
        assert self._lock is not None
        gaps = []
        with self._lock:  # nothing in here switches or blocks: a mailbox only takes
            for entry in replay.entries:
                gaps += [entry.topic] * self._put(entry)
            self._replayed = replay.end
            for entry in self._waiting or ():
                gaps += [entry.topic] * self._put_once(entry)
            self._waiting = None
        for topic in gaps:
            send(pubsub_gap, topic, PubsubGap(topic, 1))

    def _put_once(self, entry: Entry) -> bool:
        if self._replayed is not None:
            if entry.kind != "gap" and entry.position <= self._replayed:
                return False
            self._replayed = None
        return self._put(entry)

    def _put(self, entry: Entry) -> bool:
        if entry.sender and addresses.find(entry.sender) is self.mailbox:
            return False
        try:
            if self.push and (self.ids or entry.kind == "message"):
                self.mailbox.push(entry.push(self.ids))
            else:
                self.mailbox.send(entry.info(self.ids))
            return entry.kind == "gap"
        except (TypeError, ValueError, RecursionError):
            if not entry.reported:
                entry.reported = True
                logger.warning("PubSub: what was published on %r is not ours; it is told as a gap", entry.topic)
            self.mailbox.send(gap(entry.topic).info(self.ids))
            return True


class Topic:
    """A topic that somebody here listens to.

    Attributes:
        name: Its name.
        feed: For the backend, which keeps there what it must know of the topic.
    """

    __slots__ = ("feed", "name", "subscriptions")

    def __init__(self, name: str) -> None:
        self.name = name
        self.subscriptions: dict[Mailbox, Subscription] = {}
        self.feed: Any = None

    def deliver(self, entry: Entry) -> None:
        """Give an entry to everybody. Who comes or goes meanwhile may or may not get it."""
        told = 0
        for subscription in tuple(self.subscriptions.values()):
            if subscription.take(entry):
                told += 1
        if told:
            send(pubsub_gap, self.name, PubsubGap(self.name, told))


class Registry:
    """All topics that somebody in this process listens to."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._topics: dict[str, Topic] = {}
        self._held: dict[Mailbox, set[str]] = {}

    def __len__(self) -> int:
        """Count what is held: topics and mailboxes."""
        return len(self._topics) + len(self._held)

    def get(self, name: str) -> Topic | None:
        """Return a topic, if somebody listens to it."""
        return self._topics.get(name)

    def add(self, name: str, subscription: Subscription) -> Topic:
        """Let a mailbox listen; what it has asked for before on this topic is replaced."""
        with self._lock:
            topic = self._topics.get(name)
            if topic is None:
                topic = self._topics[name] = Topic(name)
            topic.subscriptions[subscription.mailbox] = subscription
            self._held.setdefault(subscription.mailbox, set()).add(name)
        return topic

    def remove(self, name: str, mailbox: Mailbox) -> Topic | None:
        """Let a mailbox go. Return the topic if nobody listens to it any more because of that."""
        with self._lock:
            held = self._held.get(mailbox, set())
            if name not in held:
                return None
            held.remove(name)
            if not held:
                del self._held[mailbox]
            return self._leave(name, mailbox)

    def drop(self, mailbox: Mailbox) -> list[Topic]:
        """A mailbox has ended. Return the topics nobody listens to any more because of that."""
        with self._lock:
            left = [self._leave(name, mailbox) for name in self._held.pop(mailbox, ())]
        return [topic for topic in left if topic is not None]

    def _leave(self, name: str, mailbox: Mailbox) -> Topic | None:
        topic = self._topics[name]
        del topic.subscriptions[mailbox]
        if topic.subscriptions:
            return None
        return self._topics.pop(name)
