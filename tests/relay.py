"""A TCP relay that can be cut like a cable: nothing passes, and no side is told."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

__all__ = ["Relay"]


class Relay:
    """Carries bytes between whoever connects to it and a port on 127.0.0.1. A context manager.

    Attributes:
        port: Where it listens.
        target: Where new connections lead.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._whole = threading.Event()
        self._whole.set()
        self._sockets: list[socket.socket] = []
        self._cuts = 0

    def __enter__(self) -> Relay:
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._server.close()
        self._acceptor.join()
        self._whole.set()
        self._drop()

    def cut(self) -> None:
        """Let nothing pass any more, on the connections there are and on new ones."""
        self._cuts += 1
        self._whole.clear()

    def heal(self) -> None:
        """Let new connections pass. Those that were cut stay cut, as behind a router that has forgotten them."""
        self._whole.set()

    def _drop(self) -> None:
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                self._sockets.append(near)
                try:
                    far = socket.create_connection(("127.0.0.1", self.target))
                except ConnectionRefusedError:
                    near.close()
                    continue
                self._sockets.append(far)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other, self._cuts), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket, cuts: int) -> None:
        with suppress(OSError):
            if not self._whole.is_set():
                self._whole.wait()
                return
            while data := one.recv(1 << 16):
                if self._cuts != cuts:
                    return  # it is not closed: neither side learns anything
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
