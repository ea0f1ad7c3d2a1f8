"""The programs of the how-to pages and of the contract, run in process, do what their text says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from blocks import block, write
from docs_apps import cookie_of, environment, run
from itsdangerous import URLSafeTimedSerializer
from itsdangerous.timed import TimestampSigner
from serving import DEADLINE, free_port
from sqlalchemy.orm.exc import DetachedInstanceError

from websock_gevent import ConnectionClosed
from websock_gevent.pubsub import OLDEST, PubSub
from websock_gevent.testing import Refused, connect

FOREIGN = {"Origin": "https://elsewhere.example"}


def refusal(app: Any, path: str, **headers: str) -> int:
    """The status of the answer that is no WebSocket."""
    with pytest.raises(Refused) as refused:
        connect(app, path, headers=headers, timeout=DEADLINE)
    status: int = refused.value.response.status_code
    return status


def answers(app: Any, path: str, message: str, expected: str, **headers: str) -> None:
    """Assert that a message is answered so."""
    with connect(app, path, headers=headers, timeout=DEADLINE) as client:
        client.send(message)
        assert client.receive() == expected


# Authentication.


@pytest.mark.parametrize("name", ["auth-session", "auth-flask-login"])
def test_who_is_logged_in_is_let_in(name: str) -> None:
    app = run(name).app
    assert refusal(app, "/echo") == 401
    headers = cookie_of(app, name="ann")
    answers(app, "/echo", "hello", "ann: hello", **headers)
    assert refusal(app, "/echo", **headers, **FOREIGN) == 403


def test_a_token_in_a_header_or_a_ticket_lets_in() -> None:
    module = run("auth-token")
    app, bearer = module.app, {"Authorization": "Bearer a-token"}
    answers(app, "/echo", "hello", "ann: hello", **bearer)
    assert refusal(app, "/echo") == refusal(app, "/echo", Authorization="Bearer wrong") == 401
    assert refusal(app, "/echo", Authorization="Basic a-token") == 401
    assert app.test_client().post("/ticket").status_code == 401
    ticket = app.test_client().post("/ticket", headers=bearer).text
    answers(app, f"/echo?ticket={ticket}", "hello", "ann: hello")
    assert refusal(app, f"/echo?ticket={ticket}x") == 401


class _Yesterday(TimestampSigner):
    def get_timestamp(self) -> int:
        return super().get_timestamp() - 24 * 3600


def test_a_ticket_of_yesterday_does_not() -> None:
    app = run("auth-token").app
    old = URLSafeTimedSerializer(app.secret_key, salt="websocket", signer=_Yesterday).dumps("ann")
    assert refusal(app, f"/echo?ticket={old}") == 401


# Databases.


def test_a_session_lives_for_one_callback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/notes.db")
    module = run("database-app")
    pool = module.engine.pool
    with connect(module.app, "/notes?user=ann", timeout=DEADLINE) as ann:
        ann.send("milk")
        assert ann.receive() == "saved" and pool.checkedout() == 0
        ann.send("bread")
        assert ann.receive() == "saved"
        with connect(module.app, "/notes?user=ann", timeout=DEADLINE) as again:
            assert [again.receive(), again.receive()] == ["milk", "bread"] and pool.checkedout() == 0
        with connect(module.app, "/notes?user=bob", timeout=DEADLINE) as bob:
            bob.send("beer")
            assert bob.receive() == "saved"
    module.engine.dispose()


def test_an_object_of_a_closed_session_is_of_no_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/notes.db")
    module = run("database-app")
    with module.Session.begin() as session:
        note = module.Note(author="ann", text="milk")
        session.add(note)
    with pytest.raises(DetachedInstanceError):
        assert note.text
    module.engine.dispose()


# Presence.


def here(client: Any) -> list[str]:
    """Who is there, as the page is told."""
    names: list[str] = json.loads(client.receive())["here"]
    return names


def until_here(client: Any, *names: str) -> None:
    """Wait until these are there, and nobody else."""
    while here(client) != list(names):
        pass


def test_presence_tells_who_comes_and_goes() -> None:
    module = run("presence-app")
    with connect(module.app, "/room?user=ann", timeout=DEADLINE) as ann:
        assert here(ann) == ["ann"]
        tabs = [connect(module.app, "/room?user=bob", timeout=DEADLINE) for _ in range(2)]
        until_here(ann, "ann", "bob")
        entries = module.pubsub.list("room")["bob"]
        assert len({entry["address"] for entry in entries}) == 2
        tabs[0].abort()
        tabs[1].send("still here")
        assert list(module.pubsub.list("room")) == ["ann", "bob"]
        tabs[1].abort()
        until_here(ann, "ann")


# The contract, the options, compression, PubSub's page.


def test_the_handler_of_the_contract_is_a_chat() -> None:
    module = run("contract-handler")
    assert refusal(module.app, "/chat") == 401
    browser = module.app.test_client()
    with browser.session_transaction() as session:
        session["user"] = "ann"
    headers = {"Cookie": f"session={browser.get_cookie('session').value}"}
    with connect(module.app, "/chat", headers=headers, timeout=DEADLINE) as client:
        assert client.receive() == "welcome"
        client.send("hello")
        assert json.loads(client.receive()) == {"from": "ann", "text": "hello"}
        client.ping(b"there?")
        assert len(module.room) == 1
    assert not module.room


@pytest.mark.parametrize("name", ["readme-app", "index-app"])
def test_the_first_ten_lines_are_an_echo(name: str) -> None:
    app = run(name).app
    answers(app, "/echo", "hello", "hello")
    assert app.test_client().get("/echo").status_code == 426
    with connect(app, "/echo", timeout=DEADLINE) as client:
        client.send(b"\x00\xff")
        assert client.receive() == b"\x00\xff"


def test_options_made_once_hold_for_each_view() -> None:
    app = run("options-once").app
    with connect(app, "/echo", compress=True, timeout=DEADLINE) as client:
        assert "server_no_context_takeover" in client.headers["Sec-WebSocket-Extensions"]
        client.send("x" * 16_384)
        assert client.receive() == "x" * 16_384
        client.send("x" * 16_385)
        with pytest.raises(ConnectionClosed) as closed:
            client.receive()
    assert closed.value.code == 1009


def test_deflate_has_knobs() -> None:
    view, echo = run("compression-deflate").view, run("index-app").Echo

    def app(environ: Any, start_response: Any) -> Any:
        return view(environ, echo, None)(environ, start_response)

    with connect(app, compress=True, timeout=DEADLINE) as client:
        assert "server_no_context_takeover" in client.headers["Sec-WebSocket-Extensions"]
        client.send("hello " * 100)
        assert client.receive() == "hello " * 100


def test_the_chat_of_the_page_on_pubsub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    module = run("pubsub-app")
    app = run("index-app")
    app.Echo = module.Chat
    with connect(app.app, "/echo", timeout=DEADLINE) as ann, connect(app.app, "/echo", timeout=DEADLINE) as bob:
        ann.send("hello")
        assert json.loads(ann.receive()) == json.loads(bob.receive()) == {"text": "hello"}


def test_who_comes_back_asks_for_what_was_missed() -> None:
    first = run("index-app")
    names = {name: getattr(first, name) for name in ("WebSock", "app", "request", "upgrade", "websocket")}
    module = run("pubsub-since", **names, OLDEST=OLDEST, pubsub=PubSub())
    with connect(module.app, "/room", timeout=DEADLINE) as client:
        module.pubsub.broadcast("lobby", 1)
        last = json.loads(client.receive())[2]
    module.pubsub.broadcast("lobby", 2)
    with connect(module.app, f"/room?since={last}", timeout=DEADLINE) as client:
        assert json.loads(client.receive())[3] == 2


# Testing.


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    write(tmp_path, "testing-app", "testing-tests")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_app.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout + done.stderr


# Kubernetes' probe.


def test_readiness_asks_for_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    assert run("kubernetes-ready").app.test_client().get("/ready").status_code == 204
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}")
    module = run("kubernetes-ready")
    answer = module.app.test_client().get("/ready")
    assert answer.status_code == 503 and "cannot be reached" in answer.text
    module.pubsub.close()


def test_what_is_configured_is_what_holds(tmp_path: Path) -> None:
    code = block("deploys-configure").text + "\nprint(configure_drain())\n"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, timeout=DEADLINE
    )
    assert "code=1001, text='moving', share=0.3" in done.stdout and not done.stderr
    assert "rate=200.0, grace=30.0, retry_after=1" in done.stdout
