"""`websock_gevent.testing`, used as an application's own tests would use it."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, Response, request
from support import DEADLINE, Diary, application

from websock_gevent import ConnectionClosed, WebSock, upgrade
from websock_gevent.flask import websocket
from websock_gevent.testing import Refused, connect


class Commands(WebSock[Any]):
    """Does what it is told."""

    def handle_in(self, message: Any, state: Any) -> Any:
        match message:
            case "close":
                return "stop", "normal", (4001, "as told"), state
            case "raise":
                raise RuntimeError("as told")
            case "silence":
                return "ok", state
            case "cookie":
                return "push", state, state
        return "push", message, state


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)

    @websocket(app, "/ws")
    def ws() -> Response:
        if "deny" in request.args:
            return Response("not you", 403, {"X-Why": "because"})
        response = upgrade(request.environ, Commands, request.headers.get("Cookie"), subprotocols=["b", "a"])
        response.headers.add("X-Multi", "1")
        response.headers.add("X-Multi", "2")
        return response

    @app.route("/fails")
    def fails() -> str:
        raise AssertionError("not reached: a plain route")

    return app


def test_a_conversation(app: Flask) -> None:
    with connect(app, "/ws", subprotocols=["a", "c"]) as client:
        client.send("text")
        client.send(b"bytes")
        assert [client.receive(), client.receive()] == ["text", b"bytes"]
        client.ping()
        client.ping(b"payload")
        assert client.subprotocol == "a"
        assert client.headers["sec-websocket-protocol"] == "a"
        assert client.headers.get_all("X-Multi") == ["1", "2"]
        assert client.close_code is None and client.close_text == ""
    assert client.close_code == 1000


def test_headers_of_the_request(app: Flask) -> None:
    with connect(
        app, "/ws", headers={"Cookie": "a=1", "Host": "example.com", "Origin": "http://example.com"}
    ) as client:
        client.send("cookie")
        assert client.receive() == "a=1"
    with connect(app, "/ws", headers=[("Cookie", "a=1; b=2")]) as client:
        client.send("cookie")
        assert client.receive() == "a=1; b=2"


def test_the_application_closes(app: Flask) -> None:
    client = connect(app, "/ws")
    client.send("close")
    with pytest.raises(ConnectionClosed) as closed:
        client.receive()
    assert (closed.value.code, closed.value.text) == (4001, "as told")
    assert (client.close_code, client.close_text) == (4001, "as told")
    with pytest.raises(ConnectionClosed):
        client.send("anybody?")
    client.close()


def test_the_client_closes() -> None:
    handler = Diary()
    with connect(application(handler)) as client:
        client.close(4002, "had enough")
        assert handler.reasons == ["remote"], "when close returns, the handler has ended"
        client.close()


def test_messages_before_a_close_are_still_received(app: Flask) -> None:
    client = connect(app, "/ws")
    for message in ("one", "two", "close"):
        client.send(message)
    assert [client.receive(), client.receive()] == ["one", "two"]
    with pytest.raises(ConnectionClosed):
        client.receive()
    client.close()


def test_a_handler_that_raises(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    client = connect(app, "/ws")
    client.send("raise")
    with pytest.raises(ConnectionClosed) as closed:
        client.receive()
    assert closed.value.code == 1011 and "as told" in caplog.text
    client.close()


def test_no_answer(app: Flask) -> None:
    with connect(app, "/ws") as client:
        client.send("silence")
        with pytest.raises(TimeoutError, match=r"0\.01 seconds"):
            client.receive(timeout=0.01)
        assert client.socket.gettimeout() == 5.0, "the short wait was for that call alone"
        client.send("back")
        assert client.receive() == "back"


def test_an_application_that_does_not_read() -> None:
    client = connect(application(Diary(), send_timeout=DEADLINE), timeout=0.1)
    with pytest.raises(TimeoutError, match="has not read"):
        for _ in range(100):
            client.send(b"x" * 1_000_000)
    client.abort()


def test_a_refused_upgrade(app: Flask) -> None:
    with pytest.raises(Refused, match="not you") as refused:
        connect(app, "/ws?deny=1")
    response = refused.value.response
    assert (response.status_code, response.headers["X-Why"], response.text) == (403, "because", "not you")


def test_a_plain_answer_is_a_refusal_too() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"plain ", b"page"]

    with pytest.raises(Refused) as refused:
        connect(app)
    assert refused.value.response.text == "plain page"


def test_abort_leaves_without_a_close_frame() -> None:
    handler = Diary()
    client = connect(application(handler))
    client.abort()
    assert handler.reasons == [("error", "closed")]


def test_a_failing_test_does_not_hang_on_its_client() -> None:
    class Stubborn(Diary):
        pass

    handler = Stubborn()
    with pytest.raises(ZeroDivisionError), connect(application(handler)):
        1 / 0  # noqa: B018
    assert handler.reasons == [("error", "closed")]


def test_a_handler_that_goes_on_is_reported() -> None:
    import gevent

    class Endless(Diary):
        def terminate(self, reason: Any, state: Any) -> None:
            assert release.wait(DEADLINE)
            super().terminate(reason, state)

    release = gevent.event.Event()
    handler = Endless()
    client = connect(application(handler), timeout=0.05)
    with pytest.raises(TimeoutError):
        client.close()
    release.set()
    client.abort()
    assert handler.wait() == "remote"


def test_several_clients_at_once(app: Flask) -> None:
    clients = [connect(app, "/ws") for _ in range(20)]
    for number, client in enumerate(clients):
        client.send(str(number))
    assert [client.receive() for client in clients] == [str(number) for number in range(20)]
    for client in clients:
        client.close()
