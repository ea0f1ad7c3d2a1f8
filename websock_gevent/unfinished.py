"""A message of which a part has come: RFC 6455 §5.4, and frames whose payload the network hands over piece by piece.

Owns what is kept of it until the rest is there. The buffer grows with what has come, never with what was announced, and
costs its payload, however many pieces it comes in, and whatever is in them: text is looked at as it comes, and refused
at its first bad byte, but stays bytes until it is whole, since a character may take four times as much in a ``str``.
Binary becomes the message without being copied. Refuses to know frames, masks and limits.
"""

from __future__ import annotations

from codecs import IncrementalDecoder, getincrementaldecoder
from io import BytesIO

from .errors import ProtocolError

__all__ = ["UnfinishedBinary", "UnfinishedText", "bad_text", "decoded"]

_decoder = getincrementaldecoder("utf-8")
#: The state of a decoder between two characters. It need not see what is ASCII then.
_NO_CHARACTER_BEGUN = (b"", 0)


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

    __slots__ = ("_buffer", "_errors", "_validator", "size")

    def __init__(self, errors: str) -> None:
        self._buffer = BytesIO()
        self._errors = errors
        self._validator = _decoder() if errors == "strict" else None
        self.size = 0

    def add(self, piece: bytes) -> None:
        """Add what has come, unmasked and inflated.

        Raises:
            ProtocolError: it is not UTF-8 (1007).
        """
        self.size += self._buffer.write(piece)
        if self._validator is not None and not (piece.isascii() and self._validator.getstate() == _NO_CHARACTER_BEGUN):
            _validate(self._validator, piece)

    def finish(self) -> str:
        """Return the message. Nothing may be added any more.

        Raises:
            ProtocolError: it ends inside a character (1007).
        """
        return decoded(self._buffer.getvalue(), self._errors)


def _validate(validator: IncrementalDecoder, piece: bytes) -> None:
    """Look at the next bytes of a text."""
    try:
        validator.decode(piece)
    except UnicodeDecodeError as error:
        raise bad_text(error) from None
    begun = validator.getstate()[0]
    if begun[:1] == b"\xed" and begun[1:] >= b"\xa0":
        # Python waits for the third byte of a surrogate, though the second shows that it is one.
        raise ProtocolError("text is not UTF-8: surrogates are not allowed (RFC 6455 §8.1)", 1007)


def decoded(payload: bytes, errors: str) -> str:
    """Return the text of a whole message.

    Raises:
        ProtocolError: it is not UTF-8 (1007).
    """
    try:
        return payload.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise bad_text(error) from None


def bad_text(error: UnicodeDecodeError) -> ProtocolError:
    """Return what is wrong with a text, and its close code."""
    return ProtocolError(f"text is not UTF-8: {error.reason} (RFC 6455 §8.1)", 1007)
