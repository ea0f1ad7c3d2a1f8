"""Every connection listens to one topic; messages go through ``handle_info``."""

from __future__ import annotations

import json
from typing import Any

from flask import request
from pubsub_ours import Listener, app, pubsub
from werkzeug import Response

from websock_gevent import upgrade
from websock_gevent.flask import websocket


class Informed(Listener):
    def init(self, state: None) -> Any:
        pubsub.subscribe("bench")
        return "push", "ready", state

    def handle_info(self, message: Any, state: None) -> Any:
        return "push", json.dumps(message), state


@websocket(app, "/info")
def informed() -> Response:
    return upgrade(request.environ, Informed, None, timeout=None)
