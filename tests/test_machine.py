"""One whole live connection against a model of the contract, in sequences of events that Hypothesis makes up.

A `Connection` machine has a client's socket at one end and a real server, with the handler `Scripted`, at the other.
Rules put frames, damaged ones among them, into the client's outgoing bytes and send these in parts; put messages into
the mailbox and push, from a greenlet and from an OS thread; and end the connection in every way there is. What a
callback returns is told by the message that it gets, so the model knows what each message must lead to.

Checked while nothing has ended it: everything arrives. Checked at the end: callbacks of each sender came in order; the
client got what they returned, in their order, and the pushes of each sender in theirs; the state went from callback to
callback; ``terminate`` came once, last, and with the reason and the close code of one of the causes there were; a close
frame is the last thing that is sent; the greenlet has ended, and nothing was printed in the hub.

A longer run: ``MACHINE_EXAMPLES=5000 pytest tests/test_machine.py``, which is random.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import gevent
from gevent import socket
from gevent.event import Event
from gevent.pywsgi import WSGIServer
from gevent.threadpool import ThreadPool
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from support import DEADLINE, application, handshake, read_head
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from websock_gevent import Deflate, MessageTooBig, ProtocolError, WebSock, current
from websock_gevent.mailbox import _owner

LIMIT = 100  # max_mailbox
LARGEST = 100_000  # max_message_size
EXAMPLES = int(os.environ.get("MACHINE_EXAMPLES", 0))

#: Opcode and payload of a frame that the client gets.
Sent = tuple[int, bytes]


class End(NamedTuple):
    """How a connection ends.

    Attributes:
        reason: For ``terminate``; an exception is told by its class.
        code: Of our close frame; ``None`` if there is none.
        text: Of our close frame; ``None`` if it does not matter.
    """

    reason: Any
    code: int | None = None
    text: str | None = ""


class Cause(NamedTuple):
    """Something that must end the connection, unless something else does so before.

    Attributes:
        end: How.
        source: Whose calls come until then and no further.
        calls: How many of them do; ``None`` if that cannot be told.
    """

    end: End
    source: str = ""
    calls: int | None = None


# What callbacks return.


class Script(NamedTuple):
    """What a callback returns if it is told so.

    Attributes:
        result: Of the message's tag and the next state.
        sent: What reaches the client then.
        end: The end that follows, if one does.
        commits: Whether the state is accepted.
    """

    result: Callable[[str, int], Any]
    sent: Callable[[bytes], list[Sent]] = lambda tag: []
    end: Callable[[str], End | None] = lambda tag: None
    commits: bool = True


def ending(reason: Any, code: int, text: str = "") -> Callable[[str], End]:
    return lambda tag: End(reason, code, text)


def bad(result: Callable[[str, int], Any], error: type[BaseException] = TypeError) -> Script:
    """Something that is none of the results."""
    return Script(result, end=ending(("error", error), 1011), commits=False)


def throw(error: BaseException) -> Any:
    raise error


def push_and_return(tag: str, state: int) -> Any:
    assert current().push(tag + " pushed")
    return "push", tag, state


TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
BIG = b"-" * 70_000
SCRIPTS: dict[str, Script] = {
    "ok": Script(lambda tag, state: ("ok", state)),
    "text": Script(lambda tag, state: ("push", tag, state), lambda tag: [(TEXT, tag)]),
    "bytes": Script(lambda tag, state: ("push", tag.encode(), state), lambda tag: [(BINARY, tag)]),
    "array": Script(lambda tag, state: ("push", bytearray(tag.encode()), state), lambda tag: [(BINARY, tag)]),
    "view": Script(lambda tag, state: ("push", memoryview(tag.encode()), state), lambda tag: [(BINARY, tag)]),
    "tagged": Script(lambda tag, state: ("push", ("text", tag, True), state), lambda tag: [(TEXT, tag)]),
    "plain": Script(lambda tag, state: ("push", ("binary", tag.encode(), False), state), lambda tag: [(BINARY, tag)]),
    "ping": Script(lambda tag, state: ("push", ("ping", tag.encode()), state), lambda tag: [(PING, tag)]),
    "pong": Script(lambda tag, state: ("push", [("pong", tag.encode())], state), lambda tag: [(PONG, tag)]),
    "nothing": Script(lambda tag, state: ("push", [], state)),
    "big": Script(lambda tag, state: ("push", tag.encode() + BIG, state), lambda tag: [(BINARY, tag + BIG)]),
    "reply": Script(
        lambda tag, state: ("reply", object(), [tag, tag.encode()], state), lambda tag: [(TEXT, tag), (BINARY, tag)]
    ),
    "past": Script(push_and_return, lambda tag: [(TEXT, tag + b" pushed"), (TEXT, tag)]),
    "block": Script(lambda tag, state: ("push", tag, state), lambda tag: [(TEXT, tag)]),
    "normal": Script(lambda tag, state: ("stop", "normal", state), end=ending("normal", 1000)),
    "restart": Script(lambda tag, state: ("stop", ("shutdown", "restart"), state), end=ending("normal", 1012)),
    "gone": Script(lambda tag, state: ("stop", ("shutdown", "disconnected"), state), end=ending("normal", 1000)),
    "other": Script(lambda tag, state: ("stop", tag, state), end=lambda tag: End(("error", tag), 1011)),
    "list": Script(lambda tag, state: ("stop", [tag], state), end=lambda tag: End(("error", [tag]), 1011)),
    "code": Script(lambda tag, state: ("stop", "normal", 4001, state), end=ending("normal", 4001)),
    "why": Script(
        lambda tag, state: ("stop", "odd", (3000, "why"), state), end=ending(("error", "odd"), 3000, "why")
    ),
    "last": Script(
        lambda tag, state: ("stop", "normal", (1013, None), [tag, tag.encode()], state),
        lambda tag: [(TEXT, tag), (BINARY, tag)],
        ending("normal", 1013),
    ),
    "raise": bad(lambda tag, state: throw(LookupError(tag)), LookupError),
    "time out": bad(lambda tag, state: throw(gevent.Timeout(1)), gevent.Timeout),
    "none": bad(lambda tag, state: None),
    "unknown": bad(lambda tag, state: ("okay", state)),
    "arity": bad(lambda tag, state: ("push", tag, tag, state)),
    "half right": bad(lambda tag, state: ("push", [tag, object()], state)),
    "big ping": bad(lambda tag, state: ("push", ("ping", bytes(126)), state), ValueError),
    "opcode": bad(lambda tag, state: ("push", ("close", b""), state), ValueError),
    "bad code": bad(lambda tag, state: ("stop", "normal", 1005, state), ValueError),
    "long text": bad(lambda tag, state: ("stop", "normal", (1000, "é" * 62), state), ValueError),
    "surrogate": bad(lambda tag, state: ("push", "\ud800", state), UnicodeEncodeError),
}  # fmt: skip
QUIET = [name for name in SCRIPTS if SCRIPTS[name].end("") is None]


class Call(NamedTuple):
    """A callback with what it is told: ``name#tag``, the tag being ``sender-number``."""

    callback: str
    command: str

    @property
    def source(self) -> str:
        return self.command.partition("#")[2].partition("-")[0]

    @property
    def script(self) -> Script:
        return SCRIPTS[self.command.partition("#")[0]]

    @property
    def tag(self) -> str:
        return self.command.partition("#")[2]

    @property
    def sent(self) -> list[Sent]:
        """What reaches the client: a pong, if this is about a ping, and what the callback returned."""
        pongs = [(PONG, self.command.encode())] if self.callback == "ping" else []
        return [*pongs, *self.script.sent(self.tag.encode())]


class Scripted(WebSock[int]):
    """Does what it is told, and notes what the contract forbids."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.reasons: list[Any] = []
        self.wrong: list[str] = []
        self.changed, self.released = Event(), Event()
        self.state = 0
        self.first = ""
        self.mailbox: Any = None
        self.connection: Any = None
        self.running = False

    def init(self, state: int) -> Any:
        self.mailbox, self.connection = current(), _owner.get()
        return self._run(Call("init", self.first), state)

    def handle_in(self, message: str | bytes, state: int) -> Any:
        if isinstance(message, bytes):
            return self._run(Call("binary", message.rstrip(b"-").decode()), state)
        return self._run(Call("text", message), state)

    def handle_control(self, frame: Any, state: int) -> Any:
        return self._run(Call(frame[0], frame[1].decode()), state)

    def handle_info(self, message: Any, state: int) -> Any:
        return self._run(Call("info", message), state)

    def terminate(self, reason: Any, state: int) -> None:
        self._note(state, "terminate")
        self.reasons.append(reason)
        self.changed.set()

    def _run(self, call: Call, state: int) -> Any:
        self._note(state, call.command)
        self.calls.append(call)
        self.changed.set()
        self.running = True
        try:
            if call.command.startswith("block"):
                assert self.released.wait(DEADLINE)
            result = call.script.result(call.tag, state + 1)
        finally:
            self.running = False
        self.state += call.script.commits
        return result

    def _note(self, state: int, what: str) -> None:
        if self.running or self.reasons or state != self.state:
            self.wrong.append(f"{what}: state {state}, not {self.state}; {self.running}, {self.reasons}")


# The client.


def damaged_frames() -> dict[str, tuple[bytes, int]]:
    """What breaks the protocol wherever it stands between two messages, and the close code that answers it."""
    zeros = bytes(4)
    return {
        "unmasked": (b"\x81\x01x", 1002),
        "reserved bit": (b"\xa1\x81" + zeros + b"x", 1002),
        "opcode": (b"\x83\x80" + zeros, 1002),
        "fragmented ping": (b"\x09\x80" + zeros, 1002),
        "long ping": (b"\x89\xfe\x00\x7e" + zeros + bytes(126), 1002),
        "long form": (b"\x81\xfe\x00\x01" + zeros + b"x", 1002),
        "endless": (b"\x82\xff" + b"\xff" * 8 + zeros, 1002),
        "continuation": (b"\x80\x81" + zeros + b"x", 1002),
        "too long": (b"\x82\xff" + (LARGEST + 1).to_bytes(8, "big") + zeros + b"x" * 50, 1009),
        "fragments too long": (fragment(TEXT, BIG) + fragment(0, BIG), 1009),
        "not UTF-8": (b"\x81\x83" + zeros + b"a\xffb", 1007),
        "cut UTF-8": (fragment(TEXT, b"\xe2\x82") + fragment(0, b"", True), 1007),
        "message in a message": (fragment(BINARY, b"x") + fragment(BINARY, b"y"), 1002),
        "close of one byte": (b"\x88\x81" + zeros + b"\x03", 1002),
        "close not UTF-8": (b"\x88\x83" + zeros + b"\x03\xe8\xff", 1007),
    }


def fragment(opcode: int, payload: bytes, last: bool = False) -> bytes:
    return Frame(Opcode(opcode), payload, last).serialize(mask=True)


DAMAGED = damaged_frames()
FAREWELLS = [(1000, "bye"), (1001, ""), (4999, "é" * 61), (3000, ""), (None, ""), (1005, ""), (999, "x"), (5000, "")]


class Entry(NamedTuple):
    """Bytes to send, the call that they lead to once they are complete, and the end that they lead to.

    Attributes:
        early: The end may come before the bytes are complete.
    """

    data: bytes
    call: Call | None = None
    end: End | None = None
    early: bool = False


class Client:
    """A socket, and what came from it, taken apart."""

    def __init__(self, sock: Any, changed: Event, compress: bool) -> None:
        self.socket = sock
        self.deflate = PerMessageDeflate(False, False, 15, 15) if compress else None
        self.reading = Event()
        self.reading.set()
        self.frames: list[Sent] = []
        self.ended = False
        self._changed = changed
        self._data = b""

    def read(self) -> None:
        """Take what comes, in a greenlet of its own, until the server closes or `reading` is cleared."""
        with suppress(OSError):
            while self.reading.wait() and (data := self.socket.recv(1 << 16)):
                self._data += data
                self.frames += self._complete()
                self._changed.set()
        self.ended = True
        self._changed.set()

    def _complete(self) -> Iterator[Sent]:
        while len(self._data) >= 2:
            first, size = self._data[:2]
            start = {126: 4, 127: 10}.get(size, 2)
            size = int.from_bytes(self._data[2:start], "big") if start > 2 else size
            if len(self._data) < max(2, start) + size:
                return
            payload, self._data = self._data[start : start + size], self._data[start + size :]
            yield self._plain(first, payload)

    def _plain(self, first: int, payload: bytes) -> Sent:
        if first & 0x40:
            assert self.deflate is not None
            payload = bytes(self.deflate.decode(Frame(Opcode(first & 15), payload, rsv1=True)).data)
        assert first & 0xB0 == 0x80, f"first byte {first:02x}"
        return first & 15, payload

    @property
    def close(self) -> bytes | None:
        """The payload of the server's close frame."""
        return next((payload for opcode, payload in self.frames if opcode == CLOSE), None)

    @property
    def leftover(self) -> bytes:
        return self._data


def socket_pair(tcp: bool) -> tuple[Any, Any]:
    if not tcp:
        return socket.socketpair()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


# The machine.

quiet_names = st.sampled_from(QUIET)
names = st.integers(0, 9).flatmap(lambda number: quiet_names if number else st.sampled_from(sorted(SCRIPTS)))
#: Ends come when something has happened.
late = precondition(lambda self: self.count > 9)


class Connection(RuleBasedStateMachine):
    """The model, the client and the server of one connection."""

    def __init__(self) -> None:
        super().__init__()
        self.handler = Scripted()
        self.errors = io.StringIO()
        gevent.get_hub().exception_stream = self.errors
        self.threads = ThreadPool(1)
        self.count = 0
        self.queue: list[Entry] = []
        self.expected: dict[str, list[Call]] = {"init": [], "wire": [], "greenlet": [], "thread": []}
        self.pushed: dict[str, list[Sent]] = {"pushes": [], "afar": []}
        self.causes: list[Cause] = []
        self.dead: set[str] = set()
        self.promises: list[tuple[Any, Callable[[], None]]] = []
        self.client: Any = None
        self.deaf = self.cut_off = self.killed = False
        self.farewell = "close"

    # Beginning.

    @initialize(
        name=st.sampled_from(QUIET) | names,
        compress=st.booleans(),
        tcp=st.booleans(),
        early=st.lists(quiet_names, max_size=2),
        farewell=st.sampled_from(["close", "drop", "half close", "noise"]),
    )
    def connect(self, name: str, compress: bool, tcp: bool, early: list[str], farewell: str) -> None:
        """Open it, with messages right behind the handshake."""
        self.farewell = farewell
        ours, theirs = socket_pair(tcp)
        ours.settimeout(DEADLINE)
        self.client = Client(ours, self.handler.changed, compress)
        self.handler.first = self._command(name, "init")
        self._expect(Call("init", self.handler.first))
        self.server = gevent.spawn(self._serve, theirs, compress)
        self.server.rawlink(lambda _: self.handler.changed.set())
        for each in early:
            self.message(each, False, [], [])
        offer = {"Sec_WebSocket_Extensions": "permessage-deflate"} if compress else {}
        ours.sendall(handshake(**offer) + self._take(1 << 20))
        head = read_head(ours)
        assert (b"permessage-deflate" in head) == compress
        gevent.spawn(self.client.read)
        self._wait(lambda: self.handler.calls)

    def _serve(self, sock: Any, compress: bool) -> None:
        settings: Any = Deflate(server_max_window_bits=15, threshold=20) if compress else False
        app = application(
            self.handler,
            0,
            timeout=None,
            ping_interval=None,
            close_timeout=6 * DEADLINE,
            send_timeout=6 * DEADLINE,
            max_mailbox=LIMIT,
            max_message_size=LARGEST,
            compress=settings,
        )
        server = WSGIServer(("127.0.0.1", 0), app, log=None, error_log=self.errors)
        try:
            server.handle(sock, ("127.0.0.1", 0))
        finally:
            sock.close()

    # What the client sends.

    @rule(
        name=names,
        binary=st.booleans(),
        cuts=st.lists(st.floats(0, 1), max_size=3),
        between=st.lists(st.tuples(st.sampled_from(["ping", "pong"]), quiet_names), max_size=2),
    )
    def message(self, name: str, binary: bool, cuts: list[float], between: list[tuple[str, str]]) -> None:
        """A message, whole or in fragments, perhaps with control frames between these."""
        call = Call("binary" if binary else "text", self._command(name, "wire"))
        payload = call.command.encode() + (BIG if binary and name == "big" else b"")
        places = sorted(int(cut * len(payload)) for cut in cuts)
        parts = [payload[a:b] for a, b in zip([0, *places], [*places, len(payload)], strict=True)]
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            opcode = Opcode.CONT if number else Opcode.BINARY if binary else Opcode.TEXT
            self._queue(self._frame(opcode, part, last), call if last else None)
            if not last and between:
                self.control(*between.pop())

    @rule(callback=st.sampled_from(["ping", "pong"]), name=names)
    def control(self, callback: str, name: str) -> None:
        """A ping or a pong."""
        call = Call(callback, self._command(name, "wire"))
        self._queue(self._frame(Opcode.PING if callback == "ping" else Opcode.PONG, call.command.encode()), call)

    @late
    @rule(name=st.sampled_from(sorted(DAMAGED)))
    def damage(self, name: str) -> None:
        """Something that breaks the protocol."""
        data, code = DAMAGED[name]
        error = MessageTooBig if code == 1009 else ProtocolError
        self.queue.append(Entry(data, end=End(("error", error), code, None), early=True))

    @late
    @rule(farewell=st.sampled_from(FAREWELLS), inside=st.booleans())
    def client_closes(self, farewell: tuple[int | None, str], inside: bool) -> None:
        """A close frame, perhaps inside a message."""
        code, text = farewell
        if inside:
            self._queue(self._frame(Opcode.TEXT, b"begun", False))
        answer = 1000 if code is None else 1002 if code in (1005, 999, 5000) else code
        payload = b"" if code is None else struct.pack("!H", code) + text.encode()
        self.queue.append(Entry(self._frame(Opcode.CLOSE, payload), end=End("remote", answer)))

    @rule(share=st.floats(0, 1))
    def send(self, share: float) -> None:
        """A part of what is to be sent."""
        self._send(int(share * sum(len(entry.data) for entry in self.queue)) + 1)

    @precondition(lambda self: self.count > 9 and not self.deaf)
    @rule(how=st.sampled_from(["half close", "close", "reset"]), share=st.floats(0, 1), whole=st.booleans())
    def cut(self, how: str, share: float, whole: bool) -> None:
        """The end of the client's stream, at any byte."""
        self._send(int((1 if whole else share) * sum(len(entry.data) for entry in self.queue)))
        self.queue.clear()
        end = End(("error", "closed"))
        if how == "half close":
            self._cause(end, "wire", len(self.expected["wire"]))
        else:
            self._cause(end)  # what was sent before may be lost, as the kernel sends RST if something is unread
        self._leave(how)

    # What the server's side does.

    @rule(name=names)
    def mail(self, name: str) -> None:
        """A message into the mailbox, from this greenlet."""
        call = Call("info", self._command(name, "greenlet"))
        if self.handler.mailbox.send(call.command):
            self._expect(call)
        else:
            assert self.causes

    @rule(chosen=st.lists(names, min_size=1, max_size=4))
    def mail_from_afar(self, chosen: list[str]) -> None:
        """Messages into the mailbox, from an OS thread, which is not waited for."""
        for name in chosen:
            call = Call("info", self._command(name, "thread"))
            promise = self.threads.spawn(self.handler.mailbox.send, call.command)
            self._expect(call)
            self.promises.append((promise, lambda: None))

    @rule(afar=st.booleans(), sizes=st.lists(st.sampled_from([0, 10, 300_000]), min_size=1, max_size=3))
    def push(self, afar: bool, sizes: list[int]) -> None:
        """Messages to the client, past the handler, also while it blocks."""
        source = "afar" if afar else "pushes"
        texts = [f"{self._command('', source)[1:]} {'.' * size}" for size in sizes]
        frames = [(TEXT, text.encode()) for text in texts]
        if afar:
            promise = self.threads.spawn(self.handler.mailbox.push, texts)
            self.promises.append((promise, lambda: self.pushed["afar"].extend(frames)))
        elif self.handler.mailbox.push(texts):
            self.pushed[source] += frames
        else:
            assert self.causes

    @precondition(lambda self: not self.causes and not self.promises and not self.deaf)
    @rule(chosen=st.lists(quiet_names, max_size=3))
    def block(self, chosen: list[str]) -> None:
        """A callback that blocks does not keep back what was returned before."""
        for name in [*chosen, "block"]:
            self.message(name, False, [], [])
        self.client.reading.set()
        self.handler.released.clear()
        self._send(1 << 30)
        self._wait(lambda: self.causes or self.handler.running or len(self.handler.calls) == self._wanted_calls())
        if not self.causes:
            self.what_is_due_arrives()

    @rule()
    def stop_reading(self) -> None:
        """The client reads no more, until something is waited for."""
        self.client.reading.clear()

    @precondition(lambda self: not self.causes and not self.promises)
    @rule()
    def what_is_due_arrives(self) -> None:
        """What was pushed is there, though the handler blocks, and what it had returned before."""
        self.client.reading.set()
        done = self.handler.calls[:-1] if self.handler.running else self.handler.calls
        wanted = sum(map(len, self.pushed.values())) + sum(len(call.sent) for call in done)
        self._wait(lambda: self._received() >= wanted)

    @precondition(lambda self: self.count > 9 and not self.causes)
    @rule()
    def flood(self) -> None:
        """More mail than may wait."""
        accepted = True
        while accepted:
            call = Call("info", self._command("ok", "greenlet"))
            accepted = self.handler.mailbox.send(call.command)
            if accepted:
                self._expect(call)
        self._cause(End(("error", "mailbox overflow"), 1008, "mailbox overflow"))

    @late
    @rule()
    def kill(self) -> None:
        """The greenlet is killed."""
        self.killed = True
        self._cause(End("shutdown", 1012))
        self.server.kill(block=False)

    @late
    @rule(code=st.sampled_from([1001, 1012]), text=st.sampled_from(["", "moving"]))
    def drain(self, code: int, text: str) -> None:
        """The server goes away."""
        self._cause(End("shutdown", code, text))
        self.handler.connection.shutdown(code, text)

    @rule()
    def release(self) -> None:
        """Blocked callbacks go on."""
        self.handler.released.set()

    @rule()
    def settle(self) -> None:
        """Everything that was sent arrives, or the connection ends."""
        self.client.reading.set()
        self.handler.released.set()
        self._send(1 << 30)
        self._keep_promises()
        if self.causes:
            self._wait(self._has_ended)
        else:
            calls = self._wanted_calls()
            sent = sum(map(len, self.pushed.values()))
            self._wait(lambda: len(self.handler.calls) == calls and self._received() == sent + len(self._returned()))
            self.handler.released.clear()
            self._check()

    # Bookkeeping.

    def _command(self, name: str, source: str) -> str:
        self.count += 1
        return f"{name}#{source}-{self.count}"

    def _frame(self, opcode: Opcode, payload: bytes, last: bool = True) -> bytes:
        extensions = [self.client.deflate] if self.client.deflate is not None else []
        return Frame(opcode, payload, last).serialize(mask=True, extensions=extensions)

    def _queue(self, data: bytes, call: Call | None = None) -> None:
        self.queue.append(Entry(data, call))

    def _expect(self, call: Call) -> None:
        """A call that must come, unless something ends the connection before."""
        if call.source in self.dead:
            return
        self.expected[call.source].append(call)
        end = call.script.end(call.tag)
        if end is not None:
            self._cause(end, call.source, len(self.expected[call.source]))

    def _cause(self, end: End, source: str = "", calls: int | None = None, surely: bool = True) -> None:
        """Something that ends it, surely or perhaps; of one source, nothing comes behind what surely does."""
        if source not in self.dead:
            self.causes.append(Cause(end, source, calls))
            self.dead |= {source} - {""} if surely else set()

    def _take(self, size: int) -> bytes:
        """Take so many bytes of what is to be sent; what is complete has its effects."""
        taken = b""
        while self.queue and len(taken) < size:
            entry = self.queue.pop(0)
            data = entry.data[: size - len(taken)]
            taken += data
            whole = len(data) == len(entry.data)
            if whole and entry.call is not None:
                self._expect(entry.call)
            if entry.end is not None and (whole or entry.early):
                self._cause(entry.end, "wire", len(self.expected["wire"]), whole)
            if not whole:
                self.queue.insert(0, entry._replace(data=entry.data[len(data) :]))
        return taken

    def _send(self, size: int) -> None:
        if self.deaf:
            self.queue.clear()
            return
        data = self._take(size)
        if len(data) > 1000:
            self.client.reading.set()
            self.handler.released.set()
        try:
            self.client.socket.sendall(data)
        except OSError:
            assert self.causes  # it has ended, and closed its socket

    def _leave(self, how: str) -> None:
        self.deaf = True
        sock = self.client.socket
        if how == "half close":
            with suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
            return
        self.cut_off = True
        if how == "reset" and sock.family == socket.AF_INET:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    def _keep_promises(self) -> None:
        for promise, keep in self.promises:
            if promise.get(timeout=DEADLINE):
                keep()
            else:
                assert self.causes
        self.promises.clear()

    def _has_ended(self) -> bool:
        opens = self.expected["init"][0].script.commits
        told = self.handler.reasons or not opens or self.server.ready()  # killed in init, it has not opened
        return bool(told) and bool(self.cut_off or self.client.ended or self.client.close)

    def _wait(self, done: Callable[[], Any]) -> None:
        with gevent.Timeout(DEADLINE, AssertionError("this has not happened in time")):
            while not done():
                self.handler.changed.wait()
                self.handler.changed.clear()

    # Checks.

    def _wanted_calls(self) -> int:
        return sum(map(len, self.expected.values()))

    def _received(self) -> int:
        return sum(opcode != CLOSE for opcode, _ in self.client.frames)

    def _returned(self) -> list[Sent]:
        return [frame for call in self.handler.calls for frame in call.sent]

    def _check(self) -> None:
        """What holds at any time."""
        assert not self.handler.wrong and not self.errors.getvalue()
        for source, calls in self.expected.items():
            assert [call for call in self.handler.calls if call.source == source] == calls[: self._called(source)]
        frames = [frame for frame in self.client.frames if frame[0] != CLOSE]
        complete = not (self.cut_off or self.killed)
        returned, got = self._returned(), [frame for frame in frames if _sender(frame[1]) not in self.pushed]
        assert got == (returned if complete else returned[: len(got)])
        for source, pushed in self.pushed.items():
            got = [frame for frame in frames if _sender(frame[1]) == source]
            assert got == (pushed[: len(got)] if self.causes else pushed)

    def _called(self, source: str) -> int:
        return sum(call.source == source for call in self.handler.calls)

    def teardown(self) -> None:
        """End it, if nothing has, and look at all of it."""
        try:
            if self.client is not None:
                self._finish()
        finally:
            gevent.get_hub().exception_stream = None
            del gevent.get_hub().exception_stream
            self.threads.kill()

    def _finish(self) -> None:
        self.settle()
        if not self.causes:
            self.client_closes((1000, "bye"), False)
            self.settle()
        if not self.deaf:
            self._say_goodbye()
        self.server.join(DEADLINE)
        assert self.server.ready() and self.server.exception is None
        if not self.cut_off:
            self._wait(lambda: self.client.ended)
            self.client.socket.close()
        assert not self.handler.mailbox.send("late") and not self.handler.mailbox.push("late")
        self._check()
        self._check_end()

    def _say_goodbye(self) -> None:
        """Answer the server's close frame, or do something else instead."""
        with suppress(OSError):
            if self.farewell == "noise":
                self.client.socket.sendall(self._frame(Opcode.TEXT, b"text#wire-0") + DAMAGED["opcode"][0])
            elif self.farewell == "close":
                self.client.socket.sendall(self._frame(Opcode.CLOSE, b"\x03\xe8"))
        if self.farewell == "drop":
            self._leave("close")
        else:
            self._wait(lambda: self.client.ended or self.farewell == "half close")
            self._leave("half close")

    def _check_end(self) -> None:
        handler, client = self.handler, self.client
        opened = handler.state > 0
        assert len(handler.reasons) == opened
        reason = _told(handler.reasons[0] if opened else handler.connection.reason)
        close = client.close
        assert close is None or client.frames[-1] == (CLOSE, close)
        assert self.cut_off or self.killed or not client.leftover
        assert any(self._explains(cause, reason, close) for cause in self.causes), (reason, close, self.causes)

    def _explains(self, cause: Cause, reason: Any, close: bytes | None) -> bool:
        end = cause.end
        if reason != end.reason or (cause.calls is not None and self._called(cause.source) != cause.calls):
            return False
        if close is None:
            return end.code is None or self.cut_off or self.killed
        text = close[2:].decode()
        return end.code == int.from_bytes(close[:2], "big") and end.text in (None, text)


def _sender(payload: bytes) -> str:
    """Who made what the client got."""
    return payload.partition(b"-")[0].decode(errors="replace")


def _told(reason: Any) -> Any:
    """A reason, with the class of an exception in place of it."""
    if isinstance(reason, tuple) and isinstance(reason[1], BaseException):
        return reason[0], type(reason[1])
    return reason


TestConnection = Connection.TestCase
TestConnection.settings = settings(
    max_examples=EXAMPLES or 150,
    stateful_step_count=30,
    derandomize=not EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
