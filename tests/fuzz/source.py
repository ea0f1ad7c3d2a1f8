"""Bytes as a source of decisions, so that a fuzzer that changes bytes changes what a target does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Source:
    """Takes values from the front of some bytes; behind their end everything is zero or empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(len(self._data))

    def byte(self) -> int:
        """A number below 256."""
        return int.from_bytes(self.take(1), "big")

    def choose(self, values: Sequence[T]) -> T:
        """One of some values."""
        return values[self.byte() % len(values)]

    def blob(self) -> bytes:
        """Some bytes, rather few."""
        return self.take(self.byte() & 63)

    def line(self) -> str:
        """The bytes up to the next line feed, as WSGI spells them: Latin-1."""
        end = self._data.find(b"\n", self._at)
        line = self.take((len(self._data) if end < 0 else end) - self._at)
        self._at += 1
        return line.decode("latin-1")
