"""Programs that others have written, as PyPI has them: fetched when a test asks, into ``.cache``, and never kept here.

A program is put into a folder as a module, with the changes that whoever moves to the library would make; a change that
finds nothing to change is a failure.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
import textwrap
from collections.abc import Mapping
from pathlib import Path

from serving import CACHE

__all__ = ["FLASK_SOCK", "FLASK_SOCKETS", "GEVENT_WEBSOCKET", "changed", "code_blocks", "sdist"]

FLASK_SOCK = "flask-sock", "0.7.0"
FLASK_SOCKETS = "Flask-Sockets", "0.2.1"
GEVENT_WEBSOCKET = "gevent-websocket", "0.10.1"


def sdist(package: tuple[str, str]) -> Path:
    """The folder of an unpacked source archive; it is fetched if need be."""
    name, version = package
    folder = CACHE / "sdists" / f"{name}-{version}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
            command = [*pip, "--no-binary", name, "--dest", fresh, f"{name}=={version}"]
            subprocess.run(command, check=True, timeout=300)
            (archive,) = Path(fresh).glob("*.tar.gz")
            with tarfile.open(archive) as packed:
                packed.extractall(fresh, filter="data")
            (Path(fresh) / folder.name).rename(folder)
    return folder


def code_blocks(page: Path, mark: str) -> list[str]:
    """The literal blocks of a page that stand behind lines ending with a mark."""
    found = re.findall(rf"{re.escape(mark)}\n\n+((?: +.*\n|\n)+)", page.read_text())
    return [textwrap.dedent(block) for block in found]


def changed(program: str, changes: Mapping[str, str]) -> str:
    """The program with each text replaced by another; it stands there, and once."""
    for old, new in changes.items():
        assert program.count(old) == 1, f"{old!r} stands {program.count(old)} times in\n{program}"
        program = program.replace(old, new)
    return program
