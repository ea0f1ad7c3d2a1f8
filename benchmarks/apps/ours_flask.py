"""Echo on websock_gevent in a Flask application, for gunicorn -k gevent.  All defaults but the limits."""

from __future__ import annotations

from echo_handler import Echo
from flask import Flask, request
from werkzeug.wrappers import Response

from websock_gevent import upgrade
from websock_gevent.flask import websocket

app = Flask(__name__)


@websocket(app, "/")
def echo() -> Response:
    return upgrade(request.environ, Echo, None, max_frame_size=2**25, max_message_size=2**25)
