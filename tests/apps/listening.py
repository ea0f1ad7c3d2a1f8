"""Connections that do with a PubSub what the client says, and show what they get.

The client sends a JSON list: the name of a method, its arguments, and a dict of keyword arguments. The answer is pushed
as ``["did", result]`` or ``["failed", class, text]``; what comes through ``handle_info``, as ``["got", ...]``. Settings
of the PubSub come from the environment variable ``PUBSUB``.
"""

from __future__ import annotations

import json
import os
from typing import Any

from flask import Flask, request
from werkzeug import Response

from websock_gevent import WebSock, current, upgrade
from websock_gevent.flask import websocket
from websock_gevent.pubsub import PubSub, PubSubError

app = Flask(__name__)
pubsub = PubSub(os.environ.get("REDIS_URL"), **json.loads(os.environ.get("PUBSUB", "{}")))


class Told(WebSock[None]):
    """Does what it is told."""

    def handle_in(self, message: Any, state: None) -> Any:
        name, arguments, keywords = json.loads(message)
        try:
            if name == "address":
                done: Any = current().address
            elif name == "pid":
                done = os.getpid()
            elif name == "held":
                backend: Any = pubsub._use()
                done = {"monitors": len(pubsub._monitors), "watched": len(backend._correspondence)}
            else:
                done = getattr(pubsub, name)(*arguments, **keywords)
        except (PubSubError, TypeError, ValueError) as error:
            return "push", json.dumps(["failed", type(error).__name__, str(error)]), state
        return "push", json.dumps(["did", done]), state

    def handle_info(self, message: Any, state: None) -> Any:
        return "push", json.dumps(["got", message]), state


@websocket(app, "/")
def told() -> Response:
    return upgrade(request.environ, Told, None, max_mailbox=100_000)


@app.get("/broadcast/<topic>/<text>")
def broadcast(topic: str, text: str) -> str:
    return str(pubsub.broadcast(topic, text))


@app.get("/alive")
def alive() -> str:
    return "yes"
