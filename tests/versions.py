"""Tests on every Python at hand with the newest dependencies, and on the oldest Python with the oldest dependencies.

  python tests/versions.py [--jobs N] [--ends] TEST_FILE...

Looks for python3.X on the PATH and among pyenv's, for each version in setup.cfg; or takes those in the variable
PYTHONS, separated as in PATH. With --ends, only the oldest of both and the newest of both are tested. Each gets a
virtual environment of its own in .cache/versions, with its log beside it. Exit status 1 if a test failed anywhere;
versions that are not at hand are named.
"""

from __future__ import annotations

import argparse
import configparser
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
OLDEST = ROOT / "tests" / "oldest.txt"
FOLDER = ROOT / ".cache" / "versions"
#: Seconds for the tests of one environment.
PATIENCE = 3600


class Environment(NamedTuple):
    """A Python, and which dependencies it gets.

    Attributes:
        version: As in ``3.12``.
        interpreter: Where it is.
        oldest: Whether the dependencies are the oldest that are supported, or the newest there are.
    """

    version: str
    interpreter: str
    oldest: bool

    @property
    def name(self) -> str:
        return f"{self.version}-{'oldest' if self.oldest else 'newest'}"

    @property
    def python(self) -> str:
        return str(FOLDER / self.name / "bin" / "python")

    @property
    def log(self) -> Path:
        return FOLDER / f"{self.name}.log"


def supported() -> list[str]:
    """The versions of Python that setup.cfg names, oldest first."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return re.findall(r"Python :: (\d+\.\d+)$", config["metadata"]["classifiers"], re.MULTILINE)


def bounds() -> dict[str, str]:
    """The oldest version of each package that setup.cfg allows, as far as it is needed to run, not to test."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = [config["options.extras_require"][extra] for extra in ("flask", "gunicorn", "redis")]
    lines = "\n".join([config["options"]["install_requires"], *extras])
    return {
        name.lower(): version for name, version in re.findall(r"^([\w-]+)(?:\[\w+\])?>=(\S+)$", lines, re.MULTILINE)
    }


def interpreters(path: str, given: str = "") -> dict[str, str]:
    """Find a Python for each supported version: those given, else those on the path that do start."""
    candidates = [*filter(None, given.split(os.pathsep))]
    if not candidates:
        candidates = [shutil.which(f"python{version}", path=path) or "" for version in supported()]
        candidates += pyenvs(path)
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    found = {}
    for candidate in filter(None, candidates):
        done = subprocess.run([candidate, "-c", code], capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            found[done.stdout.strip()] = candidate
    return {version: found[version] for version in supported() if version in found}


def pyenvs(path: str) -> list[str]:
    """Where pyenv, if it is there, has Pythons that the PATH does not lead to."""
    pyenv = shutil.which("pyenv", path=path)
    if pyenv is None:
        return []
    root = subprocess.run([pyenv, "root"], capture_output=True, text=True, timeout=60).stdout.strip()
    return sorted(map(str, Path(root, "versions").glob("*/bin/python3.[0-9]*[0-9]")))


def prepare(environment: Environment) -> None:
    """Make the virtual environment, or bring it up to date."""
    if not Path(environment.python).exists():
        subprocess.run([environment.interpreter, "-m", "venv", str(FOLDER / environment.name)], check=True)
    pip = [environment.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    how = ["-c", str(OLDEST)] if environment.oldest else ["--upgrade", "--upgrade-strategy", "eager"]
    subprocess.run([*pip, *how, "-e", ".[test]"], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)


def run(environment: Environment, files: Sequence[str]) -> bool:
    """Run the tests; tell, in one piece, what came of it."""
    command = [environment.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    with environment.log.open("w") as log:
        done = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, timeout=PATIENCE)
    lines = environment.log.read_text().splitlines()
    bad = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    print("\n".join([f"{environment.name}: {lines[-1] if lines else 'nothing'}  ({_installed(environment)})", *bad]))
    return done.returncode == 0


def _installed(environment: Environment) -> str:
    freeze = [environment.python, "-m", "pip", "freeze", "--disable-pip-version-check"]
    listed = subprocess.run(freeze, capture_output=True, text=True, check=True).stdout.splitlines()
    return ", ".join(line.replace("==", " ") for line in listed if line.lower().partition("==")[0] in bounds())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="TEST_FILE")
    parser.add_argument("--ends", action="store_true", help="not those in between")
    parser.add_argument("--jobs", type=int, default=2, help="environments that are tested at once (%(default)s)")
    asked = parser.parse_args()
    found = interpreters(os.environ.get("PATH", ""), os.environ.get("PYTHONS", ""))
    for version in supported():
        if version not in found:
            print(f"{version}: not at hand, not tested")
    newest = [Environment(version, path, False) for version, path in found.items()]
    environments = newest[-1:] if asked.ends else newest
    environments += [Environment(version, path, True) for version, path in [*found.items()][:1]]
    FOLDER.mkdir(parents=True, exist_ok=True)
    for environment in environments:  # one by one: they write to the same egg-info
        prepare(environment)
    with ThreadPoolExecutor(asked.jobs) as pool:
        results = list(pool.map(lambda environment: run(environment, asked.files), environments))
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
