"""Elixir's process, as far as a WebSocket needs one: a mailbox that feeds ``handle_info``, timers, monitors, `current`.

Owns who may put something in, how much may wait, and who is told of a connection's end. Refuses to know sockets and
frames on the wire: it asks its owner, the connection, to wake up or to write. A ``gevent.queue`` holds the messages;
since only the owner takes from it, and never blocks on it, putting is safe from any thread, and the wake-up is ours
(gevent's own would not reach a hub in another thread).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar, Token
from queue import Empty
from typing import Any, Protocol, TypeVar

from gevent.queue import Queue, SimpleQueue

from . import addresses
from .deflate import Deflater
from .waiter import Waiter
from .websock import Messages, Reason, encode
from .websocket import WebSocket

__all__ = ["Mailbox", "Timer", "current", "enter", "leave"]

logger = logging.getLogger("websock_gevent")

T = TypeVar("T")
#: gevent's small one. Up to 24.11 that is called Queue, and SimpleQueue is the standard library's, without a length.
_Queue: Any = SimpleQueue if issubclass(Queue, SimpleQueue) else Queue


class HasMailbox(Protocol):
    """A connection, as far as `current` needs to know it."""

    @property
    def mailbox(self) -> Mailbox:
        """Its mailbox, made when first asked for."""


_owner: ContextVar[HasMailbox] = ContextVar("websock_gevent.owner")


def current() -> Mailbox:
    """Return the mailbox of the connection whose callback is running: Elixir's ``self()``.

    Raises:
        RuntimeError: the caller is not inside a callback of a WebSock.
    """
    try:
        return _owner.get().mailbox
    except LookupError:
        raise RuntimeError(
            "current() has no connection here: call it inside a callback (init, handle_in, ...) and hand the mailbox "
            "to the greenlets and threads that need it"
        ) from None


def enter(owner: HasMailbox) -> Token[HasMailbox]:
    """Make a connection the one that `current` finds in this greenlet."""
    return _owner.set(owner)


def leave(token: Token[HasMailbox]) -> None:
    """Take `enter` back."""
    _owner.reset(token)


class Mailbox:
    """Puts messages into one connection. Get it with `current`; hand it to whoever has something to say.

    Args:
        websocket: The connection's.
        waiter: Wakes the connection, writes for it and keeps its timers.
        limit: Messages that may wait (``max_mailbox``).
        overflow: Called when one more comes; ends the connection with 1008.
    """

    __slots__ = (
        "__weakref__",
        "_address",
        "_at_end",
        "_limit",
        "_monitors",
        "_overflow",
        "_queue",
        "_reason",
        "_shut",
        "_timers",
        "_waiter",
        "_watched",
        "_websocket",
    )

    def __init__(self, websocket: WebSocket, waiter: Waiter, limit: int, overflow: Callable[[], None]) -> None:
        self._websocket: WebSocket | None = websocket
        self._waiter: Waiter | None = waiter
        self._limit = limit
        self._overflow = overflow
        self._queue: Any = _Queue()
        self._shut = False
        self._reason: Reason | None = None
        self._monitors: list[Mailbox] = []
        self._watched: list[Mailbox] = []
        self._timers: set[Timer] = set()
        self._address: str | None = None
        self._at_end: list[Callable[[Mailbox, Reason], object]] = []

    def __repr__(self) -> str:
        return f"<Mailbox, ended: {self._reason!r}>" if self._websocket is None else f"<Mailbox of {self._websocket!r}>"

    @property
    def closed(self) -> bool:
        """``True`` once the connection has sent its close frame or has ended: nothing is accepted any more."""
        return self._shut

    @property
    def websocket(self) -> WebSocket:
        """The connection's WebSocket, with ``environ``, ``protocol`` (the subprotocol), ``close_code``, ``close_text``.

        Raises:
            RuntimeError: the connection has ended (inside ``terminate`` it has not).
        """
        if self._websocket is None:
            raise RuntimeError(f"this connection has ended: {self._reason!r}")
        return self._websocket

    @property
    def address(self) -> str:
        """A name for this connection in the whole cluster, for ``PubSub.send`` and ``monitor``: ASCII without blanks.

        Made when first asked for, in a callback or while the connection is open. A PubSub that reaches other processes
        begins to listen for messages to this one then, which may take it as long as its ``timeout``.
        """
        if self._address is None:
            self._address = addresses.name(self)
            if self._reason is not None:
                addresses.forget(self._address)
        return self._address

    def send(self, message: object) -> bool:
        """Put a message in; ``handle_info`` gets it. From any greenlet and any OS thread; never blocks.

        Messages of one sender arrive in their order.

        Returns:
            ``False`` if the connection has ended, or ends because too many messages are waiting.
        """
        waiter = self._waiter
        if self._shut or waiter is None:
            return False
        if len(self._queue) >= self._limit:
            self._overflow()
            return False
        self._queue.put_nowait(message)
        waiter.wake()
        return True

    def push(self, messages: Messages) -> bool:
        """Send messages to the client, past ``handle_info``; also while a callback blocks. From anywhere, as `send`.

        Pushes of one sender arrive in their order and never inside another message. Messages are encoded here; whoever
        pushes the same object to many mailboxes in a row has it encoded once, and all connections share the frame; also
        compressed, where no context is taken over. From another OS thread, a message for a connection with a context of
        its own goes uncompressed.

        Returns:
            ``False`` if the connection has ended, or ends because its client does not read and too many are waiting.

        Raises:
            TypeError, ValueError: not something that can be sent; see `WebSock`.
        """
        waiter, websocket = self._waiter, self._websocket
        if self._shut or waiter is None or websocket is None:
            encode(messages)  # what cannot be sent is an error all the same
            return False
        deflater = websocket.deflater
        if deflater is not None and deflater.shared is None and not waiter.is_mine():
            deflater = None  # its context is for the connection's own thread; a message may always go as it is
        frames = _encoded(messages, deflater)
        if not waiter.push(frames, self._limit):
            self._overflow()
            return False
        return True

    def send_after(self, seconds: float, message: object) -> Timer:
        """Put a message in later. The timer dies with the connection; from any greenlet and any OS thread.

        Raises:
            ValueError: a negative or infinite number of seconds.
        """
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"send_after takes a finite number of seconds from 0 up, not {seconds!r}")
        return Timer(self, self._waiter, seconds, message)

    def monitor(self, other: Mailbox) -> None:
        """Have ``("down", other, reason)`` put in here when the other connection ends; at once if it has ended."""
        self._watched.append(other)
        other._monitors.append(self)
        if other._reason is not None:
            other._tell_monitors(other._reason)

    def demonitor(self, other: Mailbox) -> None:
        """Take one `monitor` back. Does nothing if there is none; a message that waits already is delivered."""
        with suppress(ValueError):
            self._watched.remove(other)
        with suppress(ValueError):
            other._monitors.remove(self)

    def at_end(self, function: Callable[[Mailbox, Reason], object]) -> None:
        """Have a function called when the connection has ended, behind ``terminate``; at once if it has ended.

        It is called in whichever greenlet ends the connection, and must not block. What it raises is logged.
        """
        self._at_end.append(function)
        if self._reason is not None:
            self._tell_the_end(self._reason)

    # For the owner.

    def __len__(self) -> int:
        return len(self._queue)

    def __bool__(self) -> bool:
        return True

    def take(self) -> Any:
        """Take the oldest message out.

        Raises:
            queue.Empty: there is none.
        """
        return self._queue.get_nowait()

    def shut(self) -> None:
        """Accept nothing any more, and drop what waits: no callback will run for it."""
        self._shut = True
        for timer in tuple(self._timers):
            timer.stop()
        with suppress(Empty):
            while True:
                self._queue.get_nowait()

    def end(self, reason: Reason) -> None:
        """The connection is over: tell those who monitor it."""
        self._reason = reason
        self._websocket = self._waiter = None  # a mailbox that is kept must not keep the connection and its state
        self._overflow = _nothing
        for other in self._watched:
            with suppress(ValueError):
                other._monitors.remove(self)
        self._watched.clear()
        if self._address is not None:
            addresses.forget(self._address)
        self._tell_monitors(reason)
        self._tell_the_end(reason)

    def _tell_the_end(self, reason: Reason) -> None:
        for function in _taken_out(self._at_end):
            try:
                function(self, reason)
            except Exception:
                logger.exception("a function given to at_end raised")

    def _tell_monitors(self, reason: Reason) -> None:
        for other in _taken_out(self._monitors):
            with suppress(ValueError):
                other._watched.remove(self)
            other.send(("down", self, reason))


def _taken_out(entries: list[T]) -> Iterator[T]:
    """Take entries out, the oldest first. Who is told so is told once, by an end in one thread or a call in another."""
    with suppress(IndexError):
        while True:
            entry = entries.pop(0)
            yield entry


def _nothing() -> None:
    """A mailbox without a connection cannot overflow."""


class Timer:
    """A message on its way into a mailbox; made by `Mailbox.send_after`."""

    __slots__ = ("_mailbox", "_message", "_waiter", "_watcher")

    def __init__(self, mailbox: Mailbox, waiter: Waiter | None, seconds: float, message: object) -> None:
        self._mailbox = mailbox
        self._message = [message]  # whoever takes it out, to put it in or to cancel, is the only one who does
        self._waiter = waiter
        self._watcher: Any = None
        if waiter is None or mailbox.closed:
            self._message.clear()
        else:
            waiter.call_soon(self._start, seconds)

    def _start(self, seconds: float) -> None:
        if self._message and self._waiter is not None and not self._mailbox.closed:
            self._mailbox._timers.add(self)
            self._watcher = self._waiter.start_timer(seconds, self._fire)

    def _fire(self) -> None:
        try:
            message = self._message.pop()
        except IndexError:
            return  # cancelled, perhaps by another thread; it is about to be stopped
        self.stop()
        self._mailbox.send(message)

    def cancel(self) -> bool:
        """Keep the message from being put in; from any greenlet and any OS thread.

        Returns:
            ``False`` if it is too late: it has been put in, or was cancelled before.
        """
        try:
            self._message.pop()
        except IndexError:
            return False
        if self._waiter is not None:
            self._waiter.call_soon(self.stop)
        return True

    def stop(self) -> None:
        """Give the watcher back. For the owner, in the hub's thread; everybody else calls `cancel`."""
        self._message.clear()
        self._mailbox._timers.discard(self)
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None


#: The last message pushed and its frames, by how they are compressed: a broadcast pushes the same object many times.
_last_push: tuple[str | bytes, dict[object, list[bytes]]] = ("", {})


def _encoded(messages: Messages, deflater: Deflater | None) -> list[bytes]:
    """Encode messages, unless they are the very object that was encoded last and cannot have changed since."""
    global _last_push
    if deflater is not None and deflater.shared is None:
        return encode(messages, deflater)
    last, frames = _last_push
    if messages is not last:
        if not isinstance(messages, (str, bytes)):
            return encode(messages, deflater)
        _last_push = last, frames = messages, {}
    way = deflater.shared if deflater is not None else None
    found = frames.get(way)
    if found is None:
        found = frames[way] = encode(messages, deflater)
    elif deflater is not None:
        deflater.reuse(last, found)
    return found
