"""Echo and fan-out on flask-sock, for gunicorn -k gevent."""

from __future__ import annotations

import time
from typing import Any

from flask import Flask
from flask_sock import Sock  # type: ignore[import-untyped,import-not-found,unused-ignore]

app = Flask(__name__)
app.config["SOCK_SERVER_OPTIONS"] = {"max_message_size": 2**25}
sock = Sock(app)
subscribers: set[Any] = set()


@sock.route("/")  # type: ignore[untyped-decorator,unused-ignore]
def echo(ws: Any) -> None:
    while True:
        ws.send(ws.receive())


@sock.route("/blocking")  # type: ignore[untyped-decorator,unused-ignore]
def blocking(ws: Any) -> None:
    while True:
        message = ws.receive()
        if message[16] == "!":
            time.sleep(0.01)  # gevent's
        ws.send(message)


@sock.route("/subscribe")  # type: ignore[untyped-decorator,unused-ignore]
def subscribe(ws: Any) -> None:
    subscribers.add(ws)
    ws.send("ready")
    try:
        ws.receive()
    finally:
        subscribers.discard(ws)


@sock.route("/publish")  # type: ignore[untyped-decorator,unused-ignore]
def publish(ws: Any) -> None:
    while True:
        message = ws.receive()
        for subscriber in tuple(subscribers):
            subscriber.send(message)
