"""WebSockets for frameworks that let no WSGI application of a view through: Django, Falcon, Bottle. A leaf.

Owns the way around them: the view notes what is to become of the request (`accept`) and answers anything; a middleware
around the framework (`Upgrades`) makes a WebSocket of that answer. It knows none of the frameworks, and so works with
all. Refuses to know handshakes and servers (`upgrade`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from werkzeug.exceptions import HTTPException

from .blocking import Blocking
from .options import Options
from .relay import drop, relayed
from .upgrade import upgrade

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from typing_extensions import Unpack
    from werkzeug.wrappers import Response

    from .options import Overrides
    from .websock import Handler, S

__all__ = ["Upgrades", "accept"]

_KEY = "websock_gevent.offer"


def accept(
    environ: WSGIEnvironment,
    handler: Handler[S] | type[Handler[S]] | Blocking,
    state: S,
    *,
    options: Options | None = None,
    **overrides: Unpack[Overrides],
) -> None:
    """Have the view's answer become a WebSocket, or the refusal if the request cannot be one.

    The view then returns any answer of a status from 200 to 299. Of it, the headers and cookies go into the 101; its
    body is dropped, and closed as any other. An answer of another status, from whatever comes behind the view, is sent
    as it is.

    Args:
        environ: The request's WSGI environ: ``request.environ``, or ``req.env`` in Falcon.
        handler: As for `upgrade`, like all others.
        state: What the handler's ``init`` gets.
        options: Common options, made once; ``None`` for the defaults.
        **overrides: Single options, by the names of `Options`.

    Raises:
        RuntimeError: no `Upgrades` is around the application.
        TypeError, ValueError: an unknown or ill-typed option, or a handler without its callbacks.
    """
    exchange = environ.get(_KEY)
    if not isinstance(exchange, _Exchange):
        raise RuntimeError("accept() needs websock_gevent.frameworks.Upgrades around the WSGI application")
    try:
        exchange.planned = upgrade(exchange.environ, handler, state, options=options, **overrides)
    except HTTPException as refusal:
        exchange.planned = refusal.get_response(exchange.environ)


class Upgrades:
    """A middleware that lets the views of any WSGI framework `accept`::

        application = Upgrades(get_wsgi_application())      # Django's wsgi.py

    Args:
        app: The framework's WSGI application.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        exchange = _Exchange(environ, start_response)
        return exchange.serve(self.app, {**environ, _KEY: exchange})


class _Exchange:
    """One request, and what its view has noted.

    Attributes:
        environ: As the server gave it: nothing that the framework adds is held by the connection.
        planned: What is to be the answer; ``None`` for the framework's.
    """

    def __init__(self, environ: WSGIEnvironment, start_response: StartResponse) -> None:
        self.environ = environ
        self.planned: Response | None = None
        self._start_response = start_response
        self._answered = False
        self._headers: list[tuple[str, str]] = []

    def serve(self, app: WSGIApplication, environ: WSGIEnvironment) -> Iterable[bytes]:
        """Call the framework, and answer in its place if that was planned."""
        answer = app(environ, relayed(self._start_response, self._on_status))
        if not self._answered:
            answer = _begun(answer)  # a generator says nothing before it is asked
        planned, self.planned = self.planned, None
        if planned is None:
            return answer
        ours = {name.lower() for name in planned.headers.keys()}
        for name, value in self._headers:
            if name.lower() not in ours:
                planned.headers.add(name, value)
        close = getattr(answer, "close", None)
        if close is not None:
            planned.call_on_close(close)
        return planned(self.environ, self._start_response)

    def _on_status(self, status: str, headers: list[tuple[str, str]]) -> Callable[[bytes], object] | None:
        """The framework answers."""
        self._answered = True
        if self.planned is not None and status.startswith("2"):
            self._headers = [(name, value) for name, value in headers if not _is_about_the_body(name)]
            return drop
        self.planned = None
        return None


def _is_about_the_body(name: str) -> bool:
    return name.lower().startswith(("content-", "transfer-")) or name.lower() in ("etag", "last-modified")


def _begun(answer: Iterable[bytes]) -> Iterable[bytes]:
    """Ask for the first piece, and have the rest with it."""
    pieces = iter(answer)
    return _Begun(next(pieces, b""), pieces, getattr(answer, "close", None))


class _Begun:
    """An answer whose first piece was taken out."""

    def __init__(self, first: bytes, rest: Iterator[bytes], close: Callable[[], object] | None) -> None:
        self._first, self._rest, self._close = first, rest, close

    def __iter__(self) -> Iterator[bytes]:
        yield self._first
        yield from self._rest

    def close(self) -> None:
        """Close what it was taken from."""
        if self._close is not None:
            self._close()
