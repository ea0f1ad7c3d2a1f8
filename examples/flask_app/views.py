"""The HTTP side: who you are, the page, and the door to the room.

A name is all the identity there is: two people who choose the same one are the same person to the room.
"""

from flask import Blueprint, abort, current_app, redirect, render_template, request, session, url_for
from werkzeug import Response

from websock_gevent import upgrade
from websock_gevent.flask import websocket
from websock_gevent.pubsub import PubSub, PubSubError

from .chat import PEOPLE, ChatSocket, Guest

__all__ = ["pages"]

MAX_NAME = 24
A_MONTH = 30 * 24 * 3600  # seconds

pages = Blueprint("chat", __name__)


@websocket(pages, "/room")
def socket() -> Response:
    """Upgrade a logged-in visitor; everybody else is refused while the connection is still HTTP."""
    if "name" not in session:
        abort(401)
    guest = Guest(session["name"], pubsub(), request.args.get("since"))
    return upgrade(request.environ, ChatSocket, guest, max_message_size=16_384)


@pages.get("/")
def index() -> str:
    """Show the room, or the way to it."""
    if "name" in session:
        return render_template("room.html", name=session["name"])
    return login_page(request.cookies.get("known_as", ""))


@pages.post("/login")
def login() -> Response | tuple[str, int]:
    """Take a name for this browser."""
    name = " ".join(request.form.get("name", "").split())
    if not 1 <= len(name) <= MAX_NAME:
        return login_page(name, f"Please choose a name of 1 to {MAX_NAME} characters."), 400
    if not name.isprintable():
        return login_page(name, "Please choose a name that can be seen: no control characters."), 400
    session["name"] = name
    return redirect(url_for(".index"), 303)


@pages.post("/logout")
def logout() -> Response:
    """Forget who this browser is."""
    session.clear()
    return redirect(url_for(".index"), 303)


@pages.get("/me")
def me() -> dict[str, str]:
    """Say who is logged in. The page asks when its connection fails: a socket cannot tell it about a 401."""
    if "name" not in session:
        abort(401)
    return {"name": session["name"]}


@pages.after_request
def remember(response: Response) -> Response:
    """Keep the name for the next log-in. The socket's 101 carries the cookie like any other response."""
    if "name" in session:
        response.set_cookie("known_as", session["name"], max_age=A_MONTH, httponly=True, samesite="Lax")
    return response


def pubsub() -> PubSub:
    """Find the PubSub of the application that serves this request."""
    found: PubSub = current_app.extensions["chat_pubsub"]
    return found


def count_people() -> int | None:
    """Count who is here; ``None`` if that cannot be known now."""
    try:
        return len(pubsub().list(PEOPLE))
    except PubSubError:
        return None


def login_page(name: str, error: str = "") -> str:
    """Show the log-in form, filled in as far as we know."""
    return render_template("login.html", name=name, error=error, max_name=MAX_NAME, here=count_people())
