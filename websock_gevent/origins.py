"""RFC 6454 and RFC 6455 §10.2: which pages may connect. Pure: strings go in.

Owns the grammar of an ``Origin`` header and the comparison with the request's host or a list of allowed origins.
Written as one strict pattern, not with ``urlsplit``, which forgives what a header that decides about access must not be
forgiven. Refuses to know requests and options.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple

__all__ = ["Origin", "is_allowed", "parse"]

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[^\s/?#@\\:,\[\]]+)(?::([0-9]{1,5}))?", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Origin(NamedTuple):
    """Scheme and host in lower case, and the port, which is the scheme's own if none is written; else ``None``."""

    scheme: str
    host: str
    port: int | None


def parse(text: str) -> Origin | None:
    """Take a serialized origin apart; ``None`` if it is none, as ``null`` (a sandboxed page or a file) is."""
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme, host, port = found[1].lower(), found[2].lower(), found[3]
    if (port is not None and not 0 < int(port) < 65536) or (host[0] == "[" and not _is_ipv6(host[1:-1])):
        return None
    return Origin(scheme, host, _PORTS.get(scheme) if port is None else int(port))


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True


def is_allowed(text: str, host: str, allowed: Sequence[str] | None) -> bool:
    """Tell whether a page of this origin may connect to this host.

    Args:
        text: The ``Origin`` header.
        host: The ``Host`` header.
        allowed: Origins that may, ``*.`` in front of a host standing for its subdomains; ``None`` for the host's own.
    """
    origin = parse(text)
    if origin is None:
        return False
    if allowed is None:
        # Behind a proxy that ends TLS our scheme differs from the page's, so the hosts alone are compared: a port that
        # is missing in the Host header is the one of the page's scheme.
        return parse(f"{origin.scheme}://{host}") == origin
    return any(_matches(origin, parse(pattern)) for pattern in allowed)


def _matches(origin: Origin, pattern: Origin | None) -> bool:
    if pattern is None or (origin.scheme, origin.port) != (pattern.scheme, pattern.port):
        return False
    if pattern.host.startswith("*."):
        return origin.host.endswith(pattern.host[1:]) and len(origin.host) >= len(pattern.host)
    return origin.host == pattern.host
