"""Real servers for the end-to-end tests, each a process of its own, and a client that speaks bytes.

Nothing here sleeps: a thread reads what a server writes, and whoever waits for a line of it is woken when it comes.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from time import monotonic
from typing import NamedTuple
from urllib.parse import quote

import gunicorn.config as gunicorn_config
import trustme

__all__ = [
    "DEADLINE",
    "HAS_HTTP_2",
    "NODE",
    "OLDEST_GUNICORN",
    "Answer",
    "Program",
    "Server",
    "certificate",
    "flask_run",
    "for_two_threads",
    "free_port",
    "gunicorn",
    "gunicorn_target",
    "installed_beside",
    "node",
    "pywsgi",
]

#: Seconds after which a wait has failed. Generous: no test asserts how long something takes.
DEADLINE = float(os.environ.get("TEST_DEADLINE", "30"))
#: The oldest gunicorn that is supported; it runs beside the installed one.
OLDEST_GUNICORN = "23.0.0"
#: What the installed gunicorn has; the oldest has neither.
HAS_HTTP_2, HAS_CONTROL_SOCKET = (hasattr(gunicorn_config, name) for name in ("HTTPProtocols", "ControlSocketDisable"))
ROOT = Path(__file__).resolve().parent.parent
APPS = ROOT / "tests" / "apps"
NODE = ROOT / "tests" / "node"
CACHE = ROOT / ".cache"
#: gunicorn's own, and the seconds that a request took.
ACCESS_FORMAT = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s" %(L)s'


class Answer(NamedTuple):
    """A response over HTTP."""

    version: str
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        """The values of all headers of a name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Program:
    """A process and what it writes to stdout and stderr."""

    def __init__(self, command: Sequence[str], *, env: dict[str, str] | None = None, stdin: bool = False) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._command = " ".join(command)
        self._text = ""
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._text += _COLOUR.sub("", line.decode(errors="replace"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def log(self, since: int = 0) -> str:
        """What it has written, from a `position` on."""
        with self._news:
            return self._text[since:]

    def position(self) -> int:
        """Where its output ends now."""
        return len(self.log())

    def wait_for_log(self, pattern: str, timeout: float = DEADLINE, since: int = 0) -> re.Match[str]:
        """Wait until a pattern stands in the output, and return the match."""
        found: re.Match[str] | None = None

        def seen() -> bool:
            nonlocal found
            found = re.search(pattern, self._text[since:], re.MULTILINE)
            return found is not None or self._ended

        with self._news:
            self._news.wait_for(seen, timeout)
        if found is None:
            raise AssertionError(f"{pattern!r} was not written by {self._command}, but:\n{self.log(since)}")
        return found

    def wait_for_port(self, port: int) -> None:
        """Wait until something listens there; not every program says so."""
        deadline, pause = monotonic() + DEADLINE, threading.Event()
        while monotonic() < deadline:
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), DEADLINE):
                return
            assert self._process.poll() is None, f"{self._command} has ended:\n{self.log()}"
            pause.wait(0.01)
        raise AssertionError(f"{self._command} does not listen on port {port}")

    def write(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def close_stdin(self) -> None:
        """Tell it that nothing more comes."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def wait(self) -> int:
        """Wait for its end and for the end of its output, and return the exit status."""
        status = self._process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        assert not self._reader.is_alive(), f"{self._command} has ended, but somebody holds its output open"
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        return status

    def end(self, with_signal: int = signal.SIGTERM) -> None:
        """Tell it to end; kill it if it does not."""
        if self._process.returncode is not None:
            return
        self._process.send_signal(with_signal)
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self.wait()


class Server(Program):
    """A WSGI server on 127.0.0.1.

    Attributes:
        port: Where it listens.
    """

    port = 0
    unix = ""
    tls: ssl.SSLContext | None = None

    def listening(self) -> None:
        """Wait until it takes connections."""
        found = self.wait_for_log(r"(?:Listening at:|Running on) (?:https?://127\.0\.0\.1:(\d+)|unix:([^\s]+))")
        self.port, self.unix = int(found[1] or 0), found[2] or ""

    @property
    def host(self) -> str:
        """What a client puts into its ``Host`` header."""
        return "localhost" if self.unix else f"127.0.0.1:{self.port}"

    def socket(self, encrypted: bool = True, suppress_ragged_eofs: bool = True) -> socket.socket:
        """A connected socket; with TLS only as far as the handshake of TCP if not ``encrypted``."""
        if self.unix:
            connected = socket.socket(socket.AF_UNIX)
            connected.settimeout(DEADLINE)
            connected.connect(self.unix)
            return connected
        connected = socket.create_connection(("127.0.0.1", self.port), DEADLINE)
        if self.tls is None or not encrypted:
            return connected
        return self.tls.wrap_socket(connected, server_hostname="127.0.0.1", suppress_ragged_eofs=suppress_ragged_eofs)

    @property
    def serving_pid(self) -> int:
        """Whom to ask to end: the process itself, or the one that Werkzeug's reloader watches over."""
        if "Restarting with" not in self.log():
            return self.pid
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])

    def wait_until_asleep(self) -> None:
        """Wait until it has nothing to do: a Ctrl-C hits whatever runs, and then ends that alone."""
        pause, before = threading.Event(), ""
        deadline = monotonic() + DEADLINE
        while (now := Path(f"/proc/{self.serving_pid}/stat").read_text()) != before or now.split()[2] != "S":
            assert monotonic() < deadline, "it does not come to rest"
            before = now
            pause.wait(0.1)

    @property
    def worker_pids(self) -> list[int]:
        """The processes that serve requests, those that have ended included."""
        return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self.log())] or [self.pid]

    @property
    def worker_pid(self) -> int:
        """The process that was started last."""
        return self.worker_pids[-1]

    def url(self, path: str = "/", scheme: str = "http") -> str:
        """The address of a path."""
        return f"{scheme}{'s' if self.tls else ''}://{self.host}{path}"

    def get(self, path: str) -> Answer:
        """Send a GET request on a connection of its own."""
        connection = HTTPConnection(self.host)
        connection.sock = self.socket()
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            version = f"HTTP/{response.version / 10}"
            return Answer(version, response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def settle(self, since: int = 0) -> str:
        """Wait until every connection is over and all of its lines are written. Return the log from a position on.

        The app must have ``/idle`` as ``served`` has. Lines about that request itself are left out.
        """
        name = uuid.uuid4().hex
        answer = self.get(f"/idle?mark={quote(name)}")
        assert answer.status == 200, f"{answer.body!r} in\n{self.log(since)}"
        self.wait_for_log(f"mark {name}")
        return "".join(line for line in self.log(since).splitlines(keepends=True) if not _IDLE.search(line))

    def settled(self) -> int:
        """Wait until what was before is over. Return where the log ends then."""
        self.settle()
        return self.position()

    def kill(self) -> None:
        """End it and its workers without a word."""
        for pid in dict.fromkeys([self.pid, *self.worker_pids]):  # the master first: it would start workers anew
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait()

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        with suppress(IndexError, FileNotFoundError):
            if self.serving_pid != self.pid:
                os.kill(self.serving_pid, signal.SIGTERM)  # whoever watches over it ends with it
                self.wait()
        self.end()


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_IDLE = re.compile(r"/idle\?mark=|^mark [0-9a-f]{32}$")


def _environment(*first: Path, **more: str) -> dict[str, str]:
    """An environment in which the library and the apps are found, some paths before all others."""
    paths = [*map(str, first), str(ROOT), str(APPS)]
    if os.environ.get("PYTHONPATH"):
        paths.append(os.environ["PYTHONPATH"])
    kept = {name: value for name, value in os.environ.items() if name not in ("GUNICORN_CMD_ARGS", "WEB_CONCURRENCY")}
    # Large pieces of memory go back to the system when they are freed, so that a leak can be told from the allocator's
    # own stock, of which each thread would have one.
    memory = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "1"}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", **memory, **more}


class Certificate(NamedTuple):
    """A certificate for 127.0.0.1 with its key, in one file, and a client's context that trusts it."""

    path: Path
    client: ssl.SSLContext


def certificate(folder: Path) -> Certificate:
    """Make one."""
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1", "localhost")
    path = folder / "certificate.pem"
    made.private_key_and_cert_chain_pem.write_to_path(str(path))
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Certificate(path, client)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def for_two_threads(context: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """The same trust, for a client that reads in one thread and writes in another, as ``websockets`` does.

    Under TLS 1.3 the server's session tickets come while the request is being written, and a connection of OpenSSL's is
    not made for two threads at once: now and then the request is never sent. Under TLS 1.2 nothing comes unasked.
    """
    if context is None:
        return None
    made = ssl.create_default_context(cadata=b"".join(context.get_ca_certs(binary_form=True)))
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    return made


def gunicorn_target(version: str) -> Path:
    """Where a version of gunicorn beside the installed one is; it is installed there if need be."""
    return installed_beside(f"gunicorn=={version}", "--no-deps")


def installed_beside(requirement: str, *options: str) -> Path:
    """A folder with a package that not every test is to have; it is installed there if need be.

    Args:
        requirement: Name and exact version, as for pip.
        *options: Further ones of ``pip install``.
    """
    target = CACHE / requirement.replace("==", "-")
    if not target.is_dir():
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as fresh:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *options]
            subprocess.run([*pip, "--target", f"{fresh}/it", requirement], check=True, timeout=300)
            with suppress(OSError):  # another run of the tests was faster
                os.replace(f"{fresh}/it", target)
    return target


@contextmanager
def gunicorn(
    app: str = "served:app",
    *args: str,
    worker: str = "gevent",
    version: str | None = None,
    bind: str = "127.0.0.1:0",
    env: dict[str, str] | None = None,
    logs: bool = True,
) -> Iterator[Server]:
    """Serve an app by gunicorn.

    Args:
        app: As for gunicorn; modules of ``tests/apps`` and packages of the repository are found.
        *args: Further arguments.
        worker: Worker class.
        version: A version to install beside the installed one; ``None`` for that one.
        bind: Where to listen; port ``0`` for a free one.
        env: Further environment variables.
        logs: With an access log.
    """
    first = [gunicorn_target(version)] if version else []
    options = ["-k", worker, "--bind", bind, "--graceful-timeout", "5"]
    if logs:
        options += ["--access-logfile", "-", "--access-logformat", ACCESS_FORMAT]
    if not version and HAS_CONTROL_SOCKET:
        options.append("--no-control-socket")
    command = [sys.executable, "-m", "gunicorn", *options, *args, app]
    with _running(Server(command, env=_environment(*first, **(env or {})))) as server:
        server.listening()
        server.wait_for_log("Booting worker")
        yield server


@contextmanager
def pywsgi(app: str = "served:app", *args: str) -> Iterator[Server]:
    """Serve an app by gevent.pywsgi; see ``apps/run_pywsgi.py`` for further arguments."""
    with _running(Server([sys.executable, str(APPS / "run_pywsgi.py"), app, *args], env=_environment())) as server:
        server.listening()
        yield server


@contextmanager
def flask_run(
    app: str = "served:app", *args: str, path: Path = APPS, env: dict[str, str] | None = None
) -> Iterator[Server]:
    """Serve an app by ``flask run``, with further environment variables.

    ``--debug`` among the arguments gives it debugger and reloader; ``path`` is looked into, too.
    """
    before = [arg for arg in args if arg == "--debug"]
    command = [sys.executable, "-m", "flask", "--app", app, *before, "run", "--port", "0"]
    command += [arg for arg in args if arg not in before]
    with _running(Server(command, env=_environment(path, **(env or {})))) as server:
        server.listening()
        server.wait_for_log("Debugger PIN" if before else "Press CTRL")  # the last that it says by itself
        yield server


@contextmanager
def _running(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        server.stop()


def node() -> str:
    """Where Node is, with the packages of ``tests/node``."""
    found = shutil.which("node")
    assert found, "node is missing: run tests/setup"
    for package in ("ws", "playwright-core"):
        assert (NODE / "node_modules" / package).is_dir(), f"tests/node has no {package}: run tests/setup"
    return found
