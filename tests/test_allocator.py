"""Long messages do not get their memory from the kernel anew, one after the other, unless somebody wants it so.

Counted are page faults, in a process of its own: what an allocator has learned, it keeps.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

MESSAGES = 20
#: A client's text of so many bytes comes in pieces, and is encoded again: as much memory as an echo takes.
ECHOES = """
import resource, sys
from websock_gevent.messages import MessageReader
from websock_gevent.websock import encode

size, count, most = int(sys.argv[1]), int(sys.argv[2]), 1 << 18
head = b"\\x81\\xff" + size.to_bytes(8, "big") + bytes(4)
reader = MessageReader(1 << 25, 1 << 25)

def echo():
    reader.feed(head)
    assert reader.next_item() is None
    for at in range(0, size, most):
        reader.feed(b"x" * min(most, size - at))
        item = reader.next_item()
    encode(item[1], split=True)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(3):
    echo()
before = faults()
for _ in range(count):
    echo()
print(faults() - before)
"""


def page_faults(size: int, **settings: str) -> float:
    """Count those of one message, once such messages are usual."""
    command = [sys.executable, "-c", ECHOES, str(size), str(MESSAGES)]
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    done = subprocess.run(command, env={**plain, **settings}, check=True, capture_output=True, text=True)
    return int(done.stdout) / MESSAGES


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have other rules")
@pytest.mark.parametrize("size", [300_000, 1_000_000, 10_000_000])
def test_long_messages_keep_their_memory_from_one_to_the_next(size: int) -> None:
    assert page_faults(size) < 4


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have other rules")
def test_what_an_administrator_has_set_is_left_alone() -> None:
    size = 1_000_000
    pages = size / os.sysconf("SC_PAGE_SIZE")
    assert page_faults(size, MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072") > pages
