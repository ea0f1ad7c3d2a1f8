"""nginx and haproxy in front of gunicorn: what only a proxy does to a WebSocket.

It buffers, has timeouts and origins of its own, reloads, ends TLS, and stands between either side and the other's end.
The rest, that everything works behind them as it does without, is ``test_servers``.
"""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from proxies import KEEP_HOST, PROXIES, Proxied, Proxy, documented
from raw import Raw, masked, unmasked
from serving import DEADLINE, Answer, Server, certificate, for_two_threads, gunicorn
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import Opcode
from websockets.sync.client import ClientConnection, connect

GOODBYE = masked(b"\x03\xe8", Opcode.CLOSE)
CLOSE_1000 = unmasked(b"\x03\xe8", Opcode.CLOSE)
#: Seconds that a proxy which has one for its timeout is waited for; it must have passed twice over.
LONG = 3.0
PAGE, FOREIGN = "https://shop.example", "https://evil.example"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The application behind the proxies."""
    with gunicorn("proxied:app") as running:
        yield running


@pytest.fixture(scope="module")
def fixed() -> Iterator[Server]:
    """The application in ProxyFix."""
    with gunicorn("proxied:fixed") as running:
        yield running


@pytest.fixture(params=PROXIES, ids=lambda proxy: proxy.name)
def proxy(request: pytest.FixtureRequest) -> Proxy:
    """Each proxy in turn."""
    return request.param


@pytest.fixture
def seen(server: Server, proxy: Proxy, tmp_path: Path) -> Iterator[Proxied]:
    """The application through a proxy that is set up as usual."""
    with proxy.start(server, tmp_path) as running:
        yield running


def client(server: Server, path: str, **more: Any) -> ClientConnection:
    """An ordinary client. It does not ping, so what is idle is idle."""
    options = {"compression": None, "max_size": None, "open_timeout": DEADLINE, "close_timeout": DEADLINE}
    sock = server.socket(encrypted=False)
    return connect(
        server.url(path, "ws"), sock=sock, ssl=for_two_threads(server.tls), ping_interval=None, **options, **more
    )


def echoes(websocket: ClientConnection, message: str | bytes = "there?") -> None:
    """Assert that a message comes back, and nothing before it."""
    websocket.send(message)
    assert websocket.recv(DEADLINE) == message


def serves(server: Server) -> None:
    """Assert that the next client is served."""
    with client(server, "/echo") as websocket:
        echoes(websocket)


def is_cut(websocket: ClientConnection) -> None:
    """Assert that the connection ends without a close frame."""
    with pytest.raises(ConnectionClosedError):
        websocket.recv(DEADLINE)
    assert websocket.close_code == 1006


def new_key() -> str:
    """A name for a connection's diary."""
    return uuid.uuid4().hex


def diary(seen: Proxied, key: str) -> list[Any]:
    """What happened to a connection up to its very end, its greenlet's included, so that nothing comes any more."""
    seen.behind.settle()
    entries: list[Any] = json.loads(seen.behind.get(f"/diary/{key}").body)
    return entries


def ended(reason: str) -> list[Any]:
    """The diary of a connection whose ``terminate`` was called once, the peer having said nothing."""
    return ["init", {"reason": reason, "code": None, "text": ""}]


# What is passed on.


@pytest.mark.parametrize("message", [bytes(range(251)) * 24_000, "grüße, 世界 🎈" * 300_000], ids=["binary", "text"])
def test_megabytes_pass_both_ways_at_a_time(seen: Proxied, message: str | bytes) -> None:
    messages = [message[first:] for first in range(3)]
    with client(seen, "/echo") as websocket:
        for each in messages:
            websocket.send(each)
        for each in messages:
            assert websocket.recv(DEADLINE) == each


@pytest.mark.parametrize("count", [1, 200, 2000])
def test_small_messages_right_behind_the_handshake_pass(seen: Proxied, count: int) -> None:
    messages = [f"{number:04}" if number % 2 else f"{number:04}".encode() for number in range(count)]
    with Raw(seen) as raw:
        raw.upgrade("/echo", b"".join(map(masked, messages)) + GOODBYE)
        assert raw.rest() == b"".join(map(unmasked, messages)) + CLOSE_1000


def test_what_the_handler_says_right_behind_the_101_passes(seen: Proxied) -> None:
    sizes = [0, 1, 4095, 4096, 4097, 8192, 70_000, 6_000_000]  # around a proxy's buffers, and far above them
    with client(seen, "/greeting?" + "&".join(f"size={size}" for size in sizes)) as websocket:
        for size in sizes:
            assert websocket.recv(DEADLINE) == bytes([size % 251]) * size
        echoes(websocket)


def test_nginx_that_does_not_pass_upgrade_on_is_answered_426(server: Server, tmp_path: Path) -> None:
    with PROXIES[0].start(server, tmp_path, KEEP_HOST) as seen, pytest.raises(InvalidStatus) as refused:
        client(seen, "/echo")
    assert refused.value.response.status_code == 426
    assert b"let it pass Upgrade" in refused.value.response.body


# A proxy that loses patience after a second.


def test_pings_keep_an_idle_connection_open(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    key = new_key()
    with proxy.start(server, tmp_path, idle="1s") as seen:
        with client(seen, f"/pinging?key={key}&every=0.3") as websocket:
            with pytest.raises(TimeoutError):
                websocket.recv(LONG)
            echoes(websocket)
        assert diary(seen, key) == ["init", {"reason": "remote", "code": 1000, "text": ""}]


def test_without_pings_an_idle_connection_is_cut_by_the_proxy(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    key = new_key()
    with proxy.start(server, tmp_path, idle="1s") as seen:
        with client(seen, f"/pinging?key={key}") as websocket:
            echoes(websocket)
            is_cut(websocket)
        assert diary(seen, key) == ended("error: closed")


# Where a page comes from: shop.example, as the browser and the proxy know it.


def ask(server: Server, origin: str, **changed: str) -> Answer:
    """Send the handshake of a page; if it becomes a WebSocket, use that."""
    with Raw(server) as raw:
        raw.send(raw.request("/echo", Host="shop.example", Origin=origin, **changed))
        head = raw.head()
        if head.status != 101:
            return head._replace(body=raw.read(int(head.values("Content-Length")[0])))
        raw.send(masked("hello") + GOODBYE)
        assert raw.rest() == unmasked("hello") + CLOSE_1000
        return head


def test_a_proxy_that_passes_host_on_is_all_it_takes(seen: Proxied) -> None:
    assert ask(seen, PAGE).status == 101
    answer = ask(seen, FOREIGN)
    assert (answer.status, b"ProxyFix" in answer.body) == (403, False)


def test_a_forged_header_changes_nothing(seen: Proxied) -> None:
    assert ask(seen, FOREIGN, X_Forwarded_Host="evil.example").status == 403
    assert ask(seen, PAGE, X_Forwarded_Host="evil.example").status == 101


def test_a_proxy_as_documented_is_all_it_takes(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    with proxy.start(server, tmp_path, section=documented(proxy.name)) as seen:
        assert ask(seen, PAGE).status == 101
        assert ask(seen, FOREIGN).status == 403
        assert seen.get("/plain").body == b"plain"


def test_a_proxy_that_rewrites_host_is_refused_and_told_why(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    with proxy.start(server, tmp_path, proxy.rewrites_host) as seen:
        answer, foreign = ask(seen, PAGE), ask(seen, FOREIGN)
        forged = ask(seen, FOREIGN, X_Forwarded_Host="evil.example")
    assert answer.status == foreign.status == forged.status == 403
    assert b"A proxy in front rewrote Host" in answer.body and b"ProxyFix(x_host=1)" in answer.body
    assert foreign.body == forged.body and b"proxy" not in foreign.body


def test_proxy_fix_believes_a_proxy_that_rewrites_host(fixed: Server, proxy: Proxy, tmp_path: Path) -> None:
    with proxy.start(fixed, tmp_path, proxy.rewrites_host) as seen:
        assert ask(seen, PAGE).status == 101
        assert ask(seen, PAGE, X_Forwarded_Host="evil.example").status == 101
        assert ask(seen, FOREIGN).status == 403
        assert ask(seen, FOREIGN, X_Forwarded_Host="evil.example").status == 403


# A proxy that reloads.


def test_a_connection_outlives_a_reload_and_is_closed_in_order(seen: Proxied, proxy: Proxy) -> None:
    key = new_key()
    with client(seen, f"/script?key={key}") as websocket:
        echoes(websocket)
        old = proxy.reload(seen)
        echoes(websocket, "still there?")
        echoes(websocket, bytes(1_000_000))
        serves(seen)
        assert not proxy.has_ended(seen, old)
        websocket.send("close 4002 later")
        with pytest.raises(ConnectionClosedError):
            websocket.recv(DEADLINE)
        assert (websocket.close_code, websocket.close_reason) == (4002, "later")
        proxy.wait_for_end(seen, old)
    assert diary(seen, key) == ended("normal")
    serves(seen)


def test_a_reload_that_gives_a_second_cuts_what_is_open(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    key = new_key()
    with proxy.start(server, tmp_path, main=proxy.shutdown) as seen:
        with client(seen, f"/script?key={key}") as websocket:
            echoes(websocket)
            old = proxy.reload(seen)
            is_cut(websocket)
            serves(seen)
            proxy.wait_for_end(seen, old)
        assert diary(seen, key) == ended("error: closed")


# Either side is cut off.


@pytest.mark.parametrize("size", [5, 8 << 20], ids=["idle", "in a large answer"])
def test_a_client_that_resets_is_noticed_behind_the_proxy(seen: Proxied, size: int) -> None:
    key, message = new_key(), bytes(size)
    with Raw(seen) as raw:
        raw.upgrade(f"/script?key={key}")
        raw.send(masked(message))
        assert raw.read(7) == unmasked(message)[:7]
        raw.reset()
    assert diary(seen, key) == ended("error: closed")
    serves(seen)


def test_a_killed_worker_is_noticed_before_the_proxy(proxy: Proxy, tmp_path: Path) -> None:
    with gunicorn("proxied:app") as server, proxy.start(server, tmp_path) as seen:
        with client(seen, "/echo") as websocket:
            echoes(websocket)
            os.kill(server.worker_pid, signal.SIGKILL)
            is_cut(websocket)
        serves(seen)


# TLS ends at the proxy.


def test_wss_at_the_proxy_is_plain_behind_it(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    message = bytes(range(256)) * 4000
    with proxy.start(server, tmp_path, tls=certificate(tmp_path)) as seen:
        assert seen.url("", "ws").startswith("wss://127.0.0.1:")
        with client(seen, "/echo", origin=seen.url("")) as websocket:
            echoes(websocket, message)
            websocket.close(4001, "bye")
            assert websocket.protocol.close_rcvd is not None  # not made up by the client
        with pytest.raises(InvalidStatus) as refused:
            client(seen, "/echo", origin=FOREIGN)
    assert refused.value.response.status_code == 403
