"""Over real sockets: gunicorn's gevent worker, the oldest supported and the newest, and gevent.pywsgi.

What is promised of taking a server's socket over: nothing is lost, nothing is added, nothing is held, nothing is logged
that an operator need not read, and whatever a client does, the next one is served.
"""

from __future__ import annotations

import re
import select
import ssl
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from apps.defaults import IDLE
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded
from kinds import Kind
from raw import Raw, diary, masked, new_key, unmasked
from serving import (
    DEADLINE,
    HAS_HTTP_2,
    OLDEST_GUNICORN,
    Answer,
    Server,
    certificate,
    flask_run,
    for_two_threads,
    gunicorn,
)
from websockets.frames import Opcode
from websockets.sync.client import ClientConnection, connect

_ACCESS = re.compile(r'\[.+\] ".*" \d{3} (\d+|-)( |$)')
CLOSE_1000 = b"\x88\x02\x03\xe8"
CLOSE_1002 = b"\x03\xea"
CLOSE_1011 = b"\x88\x02\x03\xf3"
#: Tests that need a client to be alone with its server, to be asked before the 101, or to find it in the log.
DIRECT = pytest.mark.only(lambda kind: not kind.proxied)
ASKED = pytest.mark.only(lambda kind: not kind.upgraded)
LOGGED = pytest.mark.only(lambda kind: kind.logs)
MIDDLEWARES = ["/hidden", "/generated", "/wrapped", "/proxyfix", "/sentry", "/opentelemetry"]


GOODBYE = masked(b"\x03\xe8", Opcode.CLOSE)


def client(server: Server, path: str) -> ClientConnection:
    """An ordinary client."""
    url = server.url(path, "ws")
    options = {"compression": None, "max_size": None, "open_timeout": DEADLINE, "close_timeout": DEADLINE}
    if server.unix:
        options["unix"] = True  # else versions up to 16 set an option of TCP on the socket
    return connect(url, sock=server.socket(encrypted=False), ssl=for_two_threads(server.tls), **options)


def serves(server: Server) -> None:
    """Assert that the next client is served."""
    with client(server, "/echo") as websocket:
        websocket.send("still there?")
        assert websocket.recv(DEADLINE) == "still there?"


def access_lines(log: str, path: str) -> list[str]:
    """The lines of the access log about a path."""
    return [line for line in log.splitlines() if f'"GET {path} HTTP/1.1"' in line]


def remarks(log: str) -> list[str]:
    """All lines but those of the access log."""
    return [line for line in log.splitlines() if not _ACCESS.search(line)]


def is_plain(answer: Answer) -> bool:
    """Tell whether this is what ``/plain`` answers."""
    return answer.status == 200 and answer.body == b"plain"


# What arrives.


@pytest.mark.matrix("messages")
def test_text_and_binary_come_back(server: Server) -> None:
    with client(server, "/echo") as websocket:
        for message in ["hello", "grüße, 世界 🎈", "", b"\x00\xff", b"", "x" * 70_000, bytes(range(256)) * 1000]:
            websocket.send(message)
            assert websocket.recv(DEADLINE) == message


def test_works_without_flask(server: Server) -> None:
    with client(server, "/bare") as websocket:
        websocket.send("hello")
        assert websocket.recv(DEADLINE) == "hello"


@pytest.mark.matrix("headers")
@ASKED
def test_cookies_and_headers_of_view_and_hooks_are_in_the_101(server: Server) -> None:
    with Raw(server) as raw:
        head = raw.upgrade("/user")
        raw.send(GOODBYE)
        assert raw.rest() == CLOSE_1000
    assert head.values("X-View") == ["here"]
    cookies = head.values("Set-Cookie")
    assert any(cookie.startswith("hook=was-here") for cookie in cookies)
    assert any(cookie.startswith("session=") for cookie in cookies)
    assert "Cookie" in ", ".join(head.values("Vary"))


@pytest.mark.matrix("middlewares")
@pytest.mark.parametrize("prefix", ["", *MIDDLEWARES, "/bare"])
def test_the_101_has_what_it_must_and_nothing_about_a_body(server: Server, prefix: str) -> None:
    with Raw(server) as raw:
        head = raw.upgrade(prefix if prefix == "/bare" else f"{prefix}/echo")
        raw.send(GOODBYE)
        assert raw.rest() == CLOSE_1000
    assert [value.lower() for value in head.values("Connection")] == ["upgrade"]
    assert [value.lower() for value in head.values("Upgrade")] == ["websocket"]
    assert head.values("Sec-WebSocket-Accept") == ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]  # RFC 6455 §1.3
    for name in ("Transfer-Encoding", "Content-Length", "Content-Type"):
        assert head.values(name) == []


@pytest.mark.matrix("read-ahead")
@pytest.mark.parametrize("prefix", ["", *MIDDLEWARES])
@pytest.mark.parametrize("size", [5, 20_000])
@pytest.mark.parametrize("reused", [False, True], ids=["first request", "reused connection"])
def test_frames_right_behind_the_handshake_are_not_lost(
    server: Server, kind: Kind, prefix: str, size: int, reused: bool
) -> None:
    message = bytes(i % 251 for i in range(size))
    with Raw(server) as raw:
        if reused and kind.reuses:
            raw.send(raw.request("/plain", Connection="keep-alive", Upgrade=None))
            assert is_plain(raw.answer())
        raw.upgrade(f"{prefix}/echo", masked("first") + masked(message) + masked("last") + GOODBYE)
        assert raw.rest() == unmasked("first") + unmasked(message) + unmasked("last") + CLOSE_1000


def test_a_frame_begun_behind_the_handshake_goes_on_later(server: Server) -> None:
    frame = masked(b"in two halves" * 10)
    with Raw(server) as raw:
        raw.upgrade("/echo", frame[:40])
        raw.send(frame[40:] + GOODBYE)
        assert raw.rest() == unmasked(b"in two halves" * 10) + CLOSE_1000


@pytest.mark.matrix("headers")
@ASKED
def test_a_subprotocol_is_agreed_on(server: Server) -> None:
    with Raw(server) as raw:
        head = raw.upgrade("/script", Sec_WebSocket_Protocol="v0, v1, v2")
    assert head.values("Sec-WebSocket-Protocol") == ["v2"]


# What is held and what is written.


@pytest.mark.matrix("released")
def test_everything_is_released_before_the_handler_begins(server: Server) -> None:
    key = new_key()
    with client(server, f"/teardown?key={key}") as websocket:
        websocket.send("here")
        assert websocket.recv(DEADLINE) == "here"
    entries = diary(server, key)
    assert entries == [
        "view, 1 session held",
        "after_request 101",
        "teardown_request",
        "teardown_appcontext, 0 session held",
        "call_on_close",
        "init",
        {"reason": "remote", "code": 1000, "text": ""},
    ]


@pytest.mark.matrix("access log")
@LOGGED
@pytest.mark.parametrize("prefix", ["", *MIDDLEWARES])
def test_the_access_log_has_one_line_written_at_the_end(server: Server, kind: Kind, prefix: str) -> None:
    since, path, held = server.settled(), f"{prefix}/echo?{new_key()}", 0.2
    with client(server, path) as websocket:
        websocket.send("hello")
        assert websocket.recv(DEADLINE) == "hello"
        with pytest.raises(TimeoutError):
            websocket.recv(held)
        mark = new_key()
        server.get(f"/mark?mark={mark}")
        server.wait_for_log(f"mark {mark}")
        assert access_lines(server.log(since), path) == []
    (line,) = access_lines(server.settle(since), path)
    assert f'"GET {path} HTTP/1.1" 101 ' in line
    assert kind.logs == "line" or float(line.split()[-1]) >= held


@pytest.mark.matrix("quiet")
@pytest.mark.parametrize("prefix", ["", *MIDDLEWARES])
def test_nothing_is_written_behind_the_answered_close_frame(server: Server, prefix: str) -> None:
    with Raw(server) as raw:
        raw.upgrade(f"{prefix}/echo")
        raw.send(masked("one") + GOODBYE)
        assert raw.rest() == unmasked("one") + CLOSE_1000


@pytest.mark.matrix("quiet")
@pytest.mark.parametrize("prefix", ["", *MIDDLEWARES])
def test_nothing_is_written_behind_the_servers_own_close_frame(server: Server, prefix: str) -> None:
    key, close = new_key(), unmasked(b"\x0f\xa2later", Opcode.CLOSE)
    with Raw(server) as raw:
        raw.upgrade(f"{prefix}/script?key={key}")
        raw.send(masked("close 4002 later"))
        assert raw.read(len(close)) == close
        raw.send(masked("too late") + masked(b"\x0f\xa2", Opcode.CLOSE))
        assert raw.rest() == b""
    assert diary(server, key) == ["init", {"reason": "normal", "code": None, "text": ""}]


@pytest.mark.matrix("quiet")
@DIRECT
@pytest.mark.parametrize("prefix", ["", *MIDDLEWARES])
def test_late_data_leaves_no_trace_in_the_log(server: Server, prefix: str) -> None:
    since = server.settled()
    with Raw(server) as raw:
        raw.upgrade(f"{prefix}/echo")
        raw.send(GOODBYE)
        assert raw.read(len(CLOSE_1000)) == CLOSE_1000
        raw.send(masked("late") + b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n")
        raw.half_close()
        assert raw.rest() == b""
    assert remarks(server.settle(since)) == []


@LOGGED
@DIRECT
@pytest.mark.parametrize("prefix", ["", *MIDDLEWARES])
def test_what_comes_when_all_is_over_is_not_taken_for_a_request(server: Server, prefix: str) -> None:
    since, path = server.settled(), f"{prefix}/impatient?{new_key()}"
    with Raw(server) as raw:
        raw.upgrade(path)
        raw.send(GOODBYE)
        assert raw.rest() == CLOSE_1000
        server.wait_for_log(re.escape(path), since=since)  # the server's part is over, though this side stays open
        with suppress(OSError):
            raw.send(b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\nand garbage\r\n\r\n")
        log = server.settle(since)
    assert remarks(log) == []
    assert access_lines(log, "/plain") == []


@pytest.mark.matrix("middlewares")
@pytest.mark.parametrize("prefix", MIDDLEWARES)
def test_a_middleware_changes_nothing(server: Server, prefix: str) -> None:
    since = server.settled()
    with client(server, f"{prefix}/echo") as websocket:
        websocket.send("hello")
        assert websocket.recv(DEADLINE) == "hello"
        websocket.close(4001, "bye")
        if server.tls is None:  # there, this client up to version 16 gives up reading as soon as it closes
            assert (websocket.protocol.close_code, websocket.protocol.close_reason) == (4001, "")
            assert websocket.protocol.close_rcvd is not None  # not made up by the client
    assert remarks(server.settle(since)) == []


# Clients without manners: at most one remark in the log, and the next one is served.


def rst_in_a_frame(server: Server) -> None:
    with Raw(server) as raw:
        raw.upgrade()
        raw.send(masked(b"x" * 1000)[:500])
        raw.reset()


def end_in_a_frame(server: Server) -> None:
    with Raw(server) as raw:
        raw.upgrade()
        raw.send(masked(b"x" * 1000)[:500])
        raw.half_close()
        assert raw.rest() == b""


def garbage_for_a_frame(server: Server) -> None:
    with Raw(server) as raw:
        raw.upgrade()
        raw.send(b"\xff" * 3000)
        raw.half_close()
        reply = raw.rest()
        assert reply[:1] == b"\x88" and reply[2:4] == CLOSE_1002
        assert len(reply) == 2 + reply[1]


def http_for_a_frame(server: Server) -> None:
    with Raw(server) as raw:
        raw.upgrade()
        raw.send(b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n")
        raw.half_close()
        reply = raw.rest()
        assert reply[:1] == b"\x88" and reply[2:4] == CLOSE_1002
        assert len(reply) == 2 + reply[1]


def garbage_for_a_handshake(server: Server) -> None:
    with Raw(server) as raw:
        raw.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        raw.half_close()
        raw.rest()


def half_a_handshake(server: Server) -> None:
    with Raw(server) as raw:
        raw.send(raw.request()[:60])
        raw.half_close()
        raw.rest()


def silence(server: Server) -> None:
    with Raw(server) as raw:
        raw.half_close()
        raw.rest()


def rst_at_once(server: Server) -> None:
    with Raw(server) as raw:
        raw.reset()


def rst_behind_the_handshake(server: Server) -> None:
    with Raw(server) as raw:
        raw.send(raw.request())
        raw.reset()


def rst_on_the_unread_101(server: Server) -> None:
    with Raw(server) as raw:
        raw.send(raw.request())
        assert select.select([raw.socket], [], [], DEADLINE)[0]
        raw.reset()


def end_behind_the_handshake(server: Server) -> None:
    with Raw(server) as raw:
        raw.upgrade()
        raw.half_close()
        assert raw.rest() == b""


def rst_behind_the_close_frame(server: Server) -> None:
    with Raw(server) as raw:
        raw.upgrade("/script")
        raw.send(masked("close 4002 later"))
        assert raw.read(2)[:1] == b"\x88"
        raw.reset()


def rst_while_a_large_answer_comes(server: Server) -> None:
    with Raw(server) as raw:
        raw.upgrade()
        raw.send(masked(bytes(8 << 20)))
        assert raw.read(1000)[:1] == b"\x82"
        raw.reset()


#: Before there is a WebSocket, what is logged is the server's own business.
RUDE_AT_FIRST = [garbage_for_a_handshake, half_a_handshake, silence, rst_at_once]
RUDE = [
    rst_in_a_frame,
    end_in_a_frame,
    garbage_for_a_frame,
    http_for_a_frame,
    rst_behind_the_handshake,
    rst_on_the_unread_101,
    end_behind_the_handshake,
    rst_behind_the_close_frame,
    rst_while_a_large_answer_comes,
]


@pytest.mark.matrix("quiet")
@DIRECT
@pytest.mark.parametrize("rude", RUDE, ids=lambda rude: rude.__name__)
def test_a_client_without_manners_harms_nobody(server: Server, rude: Callable[[Server], None]) -> None:
    since = server.settled()
    rude(server)
    log = server.settle(since)
    assert "Traceback" not in log
    assert len(remarks(log)) <= 1, log
    serves(server)


@pytest.mark.parametrize("rude", RUDE_AT_FIRST, ids=lambda rude: rude.__name__)
def test_a_client_that_does_not_get_as_far_harms_nobody(server: Server, rude: Callable[[Server], None]) -> None:
    rude(server)
    serves(server)


def test_a_reset_ends_the_handler(server: Server) -> None:
    key = new_key()
    with Raw(server) as raw:
        raw.upgrade(f"/script?key={key}")
        raw.send(masked("hello"))
        assert raw.read(7) == unmasked("hello")
        raw.reset()
    assert diary(server, key) == ["init", {"reason": "error: closed", "code": None, "text": ""}]


# Refusals (the contract, §3).

#: What is wrong, the request line, the headers that differ, the status, and what the text names.
REFUSALS: list[tuple[str, str, dict[str, str | None], int, str]] = [
    ("POST", "POST {} HTTP/1.1", {}, 400, "GET"),
    ("HTTP/1.0", "GET {} HTTP/1.0", {}, 400, "HTTP/1.1"),
    ("no Host", "", {"Host": None}, 400, "Host"),
    ("no Upgrade", "", {"Upgrade": None}, 400, "Upgrade"),
    ("other Upgrade", "", {"Upgrade": "h2c"}, 400, "Upgrade"),
    ("no Connection", "", {"Connection": None}, 400, "Connection"),
    ("other Connection", "", {"Connection": "keep-alive"}, 400, "Connection"),
    ("no key", "", {"Sec_WebSocket_Key": None}, 400, "Sec-WebSocket-Key"),
    ("short key", "", {"Sec_WebSocket_Key": "c2hvcnQ="}, 400, "Sec-WebSocket-Key"),
    ("no base64", "", {"Sec_WebSocket_Key": "?" * 24}, 400, "Sec-WebSocket-Key"),
    ("two keys", "", {"Sec_WebSocket_Key": f"{Raw.KEY}\r\nSec-WebSocket-Key: {Raw.KEY}"}, 400, "Sec-WebSocket-Key"),
    ("no version", "", {"Sec_WebSocket_Version": None}, 426, "Sec-WebSocket-Version"),
    ("version 8", "", {"Sec_WebSocket_Version": "8"}, 426, "Sec-WebSocket-Version"),
    ("two versions", "", {"Sec_WebSocket_Version": "13, 8"}, 426, "Sec-WebSocket-Version"),
    ("foreign origin", "", {"Origin": "http://evil.example"}, 403, "evil.example"),
    ("sandboxed origin", "", {"Origin": "null"}, 403, "null"),
    ("a body", "", {"Content_Length": "0005"}, 400, "Content-Length"),
]


def refused(server: Server, path: str, line: str, changed: dict[str, str | None]) -> Answer:
    """Send a handshake that is refused, and use the connection once more if the server keeps it."""
    with Raw(server) as raw:
        body = b"12345" if "Content_Length" in changed else b""
        raw.send(raw.request(path, line or "GET {} HTTP/1.1", **changed) + body)
        answer = raw.answer()
        if "close" not in ", ".join(answer.values("Connection")).lower():
            raw.send(raw.request("/plain", Connection="close", Upgrade=None))
            assert is_plain(raw.answer())
        assert raw.rest() == b""
    return answer


@pytest.mark.matrix("refusals")
@ASKED
@DIRECT
@pytest.mark.parametrize("path", ["/echo", "/deferred", "/bare"])
@pytest.mark.parametrize("line, changed, status, named", [case[1:] for case in REFUSALS], ids=[c[0] for c in REFUSALS])
def test_a_refusal_names_what_is_wrong(
    server: Server, path: str, line: str, changed: dict[str, str | None], status: int, named: str
) -> None:
    since = server.settled()
    answer = refused(server, path, line, changed)
    if path != "/bare" and line.startswith("POST"):
        status, named = 405, ""  # Flask's own answer: a WebSocket rule takes GET alone
    if path != "/bare" and changed.get("Upgrade", "kept") is None:
        status = 426  # a plain request for a WebSocket route
    assert answer.status == status
    assert named in answer.body.decode()
    if status == 426:
        assert [value.lower() for value in answer.values("Upgrade")] == ["websocket"]
    if named == "Sec-WebSocket-Version":
        assert answer.values("Sec-WebSocket-Version") == ["13"]
    assert "Traceback" not in server.settle(since)


def test_a_plain_request_to_a_websocket_route_is_told_to_upgrade(server: Server) -> None:
    answer = refused(server, "/echo", "", {"Upgrade": None, "Connection": "keep-alive"})
    assert answer.status == 426
    assert [value.lower() for value in answer.values("Upgrade")] == ["websocket"]


@ASKED
def test_a_websocket_request_to_a_plain_route_is_told_so(server: Server) -> None:
    answer = refused(server, "/plain", "", {})
    assert answer.status == 400
    assert "/plain is not a WebSocket route" in answer.body.decode()


def test_the_pages_own_origin_is_welcome(server: Server) -> None:
    with Raw(server) as raw:
        raw.upgrade("/echo", Origin=server.url(""))


@pytest.mark.only(lambda kind: kind.upgraded)
@pytest.mark.parametrize("behind", [b"", masked(b"x" * 100_000)], ids=["a quiet peer", "a peer that is still sending"])
def test_a_refusal_behind_gevent_websockets_101_is_a_close_frame(server: Server, behind: bytes) -> None:
    """A reset instead, which a browser tells its page as 1006, would come from input that nobody has read."""
    since = server.settled()
    with Raw(server) as raw:
        raw.upgrade("/echo", behind=behind, Origin="http://evil.example")
        for _ in range(20):
            raw.send(behind)
        head = raw.read(4)
        assert (head[0], head[2:]) == (0x88, b"\x03\xf0")  # 1008
        assert b"evil.example" in raw.rest()
    assert "Traceback" not in server.settle(since)


@pytest.mark.only(lambda kind: kind.upgraded)
def test_a_refused_peer_that_does_not_close_is_left_alone(server: Server) -> None:
    since = server.settled()
    with Raw(server) as raw:
        raw.upgrade("/echo", Origin="http://evil.example")
        assert b"evil.example" in raw.rest()
        with suppress(ConnectionError):  # which is the end that is awaited
            while True:
                raw.send(masked("still here"))
    assert "Traceback" not in server.settle(since)


@pytest.mark.only(lambda kind: not kind.proxied)
def test_short_messages_are_not_held_back(server: Server) -> None:
    """By Nagle's algorithm, until the one before is acknowledged."""
    with client(server, "/script?") as websocket:
        websocket.send("nodelay")
        assert websocket.recv(DEADLINE) == ("0" if server.unix else "1")


@pytest.mark.only(lambda kind: "TLS" in kind.name)
def test_tls_ends_with_a_close_notify(server: Server) -> None:
    """Without it a client could not tell the end of the stream from an attacker who cut it."""
    with Raw(server, suppress_ragged_eofs=False) as raw:
        raw.upgrade("/echo")
        raw.send(GOODBYE)
        assert raw.rest() == CLOSE_1000


# Servers that cannot.


@pytest.mark.parametrize("version", [OLDEST_GUNICORN, None], ids=["gunicorn-oldest", "gunicorn"])
def test_gunicorns_sync_worker_is_refused(version: str | None) -> None:
    with gunicorn(worker="sync", version=version) as sync:
        answer = refused(sync, "/echo", "", {})
    assert answer.status == 501
    assert "gunicorn -k gevent" in answer.body.decode()


def test_werkzeug_without_threads_is_refused() -> None:
    with flask_run("served:app", "--without-threads") as one_at_a_time:
        answer = refused(one_at_a_time, "/echo", "", {})
    assert answer.status == 501
    assert "--without-threads" in answer.body.decode()


@pytest.mark.skipif(not HAS_HTTP_2, reason="this gunicorn has no HTTP/2")
def test_a_stream_of_http_2_is_refused(tmp_path: Path) -> None:
    made = certificate(tmp_path)
    options = ["--certfile", str(made.path), "--keyfile", str(made.path), "--http-protocols", "h2,h1"]
    with gunicorn("served:app", *options) as server:
        status, body = get_by_http_2(server, made.client, "/bare")
    assert status == "501"
    assert "HTTP/1.1" in body


def get_by_http_2(server: Server, context: ssl.SSLContext, path: str) -> tuple[str, str]:
    """Send a GET request as a stream; return status and body."""
    context.set_alpn_protocols(["h2"])
    status, body, ended = "", b"", False
    with context.wrap_socket(server.socket(), server_hostname="127.0.0.1") as connected:
        http = H2Connection()
        http.initiate_connection()
        http.send_headers(
            1, [(":method", "GET"), (":authority", server.host), (":scheme", "https"), (":path", path)], True
        )
        while not ended:
            connected.sendall(http.data_to_send())
            for event in http.receive_data(connected.recv(1 << 16)):
                if isinstance(event, ResponseReceived):
                    status = dict(event.headers)[b":status"].decode()
                elif isinstance(event, DataReceived):
                    body += event.data
                ended = ended or isinstance(event, StreamEnded)
    return status, body.decode()


# Errors of the application.


@pytest.mark.matrix("refusals")
@ASKED
def test_an_exception_in_the_view_is_an_ordinary_500(server: Server) -> None:
    since = server.settled()
    answer = refused(server, "/broken-view", "", {})
    assert answer.status == 500
    assert "the view was told to" in server.settle(since)
    serves(server)


@pytest.mark.parametrize("prefix", ["", *MIDDLEWARES])
def test_an_exception_in_a_callback_closes_with_1011_and_is_logged(server: Server, prefix: str) -> None:
    since, key = server.settled(), new_key()
    with Raw(server) as raw:
        raw.upgrade(f"{prefix}/script?key={key}")
        raw.send(masked("raise"))
        assert raw.read(len(CLOSE_1011)) == CLOSE_1011
        raw.send(masked(b"\x03\xf3", Opcode.CLOSE))
        assert raw.rest() == b""
    entries = diary(server, key)
    assert entries == ["init", {"reason": "error: the handler was told to", "code": None, "text": ""}]
    log = server.settle(since)
    assert log.count("Traceback") == 1
    assert "RuntimeError: the handler was told to" in log
    serves(server)


def test_an_exception_in_init_closes_with_1011_and_is_logged(server: Server) -> None:
    since = server.settled()
    with Raw(server) as raw:
        raw.upgrade("/broken-init")
        raw.send(GOODBYE)
        assert raw.rest() == CLOSE_1011
    log = server.settle(since)
    assert log.count("Traceback") == 1
    assert "RuntimeError: init was told to" in log
    serves(server)


def test_an_exception_in_call_on_close_is_logged_and_does_no_harm(server: Server) -> None:
    since = server.settled()
    with Raw(server) as raw:
        raw.upgrade("/broken-close")
        raw.send(masked("hello") + GOODBYE)
        assert raw.rest() == unmasked("hello") + CLOSE_1000
    log = server.settle(since)
    assert log.count("Traceback") == 1
    assert "IndexError" in log


# gunicorn's ways to run.


@pytest.mark.parametrize("version", [OLDEST_GUNICORN, None], ids=["gunicorn-oldest", "gunicorn"])
def test_many_come_at_once_to_a_worker_that_was_loaded_before_it_was_forked(version: str | None) -> None:
    """What the library made at its import, in a process not yet patched, must not stop a patched one."""
    with gunicorn("served:app", "--preload", version=version) as server, ExitStack() as open_at_once:
        clients = [open_at_once.enter_context(Raw(server)) for _ in range(20)]
        for raw in clients:
            raw.send(raw.request() + masked("hello"))
        for raw in clients:
            assert raw.head().status == 101
            assert raw.read(7) == unmasked("hello")


@pytest.mark.skipif(IDLE == "parked", reason="a parked connection takes up no place")
@pytest.mark.parametrize(
    ("worker", "limit", "named"),
    [
        ("gevent", "--worker-connections", "worker_connections is 3"),
        ("gevent_pywsgi", "--worker-connections", "worker_connections is 3"),
        ("gthread", "--threads", "threads is 3"),
    ],
)
def test_a_worker_that_is_full_says_so_once(worker: str, limit: str, named: str) -> None:
    with gunicorn("served:app", limit, "3", worker=worker) as server:
        for filled in range(2):
            with ExitStack() as open_at_once:
                for _ in range(2):
                    open_at_once.enter_context(client(server, "/echo"))
                assert server.log().count(named) == filled
                open_at_once.enter_context(client(server, "/echo"))
            server.settle()
            assert server.log().count(named) == 1


@pytest.mark.parametrize("version", [OLDEST_GUNICORN, None], ids=["gunicorn-oldest", "gunicorn"])
@pytest.mark.parametrize("args", [["--preload"], ["--workers", "2"]], ids=" ".join)
def test_ways_to_run_gunicorn(version: str | None, args: list[str]) -> None:
    with gunicorn("served:app", *args, version=version) as server:
        if "--workers" in args:
            server.wait_for_log(r"(?s)Booting worker.*Booting worker")
        with ExitStack() as open_at_once:
            pids = set()
            for number in range(8):
                websocket = open_at_once.enter_context(client(server, f"/script?{number}"))
                websocket.send("pid")
                pids.add(int(websocket.recv(DEADLINE)))
            assert pids <= set(server.worker_pids)
        server.stop()
        log = server.log()
    assert all(len(access_lines(log, f"/script?{number}")) == 1 for number in range(8))
    assert "Traceback" not in log
