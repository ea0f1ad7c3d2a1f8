"""Wait until this process serves nobody else, whatever serves it."""

from __future__ import annotations

import gc
import signal
import threading
from time import monotonic
from typing import Any

import gevent
from gevent.baseserver import BaseServer

LIMIT = 20.0


def others() -> int:
    """Wait until no other connection is left; return how many were left when the time was over."""
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if hasattr(worker, "nr_conns"):
        return _threads_of_gunicorn(worker)
    pools = [thing.pool for thing in gc.get_objects() if issubclass(type(thing), BaseServer)]
    return _greenlets(pools) if pools else _threads_of_werkzeug()


def _greenlets(pools: list[Any]) -> int:
    waiting = [one for pool in pools for one in pool if one is not gevent.getcurrent()]
    gevent.joinall(waiting, timeout=LIMIT)
    return sum(not one.ready() for one in waiting)


def _threads_of_gunicorn(worker: Any) -> int:
    deadline, pause = monotonic() + LIMIT, threading.Event()
    while worker.nr_conns > 1 and monotonic() < deadline:  # nobody tells of the end of a thread's request
        pause.wait(0.005)
    return int(worker.nr_conns) - 1


def _threads_of_werkzeug() -> int:
    waiting = [one for one in threading.enumerate() if "process_request" in one.name]
    waiting = [one for one in waiting if one is not threading.current_thread()]
    for one in waiting:
        one.join(LIMIT)
    return sum(one.is_alive() for one in waiting)
