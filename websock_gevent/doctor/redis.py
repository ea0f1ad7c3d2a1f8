"""Is Redis there, and new enough? Asked as `PubSub` itself would ask, so that the answer is what it would meet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..pubsub.embedded import Embedded
from ..pubsub.errors import PubSubError
from ..pubsub.pubsub import PubSub
from .findings import Finding, described, ok, problem

__all__ = ["ask", "ask_address"]

_ADVICE = "start it, or correct the address: redis://user:password@host:port/db; see docs/pubsub.rst"
#: Nobody's.
_TOPIC = "websock_gevent doctor"


def ask_address(url: str) -> Iterator[Finding]:
    """Ask the server at an address."""
    try:
        pubsub = PubSub(url, timeout=5.0)
    except (ImportError, TypeError, ValueError) as error:
        yield problem("Redis", described(error), "pip install 'websock-gevent[redis]'; redis://host:port/db")
    else:
        yield from ask("given by --redis", pubsub, 1)


def ask(name: str, pubsub: Any, workers: int) -> Iterator[Finding]:
    """Ask the server of a `PubSub`.

    Args:
        workers: How many gunicorn will start.
    """
    subject = f"PubSub {name}"
    if isinstance(pubsub._use(), Embedded):
        if workers > 1:
            seen = f"has no address of Redis, and so reaches one of {workers} workers"
            yield problem(subject, seen, "PubSub('redis://...'), or workers = 1")
        else:
            yield ok(subject, "within one process")
        return
    try:
        pubsub.list(_TOPIC)
    except PubSubError as error:
        yield problem(subject, described(error), _ADVICE)
    else:
        yield ok(subject, "Redis answers, and is new enough")
