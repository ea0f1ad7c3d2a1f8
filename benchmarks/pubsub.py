"""Broadcast through Redis to 1 000 subscribers on two workers, beside what people would otherwise use.

Servers and Redis are started afresh for each measurement, the workers on one core, Redis and the clients on the other.
Closed loop: the next message is published when one that is ``--window`` older has reached everybody. Open loop: so many
messages a second, and how long each delivery took from its publication on. The publisher is a process of its own.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machine import clock, describe, pinned
from peers import GEVENT_WEBSOCKET_WORKER
from servers import APPS, Server, gunicorn, running, why_missing

RESULTS = Path(__file__).resolve().parent / "results"
TWO = ("--workers", "2")
UVICORN = ("-m", "uvicorn", "--log-level", "warning", "--port", "{port}", *TWO, "pubsub_channels:app")

#: Server, who publishes, path.
SYSTEMS = {
    "websock_gevent, push": (
        Server("ours", "websock_gevent, redis", gunicorn("pubsub_ours:app", "gevent") + TWO),
        "ours",
        "/",
    ),
    "websock_gevent, handle_info": (
        Server("ours", "websock_gevent, redis", gunicorn("pubsub_ours_info:app", "gevent") + TWO),
        "ours",
        "/info",
    ),
    "Flask-SocketIO": (
        Server("socketio", "flask_socketio", gunicorn("pubsub_socketio:app", GEVENT_WEBSOCKET_WORKER) + TWO),
        "socketio",
        "/socket.io/?EIO=4&transport=websocket",
    ),
    "channels_redis, pub/sub layer": (Server("channels", "channels_redis, uvicorn", UVICORN), "channels", "/"),
}


class Clients:
    """Subscribers that read from each frame when it was published, or, which is faster, count them by their bytes.

    All frames of one system have one size.
    """

    def __init__(self, port: int, path: str, count: int) -> None:
        self.received = [0] * count
        self.latencies: list[int] = []
        self.lowest = 0
        self.timed = True
        self._frame = 0
        self._bytes = [0] * count
        self._buffers = [b""] * count
        self._sockets = [self._connect(port, path) for _ in range(count)]
        self._poll = select.epoll()
        self._by_descriptor = {sock.fileno(): number for number, sock in enumerate(self._sockets)}
        for sock in self._sockets:
            sock.setblocking(False)
            self._poll.register(sock, select.EPOLLIN)

    def _connect(self, port: int, path: str) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port), 20)
        key = base64.b64encode(os.urandom(16)).decode()
        sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        data = b""
        while b"\r\n\r\n" not in data:
            data += sock.recv(4096)
        assert b" 101 " in data.split(b"\r\n")[0], data
        if "socket.io" in path:
            while b'"sid"' not in data:
                data += sock.recv(4096)
            sock.sendall(b"\x81\x82\x00\x00\x00\x0040")
            while b"40{" not in data.split(b"0{", 1)[1]:
                data += sock.recv(4096)
        else:
            while b"ready" not in data:
                data += sock.recv(4096)
        return sock

    def collect(self, seconds: float) -> None:
        """Take what comes within so many seconds, or the first of it."""
        for descriptor, _ in self._poll.poll(seconds):
            number = self._by_descriptor[descriptor]
            now_data = self._sockets[number].recv(1 << 18)
            assert now_data, "the server closed a connection"
            if self.timed:
                self._take(number, self._buffers[number] + now_data)
            else:
                self._bytes[number] += len(now_data)
        if not self.timed:
            self.received = [received // self._frame for received in self._bytes]
        self.lowest = min(self.received)

    def count(self, timed: bool) -> None:
        """Read times from now on, or only count. All that was published has come."""
        self.timed = timed
        self._bytes = [received * self._frame for received in self.received]

    def _take(self, number: int, data: bytes) -> None:
        now, at, size = time.monotonic_ns(), 0, len(data)
        while size - at >= 2:
            length, start = data[at + 1], at + 2
            if length == 126:
                length, start = int.from_bytes(data[start : start + 2], "big"), start + 2
            if start + length > size:
                break
            stamp = data.find(b'"t":', start, start + length)
            if stamp >= 0:
                self.received[number] += 1
                self._frame = start + length - at
                self.latencies.append(now - int(data[stamp + 4 : data.index(b",", stamp)]))
            at = start + length
        self._buffers[number] = data[at:]

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._poll.close()


@contextlib.contextmanager
def redis(cpu: int) -> Iterator[str]:
    """A Redis without persistence."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, pinned(cpu):
        found = shutil.which("redis-server", path=f"{os.environ['PATH']}:/usr/bin") or "redis-server"
        server = subprocess.Popen(
            [found, "--port", str(port), "--save", "", "--dir", folder], stdout=subprocess.DEVNULL
        )
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.02)
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one system once."""
    server, kind, path = SYSTEMS[name]
    with redis(1) as url:
        os.environ["REDIS_URL"] = url
        with running(server, sys.executable, 0) as started:
            time.sleep(2)  # until the second worker is there as well
            with pinned(1):
                clients = Clients(started.port, path, arguments.subscribers)
                command = [sys.executable, str(APPS / "pubsub_publisher.py"), kind, url, str(arguments.size)]
                publisher = subprocess.Popen(command, stdin=subprocess.PIPE, env=server.environment(), cwd=APPS)
                try:
                    closed = closed_loop(clients, publisher, started.pid, arguments)
                    opened = open_loop(clients, publisher, arguments)
                    foreign = foreign_cost(clients, publisher, started.pid)
                finally:
                    assert publisher.stdin is not None
                    publisher.stdin.close()
                    publisher.wait()
                    clients.close()
    return {"system": name, **closed, **opened, **foreign}


def closed_loop(clients: Clients, publisher: Any, server: int, arguments: argparse.Namespace) -> dict[str, float]:
    """As fast as it goes."""
    sent = 0

    def run(seconds: float) -> int:
        nonlocal sent
        end, before = time.monotonic() + seconds, sum(clients.received)
        while time.monotonic() < end:
            while sent - clients.lowest < arguments.window:
                publisher.stdin.write(b"\n")
                publisher.stdin.flush()
                sent += 1
            clients.collect(0.1)
        return sum(clients.received) - before

    def settle() -> None:
        while clients.lowest < sent:
            clients.collect(1.0)

    run(1.0)
    settle()
    clients.count(timed=False)
    run(0.5)
    before = clock(server, {0, 1})
    deliveries = run(arguments.seconds)
    after = clock(server, {0, 1})
    settle()
    clients.count(timed=True)
    return {
        "deliveries_per_second": deliveries / (after.wall - before.wall),
        "cpu_us_per_delivery": (after.server - before.server) / deliveries * 1e6,
        "server_cpu": (after.server - before.server) / (after.wall - before.wall),
    }


def open_loop(clients: Clients, publisher: Any, arguments: argparse.Namespace) -> dict[str, float]:
    """So many messages a second."""
    clients.latencies.clear()
    target = clients.lowest
    began = time.monotonic()
    for number in range(int(arguments.rate * arguments.seconds)):
        while (left := began + number / arguments.rate - time.monotonic()) > 0:
            clients.collect(left)
        publisher.stdin.write(b"\n")
        publisher.stdin.flush()
        target += 1
    deadline = time.monotonic() + 30
    while clients.lowest < target and time.monotonic() < deadline:
        clients.collect(0.1)
    ordered = sorted(clients.latencies)
    return {
        "p50_ms": ordered[len(ordered) // 2] / 1e6,
        "p99_ms": ordered[len(ordered) * 99 // 100] / 1e6,
        "lost": target * len(clients.received) - sum(clients.received),
    }


def foreign_cost(clients: Clients, publisher: Any, server: int) -> dict[str, float]:
    """What a message costs the servers that nobody there listens to; on a thousand different topics."""
    count = 5000

    def used(foreign: int) -> float:
        """CPU seconds for so many, and for one that everybody gets and that so shows the end."""
        before = clock(server, {0, 1}).server
        publisher.stdin.write(b"".join(b"foreign%d\n" % (number % 1000) for number in range(foreign)) + b"\n")
        publisher.stdin.flush()
        target = clients.lowest + 1
        deadline = time.monotonic() + 30
        while clients.lowest < target and time.monotonic() < deadline:
            clients.collect(0.1)
        return clock(server, {0, 1}).server - before

    return {"foreign_us": (used(count) - used(0)) / count * 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", nargs="*", default=list(SYSTEMS))
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--size", type=int, default=128, help="bytes of a message")
    parser.add_argument("--window", type=int, default=8)
    parser.add_argument("--rate", type=float, default=10, help="messages a second in the open loop")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for number in range(arguments.rounds):
        for name in arguments.systems:
            missing = why_missing(SYSTEMS[name][0], sys.executable)
            if missing:
                print(f"{name}: skipped, {missing}")
                continue
            rows.append({"round": number, **measure(name, arguments)})
            print(json.dumps(rows[-1]), flush=True)
    for name in arguments.systems:
        mine = [row for row in rows if row["system"] == name]
        if mine:
            middle = {key: statistics.median(row[key] for row in mine) for key in list(mine[0])[2:]}
            print(
                f"{name:32} {middle['deliveries_per_second']:9.0f} deliveries/s  "
                f"{middle['cpu_us_per_delivery']:6.1f} us CPU  p50 {middle['p50_ms']:6.1f} ms  "
                f"p99 {middle['p99_ms']:6.1f} ms  {middle['lost']:.0f} lost  "
                f"{middle['foreign_us']:6.1f} us CPU for one that nobody listens to"
            )
    path = RESULTS / f"pubsub-{time.strftime('%Y-%m-%d')}.json"
    path.write_text(json.dumps({"machine": describe(), "arguments": vars(arguments), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
