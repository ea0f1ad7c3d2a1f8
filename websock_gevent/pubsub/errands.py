"""What is to be done at the server, in its order: each thing again and again until the server has taken it.

Owns the queue. Refuses to know what is done, and who does it: `Errands.run` is called in the listener's thread.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from time import monotonic

from .errors import PubSubError, Unavailable

__all__ = ["Errands"]

logger = logging.getLogger("websock_gevent")

#: Seconds before what the server has refused is tried again.
PAUSE = 2.0


class Errands:
    """The queue. Anybody may `add`; `run` is for one thread."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], object]] = deque()
        self._next = 0.0
        self._complaint = ""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, function: Callable[[], object]) -> None:
        """Have something done, behind all that was added before."""
        self._waiting.append(function)

    @property
    def due(self) -> float:
        """When (`time.monotonic`) the next one is to be done; infinite if there is none."""
        return self._next if self._waiting else math.inf

    def run(self, seconds: float) -> None:
        """Do what is due, for so long.

        Raises:
            Unavailable: the server is away; what was begun will be done again.
        """
        until = monotonic() + seconds
        while self.due <= monotonic() < until:
            try:
                self._waiting[0]()
            except Unavailable:
                raise
            except PubSubError as error:
                self._complain(str(error))
                self._next = monotonic() + PAUSE
                return
            except Exception:  # ours; it would fail again
                logger.exception("PubSub: an errand failed")
            self._complaint = ""
            self._waiting.popleft()

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            logger.warning("PubSub: %s; it will be tried again", text)
