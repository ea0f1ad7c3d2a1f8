"""RFC 6455 §5: what one frame looks like on the wire. Pure: bytes in, bytes out.

Owns opcodes, close codes, the encoding of a server's frames and of a close frame's payload, and masking. Refuses to
know how frames make up messages (``messages``) and where the bytes come from. A server's frames are never masked
(§5.1) and, by our choice, never fragmented, so encoding one is a header of two, four or ten bytes in front of the
payload.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

from .errors import ProtocolError

try:
    from websockets.speedups import apply_mask
except ImportError:  # no compiled wheel for this interpreter

    def apply_mask(data: bytes | bytearray | memoryview, mask: bytes | bytearray) -> bytes:
        """XOR ``data`` with the repeated four-byte ``mask`` (§5.3) as two big integers: the fastest pure Python way."""
        size = len(data)
        key = bytes(mask) * (size // 4 + 1)
        number = int.from_bytes(data, "little") ^ int.from_bytes(key[:size], "little")
        return number.to_bytes(size, "little")


__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "MAX_CONTROL",
    "PING",
    "PONG",
    "RSV1",
    "SHORT_TEXT",
    "TEXT",
    "CloseCode",
    "apply_mask",
    "close_frame",
    "frame",
    "is_sendable",
    "long_frame",
    "parse_close",
]

#: Opcodes (§5.2). Plain integers, since every frame is compared with them.
CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
#: Or'ed to the opcode of a compressed message's first frame (RFC 7692 §6).
RSV1: Final = 0x40

#: Payload bytes that a control frame may carry at most (§5.5).
MAX_CONTROL: Final = 125

Payload = bytes | bytearray

_LENGTH_16 = Struct("!BBH").pack
_LENGTH_64 = Struct("!BBQ").pack
_CODE = Struct("!H")
#: Headers of final frames with up to 125 bytes, made once: most frames are that short.
_SHORT = {
    opcode: tuple(bytes((0x80 | opcode, size)) for size in range(126))
    for opcode in (TEXT, BINARY, TEXT | RSV1, BINARY | RSV1, CLOSE, PING, PONG)
}
#: Those of a text of so many bytes.
SHORT_TEXT = _SHORT[TEXT]


class CloseCode(IntEnum):
    """Close codes with a meaning of their own (§7.4.1 and the IANA registry)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005
    ABNORMAL = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014


def frame(opcode: int, payload: Payload) -> bytes:
    """Encode one final, unmasked frame; with `RSV1` in the opcode, a compressed one.

    Copies the payload, so a ``bytearray`` may be reused by its owner.
    """
    size = len(payload)
    if size < 126:
        return _SHORT[opcode][size] + payload
    if size < 65536:
        return _LENGTH_16(0x80 | opcode, 126, size) + payload
    return _LENGTH_64(0x80 | opcode, 127, size) + payload


def long_frame(opcode: int, payload: bytes) -> list[bytes]:
    """Encode a frame of at least 64 KiB in two pieces, header and payload, so that the payload is not copied."""
    return [_LENGTH_64(0x80 | opcode, 127, len(payload)), payload]


def is_sendable(code: int) -> bool:
    """Tell whether a close code may stand in a frame: 1000–1003, 1007–1014, 3000–4999 (§7.4)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def close_frame(code: int, text: str = "") -> bytes:
    """Encode a close frame (§5.5.1). The caller has checked code and text."""
    return frame(CLOSE, _CODE.pack(code) + text.encode())


def parse_close(payload: bytes, errors: str = "strict") -> tuple[int | None, str]:
    """Return code and text of a received close frame; ``(None, "")`` if it is empty.

    The code is returned as it came: whether it is valid is for the caller to judge with `is_sendable`.

    Args:
        errors: How undecodable text is treated, as in `bytes.decode`.

    Raises:
        ProtocolError: a payload of one byte (1002), or text that is not UTF-8 (1007).
    """
    if not payload:
        return None, ""
    if len(payload) == 1:
        raise ProtocolError("a close frame's payload cannot be one byte (RFC 6455 §5.5.1)")
    try:
        text = str(payload[2:], "utf-8", errors)
    except UnicodeDecodeError as error:
        raise ProtocolError(f"close text is not UTF-8: {error.reason} (RFC 6455 §5.5.1)", 1007) from None
    return _CODE.unpack_from(payload)[0], text
