"""Flask: one decorator for a WebSocket route, and errors that say what to do. A leaf: nothing of the library imports
it.

Werkzeug answers 400 without a word when a WebSocket request meets an ordinary rule, or a plain one meets a rule made
with ``websocket=True``. `install` turns the first into a 400 that explains itself, the second into a 426.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from flask import Blueprint, Flask, current_app, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import BadRequest, HTTPException
from werkzeug.routing.exceptions import WebsocketMismatch

from .errors import UpgradeRequired
from .handshake import check_request, is_upgrade
from .signals import tell_refused

__all__ = ["install", "websocket"]

View = TypeVar("View", bound=Callable[..., Any])


def websocket(app: Flask | Blueprint, rule: str, **options: Any) -> Callable[[View], View]:
    """Register a view for WebSocket requests; plain HTTP gets 426 there. The view returns ``upgrade(...)``::

        @websocket(app, "/chat")
        def chat():
            return upgrade(request.environ, Chat, {})

    A page may live at the same address: register it with ``@app.route`` as usual.

    Args:
        app: The application or a blueprint.
        rule: The URL rule.
        **options: As for ``app.route``: ``endpoint``, ``defaults``, ``subdomain`` ...
    """
    if isinstance(app, Blueprint):
        app.record_once(lambda setup: install(cast(Flask, setup.app)))
    else:
        install(app)
    return app.route(rule, websocket=True, **options)


def install(app: Flask) -> None:
    """Make an application explain itself when requests and rules do not match. `websocket` does it by itself."""
    if WebsocketMismatch not in app.error_handler_spec[None][WebsocketMismatch.code]:
        app.register_error_handler(WebsocketMismatch, _explain)


def _explain(error: WebsocketMismatch) -> ResponseReturnValue:
    refusal = _refusal()
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    tell_refused(app, request.environ, refusal, ours=is_upgrade(request.environ))
    answer: ResponseReturnValue = current_app.handle_user_exception(refusal)
    return answer


def _refusal() -> HTTPException:
    """Find out which of the two does not fit the other."""
    if is_upgrade(request.environ):
        return BadRequest(
            f"{request.path} is not a WebSocket route. Register its view with "
            "@websock_gevent.flask.websocket(app, rule) or @app.route(rule, websocket=True)."
        )
    if "Upgrade" in request.headers:
        try:
            check_request(request.environ)
        except BadRequest as half_a_handshake:
            return half_a_handshake
    if "Sec-WebSocket-Key" in request.headers:
        return UpgradeRequired(
            "A WebSocket handshake came without its Upgrade header. A proxy in front keeps it: let it pass Upgrade and "
            "Connection on."
        )
    return UpgradeRequired()
