"""Real Redis servers for the tests, each a process of its own on a free port, with its data in a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from serving import Program, free_port

__all__ = ["QUICK", "RedisServer", "redis_server"]

#: Short times of a PubSub, so that a test of a failure need not wait for the usual ones.
QUICK = {"timeout": 0.5, "watchdog": 0.3, "lifetime": 1.5}


class RedisServer:
    """A Redis server that can be ended, started again on the same port, and frozen.

    Args:
        folder: For its data.
        *options: As on the command line of ``redis-server``.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        found = shutil.which("redis-server", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        assert found, "redis-server is missing: run tests/setup"
        self.port = free_port()
        base = [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(folder),
            "--save",
            "",
            "--loglevel",
            "notice",
        ]
        self._command = [found, *base, "--appendonly", "no", *options]
        self._program: Program | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._program is not None
        return self._program.pid

    def start(self, *options: str) -> None:
        """Start it, with further options, and wait until it takes commands."""
        self._program = Program([*self._command, *options])
        self._program.wait_for_log("Ready to accept connections")

    def log(self) -> str:
        """What it has written."""
        assert self._program is not None
        return self._program.log()

    def client(self, **options: Any) -> Any:
        """A client of its own, for looking at the server or setting it up."""
        return redis.Redis(port=self.port, decode_responses=True, **options)

    def stop(self) -> None:
        """End it in good order."""
        if self._program is not None:
            self.thaw()
            self._program.end()
            self._program = None

    def kill(self) -> None:
        """End it without a word."""
        assert self._program is not None
        self._program.end(signal.SIGKILL)
        self._program = None

    def freeze(self) -> None:
        """Have it do nothing, with its sockets open."""
        assert self._program is not None
        os.kill(self._program.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        assert self._program is not None
        os.kill(self._program.pid, signal.SIGCONT)


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """Run a server."""
    server = RedisServer(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.stop()
