"""Serve an app by gevent.pywsgi: ``python run_pywsgi.py module:app``. Says where it listens as gunicorn does."""

from gevent import monkey

monkey.patch_all()

import importlib  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402

import gevent  # noqa: E402
from gevent.pool import Pool  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402


def main(name: str) -> None:
    """Serve until SIGTERM."""
    module, _, attribute = name.partition(":")
    app = getattr(importlib.import_module(module), attribute)
    server = WSGIServer(("127.0.0.1", 0), app, spawn=Pool(1000))
    gevent.signal_handler(signal.SIGTERM, server.stop)
    server.start()
    print(f"Listening at: http://127.0.0.1:{server.server_port}", file=sys.stderr, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])
