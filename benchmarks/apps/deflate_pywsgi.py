"""An echo with the permessage-deflate settings given as JSON (``null`` for none), for benchmarks/deflate.py."""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import sys  # noqa: E402

from echo_handler import Echo  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402

from websock_gevent import Deflate, upgrade  # noqa: E402

settings = json.loads(sys.argv[1])
compress = Deflate(**settings) if settings is not None else False


def app(environ, start_response):
    return upgrade(environ, Echo, None, compress=compress)(environ, start_response)


server = WSGIServer(("127.0.0.1", 0), app, log=None)
server.start()
print(server.server_port, flush=True)
server.serve_forever()
