"""The rest of the way behind our close frame: RFC 6455 §7.1.1 and §7.1.4.

Owns two waits with one fixed deadline each: for the peer's close frame, and then, our side of the stream being
closed, for the peer to close its own. What comes meanwhile is dropped. Closing a socket with unread input instead
would make the kernel send RST, which can overtake our close frame, and the browser would report 1006. No callback
runs any more.
"""

from __future__ import annotations

from .deadlines import Deadlines
from .errors import ProtocolError
from .frames import CLOSE
from .messages import BATCH_SIZE, ITEM_SIZE
from .waiter import Waiter
from .websocket import WebSocket

__all__ = ["Goodbye"]

#: Bytes dropped behind our close frame at the most; a peer that sends more gets the RST.
DISCARD = 64 << 20
#: How often the socket is emptied once more when the time is over.
LAST_DROPS = 16


class Goodbye:
    """The closing handshake of one connection.

    Args:
        deadlines: With their waiter.
        seconds: Each of the two waits, at the most (``close_timeout``).
        answered: The peer's close frame has come, or can never be understood: skip the first wait.

    Attributes:
        done: Nothing is left to wait for; the socket may be closed.
    """

    __slots__ = ("_answered", "_deadlines", "_discarded", "_half_closed", "_seconds", "_waiter", "_websocket", "done")

    def __init__(self, websocket: WebSocket, deadlines: Deadlines, seconds: float, answered: bool) -> None:
        self._websocket = websocket
        self._waiter: Waiter = deadlines.waiter
        self._deadlines = deadlines
        self._seconds = seconds
        self._answered = answered
        self._half_closed = False
        self._discarded = 0
        self.done = False
        if not answered:
            deadlines.fix(seconds)

    def step(self) -> bool:
        """Do what there is to do now. Return whether there is more that need not be waited for."""
        if not self._answered:
            return self._await_close()
        if not self._half_closed:
            self._half_close()
            self._deadlines.fix(self._seconds)
            if not self._waiter.readable and self._websocket.pending is None:
                return False  # most peers take a moment to answer; what is there already makes itself known
        return self._drain()

    def expire(self) -> None:
        """The deadline has passed: drop what is there, without keeping others waiting, and be done."""
        if not self._half_closed:
            self._half_close()
        for _ in range(LAST_DROPS):
            if self.done or not self._drain():
                break
        self.done = True

    def _await_close(self) -> bool:
        websocket, waiter = self._websocket, self._waiter
        try:
            if self._find_close():
                return True
        except ProtocolError:
            self._answered = True
            return True
        if not waiter.readable:
            return False
        received = websocket.fill()
        waiter.readable = received > 0
        self.done = received == 0
        return received > 0

    def _find_close(self) -> bool:
        """Look through a batch of items for the peer's close frame. Return whether there may be more."""
        room = BATCH_SIZE
        while room > 0:
            item = self._websocket.reader.next_item()
            if item is None:
                return False
            if item[0] == CLOSE:
                self._websocket.control(item)
                self._answered = True
                return True
            if not item[0]:
                return True
            room -= ITEM_SIZE + len(item[1])
        return True

    def _half_close(self) -> None:
        self._half_closed = True
        self._websocket.half_close()

    def _drain(self) -> bool:
        received = self._websocket.discard()
        self._waiter.readable = False
        self._discarded += max(received, 0)
        self.done = received == 0 or self._discarded > DISCARD
        return received > 0
