"""Parked connections: nothing is held while nothing is to be done, and nothing of one connection is seen by another."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import gevent
import gevent.os
import pytest
from gevent.local import local
from gevent.pywsgi import WSGIServer
from greenlet import greenlet
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from support import DEADLINE, Diary, application, handshake, open_client, raw_connection, read_head, until
from werkzeug.exceptions import HTTPException

from websock_gevent import WebSock, current, upgrade
from websock_gevent.testing import Client, connect
from websock_gevent.upgrade import _tell_of

KEPT = pytest.mark.parametrize("idle", ["parked", "greenlet"])


def parked(handler: Any, state: Any = None, **options: Any) -> Client:
    """Connect to a handler whose connection is parked."""
    return open_client(handler, state, idle="parked", **options)


class Ask(WebSock[Any]):
    """Answers every message with what a function says."""

    def __init__(self, answer: Callable[[str], object]) -> None:
        self.answer = answer

    def handle_in(self, message: Any, state: Any) -> Any:
        return "push", str(self.answer(message)), state


def asked(client: Client, message: str = "") -> str | bytes:
    client.send(message)
    return client.receive()


def greenlets() -> int:
    """How many there are, alive."""
    gc.collect()
    return sum(issubclass(type(thing), greenlet) and not thing.dead for thing in gc.get_objects())


@contextmanager
def many(handler: Any, count: int) -> Iterator[list[Client]]:
    """Several parked connections of one server, as they are in a worker; each has answered once."""
    with ExitStack() as stack:
        yield [stack.enter_context(parked(handler)) for _ in range(count)]


def test_an_idle_connection_holds_no_greenlet() -> None:
    ask = Ask(lambda _: id(gevent.getcurrent()))
    with many(ask, 20) as clients:
        assert len({asked(client) for client in clients}) == 1, "one after the other, they are lent the same greenlet"
        held = greenlets()
        with many(ask, 20) as more:
            for client in more:
                asked(client)
            # What is left is one server's greenlet for each of them, which `connect` makes a server for.
            assert greenlets() - held == 20


def test_blocked_callbacks_have_a_greenlet_each_and_do_not_overlap() -> None:
    running: list[str] = []
    overlaps: list[str] = []

    def slowly(name: str) -> str:
        overlaps.extend(other for other in running if other == name)
        running.append(name)
        gevent.sleep(0.05)
        running.remove(name)
        return f"{name} of {len(running) + 1}"

    with many(Ask(slowly), 3) as clients:
        for client, name in zip(clients, "abc", strict=True):
            client.send(name)
            client.send(name)
        answers = [str(client.receive()) for _ in range(2) for client in clients]
    assert sorted(answer[0] for answer in answers) == sorted("aabbcc")
    assert not overlaps and any(answer.endswith("of 3") for answer in answers)


def test_greenlets_that_were_lent_go_with_the_last_connection() -> None:
    """In a thread, where they would keep its hub, which would keep them."""
    counts = []

    def lent() -> int:
        gc.collect()
        hub = gevent.get_hub()
        return sum(type(one) is greenlet and not one.dead and one.parent is hub for one in gc.get_objects())

    def serve() -> None:
        with many(Ask(lambda _: gevent.sleep(0.01)), 5) as clients:
            for client in clients:
                client.send("")
            for client in clients:
                client.receive()
            counts.append(lent())
        until(lambda: lent() == 0)
        counts.append(lent())

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join(2 * DEADLINE)
    assert counts == [5, 0]


# What is kept with a greenlet.


def test_a_greenlets_own_is_gone_at_the_next_callback() -> None:
    own = local()

    def visit(_: str) -> int:
        own.visits = getattr(own, "visits", 0) + 1
        return int(own.visits)

    with many(Ask(visit), 5) as clients:
        assert [asked(client) for _ in range(2) for client in clients] == ["1"] * 10


def test_context_variables_belong_to_the_connection() -> None:
    visits: ContextVar[int] = ContextVar("visits", default=0)

    def visit(_: str) -> int:
        visits.set(visits.get() + 1)
        return visits.get()

    with many(Ask(visit), 5) as clients:
        assert [asked(client) for _ in range(2) for client in clients] == ["1"] * 5 + ["2"] * 5
    assert visits.get() == 0


@KEPT
def test_a_connection_begins_with_the_context_of_its_view(idle: str) -> None:
    user: ContextVar[str] = ContextVar("user")
    app = application(Ask(lambda _: user.get()), idle=idle)

    def view(environ: Any, start_response: Any) -> Any:
        user.set(environ["PATH_INFO"])
        return app(environ, start_response)

    with connect(view, "/ann") as ann, connect(view, "/bob") as bob:
        assert (asked(ann), asked(bob), asked(ann)) == ("/ann", "/bob", "/ann")


def test_a_scoped_session_is_not_seen_by_another_connection() -> None:
    engine = create_engine("sqlite://")
    registry: scoped_session[Session] = scoped_session(sessionmaker(engine), gevent.getcurrent)
    seen: list[Session] = []  # which keeps them, so that no two have the same address

    def use(_: str) -> int:
        session = registry()
        session.info["users"] = session.info.get("users", 0) + 1
        seen.append(session)
        return int(session.info["users"])

    with many(Ask(use), 5) as clients:
        assert [asked(client) for client in clients] == ["1"] * 5
    assert len(set(map(id, seen))) == 5
    for session in seen:
        session.close()
    engine.dispose()


@pytest.mark.parametrize("early", [True, False], ids=["next callback first", "next callback behind it"])
def test_what_is_left_running_does_not_hit_another_connection(early: bool, caplog: pytest.LogCaptureFixture) -> None:
    def told() -> bool:
        return any("too late" in record.getMessage() for record in caplog.records)

    def leave(message: str) -> str:
        if message == "leave":
            gevent.Timeout.start_new(0.02)
        elif early:
            until(told)
        return "done"

    with many(Ask(leave), 2) as (one, other):
        assert asked(one, "leave") == "done"
        if not early:
            until(told)
        assert asked(other, "stay") == "done"
        assert asked(one, "stay") == "done"
        until(told)


def test_who_is_killed_behind_its_callback_is_not_lent_again() -> None:
    killers: list[Any] = []

    def ask(message: str) -> str:
        if message == "kill":
            killers.append(gevent.spawn(gevent.kill, gevent.getcurrent()))
        return "done"

    with many(Ask(ask), 2) as (one, other):
        assert asked(one, "kill") == "done"
        gevent.joinall(killers, timeout=DEADLINE, raise_error=True)
        assert asked(other) == "done" and asked(one) == "done"


class Thing:
    """Something that can be referred to weakly."""


def test_what_a_greenlet_keeps_is_let_go_at_once() -> None:
    own, things = local(), []

    def keep(_: str) -> str:
        own.thing = Thing()
        things.append(weakref.ref(own.thing))
        return "kept"

    with many(Ask(keep), 1) as (one,):
        asked(one)
        until(lambda: things[0]() is None)


def test_what_is_filed_weakly_under_a_greenlet_is_not_seen_by_another_connection() -> None:
    """As the thread that a greenlet is taken for in a patched process."""
    filed: Any = weakref.WeakKeyDictionary()

    def visit(_: str) -> int:
        me = gevent.getcurrent()
        filed[me] = filed.get(me, 0) + 1
        return int(filed[me])

    with many(Ask(visit), 3) as clients:
        assert [asked(client) for client in clients] == ["1"] * 3


def test_somebody_who_keeps_the_greenlet_keeps_only_that() -> None:
    kept: list[Any] = []

    def keep(_: str) -> str:
        kept.append(gevent.getcurrent())
        return "kept"

    with many(Ask(keep), 2) as (one, other):
        asked(one)
        asked(other)
        assert kept[0] is not kept[1]
        gevent.kill(kept[0])
        assert asked(other) == "kept"
        assert asked(one) == "kept"


# The place that the server counts, and what counts instead.


def test_more_than_max_connections_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    app = application(Ask(str.upper), idle="parked", max_connections=2)
    server = WSGIServer(("127.0.0.1", 0), app, log=None)
    server.start()
    try:
        import websockets.sync.client as independent

        def client() -> Any:
            return independent.connect(f"ws://127.0.0.1:{server.server_port}", open_timeout=DEADLINE)

        def scenario() -> list[Any]:
            answers: list[Any] = []
            with client() as one:
                with client():
                    with pytest.raises(Exception, match="503") as refused:
                        client()
                    answers.append(refused.value.response.headers["Retry-After"])  # type: ignore[attr-defined]
                with client() as third:
                    for websocket in (one, third):
                        websocket.send("again")
                        answers.append(websocket.recv(DEADLINE))
            return answers

        _tell_of.cache_clear()  # another test may have had the same limit
        assert gevent.get_hub().threadpool.apply(scenario) == ["1", "AGAIN", "AGAIN"]
        assert "max_connections (2) allows no more connections" in caplog.text
    finally:
        server.stop()


def test_servers_of_one_process_share_its_open_files() -> None:
    code = """
import resource
from websock_gevent import WebSock, upgrade
from websock_gevent.hosts import SPARE_FILES
from websock_gevent.testing import Refused, connect
resource.setrlimit(resource.RLIMIT_NOFILE, (SPARE_FILES + 2, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
def app(environ, start_response):
    return upgrade(environ, WebSock, None, early_validate_upgrade=False)(environ, start_response)
with connect(app), connect(app):  # a server each
    try:
        connect(app)
    except Refused as refused:
        print(refused.response.status_code)
with connect(app):
    print("room again")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE)
    assert done.stdout.split("\n") == ["503", "room again", ""], done.stderr


@KEPT
def test_the_environ_is_kept_without_what_the_server_put_there(idle: str) -> None:
    seen: list[dict[str, Any]] = []
    mark = object()
    app = application(Ask(lambda _: seen.append(current().websocket.environ)), idle=idle)

    def middleware(environ: Any, start_response: Any) -> Any:
        environ["the.mark"] = mark
        return app(environ, start_response)

    with connect(middleware, "/room?name=a%20b", headers={"X-Name": "é".encode().decode("latin-1")}) as client:
        asked(client)
        asked(client)
        assert client.headers["Upgrade"] == "websocket"
    environ = seen[0]
    assert environ is seen[1], "it is unpacked once"
    assert environ["PATH_INFO"] == "/room" and environ["QUERY_STRING"] == "name=a%20b"
    assert environ["HTTP_X_NAME"] == "Ã©" and environ["wsgi.version"] == (1, 0) and environ["the.mark"] is mark
    assert not {"wsgi.input", "wsgi.errors"} & set(environ)


def test_the_hub_of_another_thread_parks_as_well() -> None:
    diary, answers = Diary(), []

    def serve() -> None:
        with open_client(diary, idle="parked") as client:
            answers.append(asked(client, "hello"))

    thread = threading.Thread(target=serve)
    thread.start()
    gevent.get_hub().threadpool.apply(thread.join, (DEADLINE,))
    assert answers == ["hello"] and diary.wait() == "remote"


@pytest.mark.parametrize("how", ["timeout", "kill"])
@KEPT
def test_a_call_on_close_that_is_broken_off_ends_the_connection(how: str, idle: str) -> None:
    def closing() -> None:
        if how == "timeout":
            raise gevent.Timeout(1)
        gevent.sleep(DEADLINE)

    def app(environ: Any, start_response: Any) -> Any:
        response = upgrade(environ, Diary(), None, idle=idle)
        response.call_on_close(closing)
        return response(environ, start_response)

    gc.collect()
    gc.disable()  # which would close the socket in the end
    try:
        sock, server = raw_connection(app)
        with sock:
            sock.sendall(handshake())
            read_head(sock)
            server.kill()
            assert sock.recv(10) == b""
    finally:
        gc.enable()


def test_a_connection_counts_while_the_request_is_still_being_closed() -> None:
    release = gevent.event.Event()

    def app(environ: Any, start_response: Any) -> Any:
        try:
            response: Any = upgrade(environ, Diary(), None, idle="parked", max_connections=1)
        except HTTPException as refusal:
            return refusal(environ, start_response)
        response.call_on_close(release.wait)
        return response(environ, start_response)

    server = WSGIServer(("127.0.0.1", 0), app, log=None)
    server.start()
    with ExitStack() as stack:
        heads = []
        for _ in range(3):
            sock = stack.enter_context(gevent.socket.create_connection(("127.0.0.1", server.server_port), DEADLINE))
            sock.sendall(handshake())
            heads.append(sock.recv(12))
        release.set()
    server.stop(1)
    assert heads == [b"HTTP/1.1 101", b"HTTP/1.1 503", b"HTTP/1.1 503"]


def test_what_a_view_left_running_does_not_end_the_vigil(caplog: pytest.LogCaptureFixture) -> None:
    app = application(Ask(str.upper), idle="parked")

    def view(environ: Any, start_response: Any) -> Any:
        gevent.Timeout.start_new(0.02)
        return app(environ, start_response)

    with connect(view) as client:
        until(lambda: any("too late" in record.getMessage() for record in caplog.records))
        assert client._greenlets
        assert asked(client, "a") == "A"


# The end.


@pytest.mark.parametrize("blocked", [False, True])
def test_a_connection_is_cut_off_while_it_is_parked_or_blocked(blocked: bool) -> None:
    from websock_gevent.connection import Connection

    class Blocking(Diary):
        def handle_in(self, message: Any, state: Any) -> Any:
            if blocked:
                gevent.sleep(DEADLINE)
            return super().handle_in(message, state)

    diary = Blocking()
    with parked(diary) as client:
        client.send("block")
        if not blocked:
            client.receive()
        gevent.idle()
        (connection,) = [thing for thing in gc.get_objects() if type(thing) is Connection and thing.phase < 2]
        connection.cut()
        assert diary.wait() == "shutdown"
        client.wait_closed()
        assert client.close_code == 1012


@KEPT
def test_a_fork_leaves_the_connections_to_its_parent(idle: str) -> None:
    def fork(_: str) -> str:
        pid = gevent.os.fork()
        if not pid:
            gevent.sleep(0.3)  # the child's hub runs, with what it has inherited
            os._exit(0)
        return str(pid)

    with open_client(Ask(fork), idle=idle) as one, open_client(Ask(lambda _: os.getpid()), idle=idle) as other:
        pid = int(asked(one))
        assert [asked(other, "who?") for _ in range(500)] == [str(os.getpid())] * 500
        assert gevent.os.waitpid(pid, 0)[1] == 0


@KEPT
def test_what_ends_in_a_fork_does_not_end_for_its_parent(idle: str) -> None:
    mailboxes: list[Any] = []
    released: list[int] = []

    def fork(_: str) -> str:
        pid = gevent.os.fork()
        if not pid:
            released.append(os.getpid())
            accepted = mailboxes[0].send("from the child")
            gevent.sleep(0.3)
            os._exit(int(accepted))
        return f"forked, {os.waitpid(pid, 0)[1]}"

    def block(message: str) -> str:
        if message == "block":
            mailboxes.append(current())
            until(lambda: released)
        return "done"

    with open_client(Ask(fork), idle=idle) as one, open_client(Ask(block), idle=idle) as other:
        other.send("block")
        until(lambda: mailboxes)
        assert asked(one) == "forked, 0"
        released.append(os.getpid())
        assert other.receive() == "done"
        assert asked(other, "again") == "done"
