"""The line of a server's access log, written when the WebSocket is over though its server is done with the request.

Owns how gunicorn's and pywsgi's own greenlets are kept from writing it at the hand-over, when nobody knows the duration
yet, how they are made to write it later, and how little is held for it meanwhile. Refuses to know sockets and
connections.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from time import monotonic, time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["Line", "of_gunicorn", "of_pywsgi", "writes_from_memory"]

#: Writes the line, once. It takes the environ, of which gunicorn's format may name parts.
Line = Callable[["WSGIEnvironment"], None]

#: An attribute of gunicorn's responses: the line that is ours to write.
_LINE = "_websock_gevent_line"
#: Where those handlers of pywsgi are from that ask nothing of the socket for their line.
_KNOWN_HANDLERS = {"gevent.pywsgi", "gunicorn.workers.ggevent", "geventwebsocket.handler"}


def of_gunicorn(log: Any, response: Any) -> Line | None:
    """Put off the line of a request that gunicorn's gevent worker serves. ``None`` if no log is written.

    Args:
        log: The worker's logger.
        response: gunicorn's own; it refers to the request.
    """
    if _is_silent(log):
        return None
    if not isinstance(log.access, _Access):
        log.access = _Access(log.access)
    line = _GunicornLine(log.access.write, response)
    setattr(response, _LINE, line)
    return line


def of_pywsgi(handler: Any) -> Line | None:
    """Put off the line of a request that pywsgi serves, or gunicorn with it. ``None`` if no log is written."""
    log = handler.server.log
    if type(log).__name__ == "_NoopLog" or hasattr(log, "access") and _is_silent(log):
        return None
    line = _PywsgiLine(handler)
    handler.log_request = _say_nothing
    return line


def writes_from_memory(handler: Any) -> bool:
    """Whether a handler of pywsgi can write its line when its request is long over: one of somebody's own may not."""
    return {handler.log_request.__module__, handler.format_request.__module__} <= _KNOWN_HANDLERS


def _is_silent(log: Any) -> bool:
    """Whether this is gunicorn's own logger, and it says that it writes no access log. An older one does not say so."""
    return log.access.__module__ == "gunicorn.glogging" and not getattr(log, "access_log_enabled", True)


def _say_nothing() -> None:
    """Called by pywsgi at the hand-over."""


class _Access:
    """``access`` of gunicorn's logger, which takes only a note of those responses whose line is ours to write."""

    def __init__(self, write: Callable[..., None]) -> None:
        self.write = write

    def __call__(self, resp: Any, req: Any, environ: WSGIEnvironment, request_time: timedelta) -> None:
        line = getattr(resp, _LINE, None)
        if line is None:
            self.write(resp, req, environ, request_time)
        else:
            line.before = request_time


class _GunicornLine:
    """A line to come, and a stand-in for the response: it has all that gunicorn's own loggers ask of one.

    Attributes:
        before: How long the request took until the hand-over.
    """

    __slots__ = ("_began", "_whole", "_write", "before", "headers", "sent", "status")

    def __init__(self, write: Callable[..., None], response: Any) -> None:
        self.status, self.headers, self.sent = response.status, response.headers, response.sent
        self.before = timedelta()
        self._whole = None if write.__module__.startswith("gunicorn.") else response
        self._write = write
        self._began = monotonic()

    def __call__(self, environ: WSGIEnvironment) -> None:
        took = self.before + timedelta(seconds=monotonic() - self._began)
        whole, self._whole = self._whole, None  # which refers to this line
        if whole is None:
            self._write(self, _headers(environ), environ, took)
        else:
            self._write(whole, whole.req, environ, took)


def _headers(environ: WSGIEnvironment) -> list[tuple[str, str]]:
    return [(name[5:].replace("_", "-"), value) for name, value in environ.items() if name.startswith("HTTP_")]


class _PywsgiLine:
    __slots__ = ("_began", "_handler", "_write")

    def __init__(self, handler: Any) -> None:
        self._handler = handler
        self._write = handler.log_request
        self._began = handler.time_start

    def __call__(self, environ: WSGIEnvironment) -> None:
        self._handler.time_start, self._handler.time_finish = self._began, time()
        self._write()
