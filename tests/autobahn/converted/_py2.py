"""What the converted sources need to keep Python 2's octet strings."""

from __future__ import annotations

import binascii as _binascii
import os as _os
from typing import Any

from autobahn.websocket.utf8validator import Utf8Validator as _Utf8Validator


def octets(x: Any) -> bytes:
    return x.encode("latin-1") if isinstance(x, str) else bytes(x)


def norm(x: Any) -> Any:
    """x with every str in it as octets, for comparing expected with received."""
    if isinstance(x, (str, bytes, bytearray)):
        return octets(x)
    if isinstance(x, (list, tuple)):
        return type(x)(norm(y) for y in x)
    return x


def text(x: Any) -> Any:
    """Something for a report: octets read as UTF-8 where they are that."""
    if isinstance(x, (bytes, bytearray)):
        try:
            return bytes(x).decode("utf-8")
        except UnicodeDecodeError:
            return bytes(x).decode("latin-1")
    return x


def prose(x: str) -> str:
    """A description: latin-1 guise back to the UTF-8 the source file holds."""
    return x.encode("latin-1").decode("utf-8", "replace")


def b2a_hex(x: Any) -> str:
    return _binascii.b2a_hex(octets(x)).decode("ascii")


hexlify = b2a_hex


def resource_filename(package: str, name: str) -> str:
    assert package == "autobahntestsuite"
    return _os.path.join(_os.path.dirname(_os.path.abspath(__file__)), name)


class Utf8Validator(_Utf8Validator):  # type: ignore[misc]
    def validate(self, x: Any) -> Any:
        return _Utf8Validator.validate(self, octets(x))


class Length(int):
    """autobahn 0.10.9 writes payload_len / len(payload) and wants an int."""

    def __truediv__(self, other: int) -> int:  # type: ignore[override]
        return int(self) // other
