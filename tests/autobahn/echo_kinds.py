"""Makes the servers of ../kinds.py serve echo.py instead of their own application."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import serving

APPS = {"served:app": "echo:app", "patched:app": "echo_patched:app", "views_decide:app": "echo_views_decide:app"}


class EchoServer(serving.Server):
    """A server whose command line names another application."""

    def __init__(self, command: Sequence[str], **more: Any) -> None:
        super().__init__([APPS.get(word, word) for word in command], **more)


serving.Server = EchoServer  # type: ignore[misc]
