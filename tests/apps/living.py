"""Clients for operators to look at, and the live view, as ``LIVE`` in the environment says: ``app``, or ``nested`` in a
blueprint with a prefix. Over Redis, if ``REDIS_URL`` is given. ``/enter`` lets an operator in.

A client gets back what it sends, and is blocked by what begins with ``fill``, with so many messages in its mailbox,
until ``/release`` is asked for.
"""

from __future__ import annotations

import os
from typing import Any

from defaults import IDLE
from flask import Blueprint, Flask, redirect, request, session
from gevent.event import Event
from werkzeug import Response

from websock_gevent import WebSock, current, upgrade
from websock_gevent.contrib.live import live
from websock_gevent.flask import websocket
from websock_gevent.legacy import blocking
from websock_gevent.pubsub import PubSub

app = Flask(__name__)
app.secret_key = "for the tests"
released = Event()


def may_look() -> bool:
    """Whether this is an operator."""
    return session.get("role") == "operator"


pubsub = PubSub(os.environ["REDIS_URL"], prefix="live:", keep=10) if "REDIS_URL" in os.environ else None
if os.environ.get("LIVE") == "nested":
    admin = Blueprint("admin", __name__, url_prefix="/admin")
    live(admin, authorise=may_look, pubsub=pubsub, url_prefix="/connections")
    app.register_blueprint(admin)
else:
    live(app, authorise=may_look, pubsub=pubsub, most=8)


class Client(WebSock[None]):
    """Echoes."""

    def handle_in(self, message: Any, state: None) -> Any:
        if message.startswith("fill"):
            for number in range(int(message.split()[1])):
                current().send(number)
            released.wait()
        return "push", f"{os.getpid()} {message}", state


@blocking
def converse(websocket: Any) -> None:
    """Echoes, too."""
    for message in websocket:
        websocket.send(message)


@websocket(app, "/client/<path:name>")
def client(name: str) -> Response:
    return upgrade(request.environ, Client, None, max_mailbox=10, idle=IDLE)


@websocket(app, "/blocking")
def conversation() -> Response:
    return upgrade(request.environ, converse, None)


@app.get("/enter")
def enter() -> Any:
    session["role"] = "operator"
    return redirect("/admin/connections/" if os.environ.get("LIVE") == "nested" else "/live/")


@app.get("/release")
def release() -> str:
    released.set()
    return "released"
