"""The command line: arguments, the second process, the report, and the exit status."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import environment
from .findings import Finding, problem
from .probe import Questions

__all__ = ["main"]

_NOT_LOOKED_AT = (
    "proxies in front (docs/proxies.rst), limits that a process manager sets, what the application does later"
)
_DESCRIPTION = "Say whether WebSockets will work here, and what to change. Exit status 1 if there is a problem."


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit status: 0, or 1 if there is a problem. Wrong arguments exit with 2."""
    own, gunicorn = _split(arguments)
    asked = _asked(own)
    if asked.file:
        gunicorn = ["-c", asked.file, *gunicorn]
    questions = Questions(asked.uri, None if asked.no_gunicorn else gunicorn, asked.connections, asked.redis)
    findings = [*environment.examine(asked.connections), *_probe(questions, asked.timeout)]
    print(_as_json(findings) if asked.json else _as_text(findings))
    return int(any(finding.level == "problem" for finding in findings))


def _asked(own: list[str]) -> argparse.Namespace:
    parser = _parser()
    asked, strange = parser.parse_known_args(own)
    if strange:
        example = "doctor app:app -- -k gevent"
        parser.error(f"unknown: {' '.join(strange)}; what is gunicorn's stands behind --, as in {example}")
    return asked


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is behind ``--`` is gunicorn's."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return list(arguments[:at]), list(arguments[at + 1 :])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m websock_gevent")
    doctor = parser.add_subparsers(required=True, metavar="doctor").add_parser(
        "doctor",
        description=_DESCRIPTION,
        usage="%(prog)s [options] MODULE:APP [-- GUNICORN_ARGUMENTS]",
        epilog="What stands behind -- is read as gunicorn's command line: doctor app:app -- -k gevent -w 4",
    )
    add = doctor.add_argument
    add("uri", metavar="MODULE:APP", help="as for gunicorn, factories as well: module:create_app()")
    add("--gunicorn", dest="file", metavar="FILE", help="gunicorn's configuration file; else gunicorn.conf.py if there")
    add("--no-gunicorn", action="store_true", help="it is served by gevent.pywsgi or flask run")
    add(
        "--connections",
        type=_count,
        default=1000,
        metavar="N",
        help="WebSockets that a worker shall hold (%(default)s)",
    )
    add("--redis", default="", metavar="URL", help="a Redis server to ask; those of the application are found")
    add("--timeout", type=_count, default=60, metavar="S", help="seconds that loading may take (%(default)s)")
    add("--json", action="store_true", help="write one JSON object")
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"takes a number from 1 up, not {text!r}")
    return int(text)


def _probe(questions: Questions, timeout: int) -> list[Finding]:
    """Ask the second process, and tell if it has not come to its end."""
    with tempfile.TemporaryDirectory() as folder:
        answers, said = Path(folder, "answers"), Path(folder, "said")
        answers.touch()
        command = [sys.executable, "-m", "websock_gevent.doctor.probe", str(answers), json.dumps(questions)]
        try:
            with said.open("wb") as output:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, timeout=timeout
                )
            status = done.returncode
            end = f"the process has ended with status {status} while it was looked at" if status else ""
        except subprocess.TimeoutExpired:
            end = f"not loaded and looked at after {timeout} s"
        findings = [Finding(*json.loads(line)) for line in answers.read_text().splitlines()]
        if end:
            last = said.read_text(errors="replace").strip().rpartition("\n")[2]
            seen = f"{end}, and wrote last: {last}" if last else end
            findings.append(problem("application", seen, "have importing it neither serve nor end the process"))
        return findings


def _as_text(findings: list[Finding]) -> str:
    counts = [f"{sum(f.level == level for f in findings)} {level}" for level in ("ok", "warning", "problem")]
    return "\n".join([*map(str, findings), f"{', '.join(counts)}. Not looked at: {_NOT_LOOKED_AT}."])


def _as_json(findings: list[Finding]) -> str:
    return json.dumps(
        {"findings": [finding._asdict() for finding in findings], "not_looked_at": _NOT_LOOKED_AT}, indent=1
    )
