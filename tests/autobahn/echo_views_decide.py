"""echo.py, taking upgrades from gevent-websocket's handler."""

from echo import app

from websock_gevent.serve import let_views_decide

let_views_decide()

__all__ = ["app"]
