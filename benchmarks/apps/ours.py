"""What both of our applications serve: a handler by path, options from the environment variable BENCH_OPTIONS (JSON).

BENCH_FANOUT is ``push`` (the default) or ``info``: how a publisher's message reaches the subscribers.
"""

from __future__ import annotations

import json
import os
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from echo_handler import Echo
from werkzeug.wrappers import Response

import websock_gevent
from websock_gevent import Mailbox, Options, Result, WebSock, current, upgrade

LIMITS = {"max_frame_size": 2**25, "max_message_size": 2**25}
THROUGH_HANDLE_INFO = os.environ.get("BENCH_FANOUT", "push") == "info"
subscribers: set[Mailbox] = set()


def read_options() -> Options:
    """Compression is for clients that offer it, as with peers that have it on; an old checkout knows none."""
    known = {"compress": True} if hasattr(websock_gevent, "Deflate") else {}
    given = {**known, **json.loads(os.environ.get("BENCH_OPTIONS", "{}"))}
    if isinstance(given.get("compress"), dict):
        given["compress"] = websock_gevent.Deflate(**given["compress"])
    return Options(**LIMITS).updated(given)


class Blocking(WebSock[None]):
    """Sleeps 10 ms when the message says so."""

    def handle_in(self, message: str | bytes, state: None) -> Result[None]:
        if message[16] == "!":
            time.sleep(0.01)  # gevent's
        return "push", message, state


class Subscriber(WebSock[None]):
    def init(self, state: None) -> Result[None]:
        subscribers.add(current())
        return "push", "ready", state

    def handle_in(self, message: str | bytes, state: None) -> Result[None]:
        return "ok", state

    def handle_info(self, message: Any, state: None) -> Result[None]:
        return "push", message, state

    def terminate(self, reason: object, state: None) -> None:
        subscribers.discard(current())


class Publisher(WebSock[None]):
    def handle_in(self, message: str | bytes, state: None) -> Result[None]:
        if THROUGH_HANDLE_INFO:
            for subscriber in subscribers:
                subscriber.send(message)
        else:
            for subscriber in subscribers:
                subscriber.push(message)
        return "ok", state


class Queue(WebSock[int]):
    """Has `state` messages wait in its mailbox, the last of which is the echo."""

    def handle_in(self, message: str | bytes, state: int) -> Result[int]:
        mailbox = current()
        for _ in range(state - 1):
            mailbox.send(None)
        mailbox.send(message)
        return "ok", state

    def handle_info(self, message: Any, state: int) -> Result[int]:
        return ("ok", state) if message is None else ("push", message, state)


@lru_cache(maxsize=1)
def pubsub() -> Any:
    from websock_gevent.pubsub import PubSub  # an old checkout has none

    return PubSub()


class Topics(WebSock[int]):
    """Echoes through a topic of its own, among `state` others, each with a subscriber and a message that is kept."""

    def init(self, state: int) -> Result[int]:
        for number in range(state):
            pubsub().subscribe(f"other {number}", push=True)
            pubsub().broadcast_from(f"other {number}", "kept")
        pubsub().subscribe("own")
        return "ok", state

    def handle_in(self, message: str | bytes, state: int) -> Result[int]:
        pubsub().broadcast("own", message)
        return "ok", state

    def handle_info(self, message: Any, state: int) -> Result[int]:
        return "push", message, state


HANDLERS: dict[str, Any] = {
    "": Echo,
    "blocking": Blocking,
    "subscribe": Subscriber,
    "publish": Publisher,
    "queue": Queue,
    "topics": Topics,
}
OPTIONS = read_options()


def answer(environ: dict[str, Any]) -> Response:
    _, name, *count = environ["PATH_INFO"].split("/")
    state = int(count[0]) if count else None
    more = {"max_mailbox": state + 1} if state else {}
    return upgrade(environ, HANDLERS[name], state, options=OPTIONS, **more)


def check() -> None:
    """Fail, and name the reason, unless the library comes from where the benchmark wants it."""
    found, wanted = Path(websock_gevent.__file__).resolve(), Path(os.environ["BENCH_TREE"]).resolve()
    if wanted not in found.parents:
        raise ImportError(f"ImportError: websock_gevent comes from {found.parent}, not from {wanted}")
