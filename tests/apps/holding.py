"""Count what a process holds."""

from __future__ import annotations

import gc
import os
from collections import Counter

import greenlet
from gevent._hub_local import get_hub_if_exists

OURS = ("websock_gevent.connection", "websock_gevent.mailbox", "websock_gevent.waiter", "websock_gevent.websocket")


def holding() -> dict[str, int]:
    """File descriptors, greenlets, watchers, threads, objects of the library, and bytes of memory."""
    gc.collect()
    things = gc.get_objects()
    kinds: Counter[str] = Counter()
    for thing in things:
        # Whoever asks a lazy object, such as Django's settings, for its class, wakes it; ``type`` does not.
        if issubclass(type(thing), greenlet.greenlet) and not thing.dead and thing.parent is not None:
            kinds["greenlets"] += 1
        elif type(thing).__module__ in OURS:
            kinds[f"{type(thing).__module__}.{type(thing).__name__}"] += 1
    hub = get_hub_if_exists()
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    return {
        **kinds,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "watchers": hub.loop.activecnt if hub is not None else 0,
        "threads": len(os.listdir("/proc/self/task")),
        "memory": pages * os.sysconf("SC_PAGESIZE"),
    }
