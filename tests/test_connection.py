"""An open connection: callbacks, their order, who waits for whom, and what reaches the peer meanwhile."""

from __future__ import annotations

import types
from typing import Any

import gevent
import pytest
from gevent.event import Event
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

from websock_gevent import WebSock, current
from websock_gevent.testing import connect

RESULTS = [
    (("ok", 2), [], 2),
    (("push", "text", 2), ["text"], 2),
    (("push", b"binary", 2), [b"binary"], 2),
    (("push", bytearray(b"binary"), 2), [b"binary"], 2),
    (("push", memoryview(b"binary"), 2), [b"binary"], 2),
    (("push", ("text", "tagged"), 2), ["tagged"], 2),
    (("push", ("binary", b"tagged"), 2), [b"tagged"], 2),
    (("push", [], 2), [], 2),
    (("push", ["one", b"two", ("text", "three")], 2), ["one", b"two", "three"], 2),
    (("push", "", 2), [""], 2),
    (("reply", object(), "text", 2), ["text"], 2),
    (("reply", None, ["one", "two"], 2), ["one", "two"], 2),
]


@pytest.mark.parametrize("callback", ["init", "handle_in", "handle_info", "handle_control"])
@pytest.mark.parametrize(("result", "messages", "state"), RESULTS, ids=lambda value: str(value)[:30])
def test_results(callback: str, result: Any, messages: list[Any], state: Any) -> None:
    """Every result means the same, whichever callback returns it."""

    class Answers(WebSock[Any]):
        def init(self, state: Any) -> Any:
            current().send("mail")
            return result if callback == "init" else ("ok", state)

        def handle_in(self, message: Any, state: Any) -> Any:
            if message == "state?":
                return "push", f"state {state}", state
            return result if callback == "handle_in" else ("ok", state)

        def handle_info(self, message: Any, state: Any) -> Any:
            return result if callback == "handle_info" else ("ok", state)

        def handle_control(self, frame: Any, state: Any) -> Any:
            return result if callback == "handle_control" else ("ok", state)

    with open_client(Answers, 1) as client:
        client.socket.sendall(text("go"))
        client.ping(b"now")
        assert [client.receive() for _ in messages] == messages
        client.send("state?")
        assert client.receive() == f"state {state}"


def test_frames_right_behind_the_handshake_are_handled_after_init() -> None:
    class Greeting(Diary):
        def init(self, state: Any) -> Any:
            super().init(state)
            return "push", "welcome", state

    handler = Greeting()
    sock, server = raw_connection(application(handler))
    sock.sendall(handshake() + text("one") + text("two") + masked(Opcode.CLOSE))
    read_head(sock)
    assert [payload for _, payload in frames_of(read_all(sock))][:3] == [b"welcome", b"one", b"two"]
    assert [call[0] for call in handler.calls] == ["init", "handle_in", "handle_in", "terminate"]
    sock.close()
    server.join(DEADLINE)


def test_control_frames_reach_handle_control_behind_the_pong() -> None:
    class Watch(Diary):
        def handle_control(self, frame: Any, state: Any) -> Any:
            super().handle_control(frame, state)
            return "push", "seen", state

    handler = Watch()
    sock, server = raw_connection(application(handler))
    sock.sendall(handshake() + masked(Opcode.PING, b"a") + masked(Opcode.PONG) + masked(Opcode.CLOSE))
    read_head(sock)
    assert list(frames_of(read_all(sock)))[:3] == [(10, b"a"), (1, b"seen"), (1, b"seen")]
    assert handler.calls[1:3] == [("handle_control", "ping", b"a"), ("handle_control", "pong", b"")]
    sock.close()
    server.join(DEADLINE)


def test_messages_are_str_and_bytes() -> None:
    handler = Diary()
    with open_client(handler) as client:
        for message in ("text", b"bytes", "", b"", "grüße", "x" * 70_000, b"y" * 70_000):
            client.send(message)
            received = client.receive()
            assert (received, type(received)) == (message, type(message))


def test_a_class_is_made_once_for_each_connection_and_an_object_is_shared() -> None:
    class Counting(WebSock[Any]):
        made = 0

        def __init__(self) -> None:
            type(self).made += 1

        def handle_in(self, message: Any, state: Any) -> Any:
            return "push", f"{id(self)}", state

    def identities(app: Any) -> list[Any]:
        with connect(app) as one, connect(app) as two:
            for client in (one, two, one):
                client.send("who")
            return [one.receive(), two.receive(), one.receive()]

    first, second, again = identities(application(Counting))
    assert first == again != second and Counting.made == 2
    assert len(set(identities(application(Counting())))) == 1 and Counting.made == 3


def test_a_module_can_be_a_handler() -> None:
    module = types.ModuleType("handler")
    exec(
        "def init(state): return 'ok', state\n"
        "def handle_in(message, state): return 'push', message.upper(), state\n"
        "def handle_info(message, state): return 'ok', state\n",
        module.__dict__,
    )
    with open_client(module) as client:
        client.send("loud")
        assert client.receive() == "LOUD"


class Blocking(Diary):
    """Blocks on the message "block" until told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.release = gevent.event.Event(), gevent.event.Event()
        self.mailbox: Any = None

    def init(self, state: Any) -> Any:
        self.mailbox = current()
        return super().init(state)

    def handle_in(self, message: Any, state: Any) -> Any:
        if message == "block":
            self.entered.set()
            assert self.release.wait(DEADLINE)
        return super().handle_in(message, state)


def test_a_blocked_callback_does_not_hold_back_earlier_replies() -> None:
    handler = Blocking()
    with open_client(handler) as client:
        client.socket.sendall(text("one") + text("two") + text("block") + text("three"))
        assert [client.receive(), client.receive()] == ["one", "two"]
        assert handler.entered.wait(DEADLINE) and not handler.release.is_set()
        handler.release.set()
        assert [client.receive(), client.receive()] == ["block", "three"]


def test_a_large_reply_leaves_while_the_next_callback_blocks() -> None:
    """More than the kernel takes at once must go on from the hub, though the connection's greenlet is elsewhere."""
    handler = Blocking()
    with open_client(handler) as client:
        large = "x" * 3_000_000
        client.send(large)
        client.send("block")
        assert client.receive() == large
        assert handler.entered.wait(DEADLINE)
        handler.release.set()
        assert client.receive() == "block"


def test_a_push_passes_a_blocked_callback() -> None:
    handler = Blocking()
    with open_client(handler) as client:
        client.send("block")
        assert handler.entered.wait(DEADLINE)
        assert handler.mailbox.push("meanwhile")
        assert handler.mailbox.send("for later")
        assert client.receive() == "meanwhile"
        assert ("handle_info", "for later") not in handler.calls, "callbacks of one connection never run at once"
        handler.release.set()
        assert client.receive() == "block"
    assert ("handle_info", "for later") in handler.calls


def test_a_ping_passes_a_blocked_callback() -> None:
    handler = Blocking()
    sock, server = raw_connection(application(handler, ping_interval=0.02))
    sock.sendall(handshake() + text("block"))
    read_head(sock)
    assert handler.entered.wait(DEADLINE)
    assert sock.recv(10)[0] == 0x89
    handler.release.set()
    sock.close()
    server.join(DEADLINE)


def test_pings_go_on_while_a_callback_blocks_longer_than_the_timeout() -> None:
    handler = Blocking()
    sock, server = raw_connection(application(handler, ping_interval=0.02, timeout=0.05))
    sock.sendall(handshake() + text("block"))
    read_head(sock)
    pings = b""
    while len(pings) < 6 * 10:
        pings += sock.recv(1)
    assert {opcode for opcode, _ in frames_of(pings)} == {9}
    handler.release.set()
    sock.close()
    server.join(DEADLINE)


def test_a_blocked_connection_does_not_hold_up_others() -> None:
    handler = Blocking()
    with open_client(handler) as blocked, open_client(Diary()) as other:
        blocked.send("block")
        assert handler.entered.wait(DEADLINE)
        other.send("hello")
        assert other.receive() == "hello"
        handler.release.set()
        assert blocked.receive() == "block"


def test_mail_does_not_starve_frames() -> None:
    class Restless(WebSock[Any]):
        def init(self, state: Any) -> Any:
            current().send("again")
            return "ok", state

        def handle_in(self, message: Any, state: Any) -> Any:
            return "push", message, state

        def handle_info(self, message: Any, state: Any) -> Any:
            current().send(message)
            return "ok", state

    with open_client(Restless) as client:
        client.send("still there?")
        assert client.receive() == "still there?"


def test_frames_do_not_starve_mail_or_other_connections() -> None:
    class Mixed(Diary):
        def init(self, state: Any) -> Any:
            current().send("mail")
            return super().init(state)

        def handle_in(self, message: Any, state: Any) -> Any:
            self.calls.append(("handle_in", message))
            return "ok", state

    handler, neighbour = Mixed(), Diary()
    sock, server = raw_connection(application(handler))
    other, other_server = raw_connection(application(neighbour))
    sock.sendall(handshake() + b"".join(text(str(number)) for number in range(10_000)))
    other.sendall(handshake() + text("me too"))
    read_head(sock)
    read_head(other)
    assert other.recv(8) == b"\x81\x06me too"
    seen = [call[0] for call in handler.calls]
    assert seen.index("handle_info") < 200, "mail waits for a batch of frames, not for all of them"
    assert len(seen) < 9000, "neighbours do not wait for all of them either"
    for one, greenlet in ((sock, server), (other, other_server)):
        one.close()
        greenlet.join(DEADLINE)


def test_a_peer_that_does_not_read_is_not_read_from() -> None:
    """Back-pressure: what an echo cannot get rid of, it does not go on producing."""
    handler = Diary()
    sock, server = raw_connection(application(handler, send_timeout=DEADLINE))
    sock.sendall(handshake())
    read_head(sock)
    message = masked(Opcode.BINARY, b"x" * 100_000)
    sock.settimeout(0.3)
    sent = 0
    with pytest.raises(OSError):
        while sent < 1000:
            sock.sendall(message)
            sent += 1
    echoed = sum(call[0] == "handle_in" for call in handler.calls)
    assert echoed < 100, "ten megabytes of echoes at the most were made for a peer that takes none"
    sock.close()
    server.join(DEADLINE)
    assert handler.wait() == ("error", "closed")


def test_the_connection_is_readable_from_the_mailbox() -> None:
    class Looking(WebSock[Any]):
        def handle_in(self, message: Any, state: Any) -> Any:
            websocket = current().websocket
            facts = [websocket.environ["QUERY_STRING"], websocket.protocol, websocket.path, websocket.origin]
            return "push", repr(facts), state

    app = application(Looking, subprotocols=["v2", "v1"])
    with connect(app, "/room?id=7", subprotocols=["v1", "v2"], headers={"Origin": "http://localhost"}) as client:
        assert client.subprotocol == "v2"
        client.send("?")
        assert client.receive() == repr(["id=7", "v2", "/room", "http://localhost"])


def test_invalid_text_is_let_through_when_asked_for() -> None:
    class Taking(Diary):
        def handle_in(self, message: Any, state: Any) -> Any:
            self.calls.append(("handle_in", message))
            return "ok", state

    handler = Taking()
    sock, server = raw_connection(application(handler, validate_utf8=False))
    sock.sendall(handshake() + masked(Opcode.TEXT, b"a\xff") + masked(Opcode.CLOSE, b"\x0f\xa1\xff"))
    assert handler.wait() == "remote"
    sock.close()
    server.join(DEADLINE)
    assert ("handle_in", "a\udcff") in handler.calls


def test_mail_that_nobody_takes_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Deaf(WebSock[Any]):
        def init(self, state: Any) -> Any:
            current().send("lost")
            return "ok", state

        def handle_in(self, message: Any, state: Any) -> Any:
            return "push", message, state

    with open_client(Deaf) as client:
        client.send("x")
        client.receive()
    assert "no handle_info, dropped a str" in caplog.text


@pytest.mark.parametrize("callback", ["handle_in", "handle_info"])
def test_no_callback_runs_once_the_end_is_decided(callback: str) -> None:
    """Though many more messages came with the one in which it was decided."""

    class Overflows(Diary):
        def handle_in(self, message: Any, state: Any) -> Any:
            self.calls.append(("handle_in", message))
            if callback == "handle_info":
                for number in range(5):
                    current().send(number)
            return self.overflow(state) if callback == "handle_in" else ("ok", state)

        def handle_info(self, message: Any, state: Any) -> Any:
            self.calls.append(("handle_info", message))
            return self.overflow(state)

        def overflow(self, state: Any) -> Any:
            for number in range(20):
                current().send(number)
            return "ok", state

    handler = Overflows()
    client = open_client(handler, max_mailbox=10)
    client.socket.sendall(text("go") * 10 if callback == "handle_in" else text("go"))
    client.wait_closed()
    assert client.close_code == 1008
    assert [call[0] for call in handler.calls].count(callback) == 1


def test_what_comes_while_a_message_of_the_mailbox_is_handled() -> None:
    """Nothing else wakes the connection behind it."""

    class Busy(Diary):
        def __init__(self) -> None:
            super().__init__()
            self.began, self.go_on = Event(), Event()

        def init(self, state: Any) -> Any:
            self.mailbox = current()
            return super().init(state)

        def handle_info(self, message: Any, state: Any) -> Any:
            self.began.set()
            assert self.go_on.wait(DEADLINE)
            return super().handle_info(message, state)

    handler = Busy()
    with open_client(handler, timeout=None, ping_interval=None) as client:
        client.ping()
        handler.mailbox.send("mail")
        assert handler.began.wait(DEADLINE)
        client.send("meanwhile")
        gevent.sleep(0.01)  # the hub has seen it
        handler.go_on.set()
        assert client.receive() == "meanwhile"
