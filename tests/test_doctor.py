"""``python -m websock_gevent doctor``: each finding is provoked by a real application, configuration or environment.

Each test writes small files into a folder and runs the command there. Environments that lack something are virtual
environments of their own, with all but that linked into them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import NamedTuple

import pytest
from blocks import block
from others import FLASK_SOCKETS, sdist
from redis_servers import RedisServer, redis_server
from serving import DEADLINE, free_port, gunicorn_target

APP = """
from flask import Flask, request
from websock_gevent import WebSock, upgrade
from websock_gevent.flask import websocket

app = Flask(__name__)

class Echo(WebSock):
    def handle_in(self, message, state):
        return "push", message, state

@websocket(app, "/echo")
def echo():
    return upgrade(request.environ, Echo, None)
"""
GEVENT = "worker_class = 'gevent'\n"
LEVELS = ("ok", "warning", "problem")


class Report(NamedTuple):
    """What the doctor has said."""

    status: int
    findings: list[dict[str, str]]

    def line(self, subject: str) -> tuple[str, str, str]:
        """Level, what was seen, and the advice, of the only finding about something."""
        (found,) = [finding for finding in self.findings if finding["subject"] == subject]
        return found["level"], found["seen"], found["advice"]

    def bad(self) -> list[str]:
        """What is not ok, as levels and subjects."""
        return [f"{found['level']} {found['subject']}" for found in self.findings if found["level"] != "ok"]


class Patient:
    """A folder with an application, and the Python that it runs with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = sys.executable
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(("GUNICORN", "WEB_"))}
        self.prefix: list[str] = []
        self.write("app.py", APP)
        self.write("gunicorn.conf.py", GEVENT)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*self.prefix, self.python, "-m", "websock_gevent", "doctor", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=2 * DEADLINE
        )

    def report(self, *arguments: str) -> Report:
        """Ask for JSON, about ``app:app`` unless an application is named."""
        own = arguments[: arguments.index("--")] if "--" in arguments else arguments
        named = () if any(":" in argument and "/" not in argument for argument in own) else ("app:app",)
        done = self.run("--json", *named, *arguments)
        assert done.stderr == ""
        report = Report(done.returncode, json.loads(done.stdout)["findings"])
        assert all(found["level"] in LEVELS and found["seen"] for found in report.findings)
        assert all(bool(found["advice"]) == (found["level"] != "ok") for found in report.findings)
        assert report.status == any(found["level"] == "problem" for found in report.findings)
        return report

    def environment(self, *without: str) -> Path:
        """Run with a virtual environment of its own, which has all that this one has, but some packages.

        Returns:
            Where its packages are.
        """
        venv.create(self.folder / "venv", symlinks=True)
        self.python = str(self.folder / "venv" / "bin" / "python")
        (packages,) = (self.folder / "venv" / "lib").glob("python*/site-packages")
        for path in Path(sysconfig.get_path("purelib")).iterdir():
            if not re.match(rf"({'|'.join(without)})(-.*)?$" if without else r"(?!)", path.name):
                (packages / path.name).symlink_to(path)
        return packages


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    return Patient(tmp_path)


# A healthy one.


def test_a_healthy_one_is_ok(patient: Patient) -> None:
    report = patient.report()
    assert report.bad() == []
    assert report.status == 0
    subjects = [found["subject"] for found in report.findings]
    packages = [
        "Python",
        "gevent",
        "greenlet",
        "gevent-websocket",
        "Werkzeug",
        "websockets",
        "Flask",
        "gunicorn",
        "redis",
    ]
    settings = ["worker_class", "worker_connections", "graceful_timeout"]
    assert subjects == [*packages, "event loop", "open files", *settings, "application", "monkey patching", "routes"]
    assert report.line("routes")[1] == "1 for WebSockets: /echo"


def test_as_text_each_finding_is_a_line(patient: Patient) -> None:
    patient.write("gunicorn.conf.py", "graceful_timeout = 5\n")
    done = patient.run("app:app")
    *lines, last = done.stdout.splitlines()
    assert all(re.match(r"(ok|warning|problem) +[\w./' -]+: \S", line) for line in lines)
    assert [line for line in lines if line.startswith("problem")] == [
        "problem  worker_class: sync answers WebSockets with 501 -> gunicorn -k gevent, or worker_class = 'gevent' in "
        "gunicorn.conf.py; give the doctor its arguments behind --"
    ]
    assert re.match(r"\d+ ok, 1 warning, 1 problem\. Not looked at: proxies in front \(docs/proxies\.rst\)", last)
    assert done.returncode == 1


def test_warnings_do_not_fail(patient: Patient) -> None:
    patient.write("gunicorn.conf.py", f"{GEVENT}timeout = 5")
    report = patient.report()
    assert report.bad() == ["warning timeout"]
    assert report.status == 0


@pytest.mark.parametrize("arguments", [[], ["doctor"], ["doctor", "app:app", "--connections", "0"], ["nurse"]])
def test_wrong_arguments_are_named(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "websock_gevent", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and "error: " in done.stderr


# The environment.


def test_a_version_that_is_too_old(patient: Patient) -> None:
    packages = patient.environment("gunicorn")
    for path in gunicorn_target("22.0.0").iterdir():
        (packages / path.name).symlink_to(path)
    level, seen, advice = patient.report().line("gunicorn")
    assert (level, seen) == ("problem", "22.0.0, but websock-gevent needs >=23.0")
    assert advice == "pip install 'gunicorn>=23.0'"


@pytest.mark.parametrize(
    "change, level, seen",
    [
        (("Requires-Python: >=3.10", "Requires-Python: >=3.99"), "problem", r"^3\.\d+\.\d+"),
        (("Programming Language :: Python :: 3.", "Programming Language :: Python :: 4."), "warning", "not tested"),
        (("", ""), "ok", r"^3\.\d+\.\d+$"),
    ],
)
def test_a_python_that_is_not_supported(patient: Patient, change: tuple[str, str], level: str, seen: str) -> None:
    packages = patient.environment()
    (ours,) = packages.glob("websock_gevent-*.dist-info")
    original = ours.resolve()
    ours.unlink()
    shutil.copytree(original, ours)
    metadata = (ours / "METADATA").read_text()
    (ours / "METADATA").write_text(metadata.replace(*change))
    found = patient.report().line("Python")
    assert found[0] == level and re.search(seen, found[1])


def test_not_installed_but_imported(patient: Patient) -> None:
    patient.environment("websock_gevent")
    level, seen, _ = patient.report().line("versions")
    assert level == "warning" and "not installed" in seen


def test_gunicorns_gevent_worker_without_packaging(patient: Patient) -> None:
    patient.environment("packaging")
    report = patient.report()
    assert report.line("versions")[0] == "warning" and "packaging" in report.line("versions")[1]
    level, seen, advice = report.line("worker_class")
    assert level == "problem"
    assert seen == "gevent cannot be loaded: ModuleNotFoundError: No module named 'packaging'"
    assert "'gunicorn[gevent]'" in advice


def test_no_gunicorn_at_all(patient: Patient) -> None:
    patient.environment("gunicorn")
    report = patient.report()
    assert report.bad() == ["warning gunicorn's settings", "warning monkey patching"]
    assert "gunicorn[gevent]" in report.line("gunicorn's settings")[2]
    assert patient.report("--no-gunicorn").bad() == ["warning monkey patching"]


def test_pure_python_where_there_should_be_more(patient: Patient) -> None:
    packages = patient.environment("websockets")
    original = Path(sysconfig.get_path("platlib"), "websockets")
    shutil.copytree(original, packages / "websockets", ignore=shutil.ignore_patterns("speedups*"))
    (metadata,) = original.parent.glob("websockets-*.dist-info")
    (packages / metadata.name).symlink_to(metadata)
    patient.env["PURE_PYTHON"] = "1"
    report = patient.report()
    bad = [(found["subject"], found["seen"]) for found in report.findings if found["level"] == "warning"]
    assert [subject for subject, _ in bad] == ["gevent", "websockets"]
    assert "pure Python" in bad[0][1] and "speedups" in bad[1][1]
    assert report.status == 0


def test_an_event_loop_that_does_not_scale(patient: Patient) -> None:
    patient.env["GEVENT_BACKEND"] = "select"
    level, seen, advice = patient.report().line("event loop")
    assert level == "warning" and "select" in seen and "GEVENT_BACKEND" in advice


def test_too_few_files(patient: Patient) -> None:
    patient.prefix = ["sh", "-c", 'ulimit -n 512 && exec "$@"', "sh"]
    report = patient.report("--connections", "500")
    assert report.line("open files")[:2] == ("problem", "512 allowed, which does not do for 500 connections")
    assert "ulimit -n 564" in report.line("open files")[2]
    assert report.line("worker_connections")[:2] == ("warning", "1000, but a process may open 512 files")
    assert patient.report("--connections", "448").line("open files")[0] == "ok"


# gunicorn's settings.


@pytest.mark.parametrize(
    "settings, level, seen",
    [
        ("", "problem", "sync answers WebSockets with 501"),
        ("worker_class = 'sync'", "problem", "sync answers WebSockets with 501"),
        ("threads = 4", "problem", "gthread holds a thread for each WebSocket: 4 of 1000"),
        ("worker_class = 'gthread'; threads = 1000", "warning", "1000 of 1000"),
        ("worker_class = 'nonsense'", "problem", "nonsense cannot be loaded: "),
        ("worker_class = 'geventwebsocket.gunicorn.workers.GeventWebSocketWorker'", "warning", "a view cannot refuse"),
        ("worker_class = 'gevent_pywsgi'", "ok", "gevent_pywsgi"),
        ("from gunicorn.workers.ggevent import GeventWorker as worker_class", "ok", "GeventWorker"),
    ],
)
def test_worker_classes(patient: Patient, settings: str, level: str, seen: str) -> None:
    patient.write("gunicorn.conf.py", settings)
    found = patient.report().line("worker_class")
    assert found[0] == level and seen in found[1]


def test_settings_that_do_not_fit(patient: Patient) -> None:
    settings = "worker_connections = 500; graceful_timeout = 5; timeout = 9; max_requests = 100"
    patient.write("gunicorn.conf.py", GEVENT + settings)
    report = patient.report("--connections", "501")
    assert report.bad() == [
        "problem worker_connections",
        "warning graceful_timeout",
        "warning timeout",
        "warning max_requests",
    ]
    assert "worker_connections = 501" in report.line("worker_connections")[2]
    assert "less than close_timeout (5 s)" in report.line("graceful_timeout")[1]
    assert "graceful_timeout = 12" in report.line("graceful_timeout")[2]
    assert "30" in report.line("timeout")[2]
    assert "max_requests_jitter" in report.line("max_requests")[2]


def test_settings_that_just_fit(patient: Patient) -> None:
    settings = "worker_connections = 500; graceful_timeout = 12; timeout = 0; max_requests = 9; max_requests_jitter = 1"
    patient.write("gunicorn.conf.py", GEVENT + settings)
    assert patient.report("--connections", "500").bad() == []


def test_the_share_that_the_application_sets_counts(patient: Patient) -> None:
    patient.write("app.py", APP + "\nfrom websock_gevent import configure_drain\nconfigure_drain(share=0.9)")
    assert patient.report().line("graceful_timeout")[0] == "warning"


def test_settings_from_everywhere(patient: Patient) -> None:
    patient.write("gunicorn.conf.py", "")
    patient.write("other.py", f"{GEVENT}worker_connections = 1001")
    assert patient.report("--", "-k", "gevent").line("worker_class")[0] == "ok"
    assert patient.report("--gunicorn", "other.py").line("worker_connections")[1] == "1001"
    patient.env["GUNICORN_CMD_ARGS"] = "-k gevent --worker-connections 1002"
    assert patient.report().line("worker_connections")[1] == "1002"
    assert patient.report("--", "--worker-connections", "1003").line("worker_connections")[1] == "1003"


def test_what_the_settings_say_about_the_environment(patient: Patient) -> None:
    (patient.folder / "elsewhere").mkdir()
    patient.write("elsewhere/beside.py", "import os\nname = os.environ['NAME']")
    patient.write("app.py", f"from beside import name\n{APP}")
    patient.write("gunicorn.conf.py", f"{GEVENT}pythonpath = 'elsewhere'\nraw_env = ['NAME=x']")
    assert patient.report().bad() == []


@pytest.mark.parametrize(
    "settings, arguments, why",
    [
        ("workers = nobody", [], "NameError: name 'nobody' is not defined"),
        ("", ["--gunicorn", "not_there.py"], "'not_there.py' doesn't exist"),
        ("", ["--", "--wrokers", "2"], "unrecognized arguments: --wrokers"),
        ("workers = 'many'", [], "many"),
    ],
)
def test_settings_that_gunicorn_does_not_take(patient: Patient, settings: str, arguments: list[str], why: str) -> None:
    patient.write("gunicorn.conf.py", settings)
    level, seen, _ = patient.report(*arguments).line("gunicorn's settings")
    assert level == "problem" and why in seen


def test_what_is_gunicorns_but_not_behind_the_dashes(patient: Patient) -> None:
    done = patient.run("app:app", "-k", "gevent")
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown: -k gevent; what is gunicorn's stands behind --, as in doctor app:app -- -k gevent" in done.stderr


# Patching.


def test_patched_too_late_by_an_import_of_the_configuration(patient: Patient) -> None:
    patient.write("gunicorn.conf.py", f"import urllib3\n{GEVENT}")
    level, seen, advice = patient.report().line("monkey patching")
    assert level == "problem"
    assert seen == "urllib3 was imported before gevent patched the process, and keeps ssl.SSLContext"
    assert advice == "from gevent import monkey; monkey.patch_all() as the very first line of gunicorn.conf.py"
    patient.write("gunicorn.conf.py", f"from gevent import monkey; monkey.patch_all()\nimport urllib3\n{GEVENT}")
    assert patient.report().bad() == []


def test_what_the_application_imports_is_patched_by_the_worker(patient: Patient) -> None:
    patient.write("app.py", f"import ssl, threading, urllib3, redis\nfrom time import sleep\n{APP}")
    assert patient.report().bad() == []


def test_preloaded_before_the_worker_patches(patient: Patient) -> None:
    copies = "from time import sleep\nfrom socket import socket\nimport ssl\nclass Own(ssl.SSLSocket): pass"
    patient.write("app.py", f"import threading, urllib3, redis\n{copies}\n{APP}")
    report = patient.report("--", "--preload")
    kept = [found["seen"] for found in report.findings if found["level"] == "problem"]
    assert [seen.partition(" ")[0] for seen in kept] == ["app", "redis", "urllib3"]
    assert kept[0].endswith("keeps socket.socket, ssl.SSLSocket, time.sleep")
    assert report.line("preload_app")[:2] == ("warning", "the application is loaded before the worker patches")
    patient.write("gunicorn.conf.py", f"from gevent import monkey; monkey.patch_all()\n{GEVENT}preload_app = True")
    assert patient.report().bad() == []


@pytest.mark.parametrize(
    "started, seen",
    [
        (
            "import threading; threading.Thread(target=threading.Event().wait).start()",
            "threads from before the fork, 1 of them: each does not run in any worker",
        ),
        (
            "import gevent, gevent.event; held = gevent.spawn(gevent.event.Event().wait)",
            "greenlets from before the fork, 1 of them: each does not run in any worker",
        ),
        (
            "import socket; held = socket.socket(), socket.socket()",
            "sockets from before the fork, 2 of them: each is shared by all workers",
        ),
    ],
)
def test_started_before_the_fork(patient: Patient, started: str, seen: str) -> None:
    patient.write("app.py", f"{APP}\n{started}")
    assert patient.report().bad() == []
    report = patient.report("--", "--preload")
    found = [found["seen"] for found in report.findings if found["subject"] == "preload_app"]
    assert seen in found


def test_without_gunicorn_the_application_patches(patient: Patient) -> None:
    level, seen, advice = patient.report("--no-gunicorn").line("monkey patching")
    assert level == "warning" and "missing" in seen and "of the application" in advice
    patient.write("app.py", f"from gevent import monkey; monkey.patch_all()\nimport urllib3\n{APP}")
    assert patient.report("--no-gunicorn").bad() == []
    patient.write("app.py", f"import urllib3\nfrom gevent import monkey; monkey.patch_all()\n{APP}")
    level, seen, advice = patient.report("--no-gunicorn").line("monkey patching")
    assert level == "problem" and "urllib3 was imported before" in seen and "of the application" in advice


# Applications that cannot be loaded.


@pytest.mark.parametrize(
    "uri, text, why",
    [
        ("nowhere:app", "", "ModuleNotFoundError: No module named 'nowhere'$"),
        ("app:nobody", APP, "Failed to find attribute 'nobody' in 'app'"),
        ("app:app", "import not_installed", "ModuleNotFoundError: No module named 'not_installed' (.*app.py, line 1)"),
        ("app:app", "def f():\n    raise ValueError('no\\nkey')\nf()", r"ValueError: no key \(.*app.py, line 2\)$"),
        ("app:app", "def broken(:", r"SyntaxError: .*\(app.py, line 1\)"),
        ("app:app", "app = 7", "Application object must be callable"),
        ("app:app", "import sys; sys.exit('bye')", "SystemExit: bye"),
        ("app:create(1)", "def create(): return print", r"create\(\) takes 0 positional arguments but 1 was given"),
    ],
)
def test_a_broken_application_gets_one_line(patient: Patient, uri: str, text: str, why: str) -> None:
    patient.write("app.py", text)
    report = patient.report(uri)
    assert report.bad() == ["problem application"]
    seen = report.line("application")[1]
    assert seen.startswith(f"{uri} cannot be loaded: ") and re.search(why, seen), seen


def test_an_application_that_ends_the_process(patient: Patient) -> None:
    patient.write("app.py", "import os; print('no licence', flush=True); os._exit(3)")
    seen = patient.report().line("application")[1]
    assert seen == "the process has ended with status 3 while it was looked at, and wrote last: no licence"


def test_an_application_that_serves_when_it_is_imported(patient: Patient) -> None:
    patient.write("app.py", f"{APP}\napp.run(port=0)")
    seen = patient.report("--timeout", "3").line("application")[1]
    assert seen.startswith("not loaded and looked at after 3 s, and wrote last: ")


@pytest.mark.parametrize("arguments", [[], ["--no-gunicorn"]])
def test_a_factory(patient: Patient, arguments: list[str]) -> None:
    patient.write("app.py", f"{APP}\nprint('noise')\ndef create_app(): return app")
    report = patient.report("app:create_app()", *arguments)
    assert report.line("routes")[:2] == ("ok", "1 for WebSockets: /echo")


def test_a_factory_where_there_is_no_gunicorn(patient: Patient) -> None:
    patient.environment("gunicorn")
    patient.write("app.py", f"{APP}\ndef create_app(): return app")
    assert patient.report("app:create_app()").line("routes")[0] == "ok"
    assert "no attribute 'nobody'" in patient.report("app:nobody").line("application")[1]


# Routes, options.

SUSPECTS = """
import functools, websock_gevent
from flask import Blueprint
from flask.views import MethodView
from werkzeug.middleware.proxy_fix import ProxyFix

def logged(view):
    def wrapper(*args):
        return view(*args)
    wrapper.__name__ = view.__name__
    return wrapper

pages = Blueprint("pages", __name__, url_prefix="/pages")

@app.route("/plain")
def plain(): return upgrade(request.environ, Echo, None)

@app.route("/attribute")
def attribute(): return websock_gevent.upgrade(request.environ, Echo, None)

@app.route("/local")
def local():
    from websock_gevent import upgrade as up
    return up(request.environ, Echo, None)

@app.route("/nested")
def nested():
    def inner(): return upgrade(request.environ, Echo, None)
    return inner()

@app.route("/decorated")
@logged
def decorated(): return upgrade(request.environ, Echo, None)

@pages.route("/blueprint")
def blueprint(): return upgrade(request.environ, Echo, None)

class Method(MethodView):
    def get(self): return upgrade(request.environ, Echo, None)

app.add_url_rule("/method", view_func=Method.as_view("method"))

@app.route("/both")
@app.route("/both", websocket=True, endpoint="both_websocket")
def both(): return upgrade(request.environ, Echo, None) if request.environ.get("HTTP_UPGRADE") else "page"

@app.route("/page")
def page(): return "upgrade (websock_gevent)"

app.register_blueprint(pages)
app.wsgi_app = ProxyFix(app.wsgi_app)
"""


def test_websocket_views_on_plain_rules(patient: Patient) -> None:
    patient.write("app.py", APP + SUSPECTS)
    report = patient.report()
    names = ["/plain", "/attribute", "/local", "/nested", "/decorated", "/pages/blueprint", "/method"]
    assert sorted(report.bad()) == sorted(f"warning route {name}" for name in names)
    _, seen, advice = report.line("route /plain")
    assert seen.startswith("looks like a WebSocket route") and "websocket=True" in advice
    assert report.line("routes")[1] == "2 for WebSockets: /both, /echo"


def test_no_websocket_route_at_all(patient: Patient) -> None:
    patient.write("app.py", "from flask import Flask\napp = Flask(__name__)")
    assert patient.report().line("routes")[:2] == ("warning", "none of 1 is for WebSockets")


@pytest.mark.parametrize(
    ("more", "subject", "seen"),
    [
        ("", "routes", "no request matches those of Flask-Sockets"),
        (
            "sockets.register_blueprint(Blueprint('ws', __name__))",
            "application",
            r"cannot be loaded: .*flask_sockets\.py",
        ),
    ],
)
def test_flask_sockets_is_to_be_replaced(patient: Patient, more: str, subject: str, seen: str) -> None:
    old = "from flask import Blueprint, Flask\nfrom flask_sockets import Sockets\napp = Flask(__name__)\n"
    patient.write("app.py", f"{old}sockets = Sockets(app)\n{more}\n")
    patient.env["PYTHONPATH"] = str(sdist(FLASK_SOCKETS))
    report = patient.report()
    assert report.bad() == [f"problem {subject}"]
    assert (
        re.search(seen, report.line(subject)[1]) and "websock_gevent.legacy import Sockets" in report.line(subject)[2]
    )


def test_a_flask_application_behind_a_middleware(patient: Patient) -> None:
    patient.write("app.py", f"{APP}\nfrom werkzeug.middleware.proxy_fix import ProxyFix\napp = ProxyFix(app)")
    assert patient.report().line("routes")[1] == "1 for WebSockets: /echo"


OLD = """
from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix
from websock_gevent.legacy import Sock, WebSocketMiddleware

app = Flask(__name__)

@app.get("/old")
def old(): return request.environ["wsgi.websocket"].receive()

@app.get("/page")
def page(): return "page"
"""


@pytest.mark.parametrize(
    "around",
    [
        "app.wsgi_app = WebSocketMiddleware(app.wsgi_app)",
        "app.wsgi_app = ProxyFix(WebSocketMiddleware(app.wsgi_app))",
        "app = WebSocketMiddleware(app)",
        "app = ProxyFix(WebSocketMiddleware(app.wsgi_app))",
    ],
)
def test_routes_behind_the_middleware(patient: Patient, around: str) -> None:
    patient.write("app.py", OLD + around)
    report = patient.report()
    assert report.bad() == [] and report.line("routes")[1] == "1 for WebSockets: /old"


def test_routes_of_both_kinds_behind_the_middleware(patient: Patient) -> None:
    patient.write("app.py", f"{OLD}\nSock(app).route('/sock')(print)")
    assert patient.report().line("routes")[1] == "2 for WebSockets: /old, /sock"


def test_any_route_may_be_meant_behind_the_middleware(patient: Patient) -> None:
    patient.write("app.py", "from elsewhere import app")
    patient.write("elsewhere.py", f"{OLD.replace('wsgi.websocket', 'wsgi.')}\napp = WebSocketMiddleware(app)")
    level, seen, _ = patient.report().line("routes")
    assert level == "ok" and seen == "each of 3 may be for WebSockets, by its WebSocketMiddleware"


@pytest.mark.parametrize("around", ["", "app.wsgi_app = WebSocketMiddleware(ProxyFix(app.wsgi_app))"])
def test_routes_that_the_middleware_does_not_reach(patient: Patient, around: str) -> None:
    patient.write("app.py", OLD + around)
    report = patient.report()
    assert report.bad() == ["warning route /old"]
    _, seen, advice = report.line("route /old")
    assert "uses wsgi.websocket" in seen and "WebSocketMiddleware(app.wsgi_app)" in advice


def test_a_resource_behind_the_middleware(patient: Patient) -> None:
    patient.write(
        "app.py",
        f"{APP}\nfrom geventwebsocket.resource import Resource, WebSocketApplication\n"
        "from websock_gevent.legacy import WebSocketMiddleware\n"
        "class Chat(WebSocketApplication): pass\n"
        "chat = WebSocketMiddleware(Resource([('^/chat', Chat)]))\n"
        "app = WebSocketMiddleware(Resource([('^/chat', Chat), ('^/', app)]))",
    )
    assert patient.report().line("routes")[:2] == ("ok", "2 for WebSockets: /echo, ^/chat")
    assert patient.report("app:chat").line("routes")[:2] == ("ok", "1 for WebSockets: ^/chat")


def test_an_application_without_flask(patient: Patient) -> None:
    patient.write("app.py", "def app(environ, start_response): return []")
    level, seen, _ = patient.report().line("routes")
    assert level == "ok" and "not looked at" in seen


def test_options_that_do_not_fit(patient: Patient) -> None:
    made = "from websock_gevent import Options\nlong = Options(ping_interval=None)\nfine = Options(timeout=None)\n"
    parked = "app.config['PARKED'] = Options(idle='parked', max_connections=1_000_000)"
    patient.write("app.py", f"{APP}\n{made}{parked}")
    patient.prefix = ["sh", "-c", 'ulimit -n 2000 && exec "$@"', "sh"]
    report = patient.report()
    assert report.bad() == ["warning options long", "problem options PARKED"]
    assert "no ping asks it" in report.line("options long")[1]
    assert report.line("options PARKED")[1] == "max_connections 1000000, but a worker may open 2000 files"


# Redis.


def with_pubsub(url: str | None) -> str:
    return f"{APP}\nfrom websock_gevent.pubsub import PubSub\napp.extensions['chat'] = PubSub({url!r}, timeout=5)"


def test_pubsub_within_one_process(patient: Patient) -> None:
    patient.write("app.py", with_pubsub(None))
    assert patient.report().line("PubSub chat")[:2] == ("ok", "within one process")
    level, seen, advice = patient.report("--", "--workers", "3").line("PubSub chat")
    assert level == "problem" and "one of 3 workers" in seen and "redis://" in advice


def test_redis_that_is_there(patient: Patient, tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis:
        patient.write("app.py", with_pubsub(redis.url))
        report = patient.report("--redis", redis.url, "--", "--workers", "3")
        assert redis.client().keys() == []
    assert report.bad() == []
    answers = ("ok", "Redis answers, and is new enough", "")
    assert report.line("PubSub chat") == report.line("PubSub given by --redis") == answers


def test_redis_that_is_not_there(patient: Patient) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    patient.write("app.py", with_pubsub(url))
    report = patient.report("--redis", url)
    assert report.bad() == ["problem PubSub chat", "problem PubSub given by --redis"]
    assert "cannot be reached" in report.line("PubSub chat")[1]


@pytest.mark.parametrize(
    "option, why", [(["--requirepass", "secret"], "denies access"), (["--cluster-enabled", "yes"], "Redis Cluster")]
)
def test_redis_that_will_not_do(patient: Patient, tmp_path: Path, option: list[str], why: str) -> None:
    server = RedisServer(tmp_path, *option)
    server.start()
    try:
        level, seen, _ = patient.report("--redis", server.url).line("PubSub given by --redis")
    finally:
        server.stop()
    assert level == "problem" and why in seen


def test_an_address_that_is_none_and_a_package_that_is_missing(patient: Patient) -> None:
    assert "http" in patient.report("--redis", "http://nowhere").line("Redis")[1]
    patient.environment("redis")
    level, seen, advice = patient.report("--redis", "redis://127.0.0.1").line("Redis")
    assert level == "problem" and "redis" in seen and "websock-gevent[redis]" in advice


def test_the_page_is_true(patient: Patient) -> None:
    python, dash_m, module, doctor, *arguments = shlex.split(block("checking-run").text)
    assert (python, dash_m, module, doctor) == ("python", "-m", "websock_gevent", "doctor")
    patient.write("gunicorn.conf.py", "")
    assert patient.run(*arguments).returncode == 0
    done = patient.run("app:app")
    assert done.returncode == 1 and block("checking-says").text.strip() in done.stdout.splitlines()
