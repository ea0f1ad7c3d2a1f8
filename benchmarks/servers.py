"""The servers under test: what each needs, how it is started, and how it is stopped again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from machine import pinned, process_tree

HERE = Path(__file__).resolve().parent
APPS = HERE / "apps"
START_LIMIT = 20.0
STOP_LIMIT = 5.0


@dataclass(frozen=True)
class Running:
    """A started server."""

    pid: int
    port: int
    log: IO[bytes] = field(repr=False)

    def tail(self) -> str:
        self.log.seek(0)
        return self.log.read()[-1500:].decode(errors="replace").strip()


@dataclass(frozen=True)
class Server:
    name: str
    modules: str  # what has to be importable, as in an import statement
    arguments: tuple[str, ...]  # for the Python interpreter, in apps/; {port} is filled in

    def command(self, python: str, port: int) -> list[str]:
        return [python, *(argument.format(port=port) for argument in self.arguments)]


def gunicorn(app: str, worker: str) -> tuple[str, ...]:
    """Settings are in apps/gunicorn.conf.py."""
    return ("-m", "gunicorn", "--worker-class", worker, "--bind", "127.0.0.1:{port}", app)


GEVENT_WEBSOCKET_WORKER = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"
REFERENCE = "gevent-websocket/pywsgi"
SERVERS = (
    Server(REFERENCE, "geventwebsocket", ("gevent_websocket.py", "{port}")),
    Server(
        "websock_gevent/gunicorn",
        "websock_gevent, gunicorn, flask",
        gunicorn("ours_flask:app", "gevent"),
    ),
    Server("websock_gevent/pywsgi", "websock_gevent", ("ours_pywsgi.py", "{port}")),
    Server(
        "gevent-websocket/gunicorn",
        "geventwebsocket, gunicorn",
        gunicorn("gevent_websocket:app", GEVENT_WEBSOCKET_WORKER),
    ),
    Server("flask-sock/gunicorn", "flask_sock, gunicorn, gevent", gunicorn("flask_sock_echo:app", "gevent")),
    Server("websockets/asyncio", "websockets.asyncio.server", ("websockets_asyncio.py", "{port}")),
    Server("picows/uvloop", "picows, uvloop", ("picows_uvloop.py", "{port}")),
)


class ServerFailed(Exception):
    """The server did not start, or died; the text holds the end of its log."""


def environment() -> dict[str, str]:
    """The library is taken from this checkout, whether or not another copy is installed."""
    return {**os.environ, "PYTHONPATH": str(HERE.parent)}


def why_missing(server: Server, python: str) -> str | None:
    """None if the server can be started, else the reason it cannot."""
    command = [python, "-c", f"import {server.modules}"]
    done = subprocess.run(command, check=False, env=environment(), cwd=APPS, capture_output=True, text=True)
    return (done.stderr.strip().splitlines() or ["unknown"])[-1] if done.returncode else None


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_until_reachable(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.05)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    tree = process_tree(process.pid)
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        for pid in tree:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def running(server: Server, python: str, cpu: int) -> Iterator[Running]:
    """A fresh server on `cpu`."""
    port = _free_port()
    with tempfile.TemporaryFile() as log:
        with pinned(cpu):
            process = subprocess.Popen(
                server.command(python, port),
                cwd=APPS,
                env=environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        started = Running(process.pid, port, log)
        try:
            if not _wait_until_reachable(process, port):
                raise ServerFailed(f"did not start: {started.tail()}")
            yield started
        finally:
            _stop(process)
