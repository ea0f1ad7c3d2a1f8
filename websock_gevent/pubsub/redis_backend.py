"""PubSub over Redis: many processes, many hosts.

Owns when this process counts as alive, and puts the parts together: it publishes by scripts, and listens through a
`Listener` from the first subscription, presence or address on. What is kept in the server is written down in `scripts`.
"""

from __future__ import annotations

import atexit
import json
import logging
from collections.abc import Callable, Sequence
from itertools import count
from time import monotonic
from typing import Any
from weakref import WeakSet

from .. import addresses
from ..locks import new_lock
from ..mailbox import Mailbox
from . import scripts
from .backend import GOODBYE, Down, Settings
from .buffer import Buffer
from .client import Client, chunks
from .correspondence import Correspondence
from .entries import NOWHERE, Replay, id_of, position
from .errors import PubSubError, Unavailable
from .feeds import Feed, missed
from .listener import Listener
from .presence import Presence, Tracked
from .registry import Topic
from .waiting import aside

__all__ = ["RedisBackend"]

logger = logging.getLogger("websock_gevent")

#: For the names of what this process publishes, through whichever PubSub: a repeated attempt is known by its name.
_numbers = count(1)
#: Those that are in use, though nobody may hold their PubSub any more.
_open: WeakSet[RedisBackend] = WeakSet()


class RedisBackend:
    """The backend of many processes; see `Backend`. One for each process."""

    def __init__(self, url: str, settings: Settings, down: Down) -> None:
        self._settings = settings
        self._lock = new_lock()
        self._client = Client(url, settings.timeout)
        self._kept = [settings.keep, int(settings.age * 1000)]
        self._buffer = Buffer(settings.buffer, self._publish) if settings.buffer else None
        self._process = addresses.process()
        self._correspondence = Correspondence(
            self._process, settings.keep, self._post, lambda errand: self._listener.errand(errand), down
        )
        feed = Feed("", self._key("inbox", self._process), self._correspondence.receive)
        self._listener = Listener(self._client, settings, feed, self._beat, self._is_remembered)
        self._patience: float | None = None  # until when nobody has died: the server has forgotten everybody
        self._sign = 0  # the last sign of life: until when it counts, in ms of the server's time
        self._is_introduced = False
        self._complaint = ""
        self.presence = Presence()
        self._shares = self._process, self._settings.prefix, self._client.where
        _open.add(self)
        addresses.on_name(self._listen)

    def _key(self, kind: str, name: str = "") -> str:
        # Not formatted: an Enum that is a str would not stand there as its value.
        return self._settings.prefix + kind + ":" + name if name else self._settings.prefix + kind

    # Topics.

    def publish(self, topic: str, text: str, sender: str) -> str | None:
        """Publish, or let it wait in the buffer."""
        job = self._key("topic", topic), sender, self._next_name(), text
        if self._buffer is None:
            return self._publish(job)
        self._buffer.put(job)
        return None

    def _next_name(self) -> str:
        return f"{self._process}.{next(_numbers)}"

    def _publish(self, job: tuple[str, str, str, str], again: bool = False) -> str:
        stream, sender, name, text = job
        id_: str = self._once(
            scripts.PUBLISH, [stream], lambda again: [*self._kept, "message", sender, name, again, text], again
        )
        return id_

    def _once(self, code: str, keys: list[str], arguments: Callable[[int], list[Any]], again: bool = False) -> Any:
        """Run a script that publishes. Where a connection breaks, it is tried once more, and known by its name then."""
        try:
            return self._client.script(code, keys, arguments(int(again)))
        except Unavailable as error:
            if again or not error.broken:
                raise
            return self._client.script(code, keys, arguments(1))

    def join(self, topic: Topic) -> None:
        """Subscribe to its channel, if that is not done."""
        with self._lock:
            if topic.feed is None:
                topic.feed = Feed(topic.name, self._key("topic", topic.name), topic.deliver)
        self._listener.follow(topic.feed)

    def leave(self, topic: Topic) -> None:
        """Unsubscribe from its channel."""
        if topic.feed is not None:
            self._listener.unfollow(topic.feed)

    def replay(self, topic: str, since: str) -> Replay:
        """Read what is kept behind an id."""
        known = position(since)
        stream, start = self._key("topic", topic), id_of(known or NOWHERE)
        return missed(topic, known, self._client.script(scripts.REPLAY, [stream], [start]))

    def flush(self, timeout: float) -> bool:
        """Wait for the buffer."""
        return self._buffer is None or aside(self._buffer.wait, timeout)

    # Addresses.

    def _listen(self) -> None:
        """An address of this process becomes known: be there for it."""
        try:
            self._listener.start()
        except PubSubError:
            pass  # the listener has written it to the log, and goes on trying

    def send(self, address: str, text: str) -> bool:
        """Put it into the inbox of the process."""
        return self._correspondence.send(address, text)

    def monitor(self, address: str) -> None:
        """Ask the process, and look after the process itself."""
        self._listener.start()
        self._correspondence.monitor(address)

    def demonitor(self, address: str) -> None:
        """Forget it."""
        self._correspondence.forget(address)

    def _post(self, process: str, text: str) -> bool:
        if not process:
            return False
        name = self._next_name()
        keys = [self._key("inbox", process), self._key("processes")]
        return bool(self._once(scripts.SEND, keys, lambda again: [process, *self._kept, name, again, text]))

    # Presence.

    def track(self, tracked: Tracked) -> None:
        """Enter here, then in the server, for as long as this process lives."""
        self._listener.start()
        before = self.presence.put(tracked)
        try:
            aside(self._say, tracked)
        except BaseException:  # the server may have entered it all the same
            self.presence.restore(tracked, before)
            self._say_later(tracked)
            raise

    def untrack(self, topic: str, mailbox: Mailbox, key: str) -> None:
        """Remove here, then in the server."""
        gone = self.presence.take(topic, mailbox, key)
        if gone is not None:
            try:
                aside(self._say, gone)
            except BaseException:
                self._say_later(gone)
                raise

    def end(self, mailbox: Mailbox) -> None:
        """Remove here, and in the server as soon as it is there."""
        for gone in self.presence.drop(mailbox):
            self._say_later(gone)

    def list(self, topic: str) -> list[str]:
        """Ask the server."""
        keys = [self._key("present", topic), self._key("processes")]
        present: list[str] = self._client.script(scripts.LIST, keys, [])
        return present

    def _say(self, place: Tracked) -> None:
        """Have the server know of a place in presence what is known here; once more if that has changed meanwhile.

        So whoever is the last to say something, in whatever order the server heard it, says what is true.
        """
        told: object = self
        while told is not (now := self.presence.now(place)):
            self._client.script(scripts.TRACK if now else scripts.UNTRACK, *self._tracking(now or place))
            told = now

    def _say_all(self, script: str, places: Sequence[Tracked]) -> None:
        for calls in chunks([self._tracking(place) for place in places]):
            self._client.scripts(script, calls)

    def _say_later(self, place: Tracked) -> None:
        self._listener.errand(lambda: self._say(place))

    def _tracking(self, tracked: Tracked) -> tuple[Any, Any]:
        topic, mailbox, key, text = tracked
        field = mailbox.address + " " + key
        keys = [self._key("present", topic), self._key("owned", self._process), self._key("topic", topic)]
        return keys, [field, text, json.dumps([topic, field]), *self._kept]

    # Life and death, in the listener's thread.

    def _beat(self) -> None:
        """Show a sign of life, and see who else does not."""
        try:
            lifetime = int(self._settings.lifetime * 1000)
            arguments = [self._process, lifetime, *self._correspondence.processes]
            known, dead, lost, self._sign = self._client.script(scripts.HEARTBEAT, [self._key("processes")], arguments)
            if not known:
                self._forgotten()
            if not self._is_introduced:
                self._introduce()
            self._correspondence.ask_again()
            for process in dead:
                self._bury(process)
            if monotonic() >= (self._patience or 0.0):
                for process in lost:
                    self._correspondence.lost_process(process)
            self._complaint = ""
        except Unavailable:
            raise
        except PubSubError as error:  # no memory, say; to listen is possible all the same
            if str(error) != self._complaint:
                self._complaint = str(error)
                logger.warning("PubSub: no sign of life can be given. %s", error)

    def _siblings(self) -> tuple[RedisBackend, ...]:
        """Find the others of this process that share its inbox and its sign of life with this one."""
        like = (one for one in tuple(_open) if one._shares == self._shares and one._listener.started)
        return tuple(one for one in like if one is not self)

    def _is_remembered(self) -> bool:
        """Tell whether a server that has begun anew has kept what it was told, up to our last sign of life at least."""
        score = self._client.run(lambda client: client.zscore(self._key("processes"), self._process))
        kept = self._is_introduced and score is not None and 0 < self._sign <= float(score)
        if not kept:
            self._forgotten()  # before our next sign of life makes it look as if nothing had been
        return kept

    def _forgotten(self) -> None:
        """The server knows this process no more, or only from now on: each PubSub of it has to say all again."""
        for one in (self, *self._siblings()):
            one._is_introduced = False

    def _introduce(self) -> None:
        """The server does not know us: say who is present, and whom we monitor, if that had been said before."""
        present = self.presence.all()
        self._say_all(scripts.TRACK, present)
        for tracked in present:
            if self.presence.now(tracked) is not tracked:  # it has gone meanwhile, and that was said too early
                self._say_later(tracked)
        self._correspondence.mark_unasked()
        self._is_introduced = True
        # It may have forgotten the others as well: give them time to say so. Who begins has nobody to wait for.
        self._patience = 0.0 if self._patience is None else monotonic() + self._settings.lifetime

    def _bury(self, process: str, willingly: int = 0) -> int:
        keys = [self._key("processes"), self._key("owned", process), self._key("inbox", process)]
        arguments = [process, self._settings.prefix, *self._kept, willingly]
        removed = int(self._client.script(scripts.BURY, keys, arguments))
        if not willingly and removed:
            logger.warning("PubSub: process %s has died, %d entries of presence with it", process, removed)
        return removed

    def close(self, seconds: float) -> None:
        """The process ends: send what waits, and take back what it has said; either in so many seconds at the most."""
        addresses.off_name(self._listen)
        _open.discard(self)
        if self._buffer is not None and not self._buffer.close(seconds):
            logger.error("PubSub: the process ends, and %d messages in the buffer are lost", len(self._buffer))
        if self._listener.connected and not aside(self._listener.finish, self._take_leave, seconds):
            logger.warning("PubSub: the process ends without a word. %s does not answer", self._client.shown)
        self._listener.stop()
        self._client.close()

    def _take_leave(self) -> None:
        """Take back what this PubSub has said; the inbox and the sign of life only if no other one here needs them."""
        try:
            if self._siblings():
                self._say_all(scripts.UNTRACK, self.presence.all())
            else:
                self._bury(self._process, willingly=1)
        except PubSubError as error:
            logger.warning("PubSub: the process ends without a word. %s", error)


def _at_exit() -> None:
    for backend in tuple(_open):
        if backend._process == addresses.process():  # and not a copy of the parent's
            backend.close(GOODBYE)


atexit.register(_at_exit)
