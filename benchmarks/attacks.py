#!/usr/bin/env python3
"""What attacks cost: each against a real server with the default limits, at two sizes, beside an honest connection.

Twice the attack must cost twice the CPU time (a ratio of about 1 per unit) and no more memory, and may hardly keep
an honest connection of the same server waiting. Server on one core; attacker and honest client, two processes, on
the other. Writes results/attacks-DATE.json and results/attacks-DATE.rst. Takes about three minutes::

    python benchmarks/attacks.py               # all
    python benchmarks/attacks.py fragments     # those with this in their names; nothing is written
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from machine import describe, pinned, process_tree

HERE = Path(__file__).resolve().parent
LIMIT = 10_000_000  # max_message_size by default
DEADLINE = 60.0
BLOCKED = 2.0  # seconds
SERVER_CPU, CLIENT_CPU = 0, 1
KIB = 1 << 10

# The server, run as `attacks.py serve` under gevent.pywsgi, and as `attacks:app` under gunicorn.


class Sink:
    """Takes messages and says nothing; "block" keeps it busy, "flood HOW COUNT" fills its own mailbox."""

    def init(self, state):
        self.flood = None
        return "ok", state

    def handle_in(self, message, state):
        if message == "block":
            time.sleep(BLOCKED)  # gevent's
        elif isinstance(message, str) and message.startswith("flood "):
            _, how, count = message.split()
            self.flood = start_flood(how, int(count))
            if how.endswith("blocked"):
                time.sleep(0.3)
        return "ok", state

    def handle_info(self, message, state):
        return ("stop", "normal", state) if message is None else ("ok", state)

    def terminate(self, reason, state):
        if self.flood is not None:
            self.flood.get()


class Echo(Sink):
    """Says everything again."""

    def handle_in(self, message, state):
        return "push", message, state


def start_flood(how: str, count: int) -> Any:
    """Have a greenlet or an OS thread fill the mailbox of the running callback's connection."""
    import gevent

    from websock_gevent import current

    put = current().push if how.startswith("push") else current().send
    arguments = put, count, current() if how.endswith("paced") else None, current().send
    if "thread" in how:
        return gevent.get_hub().threadpool.spawn(flood, *arguments)
    return gevent.spawn(flood, *arguments)


def flood(put: Callable[[object], bool], count: int, paced: Any, last: Callable[[object], bool]) -> None:
    """Put in more than may wait, and go on when that is refused; or, paced, as much as just may."""
    import gevent

    for number in range(count):
        while paced is not None and len(paced) >= 5000:
            gevent.sleep(0.001)
        put("x" if number % 100 else "y")
    last(None)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A WSGI application: the path names the handler, the query what differs from the default options."""
    from werkzeug.exceptions import HTTPException

    from websock_gevent import upgrade

    handler = Echo if environ["PATH_INFO"] == "/echo" else Sink
    changed = json.loads(environ["QUERY_STRING"].replace("'", '"') or "{}")
    try:
        return upgrade(environ, handler, None, **changed)(environ, start_response)
    except HTTPException as refusal:
        return refusal(environ, start_response)


def serve(port: int) -> None:
    """Serve by gevent.pywsgi."""
    from gevent import monkey

    monkey.patch_all()
    from gevent.pywsgi import WSGIServer

    WSGIServer(("127.0.0.1", port), app, log=None, error_log=None).serve_forever()


@dataclass(frozen=True)
class Server:
    """A running server; the process that serves."""

    pid: int
    port: int

    def cpu(self) -> float:
        """Seconds used so far."""
        return cpu_of(self.pid)

    def resident(self) -> int:
        """Bytes of memory in use."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def rests(self) -> None:
        """Wait until it uses less than a tenth of its core."""
        used, deadline = -1.0, time.monotonic() + DEADLINE
        while self.cpu() - used > 0.03 and time.monotonic() < deadline:
            used = self.cpu()
            time.sleep(0.3)


def cpu_of(pid: int) -> float:
    """CPU seconds of a process, all threads: the clock that clock_getcpuclockid(3) finds."""
    return time.clock_gettime((~pid << 3) | 2)


class Watch(threading.Thread):
    """Looks at the server's memory every few milliseconds."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.server, self.peak, self.over = server, server.resident(), threading.Event()
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.003):
            self.peak = max(self.peak, self.server.resident())

    def highest(self) -> int:
        """Stop, and tell the most bytes there were."""
        self.over.set()
        self.join()
        return max(self.peak, self.server.resident())


def command(kind: str, port: int) -> list[str]:
    if kind == "pywsgi":
        return [sys.executable, str(HERE / "attacks.py"), "serve", str(port)]
    bind = ["--bind", f"127.0.0.1:{port}", "--no-control-socket", "--log-level", "critical", "--graceful-timeout", "1"]
    return [sys.executable, "-m", "gunicorn", "-k", "gevent", *bind, "attacks:app"]


@contextlib.contextmanager
def serving(kind: str) -> Iterator[Server]:
    """A fresh server on a core of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    paths = [os.environ.get("PYTHONPATH"), str(HERE.parent), str(HERE)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with pinned(SERVER_CPU):
        process = subprocess.Popen(command(kind, port), env=env, cwd=HERE, **silent)  # type: ignore[call-overload]
    try:
        upgraded(port).close()
        yield Server(process_tree(process.pid)[-1], port)
    finally:
        for pid in process_tree(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


# Clients.


def head(path: str = "/sink", **more: str) -> bytes:
    """A handshake."""
    headers = {
        "Host": "localhost",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        **({"Sec-WebSocket-Extensions": "permessage-deflate"} if "compress" in path else {}),
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def connected(port: int) -> socket.socket:
    """A connection, tried for some seconds."""
    deadline = time.monotonic() + 10
    while True:
        try:
            made = socket.create_connection(("127.0.0.1", port), DEADLINE)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def upgraded(port: int, path: str = "/sink") -> socket.socket:
    """A connection that has become a WebSocket."""
    made, answer = connected(port), b""
    made.sendall(head(path))
    while b"\r\n\r\n" not in answer:
        answer += made.recv(1)
    assert b" 101 " in answer, answer
    return made


def frame(first: int, payload: bytes = b"", size: int | None = None) -> bytes:
    """A client's frame; its mask is zero. A size that is not the payload's is a lie."""
    size = len(payload) if size is None else size
    if size < 126:
        return struct.pack("!BBI", first, 0x80 | size, 0) + payload
    if size < 65536:
        return struct.pack("!BBHI", first, 254, size, 0) + payload
    return struct.pack("!BBQI", first, 255, size, 0) + payload


FIN, TEXT, BINARY, CLOSE, PING, RSV1 = 0x80, 1, 2, 8, 9, 0x40
GOODBYE = frame(FIN | CLOSE, b"\x03\xe8")


class Drain(threading.Thread):
    """Reads to the end of the stream."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(daemon=True)
        self.connection, self.count, self.tail = connection, 0, b""
        self.start()

    def run(self) -> None:
        try:
            while data := self.connection.recv(1 << 18):
                self.count += len(data)
                self.tail = (self.tail + data)[-200:]
        except OSError as error:
            self.tail += type(error).__name__.encode()

    def ended(self) -> str:
        """Wait for the end and tell what it was: the close code, if there is one."""
        self.join(DEADLINE)
        tail = self.tail
        for start in range(len(tail) - 4, -1, -1):
            if tail[start] == FIN | CLOSE and tail[start + 1] == len(tail) - start - 2:
                return str(int.from_bytes(tail[start + 2 : start + 4], "big"))
        return "still open" if self.is_alive() else "closed" if not tail.isalpha() else tail.decode()


#: An attack with its size.
Run = Callable[["Server", int], "Deed"]


@dataclass(frozen=True)
class Deed:
    """What an attack did."""

    bytes: int
    ended: str


def copies(data: bytes, count: int) -> Iterator[bytes]:
    """So many of them, in large pieces."""
    many = max(1, (1 << 18) // len(data))
    yield from itertools.repeat(data * many, count // many)
    yield data * (count % many)


def stream(server: Server, pieces: Iterable[bytes], path: str = "/sink") -> Deed:
    """One connection that sends all this, and reads what comes."""
    sent = 0
    with upgraded(server.port, path) as made:
        drain = Drain(made)
        with contextlib.suppress(OSError):  # the server had enough
            for piece in pieces:
                made.sendall(piece)
                sent += len(piece)
        return Deed(sent, drain.ended())


def each(server: Server, count: int, data: bytes, path: str = "/sink") -> Deed:
    """So many connections, one after the other, that send this."""
    deeds = [stream(server, [data], path) for _ in range(count)]
    return Deed(sum(deed.bytes for deed in deeds), ", ".join(sorted({deed.ended for deed in deeds})))


def together(server: Server, count: int, pieces: Callable[[], Iterable[bytes]]) -> Deed:
    """So many connections at once that send this."""
    deeds: list[Deed] = []
    threads = [threading.Thread(target=lambda: deeds.append(stream(server, pieces()))) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Deed(sum(deed.bytes for deed in deeds), ", ".join(sorted({deed.ended for deed in deeds})))


# Attacks.


def fragments(server: Server, count: int) -> Deed:
    return stream(server, [frame(TEXT), *copies(frame(0, b"a"), count), frame(FIN), GOODBYE])


def continuations(server: Server, count: int) -> Deed:
    return stream(server, [frame(TEXT), *copies(frame(0), count), frame(FIN), GOODBYE])


def endless(server: Server, count: int) -> Deed:
    return together(server, 10, lambda: [frame(BINARY), *copies(frame(0), count // 10), GOODBYE])


def pings(server: Server, count: int) -> Deed:
    return stream(server, [*copies(frame(FIN | PING), count), GOODBYE])


def large_pings(server: Server, count: int) -> Deed:
    return stream(server, [*copies(frame(FIN | PING, bytes(125)), count), GOODBYE])


def deaf_pings(server: Server, count: int) -> Deed:
    """Pings while the handler blocks and after it, as long as the server takes them; no pong is read meanwhile."""
    sent, path = 0, "/sink?{'send_timeout':2}"
    with upgraded(server.port, path) as made:
        made.sendall(frame(FIN | TEXT, b"block"))
        made.settimeout(1.0 + BLOCKED)
        with contextlib.suppress(OSError):
            for piece in copies(frame(FIN | PING, bytes(125)), count):
                while piece:
                    taken = made.send(piece)
                    sent, piece = sent + taken, piece[taken:]
        time.sleep(2.5)
        return Deed(sent, Drain(made).ended())


def tiny(server: Server, count: int) -> Deed:
    return stream(server, [*copies(frame(FIN | BINARY), count), GOODBYE])


def tiny_echoed(server: Server, count: int) -> Deed:
    return stream(server, [*copies(frame(FIN | BINARY, b"a"), count), GOODBYE], "/echo")


def impossible(server: Server, count: int) -> Deed:
    return each(server, count, frame(FIN | BINARY, size=1 << 62))


def held(server: Server, count: int, data: bytes, path: str = "/sink") -> Deed:
    """So many connections that send this and nothing more; looked at when the server rests. Without path, plain TCP."""
    with contextlib.ExitStack() as stack:
        opened = [upgraded(server.port, path) if path else connected(server.port) for _ in range(count)]
        made = [stack.enter_context(connection) for connection in opened]
        for connection in made:
            connection.sendall(data)
        server.rests()
        ended = select.select(made, [], [], 0)[0]
        return Deed(count * len(data), f"{len(ended)} closed" if ended else "waits for more")


def promised(server: Server, count: int) -> Deed:
    return held(server, count, frame(FIN | BINARY, size=LIMIT - 1))


def half_handshakes(server: Server, count: int) -> Deed:
    return held(server, count, head()[:80], path="")


COMPRESSED = "/sink?{'compress':true}"
_compressor = zlib.compressobj(9, wbits=-15)
#: A megabyte of zeros, behind another one: a thousandth of that.
MEGABYTE = [_compressor.compress(bytes(1_000_000)) + _compressor.flush(zlib.Z_FULL_FLUSH) for _ in range(2)][1]
TO_THE_LIMIT = (MEGABYTE * 10)[:-4]
PAST_THE_LIMIT = MEGABYTE * 1000
LAST = b"\x03\x00"  # a last block with nothing in it


def bombs(server: Server, count: int) -> Deed:
    return stream(server, [*copies(frame(FIN | RSV1 | BINARY, TO_THE_LIMIT), count), GOODBYE], COMPRESSED)


def unfinished_bombs(server: Server, count: int) -> Deed:
    return held(server, count, frame(RSV1 | BINARY, MEGABYTE * 10), COMPRESSED)


def held_bombs(server: Server, count: int) -> Deed:
    """Past the limit, on connections that stay open though they are told to close."""
    return held(server, count, frame(FIN | RSV1 | BINARY, MEGABYTE * 11), COMPRESSED)


def text_bombs(server: Server, count: int) -> Deed:
    return stream(server, [*copies(frame(FIN | RSV1 | TEXT, TO_THE_LIMIT), count), GOODBYE], COMPRESSED)


def big_bombs(server: Server, count: int) -> Deed:
    return each(server, count, frame(FIN | RSV1 | BINARY, PAST_THE_LIMIT), COMPRESSED)


def split(data: bytes, size: int) -> bytes:
    """A compressed message in fragments of this size."""
    parts = [frame(0, data[at : at + size]) for at in range(0, len(data), size)]
    return b"".join([frame(RSV1 | TEXT), *parts, frame(FIN)])


def split_bombs(server: Server, count: int) -> Deed:
    return stream(server, [*copies(split(TO_THE_LIMIT, 1), count), GOODBYE], COMPRESSED)


def split_big_bombs(server: Server, count: int) -> Deed:
    return each(server, count, split(MEGABYTE * 11, 1), COMPRESSED)


def last_blocks(server: Server, count: int) -> Deed:
    return stream(server, [*copies(frame(FIN | RSV1 | BINARY, LAST * 64), count), GOODBYE], COMPRESSED)


def last_blocks_apart(server: Server, count: int) -> Deed:
    message = frame(RSV1 | BINARY) + frame(0, LAST) * 64 + frame(FIN)
    return stream(server, [*copies(message, count), GOODBYE], COMPRESSED)


def too_many_last_blocks(server: Server, count: int) -> Deed:
    return each(server, count, frame(FIN | RSV1 | BINARY, LAST * 5000), COMPRESSED)


def nothing_compressed(server: Server, count: int) -> Deed:
    """One message that never ends, of fragments that inflate to nothing."""
    return stream(server, [frame(RSV1 | BINARY), *copies(frame(0, b"\0\0\0\xff\xff"), count), GOODBYE], COMPRESSED)


def flooding(how: str) -> Run:
    """The server's own greenlets and threads put in so many messages."""
    return lambda server, count: stream(server, [frame(FIN | TEXT, f"flood {how} {count}".encode())])


def heads(changed: Callable[[int], dict[str, str]], path: str = "/sink", times: int = 50) -> Run:
    """Handshakes with a header of this many bytes."""
    return lambda server, size: repeated(server, head(path, **changed(size)), times)


def repeated(server: Server, data: bytes, times: int) -> Deed:
    """One handshake some times; it ended with its answer."""
    statuses = set()
    for _ in range(times):
        with connected(server.port) as made:
            made.sendall(data)
            statuses.add(made.recv(4096).split(b" ")[1].decode())
    return Deed(len(data) * times, f"HTTP {', '.join(sorted(statuses))}")


def offers(size: int) -> dict[str, str]:
    return {"Sec_WebSocket_Extensions": ("a;b," * size)[:size]}


def many_offers(size: int) -> dict[str, str]:
    """In as many lines as it takes."""
    line = 8000
    return {"Sec_WebSocket_Extensions": ("\r\nSec-WebSocket-Extensions: ".join(["a," * (line // 2)] * (size // line)))}


def protocols(size: int) -> dict[str, str]:
    return {"Sec_WebSocket_Protocol": ("a," * size)[:size]}


def quotes(size: int) -> dict[str, str]:
    return {"Sec_WebSocket_Extensions": ('a;b="\\"' + '\\"a;b="' * size)[:size]}


def origin(size: int) -> dict[str, str]:
    return {"Origin": "http://" + "a." * (size // 2)}


def origin_address(size: int) -> dict[str, str]:
    return {"Origin": "http://[" + "1:" * (size // 2 - 4) + "]"}


@dataclass(frozen=True)
class Attack:
    """One kind of attack."""

    name: str
    unit: str
    size: int  # it is measured with this and with twice of it
    run: Run
    server: str = "gunicorn"


NAMES = "{'subprotocols':['x','y','z']}"
ATTACKS = [
    Attack("1-byte fragments of one message", "fragment", 2_000_000, fragments),
    Attack("empty continuations of one message", "frame", 500_000, continuations),
    Attack("empty continuations without end, 10 connections", "frame", 500_000, endless),
    Attack("pings, pongs read", "ping", 500_000, pings),
    Attack("pings of 125 bytes, pongs read", "ping", 200_000, large_pings),
    Attack("pings while the handler blocks, pongs unread", "ping", 500_000, deaf_pings),
    Attack("tiny messages", "message", 500_000, tiny),
    Attack("tiny messages, echoed", "message", 200_000, tiny_echoed),
    Attack("declared length 2^62", "connection", 100, impossible),
    Attack("declared length just under the limit", "connection", 100, promised),
    Attack("half a handshake, gunicorn", "connection", 250, half_handshakes),
    Attack("half a handshake, pywsgi", "connection", 250, half_handshakes, "pywsgi"),
    Attack("bombs that inflate to the limit", "message", 200, bombs),
    Attack("bombs that inflate to the limit, text", "message", 50, text_bombs),
    Attack("bombs past the limit (1 MB to 1 GB)", "connection", 25, big_bombs),
    Attack("bombs to the limit, unfinished, kept open", "connection", 25, unfinished_bombs),
    Attack("bombs past the limit, kept open", "connection", 25, held_bombs),
    Attack("bombs to the limit, in 1-byte fragments", "message", 25, split_bombs),
    Attack("bombs past the limit, in 1-byte fragments", "connection", 25, split_big_bombs),
    Attack("messages of 64 last blocks", "message", 5000, last_blocks),
    Attack("messages of 64 last blocks, in fragments", "message", 1000, last_blocks_apart),
    Attack("a message of 5000 last blocks", "connection", 100, too_many_last_blocks),
    Attack("compressed fragments of nothing, without end", "frame", 200_000, nothing_compressed),
    Attack("mailbox: a greenlet, as fast as it is emptied", "message", 200_000, flooding("greenlet-paced")),
    Attack("mailbox: a greenlet, handler blocked", "message", 200_000, flooding("greenlet-blocked")),
    Attack("mailbox: a thread, as fast as it is emptied", "message", 100_000, flooding("thread-paced")),
    Attack("mailbox: a thread, handler blocked", "message", 200_000, flooding("thread-blocked")),
    Attack("push: a thread, handler blocked", "message", 100_000, flooding("push-thread-blocked")),
    Attack("header of offers", "byte", 4000, heads(offers, COMPRESSED)),
    Attack("header of quotes", "byte", 4000, heads(quotes, COMPRESSED)),
    Attack("headers of offers, gunicorn", "byte", 320_000, heads(many_offers, COMPRESSED, 3)),
    Attack("headers of offers, pywsgi", "byte", 320_000, heads(many_offers, COMPRESSED, 3), "pywsgi"),
    Attack("header of subprotocols", "byte", 4000, heads(protocols, f"/sink?{NAMES}")),
    Attack("Origin of labels", "byte", 4000, heads(origin)),
    Attack("Origin of an IPv6 address", "byte", 4000, heads(origin_address)),
]

# The honest connection.


def honest(port: int, server: int) -> None:
    """Echo every 5 ms. For each line read, print the waits since the last one.

    In milliseconds, by the clock and by the server's CPU time: that does not count what other programs used meanwhile.
    """
    waits: list[tuple[float, float]] = []
    with contextlib.suppress(PermissionError):
        os.nice(-15)  # what others run on its core is not to count
    with upgraded(port, "/echo") as made:
        print(flush=True)
        while True:
            began, used = time.monotonic(), cpu_of(server)
            made.sendall(frame(FIN | TEXT, b"hello"))
            assert len(made.recv(7, socket.MSG_WAITALL)) == 7
            waits.append(((time.monotonic() - began) * 1e3, (cpu_of(server) - used) * 1e3))
            if select.select([sys.stdin], [], [], 0.005)[0]:
                sys.stdin.readline()
                clock, cpu = (max(times) for times in zip(*waits, strict=True))
                print(json.dumps({"clock": clock, "cpu": cpu}), flush=True)
                waits.clear()


class Honest:
    """That connection, in a process of its own."""

    def __init__(self, server: Server) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        arguments = [sys.executable, str(HERE / "attacks.py"), "honest", str(server.port), str(server.pid)]
        self.process = subprocess.Popen(arguments, **pipes)  # type: ignore[call-overload]
        self.process.stdout.readline()

    def waits(self) -> dict[str, float]:
        """Since this was asked last."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found: dict[str, float] = json.loads(self.process.stdout.readline())
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


# Measuring.


def measure(attack: Attack) -> dict[str, Any]:
    """One attack, with its size and with twice of it, on one server."""
    with serving(attack.server) as server, contextlib.closing(Honest(server)) as friend:
        time.sleep(0.3)
        before, idle = server.resident(), friend.waits()
        attack.run(server, max(1, attack.size // 20))  # what is made once is made now
        sizes = [measure_size(attack, server, friend, size) for size in (attack.size, 2 * attack.size)]
    for size in sizes:
        size["growth_mib"] = (size.pop("highest") - before) / 2**20
    return {"name": attack.name, "unit": attack.unit, "server": attack.server, "idle": idle, "sizes": sizes}


def measure_size(attack: Attack, server: Server, friend: Honest, size: int) -> dict[str, Any]:
    friend.waits()
    watch, cpu, began = Watch(server), server.cpu(), time.monotonic()
    deed = attack.run(server, size)
    return {
        "size": size,
        "bytes": deed.bytes,
        "ended": deed.ended,
        "seconds": time.monotonic() - began,
        "cpu_us": (server.cpu() - cpu) * 1e6,
        "highest": watch.highest(),
        "waits": friend.waits(),
    }


# Telling.

HEAD = "attack|size|ended|µs per unit|µs per byte|ratio|MiB, once|MiB, twice|idle|wait|wait, CPU".split("|")


def cells(row: dict[str, Any]) -> list[str]:
    once, twice = row["sizes"]
    each = [size["cpu_us"] / size["size"] for size in row["sizes"]]
    return [
        row["name"],
        f"{twice['size']:,} {row['unit']}s".replace(",", " "),
        twice["ended"],
        f"{each[1]:.3g}",
        f"{twice['cpu_us'] / twice['bytes']:.3g}",
        f"{each[1] / each[0]:.2f}",
        f"{once['growth_mib']:.1f}",
        f"{twice['growth_mib']:.1f}",
        f"{row['idle']['clock']:.1f}",
        f"{max(once['waits']['clock'], twice['waits']['clock']):.1f}",
        f"{max(once['waits']['cpu'], twice['waits']['cpu']):.1f}",
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in reStructuredText."""
    lines = [HEAD, *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    body = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([rule, body[0], rule, *body[1:], rule, ""])


TEXT_ABOVE = """\
What attacks cost
=================

Written by ``benchmarks/attacks.py`` on {date}. Each attack with N and with 2N, on one server with the default limits.
*ratio*: CPU time per unit with 2N, divided by that with N; about 1 is linear. *MiB*: peak of the server's memory above
what it had when idle, with N and with 2N. *idle*, *wait*: the longest time in milliseconds that another connection,
which sends a message every 5 ms, waited for its echo, before the attack and while it went on; *CPU* is that in CPU time
of the server, without what other programs used of its core. Bytes are those the attacker sent.

Where others waited for more than some milliseconds: a hundred attackers at once give 7 to 10 MB each back to the system
in the same round of the loop, a millisecond or two for each ("kept open"); the server itself parses hundreds of
requests, or hundreds of kilobytes of headers, before it calls the library (handshakes, headers under gunicorn);
an application's own greenlet makes 400 000 messages without giving way, or its own thread takes its share of the
interpreter (mailbox, push).

"""


def versions() -> dict[str, str]:
    import gevent

    return {"python": platform.python_version(), "gevent": gevent.__version__, "zlib": zlib.ZLIB_RUNTIME_VERSION}


def main(part: str = "") -> None:
    """Measure, print and store."""
    os.sched_setaffinity(0, {CLIENT_CPU})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))  # servers are ended, too
    rows = []
    for attack in ATTACKS:
        if part in attack.name:
            rows.append(measure(attack))
            print(" | ".join(cells(rows[-1])), flush=True)
    print("", table(rows), sep="\n")
    if not part:
        facts = {"versions": versions(), "machine": describe(), "rows": rows}
        target = HERE / "results" / f"attacks-{date.today()}"
        target.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
        target.with_suffix(".rst").write_text(TEXT_ABOVE.format(date=date.today()) + table(rows))


if __name__ == "__main__":
    modes = {"serve": serve, "honest": honest}
    if sys.argv[1:2] and sys.argv[1] in modes:
        modes[sys.argv[1]](*map(int, sys.argv[2:]))
    else:
        main(*sys.argv[1:2])
