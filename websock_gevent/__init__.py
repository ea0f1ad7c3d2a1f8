"""WebSockets for synchronous WSGI applications on gevent: the WebSock contract in Python.

A view returns ``upgrade(environ, Handler, state)``, the handler writes a few callbacks, and `current` gives the mailbox
through which anybody can talk to the connected client. See the README for the ten lines it takes in Flask.
"""

from .deflate import Deflate
from .drainer import DrainSettings, configure_drain
from .errors import ConnectionClosed, MessageTooBig, ProtocolError, UpgradeRequired, WebSocketError
from .frames import CloseCode
from .hosts import drain
from .mailbox import Mailbox, Timer, current
from .options import Options
from .upgrade import upgrade
from .websock import Close, Control, Handler, Message, Messages, Reason, Result, WebSock
from .websocket import WebSocket

__all__ = [
    "Close",
    "CloseCode",
    "ConnectionClosed",
    "Control",
    "Deflate",
    "DrainSettings",
    "Handler",
    "Mailbox",
    "Message",
    "MessageTooBig",
    "Messages",
    "Options",
    "ProtocolError",
    "Reason",
    "Result",
    "Timer",
    "UpgradeRequired",
    "WebSock",
    "WebSocket",
    "WebSocketError",
    "configure_drain",
    "current",
    "drain",
    "upgrade",
]

__version__ = "0.1.0"
