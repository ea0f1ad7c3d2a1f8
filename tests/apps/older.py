"""Applications in the blocking style, as they were written for others, beside a new one, in one Flask application."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import defaults
import gevent
from flask import Blueprint, Flask, Response, g, request, session
from idle import others

from websock_gevent import WebSock, upgrade
from websock_gevent.flask import websocket
from websock_gevent.legacy import Sock, Sockets, WebSocketMiddleware, blocking

__all__ = ["app", "bare", "defaults"]

app = Flask(__name__)
app.secret_key = "for the tests"
app.config["SOCK_SERVER_OPTIONS"] = {"ping_interval": 25, "max_message_size": 5000, "subprotocols": "old"}

sock, sockets = Sock(app), Sockets(app)


def note(text: str) -> None:
    """Leave a line in the log."""
    sys.stderr.write(f"{text}\n")  # in one piece: threads write, too


@app.before_request
def before() -> None:
    g.before = "before"


@app.teardown_request
def after(error: BaseException | None) -> None:
    if request.args.get("noted"):
        note(f"teardown {request.args['noted']}")


class Echo(WebSock[Any]):
    def handle_in(self, message: str | bytes, state: Any) -> Any:
        return "push", message, state


@websocket(app, "/callbacks")
def callbacks() -> Response:
    return upgrade(request.environ, Echo, None)


def echo(ws: Any) -> None:
    try:
        for message in ws:
            ws.send(message)
    finally:
        note(f"{ws.path} ended: {ws.reason}")


@websocket(app, "/blocking")
def view() -> Response:
    return upgrade(request.environ, blocking(echo), None)


@app.route("/middleware")
def older() -> str:
    """As it was written for gevent-websocket: an ordinary route."""
    ws = request.environ["wsgi.websocket"]
    if request.args.get("token") == "wrong":
        return Response("who are you?", 401, {"X-Seen": g.before})  # type: ignore[return-value]
    session["seen"] = True
    try:
        while not ws.closed:
            message = ws.receive()
            if message is not None:
                ws.send(message)
    finally:
        note(f"{ws.path} ended: {ws.reason}")
    return ""


@app.route("/raises")
def raises() -> str:
    ws = request.environ["wsgi.websocket"]
    ws.send(ws.receive())
    raise ValueError("oops")


@sock.route("/sock")
def sock_echo(ws: Any) -> None:
    try:
        while True:
            ws.send(ws.receive())
    finally:
        note(f"{request.path} ended: {ws.reason}")


@sock.route("/sock/<int:number>")
def with_variables(ws: Any, number: int) -> None:
    ws.send(f"{number} {request.args['q']} {g.before} {ws.subprotocol}")


@sock.route("/sock/raises")
def sock_raises(ws: Any) -> None:
    ws.send(ws.receive())
    raise ValueError("oops")


@sockets.route("/sockets")
def sockets_echo(ws: Any) -> None:
    try:
        while not ws.closed:
            message = ws.receive()
            ws.send(message)
    finally:
        note(f"{ws.path} ended: {ws.reason}")


blueprint = Blueprint("chat", __name__)


@blueprint.route("/<room>")
def chat(ws: Any, room: str) -> None:
    ws.send(room)


sockets.register_blueprint(blueprint, url_prefix="/rooms")


@app.route("/sockets")
def page() -> str:
    return "a page"


@app.get("/busy")
def busy() -> str:
    """Block the view with the socket open, in something that knows nothing of WebSockets."""
    ws = request.environ["wsgi.websocket"]
    ws.send("busy")
    try:
        gevent.sleep(1000)
    except gevent.GreenletExit:
        note("busy interrupted")
        raise
    return ""


@app.get("/idle")
def idle() -> tuple[str, int]:
    """Answer when no other connection is left; leave a mark in the log."""
    left = others()
    note(f"mark {request.args['mark']}")
    return f"{left} connections left", 500 if left else 200


app.wsgi_app = WebSocketMiddleware(app.wsgi_app)  # type: ignore[method-assign]


def bare(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    """No framework: a generator, which begins when the server asks for the first piece."""
    ws = environ.get("wsgi.websocket")
    if ws is None or environ["PATH_INFO"] == "/missing":
        start_response("404 Not Found", [("Content-Type", "text/plain"), ("X-Thread", str(threading.active_count()))])
        yield b"nothing "
        yield b"here"
        return
    for message in ws:
        ws.send(message)
    yield b"dropped"


bare_app = WebSocketMiddleware(bare)
