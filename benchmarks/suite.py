#!/usr/bin/env python3
"""All of the benchmarks, the tables, the pictures and the bars: ``make bench``. About three quarters of an hour.

python benchmarks/suite.py                      # everything; writes results/suite-DATE.* and the README's tables
python benchmarks/suite.py --fast               # three scenarios, five servers: four minutes, only shown
python benchmarks/suite.py --servers websock_gevent/gunicorn epoll/C --scenarios 100x1x32 connect16 --rounds 5
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import connect
import echo
import fanout
import idle
import rate
from bars import BARS, GOALS, judge, table
from cli import execute, find, parser, prepare
from growth import QUEUE, SERIES
from peers import OURS, REFERENCE
from report import write
from runner import Kind
from servers import HERE, Server

KINDS: Sequence[Kind] = (echo.KIND, rate.KIND, fanout.KIND, connect.KIND, idle.KIND, QUEUE)
FAST = ("100x1x32", "1000x1x128", "fanout1000x128")
FAST_SERVERS = (REFERENCE, OURS, "picows/uvloop", "ws/node", "epoll/C")
GROWING = (*FAST_SERVERS, "websockets/asyncio")  # in the series: enough to see what is whose


def growth_names(done: Sequence[str]) -> list[str]:
    names = dict.fromkeys(name for series in SERIES for _, name in series.steps)
    return [name for name in [*names, "100x1x128"] if name not in done]


def growing(servers: Sequence[Server], chosen: bool) -> list[Server]:
    return [server for server in servers if chosen or server.name in GROWING]


def main() -> int:
    made = parser(__doc__ or "", KINDS)
    made.add_argument("--fast", action="store_true", help="three scenarios, five servers; writes no tables")
    args = made.parse_args()
    whole = not args.scenarios and not args.fast
    chosen = bool(args.servers or args.against or args.options)
    if args.fast:
        args.scenarios = args.scenarios or FAST
        args.servers = args.servers or (None if args.against or args.options else FAST_SERVERS)
    names = list(args.scenarios or (name for kind in KINDS if kind is not QUEUE for name in kind.scenarios))
    plan = [find(name, KINDS) for name in names]
    more = [find(name, KINDS) for name in dict.fromkeys(growth_names(names))] if whole else []
    run, servers, reference, setup = prepare(args)
    began = time.monotonic()
    execute(run, plan, servers, setup, reference)
    execute(run, more, growing(servers, chosen), replace(setup, rounds=min(setup.rounds, 2)), reference)
    run.facts["minutes"] = round((time.monotonic() - began) / 60, 1)
    print("\nbars\n" + table(judge(BARS, run)) + "\n\nwhere it goes\n" + table(judge(GOALS, run)))
    out: Path = args.out or HERE / "results" / f"suite-{date.today()}.json"
    if whole or args.out:
        run.save(out)
        write(run, out, readme=whole and not chosen and not args.out)
        print(f"\n{run.facts['minutes']} minutes; written: {out.with_suffix('')}.*")
    return int(any(one.error for one in run.measurements))


if __name__ == "__main__":
    sys.exit(main())
