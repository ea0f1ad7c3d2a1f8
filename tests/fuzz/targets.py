"""What is fuzzed. Each target is a function of bytes that raises if the library does not keep its word.

They know nothing of the fuzzer, so that `test_fuzz_regressions` runs them without it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fuzz.reference import Rules, decode
from fuzz.source import Source
from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.headers import parse_extension
from websockets.utils import accept_key
from werkzeug.exceptions import HTTPException
from werkzeug.test import run_wsgi_app

from websock_gevent import Deflate, Options, ProtocolError, deflate, messages
from websock_gevent.deflate import Agreement, Deflater, Inflater, negotiate
from websock_gevent.frames import close_frame, is_sendable, parse_close
from websock_gevent.handshake import accept_headers, check, is_upgrade
from websock_gevent.messages import MessageReader
from websock_gevent.origins import is_allowed, parse
from websock_gevent.websock import interpret

__all__ = ["SEEDS", "TARGETS"]

# What a client sends, against `reference`: raw bytes, and bytes that say which frames to make.

LIMITS = [(1 << 20, 1 << 20), (125, 125), (5, 20), (1000, 300), (300, 1000), (1, 1), (126, 126), (70_000, 70_000)]
#: What is wrong if the client refers back beyond its window: how much of that zlib forgives depends on the pieces.
BEYOND_WINDOW = "too far back"


def read_bytes(data: bytes) -> None:
    """Rules, sizes of pieces, and a client's bytes."""
    source = Source(data)
    rules, sizes = _rules(source), _sizes(source)
    _compare(source.rest(), sizes, rules)


def read_frames(data: bytes) -> None:
    """Rules, sizes of pieces, and instructions for frames; nearly all of them right, so that one gets far."""
    source = Source(data)
    rules, sizes = _rules(source), _sizes(source)
    _compare(b"".join(_frames(source, rules)), sizes, rules)


def _rules(source: Source) -> Rules:
    flags = source.byte()
    bits = (None, 15, 15, 9)[flags >> 1 & 3]
    return Rules(*source.choose(LIMITS), flags & 1 == 0, bits, flags & 8 > 0)


def _sizes(source: Source) -> list[int]:
    """Sizes of pieces, used in turns; at the most 500 pieces are made."""
    return [1 + size for size in source.take(2)] or [1]


def _compare(wire: bytes, sizes: list[int], rules: Rules) -> None:
    whole, cut = _read([wire], rules), _read(list(_pieces(wire, sizes)), rules)
    items, codes = decode(wire, rules)
    if rules.bits == 9 and any(BEYOND_WINDOW in error for _, _, error in (whole, cut)):
        return
    for read, code, error in (whole, cut):
        assert read == items, (read, items, error, codes)
        assert code in codes if codes else code is None, (code, error, codes)


def _pieces(wire: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = turn = 0
    while at < len(wire):
        size = max(sizes[turn % len(sizes)], len(wire) // 500)
        yield wire[at : at + size]
        at, turn = at + size, turn + 1


def _read(pieces: list[bytes], rules: Rules) -> tuple[list[tuple[int, str | bytes]], int | None, str]:
    """Feed a reader; return the items, the code of its failure, and what it says about it."""
    agreed = Agreement(False, rules.alone, 15, rules.bits or 15)
    inflater = Inflater(agreed) if rules.bits is not None else None
    reader = MessageReader(rules.max_frame, rules.max_message, rules.strict, inflater)
    items = []
    try:
        with _small_slices():
            for piece in pieces:
                reader.feed(piece)
                while (item := reader.next_item()) is not None:
                    if item[0]:  # else it is a pause
                        items.append(item)
                        _check_item(item, rules)
                _check_memory(reader, rules)
    except ProtocolError as error:
        assert error.code in (1002, 1007, 1009) and "RFC" in str(error) and len(str(error)[:100].encode()) <= 123
        return items, error.code, str(error)
    return items, None, ""


@contextmanager
def _small_slices() -> Iterator[None]:
    """Inflate in slices that inputs as short as these have many of."""
    kept = deflate._SLICE, messages.SHORT
    deflate._SLICE, messages.SHORT = 40, 20
    try:
        yield
    finally:
        deflate._SLICE, messages.SHORT = kept


def _check_item(item: tuple[int, str | bytes], rules: Rules) -> None:
    opcode, payload = item
    assert type(payload) is (str if opcode == 1 else bytes)
    size = len(payload.encode("utf-8", "surrogateescape") if isinstance(payload, str) else payload)
    assert size <= (rules.max_message if opcode < 8 else 125)
    if opcode == 8 and isinstance(payload, bytes):
        _check_close(payload, rules.strict)


def _check_close(payload: bytes, strict: bool) -> None:
    try:
        code, text = parse_close(payload, "strict" if strict else "surrogateescape")
    except ProtocolError as error:
        assert error.code == (1002 if len(payload) == 1 else 1007)
        return
    assert payload == (b"" if code is None else code.to_bytes(2, "big") + text.encode("utf-8", "surrogateescape"))


def _check_memory(reader: MessageReader, rules: Rules) -> None:
    """What waits is a message within its limits, and the beginning of a header or of a control frame."""
    assert reader._message is None or reader._message.size <= rules.max_message
    left = len(reader.unread) - reader._pos
    assert left < 6 + 125 and (left or not reader.unread)


def _frames(source: Source, rules: Rules) -> Iterator[bytes]:
    compressor: Any = None
    while source:
        flags = source.byte()
        if flags >= 0xE0:
            yield source.blob()  # anything
        elif flags >= 0xC0:
            yield _frame(source.choose((8, 9, 10)), source.blob(), True, source)
        else:
            payload = source.blob() * source.choose((1, 1, 1, 1, 2, 3, 20, 1100))
            compressed = rules.bits is not None and flags & 4 > 0
            if compressed:
                if compressor is None or flags & 8:
                    compressor = zlib.compressobj(wbits=-(rules.bits or 15))
                payload, compressor = _compressed(payload, compressor, source)
            yield from _message(2 - (flags & 1), payload, compressed, source)


def _compressed(payload: bytes, compressor: Any, source: Source) -> tuple[bytes, Any]:
    """One message as a client might compress it, perhaps damaged."""
    way = source.byte()
    flush = (zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_FINISH)[way % 3]
    data = bytearray(compressor.compress(payload) + compressor.flush(flush))
    if flush != zlib.Z_FINISH:
        del data[-4:]
    elif way & 16:
        data += b"\0"
    if way & 128 and data:
        data[source.byte() % len(data)] ^= source.byte()
    return bytes(data), None if flush == zlib.Z_FINISH else compressor


def _message(opcode: int, payload: bytes, compressed: bool, source: Source) -> Iterator[bytes]:
    """Up to four frames, perhaps with a control frame between them."""
    cuts = sorted(source.byte() % (len(payload) + 1) for _ in range(source.byte() & 3))
    for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(payload)], strict=True)):
        if number and source.byte() & 1:
            yield _frame(source.choose((9, 10, 8)), source.blob(), True, source)
        frame = _frame(0 if number else opcode, payload[start:end], number == len(cuts), source)
        yield bytes([frame[0] | (compressed and not number) << 6]) + frame[1:]


def _frame(opcode: int, payload: bytes, last: bool, source: Source) -> bytes:
    damage, mask = source.byte(), source.choose((bytes(4), b"\x01\x02\x03\x04", b"\xff\x80\x7f\x20"))
    size = len(payload)
    if size > 65535 or damage == 255:
        head = b"\xff" + size.to_bytes(8, "big")
    elif size > 125 or damage == 254:
        head = b"\xfe" + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | size])
    first = last << 7 | opcode
    if damage == 253:
        first ^= 1 << source.byte() % 8
    masked = bytes(a ^ b for a, b in zip(payload, mask * (size // 4 + 1), strict=False)) if any(mask) else payload
    return bytes([first]) + head + mask + masked


# The handshake.


def extensions(data: bytes) -> None:
    """Settings, and the text of Sec-WebSocket-Extensions: as ``websockets`` understands it, where it does."""
    source = Source(data)
    flags = source.byte()
    settings = Deflate(
        server_max_window_bits=9 + source.byte() % 7,
        client_max_window_bits=8 + source.byte() % 8,
        server_no_context_takeover=flags & 1 > 0,
        client_no_context_takeover=flags & 2 > 0,
    )
    header = source.rest().decode("latin-1").strip(" \t")
    found = negotiate(header, settings)
    if found is not None:
        _check_agreement(*found, settings)
    try:
        offers: Any = parse_extension(header)
    except InvalidHeader:
        return
    if any(("server_max_window_bits", "8") in parameters for _, parameters in offers):
        return  # which we grant, and websockets declines, since zlib has no such window for deflating
    assert (found[1] if found else None) == _granted(offers, settings), (header, found)


def _check_agreement(answer: str, agreed: Agreement, settings: Deflate) -> None:
    ((name, parameters),) = parse_extension(answer)
    values: dict[Any, Any] = dict(parameters)
    assert name == "permessage-deflate" and len(values) == len(parameters)
    read = [field in values for field in Agreement._fields[:2]]
    read += [int(values.get(field) or 15) for field in Agreement._fields[2:]]  # type: ignore[misc]
    assert Agreement(*read) == agreed
    assert 8 <= agreed.server_max_window_bits <= settings.server_max_window_bits
    Inflater(agreed).inflate(Deflater(agreed, settings).deflate(b"x" * 100), 100)


def _granted(offers: Any, settings: Deflate) -> Agreement | None:
    """The first offer that ``websockets`` grants, and how."""
    factory = ServerPerMessageDeflateFactory(
        settings.server_no_context_takeover,
        settings.client_no_context_takeover,
        settings.server_max_window_bits,
        settings.client_max_window_bits,
    )
    for name, parameters in offers:
        if name != "permessage-deflate":
            continue
        try:
            extension: Any = factory.process_request_params(parameters, [])[1]
        except NegotiationError:
            continue
        return Agreement(
            extension.local_no_context_takeover,
            extension.remote_no_context_takeover,
            extension.local_max_window_bits,
            extension.remote_max_window_bits,
        )
    return None


HEADERS = [
    "HTTP_ORIGIN",
    "HTTP_HOST",
    "HTTP_CONNECTION",
    "HTTP_UPGRADE",
    "HTTP_SEC_WEBSOCKET_KEY",
    "HTTP_SEC_WEBSOCKET_VERSION",
    "HTTP_SEC_WEBSOCKET_PROTOCOL",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_TRANSFER_ENCODING",
    "CONTENT_LENGTH",
]
KEYS = [*HEADERS, "REQUEST_METHOD", "SERVER_PROTOCOL"]  # WSGI always has these two
RIGHT = {
    "HTTP_HOST": "localhost",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_UPGRADE": "websocket",
    "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
    "REQUEST_METHOD": "GET",
    "SERVER_PROTOCOL": "HTTP/1.1",
}
ORIGINS: list[Any] = [None, "*", ["https://*.example.org", "http://localhost:8000"], ["https://[::1]"]]


def handshakes(data: bytes) -> None:
    """Lines that begin with the letter of a header, and replace it; in front of them the options."""
    source = Source(data)
    options = Options(origins=source.choose(ORIGINS), subprotocols=["chat", "v2.chat"])
    environ: dict[str, Any] = dict(RIGHT)
    while source:
        line = source.line()
        if line[:1] == "-":
            environ.pop(HEADERS[ord(line[1:2] or "\0") % len(HEADERS)], None)
        elif line:
            environ[KEYS[ord(line[0]) % len(KEYS)]] = line[1:].strip(" \t")
    is_upgrade(environ)
    try:
        check(environ, options)
    except HTTPException as refusal:
        _check_refusal(refusal, environ)
    else:
        _check_accepted(environ, options)


def _check_refusal(refusal: HTTPException, environ: dict[str, Any]) -> None:
    """It can be sent."""
    status: Any = refusal.code
    assert status in (400, 403, 426)
    body, sent, headers = run_wsgi_app(refusal, {"wsgi.url_scheme": "http", **environ})
    assert sent.startswith(str(status)) and b"".join(body).decode() and headers["Content-Type"]


def _check_accepted(environ: dict[str, Any], options: Options) -> None:
    headers = dict(accept_headers(environ, options))
    assert headers["Sec-WebSocket-Accept"] == accept_key(environ["HTTP_SEC_WEBSOCKET_KEY"])
    assert is_upgrade(environ) and all(environ[key] == RIGHT[key] for key in ("REQUEST_METHOD", "SERVER_PROTOCOL"))
    chosen = headers.get("Sec-WebSocket-Protocol")
    assert chosen is None or chosen in environ["HTTP_SEC_WEBSOCKET_PROTOCOL"]


def origins(data: bytes) -> None:
    """Three lines: an origin, a host, and an allowed origin, which may be any text."""
    source = Source(data)
    text, host, pattern = source.line(), source.line(), source.line()
    origin = parse(text)
    if origin is not None:
        port = "" if origin.port is None else f":{origin.port}"
        assert parse(f"{origin.scheme}://{origin.host}{port}") == origin
        assert is_allowed(text, origin.host + port, None)
    if is_allowed(text, host, None):
        assert origin is not None and host.lower().startswith(origin.host)
        _, _, port = host[len(origin.host) :].rpartition(":")
        default = {"http": 80, "https": 443, "ws": 80, "wss": 443}.get(origin.scheme)
        assert len(host) == len(origin.host) + len(port) + bool(port)
        assert origin.port == (int(port) if port else default)
    try:
        allowed: Any = Options(origins=[pattern]).origins
    except ValueError:
        return
    if is_allowed(text, host, allowed):
        meant = parse(pattern)
        assert origin is not None and meant is not None
        assert (origin.scheme, origin.port) == (meant.scheme, meant.port)
        assert origin.host.endswith(meant.host.removeprefix("*"))


# What a callback returns.

TAGS = [
    "ok",
    "push",
    "reply",
    "stop",
    "normal",
    "shutdown",
    "restart",
    "disconnected",
    "text",
    "binary",
    "ping",
    "pong",
]
CODES = [
    0,
    999,
    1000,
    1003,
    1004,
    1005,
    1006,
    1007,
    1011,
    1012,
    1014,
    1015,
    2999,
    3000,
    4999,
    5000,
    65536,
    -1,
    10**5000,
]
NUMBERS = [True, False, None, 0.0, 1e400, float("nan"), 1000.0, 1j]
STATE = object()


class Text(str):
    """A str that is none of the very type."""


class Pair(tuple[Any, ...]):
    """A tuple that is none of the very type, as named ones are."""


def results(data: bytes) -> None:
    """Any value at all, or a tuple with the right tag and arity, as a callback's result."""
    source = Source(data)
    flags = source.byte()
    alone = flags & 1 > 0
    agreed = Agreement(alone, alone, 15, 15)
    deflater = Deflater(agreed, Deflate(threshold=8)) if flags & 2 else None
    result = _result(source) if flags & 12 else _value(source, 4)
    try:
        frames, state, stop = interpret(result, deflater)
    except (TypeError, ValueError) as error:
        assert str(error) and not _must_be_right(result)
        return
    assert type(result) in (tuple, Pair) and state is result[-1]
    _check_frames(frames, _messages(result), agreed if deflater is not None else None)
    assert (stop is None) == (result[0] != "stop")
    if stop is not None:
        _check_stop(stop, result)


def _must_be_right(result: Any) -> bool:
    """Whatever is in them, these are results."""
    return type(result) is tuple and (*result[:1], len(result)) in (("ok", 2), ("stop", 3))


def _result(source: Source) -> tuple[Any, ...]:
    tag = source.choose(TAGS[:4])
    if tag == "stop":
        values = [_value(source, 3) for _ in range(1 + source.byte() % 3)]
        return (tag, *values, STATE)
    return (tag, *(_value(source, 3) for _ in range({"ok": 0, "push": 1, "reply": 2}[tag])), STATE)


def _value(source: Source, depth: int) -> Any:
    """Some Python value."""
    way = source.byte() % (14 if depth else 10)
    if way >= 10:
        values = [_value(source, depth - 1) for _ in range(source.byte() % 5)]
        return {10: list, 11: tuple, 12: Pair, 13: lambda items: {"text": items}}[way](values)
    makers: list[Callable[[], Any]] = [
        lambda: source.choose(TAGS),
        lambda: source.choose(CODES),
        lambda: source.choose(NUMBERS),
        lambda: source.blob().decode("utf-8", "surrogateescape") * source.choose((1, 1, 2, 3)),
        lambda: source.blob() * source.choose((1, 2, 3, 5000)),
        lambda: bytearray(source.blob()),
        lambda: memoryview(source.blob())[:: source.choose((1, 2, -1))],
        lambda: _released(source.blob()),
        lambda: Text(source.choose(TAGS)),
        lambda: source.choose((object(), str, set(), interpret, frozenset((1,)))),
    ]
    return makers[way]()


def _released(data: bytes) -> memoryview:
    view = memoryview(data)
    view.release()
    return view


def _messages(result: tuple[Any, ...]) -> list[Any]:
    """What is to be sent, told in another way: opcode and payload for each message."""
    place = {("push", 3): 1, ("reply", 4): 2, ("stop", 5): 3}.get((str(result[0]), len(result)))
    messages = [] if place is None else result[place] if isinstance(result[place], list) else [result[place]]
    opcodes = {"text": 1, "binary": 2, "ping": 9, "pong": 10}
    told = [message if type(message) is tuple else (None, message) for message in messages]
    return [(opcodes[tag] if tag else 1 if isinstance(rest[0], str) else 2, *rest) for tag, *rest in told]


def _check_frames(frames: list[bytes], messages: list[Any], agreed: Agreement | None) -> None:
    stream: Any = None
    frames = list(_whole(frames))
    assert len(frames) == len(messages)
    for frame, (opcode, payload, *_) in zip(frames, messages, strict=True):
        compressed, data = frame[0] & 0x40, _payload(frame)
        assert frame[0] & 0xBF == 0x80 | opcode and (agreed is not None or not compressed)
        if compressed:
            stream = zlib.decompressobj(-15) if stream is None else stream
            data = stream.decompress(data + b"\0\0\xff\xff")
        assert data == (payload.encode() if isinstance(payload, str) else bytes(payload))


def _whole(pieces: list[bytes]) -> Iterator[bytes]:
    """A long frame comes in two pieces, the first of which is its header."""
    left = iter(pieces)
    for piece in left:
        yield piece + next(left) if len(piece) == 10 and piece[1] == 127 else piece


def _payload(frame: bytes) -> bytes:
    """Of a server's one frame, with its length in the least form."""
    size = frame[1]
    start = {126: 4, 127: 10}.get(size, 2)
    length = int.from_bytes(frame[2:start], "big") if start > 2 else size
    assert len(frame) == start + length and length >= {2: 0, 4: 126, 10: 65536}[start]
    return frame[start:]


def _check_stop(stop: Any, result: tuple[Any, ...]) -> None:
    reasons: list[tuple[Any, int]] = [("normal", 1000), (("shutdown", "restart"), 1012)]
    reasons.append((("shutdown", "disconnected"), 1000))
    codes = [code for reason, code in reasons if result[1] == reason]
    assert stop.reason == "normal" if codes else stop.reason[0] == "error" and stop.reason[1] is result[1]
    given = result[2] if len(result) > 3 else (codes or [1011])[0]
    code, text = given if isinstance(given, tuple) else (given, None)
    assert (stop.code, stop.text) == (code, text or "") and is_sendable(stop.code)
    assert _payload(close_frame(stop.code, stop.text)) == code.to_bytes(2, "big") + (text or "").encode()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "bytes": read_bytes,
    "frames": read_frames,
    "extensions": extensions,
    "handshakes": handshakes,
    "origins": origins,
    "results": results,
}


def _sent(first: int, payload: bytes) -> bytes:
    """A short frame, masked with zeros."""
    head = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes([first]) + head + bytes(4) + payload


def _deflated(*messages: bytes) -> list[bytes]:
    """Frames of messages that refer back to each other."""
    compressor = zlib.compressobj(wbits=-15)
    return [_sent(0xC2, (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]) for data in messages]


_HELLO = bytes.fromhex("818500000000") + b"Hello"
_PACKED = bytes.fromhex("c187000000003248cdc9c90700")  # RFC 7692 §7.2.3.1, masked with zeros
#: Where fuzzing begins.
SEEDS: dict[str, list[bytes]] = {
    "bytes": [
        b"\0\0\0\3" + _HELLO + b"\x89\x80\0\0\0\0" + b"\x88\x82\0\0\0\0\x03\xe8",
        b"\2\0\1\1" + _PACKED + _PACKED,
        b"\0\0\2\5" + b"\x01\x83\0\0\0\0\xf0\x9f\x8e\x8a\x81\0\0\0\0?\x80\x81\0\0\0\0\x88",
        b"\1\0\2\5\x82\xfe\0\x7e\0\0\0\0" + bytes(126),
        b"\0\0\2\5" + _sent(0x01, b"\xed\xa0"),
        b"\2\0\1\1" + _sent(0xC2, b"\x4b\x04\0") + _sent(0xC2, b"") + _sent(0xC2, b"\x4b\x04\0"),
        b"\2\0\1\1" + _sent(0xC2, b"\x4b\x04\0\0") + _sent(0xC2, b"") + _PACKED,
        b"\2\0\7\7" + _sent(0xC2, b"\x03\0" * 64) + _sent(0xC2, b"\x03\0" * 65),
        b"\x0a\0\1\1" + b"".join(_deflated(b"spam" * 9, b"spam" * 9)),
        b"\2\0\1\1" + b"".join(_deflated(b"spam" * 9, b"", b"spam" * 9)),
        *(b"\2\3\x20\x20" + _deflated(bytes(size))[0] for size in (300, 301)),
        *(b"\0\4\x50\1" + _sent(2, bytes(300)) + _sent(0, bytes(300)) * 2 + _sent(0x80, bytes(n)) for n in (100, 101)),
    ],
    "frames": [
        b"\2\0\7\3\4\5Hello\0\0\0\0\0\x04\5World\6\2\1\2\3\1\0\1x\0\0\1\0\0\xc0\1\2\3\xe8\0\0",
        b"\4\7\xff\1\4\3abc\6\0\0\0\0\4\3abc\6\2\0\0\0",
        b"\0\1\2\3\0\x20aaaaaaaabbbbbbbbccccccccdddddddd\3\3\1\2\3\0\0\1\0\0\0\0\0\0\0",
    ],
    "extensions": [
        b"\0\3\4permessage-deflate; client_max_window_bits",
        b'\3\6\7x-unknown, permessage-deflate; server_max_window_bits="1\\0"; client_no_context_takeover',
        b"\0\3\4permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
        b"\1\0\0permessage-deflate; server_max_window_bits=8, permessage-deflate; server_no_context_takeover",
    ],
    "handshakes": [
        b"\0\x0chttp://localhost\n\x0dlocalhost:80\n\x12chat, v2.chat",
        b"\2\x0chttps://a.example.org\n\x0ekeep-alive, Upgrade\n\x0fh2c, WebSocket",
        b"\0\x0chttp://other\n\x13a, other\n\x1160\n-\x11\n\x1512",
    ],
    "origins": [
        b"https://a.Example.org:443\na.example.org\nhttps://*.example.org",
        b"http://[::1]:8000\n[::1]:8000\nhttp://[::1]:8000",
        b"null\nlocalhost\nws://localhost:0",
        b"https://a.example.org\na.example.org.other\nhttps://*.example.org",
        b"https://another-example.org\nlocalhost\nhttps://*.example.org",
    ],
    "results": [
        b"\4\1\3\5hello",
        b"\6\1\12\3\3\1a\4\2bc\0\13\2\0\10\3\5hello",
        b"\4\3\2\0\4\13\2\1\3\3\3bye\3\4last",
        b"\0\13\2\0\0\3\1x",
        b"\4\3\0\x0a\0",
        b"\4\3\1\0\4\2\6",
        b"\4\3\1\0\4\x0b\2\1\2\3\x3e" + "é".encode() * 31 + b"\3",
    ],
}
