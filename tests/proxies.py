"""gunicorn behind the proxies that stand in front of it in production: nginx and haproxy, as Debian ships them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from serving import DEADLINE, ROOT, Certificate, Program, Server, free_port, gunicorn

__all__ = ["PROXIES", "Proxied", "Proxy", "behind_haproxy", "behind_nginx", "documented", "haproxy", "nginx"]

NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr notice;
{main}
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    {http}
}}
"""
HTTP = """
    map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://{upstream};
            proxy_http_version 1.1;
            proxy_read_timeout {idle};
            {more}
        }}
    }}
"""

HAPROXY = """
global
    stats socket {folder}/admin level admin expose-fd listeners
    {main}
{defaults}
frontend front
    bind {listen}
    {more}
    default_backend back
backend back
    server gunicorn {upstream}
"""
DEFAULTS = """
defaults
    mode http
    option http-server-close
    timeout connect 5s
    timeout client {idle}
    timeout server {idle}
    timeout tunnel {idle}
"""

PASS_UPGRADE = "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;"
KEEP_HOST = "proxy_set_header Host $http_host;"


class Proxied(Server):
    """A server seen through a proxy: connections go to the proxy, the log is the server's.

    Attributes:
        behind: The server.
        proxy: The proxy.
    """

    def __init__(self, behind: Server, proxy: Program, port: int, certificate: Certificate | None) -> None:
        self.behind = behind
        self.proxy = proxy
        self.port = port
        self.tls = certificate and certificate.client

    def __getattribute__(self, name: str) -> object:
        if name in (
            "log",
            "position",
            "wait_for_log",
            "pid",
            "worker_pids",
            "worker_pid",
            "stop",
            "wait",
            "serving_pid",
        ):
            return getattr(object.__getattribute__(self, "behind"), name)
        return object.__getattribute__(self, name)


@contextmanager
def nginx(
    server: Server,
    folder: Path,
    more: str = PASS_UPGRADE + KEEP_HOST,
    *,
    main: str = "",
    idle: str = "30s",
    tls: Certificate | None = None,
    section: str = HTTP,
) -> Iterator[Proxied]:
    """nginx before a server; ``main`` goes to the top, ``section`` into ``http``, ``more`` into the ``location``."""
    config, port = folder / "nginx.conf", free_port()
    listen = f"127.0.0.1:{port}"
    if tls:
        listen += f" ssl; ssl_certificate {tls.path}; ssl_certificate_key {tls.path}"
    http = section.format(listen=listen, upstream=server.host, idle=idle, more=more)
    config.write_text(NGINX.format(folder=folder, main=main, http=http))
    with _proxied(server, ["nginx", "-c", str(config), "-e", "stderr"], port, tls) as seen:
        yield seen


@contextmanager
def haproxy(
    server: Server,
    folder: Path,
    more: str = "",
    *,
    main: str = "",
    idle: str = "30s",
    tls: Certificate | None = None,
    section: str = DEFAULTS,
) -> Iterator[Proxied]:
    """haproxy before a server; ``main`` goes into ``global``, ``section`` behind it, ``more`` into the ``frontend``."""
    config, port = folder / "haproxy.cfg", free_port()
    listen = f"127.0.0.1:{port}" + (f" ssl crt {tls.path}" if tls else "")
    values = {"folder": folder, "listen": listen, "upstream": server.host, "more": more, "main": main}
    config.write_text(HAPROXY.format(defaults=section.format(idle=idle), **values))
    with _proxied(server, ["haproxy", "-W", "-S", f"{folder}/master", "-f", str(config)], port, tls) as seen:
        _wait_for_master(seen.proxy, f"{folder}/master")
        yield seen


def _wait_for_master(proxy: Program, address: str) -> None:
    """Wait until haproxy's master answers: it loses the signals that come before, though its worker serves already."""
    deadline, pause = monotonic() + DEADLINE, threading.Event()
    while monotonic() < deadline:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as master:
            master.settimeout(DEADLINE)
            master.connect(address)
            master.sendall(b"show proc\n")
            if master.recv(1):
                return
        pause.wait(0.01)
    raise AssertionError(f"haproxy's master does not answer:\n{proxy.log()}")


@contextmanager
def _proxied(server: Server, command: list[str], port: int, tls: Certificate | None) -> Iterator[Proxied]:
    found = shutil.which(command[0], path="/usr/sbin:/usr/bin")
    assert found, f"{command[0]} is missing: run tests/setup"
    proxy = Program([found, *command[1:]])
    try:
        proxy.wait_for_port(port)
        yield Proxied(server, proxy, port, tls)
    finally:
        proxy.end(signal.SIGTERM)


def documented(name: str) -> str:
    """What ``docs/proxies.rst`` says to write for a proxy, with the addresses left open."""
    found = re.search(rf"code-block:: {name}\n\n((?: +.*\n)+)", (ROOT / "docs" / "proxies.rst").read_text())
    assert found, f"docs/proxies.rst has nothing for {name}"
    text = textwrap.dedent(found[1]).replace("{", "{{").replace("}", "}}")
    return text.replace("listen 80", "listen {listen}").replace("127.0.0.1:8000", "{upstream}")


class Proxy(NamedTuple):
    """A kind of proxy, and what there is to know of it.

    Attributes:
        name: Its name.
        start: Starts it in front of a server, with a folder of its own.
        rewrites_host: A ``more`` with which it sends its own ``Host``, and the client's as ``X-Forwarded-Host``.
        shutdown: A ``main`` that gives the connections of an old worker one second.
        signal: Tells it to read its configuration again.
        worker: What its log says of a new worker.
        reloaded: What its log says in the end, in any order, of a reload.
        ended: What its log says of a worker's end.
    """

    name: str
    start: Callable[..., AbstractContextManager[Proxied]]
    rewrites_host: str
    shutdown: str
    signal: signal.Signals
    worker: str
    reloaded: list[str]
    ended: str

    def reload(self, seen: Proxied) -> int:
        """Reload it, and return the old worker, which does nothing more than serve its connections to their end."""
        proxy = seen.proxy
        proxy.wait_for_log(self.worker)
        old, since = int(re.findall(self.worker, proxy.log())[-1]), proxy.position()
        os.kill(proxy.pid, self.signal)
        for pattern in [self.worker, *self.reloaded]:
            proxy.wait_for_log(pattern, since=since)
        assert not self.has_ended(seen, old)
        return old

    def has_ended(self, seen: Proxied, worker: int) -> bool:
        """Tell whether a worker has ended."""
        return re.search(self.ended.format(worker), seen.proxy.log()) is not None

    def wait_for_end(self, seen: Proxied, worker: int) -> None:
        """Wait until a worker has ended."""
        seen.proxy.wait_for_log(self.ended.format(worker))


PROXIES = [
    Proxy(
        "nginx",
        nginx,
        rewrites_host=f"""{PASS_UPGRADE}
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Proto https;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;""",
        shutdown="worker_shutdown_timeout 1s;",
        signal=signal.SIGHUP,
        worker=r"start worker process (\d+)",
        reloaded=["gracefully shutting down"],
        ended="worker process {} exited",
    ),
    Proxy(
        "haproxy",
        haproxy,
        rewrites_host="""option forwardfor
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request set-header X-Forwarded-Proto https
    http-request set-header Host internal""",
        shutdown="hard-stop-after 1s",
        signal=signal.SIGUSR2,
        worker=r"New worker \((\d+)\) forked",
        reloaded=["Proxy front stopped", "Loading success"],
        ended=r"Former worker \({}\) exited",
    ),
]


@contextmanager
def behind_nginx(folder: Path, app: str) -> Iterator[Server]:
    """gunicorn's gevent worker behind nginx."""
    with gunicorn(app) as server, nginx(server, folder) as seen:
        yield seen


@contextmanager
def behind_haproxy(folder: Path, app: str) -> Iterator[Server]:
    """gunicorn's gevent worker behind haproxy."""
    with gunicorn(app) as server, haproxy(server, folder) as seen:
        yield seen
