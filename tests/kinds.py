"""The servers that the library promises to work under: one row each in the table of ``docs/servers.rst``."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from proxies import behind_haproxy, behind_nginx
from serving import OLDEST_GUNICORN, Server, certificate, flask_run, gunicorn, pywsgi

__all__ = ["KINDS", "Kind"]

Starter = Callable[[Path, str], AbstractContextManager[Server]]
GEVENT_WEBSOCKET = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"


class Kind(NamedTuple):
    """A server, and in what it differs from the others.

    Attributes:
        name: As the table has it.
        starter: Serves an application, given as ``module:attribute``; gets a folder of its own.
        upgraded: gevent-websocket sends the 101 before the application is called, so it is neither refused nor changed.
        logs: What its access log has of a WebSocket: ``"duration"``, a ``"line"`` without it, or ``""``.
        ends_by: The signal that asks it to end in good order.
        reuses: It answers more than one request on a connection.
        proxied: Something stands between client and server, so the client cannot tell bytes, connections and log lines
            of the one from the other's.
    """

    name: str
    starter: Starter
    upgraded: bool = False
    logs: str = "duration"
    ends_by: int = signal.SIGTERM
    reuses: bool = True
    proxied: bool = False

    def start(self, folder: Path, app: str = "served:app") -> AbstractContextManager[Server]:
        """Start it."""
        return self.starter(folder, app)


def _tls(start: Callable[[str, str], AbstractContextManager[Server]]) -> Starter:
    @contextmanager
    def started(folder: Path, app: str) -> Iterator[Server]:
        made = certificate(folder)
        with start(app, str(made.path)) as server:
            server.tls = made.client
            yield server

    return started


KINDS = [
    Kind(f"gunicorn {OLDEST_GUNICORN} gevent", lambda _, app: gunicorn(app, version=OLDEST_GUNICORN)),
    Kind("gunicorn gevent", lambda _, app: gunicorn(app)),
    Kind("gunicorn gevent, TLS", _tls(lambda app, file: gunicorn(app, "--certfile", file, "--keyfile", file))),
    Kind("gunicorn gevent, unix socket", lambda folder, app: gunicorn(app, bind=f"unix:{folder}/socket")),
    Kind("gunicorn gevent behind nginx", behind_nginx, proxied=True),
    Kind("gunicorn gevent behind haproxy", behind_haproxy, proxied=True),
    Kind("gunicorn gevent_pywsgi", lambda _, app: gunicorn(app, worker="gevent_pywsgi")),
    Kind("gunicorn gthread", lambda _, app: gunicorn(app, "--threads", "20", worker="gthread")),
    Kind(
        f"gunicorn {OLDEST_GUNICORN} gthread",
        lambda _, app: gunicorn(app, "--threads", "20", worker="gthread", version=OLDEST_GUNICORN),
    ),
    Kind(
        "gunicorn gthread, TLS",
        _tls(lambda app, f: gunicorn(app, "--threads", "20", "--certfile", f, "--keyfile", f, worker="gthread")),
    ),
    Kind(
        "gunicorn GeventWebSocketWorker", lambda _, app: gunicorn(app, worker=GEVENT_WEBSOCKET), upgraded=True, logs=""
    ),
    Kind(
        "gunicorn GeventWebSocketWorker, views decide",
        lambda _, app: gunicorn("views_decide:app", worker=GEVENT_WEBSOCKET, env={"APP": app}),
        logs="",
    ),
    Kind("gevent.pywsgi", lambda _, app: pywsgi(app)),
    Kind("gevent.pywsgi, not patched", lambda _, app: pywsgi(app, "--unpatched")),
    Kind("gevent.pywsgi, TLS", _tls(lambda app, file: pywsgi(app, "--certificate", file))),
    Kind("gevent.pywsgi, unix socket", lambda folder, app: pywsgi(app, "--unix", f"{folder}/socket")),
    Kind(
        "gevent.pywsgi with WebSocketHandler",
        lambda _, app: pywsgi(app, "--gevent-websocket"),
        upgraded=True,
        logs="",
    ),
    Kind(
        "gevent.pywsgi with WebSocketHandler, views decide",
        lambda _, app: pywsgi(app, "--gevent-websocket", "--views-decide"),
        logs="",
    ),
    Kind("flask run", lambda _, app: flask_run(app), logs="line", reuses=False, ends_by=signal.SIGINT),
    Kind(
        "flask run, patched",
        lambda _, app: flask_run("patched:app", env={"APP": app}),
        logs="line",
        reuses=False,
        ends_by=signal.SIGINT,
    ),
    Kind(
        "flask run --debug",
        lambda _, app: flask_run(app, "--debug", "--exclude-patterns", "*"),
        logs="line",
        reuses=False,
        ends_by=signal.SIGINT,
    ),
]
