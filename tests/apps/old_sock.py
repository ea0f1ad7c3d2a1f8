"""What flask-sock's applications do, with simple-websocket's ``ConnectionClosed`` and options."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Flask, abort, request
from simple_websocket import ConnectionClosed

from websock_gevent.legacy import Sock

app = Flask(__name__)
app.config["SOCK_SERVER_OPTIONS"] = {"ping_interval": 25, "max_message_size": 1000, "subprotocols": ["v2", "v1"]}
sock = Sock()
ended: list[Any] = []


@sock.route("/echo")
def echo(ws: Any) -> None:
    while True:
        data = ws.receive()
        if data == "close":
            break
        ws.send(data)


@sock.route("/caught")
def caught(ws: Any) -> None:
    """Tells how it ended, as an application does that must clean up."""
    try:
        while ws.connected:
            message = ws.receive(timeout=0.01)
            if message is not None:
                ws.send(f"{type(message).__name__} {ws.subprotocol}")
    except ConnectionClosed as end:
        ended.append([end.reason, end.message])
        raise


@sock.route("/closing")
def closing(ws: Any) -> None:
    ws.close(4001, "later")
    try:
        ws.send("too late")
    except ConnectionClosed:
        ended.append("closed")


@sock.route("/secret")
def secret(ws: Any) -> None:
    raise AssertionError("nobody comes here")


@app.before_request
def guard() -> None:
    if request.path == "/secret":
        abort(403, "not for you")


@app.get("/ended")
def left() -> list[Any]:
    return ended


more = Blueprint("more", __name__)


@sock.route("/<name>", bp=more)
def named(ws: Any, name: str) -> None:
    ws.send(name)


sock.init_app(app)
app.register_blueprint(more, url_prefix="/more")
