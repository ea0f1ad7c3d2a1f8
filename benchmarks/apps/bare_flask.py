"""The least that a Flask view under gunicorn -k gevent can do for an echo: what no engine written in Python can beat.

For messages that come in one piece, up to a few KiB. One greenlet, one watcher, one loop of ``recv``, unmask, callback,
``send``. It keeps no promise: no deadline, limit, ping, fragment, mailbox or error, and nothing is checked. To be
measured beside us as the C server is beside everybody.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from hashlib import sha1
from struct import Struct
from typing import Any

import gevent
from flask import Flask, Response
from websockets.speedups import apply_mask

READ, CLOSE = 1, 0x88
SHORTEST, TWO_BYTES = 6, 126  # header with its mask; the size that says that two bytes of it follow
LONGER = Struct("!BH").pack
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

app = Flask(__name__)


class Bare(Response):
    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("101 Switching Protocols", [])
        start_response.__self__.force_close()
        start_response.__self__.headers_sent = True
        return live(environ)


@app.route("/", websocket=True)
def echo() -> Bare:
    return Bare(status=101)


def live(environ: dict[str, Any]) -> Iterator[bytes]:
    accept = b64encode(sha1((environ["HTTP_SEC_WEBSOCKET_KEY"] + GUID).encode()).digest()).decode()
    head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    sock = environ["gunicorn.socket"]
    sock._sock.send(f"{head}Sec-WebSocket-Accept: {accept}\r\n\r\n".encode())
    watcher = gevent.get_hub().loop.io(sock.fileno(), READ)
    try:
        serve(sock, watcher, lambda message: message)
    finally:
        watcher.stop()
        watcher.close()
    sock.shutdown(2)
    yield b""


def serve(sock: Any, watcher: Any, callback: Callable[[str], str]) -> None:
    hub, raw = gevent.get_hub(), sock._sock
    watcher.start(gevent.getcurrent().switch)
    data = b""
    while True:
        hub.switch()
        received = raw.recv(1 << 13)
        data = data + received if data else received
        pos, out = 0, []
        while len(data) - pos >= SHORTEST:
            size = data[pos + 1] & 0x7F
            start = pos + SHORTEST
            if size == TWO_BYTES:
                start, size = start + 2, data[pos + 2] << 8 | data[pos + 3]
            if len(data) < start + size:
                break
            if data[pos] == CLOSE:
                raw.send(bytes((CLOSE, 0)))
                return
            payload = callback(apply_mask(data[start : start + size], data[start - 4 : start]).decode()).encode()
            length = bytes((size,)) if size < TWO_BYTES else LONGER(TWO_BYTES, size)
            out.append(data[pos : pos + 1] + length + payload)
            pos = start + size
        data = data[pos:]
        if out:
            raw.send(out[0] if len(out) == 1 else b"".join(out))  # taken as a whole, being short
