"""PubSub over a Redis that is at odds with it: what others do there, what is in its address, and who takes over."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from redis_servers import RedisServer
from relay import Relay
from serving import ROOT, free_port
from support import DEADLINE, until
from test_pubsub_redis import (
    SUBSCRIBED,
    Told,
    drop_connections,
    listener,
    page_on,
    published,
    publisher,
    replicated,
    workers,
)

from websock_gevent import addresses
from websock_gevent.pubsub import AccessDenied, MemoryFull, PubSub, PubSubError, ReadOnly, Unavailable

Make = Callable[..., PubSub]


@pytest.mark.parametrize(
    "options",
    [
        "decode_responses=False&encoding=latin-1&encoding_errors=ignore",
        "protocol=3",
        "health_check_interval=1",
        "socket_timeout=0.000001&retry_on_timeout=True&retry_on_error=x",
        "max_connections=1&client_name=chat",
    ],
)
def test_options_of_an_address_do_not_change_how_it_is_read(
    redis: RedisServer, make: Make, options: str, caplog: Any
) -> None:
    pubsub = make(f"{redis.url}?{options}", watchdog=30)
    with page_on(pubsub, "lobby") as page:
        pubsub.broadcast("lobby", "ü\n")
        page.wait_for(1)
        gevent.sleep(1.1 if "health" in options else 0)  # what has to pass is time itself
        pubsub.subscribe("später", page.mailbox)
        pubsub.track("später", "ann", 1, page.mailbox)
        assert pubsub.list("später") == {"ann": [1]}
        assert page.rest(pubsub, "später") == ["ü\n", ("join", "später", "ann", 1)]
    assert not [record for record in caplog.records if "PubSub" in record.getMessage()]


def test_a_master_that_becomes_a_replica_is_left(redis: RedisServer, make: Make, tmp_path: Path, caplog: Any) -> None:
    """All connections stay open, and lead to a server that is read-only now; new ones lead to the new master."""
    with replicated(redis, tmp_path / "replica") as (replica, relay):
        pubsub, other = (make(f"redis://127.0.0.1:{relay.port}") for _ in range(2))
        with page_on(pubsub, "lobby") as page:
            other.broadcast("lobby", 1)
            page.wait_for(1)
            until(lambda: replica.client().xlen("websock:topic:lobby") == 1)
            replica.client().replicaof("NO", "ONE")
            relay.target = replica.port
            redis.client().replicaof("127.0.0.1", free_port())  # nobody is there: it hears nothing any more
            assert other.broadcast("lobby", 2)
            until(lambda: "another server" in caplog.text)
            assert page.rest(other, "lobby") == [1, 2]
            until(lambda: replica.client().zscore("websock:processes", addresses.process()))


def test_what_others_put_into_a_stream_is_a_gap(redis: RedisServer, make: Make, caplog: Any) -> None:
    """Also for who reads it from there: in a replay, and behind a loss of the connection."""
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby") as page, page_on(pubsub, "other") as other:
        first = pubsub.broadcast("lobby", 1)
        page.wait_for(1)
        for rubbish in ({"foo": "bar"}, {"b": "x", "k": "nonsense", "s": "", "n": "", "d": "1"}):
            redis.client().xadd("websock:topic:lobby", rubbish)
        pubsub.broadcast("lobby", 2)
        assert page.wait_for(4) == [1, ("gap", "lobby"), ("gap", "lobby"), 2]
        drop_connections(redis)
        published(pubsub, "other", "heard")
        assert other.wait_for(1) == ["heard"]
        until(lambda: listener(pubsub).connected)
        pubsub.subscribe("lobby", other.mailbox, since=first)
        assert other.wait_for(4)[1:] == [("gap", "lobby"), ("gap", "lobby"), 2]
        redis.client().delete("websock:topic:new")
        redis.client().xadd("websock:topic:new", {"foo": "bar"})
        pubsub.subscribe("new", other.mailbox, since="nonsense")
        pubsub.broadcast("new", 3)
        assert other.wait_for(7)[4:] == [("gap", "new"), ("gap", "new"), 3]
    assert "Traceback" not in caplog.text


def test_what_others_put_into_an_inbox_is_one_line(redis: RedisServer, make: Make, caplog: Any) -> None:
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby") as page:
        inbox = f"websock:inbox:{addresses.process()}"
        for text in ("no JSON", "[", "7", '["send"]', '["down",7,null]', "[" * 100_000):
            redis.client().xadd(inbox, {"b": "0-0", "k": "message", "s": "", "n": "", "d": text})
        redis.client().xadd(inbox, {"foo": "bar"})
        publisher(redis.url, f"pubsub.send({page.mailbox.address!r}, 'you')")
        assert page.wait_for(1) == ["you"]
    assert "inbox of this process is not ours" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_flood_does_not_keep_a_process_from_anything_else(redis: RedisServer, make: Make) -> None:
    """Signs of life are given, and errands done, though more is waiting than can be read for a while."""
    pubsub = make(redis.url)
    client = redis.client()
    with page_on(pubsub, "lobby") as page:
        flood = client.pipeline(transaction=False)
        for _ in range(200_000):
            flood.publish("websock:topic:lobby", "0-0 0-0 message \nnull")
        flood.execute()
        pubsub.broadcast("lobby", "behind it")
        sign = client.zscore("websock:processes", addresses.process())
        done = threading.Event()
        listener(pubsub).errand(done.set)
        until(lambda: client.zscore("websock:processes", addresses.process()) > sign and done.is_set())
        assert page.mail == [], "or it was no flood"
        assert page.wait_for(1) == ["behind it"]


def test_the_last_of_a_flood_is_read_though_nothing_comes_behind_it(redis: RedisServer, make: Make) -> None:
    pubsub = make(redis.url, watchdog=20 * DEADLINE, lifetime=20 * DEADLINE)
    with page_on(pubsub, "lobby") as page:
        for number in range(10):
            flood = redis.client().pipeline(transaction=False)
            for _ in range(3000):
                flood.publish("websock:topic:lobby", "0-0 0-0 message \nnull")
            flood.publish("websock:topic:lobby", f"0-0 1-{number + 1} message \n{number}")
            flood.execute()
            assert page.wait_for(number + 1)[number] == number


def test_messages_need_not_wait_for_all_errands(redis: RedisServer, make: Make) -> None:
    """Many connections have ended at once, and the server is far away."""
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby") as page:
        for _ in range(1000):
            listener(pubsub).errand(lambda: threading.Event().wait(0.02))
        pubsub.broadcast("lobby", "between")
        assert page.wait_for(1) == ["between"]
        assert listener(pubsub)._errands
        listener(pubsub)._errands._waiting.clear()


def test_an_answer_that_was_lost_is_asked_for_again(redis: RedisServer, make: Make, caplog: Any) -> None:
    """The end of a monitored connection was told while nothing came here, and is not kept any more."""
    with workers(redis, 1) as server, Relay(redis.port) as relay:
        pubsub = make(f"redis://127.0.0.1:{relay.port}", lifetime=60, keep=3)
        told = Told(server)
        address = told.do("address")
        with page_on(pubsub, "lobby") as page:
            pubsub.monitor(address, page.mailbox)
            relay.cut()
            told.close()
            inbox = f"websock:inbox:{addresses.process()}"
            until(lambda: redis.client().xlen(inbox))
            redis.client().delete(inbox)
            redis.client().xadd(inbox, {"b": "1-1", "k": "message", "s": "", "n": "", "d": '["send","x","y",1]'})
            until(lambda: not listener(pubsub).connected)
            relay.heal()
            assert page.wait_for(1) == [("down", address, ("error", "no such connection"))]
    assert "may be lost" in caplog.text


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("NOPERM this user has no permissions to run the 'xadd' command", AccessDenied),
        ("ERR ACL failure in script: User chat has no permissions to run the 'xadd' command", AccessDenied),
        ("ERR The user executing the script can't run this command or subcommand", AccessDenied),
        ("ERR Error running script (call to f_1): @user_script:4: -OOM used memory > 'maxmemory'.", MemoryFull),
        ("OOM command not allowed when used memory > 'maxmemory'.", MemoryFull),
        ("ERR Error running script (call to f_1): @user_script:4: -READONLY You can't write against it.", ReadOnly),
        ("READONLY You can't write against a read only replica.", ReadOnly),
        ("ERR something else about READONLY, NOPERM and the ROOM", PubSubError),
    ],
)
def test_what_servers_of_all_versions_say(redis: RedisServer, make: Make, words: str, error: type[PubSubError]) -> None:
    """A script has the server at hand say what others would."""
    backend: Any = make(redis.url)._use()
    with pytest.raises(PubSubError) as refused:
        backend._client.script("return redis.error_reply(ARGV[1])", [], [words])
    assert type(refused.value) is error


def test_a_topic_that_cannot_be_read_is_refused_by_its_own_cause(redis: RedisServer, make: Make) -> None:
    """Whatever stands in its name; and the others go on."""
    pubsub, other = make(redis.url), make(redis.url)
    topic = "ROOM: READONLY, NOPERM"
    with page_on(pubsub, "lobby") as page:
        redis.client().set(f"websock:topic:{topic}", "something else")
        with pytest.raises(PubSubError, match="WRONGTYPE") as refused:
            pubsub.subscribe(topic, page.mailbox)
        assert type(refused.value) is PubSubError
        with pytest.raises(PubSubError, match="WRONGTYPE"):
            pubsub.broadcast(topic, 1)
        until(lambda: listener(pubsub).connected)
        assert page.rest(other, "lobby") == []


def test_who_came_and_went_unnoticed_leaves_nothing(redis: RedisServer, make: Make) -> None:
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby") as page:
        go = threading.Event()
        listener(pubsub).errand(lambda: go.wait(DEADLINE))
        waiting = gevent.spawn(pubsub.subscribe, "second", page.mailbox)
        until(lambda: listener(pubsub)._wishes)
        pubsub.unsubscribe("second", page.mailbox)
        go.set()
        waiting.get(timeout=DEADLINE)
        assert page.rest(pubsub, "lobby") == []
        assert "websock:topic:second" not in redis.client().pubsub_channels()


def test_who_leaves_while_the_server_is_away_has_left(redis: RedisServer, make: Make) -> None:
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby") as page:
        pubsub.track("lobby", "ann", 1, page.mailbox)
        redis.freeze()
        with pytest.raises(Unavailable):
            pubsub.untrack("lobby", "ann", page.mailbox)
        redis.thaw()
        until(lambda: listener(pubsub).connected and not listener(pubsub)._errands)
        assert pubsub.list("lobby") == {}


def test_who_unsubscribes_while_somebody_subscribes_ends_the_wait(redis: RedisServer, make: Make) -> None:
    pubsub = make(redis.url, timeout=2 * DEADLINE, watchdog=2 * DEADLINE, lifetime=20 * DEADLINE)
    with page_on(pubsub, "lobby") as page:
        redis.freeze()
        waiting = gevent.spawn(pubsub.subscribe, "second", page.mailbox)
        until(lambda: pubsub._registry.get("second"))
        pubsub.unsubscribe("second", page.mailbox)
        waiting.get(timeout=DEADLINE)
        redis.thaw()
        pubsub.broadcast("second", "nobody listens")
        assert page.rest(pubsub, "lobby") == []


#: What JSON, Lua and Redis each write in their own way.
STRANGE = '{} "a" \\\\ \x00 ü \n \N{PARTY POPPER} %s . 1'


def test_a_host_that_was_cut_off_says_again_who_is_there(redis: RedisServer, make: Make) -> None:
    """For longer than ``lifetime``: to the others it was dead."""
    witness = make(redis.url)
    with Relay(redis.port) as relay, workers(SimpleNamespace(url=f"redis://127.0.0.1:{relay.port}"), 1) as server:
        with page_on(witness, STRANGE) as page:
            told = Told(server)
            told.do("track", STRANGE, f"ann {STRANGE}", [STRANGE])
            assert witness.list(STRANGE) == {f"ann {STRANGE}": [[STRANGE]]}
            relay.cut()
            until(lambda: witness.list(STRANGE) == {})
            page.wait_for(2)
            relay.heal()
            until(lambda: witness.list(STRANGE) == {f"ann {STRANGE}": [[STRANGE]]})
            told.close()
            assert [(one[0], one[2:]) for one in page.wait_for(4)] == [
                (kind, (f"ann {STRANGE}", [STRANGE])) for kind in ("join", "leave", "join", "leave")
            ]


def test_a_server_that_forgot_has_killed_nobody(redis: RedisServer, make: Make) -> None:
    """Who is there again first gives the others time."""
    client = redis.client()
    with workers(redis, 1, lifetime=4) as server:
        pubsub, told = make(redis.url), Told(server)
        address = told.do("address")
        process = addresses.process_of(address)
        with page_on(pubsub, "lobby") as page:
            pubsub.monitor(address, page.mailbox)
            sign = client.zscore("websock:processes", process)
            until(lambda: client.zscore("websock:processes", process) > sign)  # the next is a good while away
            client.flushall()
            until(lambda: client.zscore("websock:processes", process))
            told.close()
            assert page.wait_for(1) == [("down", address, "remote")]


def test_who_wants_to_know_no_more_does_not_speak_for_others(redis: RedisServer, make: Make) -> None:
    with workers(redis, 1) as server:
        pubsub, told = make(redis.url), Told(server)
        address = told.do("address")
        with page_on(pubsub, "lobby") as page, page_on(pubsub, "lobby") as other:
            with page_on(pubsub, "lobby") as third:
                for one in (page, other, third):
                    pubsub.monitor(address, one.mailbox)
                pubsub.demonitor(address, page.mailbox)
            third.wait()
            server.kill()
            assert other.wait_for(1) == [("down", address, ("error", "process lost"))]
            assert page.rest(pubsub, "lobby") == []
            told.close()


def test_a_living_process_leaves_nothing_of_who_has_left_and_is_not_buried(redis: RedisServer, make: Make) -> None:
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby") as page:
        pubsub.track("lobby", "ann", 1, page.mailbox)
        pubsub.track("lobby", "bob", 1, page.mailbox)
        pubsub.untrack("lobby", "bob", page.mailbox)
        owned = f"websock:owned:{addresses.process()}"
        assert redis.client().scard(owned) == 1
        backend: Any = pubsub._use()
        assert backend._bury(addresses.process()) == 0, "as by somebody who has heard of its death before it came back"
        assert pubsub.list("lobby") == {"ann": [1]}
        pubsub.untrack("lobby", "ann", page.mailbox)
        assert not redis.client().exists(owned)


def test_nothing_stays_in_the_server_for_ever(redis: RedisServer, make: Make) -> None:
    with workers(redis, 1) as server:
        pubsub = make(redis.url)
        told = Told(server)
        address = told.do("address")
        with page_on(pubsub, "lobby") as page:
            pubsub.track("lobby", "ann", 1, page.mailbox)
            pubsub.monitor(address, page.mailbox)
            pubsub.send(address, "you")
            told.do("track", "lobby", "bob", 2)
            told.do("send", page.mailbox.address, "you too")
            page.wait_for(2)
            told.close()
            page.wait_for(4)
        server.kill()
        until(lambda: redis.client().zcard("websock:processes") == 1)
        pubsub.close()
    client = redis.client()
    left = client.keys()
    assert left == ["websock:topic:lobby"]
    assert 0 < client.pttl(left[0]) <= 3_600_000
    assert client.xlen(left[0]) == 4


def threads(name: str) -> int:
    return sum(thread.name == name for thread in threading.enumerate())


def test_a_buffer_ends_with_its_pubsub(redis: RedisServer, make: Make, caplog: Any) -> None:
    name = "websock_gevent.pubsub.buffer"
    before = threads(name)
    one, two = make(redis.url, buffer=10), make(redis.url, buffer=10)
    one.broadcast("lobby", 1)
    assert one.flush(DEADLINE)
    redis.freeze()
    two.broadcast("lobby", "lost")
    one.close()
    two.close()
    assert "1 messages in the buffer are lost" in caplog.text
    redis.thaw()
    until(lambda: threads(name) == before)


def test_what_is_lost_at_the_end_is_said_once() -> None:
    """Whether the program closes its PubSub or not."""
    for closing in ("p.close()", "pass"):
        code = "from websock_gevent.pubsub import PubSub; p = PubSub('redis://127.0.0.1:1', buffer=9)\n"
        code += f"p.broadcast('lobby', 1); {closing}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
        assert done.returncode == 0 and "Traceback" not in done.stderr
        assert done.stderr.count("1 messages in the buffer are lost") == 1


def test_listening_outlasts_the_thread_that_began_it(redis: RedisServer) -> None:
    """In a patched process, a greenlet ends with its thread: the first subscription comes from one that does."""
    code = (
        """
import gevent.monkey; gevent.monkey.patch_all()
import gevent, sys
from gevent import monkey
"""
        + SUBSCRIBED.replace('pubsub.subscribe("lobby", page.mailbox)', "")
        + """
def begin():
    pubsub.subscribe("lobby", page.mailbox)
    buffered.broadcast("lobby", "first")
    gevent.get_hub().destroy()
buffered = PubSub(sys.argv[-1], buffer=10)
gevent.get_hub().threadpool.apply(begin)
buffered.broadcast("lobby", "second")
pubsub.broadcast("other", "third")
pubsub.subscribe("other", page.mailbox)
pubsub.broadcast("other", "fourth")
assert sorted(page.wait_for(3)) == ["first", "fourth", "second"], page.mail
assert buffered.flush(5)
buffered.broadcast("lobby", "fifth")
assert page.wait_for(4)[3] == "fifth"
client.close()
pubsub.close()
buffered.close()
print("done")
"""
    )
    done = subprocess.run([sys.executable, "-c", code, redis.url], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "done", done.stderr
    assert "Traceback" not in done.stderr


def test_greenlets_and_threads_wait_for_the_same(redis: RedisServer) -> None:
    """In a patched process, the greenlets of several threads at once: for the server, a subscription, the buffer."""
    code = (
        """
import gevent.monkey; gevent.monkey.patch_all()
import gevent, sys
"""
        + SUBSCRIBED.replace('pubsub.subscribe("lobby", page.mailbox)', "")
        + """
from websock_gevent.pubsub import Unavailable
pool = gevent.get_hub().threadpool
def everywhere(function, *arguments):
    jobs = [pool.spawn(function, *arguments) for _ in range(3)] + [gevent.spawn(function, *arguments)]
    return [job.get(timeout=20) for job in jobs]
def absent():
    try:
        away.subscribe("lobby", page.mailbox)
    except Unavailable:
        return True
away = PubSub("redis://127.0.0.1:1", timeout=0.5)
assert everywhere(absent) == [True] * 4
for number in range(20):
    everywhere(pubsub.subscribe, "topic %d" % number, page.mailbox)
buffered = PubSub(sys.argv[-1], buffer=10)
buffered.broadcast("topic 1", 1)
assert everywhere(buffered.flush) == [True] * 4
everywhere(buffered.broadcast, "topic 2", 2)
assert sorted(page.wait_for(5)) == [1, 2, 2, 2, 2]
client.close()
buffered.close()
pubsub.close()
print("done")
"""
    )
    done = subprocess.run([sys.executable, "-c", code, redis.url], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "done", done.stderr
    assert "Traceback" not in done.stderr
