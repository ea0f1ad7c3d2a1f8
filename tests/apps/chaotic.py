"""Connections for the chaos test: each listens to one topic from where its client left off, and is present."""

from __future__ import annotations

import json
import os
from typing import Any

from flask import Flask, request
from werkzeug import Response

from websock_gevent import WebSock, current, upgrade
from websock_gevent.flask import websocket
from websock_gevent.pubsub import OLDEST, PubSub, PubSubError

app = Flask(__name__)
pubsub = PubSub(os.environ["REDIS_URL"], **json.loads(os.environ["PUBSUB"]))
AWAY = 1013, "PubSub is away"


class Subscriber(WebSock[dict[str, str]]):
    """Everything goes straight to the client."""

    def init(self, query: dict[str, str]) -> Any:
        current().push(json.dumps(["hello", os.getpid()]))
        try:
            pubsub.subscribe(query["topic"], push=True, ids=True, since=query.get("since", OLDEST))
            pubsub.track("people", query["name"], current().address)
        except PubSubError:
            return "stop", "normal", AWAY, query
        return "ok", query

    def handle_in(self, message: Any, query: dict[str, str]) -> Any:
        return "ok", query


@websocket(app, "/")
def subscriber() -> Response:
    return upgrade(request.environ, Subscriber, dict(request.args))
