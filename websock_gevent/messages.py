"""RFC 6455 §5.2–§5.7: the bytes a client sends become messages and control frames. Pure and incremental.

`MessageReader` is fed whatever the socket gave and hands out one complete item at a time, so that whoever reads
decides how much is handled before others get their turn. Everything that can be refused is refused as early as the
bytes allow: bits, opcode, mask and length class from a frame's first two bytes, sizes from its header, text at its
first bad byte. Nothing is allocated by a declared length: a payload that is not there yet is unmasked and appended
piece by piece, and a message costs its payload, however many fragments it comes in.

Refuses to know sockets, handlers, and what is answered to an item.
"""

from __future__ import annotations

from struct import Struct

from .allocator import expect
from .deflate import SHORT, Inflater
from .errors import MessageTooBig, ProtocolError
from .frames import BINARY, CLOSE, CONTINUATION, MAX_CONTROL, PING, PONG, RSV1, TEXT, apply_mask
from .unfinished import UnfinishedBinary, UnfinishedText, bad_text, decoded

__all__ = ["BATCH", "BATCH_SIZE", "ITEM_SIZE", "Item", "MessageReader"]

#: An opcode with its payload: ``str`` for TEXT, ``bytes`` for BINARY, PING, PONG and CLOSE. CONTINUATION, without any,
#: says that there may be more, but that it is time for others.
Item = tuple[int, str | bytes]

_OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
#: How much whoever reads handles before everybody else gets a turn: items, and bytes of payload (256 KiB off the wire
#: may inflate to hundreds of megabytes).
BATCH, BATCH_SIZE = 64, 1 << 20
#: What each item takes of `BATCH_SIZE` beside its payload: one sum then keeps to both.
ITEM_SIZE = BATCH_SIZE // BATCH
#: Fragments taken in one go, if they are not inflated; then comes an item that stands for nothing but "others first".
_FRAGMENTS = 128
_PAUSE: Item = (CONTINUATION, b"")
_LENGTH_16 = Struct("!H").unpack_from
_LENGTH_64 = Struct("!Q").unpack_from


class MessageReader:
    """Turns a client's bytes into items.

    Args:
        max_frame_size: Payload bytes of one data frame at the most.
        max_message_size: Payload bytes of one message, over all its fragments, at the most.
        inflater: Decompresses messages whose first frame has RSV1 (RFC 7692 §6); ``None`` if that was not agreed on.
        validate_utf8: ``False`` lets undecodable bytes of text through as surrogate escapes (PEP 383).

    Attributes:
        errors: How undecodable text is treated, as in `bytes.decode`.
        unread: Bytes of which some have not been taken yet; empty if all have.
    """

    __slots__ = (
        "_deflated",
        "_final",
        "_in_frame",
        "_inflater",
        "_mask",
        "_max_frame",
        "_max_message",
        "_message",
        "_more",
        "_opcode",
        "_pos",
        "_remaining",
        "_short",
        "errors",
        "unread",
    )

    def __init__(
        self, max_frame_size: int, max_message_size: int, validate_utf8: bool = True, inflater: Inflater | None = None
    ) -> None:
        self._max_frame = max_frame_size
        self._max_message = max_message_size
        self._short = min(0xFFFF, max_frame_size, max_message_size)
        self.errors = "strict" if validate_utf8 else "surrogateescape"
        self.unread = b""
        self._pos = 0
        # The open message: its opcode (0 if there is none), and what has come of it.
        self._opcode = 0
        self._message: UnfinishedBinary | UnfinishedText | None = None
        self._inflater = inflater
        self._deflated = False
        self._more = False  # of what has been taken is to be inflated before anything else
        # The data frame whose payload is being taken.
        self._in_frame = False
        self._final = True
        self._remaining = 0
        self._mask = b""

    def feed(self, data: bytes) -> None:
        """Add received bytes. Take what is complete with `next_item` before feeding more.

        What is left of earlier bytes is then one incomplete header or control frame, so joining them costs next to
        nothing.
        """
        if self._pos < len(self.unread):
            data = self.unread[self._pos :] + data
        self.unread = data
        self._pos = 0

    def next_item(self) -> Item | None:
        """Return the next complete item, or ``None`` if more bytes are needed.

        Raises:
            ProtocolError: the bytes break RFC 6455; the reader must not be used any more.
        """
        data, pos = self.unread, self._pos
        available = len(data) - pos
        if not available:
            if self._more:
                return self._next_item()
            self.unread, self._pos = b"", 0  # an idle connection does not hold what it received last
            return None
        if available >= 8 and not self._opcode:
            # Most frames are this: a whole message, not a long one. One look instead of the general case below.
            first, second = data[pos], data[pos + 1]
            if second == 0xFE:
                start, least, size = pos + 8, 126, data[pos + 2] << 8 | data[pos + 3]
            else:
                start, least, size = pos + 6, 0, second - 0x80
            end = start + size
            if (first == 0x81 or first == 0x82) and second < 0xFF and least <= size <= self._short and end <= len(data):
                payload = apply_mask(data[start:end], data[start - 4 : start])
                if end < len(data):
                    self._pos = end
                else:
                    self.unread, self._pos = b"", 0
                if first == 0x82:
                    return BINARY, payload
                try:
                    return TEXT, payload.decode("utf-8", self.errors)
                except UnicodeDecodeError as error:
                    raise bad_text(error) from None
        return self._next_item()

    def _next_item(self) -> Item | None:
        for _ in range(_FRAGMENTS):
            if self._more:
                self._append(b"")
            elif self._in_frame:
                self._take_payload()
            else:
                header = self._header()
                if header is None:
                    return None
                opcode, length, start = header
                if len(self.unread) - start < length:
                    if opcode >= CLOSE:
                        return None
                elif opcode >= CLOSE or (opcode and self._final and not (self._deflated and length > SHORT)):
                    return self._whole(opcode, self._take(start, length))
                self._begin(opcode, length, start)
                self._take_payload()
            if self._more:
                return _PAUSE
            if self._final and not self._in_frame:
                return self._finish()
            if self._pos == len(self.unread):
                self.unread, self._pos = b"", 0  # all taken: a message that is slow to come does not hold it twice
                return None
        return _PAUSE

    def _whole(self, opcode: int, payload: bytes) -> Item:
        """Make an item of a frame that is one."""
        if self._inflater is not None and self._deflated and opcode < CLOSE:
            payload = self._inflater.inflate_whole(payload, self._max_message)
        expect(len(payload))
        return (TEXT, decoded(payload, self.errors)) if opcode == TEXT else (opcode, payload)

    def _header(self) -> tuple[int, int, int] | None:
        """Check the next frame's header; return opcode, payload length, and where the payload begins."""
        data, start = self.unread, self._pos + 2
        if len(data) < start:
            return None
        first, second = data[start - 2], data[start - 1]
        self._check(first, second)
        opcode, length = first & 0x0F, second & 0x7F
        if length > MAX_CONTROL:
            at = start
            unpack, start, least = (_LENGTH_16, at + 2, 126) if length == 126 else (_LENGTH_64, at + 8, 65536)
            if len(data) < start:
                return None
            (length,) = unpack(data, at)
            if not least <= length < 1 << 63:
                raise ProtocolError(f"payload length {length} is not in its minimal encoding (RFC 6455 §5.2)")
        if opcode < CLOSE:
            if opcode:
                self._deflated = first & RSV1 > 0
            self._check_size(length)
        if len(data) < start + 4:
            return None
        self._mask = data[start : start + 4]
        self._final = first >= 0x80
        return opcode, length, start + 4

    def _check(self, first: int, second: int) -> None:
        """Refuse what a frame's first two bytes show to be wrong."""
        opcode = first & 0x0F
        if first & 0x70 and not (self._inflater and first & 0x70 == RSV1 and opcode in (TEXT, BINARY)):
            raise ProtocolError(f"reserved bits {first >> 4 & 7:03b} set where no extension says so (RFC 6455 §5.2)")
        if opcode not in _OPCODES:
            raise ProtocolError(f"opcode {opcode} is reserved (RFC 6455 §5.2)")
        if second < 0x80:
            raise ProtocolError("a client's frames must be masked (RFC 6455 §5.1)")
        if opcode >= CLOSE:
            if first < 0x80:
                raise ProtocolError("control frames cannot be fragmented (RFC 6455 §5.5)")
            if second & 0x7F > MAX_CONTROL:
                raise ProtocolError("a control frame's payload cannot exceed 125 bytes (RFC 6455 §5.5)")
        elif opcode == CONTINUATION and not self._opcode:
            raise ProtocolError("continuation frame without a message to continue (RFC 6455 §5.4)")
        elif opcode != CONTINUATION and self._opcode:
            raise ProtocolError("new message before the last fragment of the open one (RFC 6455 §5.4)")

    def _check_size(self, length: int) -> None:
        if length > self._max_frame:
            raise MessageTooBig(f"frame of {length} bytes, max_frame_size is {self._max_frame} (RFC 6455 §10.4)")
        size = length if self._message is None else self._message.size + length
        if size > self._max_message and not self._deflated:  # what is compressed is measured when it is inflated
            raise MessageTooBig(f"message of {size} bytes, max_message_size is {self._max_message} (RFC 6455 §10.4)")

    def _begin(self, opcode: int, length: int, start: int) -> None:
        """Open a data frame, and with it a message unless the frame continues one."""
        self._in_frame = True
        self._remaining = length
        self._pos = start
        if opcode != CONTINUATION:
            self._opcode = opcode
            self._message = UnfinishedText(self.errors) if opcode == TEXT else UnfinishedBinary()

    def _take(self, start: int, length: int) -> bytes:
        """Unmask a payload that is there as a whole, and go on behind it."""
        self._pos = end = start + length
        return apply_mask(memoryview(self.unread)[start:end], self._mask)

    def _take_payload(self) -> None:
        """Append what is there of the open frame's payload to the open message."""
        chunk = self._take(self._pos, min(self._remaining, len(self.unread) - self._pos))
        self._remaining -= len(chunk)
        self._in_frame = self._remaining > 0
        turn = len(chunk) & 3
        self._mask = self._mask[turn:] + self._mask[:turn]
        self._append(chunk)

    def _append(self, chunk: bytes) -> None:
        """Append a piece of payload, inflated if need be, to the open message."""
        assert self._message is not None
        if self._deflated:
            chunk = self._inflate(chunk, self._max_message - self._message.size)
        self._message.add(chunk)

    def _inflate(self, chunk: bytes, room: int) -> bytes:
        """Decompress the next piece of the open message, and note what is left of it."""
        assert self._inflater is not None
        inflated = self._inflater.inflate(chunk, room)
        self._more = self._inflater.more
        if self._final and not self._in_frame and not self._more:
            inflated += self._inflater.finish(room - len(inflated))
        return inflated

    def free(self) -> None:
        """Give back what is held, of decompressing and of an open message. Nothing can be read any more."""
        self._inflater = self._message = None
        self._more = False
        self.unread, self._pos = b"", 0

    def _finish(self) -> Item:
        """Close the open message and return it."""
        opcode, message = self._opcode, self._message
        self._opcode, self._message = 0, None
        assert message is not None
        expect(message.size)
        return opcode, message.finish()
