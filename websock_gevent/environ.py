"""A request's environ in little memory, for a connection that outlives everything else of its request. Pure.

An idle connection is to cost little, and its environ would be most of it: some forty small objects, and through them
the server's buffers. What WSGI (PEP 3333) and CGI define is text and a few numbers: these become one object. What the
server and the framework put there for the time of the request is left out. Anything else, which a middleware or the
application has added, is kept as it is.
"""

from __future__ import annotations

import marshal
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["Packed", "pack", "unpack"]

_SERVERS = ("wsgi.", "gunicorn.", "werkzeug.")
_PLAIN = frozenset((str, int, bool, bytes))


class Packed(NamedTuple):
    """What is kept: the names and the values of the plain part, and the rest, ``None`` if there is none."""

    names: tuple[str, ...]
    values: bytes
    rest: WSGIEnvironment | None


def pack(environ: WSGIEnvironment) -> Packed:
    """Keep what outlives the request."""
    plain, rest = {}, {}
    for name, value in environ.items():
        if type(value) in _PLAIN or name == "wsgi.version":
            plain[name] = value
        elif not name.startswith(_SERVERS):
            rest[name] = value
    return Packed(_shared(tuple(plain)), marshal.dumps(tuple(plain.values())), rest or None)


def unpack(packed: Packed) -> WSGIEnvironment:
    """Return a new dict of what was kept."""
    return {**dict(zip(packed.names, marshal.loads(packed.values), strict=True)), **(packed.rest or {})}


@lru_cache(maxsize=256)
def _shared(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the same object for equal names: clients of one kind send the same headers."""
    return names
