"""``python -m websock_gevent doctor MODULE:APP``: will WebSockets work here, and what is to be changed? A leaf."""

from __future__ import annotations

import sys

from .doctor.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
