"""The handler both of our applications serve."""

from __future__ import annotations

from websock_gevent import Result, WebSock


class Echo(WebSock[None]):
    def handle_in(self, message: str | bytes, state: None) -> Result[None]:
        return "push", message, state
