"""RFC 7692, permessage-deflate: what is agreed on, and how messages are deflated and inflated. Pure: bytes to bytes.

Owns the settings (`Deflate`), the negotiation of an offer (`negotiate`), and each direction (`Deflater`, `Inflater`).
Refuses to know frames: that RSV1 marks a compressed message is known where frames are made and read.

What an offer says, and what zlib does, is not trusted:

- an offer that is malformed, or asks for what cannot be granted, is declined; the connection then goes on uncompressed;
- inflating is bounded by absolute bytes while it happens, so a small message cannot become a large one in memory;
- zlib cannot deflate with a window of 8 bits, and ends its stream at a block that is marked as the last one.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from .errors import MessageTooBig, ProtocolError

__all__ = ["SHORT", "TOKEN", "Agreement", "Deflate", "Deflater", "Inflater", "negotiate"]

#: What a flushed message ends with; it is not sent (§7.2.1).
_TAIL = b"\x00\x00\xff\xff"
#: Last blocks that one message may contain; each costs a new stream. Peers that mark a block so at all, do it once.
_MOST_STREAMS = 64
#: Bytes that are inflated in one go: a few KiB may stand for many MiB, and others wait meanwhile.
_SLICE = 1 << 17
#: Compressed bytes of a message that is inflated as a whole all the same, to 1 MiB at the most: a byte stands for no
#: more than 1032.
SHORT = 1000
#: Characters of offers that are looked at; whoever sends more wants us to be busy. Browsers send some forty.
_MOST_OFFERED = 2048

#: A name in a header, as a pattern (RFC 9110 §5.6.2).
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'\s*;\s*({TOKEN})\s*(?:=\s*(?:({TOKEN})|"((?:[^"\\]|\\.)*)")\s*)?')
_NAME = re.compile(rf"[\s,]*({TOKEN})\s*")
_END = re.compile(r"\s*(?:,|$)")
_BITS = frozenset(map(str, range(8, 16)))
#: The parameters there are, and what they may be set to; ``None`` stands for no value.
_VALUES: dict[str, frozenset[str | None]] = {
    "server_no_context_takeover": frozenset([None]),
    "client_no_context_takeover": frozenset([None]),
    "server_max_window_bits": _BITS,
    "client_max_window_bits": _BITS,
}


@dataclass(frozen=True)
class Deflate:
    """Settings of permessage-deflate, for the option ``compress``.

    A connection's memory is mostly that of its two windows (there is a table in
    ``docs/howto/compression.rst``). Both are taken when the first compressed message comes or goes.

    Attributes:
        level: Effort, from 1 (fast) to 9 (small); -1 is zlib's own choice, 6.
        mem_level: Memory for deflating besides the window, from 1 to 9: 2 to the power of 9 plus this, in bytes.
        server_max_window_bits: Of our window, from 9 to 15: what we refer back to is no longer ago than 2 to the power
            of this, in bytes. A client may ask for less.
        client_max_window_bits: Of the client's window, from 8 to 15; asked for if the client says that it can.
        server_no_context_takeover: Compress each message by itself. Larger messages, but no memory held: one compressor
            serves the process, and what is pushed to many connections is compressed once.
        client_no_context_takeover: Have the client compress each message by itself.
        threshold: Bytes below which a message goes uncompressed, as it would hardly become smaller.

    Raises:
        TypeError, ValueError: a setting of the wrong type or out of its range; the text names it.
    """

    level: int = -1
    mem_level: int = 5
    server_max_window_bits: int = 12
    client_max_window_bits: int = 12
    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    threshold: int = 128

    def __post_init__(self) -> None:
        for name in ("server_no_context_takeover", "client_no_context_takeover"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"Deflate {name} must be a bool, not {getattr(self, name)!r}")
        for name, least, most in (
            ("level", -1, 9),
            ("mem_level", 1, 9),
            ("server_max_window_bits", 9, 15),
            ("client_max_window_bits", 8, 15),
            ("threshold", 0, 1 << 63),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"Deflate {name} must be an int, not {value!r}")
            if not least <= value <= most or (name == "level" and value == 0):
                raise ValueError(f"Deflate {name} must be from {least} to {most}, not {value!r}")


class Agreement(NamedTuple):
    """What server and client have agreed on (§7.1)."""

    server_no_context_takeover: bool
    client_no_context_takeover: bool
    server_max_window_bits: int
    client_max_window_bits: int


# Negotiation.


def negotiate(header: str, settings: Deflate) -> tuple[str, Agreement] | None:
    """Choose among a client's offers: the first one that can be granted (§5.1, §7.1).

    Args:
        header: The values of ``Sec-WebSocket-Extensions``, joined by commas.

    Returns:
        The answer's value for that header, and what it means; ``None`` to go on without compression.
    """
    if len(header) > _MOST_OFFERED:
        return None
    for name, parameters in _offers(header):
        if name == "permessage-deflate" and parameters is not None:
            agreed = _grant(parameters, settings)
            if agreed is not None:
                return agreed
    return None


def _offers(header: str) -> Iterator[tuple[str, dict[str, str | None] | None]]:
    """Take the header apart (RFC 6455 §9.1), as far as it is well-formed. ``None`` stands where one is repeated."""
    position = 0
    while (found := _NAME.match(header, position)) is not None:
        name, position, count = found[1], found.end(), 0
        parameters: dict[str, str | None] = {}
        while (parameter := _PARAMETER.match(header, position)) is not None:
            position, count = parameter.end(), count + 1
            parameters[parameter[1]] = parameter[2] if parameter[3] is None else re.sub(r"\\(.)", r"\1", parameter[3])
        end = _END.match(header, position)
        if end is None:
            return
        position = end.end()
        yield name, parameters if len(parameters) == count else None


def _grant(offer: dict[str, str | None], settings: Deflate) -> tuple[str, Agreement] | None:
    """Answer one offer, or decline it (§7.1.1, §7.1.2)."""
    can_limit = "client_max_window_bits" in offer
    asked = {"server_max_window_bits": "15", **offer}
    if asked.get("client_max_window_bits") is None:
        asked["client_max_window_bits"] = "15"
    if not all(name in _VALUES and value in _VALUES[name] for name, value in asked.items()):
        return None  # something unknown, a value that is none, or one where none belongs
    agreement = Agreement(
        "server_no_context_takeover" in asked or settings.server_no_context_takeover,
        "client_no_context_takeover" in asked or settings.client_no_context_takeover,
        min(int(asked["server_max_window_bits"] or 15), settings.server_max_window_bits),
        min(int(asked["client_max_window_bits"] or 15), settings.client_max_window_bits) if can_limit else 15,
    )
    return _answer(agreement, can_limit), agreement


def _answer(agreement: Agreement, can_limit: bool) -> str:
    parts = ["permessage-deflate"]
    parts += [name for name in Agreement._fields[:2] if getattr(agreement, name)]
    if agreement.server_max_window_bits < 15:
        parts.append(f"server_max_window_bits={agreement.server_max_window_bits}")
    if can_limit and agreement.client_max_window_bits < 15:
        parts.append(f"client_max_window_bits={agreement.client_max_window_bits}")
    return "; ".join(parts)


# Messages.

#: Compressors without a context, by their parameters: whoever needs one takes it out and puts it back.
_idle: dict[tuple[int, int, int], list[Any]] = {}


class Deflater:
    """Compresses the messages of one connection.

    Attributes:
        threshold: Bytes below which a message is not worth it.
        shared: What connections have in common whose compressed messages are the same; ``None`` with a context of its
            own.
    """

    __slots__ = ("_compressor", "_parameters", "shared", "threshold")

    def __init__(self, agreement: Agreement, settings: Deflate) -> None:
        self._parameters = settings.level, agreement.server_max_window_bits, settings.mem_level
        self._compressor: Any = None
        alone = agreement.server_no_context_takeover
        self.shared = (*self._parameters, settings.threshold) if alone else None
        self.threshold = settings.threshold

    def deflate(self, payload: bytes) -> bytes:
        """Compress one message (§7.2.1)."""
        if self.shared is not None:
            return self._deflate_alone(payload)
        if self._compressor is None:
            self._compressor = _new_compressor(*self._parameters)
        data: bytes = self._compressor.compress(payload) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
        return data[:-4] or b"\x00"

    def reuse(self, message: str | bytes, frames: list[bytes]) -> None:
        """Take note that a message is sent as these frames, which another connection that is `shared` with has made."""

    def _deflate_alone(self, payload: bytes) -> bytes:
        """With a compressor that forgets what it has seen."""
        idle = _idle.setdefault(self._parameters, [])
        try:
            compressor = idle.pop()
        except IndexError:
            compressor = _new_compressor(*self._parameters)
        data: bytes = compressor.compress(payload) + compressor.flush(zlib.Z_FULL_FLUSH)
        idle.append(compressor)
        return data[:-4] or b"\x00"


def _new_compressor(level: int, bits: int, mem_level: int) -> Any:
    """Make a compressor. For a window of 8 bits, which zlib has not, one that refers back to the last byte alone."""
    strategy = zlib.Z_DEFAULT_STRATEGY if bits > 8 else zlib.Z_RLE
    return zlib.compressobj(level, zlib.DEFLATED, -max(bits, 9), mem_level, strategy)


class Inflater:
    """Decompresses the messages of one connection, slice by slice.

    Attributes:
        more: The data given last would inflate to more than one slice; `inflate` wants to be called for the rest.
    """

    __slots__ = ("_alone", "_bits", "_rest", "_stream", "_streams", "more")

    def __init__(self, agreement: Agreement) -> None:
        self._bits = max(agreement.client_max_window_bits, 9)  # what zlib makes of 8
        self._alone = agreement.client_no_context_takeover
        self._stream: Any = None
        self._streams = 0
        self._rest = b""
        self.more = False

    def inflate(self, data: bytes, room: int) -> bytes:
        """Decompress the next piece of a message, as far as one slice goes.

        Args:
            data: Compressed bytes; none if there is ``more`` of what was given before.
            room: Bytes that the message may still grow by.

        Raises:
            MessageTooBig: it would grow by more; no more than one byte over ``room`` was decompressed.
            ProtocolError: the data is corrupt (1007).
        """
        if not (data or self.more):
            return b""  # not even a new stream: the one before may have ended, and the message with it
        if self._stream is None:
            self._stream = zlib.decompressobj(-self._bits)
        most = min(room + 1, _SLICE)
        try:
            piece: bytes = self._stream.decompress(data or self._rest, most)
        except zlib.error as error:
            raise ProtocolError(f"message cannot be inflated: {error} (RFC 7692 §7.2.2)", 1007) from None
        if len(piece) > room:
            raise MessageTooBig(f"message inflates by more than the {room} bytes that are left (RFC 6455 §10.4)")
        if self._stream.eof:
            self._rest = self._behind_the_last_block()
            self.more = len(self._rest) > 0
        else:
            self._rest = self._stream.unconsumed_tail
            self.more = len(piece) == most  # even without a rest: zlib may hold some, or the end of a last block
        return piece

    def _behind_the_last_block(self) -> bytes:
        """What stands behind a block that is marked as the last one: another stream (§7.2.3.4)."""
        rest: bytes = self._stream.unused_data
        self._stream = None
        self._streams += 1
        if self._streams > _MOST_STREAMS:
            raise ProtocolError(f"message has more than {_MOST_STREAMS} last blocks (RFC 7692 §7.2.3.4)", 1007)
        return rest

    def finish(self, room: int) -> bytes:
        """Decompress what is left at the end of a message (§7.2.2); raises what `inflate` does."""
        has_ended = self._streams > 0 and self._stream is None  # with a last block, and nothing behind it
        inflated = b"" if has_ended else self._inflate_all(_TAIL, room)
        self._streams = 0
        if self._alone:
            self._stream = None
        return inflated

    def inflate_whole(self, data: bytes, room: int) -> bytes:
        """Decompress a message of no more than `SHORT` bytes; raises what `inflate` does."""
        inflated = self._inflate_all(data, room)
        return inflated + self.finish(room - len(inflated))

    def _inflate_all(self, data: bytes, room: int) -> bytes:
        inflated = self.inflate(data, room)
        while self.more:
            inflated += self.inflate(b"", room - len(inflated))
        return inflated
