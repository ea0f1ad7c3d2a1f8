"""What is given out has all packages, those still to come included. Building and installing it: ``make package``."""

from __future__ import annotations

import configparser
from fnmatch import fnmatchcase

from serving import ROOT


def test_no_package_is_forgotten() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["options"]["packages"] == "find:"
    patterns = config["options.packages.find"]["include"].split()
    folders = {path.parent for path in (ROOT / "websock_gevent").rglob("*.py")}
    names = {folder.relative_to(ROOT).as_posix().replace("/", "."): folder for folder in folders}
    assert {"websock_gevent", "websock_gevent.pubsub", "websock_gevent.doctor"} <= set(names)
    for name, folder in names.items():
        assert (folder / "__init__.py").exists(), f"{name} is no package without it, and would be left out"
        assert any(fnmatchcase(name, pattern) for pattern in patterns), f"{name} is not included"
    for other in ("tests", "benchmarks", "examples", "websock_gevent_other"):
        assert not any(fnmatchcase(other, pattern) for pattern in patterns)
