"""What ends a greenlet or the process, and is no fault of the code that it is raised in."""

from __future__ import annotations

from gevent import GreenletExit

__all__ = ["KILLS"]

#: For ``except``: whoever logs what an application raises lets these pass.
KILLS = (GreenletExit, SystemExit, KeyboardInterrupt)
