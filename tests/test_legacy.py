"""The stand-ins for gevent-websocket, flask-sock and Flask-Sockets: their manners, and what an application may do."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from flask import Blueprint, Flask, abort, request
from geventwebsocket.exceptions import WebSocketError
from geventwebsocket.resource import Resource, WebSocketApplication
from geventwebsocket.websocket import WebSocket as GeventWebSocket
from support import DEADLINE, frames_of, handshake, raw_connection, read_all, read_head, text, until
from werkzeug.exceptions import HTTPException

from websock_gevent import ConnectionClosed, WebSock, upgrade
from websock_gevent.legacy import ConnectionClosed as SockClosed
from websock_gevent.legacy import LegacyWebSocket, Sock, Sockets, WebSocketMiddleware
from websock_gevent.testing import Refused, connect


def closed(client: Any) -> tuple[int | None, str]:
    """Receive the end."""
    with pytest.raises(ConnectionClosed) as end:
        client.receive()
    client.wait_closed()
    return end.value.code, end.value.text


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def echo(environ: Any, start_response: Any) -> Any:
    """As in gevent-websocket's README."""
    ws = environ["wsgi.websocket"]
    while True:
        message = ws.receive()
        if message is None:
            break
        ws.send(message)
    return []


# gevent-websocket's manners.


def test_echo() -> None:
    with connect(WebSocketMiddleware(echo), timeout=DEADLINE) as client:
        for message in ("text", b"binary"):
            client.send(message)
            assert client.receive() == message


def test_what_the_environ_has() -> None:
    seen: dict[str, Any] = {}

    def look(environ: Any, start_response: Any) -> Any:
        ws = environ["wsgi.websocket"]
        assert isinstance(ws, GeventWebSocket) and ws.reason is None and (ws.close_code, ws.close_text) == (None, "")
        assert repr(ws) == "<LegacyWebSocket '/there' open>" and not ws.accepted
        seen.update(path=ws.path, version=environ["wsgi.websocket_version"], origin=ws.origin)
        ws.send("x")
        assert ws.accepted
        return []

    with connect(WebSocketMiddleware(look), "/there", headers={"Origin": "http://localhost"}) as client:
        assert client.receive() == "x"
    assert seen == {"path": "/there", "version": "13", "origin": "http://localhost"}


def test_other_requests_pass() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        assert "wsgi.websocket" not in environ
        start_response("204 No Content", [])
        return []

    sock, server = raw_connection(WebSocketMiddleware(app))
    sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert read_head(sock).startswith(b"HTTP/1.1 204")
    sock.close()
    server.join(DEADLINE)


def test_none_once_and_then_an_error() -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        ws = environ["wsgi.websocket"]
        seen.append(ws.receive())
        for call in (ws.receive, lambda: ws.send("late")):
            with pytest.raises(WebSocketError):
                call()
        seen.append((ws.closed, ws.close_code, ws.close_text, ws.reason))
        return []

    with connect(WebSocketMiddleware(app)) as client:
        client.close(4000, "bye")
    assert seen == [None, (True, 4000, "bye", "remote")]


def test_an_error_after_close() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        ws = environ["wsgi.websocket"]
        ws.close(4001, "enough")
        with pytest.raises(WebSocketError):
            ws.receive()
        return []

    with connect(WebSocketMiddleware(app)) as client:
        assert closed(client) == (4001, "enough")


def test_the_end_of_the_connection_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the application lets through: ``send`` raises it."""

    def app(environ: Any, start_response: Any) -> Any:
        ws = environ["wsgi.websocket"]
        while True:
            ws.send(ws.receive())

    with connect(WebSocketMiddleware(app)) as client:
        client.send("hi")
        assert client.receive() == "hi"
    assert errors(caplog) == []


def test_an_exception_closes_with_1011(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        environ["wsgi.websocket"].receive()
        raise ValueError("oops")

    with connect(WebSocketMiddleware(app)) as client:
        client.send("go")
        assert closed(client)[0] == 1011
    (line,) = errors(caplog)
    assert "raised, closing with 1011" in line


def test_another_connections_end_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        environ["wsgi.websocket"].receive()
        raise ConnectionClosed(1000, "somebody else")

    with connect(WebSocketMiddleware(app)) as client:
        client.send("go")
        assert closed(client)[0] == 1011
    assert len(errors(caplog)) == 1


def test_it_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def app(environ: Any, start_response: Any) -> Any:
        try:
            environ["wsgi.websocket"].receive()
        except gevent.GreenletExit:
            seen.append("interrupted")
            raise

    sock, server = raw_connection(WebSocketMiddleware(app))
    sock.sendall(handshake())
    read_head(sock)
    gevent.idle()
    server.kill(timeout=DEADLINE)
    assert list(frames_of(read_all(sock))) == [(0x8, b"\x03\xf4")]
    assert seen == ["interrupted"] and errors(caplog) == []
    sock.close()


def test_what_the_application_answers_afterwards_is_dropped() -> None:
    dropped: list[str] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"never "
            yield b"seen"

        def close(self) -> None:
            dropped.append("closed")

    def app(environ: Any, start_response: Any) -> Any:
        environ["wsgi.websocket"].send("one")
        start_response("200 OK", [("Content-Type", "text/plain")])(b"written")
        return Body()

    sock, server = raw_connection(WebSocketMiddleware(app))
    sock.sendall(handshake())
    assert b" 101 " in read_head(sock)
    assert sock.recv(9) == b"\x81\x03one\x88\x02\x03\xe8"[:9]
    sock.close()
    server.join(DEADLINE)
    assert dropped == ["closed"]


def test_a_500_of_the_application_closes_with_1011() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        environ["wsgi.websocket"].send("one")
        start_response("500 Internal Server Error", [])
        return [b"oops"]

    with connect(WebSocketMiddleware(app)) as client:
        assert client.receive() == "one"
        assert closed(client)[0] == 1011


def test_an_application_that_returns_nothing() -> None:
    with connect(WebSocketMiddleware(lambda environ, _: environ["wsgi.websocket"].send("one"))) as client:
        assert client.receive() == "one"
        assert closed(client)[0] == 1000


# Until it is used, it is a request like any other.


@pytest.mark.parametrize("status", ["401 Unauthorized", "404 Not Found", "302 Found"])
def test_an_answer(status: str) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        assert not environ["wsgi.websocket"].accepted
        start_response(status, [("Content-Length", "2"), ("Location", "/")])
        return [b"no"]

    with pytest.raises(Refused) as refused:
        connect(WebSocketMiddleware(app))
    assert (refused.value.response.status_code, refused.value.response.data) == (int(status[:3]), b"no")


def refusals() -> list[Any]:
    def swallows(environ: Any, start_response: Any) -> Any:
        try:
            environ["wsgi.websocket"].send("x")
        except Exception:
            return []

    def generates(environ: Any, start_response: Any) -> Any:
        environ["wsgi.websocket"].send("x")
        yield b""

    return [echo, swallows, generates]


@pytest.mark.parametrize("app", refusals(), ids=lambda app: app.__name__)
def test_a_refusal_reaches_the_client(app: Any) -> None:
    with pytest.raises(Refused) as refused:
        connect(WebSocketMiddleware(app), headers={"Origin": "https://elsewhere.example"})
    assert refused.value.response.status_code == 403
    assert "elsewhere.example" in refused.value.response.text


def test_an_application_may_answer_a_refusal_itself() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        try:
            environ["wsgi.websocket"].send("x")
        except HTTPException as refusal:
            start_response("418 I'm a teapot", [("Content-Length", "3")])
            return [str(refusal.code).encode()]

    with pytest.raises(Refused) as refused:
        connect(WebSocketMiddleware(app, origins=[]), headers={"Origin": "http://localhost"})
    assert (refused.value.response.status_code, refused.value.response.data) == (418, b"403")


def test_an_http_error_of_the_application_is_its_own() -> None:
    """Werkzeug's exceptions do not become answers by themselves in WSGI."""

    def app(environ: Any, start_response: Any) -> Any:
        from werkzeug.exceptions import NotFound

        raise NotFound

    with pytest.raises(Refused) as refused:
        connect(WebSocketMiddleware(app))
    assert refused.value.response.status_code == 500


@pytest.mark.parametrize("use", ["closed", "handler", "protocol", "mailbox"])
def test_a_look_is_a_use(use: str) -> None:
    """Such as ``while not ws.closed``: the client is to be connected while the view waits for what it will send."""

    def app(environ: Any, start_response: Any) -> Any:
        getattr(environ["wsgi.websocket"], use)
        assert environ["wsgi.websocket"].accepted
        return []

    with connect(WebSocketMiddleware(app)) as client:
        assert closed(client)[0] == 1000


def test_it_is_too_late_for_a_websocket() -> None:
    seen: list[str] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "4")])
        with pytest.raises(RuntimeError) as error:
            environ["wsgi.websocket"].receive()
        seen.append(str(error.value))
        return [b"late"]

    with pytest.raises(Refused):
        connect(WebSocketMiddleware(app))
    assert seen == ["the application has answered already (200 OK): that is no WebSocket any more"]


def test_a_greenlet_uses_it_first() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        reader = gevent.spawn(environ["wsgi.websocket"].receive)
        environ["wsgi.websocket"].send(f"got {reader.get(timeout=DEADLINE)}")
        return []

    with connect(WebSocketMiddleware(app)) as client:
        client.send("it")
        assert client.receive() == "got it"
        assert closed(client)[0] == 1000


def test_upgrade_behind_the_middleware() -> None:
    class Echo(WebSock[Any]):
        def handle_in(self, message: Any, state: Any) -> Any:
            return "push", message, state

    def app(environ: Any, start_response: Any) -> Any:
        return upgrade(environ, Echo, None)(environ, start_response)

    with connect(WebSocketMiddleware(app)) as client:
        client.send("hi")
        assert client.receive() == "hi"


def test_upgrade_of_what_was_used() -> None:
    seen: list[str] = []

    def app(environ: Any, start_response: Any) -> Any:
        environ["wsgi.websocket"].send("x")
        with pytest.raises(HTTPException) as refused:
            upgrade(environ, WebSock, None)
        seen.append(str(refused.value.description))
        return []

    with connect(WebSocketMiddleware(app)) as client:
        assert client.receive() == "x"
        closed(client)
    assert len(seen) == 1 and "has become a WebSocket already" in seen[0]


def test_unknown_options() -> None:
    with pytest.raises(TypeError, match="unknown option 'time_out'"):
        WebSocketMiddleware(echo, time_out=5)


def test_options_hold() -> None:
    with connect(WebSocketMiddleware(echo, max_message_size=10, max_frame_size=10)) as client:
        client.send("x" * 11)
        assert closed(client)[0] == 1009


# gevent-websocket's classes.


class Chat(WebSocketApplication):
    """Tells all who are there, as its chat example does."""

    def on_open(self, *_: Any) -> None:
        assert self.ws.handler.active_client.ws is self.ws
        self.tell_all("one more")

    def on_message(self, message: Any, *_: Any) -> None:
        if message is not None:
            self.tell_all(message)

    def on_close(self, reason: Any, *_: Any) -> None:
        self.tell_all("one less")

    def tell_all(self, message: str) -> None:
        for client in list(self.ws.handler.server.clients.values()):
            if client.ws is not self.ws:
                client.ws.send(message)


def test_resource_and_clients() -> None:
    def page(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "4")])
        return [b"page"]

    app = WebSocketMiddleware(Resource(OrderedDict([("/chat", Chat), ("/", page)])))
    with connect(app, "/chat") as ann:
        with connect(app, "/chat") as bob:
            assert ann.receive() == "one more"
            bob.send("hello")
            assert ann.receive() == "hello"
        assert ann.receive() == "one less"
        assert len(app.server.clients) == 1
    until(lambda: not app.server.clients)


def test_the_subprotocol_of_a_resource() -> None:
    class Protocol(Chat):
        @classmethod
        def protocol_name(cls) -> str:
            return "old"

        def on_open(self, *_: Any) -> None:
            self.ws.send(str(self.ws.protocol))

    app = WebSocketMiddleware(Resource(OrderedDict([("/", Protocol)])))
    with connect(app, subprotocols=["new", "old"]) as client:
        assert (client.receive(), client.subprotocol) == ("old", "old")


# Flask.


def flask_app() -> Flask:
    app = Flask(__name__)
    app.wsgi_app = WebSocketMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    return app


def test_an_ordinary_route() -> None:
    app = flask_app()

    @app.route("/echo/<name>")
    def view(name: str) -> str:
        ws = request.environ["wsgi.websocket"]
        ws.send(f"{name} {request.args['q']}")
        return ""

    with connect(app, "/echo/ann?q=1") as client:
        assert client.receive() == "ann 1"
    assert app.test_client().get("/nowhere").status_code == 404
    with pytest.raises(Refused) as refused:
        connect(app, "/nowhere")
    assert refused.value.response.status_code == 404


def test_a_view_whose_connection_has_ended_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    app = flask_app()

    @app.route("/")
    def view() -> str:
        while True:
            request.environ["wsgi.websocket"].send(request.environ["wsgi.websocket"].receive())

    with connect(app) as client:
        client.send("hi")
        assert client.receive() == "hi"
    assert errors(caplog) == []


def test_another_connections_end_in_a_view_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    app = flask_app()

    @app.route("/")
    def view() -> str:
        request.environ["wsgi.websocket"].receive()
        raise ConnectionClosed

    with connect(app) as client:
        client.send("go")
        assert closed(client)[0] == 1011
    assert errors(caplog) == ["Exception on / [GET]"]


# flask-sock.


@pytest.fixture
def sock() -> Sock:
    return Sock(Flask(__name__))


def test_sock_echo_and_end(sock: Sock, caplog: pytest.LogCaptureFixture) -> None:
    @sock.route("/echo")
    def view(ws: Any) -> None:
        assert ws.connected and ws.receive(timeout=0) is None
        while True:
            ws.send(ws.receive())

    assert sock.app is not None
    with connect(sock.app, "/echo") as client:
        for message in ("text", b"binary"):
            client.send(message)
            assert client.receive() == message
    assert errors(caplog) == []
    assert sock.app.test_client().get("/echo").status_code == 400  # as there, no ordinary route


def test_sock_closed_tells_how(sock: Sock) -> None:
    seen: list[Any] = []

    @sock.route("/")
    def view(ws: Any) -> None:
        try:
            ws.receive()
        except SockClosed as end:
            seen.append((end.reason, end.message, ws.connected, ws.close_reason, ws.close_message))
            with pytest.raises(SockClosed):
                ws.close()
            raise

    assert sock.app is not None
    for code in (4000, None):
        with connect(sock.app) as client:
            if code:
                client.close(code, "bye")
            else:
                client.socket.sendall(b"\x88\x80abcd")
                assert closed(client)[0] == 1000
    assert seen == [(4000, "bye", False, 4000, "bye"), (1005, None, False, 1005, None)]


def test_sock_sends_whatever_it_is_given_as_text(sock: Sock) -> None:
    @sock.route("/")
    def view(ws: Any) -> None:
        ws.send(5)
        ws.send(bytearray(b"b"))
        ws.close(reason=4001, message="done")

    assert sock.app is not None
    with connect(sock.app) as client:
        assert [client.receive(), client.receive()] == ["5", b"b"]
        assert closed(client) == (4001, "done")


def test_sock_on_a_blueprint_and_before_there_is_an_application() -> None:
    sock, blueprint, app = Sock(), Blueprint("there", __name__), Flask(__name__)

    @sock.route("/ws", bp=blueprint)
    def of_blueprint(ws: Any) -> None:
        ws.send("blueprint")

    @sock.route("/ws")
    def of_app(ws: Any) -> None:
        ws.send("application")

    app.register_blueprint(blueprint, url_prefix="/there")
    sock.init_app(app)
    for path, message in (("/there/ws", "blueprint"), ("/ws", "application")):
        with connect(app, path) as client:
            assert client.receive() == message
    assert isinstance(app.wsgi_app, WebSocketMiddleware) and not isinstance(app.wsgi_app.app, WebSocketMiddleware)


@pytest.mark.parametrize(
    ("configured", "offered", "chosen"),
    [
        ({"subprotocols": "b"}, ["a", "b"], "b"),
        ({"subprotocols": ["c", "b"]}, ["b", "c"], "c"),
        ({"subprotocols": None, "receive_bytes": 4096, "thread_class": None, "max_message_size": None}, ["a"], None),
    ],
)
def test_sock_options(sock: Sock, configured: Any, offered: list[str], chosen: str | None) -> None:
    @sock.route("/")
    def view(ws: Any) -> None:
        ws.send(str(ws.subprotocol))

    assert sock.app is not None
    sock.app.config["SOCK_SERVER_OPTIONS"] = configured
    with connect(sock.app, subprotocols=offered) as client:
        assert (client.receive(), client.subprotocol) == (str(chosen), chosen)


def test_sock_view_is_refused(sock: Sock) -> None:
    @sock.route("/")
    def view(ws: Any) -> None:
        raise AssertionError("never called")

    assert sock.app is not None
    with pytest.raises(Refused) as refused:
        connect(sock.app, headers={"Origin": "https://elsewhere.example"})
    assert refused.value.response.status_code == 403


# Flask-Sockets.


def test_sockets() -> None:
    sockets, app, blueprint = Sockets(), Flask(__name__), Blueprint("there", __name__)

    @sockets.route("/echo")
    def view(ws: LegacyWebSocket) -> None:
        while not ws.closed:
            ws.send(ws.receive())

    @app.route("/echo", endpoint="view")
    def page() -> str:
        return "a page"

    @blueprint.route("/<int:number>")
    def numbered(ws: LegacyWebSocket, number: int) -> None:
        ws.send(f"{number} {request.path}")

    sockets.init_app(app)
    sockets.register_blueprint(blueprint, url_prefix="/there")
    with connect(app, "/echo") as client:
        client.send("hi")
        assert client.receive() == "hi"
    with connect(app, "/there/7") as client:
        assert client.receive() == "7 /there/7"
    assert app.test_client().get("/echo").text == "a page"
    with pytest.raises(ValueError, match="another blueprint of the name 'there'"):
        sockets.register_blueprint(Blueprint("there", __name__))


@pytest.mark.parametrize("early", [True, False])
def test_what_a_blueprint_has_for_requests_works(early: bool) -> None:
    """Flask-Sockets could not register such a one. Who moves expects that a guard guards."""
    app, sockets = Flask(__name__), Sockets()
    blueprint, inner = Blueprint("ws", __name__), Blueprint("inner", __name__)
    seen: list[str] = []

    @blueprint.before_request
    def guard() -> None:
        if "token" not in request.args:
            abort(401, "log in first")

    @blueprint.errorhandler(401)
    def explain(error: HTTPException) -> tuple[str, int]:
        return f"refused: {error.description}", 401

    @blueprint.before_app_request
    def note() -> None:
        seen.append(request.path)

    @blueprint.url_value_preprocessor
    def shout(endpoint: str | None, values: Any) -> None:
        values.update({name: value.upper() for name, value in values.items()})

    @blueprint.route("/one/<name>")
    @blueprint.route("/two/<name>")
    def named(ws: LegacyWebSocket, name: str) -> None:
        ws.send(name)

    @inner.route("/three")
    def third(ws: LegacyWebSocket) -> None:
        ws.send("three")

    @app.get("/page")
    def page() -> str:
        return "a page"

    blueprint.register_blueprint(inner, url_prefix="/inner")
    if not early:
        sockets.init_app(app)
    sockets.register_blueprint(blueprint, url_prefix="/ws")
    sockets.register_blueprint(blueprint, url_prefix="/again")
    if early:
        sockets.init_app(app)
    app.register_blueprint(Blueprint("ws", __name__))  # of pages
    paths = {"/ws/one/a": "A", "/ws/two/b": "B", "/again/two/c": "C", "/ws/inner/three": "three"}
    for path, message in paths.items():
        with connect(app, f"{path}?token=x") as client:
            assert client.receive() == message
        with pytest.raises(Refused) as refused:
            connect(app, path)
        response = refused.value.response
        assert (response.status_code, response.text) == (401, "refused: log in first")
    assert app.test_client().get("/page").text == "a page"
    assert seen == [path for path in paths for _ in range(2)] + ["/page"]


def test_files_of_a_blueprint_of_websockets_are_pages(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("of the blueprint")
    app = Flask(__name__)
    blueprint = Blueprint("ws", __name__, static_folder=str(tmp_path), static_url_path="/files")
    Sockets(app).register_blueprint(blueprint, url_prefix="/ws")
    with app.test_client().get("/ws/files/file.txt") as response:
        assert response.text == "of the blueprint"


def test_sockets_in_the_background() -> None:
    """Views that only wait, while a greenlet sends to all: as Flask-Sockets' chat example has it."""
    app = Flask(__name__)
    sockets = Sockets(app)
    there: list[Any] = []

    @sockets.route("/receive")
    def receive(ws: LegacyWebSocket) -> None:
        there.append(ws)
        while not ws.closed:
            gevent.sleep(0.01)
        there.remove(ws)

    with connect(app, "/receive") as ann, connect(app, "/receive") as bob:
        until(lambda: len(there) == 2)
        for ws in there:
            ws.send("to all")
        assert [ann.receive(), bob.receive()] == ["to all", "to all"]
        bob.close()
        until(lambda: len(there) == 1)
    until(lambda: not there)


def test_text_behind_the_handshake_of_a_lazy_view() -> None:
    sock, server = raw_connection(WebSocketMiddleware(echo))
    sock.sendall(handshake() + text("early"))
    read_head(sock)
    assert sock.recv(7) == b"\x81\x05early"
    sock.close()
    server.join(DEADLINE)
