"""What has come on a connection in the blocking style, and nobody has asked for yet.

Owns these messages, and how many may wait: nothing more is received while there is no room, so TCP holds back a peer
that sends faster than the application asks. Refuses to know who asks, and who receives (`attended`).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .websock import Reason, Result

__all__ = ["ENOUGH", "ENOUGH_BYTES", "Inbox"]

#: Nothing more is received while so many messages, or bytes of them, wait to be asked for.
ENOUGH, ENOUGH_BYTES = 64, 1 << 18


class Inbox:
    """What has come, in its order; the connection's handler.

    Attributes:
        messages: Received and not asked for yet.
        began: The connection is open, or has been.
        reason: Why it ended, as ``terminate`` gets it; ``None`` while it is open.
    """

    __slots__ = ("_size", "began", "messages", "reason")

    def __init__(self) -> None:
        self.messages: deque[str | bytes] = deque()
        self.began = False
        self.reason: Reason | None = None
        self._size = 0

    @property
    def is_full(self) -> bool:
        """Whether nothing more is to be received for now."""
        return len(self.messages) >= ENOUGH or self._size >= ENOUGH_BYTES

    def take(self) -> str | bytes:
        """Take the oldest message out.

        Raises:
            IndexError: there is none.
        """
        message = self.messages.popleft()
        self._size -= len(message)
        return message

    # The callbacks of WebSock.

    def init(self, state: None) -> Result[None]:  # noqa: D102
        self.began = True
        return "ok", state

    def handle_in(self, message: str | bytes, state: None) -> Result[None]:  # noqa: D102
        self.messages.append(message)
        self._size += len(message)
        return "ok", state

    def handle_info(self, message: object, state: None) -> Result[None]:
        """Never called: what is in the mailbox waits there."""
        return "ok", state

    def terminate(self, reason: Reason, state: None) -> None:  # noqa: D102
        self.reason = reason
