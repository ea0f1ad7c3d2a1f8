"""A connection's own greenlet: what is beneath it, whose place it takes, and how it ends if it never begins."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer
from raw import Raw, close_frame, masked, new_key, unmasked
from serving import gunicorn
from support import DEADLINE, Diary, application, handshake, open_client, read_head, until

from websock_gevent import upgrade

CLOSE_1000 = b"\x88\x02\x03\xe8"
CLOSE_1012 = b"\x88\x02\x03\xf4"


class Noting(Diary):
    """Writes down in which greenlet it is called, and what is beneath."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []
        self.beneath: list[str] = []

    def init(self, state: Any) -> Any:
        self.seen.append(gevent.getcurrent())
        self.beneath = [frame.function for frame in inspect.stack()]
        return super().init(state)

    def handle_in(self, message: str | bytes, state: Any) -> Any:
        self.seen.append(gevent.getcurrent())
        return super().handle_in(message, state)

    def terminate(self, reason: Any, state: Any) -> None:
        self.seen.append(gevent.getcurrent())
        super().terminate(reason, state)


def test_it_is_one_for_the_whole_life_with_nothing_of_the_request_beneath() -> None:
    diaries = Noting(), Noting()
    with open_client(diaries[0]) as one, open_client(diaries[1]) as other:
        for client in (one, other, one):
            client.send("hello")
            assert client.receive() == "hello"
    assert diaries[0].wait() == diaries[1].wait() == "remote"
    own, others = ({*diary.seen} for diary in diaries)
    assert len(own) == len(others) == 1 and own != others
    for diary in diaries:
        assert diary.seen[0].dead and isinstance(diary.seen[0], gevent.Greenlet)
        assert "handle_one_response" not in diary.beneath and "handle_one_request" not in diary.beneath


@contextmanager
def serving(app: Any, places: int, log: Any = None, **options: Any) -> Iterator[tuple[Callable[[], Any], Pool]]:
    """Serve, in so many greenlets; give what connects, and the greenlets."""
    pool = Pool(places)
    server = WSGIServer(("127.0.0.1", 0), app, log=log, spawn=pool, **options)
    server.start()
    try:
        yield lambda: socket.create_connection(("127.0.0.1", server.server_port), DEADLINE), pool
    finally:
        server.stop(DEADLINE)


def test_it_takes_the_place_of_the_greenlet_that_its_server_has_made() -> None:
    with serving(application(Diary()), places=2) as (connect, pool):
        for _ in range(3):  # a place that is lost or won would be missing or left the next time
            opened = [connect() for _ in range(3)]
            for sock in opened:
                sock.sendall(handshake())
            heads = [read_head(sock) for sock in opened[:2]]
            assert all(head.startswith(b"HTTP/1.1 101") for head in heads)
            until(lambda: len(pool) == 2)
            opened[2].settimeout(0.05)
            with pytest.raises(TimeoutError):  # nobody has a place for it
                opened[2].recv(1)
            opened[0].close()
            opened[2].settimeout(DEADLINE)
            assert read_head(opened[2]).startswith(b"HTTP/1.1 101")
            for sock in opened[1:]:
                sock.close()
            assert pool.join(DEADLINE)


def test_the_end_of_its_server_waits_for_it_and_then_kills_it() -> None:
    diary = Diary()
    with serving(application(diary), places=2) as (connect, pool), connect() as sock:
        sock.sendall(handshake())
        read_head(sock)
        pool.kill(block=True, timeout=DEADLINE)
        assert sock.recv(4) == CLOSE_1012
        assert diary.wait() == "shutdown"
        assert not pool


def test_one_that_is_killed_before_it_begins_ends_its_connection() -> None:
    diary, killed = Diary(), []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        try:
            yield from upgrade(environ, diary, None)(environ, start_response)
        finally:
            others = [own for own in pool if own is not gevent.getcurrent()]
            killed.extend(others)
            gevent.killall(others, block=False)

    with serving(app, places=2) as (connect, pool), connect() as sock:
        sock.sendall(handshake())
        assert read_head(sock).startswith(b"HTTP/1.1 101")
        assert sock.recv(4) == CLOSE_1012
        assert sock.recv(1) == b""
        until(lambda: not pool)
    assert len(killed) == 1 and diary.calls == []


@pytest.mark.parametrize("places", [1, 2])
def test_what_is_still_to_do_for_the_request_is_waited_for(places: int) -> None:
    """By the end of the server, though the connection is over and has the only place."""
    done: list[str] = []

    class Closing:
        def __init__(self, body: Any) -> None:
            self._body = body

        def __iter__(self) -> Any:
            return iter(self._body)

        def close(self) -> None:
            until(diary.ended.is_set)
            gevent.sleep(0.1)
            done.append("closed")

    diary = Diary()
    inner = application(diary)
    with serving(lambda environ, start: Closing(inner(environ, start)), places) as (connect, _), connect() as sock:
        sock.sendall(handshake() + masked("hello") + close_frame(1000))
        read_head(sock)
        assert sock.recv(7) == unmasked("hello")
    assert done == ["closed"]


def test_sys_exit_ends_the_process_behind_terminate() -> None:
    """As it does where connections are parked, and under pywsgi; the next worker takes over."""
    with gunicorn("served:app") as server:
        with Raw(server) as raw:
            raw.upgrade("/ending?key=leaving")
            raw.send(masked("exit"))
            raw.rest()
        server.wait_for_log(r"(?s)ended leaving .*Worker exiting.*Booting worker")
        with Raw(server) as raw:
            raw.upgrade("/ending?key=next")


def test_a_greenlet_of_somebody_else_keeps_the_connection() -> None:
    """A middleware that runs the application in another greenlet than the server's, which waits for it."""
    diary = Noting()
    inner = application(diary)

    def app(environ: Any, start_response: Any) -> Any:
        return gevent.spawn(lambda: list(inner(environ, start_response))).get()

    with serving(app, places=1) as (connect, pool), connect() as sock:
        sock.sendall(handshake())
        read_head(sock)
        until(lambda: diary.seen)
        assert diary.seen[0] not in pool and len(pool) == 1
        sock.close()
        assert pool.join(DEADLINE)
    assert diary.reasons == [("error", "closed")]


# The access log, whatever writes it.


class Curious(WSGIHandler):
    """Its line asks the socket, which pywsgi forgets when a request is over."""

    def format_request(self) -> str:
        return f"{super().format_request()} at {self.socket.getsockname()[0]}"


class Wrapped:
    """What hides a handler from us, and has an attribute like one of its own."""

    headers_sent = False

    def __init__(self, start_response: Any) -> None:
        self._start_response = start_response

    def start_response(self, *arguments: Any) -> Any:
        return self._start_response(*arguments)


@pytest.mark.parametrize(("handler", "wrap"), [(Curious, False), (WSGIHandler, True)], ids=["curious", "wrapped"])
def test_handlers_that_are_not_as_usual_write_one_line(handler: Any, wrap: bool) -> None:
    lines, diary = StringIO(), Diary()
    inner = application(diary)

    def app(environ: Any, start_response: Any) -> Any:
        return inner(environ, Wrapped(start_response).start_response if wrap else start_response)

    with serving(app, 2, log=lines, handler_class=handler) as (connect, pool), connect() as sock:
        sock.sendall(handshake("/room"))
        read_head(sock)
        assert lines.getvalue() == ""
        sock.sendall(close_frame(1000))
        assert sock.recv(4) == CLOSE_1000
        sock.close()
        assert pool.join(DEADLINE)
    assert diary.reasons == ["remote"]
    assert len(lines.getvalue().splitlines()) == 1 and '"GET /room HTTP/1.1" 101 ' in lines.getvalue()


def line_of(*arguments: str, worker: str = "gevent", path: str = "/echo", logs: bool = True) -> list[str]:
    """What gunicorn writes of a WebSocket that is open for a moment, while another one is open, too."""
    key = new_key()
    with (
        gunicorn("served:app", *arguments, worker=worker, logs=logs) as server,
        Raw(server) as before,
        Raw(server) as raw,
    ):
        before.upgrade("/echo")
        raw.upgrade(f"{path}?{key}", **{"X-Name": "lea"})
        raw.send(masked("hello") + close_frame(1000))
        assert raw.read(7) == unmasked("hello") and raw.rest() == CLOSE_1000
        raw.socket.close()
        before.send(close_frame(1000))
        assert before.rest() == CLOSE_1000
        before.socket.close()
        return [line for line in server.settle().splitlines() if key in line]


@pytest.mark.parametrize("worker", ["gevent", "gevent_pywsgi"])
def test_the_line_has_what_its_format_asks_for(worker: str) -> None:
    asked = "%(m)s %(q)s %({x-name}i)s %({server_protocol}e)s %(s)s"
    (line,) = line_of("--access-logformat", asked, worker=worker)
    assert line.startswith("GET ") and line.endswith(" lea HTTP/1.1 101")


@pytest.mark.parametrize("worker", ["gevent", "gevent_pywsgi"])
def test_the_duration_begins_with_the_request(worker: str) -> None:
    (line,) = line_of(worker=worker, path="/late")
    assert float(line.split()[-1]) >= 0.2


@pytest.mark.parametrize("worker", ["gevent", "gevent_pywsgi"])
def test_a_logger_of_ones_own_is_told_as_well(worker: str) -> None:
    (line,) = line_of("--logger-class", "own_logger.Loud", worker=worker)
    assert line.startswith("LOUD 101 ") and float(line.split()[-1]) > 0


@pytest.mark.parametrize("worker", ["gevent", "gevent_pywsgi"])
def test_no_access_log_is_no_access_log(worker: str) -> None:
    assert line_of(worker=worker, logs=False) == []


def test_statsd_is_told_at_the_end() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(DEADLINE)
        address = "{}:{}".format(*statsd.getsockname())
        with gunicorn("served:app", "--statsd-host", address, logs=False) as server, Raw(server) as raw:
            raw.upgrade("/late")
            raw.send(close_frame(1000))
            assert raw.rest() == CLOSE_1000
            raw.socket.close()
            told: list[bytes] = []
            while not (told and told[-1].startswith(b"gunicorn.request.status.101:")):
                told.append(statsd.recv(1000))
        (took,) = (line for line in told if line.startswith(b"gunicorn.request.duration:"))
        assert float(took.split(b":")[1].split(b"|")[0]) >= 200


def test_a_logger_that_raises_is_told_of_and_harms_nobody() -> None:
    with gunicorn("served:app", "--logger-class", "own_logger.Broken") as server, Raw(server) as raw:
        raw.upgrade("/echo")
        raw.send(close_frame(1000))
        assert raw.rest() == CLOSE_1000
        raw.socket.close()
        server.wait_for_log("the server's access log could not be written")
