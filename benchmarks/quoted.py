"""Figures of servers that cannot be installed everywhere, from another run on the same kind of machine.

Elixir's and Erlang's, made with the same method (one core for the server, closed loop, every byte compared, medians of
one to three runs): Erlang/OTP 25.2.3, Cowboy 2.18.0, Bandit 1.12.5. Ratios to gevent-websocket on pywsgi in that run
travel; absolute figures do not, so they are not given.
"""

from __future__ import annotations

__all__ = ["RATIOS"]

RATIOS: dict[str, dict[str, float]] = {
    "Cowboy": {
        "1x1x32": 1.06,
        "100x1x32": 2.64,
        "100x1x1KiB": 8.24,
        "100x1x64KiB": 16.3,
        "1000x1x128": 2.70,
        "10x16x128": 5.68,
        "1x1x16MiB": 18.0,
        "fanout1000x128": 0.94,
        "idle10000": 0.36,
    },
    "Bandit": {
        "1x1x32": 1.25,
        "100x1x32": 2.06,
        "100x1x1KiB": 8.81,
        "100x1x64KiB": 11.7,
        "1000x1x128": 2.25,
        "10x16x128": 3.81,
        "1x1x16MiB": 9.57,
        "idle10000": 0.61,
    },
}
