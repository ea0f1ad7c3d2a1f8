"""The tables of `docs/contract.rst` say what the code does."""

from __future__ import annotations

import re
from typing import Any

import pytest
from serving import ROOT
from support import Diary, open_client

from websock_gevent import ConnectionClosed
from websock_gevent.frames import is_sendable
from websock_gevent.websock import interpret

PAGE = (ROOT / "docs" / "contract.rst").read_text()
NAMES = {"state": "the state", "s": "the state", "other": "other", "messages": ["a", b"b"], "anything": object(),
         "reason": "normal", "close": (4001, "bye"), "b": b"binary", "text": "bye"}  # fmt: skip


def rows(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading."""
    below = PAGE.split(f"\n{heading}\n", 1)[1]
    lines = below[below.index("\n==") + 1 :].split("\n")
    spans = [match.span() for match in re.finditer("=+", lines[0])]
    ends = [number for number, line in enumerate(lines) if line == lines[0]][:3]
    return [[line[start : None if end == spans[-1][1] else end].strip() for start, end in spans]
            for line in lines[ends[1] + 1 : ends[2]]]  # fmt: skip


def value_of(code: str) -> Any:
    """What a cell with literal code means."""
    found = re.fullmatch("``(?:return )?(.+?)``", code)
    assert found, code
    return eval(found[1], dict(NAMES))


RESULTS = [row for row in rows("What a callback returns") if row[0].startswith("``")]
STOPS = rows("Stop reasons")
SPELLINGS = rows("For those who know WebSock")
RETURNS = [row[1] for row in SPELLINGS if row[1].startswith("``return")]


class Does(Diary):
    """Returns what it was made with."""

    result: Any = None

    def handle_in(self, message: str | bytes, state: Any) -> Any:
        return self.result


def outcome(result: Any) -> tuple[int | None, Any]:
    """The close code that a client gets for a result, and what ``terminate`` gets."""
    handler = Does()
    handler.result = result
    client = open_client(handler)
    client.send("now")
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            client.receive()
    client.wait_closed()
    return closed.value.code, handler.wait()


@pytest.mark.parametrize("row", RESULTS, ids=lambda row: str(row[0]))
def test_results_do_what_their_row_says(row: list[str]) -> None:
    frames, state, stop = interpret(value_of(row[0]))
    assert state == "the state"
    assert bool(frames) == ("send" in row[1] or row[1].startswith("the same"))
    assert (stop is not None) == ("close" in row[1])


@pytest.mark.parametrize("row", STOPS[:-1], ids=lambda row: str(row[0]))
def test_stop_reasons_have_the_codes_of_their_row(row: list[str]) -> None:
    assert outcome(value_of(row[0])) == (int(row[1]), value_of(row[2]))


def test_a_code_of_its_own_changes_nothing_else() -> None:
    assert STOPS[-1][1:] == ["as given", "as above"]
    for returned, _, reason in STOPS[:-1]:
        _, given, state = value_of(returned)
        assert outcome(("stop", given, (4001, "bye"), state)) == (4001, value_of(reason))


@pytest.mark.parametrize("code", RETURNS)
def test_the_spelling_for_elixir_is_accepted(code: str) -> None:
    assert interpret(value_of(code))[1] == "the state"


def test_the_codes_that_may_be_sent_are_those_that_can() -> None:
    (text,) = re.findall(r"Those that may are ([0-9, and-]+)\.", PAGE.replace("\n", " "))
    named = [tuple(map(int, part)) for part in re.findall(r"(\d+)-(\d+)", text)]
    said = {code for first, last in named for code in range(first, last + 1)}
    assert said == {code for code in range(6000) if is_sendable(code)}
