#!/usr/bin/env python3
"""What an echo costs without a kernel: the same work, with a socket that has always received and never has to send.

python benchmarks/engine.py [--tree COMMIT-OR-CHECKOUT] [--times N]

The hub's callback for a readable socket is called in a loop, in the hub, so the greenlets are switched as they are in
a server. Shown are the least and the lower quartile, in nanoseconds for each message. Good for small changes, which a
server's noise hides; but caches and branch prediction are at their best here, so each nanosecond counts for more there.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import gevent
from machine import raise_file_limit
from peers import checkout
from servers import ROOT
from websockets.frames import Frame, Opcode

SWITCHES = 20_000
#: Connections, bytes of payload, and messages that come at a time.
SCENARIOS = ((1, 32, 1), (100, 32, 1), (1000, 125, 1), (100, 1024, 1), (10, 125, 16))
#: Kept open: one whose other end is closed would be readable for ever.
pairs: list[tuple[socket.socket, socket.socket]] = []


def stub(received: bytes) -> Any:
    """The `recv` and `send` of a socket as two functions in C."""
    return SimpleNamespace(recv=defaultdict(lambda: received).__getitem__, send=len)


def ours(received: bytes, sock: socket.socket) -> Callable[[], object]:
    """Start a connection that echoes. Returns what the hub calls when its socket is readable."""
    from apps.echo_handler import Echo

    from websock_gevent import Options
    from websock_gevent.connection import Connection
    from websock_gevent.drivers import run
    from websock_gevent.watched import parts_for
    from websock_gevent.websocket import WebSocket

    options, parts = Options(), parts_for(Echo)
    reader = parts.reader(options.max_frame_size, options.max_message_size, options.validate_utf8, None)
    websocket = WebSocket(sock, {}, reader)
    websocket.tap(lambda _: stub(received))
    connection = parts.connection(Connection, websocket, Echo, None, options)
    gevent.spawn(run, connection)
    gevent.idle()
    readable: Callable[[], object] = connection.waiter._on_readable
    return readable


def watched(received: bytes, sock: socket.socket) -> Callable[[], object]:
    """The same with a receiver of `connection_started`: frames are counted, and callbacks timed."""
    from websock_gevent.signals import connection_started

    with connection_started.connected_to(ignore):
        return ours(received, sock)


def ignore(sender: object, **_: object) -> None:
    """Receive a signal."""


def bare(received: bytes, sock: socket.socket) -> Callable[[], object]:
    """The same with apps/bare_flask.py, which is started as it is."""
    from apps.bare_flask import serve

    wrapped = SimpleNamespace(_sock=stub(received), fileno=sock.fileno)
    watcher = SimpleNamespace(start=lambda function: None)
    greenlet = gevent.spawn(serve, wrapped, watcher, lambda message: message)
    gevent.idle()
    switch: Callable[[], object] = greenlet.switch
    return switch


def measure(
    start: Callable[[bytes, socket.socket], Callable[[], object]], scenario: tuple[int, int, int], times: int
) -> list[int]:
    """Nanoseconds for each message, the least first."""
    connections, size, at_a_time = scenario
    pairs.extend(socket.socketpair() for _ in range(connections))
    received = Frame(Opcode.TEXT, b"x" * size).serialize(mask=True) * at_a_time
    readables = [start(received, pair[0]) for pair in pairs[-connections:]]
    found: list[float] = []

    def repeat() -> None:
        for _ in range(times):
            began = time.perf_counter()
            for _ in range(SWITCHES // connections):
                for readable in readables:
                    readable()
            found.append((time.perf_counter() - began) / SWITCHES / at_a_time)

    gevent.get_hub().loop.run_callback(repeat)
    gevent.idle()
    return sorted(round(seconds * 1e9) for seconds in found)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", default=str(ROOT), help="another checkout of the library, or a commit of this one")
    parser.add_argument("--times", type=int, default=30, help="repetitions of each measurement (30)")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    raise_file_limit()
    sys.path.insert(0, str(checkout(args.tree)))
    print("connections x at a time x bytes       ours (least, quartile)   watched          a bare loop")
    for scenario in SCENARIOS:
        figures = [
            f"{found[0]:,} {found[len(found) // 4]:,}"
            for found in (measure(start, scenario, args.times) for start in (ours, watched, bare))
        ]
        connections, size, at_a_time = scenario
        name = f"{connections} x {at_a_time} x {size}"
        print(f"{name:30} {figures[0]:>20} {figures[1]:>18} {figures[2]:>18}", flush=True)


if __name__ == "__main__":
    main()
