"""The waiter by itself: what resumes a parked greenlet, and what must not."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from gevent import socket
from support import DEADLINE

from websock_gevent.messages import MessageReader
from websock_gevent.waiter import Waiter
from websock_gevent.websocket import WebSocket


class Parked:
    """A greenlet that parks again and again, and counts how often it was resumed."""

    def __init__(self) -> None:
        self.ours, self.peer = socket.socketpair()
        self.websocket = WebSocket(self.ours, {}, MessageReader(100, 100))
        self.ticks = gevent.event.Event()
        self.waiter = Waiter(self.websocket, DEADLINE, self.ticks.set)
        self.resumed = 0
        self.greenlet = gevent.spawn(self.run)
        gevent.idle()

    def run(self) -> None:
        self.waiter.belong()
        while True:
            self.waiter.wait()
            self.resumed += 1
            if self.waiter.readable:
                self.websocket.discard()

    def close(self) -> None:
        self.greenlet.kill(timeout=DEADLINE)
        self.waiter.close()
        self.ours.close()
        self.peer.close()


@pytest.fixture
def parked() -> Iterator[Parked]:
    parked = Parked()
    yield parked
    parked.close()


def let_the_hub_work() -> None:
    """Have everything that is ready now, and what follows from it, happen."""
    for _ in range(20):
        gevent.idle()


def stall(parked: Parked) -> None:
    """Fill the way to the peer until the kernel takes no more."""
    while parked.waiter.stalled is None:
        assert parked.waiter.push([b"x" * 100_000], 1 << 20)


def test_bytes_resume(parked: Parked) -> None:
    parked.peer.sendall(b"x")
    let_the_hub_work()
    assert parked.resumed > 0 and parked.waiter.readable


def test_wake_resumes_once(parked: Parked) -> None:
    for _ in range(10):
        parked.waiter.wake()
    let_the_hub_work()
    assert parked.resumed == 1


def test_a_thread_resumes(parked: Parked) -> None:
    gevent.get_hub().threadpool.apply(parked.waiter.wake)
    let_the_hub_work()
    assert parked.resumed == 1


def test_bytes_do_not_resume_while_output_waits(parked: Parked) -> None:
    """The greenlet could do nothing, and the level-triggered watcher would have it spin."""
    stall(parked)
    let_the_hub_work()
    before = parked.resumed
    parked.peer.sendall(b"x")
    let_the_hub_work()
    assert parked.resumed == before and parked.waiter.readable


def test_output_that_has_gone_resumes(parked: Parked) -> None:
    stall(parked)
    before = parked.resumed
    while parked.waiter.stalled is not None:
        parked.peer.recv(1 << 20)
        gevent.idle()
    let_the_hub_work()
    assert parked.resumed == before + 1 and not parked.websocket.out


def test_nobody_is_resumed_elsewhere(parked: Parked) -> None:
    """A wake-up that is on its way when the greenlet is taken out must not disturb what it does next."""
    parked.greenlet.kill(timeout=DEADLINE)
    done = gevent.event.Event()

    def body() -> None:
        with pytest.raises(KeyError):
            parked.waiter.wait()
        assert done.wait(DEADLINE)

    parked.greenlet = gevent.spawn(body)
    gevent.idle()
    parked.greenlet.kill(KeyError, block=False)
    parked.waiter.wake()
    let_the_hub_work()
    assert not parked.greenlet.ready()
    done.set()
    parked.greenlet.get(timeout=DEADLINE)


def test_remind_keeps_the_earlier_time(parked: Parked) -> None:
    parked.waiter.remind(0.01)
    parked.waiter.remind(1000)
    assert parked.ticks.wait(DEADLINE)
    parked.ticks.clear()
    parked.waiter.remind(1000)
    parked.waiter.remind(0.01)
    assert parked.ticks.wait(DEADLINE)
