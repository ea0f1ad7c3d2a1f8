"""Callbacks that do not give way: who computes for half a second stops every other connection of the worker.

A function in the blocking style is such a callback, too. Owns the report. The watching is gevent's own
(``gevent.config.monitor_thread``): a thread that notices when a hub has not switched for a while. Refuses to know
anything that a connection would have to note for it: what runs is read off the stack of the thread that is stuck, so it
costs nothing until that happens.

Off by default, since gevent's watching costs, and is not for a library to switch on: a thread for each hub, and a trace
function at every switch of every greenlet of the process (see ``docs/telemetry.rst`` for what was measured).
"""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from pathlib import Path
from traceback import StackSummary
from types import FrameType
from typing import Any, cast

import gevent
from gevent import config, events
from gevent.hub import Hub

from . import accesslog
from .connection import Connection
from .signals import name_of

__all__ = ["report_hogs"]

logger = logging.getLogger("websock_gevent")

_OURS = str(Path(__file__).parent)
_CALLBACKS = ("init", "handle_in", "handle_control", "handle_info", "terminate")
#: Who has been reported, by the names of handler and callback.
_reported: set[str] = set()
#: Whether gevent's monitoring is on for our sake alone.
_alone = False


def report_hogs(seconds: float = 0.5) -> None:
    """Have callbacks reported in the log that do not give way for some time, each once, with its stack and its peer.

    Call it where the application is made. It starts gevent's monitoring thread, for this hub and those of other threads
    that start later, and keeps it through forks. gevent's own report is printed no more, unless its monitoring was on
    already: then it is still printed for whatever is no callback.

    Args:
        seconds: Of computing without a switch to another greenlet; noticed after once to twice that time.

    Raises:
        ValueError: no finite number of seconds above 0.
    """
    if not 0 < seconds < float("inf"):
        raise ValueError(f"report_hogs takes a finite number of seconds above 0, not {seconds!r}")
    global _alone
    _alone = _alone or not config.monitor_thread
    config.max_blocking_time = seconds
    config.monitor_thread = True
    if _on_event not in events.subscribers:
        events.subscribers.append(_on_event)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unable to monitor memory usage", RuntimeWarning)  # nobody has asked for it
        gevent.get_hub().start_periodic_monitoring_thread()


def _on_event(event: object) -> None:
    """Called by gevent in its monitoring thread, which does not survive what is raised here."""
    if not isinstance(event, events.EventLoopBlocked):
        return
    try:
        innermost = sys._current_frames().get(_thread_of(event.greenlet))
        found = _find(innermost) if innermost is not None else None
        if found is not None:
            _report(*found, event.blocking_time)
        if found is not None or _alone:
            cast("list[str]", event.info).clear()  # gevent prints what is left
    except Exception:
        logger.exception("a callback that does not give way could not be reported")


def _thread_of(stuck: Any) -> int:
    """The thread of a greenlet, which is the hub's that is its parent; 0 if it has none.

    That is a thread's main greenlet: it serves no connection, or a single one, which then holds up nobody else.
    """
    while not (stuck is None or isinstance(stuck, Hub)):
        stuck = stuck.parent
    number: int = stuck.thread_ident if stuck is not None else 0
    return number


def _find(innermost: FrameType) -> tuple[Connection, str, StackSummary] | None:
    """Find on a stack the innermost connection, the name of its callback that runs, and the stack of that."""
    name, reach = "", 0
    for depth, (frame, _) in enumerate(traceback.walk_stack(innermost), 1):
        code = frame.f_code
        if not code.co_filename.startswith(_OURS):
            if code.co_name in _CALLBACKS or name not in _CALLBACKS:  # else it is what wraps one
                name, reach = code.co_name, depth
        elif code.co_filename == accesslog.__file__:
            return None  # the server's log is no callback
        elif (connection := _connection_of(frame)) is not None:
            return (connection, name, traceback.extract_stack(innermost, reach)) if name else None
    return None


def _connection_of(frame: FrameType) -> Connection | None:
    """Whom a frame of ours works for."""
    for owner in (frame.f_locals.get("self"), frame.f_locals.get("connection")):
        if isinstance(owner, Connection):
            return owner
    return None


def _report(connection: Connection, name: str, stack: StackSummary, seconds: float) -> None:
    handler = name_of(connection.served)
    shown = handler if handler.rpartition(".")[2] == name else f"{handler}.{name}"  # a function is its own callback
    if shown in _reported:
        return
    _reported.add(shown)
    text = "%s: %s has not given way for %g s; every other connection of this worker waits for it%s"
    logger.warning(text, connection.websocket.peer, shown, seconds, ("\n" + "".join(stack.format())).rstrip())
