"""A live view for operators: who is connected, and how they fare, as a page that is kept up to date. A leaf.

Owns the page and who may see it. It shows peers and paths, and no message; whoever sees it can change nothing. What
clients have made up reaches the browser as JSON, and becomes text there: nothing of it is ever put into HTML. ::

    live(app, authorise=lambda: current_user.is_admin)

The whole example, and what it costs to be watched, is in ``docs/telemetry.rst``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from inspect import iscoroutinefunction
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from flask import Blueprint, Flask, Response, abort, request, send_from_directory

from ...flask import websocket
from ...mailbox import current
from ...options import Options
from ...pubsub.pubsub import PubSub
from ...upgrade import upgrade
from ...websock import WebSock
from .cluster import Cluster
from .watching import NUMBERS, Watch, interesting

if TYPE_CHECKING:
    from flask.blueprints import BlueprintSetupState
    from typing_extensions import Unpack

    from ...options import Overrides

__all__ = ["Live", "live"]

#: Seconds between two pictures, and after which the page has to connect, and to be authorised, again.
BEAT, AGAIN = 1.0, 600.0

_NAME = "websock_gevent_live"
#: Applications and blueprints that have a view.
_places: WeakSet[Any] = WeakSet()
_HERE = Path(__file__).parent
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def live(
    app: Flask | Blueprint,
    *,
    authorise: Callable[[], object] | None = None,
    pubsub: PubSub | None = None,
    url_prefix: str = "/live",
    most: int = 80,
    **options: Unpack[Overrides],
) -> Live:
    """Show the connections that are opened from now on, at an address of the application. Call it once.

    Args:
        app: The application, or a blueprint that is not registered yet.
        authorise: Called without arguments for each request, the WebSocket's too, with Flask's ``request`` at hand.
            Whoever it returns ``True`` for may look, nobody else (403). A connection is good for ten minutes.
        pubsub: Over Redis: shows all processes that use the same. Its topic keeps as many summaries of up to 50 kB as
            ``keep`` says: give it one of its own. ``None`` shows the one process that answers.
        url_prefix: Where; the page has a slash behind it.
        most: Connections that are shown, from 8 up; always with those that are first by any of the numbers.
        **options: Of the page's WebSocket, as for `upgrade`; for ``origins``, above all.

    Raises:
        TypeError, ValueError: an argument is not what it should be; the text names it.
        RuntimeError: there is one already; or later, when a blueprint that has one is registered.
    """
    if app in _places or (isinstance(app, Flask) and _NAME in app.extensions):
        raise RuntimeError(f"{app!r} has a live view already: call live() once for an application")
    if not callable(authorise) or iscoroutinefunction(authorise):
        raise TypeError(
            f"live() takes authorise=, a plain function without arguments that returns True for whoever may look, "
            f"not {authorise!r}"
        )
    if not isinstance(most, int) or most < NUMBERS:
        raise ValueError(f"live() takes a whole number from {NUMBERS} up as most, not {most!r}")
    chosen = Options(max_frame_size=125, max_message_size=125).updated(options)  # nothing is to be received
    view = Live(pubsub, most)
    blueprint = _blueprint(view, authorise, chosen)

    @blueprint.record
    def note(setup: BlueprintSetupState) -> None:
        if setup.app.extensions.setdefault(_NAME, view) is not view:
            view.stop()
            raise RuntimeError(f"{setup.app!r} has a live view already: call live() once for an application")

    app.register_blueprint(blueprint, url_prefix=url_prefix)
    _places.add(app)
    return view


class Live:
    """What is shown. Made by `live`."""

    def __init__(self, pubsub: PubSub | None, most: int) -> None:
        self._most = most
        self._watch = Watch(most)
        self._cluster = Cluster(self._watch, pubsub) if pubsub is not None else None
        self._shown: Any = None
        self._text = ""

    def stop(self) -> None:
        """Watch nobody any more; who is connected stays, and the page shows what was last."""
        self._watch.stop()
        if self._cluster is not None:
            self._cluster.stop()

    def picture(self) -> str:
        """Return what the page shows, as JSON. Made once a second, for everybody who looks."""
        own = self._watch.summary()
        if own is not self._shown:
            others = self._cluster.others() if self._cluster is not None else []
            trouble = self._cluster.trouble if self._cluster is not None else ""
            self._shown, self._text = own, self._drawn([own, *others], trouble)
        return self._text

    def _drawn(self, workers: list[dict[str, Any]], trouble: str) -> str:
        rows = [{**row, "pid": worker["pid"]} for worker in workers for row in worker["rows"]]
        rows = interesting(rows, self._most, lambda row: row["numbers"])
        workers = [{name: worker[name] for name in worker if name != "rows"} for worker in workers]
        return json.dumps({"workers": workers, "rows": rows, "trouble": trouble})


class Operator(WebSock[float]):
    """Somebody who looks. The state is when the connection has to be authorised again."""

    def __init__(self, view: Live) -> None:
        self._view = view

    def init(self, state: float) -> Any:
        """Show the first picture."""
        return self.handle_info("beat", monotonic() + AGAIN)

    def handle_in(self, message: str | bytes, state: float) -> Any:
        """Do nothing: there is nothing to be said."""
        return "ok", state

    def handle_info(self, message: object, state: float) -> Any:
        """Show the next one. Who does not read is not sent another, since this is not called then."""
        if monotonic() >= state:
            return "stop", ("shutdown", "restart"), state
        current().send_after(BEAT, "beat")
        return "push", self._view.picture(), state


def _blueprint(view: Live, authorise: Callable[[], object], options: Options) -> Blueprint:
    blueprint = Blueprint(_NAME, __name__)
    operator = Operator(view)

    @blueprint.before_request
    def check() -> None:
        if authorise() is not True:
            abort(403)

    @blueprint.after_request
    def protect(response: Response) -> Response:
        if response.status_code != 101:
            response.headers.update(_HEADERS)
        return response

    @blueprint.get("/", defaults={"name": "page.html"})
    @blueprint.get("/<any('page.js', 'page.css'):name>")
    def page(name: str) -> Response:
        return send_from_directory(_HERE, name)

    @websocket(blueprint, "/socket")
    def socket() -> Response:
        return upgrade(request.environ, operator, 0.0, options=options)  # type: ignore[return-value]

    return blueprint
