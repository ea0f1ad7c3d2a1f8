"""The end of a connection, whatever its cause: close frame, what ``terminate`` gets, that it is called exactly once.

Each row of the contract's tables "stop reason" and "the end" is a test here.
"""

from __future__ import annotations

import logging
import struct
from typing import Any

import gevent
import pytest
from gevent.pywsgi import WSGIServer
from support import (
    DEADLINE,
    Diary,
    application,
    frames_of,
    handshake,
    masked,
    open_client,
    raw_connection,
    read_all,
    read_head,
    text,
)
from websockets.frames import Opcode

from websock_gevent import ConnectionClosed, ProtocolError, current


def closed_by(client: Any) -> tuple[int, str]:
    """Wait for the close frame and the end of the handler."""
    with pytest.raises(ConnectionClosed) as closed:
        client.receive()
    client.wait_closed()
    return closed.value.code, closed.value.text


class Returns(Diary):
    """Returns from a callback what it was made with."""

    def __init__(self, callback: str, result: Any) -> None:
        super().__init__()
        setattr(self, callback, lambda *_: result)


STOPS = [
    (("stop", "normal", 1), 1000, "", "normal"),
    (("stop", ("shutdown", "restart"), 1), 1012, "", "normal"),
    (("stop", ("shutdown", "disconnected"), 1), 1000, "", "normal"),
    (("stop", "oops", 1), 1011, "", ("error", "oops")),
    (("stop", ["unhashable"], 1), 1011, "", ("error", ["unhashable"])),
    (("stop", "normal", 4001, 1), 4001, "", "normal"),
    (("stop", "normal", (4001, "bye"), 1), 4001, "bye", "normal"),
    (("stop", "normal", (4001, None), 1), 4001, "", "normal"),
    (("stop", ("shutdown", "restart"), 3000, 1), 3000, "", "normal"),
    (("stop", ("shutdown", "disconnected"), 1001, 1), 1001, "", "normal"),
    (("stop", "oops", (4999, "x" * 123), 1), 4999, "x" * 123, ("error", "oops")),
]


@pytest.mark.parametrize(("result", "code", "close_text", "reason"), STOPS, ids=lambda value: str(value)[:40])
def test_stop(result: Any, code: int, close_text: str, reason: Any) -> None:
    handler = Returns("handle_in", result)
    client = open_client(handler)
    client.send("go")
    assert closed_by(client) == (code, close_text)
    assert handler.calls[-1] == ("terminate", reason, 1)
    assert handler.reasons == [reason]


def test_stop_sends_its_messages_before_the_close_frame() -> None:
    handler = Returns("handle_in", ("stop", "normal", 4000, ["one", b"two"], None))
    client = open_client(handler)
    client.send("go")
    assert [client.receive(), client.receive()] == ["one", b"two"]
    assert closed_by(client) == (4000, "")


@pytest.mark.parametrize("callback", ["init", "handle_info", "handle_control"])
def test_stop_from_other_callbacks(callback: str) -> None:
    handler = Returns(callback, ("stop", "normal", (4002, callback), ["last"], None))
    handler.handle_in = lambda message, state: ("ok", current().send("mail"))  # type: ignore[method-assign]
    client = open_client(handler)
    if callback == "handle_info":
        client.send("go")
    elif callback == "handle_control":
        client.socket.sendall(masked(Opcode.PING))
    assert client.receive() == "last"
    assert closed_by(client) == (4002, callback)
    assert handler.reasons == ["normal"]


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"", 1000),
        (struct.pack("!H", 1000), 1000),
        (struct.pack("!H", 1001) + b"leaving", 1001),
        (struct.pack("!H", 1014), 1014),
        (struct.pack("!H", 4001) + "späť".encode(), 4001),
        (struct.pack("!H", 1006), 1002),
        (struct.pack("!H", 999), 1002),
        (struct.pack("!H", 5000), 1002),
    ],
    ids=lambda value: repr(value),
)
def test_peer_closes(sent: bytes, answered: int) -> None:
    class Watch(Diary):
        def terminate(self, reason: Any, state: Any) -> None:
            websocket = current().websocket
            self.calls.append(("peer", websocket.close_code, websocket.close_text))
            super().terminate(reason, state)

    handler = Watch()
    sock, server = raw_connection(application(handler))
    sock.sendall(handshake() + masked(Opcode.CLOSE, sent))
    read_head(sock)
    assert list(frames_of(read_all(sock))) == [(8, struct.pack("!H", answered))]
    sock.close()
    server.join(DEADLINE)
    assert handler.wait() == "remote"
    code = struct.unpack("!H", sent[:2])[0] if sent else None
    assert ("peer", code, sent[2:].decode()) in handler.calls


def test_peer_close_inside_a_fragmented_message_is_a_plain_close() -> None:
    handler = Diary()
    client = open_client(handler)
    client.socket.sendall(masked(Opcode.TEXT, b"begun", fin=False) + masked(Opcode.CLOSE, struct.pack("!H", 1000)))
    assert closed_by(client)[0] == 1000
    assert handler.reasons == ["remote"]
    assert not [call for call in handler.calls if call[0] == "handle_in"]


def test_silence_ends_by_timeout() -> None:
    handler = Diary()
    client = open_client(handler, timeout=0.1, ping_interval=None)
    assert closed_by(client) == (1002, "")
    assert handler.reasons == ["timeout"]


def test_sending_does_not_count_as_hearing() -> None:
    """A half-open connection must not live on because its own application keeps talking to it."""

    class Chatty(Diary):
        def init(self, state: Any) -> Any:
            current().send_after(0.02, "tick")
            return super().init(state)

        def handle_info(self, message: Any, state: Any) -> Any:
            current().send_after(0.02, "tick")
            return "push", "tick", state

    handler = Chatty()
    client = open_client(handler, timeout=0.2, ping_interval=None)
    with pytest.raises(ConnectionClosed) as closed:
        for _ in range(1000):
            client.receive()
    client.wait_closed()
    assert closed.value.code == 1002
    assert handler.reasons == ["timeout"]


def test_time_in_a_callback_is_not_the_peers_silence() -> None:
    class Slow(Diary):
        def handle_in(self, message: str | bytes, state: Any) -> Any:
            gevent.sleep(0.3)
            return super().handle_in(message, state)

    handler = Slow()
    client = open_client(handler, timeout=0.2, ping_interval=None)
    client.send("think")
    assert client.receive() == "think"
    client.send("again")
    assert client.receive() == "again"
    client.close()
    assert handler.reasons == ["remote"]


def test_pings_keep_a_silent_but_living_peer() -> None:
    handler = Diary()
    client = open_client(handler, timeout=0.3, ping_interval=0.05)
    with pytest.raises(TimeoutError):
        client.receive(timeout=0.8)  # answers pings meanwhile
    client.send("still here")
    assert client.receive() == "still here"
    client.close()
    assert handler.reasons == ["remote"]
    assert not [call for call in handler.calls if call[0] == "handle_control"], "our own pings' pongs reach nobody"


def test_ping_only_never_gives_up() -> None:
    handler = Diary()
    sock, server = raw_connection(application(handler, timeout=None, ping_interval=0.02))
    sock.sendall(handshake())
    read_head(sock)
    pings = b""
    while len(pings) < 3 * 10:  # three pings of eight bytes, none of them answered
        pings += sock.recv(1)
    assert {opcode for opcode, _ in frames_of(pings)} == {9}
    assert handler.reasons == []
    sock.close()
    assert handler.wait() == ("error", "closed")
    server.join(DEADLINE)


RAISING = ["handle_in", "handle_info", "handle_control"]


@pytest.mark.parametrize("result", [None, ("okay", 1), RuntimeError("boom"), gevent.Timeout(1)], ids=repr)
@pytest.mark.parametrize("callback", RAISING)
def test_a_callback_that_fails(callback: str, result: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Diary):
        def init(self, state: Any) -> Any:
            current().send("mail")
            return super().init(state)

    def fail(*_: Any) -> Any:
        if isinstance(result, BaseException):
            raise result
        return result

    handler = Failing()
    setattr(handler, callback, fail)
    client = open_client(handler, "state")
    client.socket.sendall(masked(Opcode.PING) + text("go"))
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            client.receive()
    client.wait_closed()
    assert (closed.value.code, closed.value.text) == (1011, "")
    kind, error = handler.wait()
    assert kind == "error"
    assert error is result if isinstance(result, BaseException) else isinstance(error, TypeError)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info, "a handler's error comes with its traceback"


@pytest.mark.parametrize("result", [None, ValueError("no")], ids=repr)
def test_init_that_fails_has_no_terminate(result: Any) -> None:
    class Failing(Diary):
        def init(self, state: Any) -> Any:
            if result is not None:
                raise result
            return None

    handler = Failing()
    client = open_client(handler)
    assert closed_by(client) == (1011, "")
    assert handler.reasons == []


def test_a_handler_that_cannot_be_made_closes_with_1011() -> None:
    class Broken(Diary):
        def __init__(self, argument: object) -> None:
            super().__init__()

    assert closed_by(open_client(Broken)) == (1011, "")


def test_terminate_that_raises_is_called_once(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Diary):
        def terminate(self, reason: Any, state: Any) -> None:
            super().terminate(reason, state)
            raise RuntimeError("too late")

    handler = Failing()
    client = open_client(handler)
    client.close(4000)
    assert client.close_code == 4000
    assert handler.reasons == ["remote"]
    assert "terminate raised" in caplog.text


VIOLATIONS = [
    ("unmasked", b"\x81\x02hi", 1002, "§5.1"),
    ("reserved bit", b"\xf1\x80\0\0\0\0", 1002, "§5.2"),
    ("reserved opcode", b"\x83\x80\0\0\0\0", 1002, "§5.2"),
    ("bad text", masked(Opcode.TEXT, b"\xff"), 1007, "§8.1"),
    ("bad close text", masked(Opcode.CLOSE, b"\x03\xe8\xff"), 1007, "§5.5.1"),
    ("close of one byte", masked(Opcode.CLOSE, b"\x03"), 1002, "§5.5.1"),
    ("stray continuation", masked(Opcode.CONT, b"x"), 1002, "§5.4"),
    ("too big", masked(Opcode.BINARY, b"x" * 1001), 1009, "§10.4"),
]


@pytest.mark.parametrize(("name", "sent", "code", "clause"), VIOLATIONS, ids=[row[0] for row in VIOLATIONS])
def test_protocol_violation(name: str, sent: bytes, code: int, clause: str, caplog: pytest.LogCaptureFixture) -> None:
    handler = Diary()
    client = open_client(handler, max_message_size=1000)
    client.socket.sendall(text("before") + sent + text("behind"))
    assert client.receive() == "before"
    assert closed_by(client)[0] == code
    kind, error = handler.wait()
    assert kind == "error" and isinstance(error, ProtocolError) and error.code == code
    assert clause in str(error)
    assert ("handle_in", "behind") not in handler.calls
    (record,) = caplog.records
    assert clause in record.getMessage() and record.exc_info is None, "one line, no traceback, for what the network did"


def test_peer_vanishes() -> None:
    handler = Diary()
    client = open_client(handler)
    client.abort()
    assert handler.wait() == ("error", "closed")


def test_peer_vanishes_inside_a_frame() -> None:
    handler = Diary()
    client = open_client(handler)
    client.socket.sendall(text("never complete")[:7])
    client.abort()
    assert handler.wait() == ("error", "closed")


def test_peer_that_does_not_read_ends_by_send_timeout() -> None:
    class Flood(Diary):
        def init(self, state: Any) -> Any:
            return "push", [b"x" * 100_000] * 50, state

    handler = Flood()
    sock, server = raw_connection(application(handler, send_timeout=0.1))
    sock.sendall(handshake())
    assert handler.wait() == ("error", "send timeout")
    server.join(DEADLINE)
    assert server.ready()
    sock.close()


def test_peer_that_reads_slowly_is_not_cut_off() -> None:
    class Flood(Diary):
        def init(self, state: Any) -> Any:
            return "stop", "normal", 1000, [b"x" * 100_000] * 30, state

    handler = Flood()
    sock, server = raw_connection(application(handler, send_timeout=0.3, close_timeout=0.1))
    sock.sendall(handshake())
    read_head(sock)
    received = b""
    while chunk := sock.recv(100_000):
        received += chunk
        gevent.sleep(0.03)  # the peer's own pace: all of it takes far longer than send_timeout
    assert [len(payload) for _, payload in frames_of(received)] == [100_000] * 30 + [2]
    server.join(DEADLINE)
    sock.close()


def test_a_slow_reader_behind_a_large_kernel_buffer_is_not_cut_off() -> None:
    """It takes bytes all the time, though the socket becomes writable only when much of the buffer is free again."""

    class Flood(Diary):
        def init(self, state: Any) -> Any:
            return "push", [b"x" * 100_000] * 100, state

    handler = Flood()
    server = WSGIServer(("127.0.0.1", 0), application(handler, send_timeout=0.2), log=None)
    server.start()
    client = gevent.socket.create_connection(server.address, timeout=DEADLINE)
    client.sendall(handshake())
    read_head(client)
    received = 0
    for _ in range(40):
        received += len(client.recv(20_000))
        gevent.sleep(0.02)  # the peer's own pace, about a megabyte per second
    assert handler.reasons == []
    while received < 100 * 100_010:
        received += len(client.recv(1 << 20))
    client.close()
    assert handler.wait() == ("error", "closed")
    server.stop()


def test_killed_greenlet_says_goodbye() -> None:
    handler = Diary()
    sock, server = raw_connection(application(handler))
    sock.sendall(handshake() + text("hello"))
    read_head(sock)
    assert sock.recv(7) == b"\x81\x05hello"
    server.kill(timeout=DEADLINE)
    assert handler.reasons == ["shutdown"]
    assert read_all(sock) == b"\x88\x02" + struct.pack("!H", 1012)
    sock.close()


def test_killed_in_a_callback() -> None:
    class Stuck(Diary):
        def handle_in(self, message: str | bytes, state: Any) -> Any:
            super().handle_in(message, state)
            entered.set()
            gevent.sleep(1000)

    entered = gevent.event.Event()
    handler = Stuck()
    sock, server = raw_connection(application(handler))
    sock.sendall(handshake() + text("hello"))
    read_head(sock)
    assert entered.wait(DEADLINE)
    server.kill(timeout=DEADLINE)
    assert handler.reasons == ["shutdown"]
    assert read_all(sock) == b"\x88\x02" + struct.pack("!H", 1012)
    sock.close()


def test_killed_while_the_kernel_takes_nothing() -> None:
    class Flood(Diary):
        def init(self, state: Any) -> Any:
            current().send("go on")
            return "push", [b"x" * 100_000] * 50, state

    handler = Flood()
    sock, server = raw_connection(application(handler))
    sock.sendall(handshake())
    read_head(sock)
    server.kill(timeout=DEADLINE)
    assert server.ready(), "a kill must not wait for the peer"
    assert handler.reasons == ["shutdown"]
    sock.close()


def test_killed_in_init_has_no_terminate() -> None:
    class Stuck(Diary):
        def init(self, state: Any) -> Any:
            entered.set()
            gevent.sleep(1000)

    entered = gevent.event.Event()
    handler = Stuck()
    sock, server = raw_connection(application(handler))
    sock.sendall(handshake())
    assert entered.wait(DEADLINE)
    server.kill(timeout=DEADLINE)
    assert handler.reasons == []
    sock.close()


def test_order_is_messages_close_frame_terminate() -> None:
    class Slow(Diary):
        def handle_in(self, message: str | bytes, state: Any) -> Any:
            return "stop", "normal", 4000, "last words", state

        def terminate(self, reason: Any, state: Any) -> None:
            assert release.wait(DEADLINE)
            super().terminate(reason, state)

    release = gevent.event.Event()
    handler = Slow()
    client = open_client(handler)
    client.send("go")
    assert client.receive() == "last words"
    while client.close_code is None:
        with pytest.raises(TimeoutError):
            client.receive(timeout=0.01)
    assert client.close_code == 4000 and handler.calls == [("init", None)], "the client hears first"
    release.set()
    client.wait_closed()
    assert handler.reasons == ["normal"]


def test_nothing_is_called_behind_our_close_frame() -> None:
    class Stopping(Diary):
        def handle_in(self, message: str | bytes, state: Any) -> Any:
            super().handle_in(message, state)
            mailboxes.append(current())
            current().send("late mail")
            return "stop", "normal", state

        def terminate(self, reason: Any, state: Any) -> None:
            self.calls.append(("send", current().send("later mail"), current().push("later push")))
            self.calls.append(("closed", current().websocket.closed))
            super().terminate(reason, state)

    mailboxes: list[Any] = []
    handler = Stopping()
    client = open_client(handler)
    client.socket.sendall(text("stop") + text("more") + masked(Opcode.PING))
    assert closed_by(client) == (1000, "")
    assert [call[0] for call in handler.calls] == ["init", "handle_in", "send", "closed", "terminate"]
    assert ("send", False, False) in handler.calls and ("closed", True) in handler.calls
    assert mailboxes[0].closed and not mailboxes[0].send("too late") and not mailboxes[0].push("too late")


def test_the_peers_close_frame_is_awaited_before_our_side_is_closed() -> None:
    handler = Returns("handle_in", ("stop", "normal", None))
    sock, server = raw_connection(application(handler))
    sock.sendall(handshake() + text("stop"))
    read_head(sock)
    assert sock.recv(4) == b"\x88\x02" + struct.pack("!H", 1000)
    assert handler.wait() == "normal"
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.recv(1)  # the stream is open: a peer that has not answered yet still may
    sock.settimeout(DEADLINE)
    sock.sendall(masked(Opcode.CLOSE))
    assert read_all(sock) == b""
    sock.close()
    server.join(DEADLINE)


def test_close_timeout_is_not_renewed_by_what_the_peer_sends() -> None:
    handler = Returns("handle_in", ("stop", "normal", None))
    sock, server = raw_connection(application(handler, close_timeout=0.2))
    sock.sendall(handshake() + text("stop"))
    read_head(sock)
    assert sock.recv(4) == b"\x88\x02" + struct.pack("!H", 1000)

    def chatter() -> None:
        with pytest.raises(OSError):
            while True:
                sock.sendall(text("never closing"))
                gevent.sleep(0.01)

    talker = gevent.spawn(chatter)
    server.join(DEADLINE)
    assert server.ready()
    talker.join(DEADLINE)
    sock.close()


def test_close_frame_is_not_lost_to_unread_input() -> None:
    """Ten megabytes are on their way when we close; an RST would end the client before it reads why."""
    handler = Diary()
    server = WSGIServer(("127.0.0.1", 0), application(handler, max_message_size=1000), log=None)
    server.start()
    client = gevent.socket.create_connection(server.address, timeout=DEADLINE)
    client.sendall(handshake())
    read_head(client)
    message = masked(Opcode.BINARY, b"x" * 10_000_000)
    client.sendall(message[:100_000])
    assert handler.ended.wait(DEADLINE)
    client.sendall(message[100_000:])  # a client learns of our close frame only when it has sent its message
    (frame,) = frames_of(read_all(client))
    assert frame[1][:2] == struct.pack("!H", 1009)
    client.close()
    server.stop()
    assert handler.wait()[0] == "error"


def test_state_is_committed_after_every_callback() -> None:
    class Counting(Diary):
        def handle_in(self, message: str | bytes, state: int) -> Any:
            if message == "raise":
                raise RuntimeError("boom")
            return "ok", state + 1

    handler = Counting()
    client = open_client(handler, 0)
    client.socket.sendall(text("a") + text("b") + text("raise"))
    assert closed_by(client)[0] == 1011
    assert handler.calls[-1][2] == 2


def test_a_peer_that_reads_nothing_and_a_slow_terminate_come_to_an_end() -> None:
    """The deadline comes while ``terminate`` runs, when nobody can be woken."""

    class Slow(Diary):
        mailbox: Any = None

        def init(self, state: Any) -> Any:
            self.mailbox = current()
            return super().init(state)

        def handle_in(self, message: Any, state: Any) -> Any:
            return "push", [bytes(1 << 20)] * 32, state

        def terminate(self, reason: Any, state: Any) -> None:
            gevent.sleep(0.6)
            super().terminate(reason, state)

    diary = Slow()
    sock, server = raw_connection(application(diary, send_timeout=0.3, max_mailbox=40))
    with sock:
        sock.sendall(handshake())
        read_head(sock)
        sock.sendall(text("flood"))
        with gevent.Timeout(DEADLINE):
            while not diary.calls or not diary.mailbox.websocket.out:
                gevent.sleep(0.001)
        assert not diary.mailbox.push(["x"] * 50)
        assert diary.wait() == ("error", "mailbox overflow")
        server.join(DEADLINE)
        assert server.ready()
