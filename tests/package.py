"""What is given out: builds sdist and wheel, looks at what is in them, installs each where nothing else is, and serves
the README's ten lines there, under gunicorn, to a real client.

  python tests/package.py

Needs the packages build and twine; whatever git knows, as it is now, is built. Some two minutes.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

from blocks import block
from serving import DEADLINE, ROOT, Server
from websockets.sync.client import connect

#: Beside the package itself, what whoever has the sources alone needs.
BESIDE = {"CHANGES.rst", "LICENSE", "MANIFEST.in", "README.rst", "setup.cfg", "setup.py"}
FOLDERS = ("docs/", "examples/", "websock_gevent/")


def known() -> list[str]:
    """The files that git knows, or would take."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and (ROOT / name).exists()]


def run(command: Sequence[str | Path], folder: Path) -> str:
    """Run a command to its good end, and return what it has written."""
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout}"
    return done.stdout


def build(folder: Path) -> tuple[Path, Path]:
    """Build from a clean copy; return sdist and wheel."""
    sources = folder / "sources"
    for name in known():
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        (sources / name).write_bytes((ROOT / name).read_bytes())
    run([sys.executable, "-m", "build", "--outdir", folder], sources)
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    run([sys.executable, "-m", "twine", "check", "--strict", sdist, wheel], folder)
    return sdist, wheel


def look_into(sdist: Path, wheel: Path) -> None:
    """Everything is there, and nothing else."""
    ours = {name for name in known() if name.startswith("websock_gevent/")}
    assert {"websock_gevent/py.typed", "websock_gevent/pubsub/pubsub.py"} <= ours
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = archive.read(f"{wheel.name.rpartition('-py3')[0]}.dist-info/METADATA").decode()
        licences = [name for name in archive.namelist() if name.endswith("LICENSE")]
    assert names == ours, names ^ ours
    assert len(licences) == 1
    for line in ("License: MIT", "Description-Content-Type: text/x-rst", "Requires-Python: >=3.10", "Keywords: "):
        assert f"\n{line}" in metadata, line
    with tarfile.open(sdist) as tar:
        inside = {member.name.partition("/")[2] for member in tar.getmembers() if member.isfile()}
    made = {name for name in inside if name == "PKG-INFO" or name.startswith("websock_gevent.egg-info/")}
    wanted = {name for name in known() if name in BESIDE or name.startswith(FOLDERS)}
    assert inside - made == wanted, (inside - made) ^ wanted


def serve(package: Path, folder: Path) -> None:
    """Install it where nothing else is; have the README's lines served, and the doctor look at them."""
    venv.create(folder / "venv", with_pip=True)
    programs = folder / "venv" / "bin"
    pip = [programs / "python", "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", f"{package}[flask,gunicorn]"], folder)
    run([*pip, "check"], folder)
    (folder / "app.py").write_text(block("readme-app").text)
    where = run([programs / "python", "-c", "import websock_gevent; print(websock_gevent.__file__)"], folder)
    assert where.startswith(str(folder)), where
    run([programs / "python", "-m", "websock_gevent", "doctor", "app:app", "--", "-k", "gevent"], folder)
    server = Server(
        [str(programs / "gunicorn"), "-k", "gevent", "-b", "127.0.0.1:0", "--chdir", str(folder), "app:app"]
    )
    try:
        server.listening()
        with connect(server.url("/echo", "ws"), open_timeout=DEADLINE, proxy=None) as websocket:
            for message in ("hello", b"\x00\xff"):
                websocket.send(message)
                assert websocket.recv(DEADLINE) == message
    finally:
        server.stop()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        packages = build(folder)
        look_into(*packages)
        for package in packages:
            place = folder / f"with-{package.name}"
            place.mkdir()
            serve(package, place)
            print(f"{package.name}: built, installed, served")


if __name__ == "__main__":
    main()
