"""RFC 6455 §4.2: is this request a WebSocket handshake that we accept, and what answers it? Pure: an environ goes in.

Owns the checks in their order, the choice of a subprotocol, and the text of each refusal, which is a Werkzeug HTTP
exception and so a WSGI response. Refuses to know servers, sockets and frameworks.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import sha1
from typing import TYPE_CHECKING

from werkzeug.exceptions import BadRequest, Forbidden

from .errors import UpgradeRequired
from .options import Options
from .origins import is_allowed

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["accept_headers", "check", "check_request", "is_upgrade"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # §1.3


def is_upgrade(environ: WSGIEnvironment) -> bool:
    """Tell whether a request asks to become a WebSocket, be it well-formed or not otherwise."""
    return "websocket" in _tokens(environ, "HTTP_UPGRADE") and "upgrade" in _tokens(environ, "HTTP_CONNECTION")


def check(environ: WSGIEnvironment, options: Options) -> None:
    """Accept a request, or say why not.

    Raises:
        BadRequest: 400, it is no WebSocket handshake; the text names what is missing or wrong.
        UpgradeRequired: 426, it is one of another version (§4.4).
        Forbidden: 403, it comes from a page of an origin that is not allowed (§10.2).
    """
    check_request(environ)
    _check_body(environ)
    _check_key(environ)
    version = environ.get("HTTP_SEC_WEBSOCKET_VERSION", "")
    if version != "13":
        raise UpgradeRequired(f"Sec-WebSocket-Version must be 13, got {version!r} (RFC 6455 §4.4)", version=True)
    _check_origin(environ, options)


def check_request(environ: WSGIEnvironment) -> None:
    """Accept method, protocol and the headers that say what is asked for.

    Raises:
        BadRequest: 400; the text names what is missing or wrong.
    """
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


def _check_origin(environ: WSGIEnvironment, options: Options) -> None:
    origin, allowed = environ.get("HTTP_ORIGIN"), options.origins
    if origin is None or allowed == "*" or is_allowed(origin, environ["HTTP_HOST"], allowed):
        return
    text = f"Origin {origin!r} is not allowed (RFC 6455 §10.2)"
    # A client can send this header, too: it lets nobody in. Of several values, ProxyFix(x_host=1) takes the last.
    forwarded = environ.get("HTTP_X_FORWARDED_HOST", "").rpartition(",")[2].strip()
    if allowed is None and is_allowed(origin, forwarded, None):
        text += ". A proxy in front rewrote Host: let it pass Host on, or wrap the app in Werkzeug's ProxyFix(x_host=1)"
    raise Forbidden(text)


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
