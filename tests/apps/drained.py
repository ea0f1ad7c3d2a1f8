"""The application ``served`` with settings for its end, taken from the environment variable ``DRAIN``."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

import gevent
from flask import request
from served import app
from werkzeug import Response

from websock_gevent import WebSock, configure_drain, drain, upgrade
from websock_gevent.flask import websocket

configure_drain(**json.loads(os.environ["DRAIN"]))


class Slow(WebSock[str]):
    """Takes its time, also for the end."""

    def handle_in(self, message: Any, key: str) -> Any:
        sys.stderr.write(f"working {key}\n")
        gevent.sleep(1.0)
        return "push", "done", key

    def terminate(self, reason: Any, key: str) -> None:
        gevent.sleep(1.0)
        sys.stderr.write(f"ended {key} {reason}\n")


@websocket(app, "/slow")
def slow() -> Response:
    return upgrade(request.environ, Slow, request.args["key"])


@websocket(app, "/ends-first")
def ends_first() -> Response:
    os.kill(os.getpid(), signal.SIGTERM)
    return upgrade(request.environ, Slow, "never")


@websocket(app, "/ends-meanwhile")
def ends_meanwhile() -> Response:
    response = upgrade(request.environ, Slow, "never")
    os.kill(os.getpid(), signal.SIGTERM)
    return response


@app.get("/drain")
def by_hand() -> str:
    return f"{drain(10)} left"
