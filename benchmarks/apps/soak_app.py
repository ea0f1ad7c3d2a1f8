"""A chat on websock_gevent in a Flask application, for gunicorn -k gevent; its clients are those of benchmarks/soak.py.

It ends in every way when told to, is written to from a thread once a second, and tells what the process holds.
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import socket
import sys
from collections import Counter, defaultdict
from contextlib import suppress
from typing import Any

import gevent
import greenlet
from flask import Flask, request
from gevent._hub_local import get_hub_if_exists
from werkzeug.wrappers import Response

from websock_gevent import Deflate, Options, WebSock, current, upgrade
from websock_gevent.connection import Connection, Phase
from websock_gevent.flask import websocket
from websock_gevent.mailbox import Mailbox

app = Flask(__name__)

#: Short, so that each deadline is met again and again.
OPTIONS = Options(
    timeout=8, ping_interval=3, send_timeout=4, close_timeout=2, max_message_size=1_100_000, max_mailbox=300
)
DEFLATE = {
    "off": False,
    "takeover": Deflate(),
    "alone": Deflate(server_no_context_takeover=True, client_no_context_takeover=True),
}
LARGE = bytes(1 << 16)
FLOOD = [bytes(1 << 19)] * 4
rooms: defaultdict[str, set[Any]] = defaultdict(set)
counts: Counter[str] = Counter(inits=0, terminates=0, doubles=0)
reasons: Counter[str] = Counter()


class Chat(WebSock[Any]):
    """Echoes, or tells its room, by push or by mailbox; the first character of a message says which."""

    def init(self, state: dict[str, Any]) -> Any:
        counts["inits"] += 1
        mailbox, room = current(), rooms[state["room"]]
        if room:
            mailbox.monitor(random.choice(tuple(room)))
        room.add(mailbox)
        mailbox.send_after(random.choice((0.5, 2, 600)), "timer")
        mailbox.send_after(1, "cancelled").cancel()
        return "push", "welcome", state

    def handle_in(self, message: str | bytes, state: dict[str, Any]) -> Any:
        first = message[:1] if isinstance(message, str) else message[:1].decode("latin-1")
        if first == "p":
            for mailbox in tuple(rooms[state["room"]]):
                mailbox.push(message)
        elif first == "m":
            for mailbox in tuple(rooms[state["room"]]):
                mailbox.send(message)
        elif first == "!":
            return self.told(str(message), state)
        else:
            return "push", message, state
        return "ok", state

    def told(self, message: str, state: dict[str, Any]) -> Any:
        """End, or have it ended, in the way that is asked for."""
        match message:
            case "!stop":
                return "stop", "normal", state
            case "!code":
                return "stop", "normal", (4002, "later"), "last words", state
            case "!restart":
                return "stop", ("shutdown", "restart"), state
            case "!fail":
                return "stop", "a reason", state
            case "!raise":
                raise RuntimeError("the handler was told to")
            case "!wrong":
                return "nonsense"
            case "!die":
                raise gevent.GreenletExit
            case "!kill":
                gevent.spawn(gevent.kill, gevent.getcurrent())
            case "!overflow":
                for number in range(OPTIONS.max_mailbox + 1):
                    current().send(str(number))
            case "!flood":
                narrow()
                return "push", FLOOD, state
            case "!pushes":
                narrow()
                for _ in range(OPTIONS.max_mailbox + 100):
                    current().push(LARGE)
            case "!block":
                gevent.sleep(random.uniform(0.5, 4))
        return "ok", state

    def handle_info(self, message: Any, state: dict[str, Any]) -> Any:
        return ("ok", state) if isinstance(message, tuple) else ("push", message, state)

    def terminate(self, reason: Any, state: dict[str, Any]) -> None:
        counts["terminates"] += 1
        counts["doubles"] += "ended" in state
        state["ended"] = True
        reasons[reason if isinstance(reason, str) else f"error: {type(reason[1]).__name__}: {reason[1]}"[:60]] += 1
        room = rooms[state["room"]]
        room.discard(current())
        if not room:
            del rooms[state["room"]]


def narrow() -> None:
    """Let the kernel keep little of what the client does not read."""
    with socket.socket(fileno=os.dup(current().websocket.fileno())) as duplicate:
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)


@websocket(app, "/chat/<room>")
def chat(room: str) -> Response:
    compress = DEFLATE[request.args.get("deflate", "off")]
    return upgrade(request.environ, Chat, {"room": room}, options=OPTIONS, compress=compress)


def tick(mailboxes: list[Any]) -> None:
    """In another thread: one push and one message to each."""
    for mailbox in mailboxes:
        mailbox.push("tick")
        mailbox.send("tock")


def some_of_all() -> list[Any]:
    """A quarter of all connections."""
    everybody = [mailbox for room in rooms.values() for mailbox in room]
    return random.sample(everybody, len(everybody) // 4)


def clock() -> None:
    """Once a second, have a thread write to a part of all connections."""
    pool = gevent.get_hub().threadpool
    while True:
        gevent.sleep(1)
        pool.apply(tick, (some_of_all(),))


gevent.spawn(clock)


class MallInfo(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def malloc() -> dict[str, int]:
    """Bytes that malloc has handed out, and bytes that it keeps; without Python's own small objects."""
    with suppress(AttributeError, OSError):
        function = ctypes.CDLL(None).mallinfo2
        function.restype = MallInfo
        info = function()
        return {"malloc_used": info.uordblks + info.hblkhd, "malloc_free": info.fordblks}
    return {}


def things() -> list[Any]:
    """All objects that the garbage collector knows of."""
    if "collect" in request.args:
        gc.collect()
    return gc.get_objects()


def lives(one: greenlet.greenlet) -> bool:
    """Not counting a thread's own."""
    return not one.dead and one.parent is not None


@app.get("/sample")
def sample() -> dict[str, int]:
    """What the process holds, this request included. Nothing else runs meanwhile."""
    found = things()
    connections = [thing for thing in found if type(thing) is Connection]
    served = sum(one.phase is Phase.OPEN for one in connections)
    hub = get_hub_if_exists()
    return {
        "pid": os.getpid(),
        "greenlets": sum(isinstance(thing, greenlet.greenlet) and lives(thing) for thing in found),
        "watchers": hub.loop.activecnt,
        "open": served,
        "connections": len(connections),
        "mailboxes": sum(type(thing) is Mailbox for thing in found),
        "members": sum(map(len, rooms.values())),
        "ended": counts["terminates"],
        "balance": counts["terminates"] - (counts["inits"] - served),
        "doubles": counts["doubles"],
        "objects": len(found),
        "blocks": sys.getallocatedblocks(),
        **malloc(),
    }


@app.get("/types")
def types() -> dict[str, int]:
    """How many objects of each type there are."""
    return Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in things())


@app.get("/reasons")
def why() -> dict[str, int]:
    """What ``terminate`` got."""
    return reasons


@app.get("/trim")
def trim() -> dict[str, int]:
    """Have malloc give back what it keeps."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return {}
