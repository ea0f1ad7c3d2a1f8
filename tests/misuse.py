"""What a type checker makes of the library's types; never run. `test_misuse` has ``mypy --strict`` read it.

A line of misuse ends in ``# expect:`` and the code of the error that it must give; every other line must give none.
"""

from __future__ import annotations

from typing import Any, Literal

from flask import Flask, request
from typing_extensions import Unpack

from websock_gevent import (
    CloseCode,
    Control,
    Deflate,
    Mailbox,
    Message,
    Options,
    Reason,
    Result,
    WebSock,
    configure_drain,
    current,
    drain,
    upgrade,
)
from websock_gevent.contrib.live import live
from websock_gevent.flask import websocket
from websock_gevent.frameworks import accept
from websock_gevent.legacy import LegacyWebSocket, WebSocketMiddleware
from websock_gevent.options import Overrides
from websock_gevent.pubsub import PubSub
from websock_gevent.testing import Client, connect
from websock_gevent.websock import Handler

# What is right.


class Chat(WebSock[dict[str, int]]):
    def init(self, state: dict[str, int]) -> Result[dict[str, int]]:
        return "push", "welcome", state

    def handle_in(self, message: str | bytes, state: dict[str, int]) -> Result[dict[str, int]]:
        replies: list[Message] = ["a", b"b", ("ping", b"c"), bytearray(b"d")]
        texts: list[str] = ["a"]
        if message == "a":
            return "push", replies, state
        if message == "b":
            return "push", ["a", "b"], state
        if message == "c":
            return "push", texts, state
        if message == "d":
            return "push", [message], state
        if message == b"e":
            return "push", [], state
        if state:
            return "push", [message], state
        if message:
            return "reply", "ok", ("text", "x"), state
        return "ok", state

    def handle_control(self, frame: Control, state: dict[str, int]) -> Result[dict[str, int]]:
        if frame[0] == "pong":
            return "stop", "normal", state
        if frame[1] == b"x":
            return "stop", ("shutdown", "restart"), 1012, state
        return "stop", "odd", (4000, "text"), [("pong", b"")], state

    def handle_info(self, message: Any, state: dict[str, int]) -> Result[dict[str, int]]:
        return "stop", "odd", (4000, None), state

    def terminate(self, reason: Reason, state: dict[str, int]) -> None:
        if reason == "timeout" or isinstance(reason, tuple) and reason[0] == "error":
            print(state["x"])


class Plain:
    def init(self, state: int) -> Result[int]:
        return "ok", state + 1

    def handle_in(self, message: str | bytes, state: int) -> tuple[Literal["ok"], int]:
        return "ok", state

    def handle_info(self, message: str, state: int) -> tuple[Literal["push"], str, int]:
        return "push", message, state


good: list[Handler[int]] = [Plain()]
also: Handler[dict[str, int]] = Chat()


# Results.


class Misspelt(WebSock[int]):
    def init(self, state: int) -> Result[int]:
        return "okay", state  # expect: return-value

    def handle_in(self, message: str | bytes, state: int) -> Result[int]:
        if message == "a":
            return "psuh", message, state  # expect: return-value
        if message == "b":
            return "push", ("txt", "x"), state  # expect: return-value
        if message == "c":
            return "push", ("text", b"x"), state  # expect: return-value
        if message == "d":
            return "push", 7, state  # expect: return-value
        if message == "e":
            return "push", ["a", ("txt", "x")], state  # expect: return-value
        return "ok", "no int"  # expect: return-value

    def handle_info(self, message: Any, state: int) -> Result[int]:
        if message:
            return "ok", state, "more"  # expect: return-value
        if state:
            return "stop", "normal", "1000", state  # expect: return-value
        return None  # expect: return-value

    def terminate(self, reason: Reason, state: int) -> None:
        if reason == "timedout":  # expect: comparison-overlap
            pass


class Lacking:
    def init(self, state: int) -> Result[int]:
        return "ok", state


lacking: Handler[int] = Lacking()  # expect: assignment


class Tagged:
    def init(self, state: int) -> Result[int]:
        return "ok", state

    def handle_in(self, message: str | bytes, state: int) -> tuple[Literal["okay"], int]:
        return "okay", state

    def handle_info(self, message: str, state: int) -> Result[int]:
        return "ok", state


tagged: Handler[int] = Tagged()  # expect: assignment


# Callbacks.


class Signatures(WebSock[int]):
    def init(self) -> Result[int]:  # expect: override
        return "ok", 1

    def handle_in(self, message: str, state: int) -> Result[int]:  # expect: override
        return "ok", state

    def handle_control(self, frame: Control, state: int) -> Result[int]:
        if frame[0] == "close":  # expect: comparison-overlap
            return "ok", state
        return "push", frame, state

    def handle_info(self, message: Any, state: str) -> Result[int]:  # expect: override
        return "ok", 1

    def terminate(self, reason: str, state: int) -> None: ...  # expect: override


class Stops(WebSock[int]):
    def init(self, state: int) -> Result[int]:
        if state == 1:
            return "stop", state  # expect: return-value
        if state == 2:
            return "stop", "normal", (1000, b"bye"), state  # expect: return-value
        if state == 3:
            return "stop", "normal", 1000, {"text": "x"}, state  # expect: return-value
        if state == 4:
            return ["push", "x", state]  # expect: return-value
        if state == 5:
            return "reply", "x", state, "y"  # expect: return-value
        if state == 6:
            return "push", ("ping", "text"), state  # expect: return-value
        if state == 7:
            return "push", ("close", b""), state  # expect: return-value
        return "stop", "normal", (1000, "bye", 7), state  # expect: return-value

    def terminate(self, reason: Reason, state: int) -> None:
        if reason == "closed":  # expect: comparison-overlap
            print("never")
        if isinstance(reason, tuple) and reason[0] == "err":  # expect: comparison-overlap
            print("never")


# upgrade and the options.

app = Flask(__name__)


@websocket(app, "/chat")
def chat() -> Any:
    upgrade(request.environ, Misspelt, "no int")  # expect: misc
    upgrade(request.environ, Chat)  # expect: call-arg
    upgrade(request, Chat, {})  # expect: arg-type
    upgrade(request.environ, "Chat", {})  # expect: arg-type
    upgrade(request.environ, Lacking, 1)  # expect: arg-type
    upgrade(request.environ, Chat, {}, Options())  # expect: call-arg
    upgrade(request.environ, Chat, {}, options={"timeout": 60})  # expect: arg-type
    upgrade(request.environ, Chat, {}, timeout="60")  # expect: arg-type
    upgrade(request.environ, Chat, {}, send_timeout=None)  # expect: arg-type
    upgrade(request.environ, Chat, {}, max_mailbox=10.5)  # expect: arg-type
    upgrade(request.environ, Chat, {}, compress=6)  # expect: arg-type
    upgrade(request.environ, Chat, {}, origins=[1])  # expect: list-item
    upgrade(request.environ, Chat, {}, idle="asleep")  # expect: arg-type
    upgrade(request.environ, Chat, {}, ping_intervall=10)  # expect: call-arg
    accept(request.environ, Chat, {}, validate_utf8="yes")  # expect: arg-type
    accept(request.environ, Chat, {}, time_out=10)  # expect: call-arg
    print(upgrade(request.environ, Chat, {}).no_such_attribute)  # expect: attr-defined
    return upgrade(request.environ, Chat, {}, options=Options(compress=Deflate(level=3)), timeout=30)


def handed_on(old: LegacyWebSocket, configured: dict[str, Any], **overrides: Unpack[Overrides]) -> None:
    upgrade(request.environ, Chat, {}, timeout=None, compress=True, subprotocols=["chat"], origins="*", idle="parked")
    upgrade(request.environ, Chat, {}, **configured)
    upgrade(request.environ, Chat, {}, **overrides)
    accept(request.environ, Chat, {}, options=Options(), **overrides)
    old.accept(timeout=None, **configured)
    old.accept(timeout="60")  # expect: arg-type


app.wsgi_app = WebSocketMiddleware(app.wsgi_app, max_message_size=1000)  # type: ignore[method-assign]
WebSocketMiddleware(app.wsgi_app, max_message_size="1000")  # expect: arg-type
WebSocketMiddleware(app.wsgi_app, max_size=1000)  # expect: call-arg
live(app, authorise=lambda: True, origins=["https://a.example"])
live(app, authorise=lambda: True, origins=7)  # expect: arg-type
live(app, authorise=lambda: True, orgins="*")  # expect: call-arg
Options().updated({"timeout": 30, "origins": None})
Options().updated({"timeout": "60"})  # expect: typeddict-item
Options().updated({"time_out": 60})  # expect: typeddict-unknown-key
configure_drain(share=0.3, text="moving")
configure_drain(share="0.3")  # expect: arg-type
configure_drain(grase=3)  # expect: call-arg
Options(timeout="60")  # expect: arg-type
Options(send_timeout=None)  # expect: arg-type
Options(max_mailbox=10.5)  # expect: arg-type
Options(validate_utf8="yes")  # expect: arg-type
Options(compress=6)  # expect: arg-type
Options(origins={"https://a.example"})  # expect: arg-type
Options(origins=[1])  # expect: list-item
Options(subprotocols=7)  # expect: arg-type
Options(idle="asleep")  # expect: arg-type
Options(ping_intervall=10)  # expect: call-arg
Options(60.0).timeout = 30.0  # expect: misc
Deflate(level="9")  # expect: arg-type
Deflate(windowbits=9)  # expect: call-arg
configure_drain("now")  # expect: call-arg, arg-type
drain("now")  # expect: arg-type
print(CloseCode.GOODBYE)  # expect: attr-defined

# The mailbox.


def talk(mailbox: Mailbox, client: Client) -> None:
    current(mailbox)  # expect: call-arg
    mailbox.send()  # expect: call-arg
    mailbox.push({"text": "x"})  # expect: arg-type
    mailbox.push(("txt", "x"))  # expect: arg-type
    mailbox.send_after("soon", "x")  # expect: arg-type
    mailbox.monitor(mailbox.address)  # expect: arg-type
    mailbox.send_after(1.0, "x").stop_it()  # expect: attr-defined
    mailbox.address = "x"  # expect: misc
    print(mailbox.websocket.closecode)  # expect: attr-defined
    client.send(7)  # expect: arg-type
    connect(app, 7)  # expect: arg-type
    len(mailbox.send("x"))  # expect: arg-type


# PubSub.

pubsub = PubSub(6379)  # expect: arg-type
pubsub.subscribe(7)  # expect: arg-type
pubsub.subscribe("lobby", "me")  # expect: arg-type
pubsub.subscribe("lobby", pushed=True)  # expect: call-arg
pubsub.subscribe("lobby", since=7)  # expect: arg-type
pubsub.broadcast("lobby")  # expect: call-arg
pubsub.send(7, "x")  # expect: arg-type
pubsub.track("lobby")  # expect: call-arg
PubSub(None, keep="all")  # expect: arg-type
