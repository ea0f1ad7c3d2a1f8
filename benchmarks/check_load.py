#!/usr/bin/env python3
"""Proof that load may be believed: a server lies in one way at a time, and load has to notice each lie.

    python benchmarks/check_load.py

It also has to accept what a correct server may do: fragments, pings between them, any cut of the stream, and compressed
and plain messages in turn. Each way of loading has its own lies.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from loadgen import command

HEAD = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
)
AGREED = b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n"
CLOSE = b"\x88\x02\x03\xe8"
AFTER = 50  # honest answers before the lie
TIMES = ("--seconds", "0.3", "--warmup", "0.1")
Liar = Callable[[bytes, int, bytes], list[bytes]]


def frame(payload: bytes, first: int = 0x81) -> bytes:
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    return bytes([first]) + length + payload


def in_pieces(payload: bytes) -> list[bytes]:
    return [
        frame(payload[:3], 0x01),
        frame(b"are you there?", 0x89),
        frame(payload[3:], 0x00),
        frame(b"", 0x80),
    ]


def deflated(payload: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return frame((compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4], 0xC1)


@dataclass(eq=False)
class Peer:
    """One connection of load, shaken hands with."""

    stream: socket.socket
    extra: bytes = b""
    path: str = ""

    def __post_init__(self) -> None:
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.stream.makefile("rb")
        self.path = self.file.readline().split()[1].decode()
        while self.file.readline() != b"\r\n":
            pass
        self.send(HEAD + self.extra + b"\r\n")

    def send(self, data: bytes) -> None:
        self.stream.sendall(data[:5])
        self.stream.sendall(data[5:])

    def messages(self) -> Iterator[bytes]:
        """Payloads of the messages, unmasked and inflated; ends at a close frame."""
        message = b""
        while True:
            first, size = self.file.read(2)
            size &= 127
            if size == 126:
                size = int.from_bytes(self.file.read(2), "big")
            mask = self.file.read(4) * (size // 4 + 1)
            masked = int.from_bytes(self.file.read(size), "big") ^ int.from_bytes(mask[:size], "big")
            payload = masked.to_bytes(size, "big")
            if first == 0x88:
                return
            if first & 15 == 10:
                continue
            message += zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff") if first & 0x40 else payload
            if first & 0x80:
                yield message
                message = b""


@dataclass
class Case:
    """How load is run, what the server does to each of its connections, and what load has to say (None: nothing)."""

    answer: Liar
    expected: str | None
    arguments: tuple[str, ...] = ("--depth", "4", "--size", "200")
    extra: bytes = b""
    greeting: bytes = b"ready"
    goodbye: bytes = CLOSE
    subscribers: list[Peer] = field(default_factory=list)

    def serve(self, stream: socket.socket) -> None:
        with suppress(OSError, ValueError), stream:  # load hangs up on a lie
            peer = Peer(stream, self.extra)
            if peer.path == "/subscribe":
                self.subscribers.append(peer)
                peer.send(frame(self.greeting))
            last = b""
            for number, message in enumerate(peer.messages()):
                for receiver in self.subscribers if peer.path == "/publish" else [peer]:
                    lies = receiver is (self.subscribers or [peer])[-1]  # in a fan-out, to one of them
                    for data in self.answer(message, number, last) if lies else [frame(message)]:
                        receiver.send(data)
                last = message
            if peer in self.subscribers:
                self.subscribers.remove(peer)
            peer.send(self.goodbye)

    def verdict(self) -> str:
        """What load says, empty if nothing is wrong."""
        with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
            threading.Thread(target=self.accept, args=(listener,), daemon=True).start()
            path = "/subscribe" if "--fanout" in self.arguments else "/"
            run = command(listener.getsockname()[1], path, (*self.arguments, *TIMES))
            done = subprocess.run(run, check=False, capture_output=True, text=True, timeout=60)
        error = str(json.loads(done.stdout)["error"])
        return error if done.returncode else ""

    def accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(listener.accept()[0],), daemon=True).start()


def honest(message: bytes, number: int, last: bytes) -> list[bytes]:
    return [frame(message)]


def at(lie: Callable[[bytes], list[bytes]]) -> Liar:
    """Honest but once."""
    return lambda message, number, last: lie(message) if number == AFTER else [frame(message)]


RATE = ("--connections", "4", "--size", "200", "--rate", "1000", "--block")
FANOUT = ("--fanout", "--connections", "5", "--size", "200")
CONNECT = ("--connect", "--connections", "4", "--size", "200")
DEFLATE = ("--deflate", "--size", "200")

CASES = {
    "honest": Case(honest, None),
    "fragments and pings": Case(lambda m, n, last: in_pieces(m), None),
    "one byte damaged": Case(at(lambda m: [frame(m[:-1] + b"\x7f")]), "damaged echo"),
    "one byte short": Case(at(lambda m: [frame(m[:-1])]), "has 199 bytes, not 200"),
    "one byte long": Case(at(lambda m: [frame(m + b"!")]), "longer than what was sent"),
    "an old message again": Case(
        lambda m, n, last: [frame(last if n == AFTER else m)], "not the echo of message"
    ),
    "doubled": Case(at(lambda m: [frame(m)] * 2), "connection 0"),
    "lost": Case(at(lambda m: []), "not the echo of message"),
    "masked": Case(at(lambda m: [b"\x81\x80abcd"]), "mask bit"),
    "reserved bit": Case(at(lambda m: [frame(m, 0xC1)]), "reserved bit"),
    "wrong type": Case(at(lambda m: [frame(m, 0x82)]), "unexpected frame"),
    "closes": Case(at(lambda m: [frame(b"\x03\xf3", 0x88)]), "code 1011"),
    "fragments sent": Case(honest, None, ("--fragments", "4", "--size", "200")),
    "fragments sent, damaged": Case(
        at(lambda m: [frame(m[:-1] + b"\x7f")]), "damaged", ("--fragments", "4", "--size", "200")
    ),
    "rate": Case(honest, None, RATE),
    "rate, one lost": Case(at(lambda m: []), "not the echo", RATE),
    "rate, not the one that blocks": Case(
        lambda m, n, last: [frame(m[:16] + b" " + m[17:])], "not the echo", RATE
    ),
    "fan-out": Case(honest, None, FANOUT),
    "fan-out, one has no greeting": Case(honest, "was not answered", FANOUT, greeting=b"later"),
    "fan-out, one damaged": Case(at(lambda m: [frame(m[:-1] + b"\x7f")]), "damaged echo", FANOUT),
    "fan-out, one doubled": Case(at(lambda m: [frame(m)] * 2), "connection", FANOUT),
    "fan-out, one lost": Case(at(lambda m: []), "no message came back", FANOUT),
    "connect": Case(honest, None, CONNECT),
    "connect, damaged": Case(lambda m, n, last: [frame(m[:-1] + b"\x7f")], "damaged echo", CONNECT),
    "connect, no close frame": Case(honest, "end of stream", CONNECT, goodbye=b""),
    "deflate": Case(
        lambda m, n, last: [deflated(m) if n % 2 else frame(m)], None, DEFLATE, AGREED
    ),
    "deflate, not agreed": Case(honest, "was not agreed to", DEFLATE),
    "deflate, one byte damaged": Case(
        lambda m, n, last: [deflated(m[:-1] + b"\x7f" if n == AFTER else m)], "damaged", DEFLATE, AGREED
    ),
    "deflate, one byte short": Case(at(lambda m: [deflated(m[:-1])]), "has 199 bytes", DEFLATE, AGREED),
    "deflate, no stream": Case(at(lambda m: [frame(b"\xff" * 9, 0xC1)]), "cannot be inflated", DEFLATE, AGREED),
}  # fmt: skip


def main() -> int:
    failed = False
    for name, case in CASES.items():
        error = case.verdict()
        good = not error if case.expected is None else case.expected in error
        failed |= not good
        print(f"{'ok ' if good else 'BAD'}  {name}: {error or 'no error'}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
