#!/usr/bin/env python3
"""All of the benchmarks, the tables, the pictures and the bars: ``make bench``. About three quarters of an hour.

python benchmarks/suite.py                    # everything; writes results/suite-DATE.*, the page, the README's table
python benchmarks/suite.py --fast               # three scenarios, five servers: four minutes, only shown
python benchmarks/suite.py --servers websock_gevent/gunicorn epoll/C --scenarios 100x1x32 connect16 --rounds 5
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import date
from pathlib import Path

import connect
import echo
import fanout
import idle
import rate
from bars import BARS, GOALS, judge, table
from cli import execute, find, has_failed, parser, prepare
from growth import QUEUE, TOPICS, grow
from growth import table as growth_table
from peers import OURS, REFERENCE
from report import write
from servers import HERE

EVERYTHING = (echo.KIND, rate.KIND, fanout.KIND, connect.KIND, idle.KIND)
KINDS = (*EVERYTHING, QUEUE, TOPICS)
FAST = ("100x1x32", "1000x1x128", "fanout1000x128")
FEW = (REFERENCE, OURS, "picows/uvloop", "ws/node", "epoll/C")  # also in the series: enough to see what is whose


def arguments() -> argparse.Namespace:
    made = parser(__doc__ or "", KINDS)
    made.add_argument("--fast", action="store_true", help="three scenarios, five servers; writes no tables")
    args = made.parse_args()
    args.whole = not args.scenarios and not args.fast
    args.chosen = bool(args.servers or args.against or args.options)
    if args.fast:
        args.scenarios = args.scenarios or FAST
        args.servers = args.servers if args.chosen else FEW
    return args


def main() -> int:
    args = arguments()
    names = args.scenarios or [name for kind in EVERYTHING for name in kind.scenarios]
    plan = [find(name, KINDS) for name in names]
    run, servers, reference, setup = prepare(args)
    began = time.monotonic()
    execute(run, plan, servers, setup, reference)
    if args.whole:
        grow(run, [server for server in servers if args.chosen or server.name in FEW], setup)
        print("\n" + growth_table(run))
    run.facts["minutes"] = round((time.monotonic() - began) / 60, 1)
    print(f"\nbars\n{table(judge(BARS, run), args.whole)}\n\nwhere it goes\n{table(judge(GOALS, run), args.whole)}")
    out: Path = args.out or HERE / "results" / f"suite-{date.today()}.json"
    if args.whole or args.out:
        run.save(out)
        write(run, out, publish=args.whole and not args.chosen and not args.out)
        print(f"\nwritten: {out.with_suffix('')}.*")
    print(f"{run.facts['minutes']} minutes")
    return int(has_failed(run))


if __name__ == "__main__":
    sys.exit(main())
