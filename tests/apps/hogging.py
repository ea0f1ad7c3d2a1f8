"""Handlers that compute without giving way, reported after a tenth of a second."""

from __future__ import annotations

import functools
import logging
import os
from time import monotonic
from typing import Any

import gevent
from flask import Flask, request

from websock_gevent import WebSock, upgrade
from websock_gevent.flask import websocket
from websock_gevent.hogs import report_hogs
from websock_gevent.legacy import blocking
from websock_gevent.signals import connection_stopped

app = Flask(__name__)
report_hogs(0.1)


class Reports(logging.Handler):
    """Counts what is reported."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "has not given way" in record.getMessage()


reports = Reports()
logging.basicConfig(format="%(message)s")
logging.getLogger("websock_gevent").addHandler(reports)


def compute(again: bool = False) -> None:
    """Until it is reported, or, once it was, so long that it might be again."""
    before, until = reports.count, monotonic() + (0.5 if again else 10)
    while monotonic() < until and reports.count == before:
        pass


class Hog(WebSock[Any]):
    """Does what the client says."""

    def handle_in(self, message: Any, state: Any) -> Any:
        if message == "sleep well":
            gevent.sleep(0.4)
        else:
            compute(again=message == "compute again")
        return "push", f"{message} done", state


class Watched(Hog):
    """One that signals are told of."""


def logged(callback: Any) -> Any:
    """A decorator, as applications have them."""

    @functools.wraps(callback)
    def wrapper(*args: Any) -> Any:
        return callback(*args)

    return wrapper


class Wrapped(Hog):
    """One whose callbacks are decorated."""

    handle_in = logged(Hog.handle_in)


@connection_stopped.connect_via(Watched)
def note(sender: Any, event: Any) -> None:
    """Somebody listens."""


@blocking
def function(ws: Any) -> None:
    """One in the blocking style."""
    ws.receive()
    compute()
    ws.send("compute done")


@websocket(app, "/function")
def blocks() -> Any:
    return upgrade(request.environ, function, None)


for handler in (Hog, Watched, Wrapped):
    websocket(app, f"/{handler.__name__.lower()}", endpoint=handler.__name__)(
        lambda handler=handler: upgrade(request.environ, handler, None, idle=os.environ["IDLE"])  # type: ignore[arg-type]
    )
