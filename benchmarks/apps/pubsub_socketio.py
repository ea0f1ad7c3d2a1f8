"""Flask-SocketIO with its Redis message queue; every client gets what is emitted."""

from __future__ import annotations

import os

from gevent import monkey

monkey.patch_all()

from flask import Flask  # noqa: E402
from flask_socketio import SocketIO  # noqa: E402

app = Flask(__name__)
socketio = SocketIO(app, message_queue=os.environ["REDIS_URL"], async_mode="gevent", cors_allowed_origins="*")
