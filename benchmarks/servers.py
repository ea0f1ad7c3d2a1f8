"""What a server under test is, whether it can be had here, how it is started, and how it is stopped again.

Which servers there are is written in peers.py; what is measured with them is none of this file's business.
"""

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

from machine import pinned, process_tree, raise_file_limit

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
APPS = HERE / "apps"
START_LIMIT = 20.0
STOP_LIMIT = 5.0
COMMON = frozenset({"echo", "long", "fanout", "blocking", "idle"})


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
    """One entry of the comparison.

    Attributes:
        name: As it stands in tables and behind ``--servers``.
        modules: What has to be importable, as in an import statement.
        arguments: For the program, run in apps/; {port} is filled in.
        program: What is run; empty for the Python interpreter.
        probe: A command that succeeds where the server can be had; empty to import the modules.
        offers: What it can be measured for: "echo", "long" (messages that come in several pieces), "fanout",
            "blocking", "idle", "deflate", "queue", "topics".
        tree: The checkout that websock_gevent is taken from.
        settings: Environment variables for its application.
        group: The entry it is a variant of; empty if it is none.
    """

    name: str
    modules: str
    arguments: tuple[str, ...]
    program: str = ""
    probe: tuple[str, ...] = ()
    offers: frozenset[str] = COMMON
    tree: Path = ROOT
    settings: tuple[tuple[str, str], ...] = ()
    group: str = ""

    def command(self, python: str, port: int) -> list[str]:
        return [self.program or python, *(argument.format(port=port) for argument in self.arguments)]

    def environment(self) -> dict[str, str]:
        """The library is taken from its checkout, whether or not another copy is installed."""
        return {**os.environ, "PYTHONPATH": str(self.tree), "BENCH_TREE": str(self.tree), **dict(self.settings)}


def gunicorn(app: str, worker: str) -> tuple[str, ...]:
    """Settings are in apps/gunicorn.conf.py."""
    return ("-m", "gunicorn", "--worker-class", worker, "--bind", "127.0.0.1:{port}", app)


class ServerFailed(Exception):
    """The server did not start, or died; the text holds the end of its log."""


def why_missing(server: Server, python: str) -> str | None:
    """None if the server can be started, else the reason it cannot."""
    command = list(server.probe) or [python, "-c", f"import {server.modules}"]
    try:
        done = subprocess.run(command, check=False, env=server.environment(), cwd=APPS, capture_output=True, text=True)
    except OSError as error:
        return str(error)
    errors = [line for line in done.stderr.splitlines() if "Error" in line] or ["unknown"]
    return errors[-1].strip() if done.returncode else None


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
    raise_file_limit()
    with tempfile.TemporaryFile() as log:
        with pinned(cpu):
            process = subprocess.Popen(
                server.command(python, port),
                cwd=APPS,
                env=server.environment(),
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
