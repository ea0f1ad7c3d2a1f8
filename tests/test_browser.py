"""What only a real browser shows: Chromium's cookies and ``Origin``, where pages of others reach for a WebSocket, and
its permessage-deflate.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from browsing import DESKTOP, Page, chromium
from raw import new_key
from serving import Program, Server, gunicorn

PAGE = "<!doctype html><title>A page</title>"
#: Cookies that come from a page of the same site, and from one of another site.
SAME_SITE, CROSS_SITE = ["lax", "none", "strict"], ["none"]
#: All that a page is told of a refusal, whatever the reason.
REFUSED = ["error", 1006, False]
#: Opened, a message received, and closed by the page.
GREETED = ["open", "ann's account", 1000, True]

#: Opens a socket, leaves behind the first message, and tells what it saw.
VISIT = """new Promise((done) => {
    const seen = [], socket = new WebSocket(%s);
    socket.onopen = () => seen.push("open");
    socket.onerror = () => seen.push("error");
    socket.onmessage = ({ data }) => { seen.push(data); socket.close(1000); };
    socket.onclose = ({ code, wasClean }) => done([...seen, code, wasClean]);
})"""
#: The same in a frame that may run scripts and nothing else.
IN_A_SANDBOX = """new Promise((done) => {
    const frame = document.createElement("iframe");
    addEventListener("message", ({ data }) => { frame.remove(); done(data); }, { once: true });
    frame.setAttribute("sandbox", "allow-scripts");
    frame.srcdoc = %s;
    document.body.append(frame);
})"""
#: Debian's Chromium sends no cookie from a page of another site; it may here, as it may wherever it is not Debian's.
PREFERENCES = {"profile": {"cookie_controls_mode": 0}}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A chromium with a profile of its own."""
    profile = tmp_path_factory.mktemp("profile")
    (profile / "Default").mkdir()
    (profile / "Default" / "Preferences").write_text(json.dumps(PREFERENCES))
    with chromium(str(profile)) as started:
        yield started


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The application that somebody is logged in to."""
    with gunicorn("origins:app", "--keep-alive", "0") as running:
        yield running


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Server]:
    """Another one, on the same host."""
    with gunicorn("origins:app", "--keep-alive", "0") as running:
        yield running


@pytest.fixture
def visitor(browser: Program, server: Server) -> Iterator[Callable[[str], Page]]:
    """A browser logged in to the server, on a page with this address."""
    pages: list[Page] = []

    def visit(address: str) -> Page:
        page = Page(browser, new_key())
        page.do("open", server.url("/login"), DESKTOP)
        pages.append(page)
        page.do("evaluate", f"void (location.href = {json.dumps(address)})")
        page.do("until", f"location.href === {json.dumps(address)} && document.readyState === 'complete'")
        return page

    yield visit
    for page in pages:
        assert page.do("leave") == []


def account(server: Server, key: str, *origins: str) -> str:
    """The address of the account, which has to let these origins in."""
    return server.url("/account?" + urlencode([("key", key), *(("origin", origin) for origin in origins)]), "ws")


def sent(server: Server, key: str) -> tuple[str, list[str]]:
    """The origin and the cookies of the one handshake with this key."""
    [(origin, cookies)] = json.loads(server.get(f"/asked/{key}").body)
    return origin, cookies


def visit(page: Page, address: str) -> list[Any]:
    """What a page sees of a WebSocket."""
    seen: list[Any] = page.do("evaluate", VISIT % json.dumps(address))
    return seen


def visit_from_a_sandbox(page: Page, address: str) -> list[Any]:
    """What a sandboxed frame in a page sees of it."""
    script = f'<script>{VISIT % json.dumps(address)}.then((seen) => parent.postMessage(seen, "*"))</script>'
    seen: list[Any] = page.do("evaluate", IN_A_SANDBOX % json.dumps(script))
    return seen


# Pages of others (RFC 6455 §10.2).


def pages_of_others(server: Server, elsewhere: Server) -> dict[str, tuple[str, list[str]]]:
    """Where they are, and the cookies that a browser adds to what they ask for."""
    return {
        "another port": (elsewhere.url(""), SAME_SITE),  # SameSite does not know of ports
        "another name": (f"http://localhost:{server.port}", CROSS_SITE),
        "another name and port": (f"http://localhost:{elsewhere.port}", CROSS_SITE),
    }


OTHERS = pytest.mark.parametrize("other", ["another port", "another name", "another name and port"])


def test_the_applications_own_page_is_let_in(server: Server, visitor: Callable[[str], Page]) -> None:
    key = new_key()
    assert visit(visitor(server.url("/")), account(server, key)) == GREETED
    assert sent(server, key) == (server.url(""), SAME_SITE)


@OTHERS
def test_a_page_of_another_origin_is_refused(
    server: Server, elsewhere: Server, visitor: Callable[[str], Page], other: str
) -> None:
    origin, cookies = pages_of_others(server, elsewhere)[other]
    page, key = visitor(f"{origin}/"), new_key()
    since = server.settled()
    assert visit(page, account(server, key)) == REFUSED
    [line] = server.settle(since).splitlines()
    assert f'"GET /account?key={key} HTTP/1.1" 403 ' in line
    assert sent(server, key) == (origin, cookies), "the browser has logged in for a page of somebody else"


@OTHERS
def test_a_page_of_a_named_origin_is_let_in(
    server: Server, elsewhere: Server, visitor: Callable[[str], Page], other: str
) -> None:
    origin, cookies = pages_of_others(server, elsewhere)[other]
    page, key = visitor(f"{origin}/"), new_key()
    assert visit(page, account(server, key, "https://shop.example", origin)) == GREETED
    assert visit(page, account(server, "other", "https://shop.example")) == REFUSED
    assert sent(server, key) == (origin, cookies)


def test_a_sandboxed_frame_is_refused(server: Server, visitor: Callable[[str], Page]) -> None:
    page, key = visitor(server.url("/")), new_key()
    since = server.settled()
    for origins in ([], [server.url("")]):
        assert visit_from_a_sandbox(page, account(server, key, *origins)) == REFUSED
        assert sent(server, key) == ("null", CROSS_SITE)
    lines = [line for line in server.settle(since).splitlines() if "/asked/" not in line]
    assert len(lines) == 2 and all(" 403 " in line for line in lines), lines


def test_a_sandboxed_frame_is_let_in_where_anybody_is(server: Server, visitor: Callable[[str], Page]) -> None:
    page, key = visitor(server.url("/")), new_key()
    assert visit_from_a_sandbox(page, account(server, key, "*")) == GREETED
    assert sent(server, key) == ("null", CROSS_SITE)


def test_a_page_from_a_file_is_refused(server: Server, browser: Program, tmp_path: Path) -> None:
    file, page, since = tmp_path / "page.html", Page(browser, new_key()), server.settled()
    file.write_text(PAGE)
    page.do("open", file.as_uri(), DESKTOP)
    assert visit(page, server.url("/echo", "ws")) == REFUSED
    assert page.do("leave") == []
    [line] = server.settle(since).splitlines()
    assert '"GET /echo HTTP/1.1" 403 ' in line


# permessage-deflate (RFC 7692).

#: Sends messages of all sizes in a row, and tells which of them came back.
ECHOED = """new Promise((done) => {
    const socket = new WebSocket(%s), bytes = Uint8Array.from({ length: 100_000 }, (_, i) => (i * i) %% 251);
    const words = "grüße, 世界 🎈 ".repeat(2000), echoed = [];
    const messages = ["short", words, words, bytes, "", words, new Uint8Array(), "x".repeat(1 << 20)];
    const plain = (data) => typeof data === "string" ? data : new Uint8Array(data).join();
    socket.binaryType = "arraybuffer";
    socket.onopen = () => messages.forEach((message) => socket.send(message));
    socket.onmessage = ({ data }) => {
        echoed.push(plain(data) === plain(messages[echoed.length]));
        if (echoed.length === messages.length) socket.close(4001, "bye");
    };
    socket.onclose = ({ code, wasClean }) => done([socket.extensions, echoed, code, wasClean]);
})"""
#: Sends messages, and tells the sizes of what came until the server closed.
UNTIL_CLOSED = """new Promise((done) => {
    const socket = new WebSocket(%s), sizes = [];
    socket.onopen = () => %s.forEach((message) => socket.send(message));
    socket.onmessage = ({ data }) => sizes.push(data.length);
    socket.onclose = ({ code, reason, wasClean }) => done([socket.extensions, sizes, code, reason, wasClean]);
})"""


def parameters(extensions: str) -> set[str]:
    """What was agreed on for permessage-deflate."""
    name, *found = extensions.split("; ")
    assert name == "permessage-deflate"
    return set(found)


@pytest.mark.parametrize("alone", [False, True], ids=["contexts taken over", "no context takeover"])
@pytest.mark.parametrize("bits", [9, 15])
def test_compressed_messages_come_back(server: Server, visitor: Callable[[str], Page], alone: bool, bits: int) -> None:
    settings: dict[str, int] = {"server_max_window_bits": bits, "client_max_window_bits": bits}
    settings |= {"server_no_context_takeover": alone, "client_no_context_takeover": alone}
    address = server.url(f"/deflate?settings={quote(json.dumps(settings))}", "ws")
    extensions, *seen = visitor(server.url("/")).do("evaluate", ECHOED % json.dumps(address))
    assert seen == [[True] * 8, 4001, True]
    limits = {f"{side}_max_window_bits={bits}" for side in ("server", "client") if bits < 15}
    takeover = {f"{side}_no_context_takeover" for side in ("server", "client") if alone}
    assert parameters(extensions) == limits | takeover


def test_a_large_message_passes_as_a_short_frame(server: Server, visitor: Callable[[str], Page]) -> None:
    page, address = visitor(server.url("/")), json.dumps(server.url("/deflate/short", "ws"))
    messages = '["x".repeat(1 << 20), "close 4002 later"]'
    extensions, *seen = page.do("evaluate", UNTIL_CLOSED % (address, messages))
    assert parameters(extensions) and seen == [[1 << 20], 4002, "later", True]
    noise = "[crypto.getRandomValues(new Uint8Array(20_000))]"
    _, sizes, code, text, clean = page.do("evaluate", UNTIL_CLOSED % (address, noise))
    assert (sizes, code, clean) == ([], 1009, True) and "max_frame_size is 10000" in text
