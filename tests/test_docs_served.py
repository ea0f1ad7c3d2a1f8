"""The programs of the pages that need a server, a Redis, a browser or another process: run as their text says."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trustme
from blocks import block, write
from browsing import DESKTOP, Page, chromium
from docs_apps import arguments_of, client, environment, served
from redis_servers import RedisServer
from serving import DEADLINE, Program, Server, free_port
from websockets.exceptions import ConnectionClosed

from websock_gevent.pubsub import PubSub


@pytest.fixture(scope="module")
def browser() -> Iterator[Program]:
    """A chromium of our own."""
    with chromium() as started:
        yield started


def echoes(server: Server, path: str = "/echo") -> None:
    """Assert that a message comes back."""
    with client(server, path) as websocket:
        websocket.send("hello")
        assert websocket.recv(DEADLINE) == "hello"


def shell(line: str, folder: Path, **more: str) -> str:
    """Run a command as a shell does, with this Python's programs first, and return what it wrote."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=environment(folder, PATH=path, **more),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("command", ["readme-run", "index-run"])
def test_gunicorn_serves_the_first_ten_lines(command: str, tmp_path: Path) -> None:
    with served(tmp_path, "index-app", options=arguments_of(command)) as server:
        echoes(server)
        assert server.get("/echo").status == 426


@pytest.mark.parametrize("command", ["readme-try", "index-try"])
def test_what_is_typed_comes_back(command: str, tmp_path: Path) -> None:
    with served(tmp_path, "index-app") as server:
        program, *words = shlex.split(block(command).text.replace("127.0.0.1:8000", server.host))
        assert program == "python"
        typing = Program([sys.executable, *words], env=environment(tmp_path), stdin=True)
        try:
            typing.write("hello")
            typing.wait_for_log("< hello$")
        finally:
            typing.end()


def test_who_asks_as_a_browser_does_is_told_why(tmp_path: Path) -> None:
    """What curl is told to send, sent without curl, which is not everywhere."""
    program, *words = shlex.split(block("errors-curl").text)
    assert program == "curl"
    asked = [word.split(": ") for option, word in pairwise(words) if option == "-H"]
    with served(tmp_path, "index-app") as server:
        connection = HTTPConnection(server.host)
        connection.sock = server.socket()
        try:
            connection.request("GET", "/echo", headers={name: value for name, value in asked})
            answer = connection.getresponse()
            assert answer.status == 403 and "http://shop.example" in answer.read().decode()
        finally:
            connection.close()


# Push from elsewhere.


def settled(*websockets: Any) -> None:
    """Wait until these have begun: a ping is answered behind ``init``."""
    for websocket in websockets:
        assert websocket.ping().wait(DEADLINE)


def received(websocket: Any) -> Any:
    """The next message, as JSON."""
    return json.loads(websocket.recv(DEADLINE))


def test_a_celery_task_reaches_the_page(redis: RedisServer, tmp_path: Path) -> None:
    write(tmp_path, "push-celery")
    options = ["-c", "1", "--loglevel", "INFO", "--without-gossip", "--without-mingle"]
    command = [sys.executable, "-m", *shlex.split(block("push-celery-run").text), *options]
    with served(tmp_path, "push-app", REDIS_URL=redis.url) as server, client(server, "/notifications?user=ann") as ann:
        worker = Program(command, env=environment(tmp_path, REDIS_URL=redis.url))
        try:
            worker.wait_for_log("ready")
            settled(ann)
            shell("python -c \"import tasks; tasks.report.delay('ann')\"", tmp_path, REDIS_URL=redis.url)
            assert received(ann) == {"report": 499500}
        finally:
            worker.end()


def test_a_script_reaches_the_page(redis: RedisServer, tmp_path: Path) -> None:
    write(tmp_path, "push-cron")
    line = block("push-cron-run").text
    with served(tmp_path, "push-app", REDIS_URL=redis.url) as server:
        assert server.get("/notifications").status == 426
        with client(server, "/notifications?user=ann") as ann, client(server, "/notifications?user=bob") as bob:
            settled(ann, bob)
            export = block("push-redis").text.replace("redis://127.0.0.1:6379", redis.url)
            assert shell(export + line, tmp_path) == ""
            assert received(ann) == {"text": "Your parcel is on its way."}
            shell(line.replace("ann", "bob").replace("parcel", "letter"), tmp_path, REDIS_URL=redis.url)
            assert received(bob) == {"text": "Your letter is on its way."}


def test_a_script_says_in_one_line_that_redis_is_away(tmp_path: Path) -> None:
    write(tmp_path, "push-cron")
    done = subprocess.run(
        [sys.executable, "notify.py", "ann", "hello"],
        cwd=tmp_path,
        env=environment(tmp_path, REDIS_URL=f"redis://127.0.0.1:{free_port()}"),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 1 and re.fullmatch(r"Redis at .* cannot be reached: .*\n", done.stderr), done.stderr


def test_a_shell_reaches_the_lobby(redis: RedisServer, tmp_path: Path) -> None:
    line = block("pubsub-outside").text
    assert "redis://…" in line
    with served(tmp_path, "tutorial-4", REDIS_URL=redis.url) as server, member(server, "ann") as ann:
        settled(ann)
        shell(line.replace("redis://…", redis.url).replace("{'text': 'hi'}", "'hi'"), tmp_path)
        assert until(ann, "hi")


# Many workers.


def member(server: Server, name: str) -> Any:
    """Log in to the tutorial's chat, and come in."""
    connection = HTTPConnection(server.host, timeout=DEADLINE)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/login", f"name={name}", form)
    cookie = connection.getresponse().headers["Set-Cookie"].partition(";")[0]
    connection.close()
    return client(server, "/chat", Cookie=cookie)


def until(websocket: Any, message: str) -> bool:
    """Wait for a message, whatever comes before it."""
    while websocket.recv(DEADLINE) != message:
        pass
    return True


@pytest.mark.parametrize("command, more", [("workers-run", ["--preload"]), ("tutorial-workers", [])])
def test_four_workers_are_one_chat(command: str, more: list[str], redis: RedisServer, tmp_path: Path) -> None:
    options = [*arguments_of(command), *more]
    with served(tmp_path, "tutorial-4", options=options, REDIS_URL=redis.url) as server, ExitStack() as stack:
        server.wait_for_log("(?s)" + "Booting worker.*" * 4)
        people = [stack.enter_context(member(server, f"p{number}")) for number in range(12)]
        assert until(people[0], "people " + ", ".join(sorted(f"p{number}" for number in range(12))))
        people[0].send("hello")
        for websocket in people:
            assert until(websocket, "p0: hello")
        line = block("tutorial-announce").text
        shell(line, tmp_path, REDIS_URL=redis.url)
        for websocket in people:
            assert until(websocket, "The server says hello")


# TLS, and gevent.pywsgi.


def two_files(folder: Path) -> ssl.SSLContext:
    """Put a certificate and its key into a folder, and return a client's trust in it."""
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    made.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
    made.private_key_pem.write_to_path(str(folder / "key.pem"))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    return trust


@contextmanager
def script(name: str, port: int, folder: Path) -> Iterator[Server]:
    """Run a block that serves, on a free port instead of its own, with its files in a folder."""
    write(folder, "index-app")
    text = re.sub(r'"(\w+\.pem)"', rf'"{folder}/\1"', block(name).text)
    assert text.count(str(port)) == 1
    free = free_port()
    server = Server([sys.executable, "-c", text.replace(str(port), str(free))], env=environment(folder))
    try:
        server.port = free
        server.wait_for_port(free)
        yield server
    finally:
        server.end()


def test_gunicorn_with_tls(tmp_path: Path) -> None:
    trust = two_files(tmp_path)
    with served(tmp_path, "index-app", options=arguments_of("tls-gunicorn")) as server:
        server.tls = trust
        echoes(server)


@pytest.mark.parametrize("name, port", [("deploys-serve", 8000), ("tls-pywsgi", 8443)])
def test_pywsgi_serves_and_says_goodbye(name: str, port: int, tmp_path: Path) -> None:
    trust = two_files(tmp_path)
    with script(name, port, tmp_path) as server:
        server.tls = trust if name == "tls-pywsgi" else None
        echoes(server)
        with client(server, "/echo") as websocket:
            websocket.send("hello")
            assert websocket.recv(DEADLINE) == "hello"
            os.kill(server.pid, signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                websocket.recv(DEADLINE)
            assert websocket.close_code == 1012
        assert server.wait() == 0


# Coming back, in a browser.


def test_a_page_misses_nothing_over_a_deploy(redis: RedisServer, browser: Program, tmp_path: Path) -> None:
    names = ["reconnecting-app", "reconnecting-js", "reconnecting-html"]
    pubsub, page = PubSub(redis.url), Page(browser, "reader")
    try:
        with served(tmp_path, *names, REDIS_URL=redis.url) as server:
            page.do("open", server.url(), DESKTOP)
            pubsub.broadcast("news", {"text": "1"})
            page.do("see", "#news li", "1")
            position = server.position()
            os.kill(server.pid, signal.SIGHUP)
            for number in range(2, 12):
                pubsub.broadcast("news", {"text": str(number)})
            server.wait_for_log("Booting worker", since=position)
            pubsub.broadcast("news", {"text": "<b>12</b>"})
            page.do("see", "#news li", "<b>12</b>")
            page.do("handshakes", 2)
            assert page.do("texts", "#news li") == [*map(str, range(1, 12)), "<b>12</b>"]
            assert page.do("leave") == []
    finally:
        pubsub.close()


# The tutorial.

PAGE = ["tutorial-page", "tutorial-script"]


def test_the_first_step_echoes_in_the_console(browser: Program, tmp_path: Path) -> None:
    page = Page(browser, "console")
    with served(tmp_path, "tutorial-1", options=arguments_of("tutorial-run")) as server:
        assert server.get("/").status == 404
        page.do("open", server.url(), DESKTOP)
        script = block("tutorial-console").text.replace("127.0.0.1:8000", server.host)
        assert page.do("evaluate", f"new Promise((told) => {{ const console = {{ log: told }}; {script} }})") == "hello"
        page.do("leave")


def come_in(browser: Program, server: Server, name: str) -> Page:
    """Log in at the tutorial's door."""
    page = Page(browser, name)
    page.do("open", server.url(), DESKTOP)
    page.do("see", "label[for=name]", "Your name")
    page.do("fill", "#name", name)
    page.do("click", "#enter")
    page.do("see", "#log li", f"Welcome, {name}")
    return page


def test_the_second_step_has_names(browser: Program, tmp_path: Path) -> None:
    with served(tmp_path, "tutorial-2", *PAGE) as server:
        ann = come_in(browser, server, "Ann")
        ann.say("hello")
        ann.do("see", "#log li", "Ann: hello")
        assert ann.do("leave") == []


@pytest.mark.parametrize("step", ["tutorial-3", "tutorial-4"])
def test_from_the_third_step_on_everybody_hears_everybody(step: str, browser: Program, tmp_path: Path) -> None:
    with served(tmp_path, step, *PAGE) as server:
        ann, bob = come_in(browser, server, "Ann"), come_in(browser, server, "Bob")
        ann.say("<i>hello</i>")
        for page in (ann, bob):
            page.do("see", "#log li", "Ann: <i>hello</i>")
        if step == "tutorial-4":
            ann.do("see", "#people", "Here: Ann, Bob")
            assert bob.do("leave") == []
            ann.do("see", "#people", "Here: Ann")
        else:
            assert bob.do("leave") == []
        assert ann.do("leave") == []


def test_the_tutorials_page_comes_back_after_a_deploy(browser: Program, tmp_path: Path) -> None:
    with served(tmp_path, "tutorial-4", *PAGE) as server:
        ann = come_in(browser, server, "Ann")
        os.kill(server.pid, signal.SIGHUP)
        ann.do("until", "document.querySelectorAll('#log li').length === 2")
        assert ann.do("texts", "#log li") == ["Welcome, Ann"] * 2
        assert ann.do("leave") == []
