"""OpenTelemetry: a span for each connection, and within it one for each callback. A leaf: nothing imports it.

Owns the spans' names and attributes, after the semantic conventions where they have a name. What a callback does is
traced below its own span, since that is the current one meanwhile. A connection's span goes on with the trace of the
upgrade request (``traceparent``, or whatever propagators are set), and like every span is exported when it ends. ::

    opentelemetry.install(provider)

The whole example is in ``docs/telemetry.rst``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opentelemetry import propagate, trace
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from ..signals import KINDS, ConnectionStarted, ConnectionStopped, connection_started, connection_stopped
from ..websock import Reason
from ..websocket import WebSocket

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["Tracing", "install"]

#: Attributes of a connection's span, and where the environ has them.
_ATTRIBUTES = {
    "client.address": "REMOTE_ADDR",
    "server.address": "SERVER_NAME",
    "server.port": "SERVER_PORT",
    "user_agent.original": "HTTP_USER_AGENT",
}


def install(provider: trace.TracerProvider | None = None, *, callbacks: bool = True) -> Tracing:
    """Trace connections that are opened from now on. Call it once.

    Args:
        provider: Of the tracer; ``None`` for the one that is set globally.
        callbacks: Make a span for each callback, too.
    """
    return Tracing(trace.get_tracer("websock_gevent", tracer_provider=provider), callbacks)


class Tracing:
    """The spans of open connections. Made by `install`."""

    def __init__(self, tracer: trace.Tracer, callbacks: bool) -> None:
        self._tracer = tracer
        self._callbacks = callbacks
        self._spans: dict[WebSocket, Span] = {}
        connection_started.connect(self._started, weak=False)
        connection_stopped.connect(self._stopped, weak=False)

    def stop(self) -> None:
        """Trace no further connections; the spans of those that are open do not end."""
        connection_started.disconnect(self._started)
        connection_stopped.disconnect(self._stopped)

    def _started(self, sender: object, event: ConnectionStarted) -> None:
        parent = propagate.extract(event.environ, getter=_headers)
        name = event.handler_name
        span = self._tracer.start_span(
            f"WebSocket {name}", context=parent, kind=SpanKind.SERVER, attributes=_attributes(event)
        )
        self._spans[event.websocket] = span
        if self._callbacks:
            within = trace.set_span_in_context(span, parent)

            def around(callback: str, call: Callable[[], Any]) -> Any:
                attributes = {"code.function.name": f"{name}.{callback}"}
                with self._tracer.start_as_current_span(callback, within, attributes=attributes):
                    return call()

            event.wrap_callbacks(around)

    def _stopped(self, sender: object, event: ConnectionStopped) -> None:
        span = self._spans.pop(event.websocket, None)
        if span is None:
            return  # it was open before we were installed
        for direction, traffic in (("recv", event.recv), ("send", event.send)):
            for kind in KINDS:
                frames = getattr(traffic, kind)
                if frames.count:
                    span.set_attribute(f"websocket.{direction}.{kind}.count", frames.count)
                    span.set_attribute(f"websocket.{direction}.{kind}.bytes", frames.bytes)
        if event.code is not None:
            span.set_attribute("websocket.close.code", event.code)
        if event.peer_code is not None:
            span.set_attribute("websocket.peer.close.code", event.peer_code)
        _end(span, event.reason)


def _end(span: Span, reason: Reason) -> None:
    if isinstance(reason, str):
        span.set_attribute("websocket.reason", reason)
    else:
        detail = reason[1]
        span.set_attribute("websocket.reason", "error")
        span.set_attribute("error.type", detail if isinstance(detail, str) else type(detail).__qualname__)
        text = str(detail) if isinstance(detail, (str, BaseException)) else None  # else it may be anything of anybody's
        span.set_status(Status(StatusCode.ERROR, text))
    span.end()


def _attributes(event: ConnectionStarted) -> dict[str, str | int]:
    environ = event.environ
    found: dict[str, str | int] = {name: environ[key] for name, key in _ATTRIBUTES.items() if environ.get(key)}
    if "server.port" in found:
        found["server.port"] = int(found["server.port"])
    protocol = event.websocket.protocol
    return {
        **found,
        "network.protocol.name": "websocket",
        "url.scheme": "wss" if environ.get("wsgi.url_scheme") == "https" else "ws",
        "url.path": event.path,
        **({"websocket.subprotocol": protocol} if protocol is not None else {}),
    }


class _Headers(Getter[Any]):
    """Finds a request's headers in its environ."""

    def get(self, carrier: WSGIEnvironment, key: str) -> list[str] | None:
        value = carrier.get(f"HTTP_{key.upper().replace('-', '_')}")
        return None if value is None else [value]

    def keys(self, carrier: WSGIEnvironment) -> list[str]:
        return [name.removeprefix("HTTP_").replace("_", "-").lower() for name in carrier if name.startswith("HTTP_")]


_headers = _Headers()
