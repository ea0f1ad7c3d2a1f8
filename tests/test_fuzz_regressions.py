"""The fuzz targets without a fuzzer: what was found once, and a few thousand inputs, so that the targets do not rot."""

from __future__ import annotations

import random

import pytest
from fuzz.targets import SEEDS, TARGETS

#: Inputs that failed once: the target, the input, and what was wrong.
FOUND: list[tuple[str, bytes, str]] = [
    ("bytes", b"\0\0\xff\xff\x01\x81\0\0\0\0x", "a fragment that ends what was received was held twice"),
    (
        "frames",
        b"\x86" * 18 + b"\x8b" + b"\x86" * 11 + bytes(23),
        "a last block and an empty fragment behind it began a new stream",
    ),
    ("frames", b"\2\0\0077\4\5=15rvondwidwi\xff", "a last block that ended with a slice was not known to be one"),
    ("results", b"\4\3\0\7\1x", "a reason that raises ValueError when it is hashed was no reason"),
]
#: Inputs made for each target.
RUNS = {"bytes": 1500, "frames": 700, "extensions": 3000, "handshakes": 1000, "origins": 3000, "results": 3000}


@pytest.mark.parametrize(("name", "data"), [row[:2] for row in FOUND], ids=[row[2] for row in FOUND])
def test_what_was_found(name: str, data: bytes) -> None:
    TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_targets_hold(name: str) -> None:
    generator = random.Random(name)
    for seed in SEEDS[name]:
        TARGETS[name](seed)
    for _ in range(RUNS[name]):
        TARGETS[name](changed(generator.choice(SEEDS[name]), generator))


def changed(data: bytes, generator: random.Random) -> bytes:
    """Bytes with some replaced, inserted, repeated or cut off."""
    changed = bytearray(data)
    for _ in range(generator.randint(1, 4)):
        at, size = generator.randrange(len(changed) + 1), generator.randrange(4)
        changed[at : at + size] = generator.choice(
            [generator.randbytes(size), generator.randbytes(1), changed[at : at + 20] * 2, b""]
        )
    return bytes(changed)
