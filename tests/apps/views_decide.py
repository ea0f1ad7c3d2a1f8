"""The application ``served``, taking upgrades from gevent-websocket's handler."""

from served import app

from websock_gevent.serve import let_views_decide

let_views_decide()

__all__ = ["app"]
