"""Messages that wait for the server: bounded, in order, sent by a thread of their own.

Owns the queue and that thread (a greenlet where the process is monkey-patched). Refuses to know what a message is: it
calls a function for each, again and again until it raises no `PubSubError`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from ..locks import new_lock
from .errors import BufferFull, PubSubError
from .waiting import Signal, background

__all__ = ["Buffer"]

logger = logging.getLogger("websock_gevent")


#: Seconds to wait before the next attempt: at first, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0


class Buffer:
    """The queue.

    Args:
        limit: Messages that may wait.
        send: Sends one; told whether it has been tried before. May block.
    """

    def __init__(self, limit: int, send: Callable[[Any, bool], object]) -> None:
        self._limit = limit
        self._send = send
        self._waiting: deque[Any] = deque()
        self._lock = new_lock()
        self._news = threading.Event()
        self._empty = Signal()
        self._empty.set()
        self._starting = threading.Lock()
        self._thread: object = None
        self._ended = False
        self._pid = os.getpid()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: Any) -> None:
        """Let a message wait for its turn. Does not block.

        Raises:
            BufferFull: as many as may wait do so already.
        """
        with self._lock:
            if len(self._waiting) >= self._limit:
                raise BufferFull(f"{len(self._waiting)} messages wait for Redis already (buffer={self._limit})")
            self._waiting.append(message)
            self._empty.clear()
        self._news.set()
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = background(self._live, "websock_gevent.pubsub.buffer")

    def wait(self, seconds: float) -> bool:
        """Wait until the queue is empty. Return ``False`` if it is not within so many seconds."""
        return self._empty.wait(seconds)

    def close(self, seconds: float) -> bool:
        """Wait as `wait` does, then end; what still waits is not sent any more."""
        is_empty = self.wait(seconds)
        self._ended = True
        self._news.set()
        return is_empty

    def _is_over(self) -> bool:
        # A fork copies greenlets: what waits here is sent by the parent.
        return self._ended or os.getpid() != self._pid

    def _live(self) -> None:
        while not self._is_over():
            self._news.wait()
            self._news.clear()
            while self._waiting and not self._is_over():
                self._send_first()
                with self._lock:
                    self._waiting.popleft()
                    if not self._waiting:
                        self._empty.set()

    def _send_first(self) -> None:
        """Send the one whose turn it is, however long that takes."""
        pause, began, again = FIRST_PAUSE, monotonic(), False
        while not self._is_over():
            try:
                self._send(self._waiting[0], again)
            except PubSubError as error:
                if not again:
                    logger.warning("PubSub: messages wait in the buffer. %s", error)
                again = True
            except Exception:
                if not self._is_over():  # the parent's connection is of no use to a copy
                    logger.exception("PubSub: a message in the buffer cannot be sent, it is dropped")
                return
            else:
                if again:
                    logger.warning("PubSub: the buffer is sent, after %.1f s", monotonic() - began)
                return
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
