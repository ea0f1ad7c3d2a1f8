"""Every exception of the library, each carrying its answer.

Owns: what a failed connection tells its peer (a close code, RFC 6455 §7.4), what a refused upgrade tells its client (an
HTTP status), and how texts show a value that was wrong (`repr_of`). The classes stand on gevent-websocket's, so that
``except WebSocketError`` in code written for it still catches them; that base is an ``OSError``. Knows nothing of
sockets, frames or handlers.

    WebSocketError (gevent-websocket)
    ├── ConnectionClosed    the connection has ended; carries the peer's close code and text
    └── ProtocolError       the peer broke the protocol; carries the close code it is answered with
        └── MessageTooBig   ... by sending more than the limits allow (1009)
    UpgradeRequired         HTTP 426 (Werkzeug has no class for it)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geventwebsocket.exceptions import FrameTooLargeException, WebSocketError
from geventwebsocket.exceptions import ProtocolError as GeventProtocolError
from werkzeug.exceptions import HTTPException

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["ConnectionClosed", "MessageTooBig", "ProtocolError", "UpgradeRequired", "WebSocketError", "repr_of"]


class ProtocolError(GeventProtocolError):
    """The peer broke the protocol.

    Attributes:
        code: The close code it is answered with (RFC 6455 §7.4.1).
    """

    def __init__(self, text: str, code: int = 1002) -> None:
        super().__init__(text)
        self.code = code


class MessageTooBig(ProtocolError, FrameTooLargeException):
    """A frame or message is longer than ``max_frame_size`` or ``max_message_size`` (RFC 6455 §10.4)."""

    def __init__(self, text: str) -> None:
        super().__init__(text, 1009)


class ConnectionClosed(WebSocketError):
    """The connection has ended, so nothing can be sent or received any more.

    Attributes:
        code: The peer's close code; ``None`` if it sent no close frame or one without a code.
        text: The peer's close text; empty if there was none.
    """

    def __init__(self, code: int | None = None, text: str = "") -> None:
        super().__init__(f"the connection is closed (code {code}, text {text!r})")
        self.code = code
        self.text = text


class UpgradeRequired(HTTPException):
    """*426* ``Upgrade Required`` (RFC 9110 §15.5.22): this resource speaks WebSocket only.

    Args:
        description: The text of the answer; ``None`` for the one below.
        version: Answer with ``Sec-WebSocket-Version: 13``, because the client asked for another one (RFC 6455 §4.4).
    """

    code = 426
    description = "This address is a WebSocket. Connect to it with a WebSocket client (RFC 6455)."

    def __init__(self, description: str | None = None, *, version: bool = False) -> None:
        super().__init__(description)
        self.version = version

    def get_headers(
        self, environ: WSGIEnvironment | None = None, scope: dict[str, Any] | None = None
    ) -> list[tuple[str, str]]:
        """Add ``Upgrade``, its ``Connection`` token (RFC 9110 §7.8) and, if asked for, the version we speak."""
        headers = [*super().get_headers(environ, scope), ("Upgrade", "websocket"), ("Connection", "Upgrade")]
        return [*headers, ("Sec-WebSocket-Version", "13")] if self.version else headers


def repr_of(value: object) -> str:
    """Show what somebody has given, in the text of an error: no more than 200 characters, and whatever it is."""
    try:
        text = repr(value)
    except Exception:  # a number of more digits than Python writes (`sys.set_int_max_str_digits`), say
        text = object.__repr__(value)
    return text if len(text) <= 200 else text[:200] + "…"
