"""The other processes: each tells its summary as long as somebody looks anywhere, and forgets who is silent.

Owns two topics of a `PubSub`. Who looks says so on one of them each second; who hears that tells its summary on the
other, which nobody listens to but those who look. Refuses to know what is in a summary. All of it is done by one thread
(a greenlet, where threads are patched), since Redis may make it wait.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from ... import addresses
from ...mailbox import Mailbox
from ...pubsub.errors import PubSubError
from ...pubsub.pubsub import PubSub
from ...signals import connection_started
from .watching import Watch

__all__ = ["Cluster"]

logger = logging.getLogger("websock_gevent")

#: The topics. Whoever changes what is said on them counts the number up.
LOOK, TELL = "websock_gevent.live.1.look", "websock_gevent.live.1.tell"
#: Seconds between two words, after which nobody looks any more, and after which a silent process is gone.
BEAT, LOOKING, LIFETIME = 1.0, 3.0, 5.0


class _Ear(Mailbox):
    """A mailbox without a connection: what comes is given to a function, in whatever thread it comes."""

    def __init__(self, hear: Callable[[Any], None]) -> None:
        super().__init__(None, None, 0, lambda: None)  # type: ignore[arg-type]  # what only a connection has
        self._hear = hear

    def send(self, message: object) -> bool:
        """Give it to the function."""
        self._hear(message)
        return True


class Cluster:
    """What the other processes tell. Begins with the first connection of its process."""

    def __init__(self, watch: Watch, pubsub: PubSub) -> None:
        self._watch = watch
        self._pubsub = pubsub
        self._begin(0)
        connection_started.connect(self._started, weak=False)

    def _begin(self, pid: int) -> None:
        self._pid = pid
        self._heard: dict[str, tuple[float, dict[str, Any]]] = {}
        self._asked = self._looked = monotonic() - LOOKING
        self._ears: dict[str, Mailbox] = {}
        self.trouble = ""
        self._stopped = threading.Event()

    def _started(self, sender: object, event: object) -> None:
        if self._pid == os.getpid():
            return
        self._begin(os.getpid())
        threading.Thread(target=self._go_on, name="websock_gevent.live", daemon=True).start()

    def stop(self) -> None:
        """Neither tell nor hear anything any more."""
        connection_started.disconnect(self._started)
        self._stopped.set()

    def others(self) -> list[dict[str, Any]]:
        """Return the last summaries of the others that are alive: somebody looks, and asks again within seconds."""
        self._asked = now = monotonic()
        for process, (at, _) in tuple(self._heard.items()):
            if now - at > LIFETIME:
                self._heard.pop(process, None)
        return [summary for _, summary in tuple(self._heard.values())]

    def _go_on(self) -> None:
        pid, stopped = self._pid, self._stopped
        while os.getpid() == pid and not stopped.wait(BEAT):
            try:
                self._beat()
            except PubSubError as error:
                if not self.trouble:
                    logger.warning("the live view does not reach the other workers: %s", error)
                self.trouble = str(error)
            else:
                self.trouble = ""
        for ear in self._ears.values():
            ear.end("normal")

    def _beat(self) -> None:
        now = monotonic()
        self._listen(LOOK, self._on_look)
        if now - self._asked < LOOKING:
            self._listen(TELL, self._on_tell)
            self._pubsub.broadcast(LOOK, addresses.process())
        elif TELL in self._ears:
            self._ears.pop(TELL).end("normal")
        if now - self._looked < LOOKING:
            self._pubsub.broadcast(TELL, self._watch.summary())

    def _listen(self, topic: str, hear: Callable[[Any], None]) -> None:
        if topic not in self._ears:
            ear = _Ear(hear)
            self._pubsub.subscribe(topic, ear)
            self._ears[topic] = ear

    def _on_look(self, message: Any) -> None:
        if message != addresses.process():
            self._looked = monotonic()

    def _on_tell(self, message: Any) -> None:
        process = message.get("process") if isinstance(message, dict) else None
        if isinstance(process, str) and process != addresses.process():
            self._heard[process] = monotonic(), message
