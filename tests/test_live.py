"""The live view, looked at by a real browser, under gunicorn with one worker and, over Redis, with two."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import gevent.socket
import pytest
import websockets.sync.client
from browsing import DESKTOP, Page, chromium
from flask import Blueprint, Flask, request
from gevent.pywsgi import WSGIServer
from redis_servers import redis_server
from serving import DEADLINE, ROOT, Program, Server, gunicorn
from support import Diary, handshake, open_client, read_head
from websockets.exceptions import InvalidStatus
from werkzeug.middleware.proxy_fix import ProxyFix

from websock_gevent import current, upgrade
from websock_gevent.contrib.live import live
from websock_gevent.contrib.live.watching import NUMBERS, Watch, interesting
from websock_gevent.errors import ConnectionClosed
from websock_gevent.flask import websocket
from websock_gevent.pubsub import PubSub
from websock_gevent.signals import ConnectionStarted, SoFar, connection_started, is_watched
from websock_gevent.testing import connect

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Program]:
    """A chromium of our own."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module", params=["greenlet", "parked"])
def served(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One worker, whose clients are of this kind."""
    with gunicorn("living:app", env={"TEST_IDLE": request.param}) as server:
        yield server


class View(Page):
    """The page, as an operator sees it."""

    def rows(self) -> list[dict[str, str]]:
        """The connections, but for those who look."""
        found = self.do(
            "evaluate",
            "[...document.querySelectorAll('#connections tbody tr')].map((row) => Object.fromEntries("
            "[...row.cells].map((cell) => [cell.dataset.title, cell.textContent])))",
        )
        return [row for row in found if not row["handler"].endswith(".Operator")]

    def waits_for(self, ready: Callable[[list[dict[str, str]]], object]) -> list[dict[str, str]]:
        """Wait for the picture that shows this, and return its rows."""
        for _ in range(30):
            rows = self.rows()
            if ready(rows):
                return rows
            self.next_picture()
        raise AssertionError(rows)

    def next_picture(self) -> None:
        """Wait until something new is shown."""
        self.do(
            "evaluate",
            "new Promise((done) => new MutationObserver((_, seen) => (seen.disconnect(), done())).observe("
            "document.querySelector('#workers tbody'), {childList: true}))",
        )

    def until(self, expression: str) -> None:
        """Wait for the picture of which this is so. (What `browser.mjs` has for it, the page's policy forbids.)"""
        self.waits_for(lambda rows: self.do("evaluate", expression))

    def workers(self) -> list[str]:
        """The line of each worker."""
        lines: list[str] = self.do("texts", "#workers tbody tr")
        return lines


@contextmanager
def looking(browser: Program, server: Server, viewport: dict[str, int] = DESKTOP) -> Iterator[View]:
    """An operator looks. No script of the page has failed at the end."""
    view = View(browser, "operator")
    view.do("open", server.url("/enter"), viewport)
    view.do("see", "body[data-state=open]")
    yield view
    assert view.do("leave") == []


def client(server: Server, path: str, **headers: str) -> Any:
    """A client of the application's."""
    return websockets.sync.client.connect(
        server.url(path, "ws"), additional_headers=headers, compression=None, open_timeout=DEADLINE
    )


def test_rows_come_and_go(browser: Program, served: Server) -> None:
    with looking(browser, served) as view:
        view.waits_for(lambda rows: not rows)
        with client(served, "/client/first") as first:
            (row,) = view.waits_for(lambda rows: rows)
            assert (row["path"], row["handler"]) == ("/client/first", "living.Client")
            assert row["peer"] == "{}:{}".format(*first.local_address)
            assert row["worker"] == str(served.worker_pid) and row["mailbox"] == "0 of 10" and row["unsent"] == "0 B"
            with client(served, "/blocking"):
                rows = view.waits_for(lambda rows: len(rows) == 2)
                assert {row["handler"] for row in rows} == {"living.Client", "living.converse"}
                assert [row["slowest callback"] for row in rows if row["path"] == "/blocking"] == ["–"]
            assert view.waits_for(lambda rows: len(rows) == 1)[0]["path"] == "/client/first"
        view.waits_for(lambda rows: not rows)


def test_numbers_move(browser: Program, served: Server) -> None:
    with looking(browser, served) as view, client(served, "/client/busy") as busy, client(served, "/blocking") as other:
        for connected in (busy, other):
            connected.send("word")
            connected.recv(DEADLINE)

        def all_moved(rows: list[dict[str, str]]) -> bool:
            for connected in (busy, other):
                connected.send("word" * 100)
                connected.recv(DEADLINE)
            moving = [row for row in rows if row["path"] in ("/client/busy", "/blocking")]
            columns = ("messages in", "messages out", "bytes in", "bytes out")
            return len(moving) == 2 and all(
                float(row[name].split()[0].rstrip("/s")) > 0 for row in moving for name in columns
            )

        rows = view.waits_for(all_moved)
        (row,) = [row for row in rows if row["path"] == "/client/busy"]
        assert row["slowest callback"].split()[2] in ("init", "handle_in")
        (line,) = view.workers()
        assert "serving" in line and str(served.worker_pid) in line


def test_what_clients_make_up_is_text(browser: Program, served: Server) -> None:
    attack = "<script>window.harmed=1</script><img src=x onerror=window.harmed=1>"
    path = (
        "/client/%3Cscript%3Ewindow.harmed=1%3C/script%3E%3Cimg%20src=x%20onerror=window.harmed=1%3E%E4%B8%96%E2%80%AE"
    )
    with looking(browser, served) as view, client(served, path, **{"X-Forwarded-For": attack, "User-Agent": attack}):
        (row,) = view.waits_for(lambda rows: len(rows) == 1 and attack in rows[0]["path"])
        assert row["path"] == f"/client/{attack}世\ufffd"
        assert view.do("evaluate", "document.querySelectorAll('td *, p *').length") == 0
        assert view.do("evaluate", "document.querySelectorAll('script').length") == 1
        assert view.do("evaluate", "window.harmed === undefined")


def test_a_blocked_callback_and_its_mailbox_are_seen(browser: Program) -> None:
    with (
        gunicorn("living:app") as server,
        looking(browser, server) as view,
        client(server, "/client/calm"),
        client(server, "/client/stuck") as stuck,
    ):
        stuck.send("fill 7")

        def is_shown(rows: list[dict[str, str]]) -> bool:
            return any(row["slowest callback"].endswith("handle_in, still running") for row in rows)

        rows = {row["path"]: row for row in view.waits_for(is_shown)}
        assert rows["/client/stuck"]["mailbox"] == "7 of 10" and rows["/client/calm"]["mailbox"] == "0 of 10"
        view.do("see", "td.bad[data-title=mailbox]", "7 of 10")
        view.until("document.querySelector('#workers [data-title=\"mailboxes filling\"]').textContent === '1'")
        view.do("see", "#workers td.bad[data-title='slow callbacks']", "1")
        assert server.get("/release").body == b"released"
        assert stuck.recv(DEADLINE).endswith(" fill 7")
        rows = {row["path"]: row for row in view.waits_for(lambda rows: not is_shown(rows))}
        assert rows["/client/stuck"]["mailbox"] == "0 of 10"
        assert rows["/client/stuck"]["slowest callback"].endswith(" handle_in")
        view.do("see", "#connections td.bad[data-title='slowest callback']")


def test_nothing_is_wider_than_a_phone(browser: Program, served: Server) -> None:
    with looking(browser, served, PHONE) as view, client(served, f"/client/{'long' * 40}"):
        view.waits_for(lambda rows: rows)
        boxes = "[document.documentElement, ...document.querySelectorAll('section')]"
        assert view.do("evaluate", f"{boxes}.every((box) => box.scrollWidth <= box.clientWidth)")


def test_what_is_shown_is_sorted_and_bounded(browser: Program) -> None:
    with gunicorn("living:app") as server, looking(browser, server) as view, ExitStack() as stack:
        for number in range(12):
            stack.enter_context(client(server, f"/client/{number:02}"))
        view.until("document.querySelector('#shown').textContent === '8 of 13 connections'")
        view.do("click", "#connections th:nth-child(1) button")
        paths = [row["path"] for row in view.rows()]
        assert 7 <= len(paths) == len(set(paths)) and paths == sorted(paths)
        view.do("click", "#connections th:nth-child(1) button")
        view.next_picture()
        paths = [row["path"] for row in view.rows()]
        assert paths == sorted(paths, reverse=True)
        assert view.do("evaluate", "document.querySelector('th[aria-sort]').textContent") == "path"


@pytest.mark.parametrize("prefix", ["app", "nested"])
def test_who_may_not_look_is_refused(prefix: str) -> None:
    address = "/live/" if prefix == "app" else "/admin/connections/"
    with gunicorn("living:app", env={"LIVE": prefix}) as server:
        for name in ("", "page.js", "page.css"):
            assert server.get(address + name).status == 403
        with pytest.raises(InvalidStatus) as refused, client(server, f"{address}socket"):
            pass
        assert refused.value.response.status_code == 403
        cookie = server.get("/enter").values("Set-Cookie")[0].partition(";")[0]
        with pytest.raises(InvalidStatus) as refused:
            with client(server, f"{address}socket", Cookie=cookie, Origin="https://elsewhere.example"):
                pass
        assert refused.value.response.status_code == 403
        with client(server, f"{address}socket", Cookie=cookie, Origin=server.url("")) as allowed:
            picture = json.loads(allowed.recv(DEADLINE))
            (row,) = picture["rows"]
            assert row["path"] == f"{address}socket" and row["handler"] == "websock_gevent.contrib.live.Operator"
            allowed.send("a word")
            assert json.loads(allowed.recv(DEADLINE))["workers"][0]["process"] == picture["workers"][0]["process"]


def test_nothing_inline_is_run(browser: Program) -> None:
    with gunicorn("living:app", env={"LIVE": "nested"}) as server, looking(browser, server) as view:
        assert view.do("evaluate", "location.pathname") == "/admin/connections/"
        policy = view.do("evaluate", "fetch('').then((answer) => answer.headers.get('Content-Security-Policy'))")
        assert policy.startswith("default-src 'none'; script-src 'self';") and "unsafe" not in policy
        inline = "Object.assign(document.createElement('script'), {textContent: 'window.harmed = 1'})"
        view.do("evaluate", f"document.body.append({inline})")
        assert view.do("evaluate", "window.harmed === undefined")


def test_a_page_whose_server_ends_says_so_and_comes_back(browser: Program) -> None:
    with gunicorn("living:app") as first:
        view = View(browser, "patient")
        view.do("open", first.url("/enter"), DESKTOP)
        view.do("see", "body[data-state=open]")
        first.stop()
        view.do("see", "body[data-state=closed]")
        with gunicorn("living:app", bind=f"127.0.0.1:{first.port}"):
            view.do("see", "body[data-state=open]")
        view.do("leave")


def test_a_page_in_the_background_does_not_look(browser: Program) -> None:
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true})"
    with gunicorn("living:app") as server, looking(browser, server) as view:
        for hidden, state in (("true", "closed"), ("false", "open")):
            view.do("evaluate", hide % hidden + ", document.dispatchEvent(new Event('visibilitychange'))")
            view.do("see", f"body[data-state={state}]")
            if state == "closed":
                view.do("see", "#status", "paused")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Server]:
    """Two workers that know of each other."""
    with redis_server(tmp_path) as redis:
        with gunicorn("living:app", "-w", "2", "--graceful-timeout", "20", env={"REDIS_URL": redis.url}) as server:
            server.wait_for_log(r"(?s)Booting worker.*Booting worker")
            yield server


def one_on_each(server: Server, stack: ExitStack) -> dict[int, Any]:
    """A client of each worker."""
    found: dict[int, Any] = {}
    for pid in server.worker_pids:
        for other in server.worker_pids:
            os.kill(other, signal.SIGSTOP if other != pid else signal.SIGCONT)
        found[pid] = stack.enter_context(client(server, f"/client/of-{pid}"))
        found[pid].send("who")
        assert found[pid].recv(DEADLINE) == f"{pid} who"
    for pid in server.worker_pids:
        os.kill(pid, signal.SIGCONT)
    return found


def test_all_workers_are_shown_and_dead_ones_vanish(browser: Program, cluster: Server) -> None:
    with ExitStack() as stack, looking(browser, cluster) as view:
        clients = one_on_each(cluster, stack)
        rows = view.waits_for(lambda rows: len(rows) == 2)
        assert {(int(row["worker"]), row["path"]) for row in rows} == {(pid, f"/client/of-{pid}") for pid in clients}
        assert len(view.workers()) == 2
        here, other = (int(found.split()[1]) for found in view.do("texts", "#workers tbody td:first-child"))
        view.waits_for(
            lambda rows: clients[other].send("word") or "word" in clients[other].recv(DEADLINE) and moving(rows, other)
        )
        os.kill(other, signal.SIGKILL)
        (row,) = view.waits_for(lambda rows: len(rows) == 1)
        assert int(row["worker"]) == here and len(view.workers()) == 1


def moving(rows: list[dict[str, str]], pid: int) -> bool:
    """Whether this worker's client has sent something lately."""
    return any(row["worker"] == str(pid) and float(row["messages in"].removesuffix("/s")) > 0 for row in rows)


def test_a_worker_that_drains_is_seen_from_the_other(browser: Program, cluster: Server) -> None:
    with ExitStack() as stack, looking(browser, cluster) as view:
        clients = one_on_each(cluster, stack)
        view.waits_for(lambda rows: len(rows) == 2)
        _, other = (int(found.split()[1]) for found in view.do("texts", "#workers tbody td:first-child"))
        clients[other].send("fill 3")
        view.do("see", "td[data-title=mailbox]", "3 of 10")
        os.kill(other, signal.SIGTERM)
        view.do("see", "#workers td.bad[data-title=state]")
        view.until("/draining: 1 left/.test(document.querySelector('#workers').textContent)")
        with suppress(Exception):  # it is cut off
            clients[other].recv(DEADLINE)
        view.until(f"!document.querySelector('#workers').textContent.includes(' {other}')")


def test_nothing_is_said_while_nobody_looks(browser: Program, tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis, gunicorn("living:app", env={"REDIS_URL": redis.url}) as server:
        with client(server, "/client/alone"):
            name = "live:topic:websock_gevent.live.1.look"
            wait_until(lambda: redis.client().pubsub_channels("*live.1*"))
            assert redis.client().keys("*live.1*") == []
            with looking(browser, server):
                wait_until(lambda: redis.client().exists(name))
            wait_until(lambda: len(redis.client().pubsub_channels("*live.1*")) == 1)  # LOOK alone
            assert redis.client().keys("*live.1*") == [name]  # nobody has told anything: there is nobody else


def wait_until(ready: Callable[[], object]) -> None:
    """Ask until it is so."""
    for _ in range(1000):
        if ready():
            return
        threading.Event().wait(DEADLINE / 1000)
    raise AssertionError("it has not come true")


def test_redis_that_is_away_is_told(browser: Program, tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis, gunicorn("living:app", env={"REDIS_URL": redis.url}) as server:
        with looking(browser, server) as view, client(server, "/client/here"):
            view.waits_for(lambda rows: rows)
            redis.kill()
            view.do("see", "#trouble:not([hidden])")
            server.wait_for_log("the live view does not reach the other workers: ")
            assert len(view.rows()) == 1
            redis.start()
            view.until("document.querySelector('#trouble').hidden")


# Without a server.


@pytest.mark.parametrize("authorise", [None, True, "admin"])
def test_there_is_no_view_without_authorisation(authorise: Any) -> None:
    app = Flask("refused")
    with pytest.raises(TypeError, match=r"live\(\) takes authorise=, a plain function"):
        live(app, authorise=authorise)
    with pytest.raises(TypeError, match=r"live\(\) takes authorise="):
        live(app)
    assert [rule.endpoint for rule in app.url_map.iter_rules()] == ["static"]


def test_an_authorisation_that_cannot_say_no_is_refused() -> None:
    async def may_look() -> bool:
        return False

    with pytest.raises(TypeError, match=r"live\(\) takes authorise="):
        live(Flask("refused"), authorise=may_look)


@pytest.mark.parametrize("most", [7, 0, "80"])
def test_the_bound_is_checked(most: Any) -> None:
    with pytest.raises(ValueError, match="live\\(\\) takes a whole number from 8 up as most"):
        live(Flask("refused"), authorise=lambda: True, most=most)


@pytest.mark.parametrize(("answer", "status"), [(True, 200), (1, 403), ("yes", 403), (None, 403), (False, 403)])
def test_only_true_lets_in(answer: object, status: int) -> None:
    app = Flask("asked")
    view = live(app, authorise=lambda: answer)
    try:
        response = app.test_client().get("/live/")
        assert response.status_code == status and response.headers["Cache-Control"] == "no-store"
        response.close()
    finally:
        view.stop()


def test_a_wrong_option_is_told_at_once() -> None:
    with pytest.raises(TypeError, match="unknown option 'orgins'"):
        live(Flask("refused"), authorise=lambda: True, orgins="*")


def test_the_page_is_authorised_again_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Flask("again")
    view = live(app, authorise=lambda: True)
    try:
        with connect(app, "/live/socket", timeout=DEADLINE) as operator:
            assert json.loads(operator.receive())["trouble"] == ""
        monkeypatch.setattr("websock_gevent.contrib.live.AGAIN", 0)
        with connect(app, "/live/socket", timeout=DEADLINE) as operator, pytest.raises(ConnectionClosed) as closed:
            operator.receive()
        assert closed.value.code == 1012
    finally:
        view.stop()


def asked() -> bool:
    return True


def test_there_is_one_view_of_an_application() -> None:
    app, admin, other = Flask("shown"), Blueprint("admin", __name__), Blueprint("other", __name__)
    views = [live(app, authorise=asked), live(admin, authorise=asked), live(other, authorise=asked)]
    again = "has a live view already"
    try:
        with pytest.raises(RuntimeError, match=f"<Flask 'shown'> {again}"):
            live(app, authorise=asked, url_prefix="/elsewhere")
        with pytest.raises(RuntimeError, match=f"<Blueprint 'admin'> {again}"):
            live(admin, authorise=asked)
        with pytest.raises(RuntimeError, match=f"<Flask 'shown'> {again}"):
            app.register_blueprint(admin)
        second = Flask("second")
        second.register_blueprint(other, url_prefix="/once")
        second.register_blueprint(other, url_prefix="/twice", name="again")  # the same view
        with pytest.raises(RuntimeError, match=f"<Flask 'second'> {again}"):
            live(second, authorise=asked)
        assert is_watched(Diary)
    finally:
        for view in (views[0], views[2]):
            view.stop()
    assert not is_watched(Diary)  # who was refused watches nobody


@pytest.mark.parametrize("idle", ["greenlet", "parked"])
@pytest.mark.parametrize("believed", [True, False])
def test_who_is_shown_behind_a_proxy(believed: bool, idle: str) -> None:
    app = Flask("proxied")

    @websocket(app, "/there")
    def there() -> Any:
        return upgrade(request.environ, Diary, None, idle=idle)

    served = ProxyFix(app, x_for=1) if believed else app
    watch = Watch(8)
    try:
        headers = {"X-Forwarded-For": "198.51.100.1, 203.0.113.7"}
        with client_of(served, "/there", headers) as address:
            (row,) = watch.summary()["rows"]
            assert row["peer"] == ("203.0.113.7" if believed else address)
    finally:
        watch.stop()


@contextmanager
def client_of(app: Any, path: str, headers: dict[str, str]) -> Iterator[str]:
    """Serve an application here, be a client of it, and give its address and port."""
    server = WSGIServer(("127.0.0.1", 0), app, log=None)
    server.start()
    try:
        sock = gevent.socket.create_connection(server.address)
        sock.sendall(handshake(path, **headers))
        read_head(sock)
        yield "{}:{}".format(*sock.getsockname())
        sock.close()
    finally:
        server.stop(timeout=DEADLINE)


def test_a_view_that_is_stopped_costs_nothing() -> None:
    assert not is_watched(Diary)
    view = live(Flask("stopped"), authorise=lambda: True, pubsub=PubSub())
    assert is_watched(Diary)
    view.stop()
    assert not is_watched(Diary)


def test_what_a_connection_has_done_so_far() -> None:
    events: list[ConnectionStarted] = []

    def note(sender: object, event: ConnectionStarted) -> None:
        events.append(event)

    class Twice(Diary):
        def handle_in(self, message: Any, state: Any) -> Any:
            current().send("waits")
            events.append(events[0].so_far())  # type: ignore[arg-type]
            return "push", [message, message], state

    with connection_started.connected_to(note), open_client(Twice, max_mailbox=7) as opened:
        opened.send("hello")
        assert [opened.receive(), opened.receive()] == ["hello", "hello"]
        event, during = events
        assert event.so_far() == SoFar(1, 2 + 4 + 5, 2, 2 * (2 + 5), 0, 7, 0)
        assert during == SoFar(1, 2 + 4 + 5, 0, 0, 1, 7, 0)


def test_rates_are_of_the_right_way() -> None:
    class Twice(Diary):
        def handle_in(self, message: Any, state: Any) -> Any:
            return "push", [message, message], state

    watch = Watch(8)
    try:
        with open_client(Twice) as opened:
            opened.send("hello")
            assert [opened.receive(), opened.receive()] == ["hello", "hello"]
            summary = watch.summary()
    finally:
        watch.stop()
    for rates, exactly in ((summary["rows"][0]["numbers"][4:], 0.01), (summary["rates"], 0.1)):
        assert [rate / rates[0] for rate in rates] == pytest.approx([1, 11, 2, 14], rel=exactly)


def test_the_first_of_each_order_are_chosen() -> None:
    rows = [tuple(1000 * (index == order) + 1 / (index + 1) for order in range(NUMBERS)) for index in range(500)]
    chosen = interesting(rows[::-1], 16, lambda row: row)
    assert len(chosen) == 16 and set(rows[:NUMBERS]) <= set(chosen)
    last = [(0.0,) * NUMBERS] * 3
    assert interesting(last, 8, lambda row: row) == last


def test_the_page_is_packaged(tmp_path: Path) -> None:
    build = "import setuptools, sys; setuptools.setup(script_args=sys.argv[1:])"
    command = [sys.executable, "-c", build, "-q", "egg_info", "--egg-base", str(tmp_path)]
    command += ["build_py", "--build-lib", str(tmp_path / "built")]
    subprocess.run(command, cwd=ROOT, check=True, timeout=DEADLINE)
    found = {path.name for path in (tmp_path / "built" / "websock_gevent" / "contrib" / "live").iterdir()}
    assert found == {"__init__.py", "cluster.py", "watching.py", "page.css", "page.html", "page.js"}
