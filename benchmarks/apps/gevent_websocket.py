"""Echo and fan-out on gevent-websocket: `app` for its gunicorn worker, run as a script for gevent.pywsgi."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterable  # noqa: E402
from typing import Any  # noqa: E402

from gevent.pywsgi import WSGIServer  # noqa: E402
from geventwebsocket.exceptions import WebSocketError  # type: ignore[import-untyped,unused-ignore]  # noqa: E402
from geventwebsocket.handler import WebSocketHandler  # type: ignore[import-untyped,unused-ignore]  # noqa: E402

subscribers: set[Any] = set()


def echo(websocket: Any) -> None:
    while (message := websocket.receive()) is not None:
        websocket.send(message)


def blocking(websocket: Any) -> None:
    while (message := websocket.receive()) is not None:
        if message[16] == "!":
            time.sleep(0.01)  # gevent's
        websocket.send(message)


def subscribe(websocket: Any) -> None:
    subscribers.add(websocket)
    websocket.send("ready")
    try:
        websocket.receive()
    finally:
        subscribers.discard(websocket)


def publish(websocket: Any) -> None:
    while (message := websocket.receive()) is not None:
        for subscriber in tuple(subscribers):
            subscriber.send(message)


HANDLERS = {"/blocking": blocking, "/subscribe": subscribe, "/publish": publish}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    try:
        HANDLERS.get(environ["PATH_INFO"], echo)(environ["wsgi.websocket"])
    except WebSocketError:
        pass
    return []


if __name__ == "__main__":
    address = ("127.0.0.1", int(sys.argv[1]))
    WSGIServer(address, app, handler_class=WebSocketHandler, log=None, backlog=2048).serve_forever()
