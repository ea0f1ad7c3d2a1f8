"""How gunicorn runs echo.py; it finds this file by itself and skips settings it does not know."""

from __future__ import annotations

workers = 1
worker_class = "gevent"
loglevel = "info"
graceful_timeout = 2
control_socket_disable = True  # two gunicorns at once would fight over its one path
