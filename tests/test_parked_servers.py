"""Parked connections under real servers: what they do not hold, and how they end with their worker."""

from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from raw import Raw, close_frame, masked, new_key, unmasked
from serving import Server, certificate, gunicorn
from test_drain import endings, say_goodbye

from websock_gevent.hosts import SPARE_FILES

HELD = 0.3
CLOSE_1000 = b"\x88\x02\x03\xe8"
PARKED = {"TEST_IDLE": "parked"}
REFUSED_LINE = "idle='parked' needs gevent's own sockets without TLS"


@contextmanager
def clients(server: Server, count: int) -> Iterator[dict[str, Raw]]:
    """So many at a time, each of which has had its first answer."""
    opened = {}
    with ExitStack() as stack:
        for number in range(count):
            opened[f"key{number}"] = raw = stack.enter_context(Raw(server))
            raw.upgrade(f"/ending?key=key{number}")
            raw.send(masked("here"))
            assert raw.read(6) == unmasked("here")
        yield opened


@pytest.mark.parametrize("worker", ["gevent", "gevent_pywsgi"])
def test_the_servers_places_are_free(worker: str) -> None:
    """All but one: a greenlet of the server's own keeps its worker from ending before the connections."""
    with (
        gunicorn("served:app", "--worker-connections", "3", worker=worker, env=PARKED) as server,
        clients(server, 20) as opened,
    ):
        for raw in opened.values():
            raw.send(masked("still"))
            assert raw.read(7) == unmasked("still")
        assert "no connection is accepted any more" not in server.log()
        os.kill(server.pid, signal.SIGTERM)
        for raw in opened.values():
            say_goodbye(raw)
        server.wait()
        assert endings(server.log(), opened) and "Traceback" not in server.log(), server.log()


def test_the_server_keeps_its_word_to_those_behind_the_first() -> None:
    """The connection whose server's greenlet stays ends first; the others are not forgotten."""
    with gunicorn("served:app", env=PARKED) as server, clients(server, 3) as opened:
        first = opened.pop("key0")
        first.send(close_frame(1000))
        assert first.read(4) == CLOSE_1000 and first.rest() == b""
        server.wait_for_log("ended key0 ")
        os.kill(server.pid, signal.SIGTERM)
        for raw in opened.values():
            say_goodbye(raw)
        server.wait()
        assert endings(server.log(), opened), server.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT], ids=lambda number: number.name)
def test_a_worker_that_may_not_wait_says_goodbye_all_the_same(number: int) -> None:
    with gunicorn("served:app", "--graceful-timeout", "1", env=PARKED) as server, clients(server, 5) as opened:
        os.kill(server.pid, number)
        for raw in opened.values():  # which do not answer
            assert raw.read(4) == b"\x88\x02\x03\xf4"
        server.wait()
        assert endings(server.log(), opened) and "Traceback" not in server.log(), server.log()


@pytest.mark.parametrize("idle", ["greenlet", "parked"])
@pytest.mark.parametrize("worker", ["gevent", "gevent_pywsgi", "hidden"])
def test_the_access_log_tells_how_long_each_was_open(worker: str, idle: str) -> None:
    """The first one, whose greenlet of the server's stays, as well as the others."""
    prefix, worker = ("/hidden", "gevent") if worker == "hidden" else ("", worker)
    keys = [new_key() for _ in range(3)]
    with gunicorn("served:app", worker=worker, env={"TEST_IDLE": idle}) as server:
        with ExitStack() as stack:
            opened = [stack.enter_context(Raw(server)) for _ in keys]
            for raw, key in zip(opened, keys, strict=True):
                raw.upgrade(f"{prefix}/ending?key={key}")
            with pytest.raises(TimeoutError):
                opened[0].socket.settimeout(HELD)
                opened[0].read(1)
            server.get("/plain")
            server.wait_for_log("/plain")
            assert not any(key in server.log() for key in keys)
            for raw, key in zip(opened, keys, strict=True):
                raw.send(close_frame(1000))
                assert raw.rest() == CLOSE_1000
                raw.socket.close()
                took = server.wait_for_log(rf"{key} HTTP/1.1\" 101 .* ([0-9.]+)$")[1]
                assert float(took) >= HELD
        server.settle()
        assert all(server.log().count(f"key={key} HTTP") == 1 for key in keys)


def test_tls_keeps_its_greenlets_and_says_so_once(tmp_path: Path) -> None:
    made = certificate(tmp_path)
    with gunicorn("served:app", "--certfile", str(made.path), "--keyfile", str(made.path), env=PARKED) as server:
        server.tls = made.client
        with clients(server, 3):
            server.wait_for_log(REFUSED_LINE)
        assert server.settle().count(REFUSED_LINE) == 1


@pytest.mark.parametrize(
    ("worker", "idle", "each"), [("gevent", "greenlet", 1), ("gevent", "parked", 1), ("gthread", "", 3)]
)
def test_open_files_are_not_used_up(worker: str, idle: str, each: int) -> None:
    """Who could not be given one is refused, and the rest of the site goes on. A thread has a hub, with files too."""
    limit = SPARE_FILES + 3 * each
    with gunicorn("served:app", "--threads", "9", worker=worker, env={"TEST_IDLE": idle} if idle else {}) as server:
        (pid,) = server.worker_pids
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))
        with clients(server, 3):
            for _ in range(2):
                with Raw(server) as raw:
                    raw.send(raw.request("/echo"))
                    head = raw.head()
                    assert head.status == 503 and head.values("Retry-After") == ["1"]
            assert server.get("/plain").status == 200
        with clients(server, 3):
            server.wait_for_log(re.escape(f"ulimit -n ({limit}) allows no more connections"))
        assert server.settle().count("allows no more connections") == 1


def test_a_worker_with_one_place_says_that_it_is_taken() -> None:
    with gunicorn("served:app", "--worker-connections", "1", env=PARKED) as server, clients(server, 1):
        server.wait_for_log("no connection is accepted any more")
