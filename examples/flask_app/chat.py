"""The chat itself: two topics, and the WebSocket handler of one open page.

What is said goes straight from PubSub to the pages, with ids, so that a page that was cut off is told what it missed.
Who is here is presence: an entry ends with its connection, and with its worker or host if that dies.
"""

import json
import time
import uuid
from dataclasses import dataclass

from websock_gevent import Result, WebSock, current
from websock_gevent.pubsub import OLDEST, PubSub, PubSubError

__all__ = ["LOBBY", "PEOPLE", "ChatSocket", "Guest"]

#: What is said. Also `announce.py` publishes here.
LOBBY = "lobby"
#: Who comes, who goes, who is typing.
PEOPLE = "lobby:people"
MAX_TEXT = 2000
#: The page tries again by itself. What it has sent in vain is in its outbox, and is sent again.
TRY_AGAIN = 1013, "PubSub is away"


@dataclass(frozen=True)
class Guest:
    """The state of one connection: whose it is, what it has seen, and where it talks.

    Attributes:
        name: The person.
        pubsub: Where everybody meets.
        since: The id of the last message the page has; ``None`` for a page that has none.
    """

    name: str
    pubsub: PubSub
    since: str | None = None


class ChatSocket(WebSock[Guest]):
    """One open page. All of its callbacks run in the connection's own greenlet, one at a time."""

    def init(self, guest: Guest) -> Result[Guest]:
        """Let the page in: first what it missed, then who is here. From then on it hears of every change."""
        pubsub = guest.pubsub
        try:
            pubsub.subscribe(LOBBY, push=True, ids=True, since=guest.since or OLDEST)
            pubsub.subscribe(PEOPLE)
            present = pubsub.list(PEOPLE)
            pubsub.track(PEOPLE, guest.name, current().address)
        except PubSubError:
            return "stop", "normal", TRY_AGAIN, guest
        current().send_after(1.0, "tick")
        return "push", event("welcome", you=guest.name, present=present), guest

    def handle_in(self, message: str | bytes, guest: Guest) -> Result[Guest]:
        """Take what the page sent. Nothing in it is trusted, its shape least of all."""
        try:
            request = json.loads(message)
        except (ValueError, RecursionError):
            return "push", event("error", text="That was not JSON."), guest
        match request:
            case {"type": "typing"}:
                return publish(guest, PEOPLE, {"typing": guest.name})
            case {"type": "message", "text": str(text)} if len(text) > MAX_TEXT:
                return "push", event("error", text=f"A message has at most {MAX_TEXT} characters."), guest
            case {"type": "message", "text": str(text)} if text.strip():
                id_ = str(request.get("id") or uuid.uuid4())[:36]
                return publish(guest, LOBBY, {"id": id_, "author": guest.name, "text": text, "at": time.time()})
            case _:
                return "push", event("error", text="That was neither a message nor a sign of typing."), guest

    def handle_info(self, message: object, guest: Guest) -> Result[Guest]:
        """Tell the page the time, and what has changed among the people."""
        match message:
            case "tick":
                current().send_after(1.0, "tick")
                return "push", event("clock", at=time.time()), guest
            case ("join" | "leave" as kind, _, name, page):
                return "push", event("joined" if kind == "join" else "left", name=name, page=page), guest
            case {"typing": name}:
                return "push", event("typing", name=name), guest
            case ("gap", _):
                return self._look_again(guest)
        return "ok", guest

    def _look_again(self, guest: Guest) -> Result[Guest]:
        """Somebody may have come or gone unnoticed."""
        try:
            return "push", event("members", present=guest.pubsub.list(PEOPLE)), guest
        except PubSubError:
            return "stop", "normal", TRY_AGAIN, guest


def publish(guest: Guest, topic: str, message: object) -> Result[Guest]:
    """Tell everybody, this page included. If that fails, the page is to come back and say it again."""
    try:
        guest.pubsub.broadcast(topic, message)
    except ValueError:  # JSON can write half a surrogate pair, UTF-8 cannot
        return "push", event("error", text="That is no text."), guest
    except PubSubError:
        return "stop", "normal", TRY_AGAIN, guest
    return "ok", guest


def event(kind: str, **fields: object) -> str:
    """Write an event as the page's script expects it."""
    return json.dumps({"type": kind, **fields})
