"""`docs/errors.rst` has an entry for every text of the package, and none for texts that are gone."""

from __future__ import annotations

import re

from messages_of import Text, collect, unread
from serving import ROOT

PACKAGE = ROOT / "websock_gevent"
PAGE = ROOT / "docs" / "errors.rst"
ENTRY = re.compile(r"^   ``(.+)``$", re.MULTILINE)


def entries() -> list[str]:
    """The texts that the page explains."""
    return ENTRY.findall(PAGE.read_text())


def test_every_text_has_an_entry() -> None:
    known = set(entries())
    missing = [f"{text.where}: {text.text}" for text in collect(PACKAGE) if text.text not in known]
    assert not missing, "docs/errors.rst does not explain\n" + "\n".join(missing)


def test_no_entry_is_of_yesterday() -> None:
    texts = {text.text for text in collect(PACKAGE)}
    assert not [entry for entry in entries() if entry not in texts]


def test_no_entry_stands_twice() -> None:
    assert len(entries()) == len(set(entries()))


def test_every_entry_says_what_to_do() -> None:
    for first, second in re.findall(r"^   ``.+``\n(.*)\n(.*)", PAGE.read_text(), re.MULTILINE):
        assert first.startswith(("      ", "   ``")), f"nothing is said about what stands before {second!r}"


def test_nothing_is_raised_or_logged_that_the_collector_does_not_understand() -> None:
    assert unread(PACKAGE) == []


def test_the_collector_sees_what_is_told_in_every_way() -> None:
    texts = {text.text for text in collect(PACKAGE)}
    assert {
        "… has no handle_in",  # an f-string that is raised
        "the WebSocket could not be opened",  # logged
        "PubSub: Redis at … is back after … s: … entries replayed, … gaps",  # by way of a variable
        "The server is about to end. Connect again: another one will answer.",  # by way of one of two
        "Socket is dead",  # a constant of another project
        "This address is a WebSocket. Connect to it with a WebSocket client (RFC 6455).",  # a class's own
        "Flask's test client has no socket to give away. In tests, use websock_gevent.testing.connect.",  # returned
    } <= texts
    assert all(isinstance(text, Text) and text.where for text in collect(PACKAGE))
