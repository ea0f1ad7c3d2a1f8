"""Applications in the blocking style, written for gevent-websocket, Flask-Sockets, flask-sock, or today. A leaf.

`WebSocketMiddleware` gives an unmodified application its ``environ["wsgi.websocket"]``; `Sock` and `Sockets` stand in
for flask-sock and Flask-Sockets by one changed import; `blocking` is for new code. All of them run on our connections,
with our limits, close codes, deadlines and drain, under any server that `upgrade` runs under.
"""

from ..blocking import BlockingWebSocket, blocking
from .middleware import WebSocketMiddleware
from .sock import ConnectionClosed, Sock, SockWebSocket
from .sockets import Sockets
from .websocket import LegacyWebSocket

__all__ = [
    "BlockingWebSocket",
    "ConnectionClosed",
    "LegacyWebSocket",
    "Sock",
    "SockWebSocket",
    "Sockets",
    "WebSocketMiddleware",
    "blocking",
]
