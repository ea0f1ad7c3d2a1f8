"""The blocking style when it gets difficult: who else waits at the end, what comes behind it, and what is left then."""

from __future__ import annotations

import gc
import logging
import socket
import weakref
from typing import Any

import gevent
import pytest
from gevent.event import Event
from support import (
    DEADLINE,
    application,
    handshake,
    masked,
    raw_connection,
    read_all,
    read_head,
    settle,
    text,
    until,
)
from test_blocking import Played, Raw, close_of, closing, raw
from test_blocking import echo as echoes
from websockets.frames import Opcode

from websock_gevent import ConnectionClosed, current
from websock_gevent.connection import Phase
from websock_gevent.inbox import ENOUGH
from websock_gevent.legacy import BlockingWebSocket, blocking
from websock_gevent.messages import BATCH

__all__ = ["raw"]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def has_begun(greenlet: gevent.Greenlet) -> bool:
    """Whether it runs, and waits for something now."""
    return greenlet.gr_frame is not None


# Who else waits.


@pytest.mark.parametrize("first", ["greenlet", "function"])
def test_whoever_waits_is_told_when_the_function_is_killed(raw: Raw, first: str) -> None:
    """Be it the one that serves the connection, or one beside it."""
    played = Played()
    _, server = raw(played)
    until(lambda: played.ws)
    if first == "function":
        serves = Event()
        played.tell(lambda ws: serves.set() or ws.receive())
        assert serves.wait(DEADLINE)
    waits = gevent.spawn(lambda: pytest.raises(ConnectionClosed, played.ws.receive))
    until(lambda: has_begun(waits))
    server.kill(block=False)
    waits.get(timeout=DEADLINE)
    assert played.ws.reason == "shutdown"


def test_whoever_is_killed_while_it_serves_leaves_that_to_the_others(raw: Raw) -> None:
    played = Played()
    sock, _ = raw(played)
    until(lambda: played.ws)
    serves, waits = gevent.spawn(played.ws.receive), gevent.spawn(played.ws.receive)
    until(lambda: has_begun(serves) and has_begun(waits))
    serves.kill(timeout=DEADLINE)
    sock.sendall(text("for the other"))
    assert waits.get(timeout=DEADLINE) == "for the other"


# Room in the inbox.


def test_who_takes_slowly_answers_pings(raw: Raw) -> None:
    """As soon as there is room: not only when everything is taken."""
    played = Played()
    sock, _ = raw(played)
    sock.sendall(text("x") * ENOUGH)
    until(lambda: played.ws and played.ws._connection.inbox.is_full)
    sock.sendall(masked(Opcode.PING, b"?"))
    settle()
    assert played.do(lambda ws: ws.receive()) == "x"
    assert sock.recv(100) == b"\x8a\x01?"


def test_large_messages_are_held_back_sooner(raw: Raw) -> None:
    played = Played()
    sock, _ = raw(played)
    sender = gevent.spawn(sock.sendall, text("x" * 100_000) * 100)
    until(lambda: played.ws and played.ws._connection.inbox.is_full)
    settle()
    assert len(played.ws._connection.inbox.messages) < 10
    assert [len(played.do(lambda ws: ws.receive())) for _ in range(100)] == [100_000] * 100
    sender.get(timeout=DEADLINE)


@pytest.mark.parametrize("take", ["receive", "receive_any"])
def test_what_is_wrong_is_told_also_if_a_message_is_there(raw: Raw, take: str) -> None:
    played = Played()
    sock, _ = raw(played)
    sock.sendall(text("x"))
    until(lambda: played.ws and played.ws._connection.inbox.messages)
    call = getattr(played.ws, take)
    played.do(lambda ws: pytest.raises(ValueError, call, timeout=-1))
    outcome = played.do(lambda ws: pytest.raises(TypeError, call, timeout="5"))
    assert "timeout must be" in str(outcome.value) and "'5'" in str(outcome.value)
    outcome = gevent.get_hub().threadpool.apply(lambda: pytest.raises(RuntimeError, call))
    assert "connection's own thread" in str(outcome.value)
    assert played.do(lambda ws: ws.receive()) == "x"


def test_send_waits_until_the_kernel_has_taken_it(raw: Raw) -> None:
    """And who gives up while something else waits has sent nothing."""
    played = Played()
    sock, _ = raw(played)
    size = 10_000_010

    def impatient(ws: BlockingWebSocket, message: str) -> str:
        with gevent.Timeout(0.01, False):
            ws.send(message)
            return "sent"
        return "gave up"

    assert played.do(lambda ws: impatient(ws, "x" * 10_000_000)) == "gave up"
    assert played.do(lambda ws: [impatient(ws, "late") for _ in range(3)]) == ["gave up"] * 3
    while size:
        size -= len(sock.recv(size))
    assert played.do(lambda ws: impatient(ws, "in time")) == "sent"
    assert sock.recv(100) == b"\x81\x07in time"


def test_a_sender_is_told_that_the_end_came_before_its_turn(raw: Raw) -> None:
    played = Played()
    raw(played)
    until(lambda: played.ws)
    sender = gevent.spawn(lambda: pytest.raises(ConnectionClosed, played.ws.send, "x" * 10_000_000))
    until(lambda: played.ws._connection.waiter.stalled is not None)
    played.ws.close()
    sender.get(timeout=DEADLINE)


# What comes behind the end.


@pytest.mark.parametrize("payload", [b"\x03\xe8", b"x"], ids=["well-formed", "malformed"])
def test_a_close_frame_that_had_no_turn_before_the_function_returned(payload: bytes) -> None:
    """It is there already, so it is not waited for."""
    sock, _ = raw_connection(application(blocking(lambda ws: ws.receive()), close_timeout=10 * DEADLINE))
    with sock:
        sock.sendall(handshake())
        read_head(sock)
        sock.sendall(text("bye") + masked(Opcode.CLOSE, payload))
        assert close_of(sock) == (1000, "")


def test_what_comes_behind_a_close_frame_is_dropped(raw: Raw) -> None:
    """RFC 6455 §5.5.1: also if the close frame waits for its turn."""
    seen: list[Any] = []
    sock, _ = raw(lambda ws: seen.extend(ws), text("one") + closing(4001) + text("two") + closing(4002))
    assert close_of(sock) == (4001, "")
    assert seen == ["one"]


def test_the_end_by_its_own_close_is_no_error(raw: Raw, caplog: pytest.LogCaptureFixture) -> None:
    def function(ws: BlockingWebSocket) -> None:
        ws.close(4000)
        ws.receive()

    sock, _ = raw(function)
    sock.sendall(closing(4000))
    assert close_of(sock) == (4000, "")
    assert errors(caplog) == []


def test_a_peer_that_has_gone_is_no_error(raw: Raw, caplog: pytest.LogCaptureFixture) -> None:
    """Found out by sending, before the hub has had a turn to notice."""
    played = Played()
    sock, server = raw(played)
    until(lambda: played.ws)

    def flood(ws: BlockingWebSocket) -> None:
        sock.close()
        while True:
            ws.send("x")

    played.tell(flood)
    played.wait()
    server.join(DEADLINE)
    assert isinstance(played.raised, ConnectionClosed) and errors(caplog) == []


def test_a_peer_that_has_closed_its_side_is_not_kept_waiting(raw: Raw) -> None:
    """Though the function goes on, with something else."""
    played = Played()
    sock, _ = raw(played)
    until(lambda: played.ws)
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b""
    assert not played.ended.is_set()


def test_greenletexit_that_is_swallowed(raw: Raw) -> None:
    """The connection ends all the same, with a goodbye, and the function finds out."""
    resisted, go_on = Event(), Event()

    def function(ws: BlockingWebSocket) -> None:
        try:
            connections.append(ws._connection)
            Event().wait()
        except gevent.GreenletExit:
            resisted.set()
        go_on.wait()
        with pytest.raises(ConnectionClosed):
            ws.receive()
        ended.set()

    connections: list[Any] = []
    ended = Event()
    sock, _ = raw(function, close_timeout=0.1)
    until(lambda: connections)
    connections[0].cut()
    assert resisted.wait(DEADLINE)
    assert sock.recv(4) == b"\x88\x02\x03\xf4"
    assert sock.recv(1) == b""  # though the peer says nothing
    go_on.set()
    assert ended.wait(DEADLINE)


def test_killed_before_it_is_open(caplog: pytest.LogCaptureFixture) -> None:
    """The 101 waits for a peer that does not read."""
    sock, server = None, None
    called: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        theirs = environ["wsgi.input"].raw._sock
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                theirs._sock.send(b"x" * 65536)
        opening.set()
        return application(blocking(called.append))(environ, start_response)

    opening = Event()
    sock, server = raw_connection(app)
    sock.sendall(handshake())
    assert opening.wait(DEADLINE)
    settle()
    server.kill(timeout=DEADLINE)
    sock.close()
    assert called == [] and errors(caplog) == []


# What is left.


def test_nothing_is_left_for_the_garbage_collector() -> None:
    refs: list[weakref.ref[Any]] = []

    def function(ws: BlockingWebSocket) -> None:
        refs.extend((weakref.ref(ws), weakref.ref(ws._connection.mailbox)))
        echoes(ws)

    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            sock, server = raw_connection(application(blocking(function)))
            sock.sendall(handshake() + text("hi") + closing())
            read_head(sock)
            read_all(sock)
            sock.close()
            server.join(DEADLINE)
            del sock, server
        assert [ref() for ref in refs] == [None] * 6
    finally:
        gc.enable()


def test_an_error_behind_the_end_keeps_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "websock_gevent")  # what is logged keeps the error, and its frames
    refs: list[weakref.ref[Any]] = []

    def function(ws: BlockingWebSocket) -> None:
        refs.append(weakref.ref(ws))
        with pytest.raises(ConnectionClosed):
            ws.receive()
        raise ValueError("oops")

    gc.collect()
    gc.disable()
    try:
        sock, server = raw_connection(application(blocking(function)))
        sock.sendall(handshake() + closing())
        read_head(sock)
        read_all(sock)
        sock.close()
        server.join(DEADLINE)
        del sock, server
        assert [ref() for ref in refs] == [None]
    finally:
        gc.enable()


def test_a_violation_that_never_had_its_turn_keeps_nothing() -> None:
    refs: list[weakref.ref[Any]] = []

    def function(ws: BlockingWebSocket) -> None:
        refs.append(weakref.ref(ws.mailbox))
        until(lambda: ws._connection.inbox.messages)
        come.set()
        Event().wait()

    come = Event()
    gc.collect()
    gc.disable()
    try:
        sock, server = raw_connection(application(blocking(function)))
        sock.sendall(handshake() + text("untaken") + masked(Opcode.TEXT, b"\xff"))
        read_head(sock)
        assert come.wait(DEADLINE)
        server.kill(timeout=DEADLINE)
        sock.close()
        del sock, server
        assert [ref() for ref in refs] == [None]
    finally:
        gc.enable()


def test_a_mailbox_that_is_asked_for_behind_the_end_has_ended(raw: Raw) -> None:
    """Else what is kept until the end, such as a subscription, would be kept for ever."""
    played = Played()
    sock, _ = raw(played)
    until(lambda: played.ws)
    sock.sendall(closing())
    read_all(sock)
    sock.close()
    until(lambda: played.ws._connection.phase == Phase.CLOSED)
    told: list[Any] = []
    played.do(lambda ws: current().at_end(lambda mailbox, reason: told.append((mailbox.closed, reason))))
    assert told == [(True, "remote")]


# Nothing to do.


def full(sock: Any, played: Played) -> None:
    gevent.spawn(sock.sendall, text("x" * 1000) * 5000)
    until(lambda: played.ws._connection.inbox.is_full)
    played.do(lambda ws: ws.receive())


def close_waits(sock: Any, played: Played) -> None:
    sock.sendall(text("untaken") + closing() + text("behind"))
    sock.shutdown(socket.SHUT_WR)
    until(lambda: played.ws._connection.inbox.messages)


def stalled(sock: Any, played: Played) -> None:
    played.ws.mailbox.push("x" * 10_000_000)
    assert played.ws._connection.waiter.stalled is not None
    gevent.spawn(sock.sendall, text("x" * 1000) * 5000)


def stalled_and_gone(sock: Any, played: Played) -> None:
    played.ws.mailbox.push("x" * 10_000_000)
    sock.shutdown(socket.SHUT_WR)


def saying_goodbye(sock: Any, played: Played) -> None:
    played.ws.close()
    gevent.spawn(sock.sendall, text("x" * 1000) * 5)


def over(sock: Any, played: Played) -> None:
    sock.shutdown(socket.SHUT_WR)
    until(lambda: played.ws.closed)


def others_wait(sock: Any, played: Played) -> None:
    for _ in range(3):
        gevent.spawn(played.ws.receive)
    played.ws.mailbox.send("which nobody takes")


@pytest.mark.parametrize(
    "state", [full, close_waits, stalled, stalled_and_gone, saying_goodbye, over, others_wait], ids=lambda s: s.__name__
)
def test_the_hub_is_idle_when_nothing_can_be_done(raw: Raw, state: Any) -> None:
    played = Played()
    sock, _ = raw(played)
    until(lambda: played.ws)
    state(sock, played)
    settle()
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1

    check = gevent.get_hub().loop.check()
    check.start(turn)
    gevent.sleep(0.2)  # what has to pass is time itself
    check.stop()
    check.close()
    assert turns < 20


def test_everybody_else_has_a_turn_between_two_batches(raw: Raw) -> None:
    """Though all has come at once, and the function does not wait for anything."""
    count, turns = 1000, 0
    seen: list[int] = []

    def turn() -> None:
        nonlocal turns
        turns += 1

    check = gevent.get_hub().loop.check()
    check.start(turn)

    def function(ws: BlockingWebSocket) -> None:
        for _ in range(count):
            ws.receive()
            seen.append(turns)

    sock, _ = raw(function)
    sock.sendall(text("") * count)
    until(lambda: len(seen) == count)
    check.stop()
    check.close()
    assert seen[-1] - seen[0] >= count // BATCH - 2
