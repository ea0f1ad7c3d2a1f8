"""A callback that does not give way is reported once, with its stack and its peer; one that blocks properly is not."""

from __future__ import annotations

import re

import pytest
from raw import Raw, masked, unmasked
from serving import Server, gunicorn

from websock_gevent.hogs import report_hogs


def ask(server: Server, path: str, message: str) -> None:
    """Have a connection do something, and wait until it is done."""
    with Raw(server) as raw:
        raw.upgrade(path)
        raw.send(masked(message))
        expected = unmasked(f"{message} done")
        assert raw.read(len(expected)) == expected


@pytest.mark.parametrize("worker", ["gevent", "gevent_pywsgi"])
@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["", "preloaded"])
@pytest.mark.parametrize("idle", ["greenlet", "parked"])
def test_who_does_not_give_way_is_reported_once(worker: str, preload: list[str], idle: str) -> None:
    with gunicorn("hogging:app", *preload, worker=worker, env={"IDLE": idle}) as server:
        ask(server, "/hog", "sleep well")
        ask(server, "/hog", "compute")
        ask(server, "/hog", "compute again")
        ask(server, "/watched", "compute")
        ask(server, "/wrapped", "compute")
        ask(server, "/function", "compute")
        server.wait_for_log(r"hogging\.function has not given way .*\n.*\n.*\n.* in compute\n.*\n")
        log = server.log()
    reports = re.findall(
        r"^127\.0\.0\.1 '(.*)': (\S+) has not given way for 0\.1 s; .*\n((?: .*\n)+)", log, re.MULTILINE
    )
    assert [report[:2] for report in reports] == [
        ("/hog", "hogging.Hog.handle_in"),
        ("/watched", "hogging.Watched.handle_in"),
        ("/wrapped", "hogging.Wrapped.handle_in"),
        ("/function", "hogging.function"),
    ], log
    for _, _, stack in reports:
        assert re.match(r'  File ".*/hogging\.py", line \d+, in (handle_in|function)\n', stack), stack
        assert re.search(r'  File ".*/hogging\.py", line \d+, in compute\n', stack), stack
    assert not re.search("appears to be blocked|Traceback|Warning", log)


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_time_that_is_none_is_named(seconds: float) -> None:
    with pytest.raises(ValueError, match="report_hogs takes a finite number of seconds"):
        report_hogs(seconds)
