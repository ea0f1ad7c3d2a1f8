"""One hint to the C library: messages of this length are usual here, keep memory for the next.

glibc maps a large block anew each time it is asked for one, and gives what is free at the end of its heap back to the
kernel. Getting it again costs a page fault for every 4 KiB, four times what everything else does to a message of a
megabyte. It learns from what it sees: when a mapped block is freed, blocks up to that size come from the heap
afterwards, and up to twice as much may stay free there (mallopt(3), M_MMAP_THRESHOLD). A worker so keeps what an echo
of its longest message needed; never more than eight times that message, or 64 MiB. Where the limits were set by hand
(``MALLOC_TRIM_THRESHOLD_``), or the allocator is another one, the hint does nothing.

Owns when that lesson is given. Refuses to know messages.
"""

from __future__ import annotations

from contextlib import suppress

__all__ = ["expect"]

#: The longest block that glibc learns from is 32 MiB, with what it adds to it.
_MOST = (1 << 25) - (1 << 13)
#: What comes in one piece off the network, and is no news for any allocator.
_LEAST = 1 << 16

_taught = 0


def expect(size: int) -> None:
    """Note that messages of so many bytes are received. Costs something only if none as long has been seen before."""
    global _taught
    # An echo takes three times the message, so the block is two to four times as long: twice that may stay.
    if size > max(_taught // 2, _LEAST) and _taught < _MOST:
        _taught = min(2 << size.bit_length(), _MOST)
        with suppress(MemoryError):
            bytes(_taught)  # mapped and unmapped; not a page of it is touched
