"""Peers that die, stall, dribble, or do not let go: each ends by the option that is made for it, and leaves nothing.

No FIN comes from behind a cut cable, so there is a real cable to cut: between two network namespaces of this test's
own, one for gunicorn and one for the client.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import pytest
from raw import Raw, masked, unmasked
from serving import APPS, DEADLINE, ROOT, Program, Server, gunicorn
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

#: Bytes that a process may hold more than before without a reason: what Python and malloc keep for the next time.
NOISE = 4 << 20
#: As in the app.
BLOCK = 100_000
#: malloc gives large pieces back at once instead of learning to keep them, so that what is held can be seen.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
CLOSE_1000 = unmasked(b"\x03\xe8", Opcode.CLOSE)
CLOSE_1002 = unmasked(b"\x03\xea", Opcode.CLOSE)
CLOSE_1008 = unmasked(b"\x03\xf0mailbox overflow", Opcode.CLOSE)
GOODBYE = masked(b"\x03\xe8", Opcode.CLOSE)


class Counts(NamedTuple):
    """What the server's process holds, as its ``/counts`` tells."""

    connections: int
    greenlets: int
    files: int
    resident: int
    peak: int


def counts(server: Server, query: str = "") -> Counts:
    """Ask the server, over a connection that has ended before the next one is asked."""
    with Raw(server) as raw:
        raw.send(raw.request(f"/counts?{query}", Connection="close", Upgrade=None))
        answer = raw.answer()
        assert raw.rest() == b""
    assert answer.status == 200, f"connections are left: {answer.body!r}\n{server.log()}"
    return Counts(**json.loads(answer.body))


def idle(server: Server) -> Counts:
    """What it holds when no other connection is left."""
    return counts(server, "alone")


def gone(server: Server, before: Counts) -> Counts:
    """Wait until no connection is left, and assert that nothing else is."""
    after = idle(server)
    assert after[:3] == before[:3]
    assert after.resident - before.resident < NOISE
    return after


def ended(server: Server, key: str) -> str:
    """Wait until a connection has ended, and return the reason."""
    return server.wait_for_log(f"^ended {key} (.*)$")[1]


def ended_once(server: Server, key: str) -> bool:
    """Tell whether ``terminate`` was called, and once. Only when it cannot be called any more."""
    return server.log().count(f"ended {key} ") == 1


def new_key() -> str:
    """A name for a connection."""
    return uuid.uuid4().hex


def client(server: Server, path: str, sock: socket.socket | None = None) -> ClientConnection:
    """An ordinary client, which answers pings. Its goodbye does not wait long: nobody may be there."""
    return connect(server.url(path, "ws"), sock=sock or server.socket(), compression=None, close_timeout=0.1)


def serves(server: Server, times: int = 20) -> None:
    """Assert that the next client is served."""
    with client(server, f"/peer?key={new_key()}&timeout=30") as websocket:
        for number in range(times):
            websocket.send(f"still there? {number}")
            assert websocket.recv(DEADLINE) == f"still there? {number}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The app ``peers``, by gunicorn."""
    with gunicorn("peers:app", env=MALLOC) as running:
        serves(running)  # what is made for the first one stays
        yield running


# A cut cable.


class Cable:
    """A cable between two network namespaces, a server's and a client's. Nothing of it is seen outside of them."""

    ADDRESSES = {"server": "192.0.2.1", "client": "192.0.2.2"}
    PORT = 8000

    def __init__(self) -> None:
        self.names = {side: f"dead-peers-{os.getpid()}-{side}" for side in self.ADDRESSES}

    def lay(self) -> None:
        """Make the namespaces and connect them."""
        for name in self.names.values():
            ip("netns", "add", name)
        here, there = self.names.values()
        ip("-n", here, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", there)
        for side, name in self.names.items():
            ip("-n", name, "address", "add", f"{self.ADDRESSES[side]}/24", "dev", "cable")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "cable", "up")

    def remove(self) -> None:
        """Remove what there is of them; the cable goes with its ends."""
        existing = ip("netns", "list").split()
        for name in self.names.values():
            if name in existing:
                ip("netns", "delete", name)

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Cut it at the client's end; plug it in again at the end."""
        ip("-n", self.names["client"], "link", "set", "cable", "down")
        try:
            yield
        finally:
            ip("-n", self.names["client"], "link", "set", "cable", "up")

    def connect(self, side: str) -> socket.socket:
        """Connect to the server from one side."""
        with ThreadPoolExecutor(1) as fresh_thread:  # which alone enters the namespace; the socket belongs to that
            return fresh_thread.submit(self._connect, side).result()

    def _connect(self, side: str) -> socket.socket:
        with open(f"/run/netns/{self.names[side]}") as namespace:
            assert ctypes.CDLL(None).setns(namespace.fileno(), 0) == 0
        return socket.create_connection((self.ADDRESSES["server"], self.PORT), DEADLINE)


class Remote(Server):
    """A server at one end of a cable. `socket` connects on its own side, for which the cable does not matter."""

    host = f"{Cable.ADDRESSES['server']}:{Cable.PORT}"

    def __init__(self, cable: Cable) -> None:
        python = ["ip", "netns", "exec", cable.names["server"], sys.executable, "-m", "gunicorn"]
        options = ["-k", "gevent", "--bind", self.host, "--graceful-timeout", "5", "--no-control-socket"]
        paths = os.pathsep.join([str(ROOT), str(APPS)])
        env = {**os.environ, **MALLOC, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}
        env.update(GUNICORN_CMD_ARGS="", WEB_CONCURRENCY="1")
        super().__init__([*python, *options, "peers:app"], env=env)
        self._cable = cable

    def socket(self, *_: bool, **__: bool) -> socket.socket:
        return self._cable.connect("server")


def ip(*words: str) -> str:
    """Run ``ip`` and return what it says."""
    assert shutil.which("ip"), "ip is missing: run tests/setup"
    assert os.geteuid() == 0, "network namespaces are made by root: run the tests as root"
    run = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=DEADLINE)
    assert run.returncode == 0, f"ip {' '.join(words)}: {run.stderr}"
    return run.stdout


@pytest.fixture(scope="module")
def cable() -> Iterator[Cable]:
    """A cable to cut."""
    cable = Cable()
    try:
        cable.lay()
        yield cable
    finally:
        cable.remove()


@pytest.fixture(scope="module")
def remote(cable: Cable) -> Iterator[Remote]:
    """The app ``peers`` at one end of the cable, by gunicorn."""
    server = Remote(cable)
    try:
        server.wait_for_log("Listening at")
        server.wait_for_log("Booting worker")
        serves(server)
        yield server
    finally:
        server.stop()


#: The path, and how it may end.
CUT = [
    ("/peer", ["timeout"]),
    ("/busy", ["timeout"]),  # its time is not the peer's silence, but pings have gone unanswered meanwhile
    ("/ticking", ["timeout"]),  # the kernel takes all of it
    ("/pushing", ["timeout", "error: send timeout"]),  # whichever is due first
    ("/stopping", ["normal"]),  # the goodbye goes into the void
]


@pytest.mark.parametrize("path, reasons", CUT, ids=[case[0] for case in CUT])
def test_a_cut_cable_ends_the_connection(cable: Cable, remote: Remote, path: str, reasons: list[str]) -> None:
    before, key = idle(remote), new_key()
    options = "" if path != "/stopping" else "&timeout=30"
    with client(remote, f"{path}?key={key}{options}", cable.connect("client")) as websocket:
        if path == "/peer":
            websocket.send("later 1.0")
            assert websocket.recv(DEADLINE) == "later 1.0"  # twice its timeout: it lives by its pongs
        with cable.cut():
            assert ended(remote, key) in reasons
            gone(remote, before)
    assert ended_once(remote, key)


def received(websocket: ClientConnection) -> list[str | bytes]:
    """What has come so far."""
    messages: list[str | bytes] = []
    with suppress(TimeoutError):
        while True:
            messages.append(websocket.recv(timeout=0))
    return messages


def test_a_cable_plugged_in_again_loses_nothing(cable: Cable, remote: Remote) -> None:
    before, key = idle(remote), new_key()
    with client(remote, f"/ticking?key={key}&timeout=20&send_timeout=20", cable.connect("client")) as websocket:
        messages: list[str | bytes] = [websocket.recv(DEADLINE)]
        with cable.cut():
            websocket.send("from the void")
            since = remote.position()
            remote.wait_for_log(f"tick {key} [0-9]*0$", since=since)
            last = int(remote.wait_for_log(f"tick {key} ([0-9]*5)$", since=since)[1])  # pings are lost, too
            messages += received(websocket)
            assert str(last) not in messages
        while not {"from the void", str(last + 10)} <= {*messages}:  # each side sends again in its own time
            messages.append(websocket.recv(DEADLINE))
    messages.remove("from the void")
    assert messages == [str(number) for number in range(len(messages))]
    assert ended(remote, key) == "remote"
    gone(remote, before)
    assert ended_once(remote, key)


# A client that never reads.


def test_others_are_served_while_one_is_stuck(server: Server) -> None:
    before, key = idle(server), new_key()
    with Raw(server) as raw:
        raw.upgrade(f"/stuck?key={key}&send_timeout=60")
        server.wait_for_log(f"open {key}")
        serves(server, 200)
        assert counts(server).connections == before.connections + 1
        raw.reset()
    assert ended(server, key) == "error: closed"
    gone(server, before)
    assert ended_once(server, key)


#: The path, how it ends, and how many messages may wait.
FLOODS = [
    ("/pushing", "error: send timeout", 1),
    ("/mailed", "error: mailbox overflow", 100),
    ("/pushed", "error: mailbox overflow", 100),
    ("/pushed-by-thread", "error: mailbox overflow", 100),
]


@pytest.mark.parametrize("path, reason, most", FLOODS, ids=[case[0] for case in FLOODS])
def test_a_client_that_does_not_read_costs_what_the_options_say(
    server: Server, path: str, reason: str, most: int
) -> None:
    before, key = idle(server), new_key()
    with Raw(server) as raw:
        raw.upgrade(f"{path}?key={key}&max_mailbox=100")
        assert ended(server, key) == reason
        after = gone(server, before)
    assert after.peak - before.resident < most * BLOCK + NOISE
    assert ended_once(server, key)


@pytest.mark.parametrize("path", [case[0] for case in FLOODS if "overflow" in case[1]])
def test_one_that_reads_again_is_told_of_the_overflow(server: Server, path: str) -> None:
    before, key = idle(server), new_key()
    with Raw(server) as raw:
        raw.upgrade(f"{path}?key={key}&max_mailbox=100&send_timeout=20")
        assert ended(server, key) == "error: mailbox overflow"
        assert raw.rest().endswith(CLOSE_1008)
    gone(server, before)
    assert ended_once(server, key)


def send_for_ever(raw: Raw, data: bytes) -> int:
    """Send until the server has closed, and return how many bytes were taken."""
    taken, deadline = 0, monotonic() + DEADLINE
    with suppress(ConnectionError):
        while monotonic() < deadline:
            taken += raw.socket.send(data)
    return taken


def kernel_takes() -> int:
    """Bytes that the kernel holds for a connection at the most: two buffers to send and two to receive."""
    sizes = [Path(f"/proc/sys/net/ipv4/tcp_{name}mem").read_text().split()[2] for name in "rw"]
    return 2 * sum(map(int, sizes))


def test_an_echo_client_that_does_not_read_is_held_back(server: Server) -> None:
    before, key = idle(server), new_key()
    with Raw(server) as raw:
        raw.upgrade(f"/peer?key={key}")
        taken = send_for_ever(raw, masked(bytes(BLOCK)))
    assert taken < kernel_takes() + NOISE
    assert ended(server, key) == "error: send timeout"
    after = gone(server, before)
    assert after.peak - before.resident < NOISE
    assert ended_once(server, key)


# A client that does not let go.


def stays_silent(raw: Raw) -> None:
    """Does not answer."""
    assert raw.rest() == b""


def goes_on_sending(raw: Raw) -> None:
    """Does not answer, and sends messages all the time."""
    send_for_ever(raw, masked(bytes(BLOCK)))


def answers_and_stays(raw: Raw) -> None:
    """Answers, but does not close its side."""
    raw.send(GOODBYE)
    assert raw.rest() == b""


def answers_and_goes_on_sending(raw: Raw) -> None:
    """Answers, and sends all the time."""
    raw.send(GOODBYE)
    send_for_ever(raw, masked(bytes(BLOCK)))


@pytest.mark.parametrize(
    "clings",
    [stays_silent, goes_on_sending, answers_and_stays, answers_and_goes_on_sending],
    ids=lambda clings: clings.__name__,
)
def test_a_client_that_does_not_let_go(server: Server, clings: Callable[[Raw], None]) -> None:
    before, key = idle(server), new_key()
    with Raw(server) as raw:
        raw.upgrade(f"/peer?key={key}&timeout=60")
        raw.send(masked("stop"))
        assert raw.read(len(CLOSE_1000)) == CLOSE_1000
        clings(raw)
        assert ended(server, key) == "normal"
        after = gone(server, before)
    assert after.peak - before.resident < NOISE
    assert ended_once(server, key)


# Slow loris.


def dribble(clients: list[Raw], data: bytes) -> None:
    """Send to each one byte in a tenth of a second."""
    pause, began = threading.Event(), monotonic()
    for number, byte in enumerate(data, 1):
        for raw in clients:
            raw.send(bytes([byte]))
        pause.wait(began + number / 10 - monotonic())


def open_many(server: Server, keys: list[str], stack: ExitStack) -> list[Raw]:
    """As many clients as there are keys, with a second of patience for each."""
    clients = [stack.enter_context(Raw(server)) for _ in keys]
    for raw, key in zip(clients, keys, strict=True):
        raw.upgrade(f"/peer?key={key}&timeout=1.0")
    return clients


def test_those_who_dribble_live_as_long_as_bytes_come(server: Server) -> None:
    before, keys = idle(server), [new_key() for _ in range(200)]
    with ExitStack() as stack:
        clients = open_many(server, keys, stack)
        opened = counts(server)
        assert [a - b for a, b in zip(opened[:3], before[:3], strict=True)] == [200, 200, 200]
        dribble(clients, masked("a" * 1000)[:20])  # twice the timeout
        dribbled = counts(server)
        assert dribbled[:3] == opened[:3]
        assert dribbled.peak - opened.resident < NOISE / 4
        serves(server)
        for raw, key in zip(clients, keys, strict=True):
            assert ended(server, key) == "timeout"
            assert raw.rest().endswith(CLOSE_1002)
    gone(server, before)
    assert all(ended_once(server, key) for key in keys)


def test_a_frame_that_is_only_announced_costs_nothing(server: Server) -> None:
    before, keys = idle(server), [new_key() for _ in range(20)]
    with ExitStack() as stack:
        for raw in open_many(server, keys, stack):
            raw.send(masked(bytes(9_000_000))[: 14 + 10])
        serves(server)
        assert [ended(server, key) for key in keys] == ["timeout"] * 20
    after = gone(server, before)
    assert after.peak - before.resident < NOISE
    assert all(ended_once(server, key) for key in keys)


def test_half_a_message_is_forgotten_with_its_connection(server: Server) -> None:
    before, key, half = idle(server), new_key(), bytes(8_000_000)
    with Raw(server) as raw:
        raw.upgrade(f"/peer?key={key}&timeout=60&ping_interval=60")
        raw.send(Frame(Opcode.BINARY, half, fin=False).serialize(mask=True) + masked(b"got it?", Opcode.PING))
        assert raw.read(9) == unmasked(b"got it?", Opcode.PONG)
        assert counts(server).resident - before.resident > len(half) - NOISE
        raw.reset()
    assert ended(server, key) == "error: closed"
    gone(server, before)
    assert ended_once(server, key)


def test_half_a_handshake_keeps_nobody_out(server: Server) -> None:
    before = idle(server)
    with ExitStack() as stack:
        for _ in range(50):
            raw = stack.enter_context(Raw(server))
            raw.send(raw.request(f"/peer?key={new_key()}")[:60])
        serves(server)
    gone(server, before)


# A client that is killed, or frozen.

PROGRAM = """
import sys
from websockets.sync.client import connect
websocket = connect(sys.argv[1], proxy=None, max_size=None, max_queue=1)
websocket.socket.sendall(eval(sys.argv[2]))
print("open", flush=True)
sys.stdin.read()
"""


@contextmanager
def program(server: Server, path: str, sends: bytes = b"") -> Iterator[Program]:
    """A client in a process of its own, which has sent some bytes."""
    running = Program([sys.executable, "-c", PROGRAM, server.url(path, "ws"), repr(sends)], stdin=True)
    try:
        running.wait_for_log("open")
        yield running
    finally:
        running.end(signal.SIGKILL)


@pytest.mark.parametrize("path", ["/peer", "/ticking", "/pushing"])
@pytest.mark.parametrize("sends", [b"", masked(bytes(1000))[:500]], ids=["nothing", "half a frame"])
def test_a_killed_client_is_a_closed_connection(server: Server, path: str, sends: bytes) -> None:
    before, key = idle(server), new_key()
    with program(server, f"{path}?key={key}&timeout=60&send_timeout=60", sends) as killed:
        server.wait_for_log(f"open {key}")
        os.kill(killed.pid, signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
    assert ended(server, key) == "error: closed"
    gone(server, before)
    assert ended_once(server, key)


@pytest.mark.parametrize("path, reason", [("/peer", "timeout"), ("/pushing", "error: send timeout")])
def test_a_frozen_client_times_out(server: Server, path: str, reason: str) -> None:
    before, key = idle(server), new_key()
    with program(server, f"{path}?key={key}") as frozen:
        os.kill(frozen.pid, signal.SIGSTOP)
        assert ended(server, key) == reason
        gone(server, before)
    assert ended_once(server, key)
