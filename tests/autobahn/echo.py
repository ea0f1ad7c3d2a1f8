"""The application the Autobahn Testsuite is run against: `app`, for gunicorn -k gevent.

TEST_IDLE=parked parks, TEST_STYLE=blocking has a function instead of callbacks.
"""

from __future__ import annotations

import os

from flask import Flask, request
from werkzeug.wrappers import Response

from websock_gevent import Options, Result, WebSock, upgrade
from websock_gevent.flask import websocket
from websock_gevent.legacy import BlockingWebSocket, blocking

# Section 9 sends 16 MiB in one message. The suite counts frames and takes its time: no ping, no idle timeout.
OPTIONS = Options(timeout=None, ping_interval=None, max_frame_size=2**25, max_message_size=2**25, compress=True).updated(
    {"idle": os.environ.get("TEST_IDLE", "greenlet")}
)

app = Flask(__name__)


class Echo(WebSock[None]):
    def handle_in(self, message: str | bytes, state: None) -> Result[None]:
        return "push", message, state


def converse(ws: BlockingWebSocket) -> None:
    for message in ws:
        ws.send(message)


HANDLER = blocking(converse) if os.environ.get("TEST_STYLE") == "blocking" else Echo


@websocket(app, "/")
def echo() -> Response:
    return upgrade(request.environ, HANDLER, None, options=OPTIONS)
