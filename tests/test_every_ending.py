"""Every ending of the contract's tables under every kind of server: the close code, and what ``terminate`` gets, once.

And behind a thousand of them: no file descriptor, greenlet, watcher, thread or object is left.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import NamedTuple
from urllib.parse import quote

import pytest
from apps.defaults import IDLE
from kinds import Kind
from raw import Raw, close_frame, diary, masked, new_key, unmasked
from serving import Server
from websockets.frames import Frame, Opcode


class Ending(NamedTuple):
    """One row.

    Attributes:
        name: What ends it.
        act: Bytes that the client sends, or what it does.
        code: Of the close frame that comes, ``0`` for an empty one, ``None`` if none comes.
        reason: What ``terminate`` gets, as the diary writes it; where a text follows, its beginning.
        options: For `upgrade`.
    """

    name: str
    act: bytes | Callable[[Raw], None]
    code: int | None
    reason: str
    options: dict[str, float | int | None] = {}


def fragment(payload: bytes, opcode: Opcode) -> bytes:
    """A frame that is not the last of its message."""
    return Frame(opcode, payload, fin=False).serialize(mask=True)


def read_nothing(raw: Raw) -> None:
    """Ask for more than the kernel buffers, and do not take it."""
    raw.send(masked("flood me"))


ENDINGS = [
    Ending("the client closes", close_frame(1000, "bye"), 1000, "remote"),
    Ending("the client closes with a code of its own", close_frame(4321), 4321, "remote"),
    Ending("the client closes without a code", close_frame(None), 1000, "remote"),
    Ending("the client closes with an invalid code", close_frame(1005), 1002, "remote"),
    Ending("the client is silent", b"", 1002, "timeout", {"timeout": 0.2, "ping_interval": None}),
    Ending("the handler stops: normal", masked("stop"), 1000, "normal"),
    Ending("the handler stops: restart", masked("restart"), 1012, "normal"),
    Ending("the handler stops: any reason", masked("fail"), 1011, "error: a reason"),
    Ending("the handler stops with a code", masked("close 4002 later"), 4002, "normal"),
    Ending("a callback raises", masked("raise"), 1011, "error: the handler was told to"),
    Ending("a bad result", masked("wrong"), 1011, "error: a callback returned"),
    Ending("an unmasked frame", unmasked("x"), 1002, "error: a client's frames"),
    Ending("a reserved bit", b"\xc1" + masked("x")[1:], 1002, "error: reserved bits"),
    Ending("text that is not UTF-8", masked(b"\xff", Opcode.TEXT), 1007, "error: text is not UTF-8"),
    Ending("a close frame of one byte", masked(b"x", Opcode.CLOSE), 1002, "error: a close frame"),
    Ending("a message over the limit", masked(bytes(1001)), 1009, "error: "),
    Ending(
        "fragments over the limit",
        fragment(bytes(900), Opcode.TEXT) + fragment(bytes(900), Opcode.CONT),
        1009,
        "error: ",
    ),
    Ending("the mailbox overflows", masked("overflow"), 1008, "error: mailbox overflow", {"max_mailbox": 3}),
    Ending("the greenlet is killed in a callback", masked("die"), 1012, "shutdown"),
    Ending("the greenlet is killed while it waits", masked("be killed"), 1012, "shutdown"),
    Ending("TCP is closed", Raw.half_close, None, "error: closed"),
    Ending(
        "TCP is closed inside a frame",
        lambda raw: (raw.send(masked("cut")[:3]), raw.half_close()),
        None,
        "error: closed",
    ),
    Ending("TCP is reset", Raw.reset, None, "error: closed"),
    Ending("the client does not read", read_nothing, None, "error: send timeout", {"send_timeout": 0.2}),
]
if IDLE == "parked":  # and so has no greenlet that could be killed
    ENDINGS = [ending for ending in ENDINGS if ending.name != "the greenlet is killed while it waits"]
#: What a proxy changes: it reads what its client does not, passes frames on that it does not understand, and has its
#: own ideas about half-closed connections.
THROUGH_A_PROXY = [ending for ending in ENDINGS if ending.name != "the client does not read"]


def opened(server: Server, ending: Ending, key: str) -> Raw:
    """A client that has done its part."""
    raw = Raw(server)
    raw.upgrade(f"/ending?key={key}&options={quote(json.dumps(ending.options))}")
    if isinstance(ending.act, bytes):
        raw.send(ending.act)
    else:
        ending.act(raw)
    return raw


def seen(raw: Raw, ending: Ending) -> int | None:
    """The code of the close frame that came; nothing but it, and the end of the stream behind it."""
    if ending.act in (Raw.reset, read_nothing):
        return None
    data = raw.read(2)[:2] if ending.code is not None else b""
    if not data:
        assert raw.rest() == b""
        return None
    assert data[0] == 0x88, data
    payload = raw.read(data[1])
    with suppress(BrokenPipeError, ConnectionResetError):  # whoever was killed does not wait for an answer
        raw.send(close_frame(1000))
        assert raw.rest() == b""
    return int(struct.unpack("!H", payload[:2])[0]) if payload else 0


@pytest.mark.matrix("endings")
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.name)
def test_ending(server: Server, kind: Kind, ending: Ending) -> None:
    if kind.proxied and ending not in THROUGH_A_PROXY:
        pytest.skip("a proxy reads what its client does not")
    key = new_key()
    with opened(server, ending, key) as raw:
        assert seen(raw, ending) == ending.code
        begin, end = diary(server, key)
    assert begin == "init"
    assert isinstance(end, dict) and end["reason"].startswith(ending.reason)
    server.wait_for_log(f"ended {key}")
    server.settle()
    assert server.log().count(f"ended {key}") == 1


#: What a server's own watchers and threads come and go by: gthread makes its 20 one by one. What one kind of ending
#: left behind would be 40 of it.
UNREST, SERVERS_OWN = 20, ("greenlets", "threads", "watchers")
FAST = [ending for ending in ENDINGS if not ending.options and ending.act != masked("wrong")]
SLOW = [ending for ending in ENDINGS if ending.options]


def rounds(server: Server, count: int) -> None:
    """End so many connections, in all ways, a few at a time; those that take their time all at the same time."""

    def one(number: int) -> None:
        ending = FAST[number % len(FAST)]
        with opened(server, ending, "") as raw:
            assert seen(raw, ending) == ending.code

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(one, range(count)))
    with ExitStack() as together:
        slow = [
            (together.enter_context(opened(server, SLOW[n % len(SLOW)], "")), SLOW[n % len(SLOW)]) for n in range(12)
        ]
        for raw, ending in slow:
            assert seen(raw, ending) == ending.code
            if ending.act is not read_nothing:
                raw.socket.close()
        server.settle()


def counted(server: Server) -> dict[str, int]:
    """What the process holds."""
    server.settle()
    found: dict[str, int] = json.loads(server.get("/holds").body)
    return found


@pytest.mark.only(lambda kind: not kind.proxied)
@pytest.mark.matrix("no leak")
def test_a_thousand_endings_leave_nothing(server: Server) -> None:
    rounds(server, 60)
    before = counted(server)
    rounds(server, 1000)
    after = counted(server)
    grown = after.pop("memory") - before.pop("memory")
    unrest = {name: UNREST if name in SERVERS_OWN else 4 for name in after}
    assert {name: count for name, count in after.items() if count > before.get(name, 0) + unrest[name]} == {}
    assert grown < 8 << 20, "the allocator's own unrest is below that; a kilobyte for each ending would not be"
