#!/usr/bin/env python3
"""A soak: half an hour of everything that clients do, and whether anything grows meanwhile or is left behind.

gunicorn -k gevent serves apps/soak_app.py; a process of clients keeps about 200 connections busy, some tens of which
end each second, in every way there is. Exit status 1

- if of what the server's process holds, the median of the last fifth of the time exceeds that of the second fifth by
  more than 5 % (counts: and 5); in less than two minutes it may, since the load begins within five seconds;
- if a message came back wrong, or a client saw another end, or the log holds a line that it must not;
- if ``terminate`` did not run exactly once for each ``init``, or anything is left when all clients are gone.

Writes results/soak-DATE.json and .svg.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import os
import platform
import random
import re
import socket
import statistics
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import date
from html import escape
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import machine
from peers import revision
from servers import HERE, Running, Server, gunicorn, running
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_asyncio
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.sync.client import connect as connect_sync

SERVER = Server("soak", "websock_gevent, gunicorn, flask", gunicorn("soak_app:app", "gevent"))
SLOTS = 200
ROOMS = 10
#: What is judged, by how much it may grow: a factor, and a count for what is counted in small numbers.
BOUNDS = {
    "memory": (1.05, 0),
    "malloc_used": (1.05, 0),
    "blocks": (1.05, 0),
    "objects": (1.05, 0),
    "descriptors": (1.05, 5),
    "greenlets": (1.05, 5),
    "watchers": (1.05, 5),
}
#: What must not be more than before the first client, once the last is gone.
LEFT = ("descriptors", "greenlets", "watchers", "connections", "mailboxes", "members", "balance", "doubles")
#: Seconds until nothing may be left; the longest deadline of the server is 8.
IDLE = 30
#: What the log may hold, numbers left out: what clients did wrong, and what handlers were told to do.
LOGGED = re.compile(
    r"N\.N\.N\.N '/chat/\w+': |Traceback |RuntimeError: the handler was told to$"
    r"|TypeError: a callback returned 'nonsense'"
)


# What clients send.

_TEXT = " ".join(f'{{"id": {n * 7919}, "user": "änn{n % 31}", "text": "the {n % 7} quick"}}' for n in range(25_000))
_NOISE = random.Random(1).randbytes(1_100_000)


def size(most: int) -> int:
    """Mostly small, now and then up to ``most``, and those where the format of a frame changes."""
    kind = random.random()
    if kind < 0.1:
        return random.choice((1, 125, 126, 127, 128, min(most, 65535), min(most, 65536)))
    return int(random.uniform(1, 1000)) if kind < 0.75 else int(2 ** random.uniform(8, most.bit_length() - 1))


def message(action: str, most: int) -> str | bytes:
    """A text or noise; its first character is for the server."""
    wanted = size(most)
    start = random.randrange(50_000)
    if random.random() < 0.5:
        return action + _TEXT[start : start + wanted - 1]
    return action.encode() + _NOISE[start : start + wanted - 1]


def masked(payload: str | bytes, opcode: Opcode | None = None, flip: int = 0) -> bytes:
    """A frame as a client sends it, some bits of its first byte turned over."""
    data = payload.encode() if isinstance(payload, str) else payload
    kind = Opcode.TEXT if isinstance(payload, str) else Opcode.BINARY
    frame = bytearray(Frame(kind if opcode is None else opcode, data).serialize(mask=True))
    frame[0] ^= flip
    return bytes(frame)


def close_frame(code: int) -> bytes:
    """A close frame as a client sends it."""
    return masked(struct.pack("!H", code), Opcode.CLOSE)


#: Frames that are refused, and with which code.
INVALID = [
    (b"\x81\x01x", "1002"),
    (masked("x", flip=0x20), "1002"),
    (b"\x83\x80abcd", "1002"),
    (masked("x", Opcode.CONT), "1002"),
    (masked(b"x", Opcode.CLOSE), "1002"),
    (masked(b"x", Opcode.PING, flip=0x80), "1002"),
    (masked(b"\xc3(", Opcode.TEXT), "1007"),
    (masked(b"\xff\xff\xff", Opcode.TEXT, flip=0x40), "1002 1007"),
    (b"\x82\xff" + struct.pack("!Q", 2_000_000) + b"abcd", "1009"),
]


# Clients that speak bytes.


class Raw:
    """A client without a WebSocket library."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def open(self, room: str, behind: bytes = b"", **changed: str) -> None:
        """Shake hands, with bytes right behind."""
        self.writer.write(self.request(room, **changed) + behind)
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head, head

    async def connect(self) -> None:
        """Only TCP, with little room for what comes."""
        connected = socket.socket()
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connected.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connected, ("127.0.0.1", self.port))
        self.reader, self.writer = await asyncio.open_connection(sock=connected)

    def request(self, room: str, **changed: str) -> bytes:
        """A handshake; ``_`` in the name of a header stands for ``-``."""
        headers = {
            "Host": f"127.0.0.1:{self.port}",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
            **{name.replace("_", "-"): value for name, value in changed.items()},
        }
        deflate = random.choice(("off", "takeover", "alone"))
        lines = [f"GET /chat/{room}?deflate={deflate} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode()

    async def ending(self, seconds: float = 0) -> str:
        """The code of the close frame that comes; else how the stream ends. Takes a rest behind each frame."""
        try:
            while True:
                first, length = await self.reader.readexactly(2)
                if length >= 126:
                    length = int.from_bytes(await self.reader.readexactly(2 if length == 126 else 8), "big")
                payload = await self.reader.readexactly(length)
                if first & 0x0F == 8:
                    return str(struct.unpack("!H", payload[:2])[0])
                await asyncio.sleep(seconds)
        except asyncio.IncompleteReadError:
            return "end"
        except ConnectionError:
            return "reset"

    def leave(self, reset: bool = False) -> None:
        """Close without a word."""
        if reset:
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


async def pause(least: float, most: float) -> None:
    """Some time between the two."""
    await asyncio.sleep(random.uniform(least, most))


def shared() -> str:
    """A room where people talk."""
    return f"room{random.randrange(ROOMS)}"


async def drop(raw: Raw) -> str:
    """Leave with FIN or, as there may be unread bytes, with RST; sometimes inside a frame."""
    await raw.open(shared(), masked("e hello") if random.random() < 0.3 else b"")
    await pause(0, 4)
    raw.writer.write(masked(message("p", 20_000))[: random.choice((1, 3, 50, None))])
    await pause(0, 0.1)
    return "left"


async def reset(raw: Raw) -> str:
    """Leave with RST: at once, later, or while much is coming."""
    await raw.open(shared(), masked("!flood") if random.random() < 0.2 else b"")
    await pause(0, 3)
    raw.leave(reset=True)
    return "left"


async def half_close(raw: Raw) -> str:
    """Say that nothing more comes, and read on."""
    await raw.open("raw", masked(message("e", 5_000)))
    await pause(0, 1)
    raw.writer.write_eof()
    return await raw.ending()


async def invalid(raw: Raw) -> str:
    """Break the protocol; answer the close frame or do not."""
    frame, codes = random.choice(INVALID)
    await raw.open("raw")
    raw.writer.write(masked(message("e", 5_000)) + frame)
    code = await raw.ending()
    if random.random() < 0.5:
        raw.writer.write(close_frame(1000))
        await raw.ending()
    return "refused" if code in codes else f"{code} for {frame[:8]!r}"


async def unread(raw: Raw) -> str:
    """Ask for much and read nothing, until the server gives up."""
    await raw.open("raw", masked("!flood"))
    raw.writer.transport.pause_reading()
    await asyncio.sleep(10)
    return "left"


async def slow(raw: Raw) -> str:
    """Ask for much and read it slowly."""
    await raw.open("raw", masked("!flood") + close_frame(3001))
    return await raw.ending(0.6)


async def deaf(raw: Raw) -> str:
    """Do not read what is pushed."""
    await raw.open(shared(), masked("!pushes") if random.random() < 0.5 else b"")
    raw.writer.transport.pause_reading()
    await asyncio.sleep(10)
    return "left"


async def silent(raw: Raw) -> str:
    """Answer no ping."""
    await raw.open("raw")
    return await raw.ending()


async def overflow(raw: Raw) -> str:
    """Have more put into the mailbox than may wait."""
    await raw.open("raw", masked("!overflow"))
    return await raw.ending()


async def refused(raw: Raw) -> str:
    """Handshakes that are none, or not finished."""
    half = raw.request("raw")[: random.randrange(20, 200)]
    wrong = raw.request("raw", Sec_WebSocket_Version="12"), raw.request("raw", Origin="http://elsewhere")
    raw.writer.write(random.choice((half, *wrong, raw.request("raw", Upgrade="no"))))
    with suppress(TimeoutError, ConnectionError):
        await asyncio.wait_for(raw.reader.readuntil(b"\r\n"), random.uniform(0.1, 1))
    return "left"


def by_bytes(act: Callable[[Raw], Awaitable[str]]) -> Callable[[int], Awaitable[str]]:
    """Have a client without a library act, and be gone behind it."""

    async def session(port: int) -> str:
        raw = Raw(port)
        await raw.connect()
        try:
            return await act(raw)
        finally:
            raw.leave()

    return session


# Clients with a library.


def opened(port: int, room: str) -> connect_asyncio:
    """A connection, with one of the ways to compress."""
    deflate = random.choice(("off", "takeover", "alone"))
    return connect_asyncio(
        f"ws://127.0.0.1:{port}/chat/{room}?deflate={deflate}",
        compression=random.choice(("deflate", "deflate", None)),
        max_size=None,
        ping_interval=None,
        open_timeout=30,
        proxy=None,
    )


async def listen(client: ClientConnection, echoes: deque[str | bytes]) -> None:
    """Read to the end; what one has sent for oneself comes back in order."""
    with suppress(ConnectionClosed):
        async for received in client:
            if received[:1] in ("e", b"e", "", b""):
                sent = echoes.popleft()
                assert sent == received, f"{sent[:40]!r} came back as {received[:40]!r}"


async def say(client: ClientConnection, echoes: deque[str | bytes]) -> None:
    """One message, whole or in pieces, to oneself or to the room."""
    action = random.choice("eepmm")
    text = message(action, (1 << 20) - 1 if action == "e" else 30_000)
    if random.random() < 0.03:
        text, action = random.choice(("", b"")), "e"
    if action == "e":
        echoes.append(text)
    if random.random() < 0.1 and len(text) > 2:
        await client.send([text[:1], text[1:2], text[2:]])
    else:
        await client.send(text)


async def chat(port: int) -> str:
    """Talk for a while, then leave in one of the ways."""
    echoes: deque[str | bytes] = deque()
    async with opened(port, shared()) as client:
        reader = asyncio.create_task(listen(client, echoes))
        until = time.monotonic() + random.uniform(2, 20)
        while time.monotonic() < until:
            await say(client, echoes)
            if random.random() < 0.1:
                await client.ping()
            await asyncio.sleep(random.expovariate(1 / 1.5))
        return await part(client, reader)


async def part(client: ClientConnection, reader: asyncio.Task[None]) -> str:
    """Close with a code, or without, or be gone."""
    code = random.choice((1000, 1001, 3000, 4321, 0, 0))
    if code:
        await client.close(code, "bye" * random.randrange(2))
    else:
        client.transport.abort()
    await reader
    return "closed" if client.close_code == (code or 1006) else f"{client.close_code} for {code}"


async def idle(port: int) -> str:
    """Answer pings, and nothing else."""
    async with opened(port, "quiet") as client:
        with suppress(TimeoutError):
            await asyncio.wait_for(listen(client, deque()), random.uniform(5, 20))
    return "closed"


TOLD = {"stop": 1000, "code": 4002, "restart": 1012, "fail": 1011, "raise": 1011, "wrong": 1011, "die": 1012}
TOLD["kill"] = 1012


async def told(port: int) -> str:
    """Have the server end it."""
    how, code = random.choice(list(TOLD.items()))
    async with opened(port, shared()) as client:
        if random.random() < 0.2:
            await client.send("!block")
        await client.send("!" + how)
        await listen(client, deque())
        return "closed" if client.close_code == code else f"{client.close_code} for {how}"


#: What a client does, how often, and how that may go.
SESSIONS: dict[str, tuple[Callable[[int], Awaitable[str]], int, str]] = {
    "chat": (chat, 40, "closed"),
    "idle": (idle, 12, "closed"),
    "told": (told, 10, "closed"),
    "drop": (by_bytes(drop), 12, "left"),
    "reset": (by_bytes(reset), 12, "left"),
    "half close": (by_bytes(half_close), 6, "end"),
    "invalid": (by_bytes(invalid), 12, "refused"),
    "unread": (by_bytes(unread), 1, "left"),
    "slow": (by_bytes(slow), 1, "3001"),
    "deaf": (by_bytes(deaf), 2, "left"),
    "silent": (by_bytes(silent), 3, "1002"),
    "overflow": (by_bytes(overflow), 3, "1008"),
    "refused": (by_bytes(refused), 4, "left"),
}


async def slot(port: int, until: float, outcomes: Counter[str]) -> None:
    """One client after the other."""
    await pause(0, 5)
    weights = [weight for _, weight, _ in SESSIONS.values()]
    while time.monotonic() < until:
        (name,) = random.choices(list(SESSIONS), weights)
        session, _, expected = SESSIONS[name]
        try:
            result = await session(port)
        except Exception as error:
            result = f"{type(error).__name__}: {error}"[:200]
        outcomes[f"{name}: {'as expected' if result == expected else result}"] += 1


async def clients(port: int, seconds: float) -> None:
    """All of them; at the end, how often what happened."""
    outcomes: Counter[str] = Counter()
    until = time.monotonic() + seconds
    await asyncio.gather(*(slot(port, until, outcomes) for _ in range(SLOTS)))
    print(json.dumps(dict(sorted(outcomes.items()))))


# What the server holds.


class Watched:
    """The server, as it is looked at."""

    def __init__(self, server: Running) -> None:
        self.server = server
        self.began = time.monotonic()

    def get(self, path: str) -> dict[str, Any]:
        """What it tells."""
        with urlopen(f"http://127.0.0.1:{self.server.port}{path}", timeout=60) as answer:
            return json.loads(answer.read())

    def sample(self, path: str = "/sample") -> dict[str, Any]:
        """What it tells, and what the kernel tells of it."""
        told = self.get(path)
        proc = Path("/proc") / str(told.pop("pid"))
        fields = (proc / "stat").read_text().rpartition(")")[2].split()
        return {
            "seconds": round(time.monotonic() - self.began, 1),
            "memory": int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE"),
            "descriptors": len(list((proc / "fd").iterdir())),
            "threads": int(fields[17]),
            "cpu": (int(fields[11]) + int(fields[12])) / machine.TICK,
            **told,
        }

    def begin(self) -> dict[str, Any]:
        """Before the clients come, but with everything made that the first one has made."""
        with connect_sync(f"ws://127.0.0.1:{self.server.port}/chat/first", proxy=None) as client:
            client.send("e")
        time.sleep(5)
        samples = [self.sample("/sample?collect") for _ in range(5)]
        return {name: min(sample[name] for sample in samples) for name in samples[0]}

    def end(self, before: dict[str, Any]) -> dict[str, Any]:
        """When the clients are gone, and nothing is left or the time is over."""
        deadline = time.monotonic() + IDLE
        while True:
            sample = self.sample("/sample?collect")
            if time.monotonic() > deadline or not left(before, sample):
                return sample
            time.sleep(0.5)


def left(before: dict[str, Any], after: dict[str, Any]) -> dict[str, int]:
    """What is more than before."""
    grown = {name: after[name] - before[name] for name in LEFT if after[name] > before[name]}
    return grown | ({"balance": after["balance"]} if after["balance"] else {})


def under_load(watched: Watched, seconds: float) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Samples, and what the clients saw."""
    command = [sys.executable, __file__, "--clients", str(watched.server.port), "--minutes", str(seconds / 60)]
    every, samples = min(10.0, seconds / 50), []
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            watched.began = time.monotonic()
            while (next_one := (len(samples) + 1) * every) <= seconds and process.poll() is None:
                time.sleep(max(0, watched.began + next_one - time.monotonic()))
                samples.append(watched.sample())
                print(samples[-1], flush=True)
            return samples, json.loads(process.communicate(timeout=120)[0])
        finally:
            process.kill()


def grown_types(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """The types of which there are more, most first."""
    more = Counter({name: count - before.get(name, 0) for name, count in after.items()})
    return {name: count for name, count in more.most_common(25) if count > 0}


def logged(server: Running) -> dict[str, int]:
    """How often each kind of error and warning stands in the log, numbers left out."""
    server.log.seek(0)
    lines = server.log.read().decode(errors="replace").splitlines()
    kinds = Counter(re.sub(r"\d+|0x[0-9a-f]+", "N", line)[:120] for line in lines if line[:1] not in ("", " "))
    return dict(kinds.most_common(60))


# The judgement.


def fifths(samples: list[dict[str, Any]], name: str) -> tuple[float, float]:
    """The medians of the second and of the last fifth."""
    count = max(1, len(samples) // 5)
    second, last = samples[count : 2 * count], samples[-count:]
    return statistics.median(one[name] for one in second), statistics.median(one[name] for one in last)


def faults(facts: dict[str, Any]) -> list[str]:
    """Whatever must not be."""
    samples, found = facts["samples"], []
    for name, (factor, count) in BOUNDS.items():
        if name in samples[0]:
            second, last = fifths(samples, name)
            if last > second * factor + count:
                found.append(f"{name} grew: {second:.0f} in the second fifth, {last:.0f} in the last")
    found += [f"left at the end: {name} {count}" for name, count in left(facts["begin"], facts["end"]).items()]
    if any(sample["balance"] or sample["doubles"] for sample in samples):
        found.append("terminate did not run exactly once for each init")
    found += [f"{count} times in the log: {line}" for line, count in facts["log"].items() if not LOGGED.match(line)]
    wrong = {what: count for what, count in facts["outcomes"].items() if not what.endswith("as expected")}
    return found + [f"{count} times {what}" for what, count in wrong.items()]


# The picture.

PANELS = {
    "memory": ("resident memory, MB", 1e6),
    "descriptors": ("file descriptors", 1),
    "greenlets": ("greenlets", 1),
    "watchers": ("active watchers and queued callbacks", 1),
    "open": ("open connections", 1),
}
WIDTH, HEIGHT, LEFT_EDGE = 620, 90, 60


def panel(samples: list[dict[str, Any]], name: str, idle_before: float, idle_after: float) -> str:
    """One curve from zero up, the medians that are compared, and what there was without clients."""
    title, unit = PANELS[name]
    most = max(sample[name] for sample in samples) * 1.1 / unit or 1
    end = samples[-1]["seconds"]
    points = " ".join(
        f"{s['seconds'] / end * WIDTH:.1f},{HEIGHT - s[name] / unit / most * HEIGHT:.1f}" for s in samples
    )
    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#bbb"/>']
    for share, value in zip((0.2, 0.8), fifths(samples, name), strict=True):
        y = HEIGHT - value / unit / most * HEIGHT
        parts.append(f'<rect x="{share * WIDTH}" width="{WIDTH / 5}" height="{HEIGHT}" fill="#f3f3f3"/>')
        parts.append(f'<path d="M{share * WIDTH} {y:.1f}h{WIDTH / 5}" stroke="#d33"/>')
        parts.append(f'<text x="{share * WIDTH + 4}" y="{HEIGHT - 5}" fill="#d33">median {value / unit:.4g}</text>')
    parts.append(f'<polyline points="{points}" fill="none" stroke="#06c"/>')
    parts.append(f'<text x="-6" y="10" text-anchor="end">{most:.3g}</text>')
    parts.append(f'<text x="-6" y="{HEIGHT}" text-anchor="end">0</text>')
    idle = f"without clients: before {idle_before / unit:.4g}, after {idle_after / unit:.4g}"
    parts.append(f'<text y="-5"><tspan font-weight="bold">{title}</tspan> ({idle})</text>')
    return "".join(parts)


def picture(facts: dict[str, Any]) -> str:
    """All curves, one above the other."""
    samples, step = facts["samples"], HEIGHT + 26
    body = [
        f'<g transform="translate({LEFT_EDGE},{44 + n * step})">'
        f"{panel(samples, name, facts['begin'][name], facts['end'][name])}</g>"
        for n, name in enumerate(PANELS)
    ]
    ended, minutes = samples[-1]["ended"], samples[-1]["seconds"] / 60
    title = f"{minutes:.0f} minutes, {ended} connections ended; the second and the last fifth are compared"
    height = 44 + len(PANELS) * step
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + LEFT_EDGE + 20} {height}" '
        f'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="{LEFT_EDGE}" y="18" font-size="13">{escape(title)}</text>{"".join(body)}'
        f'<text x="{LEFT_EDGE}" y="{height - 12}">0</text>'
        f'<text x="{WIDTH + LEFT_EDGE}" y="{height - 12}" text-anchor="end">{minutes:.0f} minutes</text></svg>\n'
    )


# All together.


def versions() -> dict[str, str]:
    """Of what takes part."""
    names = ("websock-gevent", "gevent", "greenlet", "gunicorn", "flask", "werkzeug", "websockets")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"commit": revision(), "python": platform.python_version(), "zlib": zlib.ZLIB_RUNTIME_VERSION, **found}


def soak(seconds: float) -> dict[str, Any]:
    """Run it; everything there is to say about it."""
    command = f"python benchmarks/soak.py --minutes {seconds / 60:g}"
    facts: dict[str, Any] = {"command": command, "versions": versions(), "machine": machine.describe()}
    with running(SERVER, sys.executable, max(os.sched_getaffinity(0))) as server:
        watched = Watched(server)
        facts["begin"] = watched.begin()
        types = watched.get("/types?collect")
        facts["samples"], facts["outcomes"] = under_load(watched, seconds)
        facts["end"] = watched.end(facts["begin"])
        facts["grown_types"] = grown_types(types, watched.get("/types?collect"))
        watched.get("/trim")
        facts["end_trimmed"] = watched.sample()
        facts["reasons"], facts["log"] = watched.get("/reasons"), logged(server)
    facts["faults"] = faults(facts)
    return facts


def store(facts: dict[str, Any]) -> None:
    """One line for each sample."""
    samples = ",\n  ".join(json.dumps(sample) for sample in facts["samples"])
    fields = [f'"{name}": {json.dumps(value)}' for name, value in facts.items() if name != "samples"]
    fields.append(f'"samples": [\n  {samples}\n ]')
    path = HERE / "results" / f"soak-{date.today()}"
    path.with_suffix(".json").write_text("{\n " + ",\n ".join(fields) + "\n}\n")
    path.with_suffix(".svg").write_text(picture(facts))


def main() -> int:
    """0 if nothing grew and nothing is left."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, metavar="PORT", help="be the clients of a server there")
    arguments = parser.parse_args()
    if arguments.clients:
        asyncio.run(clients(arguments.clients, arguments.minutes * 60))
        return 0
    facts = soak(arguments.minutes * 60)
    store(facts)
    print(*(facts["faults"] or ["nothing grew, nothing is left"]), sep="\n")
    return 1 if facts["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
