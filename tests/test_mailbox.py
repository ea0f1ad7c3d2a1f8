"""The mailbox: who may put something in, in which order it arrives, and when it is refused."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import Any

import gevent
import pytest
from support import (
    DEADLINE,
    Diary,
    application,
    frames_of,
    handshake,
    masked,
    open_client,
    raw_connection,
    read_all,
    read_head,
    text,
)
from websockets.frames import Opcode

from websock_gevent import ConnectionClosed, Mailbox, WebSock, current


class Open(Diary):
    """Shows its mailbox."""

    mailbox: Mailbox

    def init(self, state: Any) -> Any:
        self.mailbox = current()
        return super().init(state)

    @property
    def mail(self) -> list[Any]:
        return [call[1] for call in self.calls if call[0] == "handle_info"]


class Relay(Open):
    """Pushes its mail to the client."""

    def handle_info(self, message: Any, state: Any) -> Any:
        return "push", message, state


def in_thread(function: Any, *args: Any) -> Any:
    """Run in a real OS thread, and wait for it without holding up the hub."""
    return gevent.get_hub().threadpool.apply(function, args)


def test_current_is_this_connections_own() -> None:
    one, two = Open(), Open()
    with open_client(one) as first, open_client(two) as second:
        one.mailbox.send("for one")
        first.ping()
        second.ping()
        assert (one.mail, two.mail) == (["for one"], [])
        assert one.mailbox is not two.mailbox


def test_current_outside_of_a_callback() -> None:
    class Spawning(WebSock[Any]):
        def handle_in(self, message: Any, state: Any) -> Any:
            outcome = gevent.spawn(lambda: pytest.raises(RuntimeError, current)).get(timeout=DEADLINE)
            return "push", str(outcome.value), state

    with pytest.raises(RuntimeError, match="inside a callback"):
        current()
    with open_client(Spawning) as client:
        client.send("go")
        assert "inside a callback" in str(client.receive())
    with pytest.raises(RuntimeError, match="inside a callback"):
        current()


def test_order_of_one_sender() -> None:
    handler = Relay()
    with open_client(handler) as client:
        for number in range(500):
            assert handler.mailbox.send(str(number))
        received = [client.receive() for _ in range(500)]
    assert received == [str(number) for number in range(500)]


def test_threads_lose_nothing_and_keep_their_order() -> None:
    handler = Relay()
    with open_client(handler, max_mailbox=10_000) as client:

        def fill(name: str) -> bool:
            return all(handler.mailbox.send(f"{name} {number}") for number in range(1000))

        pool = gevent.get_hub().threadpool
        threads = [pool.spawn(fill, name) for name in "abcd"]
        received = [str(client.receive()) for _ in range(4000)]
        assert all(thread.get(timeout=DEADLINE) for thread in threads)
    for name in "abcd":
        assert [line for line in received if line[0] == name] == [f"{name} {number}" for number in range(1000)]


@pytest.mark.parametrize("put", ["send", "push"])
def test_a_thread_wakes_a_connection_that_sleeps(put: str) -> None:
    """Nothing else may wake the hub: the thread that puts stays until the message has arrived, again and again."""
    handler, arrived = Relay(), threading.Semaphore(0)

    def put_and_stay() -> bool:
        return all(getattr(handler.mailbox, put)("wake up") and arrived.acquire(timeout=DEADLINE) for _ in range(50))

    with open_client(handler, timeout=None, ping_interval=None) as client:
        thread = gevent.get_hub().threadpool.spawn(put_and_stay)
        for _ in range(50):
            try:
                assert client.receive(timeout=DEADLINE / 5) == "wake up"
            finally:
                arrived.release()
        assert thread.get(timeout=DEADLINE)


def test_pushes_of_a_thread_keep_their_order() -> None:
    handler = Open()
    with open_client(handler) as client:
        assert in_thread(lambda: all(handler.mailbox.push(str(number)) for number in range(2000)))
        assert [client.receive() for _ in range(2000)] == [str(number) for number in range(2000)]


def test_a_push_never_stands_inside_another_message() -> None:
    class Large(Open):
        def handle_in(self, message: Any, state: Any) -> Any:
            return "push", ["x" * 2_000_000, "y" * 2_000_000], state

    handler = Large()
    with open_client(handler) as client:
        client.send("go")
        pushed = [handler.mailbox.push(f"push {number}") for number in range(50) if gevent.idle() is None]
        assert all(pushed)
        received = [str(client.receive()) for _ in range(52)]
    assert sorted(message for message in received if message[0] != "p") == ["x" * 2_000_000, "y" * 2_000_000]
    assert [message for message in received if message[0] == "p"] == [f"push {number}" for number in range(50)]


def test_a_broadcast_is_encoded_once() -> None:
    handlers = [Open() for _ in range(5)]
    sockets = [raw_connection(application(handler, send_timeout=DEADLINE)) for handler in handlers]
    for sock, _ in sockets:
        sock.sendall(handshake())
        read_head(sock)
    blocker, message = "b" * 4_000_000, "the news"
    for handler in handlers:  # nobody reads, so what is pushed next has to wait
        assert handler.mailbox.push(blocker)
    for handler in handlers:
        assert handler.mailbox.push(message)
    waiting = {id(handler.mailbox.websocket.out[-1]) for handler in handlers}
    assert len(waiting) == 1, "one frame is shared by all"
    for sock, server in sockets:
        sock.close()
        server.join(DEADLINE)


def test_a_list_that_changes_between_two_pushes_is_encoded_again() -> None:
    handler = Open()
    with open_client(handler) as client:
        messages = ["one"]
        handler.mailbox.push(messages)
        messages[0] = "two"
        handler.mailbox.push(messages)
        assert [client.receive(), client.receive()] == ["one", "two"]


@pytest.mark.parametrize("bad", [None, 1, ("text", b"x"), ("close", b""), ["ok", 3]], ids=repr)
def test_a_bad_push_is_its_senders_error(bad: Any) -> None:
    handler = Open()
    with open_client(handler) as client:
        with pytest.raises((TypeError, ValueError)):
            handler.mailbox.push(bad)
        client.send("unharmed")
        assert client.receive() == "unharmed"


def overflow_by_mail(handler: Any) -> bool:
    return bool(handler.mailbox.send("x"))


def overflow_by_push(handler: Any) -> bool:
    return bool(handler.mailbox.push("x" * 100_000))


@pytest.mark.parametrize("elsewhere", [False, True], ids=["greenlet", "thread"])
@pytest.mark.parametrize("put", [overflow_by_mail, overflow_by_push])
def test_overflow(put: Any, elsewhere: bool, caplog: pytest.LogCaptureFixture) -> None:
    handler = Open()
    sock, server = raw_connection(application(handler, max_mailbox=100, send_timeout=DEADLINE, close_timeout=0.1))
    sock.sendall(handshake())
    read_head(sock)

    def flood() -> int:
        """Put things in until one is refused."""
        accepted = 0
        while accepted < 1000 and put(handler):
            accepted += 1
        return accepted

    accepted = in_thread(flood) if elsewhere else flood()
    assert 100 <= accepted < 1000
    assert handler.wait() == ("error", "mailbox overflow"), "though the client has not read anything yet"
    received = b""
    while chunk := sock.recv(1 << 16):
        received += chunk
    assert list(frames_of(received))[-1] == (8, b"\x03\xf0mailbox overflow")
    sock.close()
    server.join(DEADLINE)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert not handler.mailbox.send("late")


def test_nothing_is_accepted_after_the_end() -> None:
    handler = Open()
    with open_client(handler) as client:
        mailbox = handler.mailbox
        assert mailbox.websocket.path == "/" and not mailbox.closed
    assert client.close_code == 1000
    assert mailbox.closed
    assert not mailbox.send("late") and not mailbox.push("late")
    assert not in_thread(mailbox.send, "late") and not in_thread(mailbox.push, "late")
    assert not mailbox.send_after(0, "late").cancel()
    with pytest.raises(RuntimeError, match="has ended: 'remote'"):
        mailbox.websocket  # noqa: B018


def test_send_after() -> None:
    handler = Relay()
    with open_client(handler) as client:
        handler.mailbox.send_after(0.05, "second")
        handler.mailbox.send_after(0, "first")
        cancelled = handler.mailbox.send_after(0.02, "never")
        assert cancelled.cancel() and not cancelled.cancel()
        assert [client.receive(), client.receive()] == ["first", "second"]
        timer = handler.mailbox.send_after(0, "third")
        assert client.receive() == "third"
        assert not timer.cancel(), "it is too late"


def test_send_after_from_a_thread() -> None:
    handler = Relay()
    with open_client(handler) as client:
        kept = in_thread(handler.mailbox.send_after, 0.05, "kept")
        dropped = in_thread(handler.mailbox.send_after, 0.02, "dropped")
        assert in_thread(dropped.cancel)
        assert client.receive() == "kept"
        assert not kept.cancel()


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_send_after_refuses_nonsense(seconds: float) -> None:
    handler = Open()
    with open_client(handler), pytest.raises(ValueError, match="seconds"):
        handler.mailbox.send_after(seconds, "x")


def test_a_timer_is_cancelled_or_delivered_never_both() -> None:
    """Also by a greenlet that wakes up while the hub works through timers of which all are due."""

    def hold_up_the_hub() -> None:
        began = time.perf_counter()
        while time.perf_counter() < began + 0.02:
            pass

    handler = Open()
    with open_client(handler) as client:
        timers = [handler.mailbox.send_after(0.005, number) for number in range(20)]
        gevent.idle()
        gevent.get_hub().loop.run_callback(hold_up_the_hub)
        gevent.sleep(0.001)
        cancelled = [timer.cancel() for timer in timers]
        client.ping()
        gevent.idle()
        client.ping()
    assert any(cancelled), "this greenlet comes before some of the timers"
    assert handler.mail == [number for number in range(20) if not cancelled[number]]


def test_a_mailbox_that_is_kept_keeps_nothing_else() -> None:
    class State:
        pass

    state = State()
    kept: list[Mailbox] = []

    class Keeping(WebSock[Any]):
        def init(self, state: Any) -> Any:
            kept.append(current())
            return "ok", state

        def handle_in(self, message: Any, state: Any) -> Any:
            return "ok", state

    with open_client(Keeping, state):
        reference = weakref.ref(state)
        del state
    gc.collect()
    assert kept and reference() is None


def test_timers_die_with_the_connection() -> None:
    handler = Open()
    with open_client(handler):
        timer = handler.mailbox.send_after(1000, "never")
        gevent.idle()
    assert not timer.cancel()


def test_monitor() -> None:
    watcher, watched = Open(), Open()
    with open_client(watcher) as client:
        other = open_client(watched)
        watcher.mailbox.monitor(watched.mailbox)
        other.abort()
        assert watched.wait() == ("error", "closed")
        client.ping()
        assert watcher.mail == [("down", watched.mailbox, ("error", "closed"))]
        watcher.mailbox.monitor(watched.mailbox)  # it has ended already: told at once
        client.ping()
        assert watcher.mail[1:] == [("down", watched.mailbox, ("error", "closed"))]


def test_down_comes_after_terminate() -> None:
    class Slow(Open):
        def terminate(self, reason: Any, state: Any) -> None:
            assert release.wait(DEADLINE)
            super().terminate(reason, state)

    release = gevent.event.Event()
    watcher, watched = Open(), Slow()
    with open_client(watcher) as client:
        other = open_client(watched)
        watcher.mailbox.monitor(watched.mailbox)
        other.socket.close()
        client.ping()
        assert watcher.mail == []
        release.set()
        assert watched.wait() == ("error", "closed")
        client.ping()
        assert len(watcher.mail) == 1


def test_demonitor() -> None:
    watcher, watched = Open(), Open()
    with open_client(watcher) as client:
        with open_client(watched):
            watcher.mailbox.monitor(watched.mailbox)
            watcher.mailbox.demonitor(watched.mailbox)
            watcher.mailbox.demonitor(watched.mailbox)
        client.ping()
        assert watcher.mail == []


def test_monitors_that_have_ended_are_forgotten() -> None:
    watched = Open()
    with open_client(watched):
        for _ in range(3):
            watcher = Open()
            with open_client(watcher):
                watcher.mailbox.monitor(watched.mailbox)
        assert watched.mailbox._monitors == []


def test_closed_is_raised_to_the_test_client() -> None:
    handler = Open()
    client = open_client(handler)
    client.close()
    with pytest.raises(ConnectionClosed):
        client.send("late")
    with pytest.raises(ConnectionClosed):
        client.receive()


def test_pushes_of_one_callback_are_no_overflow_while_the_client_reads() -> None:
    """Though they stand behind something that waits for its turn: here what `init` pushed, and the first answer."""

    class Pushes(Diary):
        def init(self, state: Any) -> Any:
            return "push", "welcome", state

        def handle_in(self, message: str | bytes, state: Any) -> Any:
            for _ in range(400):
                assert current().push("x")
            return "push", "done", state

    sock, server = raw_connection(application(Pushes(), max_mailbox=300))
    sock.sendall(handshake() + text("go") * 2 + masked(Opcode.CLOSE, b"\x03\xe8"))
    read_head(sock)
    payloads = [payload for _, payload in frames_of(read_all(sock))]
    assert payloads == [b"welcome", *[b"x"] * 400, b"done", *[b"x"] * 400, b"done", b"\x03\xe8"]
    sock.close()
    server.join(DEADLINE)


def test_a_long_message_counts_once() -> None:
    class Pusher(Diary):
        def handle_in(self, message: Any, state: Any) -> Any:
            return "push", str(current().push(bytes(1 << 18))), state

    with open_client(Pusher, max_mailbox=1) as client:
        client.send("push")
        assert client.receive() == bytes(1 << 18)
        assert client.receive() == "True"
