"""websock_gevent's blocking style: `app` in Flask, and `legacy` for the application of gevent-websocket as it is."""

from __future__ import annotations

import gevent_websocket
from flask import Flask, request
from ours import OPTIONS
from werkzeug.wrappers import Response

from websock_gevent import upgrade
from websock_gevent.flask import websocket
from websock_gevent.legacy import BlockingWebSocket, WebSocketMiddleware, blocking

app = Flask(__name__)
legacy = WebSocketMiddleware(gevent_websocket.app, options=OPTIONS)


def echo(ws: BlockingWebSocket) -> None:
    for message in ws:
        ws.send(message)


@websocket(app, "/")
def serve() -> Response:
    return upgrade(request.environ, blocking(echo), None, options=OPTIONS)
