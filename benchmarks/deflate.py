#!/usr/bin/env python3
"""What permessage-deflate costs and brings: memory per connection, size and time per message, for several settings.

Memory is that of a served connection (gevent.pywsgi, this library) behind one compressed message in each direction,
less that of one without compression. Size and time are of chat-like JSON messages, one after the other on one
connection, in this process. Writes results/deflate-DATE.json and the table in docs/howto/compression.rst.
"""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import time
import zlib
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from websockets.frames import Frame, Opcode  # noqa: E402

from websock_gevent.deflate import Agreement, Deflate, Deflater, Inflater  # noqa: E402

CONNECTIONS = 500
MESSAGES = 2000
ROUNDS = 5
BLOCK = re.compile(r"(?s)(\.\. deflate: begin[^\n]*\n\n).*?(\.\. deflate: end)")
ALONE = {"server_no_context_takeover": True, "client_no_context_takeover": True}
SETTINGS: dict[str, dict[str, Any]] = {
    "``Deflate()``": {},
    "windows of 9 bits, ``mem_level`` 1": {
        "server_max_window_bits": 9, "client_max_window_bits": 9, "mem_level": 1,
    },
    "windows of 15 bits, ``mem_level`` 8": {
        "server_max_window_bits": 15, "client_max_window_bits": 15, "mem_level": 8,
    },
    "no context takeover, ours": {"server_no_context_takeover": True},
    "no context takeover, both": ALONE,
}  # fmt: skip


def messages() -> list[bytes]:
    """Chat-like messages of about 300 bytes, different ones."""
    words = "the quick brown fox jumps over the lazy dog while seven wizards make toxic brew for the evil queen".split()
    made = []
    for n in range(MESSAGES):
        text = " ".join(words[(n * 7 + i * (n % 5 + 1)) % len(words)] for i in range(30))
        made.append({"type": "message", "room": f"room-{n % 9}", "from": f"user{n % 31}", "id": n * 7919, "text": text})
    return [json.dumps(message).encode() for message in made]


def per_message(settings: Deflate) -> dict[str, float]:
    """Size in percent and microseconds per message; medians of rounds."""
    agreed = Agreement(
        settings.server_no_context_takeover,
        settings.client_no_context_takeover,
        settings.server_max_window_bits,
        settings.client_max_window_bits,
    )
    plain, out, back = messages(), [], []
    for _ in range(ROUNDS):
        deflater = Deflater(agreed, settings)
        began = time.perf_counter()
        small = [deflater.deflate(message) for message in plain]
        out.append((time.perf_counter() - began) / MESSAGES * 1e6)
        inflater = Inflater(agreed._replace(client_max_window_bits=settings.server_max_window_bits))
        began = time.perf_counter()
        for data in small:
            inflater.inflate(data, 1 << 20)
            inflater.finish(1 << 20)
        back.append((time.perf_counter() - began) / MESSAGES * 1e6)
    size = sum(map(len, small)) / sum(map(len, plain)) * 100
    return {"size": size, "deflate": statistics.median(out), "inflate": statistics.median(back)}


def resident(pid: int) -> int:
    """Bytes of memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def connect(port: int, stack: ExitStack) -> None:
    """One connection that has had one compressed message in each direction."""
    connected = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
    head = {
        "Host": "localhost",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
    }
    lines = ["GET / HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
    connected.sendall("\r\n".join(lines).encode())
    answer = connected.recv(4096)
    assert b" 101 " in answer, answer
    data = b" ".join(messages()[:4])
    if agreed := b"permessage-deflate" in answer:
        bits = int((re.search(rb"client_max_window_bits=(\d+)", answer) or [b"", b"15"])[1])
        compressor = zlib.compressobj(wbits=-bits)
        data = (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    frame = bytearray(Frame(Opcode.TEXT, data).serialize(mask=True))
    frame[0] |= 0x40 if agreed else 0
    connected.sendall(frame)
    assert connected.recv(1)[0] == (0xC1 if agreed else 0x81)


def memory(settings: dict[str, Any] | None) -> float:
    """KiB per connection."""
    command = [sys.executable, str(HERE / "apps" / "deflate_pywsgi.py"), json.dumps(settings)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as server, ExitStack() as stack:
        stack.callback(server.terminate)
        assert server.stdout is not None
        port = int(server.stdout.readline())
        for _ in range(20):
            connect(port, stack)
        before = resident(server.pid)
        for _ in range(CONNECTIONS):
            connect(port, stack)
        return (resident(server.pid) - before) / CONNECTIONS / 1024


def table(rows: dict[str, dict[str, float]]) -> str:
    """The rows in reStructuredText."""
    head = ["settings", "KiB per connection", "size", "µs to deflate", "µs to inflate"]
    lines = [
        [name, f"{row['memory']:.0f}", f"{row['size']:.0f} %", f"{row['deflate']:.0f}", f"{row['inflate']:.0f}"]
        for name, row in rows.items()
    ]
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    body = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in [head, *lines]]
    return "\n".join([rule, body[0].rstrip(), rule, *(line.rstrip() for line in body[1:]), rule, ""])


def main() -> None:
    """Measure, store, and rewrite the table."""
    plain = memory(None)
    rows = {}
    for name, settings in SETTINGS.items():
        rows[name] = {"memory": memory(settings) - plain, **per_message(Deflate(**settings))}
        print(name, rows[name], flush=True)
    versions = {"python": platform.python_version(), "zlib": zlib.ZLIB_RUNTIME_VERSION}
    facts = {"versions": versions, "plain_kib": plain, "connections": CONNECTIONS, "messages": MESSAGES, "rows": rows}
    (HERE / "results" / f"deflate-{date.today()}.json").write_text(json.dumps(facts, indent=1) + "\n")
    page = ROOT / "docs" / "howto" / "compression.rst"
    page.write_text(BLOCK.sub(lambda found: f"{found[1]}{table(rows)}\n{found[2]}", page.read_text()))


if __name__ == "__main__":
    main()
