"""The code in the pages of ``docs/`` and in the other texts of the project: found, and put where it can be run.

Knows how reStructuredText marks a block; refuses to know what is in it.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

from serving import ROOT

__all__ = ["PAGES", "Block", "block", "blocks_of", "write"]

DOCS = ROOT / "docs"
#: All texts whose code is looked after.
PAGES = [ROOT / "README.rst", ROOT / "CONTRIBUTING.rst", *sorted(DOCS.rglob("*.rst"))]

_BEGIN = re.compile(r"^(?P<indent> *)(?:\.\. (?:code-block|code|sourcecode):: (?P<language>\S+)|(?!\.\. ).*::)$")
_OPTION = re.compile(r"^ +:(\w+): (.*)$")


class Block(NamedTuple):
    """A block of code.

    Attributes:
        page: The path of its page, from the root of the repository.
        line: Where it begins.
        language: As given; ``text`` for one that only a double colon announces.
        name: As given; empty if it has none.
        caption: The name of the file that it is; empty if it is none.
        text: The code.
    """

    page: str
    line: int
    language: str
    name: str
    caption: str
    text: str


def blocks_of(path: Path) -> list[Block]:
    """All blocks of a page, in their order."""
    lines = path.read_text().splitlines()
    page = path.relative_to(ROOT).as_posix()
    found = [(number, match) for number, line in enumerate(lines, 1) if (match := _BEGIN.match(line))]
    return [_block(page, number, match, lines[number:]) for number, match in found]


def _block(page: str, number: int, begin: re.Match[str], behind: list[str]) -> Block:
    indent = len(begin["indent"])
    inside: list[str] = []
    for line in behind:
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            break
        inside.append(line)
    options: dict[str, str] = {}
    while inside and (option := _OPTION.match(inside[0])):
        options[option[1]] = option[2]
        inside.pop(0)
    text = textwrap.dedent("\n".join(inside)).strip("\n") + "\n"
    name, caption = options.get("name", ""), options.get("caption", "")
    return Block(page, number, begin["language"] or "text", name, caption, text)


_named = {found.name: found for page in PAGES for found in blocks_of(page) if found.name}


def block(name: str) -> Block:
    """The block of a name."""
    return _named[name]


def write(folder: Path, *names: str) -> None:
    """Put blocks into a folder, as the files that their captions say."""
    for name in names:
        found = block(name)
        assert found.caption, f"{name} has no caption, which is the name of its file"
        path = folder / Path(found.caption).relative_to(Path(found.caption).anchor)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found.text)
