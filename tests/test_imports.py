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
    "kills": "",
    "origins": "",
    "deflate": "errors",
    "options": "deflate origins",
    "frames": "errors",
    "unfinished": "errors",
    "allocator": "",
    "messages": "allocator deflate errors frames unfinished",
    "websock": "deflate errors frames",
    "handshake": "errors options origins",
    "environ": "",
    "wire": "messages",
    "websocket": "deflate environ errors frames messages wire",
    "signals": "kills websock websocket",
    "waiter": "websocket",
    "deadlines": "frames options waiter websocket",
    "goodbye": "deadlines errors frames messages waiter websocket",
    "locks": "",
    "addresses": "locks",
    "mailbox": "addresses deflate waiter websock websocket",
    "connection": "deadlines errors frames goodbye kills mailbox messages options websock websocket",
    "accesslog": "",
    "drainer": "signals websock",
    "hosts": "drainer",
    "servers": "accesslog frames hosts",
    "drivers": "connection mailbox",
    "inbox": "websock",
    "attended": "connection drivers errors frames inbox kills mailbox messages options websock websocket",
    "blocking": "attended errors frames mailbox websock",
    "metering": "deflate frames locks messages signals",
    "watched": "attended connection deflate mailbox messages metering options signals websock websocket",
    "lives": "accesslog attended blocking connection drainer drivers hosts options servers",
    "upgrade": "attended blocking connection deflate drainer environ handshake hosts lives options servers signals "
    "watched websock websocket",
    "hogs": "accesslog connection signals",
    "flask": "errors handshake signals",
    "relay": "",
    "frameworks": "blocking options relay upgrade websock",
    "testing": "errors",
    "serve": "drainer hosts",
    "__init__": "deflate drainer errors frames hosts mailbox options upgrade websock websocket",
    "legacy/websocket": "attended blocking errors options",
    "legacy/middleware": "attended blocking errors handshake legacy/websocket lives options relay servers upgrade",
    "legacy/sock": "blocking errors legacy/middleware websock",
    "legacy/sockets": "legacy/sock",
    "legacy/__init__": "blocking legacy/middleware legacy/sock legacy/sockets legacy/websocket",
    "contrib/__init__": "",
    "contrib/prometheus": "frames signals",
    "contrib/opentelemetry": "signals websock websocket",
    "pubsub/errors": "",
    "pubsub/entries": "errors",
    "pubsub/registry": "addresses locks mailbox pubsub/entries signals",
    "pubsub/presence": "locks mailbox",
    "pubsub/monitors": "locks mailbox",
    "pubsub/ends": "locks mailbox",
    "pubsub/backend": "mailbox pubsub/entries pubsub/presence pubsub/registry",
    "pubsub/embedded": "locks mailbox pubsub/backend pubsub/entries pubsub/presence pubsub/registry",
    "pubsub/scripts": "",
    "pubsub/waiting": "locks",
    "pubsub/buffer": "locks pubsub/errors pubsub/waiting",
    "pubsub/client": "locks pubsub/errors pubsub/waiting",
    "pubsub/feeds": "pubsub/entries pubsub/waiting",
    "pubsub/channel": "locks pubsub/client pubsub/errors",
    "pubsub/errands": "pubsub/errors",
    "pubsub/listener": "pubsub/backend pubsub/channel pubsub/client pubsub/entries pubsub/errands pubsub/errors "
    "pubsub/feeds pubsub/scripts pubsub/waiting",
    "pubsub/correspondence": "addresses locks mailbox pubsub/backend pubsub/entries pubsub/monitors",
    "pubsub/redis_backend": "addresses locks mailbox pubsub/backend pubsub/buffer pubsub/client pubsub/entries "
    "pubsub/errors pubsub/feeds pubsub/correspondence pubsub/listener pubsub/presence pubsub/registry pubsub/scripts "
    "pubsub/waiting",
    "pubsub/pubsub": "addresses locks mailbox pubsub/backend pubsub/embedded pubsub/ends pubsub/entries "
    "pubsub/errors pubsub/monitors pubsub/presence pubsub/redis_backend pubsub/registry",
    "pubsub/__init__": "pubsub/entries pubsub/errors pubsub/pubsub",
    "contrib/live/watching": "addresses drainer locks signals websocket",
    "contrib/live/cluster": "addresses contrib/live/watching mailbox pubsub/errors pubsub/pubsub signals",
    "contrib/live/__init__": "contrib/live/cluster contrib/live/watching flask mailbox options pubsub/pubsub upgrade "
    "websock",
    "doctor/__init__": "",
    "doctor/findings": "",
    "doctor/environment": "doctor/findings hosts",
    "doctor/settings": "doctor/findings drainer hosts options",
    "doctor/patching": "doctor/findings",
    "doctor/application": "doctor/findings hosts options",
    "doctor/routes": "doctor/application doctor/findings",
    "doctor/redis": "doctor/findings pubsub/embedded pubsub/errors pubsub/pubsub",
    "doctor/probe": "doctor/application doctor/findings doctor/patching doctor/redis doctor/routes "
    "doctor/settings hosts pubsub/pubsub",
    "doctor/command": "doctor/environment doctor/findings doctor/probe",
    "__main__": "doctor/command",
}


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]
    return {
        name_of(path.parents[node.level - 1] / f"{(node.module or alias.name).replace('.', '/')}.py")
        for node in nodes
        for alias in node.names
    }


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    assert imported(path) <= set(ALLOWED[name_of(path)].split())


def test_the_order_has_no_circle() -> None:
    order = list(ALLOWED)
    for name, allowed in ALLOWED.items():
        assert all(order.index(other) < order.index(name) for other in allowed.split())


@pytest.mark.parametrize(
    "pure", ["deflate", "frames", "messages", "unfinished", "websock", "options", "origins", "handshake", "errors"]
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
