"""A message of which a part has come: RFC 6455 §5.4, and frames whose payload the network hands over piece by piece.

Owns what is kept of it until the rest is there. Buffers grow with what has come, never with what was announced, and
become the message without being copied once more: of a long message that is the greater part of its cost, since memory
of that size comes from the kernel page by page. Text is decoded as it comes, so it is refused at its first bad byte.
Refuses to know frames, masks and limits.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from io import BytesIO, StringIO

from .errors import ProtocolError

__all__ = ["UnfinishedBinary", "UnfinishedText", "bad_text"]

_decoder = getincrementaldecoder("utf-8")
#: Characters that are gathered before they are handed to the buffer, which may keep each piece as an object of its own.
_GATHERED = 1024


class UnfinishedBinary:
    """A binary message.

    Attributes:
        size: Bytes of payload so far.
    """

    __slots__ = ("_buffer", "size")

    def __init__(self) -> None:
        self._buffer = BytesIO()
        self.size = 0

    def add(self, piece: bytes) -> None:
        """Add what has come, unmasked and inflated."""
        self.size += self._buffer.write(piece)

    def finish(self) -> bytes:
        """Return the message. Nothing may be added any more."""
        return self._buffer.getvalue()


class UnfinishedText:
    """A text message.

    Args:
        errors: How undecodable bytes are treated, as in `bytes.decode`.

    Attributes:
        size: Bytes of payload so far.
    """

    __slots__ = ("_buffer", "_decoder", "_gathered", "size")

    def __init__(self, errors: str) -> None:
        self._decoder = _decoder(errors)
        self._buffer = StringIO()
        self._gathered = ""
        self.size = 0

    def add(self, piece: bytes) -> None:
        """Add what has come, unmasked and inflated.

        Raises:
            ProtocolError: it is not UTF-8 (1007).
        """
        self.size += len(piece)
        self._write(piece)
        begun = self._decoder.getstate()[0]
        if begun[:1] == b"\xed" and begun[1:] >= b"\xa0" and self._decoder.errors == "strict":
            # Python waits for the third byte of a surrogate, though the second shows that it is one.
            raise ProtocolError("text is not UTF-8: surrogates are not allowed (RFC 6455 §8.1)", 1007)

    def _write(self, piece: bytes, final: bool = False) -> None:
        try:
            text = self._gathered + self._decoder.decode(piece, final)
        except UnicodeDecodeError as error:
            raise bad_text(error) from None
        if len(text) < _GATHERED and not final:
            self._gathered = text
        else:
            self._gathered = ""
            self._buffer.write(text)

    def finish(self) -> str:
        """Return the message. Nothing may be added any more.

        Raises:
            ProtocolError: it ends inside a character (1007).
        """
        self._write(b"", final=True)
        return self._buffer.getvalue()


def bad_text(error: UnicodeDecodeError) -> ProtocolError:
    """Return what is wrong with a text, and its close code."""
    return ProtocolError(f"text is not UTF-8: {error.reason} (RFC 6455 §8.1)", 1007)
