"""A socket's bytes in both directions, without ever blocking: received ones into a reader, frames out of a list.

Owns how much is asked of the kernel at a time, what is joined for one ``send``, and what the kernel has not taken yet.
Refuses to know what the bytes mean (`messages`, `frames`), who waits (`waiter`), and handshakes, handlers and servers.
"""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import Any

from gevent import socket as gevent_socket
from geventwebsocket.websocket import WebSocket as GeventWebSocket

from .messages import MessageReader

__all__ = ["Wire"]

#: Bytes asked of the kernel at a time, which is what Python allocates: at the least what its own allocator can do (512
#: bytes with the object's 33), much more as soon as that was not enough, and then less and less again.
RECEIVE_LEAST, RECEIVE_MORE, RECEIVE_MOST = 479, 1 << 13, 1 << 18
#: Frames are joined up to this many bytes for one ``send``; a longer one goes along without being copied again.
SEND_SIZE = 1 << 16

_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Wire(GeventWebSocket):
    """What moves bytes in a `websocket.WebSocket`. Of gevent-websocket's class, since only one base may have slots.

    Attributes:
        reader: Where received bytes go.
        out: Frames that the kernel has not taken yet, in order.
        lost: ``True`` once the kernel refused to send; later frames are dropped. Reading tells how it ended.
        pending: Counts bytes that TLS has decrypted but not handed out, which the kernel cannot tell of. ``None``
            without TLS.
    """

    __slots__ = ("_raw", "_size", "_socket", "lost", "out", "pending", "reader")

    def attach(self, sock: Any, reader: MessageReader) -> None:
        """Begin with a connected socket: gevent's, with or without TLS, or the kernel's own."""
        self.reader = reader
        self.out: list[bytes | memoryview] = []
        self.lost = False
        self._size = RECEIVE_MORE
        self._socket = sock
        self.pending = getattr(sock, "pending", None)
        if type(sock) is gevent_socket.socket:
            self._raw = sock._sock  # type: ignore[attr-defined]  # always non-blocking: half the cost of gevent's wrapper
        else:
            self._raw = sock
            sock.settimeout(0)

    def fileno(self) -> int:
        """Return the socket's file descriptor."""
        number: int = self._socket.fileno()
        return number

    def tap(self, tap: Callable[[Any], Any]) -> None:
        """Have the socket's ``recv`` and ``send`` replaced by those of an object that is made of it."""
        self._raw = tap(self._raw)

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
