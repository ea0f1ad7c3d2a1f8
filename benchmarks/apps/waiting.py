"""A WSGI application that does nothing but wait, for gunicorn -k gevent: what a request that stays costs by itself.

No framework, no WebSocket library: it answers the handshake, and waits in the server's own greenlet. Short messages are
echoed, one for each read: enough to see that it is there.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha1
from typing import Any

CLOSE = 0x88
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    start_response("101 Switching Protocols", [])
    return wait(environ)


def wait(environ: dict[str, Any]) -> Iterator[bytes]:
    accept = b64encode(sha1((environ["HTTP_SEC_WEBSOCKET_KEY"] + GUID).encode()).digest()).decode()
    head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    sock = environ["gunicorn.socket"]
    sock.sendall(f"{head}Sec-WebSocket-Accept: {accept}\r\n\r\n".encode())
    while (frame := sock.recv(200)) and frame[0] != CLOSE:
        payload = bytes(byte ^ frame[2 + number % 4] for number, byte in enumerate(frame[6:]))
        sock.sendall(bytes((frame[0], len(payload))) + payload)
    sock.sendall(bytes((CLOSE, 0)))
    sock.shutdown(2)
    yield b""
