"""The blocking style: what a function gets and sees, whatever greenlet it waits in, and what goes on meanwhile."""

from __future__ import annotations

import gc
import logging
import struct
import weakref
from collections.abc import Callable, Iterator
from functools import partial, wraps
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.exceptions import BlockingSwitchOutError
from gevent.queue import Queue
from geventwebsocket.exceptions import WebSocketError as GeventWebSocketError
from geventwebsocket.websocket import WebSocket as GeventWebSocket
from support import (
    DEADLINE,
    application,
    frames_of,
    handshake,
    masked,
    open_client,
    raw_connection,
    read_all,
    read_head,
    settle,
    text,
    until,
)
from websockets.frames import Opcode

from websock_gevent import ConnectionClosed, Mailbox, current
from websock_gevent.inbox import ENOUGH
from websock_gevent.legacy import BlockingWebSocket, blocking
from websock_gevent.messages import BATCH


class Played:
    """A function for `blocking` that is played by the test: it shows its WebSocket, and does what it is told."""

    def __init__(self) -> None:
        self.orders: Queue[Callable[[BlockingWebSocket], Any] | None] = Queue()
        self.answers: Queue[Any] = Queue()
        self.ended = Event()
        self.raised: BaseException | None = None
        self.ws: Any = None

    def __call__(self, ws: BlockingWebSocket) -> None:
        self.ws = ws
        try:
            for order in self.orders:
                if order is None:
                    return
                self.answers.put(order(ws))
        except BaseException as error:
            self.raised = error
            raise
        finally:
            self.ended.set()

    def tell(self, order: Callable[[BlockingWebSocket], Any]) -> None:
        """Have the function do something; `get` waits for it."""
        self.orders.put(order)

    def get(self) -> Any:
        return self.answers.get(timeout=DEADLINE)

    def do(self, order: Callable[[BlockingWebSocket], Any]) -> Any:
        self.tell(order)
        return self.get()

    def leave(self) -> None:
        """Have it return."""
        self.orders.put(None)

    def wait(self) -> None:
        assert self.ended.wait(DEADLINE), "the function goes on"


def echo(ws: BlockingWebSocket) -> None:
    for message in ws:
        ws.send(message)


Raw = Callable[..., tuple[Any, Any]]


@pytest.fixture
def raw() -> Iterator[Raw]:
    """Opens raw clients behind their handshakes, each with the greenlet that serves it."""
    opened: list[tuple[Any, Any]] = []

    def connect(function: Any, *behind: bytes, headers: dict[str, str] | None = None, **options: Any) -> Any:
        sock, server = raw_connection(application(blocking(function), **options))
        opened.append((sock, server))
        sock.sendall(handshake(**(headers or {})) + b"".join(behind))
        read_head(sock)
        return sock, server

    yield connect
    for sock, server in opened:
        sock.close()
        server.kill(timeout=DEADLINE)


def close_of(sock: Any) -> tuple[int, str]:
    """Read to the end of the stream: the close frame must be the last thing."""
    opcode, payload = list(frames_of(read_all(sock)))[-1]
    assert opcode == Opcode.CLOSE
    return (struct.unpack("!H", payload[:2])[0], payload[2:].decode()) if payload else (1005, "")


def closing(code: int = 1000, reason: str = "") -> bytes:
    return masked(Opcode.CLOSE, struct.pack("!H", code) + reason.encode())


# Receiving and sending.


def test_messages_of_both_kinds_and_all_sizes() -> None:
    with open_client(blocking(echo)) as client:
        for message in ("one", b"two", "", b"", "ü" * 70_000, b"\0" * 1_000_000):
            client.send(message)
            assert client.receive() == message


def test_what_came_right_behind_the_handshake(raw: Raw) -> None:
    sock, _ = raw(echo, text("early"))
    assert sock.recv(100) == b"\x81\x05early"


def test_it_is_a_gevent_websocket() -> None:
    played = Played()
    with open_client(blocking(played), {"user": "ann"}, subprotocols=["v2"], early_validate_upgrade=True):
        until(lambda: played.ws)
        ws = played.ws
        assert isinstance(ws, GeventWebSocket) and (ws.path, ws.closed, ws.protocol) == ("/", False, None)
        assert ws.environ["PATH_INFO"] == "/" and ws.origin is None and ws.version == "13"
        assert ws.state == {"user": "ann"} and ws.reason is None and repr(ws) == "<BlockingWebSocket '/' open>"
        ws.note = "applications keep things here"
        assert weakref.ref(ws)() is ws
        played.leave()
    assert ws.closed and repr(ws) == "<BlockingWebSocket '/' closed>"


def test_subprotocol(raw: Raw) -> None:
    def tell(ws: BlockingWebSocket) -> None:
        ws.send(str(ws.protocol))

    sock, _ = raw(tell, headers={"Sec_WebSocket_Protocol": "v3, v2"}, subprotocols=["v1", "v2"])
    assert sock.recv(4) == b"\x81\x02v2"


def test_compressed_messages() -> None:
    from websock_gevent.testing import connect

    with connect(application(blocking(echo), compress=True), timeout=DEADLINE, compress=True) as client:
        for _ in range(3):
            client.send("over and over " * 500)
            assert client.receive() == "over and over " * 500


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_receive_with_a_timeout_gives_none(timeout: float) -> None:
    played = Played()
    with open_client(blocking(played)) as client:
        assert played.do(lambda ws: ws.receive(timeout=timeout)) is None
        client.send("late")
        assert played.do(lambda ws: ws.receive(timeout=DEADLINE)) == "late"
        played.leave()


def test_receive_with_timeout_0_takes_what_is_there(raw: Raw) -> None:
    """The bytes are in the kernel, and the hub has had no turn to find them."""
    played = Played()
    sock, _ = raw(played)

    def send_and_poll(ws: BlockingWebSocket) -> Any:
        sock.sendall(text("there"))
        return ws.receive(timeout=0)

    assert played.do(send_and_poll) == "there"


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (masked(Opcode.PING, b"x") * 3 * BATCH + text("there"), "there"),
        (masked(Opcode.TEXT, b"a", fin=False) + masked(Opcode.CONT, fin=False) * 1000 + masked(Opcode.CONT), "a"),
        (masked(Opcode.BINARY, b"x" * 150_000), b"x" * 150_000),
    ],
    ids=["pings", "fragments", "long"],
)
def test_receive_with_timeout_0_takes_what_takes_several_turns(raw: Raw, sent: bytes, message: Any) -> None:
    """To read, or to handle."""
    played = Played()
    sock, _ = raw(played)
    sock.setsockopt(SOL_SOCKET, SO_SNDBUF, 1 << 20)

    def send_and_poll(ws: BlockingWebSocket) -> list[Any]:
        sock.sendall(sent)
        return [ws.receive(timeout=0), ws.receive(timeout=0)]

    assert played.do(send_and_poll) == [message, None]


def test_receive_with_timeout_0_waits_for_nobody(raw: Raw) -> None:
    """Neither for the rest of a message, nor for a peer that does not read; and at the end it tells of that."""
    played = Played()
    sock, _ = raw(played)

    def poll(ws: BlockingWebSocket) -> Any:
        sent = text("whole")
        sock.sendall(sent[:7])
        assert ws.receive(timeout=0) is None
        sock.sendall(sent[7:])
        assert ws.receive(timeout=0) == "whole"
        while ws._connection.waiter.stalled is None:
            ws.mailbox.push(b"x" * 100_000)
        sock.sendall(text("not before it reads"))
        assert ws.receive(timeout=0) is None
        return "done"

    assert played.do(poll) == "done"


def test_receive_with_timeout_0_comes_back_though_pings_never_end(raw: Raw) -> None:
    played = Played()
    sock, _ = raw(played)

    def send() -> None:
        while True:
            sock.sendall(masked(Opcode.PING, b"x") * BATCH)

    def read() -> None:
        while sock.recv(65536):
            pass

    others = [gevent.spawn(send), gevent.spawn(read)]
    assert played.do(lambda ws: ws.receive(timeout=0)) is None
    gevent.killall(others, timeout=DEADLINE)


def test_receive_with_timeout_0_tells_of_the_end(raw: Raw) -> None:
    played = Played()
    sock, _ = raw(played)

    def poll(ws: BlockingWebSocket) -> Any:
        sock.sendall(text("last") + closing())
        assert ws.receive(timeout=0) == "last"
        with pytest.raises(ConnectionClosed):
            ws.receive(timeout=0)
        return "done"

    assert played.do(poll) == "done"


def test_receive_with_timeout_0_takes_nothing_from_who_waits(raw: Raw) -> None:
    played = Played()
    sock, _ = raw(played)
    until(lambda: played.ws)
    waits = gevent.spawn(played.ws.receive)
    until(lambda: waits.gr_frame is not None)

    def send_and_poll(ws: BlockingWebSocket) -> Any:
        sock.sendall(text("for who waits"))
        return ws.receive(timeout=0)

    assert played.do(send_and_poll) is None
    assert waits.get(timeout=DEADLINE) == "for who waits"


@pytest.mark.parametrize("timeout", [-1, float("inf"), float("nan")])
def test_a_timeout_that_is_none(timeout: float) -> None:
    played = Played()
    with open_client(blocking(played)):
        outcome = played.do(lambda ws: pytest.raises(ValueError, ws.receive, timeout=timeout))
        assert "finite number of seconds" in str(outcome.value)
        played.leave()


def test_a_timeout_in_the_middle_of_a_message_loses_nothing(raw: Raw) -> None:
    played = Played()
    sock, _ = raw(played)
    sent = text("whole")
    sock.sendall(sent[:7])
    assert played.do(lambda ws: ws.receive(timeout=0.01)) is None
    sock.sendall(sent[7:])
    assert played.do(lambda ws: ws.receive(timeout=DEADLINE)) == "whole"


def test_somebody_elses_timeout_loses_nothing() -> None:
    played = Played()

    def impatient(ws: BlockingWebSocket) -> Any:
        with gevent.Timeout(0.01, False):
            return ws.receive()
        return "timed out"

    with open_client(blocking(played)) as client:
        assert played.do(impatient) == "timed out"
        client.send("after")
        assert played.do(lambda ws: ws.receive()) == "after"
        played.leave()


def test_send_of_what_is_no_message() -> None:
    played = Played()
    with open_client(blocking(played)) as client:
        outcome = played.do(lambda ws: pytest.raises(TypeError, ws.send, 5))
        assert "5 is not a message" in str(outcome.value)
        played.do(lambda ws: ws.send("still open"))
        assert client.receive() == "still open"
        played.leave()


@pytest.mark.parametrize(
    ("message", "binary", "received"),
    [
        ("text", True, b"text"),
        (b"bytes", False, "bytes"),
        (bytearray(b"b"), None, b"b"),
        (memoryview(b"m"), True, b"m"),
    ],
)
def test_kinds_by_name(message: Any, binary: Any, received: Any) -> None:
    played = Played()
    with open_client(blocking(played)) as client:
        played.do(lambda ws: ws.send(message, binary))
        assert client.receive() == received
        played.leave()


@pytest.mark.parametrize(
    ("opcode", "payload", "frame"),
    [
        (GeventWebSocket.OPCODE_TEXT, "t", b"\x81\x01t"),
        (GeventWebSocket.OPCODE_BINARY, b"b", b"\x82\x01b"),
        (GeventWebSocket.OPCODE_PING, "p", b"\x89\x01p"),
        (GeventWebSocket.OPCODE_PONG, b"q", b"\x8a\x01q"),
    ],
)
def test_send_frame(opcode: int, payload: Any, frame: bytes, raw: Raw) -> None:
    played = Played()
    sock, _ = raw(played)
    played.do(lambda ws: ws.send_frame(payload, opcode))
    assert sock.recv(3) == frame
    outcome = played.do(lambda ws: pytest.raises(ValueError, ws.send_frame, b"", 0x3))
    assert "accepted are 0x1, 0x2, 0x9, 0xa" in str(outcome.value)


def test_blocking_takes_functions() -> None:
    with pytest.raises(TypeError, match="takes a function of one argument"):
        blocking("no function")  # type: ignore[arg-type]


def generator(ws: Any) -> Any:
    yield ws.receive()


async def coroutine(ws: Any) -> None: ...


async def both(ws: Any) -> Any:
    yield ws.receive()


class Called:
    def __call__(self, ws: Any) -> Any:
        yield ws.receive()

    async def method(self, ws: Any) -> None: ...


@pytest.mark.parametrize("function", [generator, coroutine, both, partial(generator), Called(), Called().method])
def test_blocking_takes_nothing_that_a_call_would_not_run(function: Any) -> None:
    with pytest.raises(TypeError, match="takes a plain function") as caught:
        blocking(function)
    assert repr(function) in str(caught.value)


def test_blocking_takes_whatever_runs_when_it_is_called() -> None:
    class Service:
        def __call__(self, ws: Any) -> None:
            ws.send("bye")

        def serve(self, ws: Any) -> None:
            ws.send("bye")

    @wraps(coroutine)
    def run(ws: Any) -> None:
        ws.send("bye")

    for function in (Service(), Service().serve, partial(Service.serve, Service()), run):
        with open_client(blocking(function)) as client:
            assert client.receive() == "bye"


# The end.


def test_return_closes_with_1000() -> None:
    with open_client(blocking(lambda ws: ws.send("bye"))) as client:
        assert client.receive() == "bye"
        with pytest.raises(ConnectionClosed) as closed:
            client.receive()
    assert closed.value.code == 1000


@pytest.mark.parametrize("error", [ValueError("oops"), gevent.Timeout(5)], ids=["exception", "timeout"])
def test_an_exception_closes_with_1011_and_is_logged(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    def fail(ws: BlockingWebSocket) -> None:
        raise error

    with open_client(blocking(fail)) as client, pytest.raises(ConnectionClosed) as closed:
        client.receive()
    assert closed.value.code == 1011
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "fail raised, closing with 1011" in record.getMessage() and record.exc_info is not None


def test_the_peer_closes_while_the_function_receives(raw: Raw) -> None:
    played = Played()
    sock, _ = raw(played)
    played.tell(lambda ws: ws.receive())
    sock.sendall(closing(4001, "bye"))
    assert close_of(sock) == (4001, "")
    played.wait()
    assert isinstance(played.raised, ConnectionClosed) and isinstance(played.raised, GeventWebSocketError)
    assert (played.raised.code, played.raised.text, played.ws.reason) == (4001, "bye", "remote")
    assert (played.ws.close_code, played.ws.close_text) == (4001, "bye")


def test_the_peer_closes_while_the_function_does_something_else(raw: Raw) -> None:
    """It is answered at once, and the function finds out when it looks."""
    played = Played()
    sock, _ = raw(played)
    until(lambda: played.ws)
    sock.sendall(closing())
    assert close_of(sock) == (1000, "")
    assert played.ws.closed and played.ws.reason == "remote"
    outcome = played.do(lambda ws: pytest.raises(ConnectionClosed, ws.send, "too late"))
    assert outcome.value.code == 1000
    played.tell(lambda ws: ws.receive())
    played.wait()
    assert isinstance(played.raised, ConnectionClosed)


ENDS = pytest.mark.parametrize(
    ("end", "code"), [(closing(), 1000), (masked(Opcode.TEXT, b"\xff"), 1007)], ids=["close", "violation"]
)


@ENDS
def test_what_came_before_the_end_can_be_answered(raw: Raw, end: bytes, code: int) -> None:
    played = Played()
    sock, _ = raw(played)
    sock.sendall(text("one") + text("two") + end)
    until(lambda: played.ws and len(played.ws._connection.inbox.messages) == 2)
    assert not played.ws.closed and played.ws.reason is None
    assert [played.do(lambda ws: ws.send(ws.receive())) for _ in range(2)] == [None, None]
    played.tell(lambda ws: ws.receive())
    frames = list(frames_of(read_all(sock)))
    assert [payload for opcode, payload in frames if opcode == Opcode.TEXT] == [b"one", b"two"]
    assert frames[-1][0] == Opcode.CLOSE and struct.unpack("!H", frames[-1][1][:2])[0] == code
    played.wait()
    assert isinstance(played.raised, ConnectionClosed)


@ENDS
def test_the_end_does_not_wait_for_ever_for_what_came_before(raw: Raw, end: bytes, code: int) -> None:
    played = Played()
    sock, _ = raw(played, close_timeout=0.1)
    sock.sendall(text("one") + end)
    assert close_of(sock)[0] == code
    assert not played.ws.closed and played.ws.reason is not None
    outcome = played.do(lambda ws: pytest.raises(ConnectionClosed, ws.send, "too late"))
    assert outcome.value.code == (1000 if code == 1000 else None)
    assert played.do(lambda ws: ws.receive()) == "one"
    assert played.ws.closed


def test_iteration_ends_with_the_connection(raw: Raw) -> None:
    seen: list[Any] = []
    sock, server = raw(lambda ws: seen.extend(ws))
    sock.sendall(text("one") + text("two") + closing())
    assert close_of(sock) == (1000, "")
    sock.close()
    server.join(DEADLINE)
    assert seen == ["one", "two"]


def test_the_connection_breaks(caplog: pytest.LogCaptureFixture, raw: Raw) -> None:
    played = Played()
    sock, _ = raw(played)
    played.tell(lambda ws: ws.receive())
    sock.close()
    played.wait()
    assert isinstance(played.raised, ConnectionClosed) and played.ws.reason == ("error", "closed")
    assert not caplog.records


def test_a_violation_ends_it_with_its_code(raw: Raw) -> None:
    played = Played()
    sock, _ = raw(played)
    played.tell(lambda ws: ws.receive())
    sock.sendall(masked(Opcode.TEXT, b"\xff"))
    assert close_of(sock)[0] == 1007
    played.wait()
    assert isinstance(played.raised, ConnectionClosed)


def test_a_message_over_the_limit(raw: Raw) -> None:
    sock, _ = raw(echo, max_message_size=100, max_frame_size=100)
    sock.sendall(masked(Opcode.TEXT, b"x" * 101))
    assert close_of(sock)[0] == 1009


def test_close_with_code_and_text_from_a_greenlet_of_its_own(raw: Raw) -> None:
    played = Played()
    sock, _ = raw(played)
    played.tell(lambda ws: ws.receive())
    until(lambda: played.ws)
    gevent.spawn(played.ws.close, 4002, b"enough").get(timeout=DEADLINE)
    assert played.ws.closed
    sock.sendall(closing(4002))
    assert close_of(sock) == (4002, "enough")
    played.wait()
    assert isinstance(played.raised, ConnectionClosed) and played.ws.reason == "normal"
    played.ws.close(4003)  # too late, and no error


def test_nothing_is_sent_behind_close(raw: Raw) -> None:
    played = Played()
    sock, _ = raw(played)

    def close_and_send(ws: BlockingWebSocket) -> None:
        ws.close()
        for call in (lambda: ws.send("no"), ws.receive, ws.receive_any):
            with pytest.raises(ConnectionClosed):
                call()
        assert not list(ws)

    played.do(close_and_send)
    sock.sendall(closing())
    assert list(frames_of(read_all(sock))) == [(Opcode.CLOSE, b"\x03\xe8")]
    played.leave()


@pytest.mark.parametrize(("code", "reason", "error"), [(1005, "", ValueError), (1000, "x" * 124, ValueError)])
def test_close_with_what_may_not_be_sent(code: int, reason: str, error: type[Exception]) -> None:
    played = Played()
    with open_client(blocking(played)) as client:
        played.do(lambda ws: pytest.raises(error, ws.close, code, reason))
        played.do(lambda ws: ws.send("still open"))
        assert client.receive() == "still open"
        played.leave()


def test_the_end_is_over_when_the_view_is(raw: Raw) -> None:
    """The closing handshake is part of it, and `finally` has run before."""
    order: list[str] = []

    def function(ws: BlockingWebSocket) -> None:
        current().at_end(lambda mailbox, reason: order.append(f"end: {reason}"))
        try:
            ws.receive()
        finally:
            order.append("finally")

    sock, server = raw(function)
    sock.sendall(closing())
    read_all(sock)
    sock.close()
    server.join(DEADLINE)
    assert sorted(order) == ["end: remote", "finally"]


def test_killed_while_it_does_something_else(raw: Raw) -> None:
    played = Played()
    sock, server = raw(played)
    until(lambda: played.ws)
    server.kill(block=False)
    assert close_of(sock) == (1012, "")
    played.wait()
    assert isinstance(played.raised, gevent.GreenletExit) and played.ws.reason == "shutdown"


def test_nothing_is_left_behind(raw: Raw) -> None:
    seen: list[weakref.ref[Any]] = []

    def function(ws: BlockingWebSocket) -> None:
        seen.append(weakref.ref(ws))
        echo(ws)

    for _ in range(3):
        sock, server = raw(function)
        sock.sendall(text("hi") + closing())
        read_all(sock)
        sock.close()
        server.join(DEADLINE)
        del sock, server
    gc.collect()
    assert [ref() for ref in seen] == [None] * 3


# Meanwhile.


def test_pings_are_answered_while_the_function_does_something_else() -> None:
    played = Played()
    with open_client(blocking(played)) as client:
        until(lambda: played.ws)
        client.ping()
        played.leave()


def test_pings_are_answered_behind_messages_that_nobody_takes(raw: Raw) -> None:
    played = Played()
    sock, _ = raw(played)
    sock.sendall(text("untaken") * 5 + masked(Opcode.PING, b"?"))
    assert sock.recv(100) == b"\x8a\x01?"


def test_a_silent_peer_is_given_up_while_the_function_does_something_else(raw: Raw) -> None:
    played = Played()
    sock, _ = raw(played, timeout=0.2, ping_interval=None)
    assert close_of(sock) == (1002, "")
    assert played.ws.reason == "timeout"


def test_a_peer_that_answers_pings_is_not_given_up() -> None:
    """Though the function takes nothing for much longer than ``timeout``."""
    played = Played()
    with open_client(blocking(played), timeout=0.2, ping_interval=0.05) as client:
        pings = gevent.spawn(lambda: pytest.raises(TimeoutError, client.receive, timeout=0.6))
        pings.get(timeout=DEADLINE)
        assert played.ws.reason is None
        played.leave()


def test_a_peer_that_sends_more_than_is_taken_is_held_back(raw: Raw) -> None:
    """By TCP: neither is it all received, nor is anything lost."""
    played = Played()
    sock, _ = raw(played)
    count = 20_000
    sender = gevent.spawn(sock.sendall, b"".join(text(f"{number:0100}") for number in range(count)))
    until(lambda: played.ws and played.ws._connection.inbox.is_full)
    settle()
    assert len(played.ws._connection.inbox.messages) < 50 * ENOUGH
    assert [int(played.do(lambda ws: ws.receive())) for _ in range(count)] == list(range(count))
    sender.get(timeout=DEADLINE)


def test_a_full_inbox_does_not_keep_the_hub_busy(raw: Raw) -> None:
    played = Played()
    sock, _ = raw(played)
    gevent.spawn(sock.sendall, text("x" * 1000) * 5000)
    until(lambda: played.ws and played.ws._connection.inbox.is_full)
    loop = gevent.get_hub().loop
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1

    check = loop.check()
    check.start(turn)
    gevent.sleep(0.2)  # what has to pass is time itself
    check.stop()
    check.close()
    assert turns < 20


def test_the_server_says_goodbye_while_the_function_does_something_else(raw: Raw) -> None:
    played = Played()
    sock, _ = raw(played)
    until(lambda: played.ws)
    played.ws._connection.shutdown(1012, "restart")
    sock.sendall(closing(1012))
    assert close_of(sock) == (1012, "restart")
    played.tell(lambda ws: ws.receive())
    played.wait()
    assert isinstance(played.raised, ConnectionClosed) and played.ws.reason == "shutdown"


# The mailbox.


def test_the_mailbox_and_the_client_in_turns() -> None:
    played = Played()
    with open_client(blocking(played)) as client:
        until(lambda: played.ws)
        mailbox = played.ws.mailbox
        for number in range(3):
            client.send(f"in {number}")
            mailbox.send(number)
        until(lambda: len(played.ws._connection.inbox.messages) == 3)
        taken = played.do(lambda ws: [ws.receive_any() for _ in range(6)])
        assert taken == [("in", "in 0"), ("info", 0), ("in", "in 1"), ("info", 1), ("in", "in 2"), ("info", 2)]
        assert played.do(lambda ws: ws.receive_any(timeout=0)) is None
        played.leave()


def test_mail_wakes_a_function_that_waits_for_any() -> None:
    def function(ws: BlockingWebSocket) -> None:
        box.put(ws.mailbox)
        kind, message = ws.receive_any() or ("", "")
        ws.send(f"{kind} {message}")

    box: Queue[Mailbox] = Queue()
    with open_client(blocking(function)) as client:
        mailbox = box.get(timeout=DEADLINE)
        assert gevent.get_hub().threadpool.apply(mailbox.send, ("from a thread",))
        assert client.receive() == "info from a thread"


def test_a_callback_of_the_event_loop_cannot_wait() -> None:
    """The hub would wait for itself, for ever. The connection goes on."""
    played = Played()

    def receive() -> None:
        try:
            outcome.put(played.ws.receive())
        except BaseException as error:
            outcome.put(error)

    outcome: Queue[Any] = Queue()
    with open_client(blocking(played)) as client:
        until(lambda: played.ws)
        gevent.get_hub().loop.run_callback(receive)
        assert isinstance(outcome.get(timeout=DEADLINE), BlockingSwitchOutError)
        client.send("still there")
        assert played.do(lambda ws: ws.receive()) == "still there"
        played.leave()


def test_current_is_its_mailbox_and_push_goes_past_it() -> None:
    played = Played()
    with open_client(blocking(played)) as client:
        assert played.do(lambda ws: current() is ws.mailbox)
        played.ws.mailbox.push("pushed while it does something else")
        assert client.receive() == "pushed while it does something else"
        played.leave()


def test_mail_that_nobody_takes_is_bounded(raw: Raw) -> None:
    played = Played()
    sock, _ = raw(played, max_mailbox=10)
    until(lambda: played.ws)
    assert [played.ws.mailbox.send(number) for number in range(11)] == [True] * 10 + [False]
    sock.sendall(closing(1008))
    assert close_of(sock) == (1008, "mailbox overflow")


# Several greenlets.


def test_a_reader_and_a_writer(raw: Raw) -> None:
    def function(ws: BlockingWebSocket) -> None:
        lines: Queue[Any] = Queue()

        def read() -> None:
            for message in ws:
                lines.put(message)
            lines.put(None)

        def write() -> None:
            for line in iter(lines.get, None):
                ws.send(line)

        gevent.joinall([gevent.spawn(read), gevent.spawn(write)])

    sock, server = raw(function)
    sock.sendall(b"".join(text(f"{number:03}") for number in range(300)) + closing())
    frames = list(frames_of(read_all(sock)))
    assert [payload for _, payload in frames[:-1]] == [b"%03d" % number for number in range(len(frames) - 1)]
    sock.close()
    server.join(DEADLINE)
    assert server.ready()


def test_many_receive_and_each_message_goes_to_one(raw: Raw) -> None:
    taken: list[Any] = []

    def function(ws: BlockingWebSocket) -> None:
        gevent.joinall([gevent.spawn(lambda: taken.extend(ws)) for _ in range(5)])

    sock, server = raw(function)
    count = 3 * ENOUGH
    for number in range(count):
        sock.sendall(text(str(number)))
        gevent.sleep(0)
    sock.sendall(closing())
    read_all(sock)
    sock.close()
    server.join(DEADLINE)
    assert sorted(map(int, taken)) == list(range(count))


def test_many_send_and_no_message_stands_inside_another() -> None:
    def function(ws: BlockingWebSocket) -> None:
        gevent.joinall([gevent.spawn(ws.send, name * 1_000_000) for name in "abcdefgh"])

    with open_client(blocking(function)) as client:
        received = [str(client.receive()) for _ in range(8)]
    assert sorted(received) == [name * 1_000_000 for name in "abcdefgh"]


def test_threads_send_and_their_order_is_kept() -> None:
    played = Played()
    with open_client(blocking(played)) as client:
        until(lambda: played.ws)
        pool = gevent.get_hub().threadpool
        pool.apply(lambda: [played.ws.send(str(number)) for number in range(500)])
        assert [client.receive() for _ in range(500)] == [str(number) for number in range(500)]
        outcome = pool.apply(lambda: pytest.raises(RuntimeError, played.ws.receive))
        assert "connection's own thread" in str(outcome.value)
        played.leave()


def test_send_waits_for_a_peer_that_does_not_read_and_gives_up(caplog: pytest.LogCaptureFixture, raw: Raw) -> None:
    played = Played()
    sock, server = raw(played, send_timeout=0.3)

    def flood(ws: BlockingWebSocket) -> None:
        while True:
            ws.send("x" * 100_000)

    played.tell(flood)
    played.wait()
    assert isinstance(played.raised, ConnectionClosed) and played.ws.reason == ("error", "send timeout")
    assert ["gave up after send_timeout" in record.getMessage() for record in caplog.records] == [True]
    server.join(DEADLINE)
    sock.close()


def test_a_sender_that_waits_goes_on_when_the_peer_reads(raw: Raw) -> None:
    played = Played()
    sock, _ = raw(played)
    played.tell(lambda ws: [ws.send("x" * 1_000_000) for _ in range(20)])
    until(lambda: played.ws and played.ws._connection.waiter.stalled is not None)
    assert played.answers.empty()
    received = 0
    while received < 20 * 1_000_010:
        received += len(sock.recv(1 << 20))
    assert received == 20 * 1_000_010
    assert len(played.get()) == 20
