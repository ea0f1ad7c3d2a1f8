"""How to wait and how to work in the background, in whatever kind of process this is.

In one that is monkey-patched, whoever blocks gives way, and a background thread is a greenlet. In one that is not but
has a hub (``flask run``, a bare ``gevent.pywsgi``), a thread of the hub's pool waits in the place of the greenlet. In
one without a hub (Celery, a script), a thread simply waits. Knows nothing of what is waited for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

import gevent
from gevent import getcurrent, monkey
from gevent._hub_local import get_hub_if_exists

from ..locks import new_lock

__all__ = ["Signal", "aside", "background"]

T = TypeVar("T")

_start_thread: Callable[..., object] = monkey.get_original("_thread", "start_new_thread")


class Signal:
    """As `threading.Event`, but in a patched process, too, the greenlets of several threads may wait for it at once."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._is_set = False
        self._waiting: list[threading.Event] = []

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Wake all who wait; who comes later does not wait."""
        with self._lock:
            self._is_set = True
            waiting, self._waiting = self._waiting, []
        for event in waiting:
            event.set()

    def clear(self) -> None:
        """Let wait who comes later."""
        self._is_set = False

    def wait(self, seconds: float) -> bool:
        """Wait until it is set. Return ``False`` if it is not within so many seconds."""
        event = threading.Event()  # each one's own: gevent's belong to the thread that waits for them first
        with self._lock:
            if self._is_set:
                return True
            self._waiting.append(event)
        try:
            return event.wait(seconds)
        finally:
            with self._lock:
                if event in self._waiting:
                    self._waiting.remove(event)


def aside(function: Callable[..., T], *args: Any) -> T:
    """Call something that blocks, without holding up the hub of this thread, if there is one.

    Raises:
        RuntimeError: this is the hub itself (a callback of a timer, say), which cannot wait for anything.
    """
    hub = get_hub_if_exists()
    if hub is None:
        return function(*args)
    if getcurrent() is hub:
        raise RuntimeError("this would block the hub: call it in a greenlet, or use PubSub(url, buffer=...) to publish")
    if monkey.is_module_patched("socket"):
        return function(*args)
    result, error = hub.threadpool.apply(_outcome, (function, args))
    if error is not None:
        raise error
    return cast(T, result)


def _outcome(function: Callable[..., T], args: tuple[Any, ...]) -> tuple[T | None, BaseException | None]:
    """Return what came of a call: gevent writes the traceback of what is raised in its pool to stderr."""
    try:
        return function(*args), None
    except BaseException as error:
        return None, error


def background(function: Callable[[], object], name: str) -> object:
    """Run something beside everything else. The end of the process does not wait for it."""
    if not monkey.is_module_patched("threading"):
        thread = threading.Thread(target=function, name=name, daemon=True)
        thread.start()
        return thread
    if gevent.get_hub().main_hub:
        return gevent.spawn(function)  # as a patched Thread, but a copy of it in a forked child may end without a fuss
    return _start_thread(_with_hub, (function,))  # a greenlet would end with this thread, which may be one of a pool


def _with_hub(function: Callable[[], object]) -> None:
    """Call something in a new thread of a patched process, where it may wait for what only other threads do."""
    hub = gevent.get_hub()
    reason_to_wait = hub.loop.async_()  # else gevent says that nothing could ever happen
    reason_to_wait.start(int)
    try:
        function()
    finally:
        reason_to_wait.close()
        hub.destroy(destroy_loop=True)
