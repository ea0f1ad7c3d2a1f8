"""Other people's programs on our connections: READMEs and tests from their archives, and programs written their way.

Under gunicorn, pywsgi and ``flask run``, with the client of ``websockets``, Node's ``ws`` and Chromium.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import gevent
import pytest
from browsing import Page, chromium
from others import FLASK_SOCK, FLASK_SOCKETS, GEVENT_WEBSOCKET, changed, code_blocks, sdist
from raw import Raw, close_frame, unmasked
from serving import DEADLINE, Program, Server, flask_run, gunicorn, pywsgi
from support import handshake, raw_connection, read_all, read_head
from test_clients import by_node
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Opcode
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from websock_gevent.legacy import WebSocketMiddleware
from websock_gevent.testing import Refused
from websock_gevent.testing import connect as open_in_process

Start = Callable[[str], AbstractContextManager[Server]]
STARTS: dict[str, Start] = {
    "gunicorn gevent": lambda app: gunicorn(app),
    "gevent.pywsgi": lambda app: pywsgi(app),
    "flask run": lambda app: flask_run(app),
    "flask run, patched": lambda app: flask_run("patched:app", env={"APP": app}),
}
WSGI, PATCHED = list(STARTS)[:2], [name for name in STARTS if name != "flask run"]
#: What becomes of gevent-websocket's README: Python 3, our middleware, and a server that is not at the module's end.
ECHO = {
    'print "Connection opened"': 'print("Connection opened", flush=True)',
    "print reason": 'print("reason", reason, flush=True)',
    "from geventwebsocket import": "from websock_gevent.legacy import WebSocketMiddleware\nfrom geventwebsocket import",
    "WebSocketServer(\n    ('', 8000),\n    Resource({'/': EchoApplication})\n).serve_forever()": (
        "app = WebSocketMiddleware(Resource({'/': EchoApplication}))"
    ),
}
LOW_LEVEL = {
    "from geventwebsocket.handler import WebSocketHandler": "from websock_gevent.legacy import WebSocketMiddleware",
    'server = pywsgi.WSGIServer(("", 8000), websocket_app,\n    handler_class=WebSocketHandler)\n': "",
    "server.serve_forever()": "app = WebSocketMiddleware(websocket_app)",
}
SOCKETS = {"from flask_sockets import Sockets": "from websock_gevent.legacy import Sockets"}


@pytest.fixture(scope="module", autouse=True)
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The READMEs' programs as modules, which servers find."""
    folder = tmp_path_factory.mktemp("programs")
    echo, low_level = code_blocks(sdist(GEVENT_WEBSOCKET) / "README.rst", "::")[:2]
    routes, blueprints = code_blocks(sdist(FLASK_SOCKETS) / "README.rst", ".. code-block:: python")
    for name, program, changes in (
        ("readme_echo", echo, ECHO),
        ("readme_low_level", low_level, LOW_LEVEL),
        ("readme_routes", routes, SOCKETS),
        ("readme_blueprints", blueprints, SOCKETS),
    ):
        (folder / f"{name}.py").write_text(changed(program, changes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        yield folder


def open_client(server: Server, path: str = "/", *subprotocols: str, **more: Any) -> ClientConnection:
    """A client of ``websockets``."""
    offered = [Subprotocol(name) for name in subprotocols] or None
    return connect(server.url(path, "ws"), subprotocols=offered, proxy=None, close_timeout=DEADLINE, **more)


def closed(client: ClientConnection) -> tuple[int, str]:
    """The code and text of the server's close frame, whatever comes before it."""
    with pytest.raises(ConnectionClosed) as end:
        while True:
            client.recv(DEADLINE)
    assert end.value.rcvd is not None
    return end.value.rcvd.code, end.value.rcvd.reason


def refusal(server: Server, path: str) -> tuple[int, str]:
    """The answer that is no WebSocket."""
    with pytest.raises(InvalidStatus) as refused:
        open_client(server, path)
    return refused.value.response.status_code, (refused.value.response.body or b"").decode()


def ended(server: Server, count: int) -> list[Any]:
    """What the application's ends have written down, once there are so many."""
    deadline = time.monotonic() + DEADLINE
    while len(entries := json.loads(server.get("/ended").body)) < count:
        assert time.monotonic() < deadline, entries
    return entries  # type: ignore[no-any-return]


def echoes(server: Server, path: str) -> None:
    """Text, binary and what one of each client wants, and the end."""
    with open_client(server, path) as client:
        for message in ("grüße", b"\x00\xff", "x" * 100_000, b"y" * 200_000, ""):
            client.send(message)
            assert client.recv(DEADLINE) == message
    assert "Traceback" not in server.log()


# gevent-websocket


@pytest.mark.parametrize("start", WSGI)
def test_the_readmes_application_echoes(start: str) -> None:
    with STARTS[start]("readme_echo:app") as server:
        echoes(server, "/")
        server.wait_for_log("^Connection opened$")
        with open_client(server, "/") as client:
            client.send("hello")
            assert client.recv(DEADLINE) == "hello"
        assert by_node("ws")("client closes", server.url("/", "ws")) == {"code": 4001, "text": "", "clean": True}


@pytest.mark.parametrize("start", WSGI)
def test_the_readmes_function_echoes_once(start: str) -> None:
    with STARTS[start]("readme_low_level:app") as server:
        with open_client(server, "/echo") as client:
            client.send("once")
            assert client.recv(DEADLINE) == "once"
            assert closed(client) == (1000, "")
        with open_client(server, "/elsewhere") as client:  # the function does nothing
            assert closed(client) == (1000, "")


@pytest.mark.parametrize("start", PATCHED)  # written for greenlets, it does not guard itself against threads
def test_a_chat_knows_who_is_there_and_who_left(start: str) -> None:
    app = "old_resource:run" if start.startswith("flask run") else "old_resource:app"
    with STARTS[start](app) as server:
        assert server.get("/").body == b"a page"
        with open_client(server, "/chat") as ann, open_client(server, "/chat") as bob:
            heard(ann, "came")
            ann.send(json.dumps({"type": "name", "name": "ann"}))
            assert heard(bob, "named") == {"what": "named", "who": "ann", "all": ["ann", "somebody"]}
            bob.send(json.dumps({"type": "name", "name": "bob"}))
            bob.send(json.dumps({"type": "words", "words": "hi"}))
            said = {"what": "said", "who": "bob", "words": "hi", "all": ["ann", "bob"]}
            assert heard(ann, "said") == said == heard(bob, "said")
            bob.close(4002)
            assert heard(ann, "left")["who"] == "bob"
        assert ended(server, 2) == [["bob", None, 4002], ["ann", None, 1000]]
        assert "Traceback" not in server.log()


def heard(client: ClientConnection, what: str) -> Any:
    """The next thing of a kind."""
    while True:
        told = json.loads(client.recv(DEADLINE))
        if told["what"] == what:
            return told


@pytest.mark.parametrize("start", PATCHED)
def test_who_never_receives_is_told_of_the_end(start: str) -> None:
    app = "old_resource:run" if start.startswith("flask run") else "old_resource:app"
    with STARTS[start](app) as server:
        with open_client(server, "/plot") as client:
            assert [client.recv(DEADLINE) for _ in range(3)] == ["0 0\n", "0 1\n", "0 2\n"]
        assert ended(server, 1) == [["plot", True]]
        assert "Traceback" not in server.log()


def test_wamp_calls_and_topics() -> None:
    with gunicorn("old_resource:app") as server:
        with open_client(server, "/wamp", "other", "wamp") as ann, open_client(server, "/wamp", "wamp") as bob:
            assert ann.subprotocol == "wamp"
            for client in (ann, bob):
                assert json.loads(client.recv(DEADLINE))[0] == 0
            ann.send(json.dumps([1, "calc", "http://localhost/calc#"]))
            ann.send(json.dumps([2, "call-1", "calc:add", 2, 3]))
            assert json.loads(ann.recv(DEADLINE)) == [3, "call-1", 5]
            ann.send(json.dumps([5, "http://localhost/news"]))
            ann.send(json.dumps([2, "call-2", "calc:add", 1, 1]))
            assert json.loads(ann.recv(DEADLINE)) == [3, "call-2", 2]  # so the subscription is there
            bob.send(json.dumps([7, "http://localhost/news", "read all about it"]))
            assert json.loads(ann.recv(DEADLINE)) == [8, "http://localhost/news", "read all about it"]


def test_wamp_itself_is_written_for_python_2() -> None:
    code = "from geventwebsocket.protocols.wamp import WampProtocol; WampProtocol(None)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE)
    assert "module 'string' has no attribute 'letters'" in run.stderr


@pytest.mark.parametrize("version", ["7", "8"])
def test_the_drafts_before_the_standard_are_refused(version: str) -> None:
    with gunicorn("readme_low_level:app") as server, Raw(server) as client:
        client.send(client.request("/echo", Sec_WebSocket_Version=version))
        answer = client.answer()
        assert (answer.status, answer.values("Sec-WebSocket-Version")) == (426, ["13"])


def test_what_only_asks_whether_it_is_closed_is_accepted() -> None:
    def wait(environ: Any, start_response: Any) -> None:
        while not environ["wsgi.websocket"].closed:
            gevent.sleep(0.001)

    with open_in_process(WebSocketMiddleware(wait), timeout=DEADLINE) as client:
        client.ping()


def test_to_show_it_in_a_log_is_not_to_use_it() -> None:
    shown: list[Any] = []

    def refuse(environ: Any, start_response: Any) -> Any:
        shown.append(repr(environ["wsgi.websocket"]))
        start_response("403 Forbidden", [("Content-Length", "0")])
        return []

    with pytest.raises(Refused) as refused:
        open_in_process(WebSocketMiddleware(refuse), "/door", timeout=DEADLINE)
    assert refused.value.response.status_code == 403
    assert len(shown) == 1 and "/door" in shown[0]


def test_the_socket_itself_is_not_there() -> None:
    seen: list[Any] = []

    def look(environ: Any, start_response: Any) -> None:
        ws = environ["wsgi.websocket"]
        seen.extend((ws.raw_write, ws.raw_read, hasattr(ws.stream, "read"), hasattr(ws.handler, "socket")))

    with open_in_process(WebSocketMiddleware(look), timeout=DEADLINE) as client:
        client.wait_closed()
    assert seen == [None, None, False, False]


# Flask-Sockets


@pytest.mark.parametrize("module", ["readme_routes", "readme_blueprints"])
@pytest.mark.parametrize("start", STARTS)
def test_flask_sockets_readme(start: str, module: str) -> None:
    with STARTS[start](f"{module}:app") as server:
        assert server.get("/").body == b"Hello World!"
        echoes(server, "/echo")
        assert by_node("ws")("client closes", server.url("/echo", "ws")) == {"code": 4001, "text": "", "clean": True}
        assert server.get("/echo").status == 400  # Werkzeug's answer to who does not want a WebSocket
        assert "Traceback" not in server.log()


@pytest.mark.parametrize("start", PATCHED)
def test_flask_sockets_chat_by_a_greenlet_that_sends_to_all(start: str) -> None:
    with STARTS[start]("old_sockets:app") as server:
        with open_client(server, "/receive") as ann, open_client(server, "/receive") as bob:
            assert ann.recv(DEADLINE) == bob.recv(DEADLINE) == "registered"
            with open_client(server, "/submit") as author:
                author.send("hello")
                assert ann.recv(DEADLINE) == bob.recv(DEADLINE) == "hello"
            bob.close()
            assert ann.recv(DEADLINE) == "2 clients, one has left"
        assert "Traceback" not in server.log()


@pytest.mark.parametrize("start", STARTS)
def test_flask_sockets_routes_have_the_request_and_its_session(start: str) -> None:
    with STARTS[start]("old_sockets:app") as server:
        assert refusal(server, "/members")[0] == 401 and "log in first" in refusal(server, "/members")[1]
        cookie = server.get("/login").values("Set-Cookie")[0].partition(";")[0]
        for path, words in (("/members", "ann"), ("/rooms/7?name=x", "room 7, x, ann")):
            with open_client(server, path, additional_headers={"Cookie": cookie}) as client:
                assert client.recv(DEADLINE) == words
                assert closed(client) == (1000, "")
        assert refusal(server, "/rooms/seven")[0] == 404
        echoes(server, "/more/echo")


# flask-sock


def test_flask_socks_own_tests_pass(tmp_path: Path) -> None:
    program = (sdist(FLASK_SOCK) / "tests" / "test_flask_sock.py").read_text()
    changes = {"import flask_sock\n": "import websock_gevent.legacy as flask_sock\n"}
    (tmp_path / "test_flask_sock.py").write_text(changed(program, changes))
    command = [sys.executable, "-W", "error", "-m", "unittest", "test_flask_sock"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE)
    assert run.returncode == 0 and "Ran 3 tests" in run.stderr, run.stderr


@pytest.mark.parametrize("start", STARTS)
def test_flask_sock_applications(start: str) -> None:
    with STARTS[start]("old_sock:app") as server:
        with open_client(server, "/echo", "v1", "v2") as client:
            assert client.subprotocol == "v2"
            client.send("hello")
            assert client.recv(DEADLINE) == "hello"
            client.send("close")
            assert closed(client) == (1000, "")
        with open_client(server, "/caught", "v1") as client:
            client.send(b"data")
            assert client.recv(DEADLINE) == "bytes v1"
            client.close(4003, "bye")
        assert ended(server, 1) == [[4003, "bye"]]
        with open_client(server, "/closing") as client:
            assert closed(client) == (4001, "later")
        assert ended(server, 2)[1] == "closed"
        with open_client(server, "/more/ann") as client:
            assert client.recv(DEADLINE) == "ann"
        with open_client(server, "/echo") as client:
            client.send("x" * 1001)
            assert closed(client)[0] == 1009
        assert refusal(server, "/secret")[0] == 403 and "not for you" in refusal(server, "/secret")[1]
        assert "Traceback" not in server.log()


# A browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Program]:
    with chromium() as program:
        yield program


@pytest.mark.parametrize(
    "app", ["old_resource:app /chat", "old_sockets:app /more/echo", "old_sock:app /echo", "readme_routes:app /echo"]
)
def test_in_a_browser(browser: Program, app: str) -> None:
    module, path = app.split()
    with gunicorn(module) as server:
        page = Page(browser, app)
        page.do("open", server.url("/login" if "sockets" in module else "/ended"))
        seen = page.do("evaluate", BROWSER % json.dumps([path, json.dumps({"type": "words", "words": "hi"})]))
        page.do("leave")
        assert "hi" in seen[0] and seen[1:] == [4005, True]


BROWSER = """(([path, words]) => new Promise((done) => {
    const socket = new WebSocket(path);
    const seen = [];
    socket.onopen = () => socket.send(words);
    socket.onmessage = ({ data }) => data.includes("hi") && (seen.push(data), socket.close(4005));
    socket.onclose = ({ code, wasClean }) => done([...seen, code, wasClean]);
}))(%s)"""


def test_the_application_speaks_before_a_close_frame_that_came_with_the_handshake() -> None:
    def app(environ: Any, start_response: Any) -> None:
        environ["wsgi.websocket"].send("hello")

    ours, _ = raw_connection(WebSocketMiddleware(app))
    ours.sendall(handshake() + close_frame(1000))
    read_head(ours)
    assert read_all(ours) == unmasked("hello") + unmasked(b"\x03\xe8", Opcode.CLOSE)
    ours.close()
