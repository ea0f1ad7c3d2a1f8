"""Another application, ``APP``, taking upgrades from gevent-websocket's handler."""

import os

from werkzeug.utils import import_string

from websock_gevent.serve import let_views_decide

let_views_decide()
app = import_string(os.environ["APP"])

__all__ = ["app"]
