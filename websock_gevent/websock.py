"""The contract: what an application writes, and the one place that interprets what its callbacks return.

Owns `WebSock`, the types of results, messages and reasons, and `interpret`, which turns a result into frames to send,
the new state and, perhaps, a stop. Refuses to know connections, sockets and servers.

Source: WebSock 0.5.3 ("Plug for WebSockets" of the Elixir world), in Python's spelling: atoms are strings, keyword
lists are arguments.
"""

from __future__ import annotations

import logging
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

from .deflate import Deflater
from .errors import repr_of
from .frames import BINARY, MAX_CONTROL, PING, PONG, RSV1, SHORT_TEXT, TEXT, frame, is_sendable, long_frame

__all__ = [
    "Close",
    "Control",
    "Handler",
    "Message",
    "Messages",
    "Reason",
    "Result",
    "Stop",
    "WebSock",
    "checked_close",
    "encode",
    "interpret",
]

logger = logging.getLogger("websock_gevent")

S = TypeVar("S")

Data = bytes | bytearray | memoryview
#: What can be sent: ``str`` is a text message, bytes are a binary one, a tuple names its opcode.
#: ``False`` behind the payload keeps it from being compressed, ``True`` has it compressed however short it is.
Message = (
    str
    | Data
    | tuple[Literal["text"], str]
    | tuple[Literal["binary", "ping", "pong"], Data]
    | tuple[Literal["text"], str, bool]
    | tuple[Literal["binary"], Data, bool]
)
#: One message or a list of them, sent in order. To a type checker a ``list[str]`` is no ``list[Message]``, and what it
#: makes of a list written into a result depends on the other results of that length; so the usual lists are named one
#: by one.
Messages = Message | list[Message] | list[str] | list[bytes] | list[str | bytes] | list[tuple[str, bytes]]
#: A received ping or pong, as `WebSock.handle_control` gets it.
Control = tuple[Literal["ping", "pong"], bytes]
#: A close code, alone or with a text of up to 123 bytes of UTF-8.
Close = int | tuple[int, str | None]
#: Why a connection ended, as `WebSock.terminate` gets it.
Reason = Literal["normal", "remote", "timeout", "shutdown"] | tuple[Literal["error"], object]
#: What a callback returns.
Result = (
    tuple[Literal["ok"], S]
    | tuple[Literal["push"], Messages, S]
    | tuple[Literal["reply"], object, Messages, S]
    | tuple[Literal["stop"], object, S]
    | tuple[Literal["stop"], object, Close, S]
    | tuple[Literal["stop"], object, Close, Messages, S]
)


class Stop(NamedTuple):
    """A connection is to end: the close frame to send and the reason for `WebSock.terminate`."""

    code: int
    text: str
    reason: Reason


class WebSock(Generic[S]):
    """One WebSocket connection, seen by the application. Write `handle_in`, and what else you need.

    The callbacks of one connection run in its own greenlet, one at a time, and may block: only their own connection
    waits. ``state`` is whatever the application likes; each callback gets what the one before returned.

    Each callback but `terminate` returns one of::

        ("ok", state)                                 go on
        ("push", messages, state)                     send, go on
        ("reply", anything, messages, state)          the same
        ("stop", reason, state)                       close with the code that belongs to the reason
        ("stop", reason, close, state)                close with a code, or (code, text)
        ("stop", reason, close, messages, state)      send, then close

    ``messages`` is one message or a list of them: ``str`` is text, ``bytes`` are binary, ``("ping", b"...")`` is a
    ping. ``reason`` is ``"normal"`` (code 1000), ``("shutdown", "restart")`` (1012), ``("shutdown", "disconnected")``
    (1000), or anything else (1011), which `terminate` gets as ``("error", reason)``. An exception, or a result that
    is none of these, is logged and closes with 1011.

    No need to inherit: any object with these callables will do, an instance or a module, too.
    """

    def init(self, state: S) -> Result[S]:
        """Begin. Called once, when the 101 is on the wire; what it pushes leaves before received frames are handled."""
        return "ok", state

    def handle_in(self, message: str | bytes, state: S) -> Result[S]:
        """Take one complete message: ``str`` if it is text, ``bytes`` if it is binary. Must be written."""
        raise NotImplementedError(f"{type(self).__name__} has no handle_in")

    def handle_control(self, frame: Control, state: S) -> Result[S]:
        """Take a received ``("ping", payload)`` or ``("pong", payload)``. A ping has been answered already."""
        return "ok", state

    def handle_info(self, message: Any, state: S) -> Result[S]:
        """Take what somebody put into this connection's mailbox. A class that expects mail overrides this."""
        logger.warning("%s has no handle_info, dropped a %s", type(self).__qualname__, type(message).__qualname__)
        return "ok", state

    def terminate(self, reason: Reason, state: S) -> object:
        """Clean up. Called exactly once if `init` returned, behind our close frame; its result is ignored.

        Reason is ``"normal"`` (we stopped), ``"remote"`` (the peer closed), ``"timeout"`` (nothing received for too
        long), ``"shutdown"`` (the server ends), or ``("error", detail)``.
        """
        return None


class Handler(Protocol[S]):
    """What `upgrade` takes: an object with these callables, or a class of such objects. See `WebSock` for the rest."""

    def init(self, state: S, /) -> Result[S]: ...  # noqa: D102
    def handle_in(self, message: Any, state: S, /) -> Result[S]: ...  # noqa: D102
    def handle_info(self, message: Any, state: S, /) -> Result[S]: ...  # noqa: D102


_ACCEPTED = (
    '("ok", state), ("push", messages, state), ("reply", anything, messages, state), ("stop", reason, state), '
    '("stop", reason, close, state), ("stop", reason, close, messages, state)'
)
_OPCODES = {"text": TEXT, "binary": BINARY, "ping": PING, "pong": PONG}
#: Reasons with a close code of their own; with these, `terminate` gets "normal".
_NORMAL: dict[object, int] = {"normal": 1000, ("shutdown", "restart"): 1012, ("shutdown", "disconnected"): 1000}
_NOTHING: list[bytes] = []
#: Bytes from which handing over two pieces costs less than copying the payload behind its header; `long_frame`'s least.
_LONG = 1 << 16


def interpret(result: Any, deflater: Deflater | None = None) -> tuple[list[bytes], Any, Stop | None]:
    """Return what a callback's result asks for: frames to send, the new state, and a stop if there is one.

    Args:
        deflater: Of the connection whose callback it was, if messages are compressed there.

    Raises:
        TypeError, ValueError: the result is not one of those listed at `WebSock`; the text shows what is accepted.
    """
    if isinstance(result, tuple) and result:
        tag, size = result[0], len(result)
        if tag == "push" and size == 3:
            return encode(result[1], deflater, True), result[2], None
        if tag == "ok" and size == 2:
            return _NOTHING, result[1], None
        if tag == "reply" and size == 4:
            return encode(result[2], deflater, True), result[3], None
        if tag == "stop" and 3 <= size <= 5:
            frames = encode(result[3], deflater) if size == 5 else _NOTHING
            return frames, result[-1], _stop(result[1], *result[2:-1][:1])
    raise TypeError(f"a callback returned {repr_of(result)}; accepted are {_ACCEPTED}")


def _stop(reason: object, *close: Any) -> Stop:
    """Choose terminate reason and close code, which may be given."""
    try:
        code = _NORMAL.get(reason)
    except (TypeError, ValueError):  # unhashable, as lists and some memoryviews are, so none of ours
        code = None
    final: Reason = "normal" if code is not None else ("error", reason)
    if not close:
        return Stop(code or 1011, "", final)
    return Stop(*checked_close(*close), final)


def checked_close(close: Any) -> tuple[int, str]:
    """Return code and text of what is meant to close a connection.

    Raises:
        TypeError, ValueError: it may not be sent; the text shows what is accepted.
    """
    code, text = close if type(close) is tuple and len(close) == 2 else (close, None)
    if not isinstance(code, int) or isinstance(code, bool) or not (text is None or isinstance(text, str)):
        raise TypeError(f"close is {repr_of(close)}; accepted are a code or (code, text), text a str or None")
    if not is_sendable(code):
        raise ValueError(
            f"close code {code} may not be sent; allowed are 1000-1003, 1007-1014 and 3000-4999 (RFC 6455 §7.4)"
        )
    if text and len(text.encode()) > MAX_CONTROL - 2:
        raise ValueError(f"close text {repr_of(text)} is longer than 123 bytes of UTF-8 (RFC 6455 §5.5)")
    return code, text or ""


def encode(messages: Any, deflater: Deflater | None = None, split: bool = False) -> list[bytes]:
    """Return the frames of one message or a list of them.

    Args:
        deflater: Compresses messages that are long enough, or say so themselves; ``None`` compresses nothing.
        split: The frame of a long message may come in two pieces, so that its payload is not copied.

    Raises:
        TypeError: something that is not a message.
        ValueError: an unknown opcode, a control payload over 125 bytes, or text that UTF-8 cannot carry.
    """
    if deflater is None:  # the usual case, and the usual messages
        if type(messages) is str:
            payload = messages.encode()
            if len(payload) <= MAX_CONTROL:
                return [SHORT_TEXT[len(payload)] + payload]
            return long_frame(TEXT, payload) if split and len(payload) >= _LONG else [frame(TEXT, payload)]
        if type(messages) is bytes:
            return long_frame(BINARY, messages) if split and len(messages) >= _LONG else [frame(BINARY, messages)]
    if isinstance(messages, list):
        if deflater is not None and deflater.shared is None:
            for message in messages:
                _frame(message, None)  # what cannot be sent raises before anything is in the context
        return [_frame(message, deflater) for message in messages]
    return [_frame(messages, deflater)]


def _data_frame(opcode: int, payload: bytes, deflater: Deflater | None, compress: bool | None = None) -> bytes:
    if deflater is None or not (len(payload) >= deflater.threshold if compress is None else compress):
        return frame(opcode, payload)
    return frame(opcode | RSV1, deflater.deflate(payload))


def _frame(message: Any, deflater: Deflater | None) -> bytes:
    if isinstance(message, str):
        return _data_frame(TEXT, message.encode(), deflater)
    if isinstance(message, (bytes, bytearray, memoryview)):
        return _data_frame(BINARY, bytes(message), deflater)
    if type(message) is not tuple or not 2 <= len(message) <= 3:
        raise TypeError(
            f"{repr_of(message)} is not a message; accepted are str, bytes, (opcode, payload) and "
            "(opcode, payload, compress)"
        )
    opcode, payload, compress = _opcode_of(message[0]), message[1], message[2] if len(message) == 3 else None
    payload = _payload_of(opcode, payload)
    if compress is not None and (not isinstance(compress, bool) or opcode >= PING):
        raise TypeError(f"{repr_of(message)}: whether to compress is a bool, and for text and binary messages only")
    if opcode < PING:
        return _data_frame(opcode, payload, deflater, compress)
    if len(payload) > MAX_CONTROL:
        raise ValueError(f"a {message[0]} payload of {len(payload)} bytes is over the 125 allowed (RFC 6455 §5.5)")
    return frame(opcode, payload)


def _opcode_of(tag: Any) -> int:
    opcode = _OPCODES.get(tag) if isinstance(tag, str) else None
    if opcode is None:
        raise ValueError(f"{repr_of(tag)} is not an opcode; accepted are {', '.join(map(repr, _OPCODES))}")
    return opcode


def _payload_of(opcode: int, payload: Any) -> bytes:
    if opcode == TEXT and isinstance(payload, str):
        return payload.encode()
    if opcode == TEXT or not isinstance(payload, (bytes, bytearray, memoryview)):
        name, wanted = next(name for name in _OPCODES if _OPCODES[name] == opcode), "str" if opcode == TEXT else "bytes"
        raise TypeError(f"the payload of a {name} message is {wanted}, not {repr_of(payload)}")
    return bytes(payload)
