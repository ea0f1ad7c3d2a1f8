"""Imports go one way: each module may use those before it, and nobody imports a leaf."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "websock_gevent"

ALLOWED = {
    "errors": "",
    "origins": "",
    "deflate": "errors",
    "options": "deflate origins",
    "frames": "errors",
    "messages": "deflate errors frames",
    "websock": "deflate frames",
    "handshake": "errors options origins",
    "environ": "",
    "websocket": "deflate environ errors frames messages",
    "waiter": "websocket",
    "deadlines": "frames options waiter websocket",
    "goodbye": "deadlines errors frames messages waiter websocket",
    "mailbox": "deflate waiter websock websocket",
    "connection": "deadlines errors frames goodbye mailbox messages options websock websocket",
    "servers": "frames",
    "drainer": "websock",
    "drivers": "connection drainer mailbox",
    "hosts": "drainer",
    "upgrade": "connection deflate drainer drivers environ handshake hosts messages options servers websock websocket",
    "flask": "errors handshake",
    "testing": "errors",
    "serve": "drainer hosts",
    "__init__": "deflate drainer errors frames hosts mailbox options upgrade websock websocket",
}


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    return {node.module or alias.name for node in nodes for alias in node.names}


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_imports_go_one_way(path: Path) -> None:
    assert imported(path) <= set(ALLOWED[path.stem].split())


def test_the_order_has_no_circle() -> None:
    order = list(ALLOWED)
    for name, allowed in ALLOWED.items():
        assert all(order.index(other) < order.index(name) for other in allowed.split())


@pytest.mark.parametrize(
    "pure", ["deflate", "frames", "messages", "websock", "options", "origins", "handshake", "errors"]
)
def test_the_pure_part_imports_no_sockets_of_its_own(pure: str) -> None:
    tree = ast.parse((PACKAGE / f"{pure}.py").read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    assert not {name.split(".")[0] for name in names} & {"gevent", "socket", "ssl", "flask", "gunicorn"}


def test_the_package_needs_neither_flask_nor_gunicorn() -> None:
    code = "import sys, websock_gevent; print({'flask', 'gunicorn'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_importing_patches_nothing() -> None:
    code = "import websock_gevent, gevent.monkey; print(gevent.monkey.is_module_patched('socket'))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
