"""The thread that listens to Redis for a process, or the greenlet where the process is monkey-patched.

Owns that thread and what it follows. Behind each loss of its connection (`channel`) every feed is caught up from its
stream. The same thread shows the process's signs of life and runs the errands of connections that have ended. Refuses
to know topics, mailboxes and presence: it has feeds, and calls back.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from copy import copy
from time import monotonic
from typing import Any

from .backend import Settings
from .channel import Channel, Wakener
from .client import Client, chunks
from .entries import NOWHERE, id_of, position
from .errands import Errands
from .errors import PubSubError, Unavailable
from .feeds import Cut, Feed, caught_up, parse
from .scripts import REPLAY
from .waiting import Signal, aside, background

__all__ = ["Listener"]

logger = logging.getLogger("websock_gevent")

#: Seconds to wait before the next attempt to connect: at first, and at most; less a random half.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
#: Topics that are caught up in one go, which may be ``keep`` messages each.
CATCH_UP = 50
#: Seconds of work of one kind after which everything else has a turn.
TURN = 0.01
#: An id behind all that there will be: what is read from there on is only where a stream ends.
_BEYOND_ALL = id_of((10**18 - 1, 0))


class Listener:
    """Follows feeds.

    Args:
        client: For commands, and for the connection.
        settings: ``timeout``, ``watchdog``, ``lifetime`` and ``age``.
        inbox: A feed that is followed from the beginning.
        beat: Called in the thread at the beginning and then three times in each ``lifetime``.
        remembers: Asks a server that has begun anew whether it still knows what it knew before.
    """

    def __init__(
        self,
        client: Client,
        settings: Settings,
        inbox: Feed,
        beat: Callable[[], None],
        remembers: Callable[[], bool],
    ) -> None:
        self._client = client
        self._settings = settings
        self._beat = beat
        self._remembers = remembers
        self._feeds: dict[str, Feed] = {inbox.stream: inbox}  # by channel; the thread's alone
        self._wishes: deque[tuple[bool, Feed]] = deque()
        self._errands = Errands()
        self._confirming: deque[Feed] = deque()
        self._confirmed: list[Feed] = []
        self._pid = os.getpid()
        self._thread: object = None
        self._starting = threading.Lock()
        self._tried = Signal()
        self._wakener: Wakener | None = None
        self._channel: Channel | None = None
        self._run = ""
        self._next_beat = 0.0
        self._lost_at = monotonic()
        self._error: PubSubError | None = None
        self._stopped = False
        self.connected = False

    # For everybody.

    @property
    def started(self) -> bool:
        """Whether it listens, or tries to."""
        return self._thread is not None and not self._stopped

    def start(self) -> None:
        """Begin to listen, if need be. Returns when the server has been reached.

        Raises:
            PubSubError: it has not.
        """
        if not self.connected:
            aside(self._start)
        if not self.connected:
            raise self._refusal("has not answered in time")

    def _refusal(self, text: str) -> PubSubError:
        # A new one each time: whoever raises an exception adds to its traceback.
        return copy(self._error) if self._error is not None else Unavailable(f"Redis at {self._client.shown} {text}")

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                wakener = self._wakener = Wakener()
                self._thread = background(lambda: self._live(wakener), "websock_gevent.pubsub")
        self._tried.wait(4 * self._settings.timeout)

    def follow(self, feed: Feed) -> None:
        """Follow a feed. Returns when nothing that is published on it is missed any more.

        Raises:
            PubSubError: the server cannot be reached.
        """
        self.start()
        if feed.ready.is_set():
            return
        self._wish(True, feed)
        if not aside(feed.ready.wait, 2 * self._settings.timeout):
            raise self._refusal("has not confirmed a subscription in time")

    def unfollow(self, feed: Feed) -> None:
        """Follow a feed no more. Does not block."""
        self._wish(False, feed)

    def _wish(self, wanted: bool, feed: Feed) -> None:
        self._wishes.append((wanted, feed))
        self._wake()

    def errand(self, function: Callable[[], object]) -> None:
        """Have something done in the thread when the server is there, behind what was asked for before. Does not block.

        It is repeated until it raises no `PubSubError`.
        """
        self._errands.add(function)
        self._wake()

    def _wake(self) -> None:
        if self._wakener is not None:
            self._wakener.wake()

    def finish(self, last: Callable[[], object], seconds: float) -> bool:
        """Have a last errand done, behind which the thread does nothing more.

        Returns:
            ``False`` if it is not done in so many seconds.
        """
        done = threading.Event()

        def leave() -> None:
            last()
            self._stopped = True
            done.set()

        self.errand(leave)
        return done.wait(seconds)

    def stop(self) -> None:
        """End the thread."""
        self._stopped = True
        self._wake()

    # The thread.

    def _live(self, wakener: Wakener) -> None:
        self._listen(wakener)
        if os.getpid() == self._pid:
            self._disconnect()
            wakener.close()

    def _listen(self, wakener: Wakener) -> None:
        pause = FIRST_PAUSE
        while not self._is_over():
            try:
                channel = self._connect(wakener)
                pause = FIRST_PAUSE
                self._serve(channel, wakener)
            except PubSubError as error:
                self._lose(error)
            except Exception as error:  # ours; the process must not be deaf because of it
                logger.exception("PubSub: the listener failed and begins anew")
                self._lose(PubSubError(f"the listener failed: {error!r}"))
            if self._is_over():
                return
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _is_over(self) -> bool:
        # A fork copies greenlets: the child's copy of this one must not read what is meant for the parent.
        return self._stopped or os.getpid() != self._pid

    def _lose(self, error: PubSubError) -> None:
        if self._is_over():
            return
        if self.connected or not self._tried.is_set():
            logger.warning("PubSub: lost. %s", error)
        if self.connected and self._channel is not None:
            self._lost_at = self._channel.heard
        self._error = copy(error)
        self._disconnect()
        self._tried.set()

    def _disconnect(self) -> None:
        self.connected = False
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _connect(self, wakener: Wakener) -> Channel:
        """Connect, subscribe to everything anew, and catch up."""
        channel = self._channel = Channel(self._client, wakener, self._settings.watchdog)
        run = self._client.check()
        cut = Cut(monotonic() - self._lost_at, run == self._run or (bool(self._run) and self._remembers()))
        self._confirming.clear()
        self._confirmed.clear()
        self._fulfil()
        feeds = list(self._feeds.values())
        self._subscribe(channel, feeds)
        early = self._await_confirmations(channel)
        caught, gaps = self._catch_up([feed for feed in feeds if feed.position is not None], cut)
        self._begin(feeds)
        self._run = run
        for name, data in early:
            self._take_message(name, data)
        self._show_life()
        if self._error is not None:
            text = "PubSub: Redis at %s is back after %.1f s: %d entries replayed, %d gaps"
            logger.warning(text, self._client.shown, cut.seconds, caught, gaps)
        self._error, self.connected = None, True
        self._tried.set()
        return channel

    def _await_confirmations(self, channel: Channel) -> list[tuple[str, str]]:
        """Wait until the server has confirmed all subscriptions. Return the messages that came in between."""
        early: list[tuple[str, str]] = []
        while self._confirming:
            response = channel.read()
            if response[0] == "message":
                early.append((response[1], response[2]))
            else:
                self._take(response)
        return early

    def _serve(self, channel: Channel, wakener: Wakener) -> None:
        is_more = False
        while True:
            fresh, left = self._fulfil()
            self._subscribe(channel, fresh)
            for feed in left:
                channel.send("UNSUBSCRIBE", feed.stream)
            if is_more:
                time.sleep(0.0001)  # others have a turn
            else:
                channel.wait(min(self._next_beat, self._errands.due))
            if self._is_over():
                return
            wakener.clear()
            is_more = self._read(channel)
            self._begin(self._confirmed)
            channel.watch()
            if monotonic() >= self._next_beat:
                self._show_life()
                if self._client.check() != self._run:
                    raise Unavailable(f"Redis at {self._client.shown} is another server than the one listened to")
            self._errands.run(TURN)

    def _show_life(self) -> None:
        self._next_beat = monotonic() + self._settings.lifetime / 3
        self._beat()

    def _read(self, channel: Channel) -> bool:
        """Take what has come, as much as there is time for. Return whether there may be more."""
        until = monotonic() + TURN
        for response in channel.pending():
            self._take(response)
            if monotonic() > until:
                return True
        return False

    def _take(self, response: Any) -> None:
        if response[0] == "message":
            self._take_message(response[1], response[2])
        elif response[0] == "subscribe":
            self._confirmed.append(self._confirming.popleft())

    def _take_message(self, name: str, data: str) -> None:
        feed = self._feeds.get(name)
        if feed is None:
            return
        try:
            before, entry = parse(feed.topic, data)
        except (KeyError, ValueError):
            logger.warning("PubSub: something came on %r that is not ours", name)
            return
        if not feed.take(before, entry):
            self._catch_up([feed], Cut(0.0, True))

    # Feeds.

    def _fulfil(self) -> tuple[list[Feed], list[Feed]]:
        """Do what was wished for, in order. Return what is to be subscribed to, and what is to be no more."""
        fresh: dict[str, Feed] = {}
        left: dict[str, Feed] = {}
        while self._wishes:
            wanted, feed = self._wishes.popleft()
            current = self._feeds.get(feed.stream)
            if wanted and current is not feed:
                self._feeds[feed.stream] = fresh[feed.stream] = feed
            elif not wanted and current is feed:
                del self._feeds[feed.stream]
                fresh.pop(feed.stream, None)
                left[feed.stream] = feed
                feed.ready.set()  # whoever still waits for it waits for nothing
        return list(fresh.values()), [feed for stream, feed in left.items() if stream not in self._feeds]

    def _subscribe(self, channel: Channel, feeds: list[Feed]) -> None:
        for chunk in chunks(feeds):
            self._confirming += chunk
            channel.send("SUBSCRIBE", *(feed.stream for feed in chunk))

    def _begin(self, feeds: list[Feed]) -> None:
        """The server has confirmed these: find out where they begin, unless that is known."""
        self._confirmed = []
        for chunk in chunks([feed for feed in feeds if feed.position is None]):
            answers = self._client.scripts(REPLAY, [([feed.stream], [_BEYOND_ALL]) for feed in chunk])
            for feed, answer in zip(chunk, answers, strict=True):
                if not feed.begin(position(answer[3]) or NOWHERE):
                    self._catch_up([feed], Cut(0.0, True))

    def _catch_up(self, feeds: list[Feed], cut: Cut) -> tuple[int, int]:
        """Deliver what was missed. Return how many entries and gaps it was."""
        entries = gaps = 0
        for chunk in chunks(feeds, CATCH_UP):
            positions = [feed.position or NOWHERE for feed in chunk]
            calls: list[Any] = [([feed.stream], [id_of(at)]) for feed, at in zip(chunk, positions, strict=True)]
            for feed, since, answer in zip(chunk, positions, self._client.scripts(REPLAY, calls), strict=True):
                replay = caught_up(feed.topic, since, answer, self._settings.age, cut)
                lost = sum(entry.kind == "gap" for entry in replay.entries)
                entries, gaps = entries + len(replay.entries) - lost, gaps + lost
                feed.catch_up(replay)
                feed.ready.set()
        return entries, gaps
