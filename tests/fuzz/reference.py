"""RFC 6455 §5 and RFC 7692 §7.2.2 in the plainest way: all of a client's bytes go in, all that they mean comes out.

What `targets` compares `MessageReader` with. Slow, and without a state between two calls; text is checked with the
grammar of RFC 3629 §4, not with Python's decoder.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

TAIL = b"\x00\x00\xff\xff"
#: Blocks marked as the last one that a message may contain: the library's own limit.
MOST_ENDS = 64

_MORE = rb"[\x80-\xbf]"
_CHARACTER = (
    rb"(?:[\x00-\x7f]|[\xc2-\xdf]%(m)s|\xe0[\xa0-\xbf]%(m)s|[\xe1-\xec\xee\xef]%(m)s%(m)s|\xed[\x80-\x9f]%(m)s"
    rb"|\xf0[\x90-\xbf]%(m)s%(m)s|[\xf1-\xf3]%(m)s%(m)s%(m)s|\xf4[\x80-\x8f]%(m)s%(m)s)" % {b"m": _MORE}
)
_BEGUN = (
    rb"(?:[\xc2-\xf4]|\xe0[\xa0-\xbf]|[\xe1-\xec\xee\xef]%(m)s|\xed[\x80-\x9f]|\xf0[\x90-\xbf]%(m)s?"
    rb"|[\xf1-\xf3]%(m)s%(m)s?|\xf4[\x80-\x8f]%(m)s?)?" % {b"m": _MORE}
)
_TEXT, _BEGUN_CHARACTER = re.compile(_CHARACTER + rb"*"), re.compile(_BEGUN)


class Rules(NamedTuple):
    """What was agreed on.

    Attributes:
        max_frame: Payload bytes of a data frame.
        max_message: Payload bytes of a message.
        strict: Whether text is checked.
        bits: Of the client's window; ``None`` without compression.
        alone: Each message is compressed by itself.
    """

    max_frame: int
    max_message: int
    strict: bool = True
    bits: int | None = None
    alone: bool = False


class Failed(Exception):
    """The stream is wrong. Where the order of two discoveries depends on how it was cut, either code is right."""

    def __init__(self, *codes: int) -> None:
        super().__init__(codes)
        self.codes = frozenset(codes)


class Header(NamedTuple):
    """A frame's header; ``start`` is its own length."""

    last: bool
    compressed: bool
    opcode: int
    mask: bytes
    size: int
    start: int


class Message(NamedTuple):
    """A message that is not complete: what came of it, still compressed if it is."""

    opcode: int
    compressed: bool
    raw: bytes


def decode(wire: bytes, rules: Rules) -> tuple[list[tuple[int, str | bytes]], frozenset[int]]:
    """Return the items, and the close codes one of which a failure behind them must have; none if there is none."""
    items = []
    try:
        for item in _items(wire, rules):
            items.append(item)
    except Failed as failed:
        return items, failed.codes
    return items, frozenset()


def _items(wire: bytes, rules: Rules) -> Iterator[tuple[int, str | bytes]]:
    message: Message | None = None
    stream: Any = None  # what earlier messages have left behind
    at = 0
    while (header := _header(wire[at:], message, rules)) is not None:
        at += header.start
        payload = _unmasked(wire[at : at + header.size], header.mask)
        at += header.size
        complete = len(payload) == header.size
        if header.opcode >= 8:
            if not complete:
                return
            yield header.opcode, payload
            continue
        if header.opcode:
            message = Message(header.opcode, header.compressed, b"")
        assert message is not None
        message = message._replace(raw=message.raw + payload)
        last = header.last and complete
        content, behind = _content(message, stream, last, rules)
        if last:
            yield message.opcode, _shown(content, rules) if message.opcode == 1 else content
            message, stream = None, None if rules.alone else behind
        if not complete:
            return


def _header(data: bytes, message: Message | None, rules: Rules) -> Header | None:
    """Take a header apart; ``None`` if it is not there as a whole and nothing is wrong with it so far."""
    if len(data) < 2:
        return None
    last, reserved, opcode = data[0] >> 7, data[0] >> 4 & 7, data[0] & 15
    size = data[1] & 127
    right = opcode in (0, 1, 2, 8, 9, 10) and data[1] >> 7 == 1
    right = right and (reserved == 0 or (reserved == 4 and rules.bits is not None and opcode in (1, 2)))
    right = right and (bool(last) and size <= 125 if opcode >= 8 else (opcode == 0) == (message is not None))
    if not right:
        raise Failed(1002)
    width = {126: 2, 127: 8}.get(size, 0)
    if len(data) < 2 + width:
        return None
    if width:
        size = int.from_bytes(data[2 : 2 + width], "big")
        if size < (126 if width == 2 else 65536) or size >> 63:
            raise Failed(1002)
    if opcode < 8:
        compressed = message.compressed if message is not None else reserved == 4
        whole = size + (len(message.raw) if message is not None else 0)
        if size > rules.max_frame or (whole > rules.max_message and not compressed):
            raise Failed(1009)
    if len(data) < 6 + width:
        return None
    return Header(last == 1, reserved == 4, opcode, data[2 + width : 6 + width], size, 6 + width)


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    key = mask * (len(payload) // 4 + 1)
    return bytes(byte ^ key[at] for at, byte in enumerate(payload)) if any(mask) else payload


def _content(message: Message, stream: Any, last: bool, rules: Rules) -> tuple[bytes, Any]:
    """Return what a message, or its beginning, says, and what its compression leaves for the next one."""
    content = message.raw
    text = message.opcode == 1 and rules.strict
    if message.compressed:
        content, stream = _inflated(content, stream, last, text, rules)
    if text:
        begun = _TEXT.match(content).end()  # type: ignore[union-attr]
        if not (_BEGUN_CHARACTER.fullmatch(content, begun) and not (last and begun < len(content))):
            raise Failed(1007)
    return content, stream


def _inflated(data: bytes, stream: Any, last: bool, text: bool, rules: Rules) -> tuple[bytes, Any]:
    assert rules.bits is not None
    stream, content, ends = stream.copy() if stream is not None else None, b"", 0
    for piece in (data, TAIL) if last else (data,):
        if piece is TAIL and ends and stream is None:
            break  # the message ends with a last block, so nothing was cut off
        while piece:
            stream = stream or zlib.decompressobj(-rules.bits)
            try:
                content += stream.decompress(piece, rules.max_message + 1 - len(content))
            except zlib.error:
                raise Failed(1007) from None
            if len(content) > rules.max_message:
                raise Failed(1009, *([1007] if text else []))
            piece = b""
            if stream.eof:
                piece, stream, ends = stream.unused_data, None, ends + 1
                if ends > MOST_ENDS:
                    raise Failed(1007)
    return content, stream


def _shown(content: bytes, rules: Rules) -> str:
    return content.decode("utf-8", "strict" if rules.strict else "surrogateescape")
