"""The samples of ``docs/telemetry.rst`` do what its text says, each under gunicorn."""

from __future__ import annotations

import json
import os
import re
import signal
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from raw import Raw, close_frame, masked, unmasked
from serving import ROOT, Server, gunicorn
from websockets.frames import Opcode

PAGE = (ROOT / "docs" / "telemetry.rst").read_text()
SIGNALS, AROUND, PROMETHEUS, CONFIGURATION, OPENTELEMETRY, SENTRY, HOGS, LIVE = map(
    textwrap.dedent, re.findall(r"code-block:: python\n\n((?:    .*\n|\n)+)", PAGE)
)
#: What the page leaves to the application.
APP = """
import os, sys
from time import monotonic
from flask import Flask, request
from websock_gevent import WebSock, upgrade
from websock_gevent.flask import websocket

class Echo(WebSock):
    def handle_in(self, message, state):
        if message == "raise":
            raise RuntimeError("the handler was told to")
        if message.startswith("compute"):
            until = monotonic() + float(message.split()[1])
            while monotonic() < until:
                pass
        return "push", str(os.getpid()) if message == "pid" else message, state
"""
ROUTE = """
app = Flask(__name__)
app.logger.setLevel("INFO")

@websocket(app, "/echo")
def echo():
    return upgrade(request.environ, Echo, None)
"""


@contextmanager
def serving(folder: Path, program: str, *args: str, **env: str) -> Iterator[Server]:
    """Serve a program."""
    (folder / "documented.py").write_text(APP + program)
    with gunicorn("documented:app", "--chdir", str(folder), *args, env=env) as server:
        yield server


def opened(server: Server, **headers: str) -> Raw:
    """A client that is connected."""
    raw = Raw(server)
    raw.upgrade("/echo?query", **headers)
    return raw


def say(raw: Raw, message: str) -> str:
    """Send a message and return the answer, which is short."""
    raw.send(masked(message))
    return raw.read(raw.read(2)[1]).decode()


def close(raw: Raw, code: int = 1000) -> None:
    """Close, and see the connection end."""
    raw.send(close_frame(code))
    raw.rest()
    raw.socket.close()


def test_the_end_of_a_connection_is_logged(tmp_path: Path) -> None:
    with serving(tmp_path, ROUTE + SIGNALS) as server:
        raw = opened(server)
        raw.send(masked("ping", Opcode.PING))
        assert say(raw, "hello") == unmasked("ping", Opcode.PONG)[2:].decode()
        assert raw.read(7) == unmasked("hello")
        close(raw)
        server.wait_for_log(r"/echo: \d+\.\d s, remote, closed with 1000; 1 messages in, 7 bytes out$")


def test_callbacks_are_timed(tmp_path: Path) -> None:
    with serving(tmp_path, ROUTE + AROUND) as server:
        raw = opened(server)
        assert say(raw, "hello") == "hello"
        close(raw)
        server.wait_for_log(r"documented\.Echo\.terminate took 0\.\d{6} s")
        names = re.findall(r"documented\.Echo\.(\w+) took", server.log())
    assert names == ["init", "handle_in", "terminate"]


def metrics(server: Server) -> dict[tuple[str, ...], float]:
    """What ``/metrics`` says: values by name and labels, in the order of the labels' names."""
    answer = server.get("/metrics")
    assert answer.status == 200
    families = text_string_to_metric_families(answer.body.decode())
    return {
        (sample.name.removeprefix("websocket_"), *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def wait_for_metric(server: Server, *key: str, value: float) -> dict[tuple[str, ...], float]:
    """Ask until a metric has this value: a connection's end is told a moment after the client's."""
    for _ in range(1000):
        found = metrics(server)
        if found.get(key) == value:
            return found
    raise AssertionError(f"{key} is {found.get(key)}, not {value}; {found}")


def on_two_workers(server: Server, stack: ExitStack) -> dict[int, Raw]:
    """A connection to each of two workers."""
    found: dict[int, Raw] = {}
    for _ in range(2):
        for stopped in found:
            os.kill(stopped, signal.SIGSTOP)  # so that the other one takes it
        try:
            raw = stack.enter_context(opened(server))
            found[int(say(raw, "pid"))] = raw
        finally:
            for stopped in found:
                os.kill(stopped, signal.SIGCONT)
    assert len(found) == 2
    return found


def test_prometheus_adds_up_what_two_workers_have_seen(tmp_path: Path) -> None:
    (tmp_path / "values").mkdir()
    (tmp_path / "gunicorn.conf.py").write_text(CONFIGURATION)
    arguments = ("-w", "2", "-c", str(tmp_path / "gunicorn.conf.py"))
    folder = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "values")}
    with serving(tmp_path, PROMETHEUS, *arguments, **folder) as server, ExitStack() as stack:
        server.wait_for_log(r"(?s)Booting worker.*Booting worker")
        first, second = on_two_workers(server, stack).items()
        found = metrics(server)
        name = "documented.Echo"
        assert found["connections", name] == found["opened_total", name] == 2
        assert server.get("/echo").status == 426
        close(first[1], 3999)
        close(second[1])
        found = wait_for_metric(server, "closed_total", "3xxx", name, "remote", value=1)
        found = wait_for_metric(server, "closed_total", "1000", name, "remote", value=1)
        assert found["connections", name] == 0 and found["duration_seconds_count", name] == 2
        assert found["frames_total", "recv", "text"] == found["frames_total", "send", "text"] == 2
        assert found["bytes_total", "recv", "text"] == 2 * (2 + 4 + len("pid"))
        assert found["frames_total", "recv", "close"] == 2 and found["refused_total", "426"] == 1
        pid, _ = on_two_workers(server, stack).popitem()
        assert metrics(server)["connections", name] == 2
        os.kill(pid, signal.SIGKILL)
        found = wait_for_metric(server, "connections", name, value=1)
        assert found["opened_total", name] == 4
        server.end()
    drained = "".join(path.name for path in (tmp_path / "values").iterdir())
    assert "counter" in drained and "gauge_livesum" not in drained


def spans(server: Server, count: int) -> list[dict[str, object]]:
    """So many spans, as the console exporter writes them."""
    server.wait_for_log(rf"(?s)(?:^\{{\n.*?^\}}\n){{{count}}}")
    return [json.loads(found) for found in re.findall(r"(?s)^\{\n.*?^\}\n", server.log(), re.MULTILINE)]


@pytest.mark.parametrize("headers", [{}, {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}], ids=["new", "continued"])
def test_spans_of_a_connection_and_its_callbacks(tmp_path: Path, headers: dict[str, str]) -> None:
    with serving(tmp_path, OPENTELEMETRY) as server:
        raw = opened(server, User_Agent="a browser", **headers)
        assert say(raw, "hello") == "hello"
        close(raw)
        *callbacks, connection = spans(server, 4)
    context = connection["context"]
    assert isinstance(context, dict)
    assert (connection["name"], connection["kind"]) == ("WebSocket documented.Echo", "SpanKind.SERVER")
    if headers:
        assert (context["trace_id"], connection["parent_id"]) == (f"0x{'a' * 32}", f"0x{'b' * 16}")
    else:
        assert connection["parent_id"] is None
    assert [span["name"] for span in callbacks] == ["init", "handle_in", "terminate"]
    assert {span["parent_id"] for span in callbacks} == {context["span_id"]}
    attributes = connection["attributes"]
    assert isinstance(attributes, dict)
    assert attributes == {
        "client.address": "127.0.0.1",
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "user_agent.original": "a browser",
        "network.protocol.name": "websocket",
        "url.scheme": "ws",
        "url.path": "/echo",
        "websocket.recv.text.count": 1,
        "websocket.recv.text.bytes": 5,
        "websocket.recv.close.count": 1,
        "websocket.recv.close.bytes": 2,
        "websocket.send.text.count": 1,
        "websocket.send.text.bytes": 5,
        "websocket.send.close.count": 1,
        "websocket.send.close.bytes": 2,
        "websocket.close.code": 1000,
        "websocket.peer.close.code": 1000,
        "websocket.reason": "remote",
    }


BEFORE_SEND = """
def before_send(event, hint):
    [error] = event["exception"]["values"]
    frame = error["stacktrace"]["frames"][-1]
    sys.stderr.write(f"sentry got {error['type']}: {error['value']} in {frame['function']}\\n")

DSN = "http://public@127.0.0.1/1"
"""


def test_sentry_gets_what_a_callback_raises_once(tmp_path: Path) -> None:
    with serving(tmp_path, BEFORE_SEND + SENTRY + ROUTE) as server:
        for _ in range(2):
            raw = opened(server)
            raw.send(masked("raise"))
            assert raw.read(4) == b"\x88\x02\x03\xf3"
            close(raw)
        server.end()
        log = server.log()
    lines = [line for line in log.splitlines() if line.startswith("sentry got")]
    assert lines == ["sentry got RuntimeError: the handler was told to in handle_in"] * 2


def test_a_hog_is_reported(tmp_path: Path) -> None:
    with serving(tmp_path, ROUTE + HOGS) as server:
        raw = opened(server)
        for message in ("compute 3", "compute 1.2"):
            assert say(raw, message) == message
        close(raw)
        log = server.log()
    assert (
        len(re.findall(r"^127\.0\.0\.1 '/echo': documented\.Echo\.handle_in has not given way for 0\.5 s", log, re.M))
        == 1
    )
    assert "while monotonic() < until:" in log


LOGIN = """
@app.get("/login")
def login():
    session["role"] = "operator"
    return "welcome"
"""


def test_the_live_view_is_for_operators(tmp_path: Path) -> None:
    routes = ROUTE.replace("app = Flask(__name__)", "")
    with serving(tmp_path, LIVE + LOGIN + routes, SECRET_KEY="for the tests") as server, opened(server):
        assert server.get("/live/").status == 403
        cookie = server.get("/login").values("Set-Cookie")[0].partition(";")[0]
        with Raw(server) as operator:
            operator.upgrade("/live/socket", Cookie=cookie)
            assert operator.read(2) == b"\x81\x7e"
            picture = json.loads(operator.read(int.from_bytes(operator.read(2), "big")))
    assert {row["path"] for row in picture["rows"]} == {"/echo", "/live/socket"}
    assert [worker["connections"] for worker in picture["workers"]] == [2]
