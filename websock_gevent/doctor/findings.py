"""What the doctor says: findings, and how one is written. Refuses to know what they are about."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["Finding", "Level", "described", "ok", "problem", "warning"]

Level = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """One line of the report.

    Attributes:
        level: ``"ok"``; ``"warning"`` for what may be meant so; ``"problem"`` for what will not work.
        subject: What was looked at: a package, a setting, a route.
        seen: What was seen there.
        advice: What to do; empty if nothing.
    """

    level: Level
    subject: str
    seen: str
    advice: str = ""

    def __str__(self) -> str:
        """As one line."""
        return f"{self.level:8} {self.subject}: {self.seen}{' -> ' if self.advice else ''}{self.advice}"


def ok(subject: str, seen: str) -> Finding:
    """Nothing to do."""
    return Finding("ok", subject, seen)


def warning(subject: str, seen: str, advice: str) -> Finding:
    """May be meant so."""
    return Finding("warning", subject, seen, advice)


def problem(subject: str, seen: str, advice: str) -> Finding:
    """Will not work."""
    return Finding("problem", subject, seen, advice)


def described(error: BaseException) -> str:
    """The class and the text of an error, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
