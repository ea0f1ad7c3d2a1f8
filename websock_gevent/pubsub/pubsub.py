"""`PubSub`: topics, addresses and presence, the same in one process and in many.

Owns what does not depend on the backend: the checks, JSON, whom in this process a message is for, and that everything
a connection holds dies with it. What has to leave the process is the backend's: `embedded` or `redis_backend`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from .. import addresses
from ..locks import new_lock
from ..mailbox import Mailbox, current
from .backend import GOODBYE, Backend, Settings
from .embedded import Embedded
from .ends import Ends
from .entries import decode, encode
from .errors import shown
from .monitors import Monitors
from .presence import Tracked
from .registry import Registry, Subscription

__all__ = ["PubSub"]


#: Who is present on a topic: the metas by key.
Metas = dict[str, list[Any]]
_SCHEMES = ("redis://", "rediss://", "unix://")


class PubSub:
    """Publish and subscribe, for the connections of one process or of many.

    Make one per application, at import time if you like: nothing is connected before it is used, and a fork begins
    anew. All methods may be called from any greenlet and any OS thread; publishing also from processes that serve
    nothing. What is published is carried as JSON by both backends, and refused if JSON cannot carry it. All subscribers
    of a process get the same object: whoever wants to change it makes a copy.

    Args:
        url: ``None`` or empty: embedded, for one process. For many, ``redis://user:password@host:port/db``, ``rediss://``
            (TLS) or ``unix://user:password@/path?db=0``: Redis from 6.2 and ``pip install 'websock-gevent[redis]'``.
            Options of redis-py count (``?ssl_ca_certs=...``), but for those that say how it reads, waits and retries.
        prefix: Begins the names of all keys and channels in Redis. Everybody who shares messages needs the same.
        keep: Messages of each topic that are kept, to be replayed.
        age: Seconds without a message after which a topic's kept messages are dropped. The same in all processes.
        timeout: Seconds to wait for Redis: to connect, for an answer, for a free connection.
        watchdog: Seconds of silence after which Redis is asked whether it is still there; after two, it is not.
        lifetime: Seconds after which a process that shows no sign of life has died: its entries of presence end, and
            who monitors its connections is told, at most 1.5 times as long after its last sign.
        buffer: ``0``: publishing waits for Redis, and raises if it is away. Else so many messages may wait for it:
            publishing never blocks, returns no id, and raises only when the buffer is full.

    Raises:
        TypeError, ValueError: something is not what it should be; the text names it.
        ImportError: there is no ``redis`` package.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        prefix: str = Settings.prefix,
        keep: int = Settings.keep,
        age: float = Settings.age,
        timeout: float = Settings.timeout,
        watchdog: float = Settings.watchdog,
        lifetime: float = Settings.lifetime,
        buffer: int = Settings.buffer,
    ) -> None:
        settings = Settings(prefix, keep, age, timeout, watchdog, lifetime, buffer)
        self._make = _backend(url, settings)
        self._holders = Ends(self._holder_ended)  # who has something here; waited for behind each entry in a table
        self._targets = Ends(self._target_ended)  # those of this process that are monitored
        self._begin()
        self._use()  # checks the address, and is there for the addresses of this process
        _all.add(self)

    def _begin(self) -> None:
        """Start empty: a new process has no connections yet, and must not use those of its parent."""
        self._lock = new_lock()
        self._holders.begin()
        self._targets.begin()
        self._registry = Registry()
        self._monitors = Monitors()
        self._made: Backend | None = None

    def _use(self) -> Backend:
        if self._made is None:
            with self._lock:
                if self._made is None:
                    self._made = self._make(self._registry, self._monitors.down)
        return self._made

    # Topics.

    def subscribe(
        self,
        topic: str,
        mailbox: Mailbox | None = None,
        *,
        push: bool = False,
        ids: bool = False,
        since: str | None = None,
    ) -> None:
        """Have what is published on a topic delivered to a mailbox, until it ends or unsubscribes.

        When this returns, nothing that is published from now on is missed. ``handle_info`` gets each message as it was
        published; with ``ids``, ``("message", topic, id, message)``; and besides ``("gap", topic)`` where messages may
        be missing, ``("join", topic, key, meta)`` and ``("leave", topic, key, meta)`` of presence (with ``ids``, the
        id stands behind the topic). To subscribe again replaces the first subscription.

        Args:
            topic: Any text.
            mailbox: Whose; ``None`` for the connection whose callback is running.
            push: Messages go to the client as JSON text, encoded once for all, past ``handle_info``. With ``ids``,
                gaps, joins and leaves go there as well, each as a JSON list of what ``handle_info`` would get, so
                that all comes in order; without, they go to ``handle_info``.
            ids: Messages come with their ids.
            since: An id that the client has seen last. What was published since is delivered first, nothing twice;
                if that is not kept any more, or the id is none, behind a ``("gap", topic)``. `OLDEST` for all that is
                kept. ``None``: only what comes.

        Raises:
            PubSubError: Redis is away; nothing is subscribed.
            RuntimeError: there is no connection here.
            TypeError, ValueError: topic or ``since`` is not a text.
        """
        _check("topic", topic)
        if since is not None and not isinstance(since, str):
            raise TypeError(f"since is an id as messages carry it, not {since!r}")
        mailbox = _this(mailbox)
        subscription = Subscription(mailbox, push, ids, since is not None)
        found = self._registry.add(topic, subscription)
        self._holders.wait_for(mailbox)
        try:
            self._use().join(found)
            if since is not None:
                subscription.settle(self._use().replay(topic, since))
        except BaseException:
            self.unsubscribe(topic, mailbox)
            raise
        finally:
            if self._registry.get(topic) is not found:  # it has ended meanwhile, too early to know what to leave
                self._use().leave(found)

    def unsubscribe(self, topic: str, mailbox: Mailbox | None = None) -> None:
        """Take `subscribe` back. Does nothing if there is no subscription; what waits already is delivered."""
        _check("topic", topic)
        left = self._registry.remove(topic, _this(mailbox))
        if left is not None:
            self._use().leave(left)

    def broadcast(self, topic: str, message: Any) -> str | None:
        """Publish a message. Subscribers get the messages of one publisher on one topic in their order.

        Returns:
            Its id; ``None`` if it waits in the buffer.

        Raises:
            PubSubError: it was not published, or (`Unavailable`) nobody knows; the class tells the cause.
            TypeError, ValueError: JSON cannot carry it; the text shows what.
        """
        _check("topic", topic)
        return self._use().publish(topic, encode(message), "")

    def broadcast_from(self, topic: str, message: Any, mailbox: Mailbox | None = None) -> str | None:
        """Publish a message to all subscribers but this connection; else as `broadcast`."""
        _check("topic", topic)
        return self._use().publish(topic, encode(message), _this(mailbox).address)

    # Addresses.

    def send(self, address: str, message: Any) -> bool:
        """Send a message to one connection, wherever it is; ``handle_info`` gets it.

        Args:
            address: Its `Mailbox.address`.
            message: What JSON can carry.

        Returns:
            ``False`` if it has ended. ``True`` for a connection of another process says that the process is there.

        Raises:
            PubSubError: it was not sent, or (`Unavailable`) nobody knows.
            TypeError, ValueError: JSON cannot carry it; the text shows what.
        """
        _check("address", address)
        text = encode(message)
        mailbox = addresses.find(address)
        if mailbox is not None:
            return bool(mailbox.send(decode(text)))
        return not self._is_ours(address) and self._use().send(address, text)

    def _is_ours(self, address: str) -> bool:
        return addresses.process_of(address) == addresses.process()

    def monitor(self, address: str, mailbox: Mailbox | None = None) -> None:
        """Have ``("down", address, reason)`` put into a mailbox when another connection ends; at once if it has ended.

        ``reason`` is what ``terminate`` got there, errors as text; ``("error", "no such connection")`` for one that has
        ended before or never was; ``("error", "process lost")`` if its process has died, see ``lifetime``.

        Raises:
            PubSubError: Redis is away; nothing is monitored.
        """
        _check("address", address)
        watcher = _this(mailbox)
        self._monitors.add(address, watcher)
        self._holders.wait_for(watcher)
        target = addresses.find(address)
        if target is not None:
            self._targets.wait_for(target)
        elif self._is_ours(address):
            self._monitors.down(address, None)
        else:
            try:
                self._use().monitor(address)
            except BaseException:
                self.demonitor(address, watcher)
                raise

    def demonitor(self, address: str, mailbox: Mailbox | None = None) -> None:
        """Take `monitor` back. Does nothing if there is none."""
        _check("address", address)
        if self._monitors.remove(address, _this(mailbox)):
            self._use().demonitor(address)

    # Presence.

    def track(self, topic: str, key: str, meta: Any = None, mailbox: Mailbox | None = None) -> None:
        """Say that a connection is present on a topic, until it ends or `untrack` is called.

        Subscribers of the topic get ``("join", topic, key, meta)`` and, in the end, ``("leave", topic, key, meta)``.
        Several connections may be present under one key, each with its meta. To track again with another meta is a
        join with the new one and a leave with the old one.

        Args:
            topic: Where.
            key: Under which name, e.g. a user's.
            meta: What JSON can carry.
            mailbox: Whose; ``None`` for the connection whose callback is running.

        Raises:
            PubSubError: Redis is away; nobody is tracked.
            TypeError, ValueError: JSON cannot carry it; the text shows what.
        """
        _check("topic", topic)
        _check("key", key)
        mailbox = _this(mailbox)
        self._use().track(Tracked(topic, mailbox, key, encode([key, meta])))
        self._holders.wait_for(mailbox)

    def untrack(self, topic: str, key: str, mailbox: Mailbox | None = None) -> None:
        """Take `track` back. Does nothing if nobody is tracked."""
        _check("topic", topic)
        _check("key", key)
        self._use().untrack(topic, _this(mailbox), key)

    def list(self, topic: str) -> Metas:
        """Return who is present on a topic, in all processes: for each key the metas of its connections.

        Raises:
            PubSubError: Redis is away.
        """
        _check("topic", topic)
        present: Metas = {}
        for text in self._use().list(topic):
            key, meta = decode(text)
            present.setdefault(key, []).append(meta)
        return present

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until the buffer is empty. Return ``False`` if it is not within so many seconds."""
        return self._use().flush(timeout)

    def close(self) -> None:
        """Send what waits, disconnect, and forget all subscriptions; for scripts and tests. It may be used again.

        The end of a process does the same, but for a crash, which takes what is in the buffer with it.
        """
        made = self._made
        self._begin()
        if made is not None:
            made.close(GOODBYE)

    # What dies with a connection.

    def _holder_ended(self, mailbox: Mailbox, reason: object) -> None:
        for topic in self._registry.drop(mailbox):
            self._use().leave(topic)
        for address in self._monitors.drop(mailbox):
            self._use().demonitor(address)
        self._use().end(mailbox)

    def _target_ended(self, target: Mailbox, reason: object) -> None:
        self._monitors.down(target.address, reason)


def _backend(url: str | None, settings: Settings) -> Callable[..., Backend]:
    """Return what makes the backend in each process."""
    if not url:
        return lambda registry, down: Embedded(settings, registry, down)
    if not isinstance(url, str) or not url.startswith(_SCHEMES):
        text = shown(url) if isinstance(url, str) else url
        raise ValueError(f"{text!r} is no address of a Redis server; accepted are None and {', '.join(_SCHEMES)}")
    try:
        from .redis_backend import RedisBackend
    except ImportError as error:
        raise ImportError("PubSub over Redis needs the redis package: pip install 'websock-gevent[redis]'") from error
    return lambda registry, down: RedisBackend(url, settings, down)


def _this(mailbox: Mailbox | None) -> Mailbox:
    if mailbox is None:
        return current()
    if not isinstance(mailbox, Mailbox):
        raise TypeError(f"mailbox is what current() returns in a callback, not {mailbox!r}")
    return mailbox


def _check(name: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{name} is a text that is not empty, not {value!r}")
    encode(value)


#: All of this process, which begin anew in a child.
_all: WeakSet[PubSub] = WeakSet()


def _after_fork() -> None:
    for pubsub in tuple(_all):
        pubsub._begin()
        pubsub._use()


os.register_at_fork(after_in_child=_after_fork)
