"""Echo on flask-sock, for gunicorn -k gevent."""

from __future__ import annotations

from typing import Any

from flask import Flask
from flask_sock import Sock  # type: ignore[import-untyped,import-not-found,unused-ignore]

app = Flask(__name__)
app.config["SOCK_SERVER_OPTIONS"] = {"max_message_size": 2**25}
sock = Sock(app)


@sock.route("/")  # type: ignore[untyped-decorator,unused-ignore]
def echo(ws: Any) -> None:
    while True:
        ws.send(ws.receive())
