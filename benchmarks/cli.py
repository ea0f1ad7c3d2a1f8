"""The command line that all kinds of measurement share: choose servers and scenarios, run, show, write."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from machine import describe
from peers import OURS, REFERENCE, SERVERS, checkout, revision, with_options, with_tree
from results import Run
from runner import Kind, Scenario, Setup, rounds
from servers import HERE, ROOT, Server, why_missing
from tables import reference_in, remarks, table

__all__ = ["execute", "find", "has_failed", "main", "parser", "prepare"]

DISTRIBUTIONS = (
    "gevent greenlet gevent-websocket wsaccel gunicorn Flask Werkzeug flask-sock simple-websocket wsproto websockets "
    "uvicorn httptools picows uvloop"
)


def own_versions() -> dict[str, str]:
    found = {"Python": f"{platform.python_implementation()} {platform.python_version()}"}
    for name in DISTRIBUTIONS.split():
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def versions(python: str) -> dict[str, str]:
    """Of the interpreter the servers run under, which need not be ours, and of the other programs."""
    script = "import cli, json; print(json.dumps(cli.own_versions()))"
    done = subprocess.run([python, "-c", script], cwd=HERE, capture_output=True, text=True, check=True)
    others = {"Node": ["node", "--version"], "gcc": ["gcc", "-dumpfullversion"]}
    others["ws"] = ["node", "-p", "require('./apps/node_ws/node_modules/ws/package.json').version"]
    found = dict(json.loads(done.stdout))
    for name, command in others.items():
        try:
            answer = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True)
            found[name] = answer.stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            continue
    return found


def parser(description: str, kinds: Sequence[Kind]) -> argparse.ArgumentParser:
    names = [server.name for server in SERVERS]
    cpus = sorted(os.sched_getaffinity(0))
    made = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="scenarios\n  " + "\n  ".join(kind.help for kind in kinds),
    )
    add = made.add_argument
    add("--servers", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    add("--ref", choices=names, metavar="NAME", help=f"what ratios refer to (default {REFERENCE}, or ours in an A/B)")
    add("--scenarios", nargs="+", metavar="NAME", help="see below")
    add("--against", "--tree", action="append", default=[], metavar="PATH|COMMIT", help="also ours of another checkout")
    add("--options", action="append", default=[], metavar="JSON", help="also ours with these options of upgrade()")
    add("--rounds", type=int, default=3)
    add("--tries", type=int, default=2, help="measure again when other programs disturbed (default %(default)s)")
    add("--seconds", type=float, default=2.0, help="measured time (default %(default)s)")
    add("--warmup", type=float, default=0.5)
    add("--server-cpu", type=int, default=cpus[0])
    add("--load-cpu", type=int, default=cpus[-1])
    add("--python", default=sys.executable, help="interpreter for the servers")
    add("--out", type=Path, help="JSON file (default: results/<kind>-<time>.json)")
    return made


def choose(args: argparse.Namespace) -> tuple[list[Server], str]:
    """The servers asked for, each of ours followed by its variants, and the name of the reference."""
    compared = bool(args.against or args.options)
    wanted = args.servers or ([OURS] if compared else [server.name for server in SERVERS])
    chosen: list[Server] = []
    for server in (one for one in SERVERS if one.name in wanted):
        chosen.append(server)
        if "queue" in server.offers:  # it is ours
            chosen += [with_options(server, options) for options in args.options]
            chosen += [with_tree(server, checkout(where)) for where in args.against]
    names = [server.name for server in chosen]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two entries would be called {', '.join(sorted(twice))}")
    reference = args.ref or (OURS if compared else REFERENCE)
    return chosen, reference if reference in names else names[0]


def prepare(args: argparse.Namespace) -> tuple[Run, list[Server], str, Setup]:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # an exception, so that the server is stopped, too
    setup = Setup(**{name: getattr(args, name) for name in Setup.__dataclass_fields__})
    os.sched_setaffinity(0, {setup.load_cpu})  # reading clocks must not disturb the server
    try:
        chosen, reference = choose(args)
    except ValueError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    skipped = {server.name: reason for server in chosen if (reason := why_missing(server, args.python))}
    for name, reason in skipped.items():
        print(f"skipped {name}: {reason}", flush=True)
    trees = {str(server.tree.name): revision(server.tree) for server in chosen if server.tree != ROOT}
    run = Run(
        {
            "command": shlex.join(["python", *sys.argv]),
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "revision": revision(),
            "trees": trees,
            "machine": describe(),
            "versions": versions(args.python),
            "setup": {name: value for name, value in vars(setup).items() if name != "python"},
            "skipped": skipped,
            "reference": reference,
        }
    )
    return run, [server for server in chosen if server.name not in skipped], reference, setup


def find(name: str, kinds: Sequence[Kind]) -> tuple[Kind, Scenario]:
    for kind in kinds:
        if found := re.fullmatch(kind.pattern, name):
            return kind, kind.parse(found)
    raise SystemExit(f"unknown scenario {name!r}; there are\n  " + "\n  ".join(kind.help for kind in kinds))


def execute(run: Run, plan: Sequence[tuple[Kind, Scenario]], servers: Sequence[Server], setup: Setup, ref: str) -> None:
    """Run it all; a table behind each scenario."""
    for kind, scenario in plan:
        able = [server for server in servers if server.offers >= set(scenario.needs.split())]
        if not able:
            print(f"\n{scenario.name}: no server chosen offers {scenario.needs!r}")
            continue
        measured = list(rounds(kind, scenario, able, setup))
        run.measurements += measured
        print(f"\n{kind.name} {scenario.name}  (ref = {reference_in(run, scenario.name, ref)}, same round)")
        print(table(run, scenario.name, kind.columns, ref))
        print("".join(f"  ! {note}\n" for note in remarks(measured)), end="", flush=True)


def has_failed(run: Run) -> bool:
    """Whether one of ours has; that a peer does is a result."""
    return any(one.error for one in run.measurements if one.server.startswith("websock_gevent/"))


def main(kinds: Sequence[Kind], description: str, scenarios: Sequence[str] = ()) -> int:
    """Run these scenarios, by default those of the first kind, unless others are asked for."""
    args = parser(description, kinds).parse_args()
    plan = [find(name, kinds) for name in args.scenarios or scenarios or kinds[0].scenarios]
    run, servers, reference, setup = prepare(args)
    execute(run, plan, servers, setup, reference)
    out = args.out or HERE / "results" / f"{kinds[0].name}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}.json"
    run.save(out)
    print(f"\nwritten: {out}")
    return int(has_failed(run))
