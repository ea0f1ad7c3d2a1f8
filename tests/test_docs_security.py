"""The samples of ``docs/security.rst`` do what its text says."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import pytest
from flask import Flask
from serving import ROOT
from support import (
    DEADLINE,
    Diary,
    application,
    frames_of,
    handshake,
    masked,
    raw_connection,
    read_all,
    read_head,
    text,
)
from websockets.frames import Opcode
from werkzeug.test import Client as Browser

from websock_gevent import ConnectionClosed, Options
from websock_gevent.testing import Client, Refused, connect

SECRET = "the same over and over, " * 20
USERS = {"a-token": "ann", "b-token": "bob"}


class Samples:
    """All samples as one program, with the functions that are left to the application."""

    def __init__(self, patience: float = 60.0) -> None:
        found = re.findall(r"code-block:: python\n\n((?:    .*\n|\n)+)", (ROOT / "docs" / "security.rst").read_text())
        assert len(found) == 3
        program = "\n".join(map(textwrap.dedent, found))
        self.banned: set[str] = set()
        self.names: dict[str, Any] = {
            "__name__": "samples",
            "is_allowed": lambda user: user not in self.banned,
            "user_of": USERS.get,
            "secret_of": lambda user: SECRET,
        }
        exec(re.sub(r"send_after\(\d+,", f"send_after({patience},", program), self.names)
        self.app: Flask = self.names["app"]
        self.app.secret_key = "for the tests"

    def cookie(self, user: str = "ann") -> str:
        """What a browser sends whose user is logged in."""
        browser: Browser = self.app.test_client()
        with browser.session_transaction(base_url="https://localhost") as session:  # type: ignore[attr-defined]
            session["user"] = user
        found = browser.get_cookie("session")
        assert found is not None and found.secure and found.http_only and found.same_site == "Lax"
        return f"session={found.value}"

    def account(self, user: str = "ann") -> Client:
        """A connection to somebody's account."""
        return connect(self.app, "/account", headers={"Cookie": self.cookie(user)}, timeout=DEADLINE)


def closed_by(client: Client) -> tuple[int | None, str]:
    """The code and text of the end, whatever comes before it."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            client.receive()
    client.wait_closed()
    return closed.value.code, closed.value.text


def refusal(app: Any, path: str, **more: Any) -> int:
    """The status of the answer that is no WebSocket."""
    with pytest.raises(Refused) as refused:
        connect(app, path, timeout=DEADLINE, **more)
    return refused.value.response.status_code


def test_only_who_is_logged_in_has_an_account() -> None:
    samples = Samples()
    assert refusal(samples.app, "/account") == 401
    with samples.account() as client:
        client.send("hello")
        assert client.receive() == "hello"
    assert samples.names["online"] == {"ann": set()}


def test_who_logs_out_is_closed_everywhere() -> None:
    samples = Samples()
    first, second, other = samples.account(), samples.account(), samples.account("bob")
    for client in (first, second, other):
        client.send("hello")
        client.receive()
    answer = samples.app.test_client(use_cookies=False).post("/logout", headers={"Cookie": samples.cookie()})
    assert answer.status_code == 204
    assert closed_by(first) == closed_by(second) == (4401, "log in again")
    other.send("still here")
    assert other.receive() == "still here"
    other.close()


def test_who_is_banned_is_closed_when_it_is_looked_at_again() -> None:
    samples = Samples(patience=0.01)
    with samples.account("bob") as other:
        client = samples.account()
        samples.banned.add("ann")
        assert closed_by(client) == (4401, "log in again")
        other.send("hello")
        assert other.receive() == "hello"


def test_a_budget_outlives_the_connection() -> None:
    samples = Samples()
    samples.names["monotonic"] = lambda: 1000.0
    client = samples.account()
    for _ in range(20):
        client.send("hello")
        assert client.receive() == "hello"
    client.send("one more")
    assert closed_by(client) == (1008, "slow down")
    again = samples.account()
    again.send("one more")
    assert closed_by(again) == (1008, "slow down")
    with samples.account("bob") as other:
        other.send("hello")
        assert other.receive() == "hello"
    samples.names["monotonic"] = lambda: 1001.0
    with samples.account() as later:
        later.send("hello")
        assert later.receive() == "hello"


def test_nobody_has_more_than_ten_connections() -> None:
    samples = Samples()
    clients = [samples.account() for _ in range(10)]
    for client in clients:
        client.ping()
    assert refusal(samples.app, "/account", headers={"Cookie": samples.cookie()}) == 429
    samples.account("bob").close()
    for client in clients:
        client.close()
    samples.account().close()


def test_a_token_comes_as_a_subprotocol_and_does_not_go_back() -> None:
    samples = Samples()
    for offered in ([], ["v1"], ["v1", "bearer.wrong"], ["v1", "a-token"]):
        assert refusal(samples.app, "/api", subprotocols=offered) == 401
    with connect(samples.app, "/api", subprotocols=["v1", "bearer.a-token"], timeout=DEADLINE) as client:
        assert client.subprotocol == "v1"
        assert "a-token" not in str(client.headers)
        client.ping()
        assert list(samples.names["online"]) == ["ann"]


def test_a_token_comes_as_the_first_message() -> None:
    samples = Samples()
    with connect(samples.app, "/door", timeout=DEADLINE) as client:
        client.send("a-token")
        assert client.receive() == SECRET
    stranger = connect(samples.app, "/door", timeout=DEADLINE)
    stranger.send("wrong")
    assert closed_by(stranger) == (4401, "who is it?")
    loud = connect(samples.app, "/door", timeout=DEADLINE)
    loud.send("a-token" * 1000)
    assert closed_by(loud)[0] == 1009


def test_by_default_an_origin_is_believed_that_is_also_the_host() -> None:
    rebound = {"Host": "evil.example", "Origin": "http://evil.example"}
    connect(application(Diary), headers=rebound, timeout=DEADLINE).close()
    assert refusal(application(Diary, origins=["http://localhost:5000"]), "/", headers=rebound) == 403


def test_the_limits_are_those_that_hold() -> None:
    page, options = (ROOT / "docs" / "security.rst").read_text(), Options()
    assert options.max_frame_size == options.max_message_size == 10_000_000 and "10 000 000 bytes for a frame" in page
    assert options.max_mailbox == 10_000 and "10 000 messages in a mailbox" in page
    assert (options.timeout, options.send_timeout, options.close_timeout) == (60, 30, 5)
    assert "silent for 60 seconds" in page and "no byte for 30" in page and "handshake gets 5." in page


def test_who_does_not_say_who_it_is_is_closed() -> None:
    assert closed_by(connect(Samples(patience=0.01).app, "/door", timeout=DEADLINE)) == (4401, "who is it?")


def test_a_secret_is_not_compressed() -> None:
    ours, server = raw_connection(Samples().app)
    ours.sendall(handshake("/door", Sec_WebSocket_Extensions="permessage-deflate"))
    assert b"permessage-deflate" in read_head(ours)
    ours.sendall(text("a-token") + masked(Opcode.CLOSE, b"\x03\xe8"))
    received = read_all(ours)
    assert received[0] == 0x81 and next(frames_of(received)) == (Opcode.TEXT, SECRET.encode())
    ours.close()
    server.join(DEADLINE)
