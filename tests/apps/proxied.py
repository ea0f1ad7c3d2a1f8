"""The application ``served`` as it runs behind a proxy: with other pings, and wrapped in Werkzeug's ProxyFix."""

from __future__ import annotations

from typing import Any

from flask import request
from served import Echo, Scripted, flask
from werkzeug import Response
from werkzeug.middleware.proxy_fix import ProxyFix

from websock_gevent import upgrade
from websock_gevent.flask import websocket


class Greeting(Echo):
    """Has much to say before it is asked. Its state is how many bytes."""

    def init(self, sizes: list[int]) -> Any:
        return "push", [bytes([size % 251]) * size for size in sizes], sizes


@websocket(flask, "/greeting")
def greeting() -> Response:
    return upgrade(request.environ, Greeting, request.args.getlist("size", type=int))


@websocket(flask, "/pinging")
def pinging() -> Response:
    """Ping every so many seconds; never, if nothing is said of it."""
    return upgrade(request.environ, Scripted, request.args["key"], ping_interval=request.args.get("every", type=float))


app = flask
fixed = ProxyFix(flask, x_for=1, x_proto=1, x_host=1)
