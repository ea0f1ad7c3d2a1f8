"""The gevent-websocket `WebSocket` with our engine: one socket, one message reader, one list of frames to send.

Owns what is known of the connection (request, subprotocol, the peer's close code) and the answers that control frames
ask for; the bytes are `wire`'s. Two ways to use it: the connection calls the parts that never block (`fill`, `control`,
`flush`) and waits elsewhere; code written for gevent-websocket calls `receive`, `send` and `close`, which block the
calling greenlet. Refuses to know handlers, mailboxes and servers.

It *is a* ``geventwebsocket.websocket.WebSocket``, so that such code and its ``except WebSocketError`` keep working;
of that class only the name and the attributes are left (``docs/how-it-works.rst`` says what was replaced, and why).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from gevent import Timeout
from gevent import socket as gevent_socket
from geventwebsocket.websocket import MSG_ALREADY_CLOSED, MSG_SOCKET_DEAD

from .deflate import Deflater
from .environ import Packed, unpack
from .errors import ProtocolError, WebSocketError
from .frames import BINARY, CLOSE, PING, PONG, TEXT, close_frame, frame, is_sendable, parse_close
from .messages import Item, MessageReader
from .wire import Wire

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["WebSocket", "peer_of"]


class WebSocket(Wire):
    """One WebSocket over one socket.

    Args:
        sock: A connected socket (gevent's, with or without TLS, or the kernel's own) behind a finished handshake.
        environ: The request's WSGI environ, perhaps packed.
        reader: Where received bytes go.
        subprotocol: The one that was agreed on, or ``None``.
        unread: Bytes that the server has read behind the handshake.
        deflater: Compresses messages, if that was agreed on.
        send_timeout: Seconds that `send` waits for a peer that takes no byte.

    Attributes:
        deflater: As given; ``None`` once the connection is over.
        closed: ``True`` once a close frame was sent or the socket has ended.
        close_code: The peer's close code; ``None`` until its close frame came, or if that had none.
        close_text: The peer's close text.
        reader: As given.
        out: Frames that the kernel has not taken yet, in order.
        lost: ``True`` once the kernel refused to send; later frames are dropped. Reading tells how it ended.
    """

    __slots__ = ("_environ", "_send_timeout", "_subprotocol", "close_code", "close_text", "deflater")

    def __init__(
        self,
        sock: Any,
        environ: WSGIEnvironment | Packed,
        reader: MessageReader,
        *,
        subprotocol: str | None = None,
        unread: bytes = b"",
        send_timeout: float = 30.0,
        deflater: Deflater | None = None,
    ) -> None:
        self._environ = environ
        self.closed = False
        self.handler = self.stream = self.raw_read = self.raw_write = None
        self.close_code: int | None = None
        self.close_text = ""
        self.deflater = deflater
        self.attach(sock, reader)
        self._subprotocol = subprotocol
        self._send_timeout = send_timeout
        if unread:
            reader.feed(unread)

    def __del__(self) -> None:
        """Do nothing: gevent-websocket would send a close frame from wherever the garbage collector runs."""

    def __repr__(self) -> str:
        return f"<WebSocket {self.path!r} {'closed' if self.closed else 'open'}>"

    @property
    def environ(self) -> WSGIEnvironment:
        """The request's WSGI environ; for callbacks, without the objects that server and framework put there."""
        if isinstance(self._environ, Packed):
            self._environ = unpack(self._environ)
        return self._environ

    @property
    def peer(self) -> str:
        """Who is at the other end, and of what, for the log."""
        return peer_of(self.environ)

    @property
    def protocol(self) -> str | None:
        """The subprotocol that was agreed on (RFC 6455 §1.9), ``None`` if there is none."""
        return self._subprotocol

    @property
    def logger(self) -> logging.Logger:
        """The library's logger."""
        return logging.getLogger("websock_gevent")

    def control(self, item: Item) -> None:
        """Do what a received control frame asks of an endpoint: answer a ping (§5.5.2), note a close frame (§5.5.1).

        Raises:
            ProtocolError: the close frame's payload is malformed.
        """
        opcode, payload = item
        if isinstance(payload, bytes):
            if opcode == PING:
                self.out.append(frame(PONG, payload))
            elif opcode == CLOSE:
                self.close_code, self.close_text = parse_close(payload, self.reader.errors)

    def close_reply(self) -> int:
        """Return the code that answers the peer's close frame: its own, 1000 if it had none, 1002 if invalid."""
        code = self.close_code
        return 1000 if code is None else code if is_sendable(code) else 1002

    def free(self) -> None:
        """Give back what compressing and unsent frames hold, though somebody may keep this object."""
        self.deflater = None
        self.out.clear()
        self.reader.free()

    # The blocking style of gevent-websocket.

    def receive(self) -> str | bytes | None:
        """Wait for the next message; ``None`` if the peer closed, broke the protocol, or went away.

        Raises:
            WebSocketError: it was closed before.
        """
        if self.closed:
            raise WebSocketError(MSG_ALREADY_CLOSED)
        try:
            while True:
                item = self.reader.next_item()
                if item is None:
                    if not self._wait_for_bytes():
                        self.closed = True
                        return None
                elif item[0] in (TEXT, BINARY):
                    return item[1]
                else:
                    self.control(item)
                    if item[0] == CLOSE:
                        self.close(self.close_reply())
                        return None
        except ProtocolError as error:
            self.logger.warning("%s: %s, closing with %d", self.peer, error, error.code)
            self.close(error.code)
            return None

    def send(self, message: str | bytes | bytearray | memoryview, binary: bool | None = None) -> None:
        """Send one message and wait until the kernel has taken it.

        Args:
            binary: ``None`` sends ``str`` as text and bytes as binary.

        Raises:
            WebSocketError: the connection has ended, or the peer did not read for ``send_timeout`` seconds.
        """
        text = isinstance(message, str) if binary is None else not binary
        self.send_frame(message, TEXT if text else BINARY)

    def send_frame(self, message: str | bytes | bytearray | memoryview, opcode: int) -> None:
        """Send one frame with this opcode, and wait as `send` does."""
        if self.closed or self.lost:
            raise WebSocketError(MSG_ALREADY_CLOSED if self.closed else MSG_SOCKET_DEAD)
        self.out.append(frame(opcode, message.encode() if isinstance(message, str) else bytes(message)))
        self._flush_all()
        if self.lost:
            raise WebSocketError(MSG_SOCKET_DEAD)

    def close(self, code: int = 1000, message: str | bytes = b"") -> None:
        """Send a close frame with code and text, unless one was sent, and no more after it.

        Raises:
            ValueError: a code that may not be sent, or more than 123 bytes of text (RFC 6455 §5.5, §7.4).
        """
        if self.closed:
            return
        text = message.decode() if isinstance(message, bytes) else message
        if not is_sendable(code) or len(text.encode()) > 123:
            raise ValueError(f"close({code!r}, {text!r}): the code may not be sent, or the text is over 123 bytes")
        self.closed = True
        self.out.append(close_frame(code, text))
        try:
            self._flush_all()
        except WebSocketError:
            self.logger.debug("%s: close frame not sent", self.peer)

    def _wait_for_bytes(self) -> bool:
        """Wait until bytes were received; ``False`` at the end of the stream."""
        self._flush_all()
        while True:
            received = self.fill()
            if received >= 0:
                return received > 0
            gevent_socket.wait_read(self.fileno())

    def _flush_all(self) -> None:
        while not self.flush():
            try:
                gevent_socket.wait_write(self.fileno(), timeout=self._send_timeout)
            except (Timeout, TimeoutError):
                self.lost = True
                raise WebSocketError(MSG_SOCKET_DEAD) from None


def peer_of(environ: WSGIEnvironment) -> str:
    """Who sent a request, and where to, for the log. Whatever a client made up stays on its line."""
    address: str = environ.get("REMOTE_ADDR") or "unix:"
    shown = address if address.isprintable() and " " not in address else repr(address)
    return f"{shown} {environ.get('PATH_INFO', '')!r}"
