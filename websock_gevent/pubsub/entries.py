"""What travels on a topic, and how it looks to whom it reaches: values in JSON, ids, gaps.

Owns the encoding of values, the shape of what ``handle_info`` and the client get, and the order of ids. Pure: knows no
server, no connection and no subscriber.

An id is ``<a>-<b>``, two decimal numbers, as Redis gives them to the entries of its streams. Both backends compare ids
of one topic as pairs of numbers; applications treat them as opaque.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from ..errors import repr_of

__all__ = ["NOWHERE", "OLDEST", "Entry", "Kind", "Position", "Replay", "decode", "encode", "gap", "id_of", "position"]

Kind = Literal["message", "join", "leave", "gap"]
#: An id as a pair of numbers, which can be compared.
Position = tuple[int, int]
#: ``subscribe(topic, since=OLDEST)`` replays all that is kept.
OLDEST = "0-0"
#: Behind no message at all.
NOWHERE: Position = (0, 0)

_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})", re.ASCII)


def encode(value: object) -> str:
    """Return a value as JSON: UTF-8 text on one line.

    Raises:
        TypeError, ValueError: JSON cannot carry it; the text shows the part that it cannot.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_refuse)
        text.encode()
    except _Refused as error:
        raise TypeError(str(error)) from None
    except UnicodeEncodeError:
        raise ValueError(
            f"JSON cannot carry {repr_of(value)}: half a surrogate pair is no text (RFC 8259 §8.1)"
        ) from None
    except (TypeError, ValueError) as error:
        raise type(error)(f"JSON cannot carry {repr_of(value)}: {error}") from None
    except RecursionError:
        raise ValueError("JSON cannot carry a value that is nested so deeply") from None
    return text


class _Refused(Exception):
    """A part of a value is of a type that JSON does not have."""


def _refuse(part: object) -> Any:
    raise _Refused(f"JSON cannot carry {repr_of(part)}, of type {type(part).__qualname__}")


def decode(text: str) -> Any:
    """Return the value that `encode` has written.

    Raises:
        ValueError: somebody else wrote something that is not JSON.
    """
    return json.loads(text)


def position(id_: str) -> Position | None:
    """Return an id as a pair of numbers; ``None`` if it is none, which is as good as one that is not kept."""
    found = _ID.fullmatch(id_)
    pair = (int(found[1]), int(found[2])) if found else None
    return pair if pair is not None and max(pair) < 1 << 63 else None


def id_of(pair: Position) -> str:
    """Return the id of which `position` has made a pair of numbers."""
    return f"{pair[0]}-{pair[1]}"


class Entry:
    """One message, join, leave or gap of a topic. All subscribers of a process share it, and what it was decoded to.

    Args:
        topic: Where it was published.
        kind: What it is.
        id_: Its id; empty for a gap.
        text: JSON: the message, or ``[key, meta]`` for a join or leave.
        sender: The address of the connection that shall not get it (``broadcast_from``), or empty.

    Attributes:
        reported: Whether the log says already that nobody can read it.
    """

    __slots__ = ("_value", "_with_id", "id", "kind", "reported", "sender", "text", "topic")

    def __init__(self, topic: str, kind: Kind, id_: str, text: str, sender: str = "") -> None:
        self.topic = topic
        self.kind: Kind = kind
        self.id = id_
        self.text = text
        self.sender = sender
        self.reported = False
        self._value: tuple[Any] | None = None
        self._with_id: str | None = None

    @property
    def position(self) -> Position:
        """Where it stands in its topic; a gap stands `NOWHERE`."""
        return position(self.id) or NOWHERE

    @property
    def value(self) -> Any:
        """What ``text`` says, decoded once.

        Raises:
            ValueError: it is not JSON.
        """
        if self._value is None:
            self._value = (decode(self.text),)
        return self._value[0]

    def info(self, ids: bool) -> Any:
        """Return it as ``handle_info`` gets it, with its id or without."""
        if self.kind == "gap":
            return "gap", self.topic
        if self.kind == "message":
            return ("message", self.topic, self.id, self.value) if ids else self.value
        key, meta = self.value
        return (self.kind, self.topic, self.id, key, meta) if ids else (self.kind, self.topic, key, meta)

    def push(self, ids: bool) -> str:
        """Return it as the client gets it: always the same object, so that it is made into a frame once.

        Without ids there are only messages, as they are; with ids, it is JSON of what `info` returns.
        """
        if not ids:
            return self.text
        if self._with_id is None:
            payload = self.text if self.kind == "message" else self.text[1:-1]  # of [key, meta]
            rest = "" if self.kind == "gap" else f',"{self.id}",{payload}'
            self._with_id = f'["{self.kind}",{encode(self.topic)}{rest}]'
        return self._with_id


def gap(topic: str) -> Entry:
    """Return the notice that messages of a topic may be missing here."""
    return Entry(topic, "gap", "", "null")


class Replay(NamedTuple):
    """What came behind a position.

    Attributes:
        entries: In order; the first of them is a gap if something is missing before the others.
        end: The position up to which this is complete.
    """

    entries: Sequence[Entry]
    end: Position
