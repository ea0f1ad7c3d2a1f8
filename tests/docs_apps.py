"""The applications of the pages, run: in this process, or by gunicorn from a folder of their own."""

from __future__ import annotations

import os
import shlex
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blocks import block, write
from serving import DEADLINE, ROOT, Server, for_two_threads, gunicorn
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as dial

__all__ = ["arguments_of", "client", "cookie_of", "environment", "run", "served"]


def run(name: str, **names: Any) -> Any:
    """Execute a block as a module, with some names given, and return the module."""
    module = types.ModuleType(name)
    vars(module).update(names)
    exec(compile(block(name).text, f"{block(name).page}: {name}", "exec", dont_inherit=True), vars(module))
    return module


def cookie_of(app: Any, path: str = "/login", **form: str) -> dict[str, str]:
    """Log in, and return the headers of somebody who is."""
    browser = app.test_client()
    answer = browser.post(path, data=form)
    assert answer.status_code < 400, answer.text
    return {"Cookie": f"session={browser.get_cookie('session').value}"}


def arguments_of(name: str) -> list[str]:
    """What a block tells gunicorn, but for worker class and application, which it must name."""
    (line,) = [line for line in block(name).text.splitlines() if line.startswith("gunicorn ")]
    words = shlex.split(line)
    assert words[:3] == ["gunicorn", "-k", "gevent"] and words[-1] == "app:app", line
    return words[3:-1]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Of a program in a folder that uses the library."""
    return {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "PYTHONUNBUFFERED": "1", **more}


@contextmanager
def served(folder: Path, *names: str, options: list[str] | None = None, **more: str) -> Iterator[Server]:
    """Write blocks into a folder, and have gunicorn serve ``app:app`` from there."""
    write(folder, *names)
    arguments = ["--chdir", str(folder), *(options or [])]
    with gunicorn("app:app", *arguments, env={"PYTHONPATH": f"{folder}:{ROOT}", **more}) as server:
        yield server


def client(server: Server, path: str, **headers: str) -> ClientConnection:
    """An ordinary client."""
    url = server.url(path, "ws")
    return dial(
        url,
        ssl=for_two_threads(server.tls),
        compression=None,
        additional_headers=headers,
        open_timeout=DEADLINE,
        close_timeout=DEADLINE,
        proxy=None,
    )
