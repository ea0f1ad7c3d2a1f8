"""What gevent-websocket's applications do, as they do it: a chat, a plot, WAMP and Flask in one ``Resource``.

gevent-websocket's own examples are not in its archive on PyPI; these use the same parts of it.
"""

from __future__ import annotations

import json
import string
from collections import OrderedDict
from typing import Any

import gevent
from flask import Flask
from geventwebsocket import Resource, WebSocketApplication
from geventwebsocket.protocols.wamp import WampProtocol, export_rpc

from websock_gevent.legacy import WebSocketMiddleware

string.letters = string.ascii_letters  # type: ignore[attr-defined]  # wamp.py was written for Python 2

flask = Flask(__name__)
ended: list[Any] = []


class Chat(WebSocketApplication):  # type: ignore[misc]
    """Names, words and who is there, as JSON, to everybody."""

    def on_open(self) -> None:
        self.ws.handler.active_client.name = "somebody"
        self.tell("came")

    def on_message(self, message: str | None) -> None:
        if message is None:
            return
        said = json.loads(message)
        if said["type"] == "name":
            self.ws.handler.active_client.name = said["name"]
            self.tell("named")
        else:
            self.tell("said", words=said["words"])

    def on_close(self, reason: Any) -> None:
        ended.append([self.ws.handler.active_client.name, reason, self.ws.close_code])
        self.tell("left")

    def tell(self, what: str, **more: Any) -> None:
        clients = self.ws.handler.server.clients.values()
        told = {"what": what, "who": self.ws.handler.active_client.name, **more}
        told["all"] = sorted(client.name for client in clients)
        for client in clients:
            if not client.ws.closed:
                client.ws.send(json.dumps(told))


class Plot(WebSocketApplication):  # type: ignore[misc]
    """Sends for as long as anybody is there, and never receives."""

    def on_open(self) -> None:
        try:
            for number in range(100_000):
                self.ws.send(f"0 {number}\n")
                gevent.sleep(0.001)
        finally:
            ended.append(["plot", self.ws.closed])


class Calculator(WebSocketApplication):  # type: ignore[misc]
    """Calls and topics over WAMP."""

    protocol_class = WampProtocol

    def on_open(self) -> None:
        self.protocol.register_object("http://localhost/calc#", self)
        self.protocol.register_pubsub("http://localhost/news")

    @export_rpc  # type: ignore[untyped-decorator]
    def add(self, one: int, other: int) -> int:
        return one + other


@flask.get("/")
def page() -> str:
    return "a page"


@flask.get("/ended")
def left() -> list[Any]:
    return ended


resource = Resource(
    OrderedDict([("^/chat", Chat), ("^/plot", Plot), ("^/wamp", Calculator), ("^/.*", flask.wsgi_app)])  # in order
)
app = WebSocketMiddleware(resource)
run = Flask(__name__)  # what ``flask run`` takes
run.wsgi_app = app  # type: ignore[method-assign]
