"""Where each WSGI server keeps the socket, the bytes it has read ahead, and how it is told to end quietly.

The only module that knows servers; none is imported that is not running. A server is recognised by what it put into
the environ. Taking a socket over means: the bytes behind the request are ours, the server writes nothing any more
(neither head nor body nor a next response), and its access log still gets the 101 with the connection's duration.

Facts, checked against gunicorn 23.0 and 27.0 and gevent 26.9:

===================  ===================================  ==============================  ============================
server               socket                               bytes read ahead                told to end by
===================  ===================================  ==============================  ============================
gunicorn ``gevent``  ``environ["gunicorn.socket"]``       the request's ``unreader.buf``  ``Response.force_close()``
gevent.pywsgi        ``environ["wsgi.input"].raw._sock``  the ``BufferedReader`` itself   closing that reader
===================  ===================================  ==============================  ============================

The second half of the last two columns hangs on ``start_response.__self__``, which a middleware may have wrapped.
Then the socket is shut down and the read side emptied, and the server, which believes the head is still to be sent,
meets a broken pipe that it takes for a client that left.
"""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gevent import socket as gevent_socket

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["HandOver", "SUPPORTED", "can_hand_over", "take_over"]

SUPPORTED = "gunicorn with its gevent worker (gunicorn -k gevent) and gevent.pywsgi.WSGIServer"


class HandOver:
    """A socket that a server has given away.

    Attributes:
        socket: The gevent socket, plain or TLS.
        unread: Bytes the server had read behind the request.
    """

    def __init__(self, sock: Any, unread: bytes, quiet: Callable[[], None]) -> None:
        self.socket = sock
        self.unread = unread
        self._quiet = quiet

    def end(self) -> None:
        """The WebSocket is over: close both directions, and let the server find nothing to read. Does not raise."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        with suppress(OSError, ValueError):
            self._quiet()


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
    if "wsgi.websocket" in environ or not environ.get("SERVER_PROTOCOL", "").startswith("HTTP/1"):
        return None  # upgraded by somebody else already; or one of many streams on a shared HTTP/2 socket
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
    if hasattr(response, "force_close"):
        response.force_close()
        response.headers_sent = True
        response.chunked = False  # up to 26.0 gunicorn adds a chunked body to a 101

    def quiet() -> None:
        unreader.buf = io.BytesIO()
        unreader.chunk = lambda *_: b""

    quiet()
    return HandOver(environ["gunicorn.socket"], unread, quiet)


def _from_pywsgi(environ: WSGIEnvironment, handler: Any) -> HandOver:
    reader = environ["wsgi.input"]
    sock = reader.raw._sock
    timeout = sock.gettimeout()
    sock.settimeout(0)
    try:
        unread = reader.peek()
    except OSError:
        unread = b""
    finally:
        sock.settimeout(timeout)
    if hasattr(handler, "headers_sent"):
        handler.headers_sent = True
    return HandOver(sock, bytes(unread), reader.close)
