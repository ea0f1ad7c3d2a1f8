"""The reader against two other implementations of RFC 6455: the same bytes must mean the same to all three.

Hypothesis makes streams of a client's frames, right and wrong, damages some of them, and cuts them anywhere.
`MessageReader` is driven until its first error or close frame, beside ``websockets.server.ServerProtocol`` and
``wsproto.Connection``. Required to be equal: the messages, pings and pongs in their order, and how it ends: a close
frame with its code and text, a failure with its close code, or waiting for more. Where the others differ by design, and
what is done about it here:

websockets
    * hands out text as bytes: `WebsocketsOracle` decodes it fragment by fragment and fails with 1007 itself;
    * takes a length that is not minimal, also in control frames, or has its top bit set: if that is what ended ours,
      only what came before is compared (wsproto refuses it, and is compared in full);
    * refuses a close frame inside a fragmented message; we answer it, as §5.4 lets control frames stand there. Its
      parsed close frame is compared;
    * counts control frames towards ``max_size``: limits are compared on streams of data frames alone.
wsproto
    * hands out messages in parts: `WsprotoOracle` joins them and forgets those of a message that failed;
    * looks at the code of a close frame before its text: with both bad it says 1002, ours 1007, as websockets does;
    * has no limit of size.
both
    * look at some of a header later than we do, websockets only behind the whole payload. If ours has failed and the
      oracle still waits, it gets zeros to finish its frame and must fail the same way, unless the frame is longer than
      those, which is counted by `test_streams_reach_every_end`;
    * see the surrogate in a text a byte later, with CPython's incremental decoder: the streams have none
      (`test_messages` has).

`test_known_differences` shows each of them.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from websock_gevent.errors import ProtocolError
from websock_gevent.frames import is_sendable, parse_close
from websock_gevent.messages import MessageReader

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NAMES = {TEXT: "text", BINARY: "binary", PING: "ping", PONG: "pong"}
NO_LIMIT = 1 << 62
#: Zeros that finish any frame the strategies make, though not one whose length was damaged upwards.
PADDING = bytes(70_000)

Event = tuple[str, str | bytes]


class End(NamedTuple):
    """How a stream ended: by a close frame that was right, or by a failure."""

    kind: str
    code: int | None
    text: str = ""


deterministic = settings(
    derandomize=True,
    deadline=None,
    max_examples=700,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


# The three implementations behind one face: feed bytes, read events and end.


class Ours:
    def __init__(self, limit: int = NO_LIMIT) -> None:
        self.reader = MessageReader(limit, limit)
        self.events: list[Event] = []
        self.end: End | None = None
        self.error = ""

    def feed(self, data: bytes) -> None:
        if self.end is not None:
            return
        self.reader.feed(data)
        try:
            while self.end is None and (item := self.reader.next_item()) is not None:
                self._take(*item)
        except ProtocolError as error:
            self.error = str(error)
            self.end = End("failed", error.code)

    def _take(self, opcode: int, payload: str | bytes) -> None:
        if opcode != CLOSE:
            self.events.append((NAMES[opcode], payload))
            return
        assert isinstance(payload, bytes)
        code, text = parse_close(payload)
        self.end = End("closed", code, text) if code is None or is_sendable(code) else End("failed", 1002)


class WebsocketsOracle:
    #: Take a close frame inside a message as one, though ``websockets`` does not.
    tolerant = True

    def __init__(self, limit: int | None = None) -> None:
        self.protocol = ServerProtocol(state=State.OPEN, max_size=limit)
        self.events: list[Event] = []
        self.end: End | None = None
        self._kind = ""
        self._parts: list[Any] = []
        self._decoder: Any = None

    def feed(self, data: bytes) -> None:
        if self.end is not None:
            return
        self.protocol.receive_data(data)
        try:
            for frame in self.protocol.events_received():
                self._take(frame)
        except UnicodeDecodeError:
            self.end = End("failed", 1007)
            return
        received, error = self.protocol.close_rcvd, self.protocol.parser_exc
        if error is not None and not (self.tolerant and str(error) == "incomplete fragmented message"):
            assert self.protocol.close_sent is not None
            self.end = End("failed", self.protocol.close_sent.code)
        elif received is not None:
            self.end = End("closed", None if received.code == 1005 else received.code, received.reason)

    def _take(self, frame: Any) -> None:
        data = bytes(frame.data)
        if frame.opcode in (Opcode.PING, Opcode.PONG):
            self.events.append((NAMES[frame.opcode], data))
        elif frame.opcode is not Opcode.CLOSE:
            if frame.opcode is not Opcode.CONT:
                self._kind, self._parts = NAMES[frame.opcode], []
                self._decoder = getincrementaldecoder("utf-8")()
            self._parts.append(self._decoder.decode(data, frame.fin) if self._kind == "text" else data)
            if frame.fin:
                self.events.append((self._kind, ("" if self._kind == "text" else b"").join(self._parts)))


class WsprotoOracle:
    def __init__(self) -> None:
        self.connection = Connection(ConnectionType.SERVER)
        self.events: list[Event] = []
        self.end: End | None = None
        self._parts: list[Any] = []

    def feed(self, data: bytes) -> None:
        if self.end is not None:
            return
        self.connection.receive_data(data)
        for event in self.connection.events():
            self._take(event)

    def _take(self, event: Any) -> None:
        if isinstance(event, CloseConnection):
            right = self.connection.state is ConnectionState.REMOTE_CLOSING
            code = None if right and event.code == 1005 else int(event.code)
            self.end = End("closed", code, event.reason or "") if right else End("failed", code)
        elif isinstance(event, (Ping, Pong)):
            self.events.append(("ping" if isinstance(event, Ping) else "pong", bytes(event.payload)))
        elif isinstance(event, (TextMessage, BytesMessage)):
            self._parts.append(event.data)
            if event.message_finished:
                text = isinstance(event, TextMessage)
                self.events.append(("text", "".join(self._parts)) if text else ("binary", b"".join(self._parts)))
                self._parts = []


# Streams.


class Frame(NamedTuple):
    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0
    mask: bytes | None = bytes(4)
    form: int | None = None  # bytes of the length: 1, 2 or 8; None for the least that will do
    length: int | None = None  # if not that of the payload

    def encode(self) -> bytes:
        size = len(self.payload) if self.length is None else self.length
        least = 1 if size < 126 else 2 if size < 65536 else 8
        form = max(least, self.form or least)
        coded = {
            1: bytes([size & 127]),
            2: b"\x7e" + (size & 0xFFFF).to_bytes(2, "big"),
            8: b"\x7f" + size.to_bytes(8, "big"),
        }
        start = bytes([self.fin << 7 | self.rsv << 4 | self.opcode, coded[form][0] | (self.mask is not None) << 7])
        start += coded[form][1:]
        if self.mask is None:
            return start + self.payload
        masked = bytearray(self.payload)
        for at, key in enumerate(self.mask if any(self.mask) else b""):
            masked[at::4] = bytes(byte ^ key for byte in masked[at::4])
        return start + self.mask + masked


masks = st.sampled_from([bytes(4), b"\x37\xfa\x21\x3d", b"\xff\xff\xff\xff", b"\x00\x80\x01\x00"]) | st.binary(
    min_size=4, max_size=4
)
#: Pieces of text, right and wrong, whole and cut; no surrogates.
pieces = st.sampled_from(
    [
        b"",
        b"a",
        b"Hello",
        "é€𝄞".encode(),
        b"\xc3",
        b"\xa9",
        b"\xe2\x82",
        b"\xac",
        b"\xf0\x9d",
        b"\x84\x9e",
        b"\x9f",
        b"\x80",
    ]
    + [
        b"\xc0\xaf",
        b"\xf4\x90\x80\x80",
        b"\xff",
        b"\xe0\x80\xaf",
        b"\xf0\x8f\xbf\xbf",
        b"\xed\x9f\xbf",
        b"\xef\xbb\xbf",
    ]
)
good_text = st.text(max_size=20).map(str.encode)
bad_text = st.lists(pieces, max_size=4).map(b"".join)
sizes = st.sampled_from([0, 1, 3, 4, 5, 125, 126, 127, 300, 1000, 65535, 65536])
blobs = st.binary(max_size=20) | sizes.map(lambda size: (b"0123456789\x00\xff" * (size // 12 + 1))[:size])
codes = st.sampled_from([0, 999, *range(1000, 1017), 1100, 2000, 2999, 3000, 3999, 4000, 4999, 5000, 65535])
reasons = st.sampled_from([b"", b"bye", "é€𝄞".encode(), b"\xff", b"\xe2\x82", b"\xed\xa0\x80", b"x" * 123])
close_payloads = st.sampled_from([b"", b"\x03"]) | st.builds(
    lambda code, text: code.to_bytes(2, "big") + text, codes, reasons
)
control = st.builds(
    lambda opcode, payload, mask: Frame(opcode, payload, mask=mask),
    st.sampled_from([PING, PONG]),
    st.binary(max_size=125) | bad_text,
    masks,
)


@st.composite
def messages(draw: Any, interleaved: bool = True) -> list[Frame]:
    """One message in fragments cut anywhere, also inside a code point, perhaps with control frames between."""
    opcode = draw(st.sampled_from([TEXT, BINARY]))
    payload = draw(
        st.one_of(good_text, good_text, blobs.map(lambda blob: b"t" * len(blob)), bad_text) if opcode == TEXT else blobs
    )
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
    frames = [Frame(opcode, payload[: [*cuts, None][0]], fin=not cuts, mask=draw(masks))]
    for at, start in enumerate(cuts):
        if interleaved:
            frames += draw(st.lists(control, max_size=1))
        last = at == len(cuts) - 1
        frames.append(Frame(CONTINUATION, payload[start : None if last else cuts[at + 1]], fin=last, mask=draw(masks)))
    return frames


def damages() -> st.SearchStrategy[Callable[[Frame], Frame]]:
    """What can be wrong with one frame, as functions from a right one."""
    values: dict[str, st.SearchStrategy[Any]] = {
        "opcode": st.integers(0, 15),
        "fin": st.booleans(),
        "rsv": st.integers(1, 7),
        "mask": st.none(),
        "form": st.sampled_from([2, 8]),
        "length": st.sampled_from([0, 1, 125, 126, 127, 200, 65535, 65536, 1 << 62, 1 << 63, (1 << 64) - 1]),
        "payload": bad_text | blobs,
    }
    return st.sampled_from(sorted(values)).flatmap(
        lambda field: values[field].map(lambda value: lambda frame: frame._replace(**{field: value}))
    )


@st.composite
def streams(draw: Any) -> bytes:
    """A client's whole life: messages, control frames, perhaps a close frame and more behind it; perhaps damaged."""
    groups = draw(st.lists(messages() | st.lists(control, min_size=1, max_size=1), max_size=4))
    frames = [frame for group in groups for frame in group]
    if draw(st.booleans()):
        at = draw(st.integers(0, len(frames)))
        at = draw(st.sampled_from([at, len(frames)]))
        frames.insert(at, Frame(CLOSE, draw(close_payloads), mask=draw(masks)))
    kind = draw(st.sampled_from(["right", "frame", "frame", "order", "order", "bytes", "truncated"]))
    if frames and kind == "frame":
        at = draw(st.integers(0, len(frames) - 1))
        frames[at] = draw(damages())(frames[at])
    elif frames and kind == "order":
        moved = frames.pop(draw(st.integers(0, len(frames) - 1)))
        for _ in range(draw(st.integers(0, 2))):
            frames.insert(draw(st.integers(0, len(frames))), moved)
    wire = b"".join(frame.encode() for frame in frames)
    if wire and kind == "bytes":
        wire = draw(damaged(wire))
    elif kind == "truncated":
        wire = wire[: draw(st.integers(0, len(wire)))]
    return wire


@st.composite
def damaged(draw: Any, wire: bytes) -> bytes:
    """Replace, drop or insert a few bytes, rather near the beginning, where the headers are."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, min(len(wire), 40)) | st.integers(0, len(wire)))
        wire = wire[:at] + draw(st.binary(max_size=2)) + wire[at + draw(st.integers(0, 2)) :]
    return wire


@st.composite
def chunks(draw: Any, wires: st.SearchStrategy[bytes]) -> list[bytes]:
    wire = draw(wires)
    if len(wire) < 200 and draw(st.booleans()):
        return [wire[at : at + 1] for at in range(len(wire))]
    cuts = sorted(draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    return [wire[start:end] for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)]


def run(implementation: Any, fed: list[bytes]) -> Any:
    for chunk in fed:
        implementation.feed(chunk)
    return implementation


def finished(ours: Ours, oracle: Any) -> Any:
    """Let an oracle that waits where ours has failed see the rest of its frame."""
    if ours.end is not None and ours.end.kind == "failed" and oracle.end is None:
        oracle.feed(PADDING)
    return oracle


def waits_for_ever(ours: Ours, oracle: Any) -> bool:
    """Tell whether an oracle wants more of a frame than there is, where ours has seen enough of it."""
    return ours.end is not None and ours.end.kind == "failed" and oracle.end is None and oracle.events == ours.events


# The comparisons.


@deterministic
@given(chunks(streams()))
def test_the_same_as_websockets(fed: list[bytes]) -> None:
    ours = run(Ours(), fed)
    oracle = finished(ours, run(WebsocketsOracle(), fed))
    if "minimal encoding" in ours.error or "cannot exceed 125 bytes" in ours.error:
        assert oracle.events[: len(ours.events)] == ours.events
        return
    assert oracle.events == ours.events
    if not waits_for_ever(ours, oracle):
        assert oracle.end == ours.end


@deterministic
@given(chunks(streams()))
def test_the_same_as_wsproto(fed: list[bytes]) -> None:
    ours = run(Ours(), fed)
    oracle = finished(ours, run(WsprotoOracle(), fed))
    assert oracle.events == ours.events
    if ours.error.startswith("close text"):
        assert ours.end == End("failed", 1007)
        assert oracle.end in (End("failed", 1007), End("failed", 1002))
    elif not waits_for_ever(ours, oracle):
        assert oracle.end == ours.end


LIMITS = st.sampled_from([1, 5, 20, 125, 126, 300, 65535, 65536])
data_streams = st.lists(messages(interleaved=False), max_size=5).map(
    lambda groups: b"".join(frame.encode() for group in groups for frame in group)
)


@deterministic
@given(chunks(data_streams), LIMITS)
def test_the_same_limits_as_websockets(fed: list[bytes], limit: int) -> None:
    ours = run(Ours(limit), fed)
    oracle = run(WebsocketsOracle(limit), fed)
    assert oracle.events == ours.events
    assert oracle.end == ours.end


#: Mask bit and length class.
SECONDS = [mask << 7 | size for mask in (0, 1) for size in (0, 1, 2, 124, 125, 126, 127)]


@pytest.mark.parametrize(
    "before",
    [b"", Frame(TEXT, b"a", fin=False).encode(), Frame(BINARY, b"", fin=False).encode()],
    ids=["idle", "text", "binary"],
)
def test_the_same_about_every_header(before: bytes) -> None:
    """Every first byte, with all classes of the second, and just the bytes behind that they ask for."""
    behind = {126: b"\x01\x00" + bytes(4 + 256), 127: (1 << 16).to_bytes(8, "big") + bytes(4 + 65536)}
    for first in range(256):
        for second in SECONDS:
            size = second & 127
            wire = before + bytes([first, second]) + behind.get(size, bytes((second >> 5 & 4) + size))
            ours, oracle = run(Ours(), [wire]), run(WsprotoOracle(), [wire])
            assert (oracle.events, oracle.end) == (ours.events, ours.end), (first, second)


@deterministic
@given(chunks(streams()))
def test_the_same_however_it_is_cut(fed: list[bytes]) -> None:
    pieces, whole = run(Ours(), fed), run(Ours(), [b"".join(fed)])
    assert (pieces.events, pieces.end, pieces.error) == (whole.events, whole.end, whole.error)


# The strategies are worth what they reach, and the exceptions above are worth having while the oracles need them.


def test_streams_reach_every_end() -> None:
    seen: Counter[str] = Counter()

    @deterministic
    @given(chunks(streams()))
    def look(fed: list[bytes]) -> None:
        ours = run(Ours(), fed)
        oracles = [finished(ours, run(oracle, fed)) for oracle in (WebsocketsOracle(), WsprotoOracle())]
        seen["streams"] += 1
        seen["streams with messages"] += bool(ours.events)
        seen["waiting" if ours.end is None else ours.end.kind] += 1
        for clause in ("§5.1)", "§5.2)", "§5.4)", "§5.5)", "§5.5.1)", "§8.1)"):
            seen[clause] += clause in ours.error
        seen["let pass"] += any(waits_for_ever(ours, oracle) for oracle in oracles)

    look()
    assert seen.pop("let pass") < seen["streams"] / 20, seen
    assert min(seen.values()) >= 2, seen


def test_limits_are_reached() -> None:
    seen: Counter[End | None] = Counter()

    @deterministic
    @given(chunks(data_streams), LIMITS)
    def look(fed: list[bytes], limit: int) -> None:
        seen[run(Ours(limit), fed).end] += 1

    look()
    assert min(seen[None], seen[End("failed", 1009)]) >= 20, seen


CLOSED, FAILED = End("closed", None), End("failed", 1002)
BAD_TEXT, TOO_BIG = End("failed", 1007), End("failed", 1009)
UNFINISHED = Frame(BINARY, b"x", fin=False).encode()
KNOWN: list[tuple[str, bytes, int, End | None, End | None, End | None]] = [
    ("length in a long form", Frame(BINARY, b"x", form=2).encode(), 100, FAILED, None, FAILED),
    ("length of a ping in a long form", Frame(PING, b"", form=2).encode(), 100, FAILED, None, FAILED),
    ("top bit of the length", Frame(BINARY, b"", length=1 << 63).encode(), NO_LIMIT, FAILED, TOO_BIG, FAILED),
    ("close inside a message", UNFINISHED + Frame(CLOSE, b"").encode(), 100, CLOSED, FAILED, CLOSED),
    ("ping longer than the limit", Frame(PING, b"12").encode(), 1, None, TOO_BIG, None),
    ("message longer than the limit", Frame(BINARY, b"12").encode(), 1, TOO_BIG, TOO_BIG, None),
    ("bad code and bad text", Frame(CLOSE, b"\x03\xec\xff").encode(), 100, BAD_TEXT, BAD_TEXT, FAILED),
    ("header of an unfinished frame", Frame(PING, b"", rsv=1, length=9).encode(), 100, FAILED, None, FAILED),
    ("mask bit of an unfinished header", b"\x81\x7e", 100, FAILED, FAILED, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("wire", "limit", "ours", "websockets", "wsproto"), [row[1:] for row in KNOWN], ids=[row[0] for row in KNOWN]
)
def test_known_differences(
    wire: bytes, limit: int, ours: End | None, websockets: End | None, wsproto: End | None
) -> None:
    """Should an oracle change its mind, this says so."""
    plain = WebsocketsOracle(limit)
    plain.tolerant = False
    assert [run(one, [wire]).end for one in (Ours(limit), plain, WsprotoOracle())] == [ours, websockets, wsproto]
