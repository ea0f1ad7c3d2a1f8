"""A server's end: every client is told so, every ``terminate`` runs to its end, new ones are sent elsewhere.

Under each kind of server with nothing configured, and then gunicorn's many ways to end, one by one.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, get_type_hints

import gevent
import pytest
from gevent.pywsgi import WSGIServer
from geventwebsocket.server import WebSocketServer
from kinds import Kind
from raw import Raw, close_frame, masked, new_key, unmasked
from serving import DEADLINE, OLDEST_GUNICORN, Server, flask_run, gunicorn, pywsgi
from support import Diary, application, handshake, read_head, until
from websockets.frames import Opcode

from websock_gevent import DrainSettings, configure_drain, drain
from websock_gevent.drainer import DrainOverrides
from websock_gevent.serve import let_views_decide

GONE_1012 = unmasked(b"\x03\xf4", Opcode.CLOSE)
GONE_1001 = unmasked(b"\x03\xe9we move", Opcode.CLOSE)
MOVING = {"DRAIN": '{"code": 1001, "text": "we move"}'}
BOTH = pytest.mark.parametrize("version", [OLDEST_GUNICORN, None], ids=["gunicorn-oldest", "gunicorn"])


@contextmanager
def clients(server: Server, count: int) -> Iterator[dict[str, Raw]]:
    """So many clients, each having heard its server once; by the keys of their handlers."""
    with ExitStack() as together:
        opened = {new_key(): together.enter_context(Raw(server)) for _ in range(count)}
        for key, raw in opened.items():
            raw.upgrade(f"/ending?key={key}")
            raw.send(masked("here"))
            assert raw.read(6) == unmasked("here")
        yield opened


def threaded(worker: str, version: str | None) -> AbstractContextManager[Server]:
    """gunicorn with a worker of this class, and enough threads if it has any."""
    return gunicorn("served:app", "--threads", "9", worker=worker, version=version)


def say_goodbye(raw: Raw, expected: bytes = GONE_1012) -> None:
    """Receive the server's close frame, answer it, and see the connection end."""
    assert raw.read(len(expected)) == expected
    raw.send(close_frame(1012))
    assert raw.rest() == b""
    raw.socket.close()


def endings(log: str, keys: dict[str, Raw], reason: str = "shutdown") -> bool:
    """Tell whether each handler was terminated once, with this reason."""
    return all(log.count(f"ended {key} ") == log.count(f"ended {key} {reason}\n") == 1 for key in keys)


@pytest.mark.matrix("drain")
def test_an_end_in_good_order(kind: Kind, tmp_path: Path) -> None:
    with kind.start(tmp_path) as server, clients(server, 5) as opened:
        if kind.ends_by == signal.SIGINT:
            server.wait_until_asleep()
        os.kill(server.serving_pid, kind.ends_by)
        for raw in opened.values():
            say_goodbye(raw)
        server.wait()
        log = server.log()
    assert endings(log, opened), log
    assert "Traceback" not in re.sub(NOISE, "", log)


#: What an interpreter says of a Ctrl-C that nobody caught; and Python 3.10's logging, at the exit of any process that
#: gevent 24.10 has patched.
NOISE = (
    r"Traceback \(most recent call last\):\nKeyboardInterrupt"
    r"|Exception ignored in: <function _removeHandlerRef .*\nTraceback (?s:.*?)\n.*greenlet is being finalized"
)


@BOTH
@pytest.mark.parametrize("worker", ["gevent", "gevent_pywsgi", "gthread"])
@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT], ids=lambda number: number.name)
def test_a_quick_end_says_goodbye_as_well(version: str | None, worker: str, number: int) -> None:
    with (
        gunicorn("served:app", "--threads", "9", worker=worker, version=version) as server,
        clients(server, 5) as opened,
    ):
        os.kill(server.pid, number)
        for raw in opened.values():
            say_goodbye(raw)
        server.wait()
        assert endings(server.log(), opened), server.log()
        assert "Traceback" not in server.log()


@BOTH
@pytest.mark.parametrize("worker", ["gevent", "gevent_pywsgi", "gthread"])
def test_the_end_of_one_worker(version: str | None, worker: str) -> None:
    with (
        gunicorn("served:app", "--threads", "9", worker=worker, version=version) as server,
        clients(server, 5) as opened,
    ):
        first = server.worker_pid
        os.kill(first, signal.SIGTERM)
        for raw in opened.values():
            say_goodbye(raw)
        server.wait_for_log(rf"Worker exiting \(pid: {first}\)")
        assert endings(server.log(), opened), server.log()
        with clients(server, 1):
            assert server.worker_pid != first


@BOTH
def test_a_reload(version: str | None) -> None:
    with gunicorn(version=version) as server, clients(server, 5) as opened:
        first = server.worker_pid
        os.kill(server.pid, signal.SIGHUP)
        for raw in opened.values():
            say_goodbye(raw)
        server.wait_for_log(rf"Worker exiting \(pid: {first}\)")
        assert endings(server.log(), opened), server.log()


@BOTH
def test_max_requests(version: str | None) -> None:
    with gunicorn("served:app", "--max-requests", "7", version=version) as server, clients(server, 5) as opened:
        first = server.worker_pid
        for _ in range(2):
            server.get("/plain")
        for raw in opened.values():
            say_goodbye(raw)
        server.wait_for_log(rf"Worker exiting \(pid: {first}\)")
        assert endings(server.log(), opened), server.log()


@BOTH
def test_new_connections_are_sent_elsewhere(version: str | None) -> None:
    """Over a connection that is kept alive: its worker takes one more request, though it drains."""
    with gunicorn(version=version) as server, clients(server, 1) as opened, Raw(server) as late:
        late.send(late.request("/plain", Upgrade=None, Connection="keep-alive"))
        assert late.answer().status == 200
        os.kill(server.worker_pid, signal.SIGTERM)
        for raw in opened.values():
            assert raw.read(len(GONE_1012)) == GONE_1012
        late.send(late.request("/echo"))
        answer = late.answer()
    assert answer.status == 503
    assert answer.values("Retry-After") == ["1"]


@BOTH
@pytest.mark.parametrize("path", ["/ends-first", "/ends-meanwhile"])
def test_the_end_is_known_at_once(version: str | None, path: str) -> None:
    """Also between the view and the moment when its response is served."""
    with gunicorn("drained:app", version=version, env=MOVING) as server, Raw(server) as raw:
        raw.send(raw.request(path))
        answer = raw.answer()
    assert answer.status == 503
    assert b"Connect again" in answer.body


def test_they_are_not_all_told_in_one_instant() -> None:
    """While the first has its close frame already, the last is still served."""
    paced = gunicorn("drained:app", "--graceful-timeout", "10", env={"DRAIN": '{"share": 1, "rate": 0}'})
    with paced as server, clients(server, 20) as opened:
        first, *_, last = opened.values()
        os.kill(server.pid, signal.SIGTERM)
        assert first.read(len(GONE_1012)) == GONE_1012
        last.send(masked("still there?"))
        assert last.read(14) == unmasked("still there?")
        for raw in opened.values():
            if raw is not first:
                say_goodbye(raw)
        server.wait()
        assert endings(server.log(), opened)


def test_code_and_text_can_be_set() -> None:
    with gunicorn("drained:app", env=MOVING) as server, clients(server, 2) as opened:
        os.kill(server.pid, signal.SIGTERM)
        for raw in opened.values():
            say_goodbye(raw, GONE_1001)
        server.wait()
        assert endings(server.log(), opened)


def test_drain_by_hand_before_anybody_has_come() -> None:
    with gunicorn("drained:app", env=MOVING) as server, Raw(server) as late:
        assert server.get("/drain").body == b"0 left"
        late.send(late.request("/echo"))
        assert late.answer().status == 503


def test_drain_takes_a_finite_time() -> None:
    with pytest.raises(ValueError, match="inf"):
        drain(float("inf"))


def test_drain_by_hand() -> None:
    with gunicorn("drained:app", env=MOVING) as server, clients(server, 3) as opened, Raw(server) as by_hand:
        by_hand.send(by_hand.request("/drain", Upgrade=None, Connection="close"))
        for raw in opened.values():
            say_goodbye(raw, GONE_1001)
        assert by_hand.answer().body == b"0 left"
        assert endings(server.log(), opened)
        with Raw(server) as late:
            late.send(late.request("/echo"))
            assert late.answer().status == 503


@BOTH
def test_whoever_does_not_answer_is_cut_off_in_time(version: str | None) -> None:
    """Clients that never answer a close frame, that do not read, a callback that blocks: gunicorn need not kill."""
    with (
        gunicorn("served:app", "--graceful-timeout", "4", version=version) as server,
        clients(server, 4) as opened,
    ):
        silent, deaf, blocked, forked = opened
        opened[deaf].send(masked("flood me"))
        opened[blocked].send(masked("block"))
        server.wait_for_log(f"blocked {blocked}")
        os.kill(server.pid, signal.SIGTERM)
        assert opened[silent].read(len(GONE_1012)) == GONE_1012
        say_goodbye(opened[forked])
        status = server.wait()
        log = server.log()
    assert status == 0
    assert endings(log, opened), log
    assert "Worker exiting" in log, "it was killed"
    assert "SIGKILL" not in log and "graceful timeout" not in log
    assert log.count("cut off") == 1


def test_a_callback_and_a_terminate_that_block_come_to_their_end() -> None:
    with gunicorn("drained:app", env=MOVING) as server, Raw(server) as raw:
        key = new_key()
        raw.upgrade(f"/slow?key={key}")
        raw.send(masked("work"))
        server.wait_for_log(f"working {key}")
        os.kill(server.pid, signal.SIGTERM)
        assert raw.read(6) == unmasked("done")
        say_goodbye(raw, GONE_1001)
        server.wait()
        assert endings(server.log(), {key: raw})


# gevent.pywsgi.


def test_ctrl_c_at_a_plain_pywsgi_server() -> None:
    with pywsgi("served:app", "--plain") as server, clients(server, 5) as opened:
        server.wait_until_asleep()
        os.kill(server.pid, signal.SIGINT)
        for raw in opened.values():
            say_goodbye(raw)
        server.wait()
        assert endings(server.log(), opened), server.log()


def test_a_second_signal_makes_haste() -> None:
    """A client that does not answer would be waited for, for the five seconds of ``close_timeout``."""
    with pywsgi("served:app") as server, clients(server, 2) as opened:
        silent, blocked = opened
        opened[blocked].send(masked("block"))
        server.wait_for_log(f"blocked {blocked}")
        os.kill(server.pid, signal.SIGTERM)
        assert opened[silent].read(len(GONE_1012)) == GONE_1012
        os.kill(server.pid, signal.SIGINT)
        assert opened[blocked].read(len(GONE_1012)) == GONE_1012
        assert server.wait() == 0
        log = server.log()
    assert endings(log, opened), log
    assert log.count("cut off") == 1


def test_one_servers_stop_is_not_anothers() -> None:
    ending, staying = pywsgi_in_process(), pywsgi_in_process()
    leaving, remaining = connected(ending), connected(staying)
    stopping = gevent.spawn(ending.stop)
    assert leaving.recv(len(GONE_1012)) == GONE_1012
    leaving.close()
    stopping.get(timeout=DEADLINE)
    for still_served in (remaining, connected(staying)):
        still_served.sendall(masked("still here"))
        assert still_served.recv(100) == unmasked("still here")
        still_served.close()
    staying.stop()


def pywsgi_in_process() -> WSGIServer:
    """A server of this process."""
    server = WSGIServer(("127.0.0.1", 0), application(Diary()), log=None)
    server.start()
    return server


def connected(server: WSGIServer) -> Any:
    """A client in this process, behind its handshake."""
    client = gevent.socket.create_connection(("127.0.0.1", server.server_port))
    client.settimeout(DEADLINE)
    client.sendall(handshake())
    assert b" 101 " in read_head(client)
    return client


def test_views_decide_under_gevent_websockets_own_server() -> None:
    """It sets the hook of each of its instances to None."""
    let_views_decide()
    try:
        server = WebSocketServer(("127.0.0.1", 0), application(Diary()), log=None)
        server.start()
        client = gevent.socket.create_connection(("127.0.0.1", server.server_port))
        client.settimeout(DEADLINE)
        client.sendall(handshake(Origin="http://evil.example"))
        assert b" 403 " in read_head(client)
        client.close()
        server.stop()
    finally:
        del WSGIServer.pre_start_hook


# Werkzeug.


@pytest.mark.parametrize(
    "serve",
    [
        lambda: flask_run("patched:app", env={"APP": "served:app"}),
        lambda: pywsgi("served:app", "--plain"),
    ],
    ids=["flask run, patched", "gevent.pywsgi"],
)
def test_a_ctrl_c_that_hits_a_connections_greenlet_is_not_lost(
    serve: Callable[[], AbstractContextManager[Server]],
) -> None:
    with serve() as server, clients(server, 3) as opened:
        first, *_ = opened.values()
        first.send(masked("interrupt"))
        for raw in opened.values():
            say_goodbye(raw)
        server.wait()
        assert endings(server.log(), opened), server.log()


def test_a_reload_of_werkzeugs_says_goodbye(tmp_path: Path) -> None:
    watched = tmp_path / "watched.py"
    watched.write_text("from served import app\n")
    with flask_run("watched:app", "--debug", path=tmp_path) as server, clients(server, 3) as opened:
        server.wait_until_asleep()
        watched.write_text("from served import app  # changed\n")
        for raw in opened.values():
            say_goodbye(raw)
        until(lambda: endings(server.log(), opened))  # of two threads that write at once, one may write for both
        with clients(server, 1):
            pass


# Settings.


def test_type_checkers_are_told_of_every_setting() -> None:
    assert get_type_hints(DrainOverrides) == get_type_hints(DrainSettings)


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"pace": 1}, TypeError, "pace"),
        ({"code": 1006}, ValueError, "1006"),
        ({"text": "x" * 124}, ValueError, "123"),
        ({"share": 1.5}, ValueError, "share"),
        ({"share": "half"}, TypeError, "share"),
        ({"rate": -1}, ValueError, "rate"),
        ({"rate": float("inf")}, ValueError, "rate"),
        ({"grace": float("inf")}, ValueError, "grace"),
        ({"retry_after": 1.5}, ValueError, "retry_after"),
        ({"grace": True}, TypeError, "grace"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named(changes: dict[str, Any], error: type[Exception], named: str) -> None:
    before = configure_drain()
    with pytest.raises(error, match=named):
        configure_drain(**changes)
    assert configure_drain() == before == DrainSettings() == DrainSettings(text=None)  # type: ignore[arg-type]
