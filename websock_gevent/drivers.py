"""Who runs a connection: a greenlet for its whole life, its server's or its own, or one lent to it for each turn.

Owns the loop around `Connection.step`, and the greenlets. Refuses to know what a step does, and where the socket comes
from. Whatever a step raises, or is thrown into its greenlet, ends the connection and goes no further, but for a
``SystemExit``, and for a Ctrl-C, which is passed on to the main greenlet.

What is kept with a lent greenlet (`gevent.local`, a scoped database session) is gone when its turn is over, and no
other connection sees it: one is lent again only if nothing is kept with it, and nobody refers to it, weakly either.
(What is filed under its ``id`` is not protected, here or elsewhere: a new greenlet may have that of an old one.)
Context variables belong to the connection: what a callback sets is there at the next one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from sys import getrefcount
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, getweakrefcount, ref

import gevent
from gevent import Greenlet, GreenletExit
from greenlet import greenlet

from .connection import Connection, Phase
from .mailbox import enter, leave

__all__ = ["Lending", "Over", "Own", "give_up", "park", "run"]

logger = logging.getLogger("websock_gevent")

#: Greenlets of a hub that are kept for the next burst.
_MOST_IDLE = 100

#: Told of the end of a connection that its server does not know any more.
Over = Callable[[Connection], None]

_CLOSED = Phase.CLOSED
if TYPE_CHECKING:
    _Greenlet = Greenlet[[Connection, Over], None]
else:  # gevent's annotations have parameters, its class takes none
    _Greenlet = Greenlet

_pools: WeakKeyDictionary[Any, _Pool] = WeakKeyDictionary()


def run(connection: Connection) -> None:
    """Serve until the end, in the calling greenlet.

    Raises:
        SystemExit: the process is told to end; after ``terminate``.
    """
    token = enter(connection)
    waiter = connection.waiter
    waiter.belong()
    try:
        while True:
            more = connection.step()
            if connection.phase is _CLOSED:
                break
            if more:
                waiter.breathe()
            else:
                waiter.wait()
    except BaseException as error:
        connection.fail(error)
    finally:
        connection.finish()
        leave(token)


class Own(_Greenlet):
    """A greenlet of the connection's own, for its whole life. `start` it.

    It begins in the hub, with nothing beneath it. A server's greenlet has the whole request's calls there: so much more
    to be copied whenever it gives way, and memory that they have used and that is never used again.

    Args:
        over: Called when everything is over, before the socket is closed.
    """

    spawning_stack_limit = 0  # nobody looks at how it came to be

    def __init__(self, connection: Connection, over: Over) -> None:
        super().__init__(_live, connection, over)
        self.gr_context = copy_context()
        self.rawlink(partial(_end_unbegun, connection, over))


def _live(connection: Connection, over: Over) -> None:
    try:
        run(connection)
    finally:
        _close(connection, over)


def _close(connection: Connection, over: Over) -> None:
    """Close the socket, last of all: who sees it closed finds the place free and the line written."""
    try:
        over(connection)
    finally:
        connection.websocket.end()


def _end_unbegun(connection: Connection, over: Over, own: Own) -> None:
    """One that was killed before it had begun has run nothing."""
    if connection.phase < _CLOSED:
        gevent.spawn(_fail, connection, over, own.exception or GreenletExit())


def _fail(connection: Connection, over: Over, error: BaseException) -> None:
    try:
        connection.fail(error)
    finally:
        give_up(connection, over)


def park(connection: Connection, over: Over) -> None:
    """Serve in greenlets that are lent, one at a time, each as long as there is something to do. Returns at once.

    Args:
        over: Called when everything is over, before the socket is closed.
    """
    parked = _Parked(connection, over)
    connection.waiter.rest(parked)
    connection.waiter.wake()


def give_up(connection: Connection, over: Over) -> None:
    """Nothing is left to do, or nothing can be done: give everything back, the socket too."""
    connection.finish()
    _close(connection, over)


class Lending:
    """Greenlets for a connection that has none of its own, one at a time. Given to `Waiter.rest`.

    Args:
        connection: Whose `Connection.step` they run; the end finishes it.
    """

    __slots__ = ("_connection", "_context", "_pool")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._context = copy_context()
        self._context.run(enter, connection)
        self._pool = _pool()
        self._pool.users += 1

    def __del__(self) -> None:
        """However the connection has ended, and whoever ended it."""
        self._pool.leave()

    def lend(self, error: BaseException | None) -> None:
        """Work in a greenlet from the pool. Called in the hub, and back there as soon as that blocks or is done."""
        lent = self._pool.take()
        lent.gr_context = self._context
        lent.switch(self, error)

    def work(self, error: BaseException | None) -> None:
        """Do what there is to do, in a lent greenlet."""
        connection = self._connection
        connection.waiter.belong()
        try:
            if error is not None:
                raise error
            while connection.step() and connection.phase < _CLOSED:
                connection.waiter.breathe()
            if connection.phase < _CLOSED:
                connection.waiter.rest(self)
                return
        except BaseException as raised:
            self._fail(raised)
        else:
            self._end()

    def _fail(self, error: BaseException) -> None:
        try:
            self._connection.fail(error)
        finally:
            self._end()

    def _end(self) -> None:
        self._connection.finish()


class _Parked(Lending):
    """A connection that nobody else has: its socket is closed at the end."""

    __slots__ = ("_over",)

    def __init__(self, connection: Connection, over: Over) -> None:
        super().__init__(connection)
        self._over = over

    def _end(self) -> None:
        give_up(self._connection, self._over)


class _Pool:
    """The greenlets of one hub that are lent. Making one costs as much as a whole message, so they are used again.

    Attributes:
        users: Connections that may be lent one. None of them outlives the last connection: it would keep the hub.
    """

    def __init__(self, hub: Any) -> None:
        self._hub = ref(hub)
        self._idle: list[Any] = []
        self.users = 0

    def leave(self) -> None:
        """One connection less."""
        self.users -= 1
        if not self.users:
            self._idle.clear()

    def take(self) -> Any:
        """Return a greenlet that nobody else knows, and that knows nothing: an idle one or a new one."""
        while self._idle:
            lent = self._idle.pop()
            if getrefcount(lent) == _UNSHARED and not (lent.dead or lent.__dict__ or getweakrefcount(lent)):
                return lent
        lent = greenlet(self._serve, self._hub())
        lent.switch()  # as far as where it waits: what a greenlet is started with, it keeps as long as it lives
        return lent

    def _serve(self) -> None:
        """Be lent to one connection after the other. Whatever is thrown in while it is idle ends it: `take` looks."""
        hub = gevent.get_hub()
        while True:
            try:
                lending, error = hub.switch()
            except GreenletExit:
                return
            except BaseException as thrown:  # such as a Timeout that was left running
                logger.warning("%r came too late: the callback that it was for has returned", thrown)
                return
            lending.work(error)
            del lending, error
            if not self.users or len(self._idle) == _MOST_IDLE:
                return
            if gevent.getcurrent().__dict__:  # where `gevent.local` keeps what it has
                return  # and lets go of it with the greenlet
            gevent.getcurrent().gr_context = None
            self._idle.append(gevent.getcurrent())


def _pool() -> _Pool:
    """The pool of the calling thread's hub."""
    hub = gevent.get_hub()
    found = _pools.get(hub)
    if found is None:
        found = _pools[hub] = _Pool(hub)
    return found


def _count_references() -> int:
    """Of what one local variable alone refers to; versions of Python differ."""
    lent = greenlet(_count_references)
    return getrefcount(lent)


_UNSHARED = _count_references()
