"""The chat itself: a room, and the WebSocket handler of one open page.

The room lives in one process: with one worker it is complete, several would need PubSub between their rooms.
"""

import json
import time
import uuid
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from websock_gevent import Mailbox, Result, WebSock, current

__all__ = ["ChatSocket", "Guest", "Room"]

MAX_TEXT = 2000
HISTORY = 50


class Room:
    """Who is here, and what was said lately. A person may have several pages open, each with its mailbox."""

    def __init__(self) -> None:
        """Open an empty room."""
        self._pages: dict[Mailbox, str] = {}
        self._history: deque[dict[str, object]] = deque(maxlen=HISTORY)

    @property
    def members(self) -> list[str]:
        """The names, each once."""
        return sorted(set(self._pages.values()), key=str.casefold)

    def join(self, page: Mailbox, name: str) -> str:
        """Let a page in, and return what it has to know. The others hear of a person's first page only."""
        is_news = name not in self._pages.values()
        others = list(self._pages)
        self._pages[page] = name
        if is_news:
            self._push(others, event("joined", name=name, members=self.members))
        return event("welcome", you=name, members=self.members, history=list(self._history))

    def leave(self, page: Mailbox) -> None:
        """Let a page go. The others hear of a person's last page only."""
        self._forget([page])

    def say(self, author: str, text: str, message_id: str) -> None:
        """Send a message to everybody, its author included, and keep it for those who come later."""
        message: dict[str, object] = {"id": message_id, "author": author, "text": text, "at": time.time()}
        self._history.append(message)
        self._push(self._pages, event("message", **message))

    def typing(self, name: str) -> None:
        """Tell everybody that this person is writing."""
        self._push(self._pages, event("typing", name=name))

    def _push(self, pages: Iterable[Mailbox], text: str) -> None:
        """Straight to the clients, encoded once. A page whose push is refused has ended."""
        self._forget([page for page in list(pages) if not page.push(text)])

    def _forget(self, gone: list[Mailbox]) -> None:
        names = {self._pages.pop(page) for page in gone if page in self._pages}
        for name in names.difference(self._pages.values()):
            self._push(self._pages, event("left", name=name, members=self.members))


@dataclass(frozen=True)
class Guest:
    """The state of one connection: whose it is, and in which room."""

    name: str
    room: Room


class ChatSocket(WebSock[Guest]):
    """One open page. All of its callbacks run in the connection's own greenlet, one at a time."""

    def init(self, guest: Guest) -> Result[Guest]:
        """Let the page in and start its clock."""
        current().send_after(1.0, "tick")
        return "push", guest.room.join(current(), guest.name), guest

    def handle_in(self, message: str | bytes, guest: Guest) -> Result[Guest]:
        """Take what the page sent. Nothing in it is trusted, its shape least of all."""
        try:
            request = json.loads(message)
        except (ValueError, RecursionError):
            return "push", event("error", text="That was not JSON."), guest
        match request:
            case {"type": "typing"}:
                guest.room.typing(guest.name)
            case {"type": "message", "text": str(text)} if len(text) > MAX_TEXT:
                return "push", event("error", text=f"A message has at most {MAX_TEXT} characters."), guest
            case {"type": "message", "text": str(text)} if text.strip():
                guest.room.say(guest.name, text, str(request.get("id") or uuid.uuid4())[:36])
            case _:
                return "push", event("error", text="That was neither a message nor a sign of typing."), guest
        return "ok", guest

    def handle_info(self, message: object, guest: Guest) -> Result[Guest]:
        """Tell the time: nobody but our own timer writes to this mailbox."""
        current().send_after(1.0, "tick")
        return "push", event("clock", at=time.time()), guest

    def terminate(self, reason: object, guest: Guest) -> None:
        """Leave the room, for whatever reason the connection has ended."""
        guest.room.leave(current())


def event(kind: str, **fields: object) -> str:
    """Write an event as the page's script expects it."""
    return json.dumps({"type": kind, **fields})
