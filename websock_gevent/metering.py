"""What goes over the wire of one connection, counted. Pure: bytes in, numbers out.

Owns the count of one direction (`Meter`), and a reader and a compressor that feed it. A meter finds frames by their
headers alone, so it counts what is on the wire, whoever wrote it; that the bytes are good frames is for the reader
to check. Refuses to know connections and sockets.
"""

from __future__ import annotations

from .deflate import Agreement, Deflate, Deflater, Inflater
from .frames import BINARY, CLOSE, CONTINUATION, PING, PONG, RSV1, TEXT
from .locks import new_lock
from .messages import Item, MessageReader
from .signals import Frames, Traffic

__all__ = ["Meter", "MeteredDeflater", "MeteredReader"]

_NAMES = {CONTINUATION: "continuation", TEXT: "text", BINARY: "binary", CLOSE: "close", PING: "ping", PONG: "pong"}
#: Bytes of a payload's length behind the second byte, by that byte's lower part.
_LONGER = {126: 2, 127: 8}


class Meter:
    """Counts the frames of one direction.

    Attributes:
        is_deflated: Whether the last message that has begun is a compressed one.
        message_bytes: Of its payload, so far.
    """

    __slots__ = (
        "_counts",
        "_header",
        "_left",
        "_lock",
        "_opcode",
        "_payload",
        "_sizes",
        "_wire",
        "is_deflated",
        "message_bytes",
    )

    def __init__(self) -> None:
        self._counts: dict[int, list[int]] = {}
        self._header = b""  # as much of one as has come
        self._opcode = self._payload = self._wire = 0  # of the frame that has begun, without and with its header
        self._left = 0  # of its payload, to come
        self._sizes = [0, 0]  # of compressed messages: as compressed, and when not
        self._lock = new_lock()
        self.is_deflated = False
        self.message_bytes = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Count the next bytes."""
        if self._header:
            data, self._header = self._header + bytes(data), b""
        at, end = 0, len(data)
        while at < end:
            if not self._left:
                start = self._begin(data, at, end)
                if not start:
                    self._header = bytes(data[at:])
                    return
                at = start
            taken = min(self._left, end - at)
            self._left -= taken
            at += taken
            if not self._left:
                self._count()

    def _begin(self, data: bytes | memoryview, at: int, end: int) -> int:
        """Take a header; return where its payload begins, 0 if the header is not complete."""
        if end < at + 2:
            return 0
        first, length = data[at], data[at + 1] & 0x7F
        behind = at + 2 + _LONGER.get(length, 0)
        start = behind + (4 if data[at + 1] & 0x80 else 0)
        if end < start:
            return 0
        if length in _LONGER:
            length = int.from_bytes(data[at + 2 : behind], "big")
        self._opcode, self._payload, self._wire, self._left = first & 0x0F, length, start - at + length, length
        if self._opcode in (TEXT, BINARY):
            self.is_deflated, self.message_bytes = first & RSV1 > 0, 0
        return start

    def _count(self) -> None:
        counts = self._counts.setdefault(self._opcode, [0, 0, 0])
        counts[0] += 1
        counts[1] += self._payload
        counts[2] += self._wire
        if self._opcode < CLOSE:
            self.message_bytes += self._payload

    def add_sizes(self, compressed: int, inflated: int) -> None:
        """Note a compressed message; from any thread."""
        with self._lock:
            self._sizes[0] += compressed
            self._sizes[1] += inflated

    @property
    def totals(self) -> tuple[int, int]:
        """Messages that have begun, and bytes of all frames: the gist of `traffic`, in a tenth of the time."""
        counts = self._counts
        messages = sum(counts[opcode][0] for opcode in (TEXT, BINARY) if opcode in counts)
        return messages, sum([count[2] for count in tuple(counts.values())])

    @property
    def traffic(self) -> Traffic:
        """What has been counted."""
        kinds = {_NAMES[opcode]: Frames(*counts) for opcode, counts in self._counts.items() if opcode in _NAMES}
        return Traffic(**kinds, compressed_bytes=self._sizes[0], inflated_bytes=self._sizes[1])


class MeteredReader(MessageReader):
    """A reader whose meter counts what was taken: neither what waits unread, nor what was refused."""

    __slots__ = ("_meter",)

    def __init__(
        self,
        meter: Meter,
        max_frame_size: int,
        max_message_size: int,
        validate_utf8: bool = True,
        inflater: Inflater | None = None,
    ) -> None:
        super().__init__(max_frame_size, max_message_size, validate_utf8, inflater)
        self._meter = meter

    def next_item(self) -> Item | None:
        """Return what `MessageReader.next_item` does."""
        data, begin = self.unread, self._pos
        try:
            item = super().next_item()
        finally:
            end = self._pos if self.unread is data else len(data)  # it lets go of what is all taken
            self._meter.feed(memoryview(data)[begin:end])
        if item is not None and item[0] in (TEXT, BINARY) and self._meter.is_deflated:
            self._meter.add_sizes(self._meter.message_bytes, _size_of(item[1], self.errors))
        return item


class MeteredDeflater(Deflater):
    """A compressor that notes what it was given and what it made of it."""

    __slots__ = ("_meter",)

    def __init__(self, meter: Meter, agreement: Agreement, settings: Deflate) -> None:
        super().__init__(agreement, settings)
        self._meter = meter

    def deflate(self, payload: bytes) -> bytes:
        """Compress one message."""
        compressed = super().deflate(payload)
        self._meter.add_sizes(len(compressed), len(payload))
        return compressed

    def reuse(self, message: str | bytes, frames: list[bytes]) -> None:
        """Note a message that another connection has compressed."""
        meter = Meter()
        for piece in frames:
            meter.feed(piece)
        if meter.is_deflated:
            self._meter.add_sizes(meter.message_bytes, _size_of(message))


def _size_of(payload: str | bytes, errors: str = "strict") -> int:
    """Count the bytes of a payload; of a text, in UTF-8."""
    if isinstance(payload, bytes) or payload.isascii():
        return len(payload)
    return len(payload.encode("utf-8", errors))
