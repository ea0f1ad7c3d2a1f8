"""A chat as Flask-Sockets' applications are written: one greenlet sends to all, the views only keep their WebSockets.

Beside it, what such applications make of Flask: hooks, converters, blueprints, refusals.
"""

from __future__ import annotations

from typing import Any

import gevent
from flask import Blueprint, Flask, abort, request, session
from gevent.queue import Queue

from websock_gevent.legacy import Sockets

app = Flask(__name__)
app.secret_key = "for the tests"
sockets = Sockets(app)


class Backend:
    """Who listens, and what is to be sent to them."""

    def __init__(self) -> None:
        self.clients: list[Any] = []
        self.news: Queue[str] = Queue()

    def send(self, client: Any, words: str) -> None:
        try:
            client.send(words)
        except Exception:
            self.clients.remove(client)

    def run(self) -> None:
        for words in self.news:
            for client in self.clients:
                gevent.spawn(self.send, client, words)


backend = Backend()
greenlets: list[Any] = []


@app.before_request
def start() -> None:
    """The greenlet that sends belongs to a worker, not to the module that it was forked with."""
    if not greenlets:
        greenlets.append(gevent.spawn(backend.run))
    if request.path == "/members" and "user" not in session:
        abort(401, "log in first")


@sockets.route("/submit")
def inbox(ws: Any) -> None:
    while not ws.closed:
        gevent.sleep(0.1)
        message = ws.receive()
        if message:
            backend.news.put(message)


@sockets.route("/receive")
def outbox(ws: Any) -> None:
    backend.clients.append(ws)
    ws.send("registered")
    while not ws.closed:
        gevent.sleep(0.1)
    backend.news.put(f"{len(backend.clients)} clients, one has left")


@sockets.route("/rooms/<int:number>")
def room(ws: Any, number: int) -> None:
    ws.send(f"room {number}, {request.args.get('name')}, {session.get('user')}")


@sockets.route("/members")
def members(ws: Any) -> None:
    ws.send(session["user"])


@app.get("/login")
def login() -> str:
    session["user"] = "ann"
    return "welcome"


more = Blueprint("more", __name__)


@more.route("/echo")
def echo(ws: Any) -> None:
    while not ws.closed:
        ws.send(ws.receive())


sockets.register_blueprint(more, url_prefix="/more")
