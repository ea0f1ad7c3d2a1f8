"""One stream of Redis as one process follows it: its position, and whether something is missing.

Owns the judgement of what is complete. Pure: given what came on the channel, or what was read from the stream, a feed
delivers each entry once and in order, or a gap. Used by the listener's thread alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .entries import NOWHERE, Entry, Kind, Position, Replay, gap, position
from .waiting import Signal

__all__ = ["Cut", "Feed", "caught_up", "missed", "parse"]

_KINDS: dict[str, Kind] = {"message": "message", "join": "join", "leave": "leave"}


class Cut(NamedTuple):
    """A time during which nothing was heard of the server.

    Attributes:
        seconds: How long.
        remembered: Whether the server has forgotten nothing: it is the same run, or one with the same data.
    """

    seconds: float
    remembered: bool


class Feed:
    """One stream that is followed.

    Args:
        topic: What its entries say they are of.
        stream: The name of stream and channel.
        deliver: Takes each entry.

    Attributes:
        position: Of the last entry delivered; ``None`` before it is known where to begin.
        ready: Set when it has begun: nothing published from then on is missed.
    """

    __slots__ = ("_early", "deliver", "position", "ready", "stream", "topic")

    def __init__(self, topic: str, stream: str, deliver: Callable[[Entry], object]) -> None:
        self.topic = topic
        self.stream = stream
        self.deliver = deliver
        self.position: Position | None = None
        self.ready = Signal()
        self._early: list[tuple[Position, Entry]] = []

    def begin(self, at: Position) -> bool:
        """Begin behind a position that was read after the channel was subscribed to. Returns as `take` does."""
        self.position = at
        early, self._early = self._early, []
        complete = all(self.take(before, entry) for before, entry in early)
        self.ready.set()
        return complete

    def take(self, before: Position, entry: Entry) -> bool:
        """Take an entry from the channel, and the position of the one before it.

        Returns:
            ``False`` if something between is missing; the entry is not delivered then, it will be read with the rest.
        """
        if self.position is None:
            self._early.append((before, entry))
            return True
        if entry.position <= self.position:
            return True  # it was read from the stream before it came on the channel
        if before not in (self.position, NOWHERE):
            return False
        self.position = entry.position
        self.deliver(entry)
        return True

    def catch_up(self, replay: Replay) -> None:
        """Deliver what was missed."""
        self.position = replay.end
        for entry in replay.entries:
            self.deliver(entry)


def parse(topic: str, data: str) -> tuple[Position, Entry]:
    """Return what came on a channel, and the position of the entry before it.

    Raises:
        ValueError, KeyError: it is not ours.
    """
    head, _, text = data.partition("\n")
    before, id_, kind, sender = head.split(" ")
    found = position(before)
    if found is None or position(id_) is None:
        raise ValueError(f"{head!r} has no ids")
    return found, Entry(topic, _KINDS[kind], id_, text, sender)


def _entry_of(topic: str, stored: Any) -> Entry:
    """Return what is stored in a stream; a gap in the place of something that somebody else has put there."""
    id_, fields = stored
    try:
        _, _, _, kind, _, sender, _, _, _, text = fields
        return Entry(topic, _KINDS[kind], id_, text, sender)
    except (KeyError, ValueError):
        return gap(topic)


def missed(topic: str, since: Position | None, answer: Any) -> Replay:
    """Judge what the stream holds behind an id that a client has seen last; ``None`` for one that is none."""
    _, found, first, last, stored = answer
    entries = [_entry_of(topic, one) for one in stored]
    if since != NOWHERE and not (found or _is_before(since, first)):
        entries.insert(0, gap(topic))
    return Replay(entries, position(last) or NOWHERE)


def caught_up(topic: str, since: Position, answer: Any, age: float, cut: Cut) -> Replay:
    """Judge what the stream holds behind a feed's position, after a cut.

    It is complete if the position is in the stream, or directly before it. Else the topic may have been quiet for so
    long that its stream was dropped with age; a server that remembers would have kept anything newer.
    """
    now, found, first, last, stored = answer
    entries = [_entry_of(topic, one) for one in stored]
    complete = found or (since != NOWHERE and _is_before(since, first))
    if not complete and cut.remembered and cut.seconds < age and (first is None or _is_before(NOWHERE, first)):
        begun = now if first is None else (position(first[0]) or NOWHERE)[0]
        complete = since == NOWHERE or since[0] + age * 1000 <= begun
    if not complete:
        entries.insert(0, gap(topic))
    return Replay(entries, position(last) or NOWHERE)


def _is_before(since: Position | None, first: Any) -> bool:
    """Tell whether the oldest entry of a stream follows directly on a position."""
    return first is not None and since is not None and position(first[1][1]) == since
