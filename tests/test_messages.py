"""What a client may send, what it may not, and how soon the reader says so (RFC 6455 §5).

Held here: every kind of message comes out the same however its bytes are cut; every violation is refused with its close
code and the clause it breaks, no sooner and no later than the byte that shows it, and behind the messages that came
before it; limits are exact; memory follows what has been received, never what has been announced.

Frames are made by `client_frame` below, which shares no code with the library.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any, NamedTuple

import pytest

from websock_gevent.errors import MessageTooBig, ProtocolError
from websock_gevent.messages import Item, MessageReader

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = bytes.fromhex("37fa213d")
LIMIT = 10_000_000
PAUSE: Item = (CONTINUATION, b"")  # nothing but "others first"


def client_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    length: bytes | None = None,
) -> bytes:
    """Build a frame bit by bit; ``length`` replaces the seven bits and what extends them, ``mask=None`` no mask."""
    size = len(payload)
    if length is None:
        long = b"\x7e" + size.to_bytes(2, "big") if size < 1 << 16 else b"\x7f" + size.to_bytes(8, "big")
        length = bytes([size]) if size < 126 else long
    first = fin << 7 | rsv << 4 | opcode
    if mask is None:
        return bytes([first]) + length + payload
    masked = bytes(byte ^ key for byte, key in zip(payload, cycle(mask)))
    return bytes([first, length[0] | 0x80]) + length[1:] + mask + masked


def begin(opcode: int, payload: bytes = b"", mask: bytes = MASK) -> bytes:
    return client_frame(opcode, payload, fin=False, mask=mask)


def go_on(payload: bytes = b"", mask: bytes = MASK) -> bytes:
    return client_frame(CONTINUATION, payload, fin=False, mask=mask)


def finish(payload: bytes = b"", mask: bytes = MASK) -> bytes:
    return client_frame(CONTINUATION, payload, mask=mask)


def table(names: str, rows: list[Any]) -> pytest.MarkDecorator:
    """Parametrize with rows of a name and the values."""
    return pytest.mark.parametrize(names.split(", "), [row[1:] for row in rows], ids=[row[0] for row in rows])


def make_reader(limit: int = LIMIT, validate_utf8: bool = True) -> MessageReader:
    return MessageReader(limit, limit, validate_utf8)


def take(reader: MessageReader, *chunks: bytes) -> list[Item]:
    """Feed chunk by chunk, and take what is complete behind each, as a connection does; leave the pauses out."""
    items = []
    for chunk in chunks:
        reader.feed(chunk)
        while (item := reader.next_item()) is not None:
            if item != PAUSE:
                items.append(item)
    return items


def single(wire: bytes) -> list[bytes]:
    return [wire[at : at + 1] for at in range(len(wire))]


def cuts(wire: bytes) -> list[int]:
    """Every place to cut; for long streams the edges and a sample of the middle, with every offset from the mask."""
    size = len(wire)
    return sorted({*range(min(size, 400)), *range(400, size, 1013), *range(max(0, size - 20), size)})


EURO = "€".encode()  # three bytes
CLEF = "𝄞".encode()  # four bytes
LONG = bytes(range(256)) * 256  # 65536 bytes
ZERO = bytes(4)

MESSAGES: list[tuple[str, bytes, Any]] = [
    ("rfc masked hello (5.7)", bytes.fromhex("818537fa213d7f9f4d5158"), [(TEXT, "Hello")]),
    ("rfc masked pong (5.7)", bytes.fromhex("8a8537fa213d7f9f4d5158"), [(PONG, b"Hello")]),
    ("empty text", client_frame(TEXT), [(TEXT, "")]),
    ("empty binary", client_frame(BINARY), [(BINARY, b"")]),
    ("one byte", client_frame(BINARY, b"\x00"), [(BINARY, b"\x00")]),
    ("zero mask", client_frame(TEXT, b"plain", mask=ZERO), [(TEXT, "plain")]),
    ("mask of ones", client_frame(BINARY, b"\x00\xff\x00\x01", mask=b"\xff" * 4), [(BINARY, b"\x00\xff\x00\x01")]),
    ("text of every width", client_frame(TEXT, "aé€𝄞\x00\U0010ffff".encode()), [(TEXT, "aé€𝄞\x00\U0010ffff")]),
    ("byte order mark is text", client_frame(TEXT, "\ufeffa".encode()), [(TEXT, "\ufeffa")]),
    ("text just below the surrogates", client_frame(TEXT, b"\xed\x9f\xbf\xee\x80\x80"), [(TEXT, "\ud7ff\ue000")]),
    ("binary need not be UTF-8", client_frame(BINARY, b"\xff\xfe\xc0"), [(BINARY, b"\xff\xfe\xc0")]),
    ("125 bytes", client_frame(BINARY, LONG[:125]), [(BINARY, LONG[:125])]),
    ("126 bytes", client_frame(BINARY, LONG[:126]), [(BINARY, LONG[:126])]),
    ("127 bytes of text", client_frame(TEXT, b"x" * 127), [(TEXT, "x" * 127)]),
    ("65535 bytes", client_frame(BINARY, LONG[:65535]), [(BINARY, LONG[:65535])]),
    ("65536 bytes", client_frame(BINARY, LONG), [(BINARY, LONG)]),
    ("65536 bytes of text", client_frame(TEXT, b"y" * 65536), [(TEXT, "y" * 65536)]),
    ("empty ping", client_frame(PING), [(PING, b"")]),
    ("long ping", client_frame(PING, LONG[:125]), [(PING, LONG[:125])]),
    ("ping that is not UTF-8", client_frame(PING, b"\xff"), [(PING, b"\xff")]),
    ("empty close", client_frame(CLOSE), [(CLOSE, b"")]),
    ("close with code and text", client_frame(CLOSE, b"\x03\xe8bye"), [(CLOSE, b"\x03\xe8bye")]),
    ("close payloads are not judged here", client_frame(CLOSE, b"\x00"), [(CLOSE, b"\x00")]),
    ("two messages", client_frame(TEXT, b"a") + client_frame(BINARY, b"b", mask=ZERO), [(TEXT, "a"), (BINARY, b"b")]),
    ("fragmented text", begin(TEXT, b"Hel") + finish(b"lo"), [(TEXT, "Hello")]),
    ("fragmented binary", begin(BINARY, b"\x01", ZERO) + go_on(b"\x02") + finish(b"\x03"), [(BINARY, b"\x01\x02\x03")]),
    ("a mask for each", begin(TEXT, b"abcde", b"\x01\x02\x03\xff") + finish(b"f", b"wxyz"), [(TEXT, "abcdef")]),
    ("only empty fragments of text", begin(TEXT) + go_on() + finish(), [(TEXT, "")]),
    ("only empty fragments of binary", begin(BINARY) + go_on() + finish(), [(BINARY, b"")]),
    ("an empty last fragment", begin(TEXT, b"all") + finish(), [(TEXT, "all")]),
    ("an empty first fragment", begin(BINARY) + finish(b"all"), [(BINARY, b"all")]),
    ("a long last fragment", begin(BINARY, b"a") + finish(LONG[:300]), [(BINARY, b"a" + LONG[:300])]),
    ("code point over two fragments", begin(TEXT, EURO[:1]) + finish(EURO[1:]), [(TEXT, "€")]),
    (
        "code point over four fragments, with empty ones",
        begin(TEXT, CLEF[:1]) + go_on(CLEF[1:2]) + go_on() + go_on(CLEF[2:3]) + finish(CLEF[3:]),
        [(TEXT, "𝄞")],
    ),
    (
        "control frames inside a message",
        begin(TEXT, b"a") + client_frame(PING, b"1") + go_on(b"b") + client_frame(PONG) + finish(b"c"),
        [(PING, b"1"), (PONG, b""), (TEXT, "abc")],
    ),
    (
        "a control frame inside a code point",
        begin(TEXT, EURO[:2]) + client_frame(PING, EURO) + finish(EURO[2:]),
        [(PING, EURO), (TEXT, "€")],
    ),
    ("close inside a message", begin(BINARY, b"a") + client_frame(CLOSE, b"\x03\xe8"), [(CLOSE, b"\x03\xe8")]),
    (
        "text behind a fragmented binary, and the reverse",
        begin(BINARY, b"\xff") + finish(b"\xfe") + begin(TEXT, b"t") + finish(b"u") + client_frame(BINARY, b"\xff"),
        [(BINARY, b"\xff\xfe"), (TEXT, "tu"), (BINARY, b"\xff")],
    ),
]  # fmt: skip
messages = table("wire, items", MESSAGES)


@messages
def test_a_message_fed_whole(wire: bytes, items: list[Item]) -> None:
    assert take(make_reader(), wire) == items


@messages
def test_a_message_fed_byte_by_byte(wire: bytes, items: list[Item]) -> None:
    reader = make_reader()
    assert take(reader, *single(wire)) == items


@messages
def test_a_message_in_two_pieces(wire: bytes, items: list[Item]) -> None:
    for cut in cuts(wire):
        assert take(make_reader(), wire[:cut], wire[cut:]) == items, cut


@messages
def test_a_message_with_another_frame_behind(wire: bytes, items: list[Item]) -> None:
    tail, item = client_frame(PING, b"tail", mask=b"tail"), (PING, b"tail")
    assert take(make_reader(), wire + tail) == [*items, item]
    for cut in range(1, len(tail)):
        assert take(make_reader(), wire + tail[:cut], tail[cut:]) == [*items, item], cut


@messages
def test_a_message_is_not_taken_before_its_last_byte(wire: bytes, items: list[Item]) -> None:
    assert take(make_reader(), wire[:-1]) == items[:-1]


@messages
def test_items_have_the_plain_types(wire: bytes, items: list[Item]) -> None:
    for item in take(make_reader(), wire):
        assert type(item) is tuple
        assert type(item[1]) is (str if item[0] == TEXT else bytes)


def test_items_may_be_taken_long_after_they_were_fed() -> None:
    reader = make_reader()
    for chunk in (client_frame(TEXT, b"a") + client_frame(TEXT, b"b")[:3], client_frame(TEXT, b"b")[3:], b""):
        reader.feed(chunk)
    assert [reader.next_item(), reader.next_item(), reader.next_item()] == [(TEXT, "a"), (TEXT, "b"), None]


class Violation(NamedTuple):
    name: str
    wire: bytes
    shown: int  # bytes that have to be received before it can be known
    text: str  # in the error
    code: int = 1002
    limit: int = LIMIT


def header(first: int, second: int, behind: bytes = b"") -> bytes:
    """A frame's beginning, with enough behind it that nothing waits for more bytes."""
    return bytes([first, second]) + behind + bytes(20)


OPEN = begin(TEXT, b"x")  # 7 bytes
OPEN_BINARY = begin(BINARY, b"x")

BITS = [
    Violation(f"reserved bits {bits:03b} of opcode {opcode}", header(0x80 | bits << 4 | opcode, 0x80), 2, "§5.2")
    for bits, opcode in [*((bits, TEXT) for bits in range(1, 8)), (4, BINARY), (4, PING), (2, CLOSE), (1, PONG)]
]
OPCODES = [
    Violation(f"reserved opcode {opcode}{'' if fin else ', not final'}", header(fin << 7 | opcode, 0x80), 2, "§5.2")
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    for fin in (True, False)
]
UNMASKED = [
    Violation(f"unmasked {name}", wire, 2, "§5.1")
    for name, wire in [
        ("text", client_frame(TEXT, b"Hello", mask=None)),
        ("empty text", client_frame(TEXT, mask=None) + bytes(20)),
        ("long binary", client_frame(BINARY, LONG[:126], mask=None)),
        ("very long binary", client_frame(BINARY, LONG, mask=None)),
        ("fragment", client_frame(BINARY, b"x", fin=False, mask=None)),
        ("ping", client_frame(PING, b"x", mask=None)),
        ("pong", client_frame(PONG, b"x", mask=None)),
        ("close", client_frame(CLOSE, b"\x03\xe8", mask=None)),
    ]
]
UNMASKED.append(Violation("unmasked continuation", OPEN + client_frame(CONTINUATION, b"y", mask=None), 9, "§5.1"))
CONTROL = [
    violation
    for name, opcode in (("close", CLOSE), ("ping", PING), ("pong", PONG))
    for violation in (
        Violation(f"fragmented {name}", client_frame(opcode, fin=False) + bytes(20), 2, "§5.5"),
        Violation(f"{name} of 126 bytes", client_frame(opcode, LONG[:126]), 2, "§5.5"),
        Violation(f"{name} of 65536 bytes", client_frame(opcode, LONG), 2, "§5.5"),
        Violation(f"{name} with a long form of its length", header(0x80 | opcode, 0xFE, b"\x00\x05"), 2, "§5.5"),
    )
]
ORDER = [
    Violation("continuation of nothing", finish(b"x"), 2, "§5.4"),
    Violation("continuation of nothing, not final", go_on(b"x"), 2, "§5.4"),
    Violation("continuation behind a whole message", client_frame(TEXT, b"x") + finish(b"y"), 9, "§5.4"),
    Violation("continuation behind a finished message", OPEN + finish(b"y") + finish(b"z"), 16, "§5.4"),
    Violation("text inside a text", OPEN + client_frame(TEXT, b"y"), 9, "§5.4"),
    Violation("binary inside a text", OPEN + client_frame(BINARY, b"y"), 9, "§5.4"),
    Violation("fragment of text inside a binary", OPEN_BINARY + begin(TEXT, b"y"), 9, "§5.4"),
    Violation("binary inside a binary that is empty so far", begin(BINARY) + client_frame(BINARY, b"y"), 8, "§5.4"),
]
LENGTHS = [
    Violation("0 in 16 bits", header(0x82, 0xFE, b"\x00\x00"), 4, "§5.2"),
    Violation("125 in 16 bits", header(0x81, 0xFE, b"\x00\x7d"), 4, "§5.2"),
    Violation("125 in 16 bits, and all of them", client_frame(TEXT, b"x" * 125, length=b"\x7e\x00\x7d"), 4, "§5.2"),
    Violation("125 in 16 bits, in a continuation", OPEN + header(0x80, 0xFE, b"\x00\x7d"), 11, "§5.2"),
    Violation("5 in 64 bits", header(0x82, 0xFF, (5).to_bytes(8, "big")), 10, "§5.2"),
    Violation("126 in 64 bits", header(0x82, 0xFF, (126).to_bytes(8, "big")), 10, "§5.2"),
    Violation("65535 in 64 bits", header(0x82, 0xFF, (65535).to_bytes(8, "big")), 10, "§5.2"),
    Violation("top bit of 64 bits", header(0x82, 0xFF, (1 << 63).to_bytes(8, "big")), 10, "§5.2"),
    Violation("top bit above a small length", header(0x82, 0xFF, (1 << 63 | 65536).to_bytes(8, "big")), 10, "§5.2"),
    Violation("all 64 bits", header(0x82, 0xFF, b"\xff" * 8), 10, "§5.2"),
]
SIZES = [
    Violation("frame over a limit below 126", client_frame(TEXT, b"x" * 11), 2, "§10.4", 1009, 10),
    Violation("binary over a limit below 126", client_frame(BINARY, b"x" * 125), 2, "§10.4", 1009, 124),
    Violation("frame over a limit below 65536", client_frame(BINARY, LONG[:1001]), 4, "§10.4", 1009, 1000),
    Violation("frame over a limit above 65535", client_frame(BINARY, LONG + b"x"), 10, "§10.4", 1009, 65536),
    Violation("largest length of all", header(0x82, 0xFF, b"\x7f" + b"\xff" * 7), 10, "§10.4", 1009),
    Violation("first fragment over the limit", begin(BINARY, b"x" * 11), 2, "§10.4", 1009, 10),
    Violation("two fragments", begin(BINARY, b"x" * 5) + finish(b"x" * 6), 13, "§10.4", 1009, 10),
    Violation("fragments of text", begin(TEXT, b"x" * 5) + go_on(b"x" * 5) + finish(b"x"), 24, "§10.4", 1009, 10),
    Violation("bytes count, not characters", begin(TEXT, EURO * 3) + finish(b"xx"), 17, "§10.4", 1009, 10),
    Violation(
        "a control frame between does not begin anew",
        begin(BINARY, b"x" * 9) + client_frame(PING, b"ping") + finish(b"xx"), 27, "§10.4", 1009, 10,
    ),
]  # fmt: skip


def utf8(name: str, payload: bytes, bad: int) -> Iterator[Violation]:
    """Text that becomes bad with its byte number ``bad``, in one frame and over two fragments cut at every place."""
    yield Violation(name, client_frame(TEXT, payload), 6 + bad, "§8.1", 1007)
    yield Violation(f"{name}, in a long frame", client_frame(TEXT, payload + b"." * 200), 8 + bad, "§8.1", 1007)
    for cut in range(len(payload) + 1):
        wire = begin(TEXT, payload[:cut]) + finish(payload[cut:], ZERO)
        yield Violation(f"{name}, fragmented at {cut}", wire, bad + (6 if bad <= cut else 12), "§8.1", 1007)


def truncated(name: str, payload: bytes) -> Iterator[Violation]:
    """Text that ends inside a code point, which only its end can show."""
    wires = [client_frame(TEXT, payload), begin(TEXT, payload) + finish(), begin(TEXT) + finish(payload)]
    for wire, how in zip(wires, ("one frame", "an empty last fragment", "an empty first fragment"), strict=True):
        yield Violation(f"{name}, {how}", wire, len(wire), "§8.1", 1007)


BAD_TEXT = [
    *utf8("lone continuation byte", b"ab\x80c", 3),
    *utf8("last continuation byte", b"\xbf", 1),
    *utf8("bytes that never occur", b"ok\xff", 3),
    *utf8("fe", b"\xfe\x83\xbf\xbf\xbf\xbf\xbf", 1),
    *utf8("two bytes, overlong", b"\xc0\xaf", 1),
    *utf8("two bytes, overlong by one bit", b"\xc1\xbf", 1),
    *utf8("three bytes, overlong", b"a\xe0\x80\xaf", 3),
    *utf8("three bytes, overlong by one bit", b"\xe0\x9f\xbf", 2),
    *utf8("four bytes, overlong", b"\xf0\x80\x80\xaf", 2),
    *utf8("four bytes, overlong by one bit", b"\xf0\x8f\xbf\xbf", 2),
    *utf8("overlong null", b"\xc0\x80", 1),
    *utf8("first surrogate", b"\xed\xa0\x80", 2),
    *utf8("last surrogate", b"x\xed\xbf\xbf", 3),
    *utf8("a pair of surrogates", b"\xed\xa0\xb4\xed\xb4\x9e", 2),
    *utf8("110000", b"\xf4\x90\x80\x80", 2),
    *utf8("far above 10ffff", b"\xf5\x80\x80\x80", 1),
    *utf8("five bytes", b"\xf8\x88\x80\x80\x80", 1),
    *utf8("six bytes", b"\xfc\x84\x80\x80\x80\x80", 1),
    *utf8("interrupted code point", b"\xe2\x82a", 3),
    *utf8("code point inside a code point", b"\xe2\xe2\x82\xac", 2),
    *utf8("good text, bad byte, good text", "κόσμε".encode() + b"\xed\xa0\x80edited", 12),
    *truncated("one of two bytes", b"a\xc3"),
    *truncated("one of three bytes", b"\xe2"),
    *truncated("two of three bytes", b"a\xe2\x82"),
    *truncated("three of four bytes", b"a\xf0\x9d\x84"),
]

VIOLATIONS = [*BITS, *OPCODES, *UNMASKED, *CONTROL, *ORDER, *LENGTHS, *SIZES, *BAD_TEXT]
violations = pytest.mark.parametrize("violation", VIOLATIONS, ids=[violation.name for violation in VIOLATIONS])


def is_refused(reader: MessageReader, violation: Violation, *chunks: bytes) -> None:
    kind = MessageTooBig if violation.code == 1009 else ProtocolError
    with pytest.raises(kind, match=f"RFC 6455 {violation.text}") as caught:
        take(reader, *chunks)
    assert type(caught.value) is kind
    assert caught.value.code == violation.code


@violations
def test_a_violation_is_shown_by_one_byte(violation: Violation) -> None:
    reader = make_reader(violation.limit)
    early = single(violation.wire[: violation.shown])
    take(reader, *early[:-1])
    is_refused(reader, violation, early[-1])


@violations
def test_a_violation_is_found_in_what_has_come_so_far(violation: Violation) -> None:
    take(make_reader(violation.limit), violation.wire[: violation.shown - 1])
    is_refused(make_reader(violation.limit), violation, violation.wire[: violation.shown])


@violations
def test_a_violation_is_found_however_its_bytes_are_cut(violation: Violation) -> None:
    is_refused(make_reader(violation.limit), violation, violation.wire)
    for cut in cuts(violation.wire):
        is_refused(make_reader(violation.limit), violation, violation.wire[:cut], violation.wire[cut:])


@violations
def test_messages_before_a_violation_are_delivered(violation: Violation) -> None:
    reader = make_reader(violation.limit)
    reader.feed(client_frame(TEXT, b"first") + client_frame(PING) + begin(BINARY, b"s") + finish() + violation.wire)
    assert [reader.next_item() for _ in range(3)] == [(TEXT, "first"), (PING, b""), (BINARY, b"s")]
    is_refused(reader, violation, b"")


@pytest.mark.parametrize("name", ["text of 11 bytes", "fragments"])
def test_an_error_says_which_size_and_which_limit(name: str) -> None:
    wire, words = {
        "text of 11 bytes": (client_frame(TEXT, b"x" * 11), "frame of 11 bytes, max_frame_size is 10 "),
        "fragments": (begin(TEXT, b"x" * 9) + finish(b"x" * 8), "message of 17 bytes, max_message_size is 16 "),
    }[name]
    with pytest.raises(MessageTooBig, match=words):
        take(MessageReader(10, 16), wire)


# Limits. The two are apart: a frame is held to one, what its fragments add up to is held to the other.

WITHIN: list[tuple[str, int, int, bytes, Any]] = [
    ("text of a limit below 126", 10, 10, client_frame(TEXT, b"x" * 10), [(TEXT, "x" * 10)]),
    ("frame of a limit below 65536", 1000, 1000, client_frame(BINARY, LONG[:1000]), [(BINARY, LONG[:1000])]),
    ("frame of a limit above 65535", 65536, 65536, client_frame(BINARY, LONG), [(BINARY, LONG)]),
    ("fragments up to the limit", 10, 10, begin(TEXT, b"x" * 4) + go_on(b"x" * 6) + finish(), [(TEXT, "x" * 10)]),
    ("message longer than a frame may be", 2, 5, begin(TEXT, b"ab") + go_on(b"cd") + finish(b"e"), [(TEXT, "abcde")]),
    ("the next message begins at 0", 5, 5, 2 * (begin(BINARY, b"123") + finish(b"45")), 2 * [(BINARY, b"12345")]),
    ("control frames are not held to it", 10, 10, client_frame(PING, b"p" * 125), [(PING, b"p" * 125)]),
    (
        "control frames do not add to the message", 10, 10,
        begin(TEXT, b"x" * 9) + client_frame(PONG, b"p" * 125) + finish(b"x"), [(PONG, b"p" * 125), (TEXT, "x" * 10)],
    ),
]  # fmt: skip


@table("frame, message, wire, items", WITHIN)
def test_a_size_at_the_limit_passes(frame: int, message: int, wire: bytes, items: list[Item]) -> None:
    assert take(MessageReader(frame, message), wire) == items
    assert take(MessageReader(frame, message), *single(wire)) == items


@pytest.mark.parametrize(
    ("frame", "message", "wire", "shown"),
    [
        (4, 9, client_frame(TEXT, b"x" * 5), 2),
        (4, 9, begin(TEXT, b"x" * 4) + finish(b"x" * 5), 12),
        (4, 9, begin(TEXT, b"x" * 4) + go_on(b"x" * 4) + finish(b"xx"), 22),
        (9, 4, client_frame(TEXT, b"x" * 5), 2),
        (9, 4, begin(BINARY, b"x" * 5), 2),
        (1000, 200, client_frame(BINARY, LONG[:201]), 4),
    ],
    ids=[
        "frame",
        "later frame",
        "message",
        "message of one frame",
        "message of a first frame",
        "long message of one frame",
    ],
)
def test_frame_and_message_have_limits_of_their_own(frame: int, message: int, wire: bytes, shown: int) -> None:
    for pieces in ([wire], [wire[:shown]], single(wire[:shown])):
        reader = MessageReader(frame, message)
        reader.feed(b"".join(pieces[:-1]))
        assert reader.next_item() is None
        with pytest.raises(MessageTooBig) as caught:
            take(reader, pieces[-1])
        assert caught.value.code == 1009


# Text that is not checked.

UNCHECKED = [
    ("valid text", "aé€𝄞".encode()),
    ("lone continuation bytes", b"a\x80\xbfb"),
    ("never valid", b"\xfe\xff"),
    ("overlong", b"\xc0\xaf\xe0\x80\xaf\xf0\x80\x80\xaf"),
    ("surrogates", b"\xed\xa0\xb4\xed\xb4\x9e"),
    ("above 10ffff", b"\xf4\x90\x80\x80"),
    ("interrupted", b"\xe2\x82a\xf0\x9d\x84b"),
    ("truncated", b"a\xf0\x9d\x84"),
    ("latin-1", "Grüße".encode("latin-1")),
]


@table("payload", UNCHECKED)
def test_unchecked_text_keeps_its_bytes(payload: bytes) -> None:
    expected = [(TEXT, payload.decode("utf-8", "surrogateescape"))]
    whole = client_frame(TEXT, payload)
    assert take(make_reader(validate_utf8=False), whole) == expected
    assert take(make_reader(validate_utf8=False), *single(whole)) == expected
    for cut in range(len(payload) + 1):
        wire = begin(TEXT, payload[:cut]) + finish(payload[cut:])
        [(_, text)] = take(make_reader(validate_utf8=False), wire)
        assert text == expected[0][1]
        assert isinstance(text, str) and text.encode("utf-8", "surrogateescape") == payload


def test_unchecked_text_is_still_held_to_everything_else() -> None:
    with pytest.raises(MessageTooBig):
        take(make_reader(10, validate_utf8=False), client_frame(TEXT, b"\xff" * 11))
    with pytest.raises(ProtocolError):
        take(make_reader(validate_utf8=False), client_frame(TEXT, b"\xff", rsv=4))


def test_the_treatment_of_text_can_be_asked_for() -> None:
    assert (make_reader().errors, make_reader(validate_utf8=False).errors) == ("strict", "surrogateescape")


# Memory, as seen by tracemalloc: what is allocated between two points, whatever was there before.


def allocated(work: Callable[[], object]) -> tuple[int, int]:
    """Return the bytes still held behind ``work`` and the most that were held during it."""
    tracemalloc.start()
    try:
        kept = work()
        now, peak = tracemalloc.get_traced_memory()
        del kept
    finally:
        tracemalloc.stop()
    return now, peak


@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
@pytest.mark.parametrize("final", [True, False], ids=["final", "fragment"])
def test_nothing_is_allocated_by_a_declared_length(opcode: int, final: bool) -> None:
    wire = header(final << 7 | opcode, 0xFF, (1 << 40).to_bytes(8, "big"))

    def work() -> MessageReader:
        reader = make_reader(1 << 41)
        assert take(reader, wire, *single(b"some of the payload")) == []
        return reader

    work()
    assert allocated(work)[1] < 20_000


@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
@pytest.mark.parametrize("payload", [b"", b"x", EURO], ids=["empty", "one byte", "three bytes"])
def test_many_small_fragments_cost_their_payload(opcode: int, payload: bytes) -> None:
    count = 100_000
    chunk = 1000 * go_on(payload)
    reader = make_reader()
    take(reader, begin(opcode, payload))

    def work() -> None:
        assert take(reader, *(chunk for _ in range(count // 1000))) == []

    _, peak = allocated(work)
    assert peak < 4 * count * len(payload) + 50_000
    whole = (count + 1) * payload
    assert take(reader, finish()) == [(opcode, whole.decode() if opcode == TEXT else whole)]


def test_a_long_message_costs_its_payload_while_it_comes() -> None:
    size = 4_000_000
    wire = client_frame(BINARY, bytes(size), mask=ZERO)
    chunks = [wire[at : at + 65536] for at in range(0, len(wire), 65536)]

    def work() -> object:
        return take(make_reader(), *chunks)

    work()
    now, peak = allocated(work)
    assert size <= now < size + 100_000
    assert peak < 2.5 * size


@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_an_unfinished_message_costs_no_more_than_its_payload_whatever_is_in_it(opcode: int) -> None:
    """A character outside the BMP makes each one of a ``str`` take four bytes."""
    piece = b"x" * 65_532 + "🎈".encode()
    wire = begin(opcode, piece) + 60 * go_on(piece)
    size = 61 * len(piece)

    def work() -> MessageReader:
        reader = make_reader()
        assert take(reader, *(wire[at : at + 65536] for at in range(0, len(wire), 65536))) == []
        return reader

    work()
    assert size <= allocated(work)[0] < 1.25 * size


@pytest.mark.parametrize(
    "wire",
    [
        b"".join(client_frame(BINARY, b"x" * 100) for _ in range(1000)),
        begin(TEXT, b"x" * 65000) + finish(b"x" * 35000),
        client_frame(BINARY, bytes(100_000), mask=ZERO),
        client_frame(BINARY, bytes(100_000), mask=ZERO) + client_frame(PING, b"x"),
    ],
    ids=["short messages", "fragments", "long message", "control frame last"],
)
def test_an_idle_reader_holds_nothing_of_what_it_received(wire: bytes) -> None:
    def work() -> MessageReader:
        reader = make_reader()
        take(reader, bytes(bytearray(wire)))
        return reader

    work()
    now, peak = allocated(work)
    assert peak > len(wire)
    assert now < 10_000


def test_many_fragments_come_with_pauses_for_others() -> None:
    """Each item that stands for nothing says that there may be more."""
    reader = make_reader()
    assert take(reader, begin(1, b"one")) == []
    reader.feed(go_on() * 5000 + finish(b"!"))
    items = list(iter(reader.next_item, None))
    assert items[-1] == (1, "one!")
    assert items[:-1] == [PAUSE] * (5000 // 128)
