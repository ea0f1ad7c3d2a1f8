"""Echo on gevent-websocket: `app` for its gunicorn worker, run as a script for gevent.pywsgi."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from gevent.pywsgi import WSGIServer
from geventwebsocket.exceptions import WebSocketError  # type: ignore[import-untyped,unused-ignore]
from geventwebsocket.handler import WebSocketHandler  # type: ignore[import-untyped,unused-ignore]


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    websocket = environ["wsgi.websocket"]
    try:
        while (message := websocket.receive()) is not None:
            websocket.send(message)
    except WebSocketError:
        pass
    return []


if __name__ == "__main__":
    WSGIServer(("127.0.0.1", int(sys.argv[1])), app, handler_class=WebSocketHandler, log=None).serve_forever()
