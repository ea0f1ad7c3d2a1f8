"""Serve an app by gevent.pywsgi: ``python run_pywsgi.py module:app``. Says where it listens as gunicorn does.

The library's own `serve` runs it, unless ``--plain`` asks for nothing but ``serve_forever``.
"""

import os
import sys

from gevent import monkey

if "--unpatched" not in sys.argv:
    monkey.patch_all()

import argparse  # noqa: E402
import importlib  # noqa: E402
from typing import Any  # noqa: E402

from gevent import socket  # noqa: E402
from gevent.pool import Pool  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("app")
    for flag in ("--unpatched", "--plain", "--gevent-websocket", "--views-decide"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--unix", metavar="PATH")
    parser.add_argument("--certificate", metavar="FILE")
    args = parser.parse_args()
    module, _, attribute = args.app.partition(":")
    app = getattr(importlib.import_module(module), attribute)
    more = {}
    if args.gevent_websocket:
        from geventwebsocket.handler import WebSocketHandler

        more["handler_class"] = WebSocketHandler
    if args.certificate:
        more |= {"certfile": args.certificate, "keyfile": args.certificate}
    server = WSGIServer(listener(args.unix), app, spawn=Pool(1000), **more)
    if args.views_decide:
        from websock_gevent.serve import let_views_decide

        let_views_decide(server)
    server.start()
    scheme = "https" if args.certificate else "http"
    where = f"unix:{args.unix}" if args.unix else f"{scheme}://127.0.0.1:{server.server_port}"
    print(f"Listening at: {where}", file=sys.stderr, flush=True)
    if args.plain:
        server.serve_forever()
    else:
        from websock_gevent.serve import serve

        serve(server)


def listener(path: str | None) -> Any:
    """An address, or a unix socket that listens."""
    if path is None:
        return "127.0.0.1", 0
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(1024)
    os.chmod(path, 0o666)
    return listening


if __name__ == "__main__":
    main()
