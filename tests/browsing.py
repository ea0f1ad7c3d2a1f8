"""Debian's Chromium, driven through ``node/browser.mjs``, and pages in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from serving import NODE, Program, Server, node

__all__ = ["DESKTOP", "Page", "chromium"]

DESKTOP = {"width": 1200, "height": 800}
CHROMIUM = "/usr/bin/chromium"


@contextmanager
def chromium(*profile: str) -> Iterator[Program]:
    """Run a browser, in a profile of its own if its folder is given."""
    assert os.access(CHROMIUM, os.X_OK), f"{CHROMIUM} is missing: run tests/setup"
    program = Program((node(), str(NODE / "browser.mjs"), CHROMIUM, *profile), stdin=True)
    try:
        program.wait_for_log('^{"ready"')
        yield program
        program.close_stdin()
        assert program.wait() == 0, program.log()
    finally:
        program.end()


class Page:
    """A page in a browser context of its own; a name for each verb of ``browser.mjs``."""

    def __init__(self, browser: Program, name: str) -> None:
        self._browser = browser
        self.name = name
        self._is_open = False

    def do(self, verb: str, *arguments: Any) -> Any:
        """Have the browser do something, and return what came of it."""
        since = self._browser.position()
        self._browser.write(json.dumps([self.name, verb, *arguments]))
        answer = json.loads(self._browser.wait_for_log(r'^\{"(result|error)".*\}$', since=since).group())
        assert "error" not in answer, f"{self.name}: {verb} {arguments}: {answer['error']}"
        return answer["result"]

    def log_in(self, server: Server, viewport: dict[str, int]) -> None:
        """Come in through the door."""
        self.do("open", server.url(), viewport)
        self._is_open = True
        self.do("fill", "#name", self.name)
        self.do("click", "#enter")
        self.do("see", "#status[data-state=open]")

    def leave(self) -> None:
        """Close the page. None of its scripts has failed."""
        if self._is_open:
            self._is_open = False
            assert self.do("leave") == []

    def say(self, words: str) -> None:
        """Write a message and send it."""
        self.do("fill", "#text", words)
        self.do("click", "#send")

    def sees_message(self, author: str, words: str) -> None:
        """Wait for a message."""
        self.do("see", f'#log .message[data-author="{author}"] .text', words)

    def sees_members(self, *names: str) -> None:
        """Wait until these people are in the room, and nobody else."""
        self.do(
            "until",
            f"JSON.stringify([...document.querySelectorAll('#members .name')].map((one) => one.textContent)) "
            f"=== JSON.stringify({json.dumps(names)})",
        )
