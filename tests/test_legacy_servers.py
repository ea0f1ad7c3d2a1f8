"""The blocking style under every kind of server: four ways to write it, and what goes wrong in them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from kinds import Kind
from raw import Raw, close_frame, masked, unmasked
from serving import OLDEST_GUNICORN, Server
from test_drain import NOISE
from test_servers import CLOSE_1000, CLOSE_1011, access_lines, client, remarks
from websockets.frames import Opcode

#: What differs in the hand-over of the socket is tested with callbacks, under all kinds.
UNLIKE = frozenset(
    (
        f"gunicorn {OLDEST_GUNICORN} gevent",
        "gunicorn gevent",
        "gunicorn gevent, TLS",
        "gunicorn gevent, unix socket",
        "gunicorn gevent_pywsgi",
        "gunicorn gthread",
        "gevent.pywsgi",
        "gevent.pywsgi, not patched",
        "gevent.pywsgi with WebSocketHandler, views decide",
        "flask run",
        "flask run, patched",
    )
)
OURS = pytest.mark.only(lambda kind: kind.name in UNLIKE)
ALSO_UPGRADED = pytest.mark.only(lambda kind: kind.name in UNLIKE or (kind.upgraded and not kind.proxied))
LOGGED = pytest.mark.only(lambda kind: kind.name in UNLIKE and kind.logs)
ANY_APP = pytest.mark.only(lambda kind: kind.name in UNLIKE and not kind.name.startswith("flask run"))
STYLES = pytest.mark.parametrize("path", ["/callbacks", "/blocking", "/middleware", "/sock", "/sockets"])
GONE_1012 = unmasked(b"\x03\xf4", Opcode.CLOSE)


@pytest.fixture(scope="session")
def older(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app ``older``, by this kind of server."""
    with kind.start(tmp_path_factory.mktemp("older"), "older:app") as running:
        yield running


@ALSO_UPGRADED
@STYLES
def test_messages_come_back(older: Server, path: str) -> None:
    with client(older, path) as websocket:
        for message in ["hello", "grüße 🎈", "", b"\x00\xff", b"", "x" * 4000]:
            websocket.send(message)
            assert websocket.recv() == message


@OURS
@STYLES
def test_what_came_right_behind_the_handshake(older: Server, path: str) -> None:
    with Raw(older) as raw:
        raw.upgrade(path, behind=masked("one") + masked("two") + close_frame(1000))
        assert raw.rest() == unmasked("one") + unmasked("two") + CLOSE_1000


@LOGGED
@STYLES
def test_one_line_in_the_access_log_and_nothing_else(older: Server, path: str) -> None:
    since = older.settled()
    with Raw(older) as raw:
        raw.upgrade(path)
        raw.send(masked("hi") + close_frame(1000))
        assert raw.rest() == unmasked("hi") + CLOSE_1000
    log = older.settle(since)
    (line,) = access_lines(log, path)
    assert " 101 " in line
    assert remarks(log) == ([] if path == "/callbacks" else [f"{path} ended: remote"])


@ALSO_UPGRADED
@STYLES
def test_a_client_that_goes_without_a_word(older: Server, path: str) -> None:
    since = older.settled()
    with Raw(older) as raw:
        raw.upgrade(path)
        raw.send(masked("hi"))
        assert raw.read(4) == unmasked("hi")
    assert "Traceback" not in older.settle(since)


@OURS
def test_the_view_may_refuse(older: Server) -> None:
    with Raw(older) as raw:
        raw.send(raw.request("/middleware?token=wrong"))
        answer = raw.answer()
    assert (answer.status, answer.body, answer.values("X-Seen")) == (401, b"who are you?", ["before"])


@OURS
@pytest.mark.parametrize("path", ["/middleware", "/sock", "/sockets", "/blocking"])
def test_another_origin_is_refused(older: Server, path: str) -> None:
    with Raw(older) as raw:
        raw.send(raw.request(path, Origin="https://elsewhere.example"))
        answer = raw.answer()
    assert answer.status == 403 and b"elsewhere.example" in answer.body


@OURS
@pytest.mark.parametrize("path", ["/raises", "/sock/raises"])
def test_a_view_that_raises(older: Server, path: str) -> None:
    since = older.settled()
    with Raw(older) as raw:
        raw.upgrade(path)
        raw.send(masked("hi"))
        assert raw.read(8) == unmasked("hi") + CLOSE_1011
        raw.send(close_frame(1011))
        assert raw.rest() == b""
    log = older.settle(since)
    assert log.count("ValueError: oops") == log.count("Traceback") == 1


@OURS
def test_a_page_and_a_websocket_at_one_address(older: Server) -> None:
    assert older.get("/sockets").body == b"a page"
    assert older.get("/nowhere").status == 404


@OURS
def test_variables_request_and_subprotocol(older: Server) -> None:
    with Raw(older) as raw:
        answer = raw.upgrade("/sock/7?q=x", Sec_WebSocket_Protocol="new, old")
        assert answer.values("Sec-WebSocket-Protocol") == ["old"]
        raw.send(close_frame(1000))
        assert raw.rest() == unmasked("7 x before old") + CLOSE_1000
    with Raw(older) as raw:
        raw.upgrade("/rooms/blue", behind=close_frame(1000))
        assert raw.rest() == unmasked("blue") + CLOSE_1000


@OURS
def test_the_limit_of_sock(older: Server) -> None:
    with Raw(older) as raw:
        raw.upgrade("/sock")
        raw.send(masked("x" * 5001))
        assert raw.read(4)[2:] == b"\x03\xf1"


@ANY_APP
def test_a_generator_without_a_framework(kind: Kind, tmp_path: Path) -> None:
    with kind.start(tmp_path, "older:bare_app") as server:
        with Raw(server) as raw:
            raw.upgrade("/", behind=masked("hi") + close_frame(1000))
            assert raw.rest() == unmasked("hi") + CLOSE_1000
        with Raw(server) as raw:
            raw.send(raw.request("/missing"))
            assert raw.head().status == 404
        assert (server.get("/").status, server.get("/").body) == (404, b"nothing here")
        assert "Traceback" not in server.log()


@OURS
def test_the_servers_end(kind: Kind, tmp_path: Path) -> None:
    """A function that receives is told by the end of its connection, one that does something else is interrupted."""
    paths = ["/callbacks", "/blocking", "/middleware", "/sock", "/sockets"]
    with kind.start(tmp_path, "older:app") as server:
        opened = [Raw(server) for _ in paths]
        for raw, path in zip(opened, paths, strict=True):
            raw.upgrade(path)
            raw.send(masked("hi"))
            assert raw.read(4) == unmasked("hi")
        if kind.ends_by == signal.SIGINT:
            server.wait_until_asleep()
        os.kill(server.serving_pid, kind.ends_by)
        for raw in opened:
            assert raw.read(4) == GONE_1012
            raw.send(close_frame(1012))
            assert raw.rest() == b""
            raw.socket.close()
        server.wait()
        log = server.log()
    for path in paths[1:]:
        assert log.count(f"{path} ended: shutdown\n") == 1, log
    assert "Traceback" not in re.sub(NOISE, "", log)


@pytest.mark.only(lambda kind: kind.name == "gunicorn gevent")
def test_a_view_that_is_busy_is_interrupted_in_time(kind: Kind, tmp_path: Path) -> None:
    with kind.start(tmp_path, "older:app") as server, Raw(server) as raw:
        raw.upgrade("/busy")
        assert raw.read(6) == unmasked("busy")
        os.kill(server.pid, signal.SIGTERM)
        assert raw.read(4) == GONE_1012
        raw.send(close_frame(1012))
        server.wait()
        assert server.log().count("busy interrupted\n") == 1
        assert "Traceback" not in server.log()
