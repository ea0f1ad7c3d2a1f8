"""permessage-deflate (RFC 7692): the negotiation, both directions against another implementation, and hostile input."""

from __future__ import annotations

import itertools
import random
import re
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import Diary, application
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate
from websockets.frames import Frame, Opcode

from websock_gevent import Deflate, MessageTooBig, ProtocolError, current
from websock_gevent.deflate import Agreement, Deflater, Inflater, negotiate
from websock_gevent.messages import MessageReader
from websock_gevent.testing import connect
from websock_gevent.websock import encode

WIDE = Deflate(server_max_window_bits=15, client_max_window_bits=15)
PLAIN = Agreement(False, False, 15, 15)
ALONE = Agreement(True, True, 15, 15)
TEXTS = ["hello" * 40, "grüße, 世界 🎈 " * 30, "hello" * 40, "x" * 200_000, "end" * 100]

# Negotiation. What a client offers, what we have set, what we answer.

OFFERS: list[tuple[str, Deflate, str | None]] = [
    ("", WIDE, None),
    ("permessage-deflate", WIDE, "permessage-deflate"),
    ("permessage-deflate", Deflate(), "permessage-deflate; server_max_window_bits=12"),
    (
        "permessage-deflate; client_max_window_bits",  # what Chromium, Firefox and Node offer
        Deflate(),
        "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
    ),
    ("permessage-deflate; client_max_window_bits", WIDE, "permessage-deflate"),
    ("permessage-deflate; client_max_window_bits=10", WIDE, "permessage-deflate; client_max_window_bits=10"),
    ('permessage-deflate; client_max_window_bits="10"', WIDE, "permessage-deflate; client_max_window_bits=10"),
    (r'permessage-deflate; client_max_window_bits="1\0"', WIDE, "permessage-deflate; client_max_window_bits=10"),
    ("permessage-deflate; server_max_window_bits=8", WIDE, "permessage-deflate; server_max_window_bits=8"),
    ("permessage-deflate;server_max_window_bits=13", Deflate(), "permessage-deflate; server_max_window_bits=12"),
    (
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        WIDE,
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    ),
    (
        "permessage-deflate",
        Deflate(server_no_context_takeover=True, client_no_context_takeover=True),
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12",
    ),
    ("x-webkit-deflate-frame, permessage-deflate", WIDE, "permessage-deflate"),
    ("permessage-deflate; unknown, permessage-deflate", WIDE, "permessage-deflate"),
    (" ,, permessage-deflate ,", WIDE, "permessage-deflate"),
    (
        "permessage-deflate; server_max_window_bits=16, permessage-deflate; server_max_window_bits=9",
        WIDE,
        "permessage-deflate; server_max_window_bits=9",
    ),
    *(
        (f"permessage-deflate; {wrong}", WIDE, None)
        for wrong in (
            "unknown",
            "unknown=1",
            "max_inflate_ratio=5",
            "server_max_window_bits",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=015",
            "server_max_window_bits=1e1",
            'server_max_window_bits=""',
            "server_max_window_bits=10; server_max_window_bits=10",
            "client_max_window_bits=15abc",
            'client_max_window_bits=""',
            "client_max_window_bits=-8",
            "client_max_window_bits; client_max_window_bits",
            "server_no_context_takeover=1",
            "server_no_context_takeover; server_no_context_takeover",
            "client_no_context_takeover=true",
            "client_max_window_bits=10=10",
            'client_max_window_bits="10',
            "=",
            ";",
        )
    ),
    ("Permessage-Deflate", WIDE, None),
    ("permessage-deflate client_max_window_bits", WIDE, None),
]


@pytest.mark.parametrize(("offer", "settings", "answer"), OFFERS, ids=lambda value: str(value)[:60])
def test_negotiation(offer: str, settings: Deflate, answer: str | None) -> None:
    found = negotiate(offer, settings)
    assert (found[0] if found else None) == answer


PARTS = [*'=;," \\', "permessage-deflate", "server_max_window_bits", "client_max_window_bits", "8", "15"]


@given(st.lists(st.sampled_from(PARTS)).map("".join))
def test_no_header_breaks_the_negotiation(header: str) -> None:
    found = negotiate(header, Deflate())
    assert found is None or found[0].startswith("permessage-deflate")


@given(header=st.text(max_size=200))
def test_no_text_breaks_the_negotiation(header: str) -> None:
    negotiate(header, Deflate())


BITS = st.sampled_from([None, *range(9, 16)])


@given(st.booleans(), st.booleans(), BITS, st.sampled_from([None, True, *range(9, 16)]), st.booleans(), st.booleans())
def test_another_client_accepts_the_answer(
    ours: bool, theirs: bool, our_bits: int | None, their_bits: Any, force_ours: bool, force_theirs: bool
) -> None:
    client = ClientPerMessageDeflateFactory(ours, theirs, our_bits, their_bits)
    offer = "; ".join(["permessage-deflate", *(f"{n}={v}" if v else n for n, v in client.get_request_params())])
    settings = Deflate(server_no_context_takeover=force_ours, client_no_context_takeover=force_theirs)
    found = negotiate(offer, settings)
    assert found is not None
    answer, agreed = found
    parameters = [tuple(part.strip().partition("=")[::2]) for part in answer.split(";")[1:]]
    extension: Any = client.process_response_params([(name, value or None) for name, value in parameters], [])
    assert (
        Agreement(
            extension.remote_no_context_takeover,
            extension.local_no_context_takeover,
            extension.remote_max_window_bits,
            extension.local_max_window_bits,
        )
        == agreed
    )


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"level": 0}, ValueError),
        ({"level": 10}, ValueError),
        ({"mem_level": 0}, ValueError),
        ({"server_max_window_bits": 8}, ValueError),
        ({"client_max_window_bits": 16}, ValueError),
        ({"threshold": -1}, ValueError),
        ({"threshold": 1.5}, TypeError),
        ({"server_no_context_takeover": 1}, TypeError),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named(wrong: dict[str, Any], error: type[Exception]) -> None:
    (name,) = wrong
    with pytest.raises(error, match=name):
        Deflate(**wrong)


# Messages, in both directions, against another implementation.

AGREEMENTS = [
    Agreement(*choice) for choice in itertools.product([False, True], [False, True], [8, 9, 12, 15], [8, 9, 15])
]


def peer_of(agreed: Agreement) -> PerMessageDeflate:
    """The other side."""
    return PerMessageDeflate(
        agreed.server_no_context_takeover,
        agreed.client_no_context_takeover,
        agreed.server_max_window_bits,
        max(9, agreed.client_max_window_bits),
    )


@pytest.mark.parametrize("agreed", AGREEMENTS, ids=str)
def test_what_we_deflate_is_inflated_by_others(agreed: Agreement) -> None:
    deflater, peer = Deflater(agreed, WIDE), peer_of(agreed)
    for text in [*TEXTS, ""]:
        frame = peer.decode(Frame(Opcode.TEXT, deflater.deflate(text.encode()), rsv1=True))
        assert bytes(frame.data).decode() == text


@pytest.mark.parametrize("agreed", AGREEMENTS, ids=str)
@pytest.mark.parametrize("pieces", [1, 3])
def test_what_others_deflate_is_read(agreed: Agreement, pieces: int) -> None:
    peer, reader = peer_of(agreed), MessageReader(1 << 20, 1 << 20, inflater=Inflater(agreed))
    for text in [*TEXTS, ""]:
        data = text.encode()
        step = max(1, len(data) // pieces)
        cuts = [data[i : i + step] for i in range(0, len(data), step)] or [b""]
        for number, cut in enumerate(cuts):
            opcode, last = Opcode.CONT if number else Opcode.TEXT, number == len(cuts) - 1
            reader.feed(Frame(opcode, cut, last).serialize(mask=True, extensions=[peer]))
            if not last:
                assert reader.next_item() is None
        assert reader.next_item() == (1, text)


def test_bytes_may_come_one_by_one() -> None:
    peer, reader = peer_of(PLAIN), MessageReader(1000, 10_000, inflater=Inflater(PLAIN))
    items = []
    for byte in Frame(Opcode.BINARY, b"spam" * 500).serialize(mask=True, extensions=[peer]):
        reader.feed(bytes([byte]))
        items.append(reader.next_item())
    assert items[:-1] == [None] * (len(items) - 1)
    assert items[-1] == (2, b"spam" * 500)


def test_a_window_of_eight_bits_is_kept_to() -> None:
    """zlib itself has none for deflating; its inflater, told of 8 bits, refuses what refers back further."""
    deflater = Deflater(Agreement(False, False, 8, 15), WIDE)
    strict = zlib.decompressobj(-8)
    generator = random.Random(8)
    block = bytes(generator.randrange(256) for _ in range(300))
    for _ in range(3):
        assert strict.decompress(deflater.deflate(block) + b"\0\0\xff\xff") == block


# Hostile input.


PAUSE = (0, b"")


def deflated(data: bytes, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
    """One message."""
    compressor = zlib.compressobj(wbits=-15)
    whole = compressor.compress(data) + compressor.flush(flush)
    return whole[:-4] if flush == zlib.Z_SYNC_FLUSH else whole


def reader(limit: int = 10_000, frame: int = 1 << 24) -> MessageReader:
    """A reader with an inflater."""
    return MessageReader(frame, limit, inflater=Inflater(PLAIN))


def sent(payload: bytes, opcode: Opcode = Opcode.BINARY, fin: bool = True, rsv: int = 0x40) -> bytes:
    """A client's frame with reserved bits."""
    frame = bytearray(Frame(opcode, payload, fin).serialize(mask=True))
    frame[0] |= rsv
    return bytes(frame)


def read(reader: MessageReader, data: bytes) -> Any:
    """The next item, pauses for others left out."""
    reader.feed(data)
    while (item := reader.next_item()) == PAUSE:
        pass
    return item


def test_a_bomb_is_refused_before_it_is_there() -> None:
    bomb = sent(deflated(bytes(200 << 20)))
    limit = 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(MessageTooBig, match="10.4"):
            read(reader(limit), bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * limit + 4 * len(bomb)


@pytest.mark.parametrize("text", [False, True])
def test_a_long_message_is_inflated_in_slices_with_pauses_for_others(text: bool) -> None:
    data, patient = random.Random(2).randbytes(999).hex().encode() * 5000, reader(10_000_000)
    patient.feed(sent(deflated(data), Opcode.TEXT if text else Opcode.BINARY))
    items = list(iter(patient.next_item, None))
    assert items == [PAUSE] * (len(data) >> 17) + [(1, data.decode()) if text else (2, data)]


def test_a_last_block_that_ends_with_a_slice() -> None:
    """It is not known to be the last one when the slice is full."""
    patient, data = reader(1 << 20), bytes(1 << 17)
    for compressed in (deflated(data, zlib.Z_FINISH), deflated(data), deflated(data + b"x", zlib.Z_FINISH)):
        for wire in (sent(compressed), sent(compressed, fin=False) + sent(bytes(0), Opcode.CONT, rsv=0)):
            assert read(patient, wire)[1].rstrip(b"x") == data
    noise = random.Random(3).randbytes(1 << 17)
    assert read(patient, sent(deflated(noise, zlib.Z_FINISH))) == (2, noise)
    assert read(patient, sent(deflated(noise))) == (2, noise)


def test_a_bomb_in_fragments_is_refused() -> None:
    bomb = deflated(bytes(1 << 20))
    cut = len(bomb) // 2
    counting = reader(600_000)
    assert read(counting, sent(bomb[:cut], fin=False)) is None
    with pytest.raises(MessageTooBig):
        read(counting, sent(bomb[cut:], Opcode.CONT, rsv=0))


@pytest.mark.parametrize("over", [0, 1])
def test_the_limit_is_of_inflated_bytes(over: int) -> None:
    """Random bytes are longer when they are deflated; that does not count."""
    data = random.Random(1).randbytes(10_000 + over)
    frame = sent(deflated(data))
    assert len(frame) > 10_000
    if over:
        with pytest.raises(MessageTooBig):
            read(reader(), frame)
    else:
        assert read(reader(), frame) == (2, data)


@pytest.mark.parametrize(
    "payload", [b"\xff", b"\x07\x00", b"\x00\x01\x00\x00\x00", deflated(b"x" * 500)[:-3] + b"\xff" * 9]
)
def test_corrupt_data_is_1007(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="RFC 7692") as caught:
        read(reader(), sent(payload))
    assert caught.value.code == 1007


def test_blocks_marked_as_the_last_do_not_end_the_stream() -> None:
    for_ever = reader()
    for data in (b"one" * 50, b"two" * 50, b""):
        assert read(for_ever, sent(deflated(data, zlib.Z_FINISH))) == (2, data)
        assert read(for_ever, sent(deflated(data, zlib.Z_FINISH) + b"\x00")) == (2, data)  # as §7.2.3.4 has it
    two_streams = deflated(b"one", zlib.Z_FINISH) + deflated(b"two")
    assert read(for_ever, sent(two_streams)) == (2, b"onetwo")
    assert read(for_ever, sent(deflated(b"three", zlib.Z_FINISH), fin=False)) is None
    assert read(for_ever, sent(b"", Opcode.CONT, rsv=0)) == (2, b"three")
    assert read(for_ever, sent(deflated(b"four"))) == (2, b"four")


def test_a_message_of_nothing_but_last_blocks_is_refused() -> None:
    with pytest.raises(ProtocolError, match="7.2.3.4") as caught:
        read(reader(), sent(b"\x03\x00" * 100_000))
    assert caught.value.code == 1007


@pytest.mark.parametrize(
    "frames",
    [
        sent(deflated(b"x"), rsv=0x20),
        sent(deflated(b"x"), rsv=0x50),
        sent(b"", Opcode.PING),
        sent(b"", Opcode.CLOSE),
        sent(deflated(b"x"), fin=False) + sent(b"", Opcode.CONT),
    ],
    ids=["RSV2", "RSV1 and RSV3", "a ping", "a close frame", "a continuation"],
)
def test_reserved_bits_elsewhere_are_1002(frames: bytes) -> None:
    with pytest.raises(ProtocolError, match="reserved bits") as caught:
        read(reader(), frames)
    assert caught.value.code == 1002


def test_a_compressed_frame_without_agreement_is_1002() -> None:
    with pytest.raises(ProtocolError, match="reserved bits 100"):
        read(MessageReader(100, 100), sent(deflated(b"x")))


def test_control_frames_may_stand_between_fragments() -> None:
    mixed, whole = reader(), deflated(b"spam" * 100)
    assert read(mixed, sent(whole[:4], fin=False)) is None
    assert read(mixed, Frame(Opcode.PING, b"?").serialize(mask=True)) == (9, b"?")
    assert read(mixed, sent(whole[4:], Opcode.CONT, rsv=0)) == (2, b"spam" * 100)


def test_text_fails_at_its_first_bad_byte() -> None:
    """Though the message is not complete."""
    compressor = zlib.compressobj(wbits=-15)
    begun = compressor.compress(b"good \xff bad") + compressor.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(ProtocolError, match="UTF-8") as caught:
        read(reader(), sent(begun, Opcode.TEXT, fin=False))
    assert caught.value.code == 1007


# What is compressed.


def test_short_messages_go_as_they_are_unless_they_say_otherwise() -> None:
    deflater = Deflater(PLAIN, Deflate(threshold=10))
    messages = ["short", "long enough", ("text", "short", True), ("binary", b"long enough", False), ("ping", b"x")]
    assert [bool(frame[0] & 0x40) for frame in encode(messages, deflater)] == [False, True, True, False, False]
    assert not any(frame[0] & 0x40 for frame in encode(messages))


def test_one_compressor_serves_all_that_share_no_context() -> None:
    one, other = Deflater(ALONE, WIDE), Deflater(ALONE, WIDE)
    assert one.shared == other.shared is not None
    assert one.deflate(b"spam" * 99) == other.deflate(b"spam" * 99) == one.deflate(b"spam" * 99)


# A whole connection.


class Pushing(Diary):
    """Pushes what comes, past its own results."""

    def handle_in(self, message: Any, state: Any) -> Any:
        current().push(message)
        return "push", message, state


@pytest.mark.parametrize(
    "settings", [Deflate(), Deflate(server_no_context_takeover=True, client_no_context_takeover=True)]
)
def test_a_connection(settings: Deflate) -> None:
    with connect(application(Pushing(), compress=settings), compress=True) as client:
        assert client.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
        for message in [*TEXTS, b"\x00" * 100_000, "short"]:
            client.send(message)
            assert [client.receive(), client.receive()] == [message, message]


def test_nothing_is_agreed_on_unless_both_want_it() -> None:
    for options, compress in (({"compress": False}, True), ({"compress": True}, False)):
        with connect(application(Diary(), **options), compress=compress) as client:
            assert "Sec-WebSocket-Extensions" not in client.headers
            client.send("hello" * 100)
            assert client.receive() == "hello" * 100


def test_a_push_that_fails_leaves_the_context_alone() -> None:
    class Fails(Diary):
        def handle_in(self, message: Any, state: Any) -> Any:
            with pytest.raises(TypeError):
                current().push([f"never sent, {message}", 42])  # type: ignore[list-item]
            return "push", message, state

    with connect(application(Fails(), compress=True), compress=True) as client:
        for message in TEXTS:
            client.send(message)
            assert client.receive() == message


def test_an_overflow_leaves_the_context_alone() -> None:
    """What was refused is in it, and not with the client."""

    class Overflows(Diary):
        def handle_in(self, message: Any, state: Any) -> Any:
            assert not current().push(["refused " * 100] * 4)
            return "push", "refused " * 100, state

    handler = Overflows()
    with connect(application(handler, compress=True, max_mailbox=3), compress=True) as client:
        client.send("go")
        assert client.receive() == "refused " * 100
        client.wait_closed()
        assert client.close_code == 1008
    assert handler.wait() == ("error", "mailbox overflow")


def test_what_is_pushed_to_many_is_compressed_once() -> None:
    """All connections share the frame: it is the same object in each one's output."""
    settings = Deflate(server_no_context_takeover=True)
    mailboxes: list[Any] = []

    class Joins(Diary):
        def init(self, state: Any) -> Any:
            mailboxes.append(current())
            return "ok", state

    clients = [connect(application(Joins(), compress=settings), compress=True) for _ in range(3)]
    frames = []
    message = "news " * 100
    for mailbox in mailboxes:
        mailbox.websocket.out.append(b"\x8a\x00")  # something waits, so the frame stays to be looked at
        assert mailbox.push(message)
        frames.append(mailbox.websocket.out[-1])
        mailbox._waiter.flush()
    assert frames[0] is frames[1] is frames[2] and frames[0][0] == 0xC1
    for client in clients:
        assert client.receive() == message
        client.close()


def test_contexts_are_given_back_at_the_end() -> None:
    kept: list[Any] = []

    class Keeps(Diary):
        def init(self, state: Any) -> Any:
            kept.append(current().websocket)
            return "ok", state

    with connect(application(Keeps(), compress=True), compress=True) as client:
        client.send("hello" * 100)
        assert client.receive() == "hello" * 100
        assert kept[0].deflater is not None
    assert kept[0].deflater is None and kept[0].reader._inflater is None


def test_a_corrupt_message_closes_with_1007() -> None:
    handler = Diary()
    with connect(application(handler, compress=True), compress=True) as client:
        client.socket.sendall(sent(b"\xff\xff"))
        client.wait_closed()
        assert client.close_code == 1007
        assert re.search("RFC 7692", client.close_text)


def test_a_header_of_endless_offers_is_declined() -> None:
    assert negotiate("a, " * 600 + "permessage-deflate", WIDE) is not None
    assert negotiate("a, " * 6000 + "permessage-deflate", WIDE) is None


def test_a_message_that_is_refused_is_not_kept() -> None:
    """Though the error that ``terminate`` got may be."""
    kept: list[Any] = []

    class Keeps(Diary):
        def init(self, state: Any) -> Any:
            kept.append(current().websocket)
            return "ok", state

    handler = Keeps()
    with connect(application(handler, compress=True, max_message_size=100_000), compress=True) as client:
        client.socket.sendall(sent(deflated(bytes(200_000))))
        client.wait_closed()
        assert client.close_code == 1009
    _, error = handler.wait()
    assert error.__traceback__ is None
    assert not kept[0].reader._message and not kept[0].reader.unread
