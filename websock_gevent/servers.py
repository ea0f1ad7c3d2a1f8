"""Where each WSGI server keeps the socket, the bytes it has read ahead, and how it is told to end quietly.

The only module that knows servers; none is imported that is not running. A server is recognised by what it put into
the environ. Taking a socket over means: the bytes behind the request are ours, the server writes nothing any more
(neither head nor body nor a next response), and its access log still gets the 101 with the connection's duration.

Facts, checked against gunicorn 23.0 and 27.0 and gevent 26.9:

===================  ===================================  ==============================
server               socket                               bytes read ahead
===================  ===================================  ==============================
gunicorn ``gevent``  ``environ["gunicorn.socket"]``       the request's ``unreader.buf``
gevent.pywsgi        ``environ["wsgi.input"].raw._sock``  the ``BufferedReader`` itself
===================  ===================================  ==============================

Both take an emptied (gunicorn) or closed (pywsgi) read side for a client that has left, and go quietly. That the head
is sent already they learn through ``start_response.__self__``, if no middleware has wrapped it. If one has, they try
to send theirs when the WebSocket is over, meet a socket that is shut down, and take that for a client that has left,
too.
"""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from gevent import socket as gevent_socket

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["SUPPORTED", "HandOver", "can_hand_over", "is_stream", "take_over"]

SUPPORTED = "gunicorn with its gevent worker (gunicorn -k gevent) and gevent.pywsgi.WSGIServer"


class HandOver(NamedTuple):
    """What a server has given away: the gevent socket, plain or TLS, and the bytes it had read behind the request."""

    socket: Any
    unread: bytes

    def end(self) -> None:
        """The WebSocket is over: close both directions; closing the socket itself is left to its server."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


def is_stream(environ: WSGIEnvironment) -> bool:
    """Tell whether a request is one of many on a shared socket (HTTP/2), and so has none to give away."""
    return not environ.get("SERVER_PROTOCOL", "").startswith("HTTP/1")


def can_hand_over(environ: WSGIEnvironment) -> bool:
    """Tell whether the server behind this request can give its socket away."""
    return _find(environ) is not None


def take_over(environ: WSGIEnvironment, start_response: StartResponse) -> HandOver:
    """Take the socket of a request for which ``start_response`` has been called already.

    Raises:
        LookupError: this server cannot; see `can_hand_over`.
    """
    take = _find(environ)
    if take is None:
        raise LookupError("the WSGI server does not give its socket away")
    return take(environ, getattr(start_response, "__self__", None))


def _find(environ: WSGIEnvironment) -> Callable[[WSGIEnvironment, Any], HandOver] | None:
    """Recognise the server."""
    if "wsgi.websocket" in environ or is_stream(environ):
        return None  # upgraded by somebody else already, or never to be
    source = environ.get("wsgi.input")
    if isinstance(environ.get("gunicorn.socket"), gevent_socket.socket) and _unreader(source) is not None:
        return _from_gunicorn
    if isinstance(getattr(getattr(source, "raw", None), "_sock", None), gevent_socket.socket):
        return _from_pywsgi
    return None


def _unreader(source: Any) -> Any:
    """gunicorn's buffer in front of the socket, through its request body."""
    return getattr(getattr(source, "reader", None), "unreader", None)


def _from_gunicorn(environ: WSGIEnvironment, response: Any) -> HandOver:
    unreader = _unreader(environ["wsgi.input"])
    unread: bytes = unreader.buf.getvalue()
    unreader.buf = io.BytesIO()
    unreader.chunk = lambda *_: b""
    if hasattr(response, "force_close"):
        response.force_close()
        response.headers_sent = True
        response.chunked = False  # up to 26.0 gunicorn adds a chunked body to a 101
    return HandOver(environ["gunicorn.socket"], unread)


def _from_pywsgi(environ: WSGIEnvironment, handler: Any) -> HandOver:
    reader = environ["wsgi.input"]
    sock = reader.raw._sock
    timeout = sock.gettimeout()
    sock.settimeout(0)
    try:
        unread = bytes(reader.peek())
    except OSError:
        unread = b""
    finally:
        sock.settimeout(timeout)
    reader.close()
    if hasattr(handler, "headers_sent"):
        handler.headers_sent = True
    return HandOver(sock, unread)
