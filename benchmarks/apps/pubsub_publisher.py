"""Publish one message for each line on stdin, from outside of the servers.

usage: pubsub_publisher.py KIND URL BYTES

An empty line is for everybody; another one names a topic, room or group that nobody listens to.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

kind, url, size = sys.argv[1:]
padding = "x" * (int(size) - 40)


def make() -> Callable[[str, Any], object]:
    if kind == "ours":
        from websock_gevent.pubsub import PubSub

        pubsub = PubSub(url)
        return lambda topic, message: pubsub.broadcast(topic or "bench", message)
    if kind == "socketio":
        from flask_socketio import SocketIO

        socketio = SocketIO(message_queue=url)
        return lambda topic, message: socketio.emit("m", message, to=topic or None)
    import os

    os.environ["REDIS_URL"] = url
    import pubsub_channels  # noqa: F401
    from asgiref.sync import async_to_sync
    from channels.layers import get_channel_layer

    send = async_to_sync(get_channel_layer().group_send)
    return lambda topic, message: send(topic or "bench", {"type": "bench", "text": json.dumps(message)})


publish = make()
for line in sys.stdin:
    publish(line.strip(), {"t": time.monotonic_ns(), "x": padding})
