"""websock_gevent in a Flask application, for gunicorn -k gevent."""

from __future__ import annotations

from typing import Any

from flask import Flask, request
from ours import answer
from werkzeug.wrappers import Response

from websock_gevent.flask import websocket

app = Flask(__name__)


@websocket(app, "/")
@websocket(app, "/<name>")
@websocket(app, "/queue/<int:count>")
@websocket(app, "/topics/<int:count>")
def serve(**_: Any) -> Response:
    return answer(request.environ)
