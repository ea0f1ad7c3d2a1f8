"""The application ``served``, with an account that a browser is logged in to by cookies.

There is a cookie for each kind of ``SameSite``, and each of them is enough. What the account was asked with is noted
under the client's ``?key=...``.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from flask import abort, jsonify, make_response, request
from served import Scripted, flask
from werkzeug import Response

from websock_gevent import WebSock, upgrade
from websock_gevent.flask import websocket

PAGE = '<!doctype html><html lang="en"><title>A page</title><link rel="icon" href="data:,"><p>Here.</p></html>'

#: The ``Origin`` header and the names of the cookies of each handshake, by key.
asked: defaultdict[str, list[Any]] = defaultdict(list)


class Account(WebSock[str]):
    """Tells whose it is, and that is its state."""

    def init(self, user: str) -> Any:
        return "push", f"{user}'s account", user

    def handle_in(self, message: str | bytes, user: str) -> Any:
        return "push", message, user


@flask.get("/")
def page() -> str:
    """A page of this origin; what it does is up to whoever drives the browser."""
    return PAGE


@flask.get("/login")
def login() -> Response:
    """Log in, in each of the ways a cookie can be meant."""
    response = make_response(PAGE)
    response.set_cookie("strict", "ann", samesite="Strict", httponly=True)
    response.set_cookie("lax", "ann", samesite="Lax", httponly=True)
    response.set_cookie("none", "ann", samesite="None", secure=True, httponly=True)
    return response


@websocket(flask, "/account")
def account() -> Response:
    """For who is logged in, by whatever cookie came, from the origins that the client asks for."""
    asked[request.args["key"]].append([request.headers.get("Origin"), sorted(request.cookies)])
    users = set(request.cookies.values())
    if not users:
        abort(401)
    origins = request.args.getlist("origin")
    return upgrade(request.environ, Account, users.pop(), origins="*" if origins == ["*"] else origins or None)


@flask.get("/asked/<key>")
def asked_with(key: str) -> Response:
    """What the account was asked with."""
    return jsonify(asked.pop(key, []))


@websocket(flask, "/deflate/short")
def deflate_short() -> Response:
    """Compressed, for frames that are short on the wire."""
    return upgrade(request.environ, Scripted, "", max_frame_size=10_000, max_message_size=1 << 21, compress=True)


app = flask
