"""The application that the end-to-end tests talk to.

A client that adds ``?key=...`` has a diary kept of its connection, which ``/diary/<key>`` returns when it has ended.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent
from defaults import IDLE
from flask import Flask, g, request, session
from gevent.event import Event
from holding import holding
from idle import others
from monitored import with_opentelemetry, with_sentry
from werkzeug import Response
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from websock_gevent import Deflate, Options, WebSock, current, upgrade
from websock_gevent.flask import websocket

LARGE = Options(max_frame_size=1 << 24, max_message_size=1 << 24, idle=IDLE)

flask = Flask(__name__)
flask.secret_key = "for the tests"


class Diary:
    """What happened to one connection, in order."""

    def __init__(self) -> None:
        self.entries: list[Any] = []
        self.ended = Event()


diaries: defaultdict[str, Diary] = defaultdict(Diary)


class Echo(WebSock[Any]):
    """Sends back what comes."""

    def handle_in(self, message: str | bytes, state: Any) -> Any:
        return "push", message, state


class Scripted(WebSock[str]):
    """Does what the client says. Its state is the key of its diary."""

    def init(self, key: str) -> Any:
        diaries[key].entries.append("init")
        return "ok", key

    def handle_in(self, message: str | bytes, key: str) -> Any:
        match message.split() if isinstance(message, str) else []:
            case ["close", code, text]:
                return "stop", "normal", (int(code), text), key
            case ["ping", payload]:
                return "push", ("ping", payload.encode()), key
            case ["raise"]:
                raise RuntimeError("the handler was told to")
            case ["nodelay"]:
                connected = socket.socket(fileno=os.dup(current().websocket.fileno()))
                with connected:
                    on_tcp = connected.family != socket.AF_UNIX
                    on = on_tcp and connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    return "push", str(int(bool(on))), key
            case ["pid"]:
                return "push", str(os.getpid()), key
        return "push", message, key

    def handle_control(self, frame: tuple[str, bytes], key: str) -> Any:
        return "push", f"{frame[0]} {frame[1].decode()}", key

    def terminate(self, reason: Any, key: str) -> None:
        peer = current().websocket
        shown = reason if isinstance(reason, str) else f"{reason[0]}: {reason[1]}"
        diaries[key].entries.append({"reason": shown, "code": peer.close_code, "text": peer.close_text})
        diaries[key].ended.set()


class Ending(Scripted):
    """Ends in every way there is, when the client says so, and announces it in the log."""

    def handle_in(self, message: str | bytes, key: str) -> Any:
        match message:
            case "flood me":
                return "push", [bytes(1 << 20)] * 32, key
            case "overflow":
                for number in range(5):
                    current().send(number)
            case "interrupt":
                raise KeyboardInterrupt
            case "exit":
                sys.exit()
            case "die":
                raise gevent.GreenletExit
            case "be killed":
                gevent.spawn(gevent.kill, gevent.getcurrent())
            case "stop":
                return "stop", "normal", key
            case "restart":
                return "stop", ("shutdown", "restart"), key
            case "fail":
                return "stop", "a reason", key
            case "wrong":
                return "nonsense"
            case "block":
                sys.stderr.write(f"blocked {key}\n")
                gevent.sleep(60)
            case _:
                return super().handle_in(message, key)
        return "ok", key

    def handle_info(self, message: Any, key: str) -> Any:
        return "ok", key

    def terminate(self, reason: Any, key: str) -> None:
        super().terminate(reason, key)
        if key:
            sys.stderr.write(f"ended {key} {diaries[key].entries[-1]['reason']}\n")
        else:
            del diaries[key]


class Broken(WebSock[None]):
    """Cannot even begin."""

    def init(self, state: None) -> Any:
        raise RuntimeError("init was told to")


class Sessions:
    """As an ORM keeps them: one session per application context, given back when that is torn down."""

    def __init__(self) -> None:
        self.held = 0

    def hold(self) -> None:
        self.held += 1
        g.holds_session = True

    def release(self) -> None:
        if g.pop("holds_session", False):
            self.held -= 1


sessions = Sessions()


@websocket(flask, "/echo")
def echo() -> Response:
    return upgrade(request.environ, Echo, None, options=LARGE)


@websocket(flask, "/script")
def script() -> Response:
    return upgrade(request.environ, Scripted, request.args.get("key", ""), options=LARGE, subprotocols=["v2", "v1"])


@websocket(flask, "/small")
def small() -> Response:
    return upgrade(request.environ, Echo, None, max_message_size=1000)


@websocket(flask, "/impatient")
def impatient() -> Response:
    return upgrade(request.environ, Echo, None, close_timeout=0.1)


@websocket(flask, "/late")
def late() -> Response:
    """A view that takes its time."""
    gevent.sleep(0.2)
    return upgrade(request.environ, Echo, None)


@websocket(flask, "/ending")
def ending() -> Response:
    """With the options that the client asks for."""
    options: dict[str, Any] = {"max_message_size": 1000, **json.loads(request.args.get("options", "{}"))}
    return upgrade(request.environ, Ending, request.args.get("key", ""), **options)


@websocket(flask, "/deflate")
def deflate() -> Response:
    """With the settings that the client asks for."""
    settings = Deflate(**json.loads(request.args.get("settings", "{}")))
    return upgrade(request.environ, Echo, None, options=LARGE, compress=settings)


@websocket(flask, "/deferred")
def deferred() -> Response:
    return upgrade(request.environ, Echo, None, early_validate_upgrade=False)


@websocket(flask, "/broken-view")
def broken_view() -> Response:
    raise RuntimeError("the view was told to")


@websocket(flask, "/broken-init")
def broken_init() -> Response:
    return upgrade(request.environ, Broken, None)


@websocket(flask, "/broken-close")
def broken_close() -> Response:
    response = upgrade(request.environ, Echo, None)
    response.call_on_close(lambda: [].pop())
    return response


@websocket(flask, "/user")
def user() -> Response:
    session["user"] = "ann"
    response = upgrade(request.environ, Echo, None)
    response.headers["X-View"] = "here"
    return response


@websocket(flask, "/teardown")
def teardown() -> Response:
    g.diary = diaries[request.args["key"]]
    sessions.hold()
    note(f"view, {sessions.held} session held")
    response = upgrade(request.environ, Scripted, request.args["key"])
    entries = g.diary.entries
    response.call_on_close(lambda: entries.append("call_on_close"))
    return response


def note(entry: str) -> None:
    """Write into the diary of the request, if one is kept."""
    if "diary" in g:
        g.diary.entries.append(entry)


@flask.after_request
def after(response: Response) -> Response:
    note(f"after_request {response.status_code}")
    if request.path == "/user":
        response.set_cookie("hook", "was-here")
    return response


@flask.teardown_request
def request_ended(_: BaseException | None) -> None:
    note("teardown_request")


@flask.teardown_appcontext
def context_ended(_: BaseException | None) -> None:
    sessions.release()
    note(f"teardown_appcontext, {sessions.held} session held")


@flask.get("/plain")
def plain() -> str:
    return "plain"


@flask.get("/diary/<key>")
def diary(key: str) -> Any:
    diaries[key].ended.wait(20)
    return diaries[key].entries


@flask.get("/idle")
def idle() -> tuple[str, int]:
    """Answer when no other connection is left; leave a mark in the log."""
    left = others()
    mark()
    return f"{left} connections left", 500 if left else 200


@flask.get("/holds")
def holds() -> dict[str, int]:
    """What the process holds, this request included."""
    return holding()


@flask.get("/mark")
def mark() -> str:
    """Leave a mark in the log."""
    print("mark", request.args["mark"], file=sys.stderr, flush=True)
    return "marked"


# Around Flask: middlewares as monitoring tools have them, and no Flask at all.

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def hidden(inner: WSGI) -> WSGI:
    """Wrap start_response, so that the server behind it cannot be seen."""

    def middleware(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return inner(environ, lambda status, headers, exc_info=None: start_response(status, headers, exc_info))

    return middleware


def generated(inner: WSGI) -> WSGI:
    """Wrap the body in a generator."""

    def middleware(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        body = inner(environ, start_response)
        try:
            yield from body
        finally:
            getattr(body, "close", lambda: None)()

    return middleware


def bare(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Upgrade without Flask."""
    try:
        return upgrade(environ, Echo, None)(environ, start_response)
    except HTTPException as refusal:
        return refusal(environ, start_response)


inner = flask.wsgi_app
flask.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
    inner,
    {
        "/hidden": hidden(inner),
        "/generated": generated(inner),
        "/wrapped": hidden(generated(inner)),
        "/proxyfix": ProxyFix(inner, x_host=1, x_proto=1, x_prefix=1),
        "/sentry": with_sentry(inner),
        "/opentelemetry": with_opentelemetry(inner),
        "/bare": bare,
    },
)
app = flask
