"""Which versions are tested, and how they are found: the constraints are setup.cfg's, a Python that does not start is
none."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from versions import OLDEST, ROOT, bounds, interpreters, supported


def test_the_oldest_versions_are_those_of_setup_cfg() -> None:
    lines = [line for line in OLDEST.read_text().splitlines() if not line.startswith("#")]
    oldest = dict(line.split("==") for line in lines)
    del oldest["greenlet"]  # gevent's own requirement
    assert oldest == bounds()


def test_every_requirement_has_a_lower_bound() -> None:
    text = (ROOT / "setup.cfg").read_text()
    (required,) = re.findall(r"^install_requires =\n((?:    .+\n)+)", text, re.MULTILINE)
    names = {line.strip().partition(">=")[0].lower() for line in required.splitlines()}
    assert names <= set(bounds())
    assert f"python_requires = >={supported()[0]}\n" in text


def test_only_a_python_that_starts_is_at_hand(tmp_path: Path) -> None:
    this = ".".join(map(str, sys.version_info[:2]))
    assert interpreters(str(tmp_path)) == {}
    (tmp_path / f"python{this}").symlink_to(sys.executable)
    for version in set(supported()) - {this}:
        (tmp_path / f"python{version}").write_text("#!/bin/sh\nexit 127\n")
        (tmp_path / f"python{version}").chmod(0o755)
    found = {this: str(tmp_path / f"python{this}")} if this in supported() else {}
    assert interpreters(str(tmp_path)) == found
    assert list(interpreters("", given=sys.executable)) == list(found)
