"""Clients that speak bytes, and the bytes they speak; frames are built by the ``websockets`` library, not by ours."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import uuid

from serving import Answer, Server
from websockets.frames import Frame, Opcode


def masked(payload: str | bytes, opcode: Opcode | None = None) -> bytes:
    """A frame as a client sends it."""
    return _frame(payload, opcode).serialize(mask=True)


def unmasked(payload: str | bytes, opcode: Opcode | None = None) -> bytes:
    """A frame as a server sends it."""
    return _frame(payload, opcode).serialize(mask=False)


def close_frame(code: int | None, text: str = "") -> bytes:
    """A close frame as a client sends it."""
    return masked(b"" if code is None else struct.pack("!H", code) + text.encode(), Opcode.CLOSE)


def _frame(payload: str | bytes, opcode: Opcode | None) -> Frame:
    data = payload.encode() if isinstance(payload, str) else payload
    return Frame(opcode or (Opcode.TEXT if isinstance(payload, str) else Opcode.BINARY), data)


def new_key() -> str:
    """A name for a connection's diary."""
    return uuid.uuid4().hex


def diary(server: Server, key: str) -> list[object]:
    """What happened to a connection, once it has ended."""
    answer = server.get(f"/diary/{key}")
    assert answer.status == 200
    entries: list[object] = json.loads(answer.body)
    return entries


class Raw:
    """A client that sends and receives bytes. A context manager: the socket is closed at its end."""

    KEY = "dGhlIHNhbXBsZSBub25jZQ=="

    def __init__(self, server: Server, *, suppress_ragged_eofs: bool = True) -> None:
        self.server = server
        self.socket = server.socket(suppress_ragged_eofs=suppress_ragged_eofs)
        self._received = b""
        self._half_closed = False

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def request(self, path: str = "/echo", line: str = "GET {} HTTP/1.1", **changed: str | None) -> bytes:
        """Write a handshake.

        Args:
            path: The path in the request line.
            line: The request line.
            **changed: Headers by name, ``_`` for ``-``; ``None`` leaves one out, line breaks add more.
        """
        headers: dict[str, str | None] = {
            "Host": self.server.host,
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Key": self.KEY,
            "Sec-WebSocket-Version": "13",
        }
        headers.update({name.replace("_", "-"): value for name, value in changed.items()})
        lines = [line.format(path), *(f"{name}: {value}" for name, value in headers.items() if value is not None)]
        return "\r\n".join([*lines, "", ""]).encode()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def upgrade(self, path: str = "/echo", behind: bytes = b"", **changed: str | None) -> Answer:
        """Become a WebSocket, with bytes right behind the handshake, and return the 101."""
        self.send(self.request(path, **changed) + behind)
        answer = self.head()
        assert (answer.version, answer.status) == ("HTTP/1.1", 101), answer
        return answer

    def read(self, size: int) -> bytes:
        """Receive exactly so many bytes."""
        while len(self._received) < size:
            self._more()
        data, self._received = self._received[:size], self._received[size:]
        return data

    def head(self) -> Answer:
        """Receive the head of a response."""
        while b"\r\n\r\n" not in self._received:
            self._more()
        head, self._received = self._received.split(b"\r\n\r\n", 1)
        status, *lines = head.decode("latin-1").split("\r\n")
        version, code, _ = status.split(" ", 2)
        pairs = [line.partition(":") for line in lines]
        return Answer(version, int(code), [(name, value.strip()) for name, _, value in pairs], b"")

    def answer(self) -> Answer:
        """Receive a response with its body."""
        head = self.head()
        lengths = head.values("Content-Length")
        body = self.read(int(lengths[0])) if lengths else self.rest()
        return head._replace(body=body)

    def rest(self) -> bytes:
        """Receive what comes up to the end of the stream."""
        while self._receive():
            pass
        data, self._received = self._received, b""
        return data

    def half_close(self) -> None:
        """Say that nothing more comes, and go on receiving; under TLS, too, whose own `shutdown` ends both."""
        socket.socket.shutdown(self.socket, socket.SHUT_WR)
        self._half_closed = True

    def reset(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _receive(self) -> bytes:
        try:
            data = self.socket.recv(1 << 16)
        except ssl.SSLError:
            if not self._half_closed:
                raise
            data = b""  # TLS answers a stream that is cut short with an alert
        self._received += data
        return data

    def _more(self) -> None:
        if not self._receive():
            raise AssertionError(f"the server closed; it had sent {self._received!r}")
