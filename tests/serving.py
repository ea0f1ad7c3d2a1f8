"""Real servers for the end-to-end tests, each a process of its own, and a client that speaks bytes.

Nothing here sleeps: a thread reads what a server writes, and whoever waits for a line of it is woken when it comes.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

__all__ = [
    "DEADLINE",
    "NODE",
    "OLDEST_GUNICORN",
    "Answer",
    "Program",
    "Raw",
    "Server",
    "gunicorn",
    "gunicorn_target",
    "node",
    "pywsgi",
]

#: Seconds after which a wait has failed. Generous: no test asserts how long something takes.
DEADLINE = 30.0
#: The oldest gunicorn that is supported; it runs beside the installed one.
OLDEST_GUNICORN = "23.0.0"
ROOT = Path(__file__).resolve().parent.parent
APPS = ROOT / "tests" / "apps"
NODE = ROOT / "tests" / "node"
CACHE = ROOT / ".cache"


class Program:
    """A process and what it writes to stdout and stderr."""

    def __init__(self, command: Sequence[str], *, env: dict[str, str] | None = None, stdin: bool = False) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._command = " ".join(command)
        self._text = ""
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._text += line.decode(errors="replace")
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def log(self, since: int = 0) -> str:
        """What it has written, from a `position` on."""
        with self._news:
            return self._text[since:]

    def position(self) -> int:
        """Where its output ends now."""
        return len(self.log())

    def wait_for_log(self, pattern: str, timeout: float = DEADLINE, since: int = 0) -> re.Match[str]:
        """Wait until a pattern stands in the output, and return the match."""
        found: re.Match[str] | None = None

        def seen() -> bool:
            nonlocal found
            found = re.search(pattern, self._text[since:], re.MULTILINE)
            return found is not None or self._ended

        with self._news:
            self._news.wait_for(seen, timeout)
        if found is None:
            raise AssertionError(f"{pattern!r} was not written by {self._command}, but:\n{self.log(since)}")
        return found

    def write(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def close_stdin(self) -> None:
        """Tell it that nothing more comes."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def wait(self) -> int:
        """Wait for its end and for the end of its output, and return the exit status."""
        status = self._process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        assert not self._reader.is_alive(), f"{self._command} has ended, but somebody holds its output open"
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        return status

    def end(self, with_signal: int = signal.SIGTERM) -> None:
        """Tell it to end; kill it if it does not."""
        if self._process.returncode is not None:
            return
        self._process.send_signal(with_signal)
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self.wait()


class Server(Program):
    """A WSGI server on 127.0.0.1.

    Attributes:
        port: Where it listens.
    """

    port = 0

    def listening(self) -> None:
        """Wait until it takes connections."""
        self.port = int(self.wait_for_log(r"Listening at: http://127\.0\.0\.1:(\d+)").group(1))

    @property
    def worker_pids(self) -> list[int]:
        """The processes that serve requests, those that have ended included."""
        return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self.log())] or [self.pid]

    @property
    def worker_pid(self) -> int:
        """The process that was started last."""
        return self.worker_pids[-1]

    def url(self, path: str = "/", scheme: str = "http") -> str:
        """The address of a path."""
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def get(self, path: str) -> Answer:
        """Send a GET request on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            version = f"HTTP/{response.version / 10}"
            return Answer(version, response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def settle(self, since: int = 0) -> str:
        """Wait until every connection is over and all of its lines are written. Return the log from a position on.

        The app must have ``/idle`` as ``served`` has. Lines about that request itself are left out.
        """
        name = uuid.uuid4().hex
        answer = self.get(f"/idle?mark={quote(name)}")
        assert answer.status == 200, f"{answer.body!r} in\n{self.log(since)}"
        self.wait_for_log(f"mark {name}")
        return "".join(line for line in self.log(since).splitlines(keepends=True) if not _IDLE.search(line))

    def kill(self) -> None:
        """End it and its workers without a word."""
        for pid in dict.fromkeys([self.pid, *self.worker_pids]):  # the master first: it would start workers anew
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait()

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self.end()


_IDLE = re.compile(r"/idle\?mark=|^mark [0-9a-f]{32}$")


def _environment(*first: Path, **more: str) -> dict[str, str]:
    """An environment in which the library and the apps are found, some paths before all others."""
    paths = [*map(str, first), str(ROOT), str(APPS)]
    if os.environ.get("PYTHONPATH"):
        paths.append(os.environ["PYTHONPATH"])
    kept = {name: value for name, value in os.environ.items() if name not in ("GUNICORN_CMD_ARGS", "WEB_CONCURRENCY")}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", **more}


def gunicorn_target(version: str) -> Path:
    """Where a version of gunicorn beside the installed one is; it is installed there if need be."""
    target = CACHE / f"gunicorn-{version}"
    if not (target / f"gunicorn-{version}.dist-info").is_dir():
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as fresh:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
            subprocess.run([*pip, "--target", f"{fresh}/it", f"gunicorn=={version}"], check=True, timeout=300)
            os.replace(f"{fresh}/it", target)
    return target


@contextmanager
def gunicorn(
    app: str = "served:app",
    *args: str,
    worker: str = "gevent",
    version: str | None = None,
    port: int = 0,
    env: dict[str, str] | None = None,
) -> Iterator[Server]:
    """Serve an app by gunicorn.

    Args:
        app: As for gunicorn; modules of ``tests/apps`` and packages of the repository are found.
        *args: Further arguments.
        worker: Worker class.
        version: A version to install beside the installed one; ``None`` for that one.
        port: ``0`` for a free one.
        env: Further environment variables.
    """
    first = [gunicorn_target(version)] if version else []
    options = ["-k", worker, "--bind", f"127.0.0.1:{port}", "--access-logfile", "-", "--graceful-timeout", "5"]
    if not version:
        options.append("--no-control-socket")
    command = [sys.executable, "-m", "gunicorn", *options, *args, app]
    server = Server(command, env=_environment(*first, **(env or {})))
    try:
        server.listening()
        server.wait_for_log("Booting worker")
        yield server
    finally:
        server.stop()


@contextmanager
def pywsgi(app: str = "served:app") -> Iterator[Server]:
    """Serve an app by gevent.pywsgi."""
    server = Server([sys.executable, str(APPS / "run_pywsgi.py"), app], env=_environment())
    try:
        server.listening()
        yield server
    finally:
        server.stop()


def node() -> str:
    """Where Node is, with the packages of ``tests/node``."""
    found = shutil.which("node")
    assert found, "node is missing: run tests/setup"
    for package in ("ws", "playwright-core"):
        assert (NODE / "node_modules" / package).is_dir(), f"tests/node has no {package}: run tests/setup"
    return found


class Answer(NamedTuple):
    """A response over HTTP."""

    version: str
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        """The values of all headers of a name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Raw:
    """A client that sends and receives bytes. A context manager: the socket is closed at its end."""

    KEY = "dGhlIHNhbXBsZSBub25jZQ=="

    def __init__(self, server: Server) -> None:
        self.server = server
        self.socket = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
        self._received = b""

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def request(self, path: str = "/echo", line: str = "GET {} HTTP/1.1", **changed: str | None) -> bytes:
        """Write a handshake.

        Args:
            path: The path in the request line.
            line: The request line.
            **changed: Headers by name, ``_`` for ``-``; ``None`` leaves one out, line breaks add more.
        """
        headers: dict[str, str | None] = {
            "Host": f"127.0.0.1:{self.server.port}",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Key": self.KEY,
            "Sec-WebSocket-Version": "13",
        }
        headers.update({name.replace("_", "-"): value for name, value in changed.items()})
        lines = [line.format(path), *(f"{name}: {value}" for name, value in headers.items() if value is not None)]
        return "\r\n".join([*lines, "", ""]).encode()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def upgrade(self, path: str = "/echo", behind: bytes = b"", **changed: str | None) -> Answer:
        """Become a WebSocket, with bytes right behind the handshake, and return the 101."""
        self.send(self.request(path, **changed) + behind)
        answer = self.head()
        assert (answer.version, answer.status) == ("HTTP/1.1", 101), answer
        return answer

    def read(self, size: int) -> bytes:
        """Receive exactly so many bytes."""
        while len(self._received) < size:
            self._more()
        data, self._received = self._received[:size], self._received[size:]
        return data

    def head(self) -> Answer:
        """Receive the head of a response."""
        while b"\r\n\r\n" not in self._received:
            self._more()
        head, self._received = self._received.split(b"\r\n\r\n", 1)
        status, *lines = head.decode("latin-1").split("\r\n")
        version, code, _ = status.split(" ", 2)
        pairs = [line.partition(":") for line in lines]
        return Answer(version, int(code), [(name, value.strip()) for name, _, value in pairs], b"")

    def answer(self) -> Answer:
        """Receive a response with its body."""
        head = self.head()
        lengths = head.values("Content-Length")
        body = self.read(int(lengths[0])) if lengths else self.rest()
        return head._replace(body=body)

    def rest(self) -> bytes:
        """Receive what comes up to the end of the stream."""
        while self._receive():
            pass
        data, self._received = self._received, b""
        return data

    def half_close(self) -> None:
        """Say that nothing more comes, and go on receiving."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _receive(self) -> bytes:
        data = self.socket.recv(1 << 16)
        self._received += data
        return data

    def _more(self) -> None:
        if not self._receive():
            raise AssertionError(f"the server closed; it had sent {self._received!r}")
