"""gunicorn behind the proxies that stand in front of it in production: nginx and haproxy, as Debian ships them."""

from __future__ import annotations

import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving import Program, Server, gunicorn

__all__ = ["Proxied", "behind_haproxy", "behind_nginx", "haproxy", "nginx"]

NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://{upstream};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            {more}
        }}
    }}
}}
"""

HAPROXY = """
global
    stats socket {folder}/admin level admin expose-fd listeners
defaults
    mode http
    option http-server-close
    timeout connect 5s
    timeout client {idle}
    timeout server {idle}
    timeout tunnel {idle}
frontend front
    bind 127.0.0.1:{port}
    {more}
    default_backend back
backend back
    server gunicorn {upstream}
"""

KEEP_HOST = "proxy_set_header Host $http_host;"


class Proxied(Server):
    """A server seen through a proxy: connections go to the proxy, the log is the server's.

    Attributes:
        behind: The server.
        proxy: The proxy.
    """

    def __init__(self, behind: Server, proxy: Program, port: int) -> None:
        self.behind = behind
        self.proxy = proxy
        self.port = port

    def __getattribute__(self, name: str) -> object:
        if name in ("log", "position", "wait_for_log", "pid", "worker_pids", "worker_pid", "stop"):
            return getattr(object.__getattribute__(self, "behind"), name)
        return object.__getattribute__(self, name)


@contextmanager
def nginx(server: Server, folder: Path, more: str = KEEP_HOST) -> Iterator[Proxied]:
    """nginx in front of a server; ``more`` goes into its ``location``."""
    config, port = folder / "nginx.conf", _free_port()
    config.write_text(NGINX.format(folder=folder, port=port, upstream=server.host, more=more))
    with _proxied(server, ["nginx", "-c", str(config), "-e", "stderr"], port) as seen:
        yield seen


@contextmanager
def haproxy(server: Server, folder: Path, more: str = "", idle: str = "30s") -> Iterator[Proxied]:
    """haproxy in front of a server; ``more`` goes into its ``frontend``."""
    config, port = folder / "haproxy.cfg", _free_port()
    config.write_text(HAPROXY.format(folder=folder, port=port, upstream=server.host, more=more, idle=idle))
    with _proxied(server, ["haproxy", "-W", "-f", str(config)], port) as seen:
        yield seen


@contextmanager
def _proxied(server: Server, command: list[str], port: int) -> Iterator[Proxied]:
    found = shutil.which(command[0], path="/usr/sbin:/usr/bin")
    assert found, f"{command[0]} is missing: run tests/setup"
    proxy = Program([found, *command[1:]])
    try:
        proxy.wait_for_port(port)
        yield Proxied(server, proxy, port)
    finally:
        proxy.end(signal.SIGTERM)


@contextmanager
def behind_nginx(folder: Path) -> Iterator[Server]:
    """gunicorn's gevent worker behind nginx."""
    with gunicorn() as server, nginx(server, folder) as seen:
        yield seen


@contextmanager
def behind_haproxy(folder: Path) -> Iterator[Server]:
    """gunicorn's gevent worker behind haproxy."""
    with gunicorn() as server, haproxy(server, folder) as seen:
        yield seen


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
