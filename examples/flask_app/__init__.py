"""A small chat: log in with a name, talk in one room.

Run it from the root of the repository, then open http://127.0.0.1:8000 in two browsers:

    gunicorn -k gevent 'examples.flask_app:create_app()'

That is one process. With Redis there may be many, on many hosts:

    export CHAT_REDIS_URL=redis://127.0.0.1:6379 CHAT_SECRET_KEY=...
    gunicorn -k gevent -w 4 'examples.flask_app:create_app()'
    python examples/flask_app/announce.py 'The server restarts at noon.'
"""

import os
import secrets

from flask import Flask

from websock_gevent.pubsub import PubSub

from .views import pages

__all__ = ["create_app"]


def create_app() -> Flask:
    """Build the application. Without Redis, each one has a room of its own."""
    app = Flask(__name__)
    app.config.update(
        # A fresh key logs everybody out at a restart, and each of several workers would have its own.
        SECRET_KEY=os.environ.get("CHAT_SECRET_KEY") or secrets.token_hex(32),
        SESSION_COOKIE_SAMESITE="Lax",
    )
    app.extensions["chat_pubsub"] = PubSub(os.environ.get("CHAT_REDIS_URL"))
    app.register_blueprint(pages)
    return app
