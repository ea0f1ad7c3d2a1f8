"""What both backends can do, and the settings they share. Knows neither of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

from ..mailbox import Mailbox
from .entries import Replay
from .presence import Tracked
from .registry import Topic

__all__ = ["GOODBYE", "Backend", "Down", "Settings"]

#: Told when somebody who is monitored in another process has ended: its address and the reason.
Down = Callable[[str, object], None]
#: Seconds that the end of a process waits for what has to be said to the server.
GOODBYE = 2.0


@dataclass(frozen=True)
class Settings:
    """The settings of a `PubSub`; see there.

    Raises:
        TypeError, ValueError: one of them is not what it should be; the text names it.
    """

    prefix: str = "websock:"
    keep: int = 1000
    age: float = 3600.0
    timeout: float = 2.0
    watchdog: float = 3.0
    lifetime: float = 10.0
    buffer: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.prefix, str):
            raise TypeError(f"prefix is a str, not {self.prefix!r}")
        for name, least in (("keep", 1), ("buffer", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} is a whole number from {least} up, not {value!r}")
        for name in (field.name for field in fields(self) if field.type == "float"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
                raise ValueError(f"{name} is a number of seconds above 0, not {value!r}")


class Backend(Protocol):
    """Carries messages between those who publish and the topics of this process's registry.

    Everything may be called from any greenlet and any thread, and raises `PubSubError` if there is no other way.
    """

    def publish(self, topic: str, text: str, sender: str) -> str | None:
        """Publish a message, but not to the connection with the address ``sender``. Return its id, if known yet."""

    def join(self, topic: Topic) -> None:
        """Somebody here listens to a topic. When this returns, nothing that is published is missed any more."""

    def leave(self, topic: Topic) -> None:
        """Nobody here listens to a topic any more. Must not block."""

    def replay(self, topic: str, since: str) -> Replay:
        """Return what was published behind an id."""

    def send(self, address: str, text: str) -> bool:
        """Send to a connection in another process. Return whether that process is there."""

    def monitor(self, address: str) -> None:
        """Have `Down` called when a connection in another process ends; at once if there is none."""

    def demonitor(self, address: str) -> None:
        """Nobody here wants to know any more. Must not block."""

    def track(self, tracked: Tracked) -> None:
        """Somebody is present, or is so with another meta."""

    def untrack(self, topic: str, mailbox: Mailbox, key: str) -> None:
        """Somebody is not present any more. Does nothing if it was not."""

    def list(self, topic: str) -> list[str]:
        """Return ``[key, meta]`` of everybody who is present, as JSON."""

    def end(self, mailbox: Mailbox) -> None:
        """A connection of this process has ended: it is present nowhere any more. Must not block."""

    def flush(self, timeout: float) -> bool:
        """Wait until all that was published has left. Return ``False`` if it has not in so many seconds."""

    def close(self, seconds: float) -> None:
        """The process ends."""
