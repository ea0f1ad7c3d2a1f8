"""One frame on the wire: what the server sends, close payloads both ways, and masking (RFC 6455 §5).

Held here: the header of every length class, as ``websockets`` and ``wsproto`` read it; which close codes may be sent;
what a close frame's payload means; and that masking in pure Python gives what the compiled one gives.
"""

from __future__ import annotations

import importlib.util
import random
import sys
from types import ModuleType

import pytest
from websockets.frames import Close, Frame
from websockets.streams import StreamReader
from wsproto.frame_protocol import FrameProtocol

from websock_gevent import frames
from websock_gevent.errors import ProtocolError
from websock_gevent.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    CloseCode,
    close_frame,
    frame,
    is_sendable,
    parse_close,
)


def parse(encoded: bytes) -> Frame:
    """Read one frame that must be all there is."""
    stream = StreamReader()
    stream.feed_data(encoded)
    stream.feed_eof()
    parser = Frame.parse(stream.read_exact, mask=False)
    with pytest.raises(StopIteration) as done:
        while True:
            next(parser)
    assert not stream.buffer
    result: Frame = done.value.value
    return result


SIZES = [(0, 2), (1, 2), (124, 2), (125, 2), (126, 4), (127, 4), (128, 4), (65535, 4), (65536, 10), (100_000, 10)]
sizes = pytest.mark.parametrize(("size", "header"), SIZES, ids=[f"{size} bytes" for size, _ in SIZES])


KINDS = {"text": TEXT, "binary": BINARY, "close": CLOSE, "ping": PING, "pong": PONG}


@pytest.mark.parametrize(
    ("name", "size", "header"),
    [(name, *row) for name, opcode in KINDS.items() for row in SIZES if opcode < CLOSE or row[0] <= 125],
)
@pytest.mark.parametrize("buffer", [bytes, bytearray])
def test_a_frame_is_read_by_others(name: str, size: int, header: int, buffer: type) -> None:
    opcode = KINDS[name]
    payload = bytes(range(97, 123)) * (size // 26 + 1)
    payload = payload[:size] if opcode != CLOSE or size < 2 else b"\x03\xe8" + payload[: size - 2]
    encoded = frame(opcode, buffer(payload))
    assert type(encoded) is bytes
    assert len(encoded) == header + size
    assert parse(encoded) == Frame(opcode, payload, fin=True)  # type: ignore[arg-type]


@sizes
def test_a_frame_is_read_by_wsproto(size: int, header: int) -> None:
    protocol = FrameProtocol(client=True, extensions=[])
    protocol.receive_bytes(frame(BINARY, b"x" * size))
    [received] = protocol.received_frames()
    assert (received.opcode, received.payload) == (BINARY, b"x" * size)
    assert received.frame_finished and received.message_finished


@pytest.mark.parametrize(
    ("opcode", "payload", "wire"),
    [
        (TEXT, b"Hello", bytes.fromhex("810548656c6c6f")),
        (PING, b"Hello", bytes.fromhex("890548656c6c6f")),
        (BINARY, b"x" * 256, bytes.fromhex("827e0100") + b"x" * 256),
        (BINARY, b"x" * 65536, bytes.fromhex("827f0000000000010000") + b"x" * 65536),
    ],
    ids=["text", "ping", "256 bytes", "64 KiB"],
)
def test_the_examples_of_the_rfc(opcode: int, payload: bytes, wire: bytes) -> None:
    """§5.7, those a server may send."""
    assert frame(opcode, payload) == wire


def test_a_bytearray_may_be_reused() -> None:
    for size in (5, 200, 70_000):
        buffer = bytearray(b"a" * size)
        encoded = frame(BINARY, buffer)
        buffer[:] = b"b" * size
        assert encoded.endswith(b"a" * size)


# Close codes and payloads.

CODES = [-1, *range(5002), 65535, 65536]
SENDABLE = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, *range(3000, 5000)}


def test_which_close_codes_may_be_sent() -> None:
    assert {code for code in CODES if is_sendable(code)} == SENDABLE


def test_the_named_codes_are_the_registered_ones() -> None:
    assert {code.value for code in CloseCode} == {*range(1000, 1004), *range(1005, 1015)}
    assert {code for code in CloseCode if not is_sendable(code)} == {CloseCode.NO_STATUS, CloseCode.ABNORMAL}


@pytest.mark.parametrize(
    "text", ["", "bye", "€" * 41, "x" * 123], ids=["no text", "text", "123 bytes of UTF-8", "123 bytes of ASCII"]
)
def test_a_close_frame_is_read_by_others_and_by_us(text: str) -> None:
    for code in sorted(SENDABLE):
        received = parse(close_frame(code, text))
        assert received.opcode == CLOSE
        assert Close.parse(received.data) == Close(code, text)
        assert parse_close(bytes(received.data)) == (code, text)


def test_a_close_frame_needs_no_text() -> None:
    assert close_frame(1000) == b"\x88\x02\x03\xe8"


def test_a_close_code_is_returned_as_it_came() -> None:
    for code in range(65536):
        assert parse_close(code.to_bytes(2, "big")) == (code, "")


@pytest.mark.parametrize(
    ("payload", "code", "words"),
    [
        (b"\x03", 1002, r"one byte \(RFC 6455 §5\.5\.1\)"),
        (b"\x03\xe8\xff", 1007, r"not UTF-8.*\(RFC 6455 §5\.5\.1\)"),
        (b"\x03\xe8ok\xe2\x82", 1007, "not UTF-8"),
        (b"\x03\xe8\xed\xa0\x80", 1007, "not UTF-8"),
        (b"\x03\xe8\xc0\x80", 1007, "not UTF-8"),
        (b"\x03\xe8\xf4\x90\x80\x80", 1007, "not UTF-8"),
    ],
    ids=["one byte", "bad byte", "truncated", "surrogate", "overlong", "above 10ffff"],
)
def test_a_malformed_close_payload(payload: bytes, code: int, words: str) -> None:
    with pytest.raises(ProtocolError, match=words) as caught:
        parse_close(payload)
    assert caught.value.code == code


def test_an_empty_close_payload() -> None:
    assert parse_close(b"") == (None, "")


def test_undecodable_close_text_may_be_let_through() -> None:
    assert parse_close(b"\x03\xe8a\xff", "surrogateescape") == (1000, "a\udcff")
    with pytest.raises(ProtocolError, match="one byte"):
        parse_close(b"\x03", "surrogateescape")


# Masking.


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module as it is where ``websockets`` has no compiled part: the import of that is made to fail."""
    monkeypatch.setitem(sys.modules, "websockets.speedups", None)
    spec = importlib.util.spec_from_file_location("websock_gevent.frames_uncompiled", frames.__file__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.apply_mask.__module__ == "websock_gevent.frames_uncompiled"
    return module


@pytest.mark.parametrize("size", [*range(10), 63, 64, 65, 125, 126, 4095, 65537, 1_000_003])
@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("mask", ["00000000", "ffffffff", "37fa213d", "00010203", "80000000", "00000080"])
def test_masking_is_the_same_without_compiled_code(uncompiled: ModuleType, size: int, buffer: type, mask: str) -> None:
    data, key = random.Random(size).randbytes(size), bytes.fromhex(mask)
    masked = uncompiled.apply_mask(buffer(data), key)
    assert type(masked) is bytes
    assert masked == frames.apply_mask(buffer(data), key)
    step = 1 if size < 100 else 997
    assert all(masked[at] == data[at] ^ key[at % 4] for at in range(0, size, step))
    assert uncompiled.apply_mask(masked, bytearray(key)) == data
