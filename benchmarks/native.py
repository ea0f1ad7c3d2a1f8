"""Compiles the C programs here when they are first used, and again when their source is newer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE / ".build"


def build(name: str, sources: Iterable[Path], *libraries: str) -> Path:
    """Return the program's path. It is renamed into place, so that two runs at once do not meet half a file.

    Raises:
        OSError, subprocess.CalledProcessError: no compiler, or it refused; it says why on standard error.
    """
    program, files = BUILD / name, list(sources)
    if not program.exists() or program.stat().st_mtime < max(file.stat().st_mtime for file in files):
        BUILD.mkdir(exist_ok=True)
        fresh = program.with_name(f"{name}.{os.getpid()}")
        code = [file for file in files if file.suffix == ".c"]
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-o", fresh, *code, *libraries], check=True)
        fresh.replace(program)
    return program


if __name__ == "__main__":
    source = Path(sys.argv[1])
    build(source.stem, [source])
