"""What a callback may return, and what becomes of it: frames, state, close code, and the reason for ``terminate``.

Held here: each form of a result with each form of messages; the table from stop reason to close code and terminate
reason; that everything else is refused by an error that shows the value and what is accepted; what `WebSock` does for
callbacks that are not written. What a type checker sees of all this is in `test_misuse`.

Frames are read by ``websockets``, not by the library.
"""

from __future__ import annotations

import array
import logging
import re
from typing import Any

import pytest
from websockets.frames import Frame
from websockets.streams import StreamReader

from websock_gevent.frames import CloseCode
from websock_gevent.websock import Stop, WebSock, encode, interpret

Decoded = tuple[str, bytes]
STATE = object()


def table(names: str, rows: list[Any]) -> pytest.MarkDecorator:
    """Parametrize with rows of a name and the values."""
    return pytest.mark.parametrize(names.split(", "), [row[1:] for row in rows], ids=[row[0] for row in rows])


def decode(encoded: bytes) -> Decoded:
    """Read one frame, which must be final and unmasked and all there is."""
    stream = StreamReader()
    stream.feed_data(encoded)
    stream.feed_eof()
    parser = Frame.parse(stream.read_exact, mask=False)
    try:
        while True:
            next(parser)
    except StopIteration as done:
        frame = done.value
    assert frame.fin
    assert type(encoded) is bytes and not stream.buffer
    return frame.opcode.name.lower(), bytes(frame.data)


# Messages.

NUMBERS = array.array("I", [1, 2])

MESSAGES: list[tuple[str, Any, list[Decoded]]] = [
    ("text", "héllo", [("text", "héllo".encode())]),
    ("empty text", "", [("text", b"")]),
    ("long text", "€" * 20_000, [("text", "€".encode() * 20_000)]),
    ("subclass of str", type("Tag", (str,), {})("x"), [("text", b"x")]),
    ("bytes", b"\x00\xff", [("binary", b"\x00\xff")]),
    ("empty bytes", b"", [("binary", b"")]),
    ("bytearray", bytearray(b"ab"), [("binary", b"ab")]),
    ("memoryview", memoryview(b"abcd")[1:3], [("binary", b"bc")]),
    ("memoryview with gaps", memoryview(b"abcd")[::2], [("binary", b"ac")]),
    ("memoryview of numbers", memoryview(NUMBERS), [("binary", NUMBERS.tobytes())]),
    ("tagged text", ("text", "a"), [("text", b"a")]),
    ("tagged binary", ("binary", b"a"), [("binary", b"a")]),
    ("tagged bytearray", ("binary", bytearray(b"a")), [("binary", b"a")]),
    ("tagged memoryview of numbers", ("binary", memoryview(NUMBERS)), [("binary", NUMBERS.tobytes())]),
    ("ping", ("ping", b"a"), [("ping", b"a")]),
    ("empty ping", ("ping", b""), [("ping", b"")]),
    ("longest ping", ("ping", b"x" * 125), [("ping", b"x" * 125)]),
    ("pong", ("pong", bytearray(b"a")), [("pong", b"a")]),
    ("longest pong", ("pong", memoryview(b"x" * 125)), [("pong", b"x" * 125)]),
    ("no messages", [], []),
    ("list of one", ["a"], [("text", b"a")]),
    (
        "list of all kinds, in order",
        ["a", b"b", ("ping", b"c"), bytearray(b"d"), ("text", "e"), ("pong", b"f"), ("binary", b"g"), memoryview(b"h")],
        [("text", b"a"), ("binary", b"b"), ("ping", b"c"), ("binary", b"d"),
         ("text", b"e"), ("pong", b"f"), ("binary", b"g"), ("binary", b"h")],
    ),
]  # fmt: skip
messages = table("given, frames", MESSAGES)


@messages
def test_push(given: Any, frames: list[Decoded]) -> None:
    encoded, state, stop = interpret(("push", given, STATE))
    assert ([decode(frame) for frame in encoded], state, stop) == (frames, STATE, None)


@messages
def test_reply(given: Any, frames: list[Decoded]) -> None:
    encoded, state, stop = interpret(("reply", object(), given, STATE))
    assert ([decode(frame) for frame in encoded], state, stop) == (frames, STATE, None)


@messages
def test_stop_with_messages(given: Any, frames: list[Decoded]) -> None:
    encoded, state, stop = interpret(("stop", "normal", 1001, given, STATE))
    assert ([decode(frame) for frame in encoded], state, stop) == (frames, STATE, Stop(1001, "", "normal"))


@messages
def test_encode(given: Any, frames: list[Decoded]) -> None:
    assert [decode(frame) for frame in encode(given)] == frames


def test_ok() -> None:
    assert interpret(("ok", STATE)) == ([], STATE, None)


@pytest.mark.parametrize("state", [None, 0, (), [], {}, ("ok",)], ids=repr)
def test_any_state_will_do(state: object) -> None:
    results: list[Any] = [("ok", state), ("push", "x", state), ("reply", "ok", "x", state), ("stop", 1, state)]
    results += [("stop", 1, 1000, state), ("stop", 1, 1000, "x", state)]
    for result in results:
        assert interpret(result)[1] is state


def test_a_result_does_not_gather_the_frames_of_the_last_one() -> None:
    encoded = interpret(("push", [], 1))[0]
    encoded += interpret(("push", "x", 1))[0]
    assert interpret(("ok", 1))[0] == interpret(("stop", "normal", 1))[0] == []


@pytest.mark.parametrize("wrap", [bytearray, lambda data: memoryview(bytearray(data))], ids=["bytearray", "memoryview"])
@pytest.mark.parametrize("tag", [None, "binary", "ping", "pong"])
@pytest.mark.parametrize("listed", [False, True], ids=["alone", "in a list"])
def test_a_buffer_may_be_reused_at_once(wrap: Any, tag: str | None, listed: bool) -> None:
    buffer = wrap(b"before")
    message = buffer if tag is None else (tag, buffer)
    [frame] = encode([message] if listed else message)
    buffer[:] = b"behind"
    assert decode(frame) == (tag or "binary", b"before")


# Stops.

UNHASHABLE: list[Any] = ["a list"]
REASONS: list[tuple[Any, int, Any]] = [
    ("normal", 1000, "normal"),
    (("shutdown", "restart"), 1012, "normal"),
    (("shutdown", "disconnected"), 1000, "normal"),
    (("shutdown", "other"), 1011, ("error", ("shutdown", "other"))),
    ("shutdown", 1011, ("error", "shutdown")),
    ("remote", 1011, ("error", "remote")),
    ("timeout", 1011, ("error", "timeout")),
    (("error", "x"), 1011, ("error", ("error", "x"))),
    ("Normal", 1011, ("error", "Normal")),
    (None, 1011, ("error", None)),
    (1000, 1011, ("error", 1000)),
    (UNHASHABLE, 1011, ("error", UNHASHABLE)),
    (["shutdown", "restart"], 1011, ("error", ["shutdown", "restart"])),
]
reasons = pytest.mark.parametrize(("reason", "code", "final"), REASONS, ids=[repr(row[0]) for row in REASONS])


@reasons
def test_a_reason_has_a_code(reason: Any, code: int, final: Any) -> None:
    assert interpret(("stop", reason, STATE)) == ([], STATE, Stop(code, "", final))


@reasons
@pytest.mark.parametrize(
    ("close", "sent", "text"),
    [
        (1001, 1001, ""),
        (4999, 4999, ""),
        (CloseCode.TRY_AGAIN_LATER, 1013, ""),
        ((4000, "bye"), 4000, "bye"),
        ((1000, ""), 1000, ""),
        ((3000, None), 3000, ""),
        ((1008, "x" * 123), 1008, "x" * 123),
        ((1008, "€" * 41), 1008, "€" * 41),
    ],
    ids=["code", "last code", "enum", "code and text", "empty text", "no text", "123 bytes", "123 bytes of UTF-8"],
)
def test_an_explicit_close_changes_the_code_alone(
    reason: Any, code: int, final: Any, close: Any, sent: int, text: str
) -> None:
    expected = Stop(sent, text, final)
    assert interpret(("stop", reason, close, STATE)) == ([], STATE, expected)
    encoded, state, stop = interpret(("stop", reason, close, ["x", b"y"], STATE))
    assert ([decode(frame) for frame in encoded], state, stop) == ([("text", b"x"), ("binary", b"y")], STATE, expected)


def is_allowed(code: int) -> bool:
    """The contract's own words: 1000–1003, 1007–1014, 3000–4999."""
    return code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014) or 3000 <= code <= 4999


@pytest.mark.parametrize(
    "code", [-1, 0, 1, 999, *range(1000, 1018), 1100, 1999, 2000, 2999, 3000, 3999, 4000, 4999, 5000, 65536, 10**30]
)
def test_a_close_code_is_sent_or_refused(code: int) -> None:
    for close in (code, (code, "text")):
        if is_allowed(code):
            stop = interpret(("stop", "normal", close, STATE))[2]
            assert stop is not None and stop.code == code
        else:
            with pytest.raises(ValueError, match=rf"close code {code} .* 1000-1003, 1007-1014 and 3000-4999"):
                interpret(("stop", "normal", close, STATE))


# What is refused. Each row: the value, the kind of error, what its text shows.

BAD_RESULTS: list[tuple[str, Any, str]] = [
    ("nothing", None, "None"),
    ("a bare tag", "ok", "'ok'"),
    ("an empty tuple", (), "()"),
    ("a tag alone", ("ok",), "('ok',)"),
    ("a list", ["ok", 1], "['ok', 1]"),
    ("a number", 7, "7"),
    ("an unknown tag", ("okay", 1), "('okay', 1)"),
    ("another unknown tag", ("noreply", 1), "('noreply', 1)"),
    ("a tag in capitals", ("OK", 1), "('OK', 1)"),
    ("a tag of bytes", (b"ok", 1), "(b'ok', 1)"),
    ("a tag that is no string", (["ok"], 1), "(['ok'], 1)"),
    ("ok with messages", ("ok", "x", 1), "('ok', 'x', 1)"),
    ("push without state", ("push", "x"), "('push', 'x')"),
    ("push with too much", ("push", "x", 1, 2), "('push', 'x', 1, 2)"),
    ("reply without its second element", ("reply", "x", 1), "('reply', 'x', 1)"),
    ("reply with too much", ("reply", "ok", "x", 1, 2), "('reply', 'ok', 'x', 1, 2)"),
    ("stop without state", ("stop", "normal"), "('stop', 'normal')"),
    ("stop with too much", ("stop", "normal", 1000, [], 1, 2), "('stop', 'normal', 1000, [], 1, 2)"),
    ("a dictionary", {"ok": 1}, "{'ok': 1}"),
]


@table("result, shown", BAD_RESULTS)
def test_a_bad_result_is_shown_with_what_is_accepted(result: Any, shown: str) -> None:
    with pytest.raises(TypeError) as caught:
        interpret(result)
    text = str(caught.value)
    assert shown in text
    for accepted in (
        '("ok", state)',
        '("push", messages, state)',
        '("reply", anything, messages, state)',
        '("stop", reason, state)',
        '("stop", reason, close, state)',
        '("stop", reason, close, messages, state)',
    ):
        assert accepted in text


def test_a_long_value_is_shown_in_part() -> None:
    with pytest.raises(TypeError) as caught:
        interpret(("okay", "x" * 100_000))
    assert "('okay', 'xxx" in str(caught.value)
    assert len(str(caught.value)) < 1000


BAD_MESSAGES: list[tuple[str, Any, type[Exception], str]] = [
    ("nothing", None, TypeError, "None is not a message; accepted are str, bytes, (opcode, payload) and"),
    ("a number", 7, TypeError, "7 is not a message"),
    ("a dictionary", {"a": 1}, TypeError, "{'a': 1} is not a message"),
    ("a generator", (text for text in "ab"), TypeError, "is not a message"),
    ("a tuple of four", ("text", "a", True, "b"), TypeError, "('text', 'a', True, 'b') is not a message"),
    ("a third element that is no bool", ("text", "a", "b"), TypeError, "('text', 'a', 'b'): whether to compress is a"),
    ("a ping to be compressed", ("ping", b"a", True), TypeError, "for text and binary messages only"),
    ("an empty tuple", (), TypeError, "() is not a message"),
    ("a list in a list", [["a"]], TypeError, "['a'] is not a message"),
    ("nothing in a list", ["a", None], TypeError, "None is not a message"),
    (
        "an unknown opcode",
        ("txt", "a"),
        ValueError,
        "'txt' is not an opcode; accepted are 'text', 'binary', 'ping', 'pong'",
    ),
    ("close as an opcode", ("close", b""), ValueError, "'close' is not an opcode"),
    ("an opcode in capitals", ("TEXT", "a"), ValueError, "'TEXT' is not an opcode"),
    ("a number as an opcode", (1, "a"), ValueError, "1 is not an opcode"),
    ("an opcode without a hash", (["text"], "a"), ValueError, "['text'] is not an opcode"),
    ("two texts in a tuple", ("hello", "world"), ValueError, "'hello' is not an opcode"),
    ("an unknown opcode in a list", ["a", ("txt", "a")], ValueError, "'txt' is not an opcode"),
    ("text of bytes", ("text", b"a"), TypeError, "the payload of a text message is str, not b'a'"),
    ("text of None", ("text", None), TypeError, "the payload of a text message is str, not None"),
    ("text of a list", ("text", ["a"]), TypeError, "the payload of a text message is str, not ['a']"),
    ("binary of str", ("binary", "a"), TypeError, "the payload of a binary message is bytes, not 'a'"),
    ("binary of a number", ("binary", 3), TypeError, "the payload of a binary message is bytes, not 3"),
    (
        "binary of a list of numbers",
        ("binary", [1, 2]),
        TypeError,
        "the payload of a binary message is bytes, not [1, 2]",
    ),
    ("ping of str", ("ping", "a"), TypeError, "the payload of a ping message is bytes, not 'a'"),
    ("ping of None", ("ping", None), TypeError, "the payload of a ping message is bytes, not None"),
    ("pong of str", ("pong", ""), TypeError, "the payload of a pong message is bytes, not ''"),
    ("ping of 126 bytes", ("ping", b"x" * 126), ValueError, "ping payload of 126 bytes is over the 125 allowed"),
    ("pong of 126 bytes", ("pong", b"x" * 126), ValueError, "pong payload of 126 bytes is over the 125 allowed"),
    ("ping of 32 numbers", ("ping", memoryview(array.array("I", range(32)))), ValueError, "ping payload of 128 bytes"),
    ("long ping in a list", ["a", ("ping", b"x" * 126)], ValueError, "125"),
    ("number of more digits than are written", 10**5000, TypeError, "<int object at 0x"),
    ("lone surrogate", "a\ud800", ValueError, "surrogates not allowed"),
    ("tagged lone surrogate", ("text", "\udfff"), ValueError, "surrogates not allowed"),
    ("lone surrogate in a list", ["a", "\udc80"], ValueError, "surrogates not allowed"),
]


@table("given, error, shown", BAD_MESSAGES)
def test_a_bad_message_is_shown(given: Any, error: type[Exception], shown: str) -> None:
    for result in (("push", given, 1), ("reply", "ok", given, 1), ("stop", "normal", 1000, given, 1)):
        with pytest.raises(error, match=re.escape(shown)):
            interpret(result)
    with pytest.raises(error, match=re.escape(shown)):
        encode(given)


ACCEPTED_CLOSE = "accepted are a code or (code, text), text a str or None"
BAD_CLOSES: list[tuple[str, Any, type[Exception], str]] = [
    ("text alone", "bye", TypeError, f"close is 'bye'; {ACCEPTED_CLOSE}"),
    ("nothing", None, TypeError, f"close is None; {ACCEPTED_CLOSE}"),
    ("True", True, TypeError, f"close is True; {ACCEPTED_CLOSE}"),
    ("False", False, TypeError, f"close is False; {ACCEPTED_CLOSE}"),
    ("True with text", (True, "x"), TypeError, f"close is (True, 'x'); {ACCEPTED_CLOSE}"),
    ("a fraction", 1000.0, TypeError, f"close is 1000.0; {ACCEPTED_CLOSE}"),
    ("digits", "1000", TypeError, f"close is '1000'; {ACCEPTED_CLOSE}"),
    ("a list", [1000, "x"], TypeError, f"close is [1000, 'x']; {ACCEPTED_CLOSE}"),
    ("the wrong way round", ("x", 1000), TypeError, f"close is ('x', 1000); {ACCEPTED_CLOSE}"),
    ("an empty tuple", (), TypeError, f"close is (); {ACCEPTED_CLOSE}"),
    ("a tuple of one", (1000,), TypeError, f"close is (1000,); {ACCEPTED_CLOSE}"),
    ("a tuple of three", (1000, "x", "y"), TypeError, f"close is (1000, 'x', 'y'); {ACCEPTED_CLOSE}"),
    ("text of bytes", (1000, b"x"), TypeError, f"close is (1000, b'x'); {ACCEPTED_CLOSE}"),
    ("text of a number", (1000, 0), TypeError, f"close is (1000, 0); {ACCEPTED_CLOSE}"),
    ("no code", (None, "x"), TypeError, f"close is (None, 'x'); {ACCEPTED_CLOSE}"),
    ("124 bytes", (1000, "x" * 124), ValueError, "is longer than 123 bytes of UTF-8"),
    ("124 bytes of UTF-8", (1000, "x" + "€" * 41), ValueError, "is longer than 123 bytes of UTF-8"),
    ("the text is shown", (1000, "y" * 124), ValueError, "y" * 124),
    ("lone surrogate", (1000, "\ud800"), ValueError, "surrogates not allowed"),
    ("messages in the place of close", ["x"], TypeError, f"close is ['x']; {ACCEPTED_CLOSE}"),
]


@table("close, error, shown", BAD_CLOSES)
@pytest.mark.parametrize("reason", ["normal", "other"])
def test_a_bad_close_is_shown(reason: str, close: Any, error: type[Exception], shown: str) -> None:
    for result in (("stop", reason, close, STATE), ("stop", reason, close, "x", STATE)):
        with pytest.raises(error, match=re.escape(shown)):
            interpret(result)


# Callbacks that are not written.


class Silent(WebSock[int]):
    pass


def test_defaults_go_on_with_the_state() -> None:
    silent = Silent()
    assert silent.init(7) == ("ok", 7)
    assert silent.handle_control(("ping", b""), 7) == ("ok", 7)
    assert silent.handle_control(("pong", b"x"), 7) == ("ok", 7)
    silent.terminate("normal", 7)


def test_handle_in_must_be_written() -> None:
    with pytest.raises(NotImplementedError, match="Silent has no handle_in"):
        Silent().handle_in("x", 7)


def test_mail_for_nobody_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "websock_gevent"):
        assert Silent().handle_info({"letter": 1}, 7) == ("ok", 7)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("websock_gevent", logging.WARNING)
    assert record.getMessage() == "Silent has no handle_info, dropped a dict"


def test_mail_for_nobody_is_not_logged_at_full_length(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "websock_gevent"):
        Silent().handle_info("x" * 100_000, 7)
    assert len(caplog.records[0].getMessage()) < 500


@pytest.mark.parametrize("long", ["x" * (1 << 16), bytes(1 << 16)], ids=["text", "binary"])
def test_a_long_message_is_not_copied_behind_its_header(long: Any) -> None:
    frames, _, _ = interpret(("push", long, None))
    assert [len(frame) for frame in frames] == [10, 1 << 16]
    assert b"".join(frames) == encode(long)[0]
    assert isinstance(long, str) or frames[1] is long
