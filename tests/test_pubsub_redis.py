"""PubSub over a real Redis: what happens when the server or the way to it fails, and between processes."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
from redis_servers import QUICK, RedisServer, redis_server
from relay import Relay
from serving import APPS, DEADLINE, ROOT, Program, Server, certificate, free_port, gunicorn
from support import open_client, until
from test_pubsub import Page
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as websocket_connect

from websock_gevent.pubsub import (
    OLDEST,
    AccessDenied,
    BufferFull,
    MemoryFull,
    PubSub,
    PubSubError,
    ReadOnly,
    Unavailable,
    Unsupported,
    client,
)
from websock_gevent.signals import PubsubGap, pubsub_gap


@contextmanager
def page_on(pubsub: PubSub, topic: str, **options: Any) -> Iterator[Page]:
    page = Page()
    opened = open_client(page, timeout=None, ping_interval=None)
    opened.ping()
    try:
        pubsub.subscribe(topic, page.mailbox, **options)
        yield page
    finally:
        opened.abort()


def published(pubsub: PubSub, topic: str, message: Any) -> None:
    """Publish as soon as that is possible again."""

    def try_it() -> bool:
        try:
            pubsub.broadcast(topic, message)
        except PubSubError:
            return False
        return True

    until(try_it)


Make = Callable[..., PubSub]


# What was missed.


def test_a_restart_that_keeps_the_data_is_replayed(redis: RedisServer, make: Make) -> None:
    redis.stop()
    redis.start("--appendonly", "yes")
    pubsub, other = make(redis.url), make(redis.url)
    with page_on(pubsub, "lobby") as page, page_on(pubsub, "quiet") as quiet:
        pubsub.broadcast("lobby", 1)
        page.wait_for(1)
        redis.stop()
        redis.start("--appendonly", "yes")
        for number in range(2, 10):
            published(other, "lobby", number)
        assert page.wait_for(9) == list(range(1, 10))
        published(other, "quiet", "not so quiet")
        assert quiet.wait_for(1) == ["not so quiet"]


def test_a_restart_that_forgets_is_a_gap(redis: RedisServer, make: Make) -> None:
    pubsub, other = make(redis.url), make(redis.url)
    with page_on(pubsub, "lobby") as page, page_on(pubsub, "quiet") as quiet:
        pubsub.broadcast("lobby", 1)
        page.wait_for(1)
        redis.kill()
        redis.start()
        published(other, "lobby", 2)
        assert page.wait_for(3) == [1, ("gap", "lobby"), 2]
        assert quiet.wait_for(1) == [("gap", "quiet")]


def test_a_gap_of_many_subscribers_is_told_once(redis: RedisServer, make: Make) -> None:
    pubsub, other, told = make(redis.url), make(redis.url), []

    def receive(sender: str, event: PubsubGap) -> None:
        told.append((sender, event))
        raise RuntimeError("the receiver's own")

    pubsub_gap.connect(receive)
    with page_on(pubsub, "lobby") as page, page_on(pubsub, "lobby") as second, page_on(pubsub, "quiet") as quiet:
        pubsub.broadcast("lobby", 1)
        page.wait_for(1)
        second.wait_for(1)
        redis.kill()
        redis.start()
        published(other, "lobby", 2)
        assert page.wait_for(3) == second.wait_for(3) == [1, ("gap", "lobby"), 2]
        assert quiet.wait_for(1) == [("gap", "quiet")]
        until(lambda: len(told) == 2)
    pubsub_gap.disconnect(receive)
    assert sorted(told) == [("lobby", PubsubGap("lobby", 2)), ("quiet", PubsubGap("quiet", 1))]


def test_an_old_snapshot_is_a_gap(redis: RedisServer, make: Make) -> None:
    """The server has come back with data from before what was delivered."""
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby") as page:
        pubsub.broadcast("lobby", 1)
        redis.client().save()
        pubsub.broadcast("lobby", 2)
        page.wait_for(2)
        redis.kill()
        redis.start()
        published(pubsub, "lobby", 3)
        assert page.wait_for(4) == [1, 2, ("gap", "lobby"), 3]


@contextmanager
def replicated(redis: RedisServer, folder: Path) -> Iterator[tuple[RedisServer, Relay]]:
    """A replica of a server, and an address that leads to the one, and after a failover to the other."""
    folder.mkdir()
    with redis_server(folder, "--replicaof", "127.0.0.1", str(redis.port)) as replica, Relay(redis.port) as relay:
        until(lambda: replica.client().info("replication")["master_link_status"] == "up")
        yield replica, relay


def fail_over(redis: RedisServer, replica: RedisServer, relay: Relay) -> None:
    redis.kill()
    replica.client().replicaof("NO", "ONE")
    relay.target = replica.port


def test_a_failover_is_replayed(redis: RedisServer, make: Make, tmp_path: Path) -> None:
    with replicated(redis, tmp_path / "replica") as (replica, relay):
        pubsub, other = (make(f"redis://127.0.0.1:{relay.port}") for _ in range(2))
        with page_on(pubsub, "lobby") as page, page_on(pubsub, "quiet") as quiet:
            for number in range(5):
                other.broadcast("lobby", number)
            page.wait_for(5)
            until(lambda: replica.client().xlen("websock:topic:lobby") == 5)
            fail_over(redis, replica, relay)
            for number in range(5, 10):
                published(other, "lobby", number)
            assert page.wait_for(10) == list(range(10))
            published(other, "quiet", "still")
            assert quiet.wait_for(1) == ["still"]


def test_a_failover_to_a_replica_that_is_behind_is_a_gap(redis: RedisServer, make: Make, tmp_path: Path) -> None:
    """Of what was delivered, too, the new master may know nothing."""
    with replicated(redis, tmp_path / "replica") as (replica, relay):
        pubsub, other = (make(f"redis://127.0.0.1:{relay.port}") for _ in range(2))
        with page_on(pubsub, "lobby", ids=True) as page:
            other.broadcast("lobby", 1)
            page.wait_for(1)
            until(lambda: replica.client().xlen("websock:topic:lobby") == 1)
            replica.client().replicaof("NO", "ONE")
            last = other.broadcast("lobby", 2)
            page.wait_for(2)
            fail_over(redis, replica, relay)
            published(other, "lobby", 3)
            assert [one[-1] for one in page.wait_for(4)] == [1, 2, "lobby", 3]
            assert page.mail[2] == ("gap", "lobby")
            late = Page()
            with_since = open_client(late)
            with_since.ping()
            other.subscribe("lobby", late.mailbox, since=last)
            assert late.wait_for(2) == [("gap", "lobby"), 3], "a client that has seen what is lost now is told as well"
            with_since.abort()


def test_a_frozen_server_is_noticed_and_caught_up(redis: RedisServer, make: Make, caplog: Any) -> None:
    pubsub, other = make(redis.url), make(redis.url)
    with page_on(pubsub, "lobby") as page:
        pubsub.broadcast("lobby", 1)
        page.wait_for(1)
        redis.freeze()
        until(lambda: not listener(pubsub).connected)
        with pytest.raises(Unavailable, match="127.0.0.1"):
            other.broadcast("lobby", "lost in time, perhaps")
        redis.thaw()
        published(other, "lobby", 2)
        until(lambda: 2 in page.mail and listener(pubsub).connected)
        assert [one for one in page.mail if one != "lost in time, perhaps"] == [1, 2]
    lines = [record.getMessage() for record in caplog.records if "PubSub" in record.getMessage()]
    assert [line.split(".")[0] for line in lines] == ["PubSub: lost", "PubSub: Redis at redis://127"]
    assert all(record.exc_info is None for record in caplog.records)


def test_a_cut_link_is_noticed_and_caught_up(redis: RedisServer, make: Make, caplog: Any) -> None:
    with Relay(redis.port) as relay:
        pubsub, other = make(f"redis://127.0.0.1:{relay.port}", lifetime=60), make(redis.url)
        with page_on(pubsub, "lobby") as page, page_on(pubsub, "quiet") as quiet:
            other.broadcast("lobby", 0)
            page.wait_for(1)
            relay.cut()
            for number in range(1, 50):
                other.broadcast("lobby", number)
            until(lambda: not listener(pubsub).connected)
            relay.heal()
            assert page.wait_for(50) == list(range(50))
            assert quiet.rest(other, "quiet") == [], "nothing was published there, and the server knows"
            assert "49 entries replayed, 0 gaps" in caplog.text


def test_a_cut_longer_than_what_is_kept_is_a_gap(redis: RedisServer, make: Make) -> None:
    with Relay(redis.port) as relay:
        pubsub, other = make(f"redis://127.0.0.1:{relay.port}", keep=5), make(redis.url, keep=5)
        with page_on(pubsub, "lobby") as page:
            other.broadcast("lobby", 0)
            page.wait_for(1)
            relay.cut()
            for number in range(1, 9):
                other.broadcast("lobby", number)
            until(lambda: not listener(pubsub).connected)
            relay.heal()
            assert page.wait_for(7) == [0, ("gap", "lobby"), 4, 5, 6, 7, 8]


def test_what_is_dropped_with_age_during_a_cut_is_a_gap(redis: RedisServer, make: Make) -> None:
    with Relay(redis.port) as relay:
        pubsub, other = make(f"redis://127.0.0.1:{relay.port}", age=1), make(redis.url, age=1)
        with page_on(pubsub, "lobby") as page:
            other.broadcast("lobby", 1)
            page.wait_for(1)
            relay.cut()
            other.broadcast("lobby", 2)
            until(lambda: not redis.client().exists("websock:topic:lobby"))
            relay.heal()
            assert page.wait_for(2) == [1, ("gap", "lobby")]


def test_a_slow_process_that_is_dropped_catches_up(redis: RedisServer, make: Make) -> None:
    redis.client().config_set("client-output-buffer-limit", "pubsub 100kb 0 0")
    with Relay(redis.port) as relay:
        pubsub, other = make(f"redis://127.0.0.1:{relay.port}"), make(redis.url)
        with page_on(pubsub, "lobby") as page:
            relay.cut()
            count = 0
            while "output buffer limits" not in redis.log():
                other.broadcast("lobby", [count, "x" * 100_000])
                count += 1
                assert count < 500
            relay.heal()
            mail = page.wait_for(count)
            assert [number for number, _ in mail] == list(range(count))


def test_a_quiet_topic_whose_stream_was_dropped_with_age_is_no_gap(redis: RedisServer, make: Make) -> None:
    with Relay(redis.port) as relay:
        pubsub, other = make(f"redis://127.0.0.1:{relay.port}", age=3), make(redis.url, age=3)
        with page_on(pubsub, "lobby") as page:
            other.broadcast("lobby", 1)
            page.wait_for(1)
            until(lambda: not redis.client().exists("websock:topic:lobby"))
            relay.cut()
            until(lambda: not listener(pubsub).connected)
            relay.heal()
            until(lambda: listener(pubsub).connected)
            assert page.rest(other, "lobby") == [1]


def test_a_deleted_stream_is_a_gap(redis: RedisServer, make: Make) -> None:
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby") as page:
        pubsub.broadcast("lobby", 1)
        page.wait_for(1)
        redis.client().delete("websock:topic:lobby")
        drop_connections(redis)
        assert page.wait_for(2) == [1, ("gap", "lobby")]


def test_a_stream_that_is_deleted_while_we_listen_is_no_gap(redis: RedisServer, make: Make) -> None:
    """Everything came on the channel before that, and comes afterwards."""
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby") as page:
        pubsub.broadcast("lobby", 1)
        redis.client().flushall()
        assert page.rest(pubsub, "lobby") == [1]


def test_a_hole_in_the_channel_is_filled_from_the_stream(redis: RedisServer, make: Make) -> None:
    """Somebody put a message into the stream, and its notice on the channel was lost."""
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby", ids=True) as page:
        first = pubsub.broadcast("lobby", 1)
        fields = {"b": first, "k": "message", "s": "", "n": "", "d": "2"}
        hidden = redis.client().xadd("websock:topic:lobby", fields)
        third = pubsub.broadcast("lobby", 3)
        ids = [first, hidden, third]
        assert page.wait_for(3) == [("message", "lobby", id_, n) for id_, n in zip(ids, (1, 2, 3), strict=True)]


def test_what_is_not_ours_is_one_line_and_harms_nobody(redis: RedisServer, make: Make, caplog: Any) -> None:
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby") as page:
        for rubbish in (
            "",
            "x",
            "1-1 2-2 message \nnull",
            "0-0 x message \n1",
            "0-0 9-9 gap \n1",
            "\n" * 5,
            b"\xff\xfe",
        ):
            redis.client().publish("websock:topic:lobby", rubbish)
        assert page.rest(pubsub, "lobby") == []
        tail = redis.client().xrevrange("websock:topic:lobby", count=1)[0][0]
        redis.client().xadd("websock:topic:lobby", {"b": tail, "k": "message", "s": "", "n": "", "d": "no JSON"})
        with page_on(pubsub, "lobby") as other:
            pubsub.broadcast("lobby", "after")
            for one in (page, other):
                until(lambda one=one: "after" in one.mail)
                assert one.mail[-2:] == [("gap", "lobby"), "after"]
    assert caplog.text.count("is not ours; it is told as a gap") == 1
    assert "Traceback" not in caplog.text


# Publishing while the server is away.


def test_a_repeated_attempt_is_known(redis: RedisServer, make: Make) -> None:
    """The connection broke after the server had published: the second attempt must not publish again."""
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby") as page:
        backend: Any = pubsub._use()
        job = "websock:topic:lobby", "", "the name", '"once"'
        first = backend._publish(job)
        pubsub.broadcast("lobby", "between")
        assert backend._publish(job, True) == first
        assert page.rest(pubsub, "lobby") == ["once", "between"]


def test_a_connection_that_breaks_while_it_publishes(redis: RedisServer, make: Make) -> None:
    pubsub, other = make(redis.url, timeout=DEADLINE), make(redis.url)
    with page_on(other, "lobby") as page:
        redis.client().client_pause(3000, all=False)  # holds back what writes
        waiting = gevent.spawn(pubsub.broadcast, "lobby", 1)
        until(lambda: any("evalsha" in one["cmd"] and one["flags"] == "b" for one in redis.client().client_list()))
        drop_connections(redis)
        redis.client().execute_command("CLIENT", "UNPAUSE")
        assert waiting.get(timeout=DEADLINE)
        until(lambda: listener(other).connected)
        assert page.rest(other, "lobby") == [1]


def test_who_got_no_answer_does_not_ask_twice(redis: RedisServer, make: Make) -> None:
    """It would wait for longer than it may; where a connection breaks, that is known at once."""
    pubsub = make(redis.url)
    pubsub.broadcast("lobby", 1)
    client = redis.client()
    count = client.info("stats")["total_connections_received"]
    redis.freeze()
    with pytest.raises(Unavailable) as refused:
        pubsub.broadcast("lobby", 2)
    assert not refused.value.broken
    redis.thaw()
    until(lambda: client.xlen("websock:topic:lobby") == 2)
    assert client.info("stats")["total_connections_received"] == count


def test_idle_connections_that_the_server_closed_harm_nobody(redis: RedisServer, make: Make) -> None:
    pubsub = make(redis.url)
    pubsub.broadcast("lobby", 1)
    drop_connections(redis)
    assert pubsub.broadcast("lobby", 2)


def test_the_buffer_keeps_the_order_and_loses_nothing(redis: RedisServer, make: Make, caplog: Any) -> None:
    pubsub, publisher = make(redis.url), make(redis.url, buffer=100)
    with page_on(pubsub, "lobby") as page:
        assert publisher.broadcast("lobby", 0) is None
        page.wait_for(1)
        redis.freeze()
        for number in range(1, 50):
            publisher.broadcast("lobby", number)
        until(lambda: "wait in the buffer" in caplog.text)  # an attempt timed out, and reaches the server all the same
        redis.thaw()
        assert publisher.flush(DEADLINE)
        assert page.wait_for(50) == list(range(50))
        assert page.rest(pubsub, "lobby") == list(range(50))


def test_the_buffer_is_bounded(redis: RedisServer, make: Make) -> None:
    publisher = make(redis.url, buffer=3)
    redis.stop()
    for number in range(3):
        publisher.broadcast("lobby", number)
    with pytest.raises(BufferFull, match="3 messages"):
        publisher.broadcast("lobby", 3)
    assert not publisher.flush(0.1)
    redis.start()
    assert publisher.flush(DEADLINE)
    assert redis.client().xlen("websock:topic:lobby") == 3


def test_a_publisher_that_waits_does_not_hold_up_the_hub(redis: RedisServer, make: Make) -> None:
    """Though nothing is monkey-patched here: a connection answers while another one waits for a frozen server."""
    pubsub = make(redis.url, timeout=1.0)
    pubsub.broadcast("lobby", 1)
    page = Page()
    opened = open_client(page)
    redis.freeze()
    waiting = gevent.spawn(pytest.raises, Unavailable, pubsub.broadcast, "lobby", 2)
    count = 0
    while not waiting.ready():
        opened.ping()
        count += 1
    redis.thaw()
    waiting.get()
    opened.close()
    assert count > 10


def test_a_hub_is_told_that_it_cannot_wait(redis: RedisServer, make: Make) -> None:
    pubsub, buffered = make(redis.url), make(redis.url, buffer=10)
    outcome: list[Any] = []

    def in_hub() -> None:
        try:
            buffered.broadcast("lobby", 1)
            pubsub.broadcast("lobby", 2)
        except RuntimeError as error:
            outcome.append(error)

    gevent.get_hub().loop.run_callback(in_hub)
    until(lambda: outcome)
    assert "block the hub" in str(outcome[0])


# Errors name their cause.


def refusals(pubsub: PubSub, error: type[PubSubError], text: str) -> None:
    """Nothing works, and everything says why."""
    page = Page()
    opened = open_client(page)
    opened.ping()
    for refused in (
        lambda: pubsub.broadcast("lobby", 1),
        lambda: pubsub.subscribe("lobby", page.mailbox),
        lambda: pubsub.subscribe("lobby", page.mailbox, since="1-1"),
        lambda: pubsub.track("lobby", "ann", 1, page.mailbox),
        lambda: pubsub.list("lobby"),
        lambda: pubsub.send("0123456789abcdef.1", 1),
        lambda: pubsub.monitor("0123456789abcdef.1", page.mailbox),
    ):
        with pytest.raises(error, match=text):
            refused()
    opened.ping()
    assert len(pubsub._registry) == len(pubsub._monitors) == 0
    opened.close()


def test_no_server(redis: RedisServer, make: Make) -> None:
    redis.stop()
    refusals(make(redis.url), Unavailable, rf"redis://127.0.0.1:{redis.port} cannot be reached.*refused")


def test_no_such_host(make: Make) -> None:
    refusals(make("redis://no-such-host.invalid:6379"), Unavailable, "no-such-host.invalid")


def test_a_wrong_password(redis: RedisServer, make: Make) -> None:
    redis.client().config_set("requirepass", "right")
    wrong = make(f"redis://:wrong@127.0.0.1:{redis.port}")
    refusals(wrong, AccessDenied, "(?i)denies access.*(password|WRONGPASS)")
    with pytest.raises(AccessDenied) as denied:
        wrong.broadcast("lobby", 1)
    assert ":wrong" not in str(denied.value), "passwords have no place in logs"
    refusals(make(redis.url), AccessDenied, "(?i)denies access.*auth")
    assert make(f"redis://:right@127.0.0.1:{redis.port}").broadcast("lobby", 1)


def test_users_with_few_rights(redis: RedisServer, make: Make, caplog: Any) -> None:
    """The rights that the documentation names are enough; with fewer, the error says what is missing."""
    rights = Path(ROOT / "docs/pubsub.rst").read_text().split("ACL SETUSER chat ")[1].split("\n\n")[0].split()
    admin = redis.client()
    admin.execute_command("ACL", "SETUSER", "chat", *(right.replace(">secret", ">pw") for right in rights))
    url = f"redis://chat:pw@127.0.0.1:{redis.port}"
    pubsub = make(url)
    with page_on(pubsub, "lobby") as page:
        pubsub.track("lobby", "ann", 1, page.mailbox)
        assert pubsub.list("lobby") == {"ann": [1]}
        assert not pubsub.send("0123456789abcdef.1", 1)
        assert page.rest(pubsub, "lobby") == [("join", "lobby", "ann", 1)]
        pubsub.close()
    assert not admin.keys("websock:present:*") + admin.keys("websock:processes")
    assert f":{redis.port}" not in caplog.text
    admin.execute_command("ACL", "SETUSER", "chat", "resetchannels")
    with pytest.raises(AccessDenied, match="(?i)channel|permission"):
        make(url).broadcast("lobby", 1)
    other = make(url, prefix="other:")
    with pytest.raises(AccessDenied, match="(?i)key|permission"):
        other.list("lobby")


def test_full_memory(redis: RedisServer, make: Make, caplog: Any) -> None:
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby") as page:
        pubsub.broadcast("lobby", 1)
        redis.client().config_set("maxmemory", "1mb")
        with pytest.raises(MemoryFull, match="no memory left.*OOM|used memory"):
            pubsub.broadcast("lobby", 2)
        with pytest.raises(MemoryFull):
            pubsub.track("lobby", "ann", 1, page.mailbox)
        until(lambda: "no sign of life can be given" in caplog.text)  # which is nobody's death
        redis.client().config_set("maxmemory", "0")
        until(lambda: not listener(pubsub)._errands)
        assert pubsub.list("lobby") == {}
        assert page.rest(pubsub, "lobby") == [1]


def test_a_read_only_replica(redis: RedisServer, make: Make, tmp_path: Path) -> None:
    (tmp_path / "replica").mkdir()
    with redis_server(tmp_path / "replica", "--replicaof", "127.0.0.1", str(redis.port)) as replica:
        until(lambda: replica.client().info("replication")["master_link_status"] == "up")
        pubsub, master = make(replica.url), make(redis.url)
        with pytest.raises(ReadOnly, match="read-only replica"):
            pubsub.broadcast("lobby", 1)
        with page_on(pubsub, "lobby") as page:  # to listen is possible
            with pytest.raises(ReadOnly, match="read-only replica"):
                pubsub.track("lobby", "ann", 1, page.mailbox)
            assert page.rest(master, "lobby") == []


def test_an_old_version(redis: RedisServer, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """No older server is at hand, so the oldest that will do is made a newer one."""
    monkeypatch.setattr(client, "OLDEST_SERVER", (99, 0))
    refusals(make(redis.url), Unsupported, r"is version \d+\.\d+.*needs")


def test_a_cluster(tmp_path: Path, make: Make) -> None:
    with redis_server(tmp_path, "--cluster-enabled", "yes") as server:
        refusals(make(server.url), Unsupported, "Redis Cluster")


def test_unix_sockets(tmp_path: Path, make: Make) -> None:
    with redis_server(tmp_path, "--unixsocket", str(tmp_path / "redis.sock")):
        pubsub = make(f"unix://{tmp_path}/redis.sock?db=3")
        with page_on(pubsub, "lobby") as page:
            pubsub.broadcast("lobby", 1)
            assert page.rest(pubsub, "lobby") == [1]


def test_tls(tmp_path: Path, make: Make) -> None:
    made = certificate(tmp_path)
    authority = tmp_path / "authority.pem"
    authority.write_text("".join(ssl.DER_cert_to_PEM_cert(der) for der in made.client.get_ca_certs(binary_form=True)))
    port = free_port()
    tls = ["--tls-port", str(port), "--tls-cert-file", str(made.path), "--tls-key-file", str(made.path)]
    with redis_server(tmp_path, *tls, "--tls-ca-cert-file", str(authority), "--tls-auth-clients", "no"):
        pubsub = make(f"rediss://127.0.0.1:{port}?ssl_ca_certs={authority}")
        with page_on(pubsub, "lobby") as page:
            for number in range(20):
                pubsub.broadcast("lobby", [number, "x" * 50_000])
            assert [number for number, _ in page.rest(pubsub, "lobby")] == list(range(20))
        with pytest.raises(Unavailable, match="(?i)certificate"):
            make(f"rediss://127.0.0.1:{port}").broadcast("lobby", 1)


#: Behind its imports, a program of its own with a page that is subscribed; its last argument is the server.
SUBSCRIBED = """
sys.path[:0] = ["tests", "tests/apps"]
from support import open_client
from test_pubsub import Page
from websock_gevent.pubsub import PubSub
pubsub = PubSub(sys.argv[-1])
page = Page()
client = open_client(page)
client.ping()
pubsub.subscribe("lobby", page.mailbox)
"""


def test_greenlets_and_threads_of_a_patched_process(redis: RedisServer) -> None:
    """Real threads there have hubs of their own, and sockets that nobody else may use."""
    code = (
        """
import gevent.monkey; gevent.monkey.patch_all()
import gevent, sys
"""
        + SUBSCRIBED
        + """
def publish(name):
    for number in range(100):
        pubsub.broadcast("lobby", [name, number])
pool = gevent.get_hub().threadpool
jobs = [pool.spawn(publish, name) for name in "abc"] + [gevent.spawn(publish, name) for name in "def"]
gevent.joinall(jobs, raise_error=True)
mail = page.wait_for(600)
for name in "abcdef":
    assert [number for one, number in mail if one == name] == list(range(100))
print("done")
"""
    )
    done = subprocess.run([sys.executable, "-c", code, redis.url], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "done", done.stderr
    assert "Traceback" not in done.stderr


def test_prefixes_keep_applications_apart(redis: RedisServer, make: Make) -> None:
    one, two = make(redis.url, prefix="one:"), make(redis.url, prefix="two:")
    with page_on(one, "lobby") as page:
        two.broadcast("lobby", "not here")
        one.broadcast("lobby", 1)
        assert page.rest(one, "lobby") == [1]
    one.close()
    two.close()
    keys = redis.client().keys()
    assert keys and all(key.startswith(("one:", "two:")) for key in keys)


def test_what_nobody_here_listens_to_costs_nothing(redis: RedisServer, make: Make) -> None:
    """Only topics with a subscriber in the process are subscribed to, and no longer than that."""
    pubsub, other = make(redis.url), make(redis.url)
    channels = redis.client().pubsub_channels
    with page_on(pubsub, "lobby") as page:
        for number in range(100):
            other.broadcast(f"elsewhere {number}", number)
        topics = [channel for channel in channels() if ":topic:" in channel]
        assert topics == ["websock:topic:lobby"]
        pubsub.unsubscribe("lobby", page.mailbox)
        until(lambda: not [channel for channel in channels() if ":topic:" in channel])
    assert len(pubsub._registry) == 0


def test_who_has_ended_leaves_no_subscription_behind(redis: RedisServer, make: Make) -> None:
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby") as page:
        pass
    assert page.wait()
    pubsub.subscribe("lobby", page.mailbox)
    pubsub.subscribe("lobby", page.mailbox, since=OLDEST)
    with page_on(pubsub, "other"):
        until(lambda: [name for name in redis.client().pubsub_channels() if "topic" in name] == ["websock:topic:other"])


def test_errors_of_a_long_absence_do_not_pile_up(redis: RedisServer, make: Make) -> None:
    redis.stop()
    pubsub = make(redis.url)
    page = Page()
    with open_client(page) as opened:
        opened.ping()
        depths = []
        for _ in range(20):
            with pytest.raises(Unavailable) as refused:
                pubsub.subscribe("lobby", page.mailbox)
            depths.append(len(refused.traceback))
    assert depths[-1] == depths[1]


def test_two_thousand_topics_at_once(redis: RedisServer, make: Make) -> None:
    """More than go into one command; and all are there again behind a loss of the connection."""
    pubsub = make(redis.url)
    names = [f"topic {number}" for number in range(2000)]
    with page_on(pubsub, "lobby") as page:
        gevent.joinall([gevent.spawn(pubsub.subscribe, name, page.mailbox) for name in names], raise_error=True)
        drop_connections(redis)
        for name in names:
            published(pubsub, name, name)
        assert sorted(page.wait_for(2000)) == sorted(names)


# Processes.


def publisher(url: str, code: str) -> str:
    """Run code in a process of its own that has nothing but a PubSub, and return what it writes."""
    setup = f"from websock_gevent.pubsub import PubSub; pubsub = PubSub({url!r}); "
    done = subprocess.run([sys.executable, "-W", "error", "-c", setup + code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_script_publishes(redis: RedisServer, make: Make) -> None:
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby") as page:
        code = "import sys, threading; pubsub.broadcast('lobby', 'hi'); "
        code += "from gevent._hub_local import get_hub_if_exists; print(get_hub_if_exists(), threading.active_count())"
        assert publisher(redis.url, code).split() == ["None", "1"]
        assert page.wait_for(1) == ["hi"]
        assert publisher(redis.url, f"print(pubsub.send({page.mailbox.address!r}, 'you'))").strip() == "True"
        assert page.wait_for(2) == ["hi", "you"]
        assert publisher(redis.url, "print(pubsub.send('0123456789abcdef.1', 'you'))").strip() == "False"


def test_several_pubsubs_of_a_process_deliver_once(redis: RedisServer, make: Make) -> None:
    pubsub, other = make(redis.url), make(redis.url)
    with page_on(pubsub, "lobby") as page, page_on(other, "lobby") as second:
        publisher(redis.url, f"print([pubsub.send({page.mailbox.address!r}, n) for n in range(20)])")
        publisher(redis.url, f"print([pubsub.send({second.mailbox.address!r}, n) for n in range(20)])")
        for one in (page, second):
            one.wait_for(20)
            assert one.rest(pubsub, "lobby") == list(range(20))


def test_a_script_with_a_buffer_sends_it_before_it_ends(redis: RedisServer, make: Make) -> None:
    pubsub = make(redis.url)
    with page_on(pubsub, "lobby") as page:
        code = f"p = PubSub({redis.url!r}, buffer=100); [p.broadcast('lobby', n) for n in range(100)]"
        publisher(redis.url, code)
        assert page.wait_for(100) == list(range(100))
        publisher(redis.url, f"PubSub({redis.url!r}, buffer=100).broadcast('lobby', 100)")  # it is held by nobody
        assert page.wait_for(101)[100] == 100


def test_celery_tasks_publish(redis: RedisServer, make: Make) -> None:
    """A worker that forks, as people run it; the tasks are sent through the same Redis."""
    pubsub = make(redis.url)
    environment = {**os.environ, "REDIS_URL": redis.url, "PYTHONPATH": f"{ROOT}:{APPS}"}
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-c", "2", "--loglevel", "INFO"]
    with page_on(pubsub, "lobby", since=OLDEST) as page:
        worker = Program(command, env=environment)
        try:
            worker.wait_for_log("ready")
            code = "import tasks; [tasks.announce.delay('lobby', n) for n in range(20)]; "
            code += f"tasks.tell.delay({page.mailbox.address!r}, 'you')"
            subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=DEADLINE)
            until(lambda: len([one for one in page.mail if one != "from the parent"]) == 21)
        finally:
            worker.end()
    said = [one for one in page.mail if isinstance(one, dict)]
    assert sorted(one["said"] for one in said) == list(range(20))
    assert worker.pid not in {one["by"] for one in said}
    assert "you" in page.mail
    assert "Traceback" not in worker.log()


def test_a_fork_begins_anew(redis: RedisServer, make: Make) -> None:
    """The child has no part in its parent's connections, neither by threads nor by greenlets."""
    code = (
        """
import os, sys, gevent, gevent.monkey
if sys.argv[1] == "patched": gevent.monkey.patch_all()
"""
        + SUBSCRIBED
        + """
parent = page.mailbox.address
child = gevent.fork()
if not child:
    assert len(pubsub._registry) == 0
    pubsub.broadcast("lobby", "from the child")
    own = Page()
    client = open_client(own)
    client.ping()
    pubsub.subscribe("lobby", own.mailbox)
    assert own.mailbox.address.split(".")[0] != parent.split(".")[0]
    for number in range(300):
        pubsub.broadcast("lobby", number)
    assert own.wait_for(300) == list(range(300))
    os._exit(0)
assert page.wait_for(301) == ["from the child", *range(300)], page.mail
assert gevent.os.waitpid(child, 0)[1] == 0
pubsub.broadcast("lobby", "after")
assert page.wait_for(302)[301] == "after"
print("done")
"""
    )
    for mode in ("patched", "plain"):
        command = [sys.executable, "-c", code, mode, redis.url]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=DEADLINE)
        assert done.stdout.strip() == "done", f"{mode}: {done.stderr}"
        assert "Traceback" not in done.stderr and "PubSub" not in done.stderr, "no connection was disturbed"


class Told:
    """A client of the app ``listening``."""

    def __init__(self, server: Server) -> None:
        self._stack = ExitStack()
        opening = websocket_connect(f"ws://127.0.0.1:{server.port}/", compression=None, max_size=None)
        self._connection: ClientConnection = self._stack.enter_context(opening)
        self.mail: list[Any] = []

    def do(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        """Have a method called, and return its result."""
        self._connection.send(json.dumps([name, arguments, keywords]))
        while True:
            tag, *rest = json.loads(self._connection.recv(DEADLINE))
            if tag == "got":
                self.mail.append(rest[0])
            else:
                assert tag == "did", rest
                return rest[0]

    def wait_for(self, count: int) -> list[Any]:
        """Wait for so many messages in all, and return them."""
        while len(self.mail) < count:
            tag, message = json.loads(self._connection.recv(DEADLINE))
            assert tag == "got"
            self.mail.append(message)
        return self.mail

    def close(self) -> None:
        """Close the connection."""
        self._stack.close()


@contextmanager
def workers(redis: Any, count: int, worker: str = "gevent", **settings: Any) -> Iterator[Server]:
    """Run so many workers with the app ``listening``, loaded before they are forked."""
    environment = {"REDIS_URL": redis.url, "PUBSUB": json.dumps({**QUICK, **settings})}
    more = ["--threads", "8"] if worker == "gthread" else []
    with gunicorn("listening:app", "-w", str(count), "--preload", *more, worker=worker, env=environment) as server:
        until(lambda: len(server.worker_pids) >= count)
        yield server


def one_of_each(server: Server, count: int) -> dict[int, Told]:
    """Connect until there is a client on every worker."""
    found: dict[int, Told] = {}
    deadline = time.monotonic() + DEADLINE
    while len(found) < count:
        assert time.monotonic() < deadline, "some worker takes no connections"
        told = Told(server)
        pid = told.do("pid")
        if pid in found:
            told.close()
        else:
            found[pid] = told
    return found


@pytest.mark.parametrize("worker", ["gevent", "gthread"])
def test_across_workers(redis: RedisServer, worker: str) -> None:
    with workers(redis, 2, worker) as server:
        one, two = one_of_each(server, 2).values()
        for told in (one, two):
            told.do("subscribe", "lobby")
        one.do("broadcast", "lobby", {"n": 1})
        for told in (one, two):
            assert told.wait_for(1) == [{"n": 1}]
        assert one.do("send", two.do("address"), "for two") is True
        assert two.wait_for(2)[1] == "for two"
        two.do("track", "lobby", "bob", {"page": 2})
        assert one.do("list", "lobby") == {"bob": [{"page": 2}]}
        address = two.do("address")
        one.do("monitor", address)
        one.do("send", address, "behind the question for its end")
        assert "behind the question for its end" in two.wait_for(4)
        two.close()
        expected = [
            ["join", "lobby", "bob", {"page": 2}],
            ["leave", "lobby", "bob", {"page": 2}],
            ["down", address, "remote"],
        ]
        assert in_any_order(one.wait_for(4)[1:]) == in_any_order(expected)
        assert one.do("list", "lobby") == {}
        assert one.do("send", address, "gone") is True, "its process is there"
        one.do("monitor", address)
        assert one.wait_for(5)[4] == ["down", address, ["error", "no such connection"]]
        fresh = one_of_each(server, 2)
        fresh.pop(one.do("pid")).close()  # it would take up one of few threads
        (three,) = fresh.values()
        one.do("monitor", three.do("address"))
        assert one.do("held") == {"monitors": 2, "watched": 1}
        one.do("demonitor", three.do("address"))
        assert one.do("held") == {"monitors": 0, "watched": 0}
        three.close()


def test_a_killed_worker_is_noticed(redis: RedisServer) -> None:
    with workers(redis, 2) as server:
        told = one_of_each(server, 2)
        (pid, victim), (_, witness) = told.items()
        witness.do("subscribe", "lobby")
        victim.do("track", "lobby", "ann", 1)
        victim.do("track", "lobby", "ann too", [2])
        address = victim.do("address")
        witness.do("monitor", address)
        os.kill(pid, 9)
        expected = [
            ["join", "lobby", "ann", 1],
            ["join", "lobby", "ann too", [2]],
            ["leave", "lobby", "ann", 1],
            ["leave", "lobby", "ann too", [2]],
            ["down", address, ["error", "process lost"]],
        ]
        assert in_any_order(witness.wait_for(5)) == in_any_order(expected)
        assert witness.do("list", "lobby") == {}
        assert witness.do("send", address, "gone") is False
        until(lambda: not redis.client().keys("websock:owned:*"))
        witness.close()


def test_the_dead_are_not_listed_though_nobody_is_left_to_bury_them(redis: RedisServer, make: Make) -> None:
    pubsub = make(redis.url)
    with workers(redis, 1) as server, workers(redis, 1, lifetime=60) as other:
        told, witness = Told(server), Told(other)
        told.do("track", "lobby", "ann", 1)
        witness.do("track", "lobby", "bob", 2)  # somebody is alive, and does not look again for twenty seconds
        assert pubsub.list("lobby") == {"ann": [1], "bob": [2]}
        server.kill()
        until(lambda: pubsub.list("lobby") == {"bob": [2]})
        assert redis.client().hlen("websock:present:lobby") == 2
        told.close()
        witness.close()
    # A last sign of life over a minute ago, of everybody: here it is as if it had been.
    redis.client().delete("websock:processes")
    redis.client().zadd("websock:processes", {"dead": 1})
    redis.client().hset("websock:present:lobby", "dead.1 bob", '["bob",1]')
    assert pubsub.list("lobby") == {}


@pytest.mark.parametrize("absence", ["frozen", "ended"])
def test_an_absent_server_kills_nobody(redis: RedisServer, absence: str) -> None:
    """Nobody could show a sign of life meanwhile; that is not the same as to have died."""
    redis.stop()
    redis.start("--appendonly", "yes")
    with workers(redis, 2) as server:
        one, two = one_of_each(server, 2).values()
        one.do("subscribe", "lobby")
        two.do("track", "lobby", "bob", 1)
        one.do("monitor", two.do("address"))
        if absence == "frozen":
            redis.freeze()
        else:
            redis.stop()
        gevent.sleep(2 * QUICK["lifetime"])  # what has to pass here is time itself
        if absence == "frozen":
            redis.thaw()
        else:
            redis.start("--appendonly", "yes")
        server.wait_for_log("(?s)is back.*is back")
        signs = redis.client().zrange("websock:processes", 0, -1, withscores=True)
        until(lambda: all(redis.client().zscore("websock:processes", name) > score for name, score in signs))
        assert one.do("list", "lobby") == {"bob": [1]}
        assert one.mail == [["join", "lobby", "bob", 1]]


def test_presence_is_said_again_to_a_server_that_forgot(redis: RedisServer) -> None:
    with workers(redis, 2) as server:
        one, two = one_of_each(server, 2).values()
        one.do("subscribe", "lobby")
        two.do("track", "lobby", "bob", 1)
        one.do("monitor", two.do("address"))
        one.wait_for(1)
        redis.kill()
        redis.start()

        def list_is_back() -> bool:
            one._connection.send(json.dumps(["list", ["lobby"], {}]))
            while (answer := json.loads(one._connection.recv(DEADLINE)))[0] == "got":
                one.mail.append(answer[1])
            return bool(answer[1] == {"bob": [1]})

        until(list_is_back)
        one.wait_for(3)
        assert one.mail[1:3] == [["gap", "lobby"], ["join", "lobby", "bob", 1]]
        address = two.do("address")
        two.close()
        one.wait_for(5)
        assert sorted(map(str, one.mail[3:])) == sorted(
            map(str, [["leave", "lobby", "bob", 1], ["down", address, "remote"]])
        )


def test_workers_that_end_in_good_order_leave_nothing(redis: RedisServer) -> None:
    with workers(redis, 2, lifetime=60) as server:
        for told in one_of_each(server, 2).values():
            told.do("track", "lobby", "ann", 1)
            told.do("subscribe", "lobby")
        assert len(redis.client().zrange("websock:processes", 0, -1)) == 2
    client = redis.client()
    assert client.zrange("websock:processes", 0, -1) == []
    assert client.keys("websock:present:*") == client.keys("websock:inbox:*") == []


def test_the_server_keeps_serving_without_redis(redis: RedisServer) -> None:
    redis.stop()
    with workers(redis, 1) as server:
        told = Told(server)
        told._connection.send(json.dumps(["subscribe", ["lobby"], {}]))
        tag, kind, text = json.loads(told._connection.recv(DEADLINE))
        assert (tag, kind) == ("failed", "Unavailable") and "refused" in text
        assert server.get("/alive").body == b"yes"
        assert told.do("pid")
        redis.start()

        def works() -> bool:
            told._connection.send(json.dumps(["subscribe", ["lobby"], {}]))
            return bool(json.loads(told._connection.recv(DEADLINE))[0] == "did")

        until(works)
        server.get("/broadcast/lobby/hello")
        assert told.wait_for(1) == ["hello"]
    assert "Traceback" not in server.log()


def in_any_order(messages: list[Any]) -> list[str]:
    return sorted(map(json.dumps, messages))


def listener(pubsub: PubSub) -> Any:
    backend: Any = pubsub._use()
    return backend._listener


def drop_connections(redis: RedisServer) -> None:
    """Have the server close all connections but the one that says so."""
    redis.client().execute_command("CLIENT", "KILL", "SKIPME", "yes")
