"""Reach connections in other processes and on other hosts: topics, addresses, presence. See `PubSub`.

Embedded, for one process, or over Redis; one argument makes the difference. Nothing in ``websock_gevent`` imports it.
"""

from .entries import OLDEST
from .errors import AccessDenied, BufferFull, MemoryFull, PubSubError, ReadOnly, Unavailable, Unsupported
from .pubsub import PubSub

__all__ = [
    "OLDEST",
    "AccessDenied",
    "BufferFull",
    "MemoryFull",
    "PubSub",
    "PubSubError",
    "ReadOnly",
    "Unavailable",
    "Unsupported",
]
