"""Where each WSGI server keeps the socket, the bytes it has read ahead, and how it is told to end quietly.

The only module that knows how servers are built; none is imported that is not running. A server is recognised by what
it put into the environ. Taking a socket over means: the bytes behind the request are ours, the server writes nothing
any more (neither head nor body nor a next response), and its access log still gets the 101 with the connection's
duration. When servers end is the business of `hosts`. A socket can also be kept for good (`HandOver.keep`): then the
server finds a dead one in its place, and is done with the request, but for the line in its log (`accesslog`).

Facts, checked against gunicorn 23.0 and 27.0, gevent 26.9, gevent-websocket 0.10.1 and Werkzeug 3.1:

=================================  ===================================  =================================
server                             socket                               bytes read ahead
=================================  ===================================  =================================
gunicorn ``gevent``, ``gthread``   ``environ["gunicorn.socket"]``       the request's ``unreader.buf``
gevent.pywsgi, ``gevent_pywsgi``   ``environ["wsgi.input"].raw._sock``  the ``BufferedReader`` itself
gevent-websocket, its worker       ``wsgi.websocket.handler.socket``    ``wsgi.websocket.handler.rfile``
Werkzeug, ``flask run``            ``environ["werkzeug.socket"]``       ``wsgi.input``, a ``BufferedReader``
=================================  ===================================  =================================

gunicorn and pywsgi take an emptied (gunicorn) or closed (pywsgi) read side for a client that has left, and go quietly.
That the head is sent already they learn through the object behind ``start_response``. Where that cannot be found
because a middleware has wrapped it, and with Werkzeug, whose object is a closure, the server tries to send its own
head when the WebSocket is over, meets a socket that is shut down, and takes that for a client that has left.
"""

from __future__ import annotations

import errno
import io
import os
import socket
import sys
from _socket import socketpair
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent
from gevent import socket as gevent_socket
from gevent._hub_local import get_hub_if_exists
from gevent.exceptions import HubDestroyed, LoopExit
from geventwebsocket.websocket import WebSocket

from . import accesslog, hosts
from .frames import close_frame

if TYPE_CHECKING:
    from types import FrameType

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from .accesslog import Line

__all__ = ["HandOver", "is_stream", "is_upgraded", "obstacle", "refuse", "take_over"]

_SUPPORTED = "gunicorn with its gevent worker (gunicorn -k gevent), gevent.pywsgi.WSGIServer, or flask run"

#: Seconds for which what a refused peer still sends is received, at the most.
LINGER = 1.0


class HandOver:
    """What a server has given away.

    Args:
        sock: The connection's socket: gevent's or a plain one, with or without TLS.
        unread: The bytes the server had read behind the request.
        put_off: Keeps the server from writing its line into the access log, and returns what does; ``None`` if nobody
            knows how.
        upgraded: The server has sent a 101 of its own.
    """

    def __init__(
        self, sock: Any, unread: bytes, put_off: Callable[[], Line | None] | None = None, *, upgraded: bool = False
    ) -> None:
        self.socket = sock
        self.unread = unread
        self.put_off = put_off
        self.upgraded = upgraded
        self._pid = os.getpid()
        with suppress(OSError):  # a unix socket has none
            # Only gunicorn does so by itself; else a short message waits until the one before is acknowledged.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        #: A thread of its own, in an unpatched process, has no hub yet: it gets one for the connection's life.
        self._lent_hub = get_hub_if_exists() is None

    def keep(self) -> Any:
        """Take the socket away for good: whatever its server does now, or when it is done, is done to a dead one.

        Returns:
            The kernel's socket, for the caller to close; ``None`` if it cannot be taken: it is under TLS, whose state
            is the server's, or a plain one of a thread, which has a hub only for as long as it waits here.
        """
        if type(self.socket) is not gevent_socket.socket:
            return None
        kept = self.socket._sock  # type: ignore[attr-defined]
        self.socket._sock = _Gone()  # type: ignore[attr-defined]
        return kept

    def end(self) -> None:
        """Its server's part of the WebSocket is over: close both directions of what it has; it closes that itself."""
        if os.getpid() == self._pid:  # a fork's end is not the connection's
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
        if self._lent_hub and (hub := get_hub_if_exists()) is not None:
            # A thread that ends would leave an epoll descriptor behind. gevent's `destroy` stops the hub, which answers
            # by a `LoopExit` that keeps all frames of the caller; stopped once more, it ends and lets go of them.
            with suppress(LoopExit):
                hub.throw(HubDestroyed(True))
            hub.destroy(destroy_loop=True)


class _Gone:
    """In the place of each socket that was kept: one whose other end has gone, and that nobody can close."""

    family, type, proto = socket.AF_UNIX, socket.SOCK_STREAM, 0

    def fileno(self) -> int:
        return _dead_file()

    def close(self) -> None:
        pass

    def recv(self, *_: Any) -> bytes:
        return b""

    def recv_into(self, *_: Any) -> int:
        return 0

    def __getattr__(self, name: str) -> Any:
        return _refuse_to_write


def _refuse_to_write(*_: Any) -> None:
    raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


@lru_cache(maxsize=1)
def _dead_file() -> int:
    """What Werkzeug looks at, for one: always readable, and nothing comes."""
    dead, other_end = socketpair()
    other_end.close()
    return dead.detach()


def is_upgraded(environ: WSGIEnvironment) -> bool:
    """Tell whether gevent-websocket's handler has sent a 101 before the application was called."""
    return isinstance(_native(environ), WebSocket)


def _native(environ: WSGIEnvironment) -> Any:
    """gevent-websocket's own WebSocket, also where `legacy` has put its own in front of it."""
    websocket = environ.get("wsgi.websocket")
    return getattr(websocket, "native", websocket)


def refuse(environ: WSGIEnvironment, code: int, text: str, *, linger: bool) -> None:
    """Close what `is_upgraded`: an HTTP answer would not be sent any more.

    Args:
        linger: Keep the socket for a moment, so that the close frame arrives though the peer is still sending.
    """
    websocket = _native(environ)
    with suppress(OSError):
        websocket.raw_write(close_frame(code, text))
    websocket.closed = True
    kept = HandOver(websocket.handler.socket, b"").keep() if linger else None
    if kept is not None:
        gevent.spawn(_linger, kept)


def _linger(sock: Any) -> None:
    """Closing a socket with unread input would make the kernel send RST, which can overtake the close frame."""
    until = monotonic() + LINGER
    try:
        sock.shutdown(socket.SHUT_WR)
        while (left := until - monotonic()) > 0:
            gevent_socket.wait_read(sock.fileno(), timeout=left)
            if not sock.recv(1 << 16):
                break
    except OSError:  # the time is over, or the peer has gone
        pass
    finally:
        sock.close()


def is_stream(environ: WSGIEnvironment) -> bool:
    """Tell whether a request is one of many on a shared socket (HTTP/2), and so has none to give away."""
    return not environ.get("SERVER_PROTOCOL", "").startswith("HTTP/1")


def obstacle(environ: WSGIEnvironment) -> str | None:
    """Return why the server behind this request cannot give its socket away, and what could; ``None`` if it can."""
    if is_stream(environ):
        return "A stream of HTTP/2 cannot become a WebSocket here (RFC 8441): connect with HTTP/1.1."
    if _find(environ) is not None:
        return None
    if _is_taken(environ):
        return 'This request has become a WebSocket already: environ["wsgi.websocket"] was used, or is none of ours.'
    server = environ.get("SERVER_SOFTWARE") or "this WSGI server"
    if ("gunicorn.socket" in environ or "werkzeug.socket" in environ) and not environ.get("wsgi.multithread"):
        return (
            f"{server} serves one request at a time here, and a WebSocket would hold it for ever. "
            "Run gunicorn -k gevent instead of its sync worker, flask run without --without-threads."
        )
    if environ.get("werkzeug.request") is not None and "REMOTE_PORT" not in environ:
        return "Flask's test client has no socket to give away. In tests, use websock_gevent.testing.connect."
    return f"{server} does not give its socket away. Use {_SUPPORTED}."


def take_over(environ: WSGIEnvironment, start_response: StartResponse) -> HandOver:
    """Take the socket of a request for which ``start_response`` has been called already.

    Raises:
        LookupError: this server cannot; see `obstacle`.
    """
    take = _find(environ)
    if take is None:
        raise LookupError(obstacle(environ))
    return take(environ, getattr(start_response, "__self__", None))


def _find(environ: WSGIEnvironment) -> Callable[[WSGIEnvironment, Any], HandOver] | None:
    """Recognise the server."""
    source = environ.get("wsgi.input")
    if _is_taken(environ):
        return None
    if is_upgraded(environ):
        return _from_gevent_websocket
    if "gunicorn.socket" in environ:
        return _from_gunicorn if environ.get("wsgi.multithread") and _unreader(source) is not None else None
    if "werkzeug.socket" in environ:
        many = environ.get("wsgi.multithread") or environ.get("wsgi.multiprocess")
        return _from_werkzeug if many and isinstance(source, io.BufferedReader) else None
    if isinstance(getattr(getattr(source, "raw", None), "_sock", None), gevent_socket.socket):
        return _from_pywsgi
    return None


def _is_taken(environ: WSGIEnvironment) -> bool:
    """Whether something else has made a WebSocket of the request; `legacy` only offers to, until it is used."""
    websocket = environ.get("wsgi.websocket")
    return websocket is not None and getattr(websocket, "accepted", not is_upgraded(environ))


def _unreader(source: Any) -> Any:
    """gunicorn's buffer in front of the socket, through its request body."""
    return getattr(getattr(source, "reader", None), "unreader", None)


def _from_gunicorn(environ: WSGIEnvironment, response: Any) -> HandOver:
    unreader = _unreader(environ["wsgi.input"])
    unread: bytes = unreader.buf.getvalue()
    unreader.buf = io.BytesIO()
    unreader.chunk = lambda *_: b""
    if not hasattr(response, "force_close"):
        response = _caller("resp", lambda found: getattr(getattr(found, "req", None), "unreader", None) is unreader)
    worker = hosts.this_worker()
    put_off = None
    if response is not None:
        response.force_close()
        response.headers_sent = True
        response.chunked = False  # up to 26.0 gunicorn adds a chunked body to a 101
        put_off = None if worker is None else partial(accesslog.of_gunicorn, worker.log, response)
    return HandOver(environ["gunicorn.socket"], unread, put_off)


def _from_pywsgi(environ: WSGIEnvironment, handler: Any) -> HandOver:
    reader = environ["wsgi.input"]
    sock = reader.raw._sock
    unread = _peeked(reader, sock)
    reader.close()
    if getattr(handler, "rfile", None) is not reader:
        handler = _caller("self", lambda found: getattr(found, "rfile", None) is reader)
    put_off = None
    if handler is not None:
        handler.headers_sent = True
        put_off = _put_off(handler)
    return HandOver(sock, unread, put_off)


def _from_gevent_websocket(environ: WSGIEnvironment, _: Any) -> HandOver:
    handler = _native(environ).handler
    return HandOver(handler.socket, _peeked(handler.rfile, handler.socket), _put_off(handler), upgraded=True)


def _put_off(handler: Any) -> Callable[[], Line | None] | None:
    return partial(accesslog.of_pywsgi, handler) if accesslog.writes_from_memory(handler) else None


def _from_werkzeug(environ: WSGIEnvironment, _: Any) -> HandOver:
    sock = environ["werkzeug.socket"]
    return HandOver(sock, _peeked(environ["wsgi.input"], sock))


def _peeked(reader: io.BufferedReader, sock: Any) -> bytes:
    """What a reader holds already."""
    timeout = sock.gettimeout()
    sock.settimeout(0)
    try:
        return bytes(reader.peek())
    except OSError:
        return b""
    finally:
        sock.settimeout(timeout)


def _caller(name: str, is_it: Callable[[Any], bool]) -> Any:
    """What a server has in a local variable, behind middlewares that hide it. ``None`` in another greenlet."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        found = frame.f_locals.get(name)
        if is_it(found):
            return found
        frame = frame.f_back
    return None
