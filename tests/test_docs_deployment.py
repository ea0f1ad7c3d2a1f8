"""The configurations of the pages are ones that nginx, gunicorn, systemd and Kubernetes can read, and fit together."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from blocks import block, write
from docs_apps import client, environment, served
from serving import DEADLINE, ROOT, certificate, free_port

from websock_gevent import Options

ANALYZE = shutil.which("systemd-analyze")


def run(command: list[str], folder: Path) -> None:
    """Run a program that checks something; it must be content."""
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 0, done.stdout + done.stderr


def settings() -> dict[str, Any]:
    """What the page's ``gunicorn.conf.py`` sets."""
    names: dict[str, Any] = {}
    exec(block("deployment-gunicorn").text, names)
    return names


def test_gunicorn_takes_its_configuration(tmp_path: Path) -> None:
    write(tmp_path, "index-app")
    (tmp_path / "gunicorn.conf.py").write_text(block("deployment-gunicorn").text)
    run([sys.executable, "-m", *shlex.split(block("deployment-check").text)], tmp_path)


def test_gunicorn_serves_so(tmp_path: Path) -> None:
    (tmp_path / "page.conf.py").write_text(block("deployment-gunicorn").text)
    with served(tmp_path, "index-app", options=["--config", str(tmp_path / "page.conf.py")]) as server:
        server.wait_for_log("(?s)Booting worker.*Booting worker")
        with client(server, "/echo") as websocket:
            websocket.send("hello")
            assert websocket.recv(DEADLINE) == "hello"


def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    made = certificate(tmp_path)
    text = block("deployment-nginx").text
    for ending in (".pem", ".key"):
        assert f"/etc/ssl/chat.example{ending}" in text
        text = text.replace(f"/etc/ssl/chat.example{ending}", str(made.path))
    for port in (80, 443):
        text = re.sub(rf"listen {port}\b", f"listen {free_port()}", text)  # which may begin like the other one
    logs = f"access_log off; error_log {tmp_path}/error.log; client_body_temp_path {tmp_path}/body;"
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{ {logs}\n{text}}}\n")
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    assert nginx, "nginx is missing: run tests/setup"
    run([nginx, "-t", "-e", f"{tmp_path}/error.log", "-c", f"{tmp_path}/nginx.conf"], tmp_path)


def test_nginx_is_more_patient_than_our_pings() -> None:
    assert "proxy_read_timeout 75s;" in block("deployment-nginx").text and (Options().ping_interval or 99) < 75


def unit() -> configparser.ConfigParser:
    """The page's unit of systemd."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(block("deployment-systemd").text)
    return parser


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not there")
def test_systemd_takes_its_unit(tmp_path: Path) -> None:
    text = block("deployment-systemd").text
    assert "/srv/chat/.venv/bin/gunicorn" in text
    path = tmp_path / "chat.service"
    path.write_text(text.replace("/srv/chat/.venv/bin/gunicorn", str(Path(sys.executable).parent / "gunicorn")))
    done = subprocess.run([str(ANALYZE), "verify", str(path)], capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_waits_longer_than_gunicorn() -> None:
    service = unit()["Service"]
    assert int(service["TimeoutStopSec"]) > settings()["graceful_timeout"]
    assert int(service["LimitNOFILE"]) > settings()["worker_connections"]
    assert service["ExecStart"].split()[1:] == ["--config", "gunicorn.conf.py", "app:app"]


def kubernetes() -> list[Any]:
    """The page's objects."""
    return list(yaml.safe_load_all(block("kubernetes-deployment").text))


def test_kubernetes_waits_longer_than_gunicorn() -> None:
    deployment, service = kubernetes()
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    arguments = container["args"]
    graceful = int(arguments[arguments.index("--graceful-timeout") + 1])
    before = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > before + graceful
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    page = (ROOT / block("kubernetes-deployment").page).read_text()
    assert f"{pod['terminationGracePeriodSeconds']} > {before} + {graceful}" in page


def test_gunicorn_takes_the_arguments_of_the_container(tmp_path: Path) -> None:
    (container,) = kubernetes()[0]["spec"]["template"]["spec"]["containers"]
    write(tmp_path, "index-app")
    run([sys.executable, "-m", *container["args"], "--check-config"], tmp_path)
