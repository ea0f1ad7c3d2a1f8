"""Whose end is waited for, each told once.

Owns one set of mailboxes. Refuses to know what is done about an end.
"""

from __future__ import annotations

from collections.abc import Callable

from ..locks import new_lock
from ..mailbox import Mailbox

__all__ = ["Ends"]


class Ends:
    """The set. May be used from any greenlet and any thread.

    Args:
        tell: Called with each mailbox that has ended, and its reason.
    """

    def __init__(self, tell: Callable[[Mailbox, object], None]) -> None:
        self._tell = tell
        self.begin()

    def begin(self) -> None:
        """Wait for nobody: a new process, where a thread of its parent may hold the lock."""
        self._lock = new_lock()
        self._awaited: set[Mailbox] = set()

    def __len__(self) -> int:
        return len(self._awaited)

    def wait_for(self, mailbox: Mailbox) -> None:
        """Be told when a mailbox ends; at once if it has ended. Does not block."""
        with self._lock:
            is_new = mailbox not in self._awaited
            self._awaited.add(mailbox)
        if is_new:
            mailbox.at_end(self._ended)

    def _ended(self, mailbox: Mailbox, reason: object) -> None:
        with self._lock:
            self._awaited.discard(mailbox)  # first: whoever waits for it behind this is told anew, at once
        self._tell(mailbox, reason)
