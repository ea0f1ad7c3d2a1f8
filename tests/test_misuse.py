"""What ``mypy --strict`` makes of applications: each line of `misuse` that is wrong is refused, with the error that
stands there, and no other line."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MISUSE = "tests/misuse.py"


def expected() -> dict[int, set[str]]:
    """The codes that stand in the file, by line."""
    lines = enumerate((ROOT / MISUSE).read_text().splitlines(), 1)
    marked = {number: re.search(r"  # expect: ([\w, -]+)$", line) for number, line in lines}
    return {number: set(found[1].split(", ")) for number, found in marked.items() if found}


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_each_misuse_is_refused_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--config-file", "setup.cfg", "--cache-dir", str(tmp_path), MISUSE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stdout + done.stderr
    found: defaultdict[int, set[str]] = defaultdict(set)
    for line, code in re.findall(rf"^{MISUSE}:(\d+): error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE):
        found[int(line)].add(code)
    assert found == expected()
    assert len(re.findall(r": error: ", done.stdout)) == sum(map(len, found.values())), done.stdout
