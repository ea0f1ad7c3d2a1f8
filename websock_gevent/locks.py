"""Real locks, whether or not the process is monkey-patched. Knows nothing of what they guard.

They are held for a moment, and never across anything that may block or switch: then they are safe for greenlets and
threads alike, and the same in a process that was patched after they were made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gevent import monkey

__all__ = ["new_lock"]

new_lock: Callable[[], Any] = monkey.get_original("_thread", "allocate_lock")
