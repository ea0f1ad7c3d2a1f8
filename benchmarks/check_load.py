"""Proof that load.c may be believed: a server lies in one way at a time, and load has to notice each lie.

    python benchmarks/check_load.py

It also has to accept what a correct server may do: fragments, pings between them, any cut of the stream.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

from loadgen import build_load

HEAD = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
AFTER = 50  # honest echoes before the lie
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


# name -> (the frames that answer message number n, `last` being the one before it; what load has to say)
BEHAVIOURS: dict[str, tuple[Liar, str | None]] = {
    "honest": (lambda m, n, last: [frame(m)], None),
    "fragments and pings": (lambda m, n, last: in_pieces(m), None),
    "one byte damaged": (lambda m, n, last: [frame(m[:-1] + b"~" if n == AFTER else m)], "damaged echo"),
    "one byte short": (lambda m, n, last: [frame(m[:-1] if n == AFTER else m)], "has 199 bytes, not 200"),
    "one byte long": (lambda m, n, last: [frame(m + b"!" if n == AFTER else m)], "longer than what was sent"),
    "an old message again": (
        lambda m, n, last: [frame(last if n == AFTER else m)],
        "not the echo of message",
    ),
    "doubled": (lambda m, n, last: [frame(m)] * (2 if n == AFTER else 1), "connection 0"),
    "lost": (lambda m, n, last: [] if n == AFTER else [frame(m)], "not the echo of message"),
    "masked": (lambda m, n, last: [b"\x81\x80abcd" if n == AFTER else frame(m)], "mask bit"),
    "reserved bit": (lambda m, n, last: [frame(m, 0xC1 if n == AFTER else 0x81)], "reserved bit"),
    "wrong type": (lambda m, n, last: [frame(m, 0x82 if n == AFTER else 0x81)], "unexpected frame"),
    "closes": (lambda m, n, last: [frame(b"\x03\xf3", 0x88) if n == AFTER else frame(m)], "code 1011"),
}


def messages(stream: socket.socket) -> Iterator[bytes]:
    """Unmasked payloads of the data frames; ends at a close frame."""
    file = stream.makefile("rb")
    while file.readline() != b"\r\n":
        pass
    stream.sendall(HEAD)
    while True:
        first, size = file.read(2)
        size &= 127
        if size == 126:
            size = int.from_bytes(file.read(2), "big")
        mask = file.read(4) * (size // 4 + 1)
        masked = int.from_bytes(file.read(size), "big") ^ int.from_bytes(mask[:size], "big")
        payload = masked.to_bytes(size, "big")
        if first == 0x88:
            return
        if first == 0x81:
            yield payload


def serve(listener: socket.socket, answer: Liar) -> None:
    stream = listener.accept()[0]
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    last = b""
    try:
        for number, message in enumerate(messages(stream)):
            for data in answer(message, number, last):
                stream.sendall(data[:5])
                stream.sendall(data[5:])
            last = message
        stream.sendall(frame(b"\x03\xe8", 0x88))
    except (OSError, ValueError):  # load has hung up on a lie
        pass
    finally:
        stream.close()


def verdict(answer: Liar) -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener, answer), daemon=True)
        thread.start()
        command = [str(build_load()), "127.0.0.1", str(listener.getsockname()[1]), "/"]
        command += ["--depth", "4", "--size", "200", "--seconds", "0.3", "--warmup", "0.1"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        thread.join(5)
    error = str(json.loads(done.stdout)["error"])
    return error if done.returncode else ""


def main() -> int:
    failed = False
    for name, (answer, expected) in BEHAVIOURS.items():
        error = verdict(answer)
        good = not error if expected is None else expected in error
        failed |= not good
        print(f"{'ok ' if good else 'BAD'}  {name}: {error or 'no error'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
