"""The servers of the comparison, variants of our own, and other checkouts of it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

from native import BUILD
from servers import COMMON, HERE, ROOT, Server, gunicorn

__all__ = ["BARE", "OURS", "REFERENCE", "SERVERS", "checkout", "revision", "with_options", "with_tree"]

OURS = "websock_gevent/gunicorn"
REFERENCE = "gevent-websocket/pywsgi"
BARE = "a bare loop in Flask/gunicorn"
EVERYTHING = COMMON | {"deflate", "queue", "topics"}
GEVENT_WEBSOCKET_WORKER = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"
COMPRESSING = COMMON | {"deflate"}
IDLE = frozenset({"idle"})
BLOCKING = frozenset({"echo", "long", "idle"})
SHORT = frozenset({"echo", "idle"})
EPOLL = HERE / "apps" / "epoll_echo.c"


def ours(name: str, modules: str, arguments: tuple[str, ...]) -> Server:
    return Server(name, f"ours, {modules}; ours.check()", arguments, offers=EVERYTHING)


def with_options(server: Server, options: str, name: str = "") -> Server:
    """The same server, with options of `upgrade` given as a JSON object, beside those that it has.

    Raises:
        ValueError: no JSON, or no object.
    """
    parsed = json.loads(options)
    if not isinstance(parsed, dict):
        raise ValueError(f"options are a JSON object, not {options!r}")
    known = json.loads(dict(server.settings).get("BENCH_OPTIONS", "{}"))
    return replace(
        server,
        name=name or f"{server.name} {json.dumps(parsed)}",
        settings=(*server.settings, ("BENCH_OPTIONS", json.dumps({**known, **parsed}))),
        group=server.name,
    )


def with_tree(server: Server, tree: Path) -> Server:
    """The same server, with the library of another checkout."""
    return replace(server, name=f"{server.name} @{tree.name}", tree=tree, group=server.name)


def checkout(where: str) -> Path:
    """Return the directory meant: a checkout's path, or that of a commit of this repository, taken out for it.

    Raises:
        ValueError: neither a checkout of the library nor a commit.
    """
    path = Path(where).resolve()
    if not path.is_dir():
        git = ["git", "-C", str(ROOT)]
        known = subprocess.run([*git, "rev-parse", "--short", f"{where}^{{commit}}"], capture_output=True, text=True)
        if known.returncode:
            raise ValueError(f"{where!r} is neither a directory nor a commit of this repository")
        path = BUILD / "trees" / known.stdout.strip()
        files = subprocess.run([*git, "archive", where, "websock_gevent"], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(files)) as archive:
            archive.extractall(path)
    if not (path / "websock_gevent" / "__init__.py").exists():
        raise ValueError(f"{path} holds no websock_gevent")
    return path


def revision(tree: Path = ROOT) -> str:
    """The commit measured, with "-dirty" if the files differ from it."""
    if tree != ROOT and not (tree / ".git").exists():
        return tree.name  # taken out of this repository by `checkout`
    command = ["git", "--no-optional-locks", "-C", str(tree), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


GUNICORN = ours(OURS, "gunicorn, flask", gunicorn("ours_flask:app", "gevent"))
SERVERS = (
    Server(REFERENCE, "geventwebsocket", ("gevent_websocket.py", "{port}")),
    GUNICORN,
    ours("websock_gevent/pywsgi", "gevent", ("ours_pywsgi.py", "{port}")),
    replace(
        GUNICORN,
        name=f"{OURS} handle_info",
        settings=(("BENCH_FANOUT", "info"),),
        offers=frozenset({"fanout"}),
        group=OURS,
    ),
    *(
        replace(GUNICORN, name=f"websock_gevent/{name}", arguments=gunicorn(app, "gevent"), offers=BLOCKING, group=OURS)
        for name, app in (("blocking", "ours_blocking:app"), ("middleware", "ours_blocking:legacy"))
    ),
    with_options(GUNICORN, '{"idle": "parked", "max_connections": 20000}', f"{OURS} parked"),
    Server(
        "gevent-websocket/gunicorn",
        "geventwebsocket, gunicorn",
        gunicorn("gevent_websocket:app", GEVENT_WEBSOCKET_WORKER),
    ),
    Server(
        "flask-sock/gunicorn",
        "flask_sock, gunicorn, gevent",
        gunicorn("flask_sock_echo:app", "gevent"),
        offers=COMPRESSING,
    ),
    Server("websockets/asyncio", "websockets.asyncio.server", ("websockets_asyncio.py", "{port}"), offers=COMPRESSING),
    Server("uvicorn/uvloop", "uvicorn, uvloop, websockets", ("uvicorn_uvloop.py", "{port}"), offers=COMPRESSING),
    Server("picows/uvloop", "picows, uvloop", ("picows_uvloop.py", "{port}")),
    Server(
        "ws/node",
        "",
        ("node_ws/server.js", "{port}"),
        program="node",
        probe=("node", "-e", "require('./node_ws/node_modules/ws')"),
        offers=COMPRESSING,
    ),
    Server(
        "epoll/C",
        "",
        ("{port}",),
        program=str(BUILD / "epoll_echo"),
        probe=(sys.executable, str(HERE / "native.py"), str(EPOLL)),
        offers=frozenset({"echo", "long", "fanout", "idle"}),
    ),
    Server(BARE, "gunicorn, gevent, flask", gunicorn("bare_flask:app", "gevent"), offers=SHORT),
    Server("a WSGI application, waiting/gunicorn", "gunicorn, gevent", gunicorn("waiting:app", "gevent"), offers=IDLE),
)
