"""`upgrade` and the hand-over: when what is sent, in which order contexts and callbacks run, and what is refused.

Over ``gevent.pywsgi`` in process; the same promises over real servers are held by ``test_servers``.
"""

from __future__ import annotations

import socket
from typing import Any

import gevent
import pytest
from flask import Flask, Response, abort, request, session
from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler
from support import DEADLINE, Diary, application, frames_of, handshake, open_client, raw_connection, read_all, read_head
from websockets.frames import Opcode
from werkzeug.exceptions import HTTPException
from werkzeug.test import EnvironBuilder, create_environ
from werkzeug.wrappers import Request

from websock_gevent import Options, WebSock, upgrade
from websock_gevent.testing import Refused, connect


class Echo(WebSock[Any]):
    def handle_in(self, message: Any, state: Any) -> Any:
        return "push", message, state


def answer(app: Any, sent: bytes) -> bytes:
    """Send raw bytes and the end of the stream to an application, and read until it closes."""
    sock, server = raw_connection(app)
    sock.sendall(sent)
    sock.shutdown(socket.SHUT_WR)
    received = read_all(sock)
    sock.close()
    server.join(DEADLINE)
    return received


HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}

REFUSALS = [
    ("plain HTTP", {"Upgrade": "", "Connection": ""}, b"400", b"Connection"),
    ("no Host", {"Host": ""}, b"400", b"Host"),
    ("no Upgrade", {"Upgrade": ""}, b"400", b"Upgrade"),
    ("other Upgrade", {"Upgrade": "h2c"}, b"400", b"Upgrade"),
    ("no Connection", {"Connection": "close"}, b"400", b"Connection"),
    ("no key", {"Sec_WebSocket_Key": ""}, b"400", b"Sec-WebSocket-Key"),
    ("short key", {"Sec_WebSocket_Key": "c2hvcnQ="}, b"400", b"Sec-WebSocket-Key"),
    ("no version", {"Sec_WebSocket_Version": ""}, b"426", b"Sec-WebSocket-Version: 13"),
    ("version 8", {"Sec_WebSocket_Version": "8"}, b"426", b"Sec-WebSocket-Version: 13"),
    ("foreign page", {"Origin": "http://evil.example"}, b"403", b"Origin"),
]


@pytest.mark.parametrize("early", [True, False], ids=["early", "late"])
@pytest.mark.parametrize(("name", "headers", "status", "part"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_refusals_over_a_raw_socket(
    name: str, headers: dict[str, str], status: bytes, part: bytes, early: bool
) -> None:
    handler = Diary()
    sock, server = raw_connection(application(handler, early_validate_upgrade=early))
    sock.sendall(handshake(**headers))
    head = read_head(sock)
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    body = b""
    while len(body) < length:
        body += sock.recv(length - len(body))
    assert head.startswith(b"HTTP/1.1 " + status), head
    assert part in head + body
    sock.close()
    server.join(DEADLINE)
    assert handler.calls == []


def test_http_1_0_is_refused() -> None:
    head = answer(application(Diary()), handshake().replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert b" 400 " in head.split(b"\r\n")[0] and b"HTTP/1.1" in head


def test_a_post_is_refused() -> None:
    sent = handshake(Content_Length="0").replace(b"GET", b"POST", 1)
    received = answer(application(Diary()), sent)
    assert b" 400 " in received.split(b"\r\n")[0] and b"GET" in received


def test_a_handshake_with_a_body_is_refused() -> None:
    received = answer(application(Diary()), handshake(Content_Length="4") + b"body")
    assert b" 400 " in received.split(b"\r\n")[0] and b"Content-Length" in received


def test_an_unknown_server_is_refused_with_501() -> None:
    environ = EnvironBuilder(headers=HANDSHAKE).get_environ()
    with pytest.raises(HTTPException) as refused:
        upgrade(environ, Echo, None)
    assert refused.value.code == 501
    assert "gunicorn" in str(refused.value.description) and "pywsgi" in str(refused.value.description)


def test_flasks_test_client_is_told_what_to_use_instead() -> None:
    app = Flask(__name__)

    @app.route("/ws", websocket=True)
    def view() -> Response:
        return upgrade(request.environ, Echo, None)

    response = app.test_client().get("/ws", base_url="ws://localhost", headers=HANDSHAKE)
    assert response.status_code == 501
    assert "websock_gevent.testing" in response.text


def test_a_server_that_upgraded_already_is_refused() -> None:
    app = application(Echo)

    def adopted(environ: Any, start_response: Any) -> Any:
        environ["wsgi.websocket"] = object()
        return app(environ, start_response)

    with pytest.raises(Refused) as refused:
        connect(adopted)
    assert refused.value.response.status_code == 501


def test_an_http_2_stream_is_refused() -> None:
    app = application(Echo)

    def multiplexed(environ: Any, start_response: Any) -> Any:
        environ["SERVER_PROTOCOL"] = "HTTP/2"
        return app(environ, start_response)

    with pytest.raises(Refused) as refused:
        connect(multiplexed)
    assert refused.value.response.status_code == 501


@pytest.mark.parametrize(
    ("handler", "missing"),
    [(object(), "init, handle_in, handle_info"), (type("H", (), {"init": print, "handle_in": print}), "handle_info")],
)
def test_a_handler_without_its_callbacks(handler: Any, missing: str) -> None:
    with pytest.raises(TypeError, match=f"{missing} missing"):
        upgrade({}, handler, None)


def test_a_request_is_no_environ() -> None:
    request = Request(create_environ())
    with pytest.raises(TypeError, match=r"environ first \(request.environ in Flask\), not <Request"):
        upgrade(request, WebSock, None)  # type: ignore[arg-type]


def test_options_are_checked_in_the_view() -> None:
    with pytest.raises(TypeError, match="unknown option 'time_out'"):
        upgrade({}, Echo, None, time_out=3)
    with pytest.raises(TypeError, match="option timeout"):
        upgrade({}, Echo, None, timeout="3")
    with pytest.raises(TypeError, match="option compress must be a bool or a Deflate"):
        upgrade({}, Echo, None, compress="yes")


def test_common_options_and_single_ones() -> None:
    common = Options(max_message_size=10, max_frame_size=5)

    def app(environ: Any, start_response: Any) -> Any:
        return upgrade(environ, Diary(), None, options=common, max_frame_size=7)(environ, start_response)

    with connect(app) as client:
        client.send("1234567")
        assert client.receive() == "1234567"
        client.send("12345678")
        client.wait_closed()
        assert client.close_code == 1009


def test_the_head_is_ours_to_the_letter() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        response = upgrade(environ, Echo, None, subprotocols=["chat"])
        response.headers.add("X-One", "1")
        response.set_cookie("a", "b")
        response.headers["Content-Type"] = "text/plain"
        response.headers["Connection"] = "close"
        return response(environ, start_response)

    sock, server = raw_connection(app)
    sock.sendall(handshake(Sec_WebSocket_Protocol="soap, chat"))
    head = read_head(sock)
    assert head == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n"
        b"X-One: 1\r\nSet-Cookie: a=b; Path=/\r\n\r\n"
    )
    sock.close()
    server.join(DEADLINE)


class Custom(Response):
    """An application's own response class."""


def flask_app(diary: list[str]) -> Flask:
    """An application that writes down the order of everything."""
    app = Flask(__name__)
    app.secret_key = "not secret"
    app.response_class = Custom

    class Noting(WebSock[Any]):
        def init(self, state: Any) -> Any:
            diary.append("init")
            return "push", "welcome", state

        def handle_in(self, message: Any, state: Any) -> Any:
            return "push", message, state

    @app.after_request
    def after(response: Response) -> Response:
        diary.append(f"after_request {response.status_code} {isinstance(response, Custom)}")
        response.headers["X-After"] = "yes"
        session["seen"] = True
        return response

    @app.teardown_request
    def teardown_request(error: BaseException | None) -> None:
        diary.append("teardown_request")

    @app.teardown_appcontext
    def release(error: BaseException | None) -> None:
        diary.append("session released")

    @app.route("/ws", websocket=True)
    def view() -> Response:
        if request.args.get("who") == "nobody":
            abort(401)
        diary.append("view")
        response = upgrade(request.environ, Noting, None)
        response.call_on_close(lambda: diary.append("call_on_close"))
        return response

    return app


def test_everything_of_the_request_is_over_before_init() -> None:
    diary: list[str] = []
    with connect(flask_app(diary), "/ws") as client:
        assert client.receive() == "welcome"
        assert diary == [
            "view",
            "after_request 101 True",
            "teardown_request",
            "session released",
            "call_on_close",
            "init",
        ]
        assert client.headers["X-After"] == "yes"
        assert client.headers["Set-Cookie"].startswith("session=")


def test_the_view_decides_before_anything_is_upgraded() -> None:
    with pytest.raises(Refused) as refused:
        connect(flask_app([]), "/ws?who=nobody")
    assert refused.value.response.status_code == 401


def test_a_middleware_may_wrap_the_body_and_hide_the_server() -> None:
    app = application(Echo)

    def middleware(environ: Any, start_response: Any) -> Any:
        def wrapped(status: str, headers: Any, exc_info: Any = None) -> Any:
            return start_response(status, headers, exc_info)

        body = app(environ, wrapped)
        try:
            yield from body
        finally:
            if hasattr(body, "close"):
                body.close()

    with connect(middleware) as client:
        client.send("through")
        assert client.receive() == "through"
    assert client.close_code == 1000


def test_a_body_that_is_never_asked_for_is_closed_quietly() -> None:
    handler, closed = Diary(), []
    app = application(handler)

    def impatient(environ: Any, start_response: Any) -> Any:
        body = app(environ, start_response)
        body.close()
        closed.append(True)
        return []

    received = answer(impatient, handshake())
    assert closed and handler.calls == []
    assert received == b""


def test_nothing_follows_the_close_frame() -> None:
    received = answer(application(Echo), handshake() + b"\x88\x80\0\0\0\0")
    head, _, rest = received.partition(b"\r\n\r\n")
    assert list(frames_of(rest)) == [(Opcode.CLOSE, b"\x03\xe8")]


def test_a_client_that_leaves_during_the_handshake() -> None:
    handler = Diary()
    sock, server = raw_connection(application(handler))
    sock.sendall(handshake())
    sock.close()
    server.join(DEADLINE)
    assert handler.wait() == ("error", "closed")


def test_a_response_may_be_made_in_a_greenlet_of_the_view() -> None:
    """The environ is enough: no context of the framework is needed to make or serve the response."""

    def app(environ: Any, start_response: Any) -> Any:
        response = gevent.spawn(upgrade, environ, Echo, None).get(timeout=DEADLINE)
        return response(environ, start_response)

    with connect(app) as client:
        client.send("x")
        assert client.receive() == "x"


def test_call_on_close_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        response = upgrade(environ, Echo, None)
        response.call_on_close(lambda: 1 // 0)
        return response(environ, start_response)

    with connect(app) as client:
        client.send("x")
        assert client.receive() == "x"
    assert "call_on_close raised" in caplog.text


def test_open_client_needs_no_framework() -> None:
    with open_client(Echo) as client:
        client.send(b"bytes")
        assert client.receive() == b"bytes"


def test_a_refusal_behind_gevent_websockets_101_fits_into_a_control_frame() -> None:
    """Bytes count (RFC 6455 §5.5), and its text has characters of two."""
    host = "a" * 40
    server = WSGIServer(("127.0.0.1", 0), application(Echo), log=None, handler_class=WebSocketHandler)
    server.start()
    client = gevent.socket.create_connection(("127.0.0.1", server.server_port))
    client.settimeout(DEADLINE)
    client.sendall(handshake(Origin=f"https://{host}", X_Forwarded_Host=host))
    read_head(client)
    ((opcode, payload),) = frames_of(read_all(client))
    assert (opcode, payload[:2]) == (8, b"\x03\xf0")
    assert len(payload) <= 125 and "not allowed" in payload[2:].decode()
    client.close()
    server.stop()
