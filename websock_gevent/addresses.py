"""Names for connections that are good in the whole cluster: ``<process>.<number>``.

Owns this process's own name, made anew after a fork, and who has which address. Refuses to know how a message gets to
another process; whoever carries messages between processes asks to be told when there is an address to listen for.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from itertools import count
from typing import Any
from weakref import WeakMethod

from .locks import new_lock

__all__ = ["find", "forget", "name", "off_name", "on_name", "process", "process_of"]


class _Names:
    """The names given in one process."""

    def __init__(self) -> None:
        self.lock = new_lock()  # held for a moment only, and never across a switch: safe for greenlets and threads
        self.process = ""
        self.numbers = count(1)
        self.owners: dict[str, Any] = {}
        self.given: dict[int, str] = {}  # by the owner's id: two threads that ask at once get the same


_names = _Names()
_listeners: list[WeakMethod[Callable[[], object]]] = []


def _after_fork() -> None:
    global _names
    _names = _Names()
    _listeners.clear()  # they are copies of those that listen for the parent


os.register_at_fork(after_in_child=_after_fork)


def process() -> str:
    """Name this process: 16 hexadecimal digits that no other process, here or elsewhere, has or will have."""
    with _names.lock:
        _names.process = _names.process or secrets.token_hex(8)
        return _names.process


def process_of(address: str) -> str:
    """Name the process in which an address was given."""
    return address.rpartition(".")[0]


def name(owner: Any) -> str:
    """Give a mailbox an address. Returns when whoever asked `on_name` has seen to it that messages get here."""
    own = process()
    with _names.lock:
        address = _names.given.get(id(owner))
        if address is None:
            address = _names.given[id(owner)] = f"{own}.{next(_names.numbers)}"
            _names.owners[address] = owner
    for reference in tuple(_listeners):
        listener = reference()
        if listener is not None:
            listener()
    return address


def find(address: str) -> Any:
    """Return the mailbox that has an address in this process; ``None`` if it has ended or is elsewhere."""
    return _names.owners.get(address)


def forget(address: str) -> None:
    """An address is out of use."""
    with _names.lock:
        owner = _names.owners.pop(address, None)
        _names.given.pop(id(owner), None)


def on_name(listener: Callable[[], object]) -> None:
    """Have a method called, in the thread that asks, whenever an address is given. It is not kept alive for that."""
    _listeners[:] = [reference for reference in _listeners if reference() is not None]
    _listeners.append(WeakMethod(listener))


def off_name(listener: Callable[[], object]) -> None:
    """Take `on_name` back."""
    _listeners[:] = [reference for reference in _listeners if reference() not in (None, listener)]
