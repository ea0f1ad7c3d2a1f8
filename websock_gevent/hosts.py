"""Who serves a request: a gunicorn worker, a pywsgi server, or just this process; and how its end is noticed.

Owns one `Drainer` for each of them, the warning that it is full, and what sets the drainer off, without configuration:

- a gunicorn worker, of whatever class, stops being ``alive`` on SIGTERM, on a reload, on ``max_requests`` and on
  SIGQUIT. It is found behind its own signal handlers, and asked ten times a second;
- a ``gevent.pywsgi.WSGIServer`` drains before it stops, whoever calls ``stop`` (``serve_forever`` does, on Ctrl-C);
- the interpreter's exit, for everything else: what is still open then is told to go at once.

Refuses to know connections and sockets.
"""

from __future__ import annotations

import atexit
import logging
import os
import resource
import signal
import threading
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary, WeakSet

import gevent
from gevent._hub_local import get_hub_if_exists
from gevent.baseserver import BaseServer
from gevent.pool import Group, PoolFull

from .drainer import Drainer, settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

__all__ = [
    "EXIT_GRACE",
    "SPARE_FILES",
    "drain",
    "drainer_of",
    "hand_place",
    "has_files",
    "has_place",
    "most_files",
    "prepare",
    "this_worker",
    "warn_if_full",
]

logger = logging.getLogger("websock_gevent")

#: Seconds between two looks at a gunicorn worker.
POLL = 0.1
#: Seconds for the goodbye at the interpreter's exit. gunicorn's master, asked twice to end, kills after two.
EXIT_GRACE = 1.5
#: Files that a worker has open besides its connections, at a guess: listeners, logs, pipes, a database.
SPARE_FILES = 64

_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGABRT)

_process = Drainer()
_drainers: WeakKeyDictionary[Any, Drainer] = WeakKeyDictionary()
#: The gevent servers that gunicorn's gevent workers keep to themselves.
_listeners: WeakSet[Any] = WeakSet()
#: Those who have been warned of.
_full: WeakSet[Any] = WeakSet()
#: The process whose exit is watched; a fork of it has none of its connections.
_exit_watched_in = 0


def drain(seconds: float | None = None, share: float | None = None) -> int:
    """End all connections of this process, as the end of its server does, and wait for it. There is no way back.

    New connections are refused with 503 from now on. Call it by hand where nothing else notices the end: behind a
    signal of your own, before a process leaves a load balancer.

    Args:
        seconds: The time there is; ``None`` for `DrainSettings` ``grace``.
        share: Part of it over which the close frames are spread; ``None`` for `DrainSettings` ``share``.

    Returns:
        How many connections had not ended when the time was over.

    Raises:
        ValueError: a negative or infinite number of seconds.
    """
    time = settings().grace if seconds is None else seconds
    if not 0 <= time < float("inf"):
        raise ValueError(f"drain takes a finite number of seconds from 0 up, not {seconds!r}")
    drainers = _everybody()
    others = [gevent.spawn(drainer.drain, time, share) for drainer in drainers]
    gevent.joinall(others)
    return sum(map(len, drainers))


def _everybody() -> tuple[Drainer, ...]:
    """The drainers of all servers of this process."""
    return (_process, *_drainers.values())


def drainer_of(start_response: StartResponse | None = None, found: Drainer | None = None) -> Drainer:
    """Return the drainer of whoever serves the request that the calling greenlet or thread is about.

    Args:
        start_response: If it is there already, a pywsgi server is found behind it in any greenlet.
        found: By an earlier look at the same request. Another one is needed only if that found nobody.
    """
    worker = this_worker()
    if found is None or found is _process:
        server = _server(start_response)
        if worker is not None and server is not None:
            _listeners.add(server)
        found = prepare(worker or server)
    if worker is not None and not worker.alive:
        found.draining = True  # what `_watch` is about to notice
    return found


def has_files() -> bool:
    """Whether the limit of open files leaves room for one more connection of this process, whoever serves it."""
    each = 3 if get_hub_if_exists() is None else 1  # a thread of its own will have a hub, with two files of its own
    count = sum(map(len, _everybody()))
    return count == 0 or (count + 1) * each <= most_files() - SPARE_FILES


@lru_cache(maxsize=1)
def most_files() -> float:
    """The limit of open files, as it was when this was first asked."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return float("inf") if limit == resource.RLIM_INFINITY else limit


def has_place() -> bool:
    """Whether a gevent server has made the calling greenlet for a request, and counts it, if it counts any."""
    server = _server(None)
    return server is not None and (server.pool is None or gevent.getcurrent() in server.pool)


def hand_place(other: gevent.Greenlet[..., Any]) -> None:
    """Have the server count, wait for and kill another greenlet, not begun yet, instead of the calling one.

    The caller `has_place`. Until it ends, its server waits for it, too, though there may be no other place for it.
    """
    pool, caller = _server(None).pool, cast("gevent.Greenlet[..., Any]", gevent.getcurrent())
    if pool is None:
        return
    try:
        pool.add(other, blocking=False)
    except PoolFull:
        Group.add(pool, other)  # whose end gives the caller's place back
        caller.unlink(pool._discard)
        caller.rawlink(partial(Group._discard, pool))  # type: ignore[attr-defined]


def warn_if_full(drainer: Drainer) -> None:
    """Tell the log, once, that the connection just added is the last one there is room for."""
    server = _server(None)
    if server is not None and server.pool is not None and server.pool.free_count():
        return
    worker = this_worker()
    host = worker or server
    limit = _limit_reached(worker, server, len(drainer))
    if limit and host not in _full:
        _full.add(host)
        logger.warning("no connection is accepted any more, not even a health check, until one ends: %s", limit)


def _limit_reached(worker: Any, server: Any, count: int) -> str:
    """Name the limit that so many open connections have used up; empty if there is room. A pool has none left."""
    if server is not None and server.pool is not None:
        name = "worker_connections" if worker is not None else "the server's pool"
        return f"{name} is {server.pool.size}"
    threads = getattr(worker, "tpool", None) and worker.cfg.threads
    return f"threads is {threads}" if threads and count >= threads else ""


def prepare(host: Any) -> Drainer:
    """Return the drainer of a gunicorn worker, a pywsgi server, or the process (``None``); have its end noticed."""
    _watch_exit()
    if host is None:
        return _process
    known = _drainers.get(host)
    if known is not None:
        return known
    made = Drainer()
    drainer = _drainers.setdefault(host, made)  # no lock: one that was made before the patching stops a whole worker
    if drainer is made:
        drainer.draining = _process.draining  # somebody has called `drain` already
        if isinstance(host, BaseServer):
            host.stop = _Stop(host.stop, host.close, drainer)  # type: ignore[method-assign]
        else:
            # A thread, since those of gthread run no hub between two connections; a greenlet in a patched process.
            threading.Thread(target=_watch, args=(host, drainer), name="websock_gevent", daemon=True).start()
    return drainer


def _watch_exit() -> None:
    global _exit_watched_in
    if not _exit_watched_in:
        atexit.register(_at_exit)
        os.register_at_fork(after_in_child=_in_a_fork)
        _exit_watched_in = os.getpid()


def this_worker() -> Any:
    """The gunicorn worker that this process is; ``None`` if it is none."""
    return _worker_of(os.getpid())


@lru_cache(maxsize=1)
def _worker_of(pid: int) -> Any:
    """Look for it behind its signal handlers, which it has set before its first request. One may have been replaced."""
    for number in _SIGNALS:
        worker = getattr(signal.getsignal(number), "__self__", None)
        if hasattr(worker, "alive") and hasattr(worker, "cfg"):
            return worker
    return None


def _watch(worker: Any, drainer: Drainer) -> None:
    while worker.alive:
        gevent.sleep(POLL)
    for server in tuple(_listeners):
        server.close()  # the worker would do so within a second; who connects meanwhile had better reach another one
    drainer.drain(_within(worker.cfg.graceful_timeout))


def _within(graceful_timeout: float) -> float:
    """The part of gunicorn's patience that is ours: the worker then needs up to two seconds to see that it may go."""
    return graceful_timeout - min(2.0, 0.4 * graceful_timeout)


def _server(start_response: StartResponse | None) -> Any:
    """The gevent server of a request: behind start_response, unless that is wrapped, or behind the greenlet it made."""
    handler = getattr(start_response, "__self__", None)
    methods = getattr(gevent.getcurrent(), "args", ())[:2]
    for found in (getattr(handler, "server", None), *(getattr(method, "__self__", None) for method in methods)):
        if isinstance(found, BaseServer):
            return found
    return None


class _Stop:
    """``stop`` of a pywsgi server: close the listener, drain, and then what it did before."""

    def __init__(self, stop: Callable[..., object], close: Callable[[], object], drainer: Drainer) -> None:
        self._stop = stop
        self._close = close
        self._drainer = drainer

    def __call__(self, timeout: float | None = None) -> None:
        self._close()
        self._drainer.drain(settings().grace if timeout is None else timeout)
        self._stop(timeout)


def _in_a_fork() -> None:
    for drainer in _everybody():
        drainer.abandon()


def _at_exit() -> None:
    """Say goodbye to what is still open."""
    is_open = any(map(len, _everybody()))
    if is_open and os.getpid() == _exit_watched_in:
        drain(EXIT_GRACE, share=0.0)
