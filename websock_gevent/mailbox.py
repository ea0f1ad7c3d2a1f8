"""Elixir's process, as far as a WebSocket needs one: a mailbox that feeds ``handle_info``, timers, monitors, `current`.

Owns who may put something in, how much may wait, and who is told of a connection's end. Refuses to know sockets and frames
on the wire: it asks its owner, the connection, to wake up or to write. A ``gevent.queue`` holds the messages; since
only the owner takes from it, and never blocks on it, putting is safe from any thread, and the wake-up is ours (gevent's own
would not reach a hub in another thread).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, Token
from queue import Empty
from typing import Any, Protocol

from gevent.queue import SimpleQueue

from .websock import Messages, Reason, encode
from .websocket import WebSocket

__all__ = ["Mailbox", "Owner", "Timer", "current", "enter", "leave"]


class Owner(Protocol):
    """What a mailbox asks of its connection. Each method may be called from any thread."""

    @property
    def mailbox(self) -> Mailbox:
        """Its mailbox, made when first asked for."""

    @property
    def websocket(self) -> WebSocket:
        """Its WebSocket."""

    def wake(self) -> None:
        """Look into the mailbox soon."""

    def push(self, frames: list[bytes]) -> bool:
        """Write these frames; ``False`` if they came too late or were too many."""

    def overflow(self) -> None:
        """End: more was put in than may wait."""

    def call_soon(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in the hub."""

    def start_timer(self, seconds: float, function: Callable[[], object]) -> Any:
        """Start a timer of the hub and return its watcher."""


_owner: ContextVar[Owner] = ContextVar("websock_gevent.owner")


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


def enter(owner: Owner) -> Token[Owner]:
    """Make a connection the one that `current` finds in this greenlet."""
    return _owner.set(owner)


def leave(token: Token[Owner]) -> None:
    """Take `enter` back."""
    _owner.reset(token)


class Mailbox:
    """Puts messages into one connection. Get it with `current`; hand it to whoever has something to say.

    Args:
        owner: The connection.
        limit: Messages that may wait (``max_mailbox``); one more ends the connection with 1008.
    """

    __slots__ = ("__weakref__", "_limit", "_monitors", "_owner", "_queue", "_reason", "_shut", "_timers", "_watched")

    def __init__(self, owner: Owner, limit: int) -> None:
        self._owner: Owner | None = owner
        self._limit = limit
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._shut = False
        self._reason: Reason | None = None
        self._monitors: list[Mailbox] = []
        self._watched: list[Mailbox] = []
        self._timers: set[Timer] = set()

    def __repr__(self) -> str:
        owner = self._owner
        return f"<Mailbox of {owner.websocket!r}>" if owner else f"<Mailbox, ended: {self._reason!r}>"

    @property
    def closed(self) -> bool:
        """``True`` once the connection has sent its close frame or has ended: nothing is accepted any more."""
        return self._shut

    @property
    def websocket(self) -> WebSocket:
        """The connection's WebSocket: ``environ``, ``protocol`` (the subprotocol), ``close_code``, ``close_text``.

        Raises:
            RuntimeError: the connection has ended (inside ``terminate`` it has not).
        """
        if self._owner is None:
            raise RuntimeError(f"this connection has ended: {self._reason!r}")
        return self._owner.websocket

    def send(self, message: object) -> bool:
        """Put a message in; ``handle_info`` gets it. From any greenlet and any OS thread; never blocks.

        Messages of one sender arrive in their order.

        Returns:
            ``False`` if the connection has ended, or ends because too many messages are waiting.
        """
        owner = self._owner
        if self._shut or owner is None:
            return False
        if len(self._queue) >= self._limit:
            owner.overflow()
            return False
        self._queue.put_nowait(message)
        owner.wake()
        return True

    def push(self, messages: Messages) -> bool:
        """Send messages to the client, past ``handle_info``; also while a callback blocks. From anywhere, as `send`.

        Pushes of one sender arrive in their order and never inside another message. Messages are encoded here; whoever
        pushes the same object to many mailboxes in a row has it encoded once, and all connections share the frame.

        Returns:
            ``False`` if the connection has ended, or ends because its client does not read and too many are waiting.

        Raises:
            TypeError, ValueError: not something that can be sent; see `WebSock`.
        """
        frames = _shared(messages)
        owner = self._owner
        return not self._shut and owner is not None and owner.push(frames)

    def send_after(self, seconds: float, message: object) -> Timer:
        """Put a message in later. The timer dies with the connection; from any greenlet and any OS thread.

        Raises:
            ValueError: a negative number of seconds.
        """
        if not seconds >= 0:
            raise ValueError(f"send_after takes a number of seconds from 0 up, not {seconds!r}")
        return Timer(self, self._owner, seconds, message)

    def monitor(self, other: Mailbox) -> None:
        """Have ``("down", other, reason)`` put in here when the other connection ends; at once if it has ended already."""
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
        self._owner = None
        for other in self._watched:
            with suppress(ValueError):
                other._monitors.remove(self)
        self._watched.clear()
        self._tell_monitors(reason)

    def _tell_monitors(self, reason: Reason) -> None:
        # Whoever pops an entry tells it, so that an end in one thread and `monitor` in another tell it once.
        while True:
            try:
                other = self._monitors.pop(0)
            except IndexError:
                return
            with suppress(ValueError):
                other._watched.remove(self)
            other.send(("down", self, reason))


class Timer:
    """A message on its way into a mailbox; made by `Mailbox.send_after`."""

    __slots__ = ("_done", "_mailbox", "_message", "_owner", "_watcher")

    def __init__(self, mailbox: Mailbox, owner: Owner | None, seconds: float, message: object) -> None:
        self._mailbox = mailbox
        self._message = message
        self._owner = owner
        self._watcher: Any = None
        self._done = owner is None
        if owner is not None:
            owner.call_soon(self._start, seconds)

    def _start(self, seconds: float) -> None:
        if not self._done and self._owner is not None and not self._mailbox.closed:
            self._mailbox._timers.add(self)
            self._watcher = self._owner.start_timer(seconds, self._fire)

    def _fire(self) -> None:
        message = self._message
        self.stop()
        self._mailbox.send(message)

    def cancel(self) -> bool:
        """Keep the message from being put in; from any greenlet and any OS thread.

        Returns:
            ``False`` if it is too late: it has been put in, or was cancelled before.
        """
        if self._done:
            return False
        self._done = True
        if self._owner is not None:
            self._owner.call_soon(self.stop)
        return True

    def stop(self) -> None:
        """Give the watcher back. For the owner, in the hub's thread; everybody else calls `cancel`."""
        self._done = True
        self._message = None
        self._mailbox._timers.discard(self)
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None


#: The last messages pushed and their frames: a broadcast pushes the same object again and again.
_last_push: tuple[object, list[bytes]] = (None, [])


def _shared(messages: Messages) -> list[bytes]:
    """Encode messages, unless they are the very object that was encoded last and cannot have changed since."""
    global _last_push
    last, frames = _last_push
    if messages is last:
        return frames
    frames = encode(messages)
    if isinstance(messages, (str, bytes)):
        _last_push = messages, frames
    return frames
