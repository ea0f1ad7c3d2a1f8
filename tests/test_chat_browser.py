"""The chat of the examples, in a real browser, served by gunicorn as its own text says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path

import pytest
from browsing import DESKTOP, Page, chromium
from redis_servers import redis_server
from relay import Relay
from serving import DEADLINE, ROOT, Program, Server, gunicorn

CHAT = "examples.flask_app:create_app()"
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Program]:
    """A chromium of our own."""
    with chromium() as started:
        yield started


@pytest.fixture
def chat() -> Iterator[Server]:
    """The chat with an empty room, run as its own text says."""
    with gunicorn(CHAT, env={"CHAT_SECRET_KEY": "for the tests"}) as server:
        yield server


@pytest.fixture
def enter(browser: Program, chat: Server) -> Iterator[Callable[..., Page]]:
    """Let people in by their names; all have left at the end of the test, and no script has failed."""
    pages: list[Page] = []

    def enter(name: str, viewport: dict[str, int] = DESKTOP, server: Server = chat) -> Page:
        page = Page(browser, name)
        pages.append(page)
        page.log_in(server, viewport)
        return page

    yield enter
    for page in pages:
        page.leave()


def test_two_people_talk(enter: Callable[..., Page]) -> None:
    ann, bob = enter("Ann"), enter("Bob")
    ann.say("Hello, is anybody here?")
    for page in (ann, bob):
        page.sees_message("Ann", "Hello, is anybody here?")
    bob.say("I am. 世界 🎈")
    for page in (ann, bob):
        page.sees_message("Bob", "I am. 世界 🎈")
        assert page.do("texts", "#log .text") == ["Hello, is anybody here?", "I am. 世界 🎈"]
        assert page.do("texts", "#log .author") == ["Ann", "Bob"]
        assert page.do("texts", "#outbox .text") == []


def test_people_come_and_go(enter: Callable[..., Page]) -> None:
    cem = enter("Cem")
    cem.sees_members("Cem")
    dora = enter("Dora")
    cem.do("see", "#log .note", "Dora joined")
    for page in (cem, dora):
        page.sees_members("Cem", "Dora")
    dora.do("click", "#logout button")
    dora.do("see", "#enter")
    cem.do("see", "#log .note", "Dora left")
    cem.sees_members("Cem")


def test_somebody_is_typing(enter: Callable[..., Page]) -> None:
    eve, finn = enter("Eve"), enter("Finn")
    finn.do("type", "#text", "I am thinking")
    eve.do("see", "#typing", "Finn is typing …")
    finn.do("press", "#text", "Enter")
    eve.sees_message("Finn", "I am thinking")
    eve.do("until", "document.querySelector('#typing').textContent === ''")


def test_the_cookie_of_a_hook_arrives_with_the_101(enter: Callable[..., Page]) -> None:
    gil = enter("Gil")
    gil.do("forget", "known_as")
    assert "known_as" not in gil.do("cookies")
    address = "new URL('room', location.href.replace('http', 'ws'))"
    opened = f"new Promise((yes, no) => Object.assign(new WebSocket({address}), {{onopen: () => yes(1), onerror: no}}))"
    assert gil.do("evaluate", opened)
    assert "known_as" in gil.do("cookies")
    for head in gil.do("handshakes", 2):
        assert head["Set-Cookie"].startswith("known_as=Gil;")


def test_the_servers_clock_ticks(enter: Callable[..., Page]) -> None:
    ida = enter("Ida")
    ida.do("until", "document.querySelector('#clock').textContent !== ''")
    for _ in range(2):
        shown = ida.do("texts", "#clock")[0]
        ida.do("until", f"document.querySelector('#clock').textContent !== {json.dumps(shown)}")


def test_markup_is_shown_as_text(enter: Callable[..., Page]) -> None:
    attack = '<img src=x onerror="window.harmed = true"><b>bold</b>'
    jan, kim = enter("Jan"), enter("Kim<b>")
    jan.say(attack)
    for page in (jan, kim):
        page.sees_message("Jan", attack)
        page.sees_members("Jan", "Kim<b>")
        assert page.do("evaluate", "document.querySelectorAll('#log img, #log b, #members b').length") == 0
        assert page.do("evaluate", "window.harmed === undefined")


def test_the_chat_goes_on_when_a_killed_server_is_back(enter: Callable[..., Page]) -> None:
    environment = {"CHAT_SECRET_KEY": "the same before and after"}
    with gunicorn(CHAT, env=environment) as first:
        lea, max_ = enter("Lea", server=first), enter("Max", server=first)
        lea.say("before")
        max_.sees_message("Lea", "before")
        first.kill()
        for page in (lea, max_):
            page.do("see", "#status:not([data-state=open])")
        max_.do("fill", "#text", "written while it was away")
        with gunicorn(CHAT, env=environment, bind=f"127.0.0.1:{first.port}"):
            for page in (lea, max_):
                page.do("see", "#status[data-state=open]")
            max_.do("press", "#text", "Enter")
            for page in (lea, max_):
                page.sees_message("Max", "written while it was away")
                page.sees_members("Lea", "Max")
            lea.say("after")
            for page in (lea, max_):
                page.sees_message("Lea", "after")
                page.leave()


@pytest.fixture(params=["embedded", "redis"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """The chat in one process, and in four with Redis."""
    environment = {"CHAT_SECRET_KEY": "the same in all workers"}
    if request.param == "embedded":
        with gunicorn(CHAT, env=environment) as server:
            yield server
        return
    with redis_server(tmp_path) as redis:
        environment["CHAT_REDIS_URL"] = redis.url
        with gunicorn(CHAT, "-w", "4", env=environment) as server:
            yield server


def test_many_talk(enter: Callable[..., Page], cluster: Server) -> None:
    names = ["Pia", "Quin", "Rosa", "Sam", "Tim"]
    pages = [enter(name, server=cluster) for name in names]
    for page in pages:
        page.sees_members(*names)
    for page in pages:
        page.say(f"{page.name} is here")
        for other in pages:
            other.sees_message(page.name, f"{page.name} is here")
    pages[0].do("click", "#logout button")
    for page in pages[1:]:
        page.do("see", "#log .note", "Pia left")
        page.sees_members(*names[1:])
        assert page.do("texts", "#log .text") == [f"{name} is here" for name in names]


def test_what_a_page_missed_is_told(enter: Callable[..., Page], cluster: Server) -> None:
    """The cable is pulled; the page notices after ten seconds of silence. Nothing is missing then or there twice."""
    with Relay(cluster.port) as relay:
        cable = copy(cluster)
        cable.port = relay.port
        una, vic = enter("Una", server=cable), enter("Vic", server=cluster)
        una.say("first")
        for page in (una, vic):
            page.sees_message("Una", "first")
        relay.cut()
        una.say("said into the void")
        for number in range(5):
            vic.say(f"missed {number}")
            vic.sees_message("Vic", f"missed {number}")
        assert una.do("texts", "#log .text") == ["first"]
        relay.heal()
        una.sees_message("Vic", "missed 4")
        una.sees_message("Una", "said into the void")
        vic.sees_message("Una", "said into the void")
        expected = ["first", *(f"missed {number}" for number in range(5)), "said into the void"]
        for page in (una, vic):
            page.say(f"{page.name} ends")
            expected.append(f"{page.name} ends")
            for other in (una, vic):
                other.sees_message(page.name, f"{page.name} ends")
        for page in (una, vic):
            assert page.do("texts", "#log .text") == expected
            assert page.do("texts", "#outbox .text") == page.do("texts", "#log .problem") == []
            page.leave()


def test_announcements_come_from_outside(enter: Callable[..., Page], tmp_path: Path) -> None:
    with redis_server(tmp_path) as redis:
        environment = {"CHAT_SECRET_KEY": "the same in all workers", "CHAT_REDIS_URL": redis.url}
        with gunicorn(CHAT, "-w", "2", env=environment) as server:
            wim, xia = enter("Wim", server=server), enter("Xia", server=server)
            command = [sys.executable, "examples/flask_app/announce.py", "The server restarts at noon."]
            path = {**os.environ, "CHAT_REDIS_URL": redis.url}
            subprocess.run(command, cwd=ROOT, env=path, check=True, timeout=DEADLINE)
            for page in (wim, xia):
                page.sees_message("Announcement", "The server restarts at noon.")
                page.leave()
            redis.stop()
            done = subprocess.run(command, cwd=ROOT, env=path, capture_output=True, text=True, timeout=DEADLINE)
            assert done.returncode == 1
            assert "cannot be reached" in done.stderr and "Traceback" not in done.stderr


def test_the_page_fits_a_desktop_and_a_phone(enter: Callable[..., Page], tmp_path: Path) -> None:
    directory = Path(os.environ.get("CHAT_SHOTS") or tmp_path)
    directory.mkdir(parents=True, exist_ok=True)
    nora, otto = enter("Nora"), enter("Otto", PHONE)
    nora.say("Shall we meet at the lake on Saturday? I could bring the boat.")
    otto.sees_message("Nora", "Shall we meet at the lake on Saturday? I could bring the boat.")
    otto.say("Gladly! " + "W" * 200)
    nora.sees_message("Otto", "Gladly! " + "W" * 200)
    for page in (nora, otto):
        page.do("until", "document.querySelector('#clock').textContent !== ''")
    nora.do("type", "#text", "Noon")
    otto.do("see", "#typing", "Nora is typing …")
    for page, shot in ((nora, "desktop.png"), (otto, "phone.png")):
        width, height = page.do(
            "evaluate", "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
        )
        assert [width, height] == page.do("evaluate", "[innerWidth, innerHeight]")
        page.do("shoot", str(directory / shot))
        assert (directory / shot).read_bytes().startswith(b"\x89PNG")
