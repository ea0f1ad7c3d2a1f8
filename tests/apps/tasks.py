"""A Celery application whose tasks publish. Its PubSub is made before Celery forks, as applications do."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from websock_gevent.pubsub import PubSub

app = Celery("tasks", broker=os.environ["REDIS_URL"])
app.conf.broker_connection_retry_on_startup = True
pubsub = PubSub(os.environ["REDIS_URL"])
pubsub.broadcast("lobby", "from the parent")


@app.task
def announce(topic: str, message: Any) -> None:
    pubsub.broadcast(topic, {"said": message, "by": os.getpid()})


@app.task
def tell(address: str, message: Any) -> None:
    assert pubsub.send(address, message)
