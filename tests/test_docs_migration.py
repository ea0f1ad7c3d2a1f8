"""The pages of ``docs/migration`` say the truth, and their programs run; so do those before, where they still can.

(`other-frameworks.rst` has a file of its own, and so have the programs that others have written.)
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import gevent
import pytest
from blocks import block
from flask import Flask, abort, g, request
from geventwebsocket import Resource, WebSocketApplication
from others import FLASK_SOCK, FLASK_SOCKETS, sdist
from serving import DEADLINE, ROOT, Program, Server, flask_run, free_port, gunicorn
from simple_websocket import ConnectionClosed as SimpleConnectionClosed
from support import until
from websockets.exceptions import ConnectionClosed as ClientClosed
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as connect_by_network
from werkzeug.middleware.proxy_fix import ProxyFix

from websock_gevent import ConnectionClosed, Options
from websock_gevent.inbox import ENOUGH, ENOUGH_BYTES
from websock_gevent.legacy import Sock, Sockets, WebSocketMiddleware
from websock_gevent.testing import Client, Refused, connect

PAGES = ROOT / "docs" / "migration"
GEVENT_WEBSOCKET_WORKER = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"


#: What makes the programs of today of those before.
DIFFS = {
    "migration-gevent": "migration-gevent-diff",
    "migration-sockets": "migration-sockets-diff",
    "migration-sock": "migration-sock-diff",
}
CHATS = ["migration-blocking", "migration-callbacks"]


def ran(program: str) -> dict[str, Any]:
    """The names of a program that was run."""
    names: dict[str, Any] = {"__name__": "program"}
    exec(compile(program, "program", "exec"), names)
    return names


def app_of(name: str) -> Any:
    return ran(block(name).text)["app"]


def before(name: str) -> str:
    """A program as it was: the ``diff`` backwards. All that it says came in stands there."""
    diff, lines = block(DIFFS[name]).text, block(name).text.splitlines()
    old, new = ([line[1:] for line in diff.splitlines() if line[:1] == sign] for sign in "-+")
    assert set(new) <= set(lines), "the diff is not that of the program"
    for gone, came in zip(old, [*new[: len(old) - 1], new[-1]], strict=True):
        lines[lines.index(came)] = gone
    return "\n".join(line for line in lines if line not in new)


def open_client(app: Any, path: str = "/", **more: Any) -> Client:
    return connect(app, path, timeout=DEADLINE, **more)


def refusal(app: Any, path: str = "/", **more: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as refused:
        open_client(app, path, **more)
    return refused.value.response.status_code, refused.value.response.text


def closed(client: Client) -> tuple[int | None, str]:
    with pytest.raises(ConnectionClosed) as end:
        while True:
            client.receive()
    client.wait_closed()
    return end.value.code, end.value.text


# from-gevent-websocket.rst


@pytest.fixture
def old_chat(tmp_path: Path) -> Iterator[str]:
    """The program before, as it stands but for the port."""
    port = free_port()
    (tmp_path / "old.py").write_text(before("migration-gevent").replace('("", 8000)', f'("127.0.0.1", {port})'))
    program = Program([sys.executable, str(tmp_path / "old.py")])
    try:
        program.wait_for_port(port)
        yield f"ws://127.0.0.1:{port}/chat"
    finally:
        program.end()


def chats(url: str) -> None:
    with connect_by_network(url, proxy=None) as ann:
        assert ann.recv(DEADLINE) == "somebody came"
        with connect_by_network(url, proxy=None) as bob:
            assert ann.recv(DEADLINE) == bob.recv(DEADLINE) == "somebody came"
            bob.send("hello")
            assert ann.recv(DEADLINE) == bob.recv(DEADLINE) == "hello"
        assert ann.recv(DEADLINE) == "somebody left"


def test_the_chat_before(old_chat: str) -> None:
    chats(old_chat)


def test_the_chat_after(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text(block("migration-gevent").text)
    with gunicorn("new:app", "--pythonpath", str(tmp_path)) as server:
        chats(server.url("/chat", "ws"))


def test_a_program_that_serves_itself(tmp_path: Path) -> None:
    """Once with gevent-websocket's handler, and once as the page says."""
    *gone, came = (line[1:] for line in block("migration-main-diff").text.splitlines())
    for version in (gone, [came]):
        port = free_port()
        lines = [block("migration-gevent").text, "from gevent import pywsgi", *version, "server.serve_forever()"]
        (tmp_path / "own.py").write_text("\n".join(lines).replace('("", 5000)', f'("127.0.0.1", {port})'))
        program = Program([sys.executable, str(tmp_path / "own.py")])
        try:
            program.wait_for_port(port)
            chats(f"ws://127.0.0.1:{port}/chat")
        finally:
            program.end()


def facts(server: Server, payload: bytes = bytes(10_000_001)) -> Any:
    """What an application sees of a client from another site that sends bytes and goes, or how it is refused.

    Args:
        payload: Empty for a client that is refused before it has sent anything: what it sends meanwhile would reset the
            connection, and the reset may overtake the close frame.
    """
    headers = {"Origin": "https://elsewhere.example"}
    url = server.url("/", "ws")
    try:
        with connect_by_network(url, proxy=None, additional_headers=headers, max_size=None) as client:
            if payload:
                client.send(payload)
            return json.loads(client.recv(DEADLINE))
    except InvalidStatus as refused:
        return refused.response.status_code
    except ClientClosed as end:
        assert end.rcvd is not None
        return end.rcvd.code


def test_what_changes_against_gevent_websocket(tmp_path: Path) -> None:
    (tmp_path / "facts.py").write_text(FACTS)
    found = {}
    with gunicorn("facts:old", "--pythonpath", str(tmp_path), worker=GEVENT_WEBSOCKET_WORKER) as server:
        found["before"] = facts(server)
    with gunicorn("facts:new", "--pythonpath", str(tmp_path), worker=GEVENT_WEBSOCKET_WORKER) as server:
        found["its worker stays"] = facts(server, b"")
    with gunicorn("facts:new", "--pythonpath", str(tmp_path)) as server:
        found["after"] = facts(server)
    with gunicorn("facts:anybody", "--pythonpath", str(tmp_path)) as server:
        found["any origin"] = facts(server)
    with gunicorn("facts:large", "--pythonpath", str(tmp_path)) as server:
        found["any size"] = facts(server)
    old = ["bytearray", 10_000_001]
    new = ["bytes", 10_000_001]
    assert found == {"before": old, "its worker stays": 1008, "after": 403, "any origin": 1009, "any size": new}


FACTS = """
import json
from websock_gevent.legacy import WebSocketMiddleware

def old(environ, start_response):
    ws = environ["wsgi.websocket"]
    message = ws.receive()
    ws.send(json.dumps([type(message).__name__, len(message)]))
    return []

new = WebSocketMiddleware(old)
anybody = WebSocketMiddleware(old, origins="*")
large = WebSocketMiddleware(old, origins="*", max_frame_size=2**25, max_message_size=2**25)
"""


def test_none_once_and_then_an_error() -> None:
    seen: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        ws = environ["wsgi.websocket"]
        seen.append(ws.protocol)
        seen.append(ws.receive())
        seen.append((ws.close_code, ws.close_text, ws.path, ws.environ["PATH_INFO"]))
        try:
            ws.receive()
        except Exception as error:
            seen.append([one.__name__ for one in type(error).__mro__])
        return []

    wrapped = WebSocketMiddleware(app, subprotocols=["v1"])
    client = open_client(wrapped, "/here", subprotocols=["v0", "v1"])
    client.close(4001, "bye")
    until(lambda: len(seen) == 4)
    assert seen[:3] == ["v1", None, (4001, "bye", "/here", "/here")] and "WebSocketError" in seen[3]


def test_an_applications_callbacks_come_in_the_old_order() -> None:
    calls: list[Any] = []

    class Noting(WebSocketApplication):  # type: ignore[misc]
        def on_open(self) -> None:
            calls.append("on_open")

        def on_message(self, message: Any) -> None:
            calls.append(message)

        def on_close(self, reason: Any) -> None:
            calls.append(("on_close", reason))

    with open_client(WebSocketMiddleware(Resource([("/", Noting)]))) as client:
        client.send("hello")
        client.ping()
    until(lambda: len(calls) == 4)
    assert calls == ["on_open", "hello", None, ("on_close", None)]


def test_options_are_given_behind_the_application() -> None:
    app = WebSocketMiddleware(lambda e, s: e["wsgi.websocket"].send("hi"), origins=["https://example.com"])
    with open_client(app, headers={"Origin": "https://example.com"}) as client:
        assert client.receive() == "hi"
    assert refusal(app, headers={"Origin": "http://localhost"})[0] == 403


# from-flask-sockets.rst


def test_the_routes_of_sockets() -> None:
    app = app_of("migration-sockets")
    with open_client(app, "/ws/echo") as client:
        client.send("hello")
        assert client.receive() == "hello"
    status, text = refusal(app, "/members")
    assert status == 401 and "log in first" in text
    with open_client(app, "/members?token=1") as client:
        assert client.receive() == "welcome"
    assert app.test_client().get("/ws/echo").status_code == 400


def test_an_abort_in_the_function_only_closes_and_hooks_run() -> None:
    app, hooks = Flask(__name__), []
    app.before_request(lambda: hooks.append("before"))  # type: ignore[arg-type]
    app.teardown_request(lambda _: hooks.append("teardown"))
    sockets = Sockets(app)

    @sockets.route("/door")
    def door(ws: Any) -> None:
        abort(401)

    @sockets.route("/broken")
    def broken(ws: Any) -> None:
        abort(503)

    assert closed(open_client(app, "/door")) == (1000, "")
    assert hooks == ["before", "teardown"]
    assert closed(open_client(app, "/broken")) == (1011, "")


@pytest.mark.parametrize(
    ("attempt", "error"),
    [
        ("sockets.route('/echo')(print); sockets.url_map.bind('localhost').match('/echo', websocket=True)", "Mismatch"),
        ("sockets.register_blueprint(flask.Blueprint('ws', 'ws'))", "TypeError"),
    ],
)
def test_flask_sockets_itself_does_not_work_any_more(attempt: str, error: str) -> None:
    code = f"import flask, flask_sockets; sockets = flask_sockets.Sockets(flask.Flask('old')); {attempt}"
    command, folder = [sys.executable, "-c", code], sdist(FLASK_SOCKETS)
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=DEADLINE)
    assert error in run.stderr.splitlines()[-1]


def test_the_commands_are_those_that_are_run() -> None:
    """As `gunicorn` and `flask_run` of ``serving`` do."""
    lines = (block("migration-gevent-run").text + block("migration-sockets-run").text).splitlines()
    commands = {" ".join(line.partition("#")[0].split()) for line in lines}
    assert commands == {"gunicorn -k gevent module:app", "flask run"}


# from-flask-sock.rst


@pytest.mark.parametrize("version", ["before", "after"])
def test_the_application_of_flask_sock(version: str, tmp_path: Path) -> None:
    program = before("migration-sock") if version == "before" else block("migration-sock").text
    shows = '\n@app.get("/ended")\ndef shows():\n    return [list(one) for one in ended]\n'
    (tmp_path / "sample.py").write_text(program + shows)
    with gunicorn("sample:app", "--pythonpath", f"{tmp_path},{sdist(FLASK_SOCK) / 'src'}") as server:
        with connect_by_network(server.url("/echo/ann", "ws"), subprotocols=["v1"], proxy=None) as client:  # type: ignore[list-item]
            compressed = "Sec-WebSocket-Extensions" in client.response.headers  # type: ignore[union-attr]
            assert client.subprotocol == "v1" and compressed == (version == "before")
            assert client.recv(DEADLINE) == "hello ann"
            client.send("hello")
            assert client.recv(DEADLINE) == "hello"
            client.close(4001, "bye")
        deadline = monotonic() + DEADLINE
        while not (ended := json.loads(server.get("/ended").body)) and monotonic() < deadline:
            pass
        assert ended == [[4001, "bye"]]


def sock_app(**options: Any) -> Flask:
    app = Flask(__name__)
    app.config["SOCK_SERVER_OPTIONS"] = options

    @Sock(app).route("/")  # type: ignore[arg-type,unused-ignore]
    def echo(ws: Any) -> None:
        for message in ws:
            ws.send(message)

    return app


def test_socks_options_are_ours_and_what_is_internal_is_ignored() -> None:
    with open_client(
        sock_app(compress=True, receive_bytes=4096, thread_class=threading.Thread), compress=True
    ) as client:
        assert "permessage-deflate" in client.headers["Sec-WebSocket-Extensions"]
    assert refusal(sock_app(origins=["https://example.com"]), headers={"Origin": "http://localhost"})[0] == 403
    app = sock_app(tiemout=1)
    app.testing = True
    with pytest.raises(TypeError, match="tiemout"):
        app.test_client().get("/", headers={"Connection": "Upgrade", "Upgrade": "websocket"})


def test_both_names_of_the_error_are_one() -> None:
    from websock_gevent.legacy import ConnectionClosed as Ours

    assert issubclass(Ours, SimpleConnectionClosed) and issubclass(Ours, ConnectionClosed)


# to-callbacks.rst


@pytest.mark.parametrize("name", CHATS)
def test_both_chats_do_the_same(name: str) -> None:
    app = app_of(name)
    with open_client(app, "/chat?name=bob") as bob:
        bob.ping()
        ann = open_client(app, "/chat?name=ann")
        ann.send("hello")
        ann.send("again")
        for client in (ann, bob):
            assert [client.receive(), client.receive()] == ["ann 1: hello", "ann 2: again"]
        ann.send("bye")
        assert closed(ann) == (4000, "good night")
        bob.send("alone")
        assert bob.receive() == "bob 1: alone"


@pytest.mark.parametrize("name", CHATS)
def test_both_chats_end_with_who_says_nothing(name: str) -> None:
    names = ran(block(name).text.replace("=60", "=0.01").replace("(60,", "(0.01,"))
    assert closed(open_client(names["app"], "/chat?name=ann")) == (4000, "good night")


def test_a_function_that_waits_for_two_things() -> None:
    app = app_of("migration-mailbox")
    with open_client(app, "/chat?name=ann") as ann, open_client(app, "/chat?name=bob") as bob:
        for client in (ann, bob):
            client.ping()
        ann.send("hello")
        assert ann.receive() == bob.receive() == "ann: hello"


# index.rst


def test_the_function_behind_the_view() -> None:
    names = ran(block("migration-behind").text)
    app, gone = names["app"], []
    app.teardown_appcontext(lambda _: gone.append("torn down"))
    with open_client(app, "/echo?name=ann") as client:
        assert client.receive() == "hello ann" and gone == ["torn down"]
        client.send("hello")
        assert client.receive() == "hello"


@pytest.mark.parametrize("make", [Sock, Sockets])
def test_eager_views_hold_what_belongs_to_the_request(make: Any) -> None:
    app, gone = Flask(__name__), []
    app.teardown_appcontext(lambda _: gone.append("torn down"))

    @make(app).route("/")  # type: ignore[untyped-decorator,unused-ignore]
    def view(ws: Any) -> None:
        g.mine = request.path
        for message in ws:
            ws.send(f"{message} {g.mine}")

    with open_client(app) as client:
        client.send("hello")
        assert client.receive() == "hello /" and not gone
    until(lambda: gone)


def test_defaults_are_those_that_the_page_names() -> None:
    page, options = re.sub(r"\s+", " ", (PAGES / "index.rst").read_text()), Options()
    assert options.max_frame_size == options.max_message_size == 10_000_000 and "10 000 000 bytes" in page
    assert (options.timeout, options.ping_interval) == (60, 30) and "for 60 seconds" in page and "after 30" in page
    assert options.compress is False and options.origins is None
    assert (ENOUGH, ENOUGH_BYTES >> 10) == (64, 256) and "64 messages or 256 KiB" in page


def test_silence_ends_a_function_that_does_not_wait() -> None:
    held = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        ws = environ["wsgi.websocket"]
        ws.send("hi")
        while not ws.closed:
            gevent.sleep(0.001)
        held.set()
        return []

    client = open_client(WebSocketMiddleware(app, timeout=0.05, ping_interval=None))
    assert closed(client) == (1002, "")
    until(held.is_set)


def test_who_raises_is_in_the_log_and_who_leaves_is_not(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        ws = environ["wsgi.websocket"]
        while True:
            message = ws.receive()
            if message == "raise":
                raise KeyError("as told")
            ws.send(message or "")  # to nobody, in the end

    wrapped = WebSocketMiddleware(app)
    client = open_client(wrapped)
    client.send("raise")
    assert closed(client) == (1011, "")
    assert caplog.records and caplog.records[0].exc_info
    caplog.clear()
    with open_client(wrapped) as client:
        client.send("hello")
        client.receive()
    assert not caplog.records


def test_ordinary_routes_have_websockets_only_directly_behind_the_middleware() -> None:
    def made(*middlewares: Any) -> Flask:
        app = Flask(__name__)

        @app.route("/")
        def view() -> str:
            request.environ["wsgi.websocket"].send("hi")
            return ""

        for middleware in middlewares:
            app.wsgi_app = middleware(app.wsgi_app)  # type: ignore[method-assign]
        return app

    with open_client(made(WebSocketMiddleware, ProxyFix)) as client:
        assert client.receive() == "hi"
    assert refusal(made(ProxyFix, WebSocketMiddleware))[0] == 400


def test_error_handlers_do_not_see_the_end_of_a_connection() -> None:
    app, seen = Flask(__name__), []
    sockets = Sockets(app)

    @app.errorhandler(Exception)
    def handle(error: Exception) -> tuple[str, int]:
        seen.append(error)
        return "", 500

    @sockets.route("/")
    def view(ws: Any) -> None:
        try:
            while True:
                ws.send(ws.receive())
        finally:
            over.set()

    over = threading.Event()
    with open_client(app) as client:
        client.send("hello")
        client.receive()
    until(over.is_set)
    client.wait_closed()
    assert seen == []


def test_threads_are_those_of_the_server(tmp_path: Path) -> None:
    program = """
        from threading import get_native_id
        from flask import Flask
        from websock_gevent.legacy import Sock
        app = Flask(__name__)
        @Sock(app).route("/")
        def tell(ws):
            ws.send(str(get_native_id()))
            ws.receive()
    """
    (tmp_path / "threads.py").write_text(textwrap.dedent(program))

    def threads(server: Server) -> set[str | bytes]:
        url = server.url("/", "ws")
        with connect_by_network(url, proxy=None) as one, connect_by_network(url, proxy=None) as other:
            return {one.recv(DEADLINE), other.recv(DEADLINE)}

    with flask_run("threads:app", path=tmp_path) as server:
        assert len(threads(server)) == 2
    with flask_run("patched:app", path=tmp_path, env={"APP": "threads:app", "PYTHONPATH": path_of(tmp_path)}) as server:
        assert len(threads(server)) == 1


def path_of(folder: Path) -> str:
    return f"{folder}:{ROOT}:{ROOT / 'tests' / 'apps'}"


def test_the_pages_name_what_there_is() -> None:
    """Whatever of ours the pages import or name exists."""
    names = set()
    for page in PAGES.glob("*.rst"):
        names |= set(re.findall(r"websock_gevent(?:\.\w+)+", page.read_text()))
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n    module, _, last = name.rpartition('.')\n"
    code += "    try:\n        importlib.import_module(name)\n    except ImportError:\n"
    code += "        getattr(importlib.import_module(module), last)\n"
    assert len(names) > 5
    run = subprocess.run([sys.executable, "-c", code, *sorted(names)], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr


COSTS = ("100x1x32", "100x1x1KiB", "10x16x128", "idle10000")


def test_the_costs_are_those_that_were_measured() -> None:
    """Medians of the rounds in the file that the page names."""
    text = (PAGES / "index.rst").read_text()
    (path,) = re.findall(r"``(benchmarks/results/suite-[\d-]+\.json)``", text)
    measured: dict[tuple[str, str], list[float]] = {}
    for one in json.loads((ROOT / path).read_text())["measurements"]:
        figure = one["figures"].get("kib_each" if one["kind"] == "idle" else "cpu_us")
        measured.setdefault((one["server"], one["scenario"]), []).append(figure)
    rows = re.findall(r"^``([\w-]+/\w+)``[^\d]* {2}([\d. ]+)$", text, re.MULTILINE)
    shown = {server: figures.split() for server, figures in rows}
    assert len(shown) == 5
    assert shown == {server: [f"{median(measured[server, scenario]):.3g}" for scenario in COSTS] for server in shown}
