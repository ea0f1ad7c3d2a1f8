"""Telemetry: what happens to connections, told to whoever listens. The signals are blinker's, as Flask's are.

Owns the signals, what each carries, and the rule that a receiver cannot do harm: what it raises is logged, and changes
nothing. Refuses to know how anything is counted (``metering``, ``watched``). Names follow Bandit's telemetry, where it
has any. A receiver is called with the sender and one frozen object::

    @connection_stopped.connect
    def note(handler, event):
        print(event.path, event.duration, event.recv.text.count)

``connection_started`` carries `ConnectionStarted`, sent by the handler, as given to ``upgrade``
    when the 101 has left, before ``init``, in the connection's greenlet

``connection_stopped`` carries `ConnectionStopped`, sent by the same
    once for each that was started, when nothing is left to do, in the connection's greenlet

``upgrade_refused`` carries `UpgradeRefused`, sent by the same, or by the Flask application if no view was asked
    where the library refuses a request, in that one's greenlet

``drain_started`` carries `DrainStarted`, sent by the drainer, one for each server of a process
    before the first goodbye, in the greenlet that says it, which waits for the receiver

``drain_finished`` carries `DrainFinished`, sent by the same
    when all connections have ended, or were cut off

``pubsub_gap`` carries `PubsubGap`, sent by the topic's name
    once in a process that has missed something; over Redis in the thread that listens: must not block

Receivers of the first two may block, as callbacks may: only their own connection waits. Whether a connection has any is
asked once, when it is opened; one that has none pays nothing. Receivers are held weakly, unless connected with
``weak=False``: a function of a module lives on, a lambda does not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from blinker import Namespace, Signal

from .kills import KILLS
from .websock import Reason
from .websocket import WebSocket, peer_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from werkzeug.exceptions import HTTPException

__all__ = [
    "Around",
    "ConnectionStarted",
    "ConnectionStopped",
    "DrainFinished",
    "DrainStarted",
    "Frames",
    "KINDS",
    "PubsubGap",
    "SoFar",
    "Traffic",
    "UpgradeRefused",
    "connection_started",
    "connection_stopped",
    "drain_finished",
    "drain_started",
    "is_watched",
    "name_of",
    "pubsub_gap",
    "send",
    "tell_refused",
    "upgrade_refused",
]

logger = logging.getLogger("websock_gevent")

_signals = Namespace()
connection_started = _signals.signal("connection-started", "A connection is open; see `ConnectionStarted`.")
connection_stopped = _signals.signal("connection-stopped", "A connection is over; see `ConnectionStopped`.")
upgrade_refused = _signals.signal("upgrade-refused", "A request does not become a WebSocket; see `UpgradeRefused`.")
drain_started = _signals.signal("drain-started", "A server ends its connections; see `DrainStarted`.")
drain_finished = _signals.signal("drain-finished", "A server has ended its connections; see `DrainFinished`.")
pubsub_gap = _signals.signal("pubsub-gap", "Messages of a topic may be missing here; see `PubsubGap`.")

#: Runs a callback: called with its name and a function without arguments, whose result it must return.
Around = Callable[[str, Callable[[], Any]], Any]


@dataclass(frozen=True)
class Frames:
    """The frames of one kind that went one way, each frame on the wire counted once, when it was complete.

    Attributes:
        count: How many.
        bytes: Of payload, as it is on the wire: compressed, if the message was; a close frame's with its code.
        wire_bytes: Of whole frames: header, mask and payload.
    """

    count: int = 0
    bytes: int = 0
    wire_bytes: int = 0


@dataclass(frozen=True)
class Traffic:
    """What went one way.

    Received frames count when they are taken from the stream, up to the peer's close frame: not those behind one that
    breaks the protocol, nor that one itself unless its payload is what is wrong; not those that lay unread at a cut.
    Sent frames count when the kernel has taken their last byte, whoever made them: also pings, pongs and pushes.

    Attributes:
        text, binary: Frames that begin a message.
        continuation: Frames that go on with one.
        ping, pong, close: Control frames.
        compressed_bytes: Payload of compressed messages, as compressed; of the sent ones, as it was handed to the
            connection, which may have been lost before it was sent.
        inflated_bytes: The same messages' payload when not compressed.
    """

    text: Frames = Frames()
    binary: Frames = Frames()
    continuation: Frames = Frames()
    ping: Frames = Frames()
    pong: Frames = Frames()
    close: Frames = Frames()
    compressed_bytes: int = 0
    inflated_bytes: int = 0


#: The kinds of frames, by their names in `Traffic`.
KINDS = ("text", "binary", "continuation", "ping", "pong", "close")


class SoFar(NamedTuple):
    """What an open connection has done so far, and what waits in it. Cheap, so that thousands can be asked each second.

    Attributes:
        received: Messages that have begun to come, and were taken from the stream.
        received_bytes: Of whole frames, control frames included.
        sent: Messages, as far as the kernel has taken them.
        sent_bytes: As for what was received.
        waiting: Messages in the mailbox.
        limit: How many may wait there (``max_mailbox``).
        unsent: Bytes that the kernel has not taken, since the peer does not read.
    """

    received: int = 0
    received_bytes: int = 0
    sent: int = 0
    sent_bytes: int = 0
    waiting: int = 0
    limit: int = 0
    unsent: int = 0


@dataclass(frozen=True)
class _ConnectionEvent:
    """What both signals of a connection say.

    Attributes:
        handler: As given to ``upgrade``, a class or an object; the function, if that was made by ``blocking``.
        websocket: The connection's; also what both signals are known by to belong together.
    """

    handler: Any
    websocket: WebSocket

    @property
    def handler_name(self) -> str:
        """The handler's module and class, or the module that it is."""
        return name_of(self.handler)

    @property
    def environ(self) -> WSGIEnvironment:
        """The request's; without the objects that its server put there, if the connection is parked."""
        return self.websocket.environ

    @property
    def path(self) -> str:
        """The request's path, without the query."""
        return path_of(self.environ)


@dataclass(frozen=True)
class ConnectionStarted(_ConnectionEvent):
    """A connection is open: its 101 has left, and ``init``, or the function of the blocking style, is called next."""

    #: Filled by `wrap_callbacks`.
    arounds: list[Around] = field(default_factory=list, repr=False, compare=False)
    #: Tells what the connection has done so far: at any time until its end, from any greenlet and any thread.
    so_far: Callable[[], SoFar] = field(default=SoFar, repr=False, compare=False)

    def wrap_callbacks(self, around: Around) -> None:
        """Have a function run every callback of this connection, ``init`` and ``terminate`` too.

        It is called in the connection's greenlet as ``around(name, call)``, and must return what ``call()`` returns;
        what that raises must go on. What it raises by itself ends the connection with 1011, as if the callback had. Of
        several, the one given last is the outermost. In the blocking style there are no callbacks.
        """
        self.arounds.append(around)


@dataclass(frozen=True)
class ConnectionStopped(_ConnectionEvent):
    """A connection is over: its handshakes, too, and its ``terminate``.

    Attributes:
        duration: Seconds since ``connection_started``.
        reason: What ``terminate`` got, or would have got if ``init`` had returned.
        code: The close code that was sent; ``None`` if no close frame left.
        recv: What was received.
        send: What was sent, behind the 101.
        longest: Seconds that the longest callback took, whatever it waited for; 0 in the blocking style.
        longest_callback: Its name; empty if none was called, as in the blocking style.
        deepest: Messages that waited in the mailbox at once, at the most.
    """

    duration: float
    reason: Reason
    code: int | None
    recv: Traffic
    send: Traffic
    longest: float
    longest_callback: str
    deepest: int

    @property
    def peer_code(self) -> int | None:
        """The peer's close code; ``None`` if its close frame had none, or did not come."""
        return self.websocket.close_code

    @property
    def peer_text(self) -> str:
        """The peer's close text; empty if there was none. The peer made it up."""
        return self.websocket.close_text


@dataclass(frozen=True)
class UpgradeRefused:
    """A request was refused by the library; what the view itself refuses is not told.

    Attributes:
        status: Of the answer: 400, 403, 426, 501 or 503.
        reason: The text of the answer, which may quote the request.
        path: The request's, without the query.
    """

    status: int
    reason: str
    path: str


@dataclass(frozen=True)
class DrainStarted:
    """The connections of one server are ended.

    Attributes:
        connections: How many were open.
        seconds: The time there is for it.
    """

    connections: int
    seconds: float


@dataclass(frozen=True)
class DrainFinished:
    """The connections of one server have ended.

    Attributes:
        connections: How many were open when it began.
        seconds: The time it took.
        cut: How many were cut off because the time was over.
    """

    connections: int
    seconds: float
    cut: int


@dataclass(frozen=True)
class PubsubGap:
    """Subscribers of a topic were told that messages may be missing; ``handle_info`` gets ``("gap", topic)``.

    Attributes:
        topic: Its name.
        subscribers: How many were told, in this process.
    """

    topic: str
    subscribers: int


def is_watched(handler: object) -> bool:
    """Tell whether anybody listens to connections of this handler."""
    return connection_started.has_receivers_for(handler) or connection_stopped.has_receivers_for(handler)


def send(signal: Signal, sender: Any, event: object) -> None:
    """Tell all receivers. What one of them raises is logged, and the others are told all the same."""
    if signal.is_muted:
        return
    for receiver in signal.receivers_for(sender):
        try:
            receiver(sender, event=event)
        except KILLS:
            raise
        except BaseException:  # gevent.Timeout is one
            logger.exception("a receiver of %s raised", signal.name)  # type: ignore[attr-defined]


def name_of(handler: object) -> str:
    """Name a handler for a human being: its class or function with its module, or the module that it is."""
    if isinstance(handler, ModuleType):
        return handler.__name__
    named: Any = handler if hasattr(handler, "__qualname__") else type(handler)
    return f"{named.__module__}.{named.__qualname__}"


def path_of(environ: WSGIEnvironment) -> str:
    """The request's path, without the query."""
    return f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"


def tell_refused(sender: object, environ: WSGIEnvironment, refusal: HTTPException, *, ours: bool) -> None:
    """Tell receivers of a refused request, and the log if it is ``ours`` to repair: the answer is shown by no browser.

    A client's fault is not logged: any stranger can make one.
    """
    status, reason = refusal.code or 500, str(refusal.description)
    if ours:
        shown = reason if reason.isprintable() else repr(reason)
        logger.warning("%s: refused with %d: %s", peer_of(environ), status, shown)
    send(upgrade_refused, sender, UpgradeRefused(status, reason, path_of(environ)))
