"""Other frameworks: the programs of ``docs/migration/other-frameworks.rst`` under gunicorn, and what its text says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from blocks import block, write
from raw import Raw
from serving import DEADLINE, Server, gunicorn, installed_beside
from support import Diary
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from websock_gevent.frameworks import Upgrades, accept
from websock_gevent.legacy import blocking
from websock_gevent.testing import Refused
from websock_gevent.testing import connect as open_in_process

PROGRAMS = {
    "django": "migration-django",
    "falcon": "migration-falcon",
    "bottle": "migration-bottle",
    "pyramid": "migration-pyramid",
    "wsgi": "migration-wsgi",
}
#: What frameworks do when a request is over; told by the handler when it begins.
HOOKS = {
    "django": """
from django.core.signals import request_finished
request_finished.connect(lambda **_: events.append("over"), weak=False)
""",
    "falcon": """
class Over:
    def process_response(self, req, resp, resource, succeeded):
        events.append("over")
app.add_middleware(Over())
""",
    "bottle": """
app.add_hook("after_request", lambda: events.append("over"))
""",
    "pyramid": """
def over(event):
    event.request.add_finished_callback(lambda request: events.append("over"))
from pyramid.events import NewRequest
config.add_subscriber(over, NewRequest)
config.commit()
""",
    "wsgi": "",
}
TELLS = """
events = []
def init(self, state):
    return "push", [f"hello {state['user']}", *events], state
Echo.init = init
"""


@pytest.fixture(scope="module", params=PROGRAMS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Each framework's program in turn."""
    folder, name = tmp_path_factory.mktemp("programs"), request.param
    write(folder, "migration-handlers")
    (folder / f"with_{name}.py").write_text(block(PROGRAMS[name]).text + TELLS + HOOKS[name])
    # Sentry imports Django where that is installed, and gevent then cannot patch any more behind gunicorn's --preload.
    more = [str(installed_beside("Django==4.2.16"))] if name == "django" else []
    with gunicorn(f"with_{name}:application", "--pythonpath", ",".join([str(folder), *more])) as running:
        yield running


@pytest.fixture
def framework(request: pytest.FixtureRequest) -> str:
    """Which one it is."""
    return str(request.node.callspec.params["server"])


def open_client(server: Server, path: str = "/chat", **more: Any) -> ClientConnection:
    return connect(server.url(path, "ws"), additional_headers={"Cookie": "user=ann"}, proxy=None, **more)


def test_messages_come_back_and_the_request_is_over_before(server: Server, framework: str) -> None:
    since = server.position()
    with open_client(server) as client:
        assert client.recv(DEADLINE) == "hello ann"
        if HOOKS[framework]:
            assert client.recv(DEADLINE) == "over"
        for message in ("grüße", b"\x00\xff", "x" * 100_000):
            client.send(message)
            while (received := client.recv(DEADLINE)) == "over":
                pass
            assert received == message
    server.wait_for_log('"GET /chat HTTP/1.1" 101', since=since)
    assert "Traceback" not in server.log(since)


def test_headers_and_cookies_of_the_view_are_in_the_101(server: Server) -> None:
    with Raw(server) as client:
        answer = client.upgrade("/chat", Cookie="user=ann")
        assert [cookie for cookie in answer.values("Set-Cookie") if cookie.startswith("seen=yes")]
        assert not answer.values("Content-Length") + answer.values("Content-Type")


def test_a_view_refuses_by_its_own_means(server: Server) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(server.url("/chat", "ws"), proxy=None)
    assert refused.value.response.status_code == 403


def test_our_refusals_reach_the_client_with_their_text(server: Server) -> None:
    with Raw(server) as client:
        client.send(client.request("/chat", Cookie="user=ann", Origin="http://elsewhere.example"))
        answer = client.answer()
        assert answer.status == 403 and b"is not allowed" in answer.body
    with Raw(server) as client:
        client.send(client.request("/chat", Cookie="user=ann", Sec_WebSocket_Version="12"))
        answer = client.answer()
        assert (answer.status, answer.values("Sec-WebSocket-Version")) == (426, ["13"])
        assert b"must be 13" in answer.body


def test_other_answers_are_left_as_they_are(server: Server, framework: str) -> None:
    answer = server.get("/elsewhere")
    assert answer.status == (403 if framework == "wsgi" else 404) and answer.body


# The middleware by itself, around applications that do what frameworks may.


def test_accept_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match="Upgrades around"):
        accept({}, Diary, None)


def test_an_unknown_option_is_an_error_of_the_view() -> None:
    raised: list[str] = []

    def view(environ: Any, start_response: Any) -> Any:
        with pytest.raises(TypeError) as error:
            accept(environ, Diary, None, tiemout=1)
        raised.append(str(error.value))
        start_response("204 No Content", [])
        return []

    with pytest.raises(Refused) as refused:
        open_in_process(Upgrades(view), timeout=DEADLINE)
    assert refused.value.response.status_code == 204 and "tiemout" in raised[0]


class Body:
    """A body that writes down when it is closed."""

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls

    def __iter__(self) -> Any:
        yield b"never "
        yield b"sent"

    def close(self) -> None:
        self.calls.append("closed")


def test_the_body_is_closed_before_the_handler_begins() -> None:
    diary = Diary()

    def view(environ: Any, start_response: Any) -> Any:
        accept({**environ}, diary, "state")  # a middleware may have copied the environ
        more = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Connection", "close"), ("sec-websocket-accept", "mine")]
        start_response("200 OK", [("Content-Type", "text/plain"), ("X-View", "one"), ("ETag", "a"), *more])
        return Body(diary.calls)

    with open_in_process(Upgrades(view), timeout=DEADLINE) as client:
        assert client.headers["X-View"] == "one" and "ETag" not in client.headers
        assert client.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
        assert client.headers["Connection"] == "Upgrade" and client.headers["Sec-WebSocket-Accept"] != "mine"
        client.send("hello")
        assert client.receive() == "hello"
    assert diary.wait() == "remote"
    assert diary.calls[:2] == ["closed", ("init", "state")]


def test_an_error_behind_the_view_is_the_answer() -> None:
    calls: list[Any] = []

    def view(environ: Any, start_response: Any) -> Any:
        accept(environ, Diary, None)
        start_response("500 Internal Server Error", [("Content-Length", "10")])
        return Body(calls)

    with pytest.raises(Refused) as refused:
        open_in_process(Upgrades(view), timeout=DEADLINE)
    assert refused.value.response.status_code == 500 and refused.value.response.data == b"never sent"
    assert calls == ["closed"]


class Late:
    """An application that does nothing before it is asked for its first piece."""

    closed: list[str] = []

    def __init__(self, environ: Any, start_response: Any) -> None:
        self.environ, self.start_response = environ, start_response

    def __iter__(self) -> Any:
        if self.environ["PATH_INFO"] == "/chat":
            accept(self.environ, blocking(lambda ws: ws.send(ws.receive())), None)
        self.start_response("200 OK", [])
        yield b"one "
        yield b"two"

    def close(self) -> None:
        self.closed.append(self.environ["PATH_INFO"])


def test_an_application_that_begins_late() -> None:
    with open_in_process(Upgrades(Late), "/chat", timeout=DEADLINE) as client:
        client.send("hello")
        assert client.receive() == "hello"
        assert Late.closed == ["/chat"]
    with pytest.raises(Refused) as refused:
        open_in_process(Upgrades(Late), timeout=DEADLINE)
    assert refused.value.response.data == b"one two" and Late.closed == ["/chat", "/"]
