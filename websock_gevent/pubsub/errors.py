"""What can go wrong with PubSub, by cause. Knows neither backends nor connections.

PubSubError
├── Unavailable     no answer: absent, restarting, frozen, cut off
├── AccessDenied    wrong password, unknown user, a command or channel that an ACL forbids
├── MemoryFull      the server has no memory for another message (``maxmemory``)
├── ReadOnly        the server is a replica
├── Unsupported     too old, or a kind of server that is not supported
└── BufferFull      more messages wait for the server than may wait
"""

from __future__ import annotations

__all__ = ["AccessDenied", "BufferFull", "MemoryFull", "PubSubError", "ReadOnly", "Unavailable", "Unsupported", "shown"]


def shown(url: str) -> str:
    """Return the address of a server as texts may show it: without user, password and options."""
    head, at, rest = url.partition("?")[0].rpartition("@")
    scheme, colon, _ = head.partition("://")
    return f"{scheme}{colon}{rest}" if colon or not at else rest


class PubSubError(Exception):
    """Something did not reach the server. The text names the server, without its password, and the cause."""


class Unavailable(PubSubError):
    """The server cannot be reached, or does not answer in time. What was asked for may have happened all the same.

    Attributes:
        broken: A connection could not be made or broke, which was noticed at once; ``False`` after a time-out.
    """

    def __init__(self, text: str, broken: bool = False) -> None:
        super().__init__(text)
        self.broken = broken


class AccessDenied(PubSubError):
    """The server refuses this user, or what this user wants to do."""


class MemoryFull(PubSubError):
    """The server has reached its ``maxmemory``; nothing was published."""


class ReadOnly(PubSubError):
    """The server is a read-only replica; nothing was published."""


class Unsupported(PubSubError):
    """The server is older than Redis 6.2, or part of a Redis Cluster."""


class BufferFull(PubSubError):
    """``buffer`` messages wait for the server already; this one was not taken."""
