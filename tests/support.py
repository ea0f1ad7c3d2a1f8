"""What several test files need: an application around a handler, a handler that keeps a diary, and client frames.

Frames are built and taken apart by the ``websockets`` library, never by the code under test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gevent import socket
from websockets.frames import Frame, Opcode
from werkzeug.exceptions import HTTPException

from websock_gevent import WebSock, upgrade
from websock_gevent.testing import Client, connect

#: Seconds after which something that should have happened counts as failed. Not a measure of speed.
DEADLINE = 10.0


def application(handler: Any, state: Any = None, **options: Any) -> Any:
    """A WSGI application that upgrades every request to this handler."""

    def app(environ: Any, start_response: Any) -> Any:
        try:
            response: Any = upgrade(environ, handler, state, **options)
        except HTTPException as refusal:
            response = refusal
        return response(environ, start_response)

    return app


def open_client(handler: Any, state: Any = None, **options: Any) -> Client:
    """Connect to a handler in process."""
    return connect(application(handler, state, **options), timeout=DEADLINE)


class Diary(WebSock[Any]):
    """Echoes, and writes down what it was called with; also a base for handlers that do something else."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.ended = gevent.event.Event()

    def init(self, state: Any) -> Any:
        self.calls.append(("init", state))
        return "ok", state

    def handle_in(self, message: str | bytes, state: Any) -> Any:
        self.calls.append(("handle_in", message))
        return "push", message, state

    def handle_control(self, frame: Any, state: Any) -> Any:
        self.calls.append(("handle_control", *frame))
        return "ok", state

    def handle_info(self, message: Any, state: Any) -> Any:
        self.calls.append(("handle_info", message))
        return "ok", state

    def terminate(self, reason: Any, state: Any) -> None:
        self.calls.append(("terminate", reason, state))
        self.ended.set()

    @property
    def reasons(self) -> list[Any]:
        """What ``terminate`` was called with, once for each call."""
        return [call[1] for call in self.calls if call[0] == "terminate"]

    def wait(self) -> Any:
        """Wait for ``terminate`` and return its reason; there must be one only."""
        assert self.ended.wait(DEADLINE), "terminate was not called"
        (reason,) = self.reasons
        return reason


def until(condition: Callable[[], object]) -> None:
    """Let the hub work until something is so."""
    with gevent.Timeout(DEADLINE):
        while not condition():
            gevent.sleep(0.001)


def settle() -> None:
    """Let the hub work until it has nothing to do for now."""
    with gevent.Timeout(DEADLINE):
        gevent.idle()


def masked(opcode: Opcode, payload: bytes = b"", fin: bool = True) -> bytes:
    """A frame as a client sends it."""
    return Frame(opcode, payload, fin).serialize(mask=True)


def text(message: str) -> bytes:
    """A text message as a client sends it."""
    return masked(Opcode.TEXT, message.encode())


def handshake(path: str = "/", **headers: str) -> bytes:
    """The bytes of a handshake request; a header given as an empty string is left out."""
    fields = {
        "Host": "localhost",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    fields.update({name.replace("_", "-"): value for name, value in headers.items()})
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value)]
    return "\r\n".join([*lines, "", ""]).encode()


def raw_connection(app: Any) -> tuple[Any, Any]:
    """Serve one end of a socket pair; return the other end and the greenlet that serves."""
    from gevent.pywsgi import WSGIServer

    ours, theirs = socket.socketpair()
    server = WSGIServer(("127.0.0.1", 0), app, log=None, environ={"SERVER_NAME": "localhost", "SERVER_PORT": "80"})

    def serve() -> None:
        try:
            server.handle(theirs, ("127.0.0.1", 0))
        finally:
            theirs.close()

    ours.settimeout(DEADLINE)
    return ours, gevent.spawn(serve)


def read_head(sock: Any) -> bytes:
    """Read up to the end of an HTTP head, byte by byte so that nothing behind it is taken."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        assert byte, f"the connection ended inside the head: {head!r}"
        head += byte
    return head


def frames_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Take a server's bytes apart into opcodes and payloads."""
    while data:
        size, start = data[1], 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        yield data[0] & 0x0F, data[start : start + size]
        data = data[start + size :]


def read_all(sock: Any) -> bytes:
    """Read until the peer closes."""
    data = b""
    while chunk := sock.recv(1 << 16):
        data += chunk
    return data
