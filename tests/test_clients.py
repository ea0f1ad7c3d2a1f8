"""Other people's clients against gunicorn: Node's ``ws``, Node's own WebSocket, and Python's ``websockets``."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from serving import DEADLINE, NODE, Server, node
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

Client = Callable[[str, str], dict[str, Any]]
ALL = ["ws", "builtin", "websockets"]


def by_node(kind: str) -> Client:
    """A client of Node's."""

    def client(scenario: str, url: str) -> dict[str, Any]:
        command = [node(), "--experimental-websocket", str(NODE / "client.mjs"), kind, scenario, url]
        run = subprocess.run(command, capture_output=True, text=True, timeout=2 * DEADLINE)
        assert run.returncode == 0, run.stderr
        seen: dict[str, Any] = json.loads(run.stdout)
        return seen

    return client


def by_python(scenario: str, url: str) -> dict[str, Any]:
    """The client of ``websockets``."""
    subprotocols = [Subprotocol("v0"), Subprotocol("v1")] if scenario == "subprotocol" else None
    with connect(url, subprotocols=subprotocols, max_size=None, proxy=None, close_timeout=DEADLINE) as websocket:
        return SCENARIOS[scenario](websocket)


def subprotocol(websocket: ClientConnection) -> dict[str, Any]:
    return {"protocol": websocket.subprotocol}


def ping(websocket: ClientConnection) -> dict[str, Any]:
    return {"pong": "abc" if websocket.ping("abc").wait(DEADLINE) else None}


def server_pings(websocket: ClientConnection) -> dict[str, Any]:
    websocket.send("ping abc")
    return {"handled": websocket.recv(DEADLINE)}


def client_closes(websocket: ClientConnection) -> dict[str, Any]:
    websocket.close(4001, "bye")
    return closed(websocket)


def server_closes(websocket: ClientConnection) -> dict[str, Any]:
    websocket.send("close 4002 later")
    return closed(websocket)


def large_messages(websocket: ClientConnection) -> dict[str, Any]:
    words, data = "grüße, 世界 🎈 " * ((8 << 20) // 25), bytes(range(256)) * (8 << 12)
    websocket.send(words)
    text = websocket.recv(DEADLINE) == words
    websocket.send(data)
    return {"text": text, "binary": websocket.recv(DEADLINE) == data}


def compressed(websocket: ClientConnection) -> dict[str, Any]:
    words, echoed = "grüße, 世界 🎈 " * 2000, []
    for message in ("short", words, words, bytes(100_000), "", words):
        websocket.send(message)
        echoed.append(websocket.recv(DEADLINE) == message)
    assert websocket.response is not None
    return {"extensions": websocket.response.headers.get("Sec-WebSocket-Extensions", ""), "echoed": echoed}


def too_large(websocket: ClientConnection) -> dict[str, Any]:
    websocket.send("x" * 2000)
    return closed(websocket)


def server_closes_during_an_upload(websocket: ClientConnection) -> dict[str, Any]:
    websocket.send("close 4002 later")
    try:
        for _ in range(3):
            websocket.send(bytes(1 << 20))
    except ConnectionClosed:
        pass  # the close frame was faster
    return closed(websocket)


def closed(websocket: ClientConnection) -> dict[str, Any]:
    """Wait for the server's close frame."""
    try:
        raise AssertionError(f"received {websocket.recv(DEADLINE)!r:.100} instead of a close frame")
    except ConnectionClosed as error:
        received = error.rcvd
    if received is None:
        return {"code": 1006, "text": "", "clean": False}
    return {"code": received.code, "text": received.reason, "clean": True}


SCENARIOS: dict[str, Callable[[ClientConnection], dict[str, Any]]] = {
    "subprotocol": subprotocol,
    "ping": ping,
    "server pings": server_pings,
    "client closes": client_closes,
    "server closes": server_closes,
    "large messages": large_messages,
    "compressed": compressed,
    "too large": too_large,
    "server closes during an upload": server_closes_during_an_upload,
}
CLIENTS: dict[str, Client] = {"ws": by_node("ws"), "builtin": by_node("builtin"), "websockets": by_python}


@pytest.fixture(params=ALL)
def client(request: pytest.FixtureRequest) -> Client:
    """Each client in turn. Called with a scenario and an address, it returns what it saw."""
    return CLIENTS[request.param]


def last_entry(server: Server, key: str) -> Any:
    """What the handler's ``terminate`` was told."""
    return json.loads(server.get(f"/diary/{key}").body)[-1]


def test_a_subprotocol_is_agreed_on(newest_gunicorn: Server, client: Client) -> None:
    assert client("subprotocol", newest_gunicorn.url("/script", "ws")) == {"protocol": "v1"}


@pytest.mark.parametrize("client", ["ws", "websockets"], indirect=True)  # a browser's interface has no ping
def test_a_ping_is_answered(newest_gunicorn: Server, client: Client) -> None:
    assert client("ping", newest_gunicorn.url("/echo", "ws")) == {"pong": "abc"}


def test_the_pong_of_a_pushed_ping_reaches_the_handler(newest_gunicorn: Server, client: Client) -> None:
    assert client("server pings", newest_gunicorn.url("/script", "ws")) == {"handled": "pong abc"}


def test_the_server_sees_the_clients_code_and_text(newest_gunicorn: Server, client: Client) -> None:
    key = uuid.uuid4().hex
    seen = client("client closes", newest_gunicorn.url(f"/script?key={key}", "ws"))
    assert (seen["code"], seen["clean"]) == (4001, True)
    assert last_entry(newest_gunicorn, key) == {"reason": "remote", "code": 4001, "text": "bye"}


def test_the_client_sees_the_servers_code_and_text(newest_gunicorn: Server, client: Client) -> None:
    key = uuid.uuid4().hex
    seen = client("server closes", newest_gunicorn.url(f"/script?key={key}", "ws"))
    assert seen == {"code": 4002, "text": "later", "clean": True}
    assert last_entry(newest_gunicorn, key)["reason"] == "normal"


def test_large_messages_come_back_byte_for_byte(newest_gunicorn: Server, client: Client) -> None:
    assert client("large messages", newest_gunicorn.url("/echo", "ws")) == {"text": True, "binary": True}


@pytest.mark.parametrize("client", ["ws", "websockets"], indirect=True)  # Node's own offers no compression
@pytest.mark.parametrize("alone", [False, True], ids=["contexts taken over", "no context takeover"])
@pytest.mark.parametrize("bits", [9, 15])
def test_compressed_messages_come_back(newest_gunicorn: Server, client: Client, alone: bool, bits: int) -> None:
    settings = {"server_max_window_bits": bits, "client_max_window_bits": bits}
    settings |= {"server_no_context_takeover": alone, "client_no_context_takeover": alone}
    url = newest_gunicorn.url(f"/deflate?settings={quote(json.dumps(settings))}", "ws")
    seen = client("compressed", url)
    name, _, parameters = seen["extensions"].partition("; ")
    assert name == "permessage-deflate"
    assert not parameters or ("no_context_takeover" in parameters) == alone  # ws tells the name alone
    assert seen["echoed"] == [True] * 6


def test_a_message_over_the_limit_is_told_1009(newest_gunicorn: Server, client: Client) -> None:
    seen = client("too large", newest_gunicorn.url("/small", "ws"))
    assert (seen["code"], seen["clean"]) == (1009, True)


def test_the_code_arrives_though_the_client_is_uploading(newest_gunicorn: Server, client: Client) -> None:
    seen = client("server closes during an upload", newest_gunicorn.url("/script", "ws"))
    assert seen == {"code": 4002, "text": "later", "clean": True}
