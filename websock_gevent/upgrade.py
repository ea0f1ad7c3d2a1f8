"""`upgrade`: the answer of a view that becomes a WebSocket, and the moment when it does.

Owns the response object, its head on the wire, and the order of the hand-over: the view returns, the framework's
hooks run on an ordinary response, its contexts are torn down, the server asks for the first piece of the body, and
only then the 101 is sent and the handler's life begins. Refuses to know what the server looks like (`servers`) and
what the handshake means (`handshake`).
"""

from __future__ import annotations

import logging
import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from werkzeug import exceptions
from werkzeug.wrappers import Response

from . import handshake, servers
from .attended import AttendedConnection
from .blocking import Blocking
from .connection import Connection
from .deflate import Agreement, Deflate, Inflater, negotiate
from .drainer import Drainer
from .drainer import settings as drain_settings
from .environ import pack
from .hosts import drainer_of, has_files, has_place, most_files
from .lives import Life
from .options import Options
from .signals import tell_refused
from .watched import parts_for
from .websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from typing_extensions import Unpack

    from .options import Idle, Overrides
    from .websock import Handler, S

__all__ = ["UpgradeResponse", "upgrade"]

logger = logging.getLogger("websock_gevent")

_STATUS = "101 Switching Protocols"
#: A 101 has no body, so it has no headers that describe one (RFC 9110 §8.6); the hop-by-hop ones are ours to write.
_NOT_OURS = frozenset(("content-type", "content-length", "transfer-encoding", "connection", "upgrade"))


def upgrade(
    environ: WSGIEnvironment,
    handler: Handler[S] | type[Handler[S]] | Blocking,
    state: S,
    *,
    options: Options | None = None,
    **overrides: Unpack[Overrides],
) -> Response:
    """Make the response that turns a request into a WebSocket. Return it from the view.

    Nothing is sent yet: hooks may add headers and cookies. The handler runs after the view's contexts are torn down. As
    long as it lives, the connection counts against its server's limit (gunicorn's ``worker_connections``), unless it is
    parked (option ``idle``).

    Args:
        environ: The request's WSGI environ (``request.environ`` in Flask).
        handler: A class, instantiated once per connection, or an object with the callbacks of `WebSock`; or a function
            in the blocking style (`legacy.blocking`).
        state: What the handler's ``init`` gets.
        options: Common options, made once; ``None`` for the defaults.
        **overrides: Single options, by the names of `Options`.

    Returns:
        A Werkzeug response, of the application's own ``response_class`` inside Flask; also a WSGI application.

    Raises:
        werkzeug.exceptions.HTTPException: the request is refused; a response as well (400, 403, 426, 501, 503).
        TypeError, ValueError: an unknown or ill-typed option, a handler without its callbacks, or no WSGI environ.
    """
    if not isinstance(environ, dict):  # PEP 3333 asks for a builtin dict
        raise TypeError(f"upgrade takes the WSGI environ first (request.environ in Flask), not {environ!r}")
    _check_handler(handler)
    chosen = (options or _defaults()).updated(overrides)
    response = _response_class(_framework_class())(status=_STATUS)
    response.plan(handler, state, chosen)
    if chosen.early_validate_upgrade:
        response.validate(environ)
    return response


class UpgradeResponse(Response):
    """A 101 response. Made by `upgrade`."""

    default_mimetype = None  # it has no body

    def plan(self, handler: Any, state: Any, options: Options) -> None:
        """Note what is to run."""
        self._handler, self._state, self._options = handler, state, options
        self._drainer: Drainer | None = None
        self._sender = handler.function if isinstance(handler, Blocking) else handler  # of signals
        self._agreed: tuple[Agreement, Deflate] | None = None
        self._validated = False

    def validate(self, environ: WSGIEnvironment) -> None:
        """Check the request and set the headers of the handshake.

        Raises:
            werkzeug.exceptions.HTTPException: it is refused.
        """
        try:
            self._drainer = drainer_of(found=self._drainer)
            self._check(environ, self._drainer)
        except exceptions.HTTPException as refusal:
            self._refuse(environ, refusal)
            raise
        if not servers.is_upgraded(environ):
            for name, value in handshake.accept_headers(environ, self._options):
                self.headers[name] = value
            self._agree(environ.get("HTTP_SEC_WEBSOCKET_EXTENSIONS", ""), self._options.deflate)
        self._validated = True

    def _agree(self, offers: str, settings: Deflate | None) -> None:
        agreed = negotiate(offers, settings) if settings is not None else None
        if settings is not None and agreed is not None:
            self.headers["Sec-WebSocket-Extensions"], agreement = agreed
            self._agreed = agreement, settings

    def _check(self, environ: WSGIEnvironment, drainer: Drainer) -> None:
        if not servers.is_stream(environ):
            handshake.check(environ, self._options)
        obstacle = servers.obstacle(environ)
        if obstacle is not None:
            raise exceptions.NotImplemented(obstacle)
        self._refuse_without_room(drainer)

    def _refuse_without_room(self, drainer: Drainer) -> None:
        options = self._options
        if drainer.draining:
            text = "The server is about to end. Connect again: another one will answer."
        elif options.idle == "parked" and drainer.parked >= options.max_connections:
            text = "The server holds as many connections as it may (max_connections)."
            _tell_of(f"max_connections ({options.max_connections})")
        elif not has_files():
            text = "The server holds as many connections as it may open files (ulimit -n)."
            _tell_of(f"ulimit -n ({most_files()})")
        else:
            return
        raise exceptions.ServiceUnavailable(text, retry_after=drain_settings().retry_after)

    def _refuse(self, environ: WSGIEnvironment, refusal: exceptions.HTTPException) -> None:
        """Tell whoever has to know; the answer itself is the caller's."""
        _refuse_upgraded(environ, refusal)
        tell_refused(self._sender, environ, refusal, ours=refusal.code == 501)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Tell the server of a 101, for its log and for middlewares, and take its socket."""
        try:
            return self.begin(environ, start_response)
        except exceptions.HTTPException as refusal:
            return refusal(environ, start_response)

    def begin(self, environ: WSGIEnvironment, start_response: StartResponse) -> Life:
        """Take the socket: the life that begins now is the response's body, or its caller's.

        Raises:
            werkzeug.exceptions.HTTPException: the request is refused.
        """
        self._drainer = drainer = drainer_of(start_response, self._drainer)
        if not self._validated:
            self.validate(environ)
        try:
            self._refuse_without_room(drainer)
        except exceptions.HTTPException as refusal:
            self._refuse(environ, refusal)
            raise
        start_response(_STATUS, self.headers.to_wsgi_list())
        return Life(self, environ, servers.take_over(environ, start_response), drainer)

    def open(self, environ: WSGIEnvironment, hand_over: servers.HandOver) -> tuple[Connection, Idle | None]:
        """Build the connection, and put its 101 on the wire. Tell how it goes on by itself; ``None`` if it does not."""
        options = self._options
        attended = isinstance(self._handler, Blocking)
        kept = None if attended else _keep(hand_over, options.idle)
        parts, agreed = parts_for(self._sender), self._agreed
        websocket = WebSocket(
            kept or hand_over.socket,
            environ if attended else pack(environ),
            parts.reader(
                options.max_frame_size,
                options.max_message_size,
                options.validate_utf8,
                Inflater(agreed[0]) if agreed is not None else None,
            ),
            subprotocol=self.headers.get("Sec-WebSocket-Protocol"),
            unread=hand_over.unread,
            send_timeout=options.send_timeout,
            deflater=parts.deflater(*agreed) if agreed is not None else None,
        )
        if not hand_over.upgraded:
            websocket.out.append(self._head())
            websocket.flush()
        made = AttendedConnection if attended else Connection
        connection = parts.connection(made, websocket, self._handler, self._state, options)
        return connection, None if kept is None else options.idle

    def _head(self) -> bytes:
        """The same bytes on every server: HTTP/1.1, one ``Connection``, nothing about a body (RFC 6455 §4.2.2)."""
        lines = [f"HTTP/1.1 {_STATUS}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"{name}: {value}" for name, value in self.headers if name.lower() not in _NOT_OURS]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


#: One subclass for each ``response_class``.
_classes: dict[type[Response], type[UpgradeResponse]] = {Response: UpgradeResponse}


@lru_cache(maxsize=1)
def _defaults() -> Options:
    return Options()


def _check_handler(handler: object) -> None:
    if isinstance(handler, Blocking):
        return
    missing = [name for name in ("init", "handle_in", "handle_info") if not callable(getattr(handler, name, None))]
    if missing:
        text = f"{handler!r} is not a WebSock: {', '.join(missing)} missing; inherit from websock_gevent.WebSock"
        raise TypeError(text)


def _framework_class() -> type[Response]:
    """Flask re-makes a response that is not of its application's own class, which would run ours inside the view."""
    flask = sys.modules.get("flask")
    if flask is not None and flask.has_app_context():
        found: type[Response] = flask.current_app.response_class
        return found
    return Response


def _response_class(base: type[Response]) -> type[UpgradeResponse]:
    made = _classes.get(base)
    if made is None:
        made = _classes[base] = type("UpgradeResponse", (UpgradeResponse, base), {})
    return made


@lru_cache(maxsize=8)
def _tell_of(limit: str) -> None:
    """Tell the log, once."""
    logger.warning("%s allows no more connections: until one ends, others are refused with 503", limit)


def _keep(hand_over: servers.HandOver, idle: Idle) -> Any:
    """Take the socket away from its server for good. ``None`` if that cannot be done, or its server would notice."""
    if idle == "greenlet":
        return hand_over.keep() if hand_over.put_off is not None and has_place() else None
    kept = hand_over.keep()
    if kept is None:
        _tell_of_greenlets()
    return kept


@lru_cache(maxsize=1)
def _tell_of_greenlets() -> None:
    """Tell the log, once."""
    logger.warning("idle='parked' needs gevent's own sockets without TLS; connections keep their greenlets here")


def _refuse_upgraded(environ: WSGIEnvironment, refusal: exceptions.HTTPException) -> None:
    """Where gevent-websocket has sent a 101 already, a refusal can only be a close frame."""
    if servers.is_upgraded(environ):
        text = str(refusal.description).encode()[:123].decode(errors="ignore")  # bytes, not characters (§5.5)
        full = refusal.code == 503  # and so keeps nobody any longer
        servers.refuse(environ, 1013 if full else 1008, text, linger=not full)
