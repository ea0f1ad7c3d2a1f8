"""Every connection listens to one topic; messages go straight to the client."""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, request
from werkzeug import Response

from websock_gevent import WebSock, upgrade
from websock_gevent.flask import websocket
from websock_gevent.pubsub import PubSub

app = Flask(__name__)
pubsub = PubSub(os.environ["REDIS_URL"])


class Listener(WebSock[None]):
    def init(self, state: None) -> Any:
        pubsub.subscribe("bench", push=True)
        return "push", "ready", state

    def handle_in(self, message: Any, state: None) -> Any:
        return "ok", state


@websocket(app, "/")
def listener() -> Response:
    return upgrade(request.environ, Listener, None, timeout=None)
