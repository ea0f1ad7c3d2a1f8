"""Fuzz the targets with atheris, one after the other, each in a process of its own, for a share of the time.

Inputs that reach something new are kept in ``.cache/fuzz``, where the next run begins; one that fails is left there as
``<target>-crash-...``. ``run.py --seconds 600``, or for a single one ``run.py --seconds 60 frames``.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "fuzz"
FLAGS = ["-max_len=2048", "-timeout=20", "-rss_limit_mb=1000", "-print_final_stats=1", "-reload=0"]


def fuzz(name: str, flags: list[str]) -> None:
    """Fuzz in this process, which does not come back."""
    import atheris

    with atheris.instrument_imports(include=["websock_gevent"]):
        from fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *flags], TARGETS[name])
    atheris.Fuzz()


def run(name: str, seeds: list[bytes], seconds: int) -> bool:
    """Fuzz one target; tell how often it ran, and return whether it kept its word."""
    corpus = CACHE / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    tokens = f"-dict={Path(__file__).with_name('tokens.dict')}"
    flags = [*FLAGS, tokens, f"-max_total_time={seconds}", f"-artifact_prefix={CACHE}/{name}-", str(corpus)]
    command = [sys.executable, __file__, "--one", name, "--", *flags]
    done = subprocess.run(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, errors="replace")
    found = re.search(r"number_of_executed_units: (\d+)", done.stdout)
    print(f"{name}: {found[1] if found else '?'} executions in {seconds} s", flush=True)
    if done.returncode:
        print(done.stdout[-6000:])
    return done.returncode == 0


def main() -> int:
    """Fuzz all targets, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    if arguments.one:
        fuzz(arguments.names[0], arguments.names[1:])
    from fuzz.targets import SEEDS

    names = arguments.names or list(SEEDS)
    share = max(1, arguments.seconds // len(names))
    return 0 if all([run(name, SEEDS[name], share) for name in names]) else 1


if __name__ == "__main__":
    sys.exit(main())
