"""Echo on websock_gevent as a plain WSGI application on gevent.pywsgi.  All defaults but the limits."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from echo_handler import Echo
from gevent.pywsgi import WSGIServer

from websock_gevent import upgrade


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    return upgrade(environ, Echo, None, max_frame_size=2**25, max_message_size=2**25)(environ, start_response)


if __name__ == "__main__":
    WSGIServer(("127.0.0.1", int(sys.argv[1])), app, log=None).serve_forever()
