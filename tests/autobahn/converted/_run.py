"""wstest for the converted test suite: -m fuzzingclient -s SPEC, or -a for the versions."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any


def cap_waits(fuzzing: Any, limit: float) -> None:
    """A case waits up to 1000 s for a server that never answers; let it wait `limit` at most."""
    for name in ("closeAfter", "killAfter"):
        original = getattr(fuzzing.FuzzingProtocol, name)
        setattr(
            fuzzing.FuzzingProtocol,
            name,
            lambda self, delay, original=original: original(self, min(delay, limit)),
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="wstest")
    parser.add_argument("-m", "--mode", choices=["fuzzingclient"])
    parser.add_argument("-s", "--spec", type=Path)
    parser.add_argument("-a", "--autobahnversion", action="store_true")
    args = parser.parse_args()
    if sys.platform.startswith("linux"):
        from twisted.internet import epollreactor

        epollreactor.install()
    import autobahn
    import autobahntestsuite
    from twisted.internet import reactor

    if args.autobahnversion:
        print(f"Autobahn {autobahn.version}")
        print(f"AutobahnTestSuite {autobahntestsuite.version}")
        return
    if not args.mode or not args.spec:
        parser.error("-m and -s are needed")
    from autobahntestsuite import fuzzing

    if limit := os.environ.get("AUTOBAHN_MAX_WAIT"):
        cap_waits(fuzzing, float(limit))
    fuzzing.startClient(json.loads(args.spec.read_text()))
    reactor.run()
