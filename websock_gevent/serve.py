"""Two helpers for ``gevent.pywsgi``: serve with signals handled, and have views decide where gevent-websocket's handler
is in use. A leaf: nothing of the library imports it.

Neither is needed for WebSockets to work there. Without `serve`, SIGTERM ends a pywsgi process on the spot, as it always
has; ``server.stop()`` and Ctrl-C drain all the same.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent
from gevent.pywsgi import WSGIServer

from .drainer import settings
from .hosts import EXIT_GRACE, prepare

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["let_views_decide", "serve"]


def serve(server: WSGIServer, grace: float | None = None) -> None:
    """Serve until a signal says to end, and drain then: 1012 to every WebSocket, each ``terminate`` to its end. ::

        serve(WSGIServer(("", 8000), app))

    SIGTERM takes its time; SIGINT (Ctrl-C) and SIGQUIT make haste, also behind a SIGTERM.

    Args:
        server: Started or not; call this in the main thread.
        grace: Seconds for the goodbye on SIGTERM; ``None`` for `DrainSettings` ``grace``.
    """
    prepare(server)
    time = settings().grace if grace is None else grace
    handlers = [
        gevent.signal_handler(number, server.stop, seconds)
        for number, seconds in ((signal.SIGTERM, time), (signal.SIGINT, EXIT_GRACE), (signal.SIGQUIT, EXIT_GRACE))
    ]
    try:
        server.serve_forever()
    finally:
        for handler in handlers:
            handler.cancel()


def let_views_decide(
    server: WSGIServer | type[WSGIServer] = WSGIServer, owned: Callable[[WSGIEnvironment], bool] | None = None
) -> None:
    """Take the decision about an upgrade from gevent-websocket's handler and give it to the view.

    That handler, and its gunicorn worker, send the 101 before the application is called: a view can neither refuse nor
    set a cookie, and no subprotocol is agreed on. With this, such requests reach the application as they came, and
    `upgrade` does the rest. Legacy views that look for ``environ["wsgi.websocket"]`` need the handler's way.

    Args:
        server: The server, or the class of all servers in this process (as under gunicorn's worker).
        owned: Tells whether a request, given as its environ, is for a view that calls `upgrade`; ``None``: all are.
    """

    def hook(handler: Any) -> bool:
        return owned is None or owned(handler.environ)

    if isinstance(server, type):
        # A property without effect when set: gevent-websocket's own server sets the attribute of each of its instances.
        server.pre_start_hook = property(lambda _: hook, lambda _, __: None)  # type: ignore[attr-defined]
    else:
        server.pre_start_hook = hook  # type: ignore[attr-defined]
