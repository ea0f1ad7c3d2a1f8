"""The environment: versions, against what metadata asks for; what should be compiled; how many files may be open.

Refuses to know the application. What our package cannot be imported without is not looked for: then nobody is here to
tell.
"""

from __future__ import annotations

import importlib.util
import inspect
import platform
import re
from collections.abc import Iterator
from importlib import metadata

import gevent

from ..hosts import SPARE_FILES, most_files
from .findings import Finding, ok, problem, warning

__all__ = ["examine"]

#: Packages whose versions matter, and whose metadata says what will do.
_JUDGES = {
    "gevent": "websock-gevent",
    "greenlet": "gevent",
    "gevent-websocket": "websock-gevent",
    "Werkzeug": "websock-gevent",
    "websockets": "websock-gevent",
    "Flask": "websock-gevent",
    "gunicorn": "websock-gevent",
    "redis": "websock-gevent",
}
#: Ours that are for running, not for testing.
_EXTRAS = ("", "flask", "gunicorn", "redis")


def examine(connections: int) -> Iterator[Finding]:
    """Look at everything.

    Args:
        connections: How many WebSockets a worker is meant to hold.
    """
    yield from _versions()
    yield from _compiled()
    yield _loop()
    yield _files(connections)


def _versions() -> Iterator[Finding]:
    if importlib.util.find_spec("packaging") is None:
        seen = "not compared: the package packaging, which knows how, is not installed"
        yield warning("versions", seen, "pip install packaging")
        return
    try:
        ours = metadata.metadata("websock-gevent")
    except metadata.PackageNotFoundError:
        seen = "not compared: websock-gevent is imported from a folder, not installed"
        yield warning("versions", seen, "pip install it (-e will do)")
        return
    yield _python(str(ours["Requires-Python"]), [str(value) for value in ours.get_all("Classifier") or []])
    for name, judge in _JUDGES.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # an optional one; where it is needed, that is told when it is
        yield _compared(name, installed, _accepted(judge, name), judge)


def _python(accepted: str, classifiers: list[str]) -> Finding:
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    if not SpecifierSet(accepted).contains(version, prereleases=True):
        return problem("Python", version, f"use a Python {accepted}")
    tested = re.findall(r"Python :: (\d+\.\d+)$", "\n".join(classifiers), re.MULTILINE)
    if version.rpartition(".")[0] not in tested:
        return warning("Python", f"{version}, which is not tested with", f"use one of {', '.join(tested)}")
    return ok("Python", version)


def _accepted(judge: str, name: str) -> str:
    """What one package demands of another's version, as in ``>=3.0``; empty if nothing."""
    from packaging.requirements import Requirement

    for text in metadata.requires(judge) or []:
        found = Requirement(text)
        applies = found.marker is None or any(found.marker.evaluate({"extra": extra}) for extra in _EXTRAS)
        if found.name.lower() == name.lower() and applies:
            return str(found.specifier)
    return ""


def _compared(name: str, installed: str, accepted: str, judge: str) -> Finding:
    from packaging.specifiers import SpecifierSet

    if SpecifierSet(accepted).contains(installed, prereleases=True):
        return ok(name, installed)
    return problem(name, f"{installed}, but {judge} needs {accepted}", f"pip install '{name}{accepted}'")


def _compiled() -> Iterator[Finding]:
    if inspect.isfunction(gevent.Greenlet.start):
        seen = "runs as pure Python: all of it is slower"
        yield warning("gevent", seen, "unset PURE_PYTHON and GEVENT_PURE_PYTHON, or install a wheel of gevent")
    if importlib.util.find_spec("websockets.speedups") is None:
        seen = "has no compiled speedups here: unmasking 64 KiB takes 100 times as long"
        yield warning("websockets", seen, "install a wheel of it, or a C compiler before pip install")


def _loop() -> Finding:
    backend = str(gevent.get_hub().loop.backend)
    if backend in ("select", "poll"):
        seen = f"gevent waits by {backend}, whose cost grows with the number of connections"
        return warning("event loop", seen, "unset GEVENT_BACKEND and LIBEV_FLAGS")
    return ok("event loop", backend)


def _files(connections: int) -> Finding:
    limit = most_files()
    if limit == float("inf"):
        return ok("open files", "no limit")
    if limit < connections + SPARE_FILES:
        seen = f"{limit} allowed, which does not do for {connections} connections"
        advice = f"ulimit -n {connections + SPARE_FILES}, or LimitNOFILE= of systemd, before the server is started"
        return problem("open files", seen, advice)
    return ok("open files", f"{limit} allowed here")
