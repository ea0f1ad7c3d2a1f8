"""Every text that the package can raise, refuse with or log, read from its source.

A text is a string, or an f-string whose fields stand as ``…``, that an exception or a logger is called with, directly
or by way of a variable, a constant, a returned value or one of the package's own functions named in `CARRIERS`. The
doctor is left out: its lines say themselves what to do.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

__all__ = ["Text", "collect", "unread"]

LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
#: What is raised or answered has a class of such a name, or is told by one of these functions.
RAISED = re.compile(r"(Error|Exception|Required|Closed|TooBig|BadRequest|Forbidden|Unavailable|Unsupported|Full|Only)$")
CARRIERS = {"_refusal", "_Refused", "NotImplemented", "AccessDenied"}
#: What is raised with a text that is found elsewhere: in a function, or in the class itself.
ELSEWHERE = {
    "LookupError",
    "BrokenPipeError",
    "Refused",
    "ConnectionClosed",
    "_Deferred",
    "_translated",
    "bad_text",
    "self._end()",
    "TypeError(str(error))",
    "exceptions.NotImplemented(obstacle)",
}
FIELD = "…"


class Text(NamedTuple):
    """A text and where it stands."""

    text: str
    where: str


def collect(package: Path) -> list[Text]:
    """All texts of a package, each once."""
    found: dict[str, Text] = {}
    for path in _sources(package):
        module = _Module(path, package)
        for node in ast.walk(module.tree):
            for text in module.texts(node):
                found.setdefault(text, Text(text, f"{path.relative_to(package)}:{getattr(node, 'lineno', 0)}"))
    return list(found.values())


def _sources(package: Path) -> list[Path]:
    return sorted(path for path in package.rglob("*.py") if "doctor" not in path.relative_to(package).parts)


def unread(package: Path) -> list[str]:
    """Places where something is raised or logged, and no text was found: this module does not understand them."""
    places = []
    for path in _sources(package):
        module = _Module(path, package)
        for node in ast.walk(module.tree):
            call = node.exc if isinstance(node, ast.Raise) else node
            if not isinstance(call, ast.Call) or not (isinstance(node, ast.Raise) or _logs(call.func)):
                continue
            if not {_name(call.func), ast.unparse(call)} & ELSEWHERE and not list(module.texts(call)):
                places.append(f"{path.relative_to(package)}:{call.lineno}: {ast.unparse(call)}")
    return places


class _Module:
    """The source of one module."""

    def __init__(self, path: Path, package: Path) -> None:
        self.tree = ast.parse(path.read_text())
        parts = path.relative_to(package.parent).with_suffix("").parts
        self._name = ".".join(part for part in parts if part != "__init__")

    def texts(self, node: ast.AST) -> Iterator[str]:
        """What a call, an assignment or a function tells."""
        if isinstance(node, ast.Call) and _tells(node.func):
            for argument in node.args[:1]:
                yield from self._written(argument)
        elif isinstance(node, ast.FunctionDef) and node.name == "obstacle":
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    yield from self._written(inner.value)
        elif isinstance(node, ast.Assign) and any(_name(target) == "description" for target in node.targets):
            yield from self._written(node.value)

    def _written(self, value: ast.expr) -> Iterator[str]:
        """The texts that an expression may be; a name stands for what is assigned to it, or added, in the module."""
        if isinstance(value, ast.IfExp):
            yield from self._written(value.body)
            yield from self._written(value.orelse)
        elif isinstance(value, ast.Name):
            yield from self._assigned(value.id)
        else:
            text = _text(value)
            if text is not None and re.search(r"[A-Za-z]{2}", text.replace(FIELD, "")):
                yield text

    def _assigned(self, name: str) -> Iterator[str]:
        imported = getattr(import_module(self._name), name, None)
        if isinstance(imported, str):
            yield imported
            return
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.Assign, ast.AugAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(_name(target) == name for target in targets) and not isinstance(node.value, ast.Name):
                    yield from self._written(node.value)


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _logs(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and function.attr in LEVELS and "logger" in ast.unparse(function.value)


def _tells(function: ast.expr) -> bool:
    if _logs(function) or ast.unparse(function) in ("super().__init__", "type(error)"):
        return True
    name = _name(function)
    return RAISED.search(name) is not None or name in CARRIERS


def _text(value: ast.expr) -> str | None:
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return re.sub(r"%(\.\d)?[a-z]", FIELD, value.value)
    if isinstance(value, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else FIELD for part in value.values)
    return None
