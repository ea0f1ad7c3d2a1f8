"""What stands in the log: one line for what the network did, one traceback for what a handler did, and no secrets.

Who misbehaves here tells a secret wherever a client can tell one; none of them may be written, whatever goes wrong. Nor
may a client write a line of its own.
"""

from __future__ import annotations

import json
import logging
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import gevent
import pytest
from flask import Flask
from gevent import socket
from raw import Raw
from serving import Server, gunicorn
from support import (
    DEADLINE,
    Diary,
    application,
    frames_of,
    handshake,
    masked,
    raw_connection,
    read_all,
    read_head,
    text,
)
from websockets.frames import Frame, Opcode
from werkzeug.middleware.proxy_fix import ProxyFix

from websock_gevent import ProtocolError, WebSock, WebSocket, current, upgrade
from websock_gevent.flask import install, websocket
from websock_gevent.messages import MessageReader

SECRET = "Kennwort"
PATH = f"/chat?token={SECRET}-query"
SECRETS = {
    "Cookie": f"session={SECRET}-cookie",
    "Authorization": f"Bearer {SECRET}-bearer",
    "Sec-WebSocket-Protocol": f"chat, {SECRET}-subprotocol",
    "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
    "Referer": f"http://localhost/{SECRET}-referer",
    "User-Agent": f"{SECRET}-agent",
}
WHERE = "127.0.0.1 '/chat': "


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[pytest.LogCaptureFixture]:
    """The log at its most talkative. Nothing is written past it, and no secret into it."""
    caplog.set_level(logging.DEBUG)
    yield caplog
    assert capfd.readouterr() == ("", "")  # where gevent, pywsgi and Python write what nobody has caught
    assert SECRET not in caplog.text


class Visit:
    """A client that tells all of its secrets, and a connection to the handler it talks to."""

    def __init__(self, app: Any, path: str = PATH, **changed: str) -> None:
        self.socket, self._server = raw_connection(app)
        self.socket.sendall(handshake(path, **{**SECRETS, **changed}))
        assert read_head(self.socket).startswith(b"HTTP/1.1 101 ")

    def end(self) -> bytes:
        """Wait for the end, and return what came until then."""
        received = b""
        if self.socket.fileno() >= 0:
            received = read_all(self.socket)
            self.socket.close()
        self._server.join(DEADLINE)
        assert self._server.ready()
        return received


def records(log: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was written, all of it by the library's logger."""
    assert {record.name for record in log.records} <= {"websock_gevent"}
    return log.records


# What the network did.


def fragment(opcode: Opcode, payload: bytes) -> bytes:
    """A frame that is not the last of its message."""
    return masked(opcode, payload, fin=False)


def deflated(payload: bytes, opcode: Opcode = Opcode.TEXT) -> bytes:
    """A frame with this payload, said to be compressed."""
    first, *rest = masked(opcode, payload)
    return bytes((first | 0x40, *rest))


def compressed(payload: bytes) -> bytes:
    """What RFC 7692 makes of a message."""
    compressor = zlib.compressobj(wbits=-12)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def declared(first: int, *size: int) -> bytes:
    """The header of a frame of this size, however that is written, and a payload."""
    return bytes((first, *size)) + bytes(4) + SECRET.encode()


NAME = SECRET.encode()
#: What is sent, the code it is answered with, and the clause it breaks.
VIOLATIONS = {
    "a frame without a mask": (Frame(Opcode.TEXT, NAME).serialize(mask=False), 1002, "RFC 6455 §5.1"),
    "a reserved bit": (declared(0xA1, 0x88), 1002, "RFC 6455 §5.2"),
    "a reserved opcode": (declared(0x83, 0x88), 1002, "RFC 6455 §5.2"),
    "a reserved opcode for control": (declared(0x8B, 0x88), 1002, "RFC 6455 §5.2"),
    "a length in more bytes than it needs": (declared(0x82, 0xFE, 0, 8), 1002, "RFC 6455 §5.2"),
    "a length in far more bytes": (declared(0x82, 0xFF, *bytes(7), 8), 1002, "RFC 6455 §5.2"),
    "a length of 64 bits": (declared(0x82, 0xFF, *b"\xff" * 8), 1002, "RFC 6455 §5.2"),
    "a fragmented ping": (declared(0x09, 0x88), 1002, "RFC 6455 §5.5"),
    "a long ping": (declared(0x89, 0xFE, 0, 126) + NAME * 20, 1002, "RFC 6455 §5.5"),
    "nothing to continue": (masked(Opcode.CONT, NAME), 1002, "RFC 6455 §5.4"),
    "a message inside another": (fragment(Opcode.TEXT, NAME) + text(SECRET), 1002, "RFC 6455 §5.4"),
    "text that is not UTF-8": (masked(Opcode.TEXT, NAME + b"\xff"), 1007, "RFC 6455 §8.1"),
    "text that ends in the middle": (masked(Opcode.TEXT, NAME + b"\xc3"), 1007, "RFC 6455 §8.1"),
    "a fragment that is not UTF-8": (fragment(Opcode.TEXT, NAME + b"\xff"), 1007, "RFC 6455 §8.1"),
    "a close frame of one byte": (masked(Opcode.CLOSE, b"K"), 1002, "RFC 6455 §5.5.1"),
    "close text that is not UTF-8": (masked(Opcode.CLOSE, b"\x03\xe8" + NAME + b"\xff"), 1007, "RFC 6455 §5.5.1"),
    "a frame over the limit": (masked(Opcode.BINARY, NAME * 126), 1009, "RFC 6455 §10.4"),
    "a message over the limit": (
        fragment(Opcode.BINARY, NAME * 100) + masked(Opcode.CONT, NAME * 100),
        1009,
        "RFC 6455 §10.4",
    ),
    "a message that inflates over the limit": (deflated(compressed(NAME * 1000)), 1009, "RFC 6455 §10.4"),
    "a compressed ping": (deflated(NAME, Opcode.PING), 1002, "RFC 6455 §5.2"),
    "a compressed message that is none": (deflated(b"\xff" + NAME), 1007, "RFC 7692 §7.2.2"),
    "compressed text that is not UTF-8": (deflated(compressed(NAME + b"\xff")), 1007, "RFC 6455 §8.1"),
    "a message of many last blocks": (deflated(b"\x03\x00" * 400), 1007, "RFC 7692 §7.2.3.4"),
    "a request instead of a frame": (f"GET /{SECRET} HTTP/1.1\r\n\r\n".encode(), 1002, "RFC 6455 §5.2"),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_one_line_for_a_broken_protocol(log: pytest.LogCaptureFixture, violation: str) -> None:
    sent, code, clause = VIOLATIONS[violation]
    handler = Diary()
    visit = Visit(application(handler, SECRET, max_frame_size=1000, max_message_size=1000, compress=True))
    visit.socket.sendall(text(SECRET) + sent + text(SECRET) + b"\xff" * 20)
    [*_, (opcode, close)] = frames_of(visit.end())
    assert (opcode, int.from_bytes(close[:2], "big")) == (Opcode.CLOSE, code) and NAME not in close
    assert isinstance(handler.wait()[1], ProtocolError)
    [record] = records(log)
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert record.getMessage().startswith(WHERE)
    assert record.getMessage().endswith(f"({clause}), closing with {code}")


class Obedient(Diary):
    """Does what it is told."""

    def handle_in(self, message: str | bytes, state: Any) -> Any:
        match message:
            case "stop":
                return "stop", "normal", (4000, SECRET), state
            case "flood":
                return "push", [bytes(1 << 20)] * 16, state
            case "overflow":
                for _ in range(5):
                    current().send(SECRET)
        return "push", message, state


def say(*data: bytes) -> Callable[[Visit], None]:
    """Send bytes."""
    return lambda visit: visit.socket.sendall(b"".join(data))


def leave(*data: bytes) -> Callable[[Visit], None]:
    """Send bytes and go away, whatever comes."""
    return lambda visit: (visit.socket.sendall(b"".join(data)), visit.socket.close())


GOODBYE = masked(Opcode.CLOSE, b"\x03\xe8" + NAME)
#: What a client does that nobody needs to read of, and options with which it comes to an end.
UNREMARKABLE: dict[str, tuple[Callable[[Visit], object], dict[str, Any]]] = {
    "it closes": (say(text(SECRET), GOODBYE), {}),
    "it closes with a code that is none": (say(masked(Opcode.CLOSE, b"\x03\xed" + NAME)), {}),
    "it says nonsense behind its close frame": (say(GOODBYE, text(SECRET), b"\xff" * 20), {}),
    "it says nonsense behind our close frame": (say(text("stop"), text(SECRET), b"\xff" * 20), {}),
    "it breaks off behind our close frame": (leave(text("stop"), text(SECRET)[:5]), {}),
    "it never answers our close frame": (say(text("stop")), {"close_timeout": 0.05}),
    "it goes away": (leave(text(SECRET)), {}),
    "it goes away inside a frame": (leave(text(SECRET)[:9]), {}),
    "it goes away inside a message": (leave(fragment(Opcode.TEXT, NAME)), {}),
    "it goes away and takes nothing": (leave(text("flood")), {}),
    "it says that nothing more comes": (lambda visit: visit.socket.shutdown(socket.SHUT_WR), {}),
    "it is silent": (say(), {"timeout": 0.05, "close_timeout": 0.05}),
    "it is silent inside a frame": (say(text(SECRET)[:9]), {"timeout": 0.05, "close_timeout": 0.05}),
}


@pytest.mark.parametrize("act", UNREMARKABLE)
def test_no_line_for_an_end_that_is_nobodys_fault(log: pytest.LogCaptureFixture, act: str) -> None:
    do, options = UNREMARKABLE[act]
    handler = Obedient()
    visit = Visit(application(handler, SECRET, **options))
    do(visit)
    visit.end()
    handler.wait()
    assert records(log) == []


#: What a client says to overstrain a handler, options that make it easy, and what is written.
STRAINS = {
    "it does not read": ("flood", {"send_timeout": 0.1}, "the peer does not read, gave up after send_timeout"),
    "mail piles up": (
        "overflow",
        {"max_mailbox": 3, "close_timeout": 0.05},
        "more than max_mailbox messages are waiting, closing with 1008",
    ),
}


@pytest.mark.parametrize("strain", STRAINS)
def test_one_line_for_a_limit(log: pytest.LogCaptureFixture, strain: str) -> None:
    sent, options, line = STRAINS[strain]
    handler = Obedient()
    visit = Visit(application(handler, SECRET, **options))
    visit.socket.sendall(text(sent))
    assert handler.wait()[0] == "error"
    visit.end()
    [record] = records(log)
    assert (record.levelname, record.exc_info, record.getMessage()) == ("WARNING", None, WHERE + line)


# What a handler did.


class Failing(Diary):
    """Has a way to call each callback: the bytes that lead to it are the same for all."""

    STIMULUS = masked(Opcode.PING, NAME) + text(SECRET) + GOODBYE

    def init(self, state: Any) -> Any:
        current().send(SECRET)
        return "ok", state


CALLBACKS = ["init", "handle_in", "handle_info", "handle_control", "terminate"]
FAILURES = {
    "an exception": RuntimeError("as told"),
    "a timeout of gevent's": gevent.Timeout(1),
    "an error that a peer might have caused": ProtocolError("as told"),
    "an error that a socket might have caused": ConnectionResetError("as told"),
    "a result that is none": None,
    "a message that is none": ("push", 7, "state"),
    "a close code that is none": ("stop", "normal", 1005, "state"),
}
FAILING = [
    (name, failure)
    for name in CALLBACKS
    for failure, what in FAILURES.items()
    if name != "terminate" or isinstance(what, BaseException)  # what it returns is ignored
]


def failing(*names: str, failure: object) -> Failing:
    """A handler some of whose callbacks fail."""
    handler = Failing()
    for name in names:

        def fail(*_: Any) -> Any:
            if isinstance(failure, BaseException):
                raise failure
            return failure

        fail.__name__ = name
        setattr(handler, name, fail)
    return handler


def errors(log: pytest.LogCaptureFixture) -> list[str]:
    """What was written of handlers: a line, with a traceback behind it."""
    found = records(log)
    assert all(record.levelname == "ERROR" and record.exc_info and record.exc_info[1] for record in found)
    assert log.text.count("Traceback") == len(found)
    return [record.getMessage() for record in found]


@pytest.mark.parametrize(("name", "failure"), FAILING)
def test_one_traceback_for_a_callback_that_fails(log: pytest.LogCaptureFixture, name: str, failure: str) -> None:
    visit = Visit(application(failing(name, failure=FAILURES[failure]), SECRET))
    visit.socket.sendall(Failing.STIMULUS)
    visit.end()
    assert errors(log) == [f"{WHERE}{name} raised" + (", closing with 1011" if name != "terminate" else "")]


@pytest.mark.parametrize("name", CALLBACKS[1:-1])
def test_one_traceback_for_each_of_two_that_fail(log: pytest.LogCaptureFixture, name: str) -> None:
    visit = Visit(application(failing(name, "terminate", failure=RuntimeError("as told")), SECRET))
    visit.socket.sendall(Failing.STIMULUS)
    visit.end()
    assert errors(log) == [f"{WHERE}{name} raised, closing with 1011", f"{WHERE}terminate raised"]


def test_one_traceback_for_a_handler_that_cannot_be_made(log: pytest.LogCaptureFixture) -> None:
    class Broken(Diary):
        def __init__(self, argument: object) -> None:
            super().__init__()

    visit = Visit(application(Broken, SECRET))
    visit.socket.sendall(GOODBYE)
    visit.end()
    assert errors(log) == [f"{WHERE}init raised, closing with 1011"]


def test_one_traceback_for_a_function_that_the_view_left_behind(log: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        response = upgrade(environ, Diary, SECRET)
        response.call_on_close([].pop)
        return response(environ, start_response)

    visit = Visit(app)
    visit.socket.sendall(GOODBYE)
    visit.end()
    assert errors(log) == ["a function given to call_on_close raised"]


def test_mail_that_nobody_takes_is_not_written_out(caplog: pytest.LogCaptureFixture) -> None:
    class Deaf(WebSock[Any]):
        def init(self, state: Any) -> Any:
            current().send({"password": SECRET})
            return "ok", state

    visit = Visit(application(Deaf, SECRET))
    visit.socket.sendall(GOODBYE)
    visit.end()
    [record] = records(caplog)
    assert "Deaf has no handle_info" in record.getMessage() and SECRET not in caplog.text


# Requests that are refused.

#: Headers that a client sends instead of the right ones, and the status they are answered with.
REFUSALS = {"Connection": 400, "Upgrade": 400, "Sec-WebSocket-Key": 400, "Sec-WebSocket-Version": 426, "Origin": 403}
MARKUP = f"<b>{SECRET}</b>\x1b[31m"


def refused(app: Any, path: str = PATH, **changed: str) -> str:
    """Send a handshake that is refused, and return the answer."""
    sock, server = raw_connection(app)
    sock.sendall(handshake(path, **{**SECRETS, **changed}))
    sock.shutdown(socket.SHUT_WR)
    answer: bytes = read_all(sock)
    sock.close()
    server.join(DEADLINE)
    return answer.decode()


@pytest.mark.parametrize("name", REFUSALS)
def test_no_line_for_a_refusal_and_no_markup_in_it(log: pytest.LogCaptureFixture, name: str) -> None:
    answer = refused(application(Diary), **{name: MARKUP})
    assert answer.startswith(f"HTTP/1.1 {REFUSALS[name]} ")
    assert "<b>" not in answer and "\x1b" not in answer
    assert all(secret not in answer for secret in SECRETS.values())
    assert records(log) == []


def test_no_markup_in_a_refusal_that_names_the_path(log: pytest.LogCaptureFixture) -> None:
    app = Flask("refusing")
    install(app)
    app.add_url_rule("/plain/<name>", view_func=lambda name: "plain")
    answer = refused(app, "/plain/%3Cb%3E%1B[31m")
    assert answer.startswith("HTTP/1.1 400 ") and "/plain/&lt;b&gt;" in answer
    assert "<b>" not in answer
    [record] = records(log)
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert record.getMessage().startswith("127.0.0.1 '/plain/<b>\\x1b[31m': refused with 400: ")
    assert record.getMessage().isprintable() and "websocket=True" in record.getMessage()


def test_one_line_for_a_refusal_that_is_ours_to_repair(log: pytest.LogCaptureFixture) -> None:
    """No browser shows the answer; the log names what to change."""
    app = application(Diary)
    answer = refused(lambda environ, start: app({**environ, "wsgi.multithread": False, "wsgi.input": None}, start))
    assert answer.startswith("HTTP/1.1 501 ")
    [record] = records(log)
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert record.getMessage().startswith(WHERE + "refused with 501: ")


def test_no_line_for_plain_http(log: pytest.LogCaptureFixture) -> None:
    app = Flask("refusing")
    websocket(app, "/chat")(lambda: "never")
    assert app.test_client().get("/chat").status_code == 426
    assert records(log) == []


# Lines of a client's own.

#: Line breaks of all sorts, colours, and a backspace; and a header with what may stand in one of them.
FORGED = "/a%0D%0AERROR%20forged%0B%0C%1B[31m%C2%85%E2%80%A8%08"
FORGED_PEER = "192.0.2.1\x1b[31m\x0b\x0c\x85forged"


def provoke(name: str, path: str, around: Callable[[Any], Any] = lambda app: app, **headers: str) -> None:
    """Have the line written that bears this name."""
    handler: Diary = Diary()
    sent, options, wait = masked(Opcode.CONT, NAME), {}, True
    if name in STRAINS:
        handler, (words, options, _) = Obedient(), STRAINS[name]
        sent = text(words)
    elif name in CALLBACKS:
        handler, sent, wait = failing(name, failure=RuntimeError("as told")), Failing.STIMULUS, False
    visit = Visit(around(application(handler, SECRET, **options)), path, **headers)
    visit.socket.sendall(sent)
    if wait:
        handler.wait()
    visit.end()


def is_one_line(log: pytest.LogCaptureFixture) -> bool:
    """Whether what was written is one, and shows what a client made up."""
    [record] = records(log)
    return "forged" in record.getMessage() and record.getMessage().isprintable()


LINES = ["a broken protocol", *STRAINS, *CALLBACKS]


@pytest.mark.parametrize("name", LINES)
def test_a_path_makes_no_line_of_its_own(log: pytest.LogCaptureFixture, name: str) -> None:
    provoke(name, FORGED)
    assert is_one_line(log)


@pytest.mark.parametrize("name", LINES)
def test_a_forwarded_address_makes_no_line_of_its_own(log: pytest.LogCaptureFixture, name: str) -> None:
    provoke(name, "/", ProxyFix, **{"X-Forwarded-For": FORGED_PEER})
    assert is_one_line(log)


@pytest.mark.parametrize("environ", [{"PATH_INFO": "/a\n\x1b[31mforged"}, {"REMOTE_ADDR": FORGED_PEER}])
def test_reading_as_for_gevent_websocket_makes_no_line_of_its_own(
    log: pytest.LogCaptureFixture, environ: dict[str, str]
) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(masked(Opcode.CONT, NAME))
    assert WebSocket(ours, {"QUERY_STRING": SECRET, **environ}, MessageReader(1000, 1000)).receive() is None
    ours.close()
    theirs.close()
    assert is_one_line(log)


# The whole log of a server.


def behave(server: Server, act: bytes | Callable[[Raw], None]) -> None:
    """Tell all secrets, and then do something."""
    options = {"max_frame_size": 1000, "max_message_size": 1000, "compress": True}
    with Raw(server) as raw:
        raw.upgrade(f"/ending?token={SECRET}&options={quote(json.dumps(options))}", **SECRETS)
        if isinstance(act, bytes):
            raw.send(text(SECRET) + act)
            raw.rest()
        else:
            raw.send(text(SECRET))
            act(raw)


def test_all_that_a_server_writes_when_many_misbehave() -> None:
    manners: list[Callable[[Raw], None]] = [Raw.reset, Raw.half_close, lambda raw: raw.send(text(SECRET)[:9])]
    acts = [*(sent for sent, _, _ in VIOLATIONS.values()), GOODBYE, *manners]
    line = re.compile(r"127\.0\.0\.1 '/ending': .+ \(RFC (6455|7692) §[\d.]+\), closing with 10\d\d")
    with gunicorn("served:app", "--access-logformat", "%(m)s %(U)s %(s)s") as server:
        since = server.position()
        for act in acts:
            behave(server, act)
        written = Counter(server.settle(since).splitlines())
    written.pop("GET /idle 200", None)  # of `settle` itself, and perhaps too late
    assert written.pop("GET /ending 101") == len(acts)
    assert sum(written.values()) == len(VIOLATIONS)
    assert all(line.fullmatch(each) and SECRET not in each for each in written), written
