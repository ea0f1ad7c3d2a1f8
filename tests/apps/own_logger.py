"""Loggers for gunicorn's ``--logger-class``."""

from __future__ import annotations

import sys
from typing import Any

from gunicorn.glogging import Logger


class Loud(Logger):
    """Writes its own lines."""

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """A line for each request."""
        status, took = str(resp.status).split()[0], request_time.total_seconds()
        print("LOUD", status, f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}", took, file=sys.stderr, flush=True)


class Broken(Logger):
    """Cannot write."""

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Fail for a WebSocket alone."""
        if str(resp.status).startswith("101"):
            raise OSError("no room on the disk")
