"""The stand-ins for older libraries where applications do what one would not expect, and behind other middlewares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from flask import Flask, request
from gevent import socket
from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler
from support import DEADLINE, frames_of, handshake, masked, raw_connection, read_all, read_head, text, until
from test_legacy import closed, errors, flask_app
from websockets.frames import Opcode
from werkzeug.middleware.proxy_fix import ProxyFix

from websock_gevent.legacy import Sock, Sockets, WebSocketMiddleware
from websock_gevent.testing import connect


def stale(function: Any) -> Any:
    """Serve with this application a client that has gone by the time it is answered, with a message not yet taken."""
    sock, server = raw_connection(function)
    sock.sendall(handshake() + text("one") + text("two"))
    read_head(sock)
    sock.close()
    server.join(DEADLINE)
    assert server.ready()


def answers_behind_the_end(ws: Any) -> None:
    """Take the first of two messages, and answer it when the peer has gone."""
    ws.receive()
    until(lambda: ws._connection.ended)
    ws.send("too late")
    ws.send("too late")


# gevent-websocket's manners.


def test_iteration_yields_no_none() -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        seen.extend(environ["wsgi.websocket"])

    with connect(WebSocketMiddleware(app)) as client:
        client.send("one")
    assert seen == ["one"]


class Again:
    """An iterator that goes on when it has raised."""

    def __init__(self, ws: Any) -> None:
        self.ws = ws

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> bytes:
        self.ws.send("x")
        gevent.sleep(0)
        return b"dropped"


@pytest.mark.parametrize("used", ["before", "meanwhile"])
def test_an_iterator_is_not_asked_again_when_it_has_raised(
    used: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        if used == "before":
            environ["wsgi.websocket"].send("x")
        return Again(environ["wsgi.websocket"])

    sock, server = raw_connection(WebSocketMiddleware(app))
    sock.sendall(handshake())
    read_head(sock)
    sock.close()
    server.join(DEADLINE)
    assert server.ready() and errors(caplog) == [] and "Traceback" not in capfd.readouterr().err


# Flask.


def test_a_view_that_answers_behind_the_end(caplog: pytest.LogCaptureFixture) -> None:
    app = flask_app()

    @app.route("/")
    def view() -> str:
        answers_behind_the_end(request.environ["wsgi.websocket"])
        return ""

    stale(app)
    assert errors(caplog) == []


@pytest.mark.parametrize("library", [Sock, Sockets])
def test_a_function_behind_another_middleware_that_answers_behind_the_end(
    library: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = Flask(__name__)
    app.wsgi_app = ProxyFix(app.wsgi_app)  # type: ignore[method-assign]
    library(app).route("/")(answers_behind_the_end)
    stale(app)
    assert errors(caplog) == []


@pytest.mark.parametrize("library", [Sock, Sockets])
def test_a_function_that_closes_and_goes_on(library: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = Flask(__name__)

    @library(app).route("/")
    def view(ws: Any) -> None:
        ws.close(4000)
        ws.receive()

    with connect(app) as client:
        assert closed(client)[0] == 4000
    assert errors(caplog) == []


def test_an_ordinary_route_of_a_subdomain() -> None:
    app = Flask(__name__, subdomain_matching=True)
    app.config["SERVER_NAME"] = "example.org"
    app.wsgi_app = WebSocketMiddleware(app.wsgi_app)  # type: ignore[method-assign]

    @app.route("/", subdomain="chat")
    def view() -> str:
        request.environ["wsgi.websocket"].send("here")
        return ""

    sock, server = raw_connection(app)
    sock.sendall(handshake(Host="chat.example.org"))
    assert b" 101 " in read_head(sock)
    assert sock.recv(6) == b"\x81\x04here"
    sock.close()
    server.join(DEADLINE)


def test_a_silent_peer_is_given_up_after_two_intervals_of_sock() -> None:
    """As by simple-websocket."""
    app = Flask(__name__)
    app.config["SOCK_SERVER_OPTIONS"] = {"ping_interval": 0.1}
    Sock(app).route("/")(lambda ws: ws.receive())
    sock, server = raw_connection(app)
    sock.sendall(handshake())
    read_head(sock)
    with gevent.Timeout(DEADLINE):
        frames = list(frames_of(read_all(sock)))
    assert frames[-1] == (Opcode.CLOSE, b"\x03\xea")
    sock.close()
    server.join(DEADLINE)


# gevent-websocket's own server.


@pytest.fixture
def port() -> Iterator[Any]:
    """Serves an application behind gevent-websocket's handler; gives the port."""
    servers: list[Any] = []

    def serve(app: Any) -> int:
        server = WSGIServer(("127.0.0.1", 0), app, handler_class=WebSocketHandler, log=None)
        server.start()
        servers.append(server)
        return int(server.address[1])

    yield serve
    for server in servers:
        server.stop(timeout=1)


@pytest.mark.parametrize("library", [Sock, Sockets])
def test_functions_under_gevent_websocket(library: Any, port: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Which has sent the 101 before the application is called."""
    app = Flask(__name__)

    @library(app).route("/")
    def view(ws: Any) -> None:
        for message in ws:
            ws.send(message)

    sock = socket.create_connection(("127.0.0.1", port(app)), DEADLINE)
    sock.sendall(handshake())
    read_head(sock)
    sock.sendall(text("hi") + masked(Opcode.CLOSE, b"\x0f\xa1"))
    assert read_all(sock) == b"\x81\x02hi\x88\x02\x0f\xa1"
    sock.close()
    assert errors(caplog) == []


def test_no_traceback_where_a_greenlet_uses_it_first(capfd: pytest.CaptureFixture[str]) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        gevent.spawn(environ["wsgi.websocket"].send, "first").get(timeout=DEADLINE)

    sock, server = raw_connection(WebSocketMiddleware(app))
    sock.sendall(handshake() + masked(Opcode.CLOSE, b"\x03\xe8"))
    read_head(sock)
    assert read_all(sock).startswith(b"\x81\x05first")
    sock.close()
    server.join(DEADLINE)
    assert "Traceback" not in capfd.readouterr().err


def test_an_answer_that_goes_on_with_the_websocket() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        environ["wsgi.websocket"].send("one")
        return (environ["wsgi.websocket"].send(message) for message in ("two", "three"))

    with connect(WebSocketMiddleware(app)) as client:
        assert [client.receive() for _ in range(3)] == ["one", "two", "three"]
        assert closed(client)[0] == 1000
