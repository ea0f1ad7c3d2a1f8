"""The same tests for both kinds of connection: ``TEST_IDLE=parked pytest`` has the option ``idle`` default to that.

Every application of the tests imports this before it makes options.
"""

from __future__ import annotations

import os

from websock_gevent import Options

IDLE = os.environ.get("TEST_IDLE", Options.idle)

Options.__init__.__defaults__ = tuple(  # type: ignore[attr-defined]
    IDLE if value == Options.idle else value
    for value in Options.__init__.__defaults__  # type: ignore[attr-defined]
)
