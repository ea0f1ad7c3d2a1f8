"""The application ``served``, which writes into the log whatever the signals tell: ``told``, the event, and JSON."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import fields, is_dataclass
from typing import Any

from served import app

from websock_gevent import signals

__all__ = ["app"]


def plain(value: Any) -> Any:
    """As JSON has it; what it has no word for is left out."""
    if is_dataclass(value):
        pairs = {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        return {name: each for name, each in pairs.items() if each != "left out"}
    return value if isinstance(value, (str, int, float, tuple, type(None))) else "left out"


def tell(sender: Any, event: Any) -> None:
    """Write it."""
    shown = {**plain(event), "pid": os.getpid()}
    sys.stderr.write(f"told {type(event).__name__} {json.dumps(shown, default=repr)}\n")


for name in ("connection_started", "connection_stopped", "upgrade_refused", "drain_started", "drain_finished"):
    getattr(signals, name).connect(tell)
