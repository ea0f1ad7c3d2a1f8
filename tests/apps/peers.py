"""Handlers for peers that die, stall or dribble, and what this process holds for them.

A path names the handler, ``?key=`` the connection, and everything else in the query an option instead of `SHORT`. The
end of a connection is told on stderr: ``ended <key> <reason>``.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import gevent
from defaults import IDLE
from gevent import monkey
from greenlet import greenlet
from idle import others
from werkzeug import Response
from werkzeug.exceptions import HTTPException

from websock_gevent import WebSock, current, upgrade
from websock_gevent.connection import Connection

SHORT = {"timeout": 0.5, "ping_interval": 0.2, "send_timeout": 0.5, "close_timeout": 0.3, "idle": IDLE}
#: Bytes of a message of those who send many. Much smaller ones would be lost in the noise of measuring memory.
BLOCK = 100_000
#: Messages of a flood that nobody stops.
MOST = 1000
#: More bytes than the kernel takes for a client that does not read.
TOO_MUCH = 2 * int(Path("/proc/sys/net/ipv4/tcp_wmem").read_text().split()[2])


def say(*words: object) -> None:
    """Write a line to stderr, in one piece."""
    sys.stderr.write(" ".join(map(str, words)) + "\n")


def block() -> bytes:
    """A message of its own memory, all of it resident."""
    return b"x" * BLOCK


class Peer(WebSock[str]):
    """Echoes, in a while if asked to, and stops if asked to. Its state is its key."""

    def init(self, key: str) -> Any:
        say("open", key)
        return "ok", key

    def handle_in(self, message: str | bytes, key: str) -> Any:
        match message.split() if isinstance(message, str) else []:
            case ["stop"]:
                return "stop", "normal", key
            case ["later", seconds]:
                current().send_after(float(seconds), message)
                return "ok", key
        return "push", message, key

    def handle_info(self, message: Any, key: str) -> Any:
        return "push", message, key

    def terminate(self, reason: Any, key: str) -> None:
        say("ended", key, reason if isinstance(reason, str) else f"{reason[0]}: {reason[1]}")


class Stopping(Peer):
    """Stops after a second."""

    def init(self, key: str) -> Any:
        current().send_after(1.0, None)
        return super().init(key)

    def handle_info(self, message: Any, key: str) -> Any:
        return "stop", "normal", key


class Ticking(Peer):
    """Pushes the next number twenty times a second."""

    def init(self, key: str) -> Any:
        current().send(0)
        return super().init(key)

    def handle_info(self, message: Any, key: str) -> Any:
        say("tick", key, message)
        current().send_after(0.05, message + 1)
        return "push", str(message), key


class Pushing(Peer):
    """Pushes as fast as it can."""

    def init(self, key: str) -> Any:
        current().send(None)
        return super().init(key)

    def handle_info(self, message: Any, key: str) -> Any:
        current().send(None)
        return "push", block(), key


class Busy(Peer):
    """Has something to do all the time, and pushes little."""

    def init(self, key: str) -> Any:
        current().send(0)
        return super().init(key)

    def handle_info(self, message: Any, key: str) -> Any:
        current().send(message + 1)
        gevent.sleep(0.3)
        return "push", str(message), key


class Stuck(Peer):
    """Pushes more than a client takes that does not read."""

    def init(self, key: str) -> Any:
        super().init(key)
        return "push", bytes(TOO_MUCH), key


class Mailed(Peer):
    """Another greenlet fills its mailbox; it pushes what it gets."""

    def init(self, key: str) -> Any:
        gevent.spawn(flood, current().send, gevent.sleep)
        return super().init(key)


class Pushed(Peer):
    """Another greenlet pushes."""

    def init(self, key: str) -> Any:
        gevent.spawn(flood, current().push, gevent.sleep)
        return super().init(key)


class PushedByThread(Peer):
    """Another OS thread pushes, no faster than the hub takes it over."""

    def init(self, key: str) -> Any:
        hub = gevent.get_hub()
        monkey.get_original("_thread", "start_new_thread")(flood, (current().push, lambda: turn_of(hub)))
        return super().init(key)


def flood(put: Callable[[bytes], bool], pause: Callable[[], object]) -> None:
    """Put messages in until one is refused."""
    for _ in range(MOST):
        if not put(block()):
            return
        pause()


def turn_of(hub: Any) -> None:
    """In another thread: wait until the hub has done what it was asked to before."""
    done = monkey.get_original("_thread", "allocate_lock")()
    done.acquire()
    hub.loop.run_callback_threadsafe(done.release)
    done.acquire(timeout=10)


def counts() -> dict[str, int]:
    """What this process holds, and the most memory it has held since this was asked last; bytes."""
    things = gc.get_objects()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: proc(5)
    return {
        "connections": sum(type(thing) is Connection for thing in things),
        "greenlets": sum(issubclass(type(thing), greenlet) and not thing.dead for thing in things),
        "files": len(os.listdir("/proc/self/fd")),
        "resident": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        "peak": int(status["VmHWM"].split()[0]) * 1024,
    }


HANDLERS: dict[str, type[Peer]] = {
    "/peer": Peer,
    "/stopping": Stopping,
    "/ticking": Ticking,
    "/pushing": Pushing,
    "/busy": Busy,
    "/stuck": Stuck,
    "/mailed": Mailed,
    "/pushed": Pushed,
    "/pushed-by-thread": PushedByThread,
}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Upgrade, or answer ``/counts``; ``/counts?alone`` when no other connection is left."""
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/counts":
        left = others() if query == "alone" else 0
        response = Response(json.dumps(counts()), 500 if left else 200)
        return response(environ, start_response)
    options = dict(parse_qsl(query))
    key = options.pop("key")
    try:
        chosen = {**SHORT, **{name: json.loads(value) for name, value in options.items()}}
        return upgrade(environ, HANDLERS[path], key, **chosen)(environ, start_response)
    except HTTPException as refusal:
        return refusal(environ, start_response)
