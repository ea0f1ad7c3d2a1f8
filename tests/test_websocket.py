"""The `WebSocket` by itself: code written for gevent-websocket finds what it knows, and what never blocks.

A real socket pair; the other end speaks through the ``websockets`` library's frames.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import gevent
import geventwebsocket.websocket
import pytest
from gevent import socket
from geventwebsocket.exceptions import WebSocketError
from support import DEADLINE, frames_of, masked, text
from websockets.frames import Opcode

from websock_gevent import WebSocket
from websock_gevent.frames import BINARY, long_frame
from websock_gevent.messages import MessageReader

ENVIRON = {"PATH_INFO": "/ws", "HTTP_ORIGIN": "http://localhost", "REMOTE_ADDR": "127.0.0.1"}


@pytest.fixture
def pair() -> Iterator[tuple[WebSocket, Any]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(DEADLINE)
    websocket = WebSocket(
        ours, ENVIRON, MessageReader(1 << 24, 1 << 24), subprotocol="chat", unread=b"", send_timeout=0.1
    )
    yield websocket, theirs
    ours.close()
    theirs.close()


def test_it_is_a_gevent_websocket(pair: Any) -> None:
    websocket, _ = pair
    assert isinstance(websocket, geventwebsocket.websocket.WebSocket)
    assert (websocket.path, websocket.origin, websocket.protocol) == ("/ws", "http://localhost", "chat")
    assert websocket.environ is ENVIRON and websocket.closed is False


def test_receive(pair: Any) -> None:
    websocket, peer = pair
    peer.sendall(text("one") + masked(Opcode.BINARY, b"two") + masked(Opcode.PONG) + text("three"))
    assert [websocket.receive() for _ in range(3)] == ["one", b"two", "three"]


def test_receive_waits(pair: Any) -> None:
    websocket, peer = pair
    waiting = gevent.spawn(websocket.receive)
    gevent.idle()
    for byte in text("piecemeal"):
        peer.sendall(bytes([byte]))
        gevent.idle()
    assert waiting.get(timeout=DEADLINE) == "piecemeal"


def test_receive_answers_pings(pair: Any) -> None:
    websocket, peer = pair
    peer.sendall(masked(Opcode.PING, b"x") + text("on"))
    assert websocket.receive() == "on"
    websocket.send("out")
    assert peer.recv(100) == b"\x8a\x01x\x81\x03out"


@pytest.mark.parametrize("sent", [b"", struct.pack("!H", 4001) + b"bye"])
def test_receive_returns_none_when_the_peer_closes(pair: Any, sent: bytes) -> None:
    websocket, peer = pair
    peer.sendall(masked(Opcode.CLOSE, sent))
    assert websocket.receive() is None
    assert websocket.closed
    assert (websocket.close_code, websocket.close_text) == ((4001, "bye") if sent else (None, ""))
    assert peer.recv(100) == b"\x88\x02" + struct.pack("!H", 4001 if sent else 1000)
    with pytest.raises(WebSocketError):
        websocket.receive()


def test_receive_returns_none_when_the_peer_vanishes(pair: Any) -> None:
    websocket, peer = pair
    peer.close()
    assert websocket.receive() is None
    assert websocket.closed and websocket.close_code is None


def test_receive_refuses_what_breaks_the_protocol(pair: Any, caplog: pytest.LogCaptureFixture) -> None:
    websocket, peer = pair
    peer.sendall(b"\x81\x02hi")
    assert websocket.receive() is None
    assert peer.recv(100) == b"\x88\x02" + struct.pack("!H", 1002)
    assert "§5.1" in caplog.text


@pytest.mark.parametrize(
    ("message", "binary", "frame"),
    [
        ("text", None, (1, b"text")),
        (b"bytes", None, (2, b"bytes")),
        (bytearray(b"array"), None, (2, b"array")),
        (b"bytes as text", False, (1, b"bytes as text")),
        ("text as bytes", True, (2, b"text as bytes")),
    ],
)
def test_send(pair: Any, message: Any, binary: bool | None, frame: tuple[int, bytes]) -> None:
    websocket, peer = pair
    websocket.send(message, binary)
    assert list(frames_of(peer.recv(100))) == [frame]


def test_send_waits_for_the_peer_and_sends_all(pair: Any) -> None:
    websocket, peer = pair
    message = bytes(range(256)) * 20_000
    sending = gevent.spawn(websocket.send, message)
    received = b""
    while len(received) < len(message) + 10:
        received += peer.recv(1 << 16)
    sending.get(timeout=DEADLINE)
    assert list(frames_of(received)) == [(2, message)]


def test_two_senders_do_not_mix(pair: Any) -> None:
    websocket, peer = pair
    one, two = b"1" * 3_000_000, b"2" * 3_000_000
    senders = [gevent.spawn(websocket.send, message) for message in (one, two)]
    received = b""
    while len(received) < 6_000_020:
        received += peer.recv(1 << 16)
    gevent.joinall(senders, timeout=DEADLINE, raise_error=True)
    assert [payload for _, payload in frames_of(received)] == [one, two]


def test_send_gives_up_on_a_peer_that_does_not_read(pair: Any) -> None:
    websocket, _ = pair
    with pytest.raises(WebSocketError, match="dead"):
        websocket.send(b"x" * 5_000_000)
    with pytest.raises(WebSocketError, match="dead"):
        websocket.send("more")


def test_send_to_a_peer_that_has_gone(pair: Any) -> None:
    websocket, peer = pair
    peer.close()
    with pytest.raises(WebSocketError, match="dead"):
        websocket.send("anybody?")


def test_close(pair: Any) -> None:
    websocket, peer = pair
    websocket.close(4001, "später")
    websocket.close()
    assert websocket.closed
    assert list(frames_of(peer.recv(100))) == [(8, struct.pack("!H", 4001) + "später".encode())]
    with pytest.raises(WebSocketError, match="closed"):
        websocket.send("late")


def test_close_takes_bytes_as_gevent_websocket_did(pair: Any) -> None:
    websocket, peer = pair
    websocket.close(1001, b"bye")
    assert list(frames_of(peer.recv(100))) == [(8, struct.pack("!H", 1001) + b"bye")]


@pytest.mark.parametrize(("code", "message"), [(1005, ""), (99, ""), (5000, ""), (1000, "x" * 124)])
def test_close_refuses_what_may_not_be_sent(pair: Any, code: int, message: str) -> None:
    websocket, _ = pair
    with pytest.raises(ValueError, match="close"):
        websocket.close(code, message)
    assert not websocket.closed


def test_close_of_a_dead_socket_is_quiet(pair: Any) -> None:
    websocket, peer = pair
    peer.close()
    websocket.close()
    assert websocket.closed


def test_flush_joins_short_frames_and_keeps_their_order(pair: Any) -> None:
    websocket, peer = pair
    sizes = [1, 70_000, 2, 3, 200_000, 4, *[100] * 2000]
    websocket.out += [b"%d" % (size % 10) * size for size in sizes]
    expected = b"".join(bytes(piece) for piece in websocket.out)
    received = b""
    while not websocket.flush():
        received += peer.recv(1 << 20)
    while len(received) < len(expected):
        received += peer.recv(1 << 20)
    assert received == expected


def test_a_frame_in_two_pieces_leaves_at_once(pair: Any) -> None:
    websocket, peer = pair
    pieces = long_frame(BINARY, bytes(1 << 16))
    websocket.out += pieces
    assert websocket.flush()
    assert not websocket.out
    expected, received = b"".join(pieces), b""
    while len(received) < len(expected):
        received += peer.recv(1 << 20)
    assert received == expected


def test_unread_bytes_come_first() -> None:
    ours, theirs = socket.socketpair()
    one = text("one")
    websocket = WebSocket(ours, ENVIRON, MessageReader(100, 100), unread=one[:5])
    theirs.sendall(one[5:] + text("two"))
    assert [websocket.receive(), websocket.receive()] == ["one", "two"]
    ours.close()
    theirs.close()
