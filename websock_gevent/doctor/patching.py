"""What was imported before gevent patched the process, and keeps what blocks; what was started before gunicorn forks.

gevent patches modules in place, so whoever imported one early is served all the same. Who took something *out of* it
(``from time import sleep``, a class derived from ``ssl.SSLSocket``) keeps the original, which stops the whole worker
when it waits. These are found by looking for the originals in the modules that were imported.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from gevent import Greenlet, monkey

from .findings import Finding, ok, problem, warning

__all__ = ["FIRST_LINE", "is_patched", "kept_originals", "patch", "started", "what_runs"]

#: How the names begin of those that wait in the kernel, whoever calls them; or, for ``ssl``, no longer fit each other.
#: Others look up what they wait for in their own, patched module (``queue.Queue``, ``subprocess.run``), or are locks.
_WAITING = (
    "queue.SimpleQueue",
    "select.",
    "selectors.",
    "socket.get",
    "socket.socket",
    "ssl.SSL",
    "subprocess.Popen",
    "time.sleep",
)
#: What makes it so.
FIRST_LINE = "from gevent import monkey; monkey.patch_all() as the very first line"


def is_patched() -> bool:
    """Tell whether gevent has patched this process."""
    return bool(monkey.is_module_patched("socket"))


def patch() -> None:
    """Do what gunicorn's gevent worker does before it loads an application. What it would warn of is told better."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monkey.patch_all()


def kept_originals(where: str) -> Iterator[Finding]:
    """Look for what escaped the patching.

    Args:
        where: Where the first line is to stand.
    """
    originals = dict(_originals())
    kept: dict[str, list[str]] = {}
    for name, module in sorted(sys.modules.items()):
        package = name.partition(".")[0]
        if package not in sys.stdlib_module_names and package not in ("gevent", "gunicorn"):
            kept.setdefault(package, []).extend(_kept(module, originals))
    for package, names in kept.items():
        if names:
            seen = (
                f"{package} was imported before gevent patched the process, and keeps {', '.join(sorted(set(names)))}"
            )
            yield problem("monkey patching", seen, f"{FIRST_LINE} {where}")
    if not any(kept.values()):
        yield ok("monkey patching", "nothing that was imported keeps what blocks")


def _originals() -> Iterator[tuple[int, str]]:
    for module, names in monkey.saved.items():  # type: ignore[attr-defined]
        for name, value in names.items():
            if f"{module}.{name}".startswith(_WAITING):
                yield id(value), f"{module}.{name}"


def _kept(module: ModuleType, originals: dict[int, str]) -> Iterator[str]:
    """Originals among a module's names, and behind classes that it has derived from one."""
    for value in list(vars(module).values()):
        bases = value.__mro__ if isinstance(value, type) and value.__module__ == module.__name__ else (value,)
        yield from (originals[id(base)] for base in bases if id(base) in originals)


def what_runs() -> dict[str, set[Any]]:
    """Threads, greenlets and sockets of this process, by the identities they have."""
    greenlets = {id(found) for found in gc.get_objects() if issubclass(type(found), Greenlet) and not found.dead}
    return {"thread": set(threading.enumerate()), "greenlet": greenlets, "socket": set(_sockets())}


def _sockets() -> Iterator[str]:
    """Where the system tells."""
    folder = "/proc/self/fd"
    for number in os.listdir(folder) if os.path.isdir(folder) else ():
        try:
            target = os.readlink(f"{folder}/{number}")
        except OSError:  # the listing's own
            continue
        if target.startswith("socket:"):
            yield target


def started(before: dict[str, set[Any]]) -> Iterator[Finding]:
    """Tell what has been started since `what_runs` was asked, in a process that is about to fork its workers."""
    for kind, now in what_runs().items():
        count = len(now - before[kind])
        if count:
            does = "is shared by all workers" if kind == "socket" else "does not run in any worker"
            seen = f"{kind}s from before the fork, {count} of them: each {does}"
            yield warning("preload_app", seen, "start it when it is used first, or in gunicorn's post_fork")
