"""How gunicorn runs the applications here; it finds this file by itself and skips what it does not know."""

from __future__ import annotations

workers = 1
worker_connections = 20_000
backlog = 2048
loglevel = "warning"  # the access log is off by default
graceful_timeout = 1
control_socket_disable = True  # two gunicorns at once would fight over its one path
