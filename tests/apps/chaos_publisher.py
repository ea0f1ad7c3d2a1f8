"""Publish numbered messages on some topics until stdin ends, then say where each topic ended.

usage: chaos_publisher.py URL NAME RATE TOPIC...
"""

from __future__ import annotations

import json
import sys
import threading
import time

from websock_gevent.pubsub import PubSub

url, name, rate, *topics = sys.argv[1:]
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
pubsub = PubSub(url, timeout=1.0, buffer=100_000)
numbers = dict.fromkeys(topics, 0)
began, count = time.monotonic(), 0
while not ended.wait(max(0.0, began + count / float(rate) - time.monotonic())):
    topic = topics[count % len(topics)]
    count += 1
    numbers[topic] += 1
    pubsub.broadcast(topic, {"by": name, "number": numbers[topic]})
assert pubsub.flush(120), "the buffer could not be sent"
print(json.dumps({"ended": name, "numbers": numbers}), flush=True)
