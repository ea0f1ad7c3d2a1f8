"""Say something in the chat from outside: from cron, a deployment, another program. No server, no Flask, no loop.

CHAT_REDIS_URL=redis://127.0.0.1:6379 python examples/flask_app/announce.py 'The server restarts at noon.'
"""

import os
import sys
import time
import uuid

from websock_gevent.pubsub import PubSub, PubSubError


def main(arguments: list[str]) -> int:
    """Publish one message, and return the exit status."""
    url = os.environ.get("CHAT_REDIS_URL")
    if not url or len(arguments) != 1:
        print("usage: CHAT_REDIS_URL=redis://… python announce.py TEXT", file=sys.stderr)
        return 2
    message = {"id": str(uuid.uuid4()), "author": "Announcement", "text": arguments[0], "at": time.time()}
    try:
        PubSub(url).broadcast("lobby", message)
    except PubSubError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
