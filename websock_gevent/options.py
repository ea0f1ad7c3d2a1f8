"""What may be set for a connection: names, units, defaults, and what is refused. Nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal, TypedDict

from .deflate import TOKEN, Deflate
from .origins import parse

__all__ = ["Idle", "Options", "Origins", "Overrides"]

#: What a connection has of its own while nothing is to be done.
Idle = Literal["greenlet", "parked"]

#: ``None`` for the request's own host, ``"*"`` for any, or a list of ``scheme://host[:port]``.
Origins = Literal["*"] | Sequence[str] | None
#: What ``compress=True`` means.
_DEFLATE = Deflate()


@dataclass(frozen=True)
class Options:
    """Options of `upgrade`, to be set once per application and handed on as ``options=``.

    Attributes:
        timeout: Seconds without a received byte after which the connection is closed (1002); ``None`` never.
        ping_interval: Seconds without a received byte after which a ping is sent; ``None`` never. The pongs that answer
            these pings do not reach ``handle_control``.
        send_timeout: Seconds a peer may take no byte of what we send; then the connection ends.
        close_timeout: Seconds to wait for the peer's close frame behind ours.
        max_frame_size: Payload bytes of one received frame at the most (1009).
        max_message_size: Payload bytes of one received message at the most, over all fragments (1009).
        max_mailbox: Messages that may wait in the mailbox, and pushes for a peer that does not read (1008).
        validate_utf8: Check text and close text (1007). ``False`` hands undecodable bytes on as surrogate escapes.
        compress: Agree to permessage-deflate (RFC 7692) if the client offers it; a `Deflate` says how.
        subprotocols: The server's subprotocols in order of preference; the first one that the client offers is chosen.
        origins: Who may connect from a browser (RFC 6455 §10.2): ``None`` the request's own host, ``"*"`` anybody, or a
            list of ``scheme://host[:port]``, where the host may begin with ``*.`` for all its subdomains. A request
            without ``Origin`` header does not come from a browser and is always allowed.
        early_validate_upgrade: Check the request inside `upgrade`, so that a refusal is raised in the view. ``False``
            checks when the response is served.
        idle: What a connection holds while nothing is to be done: ``"greenlet"``, its own and one of its server's
            places; or ``"parked"``, neither of them: a greenlet is lent to it for each turn, and the server's own limit
            does not count it (but one, which keeps the worker from ending).
        max_connections: Parked connections of one worker (or server) at the most; one more is refused with 503. So is
            any connection for which the limit of open files leaves no room.

    Raises:
        TypeError, ValueError: an option of the wrong type or out of its range; the text names it.
    """

    timeout: float | None = 60.0
    ping_interval: float | None = 30.0
    send_timeout: float = 30.0
    close_timeout: float = 5.0
    max_frame_size: int = 10_000_000
    max_message_size: int = 10_000_000
    max_mailbox: int = 10_000
    validate_utf8: bool = True
    compress: bool | Deflate = False
    subprotocols: Sequence[str] = ()
    origins: Origins = None
    early_validate_upgrade: bool = True
    idle: Idle = "greenlet"
    max_connections: int = 10_000

    def __post_init__(self) -> None:
        for name in ("timeout", "ping_interval", "send_timeout", "close_timeout"):
            _check_seconds(name, getattr(self, name), optional=name in ("timeout", "ping_interval"))
        for name in ("max_frame_size", "max_message_size", "max_mailbox", "max_connections"):
            _check_count(name, getattr(self, name))
        for name in ("validate_utf8", "early_validate_upgrade"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"option {name} must be a bool, not {getattr(self, name)!r}")
        if not isinstance(self.compress, (bool, Deflate)):
            raise TypeError(f"option compress must be a bool or a Deflate, not {self.compress!r}")
        if self.idle not in ("greenlet", "parked"):
            raise ValueError(f"option idle must be 'greenlet' or 'parked', not {self.idle!r}")
        object.__setattr__(self, "subprotocols", _strings("subprotocols", self.subprotocols, _is_token))
        if self.origins is not None and self.origins != "*":
            object.__setattr__(self, "origins", _strings("origins", self.origins, _is_pattern))

    @property
    def deflate(self) -> Deflate | None:
        """How to compress; ``None`` if not at all."""
        return self.compress if isinstance(self.compress, Deflate) else _DEFLATE if self.compress else None

    def updated(self, changes: Overrides) -> Options:
        """Return a copy with some options changed.

        Raises:
            TypeError: an unknown option; the text names it and lists the known ones.
        """
        if not changes:
            return self
        with suppress(TypeError):  # either a wrong option, or a list, which has no hash
            return _updated(self, tuple((name, value, type(value)) for name, value in changes.items()))
        return self._changed(changes)

    def _changed(self, changes: Mapping[str, Any]) -> Options:
        known = [field.name for field in fields(self)]
        for name in changes:
            if name not in known:
                raise TypeError(f"unknown option {name!r}; known are {', '.join(known)}")
        return replace(self, **changes)


class Overrides(TypedDict, total=False):
    """Single options, as keyword arguments: for type checkers, which look at a call with it. See `Options`."""

    timeout: float | None
    ping_interval: float | None
    send_timeout: float
    close_timeout: float
    max_frame_size: int
    max_message_size: int
    max_mailbox: int
    validate_utf8: bool
    compress: bool | Deflate
    subprotocols: Sequence[str]
    origins: Origins
    early_validate_upgrade: bool
    idle: Idle
    max_connections: int


@lru_cache(maxsize=256)
def _updated(options: Options, changes: tuple[tuple[str, Any, type], ...]) -> Options:
    """The same changes give the same object: a view makes them for each of its connections. (1 is no True.)"""
    return options._changed({name: value for name, value, _ in changes})


def _check_seconds(name: str, value: object, optional: bool) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"option {name} must be a number of seconds{' or None' if optional else ''}, not {value!r}")
    if not 0 < value < float("inf"):
        raise ValueError(f"option {name} must be a finite number of seconds above 0, not {value!r}")


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"option {name} must be an int, not {value!r}")
    if value < 1:
        raise ValueError(f"option {name} must be at least 1, not {value!r}")


def _strings(name: str, values: object, is_good: Callable[[str], bool]) -> tuple[str, ...]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise TypeError(f"option {name} must be a list of str, not {values!r}")
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"option {name} must be a list of str, {value!r} is none")
        if not is_good(value):
            raise ValueError(f"option {name}: {value!r} is not of the form it takes")
    return tuple(values)


def _is_token(text: str) -> bool:
    return re.fullmatch(TOKEN, text) is not None


def _is_pattern(text: str) -> bool:
    """Whether an origin is meant, where a star stands, if anywhere, for the subdomains of a host."""
    origin = parse(text)
    return origin is not None and origin.host != "*." and "*" not in origin.host.removeprefix("*.")
