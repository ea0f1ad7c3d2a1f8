"""Several PubSubs of one process, and several greenlets, threads and processes that use one, get along."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from redis_servers import RedisServer
from serving import ROOT
from support import DEADLINE, open_client, until
from test_mailbox import in_thread
from test_pubsub import Page
from test_pubsub_redis import SUBSCRIBED, drop_connections, listener, page_on, publisher

from websock_gevent import addresses
from websock_gevent.pubsub import PubSub

Make = Callable[..., PubSub]


# Several PubSubs in one process.


def test_who_closes_does_not_take_the_others_with_it(redis: RedisServer, make: Make) -> None:
    one, two, witness = make(redis.url), make(redis.url), make(redis.url, prefix="websock:")
    with page_on(witness, "lobby") as page, page_on(two, "second") as other, page_on(one, "third") as third:
        two.track("lobby", "ann", 1, other.mailbox)
        one.track("lobby", "bob", 2, third.mailbox)
        one.close()
        assert witness.list("lobby") == {"ann": [1]}
        assert page.rest(witness, "lobby") == [
            ("join", "lobby", "ann", 1),
            ("join", "lobby", "bob", 2),
            ("leave", "lobby", "bob", 2),
        ]
        assert publisher(redis.url, f"print(pubsub.send({other.mailbox.address!r}, 'still here'))").strip() == "True"
        assert other.wait_for(1) == ["still here"]
        two.close()
        witness.close()
    client = redis.client()
    until(lambda: not client.exists("websock:processes"))
    assert not client.keys("websock:present:*") + client.keys("websock:owned:*")


def test_two_prefixes_keep_the_inboxes_apart(redis: RedisServer, make: Make) -> None:
    """Messages for one connection through both, at the same moment: in both inboxes they have the same id."""
    one, two = make(redis.url, prefix="one:"), make(redis.url, prefix="two:")
    with page_on(one, "lobby") as page:
        two.subscribe("lobby", page.mailbox)
        address = page.mailbox.address
        code = f"two = PubSub({redis.url!r}, prefix='two:'); one = PubSub({redis.url!r}, prefix='one:')\n"
        code += f"for number in range(300):\n    for one_of in (one, two): one_of.send({address!r}, number)"
        publisher(redis.url, code)
        mail = page.wait_for(600)
        assert sorted(mail) == sorted([*range(300), *range(300)])


def test_a_repeated_attempt_is_not_taken_for_one_of_another_pubsub(redis: RedisServer, make: Make) -> None:
    one, two, witness = make(redis.url), make(redis.url, timeout=DEADLINE), make(redis.url)
    with page_on(witness, "lobby") as page:
        for number in range(3):
            one.broadcast("lobby", number)
        redis.client().client_pause(30_000, all=False)  # holds back what writes
        waiting = gevent.spawn(two.broadcast, "lobby", "mine")
        until(lambda: any("evalsha" in each["cmd"] and each["flags"] == "b" for each in redis.client().client_list()))
        drop_connections(redis)
        redis.client().execute_command("CLIENT", "UNPAUSE")
        assert waiting.get(timeout=DEADLINE)
        until(lambda: listener(witness).connected)
        assert page.rest(witness, "lobby") == [0, 1, 2, "mine"]


def test_each_says_its_presence_again_to_a_server_that_forgot(redis: RedisServer, make: Make) -> None:
    one, two = make(redis.url), make(redis.url)
    with page_on(one, "lobby") as page, page_on(two, "lobby") as other:
        one.track("lobby", "ann", 1, page.mailbox)
        two.track("lobby", "bob", 2, other.mailbox)
        redis.client().flushall()
        until(lambda: two.list("lobby") == {"ann": [1], "bob": [2]})


def test_a_quiet_topic_is_told_of_what_a_server_forgot_though_a_neighbour_was_there_before(
    redis: RedisServer, make: Make
) -> None:
    pubsubs = [make(redis.url) for _ in range(6)]
    pages = []
    for pubsub in pubsubs:
        page = Page()
        opened = open_client(page, timeout=None, ping_interval=None)
        opened.ping()
        pubsub.subscribe("quiet", page.mailbox)
        pages.append((page, opened))
    redis.kill()
    redis.start()
    for page, opened in pages:
        assert page.wait_for(1) == [("gap", "quiet")]
        opened.abort()


# Presence, by several at once.


class Interrupted:
    """Somebody asks for an address just when the connection ends: the middle of `PubSub.track`."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go = threading.Event()
        addresses.on_name(self.asked)

    def asked(self) -> None:
        if not self.reached.is_set():  # the first one alone
            self.reached.set()
            assert self.go.wait(DEADLINE)

    def end(self) -> None:
        addresses.off_name(self.asked)
        self.go.set()


def test_a_connection_that_ends_while_it_is_tracked_is_not_present(redis: RedisServer, make: Make) -> None:
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby") as witness:
        page = Page()
        opened = open_client(page)
        opened.ping()
        pubsub.subscribe("other", page.mailbox)
        interrupted = Interrupted()
        try:
            tracking = gevent.spawn(pubsub.track, "lobby", "ann", 1, page.mailbox)
            until(interrupted.reached.is_set)
            opened.abort()
            page.wait()
            until(lambda: not listener(pubsub)._errands)
        finally:
            interrupted.end()
        tracking.get(timeout=DEADLINE)
        assert pubsub.list("lobby") == {}
        assert witness.rest(pubsub, "lobby") in ([], [("join", "lobby", "ann", 1), ("leave", "lobby", "ann", 1)])
    assert not redis.client().keys("websock:present:*")


def test_who_is_tracked_twice_at_once_is_present_once(redis: RedisServer, make: Make) -> None:
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby") as page:
        for number in range(30):
            jobs = [gevent.spawn(pubsub.track, "lobby", "ann", [number, n], page.mailbox) for n in range(4)]
            gevent.joinall(jobs, raise_error=True, timeout=DEADLINE)
            until(lambda: not listener(pubsub)._errands)
            ((held,),) = pubsub.list("lobby").values()
            backend: Any = pubsub._use()
            assert [tracked.text for tracked in backend.presence.all()] == [f'["ann",[{number},{held[1]}]]']
        present: set[str] = set()
        for kind, _, _, meta in page.rest(pubsub, "lobby"):
            (present.add if kind == "join" else present.discard)(str(meta))
        assert present == {str(held)}


def test_presence_that_could_not_be_said_again_is_said_later(redis: RedisServer, make: Make, caplog: Any) -> None:
    """The server knows the process again, and refuses the rest for a while."""
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby") as page:
        pubsub.track("lobby", "ann", 1, page.mailbox)
        admin = redis.client()
        admin.execute_command("ACL", "SETUSER", "default", "-hset")
        admin.delete("websock:processes", "websock:present:lobby", f"websock:owned:{addresses.process()}")
        until(lambda: "no sign of life can be given" in caplog.text)
        admin.execute_command("ACL", "SETUSER", "default", "+hset")
        until(lambda: pubsub.list("lobby") == {"ann": [1]})


def test_who_leaves_while_everybody_is_said_again_has_left(redis: RedisServer, make: Make) -> None:
    pubsub = make(redis.url)
    client = redis.client()
    with page_on(pubsub, "lobby") as page:
        for number in range(2000):
            pubsub.track("crowd", str(number), None, page.mailbox)
        client.flushall()
        until(lambda: client.exists("websock:processes"))  # it is about to say who is there
        for number in range(1980, 2000):
            pubsub.untrack("crowd", str(number), page.mailbox)
        until(lambda: len(pubsub.list("crowd")) >= 1980)
        until(lambda: pubsub.list("crowd").keys() == {str(number) for number in range(1980)})


def test_the_end_of_a_tracked_one_in_other_threads(redis: RedisServer, make: Make) -> None:
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby") as page:
        in_thread(pubsub.track, "lobby", "ann", 1, page.mailbox)
        in_thread(pubsub.track, "lobby", "bob", 1, page.mailbox)
        in_thread(pubsub.untrack, "lobby", "bob", page.mailbox)
        assert pubsub.list("lobby") == {"ann": [1]}
    until(lambda: pubsub.list("lobby") == {})


# Processes that fork.

FORKING = """
import os, sys, threading, gevent, gevent.monkey
if sys.argv[1] == "patched": gevent.monkey.patch_all()
"""


def forking(redis: RedisServer, mode: str, code: str) -> str:
    """Run a program that forks, with a page that is subscribed; return what it has written to stderr."""
    command = [sys.executable, "-c", FORKING + SUBSCRIBED + code, mode, redis.url]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "done", f"{mode}: {done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("mode", ["patched", "plain"])
def test_a_fork_in_the_middle_of_everything(redis: RedisServer, mode: str) -> None:
    """While messages come and go, a lock is held and a PubSub is being closed: the child has no part in it."""
    forking(
        redis,
        mode,
        """
import subprocess
from websock_gevent.pubsub import correspondence
closing = PubSub(sys.argv[-1])
closing.subscribe("lobby", page.mailbox)
closing._begin()  # as in the middle of close(): nobody knows it any more, and it still listens
code = "import sys; from websock_gevent.pubsub import PubSub; p = PubSub(sys.argv[1])\\n"
code += "for n in range(4000): p.broadcast('lobby', n)"
publishing = subprocess.Popen([sys.executable, "-c", code, sys.argv[-1]])
page.wait_for(20)
correspondence._delivered._lock.acquire()
children = []
for _ in range(5):
    count = len(page.mail)
    page.wait_for(count + 10)
    child = gevent.fork()
    if not child:
        own = Page()
        client = open_client(own)
        client.ping()
        topic = str(os.getpid())
        pubsub.subscribe(topic, own.mailbox)
        pubsub._use()._post(own.mailbox.address.split(".")[0], '["send","name","' + own.mailbox.address + '",1]')
        pubsub.broadcast(topic, 2)
        assert own.wait_for(2) in ([1, 2], [2, 1])
        pubsub.close()
        os._exit(0)
    children.append(child)
for child in children:
    assert gevent.os.waitpid(child, 0)[1] == 0
correspondence._delivered._lock.release()
assert sorted(page.wait_for(8000)) == sorted([*range(4000), *range(4000)])
assert publishing.wait() == 0
print("done")
""",
    )


def test_a_fork_does_not_send_what_is_in_the_buffer_of_its_parent(redis: RedisServer) -> None:
    """The child gets a copy of the greenlet that is just sending the first message."""
    forking(
        redis,
        "patched",
        f"""
import signal
buffered = PubSub(sys.argv[-1], buffer=10, timeout=1)
buffered.broadcast("lobby", "connected")
assert buffered.flush(20)
os.kill({redis.pid}, signal.SIGSTOP)
for number in range(4):
    buffered.broadcast("lobby", number)
buffer = buffered._use()._buffer
gevent.sleep(0.1)  # until it waits for the answer
child = gevent.fork()
os.kill({redis.pid}, signal.SIGCONT)
with gevent.Timeout(20):
    if not child:
        while len(buffer) and not buffer._thread.dead:
            gevent.sleep(0.01)
        pubsub.broadcast("lobby", "from the child")
        os._exit(0)
    while not buffered.flush(20) or "from the child" not in page.mail:
        gevent.sleep(0.01)
pubsub.broadcast("lobby", "end")
while "end" not in page.mail:
    page.wait_for(len(page.mail) + 1)
assert [one for one in page.mail if isinstance(one, int)] == list(range(4)), page.mail
print("done")
""",
    )


@pytest.mark.parametrize("mode", ["patched", "plain"])
def test_a_child_does_not_wait_for_what_its_parent_never_began(redis: RedisServer, mode: str) -> None:
    said = forking(
        redis,
        mode,
        """
import gc
gc.disable()
quiet = PubSub(sys.argv[-1], prefix="quiet:", timeout=60)
child = gevent.fork()
if not child:
    own = Page()
    client = open_client(own)
    client.ping()
    with gevent.Timeout(20):
        assert own.mailbox.address
    sys.exit()  # in good order, and with nothing of the parent's
assert gevent.os.waitpid(child, 0)[1] == 0
print("done")
""",
    )
    assert "PubSub" not in said
