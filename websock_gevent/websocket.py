"""The gevent-websocket `WebSocket` with our engine: one socket, one message reader, one list of frames to send.

Owns the socket's bytes in both directions and the peer's close code. Two ways to use it: the connection calls the
parts that never block (`fill`, `write`, `flush`) and waits elsewhere; code written for gevent-websocket calls
`receive`, `send` and `close`, which block the calling greenlet. Refuses to know handlers, mailboxes and servers.

It *is a* ``geventwebsocket.websocket.WebSocket``, so that such code and its ``except WebSocketError`` keep working;
of that class only the name and the attributes are left (``docs/how-it-works.rst`` says what was replaced, and why).
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import TYPE_CHECKING, Any

from gevent import Timeout
from gevent import socket as gevent_socket
from geventwebsocket.websocket import MSG_ALREADY_CLOSED, MSG_SOCKET_DEAD
from geventwebsocket.websocket import WebSocket as GeventWebSocket

from .deflate import Deflater
from .environ import Packed, unpack
from .errors import ProtocolError, WebSocketError
from .frames import BINARY, CLOSE, PING, PONG, TEXT, close_frame, frame, is_sendable, parse_close
from .messages import Item, MessageReader

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["WebSocket", "peer_of"]

#: Bytes asked of the kernel at a time, which is what Python allocates: at the least what its own allocator can do (512
#: bytes with the object's 33), much more as soon as that was not enough, and then less and less again.
RECEIVE_LEAST, RECEIVE_MORE, RECEIVE_MOST = 479, 1 << 13, 1 << 18
#: Frames are joined up to this many bytes for one ``send``; a longer one goes along without being copied again.
SEND_SIZE = 1 << 16

_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class WebSocket(GeventWebSocket):
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

    __slots__ = (
        "_environ",
        "_raw",
        "_send_timeout",
        "_size",
        "_socket",
        "_subprotocol",
        "close_code",
        "close_text",
        "deflater",
        "lost",
        "out",
        "pending",
        "reader",
    )

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
        self.reader = reader
        self.out: list[bytes | memoryview] = []
        self.lost = False
        self.deflater = deflater
        self._socket = sock
        self._subprotocol = subprotocol
        self._send_timeout = send_timeout
        if type(sock) is gevent_socket.socket:
            self._raw = sock._sock  # type: ignore[attr-defined]  # always non-blocking: half the cost of gevent's wrapper
        else:
            self._raw = sock
            sock.settimeout(0)
        self._size = RECEIVE_MORE
        #: Counts bytes that TLS has decrypted but not handed out; the kernel cannot tell of them. ``None`` without TLS.
        self.pending = getattr(sock, "pending", None)
        if unread:
            reader.feed(unread)

    def __del__(self) -> None:
        """Do nothing: gevent-websocket would send a close frame from wherever the garbage collector runs."""

    def __repr__(self) -> str:
        return f"<WebSocket {self.path!r} {'closed' if self.closed else 'open'}>"

    @property
    def environ(self) -> WSGIEnvironment:
        """The request's WSGI environ; of a parked connection, without the objects that its server put there."""
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

    def fileno(self) -> int:
        """Return the socket's file descriptor."""
        number: int = self._socket.fileno()
        return number

    def tap(self, tap: Callable[[Any], Any]) -> None:
        """Have the socket's ``recv`` and ``send`` replaced by those of an object that is made of it."""
        self._raw = tap(self._raw)

    # The parts that never block.

    def fill(self) -> int:
        """Receive once and feed the reader. Return how many bytes came; 0 at the stream's end, -1 if none are there."""
        try:
            data = self._raw.recv(self._size)
        except _WOULD_BLOCK:
            return -1
        except OSError:
            return 0
        received = len(data)
        if received == self._size:
            self._size = min(max(received * 4, RECEIVE_MORE), RECEIVE_MOST)
        elif received < RECEIVE_LEAST < self._size:
            least = RECEIVE_LEAST if self.pending is None else RECEIVE_MORE  # TLS has a whole record there
            self._size = max(min(self._size, RECEIVE_MORE) - RECEIVE_LEAST, least)
        if self.reader.unread:
            self.reader.feed(data)
        else:
            self.reader.unread = data
        return received

    def discard(self) -> int:
        """Receive once and forget it. Returns what `fill` does."""
        try:
            return len(self._raw.recv(SEND_SIZE))
        except _WOULD_BLOCK:
            return -1
        except OSError:
            return 0

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

    def flush(self) -> bool:
        """Send what the kernel takes now. Return whether that is all."""
        out = self.out
        while out and not self.lost:
            if len(out) > 1 and len(out[0]) < SEND_SIZE:
                self._join()
            try:
                if len(out) == 1 or self.pending:  # TLS takes one piece at a time
                    sent = self._raw.send(out[0])
                else:
                    sent = self._raw.sendmsg(out[:2])
            except _WOULD_BLOCK:
                return False
            except OSError:
                self.lost = True
                break
            if not sent:  # gevent's way to say under TLS that it would block
                return False
            if sent == len(out[0]):
                del out[0]  # and nothing else: a signal's handler may have pushed meanwhile
            else:
                self._drop(sent)
        if self.lost:
            out.clear()
        return True

    def _join(self) -> None:
        """Make one piece of the first frames, as many as one ``send`` is worth."""
        out, size, count = self.out, 0, 0
        for piece in out:
            size += len(piece)
            if size > SEND_SIZE and count:
                break
            count += 1
        if count > 1:
            out[:count] = [b"".join(out[:count])]

    def _drop(self, sent: int) -> None:
        """Take off so many bytes, which the kernel has."""
        out = self.out
        while out and sent >= len(out[0]):
            sent -= len(out[0])
            del out[0]
        if sent:
            out[0] = memoryview(out[0])[sent:]

    def unacknowledged(self) -> int:
        """Return how many bytes the kernel still holds for the peer; 0 where the system does not tell.

        A peer that reads slowly lets this fall long before the socket is writable again: the kernel waits until a good
        part of its buffer, which may be megabytes, is free.
        """
        try:
            return int.from_bytes(ioctl(self.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)
        except OSError:
            return 0

    def half_close(self) -> None:
        """Tell the peer that nothing more comes, and keep receiving (with TLS: whatever comes, for `discard`)."""
        try:
            if self.pending is not None:
                with suppress(ssl.SSLError, ValueError):
                    self._socket.unwrap()  # sends close_notify (RFC 8446 §6.1); the peer's is not awaited
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.lost = True

    def end(self) -> None:
        """Close the socket. For who has no server that would do so."""
        if not self.lost:  # else there is nobody, or it is another process's
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

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
