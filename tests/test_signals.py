"""What the signals tell is what happened: compared, byte for byte, with what a client has sent and received.

Clients build and take apart their frames with the ``websockets`` library, and count for themselves.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket as plain_socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gevent
import pytest
from flask import Flask, request
from gevent import socket
from raw import Raw, close_frame
from serving import Server, certificate, gunicorn
from support import (
    DEADLINE,
    Diary,
    application,
    handshake,
    masked,
    raw_connection,
    read_all,
    read_head,
    text,
    until,
)
from websockets.frames import Opcode
from websockets.sync.client import connect as websocket_connect

from websock_gevent import Deflate, ProtocolError, WebSock, current, upgrade
from websock_gevent.flask import websocket
from websock_gevent.hosts import drainer_of
from websock_gevent.legacy import BlockingWebSocket, blocking
from websock_gevent.signals import (
    ConnectionStarted,
    ConnectionStopped,
    Frames,
    Traffic,
    UpgradeRefused,
    connection_started,
    connection_stopped,
    upgrade_refused,
)
from websock_gevent.testing import Refused, connect

KINDS = {0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}
GOODBYE = masked(Opcode.CLOSE, b"\x03\xe8bye")


@pytest.fixture(params=["greenlet", "parked"])
def idle(request: pytest.FixtureRequest) -> str:
    """Both kinds of connection."""
    kind: str = request.param
    return kind


class Told:
    """What was told, in order: pairs of sender and event."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, Any]] = []

    def __call__(self, sender: Any, event: Any) -> None:
        self.events.append((sender, event))

    def of(self, kind: type) -> list[Any]:
        """The events of one kind."""
        return [event for _, event in self.events if type(event) is kind]

    def stopped(self) -> ConnectionStopped:
        """The end of the one connection that there was, once it is told."""
        until(lambda: self.of(ConnectionStopped))
        [(begin_of, started), (end_of, stopped)] = self.events
        assert isinstance(started, ConnectionStarted) and isinstance(stopped, ConnectionStopped)
        assert begin_of is end_of is started.handler is stopped.handler
        assert started.websocket is stopped.websocket
        return stopped


@contextmanager
def listening(*names: Any) -> Iterator[Told]:
    """Receive these signals."""
    told = Told()
    for each in names:
        each.connect(told)
    try:
        yield told
    finally:
        for each in names:
            each.disconnect(told)


@pytest.fixture
def told() -> Iterator[Told]:
    """Whatever is told of connections."""
    with listening(connection_started, connection_stopped) as heard:
        yield heard


class Peer:
    """A client on a raw socket that counts what it sends and receives."""

    def __init__(
        self, app: Any, path: str = "/", behind: bytes = b"", read: Callable[[Any], bytes] = read_head, **headers: str
    ) -> None:
        self.socket, self._server = raw_connection(app)
        self.sent = behind
        self.received = b""
        self.socket.sendall(handshake(path, **headers) + behind)
        self.head = read(self.socket)
        assert self.head.startswith(b"HTTP/1.1 101 "), self.head

    def send(self, data: bytes, pieces: int = 0) -> None:
        """Send bytes, in pieces of this size each of which is on its own."""
        self.sent += data
        if not pieces:
            self.socket.sendall(data)
            return
        for start in range(0, len(data), pieces):
            self.socket.sendall(data[start : start + pieces])
            gevent.sleep()

    def read(self, size: int) -> bytes:
        """Receive so many bytes."""
        data = b""
        while len(data) < size:
            data += self.socket.recv(size - len(data))
        self.received += data
        return data

    def end(self) -> None:
        """Receive up to the end of the stream."""
        self.received += read_all(self.socket)
        self.socket.close()
        self._server.join(DEADLINE)


def counted(data: bytes) -> dict[str, Frames]:
    """What a stream consists of, whole frames of either side; by the ``websockets`` library, header by header."""
    found: dict[str, Frames] = {}
    at = 0
    while at < len(data):
        size, header = data[at + 1] & 0x7F, 2
        if size > 125:
            header = 4 if size == 126 else 10
            size = int.from_bytes(data[at + 2 : at + header], "big")
        header += 4 * (data[at + 1] >> 7)
        name = KINDS[data[at] & 0x0F]
        old = found.get(name, Frames())
        found[name] = Frames(old.count + 1, old.bytes + size, old.wire_bytes + header + size)
        at += header + size
    assert at == len(data)
    return found


def kinds_of(traffic: Traffic) -> dict[str, Frames]:
    """The kinds of which there were any."""
    return {name: frames for name in KINDS.values() if (frames := getattr(traffic, name)).count}


def matches(stopped: ConnectionStopped, peer: Peer) -> bool:
    """Whether both have counted the same."""
    assert kinds_of(stopped.recv) == counted(peer.sent)
    assert kinds_of(stopped.send) == counted(peer.received)
    assert sum(frames.wire_bytes for frames in kinds_of(stopped.send).values()) == len(peer.received)
    return True


EVERYTHING = (
    text("short")
    + masked(Opcode.BINARY, bytes(126))
    + masked(Opcode.TEXT, b"a", fin=False)
    + masked(Opcode.PING, b"in between")
    + masked(Opcode.CONT, b"b" * 70_000, fin=False)
    + masked(Opcode.CONT, b"")
    + masked(Opcode.PONG, b"unasked")
    + text("ü" * 200)
    + masked(Opcode.BINARY, b"")
)


@pytest.mark.parametrize("pieces", [0, 1009, 7])
def test_everything_is_counted_once(told: Told, idle: str, pieces: int) -> None:
    handler = Diary()
    peer = Peer(application(handler, idle=idle), "/path?query", behind=text("at once"))
    peer.send(EVERYTHING + GOODBYE, pieces)
    peer.end()
    stopped = told.stopped()
    assert matches(stopped, peer)
    assert stopped.recv.continuation == Frames(2, 70_000, 70_000 + 14 + 6)
    assert (stopped.reason, stopped.code, stopped.peer_code, stopped.peer_text) == ("remote", 1000, 1000, "bye")
    assert (stopped.path, stopped.handler_name) == ("/path", "support.Diary")
    assert stopped.duration > 0 and stopped.recv.compressed_bytes == stopped.send.inflated_bytes == 0


def test_large_messages_to_a_slow_reader_are_counted_once(told: Told, idle: str) -> None:
    class Generous(WebSock[Any]):
        def handle_in(self, message: Any, state: Any) -> Any:
            return "push", [bytes(1 << 20), "short", b"x" * 65_536] * 3, state

    peer = Peer(application(Generous, idle=idle))
    peer.send(text("go"))
    for _ in range(50):
        peer.read(50_001)  # between two reads, the server writes what there is room for
    peer.send(GOODBYE)
    peer.end()
    assert matches(told.stopped(), peer)


def test_a_101_that_is_sent_piece_by_piece_is_no_frame(told: Told, idle: str) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        response = upgrade(environ, Diary, None, idle=idle)
        response.headers["X-Large"] = "x" * 1_000_000
        return response(environ, start_response)

    peer = Peer(app, read=read_large_head)
    peer.send(EVERYTHING + GOODBYE)
    peer.end()
    assert len(peer.head) > 1_000_000 and matches(told.stopped(), peer)


def read_large_head(sock: Any) -> bytes:
    """Read the head of an answer that nothing comes behind yet."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1 << 16)
    return head


def test_what_others_push_is_counted(told: Told, idle: str) -> None:
    handler = Diary()
    boxes: list[Any] = []
    handler.init = lambda state: (boxes.append(current()), ("push", "hello", state))[1]  # type: ignore[method-assign]
    peer = Peer(application(handler, idle=idle, ping_interval=0.01))
    until(lambda: boxes)
    gevent.spawn(boxes[0].push, ["from a greenlet", b"binary", ("ping", b"payload")]).join()
    thread = threading.Thread(target=boxes[0].push, args=("from a thread",))
    thread.start()
    until(lambda: not thread.is_alive())
    expected = b"hello from a greenlet binary payload from a thread".split()
    with gevent.Timeout(DEADLINE):
        while not all(word in peer.received for word in expected) or not counted_pings(peer.received):
            peer.read(1)
    peer.send(GOODBYE)
    peer.end()
    stopped = told.stopped()
    assert matches(stopped, peer)
    assert stopped.send.text.count == 3 and stopped.send.binary.count == 1 and stopped.send.ping.count >= 2


def counted_pings(data: bytes) -> int:
    """Pings of eight bytes, which are the library's own, in what has come so far."""
    return data.count(b"\x89\x08")


def compressor() -> Callable[[str, bytes], bytes]:
    """A client's, with context takeover: makes a frame of a message, and notes the sizes in ``sizes``."""
    deflate = zlib.compressobj(wbits=-12)
    sizes = [0, 0]

    def compressed(message: str, split: bytes = b"") -> bytes:
        payload = (deflate.compress(message.encode()) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
        sizes[0] += len(payload)
        sizes[1] += len(message.encode())
        first = masked(Opcode.TEXT, payload[:9] if split else payload, fin=not split)
        marked = bytes((first[0] | 0x40,)) + first[1:]
        return marked + split + masked(Opcode.CONT, payload[9:]) if split else marked

    compressed.sizes = sizes  # type: ignore[attr-defined]
    return compressed


OFFER = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}


@pytest.mark.parametrize("alone", [False, True], ids=["context", "no context"])
def test_compressed_and_inflated_sizes(told: Told, idle: str, alone: bool) -> None:
    peer = Peer(application(Diary, idle=idle, compress=Deflate(server_no_context_takeover=alone)), **OFFER)
    compress = compressor()
    long = [letter * 300_000 for letter in "üab"]
    messages = ["ä" * 500, "short", *long]
    peer.send(compress(messages[0]) + compress(messages[1]))
    peer.send(compress(long[0], split=masked(Opcode.PING, b"in between")), pieces=11)
    peer.send(compress(long[1]) + compress(long[2]) + text("as it is") + GOODBYE)
    peer.end()
    stopped = told.stopped()
    assert matches(stopped, peer)
    recv, send = stopped.recv, stopped.send
    assert [recv.compressed_bytes, recv.inflated_bytes] == compress.sizes  # type: ignore[attr-defined]
    sent = [len(message.encode()) for message in messages if message != "short"]
    assert send.inflated_bytes == sum(sent)
    assert send.compressed_bytes == send.text.bytes - len("short") - len("as it is")


def test_what_is_compressed_once_and_pushed_to_many_counts_for_each(told: Told) -> None:
    boxes: list[Any] = []

    class Listener(WebSock[Any]):
        def init(self, state: Any) -> Any:
            boxes.append(current())
            return "ok", state

    app = application(Listener, compress=Deflate(server_no_context_takeover=True))
    peers = [Peer(app, **OFFER) for _ in range(3)]
    until(lambda: len(boxes) == 3)
    for message in ("ü" * 1000, b"b" * 1000, "short"):
        for box in boxes:
            box.push(message)
    for peer in peers:
        peer.send(GOODBYE)
        peer.end()
    until(lambda: len(told.of(ConnectionStopped)) == 3)
    for stopped in told.of(ConnectionStopped):
        compressed = stopped.send.text.bytes - len("short") + stopped.send.binary.bytes
        assert (stopped.send.compressed_bytes, stopped.send.inflated_bytes) == (compressed, 3000)


# Ends.


class Obedient(Diary):
    """Ends as it is told."""

    def handle_in(self, message: Any, state: Any) -> Any:
        match message:
            case "stop":
                return "stop", "normal", (4000, "enough"), state
            case "fail":
                return "stop", "a reason", state
            case "flood and stop":
                return "stop", "normal", 4000, [bytes(1 << 20)] * 16, state
            case "send and stop":
                for number in range(3):
                    current().send(number)
                return "stop", "normal", state
            case "raise":
                raise RuntimeError("as told")
            case "flood":
                return "push", [bytes(1 << 20)] * 16, state
            case "overflow":
                for number in range(9):
                    current().send(number)
        return super().handle_in(message, state)


def say(*data: bytes) -> Callable[[Peer], object]:
    return lambda peer: peer.send(b"".join(data))


def leave(peer: Peer) -> None:
    peer.send(text("gone"))
    peer.socket.shutdown(socket.SHUT_WR)


#: What the client does, options; the reason, the code that is sent, and the peer's.
ENDS: dict[str, tuple[Callable[[Peer], object], dict[str, Any], object, int | None, int | None]] = {
    "the peer closes": (say(GOODBYE), {}, "remote", 1000, 1000),
    "the peer closes without a code": (say(masked(Opcode.CLOSE)), {}, "remote", 1000, None),
    "the peer closes with a bad code": (say(masked(Opcode.CLOSE, b"\x03\xed")), {}, "remote", 1002, 1005),
    "we close, and the peer answers": (
        say(text("stop"), text("too late"), masked(Opcode.CLOSE, b"\x0f\xa0")),
        {},
        "normal",
        4000,
        4000,
    ),
    "we close, and the peer does not": (say(text("stop")), {"close_timeout": 0.05}, "normal", 4000, None),
    "a stop with another reason": (say(text("fail"), GOODBYE), {}, ("error", "a reason"), 1011, 1000),
    "a callback raises": (say(text("raise"), GOODBYE), {}, RuntimeError, 1011, 1000),
    "silence": (say(), {"timeout": 0.05, "close_timeout": 0.05}, "timeout", 1002, None),
    "the protocol is broken": (say(masked(Opcode.CONT, b"x"), GOODBYE), {}, ProtocolError, 1002, None),
    "the peer goes away": (leave, {}, ("error", "closed"), None, None),
    "the peer does not read": (say(text("flood")), {"send_timeout": 0.1}, ("error", "send timeout"), None, None),
    "we close, and the peer does not read": (say(text("flood and stop")), {"send_timeout": 0.1}, "normal", None, None),
    "the mailbox overflows": (
        say(text("overflow")),
        {"max_mailbox": 7, "close_timeout": 0.05},
        ("error", "mailbox overflow"),
        1008,
        None,
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_every_end_is_told_once(told: Told, idle: str, end: str) -> None:
    act, options, reason, code, peer_code = ENDS[end]
    handler = Obedient()
    peer = Peer(application(handler, idle=idle, **options))
    act(peer)
    if not end.endswith("does not read"):
        peer.end()
    stopped = told.stopped()
    if end.endswith("does not read"):
        peer.end()
    assert stopped.reason == handler.wait() and (stopped.code, stopped.peer_code) == (code, peer_code)
    if isinstance(reason, type):
        assert isinstance(stopped.reason[1], reason)
    else:
        assert stopped.reason == reason
    assert stopped.deepest == (7 if end == "the mailbox overflows" else 0)
    assert stopped.send.close.count == (code is not None)
    if end == "the protocol is broken":
        assert kinds_of(stopped.recv) == {}
    elif code is not None and end != "the peer closes":
        assert matches(stopped, peer)


def test_what_was_never_taken_out_of_the_mailbox_counts(told: Told, idle: str) -> None:
    peer = Peer(application(Obedient, idle=idle))
    peer.send(text("send and stop") + GOODBYE)
    peer.end()
    assert told.stopped().deepest == 3


def test_a_terminate_that_is_killed_changes_no_code(told: Told, idle: str) -> None:
    class Killed(Obedient):
        def terminate(self, reason: Any, state: Any) -> None:
            raise gevent.GreenletExit

    peer = Peer(application(Killed, idle=idle))
    peer.send(text("stop") + GOODBYE)
    peer.end()
    assert (told.stopped().reason, told.stopped().code) == ("normal", 4000)


def test_an_init_that_raises_is_told(told: Told, idle: str, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(WebSock[Any]):
        def init(self, state: Any) -> Any:
            raise RuntimeError("as told")

    peer = Peer(application(Broken, idle=idle))
    peer.send(GOODBYE)
    peer.end()
    stopped = told.stopped()
    assert isinstance(stopped.reason, tuple) and isinstance(stopped.reason[1], RuntimeError)
    assert (stopped.code, stopped.longest_callback) == (1011, "init")


def test_a_handler_that_cannot_be_made_is_told(told: Told, idle: str, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Diary):
        def __init__(self, argument: object) -> None:
            super().__init__()

    peer = Peer(application(Broken, idle=idle))
    peer.send(GOODBYE)
    peer.end()
    assert (told.stopped().code, told.stopped().longest_callback) == (1011, "")


def test_the_longest_callback_and_the_deepest_mailbox(told: Told, idle: str) -> None:
    class Slow(Diary):
        def handle_control(self, frame: Any, state: Any) -> Any:
            for number in range(5):
                current().send(number)
            gevent.sleep(0.05)
            return "ok", state

    handler = Slow()
    peer = Peer(application(handler, idle=idle))
    peer.send(text("one") + masked(Opcode.PING) + text("two"))
    until(lambda: ("handle_info", 4) in handler.calls)
    peer.send(GOODBYE)
    peer.end()
    stopped = told.stopped()
    assert stopped.longest_callback == "handle_control" and 0.05 <= stopped.longest <= stopped.duration
    assert stopped.deepest == 5


# The blocking style.


def test_the_blocking_style_is_counted_as_well(told: Told) -> None:
    def echo(ws: BlockingWebSocket) -> None:
        for message in ws:
            ws.send(message)

    peer = Peer(application(blocking(echo)), behind=text("at once"))
    peer.send(EVERYTHING + GOODBYE)
    peer.end()
    stopped = told.stopped()
    assert matches(stopped, peer)
    assert stopped.handler is echo and stopped.handler_name.endswith(
        "test_the_blocking_style_is_counted_as_well.<locals>.echo"
    )
    assert (stopped.reason, stopped.code, stopped.longest_callback, stopped.deepest) == ("remote", 1000, "", 0)


def test_the_blocking_style_ends_once_whatever_it_raises(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    def fail(ws: BlockingWebSocket) -> None:
        ws.mailbox.send("one")
        ws.mailbox.send("two")
        ws.receive_any()
        raise RuntimeError("as told")

    peer = Peer(application(blocking(fail), compress=True), **OFFER)
    peer.send(text("one") + GOODBYE)
    peer.end()
    stopped = told.stopped()
    assert matches(stopped, peer)
    assert isinstance(stopped.reason, tuple) and isinstance(stopped.reason[1], RuntimeError)
    assert (stopped.code, stopped.deepest) == (1011, 2)


def test_a_refusal_in_the_blocking_style_is_told() -> None:
    def echo(ws: BlockingWebSocket) -> None: ...

    with listening(upgrade_refused) as told, pytest.raises(Refused):
        connect(application(blocking(echo)), headers={"Origin": "http://else.where"}, timeout=DEADLINE)
    assert [(sender, event.status) for sender, event in told.events] == [(echo, 403)]


# Receivers.


def test_receivers_may_block_and_raise(told: Told, idle: str, caplog: pytest.LogCaptureFixture) -> None:
    def blocks(sender: Any, event: Any) -> None:
        gevent.sleep(0.01)

    def raises(sender: Any, event: Any) -> None:
        raise RuntimeError("the receiver's own")

    def times_out(sender: Any, event: Any) -> None:
        raise gevent.Timeout(1)

    handler = Diary()
    receivers = [blocks, raises, times_out]
    for each in (connection_started, connection_stopped):
        for receiver in receivers:
            each.connect(receiver)
    peer = Peer(application(handler, "state", idle=idle))
    peer.send(text("one") + GOODBYE)
    peer.end()
    stopped = told.stopped()
    assert handler.calls == [("init", "state"), ("handle_in", "one"), ("terminate", "remote", "state")]
    assert matches(stopped, peer)
    until(lambda: len(caplog.records) == 4)
    assert [record.getMessage() for record in caplog.records] == [
        *["a receiver of connection-started raised"] * 2,
        *["a receiver of connection-stopped raised"] * 2,
    ]
    assert all(record.levelno == logging.ERROR and record.exc_info for record in caplog.records)
    for each in (connection_started, connection_stopped):
        for receiver in receivers:
            each.disconnect(receiver)


def test_a_receiver_runs_in_the_connections_greenlet(idle: str) -> None:
    handler = Diary()
    seen: list[object] = []

    def receive(sender: Any, event: Any) -> None:
        seen.append(current().websocket is event.websocket)
        seen.append(len(handler.calls))

    connection_started.connect(receive)
    peer = Peer(application(handler, idle=idle))
    peer.send(GOODBYE)
    peer.end()
    connection_started.disconnect(receive)
    assert seen == [True, 0]


def test_who_listens_to_one_handler_hears_of_no_other(idle: str) -> None:
    class One(Diary):
        pass

    class Other(Diary):
        pass

    told = Told()
    connection_stopped.connect(told, sender=One)
    for handler in (One, Other, One):
        peer = Peer(application(handler, idle=idle))
        peer.send(GOODBYE)
        peer.end()
    until(lambda: len(told.events) == 2)
    connection_stopped.disconnect(told, sender=One)
    assert [sender for sender, _ in told.events] == [One, One]


def test_callbacks_can_be_wrapped(told: Told, idle: str) -> None:
    handler = Diary()
    calls: list[str] = []

    def wrap(sender: Any, event: ConnectionStarted) -> None:
        for number in (1, 2):
            event.wrap_callbacks(lambda name, call, number=number: (calls.append(f"{name} {number}"), call())[1])

    connection_started.connect(wrap)
    peer = Peer(application(handler, idle=idle))
    peer.send(text("one") + masked(Opcode.PING) + GOODBYE)
    peer.end()
    told.stopped()
    connection_started.disconnect(wrap)
    names = ["init", "handle_in", "handle_control", "terminate"]
    assert calls == [f"{name} {number}" for name in names for number in (2, 1)]
    assert [call[0] for call in handler.calls] == names
    assert matches(told.stopped(), peer)


def test_what_a_wrapper_raises_is_the_callbacks(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    def wrap(sender: Any, event: ConnectionStarted) -> None:
        event.wrap_callbacks(lambda name, call: 1 / 0 if name == "handle_in" else call())  # type: ignore[arg-type]

    connection_started.connect(wrap)
    peer = Peer(application(Diary))
    peer.send(text("one") + GOODBYE)
    peer.end()
    connection_started.disconnect(wrap)
    assert told.stopped().code == 1011
    assert "handle_in raised, closing with 1011" in caplog.text


def test_a_handler_without_the_optional_callbacks_is_watched_too(told: Told, idle: str) -> None:
    class Bare:
        def init(self, state: Any) -> Any:
            return "ok", state

        def handle_in(self, message: Any, state: Any) -> Any:
            return "push", message, state

        def handle_info(self, message: Any, state: Any) -> Any:
            return "ok", state

    peer = Peer(application(Bare, idle=idle))
    peer.send(text("one") + masked(Opcode.PING) + GOODBYE)
    peer.end()
    assert matches(told.stopped(), peer)


def test_a_connection_that_nobody_watches_is_made_of_the_plain_parts(idle: str) -> None:
    seen: list[Any] = []

    class Look(Diary):
        def init(self, state: Any) -> Any:
            mailbox = current()
            seen.extend((type(mailbox), type(mailbox.websocket.reader), type(mailbox.websocket.deflater)))
            return "ok", state

    def names() -> list[str]:
        seen.clear()
        peer = Peer(application(Look, idle=idle, compress=True), **OFFER)
        peer.send(GOODBYE)
        peer.end()
        return [kind.__name__ for kind in seen]

    assert names() == ["Mailbox", "MessageReader", "Deflater"]
    with listening(connection_stopped):
        assert names() == ["_WatchedMailbox", "MeteredReader", "MeteredDeflater"]


# Refusals.


REFUSED = {
    "Connection": 400,
    "Upgrade": 400,
    "Sec-WebSocket-Key": 400,
    "Sec-WebSocket-Version": 426,
    "Origin": 403,
}


@pytest.mark.parametrize("early", [True, False], ids=["early", "late"])
@pytest.mark.parametrize("header", REFUSED)
def test_a_refusal_is_told_once(header: str, early: bool) -> None:
    app = application(Diary, early_validate_upgrade=early)
    with listening(upgrade_refused, connection_started) as told, pytest.raises(Refused) as refused:
        connect(app, "/path?query", headers={header: "http://else.where"}, timeout=DEADLINE)
    [(sender, event)] = told.events
    assert sender is Diary and isinstance(event, UpgradeRefused)
    assert (event.status, event.path) == (REFUSED[header], "/path")
    assert event.reason.split("'")[0] in refused.value.response.text and event.reason


def test_a_refusal_behind_the_view_is_told() -> None:
    """The worker has begun to end since the view has decided."""

    def app(environ: Any, start_response: Any) -> Any:
        response = upgrade(environ, Diary, None)
        drainer_of(start_response).draining = True
        return response(environ, start_response)

    with listening(upgrade_refused, connection_started) as told, pytest.raises(Refused) as refused:
        connect(app, "/path", timeout=DEADLINE)
    assert refused.value.response.status_code == 503
    assert [(sender, event.status, event.path) for sender, event in told.events] == [(Diary, 503, "/path")]


def test_a_refusal_of_a_route_is_told() -> None:
    app = Flask("refusing")

    @websocket(app, "/chat")
    def chat() -> Any:
        return upgrade(request.environ, Diary, None)

    with listening(upgrade_refused) as told:
        assert app.test_client().get("/chat?query").status_code == 426
    [(sender, event)] = told.events
    assert sender is app and (event.status, event.path) == (426, "/chat") and "WebSocket" in event.reason


def test_a_receiver_that_raises_refuses_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    def raises(sender: Any, event: Any) -> None:
        raise RuntimeError("the receiver's own")

    upgrade_refused.connect(raises)
    with pytest.raises(Refused) as refused:
        connect(application(Diary), headers={"Origin": "http://else.where"}, timeout=DEADLINE)
    upgrade_refused.disconnect(raises)
    assert refused.value.response.status_code == 403
    assert [record.getMessage() for record in caplog.records] == ["a receiver of upgrade-refused raised"]


# Real servers.


def told_by(server: Server, event: str, count: int) -> list[dict[str, Any]]:
    """So many events that a server of ``telling`` has written, once they are there."""
    server.wait_for_log(rf"(?:^told {event} [^\n]*\n(?:[^\n]*\n)*?){{{count}}}")
    lines = re.findall(rf"^told {event} (.*)$", server.log(), re.MULTILINE)
    assert len(lines) == count
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("worker", ["gevent", "gevent_pywsgi", "gthread"])
def test_under_gunicorn_everything_is_counted_once(worker: str, idle: str) -> None:
    options = quote(json.dumps({"idle": idle, "max_message_size": 1 << 20}))
    with gunicorn("telling:app", "--threads", "3", worker=worker) as server, Raw(server) as raw:
        raw.upgrade(f"/ending?options={options}", behind=text("at once"))
        raw.send(EVERYTHING + GOODBYE)
        received = raw.rest()
        raw.socket.close()
        [stopped] = told_by(server, "ConnectionStopped", 1)
        [_] = told_by(server, "ConnectionStarted", 1)
    for way, data in (("recv", text("at once") + EVERYTHING + GOODBYE), ("send", received)):
        told = {name: Frames(**stopped[way][name]) for name in KINDS.values()}
        assert {name: frames for name, frames in told.items() if frames.count} == counted(data)
    assert (stopped["reason"], stopped["code"]) == ("remote", 1000)


def test_over_tls_everything_is_counted_once(tmp_path: Path) -> None:
    made = certificate(tmp_path)
    with gunicorn("telling:app", "--certfile", str(made.path)) as server:
        server.tls = made.client
        with Raw(server) as raw:
            raw.upgrade("/echo")
            raw.send(EVERYTHING + GOODBYE)
            received = raw.rest()
            raw.socket.close()
            [stopped] = told_by(server, "ConnectionStopped", 1)
    assert {name: stopped["send"][name]["wire_bytes"] for name in counted(received)} == {
        name: frames.wire_bytes for name, frames in counted(received).items()
    }


class Recording(plain_socket.socket):
    """A client's socket that keeps what goes through it."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.settimeout(DEADLINE)
        self.connect(("127.0.0.1", port))
        self.sent = self.received = b""

    def sendall(self, data: Any, flags: int = 0) -> None:
        self.sent += data
        super().sendall(data, flags)

    def recv(self, size: int, flags: int = 0) -> bytes:
        data = super().recv(size, flags)
        self.received += data
        return data


def test_a_client_that_compresses_and_fragments_has_counted_the_same() -> None:
    parts = ["one " * 100, "two ü" * 1000, "three"]
    with gunicorn("telling:app") as server:
        through = Recording(server.port)
        with websocket_connect(server.url("/deflate", "ws"), sock=through) as client:
            for message in ("short", b"b" * 5000, iter(parts)):
                client.send(message)
                client.recv()
            client.ping().wait(DEADLINE)
        [stopped] = told_by(server, "ConnectionStopped", 1)
    for way, data in (("recv", through.sent), ("send", through.received)):
        told = {name: Frames(**stopped[way][name]) for name in KINDS.values()}
        frames = data.partition(b"\r\n\r\n")[2]
        assert {name: each for name, each in told.items() if each.count} == counted(frames)
    sizes = [5, 5000, len("".join(parts).encode())]
    assert (stopped["recv"]["inflated_bytes"], stopped["send"]["inflated_bytes"]) == (sum(sizes), sum(sizes[1:]))
    assert stopped["recv"]["text"]["count"] == 2 and stopped["recv"]["continuation"]["count"] == 3


def test_a_drain_under_gunicorn_is_told(idle: str) -> None:
    options = quote(json.dumps({"idle": idle, "close_timeout": 1}))
    with gunicorn("telling:app", "--graceful-timeout", "1") as server, ExitStack() as stack:
        raws = [stack.enter_context(Raw(server)) for _ in range(3)]
        for number, raw in enumerate(raws):
            raw.upgrade(f"/ending?key={number}&options={options}")
        raws[0].send(text("block"))
        server.wait_for_log("blocked 0")
        server.end()
        log = server.log()
        [started], [finished] = told_by(server, "DrainStarted", 1), told_by(server, "DrainFinished", 1)
        reasons = [(one["reason"], one["code"]) for one in told_by(server, "ConnectionStopped", 3)]
    assert (started["connections"], finished["connections"], finished["cut"]) == (3, 3, 3), log
    assert 0 < started["seconds"] < 1 and finished["seconds"] >= started["seconds"]
    assert reasons == [("shutdown", 1012)] * 3


def test_a_drain_of_those_who_answer_cuts_nobody() -> None:
    with gunicorn("telling:app") as server, ExitStack() as stack:
        raws = [stack.enter_context(Raw(server)) for _ in range(3)]
        for raw in raws:
            raw.upgrade("/ending")
        os.kill(server.pid, signal.SIGTERM)
        for raw in raws:
            raw.read(4)
            raw.send(close_frame(1012))
            raw.rest()
            raw.socket.close()
        server.wait()
        [finished] = told_by(server, "DrainFinished", 1)
    assert (finished["connections"], finished["cut"]) == (3, 0)


def test_new_connections_of_a_draining_worker_are_told_as_refused() -> None:
    with gunicorn("telling:app") as server, Raw(server) as first, Raw(server) as late:
        first.upgrade("/ending")
        late.send(late.request("/ending")[:-2])  # a request that is not yet complete when the end comes
        os.kill(server.worker_pid, signal.SIGTERM)
        assert first.read(2)[0] == 0x88
        late.send(b"\r\n")
        assert late.head().status == 503
        [refused] = told_by(server, "UpgradeRefused", 1)
    assert (refused["status"], refused["path"]) == (503, "/ending")
