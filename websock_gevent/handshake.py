"""RFC 6455 §4.2: is this request a WebSocket handshake that we accept, and what answers it? Pure: an environ goes in.

Owns the checks in their order, the origin rule (§10.2), the choice of a subprotocol, and the text of each refusal,
which is a Werkzeug HTTP exception and so a WSGI response. Refuses to know servers, sockets and frameworks.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import sha1
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from werkzeug.exceptions import BadRequest, Forbidden

from .errors import UpgradeRequired
from .options import Options

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["accept_headers", "check", "is_upgrade"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # §1.3
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def is_upgrade(environ: WSGIEnvironment) -> bool:
    """Tell whether a request asks to become a WebSocket, well-formed or not."""
    return "websocket" in _tokens(environ, "HTTP_UPGRADE")


def check(environ: WSGIEnvironment, options: Options) -> None:
    """Accept a request, or say why not.

    Raises:
        BadRequest: 400, it is no WebSocket handshake; the text names what is missing or wrong.
        UpgradeRequired: 426, it is one of another version (§4.4).
        Forbidden: 403, it comes from a page of an origin that is not allowed (§10.2).
    """
    _check_request(environ)
    _check_body(environ)
    _check_key(environ)
    version = environ.get("HTTP_SEC_WEBSOCKET_VERSION", "")
    if version != "13":
        raise UpgradeRequired(f"Sec-WebSocket-Version must be 13, got {version!r} (RFC 6455 §4.4)", version=True)
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None and not _is_allowed(origin, environ, options):
        raise Forbidden(f"Origin {origin!r} is not allowed (RFC 6455 §10.2)")


def _check_request(environ: WSGIEnvironment) -> None:
    method, protocol = environ.get("REQUEST_METHOD"), environ.get("SERVER_PROTOCOL")
    if method != "GET":
        raise BadRequest(f"a WebSocket handshake is a GET request, not {method} (RFC 6455 §4.1)")
    if protocol != "HTTP/1.1":
        raise BadRequest(f"a WebSocket handshake needs HTTP/1.1, not {protocol} (RFC 6455 §4.1)")
    if "HTTP_HOST" not in environ:
        raise BadRequest("Host header is missing (RFC 6455 §4.1)")
    for header, key, token in (
        ("Connection", "HTTP_CONNECTION", "upgrade"),
        ("Upgrade", "HTTP_UPGRADE", "websocket"),
    ):
        if token not in _tokens(environ, key):
            raise BadRequest(f"{header} header must contain {token!r}, got {environ.get(key)!r} (RFC 6455 §4.1)")


def _check_body(environ: WSGIEnvironment) -> None:
    """Refuse a body: its bytes would stand where the first frame is expected."""
    if environ.get("CONTENT_LENGTH") not in (None, "", "0"):
        raise BadRequest("Content-Length: a WebSocket handshake has no body")
    if environ.get("HTTP_TRANSFER_ENCODING"):
        raise BadRequest("Transfer-Encoding: a WebSocket handshake has no body")


def _check_key(environ: WSGIEnvironment) -> None:
    # WSGI servers join repeated headers with commas, so two keys do not decode either.
    try:
        size = len(base64.b64decode(environ.get("HTTP_SEC_WEBSOCKET_KEY", ""), validate=True))
    except (binascii.Error, ValueError):
        size = -1
    if size != 16:
        raise BadRequest("Sec-WebSocket-Key must be given once and be 16 bytes in base64 (RFC 6455 §4.1)")


def accept_headers(environ: WSGIEnvironment, options: Options) -> list[tuple[str, str]]:
    """Return the headers of the 101 that answer a checked request (§4.2.2)."""
    digest = sha1(environ["HTTP_SEC_WEBSOCKET_KEY"].encode("ascii") + _GUID).digest()
    headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", base64.b64encode(digest).decode("ascii")),
    ]
    offered = [offer.strip() for offer in environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "").split(",")]
    for subprotocol in options.subprotocols:
        if subprotocol in offered:
            return [*headers, ("Sec-WebSocket-Protocol", subprotocol)]
    return headers


def _tokens(environ: WSGIEnvironment, key: str) -> list[str]:
    return [token.strip().lower() for token in environ.get(key, "").split(",")]


def _is_allowed(origin: str, environ: WSGIEnvironment, options: Options) -> bool:
    """Tell whether a page of this origin may connect."""
    if options.origins == "*":
        return True
    found = _split(origin)
    if found is None:
        return False  # "null" (a sandboxed page or a file), or no origin at all
    if options.origins is None:
        # Behind a proxy that ends TLS our scheme differs from the page's; so only the hosts are compared, a missing
        # port being the one of the page's scheme.
        own = _split(f"{found.scheme}://{environ['HTTP_HOST']}")
        return own is not None and (own.hostname, _port(own)) == (found.hostname, _port(found))
    return any(_matches(found, urlsplit(allowed)) for allowed in options.origins)


def _split(origin: str) -> SplitResult | None:
    try:
        parts = urlsplit(origin)
        parts.port  # noqa: B018  # raises if it is no port
    except ValueError:
        return None
    alone = not (parts.path or parts.query or parts.fragment or "@" in parts.netloc)
    return parts if alone and parts.hostname and parts.scheme else None


def _matches(found: SplitResult, allowed: SplitResult) -> bool:
    if (found.scheme, _port(found)) != (allowed.scheme, _port(allowed)):
        return False
    host, pattern = found.hostname or "", allowed.hostname or ""
    return host.endswith(pattern[1:]) and host != pattern[1:] if pattern.startswith("*.") else host == pattern


def _port(parts: SplitResult) -> int | None:
    return parts.port or _PORTS.get(parts.scheme)
