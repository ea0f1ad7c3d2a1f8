"""The Flask helper: one decorator, and errors that say what to do when requests and rules do not match."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Blueprint, Flask, Response, jsonify, request, url_for
from support import handshake
from werkzeug.exceptions import HTTPException

from websock_gevent import WebSock, upgrade
from websock_gevent.flask import install, websocket
from websock_gevent.testing import Refused, connect

UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket"}


class Echo(WebSock[Any]):
    def handle_in(self, message: Any, state: Any) -> Any:
        return "push", message, state


@pytest.fixture
def app() -> Flask:
    app = Flask(__name__)

    @websocket(app, "/chat/<room>")
    def chat(room: str) -> Response:
        return upgrade(request.environ, Echo, room)

    @app.route("/page")
    def page() -> str:
        return "a page"

    return app


def test_a_websocket_route(app: Flask) -> None:
    with connect(app, "/chat/7") as client:
        client.send("hello")
        assert client.receive() == "hello"


def test_plain_http_on_a_websocket_route(app: Flask) -> None:
    response = app.test_client().get("/chat/7")
    assert response.status_code == 426
    assert response.headers["Upgrade"] == "websocket"
    assert "WebSocket client" in response.text


def test_a_websocket_request_on_a_plain_route_is_told_what_to_do(app: Flask) -> None:
    with pytest.raises(Refused, match="/page is not a WebSocket route") as refused:
        connect(app, "/page")
    assert refused.value.response.status_code == 400
    assert "websocket=True" in refused.value.response.text


def test_other_answers_are_left_alone(app: Flask) -> None:
    client = app.test_client()
    assert client.get("/page").text == "a page"
    assert client.get("/nowhere").status_code == 404
    assert client.post("/page").status_code == 405


def test_a_page_may_live_at_the_same_address(app: Flask) -> None:
    @app.route("/both")
    def both_page() -> str:
        return "the page"

    @websocket(app, "/both")
    def both_socket() -> Response:
        return upgrade(request.environ, Echo, None)

    assert app.test_client().get("/both").text == "the page"
    with connect(app, "/both") as client:
        client.send("the socket")
        assert client.receive() == "the socket"


def test_a_blueprint() -> None:
    app, blueprint = Flask(__name__), Blueprint("live", __name__, url_prefix="/live")

    @websocket(blueprint, "/ws", endpoint="socket")
    def view() -> Response:
        return upgrade(request.environ, Echo, None)

    app.register_blueprint(blueprint)
    with connect(app, "/live/ws") as client:
        client.send("x")
        assert client.receive() == "x"
    assert app.test_client().get("/live/ws").status_code == 426
    with app.test_request_context():
        assert url_for("live.socket", _external=True) == "ws://localhost/live/ws"


def test_install_serves_routes_made_by_hand() -> None:
    app = Flask(__name__)
    install(app)
    install(app)

    @app.route("/ws", websocket=True)
    def view() -> Response:
        return upgrade(request.environ, Echo, None)

    assert app.test_client().get("/ws").status_code == 426


def test_the_applications_own_error_pages_are_used(app: Flask) -> None:
    @app.errorhandler(HTTPException)
    def as_json(error: HTTPException) -> Any:
        return jsonify(code=error.code, text=error.description), error.code

    response = app.test_client().get("/chat/7")
    assert response.status_code == 426 and response.json and response.json["code"] == 426
    with pytest.raises(Refused) as refused:
        connect(app, "/page")
    assert refused.value.response.json["code"] == 400


def test_an_applications_own_handler_for_the_mismatch_stays() -> None:
    from werkzeug.routing.exceptions import WebsocketMismatch

    app = Flask(__name__)

    @app.errorhandler(WebsocketMismatch)
    def mine(error: WebsocketMismatch) -> Any:
        return "mine", 418

    @websocket(app, "/ws")
    def view() -> Response:
        return upgrade(request.environ, Echo, None)

    assert app.test_client().get("/ws").status_code == 418


def test_refusals_are_http_errors_of_the_view(app: Flask) -> None:
    @app.errorhandler(403)
    def forbidden(error: HTTPException) -> Any:
        return "go away", 403

    with pytest.raises(Refused, match="go away"):
        connect(app, "/chat/7", headers={"Origin": "https://evil.example"})


def test_the_request_is_a_handshake_to_werkzeug_too(app: Flask) -> None:
    """Our raw handshake is what the other tests believe it to be."""
    assert b"Upgrade: websocket" in handshake()
    assert app.test_client().get("/chat/7", base_url="ws://localhost", headers=UPGRADE).status_code == 400
